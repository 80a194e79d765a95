//! A disk of a program's own, which can become full: a tmpfs in a mount namespace that only the program sees.
//!
//! It is made by `unshare` and `mount` of util-linux, in a user namespace, so that nobody has to be root. What lies on it when the
//! program has ended is copied to where it would have been without it.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use backstop_mock::fault::Action;
use backstop_mock::fault::client::FillDisk;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;

use crate::scenario::Case;
use crate::scenario::model::Client;

/// Runs a program on a disk of its own: the directory, then the program and its arguments.
const SCRIPT: &str = r#"
place=$1; shift
mode=$(stat -c %a "$place") && real=$(mktemp -d) && mount --bind "$place" "$real" \
    && mount -t tmpfs -o "mode=$mode" tmpfs "$place" || exit 125
"$@"; status=$?
cp -a "$place/." "$real/"
umount "$real" && rmdir "$real"
exit $status
"#;

/// A disk over a directory.
#[derive(Clone, Debug)]
pub(crate) struct SmallDisk {
    place: PathBuf,
}

impl SmallDisk {
    /// Whether this client needs one: a fault fills its disk.
    pub(crate) fn wanted(case: &Case, client: &Client) -> bool {
        case.scenario.faults.iter().any(|fault| match &fault.r#do {
            Action::FillDisk(FillDisk { client: name, .. }) => name.as_ref().is_none_or(|name| *name == client.name),
            _ => false,
        })
    }

    pub(crate) fn at(place: PathBuf) -> Self {
        Self { place }
    }

    /// Whether this machine lets us make one.
    pub(crate) fn is_possible() -> bool {
        let mut probe = std::process::Command::new("unshare");
        probe.args(["-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt && command -v nsenter"]);
        probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    }

    /// The command on the disk.
    pub(crate) fn hold(&self, command: &Command) -> Command {
        let command = command.as_std();
        let mut held = Command::new("unshare");
        held.args(["-rm", "sh", "-c", SCRIPT, "sh"]).arg(&self.place);
        held.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => held.env(name, value),
                None => held.env_remove(name),
            };
        }
        held
    }

    /// Leaves room for so many bytes more, in whole pages.
    ///
    /// # Errors
    /// Why the disk cannot be changed.
    pub(crate) async fn fill(&self, process: Pid, room: u64) -> Result<(), String> {
        // Who writes meanwhile makes the disk fuller than it may become.
        let _ = kill_process_group(process, Signal::STOP);
        let mut filled = self.try_fill(process, room).await;
        for _ in 0..ATTEMPTS {
            if filled.is_ok() {
                break;
            }
            filled = self.try_fill(process, room).await;
        }
        let _ = kill_process_group(process, Signal::CONT);
        filled.map_err(|problem| format!("could not fill the disk of the client: {problem}"))
    }

    async fn try_fill(&self, process: Pid, room: u64) -> Result<(), String> {
        let seen = PathBuf::from(format!("/proc/{}/root", process.as_raw_nonzero()));
        let place = seen.join(self.place.strip_prefix("/").unwrap_or(&self.place));
        let used = used(&place).map_err(|error| error.to_string())?;
        let mut resize = Command::new("nsenter");
        resize.args(["--preserve-credentials", "-U", "-m", "-t"]).arg(process.as_raw_nonzero().to_string());
        resize.args(["mount", "-o"]).arg(format!("remount,size={}", used.saturating_add(room).max(4096)));
        resize.arg(&self.place).stdin(Stdio::null());
        let output = resize.output().await.map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(said.trim().to_owned()) }
    }
}

/// How often a disk is tried to be filled on which somebody still writes: it takes a moment until all have stopped.
const ATTEMPTS: usize = 20;

/// The bytes that a file system holds.
fn used(place: &std::path::Path) -> io::Result<u64> {
    let numbers = rustix::fs::statvfs(place)?;
    Ok(numbers.f_blocks.saturating_sub(numbers.f_bfree).saturating_mul(numbers.f_frsize))
}
