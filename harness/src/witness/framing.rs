//! One connection cut into messages, both directions.

use backstop_mock::transcript::Direction;
use backstop_protocol::frame::{Frame, MAX_FRAME, read_frame, read_startup};
use backstop_protocol::frontend::StartupPacket;
use bytes::{Buf, BytesMut};

/// The first byte of a TLS record that begins a handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// Something that passed.
#[derive(Debug)]
pub(crate) enum Passed {
    /// A packet that opens a connection.
    Packet(StartupPacket),
    /// The answer of one byte to a request for encryption.
    Answer(u8),
    /// A message of the client.
    FromClient(Frame),
    /// A message of the server.
    FromServer(Frame),
    /// What follows in this direction cannot be read, and why.
    Lost(Direction, String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Packets without a type from the client, answers of one byte from the server.
    #[default]
    Opening,
    Messages,
    /// Encrypted, or not understood.
    Lost,
}

/// A connection. What waits in it is at most one message for each direction.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    client: (State, BytesMut),
    server: (State, BytesMut),
    /// Requests for encryption that the server has not answered yet.
    requests: usize,
}

impl Framing {
    /// Bytes passed: tells `heard` of every message that is complete now.
    pub(crate) fn push(&mut self, direction: Direction, bytes: &[u8], mut heard: impl FnMut(Passed)) {
        let sent = direction == Direction::Sent;
        let side = if sent { &mut self.server } else { &mut self.client };
        if side.0 == State::Lost {
            return;
        }
        side.1.extend_from_slice(bytes);
        while let Some(passed) = if sent { self.of_server() } else { self.of_client() } {
            heard(passed);
        }
    }

    fn of_client(&mut self) -> Option<Passed> {
        let first = *self.client.1.first()?;
        match self.client.0 {
            State::Lost => None,
            State::Opening if first == TLS_HANDSHAKE => Some(self.lose("TLS begins: what follows is encrypted")),
            State::Opening if first == 0 => match read_startup(&mut self.client.1) {
                Ok(None) => None,
                Ok(Some(packet)) => match StartupPacket::decode(packet) {
                    Ok(packet) => {
                        match packet {
                            StartupPacket::SslRequest | StartupPacket::GssEncRequest => self.requests += 1,
                            StartupPacket::Startup(_) => self.client.0 = State::Messages,
                            StartupPacket::Cancel { .. } => {}
                        }
                        Some(Passed::Packet(packet))
                    }
                    Err(error) => Some(self.lose(&error.to_string())),
                },
                Err(error) => Some(self.lose(&error.to_string())),
            },
            State::Opening | State::Messages => {
                self.client.0 = State::Messages;
                match read_frame(&mut self.client.1, MAX_FRAME) {
                    Ok(frame) => frame.map(Passed::FromClient),
                    Err(error) => {
                        self.client = (State::Lost, BytesMut::new());
                        Some(Passed::Lost(Direction::Received, error.to_string()))
                    }
                }
            }
        }
    }

    fn of_server(&mut self) -> Option<Passed> {
        let first = *self.server.1.first()?;
        match self.server.0 {
            State::Lost => None,
            State::Opening if self.requests > 0 && b"SNG".contains(&first) => {
                self.requests -= 1;
                self.server.1.advance(1);
                Some(Passed::Answer(first))
            }
            State::Opening | State::Messages => {
                self.server.0 = State::Messages;
                match read_frame(&mut self.server.1, MAX_FRAME) {
                    Ok(frame) => frame.map(Passed::FromServer),
                    Err(error) => {
                        self.server = (State::Lost, BytesMut::new());
                        Some(Passed::Lost(Direction::Sent, error.to_string()))
                    }
                }
            }
        }
    }

    /// Gives up on both directions.
    fn lose(&mut self, why: &str) -> Passed {
        self.client = (State::Lost, BytesMut::new());
        self.server = (State::Lost, BytesMut::new());
        Passed::Lost(Direction::Received, why.to_owned())
    }
}
