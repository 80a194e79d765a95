//! Recording: bytes of connections in, a cassette out.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use backstop_mock::capture::Capture;
use backstop_mock::transcript::Direction;
use backstop_protocol::backend::{Authentication, BackendMessage, TransactionStatus};
use backstop_protocol::base_backup::archive::ArchiveMessage;
use backstop_protocol::base_backup::options::{BaseBackupOptions, ServerFacts};
use backstop_protocol::base_backup::tar::Trailer;
use backstop_protocol::command::{Command, StartKind};
use backstop_protocol::frame::Frame;
use backstop_protocol::frontend::{FrontendMessage, Startup, StartupPacket};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::version::{Flavour, ServerVersion};
use backstop_protocol::wal::stream::WalMessage;
use bytes::Bytes;

use super::copying::{Archive, Book, Manifest};
use super::file::Writer;
use super::format::{Column, Event, FromClient, FromServer, Octets, Part};
use super::redact::{self, Question};
use super::sizes::Sizes;
use crate::witness::framing::{Framing, Passed};

/// Records connections as a cassette.
///
/// Memory does not grow with what is copied, but for the checksums of the files of running backups and a manifest, each until the
/// manifest has come.
pub struct Recorder<W: Write> {
    out: Option<Writer<W>>,
    connections: BTreeMap<u32, (Framing, Session)>,
    failure: Option<io::Error>,
}

impl<W: Write> fmt::Debug for Recorder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("connections", &self.connections.len()).finish_non_exhaustive()
    }
}

impl<W: Write> Recorder<W> {
    /// A cassette that goes to `out`.
    ///
    /// # Errors
    /// What `out` says of its first bytes.
    pub fn new(out: W) -> io::Result<Self> {
        Ok(Self { out: Some(Writer::new(out)?), connections: BTreeMap::new(), failure: None })
    }

    /// Ends the cassette: connections that are still open end here. Without it nobody can play what was recorded.
    ///
    /// # Errors
    /// The first thing that could not be written.
    pub fn finish(&mut self) -> io::Result<()> {
        let open: Vec<u32> = self.connections.keys().copied().collect();
        for session in open {
            self.end_of(session);
        }
        match (self.failure.take(), self.out.take()) {
            (Some(error), _) => Err(error),
            (None, Some(out)) => out.finish().map(drop),
            (None, None) => Ok(()),
        }
    }

    fn end_of(&mut self, session: u32) {
        let Some((_, mut connection)) = self.connections.remove(&session) else { return };
        self.write(session, |tell| {
            connection.leave(tell);
            tell(Event::End);
        });
    }

    /// Writes the events that `work` tells, unless an error came before.
    fn write(&mut self, session: u32, work: impl FnOnce(&mut dyn FnMut(Event))) {
        let Self { out: Some(out), failure, .. } = self else { return };
        work(&mut |event| {
            if failure.is_none() {
                *failure = out.event(session, &event).err();
            }
        });
    }
}

impl<W: Write + Send> Capture for Recorder<W> {
    fn bytes(&mut self, _at: Duration, session: u32, direction: Direction, bytes: &[u8]) {
        let mut taken = self.connections.remove(&session).unwrap_or_default();
        let (framing, connection) = &mut taken;
        self.write(session, |tell| framing.push(direction, bytes, |passed| connection.hear(passed, &mut *tell)));
        self.connections.insert(session, taken);
    }

    fn end(&mut self, session: u32) {
        self.end_of(session);
    }
}

/// What is being copied.
#[derive(Debug, Default)]
enum Copy {
    #[default]
    None,
    /// From the server, and nobody knows what.
    Unknown,
    Archive(Box<Archive>),
    Manifest(Manifest),
    /// In both directions.
    Wal,
    /// From the client.
    In,
}

/// WAL whose messages follow each other without a hole.
#[derive(Debug)]
struct Run {
    start: Lsn,
    next: Lsn,
    sizes: Sizes,
    /// The end of WAL on the server, as the last message says it.
    end: Lsn,
}

/// A connection.
#[derive(Debug, Default)]
struct Session {
    version: Option<ServerVersion>,
    /// Whether it is a walsender's.
    walsender: bool,
    question: Option<Question>,
    columns: Vec<String>,
    /// The tablespaces in the order in which their archives come before 15.
    tablespaces: Vec<Option<u32>>,
    copies: usize,
    copy: Copy,
    book: Book,
    /// Messages with data that were not told yet, because more of them may come.
    data: Sizes,
    wal: Option<Run>,
    uploaded: u64,
}

impl Session {
    fn version(&self) -> ServerVersion {
        self.version.unwrap_or(ServerVersion::NEWEST)
    }

    fn command(&self) -> Option<&Command> {
        self.question.as_ref().and_then(|question| question.command.as_ref())
    }

    fn hear(&mut self, passed: Passed, tell: &mut dyn FnMut(Event)) {
        match passed {
            Passed::Packet(StartupPacket::Startup(startup)) => self.startup(startup, tell),
            // Keys of sessions are secrets, and nobody answers to a request for encryption but the transport.
            Passed::Packet(_) | Passed::Answer(_) => {}
            Passed::FromClient(frame) => self.client(frame, tell),
            Passed::FromServer(frame) => self.server(frame, tell),
            Passed::Lost(_, why) => {
                self.leave(tell);
                tell(Event::Lost(why));
            }
        }
    }

    fn startup(&mut self, startup: Startup, tell: &mut dyn FnMut(Event)) {
        let replication = startup.get("replication");
        self.walsender = replication.is_some_and(|value| !matches!(value, "false" | "off" | "no" | "0"));
        let protocol = (startup.major, startup.minor);
        let parameters = startup.parameters.into_iter().map(|(name, value)| redact::parameter(name, value));
        tell(Event::Client(FromClient::Startup { protocol, parameters: parameters.collect() }));
    }

    fn client(&mut self, frame: Frame, tell: &mut dyn FnMut(Event)) {
        let tag = char::from(frame.tag);
        let said = match FrontendMessage::decode(frame) {
            Ok(FrontendMessage::Query(text)) => {
                let question = Question::new(&text, self.version(), self.walsender);
                let said = question.said.clone();
                self.begin(question, tell);
                said
            }
            // Proofs of passwords, and how far a client of WAL has come.
            Ok(FrontendMessage::Password(_)) => return,
            Ok(FrontendMessage::CopyData(data)) => {
                if matches!(self.copy, Copy::In) {
                    self.uploaded += data.len() as u64;
                }
                return;
            }
            Ok(FrontendMessage::CopyDone) => FromClient::CopyDone,
            Ok(FrontendMessage::CopyFail(_)) => FromClient::CopyFail,
            Ok(FrontendMessage::Terminate) => FromClient::Terminate,
            Ok(_) | Err(_) => FromClient::Extended(tag),
        };
        self.flush(tell);
        if self.uploaded > 0 {
            tell(Event::Client(FromClient::Data(std::mem::take(&mut self.uploaded))));
        }
        tell(Event::Client(said));
    }

    /// A command comes.
    fn begin(&mut self, question: Question, tell: &mut dyn FnMut(Event)) {
        self.leave(tell);
        self.columns.clear();
        if let Some(Command::BaseBackup(options)) = &question.command {
            self.tablespaces.clear();
            self.copies = 0;
            let facts = ServerFacts {
                flavour: Flavour::Stock,
                wal_summaries: true,
                manifest_uploaded: true,
                writes_server_files: true,
                gzip: true,
                lz4: true,
                zstd: true,
            };
            let options = BaseBackupOptions::from_command(options, self.version(), &facts).unwrap_or_default();
            self.book = Book { algorithm: options.manifest_checksums, ..Book::default() };
        }
        self.question = Some(question);
    }

    fn server(&mut self, frame: Frame, tell: &mut dyn FnMut(Event)) {
        let (tag, body) = (frame.tag, frame.body.clone());
        let message = match BackendMessage::decode(frame) {
            Ok(BackendMessage::CopyData(data)) => {
                self.copy_data(data, tell);
                return;
            }
            Ok(message) => self.message(message, &body),
            Err(_) => None,
        };
        let message = message
            .unwrap_or_else(|| FromServer::Other(char::from(tag), u32::try_from(body.len()).unwrap_or(u32::MAX)));
        self.flush(tell);
        let ends = match &message {
            FromServer::CopyDone => !matches!(self.copy, Copy::Wal),
            FromServer::Error(_) => true,
            _ => false,
        };
        if ends {
            self.leave(tell);
        }
        let copies = message == FromServer::CopyOut;
        tell(Event::Server(message));
        if copies {
            self.copy_out(tell);
        }
    }

    /// What is kept of a message, and what it means for those that follow.
    fn message(&mut self, message: BackendMessage, body: &Bytes) -> Option<FromServer> {
        // Before the first command only the start-up is answered.
        let harmless = self.question.as_ref().is_none_or(|question| question.harmless);
        Some(match message {
            BackendMessage::Authentication(authentication) => FromServer::Authentication(kind(&authentication)),
            BackendMessage::ParameterStatus { name, value } => {
                if name == "server_version" {
                    self.version = ServerVersion::from_announced(&value);
                }
                FromServer::Parameter(name, value)
            }
            BackendMessage::BackendKeyData { pid, key } => {
                FromServer::Key(pid, u16::try_from(key.len()).unwrap_or_default())
            }
            BackendMessage::ReadyForQuery(status) => FromServer::Ready(match status {
                TransactionStatus::Idle => 'I',
                TransactionStatus::InTransaction => 'T',
                TransactionStatus::Failed => 'E',
            }),
            BackendMessage::RowDescription(columns) => {
                self.columns = columns.iter().map(|column| column.name.clone()).collect();
                let columns = columns.into_iter().map(|column| {
                    Column(column.name, column.type_oid, column.type_len, column.type_modifier, column.format)
                });
                FromServer::Columns(columns.collect())
            }
            BackendMessage::DataRow(values) => {
                if self.columns.first().is_some_and(|column| column == "spcoid") {
                    let oid = values.first().and_then(Option::as_ref).and_then(|value| str::from_utf8(value).ok());
                    self.tablespaces.push(oid.and_then(|oid| oid.parse().ok()));
                }
                if harmless {
                    FromServer::Row(values.into_iter().map(|value| value.map(|value| Octets(value.to_vec()))).collect())
                } else {
                    let size = |value: Option<Bytes>| value.map(|value| u32::try_from(value.len()).unwrap_or(u32::MAX));
                    FromServer::RowOf(values.into_iter().map(size).collect())
                }
            }
            BackendMessage::CommandComplete(tag) => FromServer::Complete(tag),
            BackendMessage::EmptyQueryResponse => FromServer::Empty,
            BackendMessage::ErrorResponse(_) => FromServer::Error(redact::diagnostic(body, harmless)),
            BackendMessage::NoticeResponse(_) => FromServer::Notice(redact::diagnostic(body, harmless)),
            BackendMessage::CopyInResponse => {
                self.copy = Copy::In;
                FromServer::CopyIn
            }
            BackendMessage::CopyOutResponse => {
                self.copy = Copy::Unknown;
                FromServer::CopyOut
            }
            BackendMessage::CopyBothResponse => {
                let physical = matches!(self.command(), Some(Command::StartReplication(start)) if matches!(start.kind, StartKind::Physical { .. }));
                self.copy = if physical { Copy::Wal } else { Copy::Unknown };
                FromServer::CopyBoth
            }
            BackendMessage::CopyDone => FromServer::CopyDone,
            BackendMessage::NegotiateProtocolVersion { newest, unrecognized } => {
                FromServer::Negotiate(newest, unrecognized)
            }
            _ => return None,
        })
    }

    /// Before 15 each COPY of a backup is one archive, or the manifest.
    fn copy_out(&mut self, tell: &mut dyn FnMut(Event)) {
        let backup = matches!(self.command(), Some(Command::BaseBackup(_)));
        if !backup || self.version().has_archive_stream() {
            return;
        }
        let part = match self.tablespaces.get(self.copies) {
            Some(tablespace) => Part::Archive(*tablespace),
            None => Part::Manifest,
        };
        self.copies += 1;
        self.enter(part, tell);
    }

    /// Data belongs to `part` from now on.
    fn enter(&mut self, part: Part, tell: &mut dyn FnMut(Event)) {
        self.leave(tell);
        self.copy = match part {
            Part::Archive(tablespace) => {
                let trailer = if self.version().sends_tar_trailer() { Trailer::Required } else { Trailer::Absent };
                Copy::Archive(Box::new(Archive::new(tablespace, trailer)))
            }
            Part::Manifest => Copy::Manifest(Manifest::default()),
        };
        tell(Event::Part(part));
    }

    /// The part that was copied is over, and so are messages that follow each other.
    fn leave(&mut self, tell: &mut dyn FnMut(Event)) {
        self.flush(tell);
        match std::mem::take(&mut self.copy) {
            Copy::Archive(mut archive) => archive.finish(tell),
            Copy::Manifest(mut manifest) => manifest.finish(&self.book, tell),
            Copy::None | Copy::Unknown | Copy::Wal | Copy::In => {}
        }
    }

    /// Tells of messages that were held back.
    fn flush(&mut self, tell: &mut dyn FnMut(Event)) {
        if !self.data.is_empty() {
            tell(Event::Server(FromServer::Data(std::mem::take(&mut self.data).encode())));
        }
        if let Some(run) = self.wal.take() {
            tell(Event::Server(FromServer::Wal(run.start, run.sizes.encode(), run.end)));
        }
    }

    fn copy_data(&mut self, payload: Bytes, tell: &mut dyn FnMut(Event)) {
        if matches!(self.copy, Copy::Wal) {
            self.wal_data(payload, tell);
            return;
        }
        let backup = matches!(self.command(), Some(Command::BaseBackup(_)));
        if !backup || !self.version().has_archive_stream() {
            self.part_data(payload, tell);
            return;
        }
        let announced = match ArchiveMessage::decode(payload.clone()) {
            Ok(ArchiveMessage::Data(data)) => {
                self.part_data(data, tell);
                return;
            }
            Ok(ArchiveMessage::NewArchive { name, location }) => {
                let part = Part::Archive(oid(&name));
                (FromServer::Archive(Octets(name.to_vec()), Octets(location.to_vec())), Some(part))
            }
            Ok(ArchiveMessage::Manifest) => (FromServer::Manifest, Some(Part::Manifest)),
            Ok(ArchiveMessage::Progress(done)) => (FromServer::Progress(done), None),
            Err(_) => (FromServer::Other('d', u32::try_from(payload.len()).unwrap_or(u32::MAX)), None),
        };
        self.flush(tell);
        if announced.1.is_some() {
            self.leave(tell);
        }
        tell(Event::Server(announced.0));
        if let Some(part) = announced.1 {
            self.enter(part, tell);
        }
    }

    /// Data of an archive, of the manifest, or of something that is not known.
    fn part_data(&mut self, data: Bytes, tell: &mut dyn FnMut(Event)) {
        if self.data.is_full() {
            self.flush(tell);
        }
        self.data.push(u32::try_from(data.len()).unwrap_or(u32::MAX));
        match &mut self.copy {
            Copy::Archive(archive) => archive.push(data, &mut self.book, tell),
            Copy::Manifest(manifest) => manifest.push(&data, tell),
            Copy::None | Copy::Unknown | Copy::Wal | Copy::In => {}
        }
    }

    fn wal_data(&mut self, payload: Bytes, tell: &mut dyn FnMut(Event)) {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        match WalMessage::decode(payload) {
            Ok(WalMessage::XLogData { start, wal_end, data, .. }) => {
                if self.wal.as_ref().is_none_or(|run| run.next != start || run.sizes.is_full()) {
                    self.flush(tell);
                }
                let run =
                    self.wal.get_or_insert_with(|| Run { start, next: start, sizes: Sizes::default(), end: wal_end });
                run.sizes.push(u32::try_from(data.len()).unwrap_or(u32::MAX));
                run.next = start.saturating_add(data.len() as u64);
                run.end = wal_end;
            }
            Ok(WalMessage::Keepalive { wal_end, reply_requested, .. }) => {
                self.flush(tell);
                tell(Event::Server(FromServer::Keepalive(wal_end, reply_requested)));
            }
            Err(_) => {
                self.flush(tell);
                tell(Event::Server(FromServer::Other('d', length)));
            }
        }
    }
}

/// The OID of the tablespace whose archive is called so: `16391.tar`.
fn oid(name: &[u8]) -> Option<u32> {
    str::from_utf8(name).ok()?.split('.').next()?.parse().ok()
}

/// What is asked of a client, without what the asking is made of.
fn kind(authentication: &Authentication) -> String {
    match authentication {
        Authentication::Ok => "ok".to_owned(),
        Authentication::CleartextPassword => "password".to_owned(),
        Authentication::Md5Password { .. } => "md5".to_owned(),
        Authentication::Sasl { .. } => "sasl".to_owned(),
        Authentication::SaslContinue(_) => "sasl-continue".to_owned(),
        Authentication::SaslFinal(_) => "sasl-final".to_owned(),
        Authentication::Other(code) => format!("method {code}"),
    }
}
