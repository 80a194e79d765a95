//! What is said when nothing goes wrong, with the faults of a case pinned at their points.
//!
//! This is the order in which releases 9.1 to 18 and the built-in client speak; tests hold it against what is really said.

mod parallel;

use backstop_mock::config::Auth;
use backstop_mock::fault::{Fault, Point};
use backstop_protocol::version::{Flavour, ServerVersion};

use crate::scenario::Case;
use crate::scenario::model::{Client, Manifest, Slot, Tool, WalMethod};

/// A line of the timeline: messages of one side that come together, or a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The connection: `backup` or `wal`; of a backup with SQL also `files`, of which there may be several.
    pub lane: &'static str,
    /// `<` from the client, `>` from the server, `!` a fault.
    pub sign: char,
    /// The names of the messages in PostgreSQL's protocol documentation.
    pub messages: Vec<&'static str>,
    /// What they say.
    pub detail: String,
    /// The points that stand before them.
    pub points: Vec<&'static str>,
}

/// The answer to a command with a row.
const ANSWER: [&str; 3] = ["RowDescription", "DataRow", "CommandComplete"];

/// What `client` and the server say to each other in `case`.
pub fn of(case: &Case, client: &Client) -> Vec<Row> {
    let mut talk = Talk { rows: Vec::new(), lane: "backup", case, client, version: case.scenario.server.version };
    match client.tool {
        Tool::Basebackup => talk.base_backup(),
        Tool::Commands => talk.speak(),
        Tool::Receivewal => {
            talk.lane = "wal";
            talk.receive_wal();
        }
        Tool::Parallel => parallel::talk(&mut talk),
    }
    let mut rows = talk.rows;
    for (index, fault) in case.scenario.faults.iter().enumerate() {
        let sweeps = case.step.is_none() && case.scenario.sweep.as_ref().is_some_and(|sweep| sweep.fault == index);
        if is_about(&fault.when, client) && !sweeps {
            pin(&mut rows, fault, index + 1);
        }
    }
    rows
}

/// Whether a fault is about this client, as far as its point says.
fn is_about(point: &Point, client: &Client) -> bool {
    point
        .client()
        .is_none_or(|named| named == client.name || ["backup", "wal"].contains(&named) || named.starts_with('#'))
}

/// Puts a fault before the row at which it strikes, or at the end if that is no row: a time, a message by its number.
fn pin(rows: &mut Vec<Row>, fault: &Fault, number: usize) {
    let name = fault.when.name();
    let lane = fault.when.client().filter(|client| ["backup", "wal"].contains(client));
    let archive = archive_of(&fault.when);
    let strikes = |row: &Row| {
        let here = row.points.contains(&name) && lane.is_none_or(|lane| lane == row.lane);
        here && archive.as_ref().is_none_or(|archive| row.detail.starts_with(archive.as_str()))
            && match &fault.when {
                Point::Command { starts_with: Some(start), .. } => row.detail.starts_with(start.as_str()),
                _ => true,
            }
    };
    let skipped = usize::try_from(fault.when.nth().saturating_sub(1)).unwrap_or(usize::MAX);
    let mut places = rows.iter().enumerate().filter(|(_, row)| strikes(row)).map(|(index, _)| index);
    // Within one row a point can come often: the last row then holds the rest.
    let first = places.next();
    let place = places.take(skipped).last().or(first);
    let what = format!("fault {number}: {}", fault.r#do.name());
    let place = place.or_else(|| numbered(rows, &fault.when));
    let (index, lane, detail) = match place {
        Some(index) => (index, rows.get(index).map_or("", |row| row.lane), what),
        None => (rows.len(), "", format!("{what}, at {name}, which is no place in this order")),
    };
    rows.insert(index, Row { lane, sign: '!', messages: Vec::new(), detail, points: Vec::new() });
}

/// Where a message stands that a point knows by its number, from 1, after the start-up: in the row of data, if it comes that late.
fn numbered(rows: &[Row], point: &Point) -> Option<usize> {
    let Point::Message { n, .. } = point else { return None };
    let lane = if point.client() == Some("wal") { "wal" } else { "backup" };
    let mut left = *n;
    let mut said = rows.iter().enumerate().filter(|(_, row)| row.lane == lane && row.sign == '>');
    let _ready = said.by_ref().find(|(_, row)| row.points.contains(&"ready"))?;
    said.find(|(_, row)| {
        let before = left;
        left = left.saturating_sub(row.messages.len() as u64);
        row.points.contains(&"archive-data") || row.points.contains(&"wal-data") || before <= row.messages.len() as u64
    })
    .map(|(index, _)| index)
}

/// The archive that a point is about.
fn archive_of(point: &Point) -> Option<String> {
    match point {
        Point::ArchiveBegin { archive, .. }
        | Point::ArchiveData { archive, .. }
        | Point::ArchiveEnd { archive, .. } => archive.clone(),
        Point::Member { path, .. } => {
            let oid = path.strip_prefix("pg_tblspc/").and_then(|rest| rest.split_once('/')).map(|(oid, _)| oid);
            Some(oid.map_or_else(|| "base.tar".to_owned(), |oid| format!("{oid}.tar")))
        }
        _ => None,
    }
}

struct Talk<'a> {
    rows: Vec<Row>,
    lane: &'static str,
    case: &'a Case,
    client: &'a Client,
    version: ServerVersion,
}

impl Talk<'_> {
    fn client(&mut self, message: &'static str, detail: impl Into<String>) {
        self.push('<', &[message], detail.into(), &[]);
    }

    fn server(&mut self, messages: &[&'static str], detail: impl Into<String>, points: &[&'static str]) {
        self.push('>', messages, detail.into(), points);
    }

    fn push(&mut self, sign: char, messages: &[&'static str], detail: String, points: &[&'static str]) {
        self.rows.push(Row { lane: self.lane, sign, messages: messages.to_vec(), detail, points: points.to_vec() });
    }

    fn ready(&mut self) {
        self.server(&["ReadyForQuery"], "", &["ready"]);
    }

    /// A command whose answer is a row. The point of a command stands before its answer.
    fn command(&mut self, text: &str) {
        self.client("Query", text);
        self.server(&ANSWER, text, &["command"]);
        self.ready();
    }

    fn open(&mut self) {
        let server = &self.case.scenario.server;
        if server.tls {
            self.client("SSLRequest", "");
            self.server(&["acceptance"], "TLS begins", &["connect"]);
        }
        self.client("StartupMessage", format!("application_name={}", self.client.name));
        let exchange: &[(char, &'static str)] = match server.auth {
            _ if !server.hba.is_empty() => &[('>', "Authentication")],
            Auth::Trust => &[('>', "Authentication")],
            Auth::Password | Auth::Md5 => &[('>', "Authentication"), ('<', "Password"), ('>', "Authentication")],
            Auth::ScramSha256 => &[
                ('>', "Authentication"),
                ('<', "Password"),
                ('>', "Authentication"),
                ('<', "Password"),
                ('>', "Authentication"),
            ],
        };
        for (index, (sign, message)) in exchange.iter().enumerate() {
            let points: &[&'static str] = if index == 0 { &["connect", "startup"] } else { &[] };
            let by_rule = if server.hba.is_empty() { "" } else { "and what the rule of pg_hba.conf asks for" };
            self.push(*sign, &[*message], by_rule.to_owned(), points);
        }
        self.server(
            &["ParameterStatus", "BackendKeyData"],
            format!("server_version={}", self.case.scenario.server.flavour.announced(self.version)),
            &[],
        );
        self.ready();
    }

    /// What is sent is written in the scenario; what is answered is the server's affair.
    fn speak(&mut self) {
        self.open();
        for command in &self.client.commands {
            self.client("Query", command);
            self.server(&[], "the answer, or an error", &["command"]);
            self.ready();
        }
        self.client("Terminate", "");
    }

    fn base_backup(&mut self) {
        self.open();
        if self.version.has_group_access() {
            self.command("SHOW data_directory_mode");
        }
        if self.version.has_show() {
            self.command("SHOW wal_segment_size");
        }
        self.command("IDENTIFY_SYSTEM");
        if self.client.incremental_from.is_some() && !self.flavour().increments_by_lsn() {
            self.client("Query", "UPLOAD_MANIFEST");
            self.server(&["CopyInResponse"], "UPLOAD_MANIFEST", &["command"]);
            self.client("CopyData", "backup_manifest");
            self.client("CopyDone", "");
            self.server(&["CommandComplete"], "", &[]);
            self.ready();
        }
        let since = self.client.incremental_from.as_ref().filter(|_| self.flavour().increments_by_lsn());
        let since = since.map(|base| format!(" INCREMENTAL, from the start of {base}"));
        self.client("Query", format!("BASE_BACKUP{}", since.unwrap_or_default()));
        self.server(&ANSWER, "BASE_BACKUP: the start position", &["command", "start-position"]);
        // A row for each tablespace, and one for the data directory.
        let rows = vec!["DataRow"; self.case.scenario.cluster.tablespaces.len() + 1];
        let list = [&["RowDescription"], rows.as_slice(), &["CommandComplete"]].concat();
        self.server(&list, "the tablespaces", &["tablespace-list"]);
        if self.client.wal == WalMethod::Stream {
            self.lane = "wal";
            self.open();
            self.stream();
            self.lane = "backup";
        }
        self.archives();
        self.server(&ANSWER, "the end position", &["end-position"]);
        self.server(&["CommandComplete"], "BASE_BACKUP", &[]);
        self.ready();
        self.client("Terminate", "");
    }

    fn flavour(&self) -> Flavour {
        self.case.scenario.server.flavour
    }

    fn archives(&mut self) {
        let tablespaces =
            self.case.scenario.cluster.tablespaces.iter().map(|tablespace| format!("{}.tar", tablespace.oid));
        let archives: Vec<String> = tablespaces.chain(["base.tar".to_owned()]).collect();
        let manifest = self.client.manifest_on(self.version) != Manifest::None;
        let waits = self.client.wal == WalMethod::None;
        let data = ["archive-data", "member"];
        if self.version.has_archive_stream() {
            self.server(&["CopyOutResponse"], "", &["copy-begin"]);
            for archive in &archives {
                self.server(&["CopyData"], format!("{archive} begins (n)"), &["archive-begin"]);
                self.server(&["CopyData"], format!("{archive} (d): {}", contents(archive)), &data);
                self.server(&["CopyData"], format!("{archive} (d): two zero blocks"), &["archive-end"]);
                self.server(&["CopyData"], "how much is done (p)", &["progress"]);
            }
            self.notice(waits);
            if self.flavour().sends_profile() {
                self.server(&["CopyData"], "backup_profile begins (n)", &["archive-begin"]);
                self.server(&["CopyData"], "backup_profile (d)", &["archive-data"]);
                self.server(&["CopyData"], "how much is done (p)", &["archive-end", "progress"]);
            }
            if manifest {
                self.server(&["CopyData"], "the manifest begins (m)", &["manifest-begin"]);
                self.server(&["CopyData"], "the manifest (d)", &["manifest-data"]);
            }
            self.server(&["CopyDone"], "", &["copy-done"]);
            return;
        }
        for archive in &archives {
            self.server(&["CopyOutResponse"], format!("{archive} begins"), &["copy-begin", "archive-begin"]);
            self.server(&["CopyData"], format!("{archive}: {}", contents(archive)), &data);
            self.server(&["CopyDone"], format!("{archive} ends"), &["archive-end", "copy-done"]);
        }
        self.notice(waits);
        if self.flavour().sends_profile() {
            self.server(&["CopyOutResponse"], "backup_profile begins", &["copy-begin", "archive-begin"]);
            self.server(&["CopyData"], "backup_profile", &["archive-data"]);
            self.server(&["CopyDone"], "backup_profile ends", &["archive-end", "copy-done"]);
        }
        if manifest {
            self.server(&["CopyOutResponse"], "the manifest begins", &["copy-begin", "manifest-begin"]);
            self.server(&["CopyData"], "the manifest", &["manifest-data"]);
            self.server(&["CopyDone"], "", &["copy-done"]);
        }
    }

    /// Whoever brings no WAL along is told to see to it.
    fn notice(&mut self, waits: bool) {
        if waits {
            self.server(&["NoticeResponse"], "WAL archiving is not enabled", &[]);
        }
    }

    fn receive_wal(&mut self) {
        self.open();
        if self.version.has_show() {
            self.command("SHOW wal_segment_size");
        }
        self.stream();
    }

    /// A connection that streams WAL, after its start-up.
    fn stream(&mut self) {
        if self.version.has_group_access() {
            self.command("SHOW data_directory_mode");
        }
        if matches!(self.client.slot_on(self.version), Slot::Temporary | Slot::Create(_)) {
            self.command("CREATE_REPLICATION_SLOT");
        }
        self.command("IDENTIFY_SYSTEM");
        if self.case.scenario.server.timeline > 1 {
            self.command("TIMELINE_HISTORY");
        }
        self.client("Query", "START_REPLICATION");
        self.server(&["CopyBothResponse"], "START_REPLICATION", &["command", "wal-begin"]);
        self.server(&["CopyData"], "WAL (w), until the client knows the end position and has it", &["wal-data"]);
        self.client("CopyData", "how far it is (r)");
        self.server(&["CopyData"], "how far the server is (k)", &["status-update", "keepalive"]);
        self.client("CopyDone", "");
        self.server(&["CopyDone"], "", &[]);
        self.server(&["CommandComplete"], "START_REPLICATION", &[]);
        self.ready();
        self.client("Terminate", "");
    }
}

fn contents(archive: &str) -> &'static str {
    if archive == "base.tar" { "backup_label, files, global/pg_control last" } else { "files of the tablespace" }
}
