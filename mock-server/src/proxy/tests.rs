//! The proxy before the mock: a fault in the one and the same fault in the other look alike to a client.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::frontend::{FrontendMessage, StartupPacket};
use backstop_protocol::version::ServerVersion;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Later, Opened, Proxy, ProxyConfig, Upstream};
use crate::fault::server::Terminate;
use crate::fault::{Action, Fault};
use crate::random::FIRST_PID;
use crate::server::Server;
use crate::testing::{Client, End, diagnostics, fault, payloads, server, tags};

/// The mock as a server behind a proxy.
#[derive(Debug)]
struct Behind(Server);

impl Upstream for Behind {
    fn connect(&self) -> Later<'_, io::Result<Opened>> {
        Box::pin(async { Ok(Opened { link: Box::new(self.0.connect()), encrypted: false }) })
    }

    fn refuses(&self, action: &Action) -> Option<String> {
        matches!(action, Action::Crash(_)).then(|| "it is not ours".to_owned())
    }

    fn act<'a>(&'a self, action: &'a Action, backends: &'a [i32]) -> Later<'a, Result<(), String>> {
        match action {
            Action::Terminate(_) => {
                for pid in backends {
                    self.0.act(&Action::Terminate(Terminate { client: Some(format!("#{}", pid - FIRST_PID)) }));
                }
            }
            action => self.0.act(action),
        }
        Box::pin(async { Ok(()) })
    }
}

fn proxy(server: &Server, faults: Vec<Fault>) -> Proxy {
    let config = ProxyConfig { faults, ..ProxyConfig::default() };
    Proxy::at(&config, Arc::new(Behind(server.clone())), server.cluster().epoch()).unwrap()
}

fn backup(version: ServerVersion) -> &'static str {
    match version {
        ServerVersion::V12 => "BASE_BACKUP LABEL 'x' FAST NOWAIT",
        ServerVersion::V14 => "BASE_BACKUP LABEL 'x' FAST NOWAIT MANIFEST 'yes'",
        _ => "BASE_BACKUP ( LABEL 'x',  CHECKPOINT 'fast',  WAIT 0,  MANIFEST 'yes',  TARGET 'client')",
    }
}

/// A backup in which a fault strikes: in the mock, and between it and a client.
async fn both(version: ServerVersion, when: &str, action: &str) -> [(Vec<BackendMessage>, End); 2] {
    let struck = server(version, vec![fault(when, action)]);
    let mut client = Client::started(struck.connect(), "test").await;
    let direct = client.query(backup(version)).await;
    assert_eq!(struck.fired().len(), 1, "{action} at {when} has not struck");
    let sound = server(version, vec![]);
    let proxy = proxy(&sound, vec![fault(when, action)]);
    let mut client = Client::started(proxy.connect(), "test").await;
    let through = client.query(backup(version)).await;
    assert_eq!(proxy.fired().len(), 1, "{action} at {when} has not struck in the proxy");
    [direct, through]
}

/// A server that knows nothing of faults counts the bytes that it sends itself.
fn forget_progress(message: &mut BackendMessage) {
    if let BackendMessage::CopyData(payload) = message
        && payload.first() == Some(&b'p')
        && payload.len() == 9
    {
        *payload = Bytes::from_static(b"p");
    }
}

/// What differs, if something does.
async fn difference(version: ServerVersion, when: &str, action: &str) -> Option<String> {
    let [mut direct, mut through] = both(version, when, action).await;
    for (messages, _) in [&mut direct, &mut through] {
        messages.iter_mut().for_each(forget_progress);
    }
    if direct == through {
        return None;
    }
    let place = direct.0.iter().zip(&through.0).position(|(one, other)| one != other);
    let shown = |messages: &[BackendMessage], at: usize| {
        messages.get(at).map(|message| {
            (message.name(), message.summary(), payloads(std::slice::from_ref(message)).first().map(Bytes::len))
        })
    };
    let at = place.unwrap_or(direct.0.len().min(through.0.len()));
    Some(format!(
        "{version} {action} at {when}: message {at} of {} and {}: {:?} and {:?}; {:?} and {:?}; {} and {}",
        direct.0.len(),
        through.0.len(),
        shown(&direct.0, at),
        shown(&through.0, at),
        direct.1,
        through.1,
        tags(&direct.0),
        tags(&through.0),
    ))
}

/// What is done to one message or to one byte is the same, whoever does it.
#[tokio::test(start_paused = true)]
async fn a_fault_looks_alike_in_the_mock_and_in_the_proxy() {
    let member = r#"{"member": {"path": "PG_VERSION"}}"#;
    let byte = r#"{"member": {"path": "PG_VERSION", "at": "1B"}}"#;
    let inside = r#"{"archive-data": {"archive": "base.tar", "at": "70000B"}}"#;
    let header = r#"{"archive-data": {"archive": "base.tar", "at": "10B"}}"#;
    let manifest = r#"{"manifest-data": {"at": "50%"}}"#;
    let mut cases = vec![
        (member, r#"{"rename-member": {"to": "../../etc/passwd"}}"#),
        (member, r#"{"retype-member": {"to": "fifo"}}"#),
        (member, r#"{"resize-header": {"to": "512B"}}"#),
        (member, r#"{"remode-member": {"to": "4777"}}"#),
        (member, r#"{"write-header": {"field": "uname", "hex": "58"}}"#),
        (member, r#"{"break-header": {}}"#),
        (member, r#"{"omit-member": {}}"#),
        (member, r#"{"truncate": {}}"#),
        (member, r#"{"repeat": {}}"#),
        (member, r#"{"insert": {"hex": "4142"}}"#),
        (member, r#"{"notice": {"message": "hm"}}"#),
        (member, r#"{"extra-member": {"name": "../evil", "content": "boo"}}"#),
        (member, r#"{"extra-member": {"name": "link", "kind": "symlink", "target": "/etc"}}"#),
        (member, r#"{"close": {}}"#),
        (member, r#"{"reset": {}}"#),
        (member, r#"{"stall": {}}"#),
        (byte, r#"{"garble": {"bits": 1}}"#),
        (byte, r#"{"close": {}}"#),
        (byte, r#"{"truncate": {}}"#),
        (r#"{"member": {"path": "PG_VERSION", "at": "100%"}}"#, r#"{"insert": {"hex": "00"}}"#),
        (inside, r#"{"insert": {"hex": "4142"}}"#),
        (inside, r#"{"drop": {}}"#),
        (inside, r#"{"repeat": {}}"#),
        (inside, r#"{"chop": {"into": "1000B"}}"#),
        (header, r#"{"garble": {}}"#),
        (r#"{"archive-begin": {"archive": "16400.tar"}}"#, r#"{"truncate": {"to": "700B"}}"#),
        (r#"{"archive-begin": {"archive": "base.tar"}}"#, r#"{"drop": {}}"#),
        (r#"{"archive-begin": {"archive": "base.tar"}}"#, r#"{"repeat": {}}"#),
        (r#"{"archive-begin": {"archive": "base.tar"}}"#, r#"{"swap": {}}"#),
        (r#"{"archive-begin": {"archive": "16400.tar"}}"#, r#"{"omit-archive": {}}"#),
        (r#"{"archive-end": {"archive": "16400.tar"}}"#, r#"{"extra-member": {"name": "late"}}"#),
        (r#"{"end-position": {}}"#, r#"{"delay": {"for": "10s"}}"#),
        (r#"{"start-position": {}}"#, r#"{"drop": {}}"#),
        (r#"{"start-position": {}}"#, r#"{"change-row": {"column": "recptr", "to": "0/1"}}"#),
        (r#"{"tablespace-list": {}}"#, r#"{"repeat": {}}"#),
        (r#"{"tablespace-list": {}}"#, r#"{"swap": {}}"#),
        (r#"{"tablespace-list": {}}"#, r#"{"change-row": {"column": "spclocation", "row": 1, "to": "/x"}}"#),
        (r#"{"end-position": {}}"#, r#"{"drop": {}}"#),
        (r#"{"end-position": {}}"#, r#"{"insert": {"hex": "4500000004"}}"#),
        (r#"{"copy-done": {}}"#, r#"{"drop": {}}"#),
        (r#"{"copy-done": {}}"#, r#"{"swap": {}}"#),
        (r#"{"ready": {"nth": 2}}"#, r#"{"repeat": {}}"#),
        (r#"{"command": {"starts-with": "BASE_BACKUP"}}"#, r#"{"delay": {"for": "1s"}}"#),
        (r#"{"command": {}}"#, r#"{"change-row": {"column": "recptr"}}"#),
        (r#"{"message": {"n": 1}}"#, r#"{"drop": {}}"#),
        (r#"{"message": {"n": 9}}"#, r#"{"repeat": {}}"#),
        (r#"{"message": {"n": 20}}"#, r#"{"swap": {}}"#),
    ];
    let mut differences = Vec::new();
    for version in [ServerVersion::V14, ServerVersion::V18] {
        if version == ServerVersion::V14 {
            cases.extend([
                (manifest, r#"{"garble": {}}"#),
                (manifest, r#"{"close": {}}"#),
                (r#"{"manifest-data": {"at": "100B"}}"#, r#"{"truncate": {}}"#),
                (r#"{"manifest-begin": {}}"#, r#"{"omit-archive": {}}"#),
            ]);
        }
        let mut cases = cases.clone();
        if version.has_archive_stream() {
            let end = r#"{"archive-end": {"archive": "base.tar"}}"#;
            cases.extend([
                (end, r#"{"omit-trailer": {}}"#),
                (end, r#"{"repeat": {}}"#),
                (r#"{"progress": {}}"#, r#"{"drop": {}}"#),
            ]);
        }
        for (when, action) in &cases {
            differences.extend(difference(version, when, action).await);
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn without_faults_every_byte_is_the_servers() {
    for version in [ServerVersion::V9_6, ServerVersion::V14, ServerVersion::V18] {
        let command = if version == ServerVersion::V9_6 { backup(ServerVersion::V12) } else { backup(version) };
        let mut bytes = Vec::new();
        for through in [false, true] {
            let server = server(version, vec![]);
            let proxy = proxy(&server, vec![]);
            let stream = if through { proxy.connect() } else { server.connect() };
            let mut client = Client::over(stream);
            client.start_up("test").await;
            client.send(&FrontendMessage::Query(command.into())).await;
            client.send(&FrontendMessage::Terminate).await;
            let mut read = Vec::new();
            client.stream.read_to_end(&mut read).await.unwrap();
            bytes.push(read);
            drop(client);
            proxy.idle().await;
            server.idle().await;
        }
        assert!(bytes[0] == bytes[1] && bytes[0].len() > 512 << 10, "{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_ends_the_command_and_the_session_goes_on() {
    let server = server(ServerVersion::V18, vec![]);
    let when = r#"{"member": {"path": "PG_VERSION"}}"#;
    let proxy = proxy(&server, vec![fault(when, r#"{"error": {"sqlstate": "58030", "message": "no"}}"#)]);
    let mut client = Client::started(proxy.connect(), "test").await;
    let (messages, end) = client.query(backup(ServerVersion::V18)).await;
    assert_eq!((tags(&messages).as_str(), end), ("TDCTDDCHdEZ", End::Ready));
    assert_eq!(diagnostics(&messages), ["ERROR 58030: no"]);
    let (messages, end) = client.query("IDENTIFY_SYSTEM").await;
    assert_eq!((tags(&messages).as_str(), end), ("TDCZ", End::Ready));
    assert_eq!(server.state().running_backups, 0);
    // At a command it keeps the server from hearing of it.
    let other = fault(r#"{"command": {}}"#, r#"{"error": {"sqlstate": "58030", "message": "no"}}"#);
    let proxy = self::proxy(&server, vec![other]);
    let mut client = Client::started(proxy.connect(), "test").await;
    let (messages, end) = client.query("IDENTIFY_SYSTEM").await;
    assert_eq!((tags(&messages).as_str(), end), ("EZ", End::Ready));
    assert_eq!(client.query("IDENTIFY_SYSTEM").await.1, End::Ready);
}

#[tokio::test(start_paused = true)]
async fn the_server_itself_ends_a_session_that_is_terminated() {
    let server = server(ServerVersion::V18, vec![]);
    let when = r#"{"member": {"path": "PG_VERSION"}}"#;
    let proxy = proxy(&server, vec![fault(when, r#"{"terminate": {}}"#)]);
    let mut client = Client::started(proxy.connect(), "test").await;
    let (messages, end) = client.query(backup(ServerVersion::V18)).await;
    assert_eq!(end, End::Closed(0));
    let said = diagnostics(&messages);
    assert_eq!(
        said.first().map(String::as_str),
        Some("FATAL 57P01: terminating connection due to administrator command")
    );
    proxy.idle().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_request_reaches_the_server() {
    let server = server(ServerVersion::V18, vec![]);
    let proxy = proxy(&server, vec![fault(r#"{"start-position": {}}"#, r#"{"stall": {}}"#)]);
    let mut client = Client::over(proxy.connect());
    client.start_up("test").await;
    let (greeting, _) = client.read().await;
    let key = greeting.into_iter().find_map(|message| match message {
        BackendMessage::BackendKeyData { pid, key } => Some((pid, key)),
        _ => None,
    });
    let (pid, key) = key.unwrap();
    client.send(&FrontendMessage::Query(backup(ServerVersion::V18).into())).await;
    // The server fills what is between it and the proxy, and waits.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut other = Client::over(proxy.connect());
    other.packet(&StartupPacket::Cancel { pid, key }).await;
    assert_eq!(other.next().await, Err(End::Closed(0)));
    let (messages, end) = client.read().await;
    assert_eq!(end, End::Ready);
    let said = diagnostics(&messages);
    assert_eq!(said.last().map(String::as_str), Some("ERROR 57014: canceling statement due to user request"));
}

#[tokio::test(start_paused = true)]
async fn wal_is_cut_at_a_position() {
    let start = server(ServerVersion::V18, vec![]).cluster().oldest_wal();
    let when = format!(r#"{{"wal-data": {{"lsn": "{}"}}}}"#, start.saturating_add(0x10));
    for action in [r#"{"garble": {"bits": 3}}"#, r#"{"close": {}}"#, r#"{"drop": {}}"#, r#"{"chop": {"into": "777B"}}"#]
    {
        let mut seen = Vec::new();
        for through in [false, true] {
            let faults = vec![fault(&when, action)];
            let (inner, outer) = if through { (vec![], faults) } else { (faults, vec![]) };
            let server = server(ServerVersion::V18, inner);
            let proxy = proxy(&server, outer);
            let stream = if through { proxy.connect() } else { server.connect() };
            let mut client = Client::started(stream, "wal").await;
            client.send(&FrontendMessage::Query(format!("START_REPLICATION PHYSICAL {start} TIMELINE 1").into())).await;
            let mut bytes = Vec::new();
            let mut starts = Vec::new();
            while let Ok(Ok(message)) = tokio::time::timeout(Duration::from_secs(5), client.next()).await {
                for payload in payloads(&[message]).iter().filter(|payload| payload.first() == Some(&b'w')) {
                    starts.push(payload[1..9].to_vec());
                    bytes.extend_from_slice(&payload[25..]);
                }
            }
            seen.push((bytes, starts.len() > 1, starts.get(1).cloned()));
        }
        assert!(seen[0].0 == seen[1].0, "{action}: {} and {} bytes", seen[0].0.len(), seen[1].0.len());
        assert_eq!(seen[0].2, seen[1].2, "{action}");
        assert!(!seen[0].0.is_empty());
    }
}

#[test]
fn what_cannot_be_done_is_refused_before_anybody_listens() {
    let refused = |when: &str, action: &str| {
        let server = server(ServerVersion::V18, vec![]);
        let config = ProxyConfig { faults: vec![fault(when, action)], ..ProxyConfig::default() };
        Proxy::new(&config, Arc::new(Behind(server))).unwrap_err().to_string()
    };
    insta::assert_snapshot!(refused(r#"{"ready": {}}"#, r#"{"crash": {}}"#));
    insta::assert_snapshot!(refused(
        r#"{"member": {"path": "PG_VERSION"}}"#,
        r#"{"rewrite-member": {"content": "17"}}"#
    ));
    insta::assert_snapshot!(refused(r#"{"client-end": {"client": "a"}}"#, r#"{"promote": {}}"#));
}

/// A server that says what it is told to, whatever it hears.
#[derive(Debug)]
struct Rubbish(&'static [u8]);

impl Upstream for Rubbish {
    fn connect(&self) -> Later<'_, io::Result<Opened>> {
        Box::pin(async {
            let (ours, mut theirs) = tokio::io::duplex(1 << 16);
            let words = self.0;
            tokio::spawn(async move {
                let _ = theirs.write_all(words).await;
                let _ = theirs.read_u8().await;
            });
            Ok(Opened { link: Box::new(ours), encrypted: false })
        })
    }
}

/// No server at all.
#[derive(Debug)]
struct Nowhere;

impl Upstream for Nowhere {
    fn connect(&self) -> Later<'_, io::Result<Opened>> {
        Box::pin(async {
            Err(io::Error::new(io::ErrorKind::ConnectionRefused, "connection to server at \"x\" failed"))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_none_is_one_clear_error() {
    async fn said(upstream: impl Upstream + 'static) -> (Vec<String>, End) {
        let proxy = Proxy::new(&ProxyConfig::default(), Arc::new(upstream)).unwrap();
        let mut client = Client::over(proxy.connect());
        client.start_up("test").await;
        let (messages, end) = client.read().await;
        drop(client);
        proxy.idle().await;
        (diagnostics(&messages), end)
    }
    let (errors, end) = said(Nowhere).await;
    assert_eq!(end, End::Closed(0));
    insta::assert_snapshot!(errors.join("\n"));
    let (errors, end) = said(Rubbish(b"HTTP/1.1 400 Bad Request\r\n\r\n")).await;
    assert_eq!(end, End::Closed(0));
    insta::assert_snapshot!(errors.join("\n"));
    // It promises more than a message can have.
    let (errors, _) = said(Rubbish(b"d\x7f\xff\xff\xff")).await;
    insta::assert_snapshot!(errors.join("\n"));
    // It dies in the middle of a message.
    let (errors, end) = said(Rubbish(b"R\0\0\0\x08\0\0")).await;
    assert_eq!((errors.len(), end), (0, End::Closed(7)));
}
