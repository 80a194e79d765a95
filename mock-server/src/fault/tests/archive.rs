//! Rename-member, retype-member, relink-member, resize-header, remode-member, write-header, rewrite-member, change-control,
//! break-header, omit-member, omit-archive, omit-trailer, extra-member.

use backstop_protocol::base_backup::manifest::{ChecksumAlgorithm, ChecksumHasher, Manifest};
use backstop_protocol::base_backup::tar::{MemberHeader, MemberKind, TarEvent, TarReader, Trailer};
use backstop_protocol::control::ControlFile;
use backstop_protocol::version::ServerVersion;

use super::{archive, sound, struck};
use crate::testing::{Client, End, archives, fault, server, tags};

const MEMBER: &str = r#"{"member": {"path": "PG_VERSION"}}"#;

/// The headers of an archive as an independent reader sees them: name, type, size, target.
fn members(archive: &[u8]) -> Vec<(String, tar::EntryType, u64, Option<String>)> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let header = entry.header();
            let target = header.link_name_bytes().map(|target| String::from_utf8_lossy(&target).into_owned());
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            (name, header.entry_type(), header.size().unwrap(), target)
        })
        .collect()
}

async fn struck_archive(when: &str, action: &str) -> Vec<u8> {
    let (_, messages, end) = struck(when, action).await;
    assert_eq!((tags(&messages).as_str(), end), ("TDCTDDCHdcTDCCZ", End::Ready));
    archive(&messages, "base.tar")
}

#[tokio::test(start_paused = true)]
async fn a_header_lies_about_name_type_target_and_size() {
    let find = |archive: &[u8], name: &str| members(archive).into_iter().find(|member| member.0 == name).unwrap();
    let archive = struck_archive(MEMBER, r#"{"rename-member": {"to": "../../etc/passwd"}}"#).await;
    assert_eq!(find(&archive, "../../etc/passwd").2, 3);
    let archive = struck_archive(MEMBER, r#"{"retype-member": {"to": "fifo"}}"#).await;
    assert_eq!(find(&archive, "PG_VERSION").1, tar::EntryType::Fifo);
    let archive = struck_archive(MEMBER, r#"{"resize-header": {"to": "512B"}}"#).await;
    assert_eq!(find(&archive, "PG_VERSION").2, 512);
    let link = r#"{"member": {"path": "pg_tblspc/16400"}}"#;
    let archive = struck_archive(link, r#"{"relink-member": {"to": "/etc"}}"#).await;
    assert_eq!(find(&archive, "pg_tblspc/16400/").3.as_deref(), Some("/etc"));
}

#[tokio::test(start_paused = true)]
async fn a_header_holds_what_no_server_writes() {
    let header = |archive: &[u8]| {
        let mut archive = tar::Archive::new(archive);
        let mut entries = archive.entries().unwrap().map(Result::unwrap);
        entries.find(|entry| &*entry.path_bytes() == b"PG_VERSION").unwrap().header().clone()
    };
    let archive = struck_archive(MEMBER, r#"{"remode-member": {"to": "4777"}}"#).await;
    assert_eq!(header(&archive).mode().unwrap(), 0o4777);
    let archive = struck_archive(MEMBER, r#"{"write-header": {"field": "typeflag", "hex": "5a"}}"#).await;
    assert_eq!(header(&archive).entry_type().as_byte(), b'Z');
    let size = r#"{"write-header": {"field": "size", "hex": "202020202020202020203300"}}"#;
    let archive = struck_archive(MEMBER, size).await;
    assert_eq!(&header(&archive).as_old().size, b"          3\0");
}

#[tokio::test(start_paused = true)]
async fn a_rewritten_member_agrees_with_the_manifest() {
    let (_, messages, _) = struck(MEMBER, r#"{"rewrite-member": {"content": "twelve\n"}}"#).await;
    let members = members(&archive(&messages, "base.tar"));
    assert!(members.contains(&("PG_VERSION".to_owned(), tar::EntryType::Regular, 7, None)));
    let manifest = Manifest::parse(&archive(&messages, "manifest")).unwrap();
    let mut hasher = ChecksumHasher::new(ChecksumAlgorithm::Crc32c);
    hasher.update(b"twelve\n");
    let file = manifest.file(b"PG_VERSION").unwrap();
    assert_eq!((file.size, &file.checksum), (7, &Some((ChecksumAlgorithm::Crc32c, hasher.finish()))));
}

#[tokio::test(start_paused = true)]
async fn a_directory_cannot_be_rewritten() {
    let when = r#"{"member": {"path": "global"}}"#;
    let (_, messages, end) = struck(when, r#"{"rewrite-member": {"content": "x"}}"#).await;
    assert!(tags(&messages).ends_with("NEZ") && end == End::Ready, "{}", tags(&messages));
}

#[tokio::test(start_paused = true)]
async fn a_control_file_of_another_cluster_has_a_right_crc() {
    let when = r#"{"member": {"path": "global/pg_control"}}"#;
    let (server, messages, _) = struck(when, r#"{"change-control": {"system-identifier": 4711}}"#).await;
    let archive = archive(&messages, "base.tar");
    let control = ControlFile::decode(&archive[archive.len() - 1024 - 8192..archive.len() - 1024]).unwrap();
    assert_eq!(control.system_identifier, 4711);
    assert_ne!(server.cluster().system_identifier(), 4711);
}

#[tokio::test(start_paused = true)]
async fn a_pax_header_describes_the_next_member() {
    let extra = r#"{"extra-member": {"name": "x", "kind": "pax-header", "content": "19 path=overridden\n"}}"#;
    let archive = struck_archive(MEMBER, extra).await;
    assert!(members(&archive).contains(&("overridden".to_owned(), tar::EntryType::Regular, 3, None)));
    let extra = r#"{"extra-member": {"name": "x", "kind": "long-name", "content": "y", "size": "1GiB"}}"#;
    let archive = struck_archive(MEMBER, extra).await;
    let at = archive.chunks(512).position(|block| block.starts_with(b"x\0") && block[156] == b'L').unwrap() * 512;
    assert_eq!((&archive[at + 124..at + 135], archive[at + 512]), (b"10000000000".as_slice(), b'y'));
}

#[tokio::test(start_paused = true)]
async fn a_broken_header_has_a_wrong_checksum() {
    let archive = struck_archive(MEMBER, r#"{"break-header": {}}"#).await;
    let mut reader = TarReader::new(Trailer::Required);
    let error = reader.push(archive.into(), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("chksum") || error.to_string().contains("checksum"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_omitted_member_is_still_in_the_manifest() {
    let (_, messages, _) = struck(MEMBER, r#"{"omit-member": {}}"#).await;
    let names: Vec<_> = members(&archive(&messages, "base.tar")).into_iter().map(|member| member.0).collect();
    assert!(!names.contains(&"PG_VERSION".to_owned()) && names.contains(&"global/pg_control".to_owned()));
    let manifest = Manifest::parse(&archive(&messages, "manifest")).unwrap();
    assert!(manifest.file(b"PG_VERSION").is_some());
}

#[tokio::test(start_paused = true)]
async fn an_omitted_archive_is_announced_and_never_comes() {
    let when = r#"{"archive-begin": {"archive": "16400.tar"}}"#;
    let (_, messages, end) = struck(when, r#"{"omit-archive": {}}"#).await;
    assert_eq!((tags(&messages).as_str(), end), ("TDCTDDCHdcTDCCZ", End::Ready));
    let names: Vec<_> = archives(&messages).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["base.tar", "manifest"]);
    assert_eq!(archive(&messages, "manifest").len(), archive(&sound().await, "manifest").len());
    // Before 15 archives are COPYs.
    let server = server(ServerVersion::V14, vec![fault(when, r#"{"omit-archive": {}}"#)]);
    let mut client = Client::start(&server, "test").await;
    let (messages, _) = client.query("BASE_BACKUP FAST NOWAIT").await;
    assert_eq!(tags(&messages), "TDCTDDCHdcTDCCZ");
}

#[tokio::test(start_paused = true)]
async fn an_omitted_manifest_never_comes() {
    let when = r#"{"manifest-begin": {}}"#;
    let (_, messages, end) = struck(when, r#"{"omit-archive": {}}"#).await;
    assert_eq!(end, End::Ready);
    let names: Vec<_> = archives(&messages).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["16400.tar", "base.tar"]);
}

#[tokio::test(start_paused = true)]
async fn a_trailer_can_be_missing() {
    for when in [r#"{"archive-begin": {"archive": "base.tar"}}"#, r#"{"archive-end": {"archive": "base.tar"}}"#] {
        let archive_without = struck_archive(when, r#"{"omit-trailer": {}}"#).await;
        let whole = archive(&sound().await, "base.tar");
        assert!(archive_without == whole[..whole.len() - 1024]);
    }
}

#[tokio::test(start_paused = true)]
async fn extra_members_come_before_the_point() {
    let extra = r#"{"extra-member": {"name": "pg_tblspc/1", "kind": "symlink", "target": "/tmp"}}"#;
    let archive = struck_archive(r#"{"member": {"path": "backup_label"}}"#, extra).await;
    let first = members(&archive).remove(0);
    assert_eq!(first, ("pg_tblspc/1".to_owned(), tar::EntryType::Symlink, 0, Some("/tmp".to_owned())));
    let extra = r#"{"extra-member": {"name": "recovery.signal", "content": "now"}}"#;
    let archive = struck_archive(r#"{"archive-end": {"archive": "base.tar"}}"#, extra).await;
    let last = members(&archive).pop().unwrap();
    assert_eq!(last, ("recovery.signal".to_owned(), tar::EntryType::Regular, 3, None));
}

#[tokio::test(start_paused = true)]
async fn a_sound_archive_satisfies_the_strict_reader() {
    for (name, archive) in archives(&sound().await).into_iter().filter(|(name, _)| name != "manifest") {
        let mut reader = TarReader::new(Trailer::Required);
        let mut events = Vec::new();
        reader.push(archive.into(), &mut events).unwrap();
        reader.finish().unwrap();
        let directories = events
            .iter()
            .filter(|event| matches!(event, TarEvent::Member(MemberHeader { kind: MemberKind::Directory, .. })));
        assert!(directories.count() > 0, "{name}");
    }
}
