//! A server of its own for a test.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Installation, PORT, USER, succeed};

/// A running server. Dropped, it stops at once.
#[derive(Debug)]
pub struct Postgres {
    installation: Installation,
    data: PathBuf,
    socket: PathBuf,
    port: u16,
}

impl Postgres {
    /// Makes a new cluster in `scratch` and starts it. `settings` are lines of `postgresql.conf`.
    ///
    /// WAL is enough for replication, which everybody may do; nothing is flushed to disk.
    pub fn new(installation: &Installation, scratch: &Path, settings: &[&str]) -> Self {
        Self::on(installation, scratch, settings, &[])
    }

    /// The same with more options of `initdb`.
    pub fn on(installation: &Installation, scratch: &Path, settings: &[&str], initdb: &[&str]) -> Self {
        let data = scratch.join("data");
        installation.initdb(&data, initdb);
        let conf = data.join("postgresql.conf");
        let mut text = fs::read_to_string(&conf).expect("postgresql.conf");
        for line in ["", "wal_level = replica", "max_wal_senders = 5", "fsync = off"].iter().chain(settings) {
            text.push_str(line);
            text.push('\n');
        }
        fs::write(conf, text).expect("postgresql.conf");
        Self::start(installation, &data, &scratch.join("s"))
    }

    /// Starts a server on `data`, with its socket and its log in the directory `socket`.
    pub fn start(installation: &Installation, data: &Path, socket: &Path) -> Self {
        Self::start_on(installation, data, socket, "", PORT)
    }

    /// The same, but the server listens on TCP, too: on a port of the loopback that is free now.
    pub fn start_on_tcp(installation: &Installation, data: &Path, socket: &Path) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        Self::start_on(installation, data, socket, "127.0.0.1", free.port())
    }

    fn start_on(installation: &Installation, data: &Path, socket: &Path, addresses: &str, port: u16) -> Self {
        fs::create_dir_all(socket).expect("a directory");
        installation.give(socket);
        let options = format!("-k {} -p {port} -c listen_addresses={addresses} -c fsync=off", socket.display());
        let log = socket.join("log");
        let server =
            Self { installation: installation.clone(), data: data.to_path_buf(), socket: socket.to_path_buf(), port };
        let mut start = installation.tool("pg_ctl");
        start.args(["start", "-w", "-s", "-o", &options, "-l"]).arg(&log).arg("-D").arg(data);
        // A server that keeps a pipe of ours open would keep us waiting.
        let status = start.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("pg_ctl starts");
        assert!(status.success(), "{}", server.log());
        server
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The directory of the socket: what to give as host.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The port, which is also the number in the socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the server logged, and its predecessors on the same socket.
    pub fn log(&self) -> String {
        fs::read_to_string(self.socket.join("log")).unwrap_or_default()
    }

    /// Runs SQL and returns what it answers, without decoration.
    pub fn sql(&self, sql: &str) -> String {
        let mut psql = self.installation.tool("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", USER, "-d", "postgres", "-c", sql, "-h"]);
        let output = succeed(psql.arg(&self.socket).args(["-p", &self.port.to_string()]));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Stops in good order and starts again, on the same socket.
    pub fn restart(&self) {
        let mut restart = self.installation.tool("pg_ctl");
        restart
            .args(["restart", "-w", "-s", "-m", "fast", "-l"])
            .arg(self.socket.join("log"))
            .arg("-D")
            .arg(&self.data);
        // As at the first start.
        let status = restart.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("pg_ctl starts");
        assert!(status.success(), "{}", self.log());
    }

    /// Stops in good order, sessions or not.
    pub fn stop(&self) {
        succeed(&mut self.stopping("fast"));
    }

    fn stopping(&self, mode: &str) -> Command {
        let mut stop = self.installation.tool("pg_ctl");
        stop.args(["stop", "-w", "-s", "-m", mode, "-D"]).arg(&self.data);
        stop
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A stopped server has left no such file.
        if self.data.join("postmaster.pid").exists() {
            let _ = self.stopping("immediate").output();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_answers_and_goes() {
        for major in [15, 16, 18] {
            let Some(installation) = Installation::find_release(major, "a server of its own") else { continue };
            let scratch = installation.scratch();
            let server = Postgres::new(&installation, scratch.path(), &["work_mem = '5MB'"]);
            assert_eq!(server.sql("show work_mem"), "5MB");
            server.sql("alter system set work_mem = '6MB'");
            server.restart();
            assert_eq!(server.sql("show work_mem"), "6MB");
            // What a crash leaves to be done again: it stopped in good order.
            server.sql("create table again ()");
            let running = server.data().join("postmaster.pid");
            assert!(running.exists());
            drop(server);
            assert!(!running.exists());
            let server = Postgres::start(&installation, &scratch.path().join("data"), &scratch.path().join("s"));
            assert!(server.log().contains("redo done at"), "dropped means killed: {}", server.log());
            server.stop();
            assert!(!running.exists());
        }
    }
}
