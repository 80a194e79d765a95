//! SQL of the releases that no real server was asked about, and what becomes of backups when sessions end.

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::frontend::{FrontendMessage, Startup, StartupPacket};
use backstop_protocol::version::ServerVersion;

use crate::config::{Config, Role};
use crate::server::Server;
use crate::testing::{Client, End, config, diagnostics, fault, server};

/// An ordinary session.
pub(super) async fn session(server: &Server) -> Client {
    let mut client = Client::connect(server);
    let parameters = [("user", "postgres"), ("database", "postgres"), ("application_name", "sql")];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    client.packet(&StartupPacket::Startup(Startup { major: 3, minor: 0, parameters })).await;
    assert_eq!(client.read().await.1, End::Ready);
    client
}

/// What a query returns: values, with NULL for NULL, and what is said with it.
pub(super) async fn ask(client: &mut Client, query: &str) -> String {
    let (messages, end) = client.query(query).await;
    assert_eq!(end, End::Ready, "{query}");
    let value = |value: &Option<bytes::Bytes>| match value {
        None => "NULL".to_owned(),
        Some(value) => String::from_utf8_lossy(value).into_owned(),
    };
    let line = |message: &BackendMessage| match message {
        BackendMessage::DataRow(values) => Some(values.iter().map(value).collect::<Vec<_>>().join(" | ")),
        BackendMessage::ErrorResponse(said) | BackendMessage::NoticeResponse(said) => Some(said.to_string()),
        _ => None,
    };
    messages.iter().filter_map(line).collect::<Vec<_>>().join("\n")
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_backup_outlives_its_session() {
    for version in [ServerVersion::V9_1, ServerVersion::V9_6, ServerVersion::V14] {
        let server = server(version, vec![]);
        let mut first = session(&server).await;
        assert_eq!(ask(&mut first, "SELECT pg_start_backup('nightly', true)").await, "0/2000028", "{version}");
        first.send(&FrontendMessage::Terminate).await;
        server.idle().await;
        assert_eq!(server.state().running_backups, 1, "{version}");
        let label = server.state().backup_label.expect("a label in the data directory");
        assert!(label.contains("BACKUP METHOD: pg_start_backup\n") && label.contains("LABEL: nightly\n"), "{label}");
        let map = server.cluster().label_files().and_then(|files| files.tablespace_map);
        assert_eq!(map.is_some(), version.has_tablespace_map(), "{version}");

        let mut second = session(&server).await;
        let again = ask(&mut second, "SELECT pg_start_backup('again')").await;
        let refused = "ERROR:  a backup is already in progress\nHINT:  Run pg_stop_backup() and try again.";
        assert_eq!(again, refused, "{version}");
        let stopped = ask(&mut second, "SELECT pg_stop_backup()").await;
        assert!(stopped.starts_with("NOTICE:  WAL archiving is not enabled"), "{version} {stopped}");
        assert!(stopped.ends_with("\n0/2000100"), "{version} {stopped}");
        let state = server.state();
        assert_eq!((state.running_backups, state.backup_label), (0, None), "{version}");
        let none = ask(&mut second, "SELECT pg_stop_backup()").await;
        assert_eq!(none, format!("ERROR:  {}", version.no_exclusive_backup()), "{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_two_ways_are_not_mixed() {
    let server = server(ServerVersion::V13, vec![]);
    let mut client = session(&server).await;
    insta::assert_snapshot!(ask(&mut client, "SELECT * FROM pg_stop_backup(false)").await, @r"
    ERROR:  non-exclusive backup is not in progress
    HINT:  Did you mean to use pg_stop_backup('t')?
    ");
    assert_eq!(ask(&mut client, "SELECT pg_start_backup('mine', true, false)").await, "0/2000028");
    for query in ["SELECT pg_stop_backup()", "SELECT * FROM pg_stop_backup(true, false)"] {
        let refusal = ask(&mut client, query).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(refusal, @r"
            ERROR:  non-exclusive backup in progress
            HINT:  Did you mean to use pg_stop_backup('f')?
            ");
        }
    }
    // Another session's exclusive backup runs beside it, each with a label of its own.
    let mut other = session(&server).await;
    assert_eq!(ask(&mut other, "SELECT pg_start_backup('theirs', true, true)").await, "0/3000028");
    assert_eq!(server.state().running_backups, 2);
    insta::assert_snapshot!(ask(&mut client, "SELECT labelfile, spcmapfile FROM pg_stop_backup(false, false)").await, @r"
    START WAL LOCATION: 0/2000028 (file 000000010000000000000002)
    CHECKPOINT LOCATION: 0/2000060
    BACKUP METHOD: streamed
    BACKUP FROM: master
    START TIME: 2026-11-20 16:18:42 UTC
    LABEL: mine
    START TIMELINE: 1
     | 16400 /srv/ts1
    ");
    assert!(server.state().backup_label.is_some_and(|label| label.contains("LABEL: theirs\n")));
    assert_eq!(ask(&mut client, "SELECT pg_is_in_backup()").await, "t");
    assert_eq!(ask(&mut client, "SELECT * FROM pg_stop_backup(true, false)").await, "0/4000050 | NULL | NULL");
    assert_eq!(server.state().running_backups, 0);
}

#[tokio::test(start_paused = true)]
async fn positions_were_texts_once() {
    for (version, oid) in [(ServerVersion::V9_3, 25), (ServerVersion::V9_4, 3220)] {
        let server = server(version, vec![]);
        let mut client = session(&server).await;
        let (messages, _) = client.query("SELECT pg_start_backup('x'), pg_xlogfile_name('0/2000028'), 'x'").await;
        let Some(BackendMessage::RowDescription(columns)) = messages.first() else { panic!("{messages:?}") };
        assert_eq!(columns.iter().map(|column| column.type_oid).collect::<Vec<_>>(), [oid, 25, 705], "{version}");
        assert!(ask(&mut client, "SELECT pg_current_wal_lsn()").await.starts_with("ERROR:  function"), "{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_standby_is_backed_up_without_writing() {
    let standby = |version| Server::new(Config { role: Role::Standby, ..config(version, vec![]) }).expect("a standby");
    let server = standby(ServerVersion::V14);
    let mut client = session(&server).await;
    insta::assert_snapshot!(ask(&mut client, "SELECT pg_start_backup('x', true)").await, @r"
    ERROR:  recovery is in progress
    HINT:  WAL control functions cannot be executed during recovery.
    ");
    insta::assert_snapshot!(ask(&mut client, "SELECT pg_walfile_name('0/1')").await, @r"
    ERROR:  recovery is in progress
    HINT:  pg_walfile_name() cannot be executed during recovery.
    ");
    assert_eq!(ask(&mut client, "SELECT pg_is_in_recovery()").await, "t");
    assert!(ask(&mut client, "SELECT pg_start_backup('x', true, false)").await.starts_with("0/"));
    assert_eq!(ask(&mut client, "SELECT pg_promote()").await, "t");
    insta::assert_snapshot!(ask(&mut client, "SELECT * FROM pg_stop_backup(false)").await, @r"
    ERROR:  the standby was promoted during online backup
    HINT:  This means that the backup being taken is corrupt and should not be used. Try taking another online backup.
    ");
    assert_eq!(server.state().running_backups, 0);
    let server = standby(ServerVersion::V9_1);
    let mut client = session(&server).await;
    assert!(ask(&mut client, "SELECT pg_start_backup('x')").await.starts_with("ERROR:  recovery is in progress"));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_aborts_its_backup() {
    for (version, start) in [
        (ServerVersion::V13, "SELECT pg_start_backup('x', true, false)"),
        (ServerVersion::V18, "SELECT pg_backup_start('x', true)"),
    ] {
        let server =
            server(version, vec![fault(r#"{"command": {"starts-with": "SELECT 1"}}"#, r#"{"terminate": {}}"#)]);
        let mut client = session(&server).await;
        ask(&mut client, start).await;
        assert_eq!(server.state().running_backups, 1);
        let (messages, end) = client.query("SELECT 1").await;
        let function = version.backup_stop_function();
        let words = [
            "FATAL 57P01: terminating connection due to administrator command".to_owned(),
            format!("WARNING 01000: aborting backup due to backend exiting before {function} was called"),
        ];
        assert_eq!((diagnostics(&messages), end), (words.to_vec(), End::Closed(0)), "{version}");
        server.idle().await;
        assert_eq!(server.state().running_backups, 0, "{version}");

        let mut client = session(&server).await;
        ask(&mut client, start).await;
        drop(client);
        server.idle().await;
        assert_eq!(server.state().running_backups, 0, "{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_smart_shutdown_waits_for_the_exclusive_backup() {
    let server = server(ServerVersion::V12, vec![]);
    let mut client = session(&server).await;
    ask(&mut client, "SELECT pg_start_backup('x', true)").await;
    let mut stays = session(&server).await;
    drop(client);
    server.shut_down(crate::fault::ShutdownMode::Smart);
    ask(&mut stays, "SELECT pg_stop_backup()").await;
    stays.send(&FrontendMessage::Terminate).await;
    server.stopped().await;
    assert_eq!(server.state().backup_label, None);
}

#[tokio::test(start_paused = true)]
async fn logical_slots_are_shown() {
    let mut config = config(ServerVersion::V16, vec![]);
    config.settings.insert("wal_level".to_owned(), "logical".to_owned());
    let server = Server::new(config).expect("a server");
    let slot = crate::cluster::LogicalSlot::new("pgoutput", "postgres");
    let point = server.cluster().create_logical_slot("l", false, 1, slot).expect("a slot");
    let mut client = session(&server).await;
    let query =
        "SELECT plugin, slot_type, datoid, database, confirmed_flush_lsn, conflicting FROM pg_replication_slots";
    assert_eq!(ask(&mut client, query).await, format!("pgoutput | logical | 5 | postgres | {point} | f"));
}

#[tokio::test(start_paused = true)]
async fn statements_are_not_kept_without_bound() {
    use backstop_protocol::extended::Parse;

    let server = server(ServerVersion::V18, vec![]);
    let mut client = session(&server).await;
    let text = format!("SELECT '{}'", "x".repeat(1 << 19));
    let mut refusals = 0;
    for number in 0..10 {
        let parse = Parse { statement: format!("s{number}"), query: text.clone(), types: vec![] };
        client.send(&FrontendMessage::Parse(parse.body())).await;
        client.send(&FrontendMessage::Sync).await;
        let (messages, end) = client.read().await;
        assert_eq!(end, End::Ready);
        refusals += diagnostics(&messages).iter().filter(|said| said.starts_with("ERROR 54000: ")).count();
    }
    assert_eq!(refusals, 3, "seven halves of a MiB and a little are less than four MiB");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_listed_is_refused() {
    let server = server(ServerVersion::V18, vec![]);
    let mut client = session(&server).await;
    for query in ["DELETE FROM t", "SELECT 1 + 1", "SELECT f('", "VACUUM", "SELECT datname FROM pg_database"] {
        let refused = "ERROR:  this server runs a listed set of SQL statements, and this is none of them";
        assert_eq!(ask(&mut client, query).await, refused, "{query}");
    }
    assert_eq!(ask(&mut client, "SELECT 1").await, "1");
}
