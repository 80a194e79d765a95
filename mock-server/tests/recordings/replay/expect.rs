//! What is compared, event by event.

use backstop_protocol::version::ServerVersion;

use super::run::Run;
use super::{PATIENCE, QUIET, Replay};
use crate::message::Message;
use crate::peer::Heard;
use crate::recording::Back;
use crate::stage::When;

impl Replay<'_> {
    /// Compares what comes with what was recorded.
    pub(super) async fn expect(&mut self, back: &Back, limited: bool) -> Result<(), String> {
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

    pub(super) fn describe(&mut self, heard: Heard) -> String {
        match heard {
            Heard::Message(tag, body) => self.decoder.decode(tag, &body).to_string(),
            Heard::End if self.peer.rest().is_empty() => "the end of the connection".to_owned(),
            Heard::End => format!("the end of the connection after {:?}", String::from_utf8_lossy(self.peer.rest())),
            Heard::Silence => "silence".to_owned(),
        }
    }
}
