//! `backstop decode`

use std::fs::File;
use std::io::{self, BufWriter, Read};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Failure;
use crate::decode::{self, DecodeError, From};

const EXAMPLE: &str = "\
Examples:
  backstop run tar/tar-empty-archive --keep kept --capture && backstop decode 'kept/tar/tar-empty-archive/wire.pcap'
  backstop serve sound/plain --record session.pcap
  tcpdump -i lo -s 0 -w session.pcap port 5432 && backstop decode session.pcap
  echo '> 5a0000000549' | backstop decode -

A line is: time, connection, who speaks (< client, > server, ! nobody: a remark), the byte of the direction at which the message begins, its \
type and length, its name, what it says. Below CopyData stands what it touches: members and their offsets.";

/// `backstop decode`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct DecodeArgs {
    /// A capture (pcap or pcapng), the bytes of one direction as they are, or a text of hexadecimal digits, in which < and > at the
    /// beginning of a line say who speaks; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Who sent the bytes, where the file does not say so [default: the client if they begin with a packet without a type]
    #[arg(long, value_name = "WHO")]
    from: Option<Sender>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Sender {
    Client,
    Server,
}

pub(super) fn run(args: &DecodeArgs) -> Result<u8, Failure> {
    let name = args.file.display();
    let environment = |error: io::Error| Failure::Environment(format!("could not read {name}: {error}"));
    let input: Box<dyn Read + Send> = if args.file.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(&args.file).map_err(environment)?)
    };
    let from = args.from.map(|from| match from {
        Sender::Client => From::Client,
        Sender::Server => From::Server,
    });
    let mut out = BufWriter::new(anstream::stdout());
    match decode::decode(input, from, &mut out) {
        Ok(()) => Ok(0),
        // Whoever reads no further has seen enough.
        Err(DecodeError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        Err(DecodeError::Write(error)) => Err(error.into()),
        Err(DecodeError::Read(error)) => Err(environment(error)),
        Err(error) => Err(Failure::Usage(format!("{name}: {error}"))),
    }
}
