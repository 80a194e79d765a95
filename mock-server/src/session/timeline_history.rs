//! TIMELINE_HISTORY.

use backstop_protocol::backend::{BackendMessage, Diagnostic, SqlState};
use backstop_protocol::timeline::TimelineId;

use super::output::{BYTEA, TEXT, column, row, value};
use super::{Session, Stop};

impl Session {
    /// The history file of a timeline. The description of the row comes before the file is opened, which may fail.
    pub(super) async fn timeline_history(&mut self, timeline: u32) -> Result<(), Stop> {
        let timeline = TimelineId(timeline);
        let content_type = if self.version.history_is_text() { TEXT } else { BYTEA };
        let modifier = if self.version.describes_rows_precisely() { -1 } else { 0 };
        let columns = vec![column("filename", TEXT, modifier), column("content", content_type, modifier)];
        self.send(BackendMessage::RowDescription(columns)).await?;
        let name = timeline.history_file_name();
        let Some(history) = self.shared.cluster.history(timeline) else {
            let path = format!("{}/{name}", self.version.wal_directory());
            let message = format!("could not open file \"{path}\": No such file or directory");
            return Err(Diagnostic::error(SqlState::UNDEFINED_FILE, message).into());
        };
        self.send(BackendMessage::DataRow(row([value(name), value(history)]))).await
    }
}
