//! Files of an incremental backup that hold changed blocks only.

use std::io::{self, Read as _};

pub(super) use backstop_protocol::base_backup::incremental::name;
use backstop_protocol::base_backup::incremental::{FIXED_SIZE, IncrementalHeader};
use backstop_protocol::page::BLOCK_SIZE;

use super::artifact::Content;
use super::original::{Expected, ExpectedKind, Original};

/// What is wrong with the incremental file for `file`: it must hold every block that has `changed`, as the server has it, and
/// may hold others.
pub(super) fn problem(
    original: &dyn Original,
    file: &Expected,
    changed: &[u32],
    content: &Content,
) -> io::Result<Option<String>> {
    let mut stored = content.open()?;
    let mut start = [0; FIXED_SIZE];
    if content.size < start.len() as u64 {
        return Ok(Some(format!("has {} bytes, too few for a header", content.size)));
    }
    stored.read_exact(&mut start)?;
    let size = match IncrementalHeader::size_from_start(start) {
        Ok(size) if content.size >= size as u64 => size,
        Ok(size) => return Ok(Some(format!("has {} bytes, its header alone has {size}", content.size))),
        Err(error) => return Ok(Some(error.to_string())),
    };
    let mut bytes = start.to_vec();
    bytes.resize(size, 0);
    stored.read_exact(bytes.get_mut(FIXED_SIZE..).unwrap_or_default())?;
    let header = match IncrementalHeader::parse(&bytes) {
        Ok(header) if header.file_size() == content.size => header,
        Ok(header) => {
            return Ok(Some(format!("has {} bytes, expected {}", content.size, header.file_size())));
        }
        Err(error) => return Ok(Some(error.to_string())),
    };
    let ExpectedKind::File { size } = file.kind else { return Ok(Some("stands for no file".to_owned())) };
    let length = size / BLOCK_SIZE as u64;
    if u64::from(header.truncation_block_length()) != length {
        let found = header.truncation_block_length();
        return Ok(Some(format!("has truncation block length {found}, the server's file has {length} blocks")));
    }
    if let Some(missing) = changed.iter().find(|block| header.blocks().binary_search(block).is_err()) {
        return Ok(Some(format!("lacks block {missing}, which has changed since the backup before")));
    }
    let mut ours = [0; BLOCK_SIZE];
    for block in header.blocks() {
        stored.read_exact(&mut ours)?;
        if original.difference(file, u64::from(*block) * BLOCK_SIZE as u64, &ours)?.is_some() {
            return Ok(Some(format!("differs from the server's in block {block}")));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use backstop_mock::Server;
    use backstop_mock::cluster::Entry;
    use backstop_mock::config::Config;

    use super::super::artifact::Artifact;
    use super::super::original::Known;
    use super::*;

    /// What is said of a file that holds `blocks` of the server's, spoilt by `spoil`.
    fn told(blocks: impl Fn(&[u32]) -> Vec<u32>, spoil: impl Fn(&mut Vec<u8>)) -> Option<String> {
        let settings = [("backstop.changed_blocks", "10%")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let server = Server::new(Config { settings: settings.into(), ..Config::default() }).expect("a server");
        let cluster = server.cluster();
        let since = cluster.start_backup("full", true).expect("a backup").start;
        cluster.switch_wal();
        let start = cluster.start_backup("incremental", true).expect("a backup").start;
        let entries = cluster.entries_at(None, start).expect("a walk").map(|entry| entry.expect("an entry"));
        let some_changed = |entry: &Entry| !cluster.changed_blocks(entry, since).is_empty();
        let entry = entries.filter(some_changed).max_by_key(Entry::size).expect("a file that changed");
        let changed = cluster.changed_blocks(&entry, since);
        let length = u32::try_from(entry.size() / BLOCK_SIZE as u64).expect("small");
        let header = IncrementalHeader::new(length, blocks(&changed)).expect("ascending");
        let mut bytes = header.encode();
        for block in header.blocks() {
            let mut page = [0; BLOCK_SIZE];
            cluster.read(&entry, u64::from(*block) * BLOCK_SIZE as u64, &mut page).expect("readable");
            bytes.extend(page);
        }
        spoil(&mut bytes);
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("INCREMENTAL.1");
        std::fs::write(&path, &bytes).expect("a file");
        let artifact = Artifact::load(directory.path());
        let file = Expected {
            path: entry.name.clone(),
            kind: ExpectedKind::File { size: entry.size() },
            known: Known::Live { entry, changed: None },
        };
        problem(&server, &file, &changed, artifact.file("INCREMENTAL.1").expect("the file")).expect("readable")
    }

    #[test]
    fn what_the_server_sends_is_right() {
        assert_eq!(told(<[u32]>::to_vec, |_| {}), None);
        // More than need be is no mistake.
        let first_too =
            |changed: &[u32]| [&[0], changed].concat().into_iter().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(told(|changed| first_too(changed).into_iter().collect(), |_| {}), None);
    }

    #[test]
    fn what_is_left_out_or_changed_is_found() {
        let said = |problem: Option<String>, begin: &str| {
            let problem = problem.expect("a problem");
            assert!(problem.starts_with(begin), "{problem}");
        };
        said(told(|changed| changed[1..].to_vec(), |_| {}), "lacks block ");
        said(
            told(<[u32]>::to_vec, |bytes| *bytes.last_mut().expect("bytes") ^= 1),
            "differs from the server's in block ",
        );
        said(told(<[u32]>::to_vec, |bytes| bytes.truncate(5)), "has 5 bytes");
        said(told(<[u32]>::to_vec, |bytes| bytes.truncate(100)), "has 100 bytes");
        said(told(<[u32]>::to_vec, |bytes| bytes.truncate(bytes.len() - 1)), "has ");
        said(told(<[u32]>::to_vec, |bytes| bytes[0] ^= 1), "has bad incremental magic number");
        said(told(<[u32]>::to_vec, |bytes| bytes[8] ^= 1), "has truncation block length ");
    }
}
