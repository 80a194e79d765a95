//! Encrypted connections.

use std::sync::Arc;

use backstop_protocol::backend::{Authentication, BackendMessage};
use backstop_protocol::frontend::{FrontendMessage, StartupPacket};
use backstop_protocol::version::ServerVersion;
use bytes::{BufMut, BytesMut};
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{Auth, Config, TlsConfig};
use crate::server::Server;
use crate::testing::{Client, End, config, diagnostics, fault};
use crate::transport::MemoryStream;

fn encrypting(config: Config) -> Server {
    Server::new(Config { tls: Some(TlsConfig::default()), ..config }).unwrap()
}

fn server(version: ServerVersion) -> Server {
    encrypting(config(version, vec![]))
}

/// What a client knows that trusts the server's authority.
fn trust(server: &Server, versions: &[&'static SupportedProtocolVersion], alpn: &[&str]) -> TlsConnector {
    let authority = CertificateDer::from_pem_slice(server.ca_certificate_pem().unwrap().as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_protocol_versions(versions).unwrap().with_root_certificates(roots);
    let mut client = builder.with_no_client_auth();
    client.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(client))
}

async fn shake_hands(
    connector: &TlsConnector,
    stream: MemoryStream,
    name: &'static str,
) -> std::io::Result<Client<TlsStream<MemoryStream>>> {
    Ok(Client::over(connector.connect(ServerName::try_from(name).unwrap(), stream).await?))
}

async fn ask_for_tls(server: &Server) -> MemoryStream {
    let mut client = Client::connect(server);
    client.packet(&StartupPacket::SslRequest).await;
    assert_eq!(client.stream.read_u8().await.unwrap(), b'S');
    client.stream
}

/// An encrypted connection whose server was verified.
async fn connect(server: &Server) -> Client<TlsStream<MemoryStream>> {
    let stream = ask_for_tls(server).await;
    shake_hands(&trust(server, &[&TLS13], &[]), stream, "localhost").await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_trusts_the_authority_verifies_the_server() {
    let names = vec!["backup.example".to_owned(), "192.0.2.1".to_owned()];
    let server = Config { tls: Some(TlsConfig { names }), ..config(ServerVersion::V18, vec![]) };
    let server = Server::new(server).unwrap();
    for version in [&TLS12, &TLS13] {
        for name in ["localhost", "127.0.0.1", "::1", "backup.example", "192.0.2.1"] {
            let connector = trust(&server, &[version], &["postgresql"]);
            let mut client = shake_hands(&connector, ask_for_tls(&server).await, name).await.unwrap();
            client.start_up("test").await;
            assert_eq!(client.read().await.1, End::Ready, "{name} {version:?}");
        }
    }
    let connector = trust(&server, &[&TLS13], &[]);
    assert!(shake_hands(&connector, ask_for_tls(&server).await, "elsewhere.example").await.is_err());
    let (other, stream) = (encrypting(config(ServerVersion::V18, vec![])), ask_for_tls(&server).await);
    assert!(shake_hands(&trust(&other, &[&TLS13], &[]), stream, "localhost").await.is_err(), "another authority");
}

#[tokio::test(start_paused = true)]
async fn the_settings_limit_the_versions_of_tls() {
    let settings = [("ssl_max_protocol_version".to_owned(), "TLSv1.2".to_owned())].into();
    let server = encrypting(Config { settings, ..config(ServerVersion::V18, vec![]) });
    let stream = ask_for_tls(&server).await;
    assert!(shake_hands(&trust(&server, &[&TLS13], &[]), stream, "localhost").await.is_err());
    let stream = ask_for_tls(&server).await;
    assert!(shake_hands(&trust(&server, &[&TLS12], &[]), stream, "localhost").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn tls_can_come_first_since_17_if_it_names_the_protocol() {
    for (version, alpn, expected) in [
        (ServerVersion::V18, &["postgresql"][..], Ok(End::Ready)),
        (ServerVersion::V17, &["postgresql"], Ok(End::Ready)),
        (ServerVersion::V17, &[], Ok(End::Closed(0))),
        (ServerVersion::V17, &["h2"], Err(())),
        (ServerVersion::V16, &["postgresql"], Err(())),
    ] {
        let server = server(version);
        let connector = trust(&server, &[&TLS13], alpn);
        let ended = match shake_hands(&connector, server.connect(), "localhost").await {
            Ok(mut client) => {
                client.start_up("test").await;
                Ok(client.read().await.1)
            }
            Err(_) => Err(()),
        };
        assert_eq!(ended, expected, "{version} {alpn:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn encryption_is_asked_for_once() {
    for version in [ServerVersion::V12, ServerVersion::V18] {
        let (server, protocols) = (server(version), version.supported_protocols());
        for (packet, number) in [(StartupPacket::SslRequest, 5679), (StartupPacket::GssEncRequest, 5680)] {
            let mut client = connect(&server).await;
            client.packet(&packet).await;
            let (messages, end) = client.read().await;
            let refused =
                format!("FATAL 0A000: unsupported frontend protocol 1234.{number}: server supports {protocols}");
            assert_eq!((diagnostics(&messages), end), (vec![refused], End::Closed(0)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_in_clear_behind_the_request_is_refused() {
    let server = server(ServerVersion::V18);
    let mut client = Client::connect(&server);
    client.stream.write_all(b"\0\0\0\x08\x04\xd2\x16\x2finjected").await.unwrap();
    assert_eq!(client.stream.read_u8().await.unwrap(), b'S');
    let mut client = shake_hands(&trust(&server, &[&TLS13], &[]), client.stream, "localhost").await.unwrap();
    let (messages, end) = client.read().await;
    let refused = "FATAL 08P01: received unencrypted data after SSL request".to_owned();
    assert_eq!((diagnostics(&messages), end), (vec![refused], End::Closed(0)));

    for (version, expected) in [
        (ServerVersion::V18, "NE\0\0\0"),
        (ServerVersion::V12, "NEFATAL:  received unencrypted data after SSL request\n\0"),
    ] {
        let server = Server::new(config(version, vec![])).unwrap();
        let mut stream = server.connect();
        stream.write_all(b"\0\0\0\x08\x04\xd2\x16\x2finjected").await.unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).await.unwrap();
        assert!(said.starts_with(expected.as_bytes()), "{version} {}", said.escape_ascii());
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_request_may_be_encrypted() {
    let stall = fault(r#"{"copy-begin": {}}"#, r#"{"stall": {}}"#);
    let server = encrypting(config(ServerVersion::V18, vec![stall]));
    let mut client = connect(&server).await;
    client.start_up("backup").await;
    let (messages, _) = client.read().await;
    let key = messages.iter().find_map(|message| match message {
        BackendMessage::BackendKeyData { pid, key } => Some((*pid, key.clone())),
        _ => None,
    });
    let (pid, key) = key.unwrap();
    client.send(&FrontendMessage::Query("BASE_BACKUP (CHECKPOINT 'fast')".into())).await;
    client.read_until(|message| matches!(message, BackendMessage::CommandComplete(_))).await;
    // A wrong key first: nothing comes of it.
    for key in [vec![0; key.len()].into(), key.slice(..3), key] {
        let mut request = connect(&server).await;
        request.packet(&StartupPacket::Cancel { pid, key }).await;
        assert_eq!(request.next().await, Err(End::Closed(0)));
    }
    let (messages, end) = client.read().await;
    let canceled = "ERROR 57014: canceling statement due to user request";
    assert!(diagnostics(&messages).contains(&canceled.to_owned()) && end == End::Ready, "{messages:?}");
}

#[tokio::test(start_paused = true)]
async fn rules_see_the_encryption() {
    let hba = vec!["hostssl replication tls 127.0.0.1/32 trust".parse().unwrap()];
    for (version, clear, tls) in
        [(ServerVersion::V13, "SSL off", "SSL on"), (ServerVersion::V14, "no encryption", "SSL encryption")]
    {
        let server = encrypting(Config { hba: hba.clone(), ..config(version, vec![]) });
        let refused = |how| {
            let refusal = "no pg_hba.conf entry for replication connection from host \"127.0.0.1\", user \"repl\"";
            vec![format!("FATAL 28000: {refusal}, {how}")]
        };
        let mut client = Client::connect(&server);
        client.start_up("test").await;
        assert_eq!(diagnostics(&client.read().await.0), refused(clear));
        let mut client = connect(&server).await;
        client.start_up("test").await;
        assert_eq!(diagnostics(&client.read().await.0), refused(tls));
    }
}

#[tokio::test(start_paused = true)]
async fn scram_binds_the_channel() {
    for (version, mechanisms) in [
        (ServerVersion::V10, &["SCRAM-SHA-256"][..]),
        (ServerVersion::V11, &["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]),
        (ServerVersion::V18, &["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]),
    ] {
        let server = encrypting(Config { auth: Auth::ScramSha256, ..config(version, vec![]) });
        let mut client = connect(&server).await;
        let certificate = client.stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        client.start_up("test").await;
        let offered = mechanisms.iter().map(|name| (*name).to_owned()).collect();
        let asked = BackendMessage::Authentication(Authentication::Sasl { mechanisms: offered });
        assert_eq!(client.next().await.unwrap(), asked, "{version}");
        let binding = match mechanisms.len() {
            1 => ChannelBinding::unsupported(),
            _ => ChannelBinding::tls_server_end_point(Sha256::digest(&certificate).to_vec()),
        };
        let mut scram = ScramSha256::new(b"secret", binding);
        let mut answer = BytesMut::from(mechanisms[0].as_bytes());
        answer.put_u8(0);
        answer.put_i32(i32::try_from(scram.message().len()).unwrap());
        answer.put_slice(scram.message());
        client.send(&FrontendMessage::Password(answer.freeze())).await;
        let Ok(BackendMessage::Authentication(Authentication::SaslContinue(data))) = client.next().await else {
            panic!("no challenge")
        };
        scram.update(&data).unwrap();
        client.send(&FrontendMessage::Password(scram.message().to_vec().into())).await;
        let (messages, end) = client.read().await;
        assert_eq!(end, End::Ready, "{version} {messages:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_an_orderly_end_says_so_in_tls() {
    for (action, orderly) in [(r#"{"close": {}}"#, true), (r#"{"crash": {}}"#, false)] {
        let server = encrypting(config(ServerVersion::V18, vec![fault(r#"{"ready": {}}"#, action)]));
        let mut client = connect(&server).await;
        client.start_up("test").await;
        let mut said = Vec::new();
        // rustls takes an end of the stream without close_notify for an error.
        assert_eq!(client.stream.read_to_end(&mut said).await.is_ok(), orderly, "{action}");
        assert!(said.starts_with(b"R\0\0\0\x08\0\0\0\0S"), "{action}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gssapi_build_says_yes_and_nothing_comes_of_it() {
    let server = Server::new(Config { gssapi: true, ..config(ServerVersion::V15, vec![]) }).unwrap();
    let mut client = Client::connect(&server);
    client.packet(&StartupPacket::GssEncRequest).await;
    client.stream.write_all(b"\0\0\0\x05token").await.unwrap();
    let mut said = Vec::new();
    client.stream.read_to_end(&mut said).await.unwrap();
    assert_eq!(said, b"G");
}
