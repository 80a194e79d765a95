//! `pg_basebackup`.

mod arguments;
pub(super) mod values;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use self::arguments::Arguments;
use super::connection::Server;
use super::gauge::Gauge;
use super::report::Report;
use super::signals::Stop;
use super::{Invocation, getopt, output};
use crate::backup::base_backup;
use crate::clock::SystemClock;
use crate::connector::NetConnector;
use crate::error::ClientError;
use crate::options::{BackupOptions, RecoveryConfiguration, Target, UnmappedTablespace, WalMethod};
use crate::start_up::cancel_backup;

/// Takes a base backup.
pub(super) fn run(invocation: &Invocation, arguments: Vec<OsString>) -> ExitCode {
    let arguments: Arguments = match getopt::parse(invocation, arguments) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    if let Err(problem) = arguments.check() {
        return invocation.usage_error(problem);
    }
    let compression = match arguments.compression() {
        Ok(compression) => compression,
        Err(problem) => return invocation.error(problem),
    };
    if let Err(problem) = arguments.check_together(&compression) {
        return invocation.usage_error(problem);
    }
    back_up(invocation, &arguments).unwrap_or_else(|problem| invocation.error(problem))
}

fn back_up(invocation: &Invocation, arguments: &Arguments) -> Result<ExitCode, String> {
    let text = |error: io::Error| error.to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
    let mut server = Server::new(invocation, &arguments.connection)?;
    loop {
        let options = options(arguments, &server)?;
        let report = Arc::new(report(&invocation.program, arguments, &options));
        let attempt = attempt(options, Arc::clone(&server.connector), Arc::clone(&report));
        match runtime.block_on(attempt) {
            Ok(()) => return Ok(ExitCode::SUCCESS),
            Err(Failure::Backup(error)) if server.ask_after(&error).map_err(text)? => {}
            Err(failure) => {
                report.failed(&failure.to_string());
                return Ok(ExitCode::FAILURE);
            }
        }
    }
}

fn report(program: &str, arguments: &Arguments, options: &BackupOptions) -> Report {
    let (directory, archives) = match &options.target {
        Target::Plain { directory, .. } => (Some(directory.clone()), None),
        Target::Tar { directory } => (None, Some(directory.clone())),
        _ => (None, None),
    };
    Report {
        program: program.to_owned(),
        verbose: arguments.verbose > 0,
        debug: false,
        wal: options.wal,
        manifest: directory.is_some() || archives.is_some(),
        directory,
        archives,
        gauge: Mutex::new(Gauge::new(arguments.progress)),
        remains: Mutex::default(),
    }
}

/// The longest that telling the server to stop may take.
const CANCELLATION: Duration = Duration::from_secs(3);

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Backup(ClientError),
    #[error("canceled by {0} signal")]
    Signal(&'static str),
    #[error("could not set up signal handlers: {0}")]
    Handlers(io::Error),
}

/// One try, which ends early on a signal. What the backup made is then removed as it is dropped.
async fn attempt(options: BackupOptions, connector: Arc<NetConnector>, report: Arc<Report>) -> Result<(), Failure> {
    let mut stop = Stop::listen().map_err(Failure::Handlers)?;
    let login = options.login.clone();
    let backup = base_backup(Arc::clone(&connector) as _, options, report);
    tokio::pin!(backup);
    tokio::select! {
        result = &mut backup => result.map(|_| ()).map_err(Failure::Backup),
        name = stop.heard() => {
            // A server that makes its checkpoint, or waits for its archiver, would not notice for long that nobody is there.
            let _ = tokio::time::timeout(CANCELLATION, cancel_backup(&*connector, &login)).await;
            Err(Failure::Signal(name))
        }
    }
}

fn options(arguments: &Arguments, server: &Server) -> Result<BackupOptions, String> {
    let Server { conninfo, login, .. } = server;
    let mut options = BackupOptions::new(&login.user, target(arguments));
    options.login.clone_from(login);
    options.label.clone_from(&arguments.label);
    options.fast_checkpoint = arguments.checkpoint.fast;
    options.wal = arguments.wal_method.unwrap_or(WalMethod::Stream);
    options.slot = arguments.slot_option();
    options.tablespace_mapping.clone_from(&arguments.tablespace_mapping);
    options.unmapped_tablespaces = if arguments.refuse_unmapped_tablespaces {
        UnmappedTablespace::Refuse
    } else {
        UnmappedTablespace::ServerLocation
    };
    options.max_rate = arguments.max_rate;
    options.max_size = arguments.max_size;
    options.manifest = arguments.manifest();
    if let Some(algorithm) = arguments.manifest_checksums {
        options.manifest_checksums = algorithm;
    }
    options.compression = arguments.compression()?;
    options.incremental.clone_from(&arguments.incremental);
    options.incremental_from = arguments.incremental_from_lsn;
    options.verify_checksums = !arguments.no_verify_checksums;
    options.estimate_size = !arguments.no_estimate_size;
    options.sync = !arguments.no_sync;
    options.sync_method = arguments.sync_method.unwrap_or_default();
    options.clean = !arguments.no_clean;
    options.status_interval = arguments.status_interval;
    options.deadlines = arguments.deadlines();
    options.recovery = arguments.write_recovery_conf.then(|| {
        let mut primary_conninfo = conninfo.clone();
        // The user is named even if it is the default: the standby may run as another one.
        let _ = primary_conninfo.set("user", &login.user);
        if let Some(password) = &login.password {
            let _ = primary_conninfo.set("password", password);
        }
        // The database that a standby works in while it synchronizes slots. This connection works in none.
        if conninfo.get("dbname").is_none()
            && let Ok(database) = std::env::var("PGDATABASE")
        {
            let _ = primary_conninfo.set("dbname", &database);
        }
        RecoveryConfiguration { primary_conninfo, primary_slot_name: arguments.slot.clone() }
    });
    options.clock = Arc::new(SystemClock);
    Ok(options)
}

fn target(arguments: &Arguments) -> Target {
    let directory = arguments.pgdata.clone().unwrap_or_default();
    if let Some(target) = arguments.target() {
        Target::Elsewhere { target: target.name.clone(), detail: target.detail.clone() }
    } else if arguments.discard {
        Target::Discard
    } else if !arguments.tar() {
        Target::Plain { directory, waldir: arguments.waldir.clone() }
    } else if directory.as_os_str() == "-" {
        Target::Stream(Box::new(io::BufWriter::with_capacity(256 << 10, output::StandardOutput)))
    } else {
        Target::Tar { directory }
    }
}
