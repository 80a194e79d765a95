//! What BASE_BACKUP takes and what it sends: options, archives, labels, maps, manifests and incremental files.

pub mod archive;
pub mod incremental;
pub mod label;
pub mod manifest;
pub mod options;
pub mod relation;
pub mod tablespace_map;
pub mod tar;
