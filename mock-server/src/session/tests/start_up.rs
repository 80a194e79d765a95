//! From the first byte to the first ReadyForQuery.

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::frontend::{FrontendMessage, Startup, StartupPacket};
use backstop_protocol::version::ServerVersion;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::config::{Auth, Config};
use crate::server::Server;
use crate::testing::{Client, End, config, diagnostics, server, tags};

fn startup(minor: u16, parameters: &[(&str, &str)]) -> StartupPacket {
    let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    StartupPacket::Startup(Startup { major: 3, minor, parameters })
}

async fn answer(server: &Server, packet: &StartupPacket) -> (Vec<BackendMessage>, End) {
    let mut client = Client::connect(server);
    client.packet(packet).await;
    client.read().await
}

#[tokio::test(start_paused = true)]
async fn settings_are_reported_as_recorded() {
    for line in include_str!("reported.tsv").lines() {
        let (version, recorded) = line.split_once('\t').unwrap();
        let server = server(version.parse().unwrap(), vec![]);
        let parameters = [("user", "repl"), ("replication", "true"), ("application_name", "capture")];
        let (messages, end) = answer(&server, &startup(0, &parameters)).await;
        let said = messages.iter().filter_map(|message| match message {
            BackendMessage::ParameterStatus { name, value } => Some(format!("{name}={value}")),
            _ => None,
        });
        // The recorded 15 was a packaged build, which says so after its number.
        let recorded = recorded.replace(" (Debian 15.18-0+deb12u1)", "");
        assert_eq!((said.collect::<Vec<_>>().join("|"), end), (recorded, End::Ready), "{version}");
        assert!(tags(&messages).starts_with("RS") && tags(&messages).ends_with("SKZ"));
    }
}

#[tokio::test(start_paused = true)]
async fn encryption_is_declined_and_start_up_goes_on() {
    let server = server(ServerVersion::V18, vec![]);
    let mut client = Client::connect(&server);
    for packet in [StartupPacket::GssEncRequest, StartupPacket::SslRequest] {
        client.packet(&packet).await;
        assert_eq!(client.stream.read_u8().await.unwrap(), b'N');
    }
    client.start_up("test").await;
    assert_eq!(client.read().await.1, End::Ready);
}

#[tokio::test(start_paused = true)]
async fn the_protocol_version_is_negotiated() {
    let parameters = [("user", "repl"), ("replication", "true"), ("_pq_.capture_test", "x")];
    for (version, asked, newest, key_length) in [
        (ServerVersion::V12, 1, 0x0003_0000, 4),
        (ServerVersion::V17, 9999, 0x0003_0000, 4),
        (ServerVersion::V18, 1, 0x0003_0001, 4),
        (ServerVersion::V18, 2, 0x0003_0002, 32),
        (ServerVersion::V18, 9999, 0x0003_0002, 32),
    ] {
        let server = server(version, vec![]);
        let (messages, end) = answer(&server, &startup(asked, &parameters)).await;
        let unrecognized = vec!["_pq_.capture_test".to_owned()];
        assert_eq!(messages[0], BackendMessage::NegotiateProtocolVersion { newest, unrecognized }, "{version} {asked}");
        let key = messages.iter().find_map(|message| match message {
            BackendMessage::BackendKeyData { key, .. } => Some(key.len()),
            _ => None,
        });
        assert_eq!((key, end), (Some(key_length), End::Ready), "{version} {asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_are_those_of_the_recordings() {
    let mut refusals = Vec::new();
    for parameters in [
        [("replication", "true"), ("x", "y")].as_slice(),
        &[("user", "repl"), ("replication", "bogus")],
        &[("user", "repl"), ("replication", "database"), ("database", "nodb")],
        &[("user", "repl"), ("replication", "true"), ("no_such_param", "x")],
    ] {
        let server = server(ServerVersion::V18, vec![]);
        let (messages, end) = answer(&server, &startup(0, parameters)).await;
        assert_eq!(end, End::Closed(0));
        refusals.push(format!("{} {}", tags(&messages), diagnostics(&messages).join(" ")));
    }
    let server = server(ServerVersion::V18, vec![]);
    let packet = StartupPacket::Startup(Startup { major: 4, minor: 0, parameters: vec![] });
    let (messages, _) = answer(&server, &packet).await;
    refusals.push(diagnostics(&messages).join(" "));
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    E FATAL 28000: no PostgreSQL user name specified in startup packet
    E FATAL 22023: invalid value for parameter "replication": "bogus"
    RE FATAL 3D000: database "nodb" does not exist
    RE FATAL 42704: unrecognized configuration parameter "no_such_param"
    FATAL 0A000: unsupported frontend protocol 4.0: server supports 3.0 to 3.2
    "#);
}

/// `recv_password_packet`: one string, neither cut nor followed by anything.
#[tokio::test(start_paused = true)]
async fn passwords_that_are_no_strings_are_refused() {
    let mut refusals = Vec::new();
    for body in [b"".as_slice(), b"x", b"x\0y\0", b"\0"] {
        let server = Server::new(Config { auth: Auth::Md5, ..config(ServerVersion::V18, vec![]) }).unwrap();
        let mut client = Client::connect(&server);
        client.start_up("test").await;
        assert!(matches!(client.next().await, Ok(BackendMessage::Authentication(_))));
        client.send(&FrontendMessage::Password(Bytes::from_static(body))).await;
        let (messages, end) = client.read().await;
        assert_eq!(end, End::Closed(0));
        refusals.push(diagnostics(&messages).join(" "));
    }
    insta::assert_snapshot!(refusals.join("\n"), @r"
    FATAL 08P01: invalid password packet size
    FATAL 08P01: invalid password packet size
    FATAL 08P01: invalid password packet size
    FATAL 28P01: empty password returned by client
    ");
}

#[tokio::test(start_paused = true)]
async fn protocol_2_is_refused_in_its_own_form() {
    let server = server(ServerVersion::V17, vec![]);
    let mut client = Client::connect(&server);
    client.stream.write_all(&[0, 0, 0, 8, 0, 2, 0, 0]).await.unwrap();
    let mut said = Vec::new();
    client.stream.read_to_end(&mut said).await.unwrap();
    assert_eq!(said, b"EFATAL:  unsupported frontend protocol 2.0: server supports 3.0 to 3.0\n\0");
}

#[tokio::test(start_paused = true)]
async fn walsenders_are_limited_before_authentication() {
    for (version, setting) in [(ServerVersion::V16, "max_wal_senders"), (ServerVersion::V18, "\"max_wal_senders\"")] {
        let server = Server::new(Config { max_wal_senders: 1, ..config(version, vec![]) }).unwrap();
        let first = Client::start(&server, "first").await;
        let mut second = Client::connect(&server);
        second.start_up("second").await;
        let (messages, end) = second.read().await;
        let text = format!("FATAL 53300: number of requested standby connections exceeds {setting} (currently 1)");
        assert_eq!((diagnostics(&messages), end, messages.len()), (vec![text], End::Closed(0), 1));
        drop((first, second));
        server.idle().await;
        Client::start(&server, "third").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_not_waited_for_for_ever() {
    let server = server(ServerVersion::V18, vec![]);
    let mut client = Client::connect(&server);
    assert_eq!(client.next().await, Err(End::Closed(0)));
    assert_eq!(server.state().sessions, 0);
}

#[tokio::test(start_paused = true)]
async fn settings_are_taken_as_set_takes_them() {
    let mut told = Vec::new();
    for (version, name, value) in [
        (ServerVersion::V18, "options", "-c max_wal_senders=3"),
        (ServerVersion::V18, "wal_segment_size", "1"),
        (ServerVersion::V11, "options", "-c wal_sender_timeout=0"),
        (ServerVersion::V18, "options", "-c wal_sender_timeout=0"),
        (ServerVersion::V18, "client_encoding", "foo"),
        (ServerVersion::V18, "client_encoding", "utf-8"),
        (ServerVersion::V18, "options", "--datestyle=german -c application_name=a\\ b"),
        (ServerVersion::V15, "application_name", "h\u{e9}"),
        (ServerVersion::V16, "application_name", "h\u{e9}"),
    ] {
        let server = server(version, vec![]);
        let (messages, _) =
            answer(&server, &startup(0, &[("user", "repl"), ("replication", "true"), (name, value)])).await;
        let shown = ["application_name", "client_encoding", "DateStyle"];
        let mut words: Vec<_> = diagnostics(&messages);
        words.extend(messages.iter().filter_map(|message| match message {
            BackendMessage::ParameterStatus { name, value } if shown.contains(&name.as_str()) => {
                Some(format!("{name}={value}"))
            }
            _ => None,
        }));
        words.sort_unstable();
        told.push(format!("{version} {name}={value}: {}", words.join(" | ")));
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    18 options=-c max_wal_senders=3: FATAL 55P02: parameter "max_wal_senders" cannot be changed without restarting the server
    18 wal_segment_size=1: FATAL 55P02: parameter "wal_segment_size" cannot be changed
    11 options=-c wal_sender_timeout=0: FATAL 55P02: parameter "wal_sender_timeout" cannot be changed now
    18 options=-c wal_sender_timeout=0: DateStyle=ISO, MDY | application_name= | client_encoding=SQL_ASCII
    18 client_encoding=foo: FATAL 22023: invalid value for parameter "client_encoding": "foo"
    18 client_encoding=utf-8: DateStyle=ISO, MDY | application_name= | client_encoding=UTF8
    18 options=--datestyle=german -c application_name=a\ b: DateStyle=German, DMY | application_name=a b | client_encoding=SQL_ASCII
    15 application_name=hé: DateStyle=ISO, MDY | application_name=h?? | client_encoding=SQL_ASCII
    16 application_name=hé: DateStyle=ISO, MDY | application_name=h\xc3\xa9 | client_encoding=SQL_ASCII
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_start_up_packet_may_come_byte_by_byte_and_have_10004_bytes() {
    let name = "x".repeat(10_004 - 54);
    for (extra, expected) in [("", End::Ready), ("x", End::Closed(0))] {
        let server = server(ServerVersion::V18, vec![]);
        let name = format!("{name}{extra}");
        let mut bytes = bytes::BytesMut::new();
        startup(0, &[("user", "repl"), ("replication", "true"), ("application_name", &name)]).encode(&mut bytes);
        assert_eq!(bytes.len(), 10_004 + extra.len());
        let mut client = Client::connect(&server);
        for byte in bytes.chunks(1) {
            if client.stream.write_all(byte).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let (_, end) = client.read().await;
        assert_eq!(end, expected);
    }
}
