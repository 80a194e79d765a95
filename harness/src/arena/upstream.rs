//! The real server behind a fault proxy: reached by a connection string or started by us, and asked over a session of the proxy's own.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use backstop_client::conninfo::{Conninfo, ConninfoError};
use backstop_client::sql::{Rows, SqlSession};
use backstop_client::{ClientError, Login, NetConnector, Replication, connect_only};
use backstop_mock::fault::server::{Crash, DropSlot, RecycleWal, Shutdown, StartBackup, StopBackup};
use backstop_mock::fault::{Action, ShutdownMode};
use backstop_mock::proxy::{Later, Opened, Upstream};
use backstop_protocol::version::ServerVersion;
use tokio::sync::Mutex;

use super::sql::Sql;
use crate::scenario::credentials::Credentials;

/// How long the server may take for what it is asked, a checkpoint for instance.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often WAL is switched and a checkpoint made until a segment is gone.
const RECYCLINGS: usize = 10;

/// The name of sessions of the proxy's own.
pub(super) const APPLICATION_NAME: &str = "backstop proxy";

/// Whoever started a server and can end it.
pub(super) trait Owner: fmt::Debug + Send + Sync {
    /// Stops the server. Returns when it has gone, or, in a smart shutdown, when it takes no more connections.
    fn shut_down(&self, mode: ShutdownMode) -> Later<'_, Result<(), String>>;

    /// Lets the server crash, and starts it again so long after, if it is to come back. Returns when it has gone or come back.
    fn crash(&self, restart_after: Option<Duration>) -> Later<'_, Result<(), String>>;
}

/// A server that a connection string leads to, or one of our own.
pub struct UpstreamServer {
    connector: NetConnector,
    /// Where sessions of the proxy's own go, if not where clients go.
    own: Option<NetConnector>,
    /// Who can end it.
    owner: Option<Arc<dyn Owner>>,
    /// Of the proxy's own sessions; clients log in themselves.
    login: Login,
    /// Why there is no session of the proxy's own, if that was tried.
    locked_out: Option<String>,
    /// What the server says it is.
    version: Option<ServerVersion>,
    /// The sessions of backups that faults have begun.
    backups: Mutex<VecDeque<SqlSession>>,
}

impl fmt::Debug for UpstreamServer {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamServer").finish_non_exhaustive()
    }
}

impl UpstreamServer {
    /// What `conninfo` says, with the gaps filled as libpq fills them. `warn` hears of password files that are not used.
    ///
    /// # Errors
    /// A connection string that makes no sense.
    pub fn new(conninfo: &str, warn: impl FnMut(String)) -> Result<Self, ConninfoError> {
        let mut conninfo = Conninfo::parse(conninfo)?;
        conninfo.fill_from(|name| std::env::var(name).ok())?;
        conninfo.check()?;
        let mut login = conninfo.login(APPLICATION_NAME)?;
        login.replication = Replication::Off;
        if conninfo.get("dbname").is_none() {
            "postgres".clone_into(&mut login.database);
        }
        conninfo.look_up_passwords(&mut login).into_iter().for_each(warn);
        Ok(Self {
            connector: conninfo.connector()?,
            own: None,
            owner: None,
            login,
            locked_out: None,
            version: None,
            backups: Mutex::default(),
        })
    }

    /// A server of `version` that `owner` has started: clients reach it by `connector`, and its superuser `user` by `own`.
    pub(super) fn ours(
        version: ServerVersion,
        connector: NetConnector,
        own: NetConnector,
        user: &str,
        owner: Arc<dyn Owner>,
    ) -> Self {
        let mut login = Login::new(user, APPLICATION_NAME);
        login.replication = Replication::Off;
        "postgres".clone_into(&mut login.database);
        Self {
            connector,
            own: Some(own),
            owner: Some(owner),
            login,
            locked_out: None,
            version: Some(version),
            backups: Mutex::default(),
        }
    }

    /// The mock, listening like any other server. Nothing is done to it through a proxy.
    pub(super) fn mock(connector: NetConnector) -> Self {
        let login = Login::new("nobody", APPLICATION_NAME);
        let locked_out = Some("faults strike in the mock itself".to_owned());
        Self { connector, own: None, owner: None, login, locked_out, version: None, backups: Mutex::default() }
    }

    /// Ends the backups that faults have begun and nobody has ended.
    pub(super) async fn let_go(&self) {
        let held = std::mem::take(&mut *self.backups.lock().await);
        for session in held {
            session.close().await;
        }
    }

    /// Makes sure that somebody is there.
    ///
    /// # Errors
    /// Nobody.
    pub async fn reach(&self) -> Result<(), ClientError> {
        connect_only(&self.connector, &self.login).await.map(drop)
    }

    /// Finds out whether the proxy has a session of its own, for faults that need one.
    pub async fn log_in(&mut self) {
        match self.open().await {
            Ok(session) => {
                self.version = session.parameter("server_version").and_then(ServerVersion::from_announced);
                session.close().await;
            }
            Err(problem) => self.locked_out = Some(problem),
        }
    }

    /// Where clients go.
    pub(super) fn connector(&self) -> &NetConnector {
        &self.connector
    }

    /// Of sessions of the proxy's own.
    pub(super) fn login(&self) -> &Login {
        &self.login
    }

    /// The user that the connection string names.
    pub(super) fn credentials(&self) -> Credentials {
        Credentials { user: self.login.user.clone(), password: self.login.password.clone() }
    }

    /// A session of ours.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn sql(&self) -> Result<Sql, String> {
        self.open().await.map(Sql::of)
    }

    async fn open(&self) -> Result<SqlSession, String> {
        patiently(SqlSession::open(self.own.as_ref().unwrap_or(&self.connector), &self.login)).await
    }

    /// Runs SQL in a session that ends with it: the rows of the last statement.
    pub(super) async fn run(&self, statements: &[String]) -> Result<Rows, String> {
        let mut session = self.open().await?;
        let mut rows = Rows::new();
        for statement in statements {
            rows = patiently(session.query(statement)).await?;
        }
        session.close().await;
        Ok(rows)
    }

    /// Begins a backup, in a session that stays if the backup belongs to it.
    async fn start_backup(&self, exclusive: bool) -> Result<(), String> {
        let mut session = self.open().await?;
        patiently(session.query(self.backup_start(exclusive))).await?;
        if exclusive {
            session.close().await;
        } else {
            self.backups.lock().await.push_back(session);
        }
        Ok(())
    }

    fn backup_start(&self, exclusive: bool) -> &'static str {
        if self.has_exclusive_backups() == Some(false) {
            "SELECT pg_backup_start('fault', true)"
        } else if exclusive {
            "SELECT pg_start_backup('fault', true, true)"
        } else {
            "SELECT pg_start_backup('fault', true, false)"
        }
    }

    /// Ends the oldest backup that was begun here, or the exclusive one.
    async fn stop_backup(&self, exclusive: bool) -> Result<(), String> {
        if exclusive {
            return self.run(&["SELECT pg_stop_backup(true, false)".to_owned()]).await.map(drop);
        }
        let oldest = self.backups.lock().await.pop_front();
        let mut session = oldest.ok_or_else(|| "backup is not in progress".to_owned())?;
        let stop = match self.has_exclusive_backups() {
            Some(false) => "SELECT pg_backup_stop(false)",
            _ => "SELECT pg_stop_backup(false, false)",
        };
        patiently(session.query(stop)).await?;
        session.close().await;
        Ok(())
    }

    /// Whether the server is of a release with exclusive backups, if that is known.
    fn has_exclusive_backups(&self) -> Option<bool> {
        self.version.map(ServerVersion::has_exclusive_backup)
    }

    /// Makes checkpoints until the server has removed WAL up to `through`, needed or not by clients.
    async fn recycle(&self, through: &str) -> Result<(), String> {
        let left = format!("SELECT 1 FROM pg_ls_waldir() WHERE length(name) = 24 AND name <= {}", literal(through));
        for _ in 0..RECYCLINGS {
            let commands = ["SELECT pg_switch_wal()".to_owned(), "CHECKPOINT".to_owned(), left.clone()];
            if self.run(&commands).await?.is_empty() {
                return Ok(());
            }
        }
        Err(format!("the server keeps WAL up to {through}: look at its slots, wal_keep_size and archiving"))
    }

    /// Shuts the server down, or lets it crash.
    async fn end(&self, action: &Action) -> Result<(), String> {
        let owner = self.owner.as_ref().ok_or_else(|| self.refuses(action).unwrap_or_default())?;
        match action {
            Action::Shutdown(Shutdown { mode }) => owner.shut_down(*mode).await,
            Action::Crash(Crash { restart_after }) => owner.crash(restart_after.map(|after| after.0)).await,
            _ => Ok(()),
        }
    }

    async fn carry_out(&self, action: &Action, backends: &[i32]) -> Result<(), String> {
        let commands = match action {
            Action::Terminate(_) => backends.iter().map(|pid| format!("SELECT pg_terminate_backend({pid})")).collect(),
            Action::Promote(_) => vec!["SELECT pg_promote(true, 60)".to_owned()],
            Action::SwitchWal(_) => vec!["SELECT pg_switch_wal()".to_owned()],
            Action::DropSlot(DropSlot { slot }) => {
                let slot = literal(slot);
                vec![
                    format!(
                        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = {slot}"
                    ),
                    // The session that used it goes in its own time.
                    format!(
                        "DO $$ BEGIN FOR i IN 1..100 LOOP EXIT WHEN NOT EXISTS (SELECT FROM pg_replication_slots \
                         WHERE slot_name = {slot} AND active); PERFORM pg_sleep(0.05); END LOOP; END $$"
                    ),
                    format!("SELECT pg_drop_replication_slot({slot})"),
                ]
            }
            Action::RecycleWal(RecycleWal { through }) => return self.recycle(through).await,
            Action::StartBackup(StartBackup { exclusive }) => return self.start_backup(*exclusive).await,
            Action::StopBackup(StopBackup { exclusive }) => return self.stop_backup(*exclusive).await,
            Action::AbortBackup(_) => {
                self.let_go().await;
                return Ok(());
            }
            Action::Shutdown(_) | Action::Crash(_) => return self.end(action).await,
            action => return Err(self.refuses(action).unwrap_or_default()),
        };
        self.run(&commands).await.map(drop)
    }
}

/// An answer, if it comes in time.
pub(super) async fn patiently<T>(asking: impl Future<Output = Result<T, ClientError>>) -> Result<T, String> {
    let answer = tokio::time::timeout(PATIENCE, asking).await;
    answer.map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))?.map_err(|error| error.to_string())
}

/// A string as SQL writes it.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl Upstream for UpstreamServer {
    fn connect(&self) -> Later<'_, io::Result<Opened>> {
        Box::pin(async {
            let opened = connect_only(&self.connector, &self.login).await;
            let (link, encrypted) = opened.map_err(|error| io::Error::other(error.to_string()))?;
            Ok(Opened { link: Box::new(link), encrypted })
        })
    }

    fn refuses(&self, action: &Action) -> Option<String> {
        match action {
            Action::Terminate(_)
            | Action::Promote(_)
            | Action::SwitchWal(_)
            | Action::DropSlot(_)
            | Action::RecycleWal(_)
            | Action::AbortBackup(_)
            | Action::StartBackup(StartBackup { exclusive: false })
            | Action::StopBackup(StopBackup { exclusive: false }) => self.locked_out.clone(),
            Action::StartBackup(_) | Action::StopBackup(_) => self.locked_out.clone().or_else(|| {
                let gone = self.has_exclusive_backups() == Some(false);
                gone.then(|| "exclusive backups went with release 15".to_owned())
            }),
            Action::Shutdown(_) | Action::Crash(_) if self.owner.is_some() => None,
            Action::Shutdown(_) | Action::Crash(_) => {
                Some("the server is not Backstop's to stop: there is a connection to it and no more".to_owned())
            }
            action if action.client_machine().is_some() => {
                Some("the proxy does not have the client's machine".to_owned())
            }
            _ => Some("files of a server cannot be changed over a connection".to_owned()),
        }
    }

    fn act<'a>(&'a self, action: &'a Action, backends: &'a [i32]) -> Later<'a, Result<(), String>> {
        Box::pin(self.carry_out(action, backends))
    }
}
