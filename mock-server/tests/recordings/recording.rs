//! The recordings: what real servers said, as lines of JSON, one file for each release.
//!
//! A file is a sequence of groups (`{"group": …}`), each a sequence of sessions (`{"session": …, "startup": …}`). A session is a
//! sequence of messages (`dir` F from the client, B from the server, `hex` the whole message unless `hex_cut` says that it is
//! only its beginning), of notes about what was done outside the connection, of runs of bulk CopyData, and of summaries of tar
//! archives. Servers ran with data checksums, one tablespace, and roles whose password is `secret`.

use std::path::Path;

use backstop_protocol::version::ServerVersion;
use serde_json::Value;

use crate::message::{Decoder, Message};

/// One connection.
pub(crate) struct Session {
    pub(crate) group: String,
    pub(crate) name: String,
    /// The start-up was not recorded.
    pub(crate) started: bool,
    /// It was a walsender that is connected to a database.
    pub(crate) database: bool,
    pub(crate) events: Vec<Event>,
}

pub(crate) enum Event {
    Front(Front),
    Back { number: u64, back: Back },
    Note(String),
}

/// A message of the client.
pub(crate) struct Front {
    pub(crate) number: u64,
    /// The type byte; `StartupMessage`, `SSLRequest` and so on for packets that have none.
    pub(crate) name: String,
    /// The text of a Query.
    pub(crate) sql: Option<String>,
    pub(crate) bytes: Vec<u8>,
    /// How long it was, if `bytes` is only its beginning.
    pub(crate) cut: Option<usize>,
    /// What the recorder said about it.
    pub(crate) what: Option<String>,
}

/// What the server said.
pub(crate) enum Back {
    Message(Message),
    /// ParameterStatus messages, of which only the names were kept.
    Parameters(Vec<String>),
    /// `w` and `k` messages between two other events: where the first WAL began and the last one ended, if there was any.
    Wal {
        start: Option<u64>,
        end: u64,
        keepalives: usize,
        /// Whether any keepalive wanted an answer.
        asks: bool,
        /// Bytes of messages of which only the length was kept.
        more: u64,
    },
    /// CopyData of an archive or a manifest.
    Run(Run),
    /// What an archive held.
    Archive(Value),
    /// The answer to SSLRequest or GSSENCRequest.
    Byte(u8),
    /// The connection ended inside a message.
    Unframed,
    Eof,
}

/// A run of CopyData.
pub(crate) struct Run {
    /// `tar`, `manifest`, or `other` if it was compressed.
    pub(crate) content: String,
    pub(crate) messages: u64,
    /// Bytes of the largest payload among the most common ones, and of the last.
    pub(crate) largest: u64,
    pub(crate) last: u64,
    pub(crate) head: String,
    pub(crate) tail: String,
    /// Whether a `p` message followed.
    pub(crate) progress: bool,
}

/// All sessions of a release.
pub(crate) fn load(version: ServerVersion) -> Vec<Session> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/recordings/data/v{version}.jsonl.zst"));
    let packed = std::fs::read(&file).expect("the recordings are part of the repository");
    let text = zstd::decode_all(packed.as_slice()).expect("recordings are compressed with zstd");
    let text = String::from_utf8(text).expect("JSON is UTF-8");
    let mut sessions: Vec<Session> = Vec::new();
    let mut group = String::new();
    let mut decoder = Decoder::default();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        if let Some(name) = line["group"].as_str() {
            name.clone_into(&mut group);
        } else if let Some(name) = line["session"].as_str() {
            let startup = line["startup"].as_str();
            decoder = Decoder::default();
            sessions.push(Session {
                group: group.clone(),
                name: name.to_owned(),
                started: startup.is_some(),
                database: startup.is_some_and(|startup| startup.starts_with("replication=database")),
                events: Vec::new(),
            });
        } else if let Some(session) = sessions.last_mut() {
            session.add(&line, &mut decoder);
        }
    }
    sessions
}

impl Session {
    /// The position that the session mentions first.
    pub(crate) fn first_lsn(&self) -> Option<u64> {
        let mentioned = |event: &Event| match event {
            Event::Front(front) => front.sql.as_deref().and_then(crate::compare::first_lsn),
            Event::Back { back: Back::Message(message), .. } if message.tag == b'D' => {
                message.fields.iter().find_map(|(_, value)| crate::compare::first_lsn(value.as_deref()?))
            }
            _ => None,
        };
        // A refusal says where the server really was.
        let refusal = |event: &Event| match event {
            Event::Back { back: Back::Message(message), .. } if message.tag == b'E' => {
                let (_, position) = message.field("M")?.split_once("ahead of the WAL flush position of this server")?;
                crate::compare::first_lsn(position)
            }
            _ => None,
        };
        self.events.iter().find_map(refusal).or_else(|| self.events.iter().find_map(mentioned))
    }

    /// The texts of its queries.
    pub(crate) fn commands(&self) -> impl Iterator<Item = &str> {
        self.events.iter().filter_map(|event| match event {
            Event::Front(front) => front.sql.as_deref(),
            _ => None,
        })
    }

    /// The fields of a message of the server.
    pub(crate) fn fields(&mut self, event: usize) -> Option<&mut Vec<(String, Option<String>)>> {
        match self.events.get_mut(event) {
            Some(Event::Back { back: Back::Message(message), .. }) => Some(&mut message.fields),
            _ => None,
        }
    }

    fn add(&mut self, line: &Value, decoder: &mut Decoder) {
        if let Some(note) = line["note"].as_str() {
            self.events.push(Event::Note(note.to_owned()));
            return;
        }
        let number = line["n"].as_u64().unwrap_or_default();
        if line["kind"] == "p" && line["dir"] == "B" {
            // How far an archive has got is told about once a second, and at its end.
            if let Some(Event::Back { back: Back::Run(run), .. }) = self.events.last_mut() {
                run.progress = true;
            }
            return;
        }
        if line["dir"] == "F" {
            let front = front(line, number);
            self.events.push(Event::Front(front));
        } else if let Some(back) = back(line, decoder) {
            self.add_back(number, back);
        }
    }

    /// Folds what the recorder split only because of the time at which it arrived.
    fn add_back(&mut self, number: u64, back: Back) {
        // The recorder wrote down how much WAL there was in all only with what came after it.
        if let Back::Wal { start: None, more: 1.., .. } = back {
            let before = self.events.iter_mut().rev().find_map(|event| match event {
                Event::Back { back: Back::Wal { end, .. }, .. } => Some(end),
                _ => None,
            });
            if let (Some(end), Back::Wal { more, .. }) = (before, &back) {
                *end += more;
                return;
            }
        }
        let before = match self.events.last_mut() {
            Some(Event::Back { back, .. }) => Some(back),
            _ => None,
        };
        match (before, &back) {
            (
                Some(Back::Wal { start, end, keepalives, asks, .. }),
                Back::Wal { start: next, end: later, keepalives: others, asks: asks_too, .. },
            ) => {
                *start = start.or(*next);
                *end = (*later).max(*end);
                *keepalives += *others;
                *asks |= *asks_too;
                return;
            }
            (Some(Back::Run(run)), Back::Run(more)) if run.content == more.content => {
                run.messages += more.messages;
                run.largest = run.largest.max(more.largest);
                run.last = more.last;
                run.tail.clone_from(&more.tail);
                run.progress = false;
                return;
            }
            _ => {}
        }
        self.events.push(Event::Back { number, back });
    }
}

/// A command whose label was too long to be recorded: `BASE_BACKUP (LABEL 'xxx… (label of 1025 x)`.
fn whole(sql: &str) -> String {
    let parts = || {
        let (begin, rest) = sql.split_once("… (label of ")?;
        let length: usize = rest.strip_suffix(" x)")?.parse().ok()?;
        let (begin, _) = begin.split_once('\'')?;
        Some(format!("{begin}'{}'{}", "x".repeat(length), if begin.contains('(') { ")" } else { "" }))
    };
    parts().unwrap_or_else(|| sql.to_owned())
}

fn front(line: &Value, number: u64) -> Front {
    let name = line["type"].as_str().filter(|tag| !tag.is_empty()).or(line["name"].as_str());
    let text = |key: &str| line[key].as_str().map(str::to_owned);
    Front {
        number,
        name: name.unwrap_or_default().to_owned(),
        sql: text("sql").map(|sql| whole(&sql)),
        bytes: unhex(line["hex"].as_str().unwrap_or_default()),
        cut: line["hex_cut"].as_u64().and(line["len"].as_u64()).and_then(|length| usize::try_from(length).ok()),
        what: text("what").or_else(|| text("data")),
    }
}

fn back(line: &Value, decoder: &mut Decoder) -> Option<Back> {
    if line.get("archive_summary").is_some() {
        return Some(Back::Archive(line["archive_summary"].clone()));
    }
    let number = |key: &str| line[key].as_u64().unwrap_or_default();
    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    if line["run"] == true {
        let content = text("content");
        if content.starts_with("w messages") {
            return Some(Back::Wal { start: None, end: 0, keepalives: 0, asks: false, more: number("payload_bytes") });
        }
        let sizes = line["payload_sizes_most_common"].as_array().cloned().unwrap_or_default();
        let largest = sizes.iter().filter_map(|size| size[0].as_u64()).max().unwrap_or_default();
        let (messages, last) = (number("messages"), number("last_payload_size"));
        // What is no text was recorded in hexadecimal.
        let head = if content == "other" { text("head_hex") } else { text("head") };
        return Some(Back::Run(Run { content, messages, largest, last, head, tail: text("tail"), progress: false }));
    }
    match (line["type"].as_str()?, line["name"].as_str().unwrap_or_default()) {
        ("", "SingleByteReply") => Some(Back::Byte(*unhex(line["hex"].as_str()?).first()?)),
        ("", "Unframed") => Some(Back::Unframed),
        ("", _) => Some(Back::Eof),
        ("S", _) if line.get("params").is_some() => {
            let names = line["params"].as_array()?.iter().filter_map(Value::as_str).map(str::to_owned);
            Some(Back::Parameters(names.collect()))
        }
        ("d", _) if line["kind"] == "w" || line["kind"] == "k" => {
            let lsn = |key: &str| crate::compare::first_lsn(line[key].as_str()?);
            let data = line["kind"] == "w";
            let length = number("payload_len");
            let start = if data { lsn("start") } else { None };
            let end = start.map_or(0, |start| start + length);
            let asks = line["reply_requested"] == 1;
            Some(Back::Wal { start, end, keepalives: usize::from(!data), asks, more: 0 })
        }
        _ => {
            let bytes = unhex(line["hex"].as_str()?);
            let (tag, body) = (*bytes.first()?, bytes.get(5..)?);
            Some(Back::Message(decoder.decode(tag, body)))
        }
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| Some(digit(pair.first()?)? << 4 | digit(pair.get(1)?)?);
    text.as_bytes().chunks(2).map(|chunk| pair(chunk).expect("hexadecimal digits")).collect()
}
