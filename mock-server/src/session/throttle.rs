//! Sending no faster than a rate: `throttle()` of `basebackup_throttle.c`.

use std::time::Duration;

use tokio::time::Instant;

/// `THROTTLING_FREQUENCY`: the rate is kept in pieces of an eighth of a second.
const FREQUENCY: u64 = 8;

/// Says when to wait, and until when.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// Bytes in an eighth of a second.
    sample: u64,
    /// Bytes since the last wait.
    counter: u64,
    /// When the last wait ended.
    throttled_last: Instant,
}

impl Throttle {
    /// A throttle of `rate` bytes in a second.
    pub(crate) fn new(rate: u64) -> Self {
        Self { sample: (rate / FREQUENCY).max(1), counter: 0, throttled_last: Instant::now() }
    }

    /// Counts bytes that were sent. The moment until which the sender must wait, when a sample is full.
    pub(crate) fn sent(&mut self, bytes: usize) -> Option<Instant> {
        self.counter = self.counter.saturating_add(bytes as u64);
        if self.counter < self.sample {
            return None;
        }
        let samples = self.counter / self.sample;
        self.counter %= self.sample;
        let least = Duration::from_micros(samples.saturating_mul(1_000_000 / FREQUENCY));
        let now = Instant::now();
        let sleep = least.saturating_sub(now.saturating_duration_since(self.throttled_last));
        // `WaitLatch` counts milliseconds, and what is left below one is not waited for.
        let sleep = Duration::from_millis(u64::try_from(sleep.as_millis()).unwrap_or(u64::MAX));
        let until = now.checked_add(sleep).unwrap_or(now);
        self.throttled_last = until;
        (until > now).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_megabyte_at_256_kib_takes_four_seconds() {
        let begun = Instant::now();
        let mut throttle = Throttle::new(256 << 10);
        for _ in 0..32 {
            if let Some(until) = throttle.sent(32 << 10) {
                tokio::time::sleep_until(until).await;
            }
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(4));
    }
}
