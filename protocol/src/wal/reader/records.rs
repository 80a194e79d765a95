//! What a record must be, in one piece or in several.

use crate::lsn::Lsn;
use crate::wal::record::block::{BodyLayout, MAX_LAYOUT_SIZE};
use crate::wal::record::{
    MAX_RECORD_SIZE, RECORD_ALIGNMENT, RECORD_HEADER_SIZE, RM_MAX_BUILTIN, RM_MIN_CUSTOM, RM_STANDBY, RM_XLOG, Record,
    RecordError, RecordHeader, XLogRecord, finish_crc, info,
};

use super::{Phase, ReadRecord, Told, WalError, WalProblem, WalReader, WalTail, bounded};

/// Of larger bodies, and of those whose meaning is not known, only the layout is kept; their records are told as
/// [`Record::Other`].
const MAX_KEPT_BODY: usize = 4096;

impl WalReader {
    /// Takes the records that lie in `data` in one piece, as most do, with their padding. `data` is of one page and begins where
    /// a record may. Returns 0 if the first one has to be taken in parts.
    pub(super) fn whole(&mut self, data: &[u8], told: &mut Told<'_>) -> Result<usize, WalError> {
        let mut taken = 0;
        while let Some((head, rest)) = data.get(taken..).and_then(<[u8]>::split_first_chunk::<RECORD_HEADER_SIZE>) {
            let header = RecordHeader::decode(head);
            let length = usize::try_from(header.total_length).unwrap_or(usize::MAX);
            let Some(body) = length.checked_sub(RECORD_HEADER_SIZE).and_then(|length| rest.get(..length)) else {
                break;
            };
            let start = self.position;
            self.check_header(start, &header)?;
            let seal = finish_crc(crc32c::crc32c(body), head);
            self.position = start + length as u64;
            self.complete(start, &header, seal, body, told)?;
            taken += length;
            if header.is_switch() {
                break;
            }
            let padding = bounded(self.valid_to - self.position, data.len() - taken);
            self.position = self.position + padding as u64;
            taken += padding;
        }
        Ok(taken)
    }

    /// Takes bytes of the record that was begun.
    pub(super) fn part(&mut self, data: &[u8], told: &mut Told<'_>) -> Result<usize, WalError> {
        let Phase::Record(partial) = &mut self.phase else { return Ok(0) };
        let at = partial.start;
        // The length first: it is never cut, and without it nothing else has a meaning.
        let have = usize::try_from(partial.taken).unwrap_or(usize::MAX);
        let until = if have < 4 { 4 } else { RECORD_HEADER_SIZE };
        if let Some(room) = partial.head.get_mut(have..until).filter(|room| !room.is_empty()) {
            let part = room.len().min(data.len());
            room.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
            partial.taken += part as u64;
            self.position = self.position + part as u64;
            if part < until - have {
                return Ok(part);
            }
            let header = RecordHeader::decode(&partial.head);
            if until == 4 {
                if header.total_length == 0 {
                    self.phase = Phase::Empty { switched: false };
                    self.tail = WalTail::Zero;
                } else if !(RECORD_HEADER_SIZE as u64..=MAX_RECORD_SIZE.into()).contains(&header.total_length.into()) {
                    return Err(WalError { at, problem: WalProblem::RecordLength(header.total_length) });
                } else {
                    partial.total = Some(header.total_length);
                }
                return Ok(part);
            }
            let left = partial.left();
            self.check_header(at, &header)?;
            self.body.clear();
            if left == 0 {
                self.complete_parts(told)?;
            }
            return Ok(part);
        }
        let part = data.get(..bounded(partial.left(), data.len())).unwrap_or_default();
        partial.taken += part.len() as u64;
        partial.body_crc = crc32c::crc32c_append(partial.body_crc, part);
        let missing = MAX_KEPT_BODY.saturating_sub(self.body.len()).min(part.len());
        self.body.extend_from_slice(part.get(..missing).unwrap_or_default());
        self.position = self.position + part.len() as u64;
        if partial.left() == 0 {
            self.complete_parts(told)?;
        }
        Ok(part.len())
    }

    /// A record's last byte was taken.
    fn complete_parts(&mut self, told: &mut Told<'_>) -> Result<(), WalError> {
        let Phase::Record(partial) = std::mem::replace(&mut self.phase, Phase::Between) else { return Ok(()) };
        let header = RecordHeader::decode(&partial.head);
        let seal = finish_crc(partial.body_crc, &partial.head);
        let body = std::mem::take(&mut self.body);
        let done = self.complete(partial.start, &header, seal, &body, told);
        self.body = body;
        done
    }

    /// Checks what the header of a record at `start` says of it.
    fn check_header(&self, start: Lsn, header: &RecordHeader) -> Result<(), WalError> {
        let fail = |problem| Err(WalError { at: start, problem });
        let manager = header.resource_manager;
        let custom = manager >= RM_MIN_CUSTOM && self.config.version.has_custom_resource_managers();
        if manager > RM_MAX_BUILTIN && !custom {
            return fail(WalProblem::ResourceManager(manager));
        }
        if self.last_record.map_or(header.prev >= start, |last| header.prev != last) {
            return fail(WalProblem::PrevLink(header.prev));
        }
        Ok(())
    }

    /// A record that began at `start` is there up to the position. `seal` is the CRC of its content, `body` its body or the
    /// beginning of a large one.
    fn complete(
        &mut self,
        start: Lsn,
        header: &RecordHeader,
        seal: u32,
        body: &[u8],
        told: &mut Told<'_>,
    ) -> Result<(), WalError> {
        let RecordHeader { xid, prev, info, resource_manager, crc, total_length } = *header;
        if seal != crc {
            return Err(WalError { at: start, problem: WalProblem::Crc });
        }
        let version = self.config.version;
        let fail = |error: RecordError| WalError { at: start, problem: WalProblem::Record(error) };
        let length = u64::from(total_length).saturating_sub(RECORD_HEADER_SIZE as u64);
        let meaningful = matches!(resource_manager, RM_XLOG | RM_STANDBY)
            && (resource_manager, info & info::MASK) != (RM_XLOG, info::NOOP)
            && length <= MAX_KEPT_BODY as u64;
        let record = if meaningful {
            let body = body.to_vec();
            Record::decode(version, &XLogRecord { xid, prev, info, resource_manager, body }).map_err(fail)?
        } else {
            Record::Other { resource_manager, info }
        };
        let end = self.position.align_up(RECORD_ALIGNMENT);
        if let Some(on_record) = told {
            let layout = BodyLayout::decode(version, length, body).map_err(|error| fail(error.into()))?;
            on_record(ReadRecord { start, end, header: *header, record, layout });
        } else if !meaningful {
            BodyLayout::check(version, length, body).map_err(|error| fail(error.into()))?;
        }
        self.records += 1;
        self.last_record = Some(start);
        self.valid_to = end;
        self.tail = WalTail::Open;
        if header.is_switch() {
            self.tail = WalTail::Switch;
            if self.config.segment_size.offset_of(self.position) != 0 {
                self.phase = Phase::Empty { switched: true };
            }
        }
        Ok(())
    }
}

const _: () = assert!(MAX_LAYOUT_SIZE <= MAX_KEPT_BODY);
