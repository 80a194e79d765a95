//! Contents that were left out of a recording, made up again.

use std::collections::BTreeMap;

use backstop_protocol::base_backup::incremental::{self, IncrementalHeader};
use backstop_protocol::base_backup::label::{BackupLabel, LabelSource};
use backstop_protocol::base_backup::relation::RelationFile;
use backstop_protocol::base_backup::tar::MemberHeader;
use backstop_protocol::control::ControlFile;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::page::{self, BLOCK_SIZE, BLOCKS_PER_FILE, HEADER_SIZE, PageHeader};
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal_file::{WalFileName, WalSegmentSize};

use super::format::{FromServer, Member, Octets};
use super::tape::{Exchange, Step};
use super::wal::{Backup, Wal};

/// Where the first pages of every cluster were written: before any backup began.
const PAGE_LSN: Lsn = Lsn(0x100_0028);

/// What is known of the server, as far as contents follow from it.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) version: ServerVersion,
    pub(super) system_identifier: u64,
    pub(super) segment_size: WalSegmentSize,
    pub(super) checksums: bool,
    pub(super) wal: Wal,
}

impl Facts {
    /// What `exchanges` tell.
    pub(super) fn of(exchanges: &[Exchange]) -> Self {
        let version = exchanges.first().map_or(ServerVersion::NEWEST, |exchange| exchange.version);
        let members = || exchanges.iter().flat_map(|exchange| &exchange.parts).flat_map(super::tape::Content::files);
        let controls = members().filter_map(|(path, (_, member))| {
            let contents = member.contents.as_ref().filter(|_| path == b"global/pg_control")?;
            ControlFile::decode(&contents.0).ok()
        });
        let controls: Vec<ControlFile> = controls.collect();
        let control = controls.first();
        let identified = exchanges.iter().find_map(|exchange| answered(exchange, "IDENTIFY_SYSTEM", 0)?.parse().ok());
        let shown = exchanges.iter().find_map(|exchange| segment_size(&shown(exchange, "wal_segment_size")?));
        let system_identifier = identified.or(control.map(|control| control.system_identifier)).unwrap_or_default();
        let segment_size = control.map(|control| control.wal_segment_size).or(shown).unwrap_or_default();
        let backups: Vec<Backup> = exchanges.iter().filter_map(|exchange| backup(exchange, &controls)).collect();
        let mut extents = BTreeMap::new();
        let mut extend = |timeline: TimelineId, start: Lsn, end: Lsn| {
            let extent = extents.entry(timeline).or_insert((start, end));
            *extent = (extent.0.min(start), extent.1.max(end));
        };
        for exchange in exchanges {
            for step in &exchange.steps {
                if let Step::Wal(start, sizes, _) = step {
                    let end = start.saturating_add(sizes.total().unwrap_or_default());
                    extend(timeline(exchange), *start, end);
                }
            }
        }
        for (path, (header, _)) in members() {
            if let Some((timeline, start)) = segment(&path, header, segment_size) {
                extend(timeline, start, start.saturating_add(header.size));
            }
        }
        for backup in &backups {
            extend(backup.timeline, backup.start, backup.end.unwrap_or(backup.start));
        }
        let wal = Wal::new(version, system_identifier, segment_size, &backups, &extents);
        let checksums = control.is_some_and(|control| control.data_checksum_version != 0);
        Self { version, system_identifier, segment_size, checksums, wal }
    }

    /// Fills `buffer` with the file's bytes from `offset`, which it has.
    pub(super) fn read(&self, path: &[u8], header: &MemberHeader, member: &Member, offset: u64, buffer: &mut [u8]) {
        if let Some(Octets(contents)) = &member.contents {
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            let contents = contents.get(from..).unwrap_or_default();
            let length = contents.len().min(buffer.len());
            buffer[..length].copy_from_slice(&contents[..length]);
            buffer[length..].fill(0);
            return;
        }
        if let Some((timeline, start)) = segment(path, header, self.segment_size) {
            self.wal.read(timeline, start.saturating_add(offset), buffer);
            return;
        }
        let key = key(path, member.crc32c.unwrap_or_default());
        if let Some((truncation, blocks)) = &member.blocks {
            self.incremental(path, key, *truncation, blocks, offset, buffer);
            return;
        }
        let pages = RelationFile::parse(path).filter(|_| header.size.is_multiple_of(BLOCK_SIZE as u64));
        match pages {
            Some(file) => {
                let first = file.segment.saturating_mul(BLOCKS_PER_FILE);
                let numbered = |index: u64| first.saturating_add(u32::try_from(index).unwrap_or(u32::MAX));
                self.pages(key, offset, buffer, numbered);
            }
            None => words(key, offset, buffer),
        }
    }

    /// Pages, of which the one with an index in the file has the number that `numbered` says.
    fn pages(&self, key: u64, offset: u64, buffer: &mut [u8], numbered: impl Fn(u64) -> u32) {
        let mut page = [0; BLOCK_SIZE];
        let mut at = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let skip = usize::try_from(at % BLOCK_SIZE as u64).unwrap_or_default();
            let block = numbered(at / BLOCK_SIZE as u64);
            words(mix(key ^ u64::from(block)), 0, &mut page[HEADER_SIZE..]);
            PageHeader::empty(PAGE_LSN).write(&mut page);
            if self.checksums {
                page::set_checksum(&mut page, block);
            }
            let (part, after) = rest.split_at_mut(rest.len().min(BLOCK_SIZE - skip));
            part.copy_from_slice(&page[skip..skip + part.len()]);
            at += part.len() as u64;
            rest = after;
        }
    }

    fn incremental(&self, path: &[u8], key: u64, truncation: u32, blocks: &[u32], offset: u64, buffer: &mut [u8]) {
        // It was made once, when the cassette was read.
        let header =
            IncrementalHeader::new(truncation, blocks.to_vec()).map(|header| header.encode()).unwrap_or_default();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let in_header = header.get(from..).unwrap_or_default();
        let length = in_header.len().min(buffer.len());
        let (head, pages) = buffer.split_at_mut(length);
        head.copy_from_slice(&in_header[..length]);
        if pages.is_empty() {
            return;
        }
        let relation = incremental::plain_name(path).and_then(|path| RelationFile::parse(&path));
        let first = relation.map_or(0, |file| file.segment.saturating_mul(BLOCKS_PER_FILE));
        let numbered = |index: u64| {
            let block = usize::try_from(index).ok().and_then(|index| blocks.get(index)).copied().unwrap_or_default();
            first.saturating_add(block)
        };
        self.pages(key, offset.saturating_sub(header.len() as u64), pages, numbered);
    }
}

/// The segment that a file in `pg_wal` is: its timeline and its first position.
fn segment(path: &[u8], header: &MemberHeader, size: WalSegmentSize) -> Option<(TimelineId, Lsn)> {
    let name = path.strip_prefix(b"pg_wal/").or(path.strip_prefix(b"pg_xlog/"))?;
    let name: WalFileName = str::from_utf8(name).ok()?.parse().ok()?;
    let segment = name.segment(size).filter(|_| header.size == size.bytes())?;
    Some((name.timeline, size.start_of(segment)))
}

/// The first value of column `index` in the answer to a command.
fn answered<'a>(exchange: &'a Exchange, command: &str, index: usize) -> Option<&'a str> {
    let row = exchange.steps.iter().find_map(|step| match step {
        Step::Say(FromServer::Row(values)) => values.get(index)?.as_ref(),
        _ => None,
    });
    row.filter(|_| exchange.question.name() == command).and_then(|value| str::from_utf8(&value.0).ok())
}

/// The value of a setting that was asked for.
fn shown(exchange: &Exchange, setting: &str) -> Option<String> {
    let value = answered(exchange, "SHOW", 0)?;
    exchange.question.told().to_ascii_lowercase().contains(setting).then(|| value.to_owned())
}

/// `16MB` in bytes.
fn segment_size(setting: &str) -> Option<WalSegmentSize> {
    let (number, unit) = setting.split_at_checked(setting.find(|c: char| !c.is_ascii_digit())?)?;
    let number: u64 = number.parse().ok()?;
    let unit = match unit {
        "MB" => 20,
        "GB" => 30,
        _ => return None,
    };
    WalSegmentSize::new(number.checked_shl(unit)?)
}

/// The timeline that WAL was asked of.
fn timeline(exchange: &Exchange) -> TimelineId {
    exchange.question.timeline().unwrap_or(TimelineId::FIRST)
}

/// Where WAL has to hold what the end of a backup wrote.
fn backup(exchange: &Exchange, controls: &[ControlFile]) -> Option<Backup> {
    let files = || exchange.parts.iter().flat_map(super::tape::Content::files);
    let kept =
        |wanted: &[u8]| files().find(|(path, _)| path == wanted).and_then(|(_, (_, member))| member.contents.as_ref());
    let label = BackupLabel::parse(str::from_utf8(&kept(b"backup_label")?.0).ok()?).ok()?;
    // The position stands in the first row behind the data.
    let copied = exchange.steps.iter().rposition(|step| matches!(step, Step::Begin(_)))?;
    let end = exchange.steps.get(copied..)?.iter().find_map(|step| match step {
        Step::Say(FromServer::Row(values)) => str::from_utf8(&values.first()?.as_ref()?.0).ok()?.parse().ok(),
        _ => None,
    });
    let own = kept(b"global/pg_control").and_then(|contents| ControlFile::decode(&contents.0).ok());
    let copies = own.iter().chain(controls).map(|control| control.checkpoint_copy);
    let checkpoint_copy = copies.into_iter().find(|copy| copy.redo == label.start);
    Some(Backup {
        timeline: label.timeline.unwrap_or(label.start_file.timeline),
        start: label.start,
        checkpoint: label.checkpoint,
        checkpoint_copy,
        end,
        standby: label.from == LabelSource::Standby,
    })
}

/// Mixes a number so that every bit of it matters to every bit of the result: the finaliser of `SplitMix64`.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// A key for what `path` held when its checksum was this: files that held the same hold the same again.
fn key(path: &[u8], crc: u32) -> u64 {
    let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
    mix(path.iter().fold(0xCBF2_9CE4_8422_2325, hash) ^ u64::from(crc) << 16)
}

/// Bytes without meaning.
fn words(key: u64, offset: u64, buffer: &mut [u8]) {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    let word = |index: u64| mix(key.wrapping_add(STEP.wrapping_mul(index.wrapping_add(1)))).to_le_bytes();
    let skip = usize::try_from(offset % 8).unwrap_or_default().min(8);
    let mut index = offset / 8;
    let (head, rest) = buffer.split_at_mut(if skip == 0 { 0 } else { (8 - skip).min(buffer.len()) });
    if !head.is_empty() {
        head.copy_from_slice(&word(index)[skip..skip + head.len()]);
        index += 1;
    }
    let (whole, last) = rest.as_chunks_mut::<8>();
    for to in whole.iter_mut() {
        *to = word(index);
        index += 1;
    }
    last.copy_from_slice(&word(index)[..last.len()]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_of_segments_are_read() {
        assert_eq!(segment_size("16MB"), Some(WalSegmentSize::DEFAULT));
        assert_eq!(segment_size("1GB"), WalSegmentSize::new(1 << 30));
        assert_eq!([segment_size("16"), segment_size("16kB"), segment_size("MB"), segment_size("3MB")], [None; 4]);
    }

    proptest! {
        #[test]
        fn any_part_of_words_equals_the_whole(offset in 0..100_usize, length in 0..100_usize) {
            let mut whole = [0; 200];
            words(7, 0, &mut whole);
            let mut part = vec![0; length];
            words(7, offset as u64, &mut part);
            prop_assert_eq!(&part[..], &whole[offset..offset + length]);
        }
    }
}
