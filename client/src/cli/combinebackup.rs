//! `pg_combinebackup`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use backstop_protocol::base_backup::manifest::ChecksumAlgorithm;
use clap::Parser;

use super::basebackup::values;
use super::remains::Remains;
use super::{Invocation, getopt, output, signals};
use crate::combine::{CombineObserver, CombineOptions, CopyMethod, combine_backups};
use crate::options::SyncMethod;

/// What is different from the original, below the options.
const BEYOND: &str = "\
Backups of 17 and 18 are taken. A pg_wal that is a link is copied with what it leads to.
Refused beyond what the original refuses:
  - a file that the last input's manifest lists and that is not there
  - a file whose size is not the manifest's, or whose checksum is not, if it is read whole
  - incremental files whose block numbers are out of range or out of order, or whose length is
    not what their header says
  - an output directory inside an input directory
Without --verify-inputs only those blocks are read that the output needs; changes in others,
and in blocks of incremental files, are not noticed. The output's pg_control and manifest get
their names when everything else is on disk.

Example:
  {program} sunday monday tuesday -o restored";

const COPY_METHODS: [&str; 4] = ["clone", "copy", "copy_file_range", "link"];

#[derive(Debug, Parser)]
#[command(next_help_heading = "Options", after_help = BEYOND)]
struct Arguments {
    /// generate lots of debugging output
    #[arg(short = 'd', long)]
    debug: bool,
    /// link files instead of copying
    #[arg(short = 'k', long, overrides_with_all = COPY_METHODS)]
    link: bool,
    /// do not actually do anything
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// do not wait for changes to be written safely to disk
    #[arg(short = 'N', long)]
    no_sync: bool,
    /// output directory
    #[arg(short = 'o', long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
    /// relocate tablespace in OLDDIR to NEWDIR
    #[arg(short = 'T', long, value_name = "OLDDIR=NEWDIR", value_parser = values::tablespace_mapping)]
    tablespace_mapping: Vec<(PathBuf, PathBuf)>,
    /// clone (reflink) files instead of copying
    #[arg(long, overrides_with_all = COPY_METHODS)]
    clone: bool,
    /// copy files (default)
    #[arg(long, overrides_with_all = COPY_METHODS)]
    copy: bool,
    /// copy using copy_file_range() system call
    #[arg(long, overrides_with_all = COPY_METHODS)]
    copy_file_range: bool,
    /// use algorithm for manifest checksums
    #[arg(long, value_name = "SHA{224,256,384,512}|CRC32C|NONE", value_parser = values::checksums)]
    manifest_checksums: Option<ChecksumAlgorithm>,
    /// suppress generation of backup manifest
    #[arg(long)]
    no_manifest: bool,
    /// set method for syncing files to disk
    #[arg(long, value_name = "METHOD", value_parser = values::sync_method)]
    sync_method: Option<SyncMethod>,
    /// verify every input with its manifest first, WAL excepted
    #[arg(long)]
    verify_inputs: bool,
    #[arg(hide = true)]
    operands: Vec<PathBuf>,
}

impl Arguments {
    fn options(&self, output: &Path) -> CombineOptions {
        let manifest = self.manifest_checksums.unwrap_or_default();
        CombineOptions {
            tablespace_mapping: self.tablespace_mapping.clone(),
            copy_method: match (self.link, self.clone, self.copy_file_range) {
                (true, _, _) => CopyMethod::Link,
                (_, true, _) => CopyMethod::Clone,
                (_, _, true) => CopyMethod::CopyFileRange,
                _ => CopyMethod::Copy,
            },
            manifest: (!self.no_manifest).then_some(manifest),
            dry_run: self.dry_run,
            verify_inputs: self.verify_inputs,
            sync: (!self.no_sync).then(|| self.sync_method.unwrap_or_default()),
            ..CombineOptions::new(&self.operands, output)
        }
    }
}

/// Combines backups.
pub(super) fn run(invocation: &Invocation, arguments: Vec<OsString>) -> ExitCode {
    let arguments: Arguments = match getopt::parse(invocation, arguments) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    if arguments.operands.is_empty() {
        return invocation.usage_error("no input directories specified");
    }
    let Some(output) = &arguments.output else {
        return invocation.error("no output directory specified");
    };
    let options = arguments.options(output);
    let mut report = Report { program: &invocation.program, debug: arguments.debug, remains: Vec::new() };
    match signals::until_signal(&options.cancel, || combine_backups(&options, &mut report)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => invocation.failed(error, &report.remains),
    }
}

/// Prints what happens.
struct Report<'a> {
    program: &'a str,
    debug: bool,
    /// Told after the error.
    remains: Vec<Remains>,
}

impl Report<'_> {
    fn say(&self, text: &str) {
        output::tell(format_args!("{}: {text}", self.program));
    }
}

impl CombineObserver for Report<'_> {
    fn warning(&mut self, text: &str, hint: Option<&str>) {
        self.say(&format!("warning: {text}"));
        if let Some(hint) = hint {
            self.say(&format!("hint: {hint}"));
        }
    }

    fn removing(&mut self, directory: &Path, contents_only: bool) {
        self.remains.push(Remains::removed("output directory", directory, contents_only));
    }

    fn debugging(&self) -> bool {
        self.debug
    }

    fn debug(&mut self, text: &str) {
        if self.debug {
            self.say(text);
        }
    }
}
