//! `pg_basebackup`.

mod arguments;
mod values;

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use clap::{CommandFactory, FromArgMatches};
use tokio::signal::unix::{SignalKind, signal};

use self::arguments::Arguments;
use super::{password, report::Report};
use crate::backup::base_backup;
use crate::clock::SystemClock;
use crate::connector::NetConnector;
use crate::conninfo::Conninfo;
use crate::error::ClientError;
use crate::options::{BackupOptions, RecoveryConfiguration, Target, UnmappedTablespace, WalMethod};

/// Takes a base backup. `program` is how messages begin.
pub(super) fn run(program: &str, arguments: Vec<OsString>) -> ExitCode {
    let called = arguments.first().and_then(|name| name.to_str()).unwrap_or_default();
    let called = if called == program { program.to_owned() } else { format!("{program} {called}") };
    let parsed = Arguments::command().bin_name(&called).try_get_matches_from(arguments);
    let arguments = match parsed.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) if !error.use_stderr() => {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            // What is wrong with a value is said in PostgreSQL's words; the rest is clap's.
            let text = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            let first = text.lines().next().unwrap_or_default();
            return usage_error(program, &called, first.strip_prefix("error: ").unwrap_or(first));
        }
    };
    if let Err(problem) = arguments.check() {
        return usage_error(program, &called, &problem);
    }
    match back_up(program, &arguments) {
        Ok(code) => code,
        Err(problem) => {
            eprintln!("{program}: error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn usage_error(program: &str, called: &str, problem: &str) -> ExitCode {
    eprintln!("{program}: error: {problem}");
    eprintln!("{program}: hint: Try \"{called} --help\" for more information.");
    ExitCode::FAILURE
}

fn back_up(program: &str, arguments: &Arguments) -> Result<ExitCode, String> {
    let text = |error: io::Error| error.to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
    let conninfo = connection(arguments)?;
    let mut given = if arguments.password { Some(password::ask().map_err(text)?) } else { None };
    loop {
        let options = options(arguments, &conninfo, given.take())?;
        let report = Arc::new(report(program, arguments, &options));
        let addresses = conninfo.addresses().map_err(|error| error.to_string())?;
        let attempt = attempt(options, Arc::new(NetConnector::new(addresses)), Arc::clone(&report));
        match runtime.block_on(attempt) {
            Ok(()) => return Ok(ExitCode::SUCCESS),
            // As libpq's tools do: ask once the server has asked.
            Err(Failure::Backup(ClientError::PasswordNeeded { .. }))
                if !arguments.no_password && io::stdin().is_terminal() =>
            {
                given = Some(password::ask().map_err(text)?);
            }
            Err(failure) => {
                report.failed(&failure.to_string());
                return Ok(ExitCode::FAILURE);
            }
        }
    }
}

fn report(program: &str, arguments: &Arguments, options: &BackupOptions) -> Report {
    let directory = match &options.target {
        Target::Plain { directory, .. } => Some(directory.clone()),
        _ => None,
    };
    Report {
        program: program.to_owned(),
        verbose: arguments.verbose > 0,
        progress: arguments.progress,
        wal: options.wal,
        manifest: directory.is_some() || matches!(options.target, Target::Tar { .. }),
        directory,
        shown: Mutex::new(None),
        remains: Mutex::new(None),
    }
}

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
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::Handlers)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::Handlers)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(Failure::Handlers)?;
    let stopped = async {
        tokio::select! {
            _ = interrupt.recv() => "interrupt",
            _ = terminate.recv() => "terminate",
            _ = hangup.recv() => "hangup",
        }
    };
    tokio::select! {
        result = base_backup(connector, options, report) => result.map(|_| ()).map_err(Failure::Backup),
        name = stopped => Err(Failure::Signal(name)),
    }
}

/// The connection string, the options over it, and the environment below it.
fn connection(arguments: &Arguments) -> Result<Conninfo, String> {
    let text = |error: crate::conninfo::ConninfoError| error.to_string();
    let mut conninfo = match &arguments.dbname {
        Some(dbname) => Conninfo::parse(dbname).map_err(text)?,
        None => Conninfo::default(),
    };
    for (keyword, value) in [("host", &arguments.host), ("port", &arguments.port), ("user", &arguments.username)] {
        if let Some(value) = value {
            conninfo.set(keyword, value).map_err(text)?;
        }
    }
    conninfo.fill_from(|variable| std::env::var(variable).ok());
    conninfo.check().map_err(text)?;
    Ok(conninfo)
}

fn options(arguments: &Arguments, conninfo: &Conninfo, password: Option<String>) -> Result<BackupOptions, String> {
    let text = |error: crate::conninfo::ConninfoError| error.to_string();
    let user = conninfo.user().map_err(text)?;
    let mut options = BackupOptions::new(user, target(arguments));
    // PGDATABASE does not count here: it names a database to work in.
    let named = arguments.dbname.as_ref().and_then(|_| conninfo.get("dbname"));
    named.unwrap_or("replication").clone_into(&mut options.database);
    options.password = password.or_else(|| conninfo.password(&options.database, &options.user));
    if let Some(name) = conninfo.get("application_name").or(conninfo.get("fallback_application_name")) {
        name.clone_into(&mut options.application_name);
    }
    options.session_options = conninfo.get("options").map(str::to_owned);
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
    options.manifest = arguments.manifest();
    if let Some(algorithm) = arguments.manifest_checksums {
        options.manifest_checksums = algorithm;
    }
    options.verify_checksums = !arguments.no_verify_checksums;
    options.estimate_size = !arguments.no_estimate_size;
    options.sync = !arguments.no_sync;
    options.clean = !arguments.no_clean;
    options.status_interval = arguments.status_interval;
    options.deadlines = arguments.deadlines();
    if options.deadlines.connect.is_none() {
        options.deadlines.connect = conninfo.connect_timeout().map_err(text)?;
    }
    options.recovery = arguments.write_recovery_conf.then(|| {
        let mut conninfo = conninfo.clone();
        // The user is named even if it is the default: the standby may run as another one.
        let _ = conninfo.set("user", &options.user);
        if let Some(password) = &options.password
            && conninfo.get("passfile").is_none()
        {
            let _ = conninfo.set("password", password);
        }
        RecoveryConfiguration {
            primary_conninfo: conninfo.to_primary_conninfo(),
            primary_slot_name: arguments.slot.clone(),
        }
    });
    options.clock = Arc::new(SystemClock);
    Ok(options)
}

fn target(arguments: &Arguments) -> Target {
    let directory = arguments.pgdata.clone().unwrap_or_default();
    if arguments.discard {
        Target::Discard
    } else if !arguments.tar() {
        Target::Plain { directory, waldir: arguments.waldir.clone() }
    } else if directory.as_os_str() == "-" {
        Target::Stream(Box::new(io::BufWriter::with_capacity(128 << 10, io::stdout())))
    } else {
        Target::Tar { directory }
    }
}
