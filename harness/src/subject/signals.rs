//! Signals that a client is sent.

use std::fs;

use backstop_mock::fault::Signal;

/// The number of a signal on this machine.
pub fn signal_number(signal: Signal) -> i32 {
    signal_named(signal).as_raw()
}

/// The signal as the operating system has it.
pub(crate) fn signal_named(signal: Signal) -> rustix::process::Signal {
    match signal {
        Signal::Hup => rustix::process::Signal::HUP,
        Signal::Int => rustix::process::Signal::INT,
        Signal::Term => rustix::process::Signal::TERM,
        Signal::Kill => rustix::process::Signal::KILL,
        Signal::Stop => rustix::process::Signal::STOP,
        Signal::Cont => rustix::process::Signal::CONT,
    }
}

/// Whether this process was started with the signal ignored, as a shell starts what runs in the background: every program that it
/// starts inherits that, and may never hear of it.
pub fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored(&status) >> (signal_number(signal) - 1) & 1 == 1
}

/// The mask of ignored signals in `/proc/PID/status`.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nohup_leaves_ignored_is_read_off_the_mask() {
        let mask = ignored("Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000003\n");
        assert_eq!(mask, 3);
        assert_eq!(ignored("Name:\tx\n"), 0);
        assert!(!is_ignored(Signal::Kill), "nobody can ignore it");
    }
}
