//! What can precede the StartupMessage: encryption, and cancel requests.

use backstop_protocol::backend::{Diagnostic, SqlState};
use backstop_protocol::frontend::{Startup, StartupPacket};

use super::{Ending, Session, Stop};
use crate::tls::ALPN;
use crate::transcript::{Direction, Said};

/// The first byte of a TLS handshake. As a length it would be one of hundreds of megabytes.
const TLS_HANDSHAKE: u8 = 0x16;

/// The longest token that GSSAPI encryption begins with.
const GSS_TOKEN: usize = 65_536;

impl Session {
    /// Answers requests for encryption, serves a cancel request, and returns the StartupMessage.
    pub(super) async fn read_startup(&mut self) -> Result<Startup, Stop> {
        self.accept_direct_tls().await?;
        let (mut asked_ssl, mut asked_gss) = (false, false);
        loop {
            self.flush().await?;
            let packet = self.wire.read_startup().await.ok_or(Ending::Gone)?;
            match StartupPacket::decode(packet) {
                Ok(StartupPacket::Startup(startup)) => {
                    let parameters = startup.parameters.iter().map(|(name, value)| format!("{name}={value}"));
                    let parameters = parameters.collect::<Vec<_>>().join(" ");
                    let detail = format!("{}.{} {parameters}", startup.major, startup.minor);
                    self.note_packet("StartupMessage", Direction::Received, &detail);
                    return Ok(startup);
                }
                Ok(StartupPacket::Cancel { pid, key }) => {
                    self.note_packet("CancelRequest", Direction::Received, &format!("pid {pid}"));
                    self.shared.cancel(pid, &key);
                    return Err(Ending::Close.into());
                }
                Ok(StartupPacket::SslRequest) => {
                    self.note_packet("SSLRequest", Direction::Received, "");
                    if asked_ssl {
                        return Err(self.unsupported_protocol(1234, 5679));
                    }
                    self.answer_ssl_request().await?;
                    asked_ssl = true;
                    asked_gss |= self.wire.is_encrypted();
                }
                Ok(StartupPacket::GssEncRequest) => {
                    self.note_packet("GSSENCRequest", Direction::Received, "");
                    if asked_gss || !self.version.has_gss_encryption() {
                        return Err(self.unsupported_protocol(1234, 5680));
                    }
                    self.answer_gss_request().await?;
                    asked_gss = true;
                }
                // A key of a length that there is not.
                Err(error) if error.message == "CancelRequest" => return Err(Ending::Close.into()),
                Err(_) => {
                    let message = "invalid startup packet layout: expected terminator as last byte";
                    return Err(Diagnostic::error(SqlState::PROTOCOL_VIOLATION, message).into());
                }
            }
        }
    }

    /// A connection that begins with TLS instead of asking for it (`ProcessSSLStartup`). Nothing is said when it is refused.
    async fn accept_direct_tls(&mut self) -> Result<(), Stop> {
        if !self.version.has_direct_tls() || self.wire.peek().await != Some(TLS_HANDSHAKE) {
            return Ok(());
        }
        let shared = self.shared.clone();
        let Some(tls) = shared.tls.as_ref().filter(|_| self.wire.peer.is_some()) else {
            return Err(Ending::Close.into());
        };
        self.note_packet("TLS", Direction::Received, "");
        if !self.wire.encrypt(tls.acceptor(), true).await {
            return Err(Ending::Gone.into());
        }
        if self.wire.alpn() == Some(ALPN) { Ok(()) } else { Err(Ending::Close.into()) }
    }

    async fn answer_ssl_request(&mut self) -> Result<(), Stop> {
        let shared = self.shared.clone();
        // Not on Unix sockets, and not twice.
        let tls = shared.tls.as_ref().filter(|_| self.wire.peer.is_some() && !self.wire.is_encrypted());
        let in_clear = self.wire.has_more();
        let (message, answer) = if tls.is_some() { ("acceptance", "S") } else { ("refusal", "N") };
        self.note_packet(message, Direction::Sent, answer);
        self.wire.output.extend_from_slice(answer.as_bytes());
        if let Some(tls) = tls {
            self.flush().await?;
            if !self.wire.encrypt(tls.acceptor(), false).await {
                return Err(Ending::Gone.into());
            }
        }
        self.refuse_unencrypted_data(in_clear, "received unencrypted data after SSL request")
    }

    async fn answer_gss_request(&mut self) -> Result<(), Stop> {
        if self.shared.config.gssapi && self.wire.peer.is_some() {
            self.note_packet("acceptance", Direction::Sent, "G");
            self.wire.output.extend_from_slice(b"G");
            self.flush().await?;
            // No token is any good to a server without credentials, and it says nothing about it.
            self.wire.skip_token(GSS_TOKEN).await;
            return Err(Ending::Close.into());
        }
        let in_clear = self.wire.has_more();
        self.note_packet("refusal", Direction::Sent, "N");
        self.wire.output.extend_from_slice(b"N");
        self.refuse_unencrypted_data(in_clear, "received unencrypted data after GSSAPI encryption request")
    }

    /// Bytes that came behind the request could have been put there by somebody else.
    fn refuse_unencrypted_data(&mut self, in_clear: bool, message: &str) -> Result<(), Stop> {
        if !in_clear || !self.version.refuses_unencrypted_data() {
            return Ok(());
        }
        if self.version.speaks_protocol_2() {
            return Err(self.refuse_in_protocol_2(message));
        }
        let detail = "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.";
        Err(Diagnostic::error(SqlState::PROTOCOL_VIOLATION, message).with_detail(detail).into())
    }

    fn note_packet(&self, message: &'static str, direction: Direction, detail: &str) {
        self.shared.record(self.seat.number, &Said { direction, message, detail, bytes: 0, folds: false });
    }
}
