//! Proving who we are: trust, cleartext, MD5 and SCRAM-SHA-256, the latter tied to the encrypted connection where that can be.

use backstop_protocol::backend::Authentication;
use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::frontend;

use crate::login::{ChannelBinding, Login, Method};

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

/// What the exchange goes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// Nothing is encrypted.
    Clear,
    /// Under TLS, with what the server's certificate has for `tls-server-end-point`.
    Encrypted(Option<Vec<u8>>),
}

/// The client's side of one exchange.
pub(crate) struct Exchange<'a> {
    login: &'a Login,
    password: Option<&'a str>,
    channel: Channel,
    scram: Scram,
    /// How the server was content.
    method: Method,
    bound: bool,
}

enum Scram {
    NotBegun,
    First(ScramSha256),
    Final(ScramSha256),
    /// The server proved that it knows the password too.
    Verified,
}

fn refuse<T>(problem: impl Into<String>) -> Result<T, AuthError> {
    Err(AuthError::Other(problem.into()))
}

impl<'a> Exchange<'a> {
    pub(crate) fn new(login: &'a Login, password: Option<&'a str>, channel: Channel) -> Self {
        Self { login, password, channel, scram: Scram::NotBegun, method: Method::None, bound: false }
    }

    fn password(&self) -> Result<&'a [u8], AuthError> {
        self.password.map(str::as_bytes).ok_or(AuthError::NoPassword)
    }

    /// Whether a password that no encrypted connection holds may be sent, and sent in this way.
    fn admit(&mut self, method: Method, requested: &str) -> Result<(), AuthError> {
        self.check_method(method, requested)?;
        if self.login.channel_binding == ChannelBinding::Require && method != Method::ScramSha256 {
            return refuse("channel binding required but not supported by server's authentication request");
        }
        self.method = method;
        Ok(())
    }

    fn check_method(&self, method: Method, requested: &str) -> Result<(), AuthError> {
        match &self.login.methods {
            Some(methods) if !methods.allows(method) => {
                refuse(format!("authentication method requirement \"{methods}\" failed: {requested}"))
            }
            _ => Ok(()),
        }
    }

    /// Answers one message of the server.
    pub(crate) fn step(&mut self, message: &Authentication) -> Result<Step, AuthError> {
        let io = |error: std::io::Error| AuthError::Other(error.to_string());
        let mut out = BytesMut::new();
        match (message, std::mem::replace(&mut self.scram, Scram::NotBegun)) {
            (Authentication::Ok, Scram::NotBegun | Scram::Verified) => return self.finish(),
            (Authentication::Ok, _) => return refuse("the server ended SCRAM authentication without its proof"),
            (Authentication::CleartextPassword, Scram::NotBegun) => {
                self.admit(Method::Password, "server requested a cleartext password")?;
                frontend::password_message(self.password()?, &mut out).map_err(io)?;
            }
            (Authentication::Md5Password { salt }, Scram::NotBegun) => {
                self.admit(Method::Md5, "server requested a hashed password")?;
                let hash = md5_hash(self.login.user.as_bytes(), self.password()?, *salt);
                frontend::password_message(hash.as_bytes(), &mut out).map_err(io)?;
            }
            (Authentication::Sasl { mechanisms }, Scram::NotBegun) => {
                let (mechanism, binding) = self.mechanism(mechanisms)?;
                let scram = ScramSha256::new(self.password()?, binding);
                frontend::sasl_initial_response(mechanism, scram.message(), &mut out).map_err(io)?;
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
            (Authentication::Other(code), _) => {
                let requested = match code {
                    7 => "server requested GSSAPI authentication",
                    9 => "server requested SSPI authentication",
                    _ => "server requested an unknown authentication type",
                };
                self.admit(Method::Foreign, requested)?;
                return refuse(format!("authentication method {code} not supported"));
            }
            (_, _) => return refuse("authentication messages out of order"),
        }
        Ok(Step::Answer(out))
    }

    /// The mechanism to use, and what the client says of channel binding in it. Not to be bound where that could be, and somebody in
    /// the middle took the offer away, must be told: the server then refuses.
    fn mechanism(&mut self, offered: &[String]) -> Result<(&'static str, sasl::ChannelBinding), AuthError> {
        let offers = |name| offered.iter().any(|mechanism| mechanism == name);
        let (plus, plain) = (offers(SCRAM_SHA_256_PLUS), offers(SCRAM_SHA_256));
        let wanted = self.login.channel_binding;
        if plus && self.channel == Channel::Clear {
            // libpq's words for a server that contradicts itself, or somebody in the middle.
            return refuse("server offered SCRAM-SHA-256-PLUS authentication over a non-SSL connection");
        }
        if !plus && !plain {
            return refuse("none of the server's SASL authentication mechanisms are supported");
        }
        self.check_method(Method::ScramSha256, "server requested SCRAM-SHA-256 authentication")?;
        self.method = Method::ScramSha256;
        match (self.channel.clone(), wanted) {
            (Channel::Clear, ChannelBinding::Require) => refuse("channel binding required, but SSL not in use"),
            (Channel::Clear, _) => Ok((SCRAM_SHA_256, sasl::ChannelBinding::unsupported())),
            (Channel::Encrypted(_), ChannelBinding::Disable) if plain => {
                Ok((SCRAM_SHA_256, sasl::ChannelBinding::unsupported()))
            }
            (Channel::Encrypted(Some(end_point)), ChannelBinding::Prefer | ChannelBinding::Require) if plus => {
                self.bound = true;
                Ok((SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(end_point)))
            }
            (Channel::Encrypted(_), ChannelBinding::Require) if !plus => refuse(
                "channel binding is required, but server did not offer an authentication method that supports channel \
                 binding",
            ),
            (Channel::Encrypted(None), _) if plus => {
                refuse("could not find digest for the signature of the server's certificate")
            }
            (Channel::Encrypted(_), _) if plain => Ok((SCRAM_SHA_256, sasl::ChannelBinding::unrequested())),
            _ => refuse("none of the server's SASL authentication mechanisms are supported"),
        }
    }

    /// AuthenticationOk: whether that was enough.
    fn finish(&self) -> Result<Step, AuthError> {
        self.check_method(self.method, "server did not complete authentication")?;
        if self.login.channel_binding == ChannelBinding::Require && !self.bound {
            return refuse("channel binding required, but server authenticated client without channel binding");
        }
        Ok(Step::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::login::Methods;

    fn login() -> Login {
        Login::new("repl", "test")
    }

    fn offer(mechanisms: &[&str]) -> Authentication {
        Authentication::Sasl { mechanisms: mechanisms.iter().map(|name| (*name).to_owned()).collect() }
    }

    /// The first answer's mechanism and what it says of channel binding.
    fn chosen(login: &Login, channel: Channel, mechanisms: &[&str]) -> String {
        match Exchange::new(login, Some("secret"), channel).step(&offer(mechanisms)) {
            Ok(Step::Answer(bytes)) => {
                // p, the length, the mechanism, a zero byte, a length, the header and the rest.
                let text = String::from_utf8_lossy(&bytes[5..]).into_owned();
                let (mechanism, rest) = text.split_once('\0').expect("a mechanism");
                format!("{mechanism} {}", rest[4..].split(",,").next().unwrap_or_default())
            }
            Ok(step) => panic!("{step:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn answers_md5_as_libpq_does() {
        // md5(md5("secret" + "repl") + salt), computed elsewhere.
        let login = login();
        let mut exchange = Exchange::new(&login, Some("secret"), Channel::Clear);
        let answer = exchange.step(&Authentication::Md5Password { salt: [1, 2, 3, 4] });
        let Ok(Step::Answer(bytes)) = answer else { panic!("{answer:?}") };
        assert_eq!(&bytes[..], b"p\0\0\0\x28md5b3a28fe140b644455fccd78ea2101699\0");
    }

    #[test]
    fn needs_a_password_only_when_asked() {
        let login = login();
        assert_eq!(Exchange::new(&login, None, Channel::Clear).step(&Authentication::Ok), Ok(Step::Done));
        let cleartext = Exchange::new(&login, None, Channel::Clear).step(&Authentication::CleartextPassword);
        assert_eq!(cleartext, Err(AuthError::NoPassword));
    }

    #[test]
    fn binds_the_channel_where_it_can() {
        let both = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"];
        let bound = || Channel::Encrypted(Some(vec![1; 32]));
        let mut login = login();
        let mut said = vec![
            chosen(&login, Channel::Clear, &["SCRAM-SHA-256"]),
            chosen(&login, Channel::Clear, &both),
            chosen(&login, bound(), &both),
            chosen(&login, bound(), &["SCRAM-SHA-256"]),
            chosen(&login, Channel::Encrypted(None), &both),
            chosen(&login, bound(), &["OAUTHBEARER"]),
        ];
        login.channel_binding = ChannelBinding::Disable;
        said.push(chosen(&login, bound(), &both));
        login.channel_binding = ChannelBinding::Require;
        said.push(chosen(&login, bound(), &both));
        said.push(chosen(&login, bound(), &["SCRAM-SHA-256"]));
        said.push(chosen(&login, Channel::Clear, &["SCRAM-SHA-256"]));
        insta::assert_snapshot!(said.join("\n"), @r#"
        SCRAM-SHA-256 n
        server offered SCRAM-SHA-256-PLUS authentication over a non-SSL connection
        SCRAM-SHA-256-PLUS p=tls-server-end-point
        SCRAM-SHA-256 y
        could not find digest for the signature of the server's certificate
        none of the server's SASL authentication mechanisms are supported
        SCRAM-SHA-256 n
        SCRAM-SHA-256-PLUS p=tls-server-end-point
        channel binding is required, but server did not offer an authentication method that supports channel binding
        channel binding required, but SSL not in use
        "#);
    }

    #[test]
    fn only_what_is_required_will_do() {
        let say = |channel_binding, methods: Option<&str>, message: &Authentication| {
            let mut login = login();
            login.channel_binding = channel_binding;
            login.methods = methods.map(|text| Methods::parse(text).expect("methods"));
            match Exchange::new(&login, Some("secret"), Channel::Clear).step(message) {
                Ok(_) => "fine".to_owned(),
                Err(error) => error.to_string(),
            }
        };
        let (prefer, require) = (ChannelBinding::Prefer, ChannelBinding::Require);
        let said = [
            say(require, None, &Authentication::Ok),
            say(require, None, &Authentication::CleartextPassword),
            say(prefer, Some("md5"), &Authentication::Ok),
            say(prefer, Some("none"), &Authentication::Ok),
            say(prefer, Some("md5"), &Authentication::CleartextPassword),
            say(prefer, Some("!md5"), &Authentication::Md5Password { salt: [0; 4] }),
            say(prefer, Some("!md5"), &Authentication::Other(7)),
            say(prefer, Some("md5"), &Authentication::Other(9)),
            say(prefer, Some("md5"), &offer(&["SCRAM-SHA-256"])),
        ];
        insta::assert_snapshot!(said.join("\n"), @r#"
        channel binding required, but server authenticated client without channel binding
        channel binding required but not supported by server's authentication request
        authentication method requirement "md5" failed: server did not complete authentication
        fine
        authentication method requirement "md5" failed: server requested a cleartext password
        authentication method requirement "!md5" failed: server requested a hashed password
        authentication method 7 not supported
        authentication method requirement "md5" failed: server requested SSPI authentication
        authentication method requirement "md5" failed: server requested SCRAM-SHA-256 authentication
        "#);
    }

    #[test]
    fn an_unproven_server_is_refused() {
        let login = login();
        let mut exchange = Exchange::new(&login, Some("secret"), Channel::Clear);
        assert!(matches!(exchange.step(&offer(&["SCRAM-SHA-256"])), Ok(Step::Answer(_))));
        assert!(exchange.step(&Authentication::Ok).is_err());
    }

    #[test]
    fn garbage_in_scram_is_an_error() {
        let login = login();
        let mut exchange = Exchange::new(&login, Some("secret"), Channel::Clear);
        assert!(matches!(exchange.step(&offer(&["SCRAM-SHA-256"])), Ok(Step::Answer(_))));
        assert!(exchange.step(&Authentication::SaslContinue(bytes::Bytes::from_static(b"r=x,s=,i=1"))).is_err());
        let mut fresh = Exchange::new(&login, Some("secret"), Channel::Clear);
        assert!(fresh.step(&Authentication::SaslFinal(bytes::Bytes::new())).is_err());
    }
}
