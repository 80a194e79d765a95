//! How segments lie in an archive: as they are, or compressed.

use std::io::{self, Read, Write};

use backstop_protocol::base_backup::options::{Compression, CompressionAlgorithm};
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use lz4_flex::frame::{FrameDecoder, FrameEncoder};

use crate::disk::File;

/// A segment that is being written.
pub(crate) enum Writer {
    Plain(File),
    Gzip(Box<GzEncoder<File>>),
    Lz4(Box<FrameEncoder<File>>),
}

impl Writer {
    /// Writes to `file` from its beginning.
    pub(crate) fn new(file: File, compression: &Compression) -> io::Result<Self> {
        match compression.algorithm {
            CompressionAlgorithm::None => Ok(Self::Plain(file)),
            CompressionAlgorithm::Gzip => {
                let level = u32::try_from(compression.level)
                    .map_or_else(|_| flate2::Compression::default(), flate2::Compression::new);
                Ok(Self::Gzip(Box::new(GzEncoder::new(file, level))))
            }
            CompressionAlgorithm::Lz4 => Ok(Self::Lz4(Box::new(FrameEncoder::new(file)))),
            CompressionAlgorithm::Zstd => Err(io::Error::from(io::ErrorKind::Unsupported)),
        }
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Lz4(encoder) => encoder.write_all(bytes),
        }
    }

    /// Gives everything that was written to the file, so that it can be read up to there, and returns that.
    pub(crate) fn drain(&mut self) -> io::Result<&File> {
        match self {
            Self::Plain(file) => Ok(file),
            Self::Gzip(encoder) => {
                encoder.flush()?;
                Ok(encoder.get_ref())
            }
            Self::Lz4(encoder) => {
                encoder.flush()?;
                Ok(encoder.get_ref())
            }
        }
    }

    /// Ends the compressed data and returns the file.
    pub(crate) fn finish(self) -> io::Result<File> {
        match self {
            Self::Plain(file) => Ok(file),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Lz4(encoder) => encoder.finish().map_err(io::Error::other),
        }
    }
}

/// The uncompressed content of a file.
pub(crate) fn reader<R: Read + 'static>(file: R, algorithm: CompressionAlgorithm) -> io::Result<Box<dyn Read>> {
    Ok(match algorithm {
        CompressionAlgorithm::None => Box::new(file),
        CompressionAlgorithm::Gzip => Box::new(MultiGzDecoder::new(file)),
        CompressionAlgorithm::Lz4 => Box::new(FrameDecoder::new(file)),
        CompressionAlgorithm::Zstd => Box::new(zstd::stream::read::Decoder::new(file)?),
    })
}

/// How many bytes can be read, but no more than `limit`, and whether the end was a proper one.
pub(crate) fn count(reader: &mut dyn Read, limit: u64) -> (u64, io::Result<()>) {
    let mut buffer = vec![0; 64 << 10];
    let mut bytes = 0_u64;
    while bytes < limit {
        match reader.read(&mut buffer) {
            Ok(0) => return (bytes, Ok(())),
            Ok(read) => bytes += read as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (bytes, Err(error)),
        }
    }
    (bytes, Ok(()))
}
