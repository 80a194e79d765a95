//! The options of `pg_basebackup`, and which of them go together.

use std::path::{Path, PathBuf};
use std::time::Duration;

use backstop_protocol::base_backup::manifest::ChecksumAlgorithm;
use backstop_protocol::base_backup::options::ManifestOption;
use backstop_protocol::lsn::Lsn;
use clap::{ArgAction, Parser};

use super::super::connection::ConnectionArguments;
use super::super::numbers;
use super::values::{self, BackupTarget, Checkpoint, Format, Waiting};
use crate::compression::ArchiveCompression;
use crate::options::{Deadlines, SlotOption, SyncMethod, WalMethod};

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
    /// take incremental or differential backup
    #[arg(short = 'i', long, value_name = "OLDMANIFEST")]
    pub(super) incremental: Option<PathBuf>,
    /// take incremental backup of the files that changed after LSN, the start of the backup before; only from servers built
    /// from the proof of concept of 2014
    #[arg(short = 'I', long, value_name = "LSN", value_parser = values::lsn)]
    pub(super) incremental_from_lsn: Option<Lsn>,
    /// maximum transfer rate to transfer data directory, in kB/s, or use suffix "k" or "M"
    #[arg(short = 'r', long, value_name = "RATE", value_parser = values::rate)]
    pub(super) max_rate: Option<u32>,
    /// refuse a backup that holds more than so many bytes, unpacked, or use suffix "k", "M", "G" or "T"
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(super) max_size: Option<u64>,
    /// write configuration for replication
    #[arg(short = 'R', long)]
    pub(super) write_recovery_conf: bool,
    /// backup target (if other than client)
    #[arg(short = 't', long, value_name = "TARGET[:DETAIL]", value_parser = values::target)]
    pub(super) target: Option<BackupTarget>,
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
    /// compress tar output
    #[arg(short = 'z', long, overrides_with = "compress")]
    gzip: bool,
    /// compress on client or server as specified; METHOD is none, gzip, lz4 or zstd, DETAIL a level or options of it
    /// ("level=9,workers=2,long"); a client compresses alike at every level of lz4
    #[arg(short = 'Z', long, value_name = "[{client|server}-]METHOD[:DETAIL]", overrides_with = "gzip")]
    compress: Option<String>,
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
    /// set method for syncing files to disk: fsync (default), syncfs
    #[arg(long, help_heading = GENERAL, value_name = "METHOD", value_parser = values::sync_method)]
    pub(super) sync_method: Option<SyncMethod>,
    /// do not wait for changes to be written safely to disk
    #[arg(short = 'N', long, help_heading = GENERAL)]
    pub(super) no_sync: bool,
    /// show progress information: a bar on a terminal, lines elsewhere
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

    #[arg(hide = true)]
    rest: Vec<String>,
}

impl Arguments {
    /// Refuses what is no place for a backup, in the words and in the order of `pg_basebackup`.
    pub(super) fn check(&self) -> Result<(), String> {
        let refuse = |problem: &str| Err(problem.to_owned());
        if let Some(first) = self.rest.first() {
            return Err(format!("too many command-line arguments (first is \"{first}\")"));
        }
        if self.target().is_some() && self.format.is_some() {
            return refuse("cannot specify both format and backup target");
        }
        match (self.pgdata.is_some() || self.discard, self.target().is_some()) {
            (false, false) => refuse("must specify output directory or backup target"),
            (true, true) => refuse("cannot specify both output directory and backup target"),
            _ => Ok(()),
        }
    }

    /// Refuses what else does not go together.
    pub(super) fn check_together(&self, compression: &ArchiveCompression) -> Result<(), String> {
        let refuse = |problem: &str| Err(problem.to_owned());
        let incompatible = |one: &str, other: &str| Err(format!("{one} and {other} are incompatible options"));
        if let ArchiveCompression::Client(_) = compression {
            if self.target().is_some() {
                return refuse("client-side compression is not possible when a backup target is specified");
            }
            if !self.tar() {
                return refuse("only tar mode backups can be compressed");
            }
        }
        if self.incremental.is_some() && self.incremental_from_lsn.is_some() {
            return incompatible("--incremental", "--incremental-from-lsn");
        }
        let stream = matches!(self.wal_method, None | Some(WalMethod::Stream));
        if self.target().is_some() && stream {
            return refuse("WAL cannot be streamed when a backup target is specified");
        }
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
        if self.create_slot && self.no_slot {
            return incompatible("--create-slot", "--no-slot");
        }
        if let Some(waldir) = &self.waldir {
            if self.target().is_some() {
                return refuse("WAL directory location cannot be specified along with a backup target");
            }
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

    /// Where the backup goes, if not here.
    pub(super) fn target(&self) -> Option<&BackupTarget> {
        self.target.as_ref().filter(|target| **target != BackupTarget::client())
    }

    /// Who compresses, and with what.
    pub(super) fn compression(&self) -> Result<ArchiveCompression, String> {
        match &self.compress {
            Some(compress) => ArchiveCompression::parse(compress, self.target().is_none()),
            None if self.gzip => ArchiveCompression::parse("gzip", self.target().is_none()),
            None => Ok(ArchiveCompression::None),
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
            *phase.place(&mut deadlines) = Some(*limit);
        }
        deadlines
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::getopt;
    use super::*;

    fn check(arguments: &str) -> Result<(), String> {
        let arguments = getopt::read::<Arguments>(arguments)?;
        arguments.check()?;
        arguments.check_together(&arguments.compression()?)
    }

    #[test]
    fn options_have_all_their_spellings() {
        for arguments in [
            "-D x -Fp -Xfetch -cfast",
            "--pgdata=x --format=tar --wal-method none --checkpoint spread",
            "-Dx -Ft -Xs -P -v -v -n -N -Ssl -C",
            "-D - -Ft -X none",
            "-D x -s 0 -r 32M -l label -T /a=/b -T /c=/d -Z none -w",
            "-D x -Ft -z -i m --sync-method=syncfs",
            "-D x -I 0/2000028",
            "-D x --incremental-from-lsn=0/2000028",
            "-D x -z -Z none",
            "-D x -Z server-thunk:what=ever",
            "-D x -Ft -Z zstd:level=3,workers=2,long",
            "-t server:/x -X fetch -z",
            "-t client -D x -Fp",
            "-D x --max-size 20G",
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
            "-t blackhole",
            "-t blackhole -Fp -Xnone",
            "-t blackhole -Xnone -Z client-gzip",
            "-t blackhole -Xnone --waldir /w",
            "-D x -S s -C --no-slot",
            "-D x -Ft -Z none:1",
            "-D x -Ft -Z none+",
            "-D x -Ft -Z gzip:",
            "-D x -Ft -Z gzip:thunk",
            "-D x -Ft -Z gzip:level",
            "-D x -Ft -Z gzip:level=",
            "-D x -Ft -Z gzip:level=high",
            "-D x -Ft -Z gzip:10",
            "-D x -Ft -Z gzip:workers=3",
            "-D x -Ft -Z gzip:long",
            "-D x -i m -I 0/2000028",
            "-D x -Ft --sync-method=sync",
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
        only tar mode backups can be compressed
        cannot specify both output directory and backup target
        WAL cannot be streamed when a backup target is specified
        cannot specify both format and backup target
        client-side compression is not possible when a backup target is specified
        WAL directory location cannot be specified along with a backup target
        --no-slot cannot be used with slot name
        invalid compression specification: compression algorithm "none" does not accept a compression level
        unrecognized compression algorithm: "none+"
        invalid compression specification: found empty string where a compression option was expected
        invalid compression specification: unrecognized compression option: "thunk"
        invalid compression specification: compression option "level" requires a value
        invalid compression specification: value for compression option "level" must be an integer
        invalid compression specification: value for compression option "level" must be an integer
        invalid compression specification: compression algorithm "gzip" expects a compression level between 1 and 9 (default at -1)
        invalid compression specification: compression algorithm "gzip" does not accept a worker count
        invalid compression specification: compression algorithm "gzip" does not support long-distance mode
        --incremental and --incremental-from-lsn are incompatible options
        error: invalid value 'sync' for '--sync-method <METHOD>': unrecognized sync method: sync
        "#);
        for (value, problem) in
            [("2000028", "could not parse start position"), ("0/0", "start position must not be 0/0")]
        {
            let refused = check(&format!("-D x -I {value}")).expect_err(value);
            assert!(refused.contains(problem), "{refused}");
        }
    }
}
