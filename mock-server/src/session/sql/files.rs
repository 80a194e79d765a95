//! The functions that list and read the files of the server (`genfile.c`), and who may call them.

use std::io;

use backstop_protocol::base_backup::relation::RelationFile;
use backstop_protocol::catalog::SqlType;
use backstop_protocol::diagnostic::{Diagnostic, SqlState};
use backstop_protocol::version::ServerVersion;
use bytes::Bytes;
use rustix::io::Errno;

use super::Session;
use super::value::Value;
use crate::cluster::{Change, DataDirectory, Node, below_data_directory, file_access};
use crate::server::Found;

/// The longest piece that is read at once, as much as a message can hold.
const LONGEST: usize = 64 << 20;

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// A name of a file as a text: one that is none goes as the bytes it is.
pub(super) fn path_value(path: &[u8]) -> Value {
    match str::from_utf8(path) {
        Ok(path) => Value::Text(path.to_owned()),
        Err(_) => Value::Bytes(Bytes::copy_from_slice(path)),
    }
}

fn unreadable(error: &io::Error) -> Diagnostic {
    file_access("could not open directory \".\"", error)
}

impl Session {
    /// A superuser may, and everybody where no roles are listed.
    fn may(&self) -> bool {
        self.superuser || !self.shared.access.lists_roles()
    }

    /// Refuses who may not call one of the functions of this file. Rights to them can be granted since 11.
    pub(super) fn refuse_without_right_to_files(&self, function: &str, before: &str) -> Result<(), Diagnostic> {
        if self.may() {
            return Ok(());
        }
        let message = if self.version >= ServerVersion::V11 {
            format!("permission denied for function {function}")
        } else {
            format!("must be superuser to {before}")
        };
        Err(Diagnostic::error(SqlState::INSUFFICIENT_PRIVILEGE, message))
    }

    /// Refuses who may not begin or end a backup with SQL. Roles with REPLICATION may up to 9.5.
    pub(super) fn refuse_without_right_to_back_up(&self, function: &str) -> Result<(), Diagnostic> {
        let replicates = || self.shared.access.role(&self.user).is_some_and(|role| role.replication);
        if self.may() || (self.version < ServerVersion::V9_6 && replicates()) {
            return Ok(());
        }
        let message = if self.version < ServerVersion::V9_6 {
            "must be superuser or replication role to run a backup".to_owned()
        } else {
            format!("permission denied for function {function}")
        };
        Err(Diagnostic::error(SqlState::INSUFFICIENT_PRIVILEGE, message))
    }

    /// When the postmaster started: later after each crash.
    pub(super) fn postmaster_start(&self) -> i64 {
        let crashes = self.shared.life.borrow().crashes;
        self.shared.cluster.epoch().saturating_add(crashes.into())
    }

    /// The data directory, as the backup finds it for which this session works.
    pub(super) fn data_directory(&self) -> Result<DataDirectory, Diagnostic> {
        let now = self.shared.clock.unix_seconds();
        self.shared.cluster.data_directory(self.start_of_sql_backup(), now).map_err(|error| unreadable(&error))
    }

    fn node(&self, path: &[u8]) -> Result<Option<(Vec<u8>, Node)>, Diagnostic> {
        let Some(path) = below_data_directory(path) else { return Ok(None) };
        let now = self.shared.clock.unix_seconds();
        let found = self.shared.cluster.data_file(&path, self.start_of_sql_backup(), now);
        Ok(found.map_err(|error| unreadable(&error))?.map(|node| (path, node)))
    }

    /// `pg_read_binary_file`
    pub(super) fn read_binary_file(
        &self,
        path: &[u8],
        offset: Option<i64>,
        length: Option<i64>,
        missing_ok: bool,
    ) -> Result<Value, Diagnostic> {
        self.refuse_without_right_to_files("pg_read_binary_file", "read files")?;
        if length.is_some_and(|length| length < 0) {
            let message = "requested length cannot be negative";
            return Err(Diagnostic::error(SqlState::INVALID_PARAMETER_VALUE, message));
        }
        let Some((clean, node)) = self.node(path)? else {
            self.note_missing(path);
            if missing_ok {
                return Ok(Value::Null);
            }
            let what = format!("could not open file \"{}\" for reading", shown(path));
            return Err(file_access(&what, &Errno::NOENT.into()));
        };
        // A negative offset counts from the end.
        let offset = match offset.unwrap_or(0) {
            back if back < 0 => node.size.saturating_sub(back.unsigned_abs()),
            offset => offset.unsigned_abs(),
        };
        let length = length.map_or(LONGEST, |length| usize::try_from(length).unwrap_or(LONGEST).min(LONGEST));
        self.note_changed(&clean, offset, length as u64);
        let read = self.shared.cluster.read_node(&node, offset, length);
        let bytes = read.map_err(|error| file_access(&format!("could not read file \"{}\"", shown(path)), &error))?;
        Ok(Value::Bytes(bytes.into()))
    }

    /// Nothing is there: a backup leaves it out.
    fn note_missing(&self, path: &[u8]) {
        if let Some(path) = below_data_directory(path)
            && matches!(self.shared.cluster.change_of(&path), Some(Change::Removed))
        {
            self.note_found_by_sql(&path, Found::Nothing);
        }
    }

    /// A file that has changed since it was listed. A relation keeps the size that was listed, with zeros for what was cut off;
    /// everything else is as it is read.
    fn note_changed(&self, path: &[u8], offset: u64, length: u64) {
        let relation = RelationFile::parse(path).is_some();
        let found = match self.shared.cluster.change_of(path) {
            Some(Change::Size(left)) if relation && left < offset.saturating_add(length) => {
                Found::ZerosFrom(left.max(offset))
            }
            Some(Change::Size(left)) if !relation => Found::Beginning(left),
            Some(Change::Rewritten(lsn)) => Found::RewrittenFrom { offset, lsn },
            _ => return,
        };
        self.note_found_by_sql(path, found);
    }

    /// What a backup finds when it lists files.
    pub(super) fn note_listed(&self, path: &[u8], node: &Node) {
        let found = match self.shared.cluster.change_of(path) {
            Some(Change::Size(now)) => self
                .shared
                .cluster
                .size_at_first(path)
                .map(|size| if now > size { Found::Grown(now) } else { Found::Beginning(now) }),
            Some(Change::Added(_)) => Some(Found::Added),
            _ => None,
        };
        if let Some(found) = found.filter(|_| !node.is_directory) {
            self.note_found_by_sql(path, found);
        }
    }

    /// `pg_ls_dir`
    pub(super) fn list_directory(&self, path: &[u8], missing_ok: bool, dots: bool) -> Result<Value, Diagnostic> {
        self.refuse_without_right_to_files("pg_ls_dir", "get directory listings")?;
        let failed =
            |error: Errno| file_access(&format!("could not open directory \"{}\"", shown(path)), &error.into());
        let Some(clean) = below_data_directory(path) else { return Err(failed(Errno::NOENT)) };
        let directory = self.data_directory()?;
        match directory.get(&clean) {
            None if missing_ok => return Ok(Value::Set(Vec::new())),
            None => return Err(failed(Errno::NOENT)),
            Some(node) if !node.is_directory => return Err(failed(Errno::NOTDIR)),
            Some(_) => {}
        }
        let mut names: Vec<Value> = Vec::new();
        if dots {
            names.extend([".", ".."].map(|name| Value::Text(name.to_owned())));
        }
        names.extend(directory.names(&clean).map(|(name, _)| path_value(name)));
        self.note_removed(&clean);
        Ok(Value::Set(names))
    }

    /// `pg_stat_file`
    pub(super) fn stat_file(&self, path: &[u8], missing_ok: bool) -> Result<Value, Diagnostic> {
        self.refuse_without_right_to_files("pg_stat_file", "get file information")?;
        let Some((clean, node)) = self.node(path)? else {
            self.note_missing(path);
            if missing_ok {
                return Ok(Value::Null);
            }
            return Err(file_access(&format!("could not stat file \"{}\"", shown(path)), &Errno::NOENT.into()));
        };
        self.note_listed(&clean, &node);
        let (size, time) = (i64::try_from(node.size).unwrap_or(i64::MAX), Value::Time(node.changed));
        Ok(Value::Record(vec![
            (SqlType::Int8, Value::Int(size)),
            (SqlType::Timestamptz, time.clone()),
            (SqlType::Timestamptz, time.clone()),
            (SqlType::Timestamptz, time),
            // There is none on Unix.
            (SqlType::Timestamptz, Value::Null),
            (SqlType::Bool, Value::Bool(node.is_directory)),
        ]))
    }

    /// `pg_ls_waldir`, which members of `pg_monitor` may call.
    pub(super) fn list_wal_directory(&self) -> Result<Value, Diagnostic> {
        if !self.shared.access.is_member(&self.user, "pg_monitor") {
            self.refuse_without_right_to_files("pg_ls_waldir", "list the contents of the WAL directory")?;
        }
        let directory = self.data_directory()?;
        let files = directory.names(self.version.wal_directory().as_bytes()).filter(|(_, node)| !node.is_directory);
        let row = |(name, node): (&[u8], &Node)| {
            Value::Record(vec![
                (SqlType::Text, path_value(name)),
                (SqlType::Int8, Value::Int(i64::try_from(node.size).unwrap_or(i64::MAX))),
                (SqlType::Timestamptz, Value::Time(node.changed)),
            ])
        };
        Ok(Value::Set(files.map(row).collect()))
    }

    /// Files that are gone from a directory, at any depth, before a backup has seen them.
    pub(super) fn note_removed(&self, directory: &[u8]) {
        for path in self.shared.cluster.removed_below(directory) {
            self.note_found_by_sql(&path, Found::Nothing);
        }
    }
}
