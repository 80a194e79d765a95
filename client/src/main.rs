//! `backstop-client`: backup tools under one name. Copied or linked under the name of one of PostgreSQL's tools, it is that
//! tool.

use std::process::ExitCode;

fn main() -> ExitCode {
    backstop_client::cli::run(std::env::args_os())
}
