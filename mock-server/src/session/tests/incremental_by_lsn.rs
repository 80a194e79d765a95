//! Incremental backups by LSN, the dialect of the proof of concept of 2014.

use std::collections::BTreeMap;
use std::io::Read;

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::base_backup::label::BackupLabel;
use backstop_protocol::base_backup::profile::{BackupProfile, PageLsns, has_page_lsns};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::page::{BLOCK_SIZE, PageHeader};
use backstop_protocol::version::{Flavour, ServerVersion};

use crate::config::{Config, ExtraFile, ExtraFileKind};
use crate::server::Server;
use crate::testing::{Client, End, archives, config, diagnostics, payloads, tags};

fn poc(version: ServerVersion) -> Config {
    let settings = [("backstop.changed_blocks".to_owned(), "5%".to_owned())].into();
    Config { flavour: Flavour::IncrementalPoc, settings, size: 2 << 20, ..config(version, vec![]) }
}

/// A backup's files by their paths, and its profile.
struct Taken {
    files: BTreeMap<Vec<u8>, Vec<u8>>,
    profile: BackupProfile,
}

impl Taken {
    fn label(&self) -> BackupLabel {
        BackupLabel::parse(std::str::from_utf8(&self.files[&b"backup_label"[..]]).unwrap()).unwrap()
    }

    fn file(&self, path: &str) -> Option<(bool, Option<Lsn>)> {
        let files = self.profile.files.iter();
        let mut found = files.filter(|file| file.path_in_data_directory() == path.as_bytes());
        found.next().map(|file| (file.sent, file.lsn))
    }
}

/// The COPYs of a server up to 14.
fn copies(messages: &[BackendMessage]) -> Vec<Vec<u8>> {
    let mut copies: Vec<Vec<u8>> = Vec::new();
    for message in messages {
        match message {
            BackendMessage::CopyOutResponse => copies.push(Vec::new()),
            BackendMessage::CopyData(data) => copies.last_mut().unwrap().extend_from_slice(data),
            _ => {}
        }
    }
    copies
}

async fn take(client: &mut Client, version: ServerVersion, since: Option<Lsn>) -> Taken {
    let since = since.map(|since| format!("INCREMENTAL '{since}'"));
    let command = if version.has_option_lists() {
        format!(
            "BASE_BACKUP (CHECKPOINT 'fast', WAIT 0{})",
            since.map(|since| format!(", {since}")).unwrap_or_default()
        )
    } else {
        format!("BASE_BACKUP {} FAST NOWAIT", since.unwrap_or_default())
    };
    let (messages, end) = client.query(&command).await;
    assert_eq!((end, diagnostics(&messages)), (End::Ready, vec![]), "{version}");
    let mut parts = if version.has_option_lists() {
        assert_eq!(tags(&messages), "TDCTDDCHdcTDCCZ");
        archives(&messages)
    } else {
        assert_eq!(tags(&messages), "TDCTDDCHdcHdcHdcTDCCZ");
        let names = ["16400.tar", "base.tar", "backup_profile"].map(str::to_owned);
        names.into_iter().zip(copies(&messages)).collect()
    };
    let (name, profile) = parts.pop().unwrap();
    assert_eq!(name, "backup_profile");
    let mut files = BTreeMap::new();
    for (archive, bytes) in parts {
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
    Taken { files, profile: BackupProfile::parse(&profile).unwrap() }
}

fn highest(content: &[u8]) -> Option<Lsn> {
    let mut lsns = PageLsns::default();
    lsns.update(content);
    lsns.highest()
}

#[tokio::test(start_paused = true)]
async fn what_is_left_out_is_in_the_backup_before_as_it_is_now() {
    for version in [ServerVersion::V9_5, ServerVersion::V14, ServerVersion::V18] {
        let server = Server::new(poc(version)).unwrap();
        let mut client = Client::start(&server, "test").await;
        let full = take(&mut client, version, None).await;
        let sent: Vec<_> = full.profile.files.iter().map(|file| (file.path_in_data_directory(), file.size)).collect();
        let there: BTreeMap<_, _> =
            full.files.iter().map(|(path, content)| (path.clone(), content.len() as u64)).collect();
        assert_eq!(sent.into_iter().collect::<BTreeMap<_, _>>(), there, "{version}: all of a full backup is sent");
        assert!(full.profile.files.iter().all(|file| file.sent));
        assert_eq!(full.label().incremental_from_location, None);

        server.cluster().switch_wal();
        let since = full.label().start;
        let next = take(&mut client, version, Some(since)).await;
        assert_eq!(next.label().incremental_from_location, Some(since));
        assert_eq!(next.profile.label, next.label());
        let mut left_out = 0;
        for file in &next.profile.files {
            let path = file.path_in_data_directory();
            let shown = String::from_utf8_lossy(&path).into_owned();
            if let Some(content) = next.files.get(&path) {
                assert!(file.sent && content.len() as u64 == file.size, "{shown}");
                let old = has_page_lsns(&path) && highest(content).is_some_and(|lsn| lsn < since);
                assert!(!old, "{version}: {shown} could have been left out");
            } else {
                let before = &full.files[&path][..usize::try_from(file.size).unwrap()];
                assert_eq!(highest(before), file.lsn, "{shown}");
                assert!(!file.sent && file.lsn < Some(since), "{shown}");
                left_out += 1;
            }
        }
        assert!(left_out > 20, "{version}: {left_out} files");
        assert!(next.files.len() > 20, "{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_lsns_that_can_be_trusted_a_file_is_sent() {
    let page = |lsn| {
        let mut page = [0; BLOCK_SIZE];
        PageHeader::empty(Lsn(lsn)).write(&mut page);
        page.to_vec()
    };
    let file = |path: &str, content: Vec<u8>| ExtraFile {
        path: path.as_bytes().to_vec(),
        kind: ExtraFileKind::Content(content),
        mode: 0o600,
    };
    let old = || page(0x100_0028);
    let extra_files = vec![
        file("base/16384/70000", old()),
        file("base/16384/70000.1", old()),
        file("base/16384/70000_vm", old()),
        file("base/16384/70000_fsm", old()),
        file("base/16384/70001", [old(), page(0)].concat()),
        file("base/16384/70002", old()[..8191].to_vec()),
        file("base/16384/70003", Vec::new()),
        file("base/16384/70004", old()),
        file("base/16384/70004.1", old()),
        file("base/16384/70004_init", old()),
        file("base/16384/not-a-relation", old()),
        file("pg_stat/70005", old()),
    ];
    let version = ServerVersion::V9_5;
    let server = Server::new(Config { extra_files, ..poc(version) }).unwrap();
    let mut client = Client::start(&server, "test").await;
    let since = take(&mut client, version, None).await.label().start;
    server.cluster().rewrite_file("base/16384/16389").unwrap();
    let next = take(&mut client, version, Some(since)).await;
    let lsn = Some(Lsn(0x100_0028));
    for path in ["base/16384/70000", "base/16384/70000.1"] {
        assert_eq!(next.file(path), Some((false, lsn)), "{path}");
    }
    for path in [
        "base/16384/70000_vm",
        "base/16384/70000_fsm",
        "base/16384/70001",
        "base/16384/70002",
        "base/16384/70003",
        "base/16384/70004",
        "base/16384/70004.1",
        "base/16384/70004_init",
        "base/16384/not-a-relation",
        "base/16384/16389",
        "pg_stat/70005",
        "global/pg_control",
        "PG_VERSION",
    ] {
        assert_eq!(next.file(path), Some((true, None)), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_position_must_be_one_that_there_was() {
    let server = Server::new(poc(ServerVersion::V9_5)).unwrap();
    let mut client = Client::start(&server, "test").await;
    for (value, expected) in [
        ("'FF/0'", "ERROR 22023: start position FF/0 of the incremental backup is in the future"),
        ("'x'", "ERROR 22P02: invalid input syntax for type pg_lsn: \"x\""),
        ("'0/0'", "ERROR 22023: start position of an incremental backup must not be 0/0"),
        ("1", "ERROR 42601: syntax error"),
    ] {
        let (messages, end) = client.query(&format!("BASE_BACKUP INCREMENTAL {value} FAST NOWAIT")).await;
        assert_eq!((diagnostics(&messages), end), (vec![expected.to_owned()], End::Ready));
        assert_eq!(payloads(&messages).len(), 0);
    }
    assert_eq!(server.cluster().running_backups(), 0);
}
