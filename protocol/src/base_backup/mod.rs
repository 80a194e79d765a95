//! What BASE_BACKUP takes and what it sends: options, archives, labels, maps and manifests.

pub mod archive;
pub mod label;
pub mod manifest;
pub mod options;
pub mod tablespace_map;
pub mod tar;
