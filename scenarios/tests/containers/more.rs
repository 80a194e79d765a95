//! Backups that need more than BASE_BACKUP: a chain of incremental ones, and one by files over ordinary connections.

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backstop_client::combine::{CombineObserver, CombineOptions, combine_backups};
use backstop_client::parallel::{ParallelOptions, parallel_backup};
use backstop_client::{Silent, base_backup};

use super::postgres::{Postgres, ROWS, server};
use super::restore::starts;

/// Nobody is warned.
struct Nobody;

impl CombineObserver for Nobody {
    fn warning(&mut self, text: &str, _hint: Option<&str>) {
        unreachable!("a sound chain needs no warning: {text}");
    }
}

/// Takes a backup that builds on the one called `on`.
async fn back_up(source: &Postgres, name: &str, on: Option<&str>) {
    let mut options = source.plain(name);
    options.incremental = on.map(|on| source.shared.path().join(on).join("backup_manifest"));
    let connector = Arc::new(source.connector().await);
    base_backup(connector, options, Arc::new(Silent)).await.expect("a whole backup");
}

#[tokio::test]
async fn a_chain_of_incremental_backups_is_combined_and_starts() {
    let Some(source) = server(18, "a chain of incremental backups", &["summarize_wal=on"]).await else { return };
    source.query("CREATE TABLE changed AS SELECT n, 0 AS round FROM generate_series(1, 100000) n").await;
    back_up(&source, "full", None).await;
    let mut names = vec!["full".to_owned()];
    for round in 1..=3 {
        source.query(&format!("UPDATE changed SET round = {round} WHERE n % 1000 = {round}")).await;
        let (name, on) = (format!("later{round}"), names.last().cloned());
        back_up(&source, &name, on.as_deref()).await;
        // It is verified by itself: what it holds is what its manifest says.
        source.verifies(&name, &[]).await;
        names.push(name);
    }
    let pieces = source.shared.path().join("later3/base/5");
    let pieces = std::fs::read_dir(pieces).expect("a database").flatten();
    let pieces = pieces.filter(|entry| entry.file_name().to_string_lossy().starts_with("INCREMENTAL."));
    assert!(pieces.count() > 10, "the last of the chain is incremental");
    let inputs: Vec<PathBuf> = names.iter().map(|name| source.shared.path().join(name)).collect();
    let options = CombineOptions::new(inputs, source.shared.path().join("combined"));
    combine_backups(&options, &mut Nobody).expect("a full backup");
    source.verifies("combined", &[]).await;
    let restored = source.on_backup("combined").await;
    assert_eq!(restored.query("SELECT count(*) FROM kept").await, ROWS.to_string());
    assert_eq!(restored.query("SELECT string_agg(c::text, ' ' ORDER BY round) FROM (SELECT round, count(*) c FROM changed GROUP BY 1) x").await, "99700 100 100 100");
}

#[tokio::test]
async fn a_backup_by_files_is_taken_over_many_connections_and_starts() {
    for major in [15, 18] {
        let Some(source) = server(major, "a backup by files", &["max_connections=20"]).await else { continue };
        let mut options = ParallelOptions::new("postgres", source.shared.path().join("files"));
        options.fast_checkpoint = true;
        options.wal = Some(Duration::from_millis(100));
        options.jobs = NonZero::new(4).expect("a number");
        options.sync = false;
        let connector = source.connector().await;
        let taken = parallel_backup(&connector, &options, Arc::new(Silent), std::future::pending()).await;
        taken.expect("a whole backup");
        starts(&source, "files").await;
        assert_eq!(
            source.query("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'parallelbackup'").await,
            "0"
        );
    }
}
