//! What BASE_BACKUP is asked to do: the meaning of its options in every release, and the command that asks for it.
//!
//! [`BaseBackupOptions::from_command`] judges as `parse_basebackup_options` does, in the same order and with the same
//! words; [`BaseBackupOptions::to_command`] gives the options that pg_basebackup sends, in its order.

pub mod compression;
mod parse;

#[cfg(test)]
mod tests;

pub use crate::command::OptionError;
pub use compression::{Compression, CompressionAlgorithm};

use crate::base_backup::manifest::ChecksumAlgorithm;
use crate::command::{Command, CommandOption};
use crate::lsn::Lsn;
use crate::version::{Flavour, ServerVersion};

/// The label of a backup that was given none.
pub const DEFAULT_LABEL: &str = "base backup";

/// The longest label in bytes: `MAXPGPATH`.
pub const MAX_LABEL: usize = 1024;

/// The transfer rates that MAX_RATE accepts, in kB/s: `MAX_RATE_LOWER` and `MAX_RATE_UPPER`.
pub const MAX_RATE: std::ops::RangeInclusive<u32> = 32..=1_048_576;

/// What BASE_BACKUP is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseBackupOptions {
    /// What `backup_label` says of the backup.
    pub label: String,
    /// Whether the list of tablespaces holds their sizes.
    pub progress: bool,
    /// Whether the checkpoint at the beginning is immediate; otherwise it is spread.
    pub fast_checkpoint: bool,
    /// Whether the archive of the base directory ends with the WAL that the backup needs.
    pub wal: bool,
    /// Whether the end waits until that WAL has been archived.
    pub wait: bool,
    /// Whether only what changed since the uploaded manifest is sent (17).
    pub incremental: bool,
    /// Whether only the files are sent that changed since a backup that started here ([`Flavour::increments_by_lsn`]).
    pub incremental_from: Option<Lsn>,
    /// The highest transfer rate in kB/s, within [`MAX_RATE`] (9.4).
    pub max_rate: Option<u32>,
    /// Whether links to tablespaces are sent as the file `tablespace_map` (9.5).
    pub tablespace_map: bool,
    /// Whether checksums of pages are verified (11).
    pub verify_checksums: bool,
    /// Whether there is a manifest (13).
    pub manifest: ManifestOption,
    /// The checksums in the manifest; none without a manifest.
    pub manifest_checksums: ChecksumAlgorithm,
    /// Where the backup goes (15).
    pub target: Target,
    /// How the server compresses archives (15).
    pub compression: Compression,
}

/// Whether there is a manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ManifestOption {
    /// There is none.
    #[default]
    No,
    /// Names that are not UTF-8 are encoded.
    Yes,
    /// Every name is encoded.
    ForceEncode,
}

impl ManifestOption {
    fn word(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Yes => "yes",
            Self::ForceEncode => "force-encode",
        }
    }
}

/// Where a backup goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// To the client that asked.
    #[default]
    Client,
    /// Into this directory of the server.
    Server(String),
    /// Nowhere.
    Blackhole,
}

impl Target {
    /// The name in BASE_BACKUP's option TARGET.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server(_) => "server",
            Self::Blackhole => "blackhole",
        }
    }
}

/// What a server knows when it judges options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// What it is built from.
    pub flavour: Flavour,
    /// The setting `summarize_wal`.
    pub wal_summaries: bool,
    /// Whether this session has uploaded a manifest.
    pub manifest_uploaded: bool,
    /// Whether the role has the privileges of `pg_write_server_files`.
    pub writes_server_files: bool,
    /// Whether the server was built with zlib.
    pub gzip: bool,
    /// Whether the server was built with LZ4.
    pub lz4: bool,
    /// Whether the server was built with Zstandard.
    pub zstd: bool,
}

impl Default for ServerFacts {
    /// A server as it is first set up, built with zlib alone, and a role that has REPLICATION and no more.
    fn default() -> Self {
        Self {
            flavour: Flavour::Stock,
            wal_summaries: false,
            manifest_uploaded: false,
            writes_server_files: false,
            gzip: true,
            lz4: false,
            zstd: false,
        }
    }
}

impl Default for BaseBackupOptions {
    /// What BASE_BACKUP does without options.
    fn default() -> Self {
        Self {
            label: DEFAULT_LABEL.to_owned(),
            progress: false,
            fast_checkpoint: false,
            wal: false,
            wait: true,
            incremental: false,
            incremental_from: None,
            max_rate: None,
            tablespace_map: false,
            verify_checksums: true,
            manifest: ManifestOption::No,
            manifest_checksums: ChecksumAlgorithm::None,
            target: Target::Client,
            compression: Compression::default(),
        }
    }
}

impl BaseBackupOptions {
    /// The command that asks a server of `version` for this backup, as pg_basebackup asks for it.
    ///
    /// A manifest is not asked of a server that knows none; targets, server-side compression and incremental backups,
    /// which pg_basebackup refuses by itself before 15 and 17, are left out before 15. Every other option is sent whether
    /// the server knows it or not. The label is always sent, checksum algorithms only when they are not CRC32C.
    pub fn to_command(&self, version: ServerVersion) -> Command {
        if version.has_option_lists() { self.option_list() } else { self.keywords(version) }
    }

    fn keywords(&self, version: ServerVersion) -> Command {
        let mut options = vec![CommandOption::text("label", self.label.as_str())];
        options.extend(self.start_position());
        let flags =
            [(self.progress, "progress"), (self.wal, "wal"), (self.fast_checkpoint, "fast"), (!self.wait, "nowait")];
        options.extend(flags.iter().filter(|(given, _)| *given).map(|(_, name)| CommandOption::flag(name)));
        options.extend(self.max_rate.map(|rate| CommandOption::integer("max_rate", rate)));
        let flags = [(self.tablespace_map, "tablespace_map"), (!self.verify_checksums, "noverify_checksums")];
        options.extend(flags.iter().filter(|(given, _)| *given).map(|(_, name)| CommandOption::flag(name)));
        if version.has_manifest() {
            self.manifest_options(&mut options);
        }
        Command::BaseBackup(options)
    }

    fn option_list(&self) -> Command {
        let mut options = Vec::new();
        let to_client = self.target == Target::Client;
        options.extend(self.start_position());
        let mut flag = |given: bool, option: CommandOption| {
            if given {
                options.push(option);
            }
        };
        flag(self.incremental, CommandOption::flag("incremental"));
        flag(true, CommandOption::text("label", self.label.as_str()));
        flag(self.progress, CommandOption::flag("progress"));
        flag(self.wal, CommandOption::flag("wal"));
        flag(self.fast_checkpoint, CommandOption::text("checkpoint", "fast"));
        flag(!self.wait, CommandOption::integer("wait", 0));
        flag(self.max_rate.is_some(), CommandOption::integer("max_rate", self.max_rate.unwrap_or_default()));
        flag(self.tablespace_map && to_client, CommandOption::flag("tablespace_map"));
        flag(!self.verify_checksums, CommandOption::integer("verify_checksums", 0));
        self.manifest_options(&mut options);
        if self.tablespace_map && !to_client {
            options.push(CommandOption::flag("tablespace_map"));
        }
        options.push(CommandOption::text("target", self.target.name()));
        if let Target::Server(directory) = &self.target {
            options.push(CommandOption::text("target_detail", directory.as_str()));
        }
        let compression = &self.compression;
        // With a target, compression can only be the server's business, even if it is none.
        if compression.algorithm != CompressionAlgorithm::None || compression.detail.is_some() || !to_client {
            options.push(CommandOption::text("compression", compression.algorithm.name()));
            options.extend(
                compression.detail.as_ref().map(|detail| CommandOption::text("compression_detail", detail.as_str())),
            );
        }
        Command::BaseBackup(options)
    }

    fn start_position(&self) -> Option<CommandOption> {
        self.incremental_from.map(|start| CommandOption::text("incremental", start.to_string()))
    }

    fn manifest_options(&self, options: &mut Vec<CommandOption>) {
        if self.manifest == ManifestOption::No {
            return;
        }
        options.push(CommandOption::text("manifest", self.manifest.word()));
        if self.manifest_checksums != ChecksumAlgorithm::Crc32c {
            options.push(CommandOption::text("manifest_checksums", self.manifest_checksums.to_string()));
        }
    }
}
