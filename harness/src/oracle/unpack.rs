//! Archives that a client stored compressed, unpacked to be read: not by the code of the client under test.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// What an archive may come to: more than any scenario's cluster. What a client stored is not to be believed.
const MOST: u64 = 16 << 30;

/// The name of a tar file without `.tar` and the suffix of its compression, if it is one.
pub(super) fn stem(name: &str) -> Option<&str> {
    ["", ".gz", ".lz4", ".zst"].iter().find_map(|suffix| name.strip_suffix(suffix)?.strip_suffix(".tar"))
}

/// What its name says that a file is compressed with, if it does: `gz`, `lz4`, `zst`.
pub(super) fn compression(path: &Path) -> Option<&str> {
    path.extension().and_then(OsStr::to_str).filter(|suffix| *suffix != "tar")
}

/// Unpacks the compressed archive at `from` into a new file at `to`.
///
/// # Errors
/// Data that does not unpack, that ends too early, or of which there is no end.
pub(super) fn unpack(from: &Path, to: &Path) -> io::Result<()> {
    let packed = File::open(from)?;
    let mut out = File::create_new(to)?;
    match compression(from) {
        Some("gz") => copy(flate2::read::MultiGzDecoder::new(packed), &mut out),
        Some("zst") => copy(zstd::stream::read::Decoder::new(packed)?, &mut out),
        _ => copy_lz4(packed, &mut out),
    }
}

fn copy(packed: impl Read, out: &mut File) -> io::Result<()> {
    let copied = io::copy(&mut packed.take(MOST + 1), out)?;
    if copied > MOST { Err(too_much()) } else { out.flush() }
}

fn too_much() -> io::Error {
    io::Error::other("it unpacks to more than 16 GiB")
}

/// Tells whether a reader has come to its end.
struct Ended {
    file: File,
    ended: bool,
}

impl Read for Ended {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.ended |= read == 0 && !buffer.is_empty();
        Ok(read)
    }
}

/// `lz4_flex` takes the end of the file for the end of a frame.
fn copy_lz4(file: File, out: &mut File) -> io::Result<()> {
    let mut packed = lz4_flex::frame::FrameDecoder::new(Ended { file, ended: false });
    let (mut buffer, mut total, mut between) = (vec![0; 64 << 10], 0, false);
    loop {
        let read = packed.read(&mut buffer)?;
        total += read as u64;
        if total > MOST {
            return Err(too_much());
        }
        out.write_all(buffer.get(..read).unwrap_or_default())?;
        match (read, packed.get_ref().ended) {
            (0, true) if between => return out.flush(),
            (0, true) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends in the middle of a frame")),
            // The end mark of a frame.
            (0, false) => between = true,
            _ => between = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(name: &str, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        if compression(Path::new(name)) == Some("gz") {
            let mut encoder = flate2::write::GzEncoder::new(&mut out, flate2::Compression::fast());
            encoder.write_all(data).expect("compressed");
            encoder.finish().expect("an end");
        } else if compression(Path::new(name)) == Some("zst") {
            out = zstd::encode_all(data, 1).expect("compressed");
        } else {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(&mut out);
            encoder.write_all(data).expect("compressed");
            encoder.finish().expect("an end");
        }
        out
    }

    #[test]
    fn unpacks_whole_files_only() {
        let scratch = tempfile::tempdir().expect("a directory");
        let data: Vec<u8> = (0..300_000_u32).flat_map(|number| number.wrapping_mul(number).to_le_bytes()).collect();
        for name in ["base.tar.gz", "base.tar.lz4", "base.tar.zst"] {
            let from = scratch.path().join(name);
            let whole = packed(name, &data);
            let unpacked = |bytes: &[u8], to: &str| {
                std::fs::write(&from, bytes).expect("a file");
                let to = scratch.path().join(format!("{name}.{to}"));
                unpack(&from, &to).map(|()| std::fs::read(&to).expect("a file"))
            };
            assert!(unpacked(&whole, "whole").expect("sound") == data, "{name}");
            assert!(
                unpacked(&[&whole[..], &whole].concat(), "twice").expect("sound").len() == 2 * data.len(),
                "{name}"
            );
            for left in [0, 3, 100, whole.len() / 2, whole.len() - 4, whole.len() - 1] {
                let cut = unpacked(&whole[..left], &left.to_string());
                assert!(cut.is_err(), "{name} with {left} of {} bytes", whole.len());
            }
        }
    }

    #[test]
    fn knows_archives_by_their_names() {
        assert_eq!(
            ["base.tar", "5.tar.lz4", "pg_wal.tar.gz", "a.tar.zst"].map(stem),
            [Some("base"), Some("5"), Some("pg_wal"), Some("a")]
        );
        assert_eq!(["base.tar.bz2", "base.gz", "backup_manifest"].map(stem), [None; 3]);
    }
}
