//! The backup manifest, `backup_manifest`: what a backup holds, as the server saw it (since 13).

mod checksum;
mod hex;

pub use checksum::{ChecksumAlgorithm, ChecksumHasher, UnrecognizedAlgorithm};
