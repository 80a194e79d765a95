//! A program: a scenario's client as a command line.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use backstop_mock::fault::Action;
use backstop_mock::fault::client::KillClient;
use backstop_mock::units::ByteRate;
use backstop_protocol::version::{Flavour, ServerVersion};
use backstop_protocol::wal_archive::ArchivedSegment;
use tokio::process::Command;

use super::builtin::start_of;
use super::receivewal;
use super::signals;
use super::small_disk::SmallDisk;
use crate::plan::SubjectSpec;
use crate::scenario::Case;
use crate::scenario::model::{Checkpoint, Client, Format, Manifest, Slot, Target, Tool as Kinds, WalMethod};

/// A program that takes base backups.
#[derive(Debug)]
pub struct Tool {
    /// As on the command line.
    pub spec: SubjectSpec,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// PostgreSQL's, of this release: it refuses servers that are newer.
    PgBasebackup { program: PathBuf, release: ServerVersion },
    /// PostgreSQL's, of this release: it streams from no server that is newer.
    PgReceivewal { program: PathBuf, release: ServerVersion },
    /// A template.
    Exec { words: Vec<String> },
}

/// What a program is to be told.
pub struct Invocation<'a> {
    /// The story.
    pub case: &'a Case,
    /// The client's part in it.
    pub client: &'a Client,
    /// Where the server listens.
    pub address: SocketAddr,
    /// The certificate of the server's authority, where the connection is to be encrypted.
    pub ca_file: Option<&'a Path>,
    /// Where the backup goes.
    pub target: PathBuf,
    /// The manifest of the backup on which this one builds.
    pub manifest: Option<PathBuf>,
    /// Where a tablespace goes.
    pub tablespace: &'a dyn Fn(u32) -> PathBuf,
}

impl Tool {
    /// Finds the program.
    ///
    /// # Errors
    /// Its name and why it cannot be run.
    pub fn find(spec: &SubjectSpec) -> Result<Self, String> {
        let kind = match spec {
            SubjectSpec::PgBasebackup(path) => {
                let program = path.clone().unwrap_or_else(|| "pg_basebackup".into());
                let release = release_of(&program)?;
                Kind::PgBasebackup { program: absolute(program), release }
            }
            SubjectSpec::Exec(template) => {
                let words: Vec<_> = template.split_whitespace().map(str::to_owned).collect();
                let program = words.first().ok_or("the exec template names no program")?;
                if !is_there(Path::new(program)) {
                    return Err(format!("client \"{program}\" was not found"));
                }
                Kind::Exec { words }
            }
            SubjectSpec::PgReceivewal(path) => {
                let program = path.clone().unwrap_or_else(|| "pg_receivewal".into());
                let release = release_of(&program)?;
                Kind::PgReceivewal { program: absolute(program), release }
            }
            SubjectSpec::Builtin => return Err("the built-in client is no program".to_owned()),
        };
        Ok(Self { spec: spec.clone(), kind })
    }

    /// Why this program cannot run this case, if it cannot.
    pub fn cannot_run(&self, case: &Case) -> Option<String> {
        let server = case.scenario.server.version;
        let incremental = case.scenario.clients.iter().any(|client| client.incremental_from.is_some());
        let compressed = case.scenario.clients.iter().any(|client| client.compress.is_some());
        let backs_up = case.scenario.clients.iter().any(|client| client.tool == Kinds::Basebackup);
        let receives = case.scenario.clients.iter().any(|client| client.tool == Kinds::Receivewal);
        let speaks_sql = case.scenario.clients.iter().any(|client| client.tool == Kinds::Parallel);
        if case.scenario.server.flavour != Flavour::Stock {
            return Some(format!("servers built as {} are for the built-in client only", case.scenario.server.flavour));
        }
        if let Some(reason) = needs_a_machine(case) {
            return Some(reason.to_owned());
        }
        let streaming = case.scenario.clients.iter().any(|client| client.wal == WalMethod::Stream);
        match &self.kind {
            Kind::PgReceivewal { .. } if fills(case) => {
                Some("the archive of a program cannot lie on a disk of its own".to_owned())
            }
            Kind::PgReceivewal { .. } if backs_up => Some("pg_receivewal takes no base backups".to_owned()),
            Kind::PgBasebackup { .. } | Kind::Exec { .. } if receives => {
                Some("a client that takes base backups keeps no archive of WAL".to_owned())
            }
            Kind::PgBasebackup { .. } | Kind::PgReceivewal { .. } if speaks_sql => {
                Some("PostgreSQL's tools take no backups over ordinary connections".to_owned())
            }
            Kind::Exec { words } => exec_cannot_run(words, case),
            Kind::PgReceivewal { release, .. } if *release < server => {
                Some(format!("pg_receivewal {release} refuses servers of version {server}"))
            }
            Kind::PgReceivewal { program, .. } if !packs(program, case) => {
                Some("this pg_receivewal was built without the compression".to_owned())
            }
            Kind::PgReceivewal { program, .. } if case.scenario.server.tls && !speaks_tls(program) => {
                Some("this pg_receivewal was built without TLS".to_owned())
            }
            // Since it knows that timelines end, in 9.3.
            Kind::PgBasebackup { release, .. }
                if streaming && release.has_timeline_history() && !server.has_timeline_history() =>
            {
                Some(format!("pg_basebackup {release} streams no WAL from servers of version {server}"))
            }
            Kind::PgBasebackup { release, .. } if compressed && !release.has_archive_stream() => {
                Some("pg_basebackup asks no server to compress before 15".to_owned())
            }
            Kind::PgBasebackup { release, .. } if incremental && !release.has_incremental() => {
                Some("pg_basebackup has no incremental backups before 17".to_owned())
            }
            Kind::PgBasebackup { release, .. } if *release < server => {
                Some(format!("pg_basebackup {release} refuses servers of version {server}"))
            }
            Kind::PgBasebackup { program, .. } if !unpacks(program, case) => {
                Some("this pg_basebackup was built without the compression".to_owned())
            }
            Kind::PgBasebackup { program, .. } if case.scenario.server.tls && !speaks_tls(program) => {
                Some("this pg_basebackup was built without TLS".to_owned())
            }
            _ => None,
        }
    }

    /// The command line and environment.
    pub fn command(&self, invocation: &Invocation<'_>) -> Command {
        let mut command = match &self.kind {
            Kind::PgBasebackup { program, .. } => pg_basebackup(program, invocation),
            Kind::PgReceivewal { program, .. } => {
                let mut command = at_home(program, invocation);
                receivewal::arguments(&mut command, invocation);
                command
            }
            Kind::Exec { words } => exec(words, invocation),
        };
        // Nothing of the caller's own connection settings may lead elsewhere.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        if let Some(ca_file) = invocation.ca_file {
            command.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", ca_file);
        }
        if let Some(password) = &invocation.case.credentials.password {
            command.env("PGPASSWORD", password);
        }
        command.env("PGAPPNAME", &invocation.client.name).env("LC_ALL", "C");
        command
    }
}

/// Why a template cannot run a case: what it does not mention, its program is not told. One that mentions `{jobs}` takes backups with
/// SQL.
fn exec_cannot_run(words: &[String], case: &Case) -> Option<String> {
    let mentions = |placeholder| words.iter().any(|word| word.contains(placeholder));
    let clients = || case.scenario.clients.iter();
    let with_sql = clients().any(|client| client.tool == Kinds::Parallel);
    let incremental = || clients().filter(|client| client.incremental_from.is_some());
    let reason = if with_sql && !mentions("{jobs}") {
        "the exec template says nothing of {jobs}, over which ordinary connections fetch files"
    } else if clients().any(|client| client.tool == Kinds::Basebackup) && mentions("{jobs}") {
        "the exec template speaks of {jobs}, and so of backups over ordinary connections"
    } else if with_sql && !case.scenario.cluster.tablespaces.is_empty() {
        "an exec template cannot say where tablespaces go, and their places on the server are not the client's"
    } else if clients().any(|client| client.compress.is_some()) {
        "an exec template says by itself whether a backup is compressed"
    } else if incremental().any(|client| client.tool == Kinds::Parallel) && !mentions("{lsn}") {
        "the exec template says nothing of {lsn}, where the backup started on which incremental ones build"
    } else if incremental().any(|client| client.tool == Kinds::Basebackup) && !mentions("{manifest}") {
        "the exec template says nothing of {manifest}, on which incremental backups build"
    } else {
        return None;
    };
    Some(reason.to_owned())
}

/// What cannot be done to the machine of a program.
fn needs_a_machine(case: &Case) -> Option<&'static str> {
    let does = |wanted: fn(&Action) -> bool| case.scenario.faults.iter().any(|fault| wanted(&fault.r#do));
    let fills = does(|action| matches!(action, Action::FillDisk(_)));
    let read_only = case.scenario.clients.iter().any(|client| client.target == Target::ReadOnly);
    if does(|action| matches!(action, Action::FailFsync(_) | Action::ProtectDisk(_))) {
        Some("only the disk of the built-in client can fail like this")
    } else if fills && does(|action| matches!(action, Action::KillClient(_))) {
        Some("a program with a disk of its own cannot be signalled")
    } else if case.scenario.faults.iter().any(
        |fault| matches!(&fault.r#do, Action::KillClient(KillClient { signal, .. }) if signals::is_ignored(*signal)),
    ) {
        Some(
            "this run was started with the signal ignored, as shells start what runs in the background, and its clients inherit that",
        )
    } else if fills && !SmallDisk::is_possible() {
        Some("a disk that can be full needs unshare, nsenter and user namespaces")
    } else if read_only && rustix::process::geteuid().is_root() {
        Some("root may write to every directory")
    } else {
        None
    }
}

fn pg_basebackup(program: &Path, invocation: &Invocation<'_>) -> Command {
    let Invocation { case, client, address, target, manifest, tablespace, .. } = invocation;
    let version = case.scenario.server.version;
    let mut command = at_home(program, invocation);
    command.arg("-h").arg(address.ip().to_string()).arg("-p").arg(address.port().to_string());
    command.args(["-U", &case.credentials.user, "-w", "--no-sync", "-D"]).arg(target);
    command.arg(match client.format {
        Format::Plain => "-Fp",
        Format::Tar => "-Ft",
    });
    command.arg(match client.wal {
        WalMethod::Stream => "-Xstream",
        WalMethod::Fetch => "-Xfetch",
        WalMethod::None => "-Xnone",
    });
    command.arg(match client.checkpoint {
        Checkpoint::Fast => "-cfast",
        Checkpoint::Spread => "-cspread",
    });
    if client.wal == WalMethod::Stream {
        match client.slot_on(version) {
            Slot::Temporary => {}
            Slot::None => drop(command.arg("--no-slot")),
            Slot::Create(name) => drop(command.arg("-C").arg("-S").arg(name)),
            Slot::Existing(name) => drop(command.arg("-S").arg(name)),
        }
    }
    if let Some(manifest) = manifest {
        command.arg("-i").arg(manifest);
    }
    if let Some(compress) = &client.compress {
        command.arg(format!("--compress={compress}"));
    }
    if let Some(rate) = client.max_rate {
        command.arg(format!("--max-rate={}", kilobytes_per_second(rate)));
    }
    if version.has_manifest() {
        command.arg(match client.manifest_on(version) {
            Manifest::None => "--no-manifest",
            Manifest::Crc32c => "--manifest-checksums=CRC32C",
            Manifest::Sha224 => "--manifest-checksums=SHA224",
            Manifest::Sha256 => "--manifest-checksums=SHA256",
            Manifest::Sha384 => "--manifest-checksums=SHA384",
            Manifest::Sha512 => "--manifest-checksums=SHA512",
        });
    }
    if client.format == Format::Plain {
        for space in &case.scenario.cluster.tablespaces {
            let (old, new) = (escaped(&space.location), escaped(&tablespace(space.oid).display().to_string()));
            command.arg("-T").arg(format!("{old}={new}"));
        }
    }
    command
}

/// A directory as `--tablespace-mapping` reads it: the names of cases, and so of what is kept of them, hold `=`.
fn escaped(directory: &str) -> String {
    directory.replace('=', "\\=")
}

fn exec(words: &[String], invocation: &Invocation<'_>) -> Command {
    let (client, credentials) = (invocation.client, &invocation.case.credentials);
    let slot = match client.slot_on(invocation.case.scenario.server.version) {
        Slot::Create(name) | Slot::Existing(name) => name,
        Slot::None | Slot::Temporary => String::new(),
    };
    // Without a backup before it there is none, which the program has to say.
    let since = invocation.manifest.as_deref().filter(|_| words.iter().any(|word| word.contains("{lsn}")));
    let since = since.and_then(|manifest| start_of(manifest).ok());
    let values = [
        ("{host}", invocation.address.ip().to_string()),
        ("{port}", invocation.address.port().to_string()),
        ("{user}", credentials.user.clone()),
        ("{password}", credentials.password.clone().unwrap_or_default()),
        ("{dir}", invocation.target.display().to_string()),
        ("{label}", client.name.clone()),
        ("{slot}", slot),
        ("{manifest}", invocation.manifest.as_ref().map(|path| path.display().to_string()).unwrap_or_default()),
        ("{jobs}", client.jobs.map_or(1, NonZero::get).to_string()),
        ("{lsn}", since.map(|lsn| lsn.to_string()).unwrap_or_default()),
    ];
    let mut words = words
        .iter()
        .map(|word| values.iter().fold(word.clone(), |word, (placeholder, value)| word.replace(placeholder, value)));
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

/// The program's place from wherever it is started. A name alone is looked up in PATH.
fn absolute(program: PathBuf) -> PathBuf {
    if program.components().count() < 2 {
        return program;
    }
    std::path::absolute(&program).unwrap_or(program)
}

/// The program, in the directory in which its target is made: what it writes beside that, to a place that is no absolute path here, is
/// noticed.
fn at_home(program: &Path, invocation: &Invocation<'_>) -> Command {
    let mut command = Command::new(program);
    if let Some(home) = invocation.target.parent() {
        command.current_dir(home);
    }
    command
}

/// `pg_basebackup (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`
fn release_of(program: &Path) -> Result<ServerVersion, String> {
    let shown = program.display();
    let output = std::process::Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("could not run client \"{shown}\": {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let release = text.split_once("(PostgreSQL) ").and_then(|(_, number)| ServerVersion::from_announced(number.trim()));
    release.ok_or_else(|| format!("client \"{shown}\" does not say which release it is: {:?}", text.trim()))
}

/// Whether a client of libpq was built with TLS. libpq looks at the mode before it looks for the server, of which there is none.
fn speaks_tls(program: &Path) -> bool {
    let mut command = std::process::Command::new(program);
    command.args(["-D", "-", "-d", "host=/nonexistent sslmode=verify-full"]).stdin(Stdio::null()).env("LC_ALL", "C");
    command.output().is_ok_and(|output| !String::from_utf8_lossy(&output.stderr).contains("not compiled in"))
}

/// Whether the disk of a client fills up.
fn fills(case: &Case) -> bool {
    case.scenario.faults.iter().any(|fault| matches!(fault.r#do, Action::FillDisk(_)))
}

/// Whether a `pg_receivewal` knows every compression of `case`. It looks at that before it looks for its directory.
fn packs(program: &Path, case: &Case) -> bool {
    let clients = || case.scenario.clients.iter();
    let written = clients().filter_map(|client| client.compress.as_deref()?.strip_prefix("client-"));
    let names = clients().flat_map(|client| &client.has).filter_map(|file| file.name.parse::<ArchivedSegment>().ok());
    // It has to look into what is complete.
    let read = names.filter(|name| !name.partial).map(|name| name.compression.name());
    written.chain(read).all(|compress| {
        let mut command = std::process::Command::new(program);
        command.args(["-D", "/nonexistent", "-Z", compress]).stdin(Stdio::null()).env("LC_ALL", "C");
        command
            .output()
            .is_ok_and(|output| String::from_utf8_lossy(&output.stderr).contains("could not open directory"))
    })
}

/// Whether a `pg_basebackup` knows every compression of `case` that it has to do or to undo itself. It looks at that before it
/// looks for the server, of which there is none.
fn unpacks(program: &Path, case: &Case) -> bool {
    let clients = case.scenario.clients.iter().filter_map(|client| Some((client, client.compress.as_deref()?)));
    let own = clients.filter_map(|(client, compress)| match compress.split_once('-')? {
        ("server", _) if client.format == Format::Tar => None,
        (_, algorithm) => algorithm.split(':').next(),
    });
    own.collect::<BTreeSet<_>>().into_iter().all(|algorithm| {
        let mut command = std::process::Command::new(program);
        command.args(["-D", "-", "-Ft", "-Xnone", "-d", "host=/nonexistent"]).arg(format!("--compress={algorithm}"));
        let output = command.stdin(Stdio::null()).env("LC_ALL", "C").output();
        output.is_ok_and(|output| !String::from_utf8_lossy(&output.stderr).contains("does not support compression"))
    })
}

fn is_there(program: &Path) -> bool {
    if program.components().count() > 1 {
        return program.is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// BASE_BACKUP counts rates in kB/s and refuses less than 32.
pub fn kilobytes_per_second(rate: ByteRate) -> u32 {
    u32::try_from(rate.0 / 1024).unwrap_or(u32::MAX)
}
