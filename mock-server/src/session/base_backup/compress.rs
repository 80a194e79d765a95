//! Server-side compression: `basebackup_gzip.c`, `basebackup_lz4.c` and `basebackup_zstd.c`.
//!
//! One stream for each archive. As in PostgreSQL, what was compressed is staged in an output buffer and given on when the
//! buffer could not take the next input, so that the sizes of CopyData are those of a real server: at most 32768 bytes with
//! gzip, at most 40960 with zstd, and with LZ4 what one block of 256 KiB comes to.
//!
//! Compression runs in the session's own task. Workers of zstd are accepted and not started: the bytes of a frame would be a
//! function of the input, but which of them are ready at which moment is a matter of threads, and a client must not be able
//! to start hundreds of them. `lz4_flex` has one way to compress, so that levels of LZ4 change nothing but the command.

use std::fmt;
use std::io::{self, Write};

use backstop_protocol::base_backup::options::{Compression, CompressionAlgorithm};
use flate2::{Compress, FlushCompress};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use zstd::stream::raw::{CParameter, Encoder, Operation, OutBuffer};
use zstd::zstd_safe::compress_bound;

/// `SINK_BUFFER_LENGTH`: the most that is compressed at once, and the output buffer of gzip.
const INPUT: usize = 32768;

/// `ZSTD_compressBound` of [`INPUT`], rounded up to a multiple of `BLCKSZ`.
const ZSTD_BUFFER: usize = 40960;

/// `LZ4F_compressBound` of [`INPUT`], rounded up to a multiple of `BLCKSZ`.
const LZ4_BUFFER: usize = 270_336;

/// `LZ4F_compressBound` of any input up to [`INPUT`], or of none: a block of 256 KiB, its header, the end of the frame.
const LZ4_BOUND: usize = 262_152;

/// The compressed stream of one archive.
pub(super) struct Compressor {
    engine: Engine,
    /// The output buffer of gzip and zstd, of which so many bytes are filled. LZ4 has its own.
    buffer: Vec<u8>,
    filled: usize,
}

enum Engine {
    Gzip(Compress),
    Lz4(Box<FrameEncoder<Vec<u8>>>),
    Zstd(Encoder<'static>),
}

impl Compressor {
    /// Begins a stream; none without compression.
    pub(super) fn new(compression: &Compression) -> io::Result<Option<Self>> {
        let (engine, size) = match compression.algorithm {
            CompressionAlgorithm::None => return Ok(None),
            CompressionAlgorithm::Gzip => {
                // `Z_DEFAULT_COMPRESSION` is -1, and means 6.
                let level = u32::try_from(compression.level).unwrap_or(6);
                (Engine::Gzip(Compress::new_gzip(flate2::Compression::new(level), 15)), INPUT)
            }
            CompressionAlgorithm::Lz4 => {
                let info = FrameInfo::new().block_size(BlockSize::Max256KB).block_mode(BlockMode::Linked);
                (Engine::Lz4(Box::new(FrameEncoder::with_frame_info(info, Vec::new()))), 0)
            }
            CompressionAlgorithm::Zstd => {
                let mut encoder = Encoder::new(compression.level)?;
                if compression.long_distance {
                    encoder.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
                }
                (Engine::Zstd(encoder), ZSTD_BUFFER)
            }
        };
        Ok(Some(Self { engine, buffer: vec![0; size], filled: 0 }))
    }

    /// Compresses `input`, and appends to `ready` what must be sent now, one message each.
    pub(super) fn write(&mut self, input: &[u8], ready: &mut Vec<Vec<u8>>) -> io::Result<()> {
        for input in input.chunks(INPUT) {
            match &mut self.engine {
                Engine::Gzip(_) => self.deflate(input, ready)?,
                Engine::Lz4(encoder) => {
                    if LZ4_BUFFER - encoder.get_ref().len() < LZ4_BOUND {
                        ready.push(std::mem::take(encoder.get_mut()));
                    }
                    encoder.write_all(input)?;
                }
                Engine::Zstd(_) => self.zstd(input, ready)?,
            }
        }
        Ok(())
    }

    /// Ends the stream.
    pub(super) fn finish(mut self, ready: &mut Vec<Vec<u8>>) -> io::Result<()> {
        match &mut self.engine {
            Engine::Gzip(gzip) => loop {
                let before = gzip.total_out();
                gzip.compress(&[], &mut self.buffer[self.filled..], FlushCompress::Finish)?;
                self.filled += difference(gzip.total_out(), before);
                if self.filled == 0 {
                    return Ok(());
                }
                give(&self.buffer, &mut self.filled, ready);
            },
            Engine::Lz4(encoder) => {
                if LZ4_BUFFER - encoder.get_ref().len() < LZ4_BOUND {
                    ready.push(std::mem::take(encoder.get_mut()));
                }
                encoder.try_finish()?;
                ready.push(std::mem::take(encoder.get_mut()));
            }
            Engine::Zstd(encoder) => {
                loop {
                    if self.buffer.len() - self.filled < compress_bound(0) {
                        give(&self.buffer, &mut self.filled, ready);
                    }
                    let mut rest = OutBuffer::around(&mut self.buffer[self.filled..]);
                    let left = encoder.finish(&mut rest, true)?;
                    self.filled += rest.pos();
                    if left == 0 {
                        break;
                    }
                }
                if self.filled > 0 {
                    give(&self.buffer, &mut self.filled, ready);
                }
            }
        }
        Ok(())
    }

    /// What is compressed and not yet sent.
    pub(super) fn staged(&self) -> &[u8] {
        match &self.engine {
            Engine::Lz4(encoder) => encoder.get_ref(),
            Engine::Gzip(_) | Engine::Zstd(_) => &self.buffer[..self.filled],
        }
    }

    /// gzip fills its buffer to the last byte.
    fn deflate(&mut self, mut input: &[u8], ready: &mut Vec<Vec<u8>>) -> io::Result<()> {
        let Engine::Gzip(gzip) = &mut self.engine else { return Ok(()) };
        while !input.is_empty() {
            let (read, written) = (gzip.total_in(), gzip.total_out());
            gzip.compress(input, &mut self.buffer[self.filled..], FlushCompress::None)?;
            self.filled += difference(gzip.total_out(), written);
            input = &input[difference(gzip.total_in(), read)..];
            if self.filled == self.buffer.len() {
                give(&self.buffer, &mut self.filled, ready);
            }
        }
        Ok(())
    }

    /// zstd wants room for the whole input, whatever it will need.
    fn zstd(&mut self, mut input: &[u8], ready: &mut Vec<Vec<u8>>) -> io::Result<()> {
        let Engine::Zstd(encoder) = &mut self.engine else { return Ok(()) };
        while !input.is_empty() {
            if self.buffer.len() - self.filled < compress_bound(input.len()) {
                give(&self.buffer, &mut self.filled, ready);
            }
            let step = encoder.run_on_buffers(input, &mut self.buffer[self.filled..])?;
            self.filled += step.bytes_written;
            input = &input[step.bytes_read..];
        }
        Ok(())
    }
}

/// Empties the output buffer.
fn give(buffer: &[u8], filled: &mut usize, ready: &mut Vec<Vec<u8>>) {
    ready.push(buffer[..*filled].to_vec());
    *filled = 0;
}

/// How far a counter of one call has moved: never more than a buffer.
fn difference(after: u64, before: u64) -> usize {
    usize::try_from(after - before).unwrap_or(usize::MAX)
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let engine = match self.engine {
            Engine::Gzip(_) => "gzip",
            Engine::Lz4(_) => "lz4",
            Engine::Zstd(_) => "zstd",
        };
        f.debug_struct("Compressor")
            .field("engine", &engine)
            .field("staged", &self.staged().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use backstop_protocol::base_backup::options::compression::CompressionSupport;
    use proptest::prelude::*;

    use super::*;

    const ALL: CompressionSupport = CompressionSupport { gzip: true, lz4: true, zstd: true, long_distance: true };

    fn compression(algorithm: CompressionAlgorithm, detail: Option<&str>) -> Compression {
        Compression::parse(algorithm, detail, ALL).expect("a valid specification")
    }

    /// The messages that carry `pieces`.
    fn messages(compression: &Compression, pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut compressor = Compressor::new(compression).expect("a stream").expect("an algorithm");
        let mut ready = Vec::new();
        for piece in pieces {
            compressor.write(piece, &mut ready).expect("compressed");
        }
        compressor.finish(&mut ready).expect("an end");
        ready
    }

    fn decompress(algorithm: CompressionAlgorithm, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match algorithm {
            CompressionAlgorithm::None => out.extend_from_slice(data),
            CompressionAlgorithm::Gzip => {
                flate2::bufread::GzDecoder::new(data).read_to_end(&mut out).expect("one gzip member");
            }
            CompressionAlgorithm::Lz4 => {
                lz4_flex::frame::FrameDecoder::new(data).read_to_end(&mut out).expect("one lz4 frame");
            }
            CompressionAlgorithm::Zstd => out = zstd::decode_all(data).expect("one zstd frame"),
        }
        out
    }

    /// Half of it compresses, as with relations.
    fn pages(length: usize) -> Vec<u8> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[7]
        };
        (0..length).map(|index| if index % 8192 < 4096 { noise() } else { 0 }).collect()
    }

    /// The first bytes of recorded archives.
    #[test]
    fn streams_begin_as_recorded() {
        let begin = |algorithm, detail| {
            let first = messages(&compression(algorithm, detail), &[&pages(100_000)]).swap_remove(0);
            first.iter().take(10).map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        assert_eq!(begin(CompressionAlgorithm::Gzip, None), "1f8b0800000000000003");
        assert_eq!(begin(CompressionAlgorithm::Gzip, Some("level=9")), "1f8b0800000000000203");
        assert_eq!(&begin(CompressionAlgorithm::Lz4, None)[..14], "04224d18405077");
        assert_eq!(&begin(CompressionAlgorithm::Zstd, None)[..12], "28b52ffd0058");
    }

    #[test]
    fn messages_have_the_sizes_of_the_recordings() {
        let data = pages(8 << 20);
        let pieces: Vec<_> = data.chunks(INPUT).collect();
        let sizes =
            |algorithm| messages(&compression(algorithm, None), &pieces).iter().map(Vec::len).collect::<Vec<_>>();
        let gzip = sizes(CompressionAlgorithm::Gzip);
        let (last, full) = gzip.split_last().expect("messages");
        assert!(full.iter().all(|size| *size == 32768) && *last <= 32768, "{gzip:?}");
        let zstd = sizes(CompressionAlgorithm::Zstd);
        assert!(zstd.contains(&40960) && zstd.iter().all(|size| *size <= 40960), "{zstd:?}");
        // One block each, and the end of the frame in the last.
        let lz4 = sizes(CompressionAlgorithm::Lz4);
        assert_eq!(lz4.len(), 32 + usize::from(lz4.last() == Some(&4)), "{lz4:?}");
        assert!(lz4.iter().all(|size| *size <= LZ4_BUFFER));
    }

    #[test]
    fn workers_and_long_distance_change_the_frame_alone() {
        let data = pages(1 << 20);
        for detail in ["workers=3", "level=19,workers=2", "level=-5", "long", "level=1,long=on,workers=0"] {
            let compressed = messages(&compression(CompressionAlgorithm::Zstd, Some(detail)), &[&data]).concat();
            assert!(decompress(CompressionAlgorithm::Zstd, &compressed) == data, "{detail}");
        }
    }

    #[test]
    fn nothing_is_a_stream_too() {
        for algorithm in [CompressionAlgorithm::Gzip, CompressionAlgorithm::Lz4, CompressionAlgorithm::Zstd] {
            let compressed = messages(&compression(algorithm, None), &[]).concat();
            assert_eq!(decompress(algorithm, &compressed), b"", "{algorithm}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
        #[test]
        fn what_goes_in_comes_out(
            index in 1_usize..4, level in 1_i32..10, lengths in proptest::collection::vec(0_usize..70_000, 0..10)
        ) {
            let algorithm = CompressionAlgorithm::ALL[index];
            let compression = compression(algorithm, Some(&level.to_string()));
            let data = pages(lengths.iter().sum());
            let mut rest = &data[..];
            let pieces: Vec<_> = lengths.iter().map(|length| {
                let (piece, later) = rest.split_at(*length);
                rest = later;
                piece
            }).collect();
            let first = messages(&compression, &pieces);
            prop_assert!(first.iter().all(|message| !message.is_empty()));
            prop_assert!(decompress(algorithm, &first.concat()) == data);
            prop_assert!(first == messages(&compression, &pieces));
        }
    }
}
