//! What `pg_verifybackup` and `pg_controldata` say of a plain backup.

use std::path::Path;
use std::process::{Command, Output};

use backstop_protocol::version::ServerVersion;

use super::{Answer, Installation};

/// Asks both: the manifest against the files and, with `wal`, the WAL by `pg_waldump` (since 13), and whether the control file
/// agrees with its checksum.
pub(super) fn ask(installation: &Installation, version: ServerVersion, wal: bool, target: &Path) -> Answer {
    let mut asked = Vec::new();
    let mut commands = vec![("pg_controldata", installation.tool("pg_controldata"))];
    if version.has_manifest() && target.join("backup_manifest").exists() {
        let mut verify = installation.tool("pg_verifybackup");
        if !wal {
            verify.arg("-n");
        }
        commands.push(("pg_verifybackup", verify));
    }
    for (name, command) in commands {
        if !installation.has(name) {
            continue;
        }
        match said(command, target) {
            Ok(output) => {
                let words = [&output.stdout[..], &output.stderr[..]].concat();
                let words = String::from_utf8_lossy(&words).into_owned();
                // pg_controldata warns of a wrong checksum, and succeeds.
                if !output.status.success() || words.contains("WARNING: ") {
                    return Answer::Refused(format!("{name}: {}", words.trim()));
                }
            }
            Err(why) => return Answer::NotAsked(why),
        }
        asked.push(name);
    }
    if asked.is_empty() {
        return Answer::NotAsked(format!("the tools of PostgreSQL {version} are not installed"));
    }
    Answer::Accepted(format!("{} did not object", asked.join(" and ")))
}

fn said(mut command: Command, target: &Path) -> Result<Output, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.arg(target).output().map_err(|error| format!("could not run {program}: {error}"))
}
