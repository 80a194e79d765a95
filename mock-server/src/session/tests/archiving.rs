//! What the end of a backup says about archiving.

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::version::ServerVersion;
use tokio::time::Instant;

use crate::config::Config;
use crate::fault::server::Terminate;
use crate::server::Server;
use crate::testing::{Client, End, config, diagnostics};

fn archiving(version: ServerVersion, command: &str) -> Server {
    let settings = [("archive_mode", "on"), ("archive_command", command)];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Server::new(Config { settings, ..config(version, vec![]) }).unwrap()
}

fn backup(version: ServerVersion) -> &'static str {
    if version >= ServerVersion::V15 { "BASE_BACKUP (CHECKPOINT 'fast')" } else { "BASE_BACKUP FAST" }
}

#[tokio::test(start_paused = true)]
async fn stuck_archiving_is_told_ever_more_rarely() {
    let mut told = Vec::new();
    for version in [ServerVersion::V9_6, ServerVersion::V16, ServerVersion::V17] {
        let server = archiving(version, "/bin/false");
        let mut client = Client::start(&server, "test").await;
        client.send(&backstop_protocol::frontend::FrontendMessage::Query(backup(version).into())).await;
        let mut warnings = 0;
        let begun = Instant::now();
        loop {
            let message = client.next().await.unwrap();
            let BackendMessage::NoticeResponse(notice) = &message else { continue };
            let hint = notice.hint.clone().unwrap_or_default();
            told.push(
                format!("{}s {} {hint}", begun.elapsed().as_secs(), diagnostics(&[message]).join("")).trim().to_owned(),
            );
            warnings += 1;
            if warnings == 3 {
                break;
            }
        }
        // The WAL is archived after all.
        server.cluster().set("archive_command", "/bin/true").unwrap();
        let (rest, end) = client.read().await;
        assert_eq!(end, End::Ready);
        told.extend(diagnostics(&rest));
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    6s NOTICE 00000: pg_stop_backup cleanup done, waiting for required WAL segments to be archived
    60s WARNING 01000: pg_stop_backup still waiting for all required WAL segments to be archived (60 seconds elapsed) Check that your archive_command is executing properly.  pg_stop_backup can be canceled safely, but the database backup will not be usable without all the WAL segments.
    120s WARNING 01000: pg_stop_backup still waiting for all required WAL segments to be archived (120 seconds elapsed) Check that your archive_command is executing properly.  pg_stop_backup can be canceled safely, but the database backup will not be usable without all the WAL segments.
    NOTICE 00000: pg_stop_backup complete, all required WAL segments have been archived
    6s NOTICE 00000: base backup done, waiting for required WAL segments to be archived
    60s WARNING 01000: still waiting for all required WAL segments to be archived (60 seconds elapsed) Check that your archive_command is executing properly.  You can safely cancel this backup, but the database backup will not be usable without all the WAL segments.
    120s WARNING 01000: still waiting for all required WAL segments to be archived (120 seconds elapsed) Check that your archive_command is executing properly.  You can safely cancel this backup, but the database backup will not be usable without all the WAL segments.
    NOTICE 00000: all required WAL segments have been archived
    6s NOTICE 00000: base backup done, waiting for required WAL segments to be archived
    60s WARNING 01000: still waiting for all required WAL segments to be archived (60 seconds elapsed) Check that your "archive_command" is executing properly.  You can safely cancel this backup, but the database backup will not be usable without all the WAL segments.
    120s WARNING 01000: still waiting for all required WAL segments to be archived (120 seconds elapsed) Check that your "archive_command" is executing properly.  You can safely cancel this backup, but the database backup will not be usable without all the WAL segments.
    NOTICE 00000: all required WAL segments have been archived
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_backup_that_waits_can_be_ended() {
    let server = archiving(ServerVersion::V18, "");
    let mut client = Client::start(&server, "test").await;
    let query = backstop_protocol::frontend::FrontendMessage::Query(backup(ServerVersion::V18).into());
    client.send(&query).await;
    client.read_until(|message| matches!(message, BackendMessage::NoticeResponse(_))).await;
    server.act(&crate::fault::Action::Terminate(Terminate { client: Some("test".to_owned()) }));
    let (messages, end) = client.read().await;
    assert_eq!(end, End::Closed(0));
    // The backup itself had been stopped: nothing is aborted.
    assert_eq!(diagnostics(&messages), ["FATAL 57P01: terminating connection due to administrator command"]);
}
