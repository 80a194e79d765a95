//! The built-in client: a scenario's client as options of the library.

use std::path::{Path, PathBuf};
use std::time::Duration;

use backstop_client::{ArchiveCompression, BackupOptions, Deadlines, SlotOption, Target, WalMethod};
use backstop_mock::fault::Action;
use backstop_protocol::base_backup::label::BackupLabel;
use backstop_protocol::base_backup::manifest::ChecksumAlgorithm;
use backstop_protocol::base_backup::options::ManifestOption;
use backstop_protocol::lsn::Lsn;

use super::command::kilobytes_per_second;
use crate::oracle::artifact::Artifact;
use crate::scenario::Case;
use crate::scenario::model::{Checkpoint, Client, Format, Manifest, Slot, WalMethod as Wal};

/// No label is longer, in bytes.
const MAX_LABEL: u64 = 64 << 10;

/// What the library is told, `manifest` being that of the backup on which this one builds.
///
/// # Errors
/// What the client says of a compression that it cannot do.
pub fn options(
    case: &Case,
    client: &Client,
    target: PathBuf,
    manifest: Option<PathBuf>,
    tablespace: impl Fn(u32) -> PathBuf,
) -> Result<BackupOptions, String> {
    let version = case.scenario.server.version;
    let target = match client.format {
        Format::Plain => Target::Plain { directory: target, waldir: None },
        Format::Tar => Target::Tar { directory: target },
    };
    let mut options = BackupOptions::new(&*case.credentials.user, target);
    options.login.password.clone_from(&case.credentials.password);
    options.login.application_name.clone_from(&client.name);
    options.fast_checkpoint = client.checkpoint == Checkpoint::Fast;
    options.wal = match client.wal {
        Wal::Stream => WalMethod::Stream,
        Wal::Fetch => WalMethod::Fetch,
        Wal::None => WalMethod::None,
    };
    options.slot = match client.slot_on(version) {
        Slot::None => SlotOption::None,
        Slot::Temporary => SlotOption::Temporary,
        Slot::Create(name) => SlotOption::Named { name, create: true },
        Slot::Existing(name) => SlotOption::Named { name, create: false },
    };
    options.tablespace_mapping = match client.format {
        Format::Plain => tablespaces(case, tablespace),
        Format::Tar => Vec::new(),
    };
    if case.scenario.server.flavour.increments_by_lsn() {
        options.incremental_from = manifest.as_deref().map(start_of).transpose()?;
    } else {
        options.incremental = manifest;
    }
    options.max_rate = client.max_rate.map(kilobytes_per_second);
    let (manifest, checksums) = match client.manifest_on(version) {
        Manifest::None => (ManifestOption::No, ChecksumAlgorithm::Crc32c),
        Manifest::Crc32c => (ManifestOption::Yes, ChecksumAlgorithm::Crc32c),
        Manifest::Sha224 => (ManifestOption::Yes, ChecksumAlgorithm::Sha224),
        Manifest::Sha256 => (ManifestOption::Yes, ChecksumAlgorithm::Sha256),
        Manifest::Sha384 => (ManifestOption::Yes, ChecksumAlgorithm::Sha384),
        Manifest::Sha512 => (ManifestOption::Yes, ChecksumAlgorithm::Sha512),
    };
    options.manifest = manifest;
    if let Some(compress) = &client.compress {
        options.compression = ArchiveCompression::parse(compress, true)?;
    }
    options.manifest_checksums = checksums;
    options.sync = wants_sync(case);
    options.deadlines = deadlines(client.timeout.0);
    Ok(options)
}

/// Where tablespaces are on the server, and where they go.
pub(super) fn tablespaces(case: &Case, tablespace: impl Fn(u32) -> PathBuf) -> Vec<(PathBuf, PathBuf)> {
    let tablespaces = case.scenario.cluster.tablespaces.iter();
    tablespaces.map(|space| (space.location.clone().into(), tablespace(space.oid))).collect()
}

/// Whether files are forced to disk: the power does not fail in here, and fsync costs more than everything else together.
pub(super) fn wants_sync(case: &Case) -> bool {
    case.scenario.faults.iter().any(|fault| matches!(fault.r#do, Action::FailFsync(_)))
}

/// Where the backup started whose manifest would be at `manifest`: what its label says, wherever that lies.
pub(super) fn start_of(manifest: &Path) -> Result<Lsn, String> {
    let directory = manifest.parent().unwrap_or(manifest);
    let label = Artifact::load(directory).file("backup_label").and_then(|label| label.read(MAX_LABEL).ok());
    let label = label.ok_or_else(|| format!("there is no backup_label in \"{}\"", directory.display()))?;
    let label = BackupLabel::parse(&String::from_utf8_lossy(&label)).map_err(|error| error.to_string())?;
    Ok(label.start)
}

/// The client gives up before the harness does, so that a silent server is a failure of the backup and not of the client.
/// Each phase has its own patience: a checkpoint may take long, a connection that carries data may not fall silent.
pub(super) fn deadlines(timeout: Duration) -> Deadlines {
    let half = Some(timeout / 2);
    Deadlines {
        connect: half,
        checkpoint: Some(timeout * 3 / 4),
        data: half,
        finish: half,
        wal_silence: half,
        wal_end: half,
    }
}
