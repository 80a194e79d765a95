//! Manifests as servers wrote them, and as nobody should.

use proptest::prelude::*;

use super::*;

/// The first lines that a server of 18 sent without checksums.
const HEAD_18: &str = r#"{ "PostgreSQL-Backup-Manifest-Version": 2,
"System-Identifier": 7710435984632930204,
"Files": [
{ "Path": "pg_tblspc/16391/PG_18_202506291/5/16395_fsm", "Size": 24576, "Last-Modified": "2026-11-21 01:49:33 GMT" },
"#;
/// Lines that a server of 13 sent; the hexadecimal path and the second timeline are made up.
const WHOLE_13: &str = r#"{ "PostgreSQL-Backup-Manifest-Version": 1,
"Files": [
{ "Path": "pg_tblspc/16391/PG_13_202007201/13383/16395_fsm", "Size": 24576, "Last-Modified": "2026-11-21 01:47:12 GMT", "Checksum-Algorithm": "SHA256", "Checksum": "b2a4f09348d243465d2c9f21e9945375e0c09b4f20d9dd8e599d179ec6e2fda0" },
{ "Path": "backup_label", "Size": 207, "Last-Modified": "2026-11-21 01:47:13 GMT", "Checksum-Algorithm": "SHA256", "Checksum": "bb7d71ce0082e99876550f918c9a46be72c05866f585f97d3342d97b6bc48799" },
{ "Encoded-Path": "626173652f352fff", "Size": 8192, "Last-Modified": "2026-11-21 01:47:13 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "8a744722" },
{ "Path": "global/pg_control", "Size": 8192, "Last-Modified": "2026-11-21 01:47:13 GMT" }
],
"WAL-Ranges": [
{ "Timeline": 2, "Start-LSN": "0/3000100", "End-LSN": "0/4000000" },
{ "Timeline": 1, "Start-LSN": "0/3000028", "End-LSN": "0/3000100" }
],
"#;

/// A manifest with its last line.
fn sealed(body: &str) -> Vec<u8> {
    let mut hasher = ChecksumHasher::new(ChecksumAlgorithm::Sha256);
    hasher.update(body.as_bytes());
    format!("{body}\"Manifest-Checksum\": \"{}\"}}\n", hex::encode(&hasher.finish())).into_bytes()
}

fn refusal(text: impl AsRef<[u8]>) -> String {
    match Manifest::parse(text.as_ref()) {
        Ok(manifest) => format!("accepted: {manifest:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn writes_what_servers_write() {
    let whole = sealed(WHOLE_13);
    let manifest = Manifest::parse(&whole).unwrap();
    assert_eq!(manifest.to_bytes(false), whole);
    assert_eq!(manifest.file(b"base/5/\xff").unwrap().size, 8192);
    assert_eq!(manifest.wal_ranges[0].timeline, TimelineId(2));

    let path = b"pg_tblspc/16391/PG_18_202506291/5/16395_fsm".to_vec();
    let last_modified = "2026-11-21 01:49:33 GMT".to_owned();
    let file = ManifestFile { path, size: 24576, last_modified, checksum: None };
    let mut out = bytes::BytesMut::new();
    let mut writer = ManifestWriter::new(2, Some(7_710_435_984_632_930_204), false);
    writer.add_file(&file, &mut out);
    writer.add_file(&file, &mut out);
    assert!(std::str::from_utf8(&out).unwrap().starts_with(HEAD_18));

    let forced = "{ \"Encoded-Path\": \"70675f74626c7370632f31363339312f50475f31385f3230323530363239312f352f31363339355f66736d\", \"Size\": 24576,";
    let forced_manifest = Manifest { version: 1, files: vec![file], ..Manifest::default() };
    assert!(String::from_utf8(forced_manifest.to_bytes(true)).unwrap().contains(forced));
}

#[test]
fn writes_an_empty_manifest() {
    let manifest = Manifest { version: 2, system_identifier: Some(u64::MAX), ..Manifest::default() };
    let bytes = manifest.to_bytes(false);
    assert_eq!(Manifest::parse(&bytes), Ok(manifest));
    insta::assert_snapshot!(String::from_utf8(bytes).unwrap(), @r#"
    { "PostgreSQL-Backup-Manifest-Version": 2,
    "System-Identifier": 18446744073709551615,
    "Files": [
    ],
    "WAL-Ranges": [

    ],
    "Manifest-Checksum": "fd73be2977846114d30817e92037a8e51b4bbf9688d762478e48da2dfcc69da4"}
    "#);
}

#[test]
fn escapes_what_json_must() {
    let file = |path: &[u8]| ManifestFile { path: path.into(), size: 0, last_modified: String::new(), checksum: None };
    let files = [&b"a\"\\/\x08\x0c\n\r\t\x01\x7f"[..], "ä\u{1F418}".as_bytes(), b"nul\0", b"\xed\xa0\x80"].map(file);
    let manifest = Manifest { version: 1, files: files.to_vec(), ..Manifest::default() };
    let bytes = manifest.to_bytes(false);
    let text = String::from_utf8(bytes.clone()).unwrap();
    let lines: Vec<_> = text.lines().filter_map(|line| line.split(", \"Size\"").next()).skip(2).take(4).collect();
    insta::assert_snapshot!(lines.join("\n").replace('\x7f', "<DEL>"), @r#"
    { "Path": "a\"\\/\b\f\n\r\t\u0001<DEL>"
    { "Path": "ä🐘"
    { "Encoded-Path": "6e756c00"
    { "Encoded-Path": "eda080"
    "#);
    assert_eq!(Manifest::parse(&bytes), Ok(manifest));
}

#[test]
fn accepts_what_postgresql_accepts() {
    let files = |text: &str| Manifest::parse(&sealed(text)).unwrap().files;
    let top = "{\"PostgreSQL-Backup-Manifest-Version\":\"1\",\n\"Files\":[";
    // Strings for numbers, fields twice, no time, no checksum for an algorithm, upper case, sections in any order or absent.
    let file = &files(&format!(
        "{top}{{\"Size\":\"1\",\"Size\":2,\"Path\":\"\\u00e4\\ud83d\\udc18\\/\",\"Checksum-Algorithm\":\"sha224\"}}],\n"
    ))[0];
    assert_eq!((file.size, file.path.as_slice()), (2, "ä\u{1F418}/".as_bytes()));
    assert_eq!(file.checksum, Some((ChecksumAlgorithm::Sha224, vec![])));
    let file = &files(&format!(
        "{top}{{\"Size\":0,\"Encoded-Path\":\"FfaA\",\"Checksum-Algorithm\":\"NONE\",\"Checksum\":\"00\"}}],\n"
    ))[0];
    assert_eq!((file.path.as_slice(), &file.checksum), (&b"\xff\xaa"[..], &None));
    assert_eq!(files("{\"PostgreSQL-Backup-Manifest-Version\":1,\n"), []);
    assert_eq!(files(&format!("{top}],\"Files\":[],\"WAL-Ranges\":[],\n")), []);
}

#[test]
fn refuses_with_postgresqls_texts() {
    let v1 = "{\"PostgreSQL-Backup-Manifest-Version\": 1, ";
    let file = |fields: &str| format!("{v1}\"Files\": [{{{fields}}}]}}");
    let range = |fields: &str| format!("{v1}\"WAL-Ranges\": [{{{fields}}}]}}");
    let top = |fields: &str| format!("{v1}{fields}}}");
    let whole = String::from_utf8(sealed(WHOLE_13)).unwrap();
    let cases = [
        "{".to_owned(),
        "{}".to_owned(),
        "[]".to_owned(),
        "1".to_owned(),
        "{\"not-expected\": 1}".to_owned(),
        "{\"PostgreSQL-Backup-Manifest-Version\": \"phooey\"}".to_owned(),
        "{\"PostgreSQL-Backup-Manifest-Version\": 9876599}".to_owned(),
        "{\"PostgreSQL-Backup-Manifest-Version\": 1}".to_owned(),
        "{\"PostgreSQL-Backup-Manifest-Version\": {}}".to_owned(),
        top("\"Oops\": 1"),
        top("\"System-Identifier\": \"x\""),
        top("\"Files\": {}"),
        top("\"Files\": 1"),
        top("\"Files\": [[]]"),
        top("\"Files\": [1]"),
        top("\"WAL-Ranges\": \"x\""),
        file(""),
        file("\"Path\": \"a\", \"Encoded-Path\": \"61\""),
        file("\"Oops\": 1"),
        file("\"Path\": {}"),
        file("\"Path\": \"a\""),
        file("\"Path\": \"a\", \"Size\": \"Oops\""),
        file("\"Path\": \"a\", \"Size\": -1"),
        file("\"Path\": \"a\", \"Size\": 18446744073709551616"),
        file("\"Encoded-Path\": \"123\", \"Size\": 0"),
        file("\"Encoded-Path\": \"zz\", \"Size\": 0"),
        file("\"Path\": \"a\", \"Size\": 0, \"Checksum\": \"aa\""),
        file("\"Path\": \"a\", \"Size\": 0, \"Checksum-Algorithm\": \"oops\", \"Checksum\": \"00\""),
        file("\"Path\": \"a\", \"Size\": 0, \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"0\""),
        file("\"Path\": \"a\", \"Size\": 0, \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"zz\""),
        file("\"Path\": \"a\", \"Size\": 0}, {\"Encoded-Path\": \"61\", \"Size\": 0"),
        range("\"Oops\": 1"),
        range(""),
        range("\"Timeline\": 1"),
        range("\"Timeline\": 1, \"Start-LSN\": \"0/0\""),
        range("\"Start-LSN\": \"0/0\", \"End-LSN\": \"0/0\""),
        range("\"Timeline\": \"x\", \"Start-LSN\": \"0/0\", \"End-LSN\": \"0/0\""),
        range("\"Timeline\": 4294967296, \"Start-LSN\": \"0/0\", \"End-LSN\": \"0/0\""),
        range("\"Timeline\": 1, \"Start-LSN\": \"0/0x\", \"End-LSN\": \"0/0\""),
        range("\"Timeline\": 1, \"Start-LSN\": \"oops\", \"End-LSN\": \"0/0\""),
        range("\"Timeline\": 1, \"Start-LSN\": \"0/0\", \"End-LSN\": \"oops\""),
        top("\"Manifest-Checksum\": \"00\", \"Files\": []"),
        top("\"Manifest-Checksum\": \"00\""),
        top("\"Manifest-Checksum\": \"00\"") + "\n",
        top("\n\"Manifest-Checksum\": \"00\""),
        top("\n\"Manifest-Checksum\": \"00\"") + "\n ",
        top("\n\"Manifest-Checksum\": \"00\"") + "\n",
        top(&format!("\n\"Manifest-Checksum\": \"{}\"", "g".repeat(64))) + "\n",
        top(&format!("\n\"Manifest-Checksum\": \"{}\"", "0".repeat(64))) + "\n",
        whole.replace("8192", "8193"),
        whole.replace("\"}\n", "\"}\n{}"),
        String::new(),
        " \n".to_owned(),
        whole[..whole.len() - 20].to_owned(),
        whole[..whole.len() - 2].to_owned(),
    ];
    let texts: Vec<_> = cases.iter().map(refusal).collect();
    insta::assert_snapshot!(texts.join("\n"), @r#"
    could not parse backup manifest: The input string ended unexpectedly.
    could not parse backup manifest: unexpected object end
    could not parse backup manifest: unexpected array start
    could not parse backup manifest: unexpected scalar
    could not parse backup manifest: expected version indicator
    could not parse backup manifest: manifest version not an integer
    could not parse backup manifest: unexpected manifest version
    could not parse backup manifest: unexpected object end
    could not parse backup manifest: unexpected object start
    could not parse backup manifest: unrecognized top-level field
    could not parse backup manifest: system identifier in manifest not an integer
    could not parse backup manifest: unexpected object start
    could not parse backup manifest: unexpected scalar
    could not parse backup manifest: unexpected array start
    could not parse backup manifest: unexpected scalar
    could not parse backup manifest: unexpected scalar
    could not parse backup manifest: missing path name
    could not parse backup manifest: both path name and encoded path name
    could not parse backup manifest: unexpected file field
    could not parse backup manifest: unexpected object start
    could not parse backup manifest: missing size
    could not parse backup manifest: file size is not an integer
    could not parse backup manifest: file size is not an integer
    could not parse backup manifest: file size is not an integer
    could not parse backup manifest: could not decode file name
    could not parse backup manifest: could not decode file name
    could not parse backup manifest: checksum without algorithm
    unrecognized checksum algorithm: "oops"
    invalid checksum for file "a": "0"
    invalid checksum for file "a": "zz"
    duplicate path name in backup manifest: "a"
    could not parse backup manifest: unexpected WAL range field
    could not parse backup manifest: missing timeline
    could not parse backup manifest: missing start LSN
    could not parse backup manifest: missing end LSN
    could not parse backup manifest: missing timeline
    could not parse backup manifest: timeline is not an integer
    could not parse backup manifest: timeline is not an integer
    could not parse backup manifest: could not parse start LSN
    could not parse backup manifest: could not parse start LSN
    could not parse backup manifest: could not parse end LSN
    could not parse backup manifest: unexpected object field
    could not parse backup manifest: expected at least 2 lines
    could not parse backup manifest: expected at least 2 lines
    could not parse backup manifest: expected at least 2 lines
    could not parse backup manifest: last line not newline-terminated
    invalid manifest checksum: "00"
    invalid manifest checksum: "gggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggg"
    manifest checksum mismatch
    manifest checksum mismatch
    could not parse backup manifest: Expected end of input, but found "{".
    could not parse backup manifest: The input string ended unexpectedly.
    could not parse backup manifest: The input string ended unexpectedly.
    could not parse backup manifest: Token ""41d848a26c52d4c1077bc0a64c17575e1e0d93c2958d1a7" is invalid.
    could not parse backup manifest: The input string ended unexpectedly.
    "#);
}

#[test]
fn refuses_what_is_not_json() {
    let cases: [&[u8]; 40] = [
        b"{1",
        b"{,",
        b"{\"a\"",
        b"{\"a\",",
        b"{\"PostgreSQL-Backup-Manifest-Version\": ,",
        b"{\"PostgreSQL-Backup-Manifest-Version\": 1 2",
        b"{\"PostgreSQL-Backup-Manifest-Version\": 1,}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": [}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": [,",
        b"{\"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": [{\"Size\":1} 2",
        b"{\"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": [{\"Size\":",
        b"{\"PostgreSQL-Backup-Manifest-Version\": 01}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": -}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": 1.}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": .5}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": 1e+}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": 1x}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": 1.5e3}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": -1}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": null}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": nulls}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": TRUE}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": 'a'}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": \xff\xfe}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": \"1",
        b"{\"PostgreSQL-Backup-Manifest-Version\": \"1\\",
        b"{\"PostgreSQL-Backup-Manifest-Version\": \"\n\"}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": \"\0\"}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": \"\\x\"}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": \"\\u12\"}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": \"\\u12",
        b"{\"PostgreSQL-Backup-Manifest-Version\": \"\\u0000\"}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": \"\\udc18\"}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": \"\\ud83d\"}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": \"\\ud83d\\n\"}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": \"\\ud83d\\u0041\"}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": \"\\ud83d\\ud83d\"}",
        b"{\"PostgreSQL-Backup-Manifest-Version\": \x1b[31m}",
        b"\xef\xbb\xbf{}",
        b"<html>",
    ];
    let texts: Vec<_> = cases.iter().map(refusal).collect();
    insta::assert_snapshot!(texts.join("\n"), @r#"
    could not parse backup manifest: Expected string or "}", but found "1".
    could not parse backup manifest: Expected string or "}", but found ",".
    could not parse backup manifest: The input string ended unexpectedly.
    could not parse backup manifest: Expected ":", but found ",".
    could not parse backup manifest: Expected JSON value, but found ",".
    could not parse backup manifest: Expected "," or "}", but found "2".
    could not parse backup manifest: Expected string, but found "}".
    could not parse backup manifest: Expected array element or "]", but found "}".
    could not parse backup manifest: Expected array element or "]", but found ",".
    could not parse backup manifest: missing path name
    could not parse backup manifest: The input string ended unexpectedly.
    could not parse backup manifest: Token "01" is invalid.
    could not parse backup manifest: Token "-" is invalid.
    could not parse backup manifest: Token "1." is invalid.
    could not parse backup manifest: Token "." is invalid.
    could not parse backup manifest: Token "1e+" is invalid.
    could not parse backup manifest: Token "1x" is invalid.
    could not parse backup manifest: manifest version not an integer
    could not parse backup manifest: manifest version not an integer
    could not parse backup manifest: manifest version not an integer
    could not parse backup manifest: Token "nulls" is invalid.
    could not parse backup manifest: Token "TRUE" is invalid.
    could not parse backup manifest: Token "'" is invalid.
    could not parse backup manifest: Token "��" is invalid.
    could not parse backup manifest: Token ""1" is invalid.
    could not parse backup manifest: Token ""1\" is invalid.
    could not parse backup manifest: Character with value 0x0a must be escaped.
    could not parse backup manifest: Character with value 0x00 must be escaped.
    could not parse backup manifest: Escape sequence "\x" is invalid.
    could not parse backup manifest: "\u" must be followed by four hexadecimal digits.
    could not parse backup manifest: Token ""\u12" is invalid.
    could not parse backup manifest: \u0000 cannot be converted to text.
    could not parse backup manifest: Unicode low surrogate must follow a high surrogate.
    could not parse backup manifest: Unicode low surrogate must follow a high surrogate.
    could not parse backup manifest: Unicode low surrogate must follow a high surrogate.
    could not parse backup manifest: Unicode low surrogate must follow a high surrogate.
    could not parse backup manifest: Unicode high surrogate must not follow a high surrogate.
    could not parse backup manifest: Token "\u{1b}" is invalid.
    could not parse backup manifest: Token "﻿" is invalid.
    could not parse backup manifest: Token "<" is invalid.
    "#);
}

#[test]
fn depth_and_quotations_are_bounded() {
    assert_eq!(refusal("[".repeat(1 << 20)), "could not parse backup manifest: unexpected array start");
    assert_eq!(refusal("{\"a\":".repeat(1 << 20)), "could not parse backup manifest: expected version indicator");
    assert!(refusal("x".repeat(1 << 20)).len() < 1200);
}

fn file() -> impl Strategy<Value = ManifestFile> {
    let path = prop_oneof![
        4 => "(base|global)/[0-9]{1,5}(_fsm)?".prop_map(String::into_bytes),
        1 => ".{0,20}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ];
    (path, any::<u64>(), any::<i32>(), 0_usize..6, any::<[u8; 64]>()).prop_map(|(path, size, time, which, bytes)| {
        let algorithm = ChecksumAlgorithm::ALL[which];
        let checksum = (which > 0).then(|| (algorithm, bytes[..algorithm.digest_len()].to_vec()));
        ManifestFile { path, size, last_modified: format_last_modified(time.into()), checksum }
    })
}

fn manifest() -> impl Strategy<Value = Manifest> {
    let range = any::<(u32, u64, u64)>().prop_map(|(timeline, start, end)| WalRange {
        timeline: TimelineId(timeline),
        start: Lsn(start),
        end: Lsn(end),
    });
    let ranges = proptest::collection::vec(range, 0..4);
    (any::<Option<u64>>(), proptest::collection::vec(file(), 0..6), ranges).prop_map(
        |(identifier, files, wal_ranges)| {
            let mut files = files;
            files.sort_by(|a, b| a.path.cmp(&b.path));
            files.dedup_by(|a, b| a.path == b.path);
            let version = if identifier.is_some() { 2 } else { 1 };
            Manifest { version, system_identifier: identifier, files, wal_ranges }
        },
    )
}

/// What a server says of an upload in pieces of `size` bytes.
fn upload(bytes: &[u8], size: usize) -> Result<PriorBackup, ManifestError> {
    let mut upload = ManifestUpload::new(7_710_435_984_632_930_204);
    bytes.chunks(size).try_for_each(|piece| upload.append(piece))?;
    upload.finish()
}

/// A manifest with so many files that it is parsed in several pieces.
fn large(files: usize) -> Manifest {
    let file = |number: usize| ManifestFile {
        path: format!("base/5/{}{number}", if number.is_multiple_of(2) { "INCREMENTAL." } else { "" }).into(),
        size: 8192,
        last_modified: "2026-11-21 01:49:33 GMT".to_owned(),
        checksum: Some((ChecksumAlgorithm::Crc32c, vec![1, 2, 3, 4])),
    };
    let range = WalRange { timeline: TimelineId(1), start: Lsn(0x2700_0028), end: Lsn(0x2700_0120) };
    Manifest {
        version: 2,
        system_identifier: Some(7_710_435_984_632_930_204),
        files: (0..files).map(file).collect(),
        wal_ranges: vec![range],
    }
}

#[test]
fn an_upload_is_remembered_by_its_paths_and_ranges() {
    let manifest = large(3000);
    for size in [1000, 65_536, 1 << 20] {
        let prior = upload(&manifest.to_bytes(false), size).unwrap();
        assert_eq!(prior.wal_ranges(), manifest.wal_ranges);
        // As a whole file or as an incremental one.
        assert_eq!(
            [998, 999, 3000].map(|n| prior.has_relation_file(format!("base/5/{n}").as_bytes())),
            [true, true, false]
        );
    }
    // Twice the same file is no problem here.
    let mut twice = large(2);
    twice.files.push(twice.files[0].clone());
    assert!(upload(&twice.to_bytes(false), 100).is_ok());
}

#[test]
fn a_bad_upload_is_refused_with_the_texts_of_the_recordings() {
    let manifest = large(2000);
    let good = manifest.to_bytes(false);
    let changed = |change: fn(&mut Manifest)| {
        let mut manifest = manifest.clone();
        change(&mut manifest);
        manifest.to_bytes(false)
    };
    let truncated = format!("{HEAD_18}{{ \"Path\": \"base/1/1255\", \"Checksum-Algorith");
    let cases = [
        vec![],
        b"hello world\n".to_vec(),
        truncated.into_bytes(),
        good[..good.len() / 2].to_vec(),
        String::from_utf8(good.clone()).unwrap().replacen("\"Size\": 8192", "\"Size\": 8193", 1).into_bytes(),
        changed(|manifest| manifest.system_identifier = Some(1)),
        changed(|manifest| manifest.version = 9),
        changed(|manifest| (manifest.version, manifest.system_identifier) = (1, None)),
        [b"{\"".as_slice(), &b"x".repeat(3 << 20)].concat(),
    ];
    let texts = cases.map(|bytes| upload(&bytes, 65_536).map(drop).unwrap_err().to_string());
    insta::assert_snapshot!(texts.join("\n"), @r#"
    could not parse backup manifest: The input string ended unexpectedly.
    could not parse backup manifest: Token "hello" is invalid.
    could not parse backup manifest: Token ""Checksum-Algorith" is invalid.
    could not parse backup manifest: The input string ended unexpectedly.
    manifest checksum mismatch
    system identifier in backup manifest is 1, but database system identifier is 7710435984632930204
    could not parse backup manifest: unexpected manifest version
    backup manifest version 1 does not support incremental backup
    out of memory
    "#);
}

/// A parser that takes pieces.
fn parser(
    files: &mut Vec<ManifestFile>,
) -> parse::ManifestParser<parse::Told<impl FnMut(ManifestFile) -> Result<(), ManifestError>>> {
    parse::ManifestParser::new(parse::Told::new(parse::keep(files)), numbers::Numbers::Strict)
}

#[test]
fn a_piece_may_end_within_a_character_that_is_no_escape() {
    let text = "{ \"\\\u{10000}".as_bytes();
    let whole = Manifest::parse(text).expect_err("no escape").to_string();
    for cut in 1..text.len() {
        let mut files = Vec::new();
        let mut parser = parser(&mut files);
        let used = parser.read(&text[..cut]).expect("not wrong yet");
        let pieces = parser.finish(&text[used..]).map(|told| told.manifest).expect_err("no escape");
        assert_eq!(pieces.to_string(), whole, "cut at {cut}");
    }
}

proptest! {
    #[test]
    fn pieces_do_not_matter(
        manifest in manifest(), noise in ".{0,3}", at: proptest::sample::Index, sizes in proptest::collection::vec(1_usize..40, 1..9)
    ) {
        let mut bytes = manifest.to_bytes(false);
        let at = at.index(bytes.len());
        bytes.splice(at..(at + noise.len()).min(bytes.len()), noise.into_bytes());
        let whole = Manifest::parse(&bytes);
        let mut files = Vec::new();
        let mut parser = parser(&mut files);
        let (mut from, mut error) = (0, None);
        let mut to = 0;
        for size in sizes.iter().cycle() {
            to += size;
            if to + 100 >= bytes.len() {
                break;
            }
            match parser.read(&bytes[from..to]) {
                Ok(used) => from += used,
                Err(refused) => { error = Some(refused); break; }
            }
        }
        if let Some(error) = error {
            prop_assert_eq!(whole, Err(error));
        } else {
            let pieces = parser.finish(&bytes[from..]).map(|told| told.manifest);
            let pieces = pieces.map(|manifest| Manifest { files, ..manifest });
            prop_assert_eq!(pieces.map_err(|error| error.to_string()), whole.map_err(|error| error.to_string()));
        }
    }

    #[test]
    fn any_upload_is_safe(noise: Vec<u8>, size in 1_usize..9) {
        let _ = upload(&noise, size);
    }

    #[test]
    fn round_trips(manifest in manifest(), force_encode: bool) {
        let bytes = manifest.to_bytes(force_encode);
        // Another reader of JSON agrees that this is some.
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        prop_assert_eq!(value["Files"].as_array().unwrap().len(), manifest.files.len());
        prop_assert_eq!(Manifest::parse(&bytes), Ok(manifest));
    }

    #[test]
    fn every_change_is_noticed(manifest in manifest(), at: proptest::sample::Index, bit in 0_u32..8) {
        let mut bytes = manifest.to_bytes(false);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        // The digits of the checksum itself may change their case, and blanks of the last line their kind.
        if let Ok(read) = Manifest::parse(&bytes) {
            prop_assert_eq!(read, manifest);
            prop_assert!(at > bytes.len() - 90);
        }
    }

    #[test]
    fn any_bytes_are_safe(noise: Vec<u8>, text in "(?s).{0,40}", at: proptest::sample::Index) {
        let mut bytes = sealed(WHOLE_13);
        let at = at.index(bytes.len());
        bytes.splice(at..(at + noise.len()).min(bytes.len()), noise.clone());
        let _ = (Manifest::parse(&bytes), Manifest::parse(&noise), Manifest::parse(text.as_bytes()));
    }

    #[test]
    fn reads_strings_as_serde_json_does(text in "([a-zäö/\\x7f\u{1F418}]|\\\\[bfnrtux\"/\\\\]|\\\\u[0-9a-fA-F]{4}|\\\\ud83[dD]\\\\u[dD]c18){0,6}") {
        let json = format!("\"{text}\"");
        let document = format!(
            "{{\"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [{{\"Path\": {json}, \"Size\": 0}}],\n"
        );
        let ours = Manifest::parse(&sealed(&document)).map(|manifest| manifest.files[0].path.clone());
        match serde_json::from_str::<String>(&json) {
            Ok(theirs) if !theirs.contains('\0') => prop_assert_eq!(ours, Ok(theirs.into_bytes())),
            _ => prop_assert!(ours.is_err()),
        }
    }
}
