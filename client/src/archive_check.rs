//! What the members of archives may be called, what they may be, and in which order they may come.
//!
//! [`TarReader`](backstop_protocol::base_backup::tar::TarReader) knows what a tar file is; this knows what a base backup is.
//! Nothing that it lets through can lead out of the backup: names are relative and plain, each appears once, its parent was
//! sent as a directory, and the only links are those of announced tablespaces.

use std::collections::BTreeMap;

use backstop_protocol::base_backup::manifest::PriorBackup;
use backstop_protocol::base_backup::tar::{MemberHeader, MemberKind};
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal_file::WalFileName;

use crate::error::shown;
use crate::incremental;
use crate::mutation::{Mutation, Weakness};
use crate::receive::Tablespace;

/// Deeper than any directory of a data directory that a tar header can name.
const MAX_DEPTH: usize = 32;
/// A bound on the memory that an endless stream of members can take.
const MAX_MEMBERS: usize = 50_000_000;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File {
        /// Its size in bytes.
        size: u64,
    },
    /// A directory, empty so far.
    Directory,
    /// `pg_tblspc/<oid>`: the link of the announced tablespace with this index.
    Link {
        /// The index.
        tablespace: usize,
    },
}

/// A member of an archive that passed every check: its path leads nowhere out of the backup, and comes once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name in the archive, without `./` in front and `/` behind. Bytes, as on disk: no encoding is promised.
    pub name: Vec<u8>,
    /// Its path in the backup, as the manifest names it: `pg_tblspc/16391/PG_15_202209061/5/1259`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Whether it holds the changed blocks of a file instead of a file (`INCREMENTAL.…`).
    pub changed_blocks: bool,
}

/// What must be in a backup for a server to recover from it.
#[derive(Debug, Default)]
struct Required {
    backup_label: bool,
    version: bool,
    control: bool,
}

/// The rules, over all archives of one backup.
pub(crate) struct ArchiveCheck {
    version: ServerVersion,
    tablespaces: Vec<Tablespace>,
    /// Whether WAL may be in the base archive (`-X fetch`).
    wal: bool,
    /// The backup on which an incremental one builds.
    prior: Option<PriorBackup>,
    current: Option<usize>,
    /// Of all archives, by path in the backup.
    seen: BTreeMap<Vec<u8>, Kind>,
    /// The one top directory of the current tablespace archive.
    version_directory: Option<Vec<u8>>,
    required: Required,
    weakness: Weakness,
}

impl ArchiveCheck {
    pub(crate) fn new(
        version: ServerVersion,
        tablespaces: Vec<Tablespace>,
        wal: bool,
        prior: Option<PriorBackup>,
        weakness: Weakness,
    ) -> Self {
        Self {
            version,
            tablespaces,
            wal,
            prior,
            current: None,
            seen: BTreeMap::new(),
            version_directory: None,
            required: Required::default(),
            weakness,
        }
    }

    pub(crate) fn begin(&mut self, tablespace: usize) {
        self.current = Some(tablespace);
        self.version_directory = None;
    }

    fn current(&self) -> Option<&Tablespace> {
        self.current.and_then(|index| self.tablespaces.get(index))
    }

    /// Judges the next member of the current archive.
    pub(crate) fn member(&mut self, header: &MemberHeader) -> Result<Member, String> {
        let name = match clean_name(&header.name, header.kind != MemberKind::File) {
            Err(_) if self.weakness.is(Mutation::TrustsNames) => header.name.clone(),
            cleaned => cleaned?,
        };
        let oid = self.current().ok_or("no archive was begun")?.oid;
        let path = match oid {
            None => name.clone(),
            Some(oid) => [format!("pg_tblspc/{oid}/").as_bytes(), &name].concat(),
        };
        self.check_parent(&name, &path)?;
        let kind = match (&header.kind, oid) {
            (MemberKind::Symlink { target }, None) => self.link(&name, target)?,
            (MemberKind::Symlink { .. }, Some(_)) => return Err("a link in a tablespace".to_owned()),
            (MemberKind::Directory, _) => Kind::Directory,
            (MemberKind::File, _) => Kind::File { size: header.size },
        };
        match oid {
            None => self.base_member(&name, kind)?,
            Some(_) => self.tablespace_member(&name, kind)?,
        }
        if self.seen.len() >= MAX_MEMBERS {
            return Err("too many members".to_owned());
        }
        if self.seen.insert(path.clone(), kind).is_some() && !self.weakness.is(Mutation::AcceptsDuplicates) {
            return Err("the same name for the second time".to_owned());
        }
        let changed_blocks = matches!(kind, Kind::File { .. }) && self.changed_blocks(&path)?;
        Ok(Member { name, path, kind, changed_blocks })
    }

    /// Whether the file holds changed blocks, which only an incremental backup may have, and only of files of the one before.
    fn changed_blocks(&self, path: &[u8]) -> Result<bool, String> {
        let Some(plain) = incremental::relation(path).filter(|_| self.version.has_incremental()) else {
            return Ok(false);
        };
        let Some(prior) = &self.prior else {
            return Err("full backup contains unexpected incremental file".to_owned());
        };
        if !prior.has_relation_file(&plain) {
            return Err("changed blocks of a file that the backup before does not have".to_owned());
        }
        if self.seen.contains_key(&plain) {
            return Err("changed blocks of a file that came as a whole".to_owned());
        }
        Ok(true)
    }

    /// The parent must be a directory of the same archive; a tablespace's own directory is given.
    fn check_parent(&self, name: &[u8], path: &[u8]) -> Result<(), String> {
        if !name.contains(&b'/') || self.weakness.is(Mutation::TrustsNames) {
            return Ok(());
        }
        let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        match self.seen.get(path.get(..end).unwrap_or_default()) {
            Some(Kind::Directory) => Ok(()),
            Some(Kind::File { .. }) => Err("its parent is a file".to_owned()),
            Some(Kind::Link { .. }) => Err("its parent is a link".to_owned()),
            None => Err("its parent directory was not sent before".to_owned()),
        }
    }

    /// The index of the announced tablespace that `pg_tblspc/<oid>` stands for.
    fn tablespace_at(&self, name: &[u8]) -> Option<usize> {
        let oid: u32 = str::from_utf8(name.strip_prefix(b"pg_tblspc/")?).ok()?.parse().ok()?;
        // The number must be spelled as PostgreSQL spells it.
        let spelled = name == format!("pg_tblspc/{oid}").as_bytes();
        self.tablespaces.iter().position(|tablespace| spelled && tablespace.oid == Some(oid))
    }

    fn link(&self, name: &[u8], target: &[u8]) -> Result<Kind, String> {
        let found = self.tablespace_at(name).and_then(|index| Some((index, self.tablespaces.get(index)?)));
        match found {
            Some((index, tablespace)) if !tablespace.in_place() && tablespace.location == target => {
                Ok(Kind::Link { tablespace: index })
            }
            _ if self.weakness.is(Mutation::TrustsLinks) => Ok(Kind::Link { tablespace: 0 }),
            _ => Err(format!("a link to \"{}\", which is no announced tablespace", shown(target))),
        }
    }

    fn base_member(&mut self, name: &[u8], kind: Kind) -> Result<(), String> {
        let file = matches!(kind, Kind::File { .. });
        if let (Kind::Directory, Some(index)) = (kind, self.tablespace_at(name))
            && self.tablespaces.get(index).is_some_and(|tablespace| !tablespace.in_place())
        {
            return Err("a directory in place of the link of a tablespace".to_owned());
        }
        let wal = self.version.wal_directory().as_bytes();
        let in_wal = name.strip_prefix(wal).and_then(|rest| rest.strip_prefix(b"/"));
        if file && let Some(in_wal) = in_wal {
            return self.wal_member(in_wal);
        }
        if self.required.control {
            return Err("a member after global/pg_control, which must be the last".to_owned());
        }
        match name {
            b"backup_label" | b"PG_VERSION" | b"global/pg_control" if !file => return Err("not a file".to_owned()),
            b"backup_label" => self.required.backup_label = true,
            b"PG_VERSION" => self.required.version = true,
            b"global/pg_control" => self.required.control = true,
            // Never sent, and each would change what a server does with the backup.
            b"postmaster.pid" | b"postmaster.opts" | b"backup_manifest" | b"backup_manifest.tmp" => {
                return Err("a file that is never part of a backup".to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    fn wal_member(&self, name: &[u8]) -> Result<(), String> {
        if !self.wal {
            return Err("write-ahead log that was not asked for".to_owned());
        }
        if !self.required.control {
            return Err("write-ahead log before global/pg_control".to_owned());
        }
        let done = name.strip_prefix(b"archive_status/").and_then(|status| status.strip_suffix(b".done"));
        let known =
            str::from_utf8(done.unwrap_or(name)).is_ok_and(|name| wal_segment(name).is_some() || is_history(name));
        if known { Ok(()) } else { Err("neither a WAL segment nor a timeline history file".to_owned()) }
    }

    /// A tablespace holds one directory of the server's version and nothing beside it.
    fn tablespace_member(&mut self, name: &[u8], kind: Kind) -> Result<(), String> {
        let top = name.split(|byte| *byte == b'/').next().unwrap_or_default();
        if self.version_directory.as_deref() == Some(top) {
            return Ok(());
        }
        let ours = top.starts_with(format!("PG_{}_", self.version.name()).as_bytes());
        if self.version_directory.is_some() || !ours || kind != Kind::Directory || top.len() != name.len() {
            return Err("not in the tablespace's version directory".to_owned());
        }
        self.version_directory = Some(top.to_vec());
        Ok(())
    }

    /// Judges the current archive at its end.
    pub(crate) fn end(&mut self) -> Result<(), String> {
        let base = self.current().is_some_and(|tablespace| tablespace.oid.is_none());
        self.current = None;
        if !base || self.weakness.is(Mutation::ForgivesMissingFiles) {
            return Ok(());
        }
        let required = [
            (self.required.backup_label, "backup_label"),
            (self.required.version, "PG_VERSION"),
            (self.required.control, "global/pg_control"),
        ];
        if let Some((_, name)) = required.iter().find(|(there, _)| !there) {
            return Err(format!("\"{name}\" is missing"));
        }
        // The manifest lists no directories, and a server does not start without these, empty as most of them are.
        let directory = |name: &&str| self.seen.get(name.as_bytes()) == Some(&Kind::Directory);
        match self.version.required_directories().into_iter().find(|name| !directory(name)) {
            Some(name) => Err(format!("directory \"{name}\" is missing")),
            None => Ok(()),
        }
    }

    /// The announced tablespaces, without those inside the data directory, whose link was not sent.
    pub(crate) fn unlinked(&self) -> Vec<&Tablespace> {
        let linked = |tablespace: &&Tablespace| {
            let link = tablespace.oid.map(|oid| format!("pg_tblspc/{oid}").into_bytes());
            link.is_some_and(|link| matches!(self.seen.get(&link), Some(Kind::Link { .. })))
        };
        let outside = self.tablespaces.iter().filter(|tablespace| tablespace.oid.is_some() && !tablespace.in_place());
        outside.filter(|tablespace| !linked(tablespace)).collect()
    }
}

/// The segment that a file name stands for.
pub(crate) fn wal_segment(name: &str) -> Option<WalFileName> {
    name.parse().ok()
}

pub(crate) fn is_history(name: &str) -> bool {
    name.strip_suffix(".history").is_some_and(|timeline| {
        timeline.len() == 8 && timeline.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
    })
}

/// The name without the `./` that some members carry and without the `/` that ends directories and links.
pub(crate) fn clean_name(name: &[u8], slash: bool) -> Result<Vec<u8>, String> {
    let name = name.strip_prefix(b"./").unwrap_or(name);
    let name = if slash { name.strip_suffix(b"/").unwrap_or(name) } else { name };
    let unsafe_name = |problem| Err(format!("tar member has unsafe path name: {problem}"));
    if name.is_empty() {
        return unsafe_name("it is empty");
    }
    if name.starts_with(b"/") {
        return unsafe_name("it is absolute");
    }
    if name.contains(&0) {
        return unsafe_name("it contains a zero byte");
    }
    let mut depth = 0;
    for component in name.split(|byte| *byte == b'/') {
        depth += 1;
        match component {
            b"" => return unsafe_name("it has an empty component"),
            b"." => return unsafe_name("it contains \".\""),
            b".." => return unsafe_name("it contains \"..\""),
            _ => {}
        }
    }
    if depth > MAX_DEPTH {
        return unsafe_name("it is too deep");
    }
    Ok(name.to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(name: &[u8], kind: MemberKind) -> MemberHeader {
        MemberHeader { name: name.to_vec(), kind, mode: 0o600, uid: 0, gid: 0, size: 0, mtime: 0 }
    }

    fn tablespaces() -> Vec<Tablespace> {
        vec![
            Tablespace { oid: Some(16391), location: b"/ts".to_vec(), size: None },
            Tablespace { oid: Some(16392), location: b"pg_tblspc/16392".to_vec(), size: None },
            Tablespace { oid: None, location: Vec::new(), size: None },
        ]
    }

    fn base(wal: bool) -> ArchiveCheck {
        let mut check = ArchiveCheck::new(ServerVersion::V15, tablespaces(), wal, None, Weakness::NONE);
        check.begin(2);
        check
    }

    fn file(check: &mut ArchiveCheck, name: &str) -> Result<Member, String> {
        check.member(&header(name.as_bytes(), MemberKind::File))
    }

    fn directory(check: &mut ArchiveCheck, name: &str) -> Result<Member, String> {
        check.member(&header(name.as_bytes(), MemberKind::Directory))
    }

    fn link(check: &mut ArchiveCheck, name: &str, target: &str) -> Result<Member, String> {
        check.member(&header(name.as_bytes(), MemberKind::Symlink { target: target.into() }))
    }

    #[test]
    fn a_sound_base_archive_passes() {
        let mut check = base(true);
        file(&mut check, "backup_label").expect("the label");
        for name in ["global/", "pg_wal/", "./pg_wal/archive_status/", "pg_tblspc/", "pg_tblspc/16392/"] {
            directory(&mut check, name).expect(name);
        }
        let linked = link(&mut check, "pg_tblspc/16391/", "/ts").expect("the link");
        assert_eq!(linked.kind, Kind::Link { tablespace: 0 });
        file(&mut check, "PG_VERSION").expect("the version");
        file(&mut check, "global/pg_control").expect("the control file");
        file(&mut check, "pg_wal/000000010000000000000003").expect("a segment");
        file(&mut check, "pg_wal/archive_status/000000010000000000000003.done").expect("its status");
        file(&mut check, "pg_wal/00000002.history").expect("a history file");
        assert!(check.end().is_err(), "directories are missing");
        assert!(check.unlinked().is_empty());
    }

    #[test]
    fn no_directory_is_missing() {
        let directories = ServerVersion::V15.required_directories();
        for missing in 0..=directories.len() {
            let mut check = base(false);
            let left_out = directories.get(missing).copied();
            for name in &directories {
                // What lies in a directory cannot come without it.
                if left_out.is_none_or(|out| *name != out && !name.starts_with(&format!("{out}/"))) {
                    directory(&mut check, name).expect(name);
                }
            }
            for name in ["backup_label", "PG_VERSION"] {
                file(&mut check, name).expect(name);
            }
            if left_out == Some("global") {
                assert!(file(&mut check, "global/pg_control").is_err());
                continue;
            }
            file(&mut check, "global/pg_control").expect("the control file");
            let problem = left_out.map(|name| format!("directory \"{name}\" is missing"));
            assert_eq!(check.end().err(), problem);
        }
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        for name in ["../x", "/x", "a/../../x", "a//x", "./", "", ".", "..", "././x", "a/.", "//x", "./../x"] {
            let mut check = base(false);
            directory(&mut check, "a/").expect("a directory");
            assert!(file(&mut check, name).is_err(), "{name}");
            assert!(directory(&mut check, name).is_err(), "{name}");
        }
        assert!(file(&mut base(false), &"d/".repeat(40)).is_err());
    }

    #[test]
    fn parents_are_directories_that_were_sent() {
        let mut check = base(false);
        assert!(file(&mut check, "base/1").is_err());
        file(&mut check, "x").expect("a file");
        assert!(file(&mut check, "x/y").is_err());
        directory(&mut check, "pg_tblspc/").expect("a directory");
        link(&mut check, "pg_tblspc/16391/", "/ts").expect("a link");
        assert!(file(&mut check, "pg_tblspc/16391/x").is_err());
        assert!(directory(&mut check, "pg_tblspc/16391/").is_err());
    }

    #[test]
    fn only_announced_tablespaces_are_linked() {
        for (name, target) in [
            ("pg_tblspc/16391", "/etc"),
            ("pg_tblspc/16393", "/ts"),
            ("pg_tblspc/016391", "/ts"),
            ("pg_tblspc/+16391", "/ts"),
            ("pg_tblspc/16392", "pg_tblspc/16392"),
            ("lnk", "/ts"),
        ] {
            let mut check = base(false);
            directory(&mut check, "pg_tblspc/").expect("a directory");
            assert!(link(&mut check, name, target).is_err(), "{name} {target}");
        }
        let mut check = base(false);
        directory(&mut check, "pg_tblspc/").expect("a directory");
        assert!(directory(&mut check, "pg_tblspc/16391/").is_err(), "a directory where the link belongs");
        assert_eq!(check.unlinked().len(), 1);
    }

    #[test]
    fn nothing_comes_twice() {
        let mut check = base(false);
        file(&mut check, "PG_VERSION").expect("a file");
        assert!(file(&mut check, "PG_VERSION").is_err());
        assert!(directory(&mut check, "PG_VERSION/").is_err());
        assert!(file(&mut check, "./PG_VERSION").is_err());
    }

    #[test]
    fn the_control_file_is_last_and_nothing_is_missing() {
        let mut check = base(false);
        directory(&mut check, "global/").expect("a directory");
        file(&mut check, "backup_label").expect("the label");
        file(&mut check, "global/pg_control").expect("the control file");
        assert!(file(&mut check, "PG_VERSION").is_err());
        assert_eq!(check.end(), Err("\"PG_VERSION\" is missing".to_owned()));
        assert_eq!(base(false).end(), Err("\"backup_label\" is missing".to_owned()));
    }

    #[test]
    fn wal_comes_when_asked_for_and_last() {
        let mut check = base(false);
        directory(&mut check, "pg_wal/").expect("a directory");
        assert!(file(&mut check, "pg_wal/000000010000000000000003").is_err());
        let mut check = base(true);
        directory(&mut check, "pg_wal/").expect("a directory");
        assert!(file(&mut check, "pg_wal/000000010000000000000003").is_err(), "before pg_control");
        directory(&mut check, "global/").expect("a directory");
        file(&mut check, "global/pg_control").expect("the control file");
        assert!(file(&mut check, "pg_wal/evil").is_err());
    }

    #[test]
    fn tablespaces_hold_their_version_directory_only() {
        let mut check = base(false);
        check.begin(0);
        assert!(directory(&mut check, "PG_14_202107181/").is_err());
        assert!(file(&mut check, "PG_15_202209061").is_err());
        let inside = directory(&mut check, "PG_15_202209061/").expect("the version directory");
        assert_eq!(inside.path, b"pg_tblspc/16391/PG_15_202209061");
        directory(&mut check, "PG_15_202209061/5/").expect("a database");
        file(&mut check, "PG_15_202209061/5/1259").expect("a file");
        assert!(directory(&mut check, "PG_15_202209062/").is_err());
        assert!(link(&mut check, "PG_15_202209061/x", "/ts").is_err());
        assert_eq!(check.end(), Ok(()));
    }

    proptest! {
        #[test]
        fn no_name_leads_out(name: Vec<u8>, slash: bool) {
            if let Ok(clean) = clean_name(&name, slash) {
                prop_assert!(!clean.starts_with(b"/") && !clean.ends_with(b"/"));
                prop_assert!(clean.split(|b| *b == b'/').all(|part| part != b".." && part != b"." && !part.is_empty()));
            }
        }
    }
}
