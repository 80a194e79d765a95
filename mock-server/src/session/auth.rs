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
        let exchange = Exchange::begin(&initial, secret.as_deref(), salt, nonce).map_err(|error| scram_stop(&error))?;
        self.ask(Authentication::SaslContinue(exchange.server_first().to_owned().into())).await?;
        let response = self.answer().await?;
        match exchange.finish(&response) {
            Ok(server_final) => {
                self.ask(Authentication::SaslFinal(server_final.into())).await?;
                Ok(true)
            }
            Err(ScramError::Refused) => Ok(false),
            Err(error) => Err(scram_stop(&error)),
        }
    }
}

fn scram_stop(error: &ScramError) -> Stop {
    match error {
        ScramError::Malformed(detail) => violation("malformed SCRAM message", Some(detail)),
        ScramError::Refused => violation("malformed SCRAM message", None),
    }
}

fn violation(message: &str, detail: Option<&str>) -> Stop {
    let diagnostic = Diagnostic::error(SqlState::PROTOCOL_VIOLATION, message);
    Diagnostic { detail: detail.map(str::to_owned), ..diagnostic }.into()
}

#[cfg(test)]
mod tests {
    use backstop_protocol::backend::{Authentication, BackendMessage};
    use backstop_protocol::frontend::FrontendMessage;
    use backstop_protocol::version::ServerVersion;
    use bytes::{BufMut, BytesMut};
    use postgres_protocol::authentication::md5_hash;
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

    use crate::config::{Auth, Config};
    use crate::server::Server;
    use crate::testing::{Client, End, config, diagnostics};

    fn server(auth: Auth, settings: &[(&str, &str)]) -> Server {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Server::new(Config { auth, settings, ..config(ServerVersion::V18, vec![]) }).unwrap()
    }

    /// Answers challenges as postgres-protocol does; the errors that came, and the end.
    async fn log_in(server: &Server, password: &str) -> (Vec<String>, End) {
        let mut client = Client::connect(server);
        client.start_up("test").await;
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        loop {
            let message = match client.next().await {
                Ok(BackendMessage::Authentication(asked)) => asked,
                Ok(BackendMessage::ErrorResponse(error)) => {
                    let told = diagnostics(&[BackendMessage::ErrorResponse(error)]);
                    return (told, client.next().await.unwrap_err());
                }
                Ok(BackendMessage::ReadyForQuery(_)) => return (vec![], End::Ready),
                Ok(_) => continue,
                Err(end) => return (vec![], end),
            };
            let answer = match message {
                Authentication::Ok => continue,
                Authentication::CleartextPassword => [password.as_bytes(), b"\0"].concat(),
                Authentication::Md5Password { salt } => {
                    [md5_hash(b"repl", password.as_bytes(), salt).as_bytes(), b"\0"].concat()
                }
                Authentication::Sasl { mechanisms } => {
                    assert_eq!(mechanisms, ["SCRAM-SHA-256"]);
                    let mut answer = BytesMut::from(b"SCRAM-SHA-256\0".as_slice());
                    answer.put_i32(i32::try_from(scram.message().len()).unwrap());
                    answer.put_slice(scram.message());
                    answer.to_vec()
                }
                Authentication::SaslContinue(data) => {
                    scram.update(&data).unwrap();
                    scram.message().to_vec()
                }
                Authentication::SaslFinal(data) => {
                    scram.finish(&data).unwrap();
                    continue;
                }
                Authentication::Other(code) => panic!("unknown challenge {code}"),
            };
            client.send(&FrontendMessage::Password(answer.into())).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_method_lets_in_who_knows_the_password() {
        for auth in [Auth::Trust, Auth::Password, Auth::Md5, Auth::ScramSha256] {
            let server = server(auth, &[("backstop.password", "geheim")]);
            assert_eq!(log_in(&server, "geheim").await, (vec![], End::Ready), "{auth:?}");
            let refused = vec!["FATAL 28P01: password authentication failed for user \"repl\"".to_owned()];
            let expected = if auth == Auth::Trust { (vec![], End::Ready) } else { (refused, End::Closed(0)) };
            assert_eq!(log_in(&server, "secret").await, expected, "{auth:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_role_is_refused_at_the_end() {
        for auth in [Auth::Password, Auth::Md5, Auth::ScramSha256] {
            let server = server(auth, &[("backstop.user", "other")]);
            let refused = vec!["FATAL 28P01: password authentication failed for user \"repl\"".to_owned()];
            assert_eq!(log_in(&server, "secret").await, (refused, End::Closed(0)), "{auth:?}");
        }
        let server = server(Auth::Trust, &[("backstop.user", "other")]);
        let refused = vec!["FATAL 28000: role \"repl\" does not exist".to_owned()];
        assert_eq!(log_in(&server, "").await, (refused, End::Closed(0)));
    }
}
