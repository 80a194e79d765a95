//! Backups that a server is started on.

use super::postgres::{Postgres, ROWS, server};
use backstop_client::{Silent, WalMethod, base_backup};
use std::sync::Arc;

/// Starts a server of the same release on the plain backup `name`, and requires that the table is there as it was.
pub(crate) async fn starts(source: &Postgres, name: &str) {
    let restored = source.on_backup(name).await;
    assert_eq!(restored.query("SELECT count(*) FROM kept").await, ROWS.to_string());
    assert_eq!(restored.query("SELECT pg_is_in_recovery()").await, "f");
}

#[tokio::test]
async fn a_server_starts_on_a_backup_taken_under_load() {
    for major in [15, 18] {
        let Some(source) = server(major, "a backup under load", &[]).await else { continue };
        source.query("CREATE TABLE busy (n bigint)").await;
        let load = source.query("INSERT INTO busy SELECT generate_series(1, 300000)");
        let connector = Arc::new(source.connector().await);
        let mut options = source.plain("backup");
        options.wal = WalMethod::Stream;
        let (summary, _) = tokio::join!(base_backup(connector, options, Arc::new(Silent)), load);
        let summary = summary.expect("a whole backup");
        assert!(summary.end > summary.start);
        source.verifies("backup", &[]).await;
        starts(&source, "backup").await;
    }
}
