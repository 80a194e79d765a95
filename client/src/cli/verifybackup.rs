//! `pg_verifybackup`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use super::gauge::Gauge;
use super::{Invocation, getopt, output};
use crate::verifybackup::{BackupFormat, Finding, VerifyObserver, VerifyOptions, verify_backup};

/// What is different from the original, below the options.
const BEYOND: &str = "\
Manifests of releases 13 to 18 are taken. WAL is parsed in tar files, too, without pg_waldump.
A backup that agrees with its manifest is refused all the same, with a message that begins with
\"not restorable: \", if no server could start from it:
  - PG_VERSION, backup_label or global/pg_control is not in the manifest, or they contradict
    each other
  - the manifest's WAL ranges are missing, do not follow each other, or begin elsewhere than
    backup_label says
  - a directory is missing that every data directory has
  - an archive holds a file twice, or a link leads back to a directory that holds it
Also refused are tar files that PostgreSQL does not write, WAL of another cluster or in files
of a wrong size, and numbers in the manifest that are not plain digits.

Example:
  {program} /var/backups/monday";

#[derive(Debug, Parser)]
#[command(next_help_heading = "Options", after_help = BEYOND)]
struct Arguments {
    /// exit immediately on error
    #[arg(short = 'e', long)]
    exit_on_error: bool,
    /// backup format (plain, tar)
    #[arg(short = 'F', long, value_name = "p|t", value_parser = format)]
    format: Option<BackupFormat>,
    /// ignore indicated path
    #[arg(short = 'i', long, value_name = "RELATIVE_PATH")]
    ignore: Vec<PathBuf>,
    /// use specified path for manifest
    #[arg(short = 'm', long, value_name = "PATH")]
    manifest_path: Option<PathBuf>,
    /// do not try to parse WAL files
    #[arg(short = 'n', long)]
    no_parse_wal: bool,
    /// show progress information: a bar on a terminal, lines elsewhere
    #[arg(short = 'P', long)]
    progress: bool,
    /// do not print any output, except for errors
    #[arg(short = 'q', long)]
    quiet: bool,
    /// skip checksum verification
    #[arg(short = 's', long)]
    skip_checksums: bool,
    /// use specified path for WAL files
    #[arg(short = 'w', long, value_name = "PATH")]
    wal_directory: Option<PathBuf>,
    #[arg(hide = true)]
    operands: Vec<PathBuf>,
}

fn format(text: &str) -> Result<BackupFormat, String> {
    match text {
        "p" | "plain" => Ok(BackupFormat::Plain),
        "t" | "tar" => Ok(BackupFormat::Tar),
        _ => Err(format!("invalid backup format \"{text}\", must be \"plain\" or \"tar\"")),
    }
}

/// Verifies a backup.
pub(super) fn run(invocation: &Invocation, arguments: Vec<OsString>) -> ExitCode {
    let arguments: Arguments = match getopt::parse(invocation, arguments) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let directory = match arguments.operands.as_slice() {
        [] => return invocation.usage_error("no backup directory specified"),
        [directory] => directory.clone(),
        [_, next, ..] => {
            let next = next.display();
            return invocation.usage_error(format!("too many command-line arguments (first is \"{next}\")"));
        }
    };
    if arguments.progress && arguments.quiet {
        return invocation.error("cannot specify both -P/--progress and -q/--quiet");
    }
    let options = VerifyOptions {
        directory,
        manifest: arguments.manifest_path,
        wal_directory: arguments.wal_directory,
        format: arguments.format,
        ignore: arguments.ignore,
        exit_on_error: arguments.exit_on_error,
        parse_wal: !arguments.no_parse_wal,
        skip_checksums: arguments.skip_checksums,
    };
    let mut report = Report { program: &invocation.program, gauge: Gauge::new(arguments.progress) };
    match verify_backup(&options, &mut report) {
        Ok(true) => {
            if !arguments.quiet {
                return output::answer(&invocation.program, "backup successfully verified\n");
            }
            ExitCode::SUCCESS
        }
        Ok(false) => {
            report.gauge.abandon();
            ExitCode::FAILURE
        }
        Err(error) => {
            report.gauge.abandon();
            invocation.error(error)
        }
    }
}

/// Prints what comes out.
struct Report<'a> {
    program: &'a str,
    gauge: Gauge,
}

impl VerifyObserver for Report<'_> {
    fn found(&mut self, finding: &Finding) {
        self.gauge.say(&format!("{}: error: {finding}", self.program));
        if let Some(detail) = finding.detail() {
            self.gauge.say(&format!("{}: detail: {detail}", self.program));
        }
    }

    fn progress(&mut self, done: u64, total: u64, finished: bool) {
        self.gauge.show(done, total, finished, || progress_line(done, total));
    }
}

/// As `pg_verifybackup` shows it.
fn progress_line(done: u64, total: u64) -> String {
    let percent = if total == 0 { 0 } else { u128::from(done) * 100 / u128::from(total) };
    let total = (total / 1024).to_string();
    format!("{:>width$}/{total} kB ({percent}%) verified", done / 1024, width = total.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_as_pg_verifybackup_does() {
        insta::assert_snapshot!(progress_line(123 << 10, 22938 << 10), @"  123/22938 kB (0%) verified");
        insta::assert_snapshot!(progress_line(0, 0), @"0/0 kB (0%) verified");
    }
}
