//! The built-in client: a scenario's client as options of the library.

use std::path::PathBuf;
use std::time::Duration;

use backstop_client::{ArchiveCompression, BackupOptions, Deadlines, SlotOption, Target, WalMethod};
use backstop_mock::fault::Action;
use backstop_protocol::base_backup::manifest::ChecksumAlgorithm;
use backstop_protocol::base_backup::options::ManifestOption;

use super::command::{PASSWORD, USER, kilobytes_per_second};
use crate::scenario::Case;
use crate::scenario::model::{Checkpoint, Client, Format, Manifest, Slot, WalMethod as Wal};

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
    let tablespaces = case.scenario.cluster.tablespaces.iter();
    let mut options = BackupOptions::new(USER, target);
    options.login.password = Some(PASSWORD.to_owned());
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
        Format::Plain => tablespaces.map(|space| (space.location.clone().into(), tablespace(space.oid))).collect(),
        Format::Tar => Vec::new(),
    };
    options.incremental = manifest;
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
    // The power does not fail in here, and fsync costs more than everything else together.
    options.sync = case.scenario.faults.iter().any(|fault| matches!(fault.r#do, Action::FailFsync { .. }));
    options.deadlines = deadlines(client.timeout.0);
    Ok(options)
}

/// The client gives up before the harness does, so that a silent server is a failure of the backup and not of the client.
/// Each phase has its own patience: a checkpoint may take long, a connection that carries data may not fall silent.
fn deadlines(timeout: Duration) -> Deadlines {
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
