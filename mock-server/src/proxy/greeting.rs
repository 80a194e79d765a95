//! From the first byte to the StartupMessage: encryption on the client's side, cancel requests, and the connection to the server.

use std::time::Duration;

use backstop_protocol::backend::{Diagnostic, SqlState};
use backstop_protocol::frontend::{Startup, StartupPacket};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::downward::Downward;
use super::session::{Ending, Stop};
use super::upstream::{Link, Opened};
use crate::fault::Moment;
use crate::tls::ALPN;
use crate::transcript::{Direction, Said};

/// `authentication_timeout`: how long a client may take to say who it is.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How long a server may take to close a connection that was opened for a cancel request.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// The first byte of a TLS handshake. As a length it would be one of hundreds of megabytes.
const TLS_HANDSHAKE: u8 = 0x16;

/// A connection to the server on which the client's StartupMessage was sent.
pub(super) struct Greeted {
    pub(super) link: Box<dyn Link>,
    /// Whether both sides are encrypted, each with keys of its own: no channel binding can hold then.
    pub(super) bound_twice: bool,
    /// Whether the server offers to bind a channel that the client does not have.
    pub(super) hides_binding: bool,
    /// Whether it is a walsender's session.
    pub(super) takes_commands: bool,
}

/// Serves a client up to its StartupMessage, and passes that on.
pub(super) async fn greet(down: &mut Downward) -> Result<Greeted, Ending> {
    down.at_greeting(Moment::Connect).await?;
    // Faults may stretch the start-up at will: only waiting for the client is limited.
    let read = tokio::time::timeout(TIMEOUT, read_startup(down)).await;
    let (packet, startup) = read.unwrap_or(Err(Ending::Close))?;
    let startup = startup.unwrap_or_default();
    down.seat.identify(|identity| {
        identity.application_name = startup.get("application_name").map(str::to_owned);
    });
    down.at_greeting(Moment::Startup).await?;
    let Opened { link, encrypted } = down.shared.upstream.connect().await.map_err(|error| unreachable(&error))?;
    let mut link = down.shared.tapped(down.seat.number, link);
    let mut whole = Vec::with_capacity(4 + packet.len());
    whole.extend_from_slice(&u32::try_from(4 + packet.len()).unwrap_or(u32::MAX).to_be_bytes());
    whole.extend_from_slice(&packet);
    link.write_all(&whole).await.map_err(|error| unreachable(&error))?;
    link.flush().await.map_err(|error| unreachable(&error))?;
    let client_encrypted = down.outlet.is_encrypted();
    Ok(Greeted {
        link,
        bound_twice: client_encrypted && encrypted,
        hides_binding: encrypted,
        takes_commands: startup.get("replication").is_some_and(|value| !matches!(value, "false" | "off" | "no" | "0")),
    })
}

/// What a client hears when there is no server behind the proxy.
fn unreachable(error: &std::io::Error) -> Ending {
    let code = SqlState::new("08001").unwrap_or(SqlState::INTERNAL_ERROR);
    Ending::Fatal(Diagnostic::fatal(code, format!("the proxy could not connect to its upstream: {error}")))
}

/// Answers requests for encryption, passes a cancel request on, and returns the StartupMessage, decoded if it can be.
async fn read_startup(down: &mut Downward) -> Result<(Bytes, Option<Startup>), Ending> {
    let shared = down.shared.clone();
    if down.outlet.peek().await == Some(TLS_HANDSHAKE) {
        // With direct TLS nothing is said to those who cannot have it.
        let tls = shared.tls.as_ref().filter(|_| down.outlet.has_address()).ok_or(Ending::Close)?;
        note(down, "TLS", Direction::Received, "");
        if !down.outlet.encrypt(tls.acceptor(), true).await {
            return Err(Ending::Gone);
        }
        if down.outlet.alpn() != Some(ALPN) {
            return Err(Ending::Close);
        }
    }
    loop {
        down.outlet.flush().await?;
        let packet = down.outlet.read_startup().await.ok_or(Ending::Gone)?;
        match StartupPacket::decode(packet.clone()) {
            Ok(StartupPacket::Startup(startup)) => {
                let parameters = startup.parameters.iter().map(|(name, value)| format!("{name}={value}"));
                let parameters = parameters.collect::<Vec<_>>().join(" ");
                let detail = format!("{}.{} {parameters}", startup.major, startup.minor);
                note(down, "StartupMessage", Direction::Received, &detail);
                return Ok((packet, Some(startup)));
            }
            Ok(StartupPacket::Cancel { pid, key }) => {
                note(down, "CancelRequest", Direction::Received, &format!("pid {pid}"));
                shared.canceled(pid, &key);
                cancel(down, pid, &key).await;
                return Err(Ending::Close);
            }
            Ok(StartupPacket::SslRequest) => {
                note(down, "SSLRequest", Direction::Received, "");
                let tls = shared.tls.as_ref().filter(|_| down.outlet.has_address() && !down.outlet.is_encrypted());
                let (message, answer) = if tls.is_some() { ("acceptance", "S") } else { ("refusal", "N") };
                note(down, message, Direction::Sent, answer);
                down.outlet.output.extend_from_slice(answer.as_bytes());
                if let Some(tls) = tls {
                    down.outlet.flush().await?;
                    if !down.outlet.encrypt(tls.acceptor(), false).await {
                        return Err(Ending::Gone);
                    }
                }
            }
            Ok(StartupPacket::GssEncRequest) => {
                note(down, "GSSENCRequest", Direction::Received, "");
                note(down, "refusal", Direction::Sent, "N");
                down.outlet.output.extend_from_slice(b"N");
            }
            // The server has words for it.
            Err(_) => return Ok((packet, None)),
        }
    }
}

/// Asks the server to cancel what the session with this key is doing. It says nothing to that.
pub(super) async fn cancel(down: &Downward, pid: i32, key: &Bytes) {
    let mut packet = bytes::BytesMut::new();
    StartupPacket::Cancel { pid, key: key.clone() }.encode(&mut packet);
    let asking = async {
        let mut link = down.shared.upstream.connect().await?.link;
        link.write_all(&packet).await?;
        link.flush().await?;
        // Nothing comes but the end, in whatever form.
        let _ = link.read_u8().await;
        std::io::Result::Ok(())
    };
    // Whether it has an effect is seen on the session.
    if let Ok(Err(error)) = tokio::time::timeout(CANCEL_TIMEOUT, asking).await {
        down.shared.note_as(down.seat.number, "upstream", &error.to_string());
    }
}

fn note(down: &Downward, message: &'static str, direction: Direction, detail: &str) {
    down.shared.record(down.seat.number, &Said { direction, message, detail, bytes: 0, folds: false });
}

impl Downward {
    /// A point before the server takes part: an ERROR there is the last word.
    async fn at_greeting(&mut self, moment: Moment<'_>) -> Result<(), Ending> {
        match self.at(moment).await {
            Ok(_) | Err(Stop::Hushed) => Ok(()),
            Err(Stop::Error(error)) => Err(Ending::Fatal(error)),
            Err(Stop::End(ending)) => Err(ending),
        }
    }
}
