//! The grammar as a whole: what stock clients send, and every release's commands there and back.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::version::Flavour;
use crate::version::ServerVersion::{self, V9_1, V9_3, V9_4, V9_5, V9_6, V10, V11, V13, V14, V15, V17};

/// What stock clients sent: the releases of the servers and the text.
fn sent() -> impl Iterator<Item = (ServerVersion, &'static str)> {
    let lines = include_str!("sent.tsv").lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(|line| {
        let (versions, text) = line.split_once('\t').expect("two columns");
        versions.split(',').map(move |version| (version.parse().expect("a version"), text))
    })
}

#[test]
fn prints_what_stock_clients_send() {
    let mut printed = 0;
    for (version, text) in sent() {
        let parsed = parse(text, version).unwrap_or_else(|error| panic!("{version}: {text}: {error}"));
        let sql = parsed.command.to_sql(version);
        // pg_receivewal before 17 does not quote this one name.
        let newest = if text == "READ_REPLICATION_SLOT rw" { "READ_REPLICATION_SLOT \"rw\"" } else { text };
        assert_eq!((version, sql.as_str()), (version, newest));
        printed += 1;
    }
    assert!(printed > 150, "only {printed} texts were read");
}

#[test]
fn old_releases_know_fewer_commands() {
    let since = [
        ("IDENTIFY_SYSTEM", V9_1),
        ("START_REPLICATION 0/1", V9_1),
        ("START_REPLICATION 0/1 TIMELINE 1", V9_3),
        ("TIMELINE_HISTORY 2", V9_3),
        ("START_REPLICATION PHYSICAL 0/1", V9_4),
        ("START_REPLICATION SLOT s 0/1", V9_4),
        ("START_REPLICATION SLOT s LOGICAL 0/1", V9_4),
        ("CREATE_REPLICATION_SLOT s PHYSICAL", V9_4),
        ("DROP_REPLICATION_SLOT s", V9_4),
        ("CREATE_REPLICATION_SLOT s PHYSICAL RESERVE_WAL", V9_6),
        ("CREATE_REPLICATION_SLOT s PHYSICAL RESERVE_WAL RESERVE_WAL", V10),
        ("CREATE_REPLICATION_SLOT s TEMPORARY LOGICAL p USE_SNAPSHOT", V10),
        ("CREATE_REPLICATION_SLOT s LOGICAL p TWO_PHASE", V14),
        ("CREATE_REPLICATION_SLOT s LOGICAL p (TWO_PHASE)", V15),
        ("DROP_REPLICATION_SLOT s WAIT", V10),
        ("SHOW x", V10),
        ("READ_REPLICATION_SLOT s", V15),
        ("ALTER_REPLICATION_SLOT s (FAILOVER)", V17),
        ("UPLOAD_MANIFEST", V17),
        ("BASE_BACKUP (LABEL 'x')", V15),
    ];
    for (text, first) in since {
        for version in ServerVersion::ALL {
            assert_eq!(parse(text, version).is_ok(), version >= first, "{version}: {text}");
        }
    }
    let until_14 = [
        ("BASE_BACKUP PROGRESS FAST WAL NOWAIT LABEL 'x'", V9_1),
        ("BASE_BACKUP MAX_RATE 32", V9_4),
        ("BASE_BACKUP TABLESPACE_MAP", V9_5),
        ("BASE_BACKUP NOVERIFY_CHECKSUMS", V11),
        ("BASE_BACKUP MANIFEST 'yes' MANIFEST_CHECKSUMS 'NONE'", V13),
    ];
    for (text, first) in until_14 {
        for version in ServerVersion::ALL {
            assert_eq!(parse(text, version).is_ok(), (first..V15).contains(&version), "{version}: {text}");
        }
    }
}

#[test]
fn tells_sql_from_wrong_commands() {
    for version in ServerVersion::ALL {
        for text in ["", ";", "identify_system", "SELECT 1", "-- x\nIDENTIFY_SYSTEM", "LABEL", "RESERVE_WAL 1"] {
            let error = parse(text, version).expect_err("no command");
            let sql = version >= ServerVersion::V10;
            assert_eq!(error == CommandError::NotReplication, sql, "{version}: {text}");
        }
        for text in
            ["IDENTIFY_SYSTEM;;", "IDENTIFY_SYSTEM; IDENTIFY_SYSTEM", "BASE_BACKUP -- x", "START_REPLICATION zz"]
        {
            let error = parse(text, version).expect_err("must be refused");
            assert_eq!(error.to_string(), "syntax error", "{version}: {text}");
        }
    }
}

#[test]
fn says_where_a_command_is_wrong() {
    let refusal = |text| match parse(text, ServerVersion::V18) {
        Err(CommandError::Syntax(error)) => format!("{} at {}", error.message, error.at),
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(refusal("BASE_BACKUP (LABEL 'a' PROGRESS)"), "syntax error at 23");
    assert_eq!(refusal("BASE_BACKUP ()"), "syntax error at 13");
    assert_eq!(refusal("TIMELINE_HISTORY 0"), "invalid timeline 0 at 17");
    assert_eq!(refusal("START_REPLICATION 0/1 TIMELINE 0"), "invalid timeline 0 at 31");
    assert_eq!(refusal("SHOW"), "syntax error at 4");
    assert_eq!(refusal("BASE_BACKUP (LABEL 'x)"), "unterminated quoted string at 19");
    assert_eq!(refusal("READ_REPLICATION_SLOT a."), "syntax error at 24");
}

#[test]
fn a_long_command_is_refused_but_long_sql_is_not() {
    let padding = " ".repeat(MAX_COMMAND);
    let error = parse(&format!("IDENTIFY_SYSTEM{padding}"), ServerVersion::V18).expect_err("too long");
    assert_eq!(error.to_string(), "replication command is too long (max 1048576 bytes)");
    assert_eq!(parse(&format!("SELECT{padding}"), ServerVersion::V18), Err(CommandError::NotReplication));
}

#[test]
fn truncates_long_slot_names() {
    let text = format!("DROP_REPLICATION_SLOT {}", "x".repeat(70));
    let parsed = parse(&text, ServerVersion::V18).expect("a command");
    assert_eq!(parsed.command, Command::DropReplicationSlot { slot: "x".repeat(63), wait: false });
    let notice = format!("identifier \"{}\" will be truncated to \"{}\"", "x".repeat(70), "x".repeat(63));
    assert_eq!(parsed.notices, [notice]);
}

#[test]
fn reads_the_options_of_slots() {
    let options = |text: &str, version| match parse(text, version).expect(text).command {
        Command::CreateReplicationSlot(create) => SlotOptions::from_command(&create, version),
        other => panic!("{other:?}"),
    };
    let refusal = |text: &str, version| options(text, version).expect_err(text);
    assert!(options("CREATE_REPLICATION_SLOT s PHYSICAL RESERVE_WAL", V14).expect("options").reserve_wal);
    assert!(!options("CREATE_REPLICATION_SLOT s PHYSICAL (reserve_wal off)", V15).expect("options").reserve_wal);
    let logical = options("CREATE_REPLICATION_SLOT s LOGICAL p (SNAPSHOT use, TWO_PHASE, FAILOVER 1)", V17);
    let all = SlotOptions { reserve_wal: false, snapshot: SnapshotAction::Use, two_phase: true, failover: true };
    assert_eq!(logical, Ok(all));
    for text in
        ["PHYSICAL EXPORT_SNAPSHOT", "PHYSICAL RESERVE_WAL RESERVE_WAL", "LOGICAL p RESERVE_WAL", "PHYSICAL TWO_PHASE"]
    {
        let error = refusal(&format!("CREATE_REPLICATION_SLOT s {text}"), V14);
        assert_eq!((error.code, error.message.as_str()), ("42601", "conflicting or redundant options"), "{text}");
    }
    let error = refusal("CREATE_REPLICATION_SLOT s LOGICAL p (FAILOVER)", V15);
    assert_eq!((error.code, error.message.as_str()), ("XX000", "unrecognized option: failover"));
    let error = refusal("CREATE_REPLICATION_SLOT s LOGICAL p (SNAPSHOT 'keep')", V15);
    assert_eq!(error.code, "22023");
    assert_eq!(error.message, "unrecognized value for CREATE_REPLICATION_SLOT option \"snapshot\": \"keep\"");
}

/// Anything that a quoted identifier or a plain one can hold, not longer than is kept.
fn identifiers() -> impl Strategy<Value = String> {
    let keywords = select(&["slot", "wait", "read_replication_slot", "base_backup"][..]).prop_map(str::to_owned);
    prop_oneof![4 => "[a-z_][a-z0-9_$]{0,20}", 4 => "[A-Za-z0-9 é'()]{1,20}", 1 => keywords]
}

fn settings() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z_][a-z0-9_]{0,20}", "[a-z_]{1,9}\\.[a-z_]{1,9}", "[A-Z .]{1,9}"]
}

fn values() -> impl Strategy<Value = Option<OptionValue>> {
    option::of(prop_oneof!["[^\"]{0,12}".prop_map(OptionValue::Text), any::<u32>().prop_map(OptionValue::Integer),])
}

fn listed_options(least: usize) -> impl Strategy<Value = Vec<CommandOption>> {
    vec((identifiers(), values()).prop_map(|(name, value)| CommandOption { name, value }), least..5)
}

fn backup_keywords(version: ServerVersion) -> impl Strategy<Value = Vec<CommandOption>> {
    let names: Vec<&'static str> = [
        "LABEL",
        "PROGRESS",
        "FAST",
        "WAL",
        "NOWAIT",
        "MAX_RATE",
        "TABLESPACE_MAP",
        "NOVERIFY_CHECKSUMS",
        "MANIFEST",
        "MANIFEST_CHECKSUMS",
    ]
    .into_iter()
    .filter(|word| keyword::find(word, version, Flavour::Stock).is_some())
    .collect();
    let option = (select(names), "[^\"]{0,12}", any::<u32>()).prop_map(|(word, text, number)| {
        let name = word.to_ascii_lowercase();
        match word {
            "LABEL" | "MANIFEST" | "MANIFEST_CHECKSUMS" => CommandOption::text(&name, text),
            "MAX_RATE" => CommandOption::integer(&name, number),
            _ => CommandOption::flag(&name),
        }
    });
    vec(option, 0..6)
}

fn slot_keywords(version: ServerVersion) -> impl Strategy<Value = Vec<CommandOption>> {
    let mut options = Vec::new();
    if version.has_temporary_slots() {
        options.push(CommandOption::flag("reserve_wal"));
        options.extend(["export", "nothing", "use"].map(|action| CommandOption::text("snapshot", action)));
    }
    if keyword::find("TWO_PHASE", version, Flavour::Stock).is_some() {
        options.push(CommandOption::flag("two_phase"));
    }
    if options.is_empty() { Just(Vec::new()).boxed() } else { vec(select(options), 0..3).boxed() }
}

fn creations(version: ServerVersion) -> impl Strategy<Value = Command> {
    let kinds = prop_oneof![Just(SlotKind::Physical), identifiers().prop_map(|plugin| SlotKind::Logical { plugin })];
    let options = if version.has_option_lists() { listed_options(0).boxed() } else { slot_keywords(version).boxed() };
    // 9.6 has a single option, for physical slots alone.
    let reserves = keyword::find("RESERVE_WAL", version, Flavour::Stock).is_some() && !version.has_temporary_slots();
    let reserve = any::<bool>().prop_map(move |reserve| reserve && reserves);
    (identifiers(), any::<bool>(), kinds, options, reserve).prop_map(
        move |(slot, temporary, kind, mut options, reserve)| {
            let temporary = temporary && version.has_temporary_slots();
            if reserve && kind == SlotKind::Physical {
                options.push(CommandOption::flag("reserve_wal"));
            }
            Command::CreateReplicationSlot(CreateSlot { slot, temporary, kind, options })
        },
    )
}

fn starts(version: ServerVersion) -> impl Strategy<Value = Command> {
    let plugin_options = vec(
        (identifiers(), option::of("[^\"]{0,12}"))
            .prop_map(|(name, value)| CommandOption { name, value: value.map(OptionValue::Text) }),
        0..4,
    );
    let physical =
        (option::of(identifiers()), any::<u64>(), option::of(1_u32..)).prop_map(move |(slot, start, timeline)| {
            let slot = slot.filter(|_| version.has_slots());
            let timeline = timeline.filter(|_| version.has_timeline_history()).map(TimelineId);
            StartReplication { slot, kind: StartKind::Physical { timeline }, start: Lsn(start) }
        });
    let logical = (identifiers(), any::<u64>(), plugin_options).prop_map(|(slot, start, options)| StartReplication {
        slot: Some(slot),
        kind: StartKind::Logical { options },
        start: Lsn(start),
    });
    let either = if version.has_slots() { prop_oneof![physical, logical].boxed() } else { physical.boxed() };
    either.prop_map(Command::StartReplication)
}

/// Every command that the release knows.
fn commands(version: ServerVersion) -> BoxedStrategy<Command> {
    let backup = if version.has_option_lists() { listed_options(0).boxed() } else { backup_keywords(version).boxed() };
    let mut all = vec![
        Just(Command::IdentifySystem).boxed(),
        backup.prop_map(Command::BaseBackup).boxed(),
        starts(version).boxed(),
    ];
    if version.has_timeline_history() {
        all.push((1_u32..).prop_map(Command::TimelineHistory).boxed());
    }
    if version.has_slots() {
        all.push(creations(version).boxed());
        let drop = (identifiers(), any::<bool>()).prop_map(move |(slot, wait)| {
            let wait = wait && keyword::find("WAIT", version, Flavour::Stock).is_some();
            Command::DropReplicationSlot { slot, wait }
        });
        all.push(drop.boxed());
    }
    if version.has_show() {
        all.push(settings().prop_map(Command::Show).boxed());
    }
    if version.has_read_replication_slot() {
        all.push(identifiers().prop_map(Command::ReadReplicationSlot).boxed());
    }
    if version.has_alter_replication_slot() {
        let alter = (identifiers(), listed_options(1))
            .prop_map(|(slot, options)| Command::AlterReplicationSlot { slot, options });
        all.extend([alter.boxed(), Just(Command::UploadManifest).boxed()]);
    }
    proptest::strategy::Union::new(all).boxed()
}

proptest! {
    #[test]
    fn every_command_comes_back(
        (version, command) in select(&ServerVersion::ALL[..]).prop_flat_map(|version| (Just(version), commands(version)))
    ) {
        let sql = command.to_sql(version);
        let parsed = parse(&sql, version);
        prop_assert_eq!(parsed, Ok(Parsed { command, notices: Vec::new() }), "{}: {}", version, sql);
    }

    #[test]
    fn any_text_is_safe(version in select(&ServerVersion::ALL[..]), text in "(?s).{0,80}") {
        let _ = parse(&text, version);
    }

    #[test]
    fn any_words_are_safe(
        version in select(&ServerVersion::ALL[..]),
        words in vec(select(&["BASE_BACKUP", "START_REPLICATION", "CREATE_REPLICATION_SLOT", "SLOT", "(", ")", ",", ";",
            "LABEL", "'x'", "'", "\"", "7", "0/1", "x", "PHYSICAL", "LOGICAL", "TIMELINE", "."][..]), 0..9)
    ) {
        let _ = parse(&words.join(" "), version);
    }
}
