//! How a server starts, stops, crashes and comes back: the part of the postmaster.
//!
//! A shutdown is a sequence, as in `PostmasterStateMachine()`: sessions that do not stream WAL go first, then the shutdown
//! checkpoint is written, then those that stream send it and go when their clients have confirmed it. Whoever ends a session
//! asks for the next step with [`Shared::advance_shutdown`]; nobody waits in a loop.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backstop_protocol::diagnostic::Diagnostic;

use super::{Order, Seat, Server, Shared};
use crate::config::ConfigError;
use crate::fault::ShutdownMode;
use crate::phase::Phase;

/// A phase, and the life it belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) phase: Phase,
    /// How often everything was lost: a session that began in an earlier life is over.
    pub(crate) crashes: u32,
}

impl Life {
    /// The life with which a server begins.
    pub(super) fn beginning(phase: Phase) -> Result<Self, ConfigError> {
        let problem = "a server begins as starting-up, recovery-mode, not-consistent or running";
        phase
            .begins()
            .then_some(Self { phase, crashes: 0 })
            .ok_or_else(|| ConfigError::invalid("server.phase", problem))
    }
}

impl Server {
    /// Shuts the server down (`pg_ctl stop -m`). Returns at once; see [`Server::stopped`].
    pub fn shut_down(&self, mode: ShutdownMode) {
        self.shared.shut_down(mode);
    }

    /// Lets a process of the server crash: every session ends as in that release, and connections are refused until recovery
    /// is done, `restart_after` from now. Without it, recovery never ends. Must be called on a tokio runtime.
    pub fn crash(&self, restart_after: Option<Duration>) {
        self.shared.crash(restart_after);
    }

    /// Starts a server that is down (`pg_ctl start -w`), or ends its recovery at once. After a crash the data directory may
    /// need to be [put right](crate::cluster::Cluster::remove_label_files) first.
    ///
    /// # Errors
    /// The FATAL with which the start-up ends; the server stays down.
    pub fn start(&self) -> Result<(), Diagnostic> {
        match self.phase() {
            Phase::Stopped | Phase::StartingUp | Phase::RecoveryMode | Phase::NotConsistent => self.shared.start_up(),
            Phase::Running | Phase::SmartShutdown | Phase::Stopping | Phase::EndingStreams => Ok(()),
        }
    }

    /// As [`start`](Self::start), of a server that has stopped, but recovery takes so long. Must be called on a tokio runtime.
    pub fn begin_start(&self, takes: Duration) {
        self.shared.begin_start(takes);
    }

    /// `pg_terminate_backend()` for every session of `client`: an `application_name`, a role (`backup`, `wal`) or `#` and
    /// the connection's number.
    pub fn terminate(&self, client: &str) {
        self.shared.order(Order::Terminate, Some(client));
    }

    /// What the postmaster does with connections now.
    pub fn phase(&self) -> Phase {
        self.shared.life.borrow().phase
    }

    /// Resolves when a shutdown is complete.
    pub async fn stopped(&self) {
        let mut life = self.shared.life.subscribe();
        // The sender lives as long as self.
        let _ = life.wait_for(|life| life.phase == Phase::Stopped).await;
    }
}

impl Shared {
    fn turn(&self, phase: Phase) {
        self.cluster.set_running(phase == Phase::Running);
        self.life.send_if_modified(|life| std::mem::replace(&mut life.phase, phase) != phase);
    }

    /// `pmdie`.
    pub(crate) fn shut_down(&self, mode: ShutdownMode) {
        let phase = self.life.borrow().phase;
        match (mode, phase) {
            (_, Phase::Stopped) => {}
            (ShutdownMode::Immediate, _) => self.lose_everything(Phase::Stopped),
            // Recovery is left where it is: the next start begins again.
            (_, Phase::StartingUp | Phase::RecoveryMode | Phase::NotConsistent) => self.turn(Phase::Stopped),
            (ShutdownMode::Smart, Phase::Running) => {
                self.life.send_modify(|life| life.phase = Phase::SmartShutdown);
                self.advance_shutdown();
            }
            (ShutdownMode::Fast, Phase::Running | Phase::SmartShutdown) => {
                if let Some(canceled) = self.cluster.cancel_exclusive_backup() {
                    self.log(&canceled);
                }
                self.end_held_backups();
                self.turn(Phase::Stopping);
                self.advance_shutdown();
            }
            _ => {}
        }
    }

    /// Takes the steps of a shutdown that nothing holds up any more.
    pub(crate) fn advance_shutdown(&self) {
        loop {
            let phase = self.life.borrow().phase;
            if !matches!(phase, Phase::SmartShutdown | Phase::Stopping | Phase::EndingStreams) {
                return;
            }
            let (ordinary, commanding, all) = {
                let book = self.book();
                // Those that are being refused hold up nothing.
                let mut seats = (0, 0, 0);
                for seat in book.sessions.values().filter(|seat| seat.began.phase == Phase::Running) {
                    seats.0 += usize::from(!seat.is_walsender.load(Ordering::SeqCst));
                    seats.1 += usize::from(!seat.streams.load(Ordering::SeqCst));
                    seats.2 += 1;
                }
                (seats.0 + book.held_backups.len(), seats.1, seats.2)
            };
            // An exclusive backup is nobody's session, and a smart shutdown waits for it as well (`PM_WAIT_BACKUP`).
            let ordinary = ordinary + usize::from(self.cluster.exclusive_backup().is_some());
            match phase {
                Phase::SmartShutdown if ordinary == 0 => self.turn(Phase::Stopping),
                Phase::Stopping if commanding == 0 => {
                    self.cluster.shut_down();
                    self.turn(Phase::EndingStreams);
                }
                Phase::EndingStreams if all == 0 => self.turn(Phase::Stopped),
                _ => return,
            }
        }
    }

    pub(crate) fn crash(self: &Arc<Self>, restart_after: Option<Duration>) {
        if self.life.borrow().phase == Phase::Stopped {
            return;
        }
        self.lose_everything(Phase::RecoveryMode);
        if let Some(after) = restart_after {
            self.recover(after);
        }
    }

    fn lose_everything(&self, phase: Phase) {
        self.end_held_backups();
        self.cluster.crash();
        // Who waits for one value is woken in no order; sessions are to end in that of their beginnings, in every run.
        for seat in self.book().sessions.values() {
            seat.order.send_modify(|_| {});
        }
        self.life.send_modify(|life| *life = Life { phase, crashes: life.crashes.saturating_add(1) });
    }

    fn end_held_backups(&self) {
        let held = std::mem::take(&mut self.book().held_backups);
        drop(held);
    }

    fn begin_start(self: &Arc<Self>, takes: Duration) {
        if self.life.borrow().phase == Phase::Stopped {
            self.turn(Phase::StartingUp);
            self.recover(takes);
        }
    }

    /// Replays WAL for so long, and then takes connections in. The first half passes before replay has begun, where one can
    /// tell.
    pub(super) fn recover(self: &Arc<Self>, takes: Duration) {
        let began = *self.life.borrow();
        let replay_shows = self.cluster.in_recovery() || self.cluster.version().announces_crash_recovery();
        if takes.is_zero() {
            return self.finish_recovery(began);
        }
        let shared = Arc::downgrade(self);
        let recovery = async move {
            let prepares = if replay_shows && began.phase != Phase::NotConsistent { takes / 2 } else { takes };
            tokio::time::sleep(prepares).await;
            let mut life = began;
            if prepares < takes {
                let Some(shared) = shared.upgrade() else { return };
                // A shutdown or another crash has ended this recovery.
                if *shared.life.borrow() != life {
                    return;
                }
                shared.turn(Phase::NotConsistent);
                life.phase = Phase::NotConsistent;
                drop(shared);
                tokio::time::sleep(takes.saturating_sub(prepares)).await;
            }
            if let Some(shared) = shared.upgrade() {
                shared.finish_recovery(life);
            }
        };
        let task = tokio::spawn(recovery).abort_handle();
        self.book().background.push(task);
    }

    fn finish_recovery(&self, life: Life) {
        if *self.life.borrow() == life {
            // Why it stays down is in the log.
            let _ = self.start_up();
        }
    }

    /// Starts up, or fails to: nobody listens then.
    fn start_up(&self) -> Result<(), Diagnostic> {
        let outcome = self.cluster.start_up();
        if let Err(refusal) = &outcome {
            self.log(refusal);
        }
        self.book().start_up_failure = outcome.as_ref().err().cloned();
        self.turn(if outcome.is_ok() { Phase::Running } else { Phase::Stopped });
        outcome
    }

    /// Notes whether a session streams WAL: a shutdown waits for those that do not.
    pub(crate) fn note_streaming(&self, seat: &Seat, streams: bool) {
        seat.streams.store(streams, Ordering::SeqCst);
        if streams {
            self.advance_shutdown();
        }
    }
}
