//! What a backup from a cassette is a copy of: what the player makes up.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;

use backstop_mock::BackupRecord;
use backstop_mock::cluster::Tablespace;
use backstop_protocol::base_backup::label::BackupLabel;
use backstop_protocol::base_backup::tar::{MemberHeader, MemberKind};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal_file::WalSegmentSize;

use super::format::{FromServer, Member, Octets, Part};
use super::player::Player;
use super::tape::{Content, Exchange, Step};
use crate::oracle::original::{Expected, ExpectedKind, Known, Original, difference_in, wal_difference_by};

/// The server that a cassette was recorded from, as far as it is on the cassette.
pub struct Recorded {
    player: Player,
    /// Where the files of each path in the manifest stand: of which exchange, part and member they are. One for each backup.
    places: BTreeMap<Vec<u8>, Vec<[usize; 3]>>,
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded").field("player", &self.player).finish_non_exhaustive()
    }
}

impl Recorded {
    /// What `player` plays.
    pub fn new(player: Player) -> Self {
        let mut places: BTreeMap<Vec<u8>, Vec<[usize; 3]>> = BTreeMap::new();
        for (exchange, recorded) in player.tape().exchanges.iter().enumerate() {
            for (part, content) in recorded.parts.iter().enumerate() {
                for (member, (path, _)) in content.files().enumerate() {
                    places.entry(path).or_default().push([exchange, part, member]);
                }
            }
        }
        Self { player, places }
    }

    /// The exchanges in which backups were sent.
    fn backups(&self) -> impl Iterator<Item = &Exchange> {
        self.player.tape().exchanges.iter().filter(|exchange| !exchange.parts.is_empty())
    }

    /// The members of that path, kind and size.
    fn members<'a>(&'a self, file: &'a Expected) -> impl Iterator<Item = &'a (MemberHeader, Member)> {
        let places = self.places.get(&file.path).map(Vec::as_slice).unwrap_or_default();
        let members = places.iter().filter_map(|[exchange, part, member]| {
            self.player.tape().exchanges.get(*exchange)?.parts.get(*part)?.members.get(*member)
        });
        members.filter(|(header, _)| file.kind == kind(&header.kind, header.size))
    }

    /// Reads what is made up for a member of `file`, as far as it goes; how much that is.
    fn made_up(&self, file: &Expected, made: &(MemberHeader, Member), offset: u64, bytes: &mut [u8]) -> usize {
        let (header, member) = made;
        let left = usize::try_from(header.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
        let part = bytes.get_mut(..left).unwrap_or_default();
        self.player.tape().facts.read(&file.path, header, member, offset, part);
        left
    }
}

fn kind(kind: &MemberKind, size: u64) -> ExpectedKind {
    match kind {
        MemberKind::File => ExpectedKind::File { size },
        MemberKind::Directory => ExpectedKind::Directory,
        MemberKind::Symlink { .. } => ExpectedKind::Symlink,
    }
}

/// Where the backup of an exchange starts.
fn start(exchange: &Exchange) -> Option<Lsn> {
    let mut files = exchange.parts.iter().flat_map(Content::files);
    let (_, (_, member)) = files.find(|(path, _)| path == b"backup_label")?;
    let Octets(text) = member.contents.as_ref()?;
    Some(BackupLabel::parse(str::from_utf8(text).ok()?).ok()?.start)
}

impl Original for Recorded {
    fn version(&self) -> ServerVersion {
        self.player.tape().version()
    }

    fn system_identifier(&self) -> u64 {
        self.player.tape().facts.system_identifier
    }

    fn segment_size(&self) -> WalSegmentSize {
        self.player.tape().facts.segment_size
    }

    fn tablespaces(&self) -> Vec<Tablespace> {
        let rows = self.backups().flat_map(|exchange| &exchange.steps).filter_map(|step| match step {
            Step::Say(FromServer::Row(values)) => match values.as_slice() {
                [Some(oid), Some(location), _] => Some((oid, location)),
                _ => None,
            },
            _ => None,
        });
        let tablespaces = rows.filter_map(|(oid, location)| {
            let location = String::from_utf8_lossy(&location.0).into_owned();
            let oid = str::from_utf8(&oid.0).ok()?.parse().ok()?;
            // A location in the data directory is that of a tablespace in place.
            let in_place = !location.starts_with('/');
            Some(Tablespace { oid, location, in_place })
        });
        let mut tablespaces: Vec<Tablespace> = tablespaces.collect();
        tablespaces.sort_by_key(|tablespace| tablespace.oid);
        tablespaces.dedup_by_key(|tablespace| tablespace.oid);
        tablespaces
    }

    fn knows_files(&self) -> bool {
        // Blocks that an incremental backup leaves out are on no cassette.
        self.backups()
            .flat_map(|exchange| &exchange.parts)
            .all(|part| part.opaque.is_none() && part.members.iter().all(|(_, member)| member.blocks.is_none()))
    }

    fn expected(&self, backup: Option<&BackupRecord>) -> io::Result<Vec<Expected>> {
        let mut backups = self.backups();
        let wanted = backup.map(|backup| backup.start);
        let exchange = backups.find(|exchange| wanted.is_none() || start(exchange) == wanted);
        let parts = exchange.map(|exchange| exchange.parts.as_slice()).unwrap_or_default();
        let archives = parts.iter().filter(|part| matches!(part.kind, Part::Archive(_)));
        let files = archives.flat_map(Content::files).map(|(path, (header, _))| Expected {
            path,
            kind: kind(&header.kind, header.size),
            known: Known::Disk { changed: None },
        });
        Ok(files.collect())
    }

    fn read(&self, file: &Expected, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let read = self.members(file).next().map_or(0, |member| self.made_up(file, member, offset, bytes));
        if read < bytes.len() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn difference(&self, file: &Expected, offset: u64, stored: &[u8]) -> io::Result<Option<Range<u64>>> {
        let mut theirs = vec![0; stored.len()];
        let mut found = difference_in(&[], 0, offset, stored);
        // Of several backups on a cassette, any may be the one that was played.
        for member in self.members(file) {
            let known = self.made_up(file, member, offset, &mut theirs);
            found = difference_in(&theirs, known, offset, stored);
            if found.is_none() {
                break;
            }
        }
        Ok(found)
    }

    fn read_wal(&self, timeline: TimelineId, position: Lsn, bytes: &mut [u8]) -> bool {
        self.player.tape().facts.wal.read(timeline, position, bytes)
    }

    fn wal_difference(
        &self,
        timeline: TimelineId,
        position: Lsn,
        stored: &[u8],
        unread: &[Range<usize>],
    ) -> Option<Lsn> {
        let read = |theirs: &mut [u8]| self.read_wal(timeline, position, theirs);
        wal_difference_by(read, position, stored, unread)
    }
}
