//! The data directory as the functions of SQL see it that list and read files (`genfile.c`).
//!
//! A base backup leaves files out that lie there all the same: `pg_control`, the label of an exclusive backup, WAL, and the
//! file by which the postmaster is known. Here they are.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use backstop_protocol::lsn::Lsn;
use backstop_protocol::wal_file::WalFileName;

use super::entry::Origin;
use super::{Change, Cluster, Entry, EntryKind, Found, State, WalReadError, ground_truth_at};

/// What lies in the data directory, by path without `./`.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    /// The path that somebody asks for, if nobody asks for all.
    only: Option<Vec<u8>>,
    nodes: BTreeMap<Vec<u8>, Node>,
}

/// One file or directory.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Whether it is a directory, or a link to one.
    pub(crate) is_directory: bool,
    /// In bytes.
    pub(crate) size: u64,
    /// Unix seconds of its last change.
    pub(crate) changed: i64,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Nothing,
    Entry(Box<Entry>, Option<Change>),
    Wal(WalFileName),
}

/// What a directory takes in `pg_stat_file`.
const DIRECTORY_SIZE: u64 = 4096;

/// A path without `.` and doubled slashes. None: it is no path below the data directory.
pub(crate) fn below_data_directory(path: &[u8]) -> Option<Vec<u8>> {
    if path.starts_with(b"/") {
        return None;
    }
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return None,
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

impl DataDirectory {
    fn insert(&mut self, path: Vec<u8>, node: impl FnOnce() -> Node) {
        if self.wants(&path) {
            self.nodes.insert(path, node());
        }
    }

    fn wants(&self, path: &[u8]) -> bool {
        self.only.as_ref().is_none_or(|only| only == path)
    }

    /// What lies at a path.
    pub(crate) fn get(&self, path: &[u8]) -> Option<Node> {
        if path.is_empty() { Some(Node::directory(0)) } else { self.nodes.get(path).cloned() }
    }

    /// What lies below a directory, at any depth: paths relative to it, each directory before what is in it.
    pub(crate) fn below<'a>(&'a self, directory: &[u8]) -> impl Iterator<Item = (&'a [u8], &'a Node)> {
        let start = if directory.is_empty() { Vec::new() } else { [directory, b"/"].concat() };
        let from = self.nodes.range(start.clone()..);
        from.map_while(move |(path, node)| Some((path.strip_prefix(&start[..])?, node)))
    }

    /// The names in a directory.
    pub(crate) fn names<'a>(&'a self, directory: &[u8]) -> impl Iterator<Item = (&'a [u8], &'a Node)> {
        self.below(directory).filter(|(path, _)| !path.contains(&b'/'))
    }
}

impl Node {
    fn directory(changed: i64) -> Self {
        Self { is_directory: true, size: DIRECTORY_SIZE, changed, content: Content::Nothing }
    }

    fn file(content: Arc<[u8]>, changed: i64) -> Self {
        let entry = Entry {
            name: Vec::new(),
            kind: EntryKind::File { size: content.len() as u64 },
            mode: 0o600,
            mtime: 0,
            origin: Origin::Bytes(content),
        };
        Self { is_directory: false, size: entry.size(), changed, content: Content::Entry(Box::new(entry), None) }
    }
}

/// What was seen of a segment: how far it was written, and when that was noticed.
pub(super) type SegmentsSeen = BTreeMap<WalFileName, (Lsn, i64)>;

impl State {
    /// The change times of segments that are there, `now` for those that have changed since they were looked at last.
    fn see_segments(&mut self, files: &[(WalFileName, Lsn)], now: i64) -> Vec<i64> {
        self.segments_seen.retain(|name, _| files.iter().any(|(file, _)| file == name));
        let seen = files.iter().map(|(file, written)| {
            let seen = self.segments_seen.entry(*file).or_insert((*written, now));
            if seen.0 != *written {
                *seen = (*written, now);
            }
            seen.1
        });
        seen.collect()
    }
}

impl Cluster {
    /// The data directory as a backup finds it that started at `position`. `now` is the change time of what is written all the
    /// time.
    ///
    /// # Errors
    /// A real data directory that cannot be read.
    pub(crate) fn data_directory(&self, position: Option<Lsn>, now: i64) -> io::Result<DataDirectory> {
        self.look(DataDirectory { only: None, nodes: BTreeMap::new() }, position, now)
    }

    /// What lies at one path of it: see [`data_directory`](Self::data_directory).
    ///
    /// # Errors
    /// As there.
    pub(crate) fn data_file(&self, path: &[u8], position: Option<Lsn>, now: i64) -> io::Result<Option<Node>> {
        let directory = DataDirectory { only: Some(path.to_owned()), nodes: BTreeMap::new() };
        Ok(self.look(directory, position, now)?.get(path))
    }

    fn look(&self, mut directory: DataDirectory, position: Option<Lsn>, now: i64) -> io::Result<DataDirectory> {
        let position = position.unwrap_or_else(|| self.inner.lock().wal.checkpoint_at().redo);
        let epoch = self.epoch();
        for found in ground_truth_at(self, position)? {
            let (path, entry) = found?;
            if !directory.wants(&path) {
                continue;
            }
            let changed = i64::try_from(entry.mtime).unwrap_or(epoch);
            let node = match entry.kind {
                EntryKind::File { size } => {
                    let change = self.change_of(&path);
                    let size = match &change {
                        Some(Change::Removed) => continue,
                        Some(Change::Size(now)) => *now,
                        _ => size,
                    };
                    let changed = if change.is_some() { now } else { changed };
                    Node { is_directory: false, size, changed, content: Content::Entry(Box::new(entry), change) }
                }
                _ => Node::directory(changed),
            };
            directory.insert(path, || node);
        }
        let tablespaces = self.tablespaces().into_iter().map(|tablespace| Some(tablespace.oid));
        for part in tablespaces.chain([None]) {
            let prefix = part.map_or_else(Vec::new, |oid| format!("pg_tblspc/{oid}/").into_bytes());
            for entry in self.added_entries(part) {
                let path = [&prefix[..], &entry.name].concat();
                let size = entry.size();
                let content = || Content::Entry(Box::new(entry), None);
                directory.insert(path, || Node { is_directory: false, size, changed: now, content: content() });
            }
        }
        let control = self.control_file()?;
        directory.insert(b"global/pg_control".to_vec(), || Node::file(control.into(), now));
        directory.insert(b"postmaster.pid".to_vec(), || Node::file(Arc::from(&b"1\n"[..]), epoch));
        if let Some(files) = self.label_files() {
            directory.insert(b"backup_label".to_vec(), || Node::file(files.label.as_bytes().into(), now));
            if let Some(map) = files.tablespace_map {
                directory.insert(b"tablespace_map".to_vec(), || Node::file(map.into(), now));
            }
        }
        self.add_wal(&mut directory, now);
        Ok(directory)
    }

    fn add_wal(&self, directory: &mut DataDirectory, now: i64) {
        let name = self.version().wal_directory();
        let size = self.segment_size();
        let (oldest, flushed) = (self.oldest_wal(), self.flush_position());
        // Nothing is missing between the oldest segment and the position up to which there is WAL.
        let files = self.wal_files(oldest, flushed).unwrap_or_default();
        let written = |file: &WalFileName| {
            let end = file.segment(size).map_or(flushed, |segment| size.start_of(segment + 1));
            (*file, flushed.min(end))
        };
        let files: Vec<_> = files.iter().map(written).collect();
        let times = self.inner.lock().see_segments(&files, now);
        for ((file, _), changed) in files.into_iter().zip(times) {
            let node = Node { is_directory: false, size: size.bytes(), changed, content: Content::Wal(file) };
            directory.insert(format!("{name}/{file}").into_bytes(), || node);
        }
        for timeline in self.history_timelines() {
            let Some(history) = self.history(timeline) else { continue };
            let path = format!("{name}/{}", timeline.history_file_name()).into_bytes();
            directory.insert(path, || Node::file(history.to_string().as_bytes().into(), self.epoch()));
        }
        if !directory.nodes.contains_key(name.as_bytes()) {
            directory.insert(name.into(), || Node::directory(now));
        }
    }

    /// Reads at most `length` bytes of a file from `offset`: fewer only at its end.
    ///
    /// # Errors
    /// What a server would hear from its operating system.
    pub(crate) fn read_node(&self, node: &Node, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let left = usize::try_from(node.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(left)];
        match &node.content {
            Content::Nothing => return Err(rustix::io::Errno::ISDIR.into()),
            Content::Entry(entry, change) => {
                let entry = match change {
                    Some(Change::Size(size)) => Entry { kind: EntryKind::File { size: *size }, ..Entry::clone(entry) },
                    _ => Entry::clone(entry),
                };
                let mut filled = 0;
                while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                    match self.read(&entry, offset + filled as u64, rest)? {
                        0 => break,
                        read => filled += read,
                    }
                }
                bytes.truncate(filled);
                if let Some(Change::Rewritten(lsn)) = change {
                    Found::RewrittenFrom { offset: 0, lsn: *lsn }.apply(&entry, offset, &mut bytes);
                }
            }
            Content::Wal(file) => self.read_wal_file(*file, offset, &mut bytes).map_err(|error| match error {
                WalReadError::Removed(_) | WalReadError::NotThere => rustix::io::Errno::NOENT.into(),
                WalReadError::Io(error) => error,
            })?,
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::version::ServerVersion;

    use super::*;
    use crate::testing::config;

    #[test]
    fn paths_stay_below_the_data_directory() {
        let below = |path: &str| below_data_directory(path.as_bytes()).map(|path| String::from_utf8(path).unwrap());
        for (path, expected) in [(".", ""), ("./base//5/", "base/5"), ("pg_wal", "pg_wal")] {
            assert_eq!(below(path).as_deref(), Some(expected));
        }
        for path in ["/etc/passwd", "../x", "base/../../x"] {
            assert_eq!(below(path), None, "{path}");
        }
    }

    #[test]
    fn what_a_backup_leaves_out_is_there() {
        for version in ServerVersion::ALL {
            let cluster = Cluster::new(&config(version, vec![])).unwrap();
            let directory = cluster.data_directory(None, 7).unwrap();
            let wal = cluster.version().wal_directory();
            let control = directory.get(b"global/pg_control").unwrap();
            for (path, node) in &directory.nodes {
                let alone = cluster.data_file(path, None, 7).unwrap().unwrap();
                assert_eq!(format!("{alone:?}"), format!("{node:?}"), "{version}");
            }
            assert!(cluster.data_file(b"nothing", None, 7).unwrap().is_none());
            assert_eq!(cluster.read_node(&control, 0, 1 << 20).unwrap(), cluster.control_file().unwrap(), "{version}");
            let current = cluster.wal_files(cluster.flush_position(), cluster.flush_position()).unwrap_or_default();
            let names: Vec<_> = directory.names(wal.as_bytes()).map(|(name, _)| name.to_vec()).collect();
            assert!(names.iter().any(|name| name.len() == 24), "{version} {names:?} {current:?}");
            assert!(directory.get(b"postmaster.pid").is_some() && directory.get(b"backup_label").is_none());
        }
    }

    #[test]
    fn the_change_time_of_a_segment_moves_with_its_content() {
        let cluster = Cluster::new(&config(ServerVersion::V15, vec![])).unwrap();
        let times = |now| {
            let directory = cluster.data_directory(None, now).unwrap();
            let segments: Vec<_> = directory.names(b"pg_wal").filter(|(name, _)| name.len() == 24).collect();
            segments.iter().map(|(_, node)| node.changed).collect::<Vec<_>>()
        };
        assert!(times(1).iter().all(|time| *time == 1));
        assert!(times(2).iter().all(|time| *time == 1));
        cluster.switch_wal();
        cluster.checkpoint();
        let times = times(3);
        assert_eq!((times.first(), times.last()), (Some(&3), Some(&3)), "{times:?}");
    }
}
