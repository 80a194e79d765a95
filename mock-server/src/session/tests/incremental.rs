//! Incremental backups (17, 18).

use std::collections::BTreeMap;
use std::io::Read;

use backstop_protocol::backend::{BackendMessage, Diagnostic};
use backstop_protocol::base_backup::incremental::{IncrementalFile, name, plain_name};
use backstop_protocol::base_backup::manifest::{Manifest, WalRange};
use backstop_protocol::frontend::FrontendMessage;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::page::BLOCK_SIZE;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use tokio::time::Instant;

use crate::cluster::ground_truth_at;
use crate::config::{Config, DamagedPages, Role};
use crate::server::{BackupOutcome, Server};
use crate::testing::{Client, End, archives, config, diagnostics, tags};

const INCREMENTAL: &str = "BASE_BACKUP (INCREMENTAL, CHECKPOINT 'fast', WAIT false, MANIFEST 'yes')";

fn living(version: ServerVersion) -> Config {
    let settings = [("summarize_wal", "on"), ("backstop.changed_blocks", "20%")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Config { settings, size: 2 << 20, ..config(version, vec![]) }
}

/// A backup's files by their paths, and its manifest.
struct Taken {
    files: BTreeMap<Vec<u8>, Vec<u8>>,
    manifest: Vec<u8>,
}

async fn take(client: &mut Client, command: &str) -> Taken {
    let (messages, end) = client.query(command).await;
    assert_eq!(end, End::Ready);
    assert_eq!(diagnostics(&messages), Vec::<String>::new());
    let mut archives = archives(&messages);
    let manifest = archives.pop().unwrap().1;
    let mut files = BTreeMap::new();
    for (archive, bytes) in archives {
        let below = archive.strip_suffix(".tar").filter(|name| *name != "base");
        let below = below.map(|oid| format!("pg_tblspc/{oid}/")).unwrap_or_default();
        for member in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut member = member.unwrap();
            if member.header().entry_type() == tar::EntryType::Regular {
                let path = [below.as_bytes(), &member.path_bytes()].concat();
                let mut content = Vec::new();
                member.read_to_end(&mut content).unwrap();
                files.insert(path, content);
            }
        }
    }
    Taken { files, manifest }
}

async fn upload(client: &mut Client, manifest: &[u8]) -> Vec<BackendMessage> {
    client.send(&FrontendMessage::Query("UPLOAD_MANIFEST".into())).await;
    for piece in manifest.chunks(65_536) {
        client.send(&FrontendMessage::CopyData(piece.to_vec().into())).await;
    }
    client.send(&FrontendMessage::CopyDone).await;
    let (messages, end) = client.read().await;
    assert_eq!(end, End::Ready);
    messages
}

/// What `pg_combinebackup` makes of a backup on top of an older one, whose own chain is combined already.
fn combine(older: &BTreeMap<Vec<u8>, Vec<u8>>, newer: &BTreeMap<Vec<u8>, Vec<u8>>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut combined = BTreeMap::new();
    for (path, content) in newer {
        let Some(plain) = plain_name(path) else {
            combined.insert(path.clone(), content.clone());
            continue;
        };
        let file = IncrementalFile::parse(content).unwrap();
        let mut whole = older[&plain].clone();
        whole.resize(file.header.truncation_block_length() as usize * BLOCK_SIZE, 0);
        for (block, content) in file.header.blocks().iter().zip(file.blocks) {
            whole[*block as usize * BLOCK_SIZE..][..BLOCK_SIZE].copy_from_slice(content);
        }
        combined.insert(plain, whole);
    }
    combined
}

/// Compares with what the server's last backup should have been.
fn assert_true(server: &Server, files: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let start = server.backups().last().unwrap().start;
    for item in ground_truth_at(server.cluster(), start).unwrap() {
        let (path, entry) = item.unwrap();
        if path.ends_with(b"/") || !files.contains_key(&path) {
            assert_eq!(entry.size(), 0, "{}", path.escape_ascii());
            continue;
        }
        let mut content = vec![0; usize::try_from(entry.size()).unwrap()];
        server.cluster().read(&entry, 0, &mut content).unwrap();
        assert!(files[&path] == content, "{}", path.escape_ascii());
    }
}

#[tokio::test(start_paused = true)]
async fn a_chain_is_put_together_to_what_the_server_has() {
    for version in [ServerVersion::V17, ServerVersion::V18] {
        let server = Server::new(living(version)).unwrap();
        let mut client = Client::start(&server, "test").await;
        let full = take(&mut client, "BASE_BACKUP (CHECKPOINT 'fast', WAIT false, MANIFEST 'yes')").await;
        assert!(full.files.keys().all(|path| plain_name(path).is_none()));
        let (mut files, mut manifest) = (full.files.clone(), full.manifest);
        assert_true(&server, &files);
        for _ in 0..3 {
            assert_eq!(tags(&upload(&mut client, &manifest).await), "GCZ");
            let taken = take(&mut client, INCREMENTAL).await;
            let read = Manifest::parse(&taken.manifest).unwrap();
            // Each file of the manifest was sent under its name and in its size.
            for file in &read.files {
                assert_eq!(taken.files[&file.path].len() as u64, file.size);
            }
            assert_eq!(read.files.len(), taken.files.len());
            let (mut empty, mut partial, mut whole) = (0, 0, 0);
            for (path, content) in &taken.files {
                match plain_name(path).map(|_| content.len()) {
                    Some(12) => empty += 1,
                    Some(_) => partial += 1,
                    None if path.starts_with(b"base/") => whole += 1,
                    None => {}
                }
            }
            assert!(empty > 3 && partial > 3 && whole > 3, "{empty} {partial} {whole}");
            assert!(
                !taken.files.contains_key(&b"base/16384/16385"[..])
                    || !taken.files.contains_key(&name(b"base/16384/16385"))
            );
            let earlier = Manifest::parse(&manifest).unwrap().wal_ranges[0];
            let label = String::from_utf8(taken.files[&b"backup_label"[..]].clone()).unwrap();
            let lines = format!("INCREMENTAL FROM LSN: {}\nINCREMENTAL FROM TLI: 1\n", earlier.start);
            assert!(label.ends_with(&lines), "{label}");
            files = combine(&files, &taken.files);
            assert_true(&server, &files);
            manifest = taken.manifest;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn relations_grow_shrink_come_and_go() {
    let server = Server::new(living(ServerVersion::V18)).unwrap();
    let mut client = Client::start(&server, "test").await;
    let full = take(&mut client, "BASE_BACKUP (CHECKPOINT 'fast', WAIT false, MANIFEST 'yes')").await;
    let (mut files, mut manifest) = (full.files, full.manifest);
    let of = |number: u32| format!("base/16384/{number}").into_bytes();
    let (mut grown, mut shrunk, mut created) = (0, 0, 0);
    for _ in 0..9 {
        upload(&mut client, &manifest).await;
        let taken = take(&mut client, INCREMENTAL).await;
        let before = files;
        files = combine(&before, &taken.files);
        assert_true(&server, &files);
        let size = |files: &BTreeMap<Vec<u8>, Vec<u8>>, number| files.get(&of(number)).map_or(0, Vec::len);
        grown += usize::from(size(&files, 16_410) > size(&before, 16_410));
        if size(&files, 16_413) < size(&before, 16_413) {
            shrunk += 1;
            assert_eq!(taken.files[&name(&of(16_413))].len(), 12, "what is left has not changed");
        }
        // A file that is new is sent whole, and the one before it is gone.
        for number in (16_417..16_420).filter(|number| !before.contains_key(&of(*number))) {
            if let Some(content) = taken.files.get(&of(number)) {
                created += 1;
                assert!(!content.is_empty() && !files.contains_key(&of(number - 1)));
            }
        }
        manifest = taken.manifest;
    }
    assert!(grown == 9 && shrunk >= 2 && created >= 2, "{grown} {shrunk} {created}");
}

#[tokio::test(start_paused = true)]
async fn several_backups_can_build_on_one_upload() {
    let server = Server::new(living(ServerVersion::V18)).unwrap();
    let mut client = Client::start(&server, "test").await;
    let full = take(&mut client, "BASE_BACKUP (CHECKPOINT 'fast', WAIT false, MANIFEST 'yes')").await;
    upload(&mut client, &full.manifest).await;
    for _ in 0..2 {
        let taken = take(&mut client, INCREMENTAL).await;
        assert_true(&server, &combine(&full.files, &taken.files));
        // What is refused changes nothing.
        assert_eq!(tags(&upload(&mut client, b"hello").await), "GEZ");
    }
}

#[tokio::test(start_paused = true)]
async fn without_changes_every_relation_is_twelve_bytes() {
    let settings = [("summarize_wal".to_owned(), "on".to_owned())].into();
    let server = Server::new(Config { settings, ..config(ServerVersion::V18, vec![]) }).unwrap();
    let mut client = Client::start(&server, "test").await;
    let full = take(&mut client, "BASE_BACKUP (CHECKPOINT 'fast', WAIT false, MANIFEST 'yes')").await;
    upload(&mut client, &full.manifest).await;
    let taken = take(&mut client, INCREMENTAL).await;
    let incremental: Vec<_> = taken.files.iter().filter(|(path, _)| plain_name(path).is_some()).collect();
    assert!(incremental.len() > 20 && incremental.iter().all(|(_, content)| content.len() == 12));
    assert_true(&server, &combine(&full.files, &taken.files));
}

#[tokio::test(start_paused = true)]
async fn blocks_come_one_by_one_behind_their_header() {
    let server = Server::new(living(ServerVersion::V18)).unwrap();
    let mut client = Client::start(&server, "test").await;
    let full = take(&mut client, "BASE_BACKUP (CHECKPOINT 'fast', WAIT false, MANIFEST 'yes')").await;
    upload(&mut client, &full.manifest).await;
    let skip = server.transcript().len();
    let taken = take(&mut client, INCREMENTAL).await;
    let (path, content) = taken
        .files
        .iter()
        .find(|(path, content)| plain_name(path).is_some() && content.len() > 3 * BLOCK_SIZE)
        .unwrap();
    let blocks = content.len() / BLOCK_SIZE;
    let path = String::from_utf8(path.clone()).unwrap();
    let event = server.transcript().into_iter().skip(skip).find(|event| event.detail == path).unwrap();
    // The header of the member, that of the file with its padding, the blocks.
    assert_eq!((event.count, event.bytes), (1 + blocks as u64, 512 + content.len() as u64));
}

/// What BASE_BACKUP says of a manifest with these WAL ranges.
async fn told(server: &Server, ranges: &[WalRange]) -> (String, Vec<Diagnostic>) {
    let mut client = Client::start(server, "test").await;
    let manifest = Manifest {
        version: 2,
        system_identifier: Some(server.cluster().system_identifier()),
        files: vec![],
        wal_ranges: ranges.to_vec(),
    };
    assert_eq!(tags(&upload(&mut client, &manifest.to_bytes(false)).await), "GCZ");
    let (messages, end) = client.query(INCREMENTAL).await;
    assert_eq!(end, End::Ready);
    let diagnostics = messages.iter().filter_map(|message| match message {
        BackendMessage::ErrorResponse(diagnostic) | BackendMessage::NoticeResponse(diagnostic) => {
            Some(diagnostic.clone())
        }
        _ => None,
    });
    (tags(&messages), diagnostics.collect())
}

fn range(timeline: u32, start: u64, end: u64) -> WalRange {
    WalRange { timeline: TimelineId(timeline), start: Lsn(start), end: Lsn(end) }
}

#[tokio::test(start_paused = true)]
async fn ranges_are_refused_as_recorded() {
    let server = Server::new(living(ServerVersion::V17)).unwrap();
    let mut texts = Vec::new();
    for ranges in [vec![], vec![range(5, 0x200_0028, 0x200_0120)], vec![range(1, 0x200_0028, 0x7F_0000_0100)]] {
        let (tags, diagnostics) = told(&server, &ranges).await;
        assert_eq!((tags.as_str(), diagnostics[0].severity.as_str()), ("NEZ", "WARNING"));
        let Diagnostic { code, message, hint, .. } = &diagnostics[1];
        texts.push(format!("{code} {message} ({})", hint.as_deref().unwrap_or("no hint")));
    }
    assert!(server.backups().iter().all(|backup| matches!(backup.ended, BackupOutcome::Failed(_))));
    assert_eq!(server.state().running_backups, 0);
    insta::assert_snapshot!(texts.join("\n"), @r"
    55000 manifest contains no required WAL ranges (no hint)
    55000 timeline 5 found in manifest, but not in this server's history (no hint)
    55000 manifest requires WAL from final timeline 1 ending at 7F/100, but this backup starts at 0/4000028 (This can happen for incremental backups on a standby if there was little activity since the previous backup.)
    ");
}

#[tokio::test(start_paused = true)]
async fn summaries_must_be_there() {
    let server = Server::new(living(ServerVersion::V18)).unwrap();
    let mut client = Client::start(&server, "test").await;
    let full = take(&mut client, "BASE_BACKUP (CHECKPOINT 'fast', WAIT false, MANIFEST 'yes')").await;
    server.cluster().checkpoint();
    server.cluster().remove_wal_summaries(Lsn(u64::MAX));
    upload(&mut client, &full.manifest).await;
    let (messages, _) = client.query(INCREMENTAL).await;
    assert_eq!(tags(&messages), "NEZ");
    let Some(BackendMessage::ErrorResponse(error)) = messages.get(1) else { panic!("no error") };
    insta::assert_snapshot!(format!("{} {}\n{}", error.code, error.message, error.detail.as_deref().unwrap_or("")), @r"
    55000 WAL summaries are required on timeline 1 from 0/2000028 to 0/4000028, but the summaries for that timeline and LSN range are incomplete
    The first unsummarized LSN in this range is 0/2000028.
    ");
}

#[tokio::test(start_paused = true)]
async fn a_timeline_without_any_summary_is_said_to_have_none() {
    let server = Server::new(Config { role: Role::Standby, ..living(ServerVersion::V18) }).unwrap();
    let mut client = Client::start(&server, "test").await;
    let full = take(&mut client, "BASE_BACKUP (CHECKPOINT 'fast', WAIT false, MANIFEST 'yes')").await;
    let switch = server.cluster().flush_position();
    server.cluster().promote().unwrap();
    upload(&mut client, &full.manifest).await;
    let taken = take(&mut client, INCREMENTAL).await;
    assert_true(&server, &combine(&full.files, &taken.files));
    server.cluster().remove_wal_summaries(switch);
    let (messages, _) = client.query(INCREMENTAL).await;
    let text = diagnostics(&messages).pop().unwrap();
    assert!(text.ends_with(", but no summaries for that timeline and LSN range exist"), "{text}");
    assert!(text.contains("WAL summaries are required on timeline 1 from "), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_standby_cannot_go_on() {
    let server = Server::new(Config { role: Role::Standby, ..living(ServerVersion::V18) }).unwrap();
    let mut client = Client::start(&server, "test").await;
    server.cluster().grow_wal(100_000);
    let full = take(&mut client, "BASE_BACKUP (CHECKPOINT 'fast', WAIT false, MANIFEST 'yes')").await;
    upload(&mut client, &full.manifest).await;
    let (messages, _) = client.query(INCREMENTAL).await;
    let text = diagnostics(&messages).pop().unwrap();
    assert!(text.contains("manifest requires WAL from final timeline 1 ending at "), "{text}");
    // A restartpoint later it can.
    server.cluster().grow_wal(100_000);
    server.cluster().checkpoint();
    let taken = take(&mut client, INCREMENTAL).await;
    assert_true(&server, &combine(&full.files, &taken.files));
}

#[tokio::test(start_paused = true)]
async fn a_stuck_summarizer_is_waited_for() {
    let mut config = living(ServerVersion::V18);
    config.settings.insert("backstop.wal_summarizer".to_owned(), "stuck".to_owned());
    let server = Server::new(config).unwrap();
    let began = Instant::now();
    let (tags, diagnostics) = told(&server, &[range(1, 0x100_0028, 0x100_0120)]).await;
    assert_eq!((tags.as_str(), began.elapsed().as_secs()), ("NNNNNNNEZ", 70));
    let text = |diagnostic: &Diagnostic| {
        format!("{} {}\n{}", diagnostic.code, diagnostic.message, diagnostic.detail.as_deref().unwrap_or_default())
    };
    let texts: Vec<_> = [0, 5, 6, 7].map(|at: usize| text(&diagnostics[at])).into();
    insta::assert_snapshot!(texts.join("\n"), @r"
    55000 still waiting for WAL summarization through 0/2000028 after 10 seconds
    Summarization has reached 0/1000028 on disk and 0/1000028 in memory.
    55000 still waiting for WAL summarization through 0/2000028 after 60 seconds
    Summarization has reached 0/1000028 on disk and 0/1000028 in memory.
    01000 aborting backup due to backend exiting before pg_backup_stop was called

    55000 WAL summarization is not progressing
    Summarization is needed through 0/2000028, but is stuck at 0/1000028 on disk and 0/1000028 in memory.
    ");
}

#[tokio::test(start_paused = true)]
async fn a_summarizer_that_catches_up_lets_the_backup_go_on() {
    let server = Server::new(living(ServerVersion::V18)).unwrap();
    let mut client = Client::start(&server, "test").await;
    let full = take(&mut client, "BASE_BACKUP (CHECKPOINT 'fast', WAIT false, MANIFEST 'yes')").await;
    upload(&mut client, &full.manifest).await;
    server.cluster().hold_wal_summarizer(true);
    client.send(&FrontendMessage::Query(INCREMENTAL.into())).await;
    let messages = client.read_until(|message| matches!(message, BackendMessage::NoticeResponse(_))).await;
    assert_eq!(tags(&messages), "N");
    server.cluster().hold_wal_summarizer(false);
    let (messages, end) = client.read().await;
    assert_eq!((tags(&messages).as_str(), end), ("TDCTDDCHdcTDCCZ", End::Ready));
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_said_in_order() {
    let server = Server::new(config(ServerVersion::V18, vec![])).unwrap();
    let mut client = Client::start(&server, "test").await;
    let (messages, _) = client.query(INCREMENTAL).await;
    let without = diagnostics(&messages);
    let server = Server::new(living(ServerVersion::V18)).unwrap();
    let mut client = Client::start(&server, "test").await;
    let (messages, _) = client.query(INCREMENTAL).await;
    let texts = [without, diagnostics(&messages)].concat();
    insta::assert_snapshot!(texts.join("\n"), @r"
    ERROR 55000: incremental backups cannot be taken unless WAL summarization is enabled
    ERROR 55000: must UPLOAD_MANIFEST before performing an incremental BASE_BACKUP
    ");
}

#[tokio::test(start_paused = true)]
async fn an_upload_ends_with_the_session_when_something_else_comes() {
    let server = Server::new(living(ServerVersion::V18)).unwrap();
    let mut client = Client::start(&server, "test").await;
    client.send(&FrontendMessage::Query("UPLOAD_MANIFEST".into())).await;
    client.send(&FrontendMessage::Query("IDENTIFY_SYSTEM".into())).await;
    let (messages, end) = client.read().await;
    assert_eq!(end, End::Closed(0));
    insta::assert_snapshot!(diagnostics(&messages).join("\n"), @r"
    ERROR 08P01: unexpected message type 0x51 during COPY from stdin
    FATAL 08P01: terminating connection because protocol synchronization was lost
    ");
}

#[tokio::test(start_paused = true)]
async fn pages_of_incremental_files_are_verified() {
    let path = "base/16384/16385".to_owned();
    let damaged_pages = vec![DamagedPages { path: path.clone(), blocks: (0..30).collect() }];
    let server = Server::new(Config { damaged_pages, ..living(ServerVersion::V18) }).unwrap();
    let mut client = Client::start(&server, "test").await;
    let command = "BASE_BACKUP (CHECKPOINT 'fast', WAIT false, MANIFEST 'yes', VERIFY_CHECKSUMS false)";
    let full = take(&mut client, command).await;
    upload(&mut client, &full.manifest).await;
    let (messages, end) = client.query(INCREMENTAL).await;
    assert_eq!(end, End::Ready);
    let start = server.backups().last().unwrap().start;
    let earlier = Manifest::parse(&full.manifest).unwrap().wal_ranges[0].start;
    let mut entries = server.cluster().entries_at(None, start).unwrap().map(Result::unwrap);
    let entry = entries.find(|entry| entry.name == path.as_bytes()).unwrap();
    let changed = server.cluster().changed_blocks(&entry, earlier);
    let damaged: Vec<_> = changed.into_iter().filter(|block| *block < 30).collect();
    assert!(damaged.len() > 1 && damaged.len() < 30, "{damaged:?}");
    let told = diagnostics(&messages);
    let first = format!("WARNING 01000: checksum verification failed in file \"./{path}\", block {}: ", damaged[0]);
    assert!(told[0].starts_with(&first), "{}", told[0]);
    let total =
        format!("WARNING 01000: file \"./{path}\" has a total of {} checksum verification failures", damaged.len());
    assert!(told.contains(&total), "{told:?}");
}
