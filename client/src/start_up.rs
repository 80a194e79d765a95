//! From nothing to a session: hosts are tried in order, connections are encrypted, roles log in.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use backstop_protocol::backend::SqlState;
use backstop_protocol::command::Command;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::auth::Channel;
use crate::connection::Connection;
use crate::connector::{BoxStream, Connector, Place, Purpose};
use crate::error::ClientError;
use crate::login::{Login, SessionKind};
use crate::mutation::Weakness;
use crate::observer::{Observer, Phase};
use crate::tls::{self, Mode, Shown};

/// SSLRequest: its length and its code.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// The code of CancelRequest.
const CANCEL_REQUEST: [u8; 4] = [0x04, 0xd2, 0x16, 0x2e];

/// Asks the server of the backup, or of the WAL, that `connector` began to cancel what it is doing, on a connection of its own that is encrypted as the other was
/// to be. False if no session began. The server says nothing to that: it closes the connection when the signal is on its way.
///
/// # Errors
/// Without such a connection.
pub async fn cancel_backup(connector: &dyn Connector, login: &Login) -> Result<bool, ClientError> {
    let Some((place, key)) = connector.session().filter(|(_, key)| key.pid != 0) else { return Ok(false) };
    let opening = Opening {
        connector,
        purpose: Purpose::Backup,
        login,
        weakness: Weakness::NONE,
        observer: Arc::new(crate::observer::Silent),
    };
    let server = connector.describe(&place);
    let broken = |error| failed(&server, error);
    let mut stream = connector.connect(&place, Purpose::Backup).await.map_err(broken)?;
    let mode = login.encryption.mode;
    if let Some(name) = connector.name(place.host)
        && mode > Mode::Allow
    {
        let negotiated = opening.negotiate(stream, &server, mode > Mode::Prefer, &name, &mut false).await;
        (stream, _, _) = negotiated.map_err(|error| match error {
            Failed::Way(error) | Failed::Place(error) | Failed::Login(error) => error,
        })?;
    }
    let length = u32::try_from(12 + key.secret.len()).unwrap_or(u32::MAX);
    let parts = [&length.to_be_bytes()[..], &CANCEL_REQUEST, &key.pid.to_be_bytes(), &key.secret];
    let request = parts.concat();
    stream.write_all(&request).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    // Nothing comes but the end, in whatever form.
    let _ = stream.read_u8().await;
    Ok(true)
}

/// Opens a connection to the first place that answers, encrypted as `login` wants it, on which nothing has been said yet: whoever has it
/// starts the session. True if it is encrypted.
///
/// Nobody logs in, so that `sslmode` `allow` is `disable`, and what happens at log-in is no reason to try another place.
///
/// # Errors
/// Without a connection: every place, and why it is none.
pub async fn connect_only(connector: &dyn Connector, login: &Login) -> Result<(BoxStream, bool), ClientError> {
    let observer = Arc::new(crate::observer::Silent);
    let opening = Opening { connector, purpose: Purpose::Backup, login, weakness: Weakness::NONE, observer };
    let mut failures = Vec::new();
    for host in connector.hosts() {
        match connector.resolve(host).await {
            Ok(places) => {
                for place in places {
                    let limit = login.connect_timeout.unwrap_or(Duration::MAX);
                    match tokio::time::timeout(limit, opening.unspoken(&place)).await {
                        Ok(Ok(opened)) => return Ok(opened),
                        Ok(Err(error)) => failures.push(error),
                        Err(_) => failures.push(expired(&connector.describe(&place))),
                    }
                }
            }
            Err(error) => failures.push(ClientError::Refused(error.to_string())),
        }
    }
    Err(ClientError::all(failures))
}

/// A way to speak with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Clear,
    Encrypted,
    /// Encrypted if the server can, which is asked first.
    Either,
}

/// Why there is no session, and what may help.
enum Failed {
    /// Another way to the same place.
    Way(ClientError),
    /// Another place.
    Place(ClientError),
    /// Nothing: every place would say the same.
    Login(ClientError),
}

/// What opening a session takes.
pub(crate) struct Opening<'a> {
    pub(crate) connector: &'a dyn Connector,
    pub(crate) purpose: Purpose,
    pub(crate) login: &'a Login,
    pub(crate) weakness: Weakness,
    pub(crate) observer: Arc<dyn Observer>,
}

impl Opening<'_> {
    /// Opens a session at the first place that has one for us, all of it within `limit`.
    pub(crate) async fn within(&self, limit: Option<Duration>) -> Result<Connection, ClientError> {
        match limit {
            None => self.open().await,
            Some(limit) => {
                let timeout = |_| ClientError::Timeout { phase: Phase::Connecting };
                tokio::time::timeout(limit, self.open()).await.map_err(timeout)?
            }
        }
    }

    async fn open(&self) -> Result<Connection, ClientError> {
        let mut failures = Vec::new();
        // Whoever prefers a standby takes anything in a second round.
        let rounds: &[SessionKind] = match self.login.session {
            SessionKind::PreferStandby => &[SessionKind::Standby, SessionKind::Any],
            ref other => std::slice::from_ref(other),
        };
        for kind in rounds {
            failures.clear();
            for host in self.connector.hosts() {
                let places = match self.connector.resolve(host).await {
                    Ok(places) => places,
                    Err(error) => {
                        failures.push(ClientError::Refused(error.to_string()));
                        continue;
                    }
                };
                for place in places {
                    match self.at(&place, *kind, &mut failures).await {
                        Ok(Some(connection)) => {
                            self.connector.connected(&place, self.purpose, connection.key());
                            return Ok(connection);
                        }
                        Ok(None) => {}
                        Err(error) => {
                            failures.push(error);
                            return Err(ClientError::all(failures));
                        }
                    }
                }
            }
        }
        Err(ClientError::all(failures))
    }

    /// A session at `place`, or none if others are to be tried. An error ends the search.
    async fn at(
        &self,
        place: &Place,
        kind: SessionKind,
        failures: &mut Vec<ClientError>,
    ) -> Result<Option<Connection>, ClientError> {
        let server = self.connector.describe(place);
        let work = self.by_all_ways(place, kind, failures);
        match self.login.connect_timeout {
            None => work.await,
            Some(limit) => {
                if let Ok(result) = tokio::time::timeout(limit, work).await {
                    return result;
                }
                failures.push(expired(&server));
                Ok(None)
            }
        }
    }

    /// A connection to `place`, encrypted if it has to be, or can be.
    async fn unspoken(&self, place: &Place) -> Result<(BoxStream, bool), ClientError> {
        let server = self.connector.describe(place);
        let name = self.connector.name(place.host);
        let connect = async || {
            let unreachable =
                |source| ClientError::Unreachable { server: server.clone(), local: name.is_none(), source };
            self.connector.connect(place, self.purpose).await.map_err(unreachable)
        };
        let stream = connect().await?;
        let mode = self.login.encryption.mode;
        let Some(name) = name.as_deref().filter(|_| mode > Mode::Allow) else { return Ok((stream, false)) };
        let required = mode > Mode::Prefer;
        match self.negotiate(stream, &server, required, name, &mut false).await {
            Ok((stream, channel, _)) => Ok((stream, matches!(channel, Channel::Encrypted(_)))),
            Err(Failed::Way(_)) if !required => Ok((connect().await?, false)),
            Err(Failed::Way(error) | Failed::Place(error) | Failed::Login(error)) => Err(error),
        }
    }

    async fn by_all_ways(
        &self,
        place: &Place,
        kind: SessionKind,
        failures: &mut Vec<ClientError>,
    ) -> Result<Option<Connection>, ClientError> {
        let name = self.connector.name(place.host);
        let ways: &[Way] = match self.login.encryption.mode {
            _ if name.is_none() => &[Way::Clear],
            Mode::Disable => &[Way::Clear],
            Mode::Allow => &[Way::Clear, Way::Encrypted],
            Mode::Prefer => &[Way::Either, Way::Clear],
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => &[Way::Encrypted],
        };
        let mut encrypted = false;
        for (index, way) in ways.iter().enumerate() {
            // In clear was tried already if the server had no encryption.
            if index > 0 && *way == Way::Clear && !encrypted {
                break;
            }
            match self.by(place, *way, name.as_deref().unwrap_or_default(), kind, &mut encrypted).await {
                Ok(connection) => return Ok(Some(connection)),
                Err(Failed::Place(error)) => {
                    failures.push(error);
                    return Ok(None);
                }
                Err(Failed::Login(error)) => return Err(error),
                Err(Failed::Way(error)) => {
                    let last = index + 1 == ways.len() || (ways.get(index + 1) == Some(&Way::Clear) && !encrypted);
                    if last {
                        return Err(error);
                    }
                    failures.push(error);
                }
            }
        }
        Ok(None)
    }

    /// A session at `place` in one way. `encrypted` learns whether the server agreed to encrypt.
    async fn by(
        &self,
        place: &Place,
        way: Way,
        name: &str,
        kind: SessionKind,
        encrypted: &mut bool,
    ) -> Result<Connection, Failed> {
        let server = self.connector.describe(place);
        let stream = self.connector.connect(place, self.purpose).await;
        let local = name.is_empty();
        let unreachable = |source| ClientError::Unreachable { server: server.clone(), local, source };
        let stream = stream.map_err(|source| Failed::Place(unreachable(source)))?;
        let doing = format!("connection to {server} failed");
        let (stream, channel, certificate) = match way {
            Way::Clear => (stream, Channel::Clear, Shown::Unasked),
            Way::Encrypted | Way::Either => {
                self.negotiate(stream, &server, way == Way::Encrypted, name, encrypted).await?
            }
        };
        let mut connection = Connection::over(stream, server.clone(), doing, self.weakness, Arc::clone(&self.observer));
        connection.log_in(self.login, place.host, channel).await.map_err(|error| match error.sqlstate() {
            Some(SqlState::CANNOT_CONNECT_NOW) => Failed::Place(error),
            Some(_) => Failed::Way(error),
            None => Failed::Login(error),
        })?;
        if self.login.require_certificate && certificate != Shown::Given {
            connection.terminate().await;
            let problem = if certificate == Shown::Unasked {
                "server did not request an SSL certificate"
            } else {
                "server accepted connection without a valid SSL certificate"
            };
            return Err(Failed::Login(ClientError::Authentication { server, problem: problem.to_owned() }));
        }
        match self.is_other_kind(&mut connection, kind).await.map_err(Failed::Login)? {
            None => Ok(connection),
            Some(what) => {
                connection.terminate().await;
                let problem = what.to_owned();
                Err(Failed::Place(ClientError::Authentication { server, problem }))
            }
        }
    }

    /// Asks for encryption and begins it. Encrypted or not, `required` decides.
    async fn negotiate(
        &self,
        mut stream: BoxStream,
        server: &str,
        required: bool,
        name: &str,
        encrypted: &mut bool,
    ) -> Result<(BoxStream, Channel, Shown), Failed> {
        let problem = |text: String| ClientError::Authentication { server: server.to_owned(), problem: text };
        if !self.login.encryption.tls.direct {
            let asked = async {
                stream.write_all(&SSL_REQUEST).await?;
                stream.flush().await?;
                // Not a byte more: what comes behind it in clear is not the server's word.
                stream.read_u8().await
            };
            match asked.await {
                Ok(b'S') => {}
                Ok(b'N') if required => {
                    return Err(Failed::Login(problem("server does not support SSL, but SSL was required".to_owned())));
                }
                Ok(b'N') => return Ok((stream, Channel::Clear, Shown::Unasked)),
                // It may come from anybody in between, and is not shown.
                Ok(b'E') => {
                    *encrypted = true;
                    let text = "server sent an error response during SSL exchange";
                    return Err(Failed::Way(problem(text.to_owned())));
                }
                Ok(other) => {
                    let other = char::from(other).escape_default();
                    return Err(Failed::Login(problem(format!(
                        "received invalid response to SSL negotiation: {other}"
                    ))));
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(Failed::Login(ClientError::Closed { doing: format!("connection to {server} failed") }));
                }
                Err(error) => return Err(Failed::Login(failed(server, error))),
            }
        }
        *encrypted = true;
        match tls::encrypt(stream, &self.login.encryption, name).await {
            Ok(secure) => Ok((secure.stream, Channel::Encrypted(secure.end_point), secure.certificate)),
            Err(text) => Err(Failed::Way(problem(text))),
        }
    }

    /// What the server is that it should not be.
    async fn is_other_kind(
        &self,
        connection: &mut Connection,
        wanted: SessionKind,
    ) -> Result<Option<&'static str>, ClientError> {
        match wanted {
            SessionKind::Any | SessionKind::PreferStandby => Ok(None),
            SessionKind::ReadWrite | SessionKind::ReadOnly => {
                let only = self.is_read_only(connection).await?;
                Ok(match (wanted, only) {
                    (SessionKind::ReadWrite, true) => Some("session is read-only"),
                    (SessionKind::ReadOnly, false) => Some("session is not read-only"),
                    _ => None,
                })
            }
            SessionKind::Primary | SessionKind::Standby => {
                let Some(standby) = connection.parameter("in_hot_standby").map(|value| value == "on") else {
                    let text = "cannot tell a standby before release 14 on a replication connection";
                    return Err(ClientError::Refused(format!("target_session_attrs: {text}")));
                };
                Ok(match (wanted, standby) {
                    (SessionKind::Primary, true) => Some("server is in hot standby mode"),
                    (SessionKind::Standby, false) => Some("server is not in hot standby mode"),
                    _ => None,
                })
            }
        }
    }

    async fn is_read_only(&self, connection: &mut Connection) -> Result<bool, ClientError> {
        let on = |connection: &Connection, name| connection.parameter(name).map(|value| value == "on");
        if let (Some(only), Some(standby)) =
            (on(connection, "default_transaction_read_only"), on(connection, "in_hot_standby"))
        {
            return Ok(only || standby);
        }
        let command = Command::Show("transaction_read_only".to_owned()).to_sql(connection.version());
        Ok(connection.command(&command).await?.text(0) == Some("on"))
    }
}

fn expired(server: &str) -> ClientError {
    failed(server, io::Error::new(io::ErrorKind::TimedOut, "timeout expired"))
}

fn failed(server: &str, source: io::Error) -> ClientError {
    ClientError::Connection { doing: format!("connection to {server} failed"), source }
}
