//! The lines of a cassette.
//!
//! A cassette is JSON, a line at a time, compressed with Zstandard. The first line names the format, the last one says how many lines
//! stand before it and holds their SHA-256. Between them each line is `[connection, event]`: what the client (`<`) or the server (`>`)
//! said, or what the data that follows is made of. Connections are numbered from 1 in the order in which they were opened, and their
//! lines stand in the order of the wire.

use std::fmt;

use backstop_protocol::lsn::Lsn;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The format that is written, and the only one that is read.
pub const FORMAT: u32 = 1;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Head {
    /// [`FORMAT`].
    pub cassette: u32,
    /// What wrote it, for people.
    pub recorder: String,
}

/// The last line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Foot {
    /// How many lines stand before it.
    pub lines: u64,
    /// Of these lines, with their ends, in hexadecimal digits.
    pub sha256: String,
}

/// What happened on a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// The client said something.
    #[serde(rename = "<")]
    Client(FromClient),
    /// The server said something.
    #[serde(rename = ">")]
    Server(FromServer),
    /// Data belongs to this from now on.
    Part(Part),
    /// A member of the archive that is being copied, when its last byte has come.
    Member(Member),
    /// The rest of this archive or manifest was not understood, or is too large to be kept: why. It is replayed as bytes without
    /// meaning.
    Opaque(String),
    /// A piece of the manifest.
    Text(Octets),
    /// A line of the manifest whose checksum is that of the file as it was sent: what stands before and behind the checksum.
    Summed(Octets, Octets),
    /// The line of the manifest with the manifest's own checksum, if it is right: what stands before and behind it.
    Sealed(Octets, Octets),
    /// What follows on this connection was not understood: why.
    Lost(String),
    /// The connection is over.
    End,
}

/// What a client said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromClient {
    /// StartupMessage.
    Startup {
        /// The protocol's major and minor version.
        protocol: (u16, u16),
        /// Without the values of what is not known to be harmless.
        parameters: Vec<(String, String)>,
    },
    /// Query with a replication command.
    Query(String),
    /// Query with SQL, which may hold anything.
    Sql {
        /// Its first word.
        begins: String,
        /// The SHA-256 of its text, in hexadecimal digits.
        sha256: String,
    },
    /// Bytes of CopyData, an uploaded manifest for instance.
    Data(u64),
    /// CopyDone.
    CopyDone,
    /// CopyFail, without its words.
    CopyFail,
    /// Terminate.
    Terminate,
    /// A message of the extended query protocol, by its type byte.
    Extended(char),
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromServer {
    /// Authentication: what kind, without salts, challenges and proofs.
    Authentication(String),
    /// NegotiateProtocolVersion: the newest version as a whole protocol number, and the parameters that are not known.
    Negotiate(u32, Vec<String>),
    /// ParameterStatus.
    Parameter(String, String),
    /// BackendKeyData: the process id, and how many bytes the key has.
    Key(i32, u16),
    /// ReadyForQuery, with the status of the transaction.
    Ready(char),
    /// RowDescription.
    Columns(Vec<Column>),
    /// DataRow of a replication command.
    Row(Vec<Option<Octets>>),
    /// DataRow of anything else: how many bytes each value has.
    RowOf(Vec<Option<u32>>),
    /// CommandComplete.
    Complete(String),
    /// EmptyQueryResponse.
    Empty,
    /// ErrorResponse: its fields, each with its type byte.
    Error(Vec<(char, String)>),
    /// NoticeResponse.
    Notice(Vec<(char, String)>),
    /// CopyInResponse.
    CopyIn,
    /// CopyOutResponse.
    CopyOut,
    /// CopyBothResponse.
    CopyBoth,
    /// CopyDone.
    CopyDone,
    /// CopyData that announces an archive: its name and the location of its tablespace.
    Archive(Octets, Octets),
    /// CopyData that announces the manifest.
    Manifest,
    /// CopyData that tells how much was sent.
    Progress(i64),
    /// CopyData messages with data of the part: how much of it each one carries, as `512 8192 512 32768*31`.
    Data(String),
    /// CopyData messages with WAL from a position on: how much each one carries, and the end of WAL on the server.
    Wal(Lsn, String, Lsn),
    /// CopyData that tells the end of WAL on the server, and whether an answer is wanted.
    Keepalive(Lsn, bool),
    /// Another message: its type byte and the size of its body.
    Other(char, u32),
}

/// A column of a RowDescription: name, type's OID, its length, modifier and format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column(pub String, pub u32, pub i16, pub i32, pub i16);

/// What data belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Part {
    /// An archive: the OID of its tablespace, or nothing for the base directory's.
    Archive(Option<u32>),
    /// The manifest.
    Manifest,
}

/// A member of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Member {
    /// As it stands in its header.
    pub name: Octets,
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// In seconds since 1970.
    pub mtime: u64,
    /// Of a file: how many bytes it has.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: u64,
    /// Of a file: CRC-32C of what came of it, by which equal contents are told from others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc32c: Option<u32>,
    /// The contents of a file that holds nothing but facts of the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<Octets>,
    /// Of an incremental file: its truncation block length, and the numbers of its blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<(u32, Vec<u32>)>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(size: &u64) -> bool {
    *size == 0
}

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link and where it points.
    Link(Octets),
}

/// Bytes that are text as a rule: a string, or, where they are no UTF-8, `\x` and hexadecimal digits, as PostgreSQL prints `bytea`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Octets(pub Vec<u8>);

/// What stands before hexadecimal digits.
const HEX: &str = "\\x";

impl fmt::Debug for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl From<&[u8]> for Octets {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl Serialize for Octets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match str::from_utf8(&self.0) {
            Ok(text) if !text.starts_with(HEX) => serializer.serialize_str(text),
            _ => serializer.serialize_str(&format!("{HEX}{}", hex(&self.0))),
        }
    }
}

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.strip_prefix(HEX) {
            None => Ok(Self(text.into_bytes())),
            Some(digits) => unhex(digits)
                .map(Self)
                .ok_or_else(|| serde::de::Error::custom("expected an even number of hexadecimal digits behind \\x")),
        }
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// What an even number of such digits stand for.
pub(super) fn unhex(digits: &str) -> Option<Vec<u8>> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|&[high, low]| Some(value(high)? << 4 | value(low)?)).collect::<Option<_>>();
    bytes.filter(|_| rest.is_empty())
}
