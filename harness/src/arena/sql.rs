//! What a real server is asked and told in SQL.

use std::time::Duration;

use backstop_client::sql::{Rows, SqlSession};
use backstop_client::{Connector, Login, Replication};
use backstop_mock::ServerState;
use backstop_mock::cluster::{InvalidationReason, SlotState};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal_file::WalSegmentSize;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::local_postgres::configuration::literal;
use super::upstream::APPLICATION_NAME;

/// How long a server may take to notice that clients have gone, or a standby to replay.
const SETTLING: Duration = Duration::from_secs(5);

/// How often it is asked meanwhile: nobody tells.
const ASKING: Duration = Duration::from_millis(10);

/// How often a writer writes.
const WRITING: Duration = Duration::from_millis(50);

/// A session of ours.
#[derive(Debug)]
pub(super) struct Sql(SqlSession);

/// What a server still holds: [`ServerState`] without what only a witness knows.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) sessions: usize,
    pub(super) running_backups: usize,
    pub(super) slots: Vec<SlotState>,
    pub(super) oldest_wal: Lsn,
}

impl State {
    /// What the mock tells of itself.
    pub(super) fn of_mock(state: ServerState) -> Self {
        Self {
            sessions: state.sessions,
            running_backups: state.running_backups,
            slots: state.slots,
            oldest_wal: state.oldest_wal,
        }
    }

    /// With the commands that were heard.
    pub(super) fn with(self, commands: Vec<String>) -> ServerState {
        ServerState {
            sessions: self.sessions,
            running_backups: self.running_backups,
            backup_label: None,
            start_up_failure: None,
            slots: self.slots,
            oldest_wal: self.oldest_wal,
            commands,
        }
    }
}

impl Sql {
    pub(super) async fn open(connector: &dyn Connector, user: &str) -> Result<Self, String> {
        let mut login = Login::new(user, "backstop");
        login.replication = Replication::Off;
        "postgres".clone_into(&mut login.database);
        SqlSession::open(connector, &login).await.map(Self).map_err(|error| error.to_string())
    }

    pub(super) fn of(session: SqlSession) -> Self {
        Self(session)
    }

    pub(super) async fn rows(&mut self, sql: &str) -> Result<Rows, String> {
        self.0.query(sql).await.map_err(|error| error.to_string())
    }

    pub(super) async fn run(&mut self, sql: &str) -> Result<(), String> {
        self.rows(sql).await.map(drop)
    }

    pub(super) async fn close(self) {
        self.0.close().await;
    }

    async fn one(&mut self, sql: &str) -> Result<String, String> {
        Ok(self.rows(sql).await?.into_iter().flatten().flatten().next().unwrap_or_default())
    }

    /// Lets WAL go on in a new segment, as that of the mock does where clients come, and says in which.
    pub(super) async fn begin_segment(&mut self, size: WalSegmentSize) -> Result<u64, String> {
        self.run("SELECT pg_switch_wal()").await?;
        let position = self.one("SELECT pg_current_wal_insert_lsn()").await?;
        let position: Lsn =
            position.parse().map_err(|_| format!("the server says that WAL stands at \"{position}\""))?;
        Ok(size.segment_of(position))
    }

    /// Waits until a standby has replayed WAL up to `end`.
    pub(super) async fn replayed(&mut self, end: &str) -> Result<(), String> {
        let question = format!("SELECT pg_last_wal_replay_lsn() >= {}::pg_lsn", literal(end));
        let answer = timeout(SETTLING, async {
            while self.one(&question).await? != "t" {
                sleep(ASKING).await;
            }
            Ok::<_, String>(())
        });
        answer.await.unwrap_or_else(|_| Err(format!("the standby does not come to {end}")))
    }

    /// Drops a slot.
    pub(super) async fn drop_slot(&mut self, name: &str) -> Result<(), String> {
        self.run(&format!("SELECT pg_drop_replication_slot({})", literal(name))).await
    }

    /// What the server holds, once the sessions of clients have gone, if they go.
    pub(super) async fn state(&mut self, version: ServerVersion) -> Result<State, String> {
        // Not our own; a standby's receiver belongs to the arena.
        let others = format!("application_name NOT IN ('walreceiver', 'backstop', '{APPLICATION_NAME}')");
        self.state_of(version, &others).await
    }

    /// The same of the sessions, and of the backups of those sessions, for which the condition `whose` on `pg_stat_activity` holds.
    pub(super) async fn state_of(&mut self, version: ServerVersion, whose: &str) -> Result<State, String> {
        let question = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND {whose} AND {}",
            if version >= ServerVersion::V10 { "backend_type IN ('walsender', 'client backend')" } else { "true" }
        );
        let question = question.as_str();
        let mut sessions = self.one(question).await?;
        let _ = timeout(SETTLING, async {
            while sessions != "0" {
                sleep(ASKING).await;
                match self.one(question).await {
                    Ok(now) => sessions = now,
                    Err(_) => break,
                }
            }
        })
        .await;
        let running = if version >= ServerVersion::V13 {
            let question = format!(
                "SELECT count(*) FROM pg_stat_progress_basebackup JOIN pg_stat_activity USING (pid) WHERE {whose}"
            );
            self.one(&question).await?
        } else {
            "0".to_owned()
        };
        let status = if version >= ServerVersion::V13 { "wal_status" } else { "NULL::text" };
        let slots = self
            .rows(&format!(
                "SELECT slot_name, temporary, active_pid, restart_lsn, {status} FROM pg_replication_slots ORDER BY 1"
            ))
            .await?;
        let slots = slots.into_iter().map(|row| {
            let text = |index: usize| row.get(index).cloned().flatten();
            SlotState {
                name: text(0).unwrap_or_default(),
                temporary: text(1).as_deref() == Some("t"),
                active_pid: text(2).and_then(|pid| pid.parse().ok()),
                restart_lsn: text(3).and_then(|lsn| lsn.parse().ok()),
                invalidation_reason: (text(4).as_deref() == Some("lost")).then_some(InvalidationReason::WalRemoved),
                logical: None,
            }
        });
        Ok(State {
            sessions: sessions.parse().unwrap_or_default(),
            running_backups: running.parse().unwrap_or_default(),
            slots: slots.collect(),
            oldest_wal: Lsn::INVALID,
        })
    }
}

/// Lets WAL grow by `rate` bytes a second until it is aborted, or the server goes.
pub(super) fn write_wal(mut sql: Sql, rate: u64) -> JoinHandle<()> {
    let each = (rate * u64::try_from(WRITING.as_millis()).unwrap_or(1) / 1000).max(1);
    tokio::spawn(async move {
        let mut ticks = interval(WRITING);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // No transaction is needed for it: no file changes but WAL.
        let statement = format!("SELECT pg_logical_emit_message(false, 'backstop', repeat('x', {each}))");
        loop {
            ticks.tick().await;
            if sql.run(&statement).await.is_err() {
                return;
            }
        }
    })
}
