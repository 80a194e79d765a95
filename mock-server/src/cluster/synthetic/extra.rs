//! What a configuration adds to a synthetic cluster: files that are not PostgreSQL's, and damage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backstop_protocol::base_backup::exclude;
use backstop_protocol::page::BLOCK_SIZE;
use backstop_protocol::version::ServerVersion;

use crate::config::{Config, ConfigError, ExtraFile, ExtraFileKind};

use super::super::entry::{Entry, EntryKind, Origin};
use super::Node;
use super::contents::Pages;

/// Where a damaged page is damaged: behind its header and its line pointers.
const PLACE: usize = 4000;

/// With what: each bit that is set there is flipped.
const DAMAGE: [u8; 8] = *b"corrupt!";

/// Offset of `pd_upper` in a page's header: 0 in a page that was never initialised, whose checksum nobody looks at.
const UPPER: usize = 14;

/// The extra files of the configuration that a base backup sends, in its order.
pub(super) fn entries(
    config: &Config,
    version: ServerVersion,
    base: &[Node],
    epoch: u64,
) -> Result<Vec<Entry>, ConfigError> {
    let mut taken: BTreeSet<&[u8]> = base.iter().map(|node| node.name.as_bytes()).collect();
    let mut entries = Vec::new();
    for ExtraFile { path, kind, mode } in &config.extra_files {
        let refuse = |problem: &str| Err(ConfigError::invalid(format!("extra file {}", path.escape_ascii()), problem));
        let mut parts = path.split(|byte| *byte == b'/');
        if path.contains(&0) || parts.clone().any(|part| part.is_empty() || part == b"." || part == b"..") {
            return refuse("its path is not one below the data directory");
        }
        let first = parts.next().unwrap_or_default();
        if [version.wal_directory().as_bytes(), b"pg_tblspc", b"global/pg_control"].contains(&first) {
            return refuse("it lies where a base backup does not walk");
        }
        if !taken.insert(path) {
            return refuse("there is such a file");
        }
        if is_left_out(path, version, &config.extra_files) {
            continue;
        }
        let mut name = path.clone();
        let (kind, origin) = match kind {
            ExtraFileKind::Content(content) => {
                (EntryKind::File { size: content.len() as u64 }, Origin::Bytes(content.clone().into()))
            }
            ExtraFileKind::Sparse(size) => (EntryKind::File { size: *size }, Origin::Zeros),
            ExtraFileKind::Directory => {
                name.push(b'/');
                (EntryKind::Directory, Origin::Nothing)
            }
            ExtraFileKind::Special => (EntryKind::Special, Origin::Nothing),
        };
        entries.push(Entry { name, kind, mode: *mode, mtime: epoch, origin });
    }
    Ok(entries)
}

/// Whether a base backup leaves out the file at `path`, one of `files`.
fn is_left_out(path: &[u8], version: ServerVersion, files: &[ExtraFile]) -> bool {
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let Some((name, above)) = parts.split_last() else { return false };
    if parts.iter().any(|part| exclude::left_out(part, version)) || above.iter().any(|part| exclude::sent_empty(part)) {
        return true;
    }
    let directory = path.strip_suffix(*name).unwrap_or_default();
    if !version.leaves_out_unlogged_relations() || !exclude::is_database(directory, version) {
        return false;
    }
    let is_init_of = |number: &[u8]| {
        let init = [directory, number, b"_init"].concat();
        files.iter().any(|file| file.path == init)
    };
    let of_unlogged = exclude::relation(name).is_some_and(|(number, init)| !init && is_init_of(number));
    of_unlogged || exclude::temporary_relation(name)
}

/// Damaged blocks by file.
pub(super) fn damaged(config: &Config) -> Result<BTreeMap<String, Arc<[u32]>>, ConfigError> {
    let mut files: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for damage in &config.damaged_pages {
        if damage.blocks.is_empty() {
            return Err(ConfigError::invalid(format!("damaged page of {}", damage.path), "no block is given"));
        }
        files.entry(damage.path.clone()).or_default().extend(&damage.blocks);
    }
    Ok(files.into_iter().map(|(path, blocks)| (path, blocks.into_iter().collect())).collect())
}

/// Damages what was read from `offset` of a file.
pub(in super::super) fn damage(pages: &Pages, blocks: &[u32], offset: u64, buf: &mut [u8]) {
    for block in blocks {
        let start = u64::from(*block) * BLOCK_SIZE as u64;
        let mut spoil = |place: usize, bits: u8| {
            let at = (start + place as u64).checked_sub(offset).and_then(|at| usize::try_from(at).ok());
            if let Some(byte) = at.and_then(|at| buf.get_mut(at)) {
                *byte ^= bits;
            }
        };
        for (index, bits) in DAMAGE.into_iter().enumerate() {
            spoil(PLACE + index, bits);
        }
        let mut upper = [0; 2];
        pages.read(start + UPPER as u64, &mut upper);
        if upper == [0; 2] {
            spoil(UPPER, 0x20);
        }
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::page::{PageCheck, verify};

    use super::*;
    use crate::cluster::{Cluster, ground_truth};
    use crate::config::DamagedPages;

    fn file(path: &str, kind: ExtraFileKind) -> ExtraFile {
        ExtraFile { path: path.into(), kind, mode: 0o640 }
    }

    #[test]
    fn extra_files_are_sent_but_for_those_that_never_are() {
        let extra_files = vec![
            file("oddfile", ExtraFileKind::Content(b"x".repeat(700))),
            file("odddir", ExtraFileKind::Directory),
            file("odddir/huge", ExtraFileKind::Sparse(8 << 30)),
            file("base/pgsql_tmp123", ExtraFileKind::Content(b"t".to_vec())),
            file("oddfifo", ExtraFileKind::Special),
            file("pg_notify/0000", ExtraFileKind::Content(b"t".to_vec())),
            file("base/5/t3_90002_fsm", ExtraFileKind::Sparse(8192)),
            file("base/5/90001.1", ExtraFileKind::Sparse(8192)),
            file("base/5/90001_init", ExtraFileKind::Content(Vec::new())),
            file("base/90001", ExtraFileKind::Content(Vec::new())),
        ];
        let old = Config { version: ServerVersion::V10, extra_files: extra_files.clone(), ..Config::default() };
        let plain = Cluster::new(&Config::default()).expect("a cluster");
        let cluster = Cluster::new(&Config { extra_files, ..Config::default() }).expect("a cluster");
        let names: Vec<_> =
            cluster.entries(None).expect("entries").map(|entry| entry.expect("an entry").name).collect();
        let expected: [&[u8]; 6] =
            [b"oddfile", b"odddir/", b"odddir/huge", b"oddfifo", b"base/5/90001_init", b"base/90001"];
        assert_eq!(names[names.len() - 6..], expected);
        let old = Cluster::new(&old).expect("a cluster");
        let names: Vec<_> = old.entries(None).expect("entries").map(|entry| entry.expect("an entry").name).collect();
        assert!(names.contains(&b"base/5/t3_90002_fsm".to_vec()) && names.contains(&b"base/5/90001.1".to_vec()));
        assert_eq!(cluster.tablespace_size(None), plain.tablespace_size(None) + 700 + (8 << 30));
        for bad in ["", "/etc/passwd", "../x", "a//b", "pg_wal/x", "PG_VERSION", "base/"] {
            let extra_files = vec![file(bad, ExtraFileKind::Directory)];
            assert!(Cluster::new(&Config { extra_files, ..Config::default() }).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn damaged_blocks_and_no_others_are_wrong() {
        // Enough blocks that some were never initialised.
        let blocks: Vec<u32> = (0..200).filter(|block| block % 3 == 1).collect();
        let damaged_pages = vec![DamagedPages { path: "base/16384/16385".to_owned(), blocks: blocks.clone() }];
        let cluster = Cluster::new(&Config { damaged_pages, ..Config::default() }).expect("a cluster");
        let truth = ground_truth(&cluster).expect("entries").map(|entry| entry.expect("an entry"));
        let (_, entry) = truth.into_iter().find(|(path, _)| path == b"base/16384/16385").expect("the table");
        let mut whole = vec![0; usize::try_from(entry.size()).expect("small")];
        cluster.read(&entry, 0, &mut whole).expect("read");
        for (number, page) in (0..).zip(whole.as_chunks::<BLOCK_SIZE>().0) {
            let wrong = matches!(verify(page, number), PageCheck::Mismatch { .. });
            assert_eq!(wrong, blocks.contains(&number), "block {number}");
        }
        for (offset, length) in [(0, 100), (8190, 5000), (12_190, 8), (12_195, 30_000), (8205, 2)] {
            let mut part = vec![0; length];
            cluster.read(&entry, offset, &mut part).expect("read");
            let offset = usize::try_from(offset).expect("small");
            assert!(part == whole[offset..offset + length], "{length} bytes from {offset}");
        }
        for (path, block) in [("base/16384/16385", 100_000), ("base/16384/16385.1", 0), ("base/16384/9", 0), ("", 0)] {
            let damaged_pages = vec![DamagedPages { path: path.to_owned(), blocks: vec![block] }];
            assert!(Cluster::new(&Config { damaged_pages, ..Config::default() }).is_err(), "{path} {block}");
        }
    }
}
