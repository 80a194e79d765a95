//! Archives as they pass: the names of their members, and the label that the base archive begins with.

use std::io::Read;

use backstop_protocol::base_backup::tar::{TarEvent, TarReader, Trailer};
use bytes::Bytes;

/// What a label has at most, and what is kept of a compressed archive to find it.
const MOST_KEPT: usize = 4 << 20;

/// What compressed data begins with.
const GZIP: &[u8] = b"\x1f\x8b";
const LZ4: &[u8] = b"\x04\x22\x4d\x18";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";

/// What is told of an archive while it passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// A member begins, under this name.
    Member(Vec<u8>),
    /// So many bytes of the member that began last, or of an archive whose members cannot be told.
    Bytes(u64),
    /// The content of `backup_label`.
    Label(Vec<u8>),
    /// The two zero blocks.
    End,
}

/// An archive.
#[derive(Debug)]
pub(super) struct Archive {
    reader: Option<TarReader>,
    trailer: Trailer,
    begun: bool,
    /// The label in the making.
    label: Option<Vec<u8>>,
    /// The beginning of a compressed archive, until the label was found in it.
    packed: Option<Vec<u8>>,
}

impl Archive {
    /// `trailer` says how archives of that release end.
    pub(super) fn new(trailer: Trailer) -> Self {
        Self { reader: Some(TarReader::new(trailer)), trailer, begun: false, label: None, packed: None }
    }

    /// The next bytes.
    pub(super) fn push(&mut self, data: &Bytes, tell: &mut dyn FnMut(Told)) {
        if !self.begun {
            self.begun = true;
            if [GZIP, LZ4, ZSTD].iter().any(|magic| data.starts_with(magic)) {
                self.reader = None;
                self.packed = Some(Vec::new());
            }
        }
        if let Some(packed) = &mut self.packed {
            packed.extend_from_slice(data);
            match label_in(packed, self.trailer) {
                Some(label) => {
                    self.packed = None;
                    tell(Told::Label(label));
                }
                None if packed.len() > MOST_KEPT => self.packed = None,
                None => {}
            }
        }
        let Some(reader) = &mut self.reader else {
            tell(Told::Bytes(data.len() as u64));
            return;
        };
        let mut events = Vec::new();
        let pushed = reader.push(data.clone(), &mut events);
        for event in events {
            match event {
                TarEvent::Member(header) => {
                    self.label = (header.name == b"backup_label").then(Vec::new);
                    tell(Told::Member(header.name));
                }
                TarEvent::Data(data) => {
                    if let Some(label) = self.label.as_mut().filter(|label| label.len() < MOST_KEPT) {
                        label.extend_from_slice(&data);
                    }
                    tell(Told::Bytes(data.len() as u64));
                }
                TarEvent::MemberEnd => {
                    if let Some(label) = self.label.take() {
                        tell(Told::Label(label));
                    }
                }
                TarEvent::End => tell(Told::End),
            }
        }
        if pushed.is_err() {
            self.reader = None;
        }
    }
}

/// The label at the beginning of a compressed archive, if it is all there.
fn label_in(packed: &[u8], trailer: Trailer) -> Option<Vec<u8>> {
    let mut decoder: Box<dyn Read + '_> = if packed.starts_with(GZIP) {
        Box::new(flate2::read::MultiGzDecoder::new(packed))
    } else if packed.starts_with(ZSTD) {
        Box::new(zstd::stream::read::Decoder::new(packed).ok()?)
    } else {
        Box::new(lz4_flex::frame::FrameDecoder::new(packed))
    };
    let mut archive = Archive::new(trailer);
    let mut piece = vec![0; 4096];
    let mut read = 0;
    // It is the first member.
    while read < MOST_KEPT {
        let count = decoder.read(&mut piece).ok().filter(|count| *count > 0)?;
        read += count;
        let mut label = None;
        archive.begun = true;
        archive.push(&Bytes::copy_from_slice(piece.get(..count)?), &mut |told| {
            if let Told::Label(text) = told {
                label = Some(text);
            }
        });
        if label.is_some() {
            return label;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use backstop_protocol::base_backup::tar::{MemberHeader, MemberKind};

    use super::*;

    fn archive() -> Vec<u8> {
        let header = |name: &[u8], size| MemberHeader {
            name: name.to_vec(),
            kind: MemberKind::File,
            mode: 0o600,
            uid: 0,
            gid: 0,
            size,
            mtime: 0,
        };
        let mut bytes = header(b"backup_label", 9).encode().expect("a header").to_vec();
        bytes.extend(b"the label");
        bytes.resize(1024, 0);
        bytes.extend(header(b"PG_VERSION", 3).encode().expect("a header"));
        bytes.extend(b"18\n");
        bytes.resize(3 * 1024, 0);
        bytes
    }

    fn told(bytes: &[u8], piece: usize) -> Vec<Told> {
        let mut archive = Archive::new(Trailer::Required);
        let mut all = Vec::new();
        for piece in bytes.chunks(piece) {
            archive.push(&Bytes::copy_from_slice(piece), &mut |told| all.push(told));
        }
        all
    }

    #[test]
    fn members_and_label_are_told_whatever_the_pieces() {
        let label = Told::Label(b"the label".to_vec());
        for piece in [1, 511, 512, 4096] {
            let told = told(&archive(), piece);
            assert!(told.contains(&label), "{told:?}");
            let names = told.iter().filter(|told| matches!(told, Told::Member(_)));
            assert_eq!(names.count(), 2);
            assert_eq!(told.last(), Some(&Told::End));
        }
    }

    #[test]
    fn the_label_of_a_compressed_archive_is_found() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&archive()).expect("memory");
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(&archive()).expect("memory");
        let packed = [
            gzip.finish().expect("memory"),
            lz4.finish().expect("memory"),
            zstd::encode_all(&archive()[..], 1).expect("memory"),
        ];
        for packed in packed {
            for piece in [7, 4096] {
                assert!(told(&packed, piece).contains(&Told::Label(b"the label".to_vec())));
            }
        }
    }
}
