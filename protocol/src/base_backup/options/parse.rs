//! From options to their meaning: `parse_basebackup_options` and the checks that follow it before anything is sent.

use super::compression::{CompressionError, CompressionSupport};
use super::{BaseBackupOptions, Compression, MAX_LABEL, MAX_RATE, ManifestOption, OptionError, ServerFacts, Target};
use crate::base_backup::manifest::ChecksumAlgorithm;
use crate::command::{CommandOption, parse_boolean_word};
use crate::lsn::Lsn;
use crate::version::{Flavour, ServerVersion};

impl BaseBackupOptions {
    /// Reads the options of a BASE_BACKUP as a server of `version` does.
    ///
    /// # Errors
    /// The ErrorResponse of such a server. Options are judged in the order in which they stand, then together.
    pub fn from_command(
        given: &[CommandOption],
        version: ServerVersion,
        facts: &ServerFacts,
    ) -> Result<Self, OptionError> {
        let mut reader = Reader::new(version, *facts);
        let mut seen: Vec<&str> = Vec::new();
        for option in given {
            let name = option.name.as_str();
            if !known(name, version, facts.flavour) {
                return Err(unknown(name, version));
            }
            if seen.contains(&name) {
                if read_first(name) {
                    option.as_text()?;
                }
                return Err(OptionError::duplicate(option));
            }
            seen.push(name);
            reader.read(option)?;
        }
        reader.finish()
    }
}

/// Whether a release knows an option. Before 15, grammar alone decides; the names are those of its keywords.
fn known(name: &str, version: ServerVersion, flavour: Flavour) -> bool {
    match name {
        "label" | "progress" | "wal" => true,
        "max_rate" => version.has_max_rate(),
        "tablespace_map" => version.has_tablespace_map(),
        "manifest" | "manifest_checksums" => version.has_manifest(),
        "fast" | "nowait" => !version.has_option_lists(),
        "noverify_checksums" => version.verifies_checksums() && !version.has_option_lists(),
        "checkpoint" | "wait" | "verify_checksums" | "target" | "target_detail" | "compression"
        | "compression_detail" => version.has_option_lists(),
        "incremental" => version.has_incremental() || flavour.increments_by_lsn(),
        _ => false,
    }
}

fn unknown(name: &str, version: ServerVersion) -> OptionError {
    if version.has_option_lists() {
        OptionError::syntax(format!("unrecognized base backup option: \"{name}\""))
    } else {
        OptionError::syntax("syntax error")
    }
}

/// Whether a server reads the value, and can refuse that it is missing, before it sees that the option is a duplicate.
fn read_first(name: &str) -> bool {
    matches!(name, "checkpoint" | "manifest" | "manifest_checksums" | "target_detail" | "compression")
}

/// The options so far, and those that only make sense together with others.
struct Reader {
    version: ServerVersion,
    facts: ServerFacts,
    options: BaseBackupOptions,
    checksums: Option<ChecksumAlgorithm>,
    target: Option<String>,
    target_detail: Option<String>,
    compression: Option<super::CompressionAlgorithm>,
    compression_detail: Option<String>,
}

impl Reader {
    fn new(version: ServerVersion, facts: ServerFacts) -> Self {
        Self {
            version,
            facts,
            options: BaseBackupOptions::default(),
            checksums: None,
            target: None,
            target_detail: None,
            compression: None,
            compression_detail: None,
        }
    }

    fn read(&mut self, option: &CommandOption) -> Result<(), OptionError> {
        let options = &mut self.options;
        match option.name.as_str() {
            "label" => options.label = option.as_text()?,
            "progress" => options.progress = option.as_boolean()?,
            "fast" => options.fast_checkpoint = true,
            "checkpoint" => options.fast_checkpoint = checkpoint(&option.as_text()?)?,
            "nowait" => options.wait = false,
            "wait" => options.wait = option.as_boolean()?,
            "wal" => options.wal = option.as_boolean()?,
            "incremental" if self.facts.flavour.increments_by_lsn() => {
                options.incremental_from = Some(start_position(&option.as_text()?)?);
            }
            "incremental" => {
                options.incremental = option.as_boolean()?;
                if options.incremental && !self.facts.wal_summaries {
                    let message = "incremental backups cannot be taken unless WAL summarization is enabled";
                    return Err(OptionError::new("55000", message));
                }
            }
            "max_rate" => options.max_rate = Some(max_rate(option.as_integer()?)?),
            "tablespace_map" => options.tablespace_map = option.as_boolean()?,
            "noverify_checksums" => options.verify_checksums = false,
            "verify_checksums" => options.verify_checksums = option.as_boolean()?,
            "manifest" => options.manifest = manifest(&option.as_text()?)?,
            "manifest_checksums" => {
                let name = option.as_text()?;
                let problem = |_| OptionError::syntax(format!("unrecognized checksum algorithm: \"{name}\""));
                self.checksums = Some(name.parse().map_err(problem)?);
            }
            "target" => self.target = Some(option.as_text()?),
            "target_detail" => self.target_detail = Some(option.as_text()?),
            "compression" => {
                let problem = |error: CompressionError| OptionError::syntax(error.0);
                self.compression = Some(option.as_text()?.parse().map_err(problem)?);
            }
            "compression_detail" => self.compression_detail = Some(option.as_text()?),
            name => return Err(unknown(name, self.version)),
        }
        Ok(())
    }

    fn finish(self) -> Result<BaseBackupOptions, OptionError> {
        let mut options = self.options;
        options.manifest_checksums = match (options.manifest, self.checksums) {
            (ManifestOption::No, None) => ChecksumAlgorithm::None,
            (ManifestOption::No, Some(_)) => {
                return Err(OptionError::syntax("manifest checksums require a backup manifest"));
            }
            (_, checksums) => checksums.unwrap_or(ChecksumAlgorithm::Crc32c),
        };
        options.target = target(self.target, self.target_detail)?;
        options.compression = match (self.compression, &self.compression_detail) {
            (None, None) => Compression::default(),
            (None, Some(_)) => {
                let message = "compression detail cannot be specified unless compression is enabled";
                return Err(OptionError::syntax(message));
            }
            (Some(algorithm), detail) => {
                let support = CompressionSupport {
                    gzip: self.facts.gzip,
                    lz4: self.facts.lz4,
                    zstd: self.facts.zstd,
                    long_distance: self.version.has_long_distance_compression(),
                };
                Compression::parse(algorithm, detail.as_deref(), support)
                    .map_err(|error| OptionError::syntax(format!("invalid compression specification: {error}")))?
            }
        };
        // What follows is said by others than the parser of options, and still before the first result.
        if options.incremental && !self.facts.manifest_uploaded {
            let message = "must UPLOAD_MANIFEST before performing an incremental BASE_BACKUP";
            return Err(OptionError::new("55000", message));
        }
        if let Target::Server(directory) = &options.target {
            server_directory(directory, self.version, self.facts)?;
        }
        if options.label.len() > MAX_LABEL {
            return Err(OptionError::new("22023", format!("backup label too long (max {MAX_LABEL} bytes)")));
        }
        Ok(options)
    }
}

/// `pg_lsn_in`. There is no WAL at `0/0`.
fn start_position(text: &str) -> Result<Lsn, OptionError> {
    let start: Lsn = text
        .parse()
        .map_err(|_| OptionError::new("22P02", format!("invalid input syntax for type pg_lsn: \"{text}\"")))?;
    if start.is_invalid() {
        return Err(OptionError::new("22023", "start position of an incremental backup must not be 0/0"));
    }
    Ok(start)
}

fn checkpoint(word: &str) -> Result<bool, OptionError> {
    match word.to_ascii_lowercase().as_str() {
        "fast" => Ok(true),
        "spread" => Ok(false),
        _ => Err(OptionError::syntax(format!("unrecognized checkpoint type: \"{word}\""))),
    }
}

fn max_rate(rate: i32) -> Result<u32, OptionError> {
    let (lowest, highest) = (MAX_RATE.start(), MAX_RATE.end());
    u32::try_from(rate).ok().filter(|rate| MAX_RATE.contains(rate)).ok_or_else(|| {
        let range = format!("({lowest} .. {highest})");
        OptionError::new("22003", format!("{rate} is outside the valid range for parameter \"MAX_RATE\" {range}"))
    })
}

fn manifest(word: &str) -> Result<ManifestOption, OptionError> {
    match parse_boolean_word(word) {
        Some(true) => Ok(ManifestOption::Yes),
        Some(false) => Ok(ManifestOption::No),
        None if word.eq_ignore_ascii_case("force-encode") => Ok(ManifestOption::ForceEncode),
        None => Err(OptionError::syntax(format!("unrecognized manifest option: \"{word}\""))),
    }
}

/// `BaseBackupGetTargetHandle`, and the built-in targets' own checks of their detail.
fn target(name: Option<String>, detail: Option<String>) -> Result<Target, OptionError> {
    let Some(name) = name else {
        return match detail {
            None => Ok(Target::Client),
            Some(_) => Err(OptionError::syntax("target detail cannot be used without target")),
        };
    };
    match (name.as_str(), detail) {
        ("client", None) => Ok(Target::Client),
        ("blackhole", None) => Ok(Target::Blackhole),
        ("server", Some(directory)) => Ok(Target::Server(directory)),
        ("server", None) => Err(OptionError::syntax("target \"server\" requires a target detail")),
        ("client" | "blackhole", Some(_)) => {
            Err(OptionError::syntax(format!("target \"{name}\" does not accept a target detail")))
        }
        _ => Err(OptionError::new("0A000", format!("unrecognized target: \"{name}\""))),
    }
}

/// `bbsink_server_new`, as far as it does not look at the file system.
fn server_directory(directory: &str, version: ServerVersion, facts: ServerFacts) -> Result<(), OptionError> {
    if !facts.writes_server_files {
        let role = "pg_write_server_files";
        return Err(if version.details_missing_privileges() {
            let detail =
                format!("Only roles with privileges of the \"{role}\" role may create a backup stored on the server.");
            let error = OptionError::new("42501", "permission denied to create backup stored on server");
            OptionError { detail: Some(detail), ..error }
        } else {
            let message = format!(
                "must be superuser or a role with privileges of the {role} role to create backup stored on server"
            );
            OptionError::new("42501", message)
        });
    }
    if !directory.starts_with('/') {
        return Err(OptionError::new("42602", "relative path not allowed for backup stored on server"));
    }
    Ok(())
}
