//! Things that happen to a server while it is backed up.

use std::sync::Arc;

use backstop_client::{BackupSummary, ClientError, Silent, SlotOption, WalMethod, base_backup};

use tokio::task::LocalSet;

use super::gate::Gate;
use super::postgres::{Postgres, server};
use super::restore::starts;

/// Bytes of an archive after which the client stops reading: well before its end, beyond the start of the files.
const MIDDLE: u64 = 1 << 20;

/// Begins a backup that stands still in the middle of its archive: the gate, and the backup.
async fn held(
    source: &Postgres,
    name: &str,
    wal: WalMethod,
) -> (Arc<Gate>, tokio::task::JoinHandle<Result<BackupSummary, ClientError>>) {
    let gate = Arc::new(Gate::new(source.connector().await, MIDDLE));
    let mut options = source.plain(name);
    options.wal = wal;
    options.slot = SlotOption::None;
    options.login.application_name = name.to_owned();
    let (connector, observer) = (Arc::clone(&gate), Arc::new(Silent));
    let running = tokio::task::spawn_local(async move { base_backup(connector, options, observer).await });
    gate.reached().await;
    (gate, running)
}

/// Requires that a backup failed with one of `says`, and that nothing is left that passes for one.
fn failed<T>(source: &Postgres, name: &str, result: Result<T, ClientError>, says: &[&str]) {
    let error = result.err().expect("a failure").to_string();
    assert!(says.iter().any(|says| error.contains(says)), "{error}");
    let left = source.shared.path().join(name);
    assert!(!left.join("backup_manifest").exists() && !left.join("backup_label").exists(), "{}", left.display());
}

#[tokio::test]
async fn wal_that_was_recycled_fails_a_backup_that_fetches_it() {
    LocalSet::new().run_until(Box::pin(recycled())).await;
}

async fn recycled() {
    let settings = ["wal_keep_size=0", "min_wal_size=32MB", "max_wal_size=48MB"];
    for major in [15, 18] {
        let Some(source) = server(major, "recycled WAL", &settings).await else { continue };
        let (gate, running) = held(&source, "fetch", WalMethod::Fetch).await;
        // Until the server has none of the segments left that the backup began with.
        let first = source.query("SELECT min(name) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'").await;
        for _ in 0..20 {
            source
                .query("SELECT pg_switch_wal() FROM pg_logical_emit_message(false, 'load', repeat('x', 100000))")
                .await;
            source.query("CHECKPOINT").await;
        }
        let now = source.query("SELECT min(name) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'").await;
        assert!(now > first, "{first} is still there");
        gate.open();
        failed(&source, "fetch", running.await.expect("the client"), &["has already been removed"]);
    }
}

#[tokio::test]
async fn a_backup_that_is_terminated_does_not_harm_another() {
    LocalSet::new().run_until(Box::pin(terminated())).await;
}

async fn terminated() {
    for major in [15, 18] {
        // The checkpoint of the second would recycle what the first needs.
        let Some(source) = server(major, "two backups at once", &["wal_keep_size=160MB"]).await else { continue };
        let (first_gate, first) = held(&source, "first", WalMethod::Stream).await;
        let (second_gate, second) = held(&source, "second", WalMethod::Stream).await;
        let ended = source
            .query(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_replication \
                 WHERE application_name = 'first' AND state = 'backup'",
            )
            .await;
        assert_eq!(ended, "1");
        first_gate.open();
        second_gate.open();
        // A walsender that waits for its client to read often has no way to say why it ends.
        let says = ["server closed the connection unexpectedly", "terminating connection due to administrator command"];
        failed(&source, "first", first.await.expect("the client"), &says);
        second.await.expect("the client").expect("a whole backup");
        source.verifies("second", &[]).await;
        starts(&source, "second").await;
    }
}

#[tokio::test]
async fn a_standby_that_is_promoted_fails_its_backup() {
    LocalSet::new().run_until(Box::pin(promoted())).await;
}

async fn promoted() {
    for major in [15, 18] {
        let Some(primary) = server(major, "a standby that is promoted", &[]).await else { continue };
        let standby = primary.standby().await;
        assert_eq!(standby.query("SELECT pg_is_in_recovery()").await, "t");
        let (gate, running) = held(&standby, "promoted", WalMethod::Fetch).await;
        assert_eq!(standby.query("SELECT pg_promote()").await, "t");
        gate.open();
        failed(
            &standby,
            "promoted",
            running.await.expect("the client"),
            &["the standby was promoted during online backup"],
        );

        // Before and after it there is nothing wrong with such a server.
        base_backup(Arc::new(standby.connector().await), standby.plain("after"), Arc::new(Silent))
            .await
            .expect("a whole backup");
        standby.verifies("after", &[]).await;
    }
}

#[tokio::test]
async fn a_server_that_is_killed_fails_its_backup_and_can_be_backed_up_again() {
    LocalSet::new().run_until(Box::pin(killed())).await;
}

async fn killed() {
    for major in [15, 18] {
        let Some(source) = server(major, "a server that is killed", &[]).await else { continue };
        let (gate, running) = held(&source, "killed", WalMethod::Stream).await;
        source.container.stop_with_timeout(Some(0)).await.expect("it dies");
        gate.open();
        failed(&source, "killed", running.await.expect("the client"), &[""]);
        source.container.start().await.expect("it comes back");
        // The engine gives a started container another port, and the server recovers before it answers.
        for attempt in 0.. {
            let (status, said) = source.exec(&["pg_ctl", "status"]).await;
            let ready = source.exec(&["psql", "-XAtqc", "SELECT 1", "-U", "postgres"]).await.0 == 0;
            if ready {
                break;
            }
            assert!(attempt < 300, "not ready: {status} {said}");
        }
        base_backup(Arc::new(source.connector().await), source.plain("again"), Arc::new(Silent))
            .await
            .expect("a whole backup");
        source.verifies("again", &[]).await;
        starts(&source, "again").await;
    }
}
