//! What is asked of the server: BASE_BACKUP, and what a server of its release can be asked for at all.

use backstop_protocol::base_backup::options::{
    self, BaseBackupOptions, Compression, CompressionAlgorithm, ManifestOption,
};
use backstop_protocol::command::{Command, CommandOption};
use backstop_protocol::version::{Flavour, ServerVersion};

use crate::compression::ArchiveCompression;
use crate::error::ClientError;
use crate::options::{BackupOptions, SlotOption, Target, WalMethod};

/// The place of a backup, as far as the request depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Unpacked here.
    Plain,
    /// Here, as archives or not at all.
    Archives,
    /// Somewhere that only the server reaches: the target's name and detail.
    Elsewhere { target: String, detail: Option<String> },
}

impl Place {
    pub(crate) fn of(target: &Target) -> Self {
        match target {
            Target::Plain { .. } => Self::Plain,
            Target::Tar { .. } | Target::Stream(_) | Target::Discard | Target::Sink(_) => Self::Archives,
            Target::Elsewhere { target, detail } => Self::Elsewhere { target: target.clone(), detail: detail.clone() },
        }
    }

    pub(crate) fn is_here(&self) -> bool {
        !matches!(self, Self::Elsewhere { .. })
    }
}

/// Refuses what cannot be followed before anybody is asked anything.
pub(crate) fn check_options(options: &BackupOptions, target: &Target) -> Result<(), ClientError> {
    let refuse = |problem: &str| Err(ClientError::Refused(problem.to_owned()));
    if matches!(target, Target::Stream(_)) && options.wal == WalMethod::Stream {
        return refuse("cannot stream write-ahead logs in tar mode to stdout");
    }
    if options.wal != WalMethod::Stream && matches!(options.slot, SlotOption::Named { .. }) {
        return refuse("replication slots can only be used with WAL streaming");
    }
    if options.label.contains('\0') {
        return refuse("backup label contains a zero byte");
    }
    let here = Place::of(target).is_here();
    if !here && options.wal == WalMethod::Stream {
        return refuse("WAL cannot be streamed when a backup target is specified");
    }
    if !here && options.recovery.is_some() {
        return refuse("recovery configuration cannot be written when a backup target is used");
    }
    if matches!(target, Target::Sink(_)) && options.recovery.is_some() {
        return refuse("recovery configuration is a sink's own to write");
    }
    if let ArchiveCompression::Client(compression) = &options.compression
        && compression.algorithm != CompressionAlgorithm::None
    {
        if !here {
            return refuse("client-side compression is not possible when a backup target is specified");
        }
        if matches!(target, Target::Plain { .. } | Target::Sink(_)) {
            return refuse("only tar mode backups can be compressed");
        }
    }
    Ok(())
}

/// Refuses what a server of `version` cannot do, in the words of `pg_basebackup`.
pub(crate) fn check_version(
    options: &BackupOptions,
    place: &Place,
    version: ServerVersion,
    flavour: Flavour,
) -> Result<(), ClientError> {
    let refuse = |problem: &str| Err(ClientError::Refused(problem.to_owned()));
    if !version.has_option_lists() {
        if !place.is_here() {
            return refuse("backup targets are not supported by this server version");
        }
        if matches!(options.compression, ArchiveCompression::Server { .. }) {
            return refuse("server does not support server-side compression");
        }
    }
    if options.incremental.is_some() && !version.has_incremental() {
        return refuse("server does not support incremental backup");
    }
    if options.incremental_from.is_some() && !flavour.increments_by_lsn() {
        return refuse(
            "server does not support incremental backup by LSN, which only the proof of concept of 2014 does",
        );
    }
    if options.incremental.is_some() && flavour.increments_by_lsn() {
        return refuse("server takes incremental backups by LSN, not by manifest");
    }
    Ok(())
}

/// Whether a manifest is asked for.
pub(crate) fn manifest_wanted(options: &BackupOptions, version: ServerVersion) -> bool {
    options.manifest != ManifestOption::No && version.has_manifest()
}

/// Archives that nobody unpacks want a `tablespace_map`; servers before 9.5 send links only.
pub(crate) fn map_wanted(place: &Place, version: ServerVersion) -> bool {
    *place != Place::Plain && version.has_tablespace_map()
}

/// BASE_BACKUP as this backup wants it.
pub(crate) fn command(options: &BackupOptions, place: &Place, version: ServerVersion) -> String {
    let manifest = if manifest_wanted(options, version) { options.manifest } else { ManifestOption::No };
    let wanted = BaseBackupOptions {
        label: options.label.clone(),
        progress: options.estimate_size,
        fast_checkpoint: options.fast_checkpoint,
        wal: options.wal == WalMethod::Fetch,
        wait: options.wal == WalMethod::None,
        incremental: options.incremental.is_some(),
        incremental_from: options.incremental_from,
        max_rate: options.max_rate,
        tablespace_map: map_wanted(place, version),
        verify_checksums: options.verify_checksums,
        manifest,
        manifest_checksums: options.manifest_checksums,
        target: if place.is_here() { options::Target::Client } else { options::Target::Blackhole },
        compression: Compression::plain(CompressionAlgorithm::None),
    };
    let mut command = wanted.to_command(version);
    if let (Command::BaseBackup(list), true) = (&mut command, version.has_option_lists()) {
        // Targets and algorithms are the server's to know: their names are sent as they were given.
        while list
            .pop_if(|option| option.name.starts_with("compression") || option.name.starts_with("target"))
            .is_some()
        {}
        list.extend(tail(options, place));
    }
    command.to_sql(version)
}

/// The last options of the list.
fn tail(options: &BackupOptions, place: &Place) -> Vec<CommandOption> {
    let mut tail = Vec::new();
    let mut text = |name: &str, value: &str| tail.push(CommandOption::text(name, value));
    match place {
        Place::Elsewhere { target, detail } => {
            text("target", target);
            if let Some(detail) = detail {
                text("target_detail", detail);
            }
        }
        Place::Plain | Place::Archives => text("target", "client"),
    }
    match &options.compression {
        ArchiveCompression::Server { algorithm, detail } => {
            text("compression", algorithm);
            if let Some(detail) = detail {
                text("compression_detail", detail);
            }
        }
        _ if !place.is_here() => text("compression", "none"),
        _ => {}
    }
    tail
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use backstop_protocol::lsn::Lsn;

    use super::*;

    fn server(algorithm: &str, detail: Option<&str>) -> ArchiveCompression {
        ArchiveCompression::Server { algorithm: algorithm.into(), detail: detail.map(str::to_owned) }
    }

    fn sent(place: &Place, version: ServerVersion, change: impl FnOnce(&mut BackupOptions)) -> String {
        let mut options = BackupOptions::new("me", Target::Discard);
        options.fast_checkpoint = true;
        change(&mut options);
        command(&options, place, version)
    }

    #[test]
    fn asks_as_pg_basebackup_does() {
        let elsewhere = |target: &str, detail: Option<&str>| Place::Elsewhere {
            target: target.into(),
            detail: detail.map(str::to_owned),
        };
        let told = [
            sent(&Place::Plain, ServerVersion::V12, |_| {}),
            sent(&Place::Archives, ServerVersion::V14, |options| options.wal = WalMethod::Fetch),
            sent(&Place::Plain, ServerVersion::V15, |options| options.compression = server("gzip", None)),
            sent(&Place::Archives, ServerVersion::V16, |options| {
                options.compression = server("zstd", Some("level=3,workers=2"));
            }),
            sent(&elsewhere("blackhole", None), ServerVersion::V15, |options| options.wal = WalMethod::None),
            sent(&elsewhere("server", Some("/dir")), ServerVersion::V18, |options| {
                options.wal = WalMethod::Fetch;
                options.compression = server("lz4", Some("5"));
            }),
            sent(&Place::Plain, ServerVersion::V18, |options| options.incremental = Some(PathBuf::from("m"))),
            sent(&Place::Plain, ServerVersion::V9_5, |options| options.incremental_from = Some(Lsn(0x200_0028))),
            sent(&Place::Plain, ServerVersion::V18, |options| options.incremental_from = Some(Lsn(0x200_0028))),
        ];
        insta::assert_snapshot!(told.join("\n"), @r#"
        BASE_BACKUP  LABEL 'pg_basebackup base backup'  PROGRESS  FAST  NOWAIT
        BASE_BACKUP  LABEL 'pg_basebackup base backup'  PROGRESS  WAL  FAST  NOWAIT  TABLESPACE_MAP  MANIFEST 'yes'
        BASE_BACKUP ( LABEL 'pg_basebackup base backup',  PROGRESS,  CHECKPOINT 'fast',  WAIT 0,  MANIFEST 'yes',  TARGET 'client',  COMPRESSION 'gzip')
        BASE_BACKUP ( LABEL 'pg_basebackup base backup',  PROGRESS,  CHECKPOINT 'fast',  WAIT 0,  TABLESPACE_MAP,  MANIFEST 'yes',  TARGET 'client',  COMPRESSION 'zstd',  COMPRESSION_DETAIL 'level=3,workers=2')
        BASE_BACKUP ( LABEL 'pg_basebackup base backup',  PROGRESS,  CHECKPOINT 'fast',  MANIFEST 'yes',  TABLESPACE_MAP,  TARGET 'blackhole',  COMPRESSION 'none')
        BASE_BACKUP ( LABEL 'pg_basebackup base backup',  PROGRESS,  WAL,  CHECKPOINT 'fast',  WAIT 0,  MANIFEST 'yes',  TABLESPACE_MAP,  TARGET 'server',  TARGET_DETAIL '/dir',  COMPRESSION 'lz4',  COMPRESSION_DETAIL '5')
        BASE_BACKUP ( INCREMENTAL,  LABEL 'pg_basebackup base backup',  PROGRESS,  CHECKPOINT 'fast',  WAIT 0,  MANIFEST 'yes',  TARGET 'client')
        BASE_BACKUP  LABEL 'pg_basebackup base backup'  INCREMENTAL '0/2000028'  PROGRESS  FAST  NOWAIT
        BASE_BACKUP ( INCREMENTAL '0/2000028',  LABEL 'pg_basebackup base backup',  PROGRESS,  CHECKPOINT 'fast',  WAIT 0,  MANIFEST 'yes',  TARGET 'client')
        "#);
    }

    #[test]
    fn what_goes_nowhere_is_refused() {
        let refused = |target: Target, change: &dyn Fn(&mut BackupOptions)| {
            let mut options = BackupOptions::new("me", Target::Discard);
            change(&mut options);
            check_options(&options, &target).expect_err("refused").to_string()
        };
        let elsewhere = || Target::Elsewhere { target: "server".into(), detail: Some("/x".into()) };
        let plain = || Target::Plain { directory: "x".into(), waldir: None };
        let gzip = |options: &mut BackupOptions| {
            options.wal = WalMethod::None;
            options.compression = ArchiveCompression::Client(Compression::plain(CompressionAlgorithm::Gzip));
        };
        let told = [refused(elsewhere(), &|_| {}), refused(elsewhere(), &gzip), refused(plain(), &gzip)];
        insta::assert_snapshot!(told.join("\n"), @r#"
        WAL cannot be streamed when a backup target is specified
        client-side compression is not possible when a backup target is specified
        only tar mode backups can be compressed
        "#);
        let mut options = BackupOptions::new("me", Target::Discard);
        let told = |options: &BackupOptions, place: &Place, version| {
            check_version(options, place, version, Flavour::Stock).map_err(|error| error.to_string())
        };
        options.incremental = Some(PathBuf::from("m"));
        let expected = Err("server does not support incremental backup".to_owned());
        assert_eq!(told(&options, &Place::Plain, ServerVersion::V16), expected);
        assert_eq!(told(&options, &Place::Plain, ServerVersion::V17), Ok(()));
        let mut by_lsn = BackupOptions::new("me", Target::Discard);
        by_lsn.incremental_from = Some(Lsn(0x200_0028));
        let refusal = told(&by_lsn, &Place::Plain, ServerVersion::V18).expect_err("stock");
        assert!(refusal.starts_with("server does not support incremental backup by LSN"), "{refusal}");
        let poc =
            |options: &BackupOptions, version| check_version(options, &Place::Plain, version, Flavour::IncrementalPoc);
        assert!(poc(&by_lsn, ServerVersion::V9_5).is_ok() && poc(&by_lsn, ServerVersion::V18).is_ok());
        assert!(poc(&options, ServerVersion::V18).is_err());
    }
}
