//! A backup with SQL: one session that holds it, one that follows WAL, and those that fetch files, in the order in which they begin. They
//! speak at the same time.

use backstop_protocol::version::ServerVersion;

use super::Talk;
use crate::scenario::model::WalMethod;

/// What comes back when the statement runs.
const ROW: [&str; 2] = ["DataRow", "CommandComplete"];
const NO_ROW: [&str; 1] = ["CommandComplete"];
const NOTICE_AND_ROW: [&str; 3] = ["NoticeResponse", "DataRow", "CommandComplete"];

/// What a client and the server say.
pub(super) fn talk(talk: &mut Talk<'_>) {
    let version = talk.version;
    let (start, stop) = (version.backup_start_function(), version.backup_stop_function());
    open(talk);
    statement(talk, &format!("SELECT {start}"));
    if !version.has_non_exclusive_backup() {
        statement(talk, "SELECT pg_read_binary_file: backup_label");
        if version.has_tablespace_map() {
            statement(talk, "SELECT pg_read_binary_file: tablespace_map");
        }
    }
    statement(talk, "SELECT pg_read_binary_file: global/pg_control");
    if !version.has_current_wal_format() {
        tree(talk, version.wal_directory());
    }
    if talk.client.wal != WalMethod::None {
        talk.lane = "wal";
        open(talk);
        tree(talk, version.wal_directory());
        statement(
            talk,
            "SELECT pg_read_binary_file: a segment, each in pieces of 8MiB, and all again until the end is there",
        );
        talk.client("Terminate", "");
        talk.lane = "backup";
    }
    let tablespaces = !talk.case.scenario.cluster.tablespaces.is_empty();
    answered(talk, "SELECT oid, the location: tablespaces", if tablespaces { &ROW } else { &NO_ROW });
    tree(talk, ".");
    for tablespace in &talk.case.scenario.cluster.tablespaces {
        tree(talk, &format!("pg_tblspc/{}", tablespace.oid));
    }
    talk.lane = "files";
    open(talk);
    answered(talk, "SELECT lanname: languages that can compress, of which there is none", &NO_ROW);
    statement(talk, "SELECT pg_read_binary_file: a file, each in pieces of 8MiB, the largest first");
    talk.client("Terminate", "");
    talk.lane = "backup";
    statement(talk, "SELECT pg_read_binary_file: global/pg_control");
    // Who brings no WAL along is told to see to it, and so is everybody who cannot say that he does.
    let waits = talk.client.wal == WalMethod::None || !version.stop_waits_on_request();
    answered(talk, &format!("SELECT {stop}"), if waits { &NOTICE_AND_ROW } else { &ROW });
    talk.client("Terminate", "");
}

/// A session begins, and finds out what server it leads to.
fn open(talk: &mut Talk<'_>) {
    talk.open();
    talk.client("Query", "SET");
    talk.server(&["CommandComplete"], "SET", &["command"]);
    // The search path is a setting that is reported, since 18.
    if talk.version >= ServerVersion::V18 {
        talk.server(&["ParameterStatus"], "search_path=pg_catalog", &[]);
    }
    talk.ready();
    statement(talk, "SELECT pg_is_in_recovery");
    statement(talk, "SELECT pg_read_binary_file: global/pg_control");
}

/// What lies in a directory.
fn tree(talk: &mut Talk<'_>, root: &str) {
    if talk.version >= ServerVersion::V9_5 {
        return statement(talk, &format!("WITH RECURSIVE tree: {root}"));
    }
    statement(talk, &format!("SELECT pg_ls_dir: {root}"));
    statement(talk, "SELECT isdir: what was found there, one by one, and so on in each directory");
}

/// A statement with rows.
fn statement(talk: &mut Talk<'_>, text: &str) {
    answered(talk, text, &ROW);
}

/// A statement of the extended protocol, and what comes back. All of it is sent at once, and each part answered in its turn.
fn answered(talk: &mut Talk<'_>, text: &str, answer: &[&'static str]) {
    talk.client("Parse", text);
    talk.server(&["ParseComplete"], "", &[]);
    talk.client("Bind", "");
    talk.server(&["BindComplete"], "", &[]);
    talk.client("Describe", "");
    talk.server(&["RowDescription"], "", &[]);
    talk.client("Execute", "");
    talk.server(answer, text, &["command"]);
    talk.client("Sync", "");
    talk.ready();
}
