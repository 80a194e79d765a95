use proptest::prelude::*;

use super::*;
use crate::page::{BLOCK_SIZE, PageHeader};

const LABEL: &str = "START WAL LOCATION: 0/3000028 (file 000000010000000000000003)
CHECKPOINT LOCATION: 0/3000060
INCREMENTAL FROM LOCATION: 0/2000028
BACKUP METHOD: streamed
BACKUP FROM: master
START TIME: 2014-10-14 14:31:28 UTC
LABEL: pg_basebackup base backup
";

fn with(lines: &str) -> String {
    format!("POSTGRESQL BACKUP PROFILE 1\n{LABEL}FILE LIST\n{lines}")
}

#[test]
fn reads_and_writes_a_profile() {
    let text = with(
        "\\N\t\\N\tt\t1413297088\t206\tbackup_label\n\\N\t0/1745A08\tf\t1413290000\t16384\tbase/1/1259\n\
         16400\t\\N\tt\t-1\t0\tPG_9.5_201510051/1/with\\ttab\\\\\n",
    );
    let profile = BackupProfile::parse(text.as_bytes()).unwrap();
    assert_eq!(profile.label.incremental_from_location, Some(Lsn(0x200_0028)));
    assert_eq!(profile.label_text, LABEL);
    let left_out = ProfileFile {
        tablespace: None,
        lsn: Some(Lsn(0x174_5A08)),
        sent: false,
        modified: 1_413_290_000,
        size: 16384,
        path: b"base/1/1259".to_vec(),
    };
    assert_eq!(profile.files[1], left_out);
    assert_eq!(profile.files[2].path, b"PG_9.5_201510051/1/with\ttab\\");
    assert_eq!(profile.files[2].path_in_data_directory(), b"pg_tblspc/16400/PG_9.5_201510051/1/with\ttab\\");
    for file in &profile.files {
        assert_eq!(ProfileFile::place(&file.path_in_data_directory()), (file.tablespace, file.path.clone()));
    }
    assert_eq!(profile.skipped(), (1, 16384));
    assert_eq!(profile.to_bytes(), text.as_bytes());
}

#[test]
fn names_the_bad_line() {
    let line = |line: &str| with(&format!("{line}\n"));
    let texts = [
        String::new(),
        "PROFILE\n".to_owned(),
        with("").replace("PROFILE 1", "PROFILE 2"),
        with("").replace("FILE LIST\n", ""),
        with("").replace("FILE LIST\n", &"x\n".repeat(20)),
        with("").replace("0/2000028", "0:2"),
        with("").trim_end().to_owned(),
        with("\\N\t\\N\tt\t0\t1\tbase/1/1259"),
        line(&"x".repeat(5000)),
        line(""),
        line("\\N\t\\N\tt\t0\tbase/1/1259"),
        line("\\N\t\\N\tt\t0\t1\tbase/1/1259\tmore"),
        line("0\t\\N\tt\t0\t1\tx"),
        line("x\t\\N\tt\t0\t1\tx"),
        line("\\N\t0/0001\tt\t0\t1\tx"),
        line("\\N\tnull\tt\t0\t1\tx"),
        line("\\N\t\\N\ttrue\t0\t1\tx"),
        line("\\N\t\\N\tt\tnow\t1\tx"),
        line("\\N\t\\N\tt\t0\t+1\tx"),
        line("\\N\t\\N\tt\t0\t9223372036854775808\tx"),
        line("\\N\t\\N\tt\t0\t1\t"),
        line("\\N\t\\N\tt\t0\t1\t/etc/passwd"),
        line("\\N\t\\N\tt\t0\t1\tbase/../../x"),
        line("\\N\t\\N\tt\t0\t1\tbase//x"),
        line("\\N\t\\N\tt\t0\t1\tbase\\x41"),
        line("\\N\t\\N\tt\t0\t1\tbase\\"),
        line("\\N\t\\N\tt\t0\t1\tcarriage\r"),
        line("\\N\t\\N\tf\t0\t1\tbase/1/1259"),
        line("\\N\t0/0\tf\t0\t1\tbase/1/1259"),
        line("\\N\t\\N\tt\t0\t1\tx\n\\N\t\\N\tt\t0\t1\tx"),
    ];
    let refusals = texts.map(|text| BackupProfile::parse(text.as_bytes()).unwrap_err().to_string());
    insta::assert_snapshot!(refusals.join("\n"));
}

#[test]
fn the_checksum_is_that_of_sha256sum() {
    insta::assert_snapshot!(
        checksum_file(b""),
        @"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  backup_profile"
    );
}

#[test]
fn only_main_forks_have_lsns_to_trust() {
    for path in ["base/1/1259", "base/1/1259.1", "global/1260", "pg_tblspc/16400/PG_9.5_201510051/1/16401"] {
        assert!(has_page_lsns(path.as_bytes()), "{path}");
    }
    for path in [
        "base/1/1259_vm",
        "base/1/1259_fsm",
        "base/1/16397_init",
        "base/1/PG_VERSION",
        "base/1/pg_filenode.map",
        "global/pg_control",
        "pg_xact/0000",
        "pg_clog/0000",
        "postgresql.conf",
        "1259",
    ] {
        assert!(!has_page_lsns(path.as_bytes()), "{path}");
    }
}

fn pages(lsns: &[u64]) -> Vec<u8> {
    let page = |lsn: &u64| {
        let mut page = [0; BLOCK_SIZE];
        PageHeader::empty(Lsn(*lsn)).write(&mut page);
        page
    };
    lsns.iter().flat_map(page).collect()
}

fn highest(bytes: &[u8], piece: usize) -> Option<Lsn> {
    let mut lsns = PageLsns::default();
    bytes.chunks(piece).for_each(|piece| lsns.update(piece));
    lsns.highest()
}

#[test]
fn what_has_no_lsn_proves_nothing() {
    assert_eq!(highest(&pages(&[7, 9, 8]), 4096), Some(Lsn(9)));
    assert_eq!(highest(&pages(&[7, 0, 8]), 4096), None, "a page without LSN");
    assert_eq!(highest(&[], 1), None, "an empty file");
    let torn = pages(&[7, 9]);
    assert_eq!(highest(&torn[..torn.len() - 1], 8192), None, "the last page is cut");
    assert_eq!(highest(&torn[..BLOCK_SIZE + 3], 8192), None, "the last page is cut within its LSN");
}

proptest! {
    #[test]
    fn round_trips(
        files in proptest::collection::btree_map(
            (proptest::option::of(1_u32..), "[^\\x00/]{1,20}(/[^\\x00/.]{1,9}){0,2}"),
            (proptest::option::of(1_u64..), any::<bool>(), any::<i64>(), 0..=i64::MAX.unsigned_abs()),
            0..6,
        ),
    ) {
        let files = files.into_iter().filter(|((_, path), _)| path != "." && path != "..").map(|(key, value)| {
            let ((tablespace, path), (lsn, sent, modified, size)) = (key, value);
            // The least number has no counterpart to negate.
            let modified = modified.max(-i64::MAX);
            let lsn = lsn.map(Lsn);
            ProfileFile { tablespace, lsn, sent: sent || lsn.is_none(), modified, size, path: path.into_bytes() }
        });
        let label = BackupLabel::parse(LABEL).unwrap();
        let profile = BackupProfile { label, label_text: LABEL.to_owned(), files: files.filter(|file| {
            !file.path.starts_with(b"./") && !file.path.starts_with(b"../")
        }).collect() };
        prop_assert_eq!(BackupProfile::parse(&profile.to_bytes()), Ok(profile));
    }

    #[test]
    fn any_bytes_are_safe(noise: Vec<u8>, at: proptest::sample::Index) {
        let whole = with("\\N\t0/1745A08\tf\t1413290000\t16384\tbase/1/1259\n").into_bytes();
        let cut = [&whole[..at.index(whole.len())], &noise].concat();
        for bytes in [noise, cut] {
            if let Ok(profile) = BackupProfile::parse(&bytes) {
                prop_assert_eq!(profile.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn pieces_do_not_matter(lsns in proptest::collection::vec(0_u64..5, 0..4), cut in 0_usize..9, piece in 1_usize..9000) {
        let bytes = pages(&lsns);
        let bytes = &bytes[..bytes.len().saturating_sub(cut)];
        let known = !lsns.is_empty() && cut == 0 && !lsns.contains(&0);
        let expected = lsns.iter().max().copied().map(Lsn).filter(|_| known);
        prop_assert_eq!(highest(bytes, piece), expected);
    }
}
