//! Time of day, which reaches the server in status updates and lands in the headers of members that are added to archives.

/// Tells the time of day. Waiting does not ask it: deadlines and intervals are tokio's.
pub trait Clock: Send + Sync {
    /// Microseconds since 1970-01-01 UTC.
    fn unix_micros(&self) -> i64;

    /// Whole seconds since 1970-01-01 UTC, as the headers of members have them.
    fn unix_seconds(&self) -> u64 {
        u64::try_from(self.unix_micros() / 1_000_000).unwrap_or(0)
    }
}

/// Always tells the same time, so that what a backup leaves is a function of what it received.
#[derive(Clone, Copy, Debug)]
pub struct FixedClock(
    /// Microseconds since 1970-01-01 UTC.
    pub i64,
);

impl FixedClock {
    /// 2000-01-01 00:00:00 UTC, PostgreSQL's epoch.
    pub const EPOCH: Self = Self(946_684_800 * 1_000_000);
}

impl Clock for FixedClock {
    fn unix_micros(&self) -> i64 {
        self.0
    }
}

/// The operating system's time of day.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_micros(&self) -> i64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
    }
}
