//! What cleans up when the harness is killed, and cannot do it itself.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Waits until we have gone. With a word before that there is nothing left to do.
const WAIT: &str = "read -r word && exit 0\n";

/// The directory `$1` goes, however long somebody still writes to it.
const REMOVE: &str = r#"
tries=0
while [ -e "$1" ] && [ "$tries" -lt 1200 ]; do
    rm -rf -- "$1" 2>/dev/null || sleep 0.1
    tries=$((tries + 1))
done
"#;

/// A shell that does something once this process has gone without dropping the value.
#[derive(Debug)]
pub(crate) struct Survivor(Child);

impl Survivor {
    /// `script` sees `arguments` as `$1` and so on. It is run in the root directory, and nobody hears what it says.
    pub(crate) fn start<'a>(script: &str, arguments: impl IntoIterator<Item = &'a OsStr>) -> io::Result<Self> {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg([WAIT, script].concat()).arg("backstop-survivor").args(arguments).current_dir("/");
        // What a terminal signals is none of its business.
        shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        shell.spawn().map(Self)
    }

    /// One that removes a directory.
    pub(crate) fn removing(directory: &Path) -> io::Result<Self> {
        Self::start(REMOVE, [directory.as_os_str()])
    }
}

impl Drop for Survivor {
    fn drop(&mut self) {
        if let Some(mut words) = self.0.stdin.take() {
            // One that has gone has nothing left to do.
            let _ = writeln!(words, "end");
        }
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn it_acts_only_for_one_that_was_killed() {
        let directory = tempfile::tempdir().unwrap();
        let left = directory.path().join("left");
        let start = || Survivor::start(r#": >"$1""#, [left.as_os_str()]).unwrap();
        drop(start());
        assert!(!left.exists());
        // The pipe ends without a word, as with a killed process.
        let mut survivor = start();
        drop(survivor.0.stdin.take());
        survivor.0.wait().unwrap();
        assert!(fs::metadata(&left).is_ok());
    }
}
