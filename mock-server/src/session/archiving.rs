//! What the end of a backup says about archiving, and how long it waits for it: the end of `do_pg_backup_stop`.

use std::time::Duration;

use backstop_protocol::backend::{BackendMessage, Diagnostic, SqlState};
use tokio::time::Instant;

use super::{Session, Stop};

/// After so many seconds the first WARNING comes, the next after twice as many.
const FIRST_WARNING: u32 = 60;

impl Session {
    /// Waits until the WAL that a backup needs has been archived, and says so. `in_recovery`: the backup was taken from a
    /// standby, which archives only with `archive_mode = always`.
    pub(super) async fn wait_for_archiving(&mut self, in_recovery: bool) -> Result<(), Stop> {
        let words = self.version.archiving_words();
        if !self.shared.cluster.archives(in_recovery) {
            let message = "WAL archiving is not enabled; you must ensure that all required WAL segments are copied \
                           through other means to complete the backup";
            return self.notice(message).await;
        }
        let (mut waits, mut warning, mut reported) = (0_u32, FIRST_WARNING, false);
        while self.shared.cluster.archiving_fails() {
            if !reported && waits > 5 {
                self.notice(words.waiting).await?;
                reported = true;
            }
            self.pause(Instant::now().checked_add(Duration::from_secs(1))).await?;
            waits = waits.saturating_add(1);
            if waits >= warning {
                warning = warning.saturating_mul(2);
                let message = format!("{} ({waits} seconds elapsed)", words.still_waiting);
                let command = self.version.setting_in_message("archive_command");
                let hint = format!("Check that your {command} is executing properly.  {}", words.hint);
                let warning = Diagnostic::warning(SqlState::WARNING, message).with_hint(hint);
                self.send(BackendMessage::NoticeResponse(warning)).await?;
            }
        }
        self.notice(words.done).await
    }

    async fn notice(&mut self, message: &str) -> Result<(), Stop> {
        let notice = Diagnostic::notice(SqlState::SUCCESSFUL_COMPLETION, message);
        self.send(BackendMessage::NoticeResponse(notice)).await
    }
}
