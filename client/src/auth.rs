//! Proving who we are: trust, cleartext, MD5 and SCRAM-SHA-256.

use backstop_protocol::backend::Authentication;
use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;

/// What a step of the exchange leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send these bytes.
    Answer(BytesMut),
    /// Nothing to send.
    Wait,
    /// The server is satisfied.
    Done,
}

/// Why it cannot go on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("fe_sendauth: no password supplied")]
    NoPassword,
    #[error("{0}")]
    Other(String),
}

/// The client's side of one exchange.
pub(crate) struct Exchange<'a> {
    user: &'a str,
    password: Option<&'a str>,
    scram: Scram,
}

enum Scram {
    NotBegun,
    First(ScramSha256),
    Final(ScramSha256),
    /// The server proved that it knows the password too.
    Verified,
}

impl<'a> Exchange<'a> {
    pub(crate) fn new(user: &'a str, password: Option<&'a str>) -> Self {
        Self { user, password, scram: Scram::NotBegun }
    }

    fn password(&self) -> Result<&'a [u8], AuthError> {
        self.password.map(str::as_bytes).ok_or(AuthError::NoPassword)
    }

    /// Answers one message of the server.
    pub(crate) fn step(&mut self, message: &Authentication) -> Result<Step, AuthError> {
        let refuse = |problem: String| Err(AuthError::Other(problem));
        let io = |error: std::io::Error| AuthError::Other(error.to_string());
        let mut out = BytesMut::new();
        match (message, std::mem::replace(&mut self.scram, Scram::NotBegun)) {
            (Authentication::Ok, Scram::NotBegun | Scram::Verified) => return Ok(Step::Done),
            (Authentication::Ok, _) => return refuse("the server ended SCRAM authentication without its proof".into()),
            (Authentication::CleartextPassword, Scram::NotBegun) => {
                frontend::password_message(self.password()?, &mut out).map_err(io)?;
            }
            (Authentication::Md5Password { salt }, Scram::NotBegun) => {
                let hash = md5_hash(self.user.as_bytes(), self.password()?, *salt);
                frontend::password_message(hash.as_bytes(), &mut out).map_err(io)?;
            }
            (Authentication::Sasl { mechanisms }, Scram::NotBegun) => {
                if !mechanisms.iter().any(|mechanism| mechanism == SCRAM_SHA_256) {
                    return refuse("none of the server's SASL authentication mechanisms are supported".into());
                }
                let scram = ScramSha256::new(self.password()?, ChannelBinding::unsupported());
                frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut out).map_err(io)?;
                self.scram = Scram::First(scram);
            }
            (Authentication::SaslContinue(data), Scram::First(mut scram)) => {
                scram.update(data).map_err(io)?;
                frontend::sasl_response(scram.message(), &mut out).map_err(io)?;
                self.scram = Scram::Final(scram);
            }
            (Authentication::SaslFinal(data), Scram::Final(mut scram)) => {
                scram.finish(data).map_err(io)?;
                self.scram = Scram::Verified;
                return Ok(Step::Wait);
            }
            (Authentication::Other(code), _) => return refuse(format!("authentication method {code} not supported")),
            (_, _) => return refuse("authentication messages out of order".into()),
        }
        Ok(Step::Answer(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_md5_as_libpq_does() {
        // md5(md5("secret" + "repl") + salt), computed elsewhere.
        let mut exchange = Exchange::new("repl", Some("secret"));
        let answer = exchange.step(&Authentication::Md5Password { salt: [1, 2, 3, 4] });
        let Ok(Step::Answer(bytes)) = answer else { panic!("{answer:?}") };
        assert_eq!(&bytes[..], b"p\0\0\0\x28md5b3a28fe140b644455fccd78ea2101699\0");
    }

    #[test]
    fn needs_a_password_only_when_asked() {
        assert_eq!(Exchange::new("u", None).step(&Authentication::Ok), Ok(Step::Done));
        assert_eq!(Exchange::new("u", None).step(&Authentication::CleartextPassword), Err(AuthError::NoPassword));
    }

    #[test]
    fn an_unproven_server_is_refused() {
        let mut exchange = Exchange::new("u", Some("secret"));
        let offer = Authentication::Sasl { mechanisms: vec!["SCRAM-SHA-256".into()] };
        assert!(matches!(exchange.step(&offer), Ok(Step::Answer(_))));
        assert!(exchange.step(&Authentication::Ok).is_err());
    }

    #[test]
    fn garbage_in_scram_is_an_error() {
        let mut exchange = Exchange::new("u", Some("secret"));
        let offer = Authentication::Sasl { mechanisms: vec!["SCRAM-SHA-256".into()] };
        assert!(matches!(exchange.step(&offer), Ok(Step::Answer(_))));
        assert!(exchange.step(&Authentication::SaslContinue(bytes::Bytes::from_static(b"r=x,s=,i=1"))).is_err());
        let mut fresh = Exchange::new("u", Some("secret"));
        assert!(fresh.step(&Authentication::SaslFinal(bytes::Bytes::new())).is_err());
    }
}
