//! Unpacks what a server compressed, as it arrives.

use backstop_protocol::base_backup::options::CompressionAlgorithm;
use bytes::{Buf, Bytes};
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Operation};

use super::lz4::Lz4;

/// What is unpacked at once, in bytes.
const OUTPUT: usize = 128 << 10;

/// The largest window of Zstandard that is unpacked, as a power of two: 128 MiB, which is what PostgreSQL's `long` asks for and
/// what every decoder takes unless it is told otherwise.
const MAX_WINDOW_LOG: u32 = 27;

/// A stream on its way from a server.
///
/// Archives are one frame, or one member of gzip, each. Several behind each other are taken as well, as the formats define
/// it; a stream without any is not.
pub(crate) struct Decoder {
    engine: Engine,
    input: Bytes,
    output: Vec<u8>,
    /// Whether a frame was begun and has not ended.
    open: bool,
    /// Whether any was begun.
    begun: bool,
    /// Whether there is more to come out of what was taken in.
    more: bool,
}

enum Engine {
    Gzip(Decompress),
    Lz4(Box<Lz4>),
    Zstd(zstd::stream::raw::Decoder<'static>),
}

/// What came of a step.
struct Step {
    read: usize,
    written: usize,
    /// Whether a frame ended.
    ended: bool,
}

impl Decoder {
    /// At the beginning of a stream; none without compression.
    pub(crate) fn new(algorithm: CompressionAlgorithm) -> Result<Option<Self>, String> {
        let engine = match algorithm {
            CompressionAlgorithm::None => return Ok(None),
            CompressionAlgorithm::Gzip => Engine::Gzip(Decompress::new_gzip(15)),
            CompressionAlgorithm::Lz4 => Engine::Lz4(Box::new(Lz4::new())),
            CompressionAlgorithm::Zstd => {
                let mut decoder = zstd::stream::raw::Decoder::new().map_err(failed)?;
                decoder.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG)).map_err(failed)?;
                Engine::Zstd(decoder)
            }
        };
        let output = if matches!(engine, Engine::Lz4(_)) { Vec::new() } else { vec![0; OUTPUT] };
        Ok(Some(Self { engine, input: Bytes::new(), output, open: false, begun: false, more: false }))
    }

    /// Takes in the next bytes. What was taken in before must have come out.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        debug_assert!(self.input.is_empty() && !self.more, "what came before was not unpacked");
        self.input = bytes;
    }

    /// The next piece, never empty, or nothing if more has to be pushed.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            if self.input.is_empty() && !self.more {
                return Ok(None);
            }
            self.begun = true;
            if let Engine::Lz4(lz4) = &mut self.engine {
                let piece = lz4.next(&mut self.input).map_err(failed)?;
                self.open = lz4.is_open();
                if piece.as_ref().is_none_or(|piece| !piece.is_empty()) {
                    return Ok(piece);
                }
                continue;
            }
            let step = self.step()?;
            self.input.advance(step.read);
            self.open = !step.ended;
            // A full buffer says that there may be more behind it.
            self.more = !step.ended && step.written == self.output.len();
            if step.written > 0 {
                return Ok(Some(Bytes::copy_from_slice(self.output.get(..step.written).unwrap_or_default())));
            }
            if step.read == 0 && !step.ended {
                self.more = false;
                if !self.input.is_empty() {
                    return Err(failed("no progress"));
                }
            }
        }
    }

    fn step(&mut self) -> Result<Step, String> {
        match &mut self.engine {
            Engine::Gzip(inflate) => {
                let (read, written) = (inflate.total_in(), inflate.total_out());
                let status = inflate.decompress(&self.input, &mut self.output, FlushDecompress::None);
                let ended = status.map_err(failed)? == Status::StreamEnd;
                let difference = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(usize::MAX);
                let read = difference(inflate.total_in(), read);
                let written = difference(inflate.total_out(), written);
                if ended {
                    *inflate = Decompress::new_gzip(15);
                }
                Ok(Step { read, written, ended })
            }
            Engine::Zstd(decoder) => {
                let status = decoder.run_on_buffers(&self.input, &mut self.output).map_err(failed)?;
                Ok(Step { read: status.bytes_read, written: status.bytes_written, ended: status.remaining == 0 })
            }
            Engine::Lz4(_) => Err(failed("LZ4 is unpacked by blocks")),
        }
    }

    /// Declares that no more bytes come.
    pub(crate) fn finish(&self) -> Result<(), String> {
        if !self.begun {
            return Err(failed("there is none"));
        }
        if self.open {
            return Err(failed("it ends in the middle of a frame"));
        }
        Ok(())
    }
}

/// In the words of `astreamer_zstd.c`.
fn failed(problem: impl std::fmt::Display) -> String {
    format!("could not decompress data: {problem}")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use backstop_protocol::base_backup::options::Compression;
    use backstop_protocol::base_backup::options::compression::CompressionSupport;
    use proptest::prelude::*;

    use super::super::Encoder;
    use super::*;

    const ALGORITHMS: [CompressionAlgorithm; 3] =
        [CompressionAlgorithm::Gzip, CompressionAlgorithm::Lz4, CompressionAlgorithm::Zstd];

    fn compressed(algorithm: CompressionAlgorithm, detail: Option<&str>, data: &[u8]) -> Vec<u8> {
        let support = CompressionSupport { gzip: true, lz4: true, zstd: true, long_distance: true };
        let compression = Compression::parse(algorithm, detail, support).expect("a compression");
        let mut encoder = Encoder::new(Vec::new(), &compression).expect("an encoder");
        encoder.write_all(data).expect("compressed");
        encoder.finish().expect("an end");
        std::mem::take(encoder.get_mut())
    }

    fn unpacked(algorithm: CompressionAlgorithm, data: &[u8], piece: usize) -> Result<Vec<u8>, String> {
        let mut decoder = Decoder::new(algorithm)?.expect("a decoder");
        let mut out = Vec::new();
        for piece in data.chunks(piece.max(1)) {
            decoder.push(Bytes::copy_from_slice(piece));
            while let Some(bytes) = decoder.next()? {
                assert!(!bytes.is_empty());
                out.extend_from_slice(&bytes);
            }
        }
        decoder.finish().map(|()| out)
    }

    /// Half of it compresses, as with relations.
    fn pages(length: usize) -> Vec<u8> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        (0..length).map(|index| if index % 8192 < 4096 { noise() } else { 0 }).collect()
    }

    #[test]
    fn every_option_is_taken_and_unpacked() {
        let data = pages(3 << 20);
        for (algorithm, detail) in [
            (CompressionAlgorithm::Gzip, None),
            (CompressionAlgorithm::Gzip, Some("9")),
            (CompressionAlgorithm::Lz4, Some("12")),
            (CompressionAlgorithm::Zstd, Some("level=1,workers=2")),
            (CompressionAlgorithm::Zstd, Some("level=1,long")),
            (CompressionAlgorithm::Zstd, Some("-7")),
        ] {
            let packed = compressed(algorithm, detail, &data);
            assert!(packed.len() < data.len(), "{algorithm} {detail:?}");
            assert!(unpacked(algorithm, &packed, 70_000).as_deref() == Ok(&data[..]), "{algorithm} {detail:?}");
        }
    }

    #[test]
    fn frames_may_follow_each_other() {
        for algorithm in ALGORITHMS {
            let two = [compressed(algorithm, None, b"one"), compressed(algorithm, None, b"two")].concat();
            for piece in [1, 7, two.len()] {
                assert_eq!(unpacked(algorithm, &two, piece).as_deref(), Ok(&b"onetwo"[..]), "{algorithm}");
            }
        }
        // Frames that hold nothing, for readers that know what they are.
        let skippable = [&0x184D_2A53_u32.to_le_bytes()[..], &5_u32.to_le_bytes(), b"notes"].concat();
        for algorithm in [CompressionAlgorithm::Lz4, CompressionAlgorithm::Zstd] {
            let data = [&skippable[..], &compressed(algorithm, None, b"one"), &skippable].concat();
            for piece in [1, 3, data.len()] {
                assert_eq!(unpacked(algorithm, &data, piece).as_deref(), Ok(&b"one"[..]), "{algorithm}");
            }
        }
    }

    #[test]
    fn whatever_is_cut_off_is_noticed() {
        let data = pages(600_000);
        for algorithm in ALGORITHMS {
            let packed = compressed(algorithm, None, &data);
            let last = packed.len();
            for cut in [0, 1, 3, 5, 8, 12, 1000, last / 2, last - 9, last - 5, last - 4, last - 1] {
                assert!(unpacked(algorithm, &packed[..cut], 4096).is_err(), "{algorithm} cut at {cut} of {last}");
            }
            let behind = [&packed[..], b"more"].concat();
            assert!(unpacked(algorithm, &behind, 4096).is_err(), "{algorithm} with something behind it");
        }
    }

    #[test]
    fn large_windows_and_blocks_are_refused_before_they_are_allocated() {
        // A frame of Zstandard with a window of 2^41 bytes, and one of 2^28.
        for descriptor in [0xF8, 0x90] {
            let frame = [&0xFD2F_B528_u32.to_le_bytes()[..], &[0, descriptor], &[1, 0, 0]].concat();
            let error = unpacked(CompressionAlgorithm::Zstd, &frame, 64).expect_err("too large a window");
            assert!(error.contains("too much memory"), "{error}");
        }
        // A block of LZ4 that claims more than the frame allows.
        let mut frame = compressed(CompressionAlgorithm::Lz4, None, &[7; 100]);
        frame[7..11].copy_from_slice(&0x7FFF_FFFF_u32.to_le_bytes());
        let error = unpacked(CompressionAlgorithm::Lz4, &frame, 64).expect_err("too large a block");
        assert!(error.contains("more than"), "{error}");
    }

    #[test]
    fn a_bomb_comes_out_in_pieces() {
        let zeros = vec![0; 16 << 20];
        for algorithm in ALGORITHMS {
            let packed = compressed(algorithm, None, &zeros);
            let mut decoder = Decoder::new(algorithm).expect("a decoder").expect("an algorithm");
            decoder.push(packed.into());
            let (mut total, mut largest) = (0, 0);
            while let Some(piece) = decoder.next().expect("sound") {
                total += piece.len();
                largest = largest.max(piece.len());
            }
            assert!(total == zeros.len() && largest <= 4 << 20, "{algorithm}: {total} bytes, {largest} at once");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn what_goes_in_comes_out(index in 0_usize..3, length in 0_usize..400_000, piece in 1_usize..80_000) {
            let data = pages(length);
            let packed = compressed(ALGORITHMS[index], None, &data);
            prop_assert!(unpacked(ALGORITHMS[index], &packed, piece).as_deref() == Ok(&data[..]));
        }

        #[test]
        fn any_bytes_are_safe(index in 0_usize..3, noise: Vec<u8>, at in 0_usize..2000, flip in 1_u8.., piece in 1_usize..3000) {
            let _ = unpacked(ALGORITHMS[index], &noise, piece);
            let mut packed = compressed(ALGORITHMS[index], None, &pages(20_000));
            let place = at % packed.len();
            packed[place] ^= flip;
            let _ = unpacked(ALGORITHMS[index], &packed, piece);
        }
    }
}
