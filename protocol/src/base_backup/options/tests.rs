//! What servers said of options, what pg_basebackup sends, and every set of options there and back.

use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::command::{self, CommandError};
use crate::version::ServerVersion::{V14, V16, V18};

fn judge(text: &str, version: ServerVersion, facts: ServerFacts) -> Result<BaseBackupOptions, OptionError> {
    match command::parse_as(text, version, facts.flavour).expect(text).command {
        Command::BaseBackup(options) => BaseBackupOptions::from_command(&options, version, &facts),
        other => panic!("{other:?}"),
    }
}

/// What a server says of a command as far as text, release and `facts` decide it, in the form of the recordings' table.
fn outcome(text: &str, version: ServerVersion, facts: ServerFacts) -> String {
    let command = match command::parse(text, version) {
        Ok(parsed) => parsed.command,
        Err(CommandError::NotReplication) => return "sql".to_owned(),
        Err(CommandError::Syntax(error)) => return format!("42601 {error}"),
    };
    let judged = match &command {
        Command::BaseBackup(options) => BaseBackupOptions::from_command(options, version, &facts).map(drop),
        Command::CreateReplicationSlot(create) => command::SlotOptions::from_command(create, version).map(drop),
        Command::AlterReplicationSlot { options, .. } => {
            command::AlterSlotOptions::from_options(options, version).map(drop)
        }
        _ => Ok(()),
    };
    judged.map_or_else(|error| format!("{} {error}", error.code), |()| "ok".to_owned())
}

#[test]
fn says_what_real_servers_said() {
    let table = include_str!("../../command/recorded.tsv");
    let mut judged = 0;
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let [versions, facts, expected, text] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        for version in versions.split(',') {
            let version: ServerVersion = version.parse().expect("a version");
            // The recorded 15 was a packaged build, the others were built without LZ4 and Zstandard.
            let packaged = version == ServerVersion::V15;
            let facts = ServerFacts {
                flavour: Flavour::Stock,
                wal_summaries: facts.contains("summaries"),
                manifest_uploaded: facts.contains("manifest"),
                writes_server_files: facts.contains("server-files"),
                gzip: true,
                lz4: packaged,
                zstd: packaged,
            };
            assert_eq!(outcome(text, version, facts), expected, "{version}: {text}");
            judged += 1;
        }
    }
    assert!(judged > 800, "only {judged} recordings were read");
}

#[test]
fn refuses_what_was_not_recorded_as_well() {
    let facts = ServerFacts { writes_server_files: true, ..ServerFacts::default() };
    let refusal = |text: &str, version| {
        let error = judge(text, version, facts).expect_err(text);
        format!("{} {error}", error.code)
    };
    let long = "x".repeat(MAX_LABEL + 1);
    let too_long = "22023 backup label too long (max 1024 bytes)";
    assert_eq!(refusal(&format!("BASE_BACKUP LABEL '{long}'"), V14), too_long);
    assert_eq!(refusal(&format!("BASE_BACKUP (LABEL '{long}')"), V18), too_long);
    let relative = "42602 relative path not allowed for backup stored on server";
    assert_eq!(refusal("BASE_BACKUP (TARGET server, TARGET_DETAIL 'x')", V16), relative);
    assert_eq!(refusal("BASE_BACKUP (\"MAX_RATE\" 32)", V18), "42601 unrecognized base backup option: \"MAX_RATE\"");
    let range = "22003 -1 is outside the valid range for parameter \"MAX_RATE\" (32 .. 1048576)";
    assert_eq!(refusal("BASE_BACKUP MAX_RATE 4294967295", V14), range);
    // A value is read before the duplicate is seen for some options, not for others.
    assert_eq!(refusal("BASE_BACKUP (CHECKPOINT fast, CHECKPOINT)", V18), "42601 checkpoint requires a parameter");
    assert_eq!(refusal("BASE_BACKUP (LABEL 'a', LABEL)", V18), "42601 duplicate option \"label\"");
}

#[test]
fn explains_the_missing_privilege_since_16() {
    let text = "BASE_BACKUP (TARGET 'server', TARGET_DETAIL '/tmp/x')";
    let detail = |version| judge(text, version, ServerFacts::default()).expect_err(text).detail;
    assert_eq!(detail(ServerVersion::V15), None);
    insta::assert_snapshot!(detail(ServerVersion::V16).unwrap_or_default(), @r#"Only roles with privileges of the "pg_write_server_files" role may create a backup stored on the server."#);
}

#[test]
fn options_that_stand_by_hand_in_an_old_command_are_syntax_errors() {
    let given = [CommandOption::text("checkpoint", "fast")];
    let error = BaseBackupOptions::from_command(&given, ServerVersion::V14, &ServerFacts::default());
    assert_eq!(error, Err(OptionError::new("42601", "syntax error")));
}

#[test]
fn understands_words_as_servers_do() {
    let read = |text: &str| judge(text, ServerVersion::V18, ServerFacts::default()).expect(text);
    assert_eq!(read("BASE_BACKUP"), BaseBackupOptions::default());
    assert!(read("BASE_BACKUP (checkpoint FAST)").fast_checkpoint);
    assert!(!read("BASE_BACKUP (CHECKPOINT spread)").fast_checkpoint);
    assert!(!read("BASE_BACKUP (WAIT OFF)").wait);
    assert_eq!(read("BASE_BACKUP (MANIFEST 1)").manifest, ManifestOption::Yes);
    assert_eq!(read("BASE_BACKUP (MANIFEST 'Force-Encode')").manifest, ManifestOption::ForceEncode);
    let manifest = read("BASE_BACKUP (MANIFEST_CHECKSUMS sha256, MANIFEST yes)");
    assert_eq!(manifest.manifest_checksums, ChecksumAlgorithm::Sha256);
    assert_eq!(read("BASE_BACKUP (LABEL 7)").label, "7");
}

/// Options, read from what pg_basebackup sent, must ask for themselves in the same words and the same order.
#[test]
fn asks_as_pg_basebackup_does() {
    let everything = ServerFacts {
        flavour: Flavour::Stock,
        wal_summaries: true,
        manifest_uploaded: true,
        writes_server_files: true,
        gzip: true,
        lz4: true,
        zstd: true,
    };
    let mut asked = 0;
    for line in include_str!("../../command/sent.tsv").lines().filter(|line| line.contains("BASE_BACKUP")) {
        let (versions, text) = line.split_once('\t').expect("two columns");
        for version in versions.split(',') {
            let version: ServerVersion = version.parse().expect("a version");
            let options = judge(text, version, everything).expect(text);
            assert_eq!(options.to_command(version).to_sql(version), text, "{version}");
            asked += 1;
        }
    }
    assert!(asked > 60, "only {asked} texts were read");
}

#[test]
fn asks_an_old_server_for_no_manifest() {
    let options = BaseBackupOptions {
        progress: true,
        manifest: ManifestOption::Yes,
        manifest_checksums: ChecksumAlgorithm::Sha512,
        ..BaseBackupOptions::default()
    };
    let text = |version| options.to_command(version).to_sql(version);
    assert_eq!(text(ServerVersion::V9_1), "BASE_BACKUP  LABEL 'base backup'  PROGRESS");
    assert_eq!(
        text(ServerVersion::V13),
        "BASE_BACKUP  LABEL 'base backup'  PROGRESS  MANIFEST 'yes'  MANIFEST_CHECKSUMS 'SHA512'"
    );
}

fn compressions() -> impl Strategy<Value = Compression> {
    let support = compression::CompressionSupport { gzip: true, lz4: true, zstd: true, long_distance: true };
    let texts = select(
        &[
            (CompressionAlgorithm::None, None),
            (CompressionAlgorithm::Gzip, None),
            (CompressionAlgorithm::Gzip, Some("5")),
            (CompressionAlgorithm::Lz4, Some("level=12")),
            (CompressionAlgorithm::Zstd, Some("level=-3,workers=2")),
        ][..],
    );
    texts.prop_map(move |(algorithm, detail)| Compression::parse(algorithm, detail, support).expect("valid"))
}

/// Options that a release knows.
fn known_options(version: ServerVersion) -> impl Strategy<Value = BaseBackupOptions> {
    let flags = proptest::array::uniform8(any::<bool>());
    let targets = prop_oneof![Just(Target::Client), Just(Target::Blackhole), "/[a-z']{0,9}".prop_map(Target::Server)];
    let manifest = (
        select(&[ManifestOption::No, ManifestOption::Yes, ManifestOption::ForceEncode][..]),
        select(&ChecksumAlgorithm::ALL[..]),
    );
    ("[^\0]{0,30}", flags, option::of(MAX_RATE), manifest, targets, compressions()).prop_map(
        move |(
            label,
            [progress, fast, wal, wait, incremental, map, verify, _],
            rate,
            (manifest, checksums),
            target,
            compression,
        )| {
            let manifest = if version.has_manifest() { manifest } else { ManifestOption::No };
            let lists = version.has_option_lists();
            BaseBackupOptions {
                label,
                progress,
                fast_checkpoint: fast,
                wal,
                wait,
                incremental: incremental && version.has_incremental(),
                incremental_from: None,
                max_rate: rate.filter(|_| version.has_max_rate()),
                tablespace_map: map && version.has_tablespace_map(),
                verify_checksums: verify || !version.verifies_checksums(),
                manifest,
                manifest_checksums: if manifest == ManifestOption::No { ChecksumAlgorithm::None } else { checksums },
                target: if lists { target } else { Target::Client },
                compression: if lists { compression } else { Compression::default() },
            }
        },
    )
}

proptest! {
    #[test]
    fn all_options_come_back(
        (version, options) in select(&ServerVersion::ALL[..]).prop_flat_map(|version| (Just(version), known_options(version)))
    ) {
        let facts = ServerFacts {
            flavour: Flavour::Stock,
            wal_summaries: true, manifest_uploaded: true, writes_server_files: true, gzip: true, lz4: true, zstd: true,
        };
        let text = options.to_command(version).to_sql(version);
        prop_assert_eq!(judge(&text, version, facts), Ok(options), "{}", text);
    }

    #[test]
    fn a_start_position_comes_back_where_the_flavour_takes_one(
        (version, options) in select(&ServerVersion::ALL[..]).prop_flat_map(|version| (Just(version), known_options(version))),
        from in 1_u64..,
    ) {
        let facts = ServerFacts {
            flavour: Flavour::IncrementalPoc, writes_server_files: true, lz4: true, zstd: true, ..ServerFacts::default()
        };
        let options = BaseBackupOptions { incremental: false, incremental_from: Some(Lsn(from)), ..options };
        let text = options.to_command(version).to_sql(version);
        prop_assert_eq!(judge(&text, version, facts), Ok(options), "{}", text);
    }
}

/// BASE_BACKUP as the patches of 2014 describe it in protocol.sgml, and what they make of other values.
#[test]
fn the_flavour_of_2014_takes_a_start_position() {
    let poc = ServerFacts { flavour: Flavour::IncrementalPoc, wal_summaries: true, ..ServerFacts::default() };
    let told = |text: &str, version| match command::parse_as(text, version, poc.flavour) {
        Ok(_) => match judge(text, version, poc) {
            Ok(options) => options.incremental_from.map_or("full".to_owned(), |from| from.to_string()),
            Err(error) => format!("{} {error}", error.code),
        },
        Err(error) => error.to_string(),
    };
    let keywords = |value: &str| format!("BASE_BACKUP LABEL 'x' INCREMENTAL{value} PROGRESS");
    let list = |value: &str| format!("BASE_BACKUP (LABEL 'x', INCREMENTAL{value})");
    let told = [
        told("BASE_BACKUP LABEL 'x' PROGRESS FAST", ServerVersion::V9_5),
        told(&keywords(" '0/2000028'"), ServerVersion::V9_5),
        told(&keywords(" '2000028'"), ServerVersion::V9_5),
        told(&keywords(" '0/0'"), ServerVersion::V9_5),
        told(&keywords(""), ServerVersion::V9_5),
        told(&list(" '0/2000028'"), V18),
        told(&list(" '0/2000028', INCREMENTAL '0/1'"), V18),
        told(&list(""), V18),
    ];
    insta::assert_snapshot!(told.join("\n"));
    let stock = command::parse(&keywords(" '0/2000028'"), ServerVersion::V9_5);
    insta::assert_snapshot!(stock.expect_err("unknown").to_string(), @"syntax error");
    let stock = ServerFacts { wal_summaries: true, ..ServerFacts::default() };
    insta::assert_snapshot!(judge(&list(" '0/2000028'"), V16, stock).expect_err("unknown").to_string(), @r#"unrecognized base backup option: "incremental""#);
    insta::assert_snapshot!(judge(&list(" '0/2000028'"), V18, stock).expect_err("no boolean").to_string(), @"incremental requires a Boolean value");
}
