//! What clients take their backups from, and what it costs there.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backstop_scenarios::postgres::{Installation, Postgres, USER};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::process::{cores, spawn_on};
use super::{CompareError, Programs};

/// How long a session may take to go after its client has gone.
const GONE: Duration = Duration::from_secs(10);

/// A server whose cost can be told.
pub trait Serves {
    /// The options that lead a client to it.
    fn arguments(&self) -> Vec<String>;
    /// CPU time so far of all that served clients which have gone.
    fn cpu(&self) -> Result<Duration, CompareError>;
    /// The most memory that it ever had resident, in bytes, if it is one process.
    fn peak_rss(&self) -> Option<u64>;
}

/// Fields of `/proc/PID/stat` in ticks, from `utime` on: utime, stime, cutime, cstime.
fn ticks(pid: u32) -> Result<[u64; 4], CompareError> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let text = fs::read_to_string(&path).map_err(CompareError::io("could not read", &path))?;
    let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = after_name.split_ascii_whitespace().skip(11).map(|field| field.parse().unwrap_or(0));
    Ok([0; 4].map(|_: u64| fields.next().unwrap_or(0)))
}

fn time(ticks: u64) -> Duration {
    Duration::from_secs_f64(f64::from(u32::try_from(ticks).unwrap_or(u32::MAX)) / ticks_per_second())
}

#[expect(clippy::cast_precision_loss, reason = "it is 100")]
fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

fn high_water_mark(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// A program of ours that prints `listening on HOST:PORT` and serves until it is killed: the mock, or a sender of frames.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    port: String,
}

impl Process {
    /// Starts it on the first core.
    pub(super) fn start(command: &mut Command) -> Result<Self, CompareError> {
        Self::start_on(command, cores().first().copied())
    }

    /// Starts it on whatever core is free: what stands between two ends belongs to neither.
    pub(super) fn start_anywhere(command: &mut Command) -> Result<Self, CompareError> {
        Self::start_on(command, None)
    }

    fn start_on(command: &mut Command, core: Option<usize>) -> Result<Self, CompareError> {
        let program = PathBuf::from(command.get_program());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = spawn_on(command, core).map_err(CompareError::io("could not start", &program))?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line).map_err(CompareError::io("could not read from", &program))?;
        }
        let server = Self { child, port: line.trim_end().rsplit(':').next().unwrap_or_default().to_owned() };
        if server.port.is_empty() || !line.starts_with("listening on ") {
            return Err(CompareError::Missing(format!("{} did not say where it listens", program.display())));
        }
        Ok(server)
    }

    /// The mock, as a scenario of this text says.
    pub(super) fn mock(programs: &Programs, scenario: &str, scratch: &Path) -> Result<Self, CompareError> {
        let path = scratch.join("scenario.toml");
        fs::write(&path, scenario).map_err(CompareError::io("could not write", &path))?;
        Self::start(programs.ours("backstop").arg("serve").arg(&path))
    }

    /// Where it listens.
    pub(super) fn port(&self) -> &str {
        &self.port
    }
}

impl Serves for Process {
    fn arguments(&self) -> Vec<String> {
        ["-h", "127.0.0.1", "-p", &self.port, "-U", "backstop"].map(str::to_owned).into()
    }

    fn cpu(&self) -> Result<Duration, CompareError> {
        let [user, system, _, _] = ticks(self.child.id())?;
        Ok(time(user + system))
    }

    fn peak_rss(&self) -> Option<u64> {
        high_water_mark(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A real server, which listens on TCP like the mock.
#[derive(Debug)]
pub(super) struct Real {
    pub(super) postgres: Postgres,
    postmaster: u32,
}

impl Real {
    /// Starts a server on `data` on the first core.
    pub(super) fn start(installation: &Installation, data: &Path, socket: &Path) -> Result<Self, CompareError> {
        let server = Self::start_on_all_cores(installation, data, socket)?;
        let mut first = CpuSet::new();
        if let Some(core) = cores().first() {
            first.set(*core);
        }
        let pid = i32::try_from(server.postmaster).ok().and_then(Pid::from_raw);
        // Whatever it forks from now on inherits it.
        sched_setaffinity(pid, &first).map_err(|error| CompareError::io("could not pin", data)(error.into()))?;
        Ok(server)
    }

    /// Starts a server on `data` on whatever cores there are.
    pub(super) fn start_on_all_cores(
        installation: &Installation,
        data: &Path,
        socket: &Path,
    ) -> Result<Self, CompareError> {
        let postgres = Postgres::start_on_tcp(installation, data, socket);
        let path = data.join("postmaster.pid");
        let text = fs::read_to_string(&path).map_err(CompareError::io("could not read", &path))?;
        let postmaster: u32 = text.lines().next().and_then(|line| line.parse().ok()).unwrap_or_default();
        Ok(Self { postgres, postmaster })
    }

    /// A connection string that leads an ordinary session to it.
    pub(super) fn conninfo(&self) -> String {
        format!("host=127.0.0.1 port={} user={USER} dbname=postgres", self.postgres.port())
    }

    /// Whether it serves a client that came over TCP: `postgres: walsender postgres 127.0.0.1(40612) …`.
    fn has_session(&self) -> bool {
        let children = format!("/proc/{0}/task/{0}/children", self.postmaster);
        let children = fs::read_to_string(children).unwrap_or_default();
        children.split_ascii_whitespace().any(|child| {
            // One that has ended has no command line, but has not been counted yet.
            let command = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            command.is_empty() || command.windows(10).any(|word| word == b"127.0.0.1(")
        })
    }
}

impl Serves for Real {
    fn arguments(&self) -> Vec<String> {
        let port = self.postgres.port().to_string();
        ["-h", "127.0.0.1", "-p", &port, "-U", USER].map(str::to_owned).into()
    }

    fn cpu(&self) -> Result<Duration, CompareError> {
        // A process is counted with its parent once it has ended.
        let started = Instant::now();
        while self.has_session() {
            if started.elapsed() > GONE {
                return Err(CompareError::Missing("a session stayed after its client had gone".to_owned()));
            }
            std::thread::yield_now();
        }
        let [_, _, user, system] = ticks(self.postmaster)?;
        Ok(time(user + system))
    }

    fn peak_rss(&self) -> Option<u64> {
        None
    }
}
