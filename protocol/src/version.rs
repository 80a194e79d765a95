//! What differs from one PostgreSQL release to the next, in one table.
//!
//! Everything else in the workspace asks [`ServerVersion`]; no other place compares version numbers. What they differ in stands in the rooms below. The entries for 12 to
//! 18 are pinned by recordings of real servers, the older ones by their manuals and sources.

mod access;
mod backup;
mod flavour;
mod layout;
mod replication;
mod session;
mod wal;

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use backup::ArchivingWords;
pub use flavour::Flavour;

/// A PostgreSQL major release that can serve base backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "String")]
#[expect(missing_docs, reason = "the names say it all")]
pub enum ServerVersion {
    V9_1,
    V9_2,
    V9_3,
    V9_4,
    V9_5,
    V9_6,
    V10,
    V11,
    V12,
    V13,
    V14,
    V15,
    V16,
    V17,
    V18,
}

/// One row of the table.
#[derive(Debug)]
struct Row {
    version: ServerVersion,
    name: &'static str,
    /// What `server_version` announces: the last minor release at the time of the recordings.
    announced: &'static str,
    control: u32,
    catalog: u32,
    wal_magic: u16,
}

/// `PG_CONTROL_VERSION`, `CATALOG_VERSION_NO` and `XLOG_PAGE_MAGIC` by release.
#[rustfmt::skip]
const TABLE: [Row; 15] = {
    use ServerVersion::{V9_1, V9_2, V9_3, V9_4, V9_5, V9_6, V10, V11, V12, V13, V14, V15, V16, V17, V18};
    const fn row(version: ServerVersion, name: &'static str, announced: &'static str, control: u32, catalog: u32, wal_magic: u16) -> Row {
        Row { version, name, announced, control, catalog, wal_magic }
    }
    [
        row(V9_1, "9.1",  "9.1.24",  903, 201_105_231, 0xD066),
        row(V9_2, "9.2",  "9.2.24",  922, 201_204_301, 0xD071),
        row(V9_3, "9.3",  "9.3.25",  937, 201_306_121, 0xD075),
        row(V9_4, "9.4",  "9.4.26",  942, 201_409_291, 0xD07E),
        row(V9_5, "9.5",  "9.5.25",  942, 201_510_051, 0xD087),
        row(V9_6, "9.6",  "9.6.24",  960, 201_608_131, 0xD093),
        row(V10,  "10",   "10.23",  1002, 201_707_211, 0xD097),
        row(V11,  "11",   "11.22",  1100, 201_809_051, 0xD098),
        row(V12,  "12",   "12.22",  1201, 201_909_212, 0xD101),
        row(V13,  "13",   "13.23",  1300, 202_007_201, 0xD106),
        row(V14,  "14",   "14.23",  1300, 202_107_181, 0xD10D),
        row(V15,  "15",   "15.18",  1300, 202_209_061, 0xD110),
        row(V16,  "16",   "16.14",  1300, 202_307_071, 0xD113),
        row(V17,  "17",   "17.10",  1700, 202_406_281, 0xD116),
        row(V18,  "18",   "18.4",   1800, 202_506_291, 0xD118),
    ]
};

impl ServerVersion {
    /// Every release, oldest first.
    pub const ALL: [Self; 15] = {
        let mut all = [Self::V9_1; 15];
        let mut index = 0;
        while index < TABLE.len() {
            all[index] = TABLE[index].version;
            index += 1;
        }
        all
    };

    /// The newest release that the table knows.
    pub const NEWEST: Self = Self::V18;

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The release's name, as its users say it and as `PG_VERSION` holds it: `9.6`, `18`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The `server_version` that such a server announces: `15.18`.
    pub fn announced(self) -> &'static str {
        self.row().announced
    }

    /// The release that announced `server_version`. Packaged builds add words after the number: `15.18 (Debian 15.18-0)`.
    pub fn from_announced(server_version: &str) -> Option<Self> {
        let digits = server_version.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut parts = digits.split('.');
        let first: u32 = parts.next()?.parse().ok()?;
        if first >= 10 {
            return Self::from_str(&first.to_string()).ok();
        }
        Self::from_str(&format!("{first}.{}", parts.next()?)).ok()
    }

    /// `PG_CONTROL_VERSION`, the second field of `pg_control`.
    pub fn control_version(self) -> u32 {
        self.row().control
    }

    /// `CATALOG_VERSION_NO`, the third field of `pg_control` and a part of a tablespace's version directory.
    pub fn catalog_version(self) -> u32 {
        self.row().catalog
    }

    /// `XLOG_PAGE_MAGIC`, the first field of every WAL page.
    pub fn wal_page_magic(self) -> u16 {
        self.row().wal_magic
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no release in the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown PostgreSQL version {0:?}: expected one of 9.1 to 9.6, or 10 to 18")]
pub struct UnknownVersion(pub String);

impl FromStr for ServerVersion {
    type Err = UnknownVersion;

    fn from_str(name: &str) -> Result<Self, UnknownVersion> {
        let row = TABLE.iter().find(|row| row.name == name);
        row.map(|row| row.version).ok_or_else(|| UnknownVersion(name.to_owned()))
    }
}

impl Serialize for ServerVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for ServerVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_the_releases() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.version as usize, index, "{}", row.name);
            assert_eq!(row.name.parse(), Ok(row.version));
        }
    }

    #[test]
    fn reads_what_servers_announce() {
        for version in ServerVersion::ALL {
            assert_eq!(ServerVersion::from_announced(version.announced()), Some(version));
        }
        assert_eq!(ServerVersion::from_announced("15.18 (Debian 15.18-0+deb12u1)"), Some(ServerVersion::V15));
        assert_eq!(ServerVersion::from_announced("19devel"), None);
        assert_eq!(ServerVersion::from_announced(""), None);
    }
}
