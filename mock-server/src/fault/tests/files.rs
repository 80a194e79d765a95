//! Remove-file, shrink-file, grow-file, change-file, add-file.

use backstop_protocol::base_backup::manifest::Manifest;
use backstop_protocol::page::{PageHeader, checksum};

use super::{archive, sound, struck};
use crate::server::Found;
use crate::testing::End;

const TABLE: &[u8] = b"base/1/1259_fsm";

/// Size and content of the table in an archive, if it is there.
fn table(base: &[u8]) -> Option<Vec<u8>> {
    let mut archive = tar::Archive::new(base);
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut entry = entries.find(|entry| &*entry.path_bytes() == TABLE)?;
    let mut content = Vec::new();
    std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
    Some(content)
}

#[tokio::test(start_paused = true)]
async fn a_file_that_vanishes_is_left_out_without_a_word() {
    let remove = r#"{"remove-file": {"path": "base/1/1259_fsm"}}"#;
    let (server, messages, end) = struck(r#"{"start-position": {}}"#, remove).await;
    assert_eq!((table(&archive(&messages, "base.tar")), end), (None, End::Ready));
    assert!(Manifest::parse(&archive(&messages, "manifest")).unwrap().file(TABLE).is_none());
    assert_eq!(server.backups()[0].found.get(TABLE), Some(&Found::Nothing));
    // One that is open is read to its end.
    let (server, messages, _) = struck(r#"{"member": {"path": "base/1/1259_fsm"}}"#, remove).await;
    assert!(table(&archive(&messages, "base.tar")) == table(&archive(&sound().await, "base.tar")));
    assert!(server.backups()[0].found.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_file_that_shrinks_is_shorter_or_filled_up_with_zeros() {
    let shrink = r#"{"shrink-file": {"path": "base/1/1259_fsm", "to": "8KiB"}}"#;
    let whole = table(&archive(&sound().await, "base.tar")).unwrap();
    assert!(whole.len() > 8192);
    let (server, messages, _) = struck(r#"{"start-position": {}}"#, shrink).await;
    assert!(table(&archive(&messages, "base.tar")).unwrap() == whole[..8192]);
    assert_eq!(server.backups()[0].found.get(TABLE), Some(&Found::Beginning(8192)));
    let (server, messages, _) = struck(r#"{"member": {"path": "base/1/1259_fsm"}}"#, shrink).await;
    let mut padded = whole.clone();
    padded[8192..].fill(0);
    assert!(table(&archive(&messages, "base.tar")).unwrap() == padded);
    assert_eq!(server.backups()[0].found.get(TABLE), Some(&Found::ZerosFrom(8192)));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_grows_is_sent_as_it_was_announced_or_as_a_whole() {
    let grow = r#"{"grow-file": {"path": "base/1/1259_fsm", "to": "64KiB"}}"#;
    let whole = table(&archive(&sound().await, "base.tar")).unwrap();
    let (server, messages, _) = struck(r#"{"start-position": {}}"#, grow).await;
    let grown = table(&archive(&messages, "base.tar")).unwrap();
    assert!(grown.len() == 64 << 10 && grown.starts_with(&whole));
    assert_eq!(server.backups()[0].found.get(TABLE), Some(&Found::Grown(64 << 10)));
    let (server, messages, _) = struck(r#"{"member": {"path": "base/1/1259_fsm"}}"#, grow).await;
    assert!(table(&archive(&messages, "base.tar")).unwrap() == whole);
    assert!(server.backups()[0].found.is_empty());
}

#[tokio::test(start_paused = true)]
async fn blocks_that_are_written_anew_are_sound_blocks() {
    let change = r#"{"change-file": {"path": "base/1/1259_fsm"}}"#;
    let whole = table(&archive(&sound().await, "base.tar")).unwrap();
    let (server, messages, end) = struck(r#"{"member": {"path": "base/1/1259_fsm"}}"#, change).await;
    let changed = table(&archive(&messages, "base.tar")).unwrap();
    assert_eq!((changed.len(), end), (whole.len(), End::Ready));
    for (number, (old, new)) in (0..).zip(whole.chunks(8192).zip(changed.chunks(8192))) {
        assert!(old != new, "{number}");
        let page = new.first_chunk().unwrap();
        assert!(PageHeader::parse(page).lsn > PageHeader::parse(old.first_chunk().unwrap()).lsn);
        assert_eq!(checksum(page, number), PageHeader::parse(page).checksum, "{number}");
    }
    let found = server.backups()[0].found.get(TABLE).copied();
    assert!(matches!(found, Some(Found::RewrittenFrom { offset: 0, .. })), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_appears_is_sent_if_the_walk_still_comes_to_it() {
    let add = r#"{"add-file": {"path": "base/1/99999", "content": "new"}}"#;
    let new = |messages: &[_]| {
        let base = archive(messages, "base.tar");
        let mut archive = tar::Archive::new(&base[..]);
        archive.entries().unwrap().any(|entry| &*entry.unwrap().path_bytes() == b"base/1/99999")
    };
    let (server, messages, _) = struck(r#"{"member": {"path": "base/1/1259_fsm"}}"#, add).await;
    assert!(new(&messages));
    assert!(Manifest::parse(&archive(&messages, "manifest")).unwrap().file(b"base/1/99999").is_some());
    assert_eq!(server.backups()[0].found.get(&b"base/1/99999"[..]), Some(&Found::Added));
    let (_, messages, _) = struck(r#"{"member": {"path": "global/pg_control"}}"#, add).await;
    assert!(!new(&messages));
}
