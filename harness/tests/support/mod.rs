//! What tests of several kinds need. Each test uses a part of it.
#![allow(dead_code, unreachable_pub, reason = "every test file compiles its own copy and uses a part")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running `backstop serve`. Dropped, it ends.
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
        let path = directory.join(name).with_extension("toml");
        fs::write(&path, scenario).expect("a scenario file");
        let log = path.with_extension("log");
        let mut process = Command::new(program)
            .arg("serve")
            .arg(&path)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log).expect("a file"))
            .spawn()
            .expect("backstop serve");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let port = match line.trim_end().strip_prefix("listening on ") {
            Some(place) if place.starts_with("unix:") => Some(5432),
            place => place.and_then(|place| place.strip_prefix("127.0.0.1:")?.parse().ok()),
        };
        let Some(port) = port else {
            let _ = process.kill();
            let said = fs::read_to_string(&log).unwrap_or_default();
            unreachable!("backstop serve {}: {line:?}\n{said}", path.display());
        };
        Self { process, port }
    }

    /// Ends it as an operator does, so that its log is whole.
    pub fn finish(mut self) {
        let process =
            i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
        rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("a signal");
        self.process.wait().expect("an end");
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
