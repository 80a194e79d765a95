//! What BASE_BACKUP takes and what it sends: options, archives, labels, maps, manifests, profiles and incremental files.

pub mod archive;
pub mod exclude;
pub mod incremental;
pub mod label;
pub mod manifest;
pub mod options;
pub mod profile;
pub mod relation;
pub mod tablespace_map;
pub mod tar;
