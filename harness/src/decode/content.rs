//! What a backup's CopyData carries: archives, their members, the manifest.

use backstop_protocol::base_backup::tar::{MemberKind, TarEvent, TarReader, Trailer};
use bytes::Bytes;

/// What one message's data is, and what it touches.
#[derive(Debug, Default)]
pub(super) struct Extent {
    /// `base.tar 0..32768`
    pub(super) what: String,
    /// `base/5/1259 0..8192 of 16384`
    pub(super) inside: Vec<String>,
}

/// An archive that is being sent.
#[derive(Debug)]
pub(super) struct Archive {
    name: String,
    /// The next byte's, unless something was left out before it.
    offset: Option<u64>,
    /// None where members cannot be told: compressed, or not understood from some byte on.
    reader: Option<TarReader>,
    /// The member whose content comes now: its name, its size and how much of it has come.
    member: Option<(String, u64, u64)>,
}

/// What compressed data begins with.
const MAGIC: [(&[u8], &str); 3] = [(b"\x1f\x8b", "gzip"), (b"\x04\x22\x4d\x18", "lz4"), (b"\x28\xb5\x2f\xfd", "zstd")];

impl Archive {
    /// `trailer` says how archives of that release end.
    pub(super) fn new(name: String, trailer: Trailer) -> Self {
        Self { name, offset: Some(0), reader: Some(TarReader::new(trailer)), member: None }
    }

    /// The next bytes.
    pub(super) fn push(&mut self, data: &Bytes) -> Extent {
        let length = data.len() as u64;
        let Some(begin) = self.offset else {
            return Extent { what: format!("{}, {length} bytes at an unknown offset", self.name), inside: Vec::new() };
        };
        let end = begin + length;
        self.offset = Some(end);
        let mut extent = Extent { what: format!("{} {begin}..{end}", self.name), inside: Vec::new() };
        if begin == 0
            && let Some((_, method)) = MAGIC.iter().find(|(magic, _)| data.starts_with(magic))
        {
            self.reader = None;
            extent.inside.push(format!("compressed with {method}: members are not shown"));
        }
        let Some(reader) = &mut self.reader else { return extent };
        let mut events = Vec::new();
        let pushed = reader.push(data.clone(), &mut events);
        for event in events {
            self.event(event, &mut extent.inside);
        }
        if let Err(error) = pushed {
            extent.inside.push(format!("{error}: members are not shown from here on"));
            self.reader = None;
        }
        extent
    }

    fn event(&mut self, event: TarEvent, inside: &mut Vec<String>) {
        match event {
            TarEvent::Member(header) => {
                let name = header.name.escape_ascii().to_string();
                match &header.kind {
                    MemberKind::File => {
                        inside.push(format!("{name}, file of {} bytes", header.size));
                        self.member = Some((name, header.size, 0));
                    }
                    MemberKind::Directory => inside.push(format!("{name}, directory")),
                    MemberKind::Symlink { target } => {
                        inside.push(format!("{name}, symbolic link to {}", target.escape_ascii()));
                    }
                }
            }
            TarEvent::Data(data) => {
                if let Some((name, size, come)) = &mut self.member {
                    let begin = *come;
                    *come += data.len() as u64;
                    inside.push(format!("{name} {begin}..{come} of {size}"));
                }
            }
            TarEvent::MemberEnd => self.member = None,
            TarEvent::End => inside.push("the two zero blocks that end an archive".to_owned()),
        }
    }

    /// The end of the archive: what is wrong with it, if anything is.
    pub(super) fn finish(mut self) -> Option<String> {
        let error = self.reader.as_mut()?.finish().err()?;
        Some(format!("{} ends too early: {error}", self.name))
    }

    /// Something was left out: offsets and members are unknown from here on.
    pub(super) fn forget(&mut self) {
        self.offset = None;
        self.reader = None;
    }
}
