//! Settings that change while the server runs, and those that are asked for.

use backstop_protocol::lsn::Lsn;

use super::{Cluster, State};
use crate::config::ConfigError;

impl State {
    /// `UpdateFullPageWrites`: notes in WAL that the setting was switched, and in every checkpoint from here on.
    pub(super) fn set_full_page_writes(&mut self, on: bool) {
        if self.wal.full_page_writes() == on {
            return;
        }
        let at = self.wal.set_full_page_writes(on);
        if !on {
            self.full_page_writes_disabled = Some(at);
        }
    }

    /// Whether WAL from `start` on was written without full-page images somewhere: a standby cannot copy files then that
    /// change while they are read.
    pub(super) fn lacks_full_page_images_since(&self, start: Lsn) -> bool {
        self.full_page_writes_disabled.is_some_and(|disabled| start <= disabled)
    }
}

impl Cluster {
    /// Changes a setting while the server runs, as ALTER SYSTEM and `pg_reload_conf()` do. Settings that need a restart are
    /// refused. Of a standby, `full_page_writes` is that of the primary whose WAL it replays.
    pub fn set(&self, name: &str, value: &str) -> Result<(), ConfigError> {
        let mut state = self.inner.lock();
        let mut settings = state.settings.clone();
        settings.reload(name, value)?;
        let limits = settings.limits(self.inner.facts.segment_size)?;
        let full_page_writes = settings.flag("full_page_writes", true)?;
        let summarizes = self.version().has_wal_summaries() && settings.flag("summarize_wal", false)?;
        (state.settings, state.limits) = (settings, limits);
        state.set_full_page_writes(full_page_writes);
        let oldest = state.wal.oldest();
        state.summaries.switch(summarizes, oldest);
        self.inner.summarize(&mut state);
        self.inner.publish(&state);
        state.reloads += 1;
        Ok(())
    }

    /// How often settings have changed.
    pub(crate) fn reloads(&self) -> u64 {
        self.inner.lock().reloads
    }

    /// `max_wal_senders`.
    pub(crate) fn max_wal_senders(&self) -> usize {
        // Checked when the cluster was made, and not to be changed since.
        self.inner.lock().settings.count("max_wal_senders", 10).unwrap_or(0)
    }

    /// Whether this is a standby that takes no connections in (`hot_standby = off`).
    pub(crate) fn is_warm_standby(&self) -> bool {
        let state = self.inner.lock();
        state.in_recovery && !state.settings.flag("hot_standby", true).unwrap_or(true)
    }
}
