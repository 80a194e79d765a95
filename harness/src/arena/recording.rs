//! What is taken down while clients are served: every byte, or a cassette.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backstop_mock::capture::Capture;
use backstop_mock::transcript::Direction;

use crate::capture::CaptureWriter;
use crate::cassette::Recorder;

/// Names of files that take down every byte, for whoever reads packets. All others become cassettes, which hold nobody's secrets.
const OF_PACKETS: [&str; 3] = ["pcap", "pcapng", "cap"];

/// A file that takes down what passes.
#[derive(Debug)]
pub(super) enum Recording {
    /// Every byte.
    Packets(CaptureWriter<BufWriter<File>>),
    /// What was said, without what could be a secret.
    Cassette(Recorder<BufWriter<File>>),
}

/// A recording that goes on while clients are served.
pub(super) type SharedRecording = Arc<Mutex<Recording>>;

/// Begins the recording that the name of the file asks for.
pub(super) fn record(path: Option<&Path>) -> Result<Option<SharedRecording>, String> {
    let Some(path) = path else { return Ok(None) };
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    let packets = OF_PACKETS.iter().any(|known| extension == *known);
    let begin = |file: File| {
        let out = BufWriter::new(file);
        Ok(if packets {
            Recording::Packets(CaptureWriter::new(out, u64::MAX)?)
        } else {
            Recording::Cassette(Recorder::new(out)?)
        })
    };
    let recording: io::Result<Recording> = File::create(path).and_then(begin);
    let recording = recording.map_err(|error| format!("could not write {}: {error}", path.display()))?;
    Ok(Some(Arc::new(Mutex::new(recording))))
}

impl Recording {
    /// Writes what waits, so that it can be read while the server runs. A cassette is one when it ends.
    pub(super) fn write_out(&mut self) -> io::Result<()> {
        match self {
            Self::Packets(packets) => packets.finish(),
            Self::Cassette(_) => Ok(()),
        }
    }

    /// Nothing more is taken down.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Packets(packets) => packets.finish(),
            Self::Cassette(cassette) => cassette.finish(),
        }
    }
}

impl Capture for Recording {
    fn bytes(&mut self, at: Duration, session: u32, direction: Direction, bytes: &[u8]) {
        match self {
            Self::Packets(packets) => packets.bytes(at, session, direction, bytes),
            Self::Cassette(cassette) => cassette.bytes(at, session, direction, bytes),
        }
    }

    fn end(&mut self, session: u32) {
        match self {
            Self::Packets(packets) => packets.end(session),
            Self::Cassette(cassette) => cassette.end(session),
        }
    }
}
