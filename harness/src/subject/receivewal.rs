//! Clients that keep an archive of WAL: the built-in one as options of the library, PostgreSQL's as a command line.

use std::path::PathBuf;

use backstop_client::Login;
use backstop_client::receivewal::{ReceiveDeadlines, ReceiveOptions};
use backstop_protocol::base_backup::options::{Compression, CompressionAlgorithm};
use tokio::process::Command;

use super::builtin::wants_sync;
use super::command::Invocation;
use crate::scenario::Case;
use crate::scenario::model::Client;

/// What the library is told.
pub fn options(case: &Case, client: &Client, target: PathBuf) -> ReceiveOptions {
    let mut login = Login::new(&*case.credentials.user, &client.name);
    login.password.clone_from(&case.credentials.password);
    let mut options = ReceiveOptions::new(login, target);
    options.slot = client.slot_name().map(str::to_owned);
    options.end = client.endpos;
    options.reconnect = client.reconnects;
    options.synchronous = client.synchronous;
    options.compression = compression(client);
    options.sync = wants_sync(case);
    // The client gives up before the harness does, so that a silent server is a failure of the stream and not of the client.
    let half = Some(client.timeout.0 / 2);
    options.deadlines = ReceiveDeadlines { connect: half, silence: half };
    // An idle server answers these, so that it is not taken for a silent one.
    options.status_interval = options.status_interval.min(client.timeout.0 / 6);
    options
}

/// How segments are compressed: what follows `client-`.
fn compression(client: &Client) -> Compression {
    let wanted = client.compress.as_deref().and_then(|compress| compress.strip_prefix("client-")).unwrap_or("none");
    let algorithm = wanted.split(':').next().and_then(|name| name.parse().ok());
    let mut compression = Compression::plain(algorithm.unwrap_or(CompressionAlgorithm::None));
    if let Some(level) = wanted.split_once(':').and_then(|(_, level)| level.parse().ok()) {
        compression.level = level;
    }
    compression
}

/// The command line of `pg_receivewal`, but for the program's name.
pub(super) fn arguments(command: &mut Command, invocation: &Invocation<'_>) {
    let Invocation { case, client, address, target, .. } = invocation;
    command.arg("-h").arg(address.ip().to_string()).arg("-p").arg(address.port().to_string());
    command.args(["-U", &case.credentials.user, "-w", "--verbose", "-D"]).arg(target);
    command.arg(if client.synchronous { "--synchronous" } else { "--no-sync" });
    if !client.reconnects {
        command.arg("--no-loop");
    }
    if let Some(slot) = client.slot_name() {
        command.arg("-S").arg(slot);
    }
    if let Some(end) = client.endpos {
        command.arg("-E").arg(end.to_string());
    }
    if let Some(compress) = client.compress.as_deref().and_then(|compress| compress.strip_prefix("client-")) {
        command.arg("-Z").arg(compress);
    }
}
