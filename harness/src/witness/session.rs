//! One session, followed: which command runs, what is being copied, what that makes of its backup.

use std::collections::BTreeMap;

use backstop_mock::cluster::Tablespace;
use backstop_mock::server::Carried;
use backstop_mock::transcript::Direction;
use backstop_mock::{BackupOutcome, BackupRecord, SessionCounts};
use backstop_protocol::backend::BackendMessage;
use backstop_protocol::base_backup::archive::ArchiveMessage;
use backstop_protocol::base_backup::options::{BaseBackupOptions, ServerFacts};
use backstop_protocol::base_backup::tar::Trailer;
use backstop_protocol::command::{self, Command};
use backstop_protocol::frame::Frame;
use backstop_protocol::frontend::{FrontendMessage, StartupPacket};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::{Flavour, ServerVersion};
use backstop_protocol::wal::stream::{StandbyMessage, WalMessage};
use bytes::Bytes;

use super::framing::Passed;
use super::members::{Archive, Told};
use super::said::Said;
use super::{Hearing, Line};

/// After so many messages of a session no more of their words are kept.
const MAX_SAID: usize = 200_000;

/// The COPY that goes on.
#[derive(Debug, Default)]
enum Copy {
    #[default]
    None,
    Out(Part),
    Both,
    In,
}

/// What data of a backup belongs to.
#[derive(Debug, Default)]
enum Part {
    #[default]
    Nothing,
    Archive {
        archive: Box<Archive>,
        is_base: bool,
        /// The member that comes now.
        member: String,
    },
    Manifest,
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    version: ServerVersion,
    name: Option<String>,
    role: Option<&'static str>,
    /// Messages of the server after its first ReadyForQuery.
    messages: Option<u64>,
    /// Queries of the client.
    commands: u64,
    carried: Carried,
    command: Option<Command>,
    columns: Vec<String>,
    copy: Copy,
    /// The archives that were announced, the base one being none, and how many COPYs came: before 15 each is one.
    archives: Vec<Option<String>>,
    copies: usize,
    /// The index of the session's last backup.
    backup: Option<usize>,
    /// CommandComplete messages since the end position.
    completed: Option<u32>,
    last_event: Option<usize>,
    said: Vec<Said>,
}

impl Session {
    pub(super) fn new(version: ServerVersion) -> Self {
        Self {
            version,
            name: None,
            role: None,
            messages: None,
            commands: 0,
            carried: Carried::default(),
            command: None,
            columns: Vec::new(),
            copy: Copy::None,
            archives: Vec::new(),
            copies: 0,
            backup: None,
            completed: None,
            last_event: None,
            said: Vec::new(),
        }
    }

    pub(super) fn backup(&self) -> Option<usize> {
        self.backup
    }

    pub(super) fn counts(&self, session: u32) -> SessionCounts {
        SessionCounts {
            session,
            application_name: self.name.clone(),
            role: self.role,
            messages: self.messages.unwrap_or_default(),
            commands: self.commands,
            carried: self.carried.clone(),
        }
    }

    pub(super) fn into_said(self) -> Vec<Said> {
        self.said
    }

    pub(super) fn hear(&mut self, hearing: &mut Hearing<'_>, passed: Passed) {
        match passed {
            Passed::Packet(packet) => self.packet(hearing, packet),
            Passed::Answer(byte) => {
                let answer = char::from(byte).to_string();
                self.line(hearing, Direction::Sent, "answer", &answer);
                self.keep(Said::new(Direction::Sent, "answer", vec![(String::new(), answer)]));
            }
            Passed::FromClient(frame) => self.client(hearing, frame),
            Passed::FromServer(frame) => self.server(hearing, frame),
            Passed::Lost(direction, why) => {
                let who = if direction == Direction::Sent { "server" } else { "client" };
                self.line(hearing, Direction::Note, "note", &format!("no more of the {who} is understood: {why}"));
            }
        }
    }

    fn line(&mut self, hearing: &mut Hearing<'_>, direction: Direction, message: &'static str, detail: &str) {
        hearing.take_down(&mut self.last_event, &Line { direction, message, detail, bytes: 0, folds: false });
    }

    fn data(&mut self, hearing: &mut Hearing<'_>, direction: Direction, detail: &str, bytes: u64) {
        let line = Line { direction, message: "CopyData", detail, bytes, folds: bytes > 0 };
        hearing.take_down(&mut self.last_event, &line);
    }

    fn keep(&mut self, said: Said) {
        if self.said.len() < MAX_SAID {
            self.said.push(said);
        }
    }

    /// The entry that data of this kind adds to: the last one, if it is of the kind already.
    fn kept_data(&mut self, direction: Direction, what: &str) -> Option<&mut Vec<(String, String)>> {
        let goes_on = self.said.last().is_some_and(|said| {
            said.direction == direction
                && said.message == "CopyData"
                && said.fields.first().is_some_and(|(name, value)| name == "of" && value == what)
        });
        if !goes_on {
            self.keep(Said::new(direction, "CopyData", vec![("of".to_owned(), what.to_owned())]));
        }
        self.said.last_mut().map(|said| &mut said.fields)
    }

    fn packet(&mut self, hearing: &mut Hearing<'_>, packet: StartupPacket) {
        let (name, detail, fields) = match packet {
            StartupPacket::Startup(startup) => {
                self.name = startup.get("application_name").map(str::to_owned);
                let parameters = startup.parameters.iter().map(|(name, value)| format!(" {name}={value}"));
                let detail = format!("{}.{}{}", startup.major, startup.minor, parameters.collect::<String>());
                ("StartupMessage", detail, startup.parameters)
            }
            StartupPacket::SslRequest => ("SSLRequest", String::new(), Vec::new()),
            StartupPacket::GssEncRequest => ("GSSENCRequest", String::new(), Vec::new()),
            StartupPacket::Cancel { pid, .. } => ("CancelRequest", format!("pid {pid}"), Vec::new()),
        };
        self.line(hearing, Direction::Received, name, &detail);
        self.keep(Said::new(Direction::Received, name, fields));
    }

    fn client(&mut self, hearing: &mut Hearing<'_>, frame: Frame) {
        let tag = frame.tag;
        let (name, detail) = match FrontendMessage::decode(frame) {
            Err(error) => ("unknown message", format!("{}: {error}", tag.escape_ascii())),
            Ok(FrontendMessage::Query(text)) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                self.begin(hearing, &text);
                ("Query", text)
            }
            Ok(FrontendMessage::CopyData(data)) => {
                self.client_data(hearing, data);
                return;
            }
            Ok(FrontendMessage::Password(data)) => ("Password", format!("{} bytes", data.len())),
            Ok(FrontendMessage::CopyFail(reason)) => ("CopyFail", reason),
            Ok(FrontendMessage::CopyDone) => ("CopyDone", String::new()),
            Ok(FrontendMessage::Terminate) => {
                if let Some(backup) = self.of_backup(hearing) {
                    backup.client_terminated = true;
                }
                ("Terminate", String::new())
            }
            Ok(FrontendMessage::Sync) => ("Sync", String::new()),
            Ok(FrontendMessage::Flush) => ("Flush", String::new()),
            Ok(other) => {
                let (name, detail, _) = other.told();
                (name, detail)
            }
        };
        self.line(hearing, Direction::Received, name, &detail);
        // Proofs differ in every exchange.
        let said = if name == "Password" { String::new() } else { detail };
        let fields = if said.is_empty() { Vec::new() } else { vec![(String::new(), said)] };
        self.keep(Said::new(Direction::Received, name, fields));
    }

    /// A command comes.
    fn begin(&mut self, hearing: &mut Hearing<'_>, text: &str) {
        hearing.book.commands.push(text.to_owned());
        self.commands += 1;
        self.copy = Copy::None;
        self.archives.clear();
        self.copies = 0;
        self.columns.clear();
        self.completed = None;
        self.command = command::parse(text, self.version).ok().map(|parsed| parsed.command);
        match &self.command {
            Some(Command::BaseBackup(_)) => {
                self.role = Some("backup");
                self.backup = None;
            }
            Some(Command::StartReplication(_)) => self.role = Some("wal"),
            _ => {}
        }
    }

    /// Data of the client: status updates, or a manifest.
    fn client_data(&mut self, hearing: &mut Hearing<'_>, data: Bytes) {
        let length = data.len() as u64;
        if let Copy::In = self.copy {
            self.data(hearing, Direction::Received, "manifest", length);
            self.kept_data(Direction::Received, "manifest");
            return;
        }
        match StandbyMessage::decode(data) {
            Ok(message) => {
                let summary = message.summary();
                self.line(hearing, Direction::Received, "CopyData", &summary);
                if let StandbyMessage::StatusUpdate { flush, .. } = message {
                    let sent = self.carried.wal.map_or(Lsn::INVALID, |(_, end)| end);
                    if flush > sent && self.carried.wal.is_some() {
                        self.carried.overconfirmed.get_or_insert((flush, sent));
                    }
                }
            }
            Err(_) => self.data(hearing, Direction::Received, "data", length),
        }
    }

    fn server(&mut self, hearing: &mut Hearing<'_>, frame: Frame) {
        if let Some(messages) = &mut self.messages {
            *messages += 1;
        }
        let (tag, body) = (frame.tag, frame.body.clone());
        let message = match BackendMessage::decode(frame) {
            Ok(BackendMessage::CopyData(data)) => {
                self.server_data(hearing, data);
                return;
            }
            Ok(message) => message,
            Err(error) => {
                let detail = format!("{}: {error}", tag.escape_ascii());
                self.line(hearing, Direction::Sent, "unknown message", &detail);
                self.keep(Said::new(Direction::Sent, "unknown message", vec![(String::new(), detail)]));
                return;
            }
        };
        self.line(hearing, Direction::Sent, message.name(), &message.summary());
        self.keep(Said::of_server(&message, &body, &self.columns));
        match &message {
            BackendMessage::RowDescription(columns) => {
                self.columns = columns.iter().map(|column| column.name.clone()).collect();
            }
            BackendMessage::DataRow(values) => self.row(hearing, values),
            BackendMessage::CopyOutResponse => {
                self.copy = Copy::Out(if self.version.has_archive_stream() { Part::Nothing } else { self.next_part() });
            }
            BackendMessage::CopyInResponse => self.copy = Copy::In,
            BackendMessage::CopyBothResponse => self.copy = Copy::Both,
            BackendMessage::CopyDone => {
                if let Copy::Out(_) = self.copy {
                    self.copies += 1;
                    self.copy = Copy::None;
                }
            }
            BackendMessage::CommandComplete(_) => {
                if let Some(completed) = &mut self.completed {
                    *completed += 1;
                    // The first one ends the result set of the end position.
                    if *completed == 2
                        && let Some(backup) = self.of_backup(hearing)
                    {
                        backup.command_complete = true;
                    }
                }
            }
            BackendMessage::ErrorResponse(diagnostic) => {
                hearing.book.errors.push((hearing.session, diagnostic.code.to_string()));
                let why = diagnostic.summary();
                if self.is_backup()
                    && let Some(backup) = self.of_backup(hearing)
                    && backup.ended == BackupOutcome::Running
                {
                    backup.ended = BackupOutcome::Failed(why);
                }
                self.copy = Copy::None;
            }
            BackendMessage::ReadyForQuery(_) => {
                self.messages.get_or_insert(0);
                if self.completed.is_some_and(|completed| completed >= 2)
                    && let Some(backup) = self.of_backup(hearing)
                    && backup.ended == BackupOutcome::Running
                {
                    backup.ended = BackupOutcome::Complete;
                }
                self.command = None;
                self.copy = Copy::None;
            }
            _ => {}
        }
    }

    fn is_backup(&self) -> bool {
        matches!(self.command, Some(Command::BaseBackup(_)))
    }

    fn of_backup<'a>(&self, hearing: &'a mut Hearing<'_>) -> Option<&'a mut BackupRecord> {
        hearing.book.backups.get_mut(self.backup?)
    }

    /// A row: of a backup they are its start position, its tablespaces, its end position.
    fn row(&mut self, hearing: &mut Hearing<'_>, values: &[Option<Bytes>]) {
        let text = |index: usize| str::from_utf8(values.get(index)?.as_deref()?).ok();
        let Some(Command::BaseBackup(options)) = &self.command else { return };
        match self.columns.first().map(String::as_str) {
            Some("recptr") => {
                let Some(position) = text(0).and_then(|text| text.parse().ok()) else { return };
                let timeline = text(1).and_then(|text| text.parse().ok()).map(TimelineId);
                if let Some(backup) = self.backup.and_then(|index| hearing.book.backups.get_mut(index)) {
                    backup.end = Some(position);
                    backup.end_timeline = timeline;
                    self.completed = Some(0);
                    return;
                }
                // A server that ran it found nothing wrong with its options.
                let facts = ServerFacts {
                    flavour: Flavour::Stock,
                    wal_summaries: true,
                    manifest_uploaded: true,
                    writes_server_files: true,
                    gzip: true,
                    lz4: true,
                    zstd: true,
                };
                let options = BaseBackupOptions::from_command(options, self.version, &facts).unwrap_or_default();
                self.backup = Some(hearing.book.backups.len());
                hearing.book.backups.push(BackupRecord {
                    profile: None,
                    session: hearing.session,
                    start: position,
                    start_timeline: timeline.unwrap_or(TimelineId::FIRST),
                    end: None,
                    end_timeline: None,
                    options,
                    label_text: String::new(),
                    tablespaces: Vec::new(),
                    ended: BackupOutcome::Running,
                    command_complete: false,
                    client_terminated: false,
                    found: BTreeMap::new(),
                });
            }
            Some("spcoid") => {
                let oid = text(0).map(str::to_owned);
                if let (Some(oid), Some(backup)) =
                    (oid.as_ref().and_then(|oid| oid.parse().ok()), self.of_backup(hearing))
                {
                    let location = text(1).unwrap_or_default().to_owned();
                    let in_place = location.starts_with("pg_tblspc/");
                    backup.tablespaces.push(Tablespace { oid, location, in_place });
                }
                self.archives.push(oid);
            }
            _ => {}
        }
    }

    /// What the next COPY of a release before 15 carries.
    fn next_part(&self) -> Part {
        match self.archives.get(self.copies) {
            Some(oid) => Part::Archive {
                archive: Box::new(Archive::new(Trailer::Absent)),
                is_base: oid.is_none(),
                member: String::new(),
            },
            None => Part::Manifest,
        }
    }

    fn server_data(&mut self, hearing: &mut Hearing<'_>, payload: Bytes) {
        let length = payload.len() as u64;
        match &self.copy {
            Copy::Both => self.wal(hearing, payload),
            Copy::Out(_) if self.version.has_archive_stream() && self.is_backup() => {
                match ArchiveMessage::decode(payload) {
                    Ok(ArchiveMessage::NewArchive { name, location }) => {
                        let name = name.escape_ascii().to_string();
                        let is_base = name.starts_with("base.");
                        let detail = format!("n {name}");
                        self.line(hearing, Direction::Sent, "CopyData", &detail);
                        let fields = vec![
                            ("archive".to_owned(), name),
                            ("location".to_owned(), location.escape_ascii().to_string()),
                        ];
                        self.keep(Said::new(Direction::Sent, "CopyData", fields));
                        let archive = Box::new(Archive::new(Trailer::Required));
                        self.copy = Copy::Out(Part::Archive { archive, is_base, member: String::new() });
                    }
                    Ok(ArchiveMessage::Manifest) => {
                        self.line(hearing, Direction::Sent, "CopyData", "m");
                        self.keep(Said::new(Direction::Sent, "CopyData", vec![("manifest".to_owned(), String::new())]));
                        self.copy = Copy::Out(Part::Manifest);
                    }
                    Ok(ArchiveMessage::Data(data)) => self.backup_data(hearing, &data),
                    Ok(ArchiveMessage::Progress(done)) => {
                        let detail = format!("p {done}");
                        self.line(hearing, Direction::Sent, "CopyData", &detail);
                    }
                    Err(error) => self.data(hearing, Direction::Sent, &error.to_string(), length),
                }
            }
            Copy::Out(_) if self.is_backup() => self.backup_data(hearing, &payload),
            Copy::Out(_) | Copy::None | Copy::In => self.data(hearing, Direction::Sent, "data", length),
        }
    }

    /// Bytes of an archive or of the manifest.
    fn backup_data(&mut self, hearing: &mut Hearing<'_>, data: &Bytes) {
        let Copy::Out(part) = &mut self.copy else { return };
        match part {
            Part::Manifest => {
                self.data(hearing, Direction::Sent, "manifest", data.len() as u64);
                self.kept_data(Direction::Sent, "manifest");
            }
            Part::Nothing => self.data(hearing, Direction::Sent, "data before any archive", data.len() as u64),
            Part::Archive { archive, is_base, member } => {
                let is_base = *is_base;
                let mut all = Vec::new();
                archive.push(data, &mut |told| all.push(told));
                let mut current = std::mem::take(member);
                for told in all {
                    match told {
                        Told::Member(name) => {
                            self.carried.members += 1;
                            current = name.escape_ascii().to_string();
                            self.data(hearing, Direction::Sent, &current, 512);
                            if let Some(fields) =
                                self.kept_data(Direction::Sent, "archive").filter(|f| f.len() < MAX_SAID)
                            {
                                fields.push(("member".to_owned(), current.clone()));
                            }
                        }
                        Told::Bytes(bytes) => {
                            self.data(hearing, Direction::Sent, &current, bytes);
                            self.kept_data(Direction::Sent, "archive");
                        }
                        Told::Label(label) if is_base => {
                            if let Some(backup) = self.of_backup(hearing) {
                                backup.label_text = String::from_utf8_lossy(&label).into_owned();
                            }
                        }
                        Told::Label(_) => {}
                        Told::End => {
                            self.data(hearing, Direction::Sent, "end of archive", 1024);
                            if let Some(fields) = self.kept_data(Direction::Sent, "archive") {
                                fields.push(("end".to_owned(), String::new()));
                            }
                        }
                    }
                }
                if let Copy::Out(Part::Archive { member, .. }) = &mut self.copy {
                    *member = current;
                }
            }
        }
    }

    /// Streamed WAL.
    fn wal(&mut self, hearing: &mut Hearing<'_>, payload: Bytes) {
        let length = payload.len() as u64;
        match WalMessage::decode(payload) {
            Ok(WalMessage::XLogData { start, data, .. }) => {
                let end = start + data.len() as u64;
                let (first, last) = self.carried.wal.unwrap_or((start, end));
                self.carried.wal = Some((first.min(start), last.max(end)));
                self.data(hearing, Direction::Sent, "w", data.len() as u64);
                let first = self.said.last().is_none_or(|said| said.message != "CopyData");
                if let Some(fields) = self.kept_data(Direction::Sent, "wal").filter(|_| first) {
                    fields.push(("from".to_owned(), start.to_string()));
                }
            }
            Ok(message @ WalMessage::Keepalive { .. }) => {
                let summary = message.summary();
                self.line(hearing, Direction::Sent, "CopyData", &summary);
            }
            Err(error) => self.data(hearing, Direction::Sent, &error.to_string(), length),
        }
    }
}
