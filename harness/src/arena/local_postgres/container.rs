//! A container in which the programs of an image run.
//!
//! It holds nothing of its own: it sees the directory of the run under the name that it has here, and shares this machine's network, so
//! that a server in it is set up, reached and looked at like any other. It waits for words on a pipe, and ends with it: however the harness
//! ends, the engine removes it, or is told to by what survives.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::oracle::postgres::{Inside, server_user};
use crate::survivor::Survivor;

/// What the container does.
const KEEPER: &str = "echo ready; read -r word";

/// Removes the container `$2` of a harness that was killed. What the engine still makes of its command `$3` goes, too: it waits for ever for
/// the removal of a container that it could not start.
const REMOVE: &str = r#"
tries=0
while "$1" rm -f "$2"; kill -0 "$3" 2>/dev/null && [ "$tries" -lt 60 ]; do
    sleep 1
    tries=$((tries + 1))
done
"$1" rm -f "$2"
"#;

/// How much of what the engine says against it is kept, in bytes.
const MOST_SAID: u64 = 16 << 10;

/// The number of the next container of this process.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// A running container. Dropped, it is removed.
#[derive(Debug)]
pub(super) struct Container {
    inside: Inside,
    image: String,
    /// The engine's command, which lives as long as the container.
    keeper: Mutex<Child>,
    words: Option<ChildStdin>,
    survivor: Option<Survivor>,
    said: Arc<Mutex<String>>,
}

impl Container {
    /// Starts a container of `image` that sees `place`. An image that is not there is fetched, as the engine does.
    ///
    /// # Errors
    /// What the engine says.
    pub(super) fn start(engine: &Path, image: &str, place: &Path) -> Result<Self, String> {
        let (user, group) =
            server_user()?.unwrap_or_else(|| (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()));
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let name = format!("backstop-{}-{number}", std::process::id());
        let mut command = Command::new(engine);
        command.args(["run", "-i", "--rm", "--network", "host", "--entrypoint", "/bin/sh", "--name", &name]);
        // Programs look up the name of their user.
        command.args(["-u", &format!("{user}:{group}"), "-v", "/etc/passwd:/etc/passwd:ro"]);
        command.args(["--mount", &shared(place), image, "-c", KEEPER]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // What a terminal signals is none of its business.
        let spawned = command.process_group(0).spawn();
        let mut keeper = spawned.map_err(|error| format!("could not run {}: {error}", engine.display()))?;
        let pid = keeper.id().to_string();
        let (words, stdout, stderr) = (keeper.stdin.take(), keeper.stdout.take(), keeper.stderr.take());
        let said = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&said);
        let listening = std::thread::spawn(move || {
            let mut all = Vec::new();
            if let Some(stderr) = stderr {
                // What cannot be read any more has been said.
                let _ = stderr.take(MOST_SAID).read_to_end(&mut all);
            }
            *heard.lock().unwrap_or_else(PoisonError::into_inner) = String::from_utf8_lossy(&all).into_owned();
        });
        let inside = Inside { engine: engine.to_owned(), container: name, place: place.to_owned() };
        let keeper = Mutex::new(keeper);
        let mut container = Self { inside, image: image.to_owned(), keeper, words, survivor: None, said };
        let survivor = Survivor::start(REMOVE, [engine.as_os_str(), container.inside.container.as_ref(), pid.as_ref()]);
        container.survivor = Some(survivor.map_err(|error| format!("could not run /bin/sh: {error}"))?);
        let mut ready = String::new();
        if let Some(stdout) = stdout {
            let _ = BufReader::new(stdout).read_line(&mut ready);
        }
        if ready.trim_end() == "ready" {
            return Ok(container);
        }
        // It has said everything when its pipe has ended.
        let _ = listening.join();
        Err(format!("image {image}: {}", container.last_words()))
    }

    /// Where programs run.
    pub(super) fn inside(&self) -> Inside {
        self.inside.clone()
    }

    /// Why it runs no more, if it does not.
    pub(super) fn problem(&self) -> Option<String> {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = !matches!(keeper.try_wait(), Ok(None));
        ended.then(|| format!("the container of {} has ended: {}", self.image, self.last_words()))
    }

    /// What the engine said last, without what it always says.
    fn last_words(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("See '"));
        let mut lines: Vec<&str> = lines.filter(|line| !line.starts_with("Run '")).collect();
        let problem = lines.iter().rposition(|line| line.contains("rror")).map(|at| lines.swap_remove(at));
        problem.or(lines.pop()).unwrap_or("the engine does not say why").to_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(mut words) = self.words.take() {
            let _ = writeln!(words, "end");
        }
        let keeper = self.keeper.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = keeper.wait();
        // Where the pipe did not reach it. One that has gone is nothing to speak of.
        let mut remove = Command::new(&self.inside.engine);
        remove
            .args(["rm", "-f", &self.inside.container])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let _ = remove.status();
        // Nothing is left that it would have to remove.
        drop(self.survivor.take());
    }
}

/// What the engine is told about a directory that the container sees under its own name.
///
/// Unlike `-v` this makes no directory where there is none: the run may have been killed, and its directory removed, between the engine's
/// making a container and starting it. The words are those of a line of CSV.
fn shared(place: &Path) -> String {
    let place = place.display().to_string().replace('"', "\"\"");
    format!("type=bind,\"source={place}\",\"target={place}\"")
}

/// The engine's command: `docker`, or what `BACKSTOP_CONTAINER_ENGINE` says.
pub(in crate::arena) fn engine() -> PathBuf {
    std::env::var_os("BACKSTOP_CONTAINER_ENGINE").map_or_else(|| PathBuf::from("docker"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_any_name_is_one_field() {
        assert_eq!(shared(Path::new("/a b")), r#"type=bind,"source=/a b","target=/a b""#);
        assert_eq!(shared(Path::new("/a,b\"c")), r#"type=bind,"source=/a,b""c","target=/a,b""c""#);
    }
}
