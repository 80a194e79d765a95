//! The options of `pg_receivewal`, and which of them go together.

use std::path::{Path, PathBuf};
use std::time::Duration;

use backstop_protocol::base_backup::options::compression::{CompressArgument, CompressionSupport};
use backstop_protocol::base_backup::options::{Compression, CompressionAlgorithm};
use backstop_protocol::lsn::Lsn;
use clap::{ArgAction, Parser};

use super::super::connection::ConnectionArguments;
use super::super::numbers;
use crate::receivewal::ReceiveDeadlines;

const ACTIONS: &str = "Optional actions";

/// Receives WAL.
#[derive(Debug, Parser)]
#[command(next_help_heading = "Options")]
#[command(after_help = "Example:\n  {program} -h localhost -U backup -D /var/archive -S archive --synchronous")]
pub(super) struct Arguments {
    /// receive write-ahead log files into this directory
    #[arg(short = 'D', long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// exit after receiving the specified LSN
    #[arg(short = 'E', long, value_name = "LSN", value_parser = end_position)]
    pub(super) endpos: Option<Lsn>,
    /// do not error if slot already exists when creating a slot
    #[arg(long)]
    pub(super) if_not_exists: bool,
    /// do not loop on connection lost
    #[arg(short = 'n', long)]
    pub(super) no_loop: bool,
    /// do not wait for changes to be written safely to disk
    #[arg(long)]
    pub(super) no_sync: bool,
    /// time between status packets sent to server (default: 10)
    #[arg(short = 's', long, value_name = "SECS", default_value = "10", hide_default_value = true, value_parser = numbers::status_interval)]
    pub(super) status_interval: Duration,
    /// replication slot to use
    #[arg(short = 'S', long, value_name = "SLOTNAME")]
    pub(super) slot: Option<String>,
    /// flush write-ahead log immediately after writing
    #[arg(long)]
    pub(super) synchronous: bool,
    /// output verbose messages
    #[arg(short = 'v', long, action = ArgAction::Count)]
    pub(super) verbose: u8,
    /// compress as specified
    #[arg(short = 'Z', long, value_name = "METHOD[:DETAIL]")]
    compress: Option<String>,
    /// give a connection up if a phase does not go on for so long: connect, wal-silence
    #[arg(long, value_name = "PHASE=SECONDS", value_parser = deadline)]
    deadline: Vec<(Waiting, Duration)>,

    #[command(flatten)]
    pub(super) connection: ConnectionArguments,

    /// create a new replication slot (for the slot's name see --slot)
    #[arg(long, help_heading = ACTIONS)]
    pub(super) create_slot: bool,
    /// drop the replication slot (for the slot's name see --slot)
    #[arg(long, help_heading = ACTIONS)]
    pub(super) drop_slot: bool,

    #[arg(hide = true)]
    rest: Vec<String>,
}

/// A phase with a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Connect,
    WalSilence,
}

fn end_position(text: &str) -> Result<Lsn, String> {
    text.parse().map_err(|_| format!("could not parse end position \"{text}\""))
}

/// `PHASE=SECONDS`.
fn deadline(text: &str) -> Result<(Waiting, Duration), String> {
    let invalid = || {
        format!("invalid deadline \"{text}\", must be \"PHASE=SECONDS\" with one of the phases connect, wal-silence")
    };
    let (phase, seconds) = text.split_once('=').ok_or_else(invalid)?;
    let phase = match phase {
        "connect" => Waiting::Connect,
        "wal-silence" => Waiting::WalSilence,
        _ => return Err(invalid()),
    };
    let seconds: u32 = seconds.parse().map_err(|_| invalid())?;
    Ok((phase, Duration::from_secs(seconds.into())))
}

impl Arguments {
    /// Refuses what does not go together.
    pub(super) fn check(&self) -> Result<(), String> {
        let refuse = |problem: &str| Err(problem.to_owned());
        if let Some(first) = self.rest.first() {
            return Err(format!("too many command-line arguments (first is \"{first}\")"));
        }
        if self.drop_slot && self.create_slot {
            return refuse("cannot use --create-slot together with --drop-slot");
        }
        if self.slot.is_none() && (self.drop_slot || self.create_slot) {
            let option = if self.drop_slot { "--drop-slot" } else { "--create-slot" };
            return Err(format!("{option} needs a slot to be specified using --slot"));
        }
        if self.synchronous && self.no_sync {
            return refuse("cannot use --synchronous together with --no-sync");
        }
        if self.directory.is_none() && !self.drop_slot && !self.create_slot {
            return refuse("no target directory specified");
        }
        Ok(())
    }

    /// The directory of the archive, if WAL is to be received.
    pub(super) fn target(&self) -> Option<&Path> {
        self.directory.as_deref().filter(|_| !self.drop_slot && !self.create_slot)
    }

    /// How segments are compressed.
    pub(super) fn compression(&self) -> Result<Compression, String> {
        const SUPPORT: CompressionSupport =
            CompressionSupport { gzip: true, lz4: true, zstd: true, long_distance: true };
        let argument = self.compress.as_deref().unwrap_or("none");
        let parts = CompressArgument::parse(argument);
        // There is no server that could do it.
        let algorithm = if parts.location.is_some() { argument } else { parts.algorithm };
        let algorithm: CompressionAlgorithm = algorithm.parse().map_err(|error| format!("{error}"))?;
        let compression = Compression::parse(algorithm, parts.detail, SUPPORT);
        let compression = compression.map_err(|error| format!("invalid compression specification: {error}"))?;
        if algorithm == CompressionAlgorithm::Zstd {
            return Err("compression with ZSTD is not yet supported".to_owned());
        }
        Ok(compression)
    }

    pub(super) fn deadlines(&self) -> ReceiveDeadlines {
        let last = |wanted| self.deadline.iter().rev().find(|(phase, _)| *phase == wanted).map(|(_, limit)| *limit);
        ReceiveDeadlines { connect: last(Waiting::Connect), silence: last(Waiting::WalSilence) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::getopt;
    use super::*;

    fn parse(arguments: &str) -> Result<Arguments, String> {
        let arguments: Arguments = getopt::read(arguments)?;
        arguments.check().map(|()| arguments)
    }

    #[test]
    fn options_have_all_their_spellings() {
        for arguments in [
            "-D x -E 0/3000000 -n -s 0 -S slot -v -v -Z gzip:5 -h h -p 1 -U u -w",
            "--directory=x --endpos=1/0 --no-loop --status-interval=5 --slot=s --synchronous --verbose --compress=lz4",
            "-Dx --no-sync -Znone -d dbname=replication",
            "-S s --create-slot --if-not-exists",
            "-S s --drop-slot",
            "-D x --deadline connect=5 --deadline wal-silence=60",
        ] {
            assert_eq!(parse(arguments).map(drop), Ok(()), "{arguments}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let refused = [
            "",
            "-D x y",
            "--create-slot --drop-slot -S s",
            "--create-slot",
            "--drop-slot",
            "-D x --synchronous --no-sync",
        ];
        insta::assert_snapshot!(refused.map(|arguments| parse(arguments).expect_err(arguments)).join("\n"), @r#"
        no target directory specified
        too many command-line arguments (first is "y")
        cannot use --create-slot together with --drop-slot
        --create-slot needs a slot to be specified using --slot
        --drop-slot needs a slot to be specified using --slot
        cannot use --synchronous together with --no-sync
        "#);
    }

    #[test]
    fn compression_is_read_as_pg_receivewal_reads_it() {
        let read = |argument: &str| {
            let compression = parse(&format!("-D x -Z {argument}")).expect(argument).compression();
            compression.map_or_else(|problem| problem, |found| format!("{} {}", found.algorithm, found.level))
        };
        let arguments =
            ["none", "0", "1", "gzip", "gzip:9", "lz4", "lz4:3", "none:1", "gzip:10", "client-gzip", "bzip2", "zstd"];
        insta::assert_snapshot!(arguments.map(read).join("\n"), @r#"
        none 0
        none 0
        gzip 1
        gzip -1
        gzip 9
        lz4 0
        lz4 3
        invalid compression specification: compression algorithm "none" does not accept a compression level
        invalid compression specification: compression algorithm "gzip" expects a compression level between 1 and 9 (default at -1)
        unrecognized compression algorithm: "client-gzip"
        unrecognized compression algorithm: "bzip2"
        compression with ZSTD is not yet supported
        "#);
    }

    #[test]
    fn deadlines_and_positions_are_read() {
        let arguments = parse("-D x --deadline wal-silence=60 --deadline wal-silence=7 -E 1/A").expect("arguments");
        assert_eq!(arguments.deadlines().silence, Some(Duration::from_secs(7)));
        assert_eq!(arguments.endpos, Some(Lsn(0x1_0000_000A)));
        assert!(deadline("data=5").is_err() && deadline("connect=x").is_err() && end_position("1").is_err());
    }
}
