//! The server's time: tokio's clock, counted from an epoch that is the configuration's and never the machine's.

use std::sync::OnceLock;
use std::time::Duration;

use backstop_protocol::wal::stream::PgTimestamp;
use tokio::time::Instant;

/// Time since the first connection, and the date that this stands for.
///
/// Under a paused tokio clock every answer is a function of what was awaited, so that a run can be repeated to the byte.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Unix seconds at the first connection.
    epoch: i64,
    start: OnceLock<Instant>,
}

impl Clock {
    pub(crate) fn new(epoch: i64) -> Self {
        Self { epoch, start: OnceLock::new() }
    }

    /// The moment of the first connection. Called on a runtime, so that a paused clock is the one that counts.
    pub(crate) fn start(&self) -> Instant {
        *self.start.get_or_init(Instant::now)
    }

    /// Since the first connection.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start().elapsed()
    }

    /// Unix seconds.
    pub(crate) fn unix_seconds(&self) -> i64 {
        self.epoch.saturating_add(i64::try_from(self.elapsed().as_secs()).unwrap_or(i64::MAX))
    }

    /// As walsender messages carry it.
    pub(crate) fn timestamp(&self) -> PgTimestamp {
        let micros = i64::try_from(self.elapsed().as_micros()).unwrap_or(i64::MAX);
        PgTimestamp::from_unix_micros(self.epoch.saturating_mul(1_000_000).saturating_add(micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn runs_with_the_paused_clock() {
        let clock = Clock::new(1_000_000_000);
        assert_eq!(clock.unix_seconds(), 1_000_000_000);
        tokio::time::advance(Duration::from_millis(2500)).await;
        assert_eq!(clock.unix_seconds(), 1_000_000_002);
        assert_eq!(clock.timestamp().to_unix_micros(), 1_000_000_002_500_000);
    }
}
