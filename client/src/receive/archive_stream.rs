//! One COPY of tagged messages: servers since 15.

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::base_backup::archive::ArchiveMessage;

use super::{Part, Unexpected};
use crate::error::shown;
use crate::mutation::{Mutation, Weakness};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before CopyOutResponse.
    Begin,
    /// Inside COPY, no archive begun.
    Between,
    /// Inside an archive.
    Archive,
    /// Inside the manifest.
    Manifest,
    /// After CopyDone.
    Done,
}

/// Where the stream is.
pub(crate) struct ArchiveStream {
    /// Name and location of each archive, in order.
    announced: Vec<(String, Vec<u8>)>,
    next: usize,
    manifest: bool,
    /// Whether the data comes along.
    here: bool,
    state: State,
    weakness: Weakness,
}

impl ArchiveStream {
    pub(crate) fn new(announced: Vec<(String, Vec<u8>)>, manifest: bool, here: bool, weakness: Weakness) -> Self {
        Self { announced, next: 0, manifest, here, state: State::Begin, weakness }
    }

    pub(crate) fn push(&mut self, message: BackendMessage, out: &mut Vec<Part>) -> Result<(), Unexpected> {
        match (self.state, message) {
            (State::Begin, BackendMessage::CopyOutResponse) => self.state = State::Between,
            (State::Between | State::Archive | State::Manifest, BackendMessage::CopyData(payload)) => {
                let got = || {
                    let kind = payload.first().map_or_else(|| "none".to_owned(), u8::to_string);
                    format!("malformed COPY message of type {kind}, length {}", payload.len())
                };
                let message = ArchiveMessage::decode(payload.clone());
                let message = message.map_err(|_| Unexpected::new("an archive message", got()))?;
                self.archive_message(message, out)?;
            }
            (State::Between | State::Archive | State::Manifest, BackendMessage::CopyDone) => {
                self.end_archive(out);
                if let Some((name, _)) = self.missing() {
                    return Err(Unexpected::new(format!("archive \"{name}\""), "CopyDone"));
                }
                let forgives = self.weakness.is(Mutation::ForgivesMissingManifest);
                if self.manifest && self.state != State::Manifest && !forgives {
                    return Err(Unexpected::new("the backup manifest", "CopyDone"));
                }
                self.state = State::Done;
                out.push(Part::End);
            }
            (state, other) => {
                let expected = match state {
                    State::Begin => "CopyOutResponse",
                    State::Done => "the end of COPY",
                    _ => "CopyData or CopyDone",
                };
                return Err(Unexpected::new(expected, other.name()));
            }
        }
        Ok(())
    }

    fn archive_message(&mut self, message: ArchiveMessage, out: &mut Vec<Part>) -> Result<(), Unexpected> {
        match message {
            ArchiveMessage::NewArchive { name, location } => {
                let got = || format!("archive \"{}\" of \"{}\"", shown(&name), shown(&location));
                if self.state == State::Manifest {
                    return Err(Unexpected::new("nothing after the backup manifest", got()));
                }
                if self.weakness.is(Mutation::ForgivesMissingArchives) {
                    self.next += self.announced.iter().skip(self.next).take_while(|(next, _)| name != *next).count();
                }
                let Some((expected, at)) = self.announced.get(self.next) else {
                    return Err(Unexpected::new("the announced archives only", got()));
                };
                if name != expected.as_bytes() || location != at {
                    return Err(Unexpected::new(format!("archive \"{expected}\" of \"{}\"", shown(at)), got()));
                }
                self.end_archive(out);
                out.push(Part::ArchiveBegin(self.next));
                self.next += 1;
                self.state = State::Archive;
            }
            ArchiveMessage::Manifest => {
                if !self.manifest || self.state == State::Manifest {
                    return Err(Unexpected::new("no backup manifest", "the beginning of one"));
                }
                if let Some((name, _)) = self.missing() {
                    return Err(Unexpected::new(format!("archive \"{name}\""), "the backup manifest"));
                }
                self.end_archive(out);
                out.push(Part::ManifestBegin);
                self.state = State::Manifest;
            }
            ArchiveMessage::Data(_) if !self.here => {
                return Err(Unexpected::new("no data: the backup goes to a target", "payload data"));
            }
            ArchiveMessage::Data(data) => match self.state {
                State::Archive => out.push(Part::Data(data)),
                State::Manifest => out.push(Part::ManifestData(data)),
                _ => return Err(Unexpected::new("the beginning of an archive", "unexpected payload data")),
            },
            // Our own count of what arrived is what gets shown, if anything does. A negative number is no count at all.
            ArchiveMessage::Progress(done) => match u64::try_from(done) {
                Ok(done) if !self.here => out.push(Part::Progress(done)),
                Ok(_) => {}
                Err(_) => return Err(Unexpected::new("a count of bytes", format!("progress of {done} bytes"))),
            },
        }
        Ok(())
    }

    /// The next archive that still has to come where no more may come.
    fn missing(&self) -> Option<&(String, Vec<u8>)> {
        self.announced.get(self.next).filter(|_| !self.weakness.is(Mutation::ForgivesMissingArchives))
    }

    /// Nothing on the wire says that an archive ends: what follows it does.
    fn end_archive(&mut self, out: &mut Vec<Part>) {
        if self.state == State::Archive {
            out.push(Part::ArchiveEnd);
            self.state = State::Between;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use proptest::prelude::*;

    use super::*;

    fn announced() -> Vec<(String, Vec<u8>)> {
        vec![("16391.tar".to_owned(), b"/ts".to_vec()), ("base.tar".to_owned(), Vec::new())]
    }

    fn copy(message: &ArchiveMessage) -> BackendMessage {
        let mut payload = BytesMut::new();
        message.encode(&mut payload);
        BackendMessage::CopyData(payload.freeze())
    }

    fn archive(name: &'static str, location: &'static str) -> BackendMessage {
        copy(&ArchiveMessage::NewArchive { name: name.into(), location: location.into() })
    }

    fn data(bytes: &'static [u8]) -> BackendMessage {
        copy(&ArchiveMessage::Data(Bytes::from_static(bytes)))
    }

    fn run(manifest: bool, messages: Vec<BackendMessage>) -> Result<Vec<Part>, Unexpected> {
        let mut stream = ArchiveStream::new(announced(), manifest, true, Weakness::NONE);
        let mut out = Vec::new();
        let messages = std::iter::once(BackendMessage::CopyOutResponse).chain(messages);
        messages.into_iter().try_for_each(|message| stream.push(message, &mut out)).map(|()| out)
    }

    fn sound() -> Vec<BackendMessage> {
        vec![
            archive("16391.tar", "/ts"),
            data(b"a"),
            copy(&ArchiveMessage::Progress(1)),
            archive("base.tar", ""),
            data(b"b"),
            copy(&ArchiveMessage::Progress(2)),
            copy(&ArchiveMessage::Manifest),
            data(b"{}"),
            BackendMessage::CopyDone,
        ]
    }

    #[test]
    fn archives_then_the_manifest() {
        let expected = vec![
            Part::ArchiveBegin(0),
            Part::Data("a".into()),
            Part::ArchiveEnd,
            Part::ArchiveBegin(1),
            Part::Data("b".into()),
            Part::ArchiveEnd,
            Part::ManifestBegin,
            Part::ManifestData("{}".into()),
            Part::End,
        ];
        assert_eq!(run(true, sound()), Ok(expected));
    }

    #[test]
    fn every_omission_is_noticed() {
        // Progress (2, 5) and data (1, 4, 7) may be missing here; what the archives hold is judged elsewhere.
        for index in [0, 3, 6] {
            let mut messages = sound();
            messages.remove(index);
            assert!(run(true, messages).is_err(), "{index}");
        }
    }

    #[test]
    fn every_repetition_is_noticed() {
        for index in [0, 3, 6, 8] {
            let mut messages = sound();
            messages.insert(index, messages[index].clone());
            assert!(run(true, messages).is_err(), "{index}");
        }
    }

    #[test]
    fn what_was_not_announced_or_asked_for_is_refused() {
        assert!(run(true, vec![archive("16391.tar", "/etc")]).is_err());
        assert!(run(true, vec![archive("../16391.tar", "/ts")]).is_err());
        assert!(run(true, vec![archive("base.tar", "")]).is_err());
        assert!(run(true, vec![data(b"x")]).is_err());
        assert!(run(false, sound()).is_err());
        assert!(run(true, vec![copy(&ArchiveMessage::Progress(-1))]).is_err());
        let unknown = run(true, vec![BackendMessage::CopyData(Bytes::from_static(b"zz"))]).expect_err("a kind z");
        assert_eq!(unknown.got, "malformed COPY message of type 122, length 2");
    }

    proptest! {
        #[test]
        fn any_payload_is_safe(payloads: Vec<Vec<u8>>) {
            let _ = run(true, payloads.into_iter().map(|payload| BackendMessage::CopyData(payload.into())).collect());
        }
    }
}
