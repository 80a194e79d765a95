//! A running server: a process that is ours, and ends with us whatever happens.
//!
//! Between the harness and the server stands a shell that waits for words on a pipe. When the harness is gone, killed even, the pipe
//! ends, and the shell stops the server.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backstop_mock::fault::ShutdownMode;
use tokio::sync::watch;

use crate::oracle::postgres::Installation;

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many lines of its log are kept.
const MOST_LINES: usize = 2000;

/// How many of them an error shows.
const SHOWN: usize = 12;

/// Starts the server.
const START: &str = r#"
"$@" </dev/null &
server=$!
"#;

/// Says when the server has gone. Elsewhere its log says so by ending, but not that of a container in which the shell still runs.
const WATCH: &str = r#"
(
    while read -r pid name state rest <"/proc/$server/stat" && [ "$state" != Z ]; do sleep 0.1; done 2>/dev/null
    echo "backstop: gone" >&2
) &
"#;

/// What [`WATCH`] says.
const GONE: &[u8] = b"backstop: gone";

/// Words on the pipe are names of signals for the postmaster; `kill` and a number kills one of its processes; `end` ends the shell once
/// the server has gone. A server that has just been started hears nothing of a first QUIT: it is told until it has gone.
const KEEPER: &str = r#"
exec 2>/dev/null >/dev/null
quit() {
    (while kill -QUIT "$server"; do sleep 0.2; done) &
    again=$!
    wait "$server"
    kill "$again"
}
while read -r word; do
    case $word in
    end)
        quit
        exit 0
        ;;
    kill\ *) kill -KILL "${word#kill }" ;;
    *) kill "-$word" "$server" ;;
    esac
done
quit
"#;

/// What the log has told so far.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// How many times it was ready for connections.
    ready: u32,
    /// Whether every process of the server has gone.
    gone: bool,
}

/// A server. Dropped, it is stopped at once.
#[derive(Debug)]
pub(super) struct Process {
    keeper: Child,
    words: ChildStdin,
    log: Arc<Mutex<VecDeque<String>>>,
    progress: watch::Receiver<Progress>,
}

impl Process {
    /// Starts a server on `data`.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn start(installation: &Installation, data: &Path) -> std::io::Result<Self> {
        let mut keeper = installation.shell();
        let watch = if installation.is_inside() { WATCH } else { "" };
        keeper
            .args(["-c", &format!("{START}{watch}{KEEPER}"), "backstop-keeper"])
            .arg(installation.path("postgres"))
            .arg("-D")
            .arg(data);
        // What a terminal signals is none of its business.
        keeper.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut keeper = keeper.spawn()?;
        let missing = || std::io::Error::other("a pipe to the server is missing");
        let words = keeper.stdin.take().ok_or_else(missing)?;
        let stderr = keeper.stderr.take().ok_or_else(missing)?;
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let (tell, progress) = watch::channel(Progress::default());
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                if line == GONE {
                    break;
                }
                let line = String::from_utf8_lossy(&line).into_owned();
                // "to accept connections", "to accept read-only connections", "read only" before 14.
                let ready = line.contains("database system is ready to accept");
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() == MOST_LINES {
                    kept.pop_front();
                }
                kept.push_back(line);
                drop(kept);
                tell.send_modify(|progress| progress.ready += u32::from(ready));
            }
            tell.send_modify(|progress| progress.gone = true);
        });
        Ok(Self { keeper, words, log, progress })
    }

    /// Waits until it was ready `times` times.
    ///
    /// # Errors
    /// The end of its log.
    pub(super) async fn ready(&mut self, times: u32) -> Result<(), String> {
        let mut progress = self.progress.clone();
        let ready = progress.wait_for(|progress| progress.ready >= times || progress.gone);
        let ready = tokio::time::timeout(PATIENCE, ready).await.ok().and_then(|ready| ready.ok().map(|ready| *ready));
        match ready {
            Some(Progress { gone: false, .. }) => Ok(()),
            Some(_) => Err(format!("PostgreSQL does not start: {}", self.last_words())),
            None => Err(format!("PostgreSQL does not start in {} s: {}", PATIENCE.as_secs(), self.last_words())),
        }
    }

    /// Whether it could not have the port that it was given.
    pub(super) fn lost_its_port(&self) -> bool {
        self.lines().iter().any(|line| line.contains("Address already in use"))
    }

    /// Stops it, if it does not stop already.
    ///
    /// # Errors
    /// The end of its log, if it does not stop.
    pub(super) async fn stop(&mut self, mode: ShutdownMode) -> Result<(), String> {
        self.ask_to_stop(mode);
        self.gone().await
    }

    /// Tells it to stop: `pg_ctl stop -m`.
    pub(super) fn ask_to_stop(&mut self, mode: ShutdownMode) {
        self.say(match mode {
            ShutdownMode::Smart => "TERM",
            ShutdownMode::Fast => "INT",
            ShutdownMode::Immediate => "QUIT",
        });
    }

    /// Kills one of its processes.
    pub(super) fn kill(&mut self, pid: u32) {
        self.say(&format!("kill {pid}"));
    }

    /// Waits until all of its processes have gone.
    ///
    /// # Errors
    /// The end of its log, if they do not go.
    pub(super) async fn gone(&self) -> Result<(), String> {
        let mut progress = self.progress.clone();
        let gone = progress.wait_for(|progress| progress.gone);
        let gone = tokio::time::timeout(PATIENCE, gone).await.is_ok();
        if gone { Ok(()) } else { Err(format!("PostgreSQL does not stop: {}", self.last_words())) }
    }

    /// The end of its log in one line, without times and process ids.
    pub(super) fn last_words(&self) -> String {
        let lines = self.lines();
        let shown = lines.get(lines.len().saturating_sub(SHOWN)..).unwrap_or_default();
        let without_prefix =
            |line: &String| line.split_once("] ").map_or(&**line, |(_, words)| words).trim().to_owned();
        shown.iter().map(without_prefix).collect::<Vec<_>>().join("; ")
    }

    fn lines(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn say(&mut self, word: &str) {
        // A keeper that has gone has taken the server with it.
        let _ = writeln!(self.words, "{word}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.say("end");
        let _ = self.keeper.wait();
    }
}
