//! How far a backup is: a bar on a terminal, and elsewhere what PostgreSQL's own tools print, byte for byte.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use backstop_scenarios::postgres::{Installation, PORT, Postgres, USER, reachable, succeed};
use support::terminal;
use tempfile::TempDir;

struct Setup {
    installation: Installation,
    server: Postgres,
    ours: PathBuf,
    // Last: it holds everything above.
    scratch: TempDir,
}

impl Setup {
    fn new(major: u16) -> Option<Self> {
        let installation = Installation::find_release(major, "the progress of backups")?;
        let scratch = installation.scratch();
        let server = Postgres::new(&installation, scratch.path(), &["autovacuum = off", "bgwriter_lru_maxpages = 0"]);
        let ours = scratch.path().join("bin");
        fs::create_dir(&ours).unwrap();
        let copy = reachable(Path::new(env!("CARGO_BIN_EXE_backstop-client")), &ours);
        for name in ["pg_basebackup", "pg_verifybackup"] {
            fs::hard_link(&copy, ours.join(name)).unwrap();
        }
        Some(Self { installation, server, ours, scratch })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A tool of ours or of PostgreSQL.
    fn tool(&self, ours: bool, name: &str) -> Command {
        let program = if ours { self.ours.join(name) } else { self.installation.path(name) };
        let mut command = self.installation.command(program);
        command.env("PGHOST", self.server.socket()).env("PGPORT", PORT.to_string()).env("PGUSER", USER);
        command
    }

    fn take(&self, ours: bool, arguments: &[&str]) -> String {
        let target = self.path("backup");
        let mut command = self.tool(ours, "pg_basebackup");
        let output = succeed(command.args(["-P", "-cfast", "-N", "-D"]).arg(&target).args(arguments));
        fs::remove_dir_all(target).unwrap();
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    }
}

/// Without the lines of progress before the last one: they come as time passes.
fn without_times(text: &str) -> Vec<String> {
    let lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    let count = |line: &String| line.contains(" kB (");
    let last = lines.iter().rposition(count);
    assert!(last.is_some() && lines.iter().filter(|line| count(line)).count() > 1, "{text}");
    let kept = lines.into_iter().enumerate().filter(|(index, line)| Some(*index) == last || !count(line));
    kept.map(|(_, line)| line).collect()
}

#[test]
fn without_a_terminal_the_lines_are_postgresqls() {
    for major in [15, 18] {
        let Some(setup) = Setup::new(major) else { continue };
        // The size of what is backed up is settled by a first backup.
        setup.take(true, &["-Xnone"]);
        for arguments in
            [&["-Xnone"][..], &["-Xnone", "-Ft"], &["-Xnone", "-v"], &["-Xfetch", "-r", "16M", "-Ft", "-z"]]
        {
            let mut told = [true, false].map(|ours| without_times(&setup.take(ours, arguments)));
            if arguments.contains(&"-Xfetch") {
                // There is more WAL each time.
                for lines in &mut told {
                    lines.retain(|line| !line.contains("(100%)"));
                }
            }
            assert_eq!(told[0], told[1], "{major} {arguments:?}");
            assert!(!told[0].concat().contains(['\r', '\x1b']), "{told:?}");
        }
    }
}

#[test]
fn verification_without_a_terminal_has_postgresqls_lines() {
    for major in [16, 18] {
        let Some(setup) = Setup::new(major) else { continue };
        let backup = setup.path("backup");
        succeed(setup.tool(true, "pg_basebackup").args(["-cfast", "-N", "-D"]).arg(&backup));
        let told = |ours| {
            let output = succeed(setup.tool(ours, "pg_verifybackup").arg("-P").arg(&backup));
            assert_eq!(output.stdout, b"backup successfully verified\n");
            let text = String::from_utf8(output.stderr).unwrap();
            let lines = text.split_inclusive('\n').map(str::to_owned);
            let lines: Vec<String> = lines.collect();
            assert!(lines.len() > 1, "{lines:?}");
            // Both ends are told; what lies between is a matter of time.
            (lines.first().cloned(), lines.last().cloned())
        };
        assert_eq!(told(true), told(false), "{major}");
    }
}

/// What a terminal got, without the sequences that move its cursor.
fn plain(shown: &str) -> String {
    let mut text = String::new();
    let mut chars = shown.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            // CSI: parameters, and a letter that ends them.
            let end = chars.by_ref().find(char::is_ascii_alphabetic);
            assert!(end != Some('m'), "no colour is asked for: {shown:?}");
        } else {
            text.push(c);
        }
    }
    text
}

#[test]
fn a_terminal_has_a_bar() {
    let Some(setup) = Setup::new(18) else { return };
    if !terminal::at_hand("a bar on a terminal") {
        return;
    }
    let backup = setup.path("backup");
    let shown = |tool: &str, arguments: &str| {
        let mut script = setup.installation.command("script");
        script.env("PGHOST", setup.server.socket()).env("PGPORT", PORT.to_string()).env("PGUSER", USER);
        script.env("TERM", "xterm");
        let program = format!("{} {arguments}", setup.ours.join(tool).display());
        let (shown, status) = terminal::run(script, &program, &[]);
        (plain(&shown), status.success())
    };
    let (text, success) = shown("pg_basebackup", &format!("-P -v -cfast -N -D {}", backup.display()));
    assert!(success, "{text}");
    assert!(text.contains("[==") && text.contains("] ") && text.contains(" kB ("), "{text:?}");
    let last = text.rfind(" kB (100%), 1/1 tablespace\r\n").unwrap();
    // The story of a verbose backup goes on beside it, line by line.
    assert!(text.contains("pg_basebackup: checkpoint completed\r\n"), "{text:?}");
    assert!(text[last..].contains("pg_basebackup: base backup completed\r\n"), "{text:?}");

    let (text, success) = shown("pg_verifybackup", &format!("-P {}", backup.display()));
    assert!(success && text.contains("] ") && text.contains(" kB (100%) verified\r\n"), "{text:?}");
    assert!(text.trim_end().ends_with("backup successfully verified"), "{text:?}");

    // Nobody asked.
    let (text, success) = shown("pg_verifybackup", &backup.display().to_string());
    assert!(success && text.trim() == "backup successfully verified", "{text:?}");
    // The bar stays where it was when the work failed, and the reason stands below it.
    fs::write(backup.join("base/1/1255"), "").unwrap();
    let (text, success) = shown("pg_verifybackup", &format!("-P {}", backup.display()));
    assert!(!success && text.contains("pg_verifybackup: error: \"base/1/1255\" has size 0 on disk"), "{text:?}");
}
