//! UPLOAD_MANIFEST of a real server and of the mock: the same manifests, sound and spoilt, and the same words about them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use backstop_mock::Server;
use backstop_mock::config::Config;
use backstop_protocol::backend::BackendMessage;
use backstop_protocol::base_backup::manifest::{Manifest, ManifestFile, WalRange};
use backstop_protocol::frame::{MAX_FRAME, read_frame};
use backstop_protocol::frontend::{FrontendMessage, Startup, StartupPacket};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use backstop_scenarios::postgres::{Installation, PORT, Postgres, USER};
use bytes::BytesMut;
use tokio::runtime::Builder;

/// One connection, which waits for every answer.
struct Client {
    stream: UnixStream,
    input: BytesMut,
}

impl Client {
    fn start(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("a server");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        let mut client = Self { stream, input: BytesMut::new() };
        let parameters = [("user", USER), ("replication", "true")];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let mut out = BytesMut::new();
        StartupPacket::Startup(Startup { major: 3, minor: 0, parameters }).encode(&mut out);
        client.stream.write_all(&out).expect("a server that reads");
        client.read();
        client
    }

    fn send(&mut self, messages: &[FrontendMessage]) {
        let mut out = BytesMut::new();
        for message in messages {
            message.encode(&mut out);
        }
        // A server that has had enough closes.
        let _ = self.stream.write_all(&out);
    }

    /// Everything up to ReadyForQuery or the end: the type of each message, and what diagnostics say.
    fn read(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            if let Some(frame) = read_frame(&mut self.input, MAX_FRAME).expect("a message") {
                let message = BackendMessage::decode(frame).expect("a message");
                said.push(match &message {
                    BackendMessage::ErrorResponse(diagnostic) | BackendMessage::NoticeResponse(diagnostic) => {
                        let severity = diagnostic.severity.as_str();
                        format!("{severity} {} {} {:?}", diagnostic.code, diagnostic.message, diagnostic.detail)
                    }
                    other => other.name().to_owned(),
                });
                if matches!(message, BackendMessage::ReadyForQuery(_)) {
                    return said;
                }
                continue;
            }
            let mut piece = [0; 8192];
            match self.stream.read(&mut piece) {
                Ok(0) => said.push("the end".to_owned()),
                Ok(read) => {
                    self.input.extend_from_slice(&piece[..read]);
                    continue;
                }
                Err(error) => said.push(format!("the end: {}", error.kind())),
            }
            return said;
        }
    }

    fn system_identifier(&mut self) -> u64 {
        self.send(&[FrontendMessage::Query("IDENTIFY_SYSTEM".into())]);
        loop {
            if let Some(frame) = read_frame(&mut self.input, MAX_FRAME).expect("a message") {
                if let BackendMessage::DataRow(row) = BackendMessage::decode(frame).expect("a message") {
                    self.read();
                    let text = row[0].clone().expect("an identifier");
                    return String::from_utf8_lossy(&text).parse().expect("a number");
                }
                continue;
            }
            let mut piece = [0; 8192];
            let read = self.stream.read(&mut piece).expect("an answer");
            self.input.extend_from_slice(&piece[..read]);
        }
    }

    fn upload(&mut self, manifest: &[u8]) -> Vec<String> {
        let mut messages = vec![FrontendMessage::Query("UPLOAD_MANIFEST".into())];
        messages.extend(manifest.chunks(65_536).map(|piece| FrontendMessage::CopyData(piece.to_vec().into())));
        messages.push(FrontendMessage::CopyDone);
        self.send(&messages);
        self.read()
    }
}

/// Manifests for the server with this identifier; what is wrong with most is one thing.
fn manifests(system_identifier: u64) -> Vec<Vec<u8>> {
    let file = |number: usize| ManifestFile {
        path: format!("base/5/{number}").into(),
        size: 8192,
        last_modified: "2026-11-21 01:49:33 GMT".to_owned(),
        checksum: None,
    };
    let wal_ranges = vec![WalRange { timeline: TimelineId(1), start: Lsn(0x200_0028), end: Lsn(0x200_0120) }];
    let manifest = |files: usize| {
        let files = (0..files).map(file).collect();
        let wal_ranges = wal_ranges.clone();
        Manifest { version: 2, system_identifier: Some(system_identifier), files, wal_ranges }.to_bytes(false)
    };
    let whole = String::from_utf8(manifest(3)).expect("text");
    let mut all = vec![manifest(0), manifest(5000), whole.clone().into_bytes()];
    let mut twice = Manifest::parse(&manifest(1)).expect("a manifest");
    twice.files.push(file(0));
    all.push(twice.to_bytes(false));
    all.push(Manifest { system_identifier: Some(7), ..twice.clone() }.to_bytes(false));
    all.push(Manifest { version: 1, system_identifier: None, ..twice.clone() }.to_bytes(false));
    all.push(Manifest { version: 3, ..twice }.to_bytes(false));
    // Every cut, and long ones that are cut far behind what has been parsed already.
    all.extend((0..whole.len()).map(|at| whole.as_bytes()[..at].to_vec()));
    let long = manifest(5000);
    all.extend([200_000, 300_001, long.len() - 30, long.len() - 1].map(|at| long[..at].to_vec()));
    // One character in place of another, but for the identifier and the checksum, which differ between servers.
    let checksum = whole.rfind("\"Manifest-Checksum\": \"").expect("a checksum") + 22;
    let identifier = whole.find(&system_identifier.to_string()).expect("an identifier");
    let own = |at: &usize| (identifier..identifier + 19).contains(at) || (checksum..checksum + 64).contains(at);
    for spoilt in ["}", "{", "[", "]", ",", ":", "x", "9", "\\"] {
        let text = |at: usize| [&whole[..at], spoilt, &whole[at + 1..]].concat().into_bytes();
        all.extend((0..whole.len()).step_by(5).filter(|at| !own(at)).map(text));
    }
    let head = format!("{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {system_identifier},\n");
    let field = |value: &str| format!("{head}\"Files\": [\n{{ \"Path\": {value}, \"Size\": 1 }}\n],\n").into_bytes();
    for value in [
        "tru",
        "nulls",
        "TRUE",
        "01",
        "1.",
        "-",
        "1e+",
        "'a'",
        "\"\\q\"",
        "\"\\u12\"",
        "\"\\ud800\"",
        "\"\\ud800\\n\"",
        "\"\\ud800x\"",
        "\"\\udc00\"",
        "\"\\ud800\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\u0000\"",
        "\"\t\"",
        "\"\u{e4}\\\u{e4}\"",
        "[]",
        "{}",
        "[1]",
        "",
        "\u{e4}",
        "\u{feff}",
        "-1",
        "0.5",
        "1e5",
        "null",
        "\"a\" \"b\"",
    ] {
        all.push(field(value));
    }
    for rest in [
        "\"Files\": {}",
        "\"Files\": [1]",
        "\"Files\": [{}]",
        "\"Files\": [{\"Path\": \"a\"}]",
        "\"Oops\": 1",
        "\"Files\": [[]]",
        "\"Files\": [{\"Path\": \"a\", \"Encoded-Path\": \"61\", \"Size\": 1}]",
        "\"Files\": [{\"Encoded-Path\": \"6\", \"Size\": 1}]",
        "\"Files\": [{\"Path\": \"a\", \"Size\": \"x\"}]",
        "\"Files\": [{\"Path\": \"a\", \"Size\": 1, \"Checksum\": \"00\"}]",
        "\"Files\": [{\"Path\": \"a\", \"Size\": 1, \"Checksum-Algorithm\": \"oops\"}]",
        "\"Files\": [{\"Oops\": 1}]",
        "\"Files\": [{\"Path\": \"a\", \"Size\": 1, \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"0\"}]",
        "\"WAL-Ranges\": [{}]",
        "\"WAL-Ranges\": [{\"Timeline\": 1}]",
        "\"WAL-Ranges\": [{\"Oops\": 1}]",
        "\"WAL-Ranges\": 1",
        "\"WAL-Ranges\": [{\"Timeline\": \"x\", \"Start-LSN\": \"0/1\", \"End-LSN\": \"0/2\"}]",
        "\"WAL-Ranges\": [{\"Timeline\": 1, \"Start-LSN\": \"x\", \"End-LSN\": \"0/2\"}]",
        "\"WAL-Ranges\": [{\"Timeline\": 1, \"Start-LSN\": \"0/1\", \"End-LSN\": \"x\"}]",
        "\"System-Identifier\": \"-1\"",
        "\"WAL-Ranges\": [{\"Timeline\": \"\", \"Start-LSN\": \" 0x1/ 2 x\", \"End-LSN\": \"1 /2\"}]",
        "\"System-Identifier\": 1e2",
        "\"System-Identifier\": 99999999999999999999",
        "\"System-Identifier\": \" 1\"",
        "\"System-Identifier\": \"\"",
        "\"System-Identifier\": \"x\"",
        "\"Manifest-Checksum\": \"x\", \"Files\": []",
        "\"Manifest-Checksum\": \"x\"}\n{",
        "\"Manifest-Checksum\": \"x\"}\n",
        "\n\"Manifest-Checksum\": \"x\"}\n ",
        "\n\"Manifest-Checksum\": \"x\"}\n",
        "\"Manifest-Checksum\": \"x\"}",
    ] {
        all.push(format!("{head}{rest}").into_bytes());
    }
    all.push(b"hello world\n".to_vec());
    all.push(b"[1, 2".to_vec());
    all.push(b"{\"PostgreSQL-Backup-Manifest-Version\": \"phooey\"}".to_vec());
    all
}

/// Without hexadecimal digits: the servers have identifiers of their own, and with them their manifests have other checksums.
fn mask(words: &str) -> String {
    words.replace(|c: char| c.is_ascii_hexdigit() && !c.is_ascii_uppercase(), "#")
}

#[test]
fn the_same_words_about_the_same_manifests() {
    let Some(installation) = Installation::find_release(18, "what is said about manifests") else { return };
    let scratch = installation.scratch();
    let real = Postgres::new(&installation, scratch.path(), &[]);
    let mock = Server::new(Config { version: ServerVersion::V18, size: 0, ..Config::default() }).expect("a server");
    let (path, (tell, told)) = (scratch.path().join("mock"), mpsc::channel());
    let (place, serving) = (path.clone(), mock.clone());
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = serving.listen_unix(&place).expect("a socket");
            tell.send(()).expect("somebody waits");
            listener.run().await
        })
    });
    told.recv().expect("a server");
    let socket = real.socket().join(format!(".s.PGSQL.{PORT}"));
    let (mut real, mut mock) = (Client::start(&socket), Client::start(&path));
    let (real_id, mock_id) = (real.system_identifier(), mock.system_identifier());
    let mut differences = Vec::new();
    let (theirs, ours) = (manifests(real_id), manifests(mock_id));
    for (wanted, manifest) in theirs.iter().zip(&ours) {
        let (wanted_words, words) = (real.upload(wanted).join("; "), mock.upload(manifest).join("; "));
        if mask(&words) != mask(&wanted_words) {
            let shown = String::from_utf8_lossy(&wanted[..wanted.len().min(400)]).into_owned();
            differences.push(format!("{shown}\n  PostgreSQL: {wanted_words}\n  the mock:   {words}"));
        }
    }
    assert!(theirs.len() > 600, "{} manifests", theirs.len());
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n\n"));
    // What is no part of a COPY ends it, and the session.
    let stray = [FrontendMessage::Query("UPLOAD_MANIFEST".into()), FrontendMessage::Query("IDENTIFY_SYSTEM".into())];
    real.send(&stray);
    mock.send(&stray);
    assert_eq!(mock.read(), real.read());
}
