//! What is copied, while it is recorded: archives become headers, sizes and checksums, a manifest loses the checksums that follow from
//! what is sent.

use backstop_protocol::base_backup::incremental::{self, IncrementalHeader};
use backstop_protocol::base_backup::manifest::{ChecksumAlgorithm, ChecksumHasher};
use backstop_protocol::base_backup::tar::{MemberHeader, MemberKind, TarEvent, TarReader, Trailer};
use backstop_protocol::control::{CONTROL_FILE_SIZE, ControlFile};
use bytes::Bytes;

use super::format::{Event, Kind, Member, Octets};
use super::manifest::{self, Checksums};

/// Files with facts of the backup are kept up to this size in bytes: none that a server writes is as large.
const MOST_KEPT: u64 = 64 << 10;

/// A manifest beyond this size in bytes is not kept.
const LARGEST_MANIFEST: usize = 64 << 20;

/// What compressed data begins with.
const MAGIC: [(&[u8], &str); 3] = [(b"\x1f\x8b", "gzip"), (b"\x04\x22\x4d\x18", "lz4"), (b"\x28\xb5\x2f\xfd", "zstd")];

/// How the reason begins why the members of an archive are not known that the server compressed.
pub(super) const COMPRESSED: &str = "compressed with ";

/// What is kept of a file's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    Nothing,
    /// All of it: it says what the backup is, and nothing of what the server holds.
    All,
    /// `pg_control`, without its secret.
    Control,
    /// The header of an incremental file: the numbers of blocks.
    Blocks,
}

/// How much of a file at `path` in the manifest is kept.
fn keeps(path: &[u8], size: u64) -> Keeps {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let small = size <= MOST_KEPT;
    match path {
        b"backup_label" | b"tablespace_map" if small => Keeps::All,
        b"global/pg_control" if size == CONTROL_FILE_SIZE as u64 => Keeps::Control,
        _ if name == b"PG_VERSION" && small => Keeps::All,
        _ if path.starts_with(b"pg_wal/") && name.ends_with(b".history") && small => Keeps::All,
        _ if incremental::plain_name(path).is_some() => Keeps::Blocks,
        _ => Keeps::Nothing,
    }
}

/// A member whose content comes.
#[derive(Debug)]
struct Open {
    header: MemberHeader,
    path: Vec<u8>,
    keeps: Keeps,
    kept: Vec<u8>,
    crc: u32,
    sum: ChecksumHasher,
}

/// An archive that is being sent.
#[derive(Debug)]
pub(super) struct Archive {
    /// None where members cannot be told any more.
    reader: Option<TarReader>,
    begun: bool,
    /// What stands before the names of members in the manifest.
    below: Vec<u8>,
    member: Option<Open>,
}

impl Archive {
    /// The archive of the tablespace with this OID, or that of the base directory.
    pub(super) fn new(tablespace: Option<u32>, trailer: Trailer) -> Self {
        let below = tablespace.map_or_else(Vec::new, |oid| format!("pg_tblspc/{oid}/").into_bytes());
        Self { reader: Some(TarReader::new(trailer)), begun: false, below, member: None }
    }

    /// The next bytes. Checksums of whole members go to `book`.
    pub(super) fn push(&mut self, data: Bytes, book: &mut Book, tell: &mut dyn FnMut(Event)) {
        if !std::mem::replace(&mut self.begun, true)
            && let Some((_, method)) = MAGIC.iter().find(|(magic, _)| data.starts_with(magic))
        {
            self.reader = None;
            tell(Event::Opaque(format!("{COMPRESSED}{method} by the server")));
        }
        let Some(reader) = &mut self.reader else { return };
        let mut events = Vec::new();
        let pushed = reader.push(data, &mut events);
        for event in events {
            match event {
                TarEvent::Member(header) => self.member = Some(self.open(header, book.algorithm)),
                TarEvent::Data(data) => {
                    if let Some(open) = &mut self.member {
                        open.push(&data);
                    }
                }
                TarEvent::MemberEnd => self.close(Some(&mut book.checksums), tell),
                TarEvent::End => {}
            }
        }
        if let Err(error) = pushed {
            self.close(None, tell);
            self.reader = None;
            tell(Event::Opaque(error.to_string()));
        }
    }

    /// The archive is over, wherever it stands.
    pub(super) fn finish(&mut self, tell: &mut dyn FnMut(Event)) {
        self.close(None, tell);
    }

    fn open(&self, header: MemberHeader, algorithm: ChecksumAlgorithm) -> Open {
        let path = [&self.below, header.path()].concat();
        let keeps = if header.kind == MemberKind::File { keeps(&path, header.size) } else { Keeps::Nothing };
        Open { header, path, keeps, kept: Vec::new(), crc: 0, sum: ChecksumHasher::new(algorithm) }
    }

    /// Tells of the member that came last. Only that of a whole one is known to `checksums`.
    fn close(&mut self, checksums: Option<&mut Checksums>, tell: &mut dyn FnMut(Event)) {
        let Some(open) = self.member.take() else { return };
        if open.header.kind == MemberKind::File
            && let Some(checksums) = checksums
        {
            checksums.insert(open.path.clone(), open.sum.clone().finish());
        }
        tell(Event::Member(open.into_member()));
    }
}

impl Open {
    fn push(&mut self, data: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, data);
        self.sum.update(data);
        let mut rest = data;
        while !rest.is_empty() {
            let (kept, after) = rest.split_at(self.wanted().saturating_sub(self.kept.len()).min(rest.len()));
            if kept.is_empty() {
                break;
            }
            self.kept.extend_from_slice(kept);
            rest = after;
        }
    }

    /// How many of the file's first bytes are kept, as far as that is known.
    fn wanted(&self) -> usize {
        match self.keeps {
            Keeps::Nothing => 0,
            Keeps::All | Keeps::Control => usize::try_from(self.header.size).unwrap_or(usize::MAX),
            Keeps::Blocks => match self.kept.first_chunk() {
                Some(start) => IncrementalHeader::size_from_start(*start).unwrap_or_default(),
                None => incremental::FIXED_SIZE,
            },
        }
    }

    fn into_member(self) -> Member {
        let whole = self.kept.len() as u64 == self.header.size;
        let (mut contents, mut blocks) = (None, None);
        match self.keeps {
            Keeps::All if whole => contents = Some(Octets(self.kept)),
            Keeps::Control if whole => contents = Some(Octets(without_secret(&self.kept))),
            Keeps::Blocks => {
                let header = IncrementalHeader::parse(&self.kept).ok();
                let header = header.filter(|header| header.file_size() == self.header.size);
                blocks = header.map(|header| (header.truncation_block_length(), header.blocks().to_vec()));
            }
            Keeps::Nothing | Keeps::All | Keeps::Control => {}
        }
        let is_file = self.header.kind == MemberKind::File;
        Member {
            name: Octets(self.header.name),
            kind: match self.header.kind {
                MemberKind::File => Kind::File,
                MemberKind::Directory => Kind::Directory,
                MemberKind::Symlink { target } => Kind::Link(Octets(target)),
            },
            mode: self.header.mode,
            owner: (self.header.uid, self.header.gid),
            mtime: self.header.mtime,
            size: self.header.size,
            crc32c: is_file.then_some(self.crc),
            contents,
            blocks,
        }
    }
}

/// A control file without the number from which answers to unknown users are made. Of one that cannot be read, damaged or of a release
/// before 12, only whose it is: system identifier and versions.
fn without_secret(content: &[u8]) -> Vec<u8> {
    if let Ok(control) = ControlFile::decode(content) {
        return ControlFile { nonce: [0; 32], ..control }.encode();
    }
    let mut known = content.get(..16).unwrap_or_default().to_vec();
    known.resize(content.len(), 0);
    known
}

/// What is remembered of a backup until its manifest has come.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// The one that the backup was asked for.
    pub(super) algorithm: ChecksumAlgorithm,
    pub(super) checksums: Checksums,
}

/// A manifest that is being sent.
#[derive(Debug, Default)]
pub(super) struct Manifest {
    text: Vec<u8>,
    opaque: bool,
}

impl Manifest {
    pub(super) fn push(&mut self, data: &[u8], tell: &mut dyn FnMut(Event)) {
        if !self.opaque && self.text.len() + data.len() > LARGEST_MANIFEST {
            self.opaque = true;
            self.text = Vec::new();
            tell(Event::Opaque(format!("more than {} MiB", LARGEST_MANIFEST >> 20)));
        }
        if !self.opaque {
            self.text.extend_from_slice(data);
        }
    }

    pub(super) fn finish(&mut self, book: &Book, tell: &mut dyn FnMut(Event)) {
        manifest::take_down(&std::mem::take(&mut self.text), book.algorithm, &book.checksums)
            .into_iter()
            .for_each(tell);
    }
}
