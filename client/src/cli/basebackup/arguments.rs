//! The options of `pg_basebackup`, and which of them go together.

use std::path::{Path, PathBuf};
use std::time::Duration;

use backstop_protocol::base_backup::manifest::ChecksumAlgorithm;
use backstop_protocol::base_backup::options::ManifestOption;
use clap::{ArgAction, Parser};

use super::super::connection::ConnectionArguments;
use super::super::numbers;
use super::values::{self, Checkpoint, Format, Waiting};
use crate::options::{Deadlines, SlotOption, WalMethod};

const GENERAL: &str = "General options";

/// Takes a base backup of a running PostgreSQL server.
#[derive(Debug, Parser)]
#[command(next_help_heading = "Options controlling the output")]
#[command(after_help = "Example:\n  {program} -h localhost -U backup -D /var/backups/monday -P")]
pub(super) struct Arguments {
    /// receive base backup into directory; "-" with tar format is standard output
    #[arg(short = 'D', long, value_name = "DIRECTORY")]
    pub(super) pgdata: Option<PathBuf>,
    /// receive and check everything, and keep nothing
    #[arg(long, conflicts_with = "pgdata")]
    pub(super) discard: bool,
    /// output format: plain (default), tar
    #[arg(short = 'F', long, value_name = "p|t", value_parser = values::format)]
    pub(super) format: Option<Format>,
    /// maximum transfer rate to transfer data directory, in kB/s, or use suffix "k" or "M"
    #[arg(short = 'r', long, value_name = "RATE", value_parser = values::rate)]
    pub(super) max_rate: Option<u32>,
    /// write configuration for replication
    #[arg(short = 'R', long)]
    pub(super) write_recovery_conf: bool,
    /// relocate tablespace in OLDDIR to NEWDIR
    #[arg(short = 'T', long, value_name = "OLDDIR=NEWDIR", value_parser = values::tablespace_mapping)]
    pub(super) tablespace_mapping: Vec<(PathBuf, PathBuf)>,
    /// refuse tablespaces that no mapping names, instead of using the server's own location
    #[arg(long)]
    pub(super) refuse_unmapped_tablespaces: bool,
    /// location for the write-ahead log directory
    #[arg(long, value_name = "WALDIR")]
    pub(super) waldir: Option<PathBuf>,
    /// include required WAL files with specified method: none, fetch, stream (default)
    #[arg(short = 'X', long, value_name = "none|fetch|stream", value_parser = values::wal_method)]
    pub(super) wal_method: Option<WalMethod>,
    /// set fast or spread (default) checkpointing
    #[arg(short = 'c', long, help_heading = GENERAL, value_name = "fast|spread", default_value = "spread", hide_default_value = true, value_parser = values::checkpoint)]
    pub(super) checkpoint: Checkpoint,
    /// create replication slot
    #[arg(short = 'C', long, help_heading = GENERAL)]
    pub(super) create_slot: bool,
    /// set backup label
    #[arg(
        short = 'l',
        long,
        help_heading = GENERAL,
        value_name = "LABEL",
        default_value = "pg_basebackup base backup",
        hide_default_value = true
    )]
    pub(super) label: String,
    /// do not clean up after errors
    #[arg(short = 'n', long, help_heading = GENERAL)]
    pub(super) no_clean: bool,
    /// do not wait for changes to be written safely to disk
    #[arg(short = 'N', long, help_heading = GENERAL)]
    pub(super) no_sync: bool,
    /// show progress information
    #[arg(short = 'P', long, help_heading = GENERAL)]
    pub(super) progress: bool,
    /// replication slot to use
    #[arg(short = 'S', long, help_heading = GENERAL, value_name = "SLOTNAME")]
    pub(super) slot: Option<String>,
    /// output verbose messages
    #[arg(short = 'v', long, help_heading = GENERAL, action = ArgAction::Count)]
    pub(super) verbose: u8,
    /// use algorithm for manifest checksums: SHA{224,256,384,512}, CRC32C or NONE
    #[arg(long, help_heading = GENERAL, value_name = "ALGORITHM", value_parser = values::checksums)]
    pub(super) manifest_checksums: Option<ChecksumAlgorithm>,
    /// hex encode all file names in manifest
    #[arg(long, help_heading = GENERAL)]
    pub(super) manifest_force_encode: bool,
    /// do not estimate backup size in server side
    #[arg(long, help_heading = GENERAL)]
    pub(super) no_estimate_size: bool,
    /// suppress generation of backup manifest
    #[arg(long, help_heading = GENERAL)]
    pub(super) no_manifest: bool,
    /// prevent creation of temporary replication slot
    #[arg(long, help_heading = GENERAL)]
    pub(super) no_slot: bool,
    /// do not verify checksums
    #[arg(long, help_heading = GENERAL)]
    pub(super) no_verify_checksums: bool,
    /// fail if a phase does not go on for so long: connect, checkpoint, data, finish, wal-silence, wal-end
    #[arg(long, help_heading = GENERAL, value_name = "PHASE=SECONDS", value_parser = values::deadline)]
    deadline: Vec<(Waiting, Duration)>,

    /// time between status packets sent to server, in seconds
    #[arg(short = 's', long, help_heading = "Connection options", value_name = "INTERVAL", default_value = "10", hide_default_value = true, value_parser = numbers::status_interval)]
    pub(super) status_interval: Duration,
    #[command(flatten)]
    pub(super) connection: ConnectionArguments,

    /// compression; only "none" is supported
    #[arg(short = 'Z', long, value_name = "METHOD", hide = true)]
    compress: Option<String>,
    #[arg(short = 'z', long, hide = true)]
    gzip: bool,
    #[arg(short = 't', long, hide = true)]
    target: Option<String>,
    #[arg(short = 'i', long, hide = true)]
    incremental: Option<String>,
    #[arg(long, hide = true)]
    sync_method: Option<String>,

    #[arg(hide = true)]
    rest: Vec<String>,
}

impl Arguments {
    /// Refuses what does not go together, as `pg_basebackup` does, and what is not supported.
    pub(super) fn check(&self) -> Result<(), String> {
        let refuse = |problem: &str| Err(problem.to_owned());
        let incompatible = |one: &str, other: &str| Err(format!("{one} and {other} are incompatible options"));
        if let Some(first) = self.rest.first() {
            return Err(format!("too many command-line arguments (first is \"{first}\")"));
        }
        self.check_unsupported()?;
        if self.pgdata.is_none() && !self.discard {
            return refuse("must specify output directory or backup target");
        }
        let stream = matches!(self.wal_method, None | Some(WalMethod::Stream));
        if self.tar() && stream && self.pgdata.as_deref() == Some(Path::new("-")) {
            return refuse("cannot stream write-ahead logs in tar mode to stdout");
        }
        if self.slot.is_some() && !stream {
            return refuse("replication slots can only be used with WAL streaming");
        }
        if self.no_slot && self.slot.is_some() {
            return refuse("--no-slot cannot be used with slot name");
        }
        if self.create_slot && self.slot.is_none() {
            return refuse("--create-slot needs a slot to be specified using --slot");
        }
        if let Some(waldir) = &self.waldir {
            if self.tar() || self.discard {
                return refuse("WAL directory location can only be specified in plain mode");
            }
            if !waldir.is_absolute() {
                return refuse("WAL directory location must be an absolute path");
            }
        }
        if self.progress && self.no_estimate_size {
            return incompatible("--progress", "--no-estimate-size");
        }
        if self.no_manifest && self.manifest_checksums.is_some() {
            return incompatible("--no-manifest", "--manifest-checksums");
        }
        if self.no_manifest && self.manifest_force_encode {
            return incompatible("--no-manifest", "--manifest-force-encode");
        }
        Ok(())
    }

    fn check_unsupported(&self) -> Result<(), String> {
        let none = self.compress.as_deref().is_none_or(|method| matches!(method, "none" | "0"));
        if self.gzip || !none {
            return Err("compression is not supported by this client".to_owned());
        }
        if self.target.as_deref().is_some_and(|target| target != "client") {
            return Err("backup targets are not supported by this client".to_owned());
        }
        if self.incremental.is_some() {
            return Err("incremental backup is not supported by this client".to_owned());
        }
        match self.sync_method.as_deref() {
            None | Some("fsync") => Ok(()),
            Some(method) => Err(format!("sync method \"{method}\" is not supported by this client")),
        }
    }

    pub(super) fn tar(&self) -> bool {
        self.format == Some(Format::Tar)
    }

    pub(super) fn slot_option(&self) -> SlotOption {
        match &self.slot {
            Some(name) => SlotOption::Named { name: name.clone(), create: self.create_slot },
            None if self.no_slot => SlotOption::None,
            None => SlotOption::Temporary,
        }
    }

    pub(super) fn manifest(&self) -> ManifestOption {
        if self.no_manifest {
            ManifestOption::No
        } else if self.manifest_force_encode {
            ManifestOption::ForceEncode
        } else {
            ManifestOption::Yes
        }
    }

    pub(super) fn deadlines(&self) -> Deadlines {
        let mut deadlines = Deadlines::default();
        for (phase, limit) in &self.deadline {
            let place = match phase {
                Waiting::Connect => &mut deadlines.connect,
                Waiting::Checkpoint => &mut deadlines.checkpoint,
                Waiting::Data => &mut deadlines.data,
                Waiting::Finish => &mut deadlines.finish,
                Waiting::WalSilence => &mut deadlines.wal_silence,
                Waiting::WalEnd => &mut deadlines.wal_end,
            };
            *place = Some(*limit);
        }
        deadlines
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::getopt;
    use super::*;

    fn check(arguments: &str) -> Result<(), String> {
        getopt::read::<Arguments>(arguments)?.check()
    }

    #[test]
    fn options_have_all_their_spellings() {
        for arguments in [
            "-D x -Fp -Xfetch -cfast",
            "--pgdata=x --format=tar --wal-method none --checkpoint spread",
            "-Dx -Ft -Xs -P -v -v -n -N -Ssl -C",
            "-D - -Ft -X none",
            "-D x -s 0 -r 32M -l label -T /a=/b -T /c=/d -Z none -w",
            "--discard -X none --deadline data=5 --deadline wal-end=7",
        ] {
            assert_eq!(check(arguments), Ok(()), "{arguments}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let refused = [
            "",
            "-D x y",
            "-D - -Ft",
            "-D x -X none -S s",
            "-D x --no-slot -S s",
            "-D x -C",
            "-D x -Ft --waldir /w",
            "-D x --waldir w",
            "-D x -P --no-estimate-size",
            "-D x --no-manifest --manifest-checksums=none",
            "-D x -z",
            "-D x -t blackhole",
            "-D x -i m",
        ];
        insta::assert_snapshot!(refused.map(|arguments| check(arguments).expect_err(arguments)).join("\n"), @r#"
        must specify output directory or backup target
        too many command-line arguments (first is "y")
        cannot stream write-ahead logs in tar mode to stdout
        replication slots can only be used with WAL streaming
        --no-slot cannot be used with slot name
        --create-slot needs a slot to be specified using --slot
        WAL directory location can only be specified in plain mode
        WAL directory location must be an absolute path
        --progress and --no-estimate-size are incompatible options
        --no-manifest and --manifest-checksums are incompatible options
        compression is not supported by this client
        backup targets are not supported by this client
        incremental backup is not supported by this client
        "#);
    }
}
