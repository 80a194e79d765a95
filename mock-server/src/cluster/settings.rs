//! What SHOW answers.

use std::collections::BTreeMap;
use std::time::Duration;

use backstop_protocol::base_backup::options::compression::CompressionSupport;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal_file::WalSegmentSize;

use crate::config::{Config, ConfigError, Source};

use super::Facts;

/// How much WAL is kept, in bytes, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// `wal_keep_size`, or `wal_keep_segments` in bytes.
    pub(super) keep: u64,
    /// `max_slot_wal_keep_size`.
    pub(super) slot_keep: Option<u64>,
    /// `idle_replication_slot_timeout`.
    pub(super) idle_slot: Option<Duration>,
    /// `max_wal_size`.
    pub(super) max_wal_size: u64,
    /// WAL between one checkpoint and the next.
    pub(super) checkpoint_distance: u64,
}

/// The settings of a server by lower-case name, each with its canonical name and value.
#[derive(Clone, Debug)]
pub(super) struct Settings(BTreeMap<String, (String, String)>);

/// Settings whose context is `postmaster` or `internal`.
const AT_START_ONLY: [&str; 14] = [
    "archive_mode",
    "block_size",
    "data_checksums",
    "data_directory_mode",
    "hot_standby",
    "integer_datetimes",
    "max_replication_slots",
    "max_wal_senders",
    "segment_size",
    "server_encoding",
    "server_version",
    "wal_block_size",
    "wal_level",
    "wal_segment_size",
];

impl Settings {
    pub(super) fn new(config: &Config, facts: &Facts) -> Self {
        let mut settings = Self(BTreeMap::new());
        let version = facts.version;
        let on = |value: bool| if value { "on" } else { "off" };
        for (name, value) in [
            ("archive_mode", "off"),
            ("block_size", "8192"),
            ("client_encoding", "SQL_ASCII"),
            ("data_directory", &data_directory(&config.source)),
            ("data_checksums", on(facts.checksums)),
            ("DateStyle", "ISO, MDY"),
            ("full_page_writes", "on"),
            ("hot_standby", "on"),
            ("integer_datetimes", "on"),
            ("IntervalStyle", "postgres"),
            ("max_replication_slots", "10"),
            ("max_wal_size", "1GB"),
            ("segment_size", "1GB"),
            ("server_encoding", "SQL_ASCII"),
            ("server_version", &config.flavour.announced(version)),
            ("standard_conforming_strings", "on"),
            ("TimeZone", "UTC"),
            ("log_timezone", "UTC"),
            ("wal_block_size", "8192"),
            ("wal_level", version.replica_wal_level()),
            ("wal_sender_timeout", "1min"),
        ] {
            settings.set(name, value);
        }
        settings.set("max_wal_senders", &config.max_wal_senders.to_string());
        settings.set("wal_segment_size", &facts.segment_size.setting());
        for (name, value) in version.settings_of_release() {
            settings.set(name, value);
        }
        for (name, value) in &config.settings {
            let canonical = settings.get(name).map_or_else(|| name.clone(), |(canonical, _)| canonical);
            settings.set(&canonical, value);
        }
        settings
    }

    fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_ascii_lowercase(), (name.to_owned(), value.to_owned()));
    }

    /// The canonical name and the value of a setting, whatever the case of `name`.
    pub(super) fn get(&self, name: &str) -> Option<(String, String)> {
        self.0.get(&name.to_ascii_lowercase()).cloned()
    }

    /// `XLogArchivingActive`, or in recovery `XLogArchivingAlways`.
    pub(super) fn archives(&self, in_recovery: bool) -> bool {
        match self.get("archive_mode").as_ref().map(|(_, mode)| mode.as_str()) {
            Some("always") => true,
            Some("on") => !in_recovery,
            _ => false,
        }
    }

    /// Whether `archive_command` is one that never succeeds: none, or `false`. No command is ever run: all others do.
    pub(super) fn archiving_fails(&self) -> bool {
        let command = self.get("archive_command").map(|(_, command)| command).unwrap_or_default();
        ["", "false", "/bin/false", "/usr/bin/false"].contains(&command.trim())
    }

    /// The methods that `backstop.compression` lists (`gzip, lz4`), or all.
    pub(super) fn compression(&self, version: ServerVersion) -> Result<CompressionSupport, ConfigError> {
        const SETTING: &str = "backstop.compression";
        let long_distance = version.has_long_distance_compression();
        let Some((_, value)) = self.get(SETTING) else {
            return Ok(CompressionSupport { gzip: true, lz4: true, zstd: true, long_distance });
        };
        let mut support = CompressionSupport { gzip: false, lz4: false, zstd: false, long_distance };
        for method in value.split(',').map(str::trim).filter(|method| !method.is_empty()) {
            match method {
                "gzip" => support.gzip = true,
                "lz4" => support.lz4 = true,
                "zstd" => support.zstd = true,
                _ => {
                    let problem = format!("{method:?} is none of gzip, lz4 and zstd");
                    return Err(ConfigError::invalid(format!("settings.{SETTING}"), problem));
                }
            }
        }
        Ok(support)
    }

    /// How much WAL is kept by these settings.
    pub(super) fn limits(&self, segment_size: WalSegmentSize) -> Result<Limits, ConfigError> {
        let segments = u64::try_from(self.count("wal_keep_segments", 0)?).unwrap_or(u64::MAX);
        // In seconds, and 0 is no limit.
        let idle_slot = self.span("idle_replication_slot_timeout", 1000)?.filter(|timeout| !timeout.is_zero());
        let max_wal_size = self.megabytes("max_wal_size")?.unwrap_or(1 << 30);
        Ok(Limits {
            keep: self.megabytes("wal_keep_size")?.unwrap_or(0).max(segments.saturating_mul(segment_size.bytes())),
            slot_keep: self.megabytes("max_slot_wal_keep_size")?,
            idle_slot,
            max_wal_size,
            // A checkpoint begins early enough to be done when `max_wal_size` is reached.
            checkpoint_distance: (max_wal_size / 2).max(segment_size.bytes()),
        })
    }

    /// What `PostmasterMain` checks: with `wal_level = minimal` there is nothing that a walsender could send.
    pub(super) fn check_walsenders(&self) -> Result<(), ConfigError> {
        let minimal = self.get("wal_level").is_some_and(|(_, level)| level == "minimal");
        if minimal && self.count("max_wal_senders", 10)? > 0 {
            let problem = "WAL streaming (max_wal_senders > 0) requires wal_level \"replica\" or \"logical\"";
            return Err(ConfigError::invalid("settings.wal_level", problem));
        }
        Ok(())
    }

    /// Changes a setting as ALTER SYSTEM and a reload do.
    pub(super) fn reload(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let Some((canonical, _)) = self.get(name) else {
            let problem = format!("unrecognized configuration parameter \"{name}\"");
            return Err(ConfigError::invalid(format!("settings.{name}"), problem));
        };
        if AT_START_ONLY.contains(&canonical.as_str()) {
            let problem = format!("parameter \"{canonical}\" cannot be changed without restarting the server");
            return Err(ConfigError::invalid(format!("settings.{canonical}"), problem));
        }
        self.set(&canonical, value);
        Ok(())
    }

    /// Milliseconds of a setting whose unit without a suffix is `unit` milliseconds. Some(0) as a rule means: never.
    pub(super) fn span(&self, name: &str, unit: u64) -> Result<Option<Duration>, ConfigError> {
        let Some((name, value)) = self.get(name) else { return Ok(None) };
        let problem =
            || ConfigError::invalid(format!("settings.{name}"), format!("{value:?} is not a time such as \"10min\""));
        parse_span(&value, unit).map(Some).ok_or_else(problem)
    }

    /// A Boolean.
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, ConfigError> {
        let Some((name, value)) = self.get(name) else { return Ok(default) };
        match value.to_ascii_lowercase().as_str() {
            "on" | "true" | "yes" | "1" => Ok(true),
            "off" | "false" | "no" | "0" => Ok(false),
            _ => {
                let problem = format!("parameter \"{name}\" requires a Boolean value");
                Err(ConfigError::invalid(format!("settings.{name}"), problem))
            }
        }
    }

    /// A percentage, such as `5%`; 0 if it is not set.
    pub(super) fn percent(&self, name: &str) -> Result<u64, ConfigError> {
        let Some((name, value)) = self.get(name) else { return Ok(0) };
        let percent = value.strip_suffix('%').and_then(|digits| digits.parse().ok()).filter(|percent| *percent <= 100);
        let problem = || format!("{value:?} is not a percentage such as \"5%\"");
        percent.ok_or_else(|| ConfigError::invalid(format!("settings.{name}"), problem()))
    }

    /// A whole number without unit.
    pub(super) fn count(&self, name: &str, default: usize) -> Result<usize, ConfigError> {
        let Some((name, value)) = self.get(name) else { return Ok(default) };
        let problem = || ConfigError::invalid(format!("settings.{name}"), format!("{value:?} is not a whole number"));
        value.parse().map_err(|_| problem())
    }

    /// Bytes of a setting whose unit without a suffix is megabytes. None: there is no such setting, or it is -1.
    pub(super) fn megabytes(&self, name: &str) -> Result<Option<u64>, ConfigError> {
        let Some((name, value)) = self.get(name) else { return Ok(None) };
        if value == "-1" {
            return Ok(None);
        }
        let problem =
            || ConfigError::invalid(format!("settings.{name}"), format!("{value:?} is not a size such as \"64MB\""));
        let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
        let (number, unit) = value.split_at_checked(digits).ok_or_else(problem)?;
        let factor = match unit.trim_start() {
            "B" => 1,
            "kB" => 1 << 10,
            "" | "MB" => 1 << 20,
            "GB" => 1 << 30,
            "TB" => 1_u64 << 40,
            _ => return Err(problem()),
        };
        let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
        bytes.map(Some).ok_or_else(problem)
    }
}

/// The path that messages and `SHOW data_directory` name. A synthetic cluster has none and says that of the official images.
fn data_directory(source: &Source) -> String {
    match source {
        Source::Synthetic => "/var/lib/postgresql/data".to_owned(),
        Source::Directory(root) => root.display().to_string(),
    }
}

/// A time as settings have it: a whole number and a unit, `unit` milliseconds without one.
pub(crate) fn parse_span(setting: &str, unit: u64) -> Option<Duration> {
    let setting = setting.trim();
    let digits = setting.find(|c: char| !c.is_ascii_digit()).unwrap_or(setting.len());
    let (number, suffix) = setting.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let factor = match suffix.trim() {
        "" => unit,
        "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.saturating_mul(factor)))
}

#[cfg(test)]
mod tests {
    use backstop_protocol::version::ServerVersion;
    use backstop_protocol::wal_file::WalSegmentSize;

    use super::*;

    fn settings(version: ServerVersion, given: &[(&str, &str)]) -> Settings {
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let facts = Facts { version, system_identifier: 1, segment_size: WalSegmentSize::DEFAULT, checksums: true };
        Settings::new(&Config { settings: given, ..Config::default() }, &facts)
    }

    #[test]
    fn shows_canonical_names() {
        let settings = settings(ServerVersion::V15, &[("timezone", "Europe/Paris")]);
        assert_eq!(settings.get("WAL_SEGMENT_SIZE"), Some(("wal_segment_size".to_owned(), "16MB".to_owned())));
        assert_eq!(settings.get("timezone"), Some(("TimeZone".to_owned(), "Europe/Paris".to_owned())));
        assert_eq!(settings.get("no_such_setting"), None);
        assert_eq!(settings.get("data_directory_mode"), Some(("data_directory_mode".to_owned(), "0700".to_owned())));
    }

    #[test]
    fn settings_come_and_go_with_releases() {
        let keeps = |version| settings(version, &[]).get("wal_keep_size").is_some();
        assert_eq!([keeps(ServerVersion::V12), keeps(ServerVersion::V13)], [false, true]);
    }

    #[test]
    fn reads_sizes_as_postgresql_does() {
        let given = [("a", "64MB"), ("b", "3"), ("c", "1GB"), ("d", "-1"), ("e", "1.5GB"), ("f", "MB"), ("g", "1 kB")];
        let settings = settings(ServerVersion::V18, &given);
        let bytes = |name| settings.megabytes(name).ok();
        assert_eq!(bytes("a"), Some(Some(64 << 20)));
        assert_eq!(bytes("b"), Some(Some(3 << 20)));
        assert_eq!(bytes("c"), Some(Some(1 << 30)));
        assert_eq!(bytes("d"), Some(None));
        assert_eq!(bytes("e"), None);
        assert_eq!(bytes("f"), None);
        assert_eq!(bytes("g"), Some(Some(1024)));
        assert_eq!(settings.percent("none").ok(), Some(0));
        assert!(settings.percent("b").is_err());
        let problem = settings.megabytes("e").expect_err("no fractions").to_string();
        insta::assert_snapshot!(problem, @r#"invalid settings.e: "1.5GB" is not a size such as "64MB""#);
    }
}
