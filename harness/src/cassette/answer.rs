//! An answer, as bytes.

use backstop_protocol::backend::{self, BackendMessage, TransactionStatus};
use backstop_protocol::base_backup::archive::ArchiveMessage;
use backstop_protocol::base_backup::manifest::{ChecksumAlgorithm, ChecksumHasher};
use backstop_protocol::base_backup::tar::{BLOCK, MemberHeader, MemberKind, padded_size};
use backstop_protocol::command::Command;
use backstop_protocol::frame::write_frame;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::wal::stream::{PgTimestamp, WalMessage};
use bytes::{BufMut, Bytes, BytesMut};

use super::contents::Facts;
use super::format::{Column, FromServer, Member, Octets, Part};
use super::manifest::{self, Checksums};
use super::matching::Question;
use super::tape::{Content, Exchange, algorithm};

/// What stands for a byte of a value that was left out.
const LEFT_OUT: u8 = b'x';

/// Says again what was said in one exchange.
pub(super) struct Answer<'a> {
    facts: &'a Facts,
    exchange: &'a Exchange,
    /// The slot that the client has named, which it wants to hear again.
    slot: Option<String>,
    part: Option<Source<'a>>,
    algorithm: ChecksumAlgorithm,
    checksums: Checksums,
    /// The end of WAL on the server, as it was said last.
    wal_end: Lsn,
}

/// Where the data of a part comes from.
enum Source<'a> {
    Archive(Box<Archive<'a>>),
    Manifest { text: Vec<u8>, at: usize },
}

impl<'a> Answer<'a> {
    /// The answer of `exchange` to a client that asked `question`.
    pub(super) fn new(facts: &'a Facts, exchange: &'a Exchange, question: &Question) -> Self {
        let slot = match question {
            Question::Command { command: Some(Command::CreateReplicationSlot(create)), .. } => {
                Some(create.slot.clone())
            }
            _ => None,
        };
        let algorithm = algorithm(&exchange.parts);
        Self { facts, exchange, slot, part: None, algorithm, checksums: Checksums::new(), wal_end: Lsn::INVALID }
    }

    /// Appends a message.
    pub(super) fn say(&mut self, said: &FromServer, out: &mut BytesMut) {
        if let FromServer::Keepalive(end, _) = said {
            self.wal_end = *end;
        }
        match (said, &self.slot) {
            (FromServer::Row(values), Some(slot)) => {
                let name = Some(Octets(slot.clone().into_bytes()));
                let values = std::iter::once(name).chain(values.iter().skip(1).cloned()).collect();
                say(&FromServer::Row(values), out);
            }
            _ => say(said, out),
        }
    }

    /// Data belongs to the part with this index from now on.
    pub(super) fn begin(&mut self, index: usize) {
        self.part = self.exchange.parts.get(index).map(|part| self.source(part));
    }

    /// Appends a message with `size` bytes of WAL from `start` on; `end` is the end of WAL on the server.
    pub(super) fn wal(&mut self, start: Lsn, size: u32, end: Lsn, out: &mut BytesMut) {
        self.wal_end = end;
        let timeline = self.exchange.question.timeline().unwrap_or(TimelineId::FIRST);
        wal(self.facts, timeline, start, end, size, out);
    }

    /// A keepalive, for a client that asks for one.
    pub(super) fn keepalive(&self, out: &mut BytesMut) {
        say(&FromServer::Keepalive(self.wal_end, false), out);
    }

    fn source(&self, part: &'a Content) -> Source<'a> {
        match part.kind {
            Part::Archive(_) => Source::Archive(Box::new(Archive::new(part, self.algorithm))),
            Part::Manifest => Source::Manifest { text: manifest::write(&part.pieces, &self.checksums), at: 0 },
        }
    }

    /// Appends a message with `size` bytes of the present part.
    pub(super) fn data(&mut self, size: u32, out: &mut BytesMut) {
        let stream = matches!(self.exchange.question, Question::Command { command: Some(Command::BaseBackup(_)), .. })
            && self.exchange.version.has_archive_stream();
        write_frame(out, b'd', |out| {
            if stream {
                out.put_u8(b'd');
            }
            let begin = out.len();
            out.put_bytes(LEFT_OUT, usize::try_from(size).unwrap_or_default());
            let data = out.get_mut(begin..).unwrap_or_default();
            match &mut self.part {
                Some(Source::Archive(archive)) => archive.fill(self.facts, &mut self.checksums, data),
                Some(Source::Manifest { text, at }) => {
                    let rest = text.get(*at..).unwrap_or_default();
                    let length = rest.len().min(data.len());
                    data[..length].copy_from_slice(&rest[..length]);
                    *at += length;
                }
                None => {}
            }
        });
    }
}

/// An archive, as it is sent.
struct Archive<'a> {
    content: &'a Content,
    below: Vec<u8>,
    /// The member that comes now, and how much of its header, its content and its padding has come.
    index: usize,
    at: u64,
    algorithm: ChecksumAlgorithm,
    sum: ChecksumHasher,
}

impl<'a> Archive<'a> {
    fn new(content: &'a Content, algorithm: ChecksumAlgorithm) -> Self {
        let sum = ChecksumHasher::new(algorithm);
        Self { content, below: content.below(), index: 0, at: 0, algorithm, sum }
    }

    fn fill(&mut self, facts: &Facts, checksums: &mut Checksums, mut data: &mut [u8]) {
        while !data.is_empty() {
            let content: &Content = self.content;
            let Some((header, member)) = content.members.get(self.index) else {
                // Two blocks of zeros end an archive. What was not understood has no meaning here either.
                data.fill(if content.opaque.is_some() { LEFT_OUT } else { 0 });
                return;
            };
            let length = self.member(facts, checksums, header, member, data);
            data = std::mem::take(&mut data).get_mut(length..).unwrap_or_default();
            if self.at >= BLOCK as u64 + padded_size(header.size) {
                self.index += 1;
                self.at = 0;
            }
        }
    }

    /// Writes what comes next of a member, and returns how much that is.
    fn member(
        &mut self,
        facts: &Facts,
        checksums: &mut Checksums,
        header: &MemberHeader,
        member: &Member,
        data: &mut [u8],
    ) -> usize {
        let block = BLOCK as u64;
        let room = |end: u64, at: u64| usize::try_from(end - at).unwrap_or(usize::MAX).min(data.len());
        let content_end = block + header.size;
        let length;
        if self.at < block {
            length = room(block, self.at);
            // The tape refuses headers that cannot be written.
            let encoded = header.encode().unwrap_or([0; BLOCK]);
            let from = usize::try_from(self.at).unwrap_or_default();
            data[..length].copy_from_slice(&encoded[from..from + length]);
        } else if self.at < content_end {
            length = room(content_end, self.at);
            let path = [self.below.as_slice(), header.path()].concat();
            let part = &mut data[..length];
            facts.read(&path, header, member, self.at - block, part);
            self.sum.update(part);
        } else {
            length = room(block + padded_size(header.size), self.at);
            data[..length].fill(0);
        }
        let before = self.at;
        self.at += length as u64;
        if self.at >= content_end && (before < content_end || before == 0) && header.kind == MemberKind::File {
            let path = [self.below.as_slice(), header.path()].concat();
            let sum = std::mem::replace(&mut self.sum, ChecksumHasher::new(self.algorithm));
            checksums.insert(path, sum.finish());
        }
        length
    }
}

/// A message with WAL.
fn wal(facts: &Facts, timeline: TimelineId, start: Lsn, end: Lsn, size: u32, out: &mut BytesMut) {
    let mut data = vec![0; usize::try_from(size).unwrap_or_default()];
    facts.wal.read(timeline, start, &mut data);
    let message = WalMessage::XLogData { start, wal_end: end, sent_at: PgTimestamp::default(), data: data.into() };
    write_frame(out, b'd', |out| message.encode(out));
}

/// Appends a message.
pub(super) fn say(said: &FromServer, out: &mut BytesMut) {
    let payload = |out: &mut BytesMut, encode: &dyn Fn(&mut BytesMut)| write_frame(out, b'd', encode);
    let message = match said {
        // Whoever connects is believed: the proofs of the recording are not there.
        FromServer::Authentication(_) => BackendMessage::Authentication(backend::Authentication::Ok),
        FromServer::Negotiate(newest, unrecognized) => {
            BackendMessage::NegotiateProtocolVersion { newest: *newest, unrecognized: unrecognized.clone() }
        }
        FromServer::Parameter(name, value) => {
            BackendMessage::ParameterStatus { name: name.clone(), value: value.clone() }
        }
        FromServer::Key(pid, bytes) => {
            BackendMessage::BackendKeyData { pid: *pid, key: Bytes::from(vec![LEFT_OUT; usize::from(*bytes)]) }
        }
        FromServer::Ready(status) => BackendMessage::ReadyForQuery(match status {
            'T' => TransactionStatus::InTransaction,
            'E' => TransactionStatus::Failed,
            _ => TransactionStatus::Idle,
        }),
        FromServer::Columns(columns) => {
            let columns =
                columns.iter().map(|Column(name, type_oid, type_len, type_modifier, format)| backend::Column {
                    name: name.clone(),
                    type_oid: *type_oid,
                    type_len: *type_len,
                    type_modifier: *type_modifier,
                    format: *format,
                });
            BackendMessage::RowDescription(columns.collect())
        }
        FromServer::Row(values) => {
            let value = |value: &Option<Octets>| value.as_ref().map(|value| Bytes::copy_from_slice(&value.0));
            BackendMessage::DataRow(values.iter().map(value).collect())
        }
        FromServer::RowOf(sizes) => {
            let value = |size: &Option<u32>| {
                size.map(|size| Bytes::from(vec![LEFT_OUT; usize::try_from(size).unwrap_or_default()]))
            };
            BackendMessage::DataRow(sizes.iter().map(value).collect())
        }
        FromServer::Complete(tag) => BackendMessage::CommandComplete(tag.clone()),
        FromServer::Empty => BackendMessage::EmptyQueryResponse,
        FromServer::Error(fields) => return diagnostic(b'E', fields, out),
        FromServer::Notice(fields) => return diagnostic(b'N', fields, out),
        FromServer::CopyIn => BackendMessage::CopyInResponse,
        FromServer::CopyOut => BackendMessage::CopyOutResponse,
        FromServer::CopyBoth => BackendMessage::CopyBothResponse,
        FromServer::CopyDone => BackendMessage::CopyDone,
        FromServer::Archive(name, location) => {
            let (name, location) = (Bytes::copy_from_slice(&name.0), Bytes::copy_from_slice(&location.0));
            return payload(out, &|out| {
                ArchiveMessage::NewArchive { name: name.clone(), location: location.clone() }.encode(out);
            });
        }
        FromServer::Manifest => return payload(out, &|out| ArchiveMessage::Manifest.encode(out)),
        FromServer::Progress(done) => return payload(out, &|out| ArchiveMessage::Progress(*done).encode(out)),
        FromServer::Keepalive(wal_end, reply_requested) => {
            let (wal_end, reply_requested) = (*wal_end, *reply_requested);
            let keepalive = WalMessage::Keepalive { wal_end, sent_at: PgTimestamp::default(), reply_requested };
            return payload(out, &|out| keepalive.encode(out));
        }
        FromServer::Other(tag, size) => {
            let tag = u8::try_from(*tag).unwrap_or(b'?');
            return write_frame(out, tag, |out| out.put_bytes(0, usize::try_from(*size).unwrap_or_default()));
        }
        // Steps of their own.
        FromServer::Data(_) | FromServer::Wal(..) => return,
    };
    message.encode(out);
}

fn diagnostic(tag: u8, fields: &[(char, String)], out: &mut BytesMut) {
    write_frame(out, tag, |out| {
        for (kind, value) in fields {
            out.put_u8(u8::try_from(*kind).unwrap_or(b'?'));
            out.put_slice(value.as_bytes());
            out.put_u8(0);
        }
        out.put_u8(0);
    });
}

/// An ERROR or FATAL of the player's own.
pub(super) fn refuse(severity: &str, code: &str, message: &str, hint: Option<&str>, out: &mut BytesMut) {
    let mut fields =
        vec![('S', severity.to_owned()), ('V', severity.to_owned()), ('C', code.to_owned()), ('M', message.to_owned())];
    fields.extend(hint.map(|hint| ('H', hint.to_owned())));
    diagnostic(b'E', &fields, out);
}
