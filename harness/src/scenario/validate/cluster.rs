//! `[cluster]`.

use backstop_protocol::wal_file::WalSegmentSize;

use super::{Checks, Result, at};
use crate::scenario::model::Source;

/// The first OID that is not reserved: `FirstNormalObjectId`.
const FIRST_NORMAL_OID: u32 = 16384;
/// No scenario needs more.
const MAX_TABLESPACES: usize = 1000;

impl Checks<'_> {
    pub(super) fn cluster(&self) -> Result {
        let cluster = &self.scenario.cluster;
        let way = |key: &str| at("cluster").to(key);
        if let Source::Directory(path) = &cluster.source {
            if path.as_os_str().is_empty() {
                return self.refuse(&way("source"), "directory is empty");
            }
            // A real data directory is what it is.
            let own = ["size", "wal-start", "tablespace", "file", "damage"].map(way);
            let server = ["version", "timeline", "checksums", "wal-segment-size"].map(|key| at("server").to(key));
            if let Some(way) = own.iter().chain(&server).find(|way| self.document.has(way)) {
                return self
                    .refuse_key(way, format!("{way} is a fact of the data directory that cluster.source names"));
            }
        }
        if let Some(start) = cluster.wal_start {
            let way = &way("wal-start");
            let segment = self.scenario.server.wal_segment_size.0;
            if start.0 % 8 != 0 {
                return self.refuse(way, format!("no WAL record starts at {start}: positions of records divide by 8"));
            }
            if start.0 < segment {
                let first = WalSegmentSize::new(segment).unwrap_or_default().start_of(1);
                return self.refuse(way, format!("WAL cannot start at {start}: the first segment begins at {first}"));
            }
        }
        self.tablespaces()
    }

    fn tablespaces(&self) -> Result {
        let way = |index: usize, key: &str| at("cluster").to("tablespace").to(index).to(key);
        let tablespaces = &self.scenario.cluster.tablespaces;
        if tablespaces.len() > MAX_TABLESPACES {
            return self.refuse(&at("cluster").to("tablespace"), format!("more than {MAX_TABLESPACES} tablespaces"));
        }
        for (index, tablespace) in tablespaces.iter().enumerate() {
            let earlier = tablespaces.get(..index).unwrap_or_default();
            let (oid, location) = (tablespace.oid, tablespace.location.as_str());
            if oid < FIRST_NORMAL_OID {
                return self
                    .refuse(&way(index, "oid"), format!("oid must be at least {FIRST_NORMAL_OID}: {oid} is reserved"));
            }
            if earlier.iter().any(|other| other.oid == oid) {
                return self.refuse(&way(index, "oid"), format!("there are two tablespaces with oid {oid}"));
            }
            let in_place = location == format!("pg_tblspc/{oid}");
            if !(in_place || location.starts_with('/')) || location.contains('\0') {
                return self.refuse(&way(index, "location"), "location must be an absolute path");
            }
            if earlier.iter().any(|other| other.location == location) {
                return self.refuse(&way(index, "location"), format!("there are two tablespaces at {location:?}"));
            }
        }
        Ok(())
    }
}
