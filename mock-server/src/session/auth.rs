//! Authentication: which method, and its exchange.

use backstop_protocol::backend::{Authentication, BackendMessage, Diagnostic, SqlState};
use backstop_protocol::frontend::FrontendMessage;
use bytes::{Buf, Bytes};
use postgres_protocol::authentication::md5_hash;

use super::scram::{Binding, Exchange, MECHANISM, MECHANISM_PLUS, ScramError, Secret};
use super::wire::Answer;
use super::{Ending, Session, Stop};
use crate::access::{Admission, Attempt, PasswordEncryption};
use crate::config::Auth;
use crate::random;

/// `PG_MAX_AUTH_TOKEN_LENGTH`, without the length word that it counts.
const MAX_PASSWORD: usize = 65_535 - 4;

/// `PG_MAX_SASL_MESSAGE_LENGTH`, likewise.
const MAX_SASL: usize = 1024 - 4;

impl Session {
    /// The exchange up to AuthenticationOk (`ClientAuthentication`).
    pub(super) async fn authenticate(&mut self, physical: bool, database: &str) -> Result<(), Stop> {
        let (peer, encrypted) = (self.wire.peer, self.wire.is_encrypted());
        let auth = match self.shared.access.admit(&Attempt { peer, encrypted, physical, database, user: &self.user }) {
            Admission::By(auth) => auth,
            refusal => return Err(self.turn_away(refusal, physical, database).into()),
        };
        let role = self.shared.access.role(&self.user);
        let md5_means = self.shared.access.md5_means(role.as_ref());
        let kept_as = role.as_ref().and_then(|role| role.password_encryption);
        let password = role.and_then(|role| role.password);
        let proven = match (auth, md5_means) {
            (Auth::Trust, _) => true,
            (Auth::Password, _) => {
                self.ask(Authentication::CleartextPassword).await?;
                let answer = self.password().await?;
                password.is_some_and(|password| answer == password.as_bytes())
            }
            (Auth::Md5, PasswordEncryption::Md5) => {
                let salt = random::bytes(self.shared.config.seed, self.seat.number, "md5 salt");
                self.ask(Authentication::Md5Password { salt }).await?;
                let answer = self.password().await?;
                password.is_some_and(|password| {
                    answer == md5_hash(self.user.as_bytes(), password.as_bytes(), salt).as_bytes()
                })
            }
            (Auth::Md5, PasswordEncryption::ScramSha256) => self.scram(password).await?,
            // Nobody can prove a password in SCRAM that is kept as MD5.
            (Auth::ScramSha256, _) => self.scram(password.filter(|_| kept_as != Some(PasswordEncryption::Md5))).await?,
        };
        if !proven {
            let message = format!("password authentication failed for user \"{}\"", self.user);
            return Err(Diagnostic::error(SqlState::INVALID_PASSWORD, message).into());
        }
        self.ask(Authentication::Ok).await
    }

    /// The words for a connection that `pg_hba.conf` does not let in.
    fn turn_away(&self, refusal: Admission, physical: bool, database: &str) -> Diagnostic {
        let host = self.wire.peer.map_or("[local]".to_owned(), |address| address.to_string());
        let user = &self.user;
        let encryption = self.version.encryption_in_refusals(self.wire.is_encrypted());
        let message = match (refusal, physical) {
            (Admission::Rejected, true) => {
                format!("pg_hba.conf rejects replication connection for host \"{host}\", user \"{user}\", {encryption}")
            }
            (Admission::Rejected, false) => {
                format!(
                    "pg_hba.conf rejects connection for host \"{host}\", user \"{user}\", database \"{database}\", {encryption}"
                )
            }
            (_, true) => {
                format!(
                    "no pg_hba.conf entry for replication connection from host \"{host}\", user \"{user}\", {encryption}"
                )
            }
            (_, false) => {
                format!(
                    "no pg_hba.conf entry for host \"{host}\", user \"{user}\", database \"{database}\", {encryption}"
                )
            }
        };
        Diagnostic::error(SqlState::INVALID_AUTHORIZATION_SPECIFICATION, message)
    }

    async fn ask(&mut self, authentication: Authentication) -> Result<(), Stop> {
        self.send(BackendMessage::Authentication(authentication)).await
    }

    /// The client's next message. None: its length is no good.
    async fn answer(&mut self, what: &str, limit: usize) -> Result<Option<Bytes>, Stop> {
        self.flush().await?;
        match self.wire.read_password(limit).await {
            Answer::Password(body) => {
                self.record_received(&FrontendMessage::Password(body.clone()));
                Ok(Some(body))
            }
            Answer::Other(tag) => Err(violation(&format!("expected {what} response, got message type {tag}"))),
            Answer::BadLength => Ok(None),
            Answer::Gone => Err(Ending::Gone.into()),
        }
    }

    /// PasswordMessage (`recv_password_packet`).
    async fn password(&mut self) -> Result<Bytes, Stop> {
        let mut body = self.answer("password", MAX_PASSWORD).await?.ok_or(Ending::Close)?;
        // One string, and its end is the message's.
        match body.iter().position(|byte| *byte == 0) {
            Some(end) if end + 1 == body.len() => body.truncate(end),
            _ => return Err(violation("invalid password packet size")),
        }
        if body.is_empty() {
            return Err(Diagnostic::error(SqlState::INVALID_PASSWORD, "empty password returned by client").into());
        }
        Ok(body)
    }

    /// SCRAM-SHA-256; whether the client knows the password (`CheckSASLAuth`).
    async fn scram(&mut self, password: Option<String>) -> Result<bool, Stop> {
        let (seed, number) = (self.shared.config.seed, self.seat.number);
        let shared = self.shared.clone();
        let tls = shared.tls.as_ref().filter(|_| self.wire.is_encrypted() && self.version.has_channel_binding());
        let offered = tls.is_some().then_some(MECHANISM_PLUS).into_iter().chain([MECHANISM]);
        self.ask(Authentication::Sasl { mechanisms: offered.map(str::to_owned).collect() }).await?;
        let Some(initial) = self.answer("SASL", MAX_SASL).await? else { return Ok(false) };
        let (mechanism, data) = sasl_initial_response(initial)?;
        let binding = match (&*mechanism, tls) {
            (b"SCRAM-SHA-256-PLUS", Some(tls)) => Binding::Chosen(tls.end_point()),
            (b"SCRAM-SHA-256", Some(_)) => Binding::Declined,
            (b"SCRAM-SHA-256", None) if self.version.has_channel_binding() => Binding::Absent,
            (b"SCRAM-SHA-256", None) => Binding::Unknown,
            _ => return Err(violation("client selected an invalid SASL authentication mechanism")),
        };
        let client_first = if let Some(data) = data {
            data
        } else {
            // The client waits for a challenge, and there is none to give it.
            self.ask(Authentication::SaslContinue(Bytes::new())).await?;
            let Some(answer) = self.answer("SASL", MAX_SASL).await? else { return Ok(false) };
            answer
        };
        // A role's salt is the same in all its sessions, as if it were stored.
        let salt = random::bytes(seed, 0, &format!("scram salt of {}", self.user));
        let secret = Secret::new(password.as_deref(), salt, self.shared.access.iterations());
        let nonce = random::bytes(seed, number, "scram nonce");
        let exchange = match Exchange::begin(&client_first, binding, secret, nonce) {
            Ok(exchange) => exchange,
            Err(error) => return refused(error),
        };
        self.ask(Authentication::SaslContinue(exchange.server_first().to_vec().into())).await?;
        let Some(response) = self.answer("SASL", MAX_SASL).await? else { return Ok(false) };
        match exchange.finish(&response) {
            Ok(server_final) => {
                self.ask(Authentication::SaslFinal(server_final.into())).await?;
                Ok(true)
            }
            Err(error) => refused(error),
        }
    }
}

fn refused(error: ScramError) -> Result<bool, Stop> {
    match error {
        ScramError::Refused => Ok(false),
        ScramError::Said(diagnostic) => Err((*diagnostic).into()),
    }
}

/// SASLInitialResponse: the mechanism, and the first message if it is there already.
fn sasl_initial_response(mut body: Bytes) -> Result<(Bytes, Option<Bytes>), Stop> {
    let end = body.iter().position(|byte| *byte == 0);
    let mechanism = body.split_to(end.ok_or_else(|| violation("invalid string in message"))?);
    body.advance(1);
    let insufficient = || violation("insufficient data left in message");
    let length = body.try_get_i32().map_err(|_| insufficient())?;
    let data = match usize::try_from(length) {
        Ok(length) if length <= body.len() => Some(body.split_to(length)),
        Err(_) if length == -1 => None,
        _ => return Err(insufficient()),
    };
    if !body.is_empty() {
        return Err(violation("invalid message format"));
    }
    Ok((mechanism, data))
}

fn violation(message: &str) -> Stop {
    Diagnostic::error(SqlState::PROTOCOL_VIOLATION, message).into()
}

#[cfg(test)]
mod tests {
    use backstop_protocol::backend::{Authentication, BackendMessage};
    use backstop_protocol::frontend::FrontendMessage;
    use backstop_protocol::version::ServerVersion;
    use bytes::{BufMut, BytesMut};
    use postgres_protocol::authentication::md5_hash;
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

    use crate::access::RoleConfig;
    use crate::config::{Auth, Config};
    use crate::server::Server;
    use crate::testing::{Client, End, config, diagnostics};

    fn server(auth: Auth, role: &str) -> Server {
        let role = RoleConfig { password: Some("geheim".to_owned()), replication: true, ..RoleConfig::new(role) };
        Server::new(Config { auth, roles: vec![role], ..config(ServerVersion::V18, vec![]) }).unwrap()
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
            let server = server(auth, "repl");
            assert_eq!(log_in(&server, "geheim").await, (vec![], End::Ready), "{auth:?}");
            let refused = vec!["FATAL 28P01: password authentication failed for user \"repl\"".to_owned()];
            let expected = if auth == Auth::Trust { (vec![], End::Ready) } else { (refused, End::Closed(0)) };
            assert_eq!(log_in(&server, "secret").await, expected, "{auth:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_role_is_refused_at_the_end() {
        for auth in [Auth::Password, Auth::Md5, Auth::ScramSha256] {
            let server = server(auth, "other");
            let refused = vec!["FATAL 28P01: password authentication failed for user \"repl\"".to_owned()];
            assert_eq!(log_in(&server, "secret").await, (refused, End::Closed(0)), "{auth:?}");
        }
        let server = server(Auth::Trust, "other");
        let refused = vec!["FATAL 28000: role \"repl\" does not exist".to_owned()];
        assert_eq!(log_in(&server, "").await, (refused, End::Closed(0)));
    }
}
