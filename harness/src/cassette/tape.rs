//! A cassette as it is played: connections, what was asked on them, and the answers.

use std::io::Read;

use backstop_protocol::base_backup::incremental::IncrementalHeader;
use backstop_protocol::base_backup::manifest::ChecksumAlgorithm;
use backstop_protocol::base_backup::tar::{MemberHeader, MemberKind, padded_size};
use backstop_protocol::frame::MAX_FRAME;
use backstop_protocol::version::ServerVersion;

use super::contents::Facts;
use super::file::{self, CassetteError};
use super::format::{Event, FromClient, FromServer, Kind, Member, Part};
use super::manifest;
use super::matching::Question;
use super::sizes::Sizes;

/// No message carries more data: the largest frame without what else stands in it.
const LARGEST_MESSAGE: u32 = (64 << 20) - 64;
const _: () = assert!(LARGEST_MESSAGE as usize <= MAX_FRAME);

/// No row of a recording is larger than what fits into a line of it, and no row that is made up is larger than this, in bytes.
const LARGEST_VALUE: u32 = 1 << 20;

/// A recording, understood.
#[derive(Debug)]
pub struct Tape {
    pub(super) connections: Vec<Connection>,
    pub(super) exchanges: Vec<Exchange>,
    pub(super) facts: Facts,
}

/// A connection that was recorded.
#[derive(Debug, Default)]
pub(super) struct Connection {
    pub(super) protocol: (u16, u16),
    pub(super) parameters: Vec<(String, String)>,
    /// What the server said up to its first ReadyForQuery, or to the end.
    pub(super) greeting: Vec<FromServer>,
}

impl Connection {
    /// The value of a parameter of the start-up.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Something that was asked, and all that came of it.
#[derive(Debug)]
pub(super) struct Exchange {
    /// How many were begun before it.
    order: usize,
    /// Index of its connection.
    pub(super) connection: usize,
    pub(super) version: ServerVersion,
    pub(super) question: Question,
    pub(super) steps: Vec<Step>,
    pub(super) parts: Vec<Content>,
}

impl Exchange {
    /// Whether the server took the next command after it.
    pub(super) fn is_whole(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Say(FromServer::Ready(_))))
    }
}

/// One step of an answer.
#[derive(Debug)]
pub(super) enum Step {
    /// The server says this.
    Say(FromServer),
    /// Messages with so much data each, of the part that was begun last, if any.
    Data(Sizes),
    /// Messages with so much WAL each, from a position on; the end of WAL on the server.
    Wal(backstop_protocol::lsn::Lsn, Sizes, backstop_protocol::lsn::Lsn),
    /// The part with this index begins.
    Begin(usize),
    /// The client ends its side of a COPY.
    Hear,
}

/// An archive or a manifest.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) kind: Part,
    /// Of an archive.
    pub(super) members: Vec<(MemberHeader, Member)>,
    /// Of a manifest.
    pub(super) pieces: Vec<Event>,
    /// Why the rest is not known.
    pub(super) opaque: Option<String>,
}

impl Content {
    /// What stands before the names of members in the manifest.
    pub(super) fn below(&self) -> Vec<u8> {
        match self.kind {
            Part::Archive(Some(oid)) => format!("pg_tblspc/{oid}/").into_bytes(),
            Part::Archive(None) | Part::Manifest => Vec::new(),
        }
    }

    /// The members of an archive with their paths in the manifest.
    pub(super) fn files(&self) -> impl Iterator<Item = (Vec<u8>, &(MemberHeader, Member))> {
        let below = self.below();
        self.members.iter().map(move |member| ([below.as_slice(), member.0.path()].concat(), member))
    }
}

/// A connection while it is read.
#[derive(Debug)]
struct Open {
    index: usize,
    version: ServerVersion,
    greeted: bool,
    exchange: Option<Exchange>,
    over: bool,
}

/// Reads events into a tape.
#[derive(Debug, Default)]
struct Builder {
    connections: Vec<Connection>,
    exchanges: Vec<Exchange>,
    begun: usize,
    open: std::collections::BTreeMap<u32, Open>,
}

impl Tape {
    /// Reads a cassette. Memory is proportional to its text before compression, which is bounded.
    ///
    /// # Errors
    /// A file that is no cassette, is cut, was changed, or makes no sense.
    pub fn read(input: impl Read) -> Result<Self, CassetteError> {
        let mut builder = Builder::default();
        file::read(input, |line, connection, event| {
            builder.event(connection, event).map_err(|problem| CassetteError::at(line, problem))
        })?;
        let Builder { connections, mut exchanges, open, .. } = builder;
        exchanges.extend(open.into_values().filter_map(|open| open.exchange));
        exchanges.sort_by_key(|exchange| exchange.order);
        let facts = Facts::of(&exchanges);
        Ok(Self { connections, exchanges, facts })
    }

    /// The release of the server that was recorded.
    pub fn version(&self) -> ServerVersion {
        self.facts.version
    }
}

impl Builder {
    fn event(&mut self, number: u32, event: Event) -> Result<(), String> {
        if let Event::Client(FromClient::Startup { protocol, parameters }) = event {
            let index = self.connections.len();
            self.connections.push(Connection { protocol, parameters, greeting: Vec::new() });
            let open = Open { index, version: ServerVersion::NEWEST, greeted: false, exchange: None, over: false };
            return match self.open.insert(number, open) {
                None => Ok(()),
                Some(_) => Err(format!("connection {number} begins a second time")),
            };
        }
        let Some(open) = self.open.get_mut(&number) else {
            // Whoever has not said who he is has said nothing.
            return match event {
                Event::End | Event::Lost(_) => Ok(()),
                _ => Err(format!("connection {number} has not begun")),
            };
        };
        if open.over {
            return Err(format!("connection {number} is over"));
        }
        match event {
            Event::Client(said) => {
                self.begun += 1;
                open.client(said, self.begun, &mut self.exchanges)
            }
            Event::Server(said) => {
                let greeting = self.connections.get_mut(open.index).map(|connection| &mut connection.greeting);
                open.server(said, greeting)
            }
            Event::Lost(_) | Event::End => {
                open.over = true;
                self.exchanges.extend(open.exchange.take());
                Ok(())
            }
            content => open.content(content),
        }
    }
}

impl Open {
    fn client(&mut self, said: FromClient, order: usize, exchanges: &mut Vec<Exchange>) -> Result<(), String> {
        let question = match said {
            FromClient::Query(text) => Question::command(text, self.version),
            FromClient::Sql { begins, sha256 } => Question::Sql { begins, sha256 },
            FromClient::Extended(_) => Question::Extended,
            FromClient::CopyDone | FromClient::CopyFail => {
                if let Some(exchange) = &mut self.exchange {
                    exchange.steps.push(Step::Hear);
                }
                return Ok(());
            }
            FromClient::Data(_) | FromClient::Terminate => return Ok(()),
            FromClient::Startup { .. } => return Err("a connection begins twice".to_owned()),
        };
        // The messages of one extended query belong together.
        if question == Question::Extended
            && self.exchange.as_ref().is_some_and(|exchange| exchange.question == question)
        {
            return Ok(());
        }
        let (connection, version) = (self.index, self.version);
        let exchange = Exchange { order, connection, version, question, steps: Vec::new(), parts: Vec::new() };
        exchanges.extend(self.exchange.replace(exchange));
        Ok(())
    }

    fn server(&mut self, said: FromServer, greeting: Option<&mut Vec<FromServer>>) -> Result<(), String> {
        check(&said)?;
        if let FromServer::Parameter(name, value) = &said
            && name == "server_version"
            && let Some(version) = ServerVersion::from_announced(value)
        {
            self.version = version;
        }
        if let Some(exchange) = &mut self.exchange {
            let sizes = |text: &str| Sizes::decode(text, LARGEST_MESSAGE);
            exchange.steps.push(match said {
                FromServer::Data(text) => Step::Data(bounded(sizes(&text)?)?),
                FromServer::Wal(start, text, end) => Step::Wal(start, bounded(sizes(&text)?)?, end),
                said => Step::Say(said),
            });
            return Ok(());
        }
        if self.greeted {
            // Somebody ends the session of a client that has asked for nothing.
            return Ok(());
        }
        self.greeted = matches!(said, FromServer::Ready(_));
        if let Some(greeting) = greeting {
            greeting.push(said);
        }
        Ok(())
    }

    /// What data is made of.
    fn content(&mut self, event: Event) -> Result<(), String> {
        let exchange = self.exchange.as_mut().ok_or("data that nobody asked for")?;
        if let Event::Part(kind) = event {
            exchange.steps.push(Step::Begin(exchange.parts.len()));
            exchange.parts.push(Content { kind, members: Vec::new(), pieces: Vec::new(), opaque: None });
            return Ok(());
        }
        if let Event::Summed(before, after) = &event {
            manifest::summed(before, after).ok_or("no line of a manifest about a file")?;
        }
        let part = exchange.parts.last_mut().ok_or("data of neither an archive nor a manifest")?;
        let archive = matches!(part.kind, Part::Archive(_));
        match event {
            Event::Member(member) if archive => {
                let header = header(&member)?;
                part.members.push((header, member));
            }
            Event::Text(_) | Event::Summed(..) | Event::Sealed(..) if !archive => part.pieces.push(event),
            Event::Opaque(why) => part.opaque = Some(why),
            _ => return Err("a member outside of an archive, or text outside of a manifest".to_owned()),
        }
        Ok(())
    }
}

/// Sizes that nobody can have sent are refused before anything is made of that size.
fn bounded(sizes: Sizes) -> Result<Sizes, String> {
    sizes.total().ok_or("more data than anybody sends")?;
    Ok(sizes)
}

/// Refuses what no server says.
fn check(said: &FromServer) -> Result<(), String> {
    let field = |value: &str| !value.contains('\0');
    let sound = match said {
        FromServer::Parameter(name, value) => field(name) && field(value),
        FromServer::Negotiate(_, names) => names.iter().all(|name| field(name)),
        FromServer::Key(_, bytes) => (4..=256).contains(bytes),
        FromServer::Ready(status) => matches!(status, 'I' | 'T' | 'E'),
        FromServer::Columns(columns) => columns.iter().all(|column| field(&column.0)) && columns.len() <= 1664,
        FromServer::Row(values) => values.len() <= 1664,
        FromServer::RowOf(values) => values.len() <= 1664 && values.iter().flatten().all(|size| *size <= LARGEST_VALUE),
        FromServer::Complete(tag) => field(tag),
        FromServer::Error(fields) | FromServer::Notice(fields) => {
            fields.iter().all(|(kind, value)| kind.is_ascii_alphabetic() && field(value))
        }
        FromServer::Archive(name, location) => !name.0.contains(&0) && !location.0.contains(&0),
        FromServer::Other(tag, size) => tag.is_ascii() && *size <= LARGEST_MESSAGE,
        _ => true,
    };
    if sound { Ok(()) } else { Err(format!("no server says {said:?}")) }
}

/// The header of a member, which can be written again.
fn header(member: &Member) -> Result<MemberHeader, String> {
    let header = MemberHeader {
        name: member.name.0.clone(),
        kind: match &member.kind {
            Kind::File => MemberKind::File,
            Kind::Directory => MemberKind::Directory,
            Kind::Link(target) => MemberKind::Symlink { target: target.0.clone() },
        },
        mode: member.mode,
        uid: member.owner.0,
        gid: member.owner.1,
        size: member.size,
        mtime: member.mtime,
    };
    header.encode().map_err(|error| error.to_string())?;
    let name = member.name.0.escape_ascii();
    if padded_size(member.size) < member.size || member.size > 1 << 60 {
        return Err(format!("\"{name}\" is larger than any file"));
    }
    if member.contents.as_ref().is_some_and(|contents| contents.0.len() as u64 != member.size) {
        return Err(format!("the contents of \"{name}\" are not as long as the file"));
    }
    if let Some((truncation, blocks)) = &member.blocks {
        let header =
            IncrementalHeader::new(*truncation, blocks.clone()).map_err(|error| format!("\"{name}\" {error}"))?;
        if header.file_size() != member.size {
            return Err(format!("\"{name}\" is not as long as its blocks"));
        }
    }
    Ok(header)
}

/// By which algorithm a manifest's checksums are made: that of its first line with one.
pub(super) fn algorithm(parts: &[Content]) -> ChecksumAlgorithm {
    let pieces = parts.iter().flat_map(|part| &part.pieces);
    let mut found = pieces.filter_map(|piece| match piece {
        Event::Summed(before, after) => manifest::summed(before, after).map(|(_, algorithm)| algorithm),
        _ => None,
    });
    found.next().unwrap_or(ChecksumAlgorithm::None)
}
