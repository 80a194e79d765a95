//! The commands that answer at once.

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::frontend::{FrontendMessage, StartupPacket};
use backstop_protocol::version::ServerVersion;
use bytes::{Bytes, BytesMut};

use crate::config::{Config, Role};
use crate::server::Server;
use crate::testing::{Client, End, config, diagnostics, server, tags};

fn row_description(messages: &[BackendMessage]) -> String {
    let found = messages.iter().find(|message| matches!(message, BackendMessage::RowDescription(_))).unwrap();
    let mut wire = BytesMut::new();
    found.encode(&mut wire);
    String::from(crate::fault::Hex(wire.to_vec()))
}

/// A standby that was promoted, so that there are two timelines.
fn promoted(version: ServerVersion) -> Server {
    let server = Server::new(Config { role: Role::Standby, ..config(version, vec![]) }).unwrap();
    server.cluster().promote().unwrap();
    server
}

#[tokio::test(start_paused = true)]
async fn columns_are_described_as_recorded() {
    for line in include_str!("columns.tsv").lines() {
        let [version, name, recorded] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let version: ServerVersion = version.parse().unwrap();
        let server = promoted(version);
        let history = server.cluster().history(server.cluster().timeline()).unwrap();
        let fork = history.switches[0].at;
        let lists = if version.has_archive_stream() { "BASE_BACKUP (CHECKPOINT 'fast')" } else { "BASE_BACKUP FAST" };
        let command = match name {
            "identify" => "IDENTIFY_SYSTEM".to_owned(),
            "position" | "tablespaces" => lists.to_owned(),
            "history" => "TIMELINE_HISTORY 2".to_owned(),
            "create-slot" => "CREATE_REPLICATION_SLOT s1 PHYSICAL".to_owned(),
            "read-slot" => "READ_REPLICATION_SLOT s1".to_owned(),
            _ => format!("START_REPLICATION {fork} TIMELINE 1"),
        };
        let mut client = Client::start(&server, "test").await;
        let (messages, end) = client.query(&command).await;
        assert_eq!(end, End::Ready, "{version} {name}");
        let skip = if name == "tablespaces" { 3 } else { 0 };
        assert_eq!(row_description(&messages[skip..]), recorded, "{version} {name}");
    }
}

#[tokio::test(start_paused = true)]
async fn tags_are_those_of_the_release() {
    for (version, expected) in [
        (ServerVersion::V12, ["SELECT", "SELECT", "SELECT", "DROP_REPLICATION_SLOT SELECT"]),
        (ServerVersion::V13, ["IDENTIFY_SYSTEM", "SHOW", "CREATE_REPLICATION_SLOT", "DROP_REPLICATION_SLOT"]),
    ] {
        let server = server(version, vec![]);
        let mut client = Client::start(&server, "test").await;
        let commands = [
            "IDENTIFY_SYSTEM",
            "SHOW wal_segment_size",
            "CREATE_REPLICATION_SLOT s1 PHYSICAL",
            "DROP_REPLICATION_SLOT s1",
        ];
        for (command, expected) in commands.into_iter().zip(expected) {
            let (messages, _) = client.query(command).await;
            let tags = messages.iter().filter_map(|message| match message {
                BackendMessage::CommandComplete(tag) => Some(tag.as_str()),
                _ => None,
            });
            assert_eq!(tags.collect::<Vec<_>>().join(" "), expected, "{version} {command}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn errors_leave_the_session_usable() {
    let server = server(ServerVersion::V18, vec![]);
    let mut client = Client::start(&server, "test").await;
    let mut told = Vec::new();
    for command in [
        "identify_system",
        "",
        "IDENTIFY_SYSTEM x",
        "SHOW nosuch",
        "TIMELINE_HISTORY 7",
        "READ_REPLICATION_SLOT nosuch",
        "DROP_REPLICATION_SLOT nosuch",
        "ALTER_REPLICATION_SLOT nosuch (FAILOVER)",
        "CREATE_REPLICATION_SLOT \"Bad-Name\" PHYSICAL",
        "CREATE_REPLICATION_SLOT s6 PHYSICAL (BOGUS)",
        "CREATE_REPLICATION_SLOT s6 LOGICAL pgoutput",
        "START_REPLICATION SLOT nosuch 0/2000000",
        "START_REPLICATION 7FFFFFFF/0",
        "START_REPLICATION 0/0",
        "START_REPLICATION 0/2000000 TIMELINE 9",
        "BASE_BACKUP (BOGUS)",
        "BASE_BACKUP (INCREMENTAL, MANIFEST 'yes')",
        "BASE_BACKUP (COMPRESSION 'bzip2')",
        "BASE_BACKUP (TARGET 'server', TARGET_DETAIL '/x')",
    ] {
        let (messages, end) = client.query(command).await;
        assert_eq!(end, End::Ready, "{command}");
        let said = format!("{command}: {} {}", tags(&messages), diagnostics(&messages).join(" "));
        told.push(said.trim_end().to_owned());
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    identify_system: EZ ERROR 0A000: cannot execute SQL commands in WAL sender for physical replication
    : EZ ERROR 0A000: cannot execute SQL commands in WAL sender for physical replication
    IDENTIFY_SYSTEM x: EZ ERROR 42601: syntax error
    SHOW nosuch: EZ ERROR 42704: unrecognized configuration parameter "nosuch"
    TIMELINE_HISTORY 7: TEZ ERROR 58P01: could not open file "pg_wal/00000007.history": No such file or directory
    READ_REPLICATION_SLOT nosuch: TDCZ
    DROP_REPLICATION_SLOT nosuch: EZ ERROR 42704: replication slot "nosuch" does not exist
    ALTER_REPLICATION_SLOT nosuch (FAILOVER): EZ ERROR 42704: replication slot "nosuch" does not exist
    CREATE_REPLICATION_SLOT "Bad-Name" PHYSICAL: EZ ERROR 42602: replication slot name "Bad-Name" contains invalid character
    CREATE_REPLICATION_SLOT s6 PHYSICAL (BOGUS): EZ ERROR XX000: unrecognized option: bogus
    CREATE_REPLICATION_SLOT s6 LOGICAL pgoutput: EZ ERROR 55000: logical decoding requires "wal_level" >= "logical"
    START_REPLICATION SLOT nosuch 0/2000000: EZ ERROR 42704: replication slot "nosuch" does not exist
    START_REPLICATION 7FFFFFFF/0: WEZ ERROR XX000: requested starting point 7FFFFFFF/0 is ahead of the WAL flush position of this server 0/2000000
    START_REPLICATION 0/0: WEZ ERROR 58P01: requested WAL segment 000000010000000000000000 has already been removed
    START_REPLICATION 0/2000000 TIMELINE 9: EZ ERROR XX000: requested timeline 9 is not in this server's history
    BASE_BACKUP (BOGUS): EZ ERROR 42601: unrecognized base backup option: "bogus"
    BASE_BACKUP (INCREMENTAL, MANIFEST 'yes'): EZ ERROR 55000: incremental backups cannot be taken unless WAL summarization is enabled
    BASE_BACKUP (COMPRESSION 'bzip2'): EZ ERROR 42601: unrecognized compression algorithm: "bzip2"
    BASE_BACKUP (TARGET 'server', TARGET_DETAIL '/x'): EZ ERROR 42501: permission denied to create backup stored on server
    "#);
}

#[tokio::test(start_paused = true)]
async fn temporary_slots_die_with_an_error() {
    let server = server(ServerVersion::V18, vec![]);
    let mut client = Client::start(&server, "test").await;
    client.query("CREATE_REPLICATION_SLOT \"t\" TEMPORARY PHYSICAL ( RESERVE_WAL)").await;
    assert_eq!(server.state().slots.len(), 1);
    client.query("SHOW nosuch").await;
    assert_eq!(server.state().slots.len(), 0);
    client.query("CREATE_REPLICATION_SLOT \"t\" TEMPORARY PHYSICAL ( RESERVE_WAL)").await;
    client.send(&FrontendMessage::Terminate).await;
    server.idle().await;
    assert_eq!(server.state().slots.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_extended_protocol_is_refused() {
    let server = server(ServerVersion::V18, vec![]);
    let mut client = Client::start(&server, "test").await;
    for message in [FrontendMessage::Parse(Bytes::new()), FrontendMessage::Bind(Bytes::new()), FrontendMessage::Sync] {
        client.send(&message).await;
    }
    let (messages, end) = client.read().await;
    let text = "ERROR 08P01: extended query protocol not supported in a replication connection";
    assert_eq!((diagnostics(&messages), end), (vec![text.to_owned()], End::Ready));
}

#[tokio::test(start_paused = true)]
async fn a_cancel_request_stops_a_throttled_backup() {
    let server = server(ServerVersion::V18, vec![]);
    let mut client = Client::connect(&server);
    client.start_up("test").await;
    let (messages, _) = client.read().await;
    let key = messages.into_iter().find_map(|message| match message {
        BackendMessage::BackendKeyData { pid, key } => Some((pid, key)),
        _ => None,
    });
    let (pid, key) = key.unwrap();
    client.send(&FrontendMessage::Query("BASE_BACKUP (CHECKPOINT 'fast', MAX_RATE 32)".into())).await;
    client.read_until(|message| matches!(message, BackendMessage::CopyOutResponse)).await;
    let mut canceler = Client::connect(&server);
    canceler.packet(&StartupPacket::Cancel { pid, key }).await;
    assert_eq!(canceler.next().await, Err(End::Closed(0)));
    let (messages, end) = client.read().await;
    let told = diagnostics(&messages);
    assert_eq!(
        (told.last().map(String::as_str), end),
        (Some("ERROR 57014: canceling statement due to user request"), End::Ready)
    );
    // A request that comes when nothing runs stops nothing.
    assert_eq!(client.query("IDENTIFY_SYSTEM").await.1, End::Ready);
}

#[tokio::test(start_paused = true)]
async fn an_uploaded_manifest_is_checked() {
    let server = server(ServerVersion::V18, vec![]);
    let mut client = Client::start(&server, "test").await;
    let (messages, _) = client.query("BASE_BACKUP (CHECKPOINT 'fast', MANIFEST 'yes')").await;
    let manifest = crate::testing::archives(&messages).pop().unwrap().1;
    let mut uploads = Vec::new();
    for manifest in [manifest, b"hello".to_vec(), Vec::new()] {
        client.send(&FrontendMessage::Query("UPLOAD_MANIFEST".into())).await;
        client.send(&FrontendMessage::CopyData(manifest.into())).await;
        client.send(&FrontendMessage::CopyDone).await;
        let (messages, end) = client.read().await;
        assert_eq!(end, End::Ready);
        let said = format!("{} {}", tags(&messages), diagnostics(&messages).join(" "));
        uploads.push(said.trim_end().to_owned());
    }
    insta::assert_snapshot!(uploads.join("\n"), @r#"
    GCZ
    GEZ ERROR XX000: could not parse backup manifest: Token "hello" is invalid.
    GEZ ERROR XX000: could not parse backup manifest: The input string ended unexpectedly.
    "#);
}
