//! Authentication.
//!
//! Every role has the same password: the setting `backstop.password`, or `secret`. With the setting `backstop.user` there
//! is that role only; without it there is any.

use std::fmt::Write as _;

use backstop_protocol::backend::{Authentication, BackendMessage, Diagnostic, SqlState};
use backstop_protocol::frontend::FrontendMessage;
use bytes::{Buf, Bytes};
use postgres_protocol::authentication::md5_hash;

use super::scram::{Exchange, MECHANISM, ScramError};
use super::wire::Received;
use super::{Ending, Session, Stop};
use crate::config::Auth;
use crate::random;

/// `PG_MAX_AUTH_TOKEN_LENGTH`.
const MAX_TOKEN: usize = 65535;

impl Session {
    /// The exchange up to AuthenticationOk.
    pub(super) async fn authenticate(&mut self) -> Result<(), Stop> {
        let secret = self.secret();
        let proven = match self.shared.config.auth {
            Auth::Trust => true,
            Auth::Password => {
                self.ask(Authentication::CleartextPassword).await?;
                let answer = self.answer().await?;
                secret.is_some_and(|secret| answer.strip_suffix(b"\0") == Some(secret.as_bytes()))
            }
            Auth::Md5 => {
                let salt = random::bytes(self.shared.config.seed, self.seat.number, "md5 salt");
                self.ask(Authentication::Md5Password { salt }).await?;
                let answer = self.answer().await?;
                secret.is_some_and(|secret| {
                    let expected = md5_hash(self.user.as_bytes(), secret.as_bytes(), salt);
                    answer.strip_suffix(b"\0") == Some(expected.as_bytes())
                })
            }
            Auth::ScramSha256 => self.scram(secret).await?,
        };
        if !proven {
            let message = format!("password authentication failed for user \"{}\"", self.user);
            return Err(Diagnostic::error(SqlState::INVALID_PASSWORD, message).into());
        }
        self.ask(Authentication::Ok).await?;
        if self.secret().is_none() {
            let message = format!("role \"{}\" does not exist", self.user);
            return Err(Diagnostic::error(SqlState::INVALID_AUTHORIZATION_SPECIFICATION, message).into());
        }
        Ok(())
    }

    /// The role's password, if the role exists.
    fn secret(&self) -> Option<String> {
        let settings = &self.shared.config.settings;
        let exists = settings.get("backstop.user").is_none_or(|user| *user == self.user);
        exists.then(|| settings.get("backstop.password").cloned().unwrap_or_else(|| "secret".to_owned()))
    }

    async fn ask(&mut self, authentication: Authentication) -> Result<(), Stop> {
        self.send(BackendMessage::Authentication(authentication)).await
    }

    /// The body of the client's next message, which must be of type `p`.
    async fn answer(&mut self) -> Result<Bytes, Stop> {
        self.flush().await?;
        // Without the message, which holds a secret, PostgreSQL says nothing when the client goes away instead.
        let received = self.wire.read(MAX_TOKEN).await;
        if let Received::Unknown(_) | Received::Malformed(_) = received {
            return Err(violation("expected password response", None));
        }
        match self.heard(received)? {
            FrontendMessage::Password(body) => Ok(body),
            FrontendMessage::Terminate => Err(Ending::Terminated.into()),
            other => {
                let mut message = String::from("expected password response, got message type ");
                // Writing to a String cannot fail.
                let _ = write!(message, "{}", other.tag());
                Err(violation(&message, None))
            }
        }
    }

    /// SCRAM-SHA-256; whether the client knows the password.
    async fn scram(&mut self, secret: Option<String>) -> Result<bool, Stop> {
        let (seed, number) = (self.shared.config.seed, self.seat.number);
        self.ask(Authentication::Sasl { mechanisms: vec![MECHANISM.to_owned()] }).await?;
        let mut initial = self.answer().await?;
        let mechanism_ends = initial.iter().position(|byte| *byte == 0);
        let malformed = || violation("invalid SASLInitialResponse", None);
        let mechanism = initial.split_to(mechanism_ends.ok_or_else(malformed)?);
        initial.advance(1);
        if mechanism != MECHANISM {
            return Err(violation("client selected an invalid SASL authentication mechanism", None));
        }
        let length = initial.try_get_i32().map_err(|_| malformed())?;
        if usize::try_from(length) != Ok(initial.len()) {
            return Err(malformed());
        }
        // A role's salt is the same in all its sessions, as if it were stored.
        let salt = random::bytes(seed, 0, &format!("scram salt of {}", self.user));
        let nonce = random::bytes(seed, number, "scram nonce");
        let exchange = Exchange::begin(&initial, secret.as_deref(), salt, nonce).map_err(scram_stop)?;
        self.ask(Authentication::SaslContinue(exchange.server_first().to_owned().into())).await?;
        let response = self.answer().await?;
        match exchange.finish(&response) {
            Ok(server_final) => {
                self.ask(Authentication::SaslFinal(server_final.into())).await?;
                Ok(true)
            }
            Err(ScramError::Refused) => Ok(false),
            Err(error) => Err(scram_stop(error)),
        }
    }
}

fn scram_stop(error: ScramError) -> Stop {
    match error {
        ScramError::Malformed(detail) => violation("malformed SCRAM message", Some(detail)),
        ScramError::Refused => violation("malformed SCRAM message", None),
    }
}

fn violation(message: &str, detail: Option<&str>) -> Stop {
    let diagnostic = Diagnostic::error(SqlState::PROTOCOL_VIOLATION, message);
    Diagnostic { detail: detail.map(str::to_owned), ..diagnostic }.into()
}
