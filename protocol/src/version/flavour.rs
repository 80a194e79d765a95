//! What servers say and do that are built from other sources than a release's.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ServerVersion;

/// Which sources a server is built from. What differs from the release is told here, and asked for everywhere else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Flavour {
    /// The release's own.
    #[default]
    Stock,
    /// File-level incremental backup by LSN, the proof of concept of 2014 (pgsql-hackers, "File based incremental backup"): its
    /// BASE_BACKUP takes a start position and leaves out the files whose pages are all older, and every backup brings a
    /// `backup_profile`. The patches were for 9.5; the dialect is taken to be the same in every release.
    IncrementalPoc,
}

/// What stands behind the number in `server_version`, as `configure --with-extra-version` puts it there.
const INCREMENTAL_POC: &str = " (incremental-poc)";

impl Flavour {
    /// The `server_version` that such a server of `version` announces.
    pub fn announced(self, version: ServerVersion) -> String {
        let suffix = match self {
            Self::Stock => "",
            Self::IncrementalPoc => INCREMENTAL_POC,
        };
        format!("{}{suffix}", version.announced())
    }

    /// The flavour of the server that announced `server_version`.
    pub fn from_announced(server_version: &str) -> Self {
        if server_version.ends_with(INCREMENTAL_POC) { Self::IncrementalPoc } else { Self::Stock }
    }

    /// Whether BASE_BACKUP's option INCREMENTAL takes a position: `INCREMENTAL '0/2000028'`. In 17 it takes the place of the
    /// option of the same name, which is a boolean.
    pub fn increments_by_lsn(self) -> bool {
        self == Self::IncrementalPoc
    }

    /// Whether BASE_BACKUP sends a `backup_profile` behind the archives: in a COPY of its own until 14, as one more archive of
    /// that name since 15.
    pub fn sends_profile(self) -> bool {
        self == Self::IncrementalPoc
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stock => "stock",
            Self::IncrementalPoc => "incremental-poc",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_what_they_are_built_from() {
        for version in ServerVersion::ALL {
            for flavour in [Flavour::Stock, Flavour::IncrementalPoc] {
                let announced = flavour.announced(version);
                assert_eq!(Flavour::from_announced(&announced), flavour, "{announced}");
                assert_eq!(ServerVersion::from_announced(&announced), Some(version), "{announced}");
            }
        }
        assert_eq!(Flavour::from_announced("15.18 (Debian 15.18-0+deb12u1)"), Flavour::Stock);
    }
}
