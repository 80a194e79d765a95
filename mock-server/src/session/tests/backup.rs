//! Whole backups.

use std::time::Duration;

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::base_backup::manifest::Manifest;
use backstop_protocol::frontend::{FrontendMessage, StartupPacket};
use backstop_protocol::version::ServerVersion;
use tokio::time::Instant;

use crate::config::{Config, ExtraFile, ExtraFileKind, TablespaceConfig};
use crate::fault::Fault;
use crate::server::{BackupOutcome, Server};
use crate::testing::{Client, End, archives, config, server};

/// The smallest cluster there is.
pub(super) fn tiny(version: ServerVersion) -> Config {
    let tablespaces = vec![TablespaceConfig { oid: 16400, location: "/srv/ts1".to_owned(), size: 16 << 10 }];
    Config { version, size: 0, tablespaces, ..Config::default() }
}

pub(super) async fn transcript(config: Config, command: &str) -> String {
    let server = Server::new(config).unwrap();
    let mut client = Client::start(&server, "test").await;
    let (_, end) = client.query(command).await;
    assert_eq!(end, End::Ready);
    client.send(&FrontendMessage::Terminate).await;
    server.idle().await;
    let mut lines: Vec<String> = Vec::new();
    // What is in the cluster, and how much of it, is the cluster's affair: its members are one line.
    let own = ["n ", "p ", "m", "manifest", "backup_label", "tablespace_map", "global/pg_control", "end of archive"];
    let skip = server.transcript().iter().position(|event| event.message == "Query").unwrap();
    for mut event in server.transcript().into_iter().skip(skip) {
        if event.message == "CopyData" {
            if event.detail.starts_with("p ") {
                event.detail = "p …".to_owned();
            }
            let is_own = own.iter().any(|own| event.detail.starts_with(own)) && !event.detail.starts_with("pg_");
            let is_wal = event.detail.contains("0000000000") && event.detail.starts_with("pg_");
            if event.detail == "manifest" || !is_own && !is_wal {
                (event.count, event.bytes) = (1, 0);
            }
            if !is_own && !is_wal {
                event.detail = "… members".to_owned();
            }
        }
        if event.detail.starts_with("NULL, NULL, ") {
            event.detail = "NULL, NULL, …".to_owned();
        }
        let line = event.to_string();
        if lines.last() != Some(&line) || !line.ends_with("members") {
            lines.push(line);
        }
    }
    lines.join("\n")
}

#[tokio::test(start_paused = true)]
async fn a_backup_of_12_is_a_copy_for_each_archive() {
    let command = "BASE_BACKUP  LABEL 'pg_basebackup base backup'  PROGRESS  FAST  NOWAIT";
    insta::assert_snapshot!(transcript(tiny(ServerVersion::V12), command).await, @r#"
    0.000 #1 < Query BASE_BACKUP  LABEL 'pg_basebackup base backup'  PROGRESS  FAST  NOWAIT
    0.000 #1 > RowDescription recptr, tli
    0.000 #1 > DataRow 0/2000028, 1
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > RowDescription spcoid, spclocation, size
    0.000 #1 > DataRow 16400, /srv/ts1, 40
    0.000 #1 > DataRow NULL, NULL, …
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > CopyOutResponse
    0.000 #1 > CopyData … members
    0.000 #1 > CopyDone
    0.000 #1 > CopyOutResponse
    0.000 #1 > CopyData backup_label (3 messages, 1024 bytes)
    0.000 #1 > CopyData … members
    0.000 #1 > CopyData global/pg_control (2 messages, 8704 bytes)
    0.000 #1 > CopyDone
    0.000 #1 > RowDescription recptr, tli
    0.000 #1 > DataRow 0/2000100, 1
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > ReadyForQuery I
    0.000 #1 < Terminate
    0.000 #1 ! connection closed by the client
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_backup_of_18_is_one_copy() {
    let command = "BASE_BACKUP ( LABEL 'pg_basebackup base backup',  PROGRESS,  WAL,  CHECKPOINT 'fast',  WAIT 0,  \
                   TABLESPACE_MAP,  MANIFEST 'yes',  TARGET 'client')";
    insta::assert_snapshot!(transcript(tiny(ServerVersion::V18), command).await, @r#"
    0.000 #1 < Query BASE_BACKUP ( LABEL 'pg_basebackup base backup',  PROGRESS,  WAL,  CHECKPOINT 'fast',  WAIT 0,  TABLESPACE_MAP,  MANIFEST 'yes',  TARGET 'client')
    0.000 #1 > RowDescription recptr, tli
    0.000 #1 > DataRow 0/2000028, 1
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > RowDescription spcoid, spclocation, size
    0.000 #1 > DataRow 16400, /srv/ts1, 40
    0.000 #1 > DataRow NULL, NULL, …
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > CopyOutResponse
    0.000 #1 > CopyData n 16400.tar /srv/ts1
    0.000 #1 > CopyData … members
    0.000 #1 > CopyData end of archive (1024 bytes)
    0.000 #1 > CopyData p …
    0.000 #1 > CopyData n base.tar
    0.000 #1 > CopyData backup_label (3 messages, 1024 bytes)
    0.000 #1 > CopyData tablespace_map (3 messages, 1024 bytes)
    0.000 #1 > CopyData … members
    0.000 #1 > CopyData global/pg_control (2 messages, 8704 bytes)
    0.000 #1 > CopyData pg_wal/000000010000000000000002 (513 messages, 16777728 bytes)
    0.000 #1 > CopyData pg_wal/archive_status/000000010000000000000002.done (512 bytes)
    0.000 #1 > CopyData end of archive (1024 bytes)
    0.000 #1 > CopyData p …
    0.000 #1 > CopyData m
    0.000 #1 > CopyData manifest
    0.000 #1 > CopyDone
    0.000 #1 > RowDescription recptr, tli
    0.000 #1 > DataRow 0/2000120, 1
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > CommandComplete BASE_BACKUP
    0.000 #1 > ReadyForQuery I
    0.000 #1 < Terminate
    0.000 #1 ! connection closed by the client
    "#);
}

#[tokio::test(start_paused = true)]
async fn two_runs_are_the_same_to_the_byte() {
    async fn run(seed: u64) -> (Vec<crate::transcript::Event>, Vec<(String, Vec<u8>)>) {
        let config = Config { seed, wal_rate: 1 << 20, ..config(ServerVersion::V18, Vec::<Fault>::new()) };
        let server = Server::new(config).unwrap();
        let mut backup = Client::start(&server, "backup").await;
        let mut wal = Client::start(&server, "wal").await;
        let start = server.cluster().flush_position();
        wal.send(&FrontendMessage::Query(format!("START_REPLICATION {start}").into())).await;
        let (messages, _) = backup.query("BASE_BACKUP (CHECKPOINT 'fast', MANIFEST 'yes', MAX_RATE 512)").await;
        drop((backup, wal));
        server.idle().await;
        (server.transcript(), archives(&messages))
    }
    let (first, second) = (run(7).await, run(7).await);
    assert!(first.0 == second.0, "the transcripts differ");
    assert!(first.1 == second.1, "the archives differ");
    assert!(first.1 != run(8).await.1);
}

#[tokio::test(start_paused = true)]
async fn the_manifest_lists_what_was_sent_and_what_is_true() {
    let server = server(ServerVersion::V18, vec![]);
    let mut client = Client::start(&server, "test").await;
    let (messages, _) = client.query("BASE_BACKUP (CHECKPOINT 'fast', MANIFEST 'yes', WAL)").await;
    let manifest = archives(&messages).into_iter().find(|(name, _)| name == "manifest").unwrap().1;
    let manifest = Manifest::parse(&manifest).unwrap();
    for entry in crate::cluster::ground_truth(server.cluster()).unwrap() {
        let (path, entry) = entry.unwrap();
        if matches!(entry.kind, crate::cluster::EntryKind::File { .. }) {
            assert_eq!(manifest.file(&path).unwrap().size, entry.size(), "{}", path.escape_ascii());
        }
    }
    let backup = &server.backups()[0];
    assert_eq!(backup.ended, BackupOutcome::Complete);
    assert_eq!(manifest.wal_ranges.len(), 1);
    assert_eq!((manifest.wal_ranges[0].start, Some(manifest.wal_ranges[0].end)), (backup.start, backup.end));
    assert_eq!(server.state().running_backups, 0);
}

#[tokio::test(start_paused = true)]
async fn max_rate_is_kept() {
    let server = server(ServerVersion::V18, vec![]);
    let mut client = Client::start(&server, "test").await;
    let begun = Instant::now();
    let (messages, _) = client.query("BASE_BACKUP (CHECKPOINT 'fast', MAX_RATE 128)").await;
    let bytes: usize = archives(&messages).iter().map(|(_, data)| data.len()).sum();
    let least = Duration::from_millis(u64::try_from(bytes / 131).unwrap());
    assert!(begun.elapsed() + Duration::from_secs(1) > least, "{bytes} bytes in {:?}", begun.elapsed());
    // Progress was told about once a second.
    let progress = crate::testing::payloads(&messages).iter().filter(|payload| payload.starts_with(b"p")).count();
    assert!(progress as u64 > begun.elapsed().as_secs() / 2, "{progress}");
}

#[tokio::test(start_paused = true)]
async fn what_a_session_is_sent_is_counted() {
    let server = server(ServerVersion::V18, vec![]);
    let mut client = Client::start(&server, "test").await;
    let (messages, _) = client.query("BASE_BACKUP (CHECKPOINT 'fast')").await;
    let counts = server.session_counts();
    assert_eq!(counts.len(), 1);
    assert_eq!((counts[0].session, counts[0].role), (1, Some("backup")));
    // Messages from the end of start-up on.
    assert_eq!(counts[0].messages, messages.len() as u64);
    let carried = &counts[0].carried;
    let archives = archives(&messages);
    for (name, data) in &archives {
        assert_eq!(carried.archive(name), Some(data.len() as u64), "{name}");
    }
    assert_eq!((carried.archive("16999.tar"), carried.manifest, carried.wal), (None, None, None));
    let members =
        archives.iter().map(|(_, data)| tar::Archive::new(&data[..]).entries().unwrap().count()).sum::<usize>();
    assert_eq!(carried.members, members as u64);
}

#[tokio::test(start_paused = true)]
async fn a_blackhole_swallows_the_data() {
    let server = server(ServerVersion::V18, vec![]);
    let mut client = Client::start(&server, "test").await;
    let command = "BASE_BACKUP (CHECKPOINT 'fast', MANIFEST 'yes', TABLESPACE_MAP, TARGET 'blackhole')";
    let (messages, end) = client.query(command).await;
    assert_eq!(end, End::Ready);
    let kinds: Vec<_> = crate::testing::payloads(&messages).iter().map(|payload| payload[0] as char).collect();
    assert_eq!(kinds, ['n', 'p', 'n', 'p', 'm']);
}

/// A sparse file of 4 MiB.
fn large(version: ServerVersion) -> Config {
    let kind = ExtraFileKind::Sparse(4 << 20);
    Config { extra_files: vec![ExtraFile { path: b"large".to_vec(), kind, mode: 0o600 }], ..tiny(version) }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_request_is_noticed_behind_a_large_file() {
    let server = Server::new(large(ServerVersion::V18)).unwrap();
    let mut client = Client::connect(&server);
    client.start_up("test").await;
    let (messages, _) = client.read().await;
    let key = messages.iter().find_map(|message| match message {
        BackendMessage::BackendKeyData { pid, key } => Some((*pid, key.clone())),
        _ => None,
    });
    let (pid, key) = key.unwrap();
    client.send(&FrontendMessage::Query("BASE_BACKUP (CHECKPOINT 'fast', WAIT false)".into())).await;
    client
        .read_until(|message| matches!(message, BackendMessage::CopyData(data) if data.starts_with(b"dlarge\0")))
        .await;
    let mut other = Client::connect(&server);
    other.packet(&StartupPacket::Cancel { pid, key }).await;
    let (_, end) = other.read().await;
    assert_eq!(end, End::Closed(0));
    let (messages, end) = client.read().await;
    assert_eq!(end, End::Ready);
    let bytes: usize = crate::testing::payloads(&messages).iter().map(|payload| payload.len() - 1).sum();
    assert_eq!(bytes, 4 << 20);
    assert_eq!(
        crate::testing::diagnostics(&messages),
        [
            "WARNING 01000: aborting backup due to backend exiting before pg_backup_stop was called",
            "ERROR 57014: canceling statement due to user request"
        ]
    );
}

/// Up to 14 only contents of files count, since 15 all that leaves the server.
#[tokio::test(start_paused = true)]
async fn what_max_rate_counts_is_a_matter_of_the_release() {
    let mut took = Vec::new();
    for (version, command) in [
        (ServerVersion::V14, "BASE_BACKUP FAST NOWAIT MAX_RATE 1024"),
        (ServerVersion::V15, "BASE_BACKUP (CHECKPOINT 'fast', WAIT false, MAX_RATE 1024)"),
    ] {
        // A thousand headers and their padding are nearly a megabyte.
        let file = |number: usize| ExtraFile {
            path: format!("file{number:04}").into_bytes(),
            kind: ExtraFileKind::Content(b"x".to_vec()),
            mode: 0o600,
        };
        let config = Config { extra_files: (0..1000).map(file).collect(), ..tiny(version) };
        let server = Server::new(config).unwrap();
        let mut client = Client::start(&server, "test").await;
        let begun = Instant::now();
        let (_, end) = client.query(command).await;
        assert_eq!(end, End::Ready);
        took.push(begun.elapsed());
    }
    assert!(took[1] >= took[0] + Duration::from_millis(875), "{took:?}");
}

/// GNU tar's base-256, as recorded; and a client that has seen enough is not waited for.
#[tokio::test(start_paused = true)]
async fn eight_gibibytes_are_announced_in_base_256() {
    let kind = ExtraFileKind::Sparse(8 << 30);
    let extra_files = vec![ExtraFile { path: b"huge".to_vec(), kind, mode: 0o644 }];
    let server = Server::new(Config { extra_files, ..tiny(ServerVersion::V12) }).unwrap();
    let mut client = Client::start(&server, "test").await;
    client.send(&FrontendMessage::Query("BASE_BACKUP PROGRESS FAST NOWAIT".into())).await;
    let messages = client
        .read_until(|message| matches!(message, BackendMessage::CopyData(data) if data.starts_with(b"huge\0")))
        .await;
    let header = crate::testing::payloads(&messages).pop().unwrap();
    assert_eq!(&header[100..108], b"0000644 ");
    assert_eq!(header[124..136], [0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
    drop(client);
    server.idle().await;
    assert_eq!(server.backups()[0].ended, BackupOutcome::Failed("the connection was lost".to_owned()));
    assert_eq!(server.state().running_backups, 0);
}
