//! Strikes at system calls.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::chance::Chance;

/// What happens to a program at a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// The call fails, and does nothing.
    Error(&'static str),
    /// The program is sent a signal while it is in the call.
    Signal(&'static str),
}

/// A blow at one system call of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Strike {
    pub(crate) call: &'static str,
    /// Which of these calls, from 1.
    pub(crate) when: u64,
    pub(crate) blow: Blow,
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Blow::Error(what) | Blow::Signal(what)) = self.blow;
        write!(f, "{what} at {} {}", self.call, self.when)
    }
}

impl Strike {
    /// `strace` around a program that is struck. The program's arguments follow. Nobody ignores a signal because whoever started
    /// this test does.
    pub(crate) fn command(&self, program: &Path) -> Command {
        self.started(program, "--default-signal=HUP,INT,TERM")
    }

    /// The same around a program that was started to ignore what hangs up, as `nohup` starts it.
    pub(crate) fn command_without_hangup(&self, program: &Path) -> Command {
        self.started(program, "--ignore-signal=HUP")
    }

    fn started(&self, program: &Path, signals: &str) -> Command {
        let blow = match self.blow {
            Blow::Error(error) => format!("error={error}"),
            Blow::Signal(signal) => format!("signal={signal}"),
        };
        let inject = format!("inject={}:{blow}:when={}", self.call, self.when);
        let mut command = strace(signals);
        command.args(["-o", "/dev/null", "-e", &format!("trace={}", self.call), "-e", &inject]).arg(program);
        command
    }
}

/// How often a program makes each system call, by a run of it.
pub(crate) struct Calls(BTreeMap<String, u64>);

impl Calls {
    /// The command that runs `program` and writes its calls to `log`. The program's arguments follow.
    pub(crate) fn counting(program: &Path, log: &Path) -> Command {
        let mut command = strace("--default-signal");
        command.arg("-o").arg(log).arg(program);
        command
    }

    /// Reads what was written: `4711 fsync(17) = 0`.
    pub(crate) fn read(log: &Path) -> Self {
        let mut calls = BTreeMap::new();
        for line in fs::read_to_string(log).expect("what strace wrote").lines() {
            let call = line.split_once(' ').and_then(|(_, rest)| rest.trim_start().split_once('('));
            if let Some((call, _)) = call {
                *calls.entry(call.to_owned()).or_insert(0) += 1;
            }
        }
        Self(calls)
    }

    /// A strike at one of these calls, if there are any.
    pub(crate) fn strike(&self, chance: &mut Chance, call: &'static str, blow: Blow) -> Option<Strike> {
        let count = self.0.get(call)?;
        Some(Strike { call, when: 1 + chance.below(*count), blow })
    }

    /// Strikes at calls drawn from those that there are.
    pub(crate) fn draw(&self, chance: &mut Chance, from: &[(&'static str, Blow)], count: usize) -> Vec<Strike> {
        let there: Vec<_> = from.iter().filter(|(call, _)| self.0.contains_key(*call)).collect();
        assert!(!there.is_empty(), "none of these calls was made");
        let draw = |_| {
            let (call, blow) = *chance.pick(&there);
            self.strike(chance, call, blow)
        };
        (0..count).filter_map(draw).collect()
    }
}

/// Who hangs is killed. `signals` is what `env` makes of them.
fn strace(signals: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "60", "env", signals, "strace", "-f", "-qq"]);
    command.stdin(Stdio::null());
    command
}

/// Whether programs can be struck here. A test that cannot has nothing to do, and this has said why.
///
/// # Panics
/// If they cannot and `BACKSTOP_REQUIRE_STRACE` is set.
pub(crate) fn possible(what: &str) -> bool {
    let probe = Strike { call: "chdir", when: 1, blow: Blow::Error("EIO") };
    let mut command = probe.command(Path::new("env"));
    command.args(["-C", "/", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    // `env` exits with 125 if it fails itself.
    let works = command.status().is_ok_and(|status| status.code() == Some(125));
    assert!(works || env::var_os("BACKSTOP_REQUIRE_STRACE").is_none(), "strace cannot strike programs here");
    if !works {
        println!("skipped: {what}: strace is not there, or may not trace");
    }
    works
}
