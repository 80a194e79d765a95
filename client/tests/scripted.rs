//! Backups of a server that plays a story, sound or spoiled. What is sound must be taken, in whatever pieces it comes; what is
//! not must fail and leave nothing.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backstop_client::conninfo::Conninfo;
use backstop_client::{
    BackupOptions, BackupSummary, ClientError, ManifestOption, Phase, RecoveryConfiguration, Silent, SlotOption,
    Target, WalMethod, base_backup,
};
use backstop_protocol::backend::{BackendMessage, Diagnostic, SqlState};
use backstop_protocol::base_backup::archive::ArchiveMessage;
use backstop_protocol::base_backup::tar::MemberKind;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal::stream::{PgTimestamp, WalMessage};
use bytes::{Bytes, BytesMut};
use support::story::{LABEL, LOCATION, Peer, Plot, Story, TABLESPACE, data, member, rows, wal_data};
use tempfile::TempDir;

const V15: ServerVersion = ServerVersion::V15;
const VERSIONS: [ServerVersion; 7] = [
    ServerVersion::V12,
    ServerVersion::V13,
    ServerVersion::V14,
    ServerVersion::V15,
    ServerVersion::V16,
    ServerVersion::V17,
    ServerVersion::V18,
];

/// A place for a backup.
struct Place {
    scratch: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { scratch: tempfile::tempdir().unwrap() }
    }

    fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    fn plain(&self) -> BackupOptions {
        let mut options = BackupOptions::new("me", Target::Plain { directory: self.data(), waldir: None });
        options.label = LABEL.into();
        options.wal = WalMethod::None;
        options.sync = false;
        options.tablespace_mapping = vec![(LOCATION.into(), self.scratch.path().join("ts"))];
        options
    }

    fn tar(&self) -> BackupOptions {
        BackupOptions { target: Target::Tar { directory: self.data() }, ..self.plain() }
    }

    fn left(&self) -> Vec<PathBuf> {
        let mut left: Vec<PathBuf> =
            std::fs::read_dir(self.scratch.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        left.sort();
        left
    }
}

async fn play(story: Story, options: BackupOptions) -> Result<BackupSummary, ClientError> {
    base_backup(Arc::new(Peer::new(story)), options, Arc::new(Silent)).await
}

/// Plays a plain backup without WAL, and requires that it fails and leaves nothing.
async fn refuse(story: Story, about: &str) -> ClientError {
    let place = Place::new();
    let result = play(story, place.plain()).await;
    assert_eq!(place.left(), Vec::<PathBuf>::new(), "{about}");
    result.expect_err(about)
}

fn sound() -> Story {
    Story::new(Plot::plain(V15))
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_release_is_understood() {
    for version in VERSIONS {
        let place = Place::new();
        let story = Story::new(Plot::plain(version));
        let (start, end) = (story.start, story.end);
        let options = BackupOptions { wal: WalMethod::Stream, ..place.plain() };
        let summary = play(story, options).await.unwrap();
        assert_eq!((summary.start, summary.end, summary.manifest), (start, end, version.has_manifest()));
        assert_eq!(summary.archives, [format!("{TABLESPACE}.tar"), "base.tar".to_owned()]);
        let data = place.data();
        assert_eq!(read(&data.join("base/1/1259")), vec![42; 20_000]);
        assert_eq!(read(&data.join("PG_VERSION")), format!("{version}\n").as_bytes());
        assert!(data.join("global/pg_control").exists() && !data.join("global/pg_control.tmp").exists());
        assert_eq!(data.join("backup_manifest").exists(), version.has_manifest());
        let link = std::fs::read_link(data.join(format!("pg_tblspc/{TABLESPACE}"))).unwrap();
        assert_eq!(link, place.scratch.path().join("ts"));
        let file = link.join(version.tablespace_version_directory()).join("5/16400");
        assert_eq!(read(&file), [7; 8192]);
        let segments = ["000000010000000000000002", "000000010000000000000003"];
        for segment in segments {
            assert_eq!(read(&data.join("pg_wal").join(segment)).len(), 1 << 20);
        }
        assert!(data.join("pg_wal/archive_status/000000010000000000000002.done").exists());
    }
}

#[tokio::test(start_paused = true)]
async fn tar_files_are_what_was_sent_and_end_as_tar_files_do() {
    for version in VERSIONS {
        let place = Place::new();
        let story = Story::new(Plot { map: true, ..Plot::plain(version) });
        let archives = archives(&story);
        play(story, BackupOptions { wal: WalMethod::Stream, ..place.tar() }).await.unwrap();
        for (name, mut sent) in archives {
            if !version.sends_tar_trailer() {
                sent.extend([0; 1024]);
            }
            assert!(read(&place.data().join(&name)) == sent, "{version} {name}");
        }
        let wal = read(&place.data().join("pg_wal.tar"));
        let mut wal = tar::Archive::new(&wal[..]);
        let names = wal.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
        let names: Vec<String> = names.collect();
        assert_eq!(names[..2], ["000000010000000000000002", "archive_status/000000010000000000000002.done"]);
        assert_eq!(place.data().join("backup_manifest").exists(), version.has_manifest());
        assert!(
            !std::fs::read_dir(place.data()).unwrap().any(|e| e.unwrap().path().extension() == Some("tmp".as_ref()))
        );
    }
}

/// The archives of a story, put together.
fn archives(story: &Story) -> Vec<(String, Vec<u8>)> {
    let names = [format!("{TABLESPACE}.tar"), "base.tar".to_owned()];
    let mut archives: Vec<(String, Vec<u8>)> = Vec::new();
    let mut copies = names.iter();
    for message in &story.backup {
        match message {
            BackendMessage::CopyOutResponse if !story.version.has_archive_stream() => {
                let Some(name) = copies.next() else { break };
                archives.push((name.clone(), Vec::new()));
            }
            BackendMessage::CopyData(payload) if !story.version.has_archive_stream() => {
                archives.last_mut().unwrap().1.extend_from_slice(payload);
            }
            BackendMessage::CopyData(payload) => match ArchiveMessage::decode(payload.clone()).unwrap() {
                ArchiveMessage::NewArchive { .. } => archives.push((copies.next().unwrap().clone(), Vec::new())),
                ArchiveMessage::Data(bytes) => archives.last_mut().unwrap().1.extend_from_slice(&bytes),
                ArchiveMessage::Manifest => break,
                ArchiveMessage::Progress(_) => {}
            },
            _ => {}
        }
    }
    archives
}

#[tokio::test(start_paused = true)]
async fn wal_in_the_base_archive_is_checked() {
    let plot = Plot { fetch: true, ..Plot::plain(V15) };
    let place = Place::new();
    let options = || BackupOptions { wal: WalMethod::Fetch, ..place.plain() };
    let segment = |messages: &[BackendMessage], name: &str| {
        messages.iter().position(|message| {
            matches!(message, BackendMessage::CopyData(payload) if payload.windows(name.len()).any(|w| w == name.as_bytes()))
        })
    };
    // A segment of zeros in place of the second one.
    let mut story = Story::new(plot);
    let at = segment(&story.backup, "pg_wal/000000010000000000000003").unwrap();
    for message in &mut story.backup[at + 1..at + 129] {
        *message = data(&ArchiveMessage::Data(Bytes::from_static(&[0; 8192])));
    }
    let error = play(story, options()).await.expect_err("zeros");
    assert!(matches!(error, ClientError::Wal { .. }), "{error}");
    // Without the second segment and its mark.
    let mut story = Story::new(plot);
    story.backup.drain(at..at + 130);
    let error = play(story, options()).await.expect_err("no segment");
    assert_eq!(error.to_string(), "could not find WAL file \"000000010000000000000003\"");
    assert!(place.left().is_empty());
    play(Story::new(plot), options()).await.unwrap();
    assert_eq!(read(&place.data().join("pg_wal/000000010000000000000003")).len(), 1 << 20);
}

#[tokio::test(start_paused = true)]
async fn any_cut_leaves_nothing() {
    let whole = sound();
    for end in 0..whole.backup.len() {
        let backup = whole.backup[..end].to_vec();
        let error =
            refuse(Story { backup, hang_up: true, ..whole.clone() }, &format!("cut before message {end}")).await;
        assert!(matches!(error, ClientError::Closed { .. } | ClientError::Connection { .. }), "{end}: {error}");
    }
}

/// What a backup can do without: progress reports, and a directory that the server makes anew.
fn can_be_missing(story: &Story, index: usize) -> bool {
    let BackendMessage::CopyData(payload) = &story.backup[index] else { return false };
    let status = b"./pg_wal/archive_status/";
    is_progress(story, index) || payload.windows(status.len()).take(2).any(|name| name == status)
}

fn is_progress(story: &Story, index: usize) -> bool {
    let first = |message: &BackendMessage| match message {
        BackendMessage::CopyData(payload) => payload.first().copied(),
        _ => None,
    };
    story.version.has_archive_stream() && first(&story.backup[index]) == Some(b'p')
}

#[tokio::test(start_paused = true)]
async fn any_missing_message_is_noticed() {
    for version in [ServerVersion::V14, V15] {
        let whole = Story::new(Plot::plain(version));
        for index in 0..whole.backup.len() {
            if can_be_missing(&whole, index) {
                continue;
            }
            let mut story = Story { hang_up: true, ..whole.clone() };
            story.backup.remove(index);
            refuse(story, &format!("{version} without message {index}")).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn any_repeated_message_is_noticed() {
    for version in [ServerVersion::V14, V15] {
        let whole = Story::new(Plot::plain(version));
        // What comes behind the last message belongs to nothing, and is never read.
        for index in 0..whole.backup.len() - 1 {
            if is_progress(&whole, index) {
                continue;
            }
            let mut story = Story { hang_up: true, ..whole.clone() };
            story.backup.insert(index, story.backup[index].clone());
            refuse(story, &format!("{version} with message {index} twice")).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn any_changed_byte_is_noticed() {
    let whole = sound();
    for index in 0..whole.backup.len() {
        let BackendMessage::CopyData(payload) = &whole.backup[index] else { continue };
        if is_progress(&whole, index) {
            continue;
        }
        for at in [0, 1.min(payload.len() - 1), payload.len() / 2, payload.len() - 1] {
            let mut changed = payload.to_vec();
            changed[at] ^= 1;
            let mut story = Story { hang_up: true, ..whole.clone() };
            story.backup[index] = BackendMessage::CopyData(changed.into());
            refuse(story, &format!("byte {at} of message {index}")).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn notices_and_settings_may_come_anywhere() {
    let mut story = sound();
    let notice = BackendMessage::NoticeResponse(Diagnostic::notice(SqlState::SUCCESSFUL_COMPLETION, "hello"));
    let setting = BackendMessage::ParameterStatus { name: "in_hot_standby".into(), value: "off".into() };
    story.backup = story.backup.into_iter().flat_map(|message| [notice.clone(), setting.clone(), message]).collect();
    let place = Place::new();
    play(story, place.plain()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn pieces_of_any_size_make_the_same_backup() {
    for pipe in [1, 7, 513] {
        let place = Place::new();
        play(Story { pipe, ..Story::new(Plot { tablespace: false, ..Plot::plain(V15) }) }, place.plain())
            .await
            .unwrap();
        assert_eq!(read(&place.data().join("base/1/1259")), vec![42; 20_000]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_at_the_very_end_counts() {
    let mut story = sound();
    let last = story.backup.len() - 2;
    let error = Diagnostic::error(SqlState::DATA_CORRUPTED, "checksum verification failure during base backup");
    story.backup[last] = BackendMessage::ErrorResponse(error);
    let error = refuse(story, "XX001").await;
    assert_eq!(error.to_string(), "checksum error occurred");
    assert_eq!(error.sqlstate(), Some(SqlState::DATA_CORRUPTED));
}

#[tokio::test(start_paused = true)]
async fn end_positions_are_believed_only_if_they_can_be() {
    for (end, timeline) in [("xyz", "1"), ("0/1", "1"), ("0/0", "1"), ("0/300000", "0"), ("0/300000", "x")] {
        let mut story = sound();
        let row = rows(2, &[&[Some(end), Some(timeline)]]).remove(1);
        let at = story.backup.iter().rposition(|message| matches!(message, BackendMessage::DataRow(_))).unwrap();
        story.backup[at] = row;
        refuse(story, end).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_outside() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    let links = [
        ("lnk", victim.display().to_string()),
        ("pg_tblspc/16392", outside.path().display().to_string()),
        ("base/lnk", "../../..".to_owned()),
    ];
    let files = ["../victim".to_owned(), victim.display().to_string(), "base/../../victim".to_owned()];
    let mut extras: Vec<Vec<Vec<u8>>> = Vec::new();
    for name in &files {
        extras.push(member(name, MemberKind::File, b"x"));
    }
    for (name, target) in &links {
        let mut pieces = member(name, MemberKind::Symlink { target: target.clone().into_bytes() }, b"");
        pieces.extend(member(&format!("{name}/victim"), MemberKind::File, b"x"));
        extras.push(pieces);
    }
    for extra in extras {
        let mut story = sound();
        let version = b"PG_VERSION";
        let at = story.backup.iter().position(
            |message| matches!(message, BackendMessage::CopyData(payload) if payload.get(1..11) == Some(&version[..])),
        );
        let at = at.unwrap();
        let extra = extra.into_iter().map(|piece| data(&ArchiveMessage::Data(piece.into())));
        story.backup.splice(at..at, extra);
        let error = refuse(story, "a hostile member").await;
        assert!(matches!(error, ClientError::Archive { .. }), "{error}");
        assert!(!victim.exists());
    }
}

#[tokio::test(start_paused = true)]
async fn streamed_wal_must_be_whole_and_valid() {
    let whole = sound();
    let first = Lsn(0x20_0000);
    let error = |code, text: &str| BackendMessage::ErrorResponse(Diagnostic::error(code, text));
    let mut without_second = whole.wal.clone();
    without_second.remove(1);
    let mut twice = whole.wal.clone();
    twice.insert(1, twice[0].clone());
    let mut zeros = whole.wal.clone();
    zeros[2] = wal_data(first + (2 << 17), Lsn(0x50_0000), &vec![0; 1 << 17]);
    let mut flipped = whole.wal.clone();
    if let BackendMessage::CopyData(payload) = &flipped[1] {
        let mut changed = payload.to_vec();
        changed[5000] ^= 1;
        flipped[1] = BackendMessage::CopyData(changed.into());
    }
    let mut early = whole.wal[..3].to_vec();
    early.extend([BackendMessage::CopyDone, BackendMessage::CommandComplete("START_STREAMING".into())]);
    let shutdown = vec![BackendMessage::CommandComplete("COPY 0".into())];
    let short = vec![BackendMessage::CopyData(Bytes::from_static(b"w123"))];
    let unknown = vec![BackendMessage::CopyData(Bytes::from_static(b"Z"))];
    let removed = "requested WAL segment 000000010000000000000002 has already been removed";
    let gone = vec![error(SqlState::UNDEFINED_FILE, removed)];
    let spoiled = [
        ("a hole", without_second, "got WAL data at"),
        ("WAL twice", twice, "got WAL data at"),
        ("zeros", zeros, "write-ahead log at"),
        ("a changed byte", flipped, "write-ahead log at"),
        ("an early end", early, "replication stream was terminated before stop point"),
        ("shutdown", shutdown, "replication stream was terminated before stop point"),
        ("a short message", short, "streaming header too small: 4"),
        ("an unknown message", unknown, "unrecognized streaming header: \"Z\""),
        ("removed WAL", gone, removed),
    ];
    for (about, wal, expected) in spoiled {
        let place = Place::new();
        let options = BackupOptions { wal: WalMethod::Stream, ..place.plain() };
        let error = play(Story { wal, ..whole.clone() }, options).await.expect_err(about);
        assert!(error.to_string().contains(expected), "{about}: {error}");
        assert!(place.left().is_empty(), "{about}");
    }
    let place = Place::new();
    let options = BackupOptions { wal: WalMethod::Stream, ..place.plain() };
    let error = play(Story { wal_system: 1, ..whole }, options).await.expect_err("another system");
    let expected = "system identifier does not match between base backup and streaming connections";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test(start_paused = true)]
async fn one_wal_message_may_hold_several_segments() {
    let mut story = sound();
    let payload = |message: &BackendMessage| match message {
        BackendMessage::CopyData(payload) => payload.slice(25..),
        _ => Bytes::new(),
    };
    let whole: Vec<u8> = story.wal.iter().flat_map(|message| payload(message).to_vec()).collect();
    story.wal = vec![wal_data(Lsn(0x20_0000), Lsn(0x50_0000), &whole)];
    let place = Place::new();
    play(story, BackupOptions { wal: WalMethod::Stream, ..place.plain() }).await.unwrap();
    let second = read(&place.data().join("pg_wal/000000010000000000000003"));
    assert!(second == whole[1 << 20..2 << 20]);
}

#[tokio::test(start_paused = true)]
async fn the_server_hears_what_pg_basebackup_says() {
    let place = Place::new();
    let mut story = sound();
    let mut keepalive = BytesMut::new();
    let asked = WalMessage::Keepalive { wal_end: Lsn(1), sent_at: PgTimestamp(0), reply_requested: true };
    asked.encode(&mut keepalive);
    story.wal.insert(8, BackendMessage::CopyData(keepalive.freeze()));
    let peer = Arc::new(Peer::new(story));
    let heard = peer.heard();
    let options = BackupOptions { wal: WalMethod::Stream, fast_checkpoint: true, ..place.plain() };
    base_backup(peer, options, Arc::new(Silent)).await.unwrap();
    insta::assert_snapshot!(heard.lock().unwrap().join("\n"), @r#"
    SHOW data_directory_mode
    SHOW wal_segment_size
    IDENTIFY_SYSTEM
    BASE_BACKUP ( LABEL 'story',  PROGRESS,  CHECKPOINT 'fast',  WAIT 0,  MANIFEST 'yes',  TARGET 'client')
    SHOW data_directory_mode
    CREATE_REPLICATION_SLOT "pg_basebackup_4711" TEMPORARY PHYSICAL ( RESERVE_WAL)
    IDENTIFY_SYSTEM
    START_REPLICATION SLOT "pg_basebackup_4711" 0/200000 TIMELINE 1
    r 0/200000 0/200000
    r 0/300000 0/300000
    CopyDone
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_slot_can_be_named_or_left_out() {
    for (slot, expected) in [
        (SlotOption::None, vec!["START_REPLICATION 0/200000 TIMELINE 1", "r 0/200000 0/0"]),
        (
            SlotOption::Named { name: "s1".into(), create: true },
            vec![
                "CREATE_REPLICATION_SLOT \"s1\" PHYSICAL ( RESERVE_WAL)",
                "START_REPLICATION SLOT \"s1\" 0/200000 TIMELINE 1",
                "r 0/200000 0/200000",
            ],
        ),
    ] {
        let place = Place::new();
        let peer = Arc::new(Peer::new(sound()));
        let heard = peer.heard();
        let options = BackupOptions { wal: WalMethod::Stream, slot, ..place.plain() };
        base_backup(peer, options, Arc::new(Silent)).await.unwrap();
        let heard = heard.lock().unwrap();
        for line in expected {
            assert!(heard.iter().any(|heard| heard == line), "{line}: {heard:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn silence_ends_at_its_deadline() {
    let limit = Some(Duration::from_secs(60));
    let whole = sound();
    let cases =
        [(0, Phase::WaitingForCheckpoint), (10, Phase::Receiving), (whole.backup.len() - 3, Phase::WaitingForEnd)];
    for (messages, phase) in cases {
        let place = Place::new();
        let mut options = place.plain();
        options.deadlines.checkpoint = limit;
        options.deadlines.data = limit;
        options.deadlines.finish = limit;
        let backup = whole.backup[..messages].to_vec();
        let error = play(Story { backup, ..whole.clone() }, options).await.expect_err("silence");
        assert!(matches!(&error, ClientError::Timeout { phase: at } if *at == phase), "{messages}: {error}");
        assert!(place.left().is_empty());
    }
    // WAL that never begins, or never reaches the end.
    for (begin, messages) in [(0, 0), (1, 0), (1, 3)] {
        let place = Place::new();
        let mut options = BackupOptions { wal: WalMethod::Stream, ..place.plain() };
        options.deadlines.wal_end = limit;
        let (wal_begin, wal) = (whole.wal_begin[..begin].to_vec(), whole.wal[..messages].to_vec());
        // A limit of the test's own: on a paused clock it costs no time.
        let story = Story { wal, wal_begin, ..whole.clone() };
        let ended = tokio::time::timeout(Duration::from_secs(3600), play(story, options)).await;
        let error = ended.expect("within its deadline").expect_err("silence");
        assert!(matches!(error, ClientError::Timeout { phase: Phase::WaitingForWal }), "{begin} {messages}: {error}");
        assert!(place.left().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_backup_leaves_nothing() {
    let place = Place::new();
    let mut story = sound();
    story.backup.truncate(30);
    let backup = play(story, BackupOptions { wal: WalMethod::Stream, ..place.plain() });
    assert!(tokio::time::timeout(Duration::from_secs(3600), backup).await.is_err());
    assert!(place.left().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_removed_is_no_backup() {
    let place = Place::new();
    let mut story = Story { hang_up: true, ..sound() };
    story.backup.pop();
    let options = BackupOptions { clean: false, ..place.plain() };
    play(story, options).await.expect_err("no ReadyForQuery");
    let data = place.data();
    assert!(data.join("base/1/1259").exists() && data.join("global/pg_control.tmp").exists());
    assert!(!data.join("global/pg_control").exists() && !data.join("backup_manifest").exists());
}

#[tokio::test(start_paused = true)]
async fn an_unmapped_tablespace_is_refused() {
    let place = Place::new();
    let options = BackupOptions { tablespace_mapping: Vec::new(), ..place.plain() };
    let error = play(sound(), options).await.expect_err("unmapped");
    assert!(error.to_string().starts_with("no tablespace mapping was given"), "{error}");
    assert!(place.left().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_one_tar_file_with_the_manifest_in_it() {
    let story = Story::new(Plot { tablespace: false, ..Plot::plain(V15) });
    let out = Arc::new(std::sync::Mutex::new(Vec::new()));
    let options = BackupOptions { target: Target::Stream(Box::new(Shared(Arc::clone(&out)))), ..Place::new().plain() };
    play(story, options).await.unwrap();
    let out = std::mem::take(&mut *out.lock().unwrap());
    let mut archive = tar::Archive::new(&out[..]);
    let names: Vec<String> =
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(names.first().map(String::as_str), Some("backup_label"));
    assert_eq!(names[names.len() - 2..], ["global/pg_control", "backup_manifest"]);
    assert!(out.ends_with(&[0; 1024]));
    let error =
        play(sound(), BackupOptions { target: Target::Stream(Box::new(Vec::new())), ..Place::new().plain() }).await;
    let expected = "can only write single tablespace to stdout, database has 2";
    assert_eq!(error.expect_err("two tablespaces").to_string(), expected);
}

struct Shared(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_manifest_there_is_none() {
    let place = Place::new();
    let story = Story::new(Plot::plain(ServerVersion::V12));
    play(story, BackupOptions { manifest: ManifestOption::Yes, ..place.plain() }).await.unwrap();
    assert!(!place.data().join("backup_manifest").exists());
    assert!(place.data().join("global/pg_control").exists());
    // A manifest that nobody asked for is as wrong as one that is missing.
    let place = Place::new();
    let options = BackupOptions { manifest: ManifestOption::No, ..place.plain() };
    play(sound(), options).await.expect_err("a manifest");
    assert!(place.left().is_empty());
}

#[tokio::test(start_paused = true)]
async fn streaming_follows_the_server_to_its_next_timeline() {
    let plot = Plot { promoted: true, ..Plot::plain(V15) };
    let place = Place::new();
    let options = || BackupOptions { wal: WalMethod::Stream, ..place.plain() };
    // A next timeline that cannot be.
    let mut story = Story::new(plot);
    let promotion = story.promotion.as_mut().unwrap();
    promotion.history.0 = "../../x".into();
    let error = play(story, options()).await.expect_err("a file name");
    let expected = "server reported unexpected history file name for timeline 2: ../../x";
    assert_eq!(error.to_string(), expected);
    let mut story = Story::new(plot);
    let promotion = story.promotion.as_mut().unwrap();
    promotion.fork = promotion.fork + 8;
    let error = play(story, options()).await.expect_err("a hole");
    assert!(error.to_string().contains("but reported next timeline 2 to begin at"), "{error}");
    assert!(place.left().is_empty());

    let story = Story::new(plot);
    let history = story.promotion.clone().unwrap().history.1;
    let summary = play(story, options()).await.unwrap();
    assert_eq!((summary.timeline.0, summary.end_timeline.0), (1, 2));
    let wal = place.data().join("pg_wal");
    assert_eq!(read(&wal.join("00000002.history")), history.as_bytes());
    for name in ["000000010000000000000002", "000000010000000000000003", "000000020000000000000003"] {
        assert_eq!(read(&wal.join(name)).len(), 1 << 20, "{name}");
    }
    assert!(!wal.join("archive_status/000000010000000000000003.done").exists());
}

/// Releases before 12 have a file for it, which says that this is a standby, too.
#[tokio::test(start_paused = true)]
async fn a_standby_of_an_old_release_is_told_in_a_file_of_its_own() {
    let primary_conninfo = Conninfo::parse("host=/tmp user=me password=it\\'s channel_binding=require").unwrap();
    let recovery = RecoveryConfiguration { primary_conninfo, primary_slot_name: Some("slot".to_owned()) };
    let mut told = Vec::new();
    for version in [ServerVersion::V10, ServerVersion::V11] {
        let options = |options| BackupOptions { recovery: Some(recovery.clone()), ..options };
        let (plain, tar) = (Place::new(), Place::new());
        play(Story::new(Plot::plain(version)), options(plain.plain())).await.unwrap();
        let text = String::from_utf8(read(&plain.data().join("recovery.conf"))).unwrap();
        assert!(!plain.data().join("standby.signal").exists());
        let auto = plain.data().join("postgresql.auto.conf");
        assert!(!auto.exists() || !String::from_utf8(read(&auto)).unwrap().contains("primary_conninfo"));

        let map = version.has_tablespace_map();
        play(Story::new(Plot { map, ..Plot::plain(version) }), options(tar.tar())).await.unwrap();
        let archive = read(&tar.data().join("base.tar"));
        let mut archive = tar::Archive::new(&archive[..]);
        let members = archive.entries().unwrap().map(Result::unwrap).filter_map(|mut entry| {
            let mut content = String::new();
            let found = entry.path().unwrap().ends_with("recovery.conf");
            found.then(|| std::io::Read::read_to_string(&mut entry, &mut content).map(|_| content).unwrap())
        });
        assert_eq!(members.collect::<Vec<_>>(), std::slice::from_ref(&text), "{version}");
        told.push(format!("{version}:\n{text}"));
    }
    insta::assert_snapshot!(told.concat(), @r#"
    10:
    standby_mode = 'on'
    primary_conninfo = 'user=me password=''it\\''s'' host=''/tmp'' port=5432 sslmode=prefer sslcompression=1 krbsrvname=postgres target_session_attrs=any'
    primary_slot_name = 'slot'
    11:
    standby_mode = 'on'
    primary_conninfo = 'user=me password=''it\\''s'' host=''/tmp'' port=5432 sslmode=prefer sslcompression=0 krbsrvname=postgres target_session_attrs=any'
    primary_slot_name = 'slot'
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_backup_that_does_not_end_is_ended() {
    let place = Place::new();
    let story = sound();
    let bytes = play(story.clone(), BackupOptions { max_size: None, ..place.plain() }).await.unwrap().bytes;
    for options in [Place::plain, Place::tar] {
        for (limit, fits) in [(bytes, true), (bytes - 1, false), (1, false)] {
            let place = Place::new();
            let map = matches!(options(&place).target, Target::Tar { .. });
            let story = Story::new(Plot { map, ..Plot::plain(V15) });
            // A map is a member more.
            let limit = if map && fits { u64::MAX } else { limit };
            let result = play(story, BackupOptions { max_size: Some(limit), ..options(&place) }).await;
            assert_eq!(result.is_ok(), fits, "{limit}");
            if let Err(error) = result {
                let problem = format!("the backup is larger than {limit} bytes, the most that may come");
                assert!(error.to_string().ends_with(&problem), "{error}");
                assert_eq!(place.left(), Vec::<PathBuf>::new());
            }
        }
    }
}
