//! A backup over ordinary connections, in the words of each release.

use std::collections::BTreeMap;

use backstop_protocol::backend::{BackendMessage, Diagnostic};
use backstop_protocol::extended::{Bind, Execute, Named, Parse};
use backstop_protocol::frontend::FrontendMessage;
use backstop_protocol::version::ServerVersion;
use bytes::{BufMut, Bytes, BytesMut};

use super::tests::{ask, session};
use crate::access::RoleConfig;
use crate::cluster::{EntryKind, ground_truth_of};
use crate::config::Config;
use crate::server::{BackupOutcome, Found, Server};
use crate::testing::{Client, End, config, fault, server};

const TREE: &str = "WITH RECURSIVE tree (path, isdir, size, change, depth) AS (SELECT $1, true, 0::bigint, 0::bigint, 0 UNION ALL SELECT tree.path || '/' || name, stat.isdir, stat.size, extract(epoch FROM stat.change)::bigint, tree.depth + 1 FROM tree, LATERAL pg_ls_dir(tree.path, true, false) AS name, LATERAL pg_stat_file(tree.path || '/' || name, true) AS stat WHERE tree.isdir AND tree.depth < 32 AND tree.path <> ALL ($2)) SELECT path, isdir, size, change FROM tree WHERE depth > 0 AND isdir IS NOT NULL";
const STATUS: &str = "SELECT isdir, size, extract(epoch FROM change)::bigint FROM pg_stat_file($1)";

type Row = Vec<Option<Bytes>>;
/// The OID of a parameter's type, and its binary form.
type Given = (u32, Bytes);

fn text(value: impl AsRef<[u8]>) -> Given {
    (25, Bytes::copy_from_slice(value.as_ref()))
}

fn flag(value: bool) -> Given {
    (16, Bytes::copy_from_slice(&[value.into()]))
}

fn number(value: i64) -> Given {
    (20, Bytes::copy_from_slice(&value.to_be_bytes()))
}

fn texts(values: &[&str]) -> Given {
    let mut out = BytesMut::new();
    out.put_i32(i32::from(!values.is_empty()));
    out.put_i32(0);
    out.put_u32(25);
    if !values.is_empty() {
        out.put_i32(values.len().try_into().unwrap());
        out.put_i32(1);
    }
    for value in values {
        out.put_i32(value.len().try_into().unwrap());
        out.put_slice(value.as_bytes());
    }
    (1009, out.freeze())
}

/// One statement in one flight, parameters and results in binary.
async fn flight(client: &mut Client, query: &str, given: &[Given]) -> Result<Vec<Row>, Diagnostic> {
    let (types, parameters): (Vec<_>, Vec<_>) = given.iter().map(|(ty, value)| (*ty, Some(value.clone()))).unzip();
    let empty = String::new;
    client.send(&FrontendMessage::Parse(Parse { statement: empty(), query: query.to_owned(), types }.body())).await;
    let bind =
        Bind { portal: empty(), statement: empty(), parameter_formats: vec![1], parameters, result_formats: vec![1] };
    client.send(&FrontendMessage::Bind(bind.body())).await;
    client.send(&FrontendMessage::Describe(Named::Portal(empty()).body())).await;
    client.send(&FrontendMessage::Execute(Execute { portal: empty(), max_rows: 0 }.body())).await;
    client.send(&FrontendMessage::Sync).await;
    let (messages, end) = client.read().await;
    assert_eq!(end, End::Ready, "{query}");
    let mut rows = Vec::new();
    for message in messages {
        match message {
            BackendMessage::DataRow(row) => rows.push(row),
            BackendMessage::ErrorResponse(error) => return Err(error),
            _ => {}
        }
    }
    Ok(rows)
}

fn int8(value: Option<&Bytes>) -> i64 {
    i64::from_be_bytes(value.unwrap()[..].try_into().unwrap())
}

fn is_true(value: Option<&Bytes>) -> bool {
    value.unwrap()[..] == [1]
}

/// The words of a release.
struct Words {
    set: &'static str,
    who: &'static str,
    read: &'static str,
    tablespaces: &'static str,
    start: &'static str,
    stop: &'static str,
    stop_waits: bool,
}

fn words(version: ServerVersion) -> Words {
    use ServerVersion as V;
    let choose = |since: V, new: &'static str, old: &'static str| if version >= since { new } else { old };
    Words {
        set: choose(
            V::V14,
            "SET search_path = pg_catalog; SET statement_timeout = 0; SET idle_session_timeout = 0",
            "SET search_path = pg_catalog; SET statement_timeout = 0",
        ),
        who: choose(
            V::V11,
            "SELECT pg_is_in_recovery(), pg_postmaster_start_time(), current_setting('wal_segment_size'), current_setting('data_directory_mode')",
            "SELECT pg_is_in_recovery(), pg_postmaster_start_time(), current_setting('wal_segment_size')",
        ),
        read: choose(V::V9_5, "SELECT pg_read_binary_file($1, $2, $3, true)", "SELECT pg_read_binary_file($1, $2, $3)"),
        tablespaces: choose(
            V::V9_2,
            "SELECT oid, pg_tablespace_location(oid) FROM pg_tablespace WHERE oid NOT IN (1663, 1664)",
            "SELECT oid, spclocation FROM pg_tablespace WHERE oid NOT IN (1663, 1664)",
        ),
        start: choose(
            V::V15,
            "SELECT pg_backup_start($1, $2)",
            choose(V::V9_6, "SELECT pg_start_backup($1, $2, false)", "SELECT pg_start_backup($1, $2)"),
        ),
        stop: choose(
            V::V15,
            "SELECT lsn, labelfile, spcmapfile FROM pg_backup_stop($1)",
            choose(
                V::V10,
                "SELECT lsn, labelfile, spcmapfile FROM pg_stop_backup(false, $1)",
                choose(
                    V::V9_6,
                    "SELECT lsn, labelfile, spcmapfile FROM pg_stop_backup(false)",
                    "SELECT pg_stop_backup()",
                ),
            ),
        ),
        stop_waits: version >= V::V10,
    }
}

/// Path, whether it is a directory, and size of everything below a root.
async fn list(client: &mut Client, version: ServerVersion, root: &str, closed: &[&str]) -> Vec<(String, bool, i64)> {
    if version >= ServerVersion::V9_5 {
        let rows = flight(client, TREE, &[text(root), texts(closed)]).await.unwrap();
        let path = |row: &Row| String::from_utf8(row[0].clone().unwrap().to_vec()).unwrap();
        return rows.iter().map(|row| (path(row), is_true(row[1].as_ref()), int8(row[2].as_ref()))).collect();
    }
    let (mut found, mut open) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = open.pop() {
        for name in flight(client, "SELECT pg_ls_dir($1)", &[text(&directory)]).await.unwrap() {
            let path = format!("{directory}/{}", str::from_utf8(name[0].as_ref().unwrap()).unwrap());
            let status = flight(client, STATUS, &[text(&path)]).await.unwrap();
            let is_directory = is_true(status[0][0].as_ref());
            if is_directory && !closed.contains(&path.as_str()) {
                open.push(path.clone());
            }
            found.push((path, is_directory, int8(status[0][1].as_ref())));
        }
    }
    found
}

async fn read(client: &mut Client, version: ServerVersion, path: &str) -> Option<Bytes> {
    let row = flight(client, words(version).read, &[text(path), number(0), number(8_388_608)]).await.unwrap();
    row[0][0].clone()
}

/// Starts a backup, lists and reads every file over a second session, and stops it. What was read, by path.
async fn back_up(server: &Server, version: ServerVersion) -> BTreeMap<Vec<u8>, Bytes> {
    let words = words(version);
    let (mut hold, mut fetch) = (session(server).await, session(server).await);
    for client in [&mut hold, &mut fetch] {
        assert_eq!(client.query(words.set).await.1, End::Ready);
        let who = flight(client, words.who, &[]).await.unwrap().remove(0);
        assert_eq!((who[0].as_deref(), who[2].as_deref()), (Some(&[0][..]), Some(&b"16MB"[..])), "{version}");
        assert_eq!(read(client, version, "global/pg_control").await.unwrap().len(), 8192, "{version}");
    }
    let languages = "SELECT lanname FROM pg_language WHERE lanname IN ('plperlu', 'plpython3u')";
    assert_eq!(flight(&mut fetch, languages, &[]).await.unwrap(), Vec::<Row>::new());
    let started = flight(&mut hold, words.start, &[text("x"), flag(true)]).await.unwrap().remove(0);
    let length = if version >= ServerVersion::V9_4 { 8 } else { "0/2000028".len() };
    assert_eq!(started[0].as_ref().unwrap().len(), length, "{version}");
    let spaces = flight(&mut hold, words.tablespaces, &[]).await.unwrap();
    let values: Vec<_> = spaces[0].iter().flatten().map(|value| &value[..]).collect();
    assert_eq!(values, [&16400_u32.to_be_bytes()[..], b"/srv/ts1"]);
    let wal = format!("./{}", version.wal_directory());
    let mut files = list(&mut hold, version, ".", &[&wal, "./pg_tblspc"]).await;
    assert!(files.iter().any(|(path, is_directory, _)| *path == wal && *is_directory), "{version}");
    let space = format!("pg_tblspc/16400/{}", version.tablespace_version_directory());
    files.extend(list(&mut hold, version, &space, &[]).await);
    let mut content = BTreeMap::new();
    for (path, _, size) in files.into_iter().filter(|(_, is_directory, _)| !is_directory) {
        let path = path.strip_prefix("./").unwrap_or(&path).to_owned();
        let Some(bytes) = read(&mut fetch, version, &path).await else { continue };
        assert!(i64::try_from(bytes.len()).unwrap() <= size, "{version} {path}");
        content.insert(path.into_bytes(), bytes);
    }
    let given: &[Given] = if words.stop_waits { &[flag(false)] } else { &[] };
    let stopped = flight(&mut hold, words.stop, given).await.unwrap().remove(0);
    let label = match stopped.get(1) {
        Some(label) => label.clone().unwrap(),
        None => content.get(&b"backup_label"[..]).unwrap().clone(),
    };
    let record = server.backups().pop().unwrap();
    assert_eq!(str::from_utf8(&label).unwrap(), record.label_text, "{version}");
    assert!(record.end.is_some() && record.command_complete, "{version}");
    assert_eq!(record.ended, BackupOutcome::Complete);
    content
}

/// The files of a backup as the server's book says that they must be.
fn truth(server: &Server) -> BTreeMap<Vec<u8>, Bytes> {
    let record = server.backups().pop().unwrap();
    let mut files = BTreeMap::new();
    for found in ground_truth_of(server.cluster(), &record).unwrap() {
        let (path, entry) = found.unwrap();
        if let EntryKind::File { size } = entry.kind {
            let mut content = vec![0; usize::try_from(size).unwrap()];
            let read = server.cluster().read(&entry, 0, &mut content).unwrap();
            content.truncate(read);
            files.insert(path, content.into());
        }
    }
    files
}

#[tokio::test(start_paused = true)]
async fn what_is_read_is_what_base_backup_sends() {
    for version in ServerVersion::ALL {
        let server = server(version, vec![]);
        let mut read = back_up(&server, version).await;
        for own in ["global/pg_control", "postmaster.pid", "backup_label", "tablespace_map"] {
            read.remove(own.as_bytes());
        }
        assert!(read == truth(&server), "{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_changes_is_found_and_noted() {
    let table = "base/1/1259_fsm";
    let when = r#"{"command": {"starts-with": "WITH RECURSIVE", "nth": 1}}"#;
    let later = r#"{"command": {"starts-with": "SELECT pg_read_binary_file", "nth": 3}}"#;
    let (shrink, grow) = (
        format!(r#"{{"shrink-file": {{"path": "{table}", "to": "8KiB"}}}}"#),
        format!(r#"{{"grow-file": {{"path": "{table}", "to": "64KiB"}}}}"#),
    );
    let remove = format!(r#"{{"remove-file": {{"path": "{table}"}}}}"#);
    let add = r#"{"add-file": {"path": "base/1/99999", "content": "new"}}"#;
    for (when, action, path, found) in [
        (when, shrink.as_str(), table, Found::Beginning(8192)),
        (when, &grow, table, Found::Grown(64 << 10)),
        (when, &remove, table, Found::Nothing),
        (when, add, "base/1/99999", Found::Added),
        (later, &remove, table, Found::Nothing),
        (later, &shrink, table, Found::ZerosFrom(8192)),
    ] {
        let server = server(ServerVersion::V16, vec![fault(when, action)]);
        let content = back_up(&server, ServerVersion::V16).await;
        assert_eq!(server.backups()[0].found.get(path.as_bytes()), Some(&found), "{action}");
        let read = content.get(path.as_bytes());
        match found {
            Found::Nothing => assert_eq!(read, None, "{action}"),
            // The client is the one who writes the zeros.
            Found::ZerosFrom(left) => assert_eq!(read.unwrap().len() as u64, left),
            _ => assert!(read == truth(&server).get(path.as_bytes()), "{action}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_file_is_null_or_an_error() {
    for version in [ServerVersion::V9_1, ServerVersion::V18] {
        let server = server(version, vec![]);
        let mut client = session(&server).await;
        let given = [text("base/1/nosuch"), number(0), number(10)];
        let missing = "ERROR:  could not open file \"base/1/nosuch\" for reading: No such file or directory";
        match flight(&mut client, words(version).read, &given).await {
            Ok(rows) => assert_eq!((rows, version), (vec![vec![None]], ServerVersion::V18)),
            Err(error) => assert_eq!((error.to_string().as_str(), version), (missing, ServerVersion::V9_1)),
        }
        assert_eq!(ask(&mut client, "SELECT pg_read_binary_file('base/1/nosuch')").await, missing);
        let missing = "ERROR:  could not stat file \"nosuch\": No such file or directory";
        assert_eq!(ask(&mut client, "SELECT * FROM pg_stat_file('nosuch')").await, missing);
        let missing = "ERROR:  could not open directory \"/etc\": No such file or directory";
        assert_eq!(ask(&mut client, "SELECT pg_ls_dir('/etc')").await, missing);
        let given = [text("PG_VERSION"), number(0), number(-1)];
        let negative = flight(&mut client, words(version).read, &given).await.unwrap_err();
        assert_eq!(negative.to_string(), "ERROR:  requested length cannot be negative");
    }
}

#[tokio::test(start_paused = true)]
async fn a_role_without_the_right_is_refused() {
    for (version, expected) in [
        (
            ServerVersion::V9_5,
            ["must be superuser to read files", "must be superuser or replication role to run a backup"],
        ),
        (
            ServerVersion::V14,
            ["permission denied for function pg_read_binary_file", "permission denied for function pg_start_backup"],
        ),
        (
            ServerVersion::V18,
            ["permission denied for function pg_read_binary_file", "permission denied for function pg_backup_start"],
        ),
    ] {
        let roles = vec![RoleConfig::new("postgres")];
        let server = Server::new(Config { roles, ..config(version, vec![]) }).unwrap();
        let mut client = session(&server).await;
        let words = words(version);
        assert_eq!(client.query(words.set).await.1, End::Ready);
        flight(&mut client, words.who, &[]).await.unwrap();
        let read = flight(&mut client, words.read, &[text("PG_VERSION"), number(0), number(10)]).await.unwrap_err();
        let start = flight(&mut client, words.start, &[text("x"), flag(true)]).await.unwrap_err();
        assert_eq!([read.message.as_str(), &start.message], expected, "{version}");
        assert_eq!([read.code.as_str(), start.code.as_str()], ["42501", "42501"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_backup_ends_badly_with_its_session() {
    let version = ServerVersion::V17;
    let server = server(version, vec![]);
    let mut hold = session(&server).await;
    flight(&mut hold, words(version).start, &[text("x"), flag(true)]).await.unwrap();
    assert_eq!(server.backups()[0].ended, BackupOutcome::Running);
    drop(hold);
    server.idle().await;
    assert_eq!(server.backups()[0].ended, BackupOutcome::Failed("the connection was lost".to_owned()));
    assert_eq!(server.state().running_backups, 0);
}

#[tokio::test(start_paused = true)]
async fn wal_is_listed_and_read_until_it_is_recycled() {
    let version = ServerVersion::V15;
    let server = server(version, vec![]);
    let mut client = session(&server).await;
    server.cluster().checkpoint();
    server.cluster().switch_wal();
    server.cluster().checkpoint();
    let closed = ["pg_wal/archive_status", "pg_wal/summaries"];
    let listed = list(&mut client, version, "pg_wal", &closed).await;
    let segments: Vec<_> = listed.iter().filter(|(_, is_directory, _)| !is_directory).collect();
    assert!(segments.iter().all(|(_, _, size)| *size == 16 << 20), "{segments:?}");
    let oldest = segments[0].0.clone();
    let names = ask(&mut client, "SELECT name FROM pg_ls_waldir()").await;
    assert_eq!(names.lines().count(), segments.len());
    let first = read(&mut client, version, &oldest).await.unwrap();
    let mut expected = vec![0; 8 << 20];
    let name = oldest.strip_prefix("pg_wal/").unwrap().parse().unwrap();
    server.cluster().read_wal_file(name, 0, &mut expected).unwrap();
    assert!(first == expected);
    server.cluster().recycle_wal(name);
    assert_eq!(read(&mut client, version, &oldest).await, None);
    assert!(!list(&mut client, version, "pg_wal", &closed).await.iter().any(|(path, _, _)| *path == oldest));
}

#[tokio::test(start_paused = true)]
async fn a_fault_changes_what_a_statement_returns_and_every_statement_is_counted() {
    let when = r#"{"command": {"starts-with": "SELECT pg_read_binary_file", "nth": 2}}"#;
    let change = r#"{"change-row": {"column": "pg_read_binary_file", "to": "other"}}"#;
    let version = ServerVersion::V15;
    let server = server(version, vec![fault(when, change)]);
    let mut client = session(&server).await;
    let mut contents = Vec::new();
    for _ in 0..3 {
        contents.push(read(&mut client, version, "PG_VERSION").await.unwrap());
    }
    assert_eq!(contents, [&b"15\n"[..], b"other", b"15\n"]);
    assert_eq!(client.query("SELECT pg_is_in_recovery()").await.1, End::Ready);
    assert_eq!(server.session_counts()[0].commands, 4);
}
