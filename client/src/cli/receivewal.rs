//! `pg_receivewal`.

mod arguments;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use backstop_protocol::backend::Diagnostic;
use backstop_protocol::base_backup::options::Compression;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use self::arguments::Arguments;
use super::connection::Server;
use super::{Invocation, getopt, output};
use crate::clock::SystemClock;
use crate::error::ClientError;
use crate::observer::Observer;
use crate::receivewal::{ReceiveOptions, Severity, WalEvent, WalObserver, create_slot, drop_slot, receive_wal};

/// Keeps an archive of WAL.
pub(super) fn run(invocation: &Invocation, arguments: Vec<OsString>) -> ExitCode {
    let arguments: Arguments = match getopt::parse(invocation, arguments) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    if let Err(problem) = arguments.check() {
        return invocation.usage_error(problem);
    }
    let done = arguments.compression().and_then(|compression| receive(invocation, &arguments, &compression));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => invocation.error(problem),
    }
}

fn receive(invocation: &Invocation, arguments: &Arguments, compression: &Compression) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    // Before anybody is asked for a password.
    if let Some(directory) = arguments.target() {
        let opened = std::fs::read_dir(directory).map(drop);
        opened.map_err(|error| ClientError::local("open directory", directory)(error).to_string())?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
    let mut server = Server::new(invocation, &arguments.connection)?;
    let report = Arc::new(Report { program: invocation.program().to_owned(), verbose: arguments.verbose > 0 });
    loop {
        let options = options(arguments, &server, compression);
        match runtime.block_on(act(arguments, &server, &options, Arc::clone(&report))) {
            Ok(()) => return Ok(()),
            Err(error) if server.ask_after(&error).map_err(text)? => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Does what the arguments ask for. A signal ends it at the next clean point; a second one at once.
async fn act(
    arguments: &Arguments,
    server: &Server,
    options: &ReceiveOptions,
    report: Arc<Report>,
) -> Result<(), ClientError> {
    let connector = &*server.connector;
    let slot = options.slot.as_deref().unwrap_or_default();
    if arguments.drop_slot {
        report.say(Severity::Detail, &format!("dropping replication slot \"{slot}\""));
        return drop_slot(connector, options, report).await;
    }
    if arguments.create_slot {
        report.say(Severity::Detail, &format!("creating replication slot \"{slot}\""));
        return create_slot(connector, options, arguments.if_not_exists, report).await;
    }
    let handler = |kind| {
        let refused = |error| ClientError::Refused(format!("could not set up signal handlers: {error}"));
        signal(kind).map_err(refused)
    };
    let (mut interrupt, mut terminate) = (handler(SignalKind::interrupt())?, handler(SignalKind::terminate())?);
    let (stop, stopping) = watch::channel(false);
    let receiving = receive_wal(connector, options, report, stopping);
    tokio::pin!(receiving);
    loop {
        tokio::select! {
            done = &mut receiving => return done,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if stop.send_replace(true) {
            return Err(ClientError::Refused("canceled by a second signal".to_owned()));
        }
    }
}

fn options(arguments: &Arguments, server: &Server, compression: &Compression) -> ReceiveOptions {
    let mut options = ReceiveOptions::new(server.login.clone(), arguments.target().unwrap_or(std::path::Path::new("")));
    options.slot.clone_from(&arguments.slot);
    options.end = arguments.endpos;
    options.reconnect = !arguments.no_loop;
    options.sync = !arguments.no_sync;
    options.synchronous = arguments.synchronous;
    options.status_interval = arguments.status_interval;
    options.compression = compression.clone();
    options.deadlines = arguments.deadlines();
    options.clock = Arc::new(SystemClock);
    options
}

/// What a person sees on standard error.
struct Report {
    program: String,
    verbose: bool,
}

impl Report {
    fn say(&self, severity: Severity, text: &str) {
        let level = match severity {
            Severity::Detail if !self.verbose => return,
            Severity::Detail | Severity::Info => "",
            Severity::Warning => "warning: ",
            Severity::Error => "error: ",
        };
        output::tell(format_args!("{}: {level}{text}", self.program));
    }
}

impl Observer for Report {
    fn notice(&self, notice: &Diagnostic) {
        output::tell(notice);
    }
}

impl WalObserver for Report {
    fn event(&self, event: &WalEvent) {
        self.say(event.severity(), &event.to_string());
    }
}
