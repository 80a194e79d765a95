//! A real server's files, as they lie on disk after it was stopped where it stood.
//!
//! Nobody writes to such a server's pages while clients copy it, and nothing waits to be written: what a backup holds is what lies
//! there.

use std::any::Any;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use backstop_mock::BackupRecord;
use backstop_mock::cluster::{EntryKind, Tablespace, ground_truth_of_directory};
use backstop_protocol::base_backup::label::BackupLabel;
use backstop_protocol::control::ControlFile;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal_file::{WalFileName, WalSegmentSize};

use crate::oracle::original::{Expected, ExpectedKind, Known, Original, difference_in, wal_difference_by};
use crate::oracle::postgres::Installation;
use crate::scenario::model;

/// A data directory.
#[derive(Debug)]
pub(super) struct DataDirectory {
    version: ServerVersion,
    segment_size: WalSegmentSize,
    root: PathBuf,
    tablespaces: Vec<Tablespace>,
    installation: Installation,
    /// Who keeps the directory where it is.
    _keeper: Option<Box<dyn Keeper>>,
}

/// What lives as long as the directory must.
pub(super) trait Keeper: Any + std::fmt::Debug + Send + Sync {}

impl<T: Any + std::fmt::Debug + Send + Sync> Keeper for T {}

impl DataDirectory {
    pub(super) fn new(
        version: ServerVersion,
        segment_size: WalSegmentSize,
        root: PathBuf,
        tablespaces: &[model::Tablespace],
        installation: Installation,
    ) -> Self {
        let tablespaces = tablespaces.iter().map(super::tablespace);
        Self { version, segment_size, root, tablespaces: tablespaces.collect(), installation, _keeper: None }
    }

    /// The same, which `keeper` keeps where it is.
    pub(super) fn kept_by(self, keeper: Box<dyn Keeper>) -> Self {
        Self { _keeper: Some(keeper), ..self }
    }

    /// The beginning of the oldest segment that is there.
    pub(super) fn oldest_wal(&self) -> Lsn {
        let entries = fs::read_dir(self.root.join(self.version.wal_directory())).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<WalFileName>().ok());
        let first = names.filter_map(|name| name.segment(self.segment_size)).min();
        first.map_or(Lsn::INVALID, |segment| self.segment_size.start_of(segment))
    }

    fn path(&self, file: &Expected) -> PathBuf {
        self.root.join(Path::new(std::ffi::OsStr::from_bytes(&file.path)))
    }

    /// Reads within one segment, which may lie under a later timeline's name if its own ended there.
    fn read_segment(&self, timeline: TimelineId, position: Lsn, bytes: &mut [u8]) -> bool {
        let directory = self.root.join(self.version.wal_directory());
        let latest = timeline.0.saturating_add(8);
        (timeline.0..latest).any(|timeline| {
            let name = WalFileName::holding(TimelineId(timeline), position, self.segment_size).to_string();
            let file = File::open(directory.join(name));
            file.and_then(|file| file.read_exact_at(bytes, self.segment_size.offset_of(position))).is_ok()
        })
    }
}

impl Original for DataDirectory {
    fn version(&self) -> ServerVersion {
        self.version
    }

    fn system_identifier(&self) -> u64 {
        let control = fs::read(self.root.join("global/pg_control")).unwrap_or_default();
        ControlFile::decode(&control).map(|control| control.system_identifier).unwrap_or_default()
    }

    fn segment_size(&self) -> WalSegmentSize {
        self.segment_size
    }

    fn tablespaces(&self) -> Vec<Tablespace> {
        self.tablespaces.clone()
    }

    fn postgres(&self) -> Option<&Installation> {
        Some(&self.installation)
    }

    fn knows_files(&self) -> bool {
        true
    }

    fn expected(&self, backup: Option<&BackupRecord>) -> io::Result<Vec<Expected>> {
        let label = backup.and_then(|backup| BackupLabel::parse(&backup.label_text).ok());
        let incremental = label.is_some_and(|label| label.incremental_from.is_some());
        let mut all = Vec::new();
        for entry in ground_truth_of_directory(&self.root, self.version, &self.tablespaces)? {
            let (path, entry) = entry?;
            let kind = match entry.kind {
                EntryKind::File { size } => ExpectedKind::File { size },
                EntryKind::Directory => ExpectedKind::Directory,
                EntryKind::Symlink { .. } => ExpectedKind::Symlink,
                EntryKind::Special => ExpectedKind::Special,
            };
            // Which blocks have changed only the server knows; those that are there must be right.
            let changed = (incremental && matches!(kind, ExpectedKind::File { .. })).then(Vec::new);
            all.push(Expected { path, kind, known: Known::Disk { changed } });
        }
        Ok(all)
    }

    fn read(&self, file: &Expected, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        File::open(self.path(file))?.read_exact_at(bytes, offset)
    }

    fn difference(&self, file: &Expected, offset: u64, stored: &[u8]) -> io::Result<Option<Range<u64>>> {
        let mut theirs = vec![0; stored.len()];
        let from = File::open(self.path(file))?;
        let mut known = 0;
        while let Some(rest) = theirs.get_mut(known..).filter(|rest| !rest.is_empty()) {
            match from.read_at(rest, offset + known as u64)? {
                0 => break,
                read => known += read,
            }
        }
        Ok(difference_in(&theirs, known, offset, stored))
    }

    fn read_wal(&self, timeline: TimelineId, position: Lsn, bytes: &mut [u8]) -> bool {
        let (mut position, mut rest) = (position, bytes);
        while !rest.is_empty() {
            let room = self.segment_size.bytes() - self.segment_size.offset_of(position);
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(rest.len());
            let (piece, after) = rest.split_at_mut(room);
            if !self.read_segment(timeline, position, piece) {
                return false;
            }
            position = position + room as u64;
            rest = after;
        }
        true
    }

    fn wal_difference(
        &self,
        timeline: TimelineId,
        position: Lsn,
        stored: &[u8],
        unread: &[Range<usize>],
    ) -> Option<Lsn> {
        wal_difference_by(|theirs| self.read_wal(timeline, position, theirs), position, stored, unread)
    }
}
