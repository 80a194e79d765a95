//! Compressed files.

use std::io::{self, Write};

use backstop_protocol::base_backup::options::{Compression, CompressionAlgorithm};
use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

/// Compresses what is written to it. Without [`finish`](Self::finish) what comes out is cut off.
pub(crate) enum Encoder<W: Write> {
    Plain(W),
    Gzip(GzEncoder<W>),
    Lz4(Box<FrameEncoder<W>>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    pub(crate) fn new(out: W, compression: &Compression) -> io::Result<Self> {
        Ok(match compression.algorithm {
            CompressionAlgorithm::None => Self::Plain(out),
            CompressionAlgorithm::Gzip => {
                // `Z_DEFAULT_COMPRESSION` is -1, and means 6.
                let level = u32::try_from(compression.level).unwrap_or(6);
                Self::Gzip(GzEncoder::new(out, flate2::Compression::new(level)))
            }
            CompressionAlgorithm::Lz4 => {
                // As PostgreSQL sets it.
                let info = FrameInfo::new().block_size(BlockSize::Max256KB).block_mode(BlockMode::Linked);
                Self::Lz4(Box::new(FrameEncoder::with_frame_info(info, out)))
            }
            CompressionAlgorithm::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(out, compression.level)?;
                if let Some(workers) = compression.workers {
                    let count = u32::try_from(workers).ok();
                    let set = count.ok_or_else(|| io::Error::other("out of range"));
                    set.and_then(|count| encoder.multithread(count)).map_err(|error| {
                        io::Error::other(format!("could not set compression worker count to {workers}: {error}"))
                    })?;
                }
                if compression.long_distance {
                    encoder
                        .long_distance_matching(true)
                        .map_err(|error| io::Error::other(format!("could not enable long-distance mode: {error}")))?;
                }
                Self::Zstd(encoder)
            }
        })
    }

    /// Ends the compressed data.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.flush(),
            Self::Gzip(encoder) => {
                encoder.try_finish()?;
                encoder.get_mut().flush()
            }
            Self::Lz4(encoder) => {
                encoder.try_finish().map_err(io::Error::other)?;
                encoder.get_mut().flush()
            }
            Self::Zstd(encoder) => {
                encoder.do_finish()?;
                encoder.get_mut().flush()
            }
        }
    }

    pub(crate) fn get_mut(&mut self) -> &mut W {
        match self {
            Self::Plain(out) => out,
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Lz4(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Lz4(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    /// Everything written so far can be unpacked by who reads what has come out.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Lz4(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}
