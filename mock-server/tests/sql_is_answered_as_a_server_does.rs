//! The same statements to a real server and to the mock of its release: the answers are compared message by message. Only what
//! differs from one cluster to the next is blotted out: positions, names of segments, times.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::str::FromStr;

use backstop_mock::Server;
use backstop_mock::config::Config;
use backstop_protocol::backend::{BackendMessage, Column, Diagnostic};
use backstop_protocol::extended::{Bind, Execute, Named, Parse};
use backstop_protocol::frame::{MAX_FRAME, read_frame};
use backstop_protocol::frontend::{FrontendMessage, Startup, StartupPacket};
use backstop_protocol::version::ServerVersion;
use backstop_scenarios::postgres::{Installation, PORT, Postgres, USER};
use bytes::{Bytes, BytesMut};

/// Queries, in one session.
const QUERIES: [&str; 74] = [
    "SELECT pg_backup_stop()",
    "SELECT pg_backup_start('x', true)",
    "SELECT pg_backup_start('y')",
    "SELECT * FROM pg_backup_stop(false)",
    "SELECT pg_backup_start(label => 'x', fast => true)",
    "SELECT pg_backup_stop()",
    "select pg_backup_start('x', fast => 'yes')",
    "SELECT labelfile, spcmapfile, lsn FROM pg_catalog.pg_backup_stop(wait_for_archive => false)",
    "SELECT pg_backup_start(NULL)",
    "SELECT pg_start_backup('x', true)",
    "SELECT pg_backup_start(1)",
    "SELECT pg_backup_start('a', 'b')",
    "SELECT pg_backup_start('a', 'b', 3)",
    "SELECT pg_backup_start(nosuch => 'a')",
    "SELECT pg_stop_backup()",
    "SELECT pg_is_in_backup()",
    "SELECT lsn::text, pg_walfile_name(lsn) FROM pg_backup_start('z', true) AS lsn",
    "SELECT (pg_backup_stop(false)).labelfile",
    "select nosuch from pg_backup_stop()",
    "SELECT pg_current_wal_lsn(), pg_walfile_name('0/2000000'), pg_is_in_recovery(), pg_switch_wal()",
    "SELECT pg_current_wal_flush_lsn()",
    "select pg_current_xlog_location()",
    "SELECT pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn()",
    "SELECT pg_walfile_name_offset('0/2000028')",
    "SELECT * FROM pg_walfile_name_offset('0/2000028')",
    "SELECT (pg_walfile_name_offset('0/2000028')).*",
    "SELECT file_name FROM pg_walfile_name_offset('0/2000028')",
    "SELECT pg_walfile_name('x')",
    "SELECT pg_create_physical_replication_slot('s1', true)",
    "SELECT * FROM pg_create_physical_replication_slot('s2')",
    "SELECT pg_create_physical_replication_slot('s2')",
    "SELECT pg_create_physical_replication_slot('Bad')",
    "SELECT slot_name, slot_type, active, restart_lsn, temporary, wal_status FROM pg_replication_slots",
    "SELECT * from pg_replication_slots where slot_name = 's1'",
    "SELECT slot_name FROM pg_replication_slots WHERE active = true",
    "SELECT pg_drop_replication_slot('s1')",
    "SELECT pg_drop_replication_slot('s2')",
    "SELECT pg_drop_replication_slot('s2')",
    "SELECT pg_promote()",
    "CHECKPOINT",
    "SHOW WAL_segment_size",
    "SHOW nosuch",
    "SELECT current_setting('wal_segment_size')",
    "SELECT current_setting('nosuch')",
    "SELECT current_setting('nosuch', true)",
    "SET nosuch = 1",
    "SET application_name = 'a'",
    "SELECT set_config('application_name', 'b', false)",
    "RESET application_name",
    "SET wal_level = replica",
    "SET wal_segment_size = 1",
    "SET max_wal_size = 1",
    "SET SESSION statement_timeout = '3s'",
    "SHOW statement_timeout",
    "SET statement_timeout TO DEFAULT; SHOW statement_timeout",
    "",
    " ; ; ",
    "BEGIN",
    "BEGIN",
    "SET application_name = 'c'",
    "SELECT nosuch",
    "SELECT 1",
    "COMMIT",
    "COMMIT",
    "START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY",
    "ROLLBACK",
    "ROLLBACK",
    "SELECT 1 AS a, 'x'::text AS b, true, NULL, 'y'",
    "SELECT '0/1'::pg_lsn, 12345678901, 7::text, '7'::int4",
    "SELECT 1; SELECT nosuch; SELECT 2",
    "BEGIN; SELECT 1; ROLLBACK; SELECT 2",
    "SELECT $1",
    "SELECT *",
    "SELECT now(), pg_backend_pid() AS \"Pid\"",
];

/// Sequences of the extended protocol, in one session; a Sync follows each.
fn sequences() -> Vec<Vec<FrontendMessage>> {
    let parse = |statement: &str, query: &str| {
        FrontendMessage::Parse(Parse { statement: statement.to_owned(), query: query.to_owned(), types: vec![] }.body())
    };
    let bind_as = |portal: &str, statement: &str, parameters: &[(&'static [u8], i16)], results: &[i16]| {
        let bind = Bind {
            portal: portal.to_owned(),
            statement: statement.to_owned(),
            parameter_formats: parameters.iter().map(|(_, format)| *format).collect(),
            parameters: parameters.iter().map(|(value, _)| Some(Bytes::from_static(value))).collect(),
            result_formats: results.to_vec(),
        };
        FrontendMessage::Bind(bind.body())
    };
    let bind = || bind_as("", "", &[], &[]);
    let statement = |name: &str| FrontendMessage::Describe(Named::Statement(name.to_owned()).body());
    let portal = || FrontendMessage::Describe(Named::Portal(String::new()).body());
    let execute_of =
        |portal: &str, max_rows| FrontendMessage::Execute(Execute { portal: portal.to_owned(), max_rows }.body());
    let execute = || execute_of("", 0);
    let whole = |query: &str| vec![parse("", query), statement(""), bind(), portal(), execute()];
    vec![
        whole("SELECT 1"),
        vec![parse("s1", "SELECT pg_backup_start($1, $2)"), statement("s1")],
        vec![bind_as("", "s1", &[(b"lab", 0), (b"t", 0)], &[0]), portal(), execute()],
        vec![
            parse("", "SELECT labelfile, spcmapfile, lsn FROM pg_backup_stop($1)"),
            bind_as("", "", &[(b"\0", 1)], &[1]),
            portal(),
            execute(),
        ],
        vec![parse("", "SELECT 1"), bind_as("p", "", &[], &[]), execute_of("p", 1), execute_of("p", 1)],
        vec![
            FrontendMessage::Close(Named::Statement("s1".to_owned()).body()),
            FrontendMessage::Close(Named::Portal("nosuch".to_owned()).body()),
        ],
        vec![bind_as("", "s1", &[], &[]), execute()],
        vec![execute_of("nosuch", 0)],
        whole(""),
        vec![parse("d", "SELECT 1"), parse("d", "SELECT 1"), parse("e", "SELECT 1")],
        whole("SELECT 1; SELECT 2"),
        vec![parse("", "SELECT $1::int4"), statement(""), bind()],
        whole("CHECKPOINT"),
        whole("SHOW wal_level"),
        whole("BEGIN"),
        whole("SELECT nosuch"),
        vec![parse("", "SELECT 1")],
        vec![bind_as("", "d", &[], &[])],
        vec![FrontendMessage::Query(Bytes::from_static(b"SELECT 1"))],
        whole("ROLLBACK"),
        vec![parse("", "SELECT pg_backup_start($1, $2)"), bind_as("", "", &[(b"l", 0), (b"maybe", 0)], &[])],
        whole("SET application_name = 'zzz'"),
        vec![parse("", "SELECT $1"), statement(""), bind_as("", "", &[(b"x", 0)], &[]), execute()],
        vec![parse("", "SELECT pg_walfile_name_offset($1)"), bind_as("", "", &[(b"0/2000028", 0)], &[1]), execute()],
        vec![parse("", "SELECT 1"), bind_as("", "", &[], &[0, 0])],
        vec![FrontendMessage::Bind(Bytes::from_static(b"\0")), execute()],
        vec![FrontendMessage::Describe(Bytes::from_static(b"Xs\0"))],
        vec![FrontendMessage::Close(Bytes::from_static(b"Xs\0"))],
        vec![bind_as("", "", &[(b"x", 7)], &[])],
        vec![FrontendMessage::Flush, statement("d"), FrontendMessage::Flush],
    ]
}

/// A connection, either to a server or to the mock.
struct Client {
    stream: UnixStream,
    input: BytesMut,
}

impl Client {
    fn start(socket: &Path, replication: Option<&str>) -> Self {
        let mut client = Self { stream: UnixStream::connect(socket).expect("a connection"), input: BytesMut::new() };
        let parameters = [("user", Some(USER)), ("database", Some("postgres")), ("replication", replication)];
        let parameters = parameters.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        let startup = Startup { major: 3, minor: 0, parameters: parameters.collect() };
        let mut out = BytesMut::new();
        StartupPacket::Startup(startup).encode(&mut out);
        client.stream.write_all(&out).expect("written");
        client.read();
        client
    }

    fn ask(&mut self, messages: &[FrontendMessage]) -> Vec<String> {
        let mut out = BytesMut::new();
        for message in messages {
            message.encode(&mut out);
        }
        self.stream.write_all(&out).expect("written");
        // A Query among messages that are ignored has no answer of its own.
        self.read()
    }

    /// Everything up to ReadyForQuery, in lines.
    fn read(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let message = loop {
                if let Some(frame) = read_frame(&mut self.input, MAX_FRAME).expect("frames") {
                    break BackendMessage::decode(frame).expect("a message");
                }
                let mut piece = [0; 8192];
                let count = self.stream.read(&mut piece).expect("readable");
                assert_ne!(count, 0, "the server closed after {lines:#?}");
                self.input.extend_from_slice(&piece[..count]);
            };
            lines.push(line(&message));
            if matches!(message, BackendMessage::ReadyForQuery(_)) {
                return lines;
            }
        }
    }
}

/// A message without what no two clusters share.
fn line(message: &BackendMessage) -> String {
    let text = match message {
        BackendMessage::RowDescription(columns) => {
            let column = |column: &Column| {
                let Column { name, type_oid, type_len, type_modifier, format } = column;
                format!("{name} {type_oid} {type_len} {type_modifier} {format}")
            };
            columns.iter().map(column).collect::<Vec<_>>().join(", ")
        }
        BackendMessage::DataRow(values) => {
            let value = |value: &Option<Bytes>| match value {
                None => "NULL".to_owned(),
                // A position in eight bytes.
                Some(value) if value.len() == 8 && value.first() == Some(&0) => "LSN".to_owned(),
                Some(value) => value.escape_ascii().to_string(),
            };
            values.iter().map(value).collect::<Vec<_>>().join(" | ")
        }
        BackendMessage::ErrorResponse(said) | BackendMessage::NoticeResponse(said) => {
            let Diagnostic { severity, code, message, detail, hint, position, .. } = said;
            format!("{severity:?} {code} {message} {detail:?} {hint:?} {position:?}")
        }
        other => format!("{other:?}"),
    };
    format!("{} {}", message.name(), blotted(&text))
}

/// The text without positions, names of segments and times.
fn blotted(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let run = rest.find(|c: char| !(c.is_ascii_hexdigit() || c == '/')).unwrap_or(rest.len());
        let time = rest.len() >= 19 && is_time(&rest.as_bytes()[..19]);
        let end = if time {
            out.push_str("TIME");
            19 + rest[19..].find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len() - 19)
        } else if run > 2 && rest[..run].contains('/') && backstop_protocol::lsn::Lsn::from_str(&rest[..run]).is_ok() {
            out.push_str("LSN");
            run
        } else if run == 24 {
            out.push_str("FILE");
            run
        } else if run > 0 {
            out.push_str(&rest[..run]);
            run
        } else {
            out.push(first);
            first.len_utf8()
        };
        rest = &rest[end..];
    }
    out
}

/// `2026-11-21 07:25:05`
fn is_time(bytes: &[u8]) -> bool {
    bytes.iter().zip(b"0000-00-00 00:00:00").all(|(byte, shape)| match shape {
        b'0' => byte.is_ascii_digit(),
        other => byte == other,
    })
}

/// Asks both servers the same, and compares.
fn compare(real: &Path, mock: &Path) {
    let mut clients = [real, mock].map(|socket| Client::start(socket, None));
    for query in QUERIES {
        let text = Bytes::copy_from_slice(query.as_bytes());
        let [real, mock] = clients.each_mut().map(|client| client.ask(&[FrontendMessage::Query(text.clone())]));
        // Process ids are nobody's business.
        if !query.contains("Pid") {
            assert_eq!(mock, real, "{query}");
        }
    }
    let mut clients = [real, mock].map(|socket| Client::start(socket, None));
    for mut sequence in sequences() {
        if !matches!(sequence.as_slice(), [FrontendMessage::Query(_)]) {
            sequence.push(FrontendMessage::Sync);
        }
        let [real, mock] = clients.each_mut().map(|client| client.ask(&sequence));
        assert_eq!(mock, real, "{sequence:?}");
    }
    let mut clients = [real, mock].map(|socket| Client::start(socket, Some("database")));
    for query in [
        "SELECT 1",
        "BEGIN",
        "IDENTIFY_SYSTEM; ",
        "TIMELINE_HISTORY 2",
        "SHOW wal_level",
        "START_REPLICATION 0/1",
        "ROLLBACK",
        "SELECT pg_backup_start('sql', true)",
        "BASE_BACKUP",
        "SELECT * FROM pg_backup_stop(false)",
    ] {
        let text = Bytes::copy_from_slice(query.as_bytes());
        let [real, mock] = clients.each_mut().map(|client| client.ask(&[FrontendMessage::Query(text.clone())]));
        if !query.starts_with("IDENTIFY") {
            assert_eq!(mock, real, "{query}");
        }
    }
}

fn story(major: u16, version: ServerVersion) {
    let Some(installation) = Installation::find_release(major, "SQL of the mock") else { return };
    let scratch = installation.scratch();
    let real = Postgres::new(&installation, scratch.path(), &["log_timezone = 'UTC'", "timezone = 'UTC'"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let server = Server::new(Config { version, size: 0, ..Config::default() }).expect("a server");
    let mock = scratch.path().join("mock");
    let listener = runtime.block_on(async { server.listen_unix(&mock) }).expect("a socket");
    // Until the test ends: clients wait for their answers, and so must not be on the runtime's thread.
    std::thread::spawn(move || runtime.block_on(listener.run()));
    compare(&real.socket().join(format!(".s.PGSQL.{PORT}")), &mock);
}

#[test]
fn sql_is_answered_as_postgresql_15_does() {
    story(15, ServerVersion::V15);
}

#[test]
fn sql_is_answered_as_postgresql_16_does() {
    story(16, ServerVersion::V16);
}

#[test]
fn sql_is_answered_as_postgresql_18_does() {
    story(18, ServerVersion::V18);
}
