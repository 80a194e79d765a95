//! The bytes of a log, made from its plan.

use crate::lsn::Lsn;
use crate::wal::page::{BKP_REMOVABLE, FIRST_IS_CONTRECORD, LongHeader, WAL_PAGE_SIZE, WalPageHeader};

use super::run::{self, Scratch};
use super::{Content, Entry, WalLog, WalLogConfig, WalLogError, filler};

impl WalLog {
    /// Reads the bytes from `from` on. All of them must lie between [`first`](Self::first) and
    /// [`insert_position`](Self::insert_position).
    pub fn read(&self, from: Lsn, buffer: &mut [u8]) -> Result<(), WalLogError> {
        let to = from.saturating_add(buffer.len() as u64);
        let (first, last) = (self.first, self.insert_position());
        if from < first || to > last {
            return Err(WalLogError::Range { from, to, first, last });
        }
        self.read_zero_filled(from, buffer)
    }

    /// As [`read`](Self::read), with zero bytes for what is not written yet: a segment file as it lies in `pg_wal`.
    pub fn read_zero_filled(&self, from: Lsn, buffer: &mut [u8]) -> Result<(), WalLogError> {
        let to = from.saturating_add(buffer.len() as u64);
        if from < self.first {
            return Err(WalLogError::Range { from, to, first: self.first, last: self.insert_position() });
        }
        let mut at = from;
        let mut rest = buffer;
        let mut scratch = Scratch::default();
        while !rest.is_empty() {
            let page = at.align_down(WAL_PAGE_SIZE);
            let room = usize::try_from(page + WAL_PAGE_SIZE - at).unwrap_or(usize::MAX).min(rest.len());
            let (part, after) = rest.split_at_mut(room);
            self.read_in_page(page, at, part, &mut scratch)?;
            at = at + room as u64;
            rest = after;
        }
        Ok(())
    }

    /// Reads within one page.
    fn read_in_page(
        &self,
        page: Lsn,
        at: Lsn,
        mut output: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<(), WalLogError> {
        let first_usable = self.layout.usable(page);
        let Some(first_entry) = self.entry_at(first_usable.max(self.layout.usable(self.first))) else {
            output.fill(0);
            return Ok(());
        };
        if let Some(Entry { at, content: Content::Nothing, .. }) = self.entries.get(first_entry)
            && *at <= first_usable
        {
            output.fill(0);
            return Ok(());
        }
        let header_size = self.layout.header_size(page);
        if at - page < header_size {
            let header = self.page_header(page, first_usable, first_entry, scratch)?.encode();
            let skipped = usize::try_from(at - page).unwrap_or(usize::MAX);
            let header = header.get(skipped..).unwrap_or_default();
            let length = header.len().min(output.len());
            output[..length].copy_from_slice(&header[..length]);
            output = &mut output[length..];
        }
        let mut usable = self.layout.usable(at);
        let mut index = self.entry_at(usable).unwrap_or(self.entries.len());
        while let Some(entry) = self.entries.get(index)
            && !output.is_empty()
        {
            let room = usize::try_from(entry.end - usable).unwrap_or(usize::MAX).min(output.len());
            let (part, after) = std::mem::take(&mut output).split_at_mut(room);
            self.read_entry(entry, usable, part, scratch)?;
            usable += room as u64;
            output = after;
            index += 1;
        }
        output.fill(0);
        Ok(())
    }

    /// The entry that holds a usable byte.
    fn entry_at(&self, usable: u64) -> Option<usize> {
        let index = self.entries.partition_point(|entry| entry.end <= usable);
        self.entries.get(index).filter(|entry| entry.at <= usable).map(|_| index)
    }

    fn page_header(
        &self,
        page: Lsn,
        first_usable: u64,
        entry: usize,
        scratch: &mut Scratch,
    ) -> Result<WalPageHeader, WalLogError> {
        let WalLogConfig { version, system_identifier, timeline, segment_size, .. } = self.config;
        let changes = self.removable.partition_point(|change| change.0 <= first_usable);
        let removable = changes.checked_sub(1).and_then(|last| self.removable.get(last)).is_none_or(|change| change.1);
        let remaining = match self.entries.get(entry) {
            Some(entry) => self.remaining(entry, first_usable, scratch)?,
            None => 0,
        };
        let continues = if remaining > 0 { FIRST_IS_CONTRECORD } else { 0 };
        Ok(WalPageHeader {
            magic: version.wal_page_magic(),
            info: continues | if removable { BKP_REMOVABLE } else { 0 },
            timeline,
            address: page,
            remaining,
            long: (segment_size.offset_of(page) == 0).then(|| LongHeader {
                system_identifier,
                segment_size: u32::try_from(segment_size.bytes()).unwrap_or(u32::MAX),
                page_size: 8192,
            }),
        })
    }

    /// Bytes from `usable` on of a record that began before.
    fn remaining(&self, entry: &Entry, usable: u64, scratch: &mut Scratch) -> Result<u32, WalLogError> {
        let into = usable.saturating_sub(entry.at);
        let (length, into) = match &entry.content {
            Content::Record(record) => (record.encode(self.config.version, 0, entry.prev).header().total_length, into),
            Content::Noop { length, .. } => (filler::total_length(*length), into),
            Content::Run { images } => {
                let member = self.member(entry, *images, usable.max(entry.at), scratch)?;
                (member.length(scratch), usable.saturating_sub(member.at))
            }
            Content::Nothing => (0, 0),
        };
        let left = u32::try_from(u64::from(length).saturating_sub(into)).unwrap_or(u32::MAX);
        Ok(if into == 0 { 0 } else { left })
    }

    /// Reads usable bytes of one entry, without page headers.
    fn read_entry(
        &self,
        entry: &Entry,
        usable: u64,
        output: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<(), WalLogError> {
        let skipped = usable - entry.at;
        match &entry.content {
            Content::Nothing => output.fill(0),
            Content::Record(record) => {
                let bytes = record.encode(self.config.version, 0, entry.prev).encode();
                run::copy(&bytes, skipped, output);
            }
            Content::Noop { length, body_crc } => {
                let header = filler::header(entry.prev, *length).sealed(*body_crc);
                filler::read(self.config.seed, entry.at, &header, *length, skipped, output);
            }
            Content::Run { images } => self.read_run(entry, *images, usable, output, scratch)?,
        }
        Ok(())
    }
}
