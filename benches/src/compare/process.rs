//! One run of one program: how long it took, what it used.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use wait4::Wait4 as _;

use super::CompareError;

/// How much of a failed program's standard error is shown, in bytes.
const SHOWN: u64 = 2000;

/// What one run used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    /// From its start to its end.
    pub(super) wall: Duration,
    /// User and system time of all its threads.
    pub(super) cpu: Duration,
    /// The most memory that it ever had resident, in bytes.
    pub(super) peak_rss: u64,
}

/// The cores that this process may use.
pub(super) fn cores() -> Vec<usize> {
    let allowed = sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect()
}

/// Starts `command` on one core, or on any. Threads and processes that it starts stay there.
pub(super) fn spawn_on(command: &mut Command, core: Option<usize>) -> std::io::Result<std::process::Child> {
    let Some(core) = core else { return command.spawn() };
    let before = sched_getaffinity(None)?;
    let mut only = CpuSet::new();
    only.set(core);
    // A child inherits it.
    sched_setaffinity(None, &only)?;
    let child = command.spawn();
    sched_setaffinity(None, &before)?;
    child
}

/// Runs `command` to its end.
///
/// # Errors
/// It cannot be started, or fails.
pub(super) fn measure(command: &mut Command, core: Option<usize>) -> Result<Usage, CompareError> {
    let program = command.get_program().to_owned();
    let io = |what| CompareError::io(what, program.as_ref());
    let mut said = tempfile::tempfile().map_err(io("could not keep the messages of"))?;
    let messages = said.try_clone().map_err(io("could not keep the messages of"))?;
    command.stdin(Stdio::null()).stderr(messages);
    let started = Instant::now();
    let mut child = spawn_on(command, core).map_err(io("could not start"))?;
    let used = child.wait4().map_err(io("could not wait for"))?;
    let wall = started.elapsed();
    if !used.status.success() {
        return Err(CompareError::Failed {
            program: program.to_string_lossy().into_owned(),
            status: used.status.to_string(),
            said: tail(&mut said),
        });
    }
    Ok(Usage { wall, cpu: used.rusage.utime + used.rusage.stime, peak_rss: used.rusage.maxrss })
}

fn tail(said: &mut File) -> String {
    let mut text = Vec::new();
    let length = said.metadata().map_or(0, |metadata| metadata.len());
    // What cannot be read is not there to be shown.
    let _ = said.seek(SeekFrom::Start(length.saturating_sub(SHOWN)));
    let _ = said.take(SHOWN).read_to_end(&mut text);
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_measured_on_its_core() {
        let core = *cores().last().expect("a core");
        let mut command = Command::new("sh");
        command.args(["-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"]);
        let usage = measure(&mut command, Some(core)).expect("it runs");
        assert!(usage.cpu > Duration::ZERO);
        assert!(usage.peak_rss > 100_000 && usage.peak_rss < 1 << 30, "{}", usage.peak_rss);
        assert!(cores().len() > 1 || core == 0, "the own affinity is as before");
    }

    #[test]
    fn what_fails_says_why() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such cluster >&2; exit 3"]);
        let error = measure(&mut command, None).expect_err("it fails").to_string();
        assert_eq!(error, "sh failed (exit status: 3): no such cluster");
        let error = measure(&mut Command::new("/no/such/program"), None).expect_err("it is not there").to_string();
        assert!(error.starts_with("could not start /no/such/program: "), "{error}");
    }
}
