//! What tests of several kinds need. Each test uses a part of it.
#![allow(dead_code, unreachable_pub, reason = "every test file compiles its own copy and uses a part")]

pub mod client;
pub mod one_case;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Waits for something that nobody tells.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(120), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A running `backstop serve` or `backstop proxy`. Dropped, it ends.
pub struct Serving {
    process: Child,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
}

impl Serving {
    /// Serves a scenario, given as a file's text. The file is written into `directory`, and what the server says.
    pub fn start(directory: &Path, name: &str, scenario: &str) -> Self {
        Self::start_with(directory, name, scenario, &[])
    }

    /// The same with more arguments. On a Unix socket the port is 5432.
    pub fn start_with(directory: &Path, name: &str, scenario: &str, arguments: &[&str]) -> Self {
        Self::start_program(Path::new(env!("CARGO_BIN_EXE_backstop")), directory, name, scenario, arguments)
    }

    /// The same with another build of `backstop`.
    pub fn start_program(program: &Path, directory: &Path, name: &str, scenario: &str, arguments: &[&str]) -> Self {
        Self::start_command(program, "serve", directory, name, scenario, arguments)
    }

    /// Puts a scenario's faults before `upstream`.
    pub fn proxy(directory: &Path, name: &str, scenario: &str, upstream: &str, arguments: &[&str]) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_backstop"));
        let arguments: Vec<_> = ["--upstream", upstream].into_iter().chain(arguments.iter().copied()).collect();
        Self::start_command(program, "proxy", directory, name, scenario, &arguments)
    }

    /// Plays a cassette.
    pub fn replay(directory: &Path, name: &str, cassette: &Path) -> Self {
        let cassette = cassette.to_str().expect("a path in UTF-8");
        Self::launch(directory, name, &["serve", "--replay", cassette])
    }

    /// Records what passes to and from `upstream`.
    pub fn record(directory: &Path, name: &str, cassette: &Path, upstream: &str) -> Self {
        let cassette = cassette.to_str().expect("a path in UTF-8");
        Self::launch(directory, name, &["proxy", "--record", cassette, "--upstream", upstream])
    }

    /// Runs `backstop` with these arguments; what it says goes to a log of this name.
    fn launch(directory: &Path, name: &str, arguments: &[&str]) -> Self {
        Self::launch_program(Path::new(env!("CARGO_BIN_EXE_backstop")), directory, name, arguments)
    }

    fn start_command(
        program: &Path,
        command: &str,
        directory: &Path,
        name: &str,
        scenario: &str,
        arguments: &[&str],
    ) -> Self {
        let path = directory.join(name).with_extension("toml");
        fs::write(&path, scenario).expect("a scenario file");
        let scenario = path.to_str().expect("a path in UTF-8");
        let arguments: Vec<_> = [command, scenario].into_iter().chain(arguments.iter().copied()).collect();
        Self::launch_program(program, directory, name, &arguments)
    }

    fn launch_program(program: &Path, directory: &Path, name: &str, arguments: &[&str]) -> Self {
        let log = directory.join(name).with_extension("log");
        let mut process = Command::new(program)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log).expect("a file"))
            .spawn()
            .expect("backstop");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let port = match line.trim_end().strip_prefix("listening on ") {
            Some(place) if place.starts_with("unix:") => Some(5432),
            place => place.and_then(|place| place.strip_prefix("127.0.0.1:")?.parse().ok()),
        };
        let Some(port) = port else {
            let _ = process.kill();
            let said = fs::read_to_string(&log).unwrap_or_default();
            unreachable!("backstop {arguments:?}: {line:?}\n{said}");
        };
        Self { process, port }
    }

    /// Ends it as an operator does, so that its log is whole. Its exit status.
    pub fn finish(mut self) -> Option<i32> {
        let process =
            i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
        rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("a signal");
        self.process.wait().expect("an end").code()
    }

    /// The most memory that the server has had in use so far, in bytes: `VmHWM`, where the system tells it.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
