//! Plays the client's half of a recording and compares the server's.
//!
//! What depends on when something arrived is folded: `w` and `k` messages between two other events are one piece of WAL, of
//! which beginning, contiguity, the form of the messages and the end are compared; a run of CopyData with bytes of an archive is
//! one run wherever progress reports (`p`, once a second) stand in it, of which the last is compared and every one must be true;
//! a connection that ends inside a message has ended.

use std::time::Duration;

use backstop_mock::Server;
use backstop_mock::fault::ShutdownMode;
use backstop_protocol::version::ServerVersion;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

use crate::archive::Archive;
use crate::compare::Correspondence;
use crate::message::{Decoder, Message};
use crate::peer::{Heard, Peer};
use crate::recording::{self, Back, Event, Front, Session};
use crate::stage::{self, Deed, Stage, When};
use crate::upload;

/// How long a server may be silent where the recorded one said something. The clock is tokio's paused one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// After so long without WAL the recorder went on.
const QUIET: Duration = Duration::from_secs(1);

/// Replays a session, up to its first difference.
pub(crate) async fn replay(session: &Session, version: ServerVersion) -> Result<(), String> {
    let stage = stage::set(session, version)?;
    let mut replay = Replay::begin(session, version, &stage).await?;
    let mut events = session.events.iter().peekable();
    while let Some(event) = events.next() {
        if let Event::Front(Front { sql: Some(command), .. }) = event
            && stage::left_out(session, command).is_some()
        {
            let ready = |event: &&Event| matches!(event, Event::Back { back: Back::Message(message), .. } if message.tag == b'Z');
            events.by_ref().find(ready);
            continue;
        }
        let (number, outcome) = match event {
            Event::Note(note) => {
                (0, replay.due(|when| matches!(when, When::Note(begin) if note.starts_with(begin))).await)
            }
            Event::Front(front) => (front.number, replay.say(front).await),
            Event::Back { number, back } => {
                let limited = matches!(events.peek(), Some(Event::Note(_)));
                (*number, replay.expect(back, limited).await)
            }
        };
        outcome.map_err(|problem| format!("at message {number}: {problem}"))?;
    }
    if replay.said_terminate {
        match replay.peer.hear(PATIENCE).await {
            Heard::End => {}
            other => return Err(format!("after Terminate: {}", replay.describe(other))),
        }
    }
    Ok(())
}

struct Replay<'a> {
    server: &'a Server,
    stage: &'a Stage,
    version: ServerVersion,
    session: &'a Session,
    peer: Peer,
    others: Vec<Peer>,
    decoder: Decoder,
    same: Correspondence,
    archive: Option<Archive>,
    /// Bytes of the archives of this backup.
    archived: u64,
    /// Queries that were sent.
    queries: Vec<String>,
    /// CopyData messages that came.
    copied: u64,
    /// NoticeResponse messages that came.
    notices: usize,
    in_copy_both: bool,
    early_keepalives: usize,
    early_asks: bool,
    said_terminate: bool,
    salt: [u8; 4],
    scram: Option<ScramSha256>,
    challenge: Vec<u8>,
    key: Vec<u8>,
    user: String,
    done: Vec<bool>,
    /// The manifest of a full backup, and what is left of the one that is being uploaded.
    manifest: Vec<u8>,
    uploading: Option<Vec<u8>>,
}

impl<'a> Replay<'a> {
    async fn begin(session: &'a Session, version: ServerVersion, stage: &'a Stage) -> Result<Self, String> {
        let mut replay = Self {
            server: &stage.server,
            stage,
            version,
            session,
            // Replaced below, after what is done before the connection is opened.
            peer: Peer::connect(&stage.server),
            others: Vec::new(),
            decoder: Decoder::default(),
            same: Correspondence::default(),
            archive: None,
            archived: 0,
            queries: Vec::new(),
            copied: 0,
            notices: 0,
            in_copy_both: false,
            early_keepalives: 0,
            early_asks: false,
            said_terminate: false,
            salt: [0; 4],
            scram: None,
            challenge: Vec::new(),
            key: Vec::new(),
            user: String::new(),
            done: vec![false; stage.deeds.len()],
            manifest: Vec::new(),
            uploading: None,
        };
        replay.due(|when| *when == When::First).await?;
        // The sessions of the group `shutdown` began before it was recorded what they said.
        let recorded = session.events.iter().any(|event| matches!(event, Event::Front(front) if front.name.len() > 1));
        if session.started || !recorded {
            replay.peer = Peer::start(&stage.server, stage.user, session.database).await?;
            replay.key.clone_from(&replay.peer.key);
            replay.due(|when| *when == When::Started).await?;
        } else {
            replay.peer = Peer::connect(&stage.server);
        }
        Ok(replay)
    }

    /// Does what is due.
    async fn due(&mut self, is_due: impl Fn(&When) -> bool) -> Result<(), String> {
        for (index, (when, deed)) in self.stage.deeds.iter().enumerate() {
            if !self.done[index] && is_due(when) {
                self.done[index] = true;
                self.perform(deed).await?;
            }
        }
        Ok(())
    }

    async fn perform(&mut self, deed: &Deed) -> Result<(), String> {
        let cluster = self.server.cluster();
        match deed {
            Deed::Act(action) => self.server.act(action),
            Deed::Grow(bytes) => cluster.grow_wal(*bytes),
            Deed::Set(name, value) => cluster.set(name, value).map_err(|problem| problem.to_string())?,
            Deed::Restart => {
                self.server.shut_down(ShutdownMode::Immediate);
                self.server.begin_start(PATIENCE);
            }
            Deed::Wait(span) => tokio::time::sleep(*span).await,
            Deed::FourSegments => {
                for _ in 0..4 {
                    cluster.grow_wal(10_000);
                    cluster.switch_wal();
                    cluster.checkpoint();
                }
            }
            Deed::FullBackup => self.manifest = upload::full_backup(self.server).await?,
            Deed::AbandonedBackup => drop(cluster.start_backup("abandoned", true)),
            Deed::RemoveSummaries => {
                cluster.checkpoint();
                cluster.remove_wal_summaries(cluster.flush_position());
            }
            Deed::Crowd(count) => {
                for _ in 0..*count {
                    self.others.push(Peer::start(self.server, "repl", false).await?);
                }
            }
            Deed::Stream(slot) => {
                let mut peer = Peer::start(self.server, "repl", false).await?;
                let slot = slot.map(|slot| format!("SLOT {slot} ")).unwrap_or_default();
                let command = format!("START_REPLICATION {slot}PHYSICAL {}\0", cluster.flush_position());
                peer.send_message(b'Q', command.as_bytes()).await;
                peer.hear(PATIENCE).await;
                self.others.push(peer);
            }
            Deed::Leave => {
                let flushed = cluster.flush_position().0.to_be_bytes();
                for mut peer in std::mem::take(&mut self.others) {
                    // Written and flushed; applied, the time and no reply wanted.
                    peer.send_message(b'd', &[b"r", flushed.as_slice(), &flushed, &[0; 17]].concat()).await;
                }
                tokio::time::sleep(QUIET).await;
            }
            Deed::Cancel => {
                let mut peer = Peer::connect(self.server);
                let length = u32::try_from(self.key.len() + 8).unwrap_or(u32::MAX);
                peer.send(&[&length.to_be_bytes(), &80_877_102_u32.to_be_bytes(), self.key.as_slice()].concat()).await;
                peer.hear(PATIENCE).await;
            }
        }
        Ok(())
    }

    /// Sends what the recorded client sent, with our positions, salts and nonces.
    async fn say(&mut self, front: &Front) -> Result<(), String> {
        if let Some(sql) = &front.sql {
            let times = 1 + self.queries.iter().filter(|query| *query == sql).count();
            let before = |when: &When| matches!(when, When::Before(query, nth) if query == sql && *nth == times);
            self.due(before).await?;
            self.queries.push(sql.clone());
            let mut text = self.same.translate_text(sql).into_bytes();
            text.push(0);
            self.peer.send_message(b'Q', &text).await;
            return Ok(());
        }
        match front.name.as_str() {
            "p" => {
                let body = self.password(front)?;
                self.peer.send_message(b'p', &body).await;
                return Ok(());
            }
            "d" => return self.copy_data(front).await,
            "c" => self.uploading = None,
            "X" => self.said_terminate = true,
            "StartupMessage" => {
                let mut parts = front.bytes.get(8..).unwrap_or_default().split(|byte| *byte == 0);
                while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                    if name == b"user" {
                        self.user = String::from_utf8_lossy(value).into_owned();
                    }
                }
            }
            _ => {}
        }
        if front.cut.is_some() {
            return Err(format!("only the beginning of this {} was recorded", front.name));
        }
        self.peer.send(&front.bytes).await;
        Ok(())
    }

    async fn copy_data(&mut self, front: &Front) -> Result<(), String> {
        let mut body = front.bytes.get(5..).unwrap_or_default().to_vec();
        if body.first() == Some(&b'r') && body.len() == 34 {
            for field in body[1..25].chunks_exact_mut(8) {
                let position = field.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
                let ours = if position == 0 { 0 } else { self.same.translate(position) };
                field.copy_from_slice(&ours.to_be_bytes());
            }
        }
        if body.starts_with(b"{ ") {
            body = upload::adopt(&body, self.server.cluster().system_identifier());
        }
        if let Some(length) = front.cut {
            // Our manifest is shorter than the recorded one, which had as many messages as it needed.
            let mut left = match self.uploading.take() {
                Some(left) => left,
                None => upload::spoil(&self.manifest, front.what.as_deref().unwrap_or_default())?,
            };
            let rest = left.split_off(left.len().min(length.saturating_sub(4)));
            self.uploading = Some(rest);
            body = left;
        }
        self.peer.send_message(b'd', &body).await;
        Ok(())
    }

    fn password(&mut self, front: &Front) -> Result<Vec<u8>, String> {
        let password = self.stage.password.as_bytes();
        let what = front.what.as_deref().unwrap_or_default();
        if what.starts_with("md5") {
            return Ok([md5_hash(self.user.as_bytes(), password, self.salt).as_bytes(), b"\0"].concat());
        }
        if what.starts_with("n,,") || what == "SASLInitialResponse" {
            let scram = ScramSha256::new(password, ChannelBinding::unsupported());
            let message = scram.message().to_vec();
            self.scram = Some(scram);
            let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
            return Ok([b"SCRAM-SHA-256\0".as_slice(), &length.to_be_bytes(), &message].concat());
        }
        if let Some(scram) = &mut self.scram {
            scram.update(&self.challenge).map_err(|error| error.to_string())?;
            return Ok(scram.message().to_vec());
        }
        Ok(front.bytes.get(5..).unwrap_or_default().to_vec())
    }

    /// Compares what comes with what was recorded.
    async fn expect(&mut self, back: &Back, limited: bool) -> Result<(), String> {
        match back {
            Back::Message(expected) => self.expect_message(expected).await,
            Back::Parameters(names) => {
                for name in names {
                    match self.peer.hear(PATIENCE).await {
                        Heard::Message(b'S', body) if body.split(|byte| *byte == 0).next() == Some(name.as_bytes()) => {
                        }
                        other => return Err(format!("expected ParameterStatus {name}, got {}", self.describe(other))),
                    }
                }
                Ok(())
            }
            Back::Wal { start, end, keepalives, asks, .. } => self.expect_wal(*start, *end, *keepalives, *asks).await,
            Back::Run(recorded) => {
                let limit = if limited { recorded.messages } else { u64::MAX };
                let run = self.run(&recorded.content, limit).await?;
                if run.messages == 0 {
                    let next = self.peer.hear(PATIENCE).await;
                    let content = &recorded.content;
                    return Err(format!("expected CopyData with {content}, got {}", self.describe(next)));
                }
                run.compare(recorded, limited, &mut self.same)
            }
            Back::Archive(summary) => {
                let archive = self.archive.take().unwrap_or_default();
                archive.compare(summary, &mut self.same)
            }
            Back::Byte(expected) => match self.peer.byte(PATIENCE).await {
                Some(byte) if byte == *expected => Ok(()),
                other => Err(format!("expected the byte {}, got {other:?}", char::from(*expected))),
            },
            Back::Eof | Back::Unframed => {
                loop {
                    match self.peer.hear(PATIENCE).await {
                        Heard::End => break,
                        // What was on its way; the recorder lost the run that a broken message ended.
                        Heard::Message(b'd', _) if matches!(back, Back::Unframed) || self.in_copy_both => {
                            self.copied_one().await?;
                        }
                        other => {
                            return Err(format!("expected the end of the connection, got {}", self.describe(other)));
                        }
                    }
                }
                Ok(())
            }
        }
    }

    async fn expect_message(&mut self, expected: &Message) -> Result<(), String> {
        loop {
            let (tag, body) = match self.peer.hear(PATIENCE).await {
                Heard::Message(tag, body) => (tag, body),
                other => return Err(format!("expected {expected}\n  got      {}", self.describe(other))),
            };
            let kind = body.first().copied();
            let interleaved = if self.in_copy_both { matches!(kind, Some(b'w' | b'k')) } else { kind == Some(b'p') };
            if tag == b'd' && interleaved && expected.tag != b'd' || tag == b'd' && kind == Some(b'p') {
                continue;
            }
            self.note(tag, &body);
            let got = self.decoder.decode(tag, &body);
            self.same.messages(expected, &got)?;
            self.notices += usize::from(tag == b'N');
            let notices = self.notices;
            let due = |when: &When| *when == When::After(tag) || tag == b'N' && *when == When::Noticed(notices);
            return self.due(due).await;
        }
    }

    /// Remembers what later messages of the client depend on.
    fn note(&mut self, tag: u8, body: &[u8]) {
        match (tag, body) {
            (b'R', [0, 0, 0, 5, salt @ ..]) => self.salt = salt.try_into().unwrap_or_default(),
            (b'R', [0, 0, 0, 11, data @ ..]) => self.challenge = data.to_vec(),
            (b'K', body) => self.key = body.to_vec(),
            (b'W', _) => self.in_copy_both = true,
            (b'c', _) => self.in_copy_both = false,
            (b'Z', _) => {
                self.in_copy_both = false;
                self.archived = 0;
            }
            (b'd', _) => self.copied += 1,
            _ => {}
        }
    }

    async fn expect_wal(
        &mut self,
        start: Option<u64>,
        end: u64,
        recorded_keepalives: usize,
        recorded_asks: bool,
    ) -> Result<(), String> {
        let (mut first, mut next, mut keepalives) = (None, 0, std::mem::take(&mut self.early_keepalives));
        let mut asks = keepalives > 0 && self.early_asks;
        loop {
            match self.peer.hear(QUIET).await {
                Heard::Message(b'd', body) if body.first() == Some(&b'w') && body.len() >= 25 => {
                    let position = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
                    let (begin, limit) = (position(&body[1..9]), position(&body[9..17]));
                    if first.is_some() && begin != next {
                        return Err(format!("WAL goes on at {begin:X} behind {next:X}"));
                    }
                    first = first.or(Some(begin));
                    next = begin + (body.len() as u64 - 25);
                    // `XLogSendPhysical`: 16 pages, or less up to where WAL can be sent.
                    if next - begin > 128 << 10 || (next != limit && !next.is_multiple_of(8192)) || next > limit {
                        return Err(format!("a message of WAL from {begin:X} to {next:X} of {limit:X}"));
                    }
                }
                Heard::Message(b'd', body) if body.first() == Some(&b'k') => {
                    keepalives += 1;
                    asks |= body.last() == Some(&1);
                }
                Heard::Message(tag, body) => {
                    self.peer.unhear(tag, body);
                    break;
                }
                Heard::Silence | Heard::End => break,
            }
        }
        // At its end a server asks again and again, until the client has answered.
        if asks != recorded_asks && (recorded_asks || self.session.group != "shutdown") {
            return Err(format!("a keepalive wants an answer: {asks} instead of {recorded_asks}"));
        }
        // A keepalive that was recorded behind what the client said about the WAL before it.
        self.early_asks = asks;
        self.early_keepalives = keepalives.saturating_sub(recorded_keepalives);
        match (start, first) {
            (Some(start), Some(first)) => {
                self.same.lsn(start, first)?;
                self.same.lsn(end, next)
            }
            (Some(_), None) => Err("no WAL came".to_owned()),
            (None, Some(_)) => Err("WAL came, only a keepalive was recorded".to_owned()),
            (None, None) if keepalives == 0 => Err("no keepalive came".to_owned()),
            (None, None) => Ok(()),
        }
    }

    /// Counts a CopyData message.
    async fn copied_one(&mut self) -> Result<(), String> {
        self.copied += 1;
        let copied = self.copied;
        self.due(|when| matches!(when, When::Copied(count) if copied >= *count)).await
    }

    /// Reads CopyData of one archive, or of a manifest.
    async fn run(&mut self, content: &str, limit: u64) -> Result<Run, String> {
        let mut run = Run::default();
        // The recorder did not look into what it did not expect.
        let whole = self.version < ServerVersion::V15 || self.session.name == "bad-options";
        while run.messages < limit {
            match self.peer.hear(PATIENCE).await {
                Heard::Message(b'd', body) => {
                    self.copied_one().await?;
                    let payload = match body.first() {
                        _ if whole => &body[..],
                        Some(b'd') => &body[1..],
                        Some(b'p') => {
                            run.progress = true;
                            let told = body[1..].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
                            if content == "tar" && told != self.archived {
                                return Err(format!("progress of {told} after {} bytes", self.archived));
                            }
                            continue;
                        }
                        _ => {
                            self.peer.unhear(b'd', body);
                            break;
                        }
                    };
                    run.add(payload);
                    if content == "tar" {
                        self.archived += payload.len() as u64;
                        self.archive.get_or_insert_default().feed(payload);
                    }
                }
                Heard::Message(tag, body) => {
                    self.peer.unhear(tag, body);
                    break;
                }
                Heard::End | Heard::Silence => break,
            }
        }
        Ok(run)
    }

    fn describe(&mut self, heard: Heard) -> String {
        match heard {
            Heard::Message(tag, body) => self.decoder.decode(tag, &body).to_string(),
            Heard::End if self.peer.rest().is_empty() => "the end of the connection".to_owned(),
            Heard::End => format!("the end of the connection after {:?}", String::from_utf8_lossy(self.peer.rest())),
            Heard::Silence => "silence".to_owned(),
        }
    }
}

/// Consecutive CopyData.
#[derive(Debug, Default)]
struct Run {
    messages: u64,
    largest: u64,
    last: u64,
    content: Vec<u8>,
    /// Whether a `p` message came last.
    progress: bool,
}

impl Run {
    fn add(&mut self, payload: &[u8]) {
        /// No manifest of these clusters is larger.
        const KEPT: usize = 4 << 20;
        self.messages += 1;
        self.progress = false;
        self.last = payload.len() as u64;
        self.largest = self.largest.max(self.last);
        if self.content.len() < KEPT {
            self.content.extend_from_slice(payload);
        }
    }

    fn compare(&self, recorded: &recording::Run, limited: bool, same: &mut Correspondence) -> Result<(), String> {
        let recording::Run { content, messages, largest, last, head, tail, progress } = recorded;
        let (messages, largest, last) = (*messages, *largest, *last);
        if *progress && !self.progress {
            return Err(format!("{content}: no message tells the progress at its end"));
        }
        // How large messages get shows only where there is enough to say; a file is sent in pieces of 32 kB.
        let most = match content.as_str() {
            "manifest" => largest,
            "tar" => 32_768,
            // One block of LZ4, however well its content compresses: `LZ4F_compressBound` of 32 kB.
            _ if head.starts_with("04224d18") => 270_336,
            _ if messages >= 10 => largest,
            _ => u64::MAX,
        };
        if self.largest > most || (content == "tar" && self.messages > 200 && self.largest != most) {
            return Err(format!("{content}: messages of {} bytes instead of {most}", self.largest));
        }
        // The two zero blocks at the end of an archive.
        if content == "tar" && !limited && last == 1024 && self.last != last {
            return Err(format!("the archive ends with {} bytes instead of {last}", self.last));
        }
        if content == "other" {
            compressed(head, &self.content)?;
        }
        if content == "manifest" {
            return manifest(head, tail, &String::from_utf8_lossy(&self.content), same);
        }
        Ok(())
    }
}

/// Compares the header of a compressed stream: gzip's member header, an LZ4 frame descriptor, and of a Zstandard frame header
/// as much as says which fields there are and how large the window is.
fn compressed(head: &str, got: &[u8]) -> Result<(), String> {
    let header = match head {
        gzip if gzip.starts_with("1f8b") => 10,
        lz4 if lz4.starts_with("04224d18") => 7,
        zstd if zstd.starts_with("28b52ffd") => 6,
        // In the middle of a stream.
        _ => return Ok(()),
    };
    let got: String = got.iter().take(header).map(|byte| format!("{byte:02x}")).collect();
    if head.starts_with(&got) && got.len() == 2 * header {
        Ok(())
    } else {
        Err(format!("a compressed archive begins with {got} instead of {}", &head[..2 * header]))
    }
}

/// Compares the first and the last lines of a manifest: everything but the list of files, of which the first shows the form.
fn manifest(head: &str, tail: &str, got: &str, same: &mut Correspondence) -> Result<(), String> {
    let form = |entry: &str| {
        let keys = entry.split('"').skip(1).step_by(2).map(str::to_owned);
        let known = ["Path", "Encoded-Path", "Size", "Last-Modified", "Checksum-Algorithm", "Checksum"];
        keys.filter(|key| known.contains(&key.as_str())).collect::<Vec<_>>()
    };
    let before_files = |text: &str| text.split("{ \"").take(2).collect::<Vec<_>>().join("{ \"");
    let begin = before_files(head);
    let ours = before_files(&got[..got.len().min(head.len().max(900))]);
    same.text(&begin, &ours)
        .map_err(|problem| format!("manifest: {problem}\n  expected {begin:?}\n  got      {ours:?}"))?;
    let entry = |text: &str| text.split("{ \"").nth(2).map(|entry| form(&format!("\"{entry}"))).unwrap_or_default();
    // The recorder cut it off somewhere.
    if !entry(got).starts_with(&entry(head)) {
        return Err(format!("manifest: keys of an entry {:?} instead of {:?}", entry(got), entry(head)));
    }
    let end = |text: &str| text.rfind("],\n\"WAL-Ranges\"").map(|at| text[at..].to_owned()).unwrap_or_default();
    let masked = |text: String| match text.rsplit_once("\"Manifest-Checksum\": \"") {
        Some((ranges, checksum)) => format!("{ranges}\"Manifest-Checksum\": \"{}", "*".repeat(checksum.len())),
        None => text,
    };
    let (wanted, ours) = (masked(end(tail)), masked(end(got)));
    same.text(&wanted, &ours)
        .map_err(|problem| format!("manifest: {problem}\n  expected {wanted:?}\n  got      {ours:?}"))
}
