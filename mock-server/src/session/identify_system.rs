//! IDENTIFY_SYSTEM.

use super::output::{self, INT4, INT8, TEXT, column, value};
use super::{Session, Stop};

impl Session {
    /// Who the server is and how far its WAL goes.
    pub(super) async fn identify_system(&mut self) -> Result<(), Stop> {
        let cluster = &self.shared.cluster;
        let timeline_type = if self.version.describes_rows_precisely() { INT8 } else { INT4 };
        let mut columns =
            vec![column("systemid", TEXT, -1), column("timeline", timeline_type, -1), column("xlogpos", TEXT, -1)];
        let mut row = output::row([
            value(cluster.system_identifier()),
            value(cluster.timeline()),
            value(cluster.flush_position()),
        ]);
        if self.version.identifies_database() {
            columns.push(column("dbname", TEXT, -1));
            row.push(self.database.as_ref().map(value));
        }
        self.rows(columns, vec![row]).await
    }
}
