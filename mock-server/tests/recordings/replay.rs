//! Plays the client's half of a recording and compares the server's.
//!
//! What depends on when something arrived is folded: `w` and `k` messages between two other events are one piece of WAL, of
//! which beginning, contiguity, the form of the messages and the end are compared; a run of CopyData with bytes of an archive is
//! one run wherever progress reports (`p`, once a second) stand in it, of which the last is compared and every one must be true;
//! a connection that ends inside a message has ended.

mod expect;
mod run;

use std::time::Duration;

use backstop_mock::Server;
use backstop_mock::fault::ShutdownMode;
use backstop_protocol::version::ServerVersion;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

use crate::archive::Archive;
use crate::compare::Correspondence;
use crate::message::Decoder;
use crate::peer::{Heard, Peer};
use crate::recording::{Back, Event, Front, Session};
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
}
