//! Headers as servers sent them, archives as no server should, and the `tar` crate as a second opinion.

use std::io::Read;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const RECORDED: &str = include_str!("../../../tests/data/tar-headers.txt");

/// Release, member and header of every recorded sample.
fn recorded() -> Vec<(&'static str, &'static str, [u8; BLOCK])> {
    let rows = RECORDED.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut fields = line.split(' ');
        let (release, member, digits) = (fields.next().unwrap(), fields.next().unwrap(), fields.next().unwrap());
        let mut header = [0; BLOCK];
        for (byte, pair) in header.iter_mut().zip(digits.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        }
        (release, member, header)
    });
    rows.collect()
}

fn file(name: &str, size: u64) -> MemberHeader {
    MemberHeader { name: name.into(), kind: MemberKind::File, mode: 0o600, uid: 1001, gid: 1001, size, mtime: 0 }
}

fn directory(name: &str) -> MemberHeader {
    MemberHeader { kind: MemberKind::Directory, mode: 0o700, ..file(name, 0) }
}

fn link(name: &str, target: &str) -> MemberHeader {
    MemberHeader { kind: MemberKind::Symlink { target: target.into() }, mode: 0o777, ..file(name, 0) }
}

/// Puts the right checksum into a header that was tampered with.
fn seal(header: &mut [u8; BLOCK]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:07o} ").as_bytes());
}

/// A member whose header was changed and sealed again.
fn tampered(header: &MemberHeader, change: impl FnOnce(&mut [u8; BLOCK])) -> Vec<u8> {
    let mut block = header.encode().unwrap();
    change(&mut block);
    seal(&mut block);
    block.to_vec()
}

fn padded(content: &[u8]) -> Vec<u8> {
    let mut bytes = content.to_vec();
    bytes.resize(content.len() + padding(content.len() as u64), 0);
    bytes
}

fn read_in(chunks: impl Iterator<Item = Bytes>, trailer: Trailer) -> Result<Vec<TarEvent>, TarError> {
    let (mut reader, mut events) = (TarReader::new(trailer), Vec::new());
    for chunk in chunks {
        reader.push(chunk, &mut events)?;
    }
    reader.finish()?;
    Ok(events)
}

fn read(archive: &[u8], trailer: Trailer) -> Result<Vec<TarEvent>, TarError> {
    read_in(std::iter::once(Bytes::copy_from_slice(archive)), trailer)
}

/// Why the archive, followed by a trailer, is refused: whole and byte by byte alike.
fn refusal(archive: &[u8]) -> String {
    let whole = [archive, &[0; 2 * BLOCK]].concat();
    bare_refusal(&whole, Trailer::Required)
}

fn bare_refusal(archive: &[u8], trailer: Trailer) -> String {
    let error = read(archive, trailer).expect_err("must be refused");
    let bytes = archive.iter().map(|&byte| Bytes::from(vec![byte]));
    assert_eq!(read_in(bytes, trailer), Err(error.clone()), "byte by byte");
    error.to_string()
}

#[test]
fn headers_equal_recorded_ones_byte_for_byte() {
    let samples = recorded();
    assert!(samples.len() >= 24, "{}", samples.len());
    for (release, member, bytes) in samples {
        let header = MemberHeader::decode(&bytes).unwrap().unwrap();
        assert_eq!(header.name, member.as_bytes());
        assert_eq!((header.uid, header.gid), (1001, 1001));
        assert_eq!(header.encode().unwrap(), bytes, "{member} of {release}");
        let expected = match member {
            "pg_wal/" | "base/" => (MemberKind::Directory, 0o700, 0),
            "huge" => (MemberKind::File, 0o644, 8 << 30),
            "PG_VERSION" => (MemberKind::File, 0o600, 3),
            "global/pg_control" => (MemberKind::File, 0o600, 8192),
            _ => (MemberKind::File, 0o600, header.size),
        };
        assert_eq!((header.kind, header.mode, header.size), expected, "{member} of {release}");
    }
}

#[test]
fn a_link_is_written_with_a_slash() {
    let bytes = link("pg_tblspc/16391", "/srv/ts").encode().unwrap();
    let header = MemberHeader::decode(&bytes).unwrap().unwrap();
    assert_eq!(header, link("pg_tblspc/16391/", "/srv/ts"));
    assert_eq!(header.path(), b"pg_tblspc/16391");
    assert_eq!(directory("./pg_wal/summaries").path(), b"pg_wal/summaries");
}

#[test]
fn sizes_are_padded_to_blocks() {
    assert_eq!([0, 1, 511, 512, 513].map(padded_size), [0, 512, 512, 512, 1024]);
    assert_eq!([0, 1, 511, 512, 513].map(padding), [0, 511, 1, 0, 511]);
    assert_eq!(padded_size(u64::MAX), u64::MAX);
}

#[test]
fn refuses_to_write_what_does_not_fit() {
    let long = "x".repeat(99);
    assert!(file(&long, 0).encode().is_ok());
    assert!(directory(&long[1..]).encode().is_ok());
    assert!(link("l", &long).encode().is_ok());
    let refused = [
        file(&format!("{long}y"), 0),
        directory(&long),
        link("l", &format!("/{long}")),
        link("l", ""),
        link("l", "a\0b"),
        file("", 0),
        file("a\0b", 0),
        file("a/", 0),
        file("a", 1 << 63),
        MemberHeader { size: 1, ..directory("d") },
    ];
    let texts = refused.map(|header| header.encode().unwrap_err().to_string().replace(&long[9..], "…"));
    insta::assert_snapshot!(texts.join("\n"), @r#"
    file name too long for tar format: "…xxxxxxxxxy"
    file name too long for tar format: "…xxxxxxxxx"
    symbolic link target too long for tar format: file name "l", target "/…xxxxxxxxx"
    tar member is a symbolic link without a target
    symbolic link target contains a NUL byte
    tar member has empty name
    file name contains a NUL byte
    tar member is a regular file but its name ends in a slash
    archive member of 9223372036854775808 bytes is too large for tar format
    tar member is a directory but has a size of 1
    "#);
}

#[test]
fn accepts_what_old_servers_and_other_writers_do() {
    let read_back = |bytes: Vec<u8>| MemberHeader::decode(bytes.first_chunk().unwrap()).unwrap().unwrap();
    let plain = file("PG_VERSION", 3);
    assert_eq!(read_back(tampered(&plain, |h| h[257..265].copy_from_slice(b"ustar  \0"))), plain);
    let before_9_2_2 = |h: &mut [u8; BLOCK]| {
        h[257..265].copy_from_slice(b"ustar00\0");
        h[100..108].copy_from_slice(b"0100600 ");
        h[116..124].copy_from_slice(b"\x000001751");
    };
    assert_eq!(read_back(tampered(&plain, before_9_2_2)), plain);
    let nul_terminated = |h: &mut [u8; BLOCK]| {
        h[107] = 0;
        h[135] = 0;
        h[116..124].copy_from_slice(b"1751 \0\0\0");
    };
    assert_eq!(read_back(tampered(&plain, nul_terminated)), plain);
    let nobody = MemberHeader { uid: 0, gid: 0, ..plain.clone() };
    assert_eq!(read_back(tampered(&plain, |h| h[108..124].fill(0))), nobody);
    let mut six_digits = plain.encode().unwrap();
    let sum = String::from_utf8(six_digits[149..155].to_vec()).unwrap();
    six_digits[148..156].copy_from_slice(format!("{sum} \0").as_bytes());
    assert_eq!(MemberHeader::decode(&six_digits), Ok(Some(plain)));
}

#[test]
fn refuses_hostile_headers() {
    let plain = file("base/1/2619", 5);
    let typed = |flag| tampered(&plain, |h| h[156] = flag);
    let sized = |size: &[u8]| tampered(&plain, |h| h[124..124 + size.len()].copy_from_slice(size));
    let mut unsealed = plain.encode().unwrap();
    unsealed[0] ^= 1;
    let archives = [
        typed(b'x'),
        typed(b'g'),
        typed(b'L'),
        typed(b'K'),
        typed(b'S'),
        typed(b'1'),
        typed(b'3'),
        typed(b'4'),
        typed(b'6'),
        typed(b'7'),
        typed(b'Z'),
        typed(0),
        typed(0xFF),
        typed(b'5'),
        typed(b'2'),
        unsealed.to_vec(),
        b"<html><body>502 Bad Gateway</body></html>".repeat(13)[..BLOCK].to_vec(),
        tampered(&plain, |h| h[257..265].fill(0)),
        sized(b"         5\0 "),
        sized(b"-0000000005 "),
        sized(b"00000000005x"),
        sized(b"000000000005"),
        sized(b"\0\0\0\0\0\0\0\0\0\0\0\0"),
        sized(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        sized(b"\x80\0\0\0\x80\0\0\0\0\0\0\0"),
        sized(b"\x80\0\0\x01\0\0\0\0\0\0\0\0"),
        sized(b"\x81\0\0\0\0\0\0\0\0\0\0\0"),
        tampered(&plain, |h| h[100..108].copy_from_slice(b"  600 \0 ")),
        tampered(&plain, |h| h[100..108].copy_from_slice(b"7777777 ")),
        tampered(&plain, |h| h[108..116].copy_from_slice(b"\x80\0\0\x01\0\0\0\0")),
        tampered(&plain, |h| h[0..100].fill(0)),
        tampered(&plain, |h| h[0..100].fill(b'n')),
        tampered(&plain, |h| h[50] = b'n'),
        tampered(&plain, |h| h[11] = b'/'),
        tampered(&plain, |h| h[345] = b'p'),
        tampered(&plain, |h| h[157] = b't'),
        tampered(&link("l", "t"), |h| h[157] = 0),
        tampered(&link("l", "t"), |h| h[134] = b'1'),
    ];
    let texts = archives.map(|archive| refusal(&archive));
    insta::assert_snapshot!(texts.join("\n"), @r#"
    unsupported tar member type "x" (pax header) (member "base/1/2619", byte 0 of the archive)
    unsupported tar member type "g" (global pax header) (member "base/1/2619", byte 0 of the archive)
    unsupported tar member type "L" (GNU long name) (member "base/1/2619", byte 0 of the archive)
    unsupported tar member type "K" (GNU long link target) (member "base/1/2619", byte 0 of the archive)
    unsupported tar member type "S" (GNU sparse file) (member "base/1/2619", byte 0 of the archive)
    unsupported tar member type "1" (hard link) (member "base/1/2619", byte 0 of the archive)
    unsupported tar member type "3" (character device) (member "base/1/2619", byte 0 of the archive)
    unsupported tar member type "4" (block device) (member "base/1/2619", byte 0 of the archive)
    unsupported tar member type "6" (fifo) (member "base/1/2619", byte 0 of the archive)
    unsupported tar member type "7" (contiguous file) (member "base/1/2619", byte 0 of the archive)
    unsupported tar member type "Z" (unknown) (member "base/1/2619", byte 0 of the archive)
    unsupported tar member type "\x00" (file of the time before ustar) (member "base/1/2619", byte 0 of the archive)
    unsupported tar member type "\xff" (unknown) (member "base/1/2619", byte 0 of the archive)
    tar member is a directory but has a size of 5 (member "base/1/2619", byte 0 of the archive)
    tar member is a symbolic link without a target (member "base/1/2619", byte 0 of the archive)
    input file does not appear to be a valid tar archive: header checksum is 6496, but 6497 was computed (member "case/1/2619", byte 0 of the archive)
    input file does not appear to be a valid tar archive: no ustar magic (member "<html><body>502 Bad Gateway</body></html><html><body>502 Bad Gateway</body></html><html><body>502 Ba", byte 0 of the archive)
    input file does not appear to be a valid tar archive: no ustar magic (member "base/1/2619", byte 0 of the archive)
    tar header field "size" does not begin with an octal digit (member "base/1/2619", byte 0 of the archive)
    tar header field "size" does not begin with an octal digit (member "base/1/2619", byte 0 of the archive)
    tar header field "size" has something else than blanks after its digits (member "base/1/2619", byte 0 of the archive)
    tar header field "size" is not terminated (member "base/1/2619", byte 0 of the archive)
    tar header field "size" does not begin with an octal digit (member "base/1/2619", byte 0 of the archive)
    tar header field "size" is negative (member "base/1/2619", byte 0 of the archive)
    tar header field "size" is out of range (member "base/1/2619", byte 0 of the archive)
    tar header field "size" is out of range (member "base/1/2619", byte 0 of the archive)
    tar header field "size" is out of range (member "base/1/2619", byte 0 of the archive)
    tar header field "mode" does not begin with an octal digit (member "base/1/2619", byte 0 of the archive)
    tar header field "mode" is out of range (member "base/1/2619", byte 0 of the archive)
    tar header field "uid" is out of range (member "base/1/2619", byte 0 of the archive)
    tar member has empty name (member "", byte 0 of the archive)
    tar header field "name" is not terminated (member "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn", byte 0 of the archive)
    tar header field "name" holds more than it should (member "base/1/2619", byte 0 of the archive)
    tar member is a regular file but its name ends in a slash (member "base/1/2619/", byte 0 of the archive)
    tar header field "prefix" holds more than it should (member "base/1/2619", byte 0 of the archive)
    tar header field "linkname" holds more than it should (member "base/1/2619", byte 0 of the archive)
    tar member is a symbolic link without a target (member "l/", byte 0 of the archive)
    tar member is a symbolic link but has a size of 1 (member "l/", byte 0 of the archive)
    "#);
}

#[test]
fn refuses_hostile_archives() {
    let member = [file("PG_VERSION", 3).encode().unwrap().to_vec(), padded(b"18\n")].concat();
    let zeros = |blocks: usize| vec![0; blocks * BLOCK];
    let mut dirty = member.clone();
    dirty[600] = 1;
    let required = [
        vec![],
        member.clone(),
        member[..100].to_vec(),
        [&member[..], &member[..100]].concat(),
        member[..514].to_vec(),
        member[..515].to_vec(),
        member[..1000].to_vec(),
        [&member[..], &zeros(1)].concat(),
        [&member[..], &zeros(1), &[0; 100]].concat(),
        [&member[..], &zeros(1), &member, &zeros(2)].concat(),
        [&member[..], &zeros(2), &member].concat(),
        [&member[..], &zeros(2), &[0]].concat(),
        [&member[..], &zeros(18)].concat(),
        dirty,
    ];
    let texts = required.map(|archive| bare_refusal(&archive, Trailer::Required));
    insta::assert_snapshot!(texts.join("\n"), @r#"
    archive ended without its two terminating zero blocks (at byte 0 of the archive)
    archive ended without its two terminating zero blocks (after member "PG_VERSION", byte 1024 of the archive)
    COPY stream ended before last file was finished: inside a header (at byte 100 of the archive)
    COPY stream ended before last file was finished: inside a header (after member "PG_VERSION", byte 1124 of the archive)
    COPY stream ended before last file was finished (member "PG_VERSION", byte 514 of the archive)
    COPY stream ended before last file was finished (member "PG_VERSION", byte 515 of the archive)
    COPY stream ended before last file was finished (member "PG_VERSION", byte 1000 of the archive)
    archive has a single zero block where two must end it (after member "PG_VERSION", byte 1536 of the archive)
    archive has a single zero block where two must end it (after member "PG_VERSION", byte 1636 of the archive)
    archive has a single zero block where two must end it (after member "PG_VERSION", byte 1536 of the archive)
    archive continues after its two terminating zero blocks (after member "PG_VERSION", byte 2048 of the archive)
    archive continues after its two terminating zero blocks (after member "PG_VERSION", byte 2048 of the archive)
    archive continues after its two terminating zero blocks (after member "PG_VERSION", byte 2048 of the archive)
    padding of tar member is not zero (member "PG_VERSION", byte 600 of the archive)
    "#);

    assert_eq!(read(&zeros(2), Trailer::Required), Ok(vec![TarEvent::End]));
    assert_eq!(read(&[], Trailer::Absent), Ok(vec![]));
    assert_eq!(read(&zeros(2), Trailer::Absent), Ok(vec![TarEvent::End]));
    let absent = [zeros(1), zeros(3), [&member[..], &zeros(1), &member].concat()];
    let texts = absent.map(|archive| bare_refusal(&archive, Trailer::Absent));
    insta::assert_snapshot!(texts.join("\n"), @r#"
    archive has a single zero block where two must end it (at byte 512 of the archive)
    archive continues after its two terminating zero blocks (at byte 1024 of the archive)
    archive has a single zero block where two must end it (after member "PG_VERSION", byte 1536 of the archive)
    "#);
}

#[test]
fn names_in_messages_cannot_disturb_a_terminal() {
    let mut bytes = tampered(&file("a", 0), |h| h[0..7].copy_from_slice(b"\n\x1b[31m\xff"));
    bytes[0] ^= 1;
    assert!(!refusal(&bytes).contains(char::is_control));
}

#[test]
fn stays_refused_and_ended() {
    let (mut reader, mut events) = (TarReader::new(Trailer::Required), Vec::new());
    let error = reader.push(vec![1; BLOCK].into(), &mut events).unwrap_err();
    assert_eq!(reader.push(vec![0; BLOCK].into(), &mut events), Err(error.clone()));
    assert_eq!((reader.finish(), reader.offset(), events.len()), (Err(error), 0, 0));

    let mut reader = TarReader::new(Trailer::Absent);
    assert!(reader.is_at_boundary());
    assert_eq!((reader.finish(), reader.finish()), (Ok(()), Ok(())));
    assert_eq!(reader.push(vec![0].into(), &mut events).unwrap_err().problem, TarProblem::AfterEnd);
}

#[test]
fn content_is_not_copied() {
    let mut archive = file("a", 1000).encode().unwrap().to_vec();
    archive.extend(padded(&[7; 1000]));
    let chunk = Bytes::from(archive);
    let mut events = Vec::new();
    TarReader::new(Trailer::Absent).push(chunk.clone(), &mut events).unwrap();
    let TarEvent::Data(data) = &events[1] else { panic!("{events:?}") };
    assert_eq!(data.as_ptr(), chunk[BLOCK..].as_ptr());
}

type Member = (MemberHeader, Vec<u8>);

fn member() -> impl Strategy<Value = Member> {
    let name = "([a-zA-Z0-9_.]{1,9}/){0,3}[A-Za-z0-9_]{1,40}";
    let content = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..1600),
        // Full blocks of zeros and of headers are content like any other.
        (0..4_usize).prop_map(|blocks| vec![0; blocks * BLOCK]),
        Just(file("inner", 0).encode().unwrap().to_vec()),
    ];
    let kind = prop_oneof![3 => Just(0), 1 => Just(1), 1 => Just(2)];
    (kind, name, content, 0_u32..=0o7777, any::<(u32, u32, u32)>()).prop_map(|(kind, name, content, mode, numbers)| {
        let (kind, name, content) = match kind {
            0 => (MemberKind::File, name, content),
            1 => (MemberKind::Directory, name + "/", vec![]),
            _ => (MemberKind::Symlink { target: b"/srv/ts".to_vec() }, name + "/", vec![]),
        };
        let (uid, gid, mtime) = numbers;
        let size = content.len() as u64;
        (MemberHeader { name: name.into(), kind, mode, uid, gid, size, mtime: mtime.into() }, content)
    })
}

fn write(members: &[Member]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (header, content) in members {
        archive.extend(header.encode().unwrap());
        archive.extend(padded(content));
    }
    archive.extend([0; 2 * BLOCK]);
    archive
}

fn write_elsewhere(members: &[Member]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (header, content) in members {
        let mut other = tar::Header::new_ustar();
        other.as_ustar_mut().unwrap().name[..header.name.len()].copy_from_slice(&header.name);
        let entry_type = match &header.kind {
            MemberKind::File => tar::EntryType::Regular,
            MemberKind::Directory => tar::EntryType::Directory,
            MemberKind::Symlink { target } => {
                other.as_ustar_mut().unwrap().linkname[..target.len()].copy_from_slice(target);
                tar::EntryType::Symlink
            }
        };
        other.set_entry_type(entry_type);
        other.set_mode(header.mode);
        other.set_uid(header.uid.into());
        other.set_gid(header.gid.into());
        other.set_size(header.size);
        other.set_mtime(header.mtime);
        other.set_cksum();
        builder.append(&other, content.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Members as the `tar` crate reads them.
fn read_elsewhere(archive: &[u8]) -> std::io::Result<Vec<Member>> {
    let mut reader = tar::Archive::new(archive);
    let members = reader.entries()?.map(|entry| {
        let mut entry = entry?;
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        let kind = match entry.header().entry_type() {
            tar::EntryType::Directory => MemberKind::Directory,
            tar::EntryType::Symlink => MemberKind::Symlink { target: entry.link_name_bytes().unwrap().to_vec() },
            _ => MemberKind::File,
        };
        let id = |id: u64| u32::try_from(id).unwrap();
        let header = MemberHeader {
            name: entry.path_bytes().to_vec(),
            kind,
            mode: entry.header().mode()? & 0o7777,
            uid: id(entry.header().uid()?),
            gid: id(entry.header().gid()?),
            size: entry.size(),
            mtime: entry.header().mtime()?,
        };
        Ok((header, content))
    });
    members.collect()
}

/// Members as the events tell them, after a check that the events come in order.
fn gather(events: Vec<TarEvent>) -> Vec<Member> {
    let (mut members, mut open) = (Vec::<Member>::new(), false);
    for event in events {
        match event {
            TarEvent::Member(header) => {
                assert!(!open);
                open = true;
                members.push((header, Vec::new()));
            }
            TarEvent::Data(data) => {
                assert!(open && !data.is_empty());
                members.last_mut().unwrap().1.extend_from_slice(&data);
            }
            TarEvent::MemberEnd => {
                assert!(open);
                let (header, content) = members.last().unwrap();
                assert_eq!(header.size, content.len() as u64);
                open = false;
            }
            TarEvent::End => assert!(!open),
        }
    }
    members
}

fn chunks(archive: &[u8], cuts: &[Index]) -> Vec<Bytes> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(archive.len() + 1)).collect();
    cuts.push(0);
    cuts.push(archive.len());
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| Bytes::copy_from_slice(&archive[pair[0]..pair[1]])).collect()
}

proptest! {
    #[test]
    fn reads_as_the_tar_crate_does(
        members in proptest::collection::vec(member(), 0..6),
        cuts in proptest::collection::vec(any::<Index>(), 0..40),
        elsewhere: bool,
    ) {
        let archive = if elsewhere { write_elsewhere(&members) } else { write(&members) };
        let events = read_in(chunks(&archive, &cuts).into_iter(), Trailer::Required).unwrap();
        prop_assert_eq!(events.last(), Some(&TarEvent::End));
        prop_assert_eq!(&gather(events), &members);
        prop_assert_eq!(&read_elsewhere(&archive).unwrap(), &members);
    }

    #[test]
    fn a_header_that_is_accepted_is_understood_alike(
        members in proptest::collection::vec(member(), 1..4),
        at in 0..BLOCK,
        value: u8,
    ) {
        let mut archive = write(&members);
        archive[at] = value;
        if !(148..156).contains(&at) {
            seal(archive.first_chunk_mut().unwrap());
        }
        if let Ok(events) = read(&archive, Trailer::Required) {
            prop_assert_eq!(gather(events), read_elsewhere(&archive).unwrap());
        }
    }

    #[test]
    fn every_cut_is_noticed(members in proptest::collection::vec(member(), 1..4), cut: Index) {
        let archive = write(&members);
        let cut = cut.index(archive.len());
        prop_assert!(read(&archive[..cut], Trailer::Required).is_err());
    }

    #[test]
    fn chunks_do_not_matter(bytes: Vec<u8>, members in proptest::collection::vec(member(), 0..2), at: Index,
        cuts in proptest::collection::vec(any::<Index>(), 0..20))
    {
        let mut archive = write(&members);
        let at = at.index(archive.len());
        for (byte, noise) in archive[at..].iter_mut().zip(bytes) {
            *byte = noise;
        }
        let whole = read(&archive, Trailer::Required).map(gather);
        let pieces = read_in(chunks(&archive, &cuts).into_iter(), Trailer::Required).map(gather);
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn round_trips(member in member(), size in 0..=MAX_SIZE, mtime in 0..=MAX_SIZE) {
        let mut header = member.0;
        header.mtime = mtime;
        if header.kind == MemberKind::File {
            header.size = size;
        }
        let bytes = header.encode().unwrap();
        prop_assert_eq!(MemberHeader::decode(&bytes), Ok(Some(header)));
    }

    #[test]
    fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..2048), trailer: bool) {
        let _ = read(&bytes, if trailer { Trailer::Required } else { Trailer::Absent });
    }
}
