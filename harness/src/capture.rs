//! Captures of what passed on the wire, as `tcpdump` writes them: any tool that reads such files reads these.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::time::Duration;

use backstop_mock::capture::Capture;
use backstop_mock::transcript::Direction;
use etherparse::PacketBuilder;

/// No capture of a case that is kept is larger, in bytes of payload. What follows is left out, which readers see as missing.
pub const MOST_KEPT: u64 = 64 << 20;

/// PostgreSQL's port, by which other tools know the protocol.
const PORT: u16 = 5432;
/// The first of the ports that nobody has registered.
const FIRST_CLIENT_PORT: u16 = 49_152;
/// The most that fits into a packet: an IPv4 packet has 65535 bytes at most, and 40 of them are headers.
const PAYLOAD: usize = 65_000;
/// `LINKTYPE_RAW`: packets begin with their IP header.
const LINK_RAW: u32 = 101;
const WINDOW: u16 = u16::MAX;

/// Writes a capture: each connection is a TCP connection on the loopback interface, from port 49152 and its number.
#[derive(Debug)]
pub struct CaptureWriter<W> {
    out: W,
    connections: BTreeMap<u32, Connection>,
    /// Bytes of payload that may still be written.
    left: u64,
    failure: Option<io::Error>,
}

#[derive(Debug, Default)]
struct Connection {
    /// The next sequence number of the client, and of the server.
    next: [u32; 2],
    last: Duration,
}

impl<W: Write> CaptureWriter<W> {
    /// A capture that goes to `out`, of at most `limit` bytes of payload.
    ///
    /// # Errors
    /// What `out` says of the file's header.
    pub fn new(mut out: W, limit: u64) -> io::Result<Self> {
        // The order of the first number's bytes tells readers that of all others.
        out.write_all(&0xA1B2_C3D4_u32.to_le_bytes())?;
        // Version 2.4 of the format, times in UTC, and a field that nobody uses.
        out.write_all(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
        out.write_all(&u32::from(u16::MAX).to_le_bytes())?;
        out.write_all(&LINK_RAW.to_le_bytes())?;
        Ok(Self { out, connections: BTreeMap::new(), left: limit, failure: None })
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// The first thing that could not be written.
    pub fn finish(&mut self) -> io::Result<()> {
        match self.failure.take() {
            Some(error) => Err(error),
            None => self.out.flush(),
        }
    }

    /// What it was written to.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn into_inner(mut self) -> io::Result<W> {
        self.finish()?;
        Ok(self.out)
    }

    /// Does what `write` does unless an error came before.
    fn attempt(&mut self, write: impl FnOnce(&mut Self) -> io::Result<()>) {
        if self.failure.is_none() {
            self.failure = write(self).err();
        }
    }

    fn packet(&mut self, at: Duration, session: u32, from: Direction, flags: Flags, payload: &[u8]) -> io::Result<()> {
        let connection = self.connections.entry(session).or_default();
        connection.last = at;
        // Ports are few; a server with more connections than that uses them again.
        let client = FIRST_CLIENT_PORT + u16::try_from(session % 16_384).unwrap_or_default();
        let (me, peer, ports) = match from {
            Direction::Sent => (1, 0, (PORT, client)),
            Direction::Received | Direction::Note => (0, 1, (client, PORT)),
        };
        let (sequence, acknowledged) = (connection.next[me], connection.next[peer]);
        let length = u32::try_from(payload.len()).unwrap_or_default();
        connection.next[me] = sequence.wrapping_add(length).wrapping_add(u32::from(flags != Flags::Data));
        let address = Ipv4Addr::LOCALHOST.octets();
        let mut builder = PacketBuilder::ipv4(address, address, 64).tcp(ports.0, ports.1, sequence, WINDOW);
        builder = match flags {
            Flags::Open if from == Direction::Received => builder.syn(),
            Flags::Open => builder.syn().ack(acknowledged),
            Flags::Data => builder.psh().ack(acknowledged),
            Flags::End => builder.fin().ack(acknowledged),
        };
        let mut packet = Vec::with_capacity(builder.size(payload.len()));
        builder.write(&mut packet, payload).map_err(io::Error::other)?;
        let length = u32::try_from(packet.len()).map_err(io::Error::other)?;
        let seconds = u32::try_from(at.as_secs()).unwrap_or(u32::MAX);
        for field in [seconds, at.subsec_micros(), length, length] {
            self.out.write_all(&field.to_le_bytes())?;
        }
        self.out.write_all(&packet)
    }

    fn data(&mut self, at: Duration, session: u32, direction: Direction, bytes: &[u8]) -> io::Result<()> {
        if !self.connections.contains_key(&session) {
            self.packet(at, session, Direction::Received, Flags::Open, &[])?;
            self.packet(at, session, Direction::Sent, Flags::Open, &[])?;
        }
        for piece in bytes.chunks(PAYLOAD) {
            let length = piece.len() as u64;
            if length > self.left {
                // Nothing at all after the first gap: small messages must not fill in what a large one left. Readers see from the
                // numbers that something is missing.
                self.left = 0;
                let connection = self.connections.entry(session).or_default();
                let next = &mut connection.next[usize::from(direction == Direction::Sent)];
                *next = next.wrapping_add(u32::try_from(length).unwrap_or_default());
                continue;
            }
            self.left -= length;
            self.packet(at, session, direction, Flags::Data, piece)?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flags {
    Open,
    Data,
    End,
}

impl<W: Write + Send + std::fmt::Debug> Capture for CaptureWriter<W> {
    fn bytes(&mut self, at: Duration, session: u32, direction: Direction, bytes: &[u8]) {
        self.attempt(|this| this.data(at, session, direction, bytes));
    }

    fn end(&mut self, session: u32) {
        let Some(last) = self.connections.get(&session).map(|connection| connection.last) else { return };
        self.attempt(|this| {
            this.packet(last, session, Direction::Sent, Flags::End, &[])?;
            this.packet(last, session, Direction::Received, Flags::End, &[])
        });
    }
}
