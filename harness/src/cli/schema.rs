//! `backstop schema`

use std::io::Write;

use clap::Args;

use super::Failure;
use crate::scenario::schema;

const EXAMPLE: &str = "\
Example:
  backstop schema > scenarios/scenario.schema.json

A scenario file whose first line is `#:schema ../scenario.schema.json` is then completed and checked by editors that know \
Taplo or Tombi.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct SchemaArgs {}

pub(super) fn run(_: &SchemaArgs) -> Result<u8, Failure> {
    write!(anstream::stdout(), "{}", schema::text())?;
    Ok(0)
}
