//! Remove-file, shrink-file.

use backstop_protocol::base_backup::manifest::Manifest;

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
