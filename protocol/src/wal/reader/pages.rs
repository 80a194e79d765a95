//! What a page header must say.

use bytes::Buf;

use crate::lsn::Lsn;
use crate::timeline::TimelineId;
use crate::wal::page::{
    ALL_FLAGS, FIRST_IS_CONTRECORD, FIRST_IS_OVERWRITE_CONTRECORD, LONG_HEADER, LongHeader, WAL_PAGE_SIZE,
    WalPageHeader,
};

use super::{Phase, WalError, WalProblem, WalReader, WalTail};

impl WalReader {
    /// Checks a page header, as `XLogReaderValidatePageHeader` and `XLogDecodeNextRecord` do.
    pub(super) fn begin_page(&mut self, page: Lsn) -> Result<(), WalError> {
        let fail = |problem| Err(WalError { at: page, problem });
        if matches!(self.phase, Phase::Between) && self.page_header.iter().all(|&byte| byte == 0) {
            self.phase = Phase::Empty { switched: false };
            self.tail = WalTail::Zero;
            return Ok(());
        }
        let starts_segment = self.config.segment_size.offset_of(page) == 0;
        let field = |at| self.page_header.get(at..at + 2).map_or(0, |mut bits| bits.get_u16_le());
        let (magic, info) = (field(0), field(2));
        if magic != self.config.version.wal_page_magic() {
            return fail(WalProblem::Magic(magic));
        }
        if info & !ALL_FLAGS != 0 || (info & LONG_HEADER != 0) != starts_segment {
            return fail(WalProblem::InfoBits(info));
        }
        let Some(header) = WalPageHeader::decode(&self.page_header) else {
            return fail(WalProblem::InfoBits(info));
        };
        if let Some(LongHeader { system_identifier, segment_size, page_size }) = header.long {
            let expected = *self.config.system_identifier.get_or_insert(system_identifier);
            if expected != system_identifier {
                return fail(WalProblem::SystemIdentifier { expected, got: system_identifier });
            }
            if u64::from(segment_size) != self.config.segment_size.bytes() {
                return fail(WalProblem::SegmentSize(segment_size));
            }
            if u64::from(page_size) != WAL_PAGE_SIZE {
                return fail(WalProblem::PageSize(page_size));
            }
        }
        if header.address != page {
            return fail(WalProblem::PageAddress(header.address));
        }
        self.check_timeline(page, header.timeline)?;
        self.check_continuation(page, &header)
    }

    fn check_timeline(&mut self, page: Lsn, got: TimelineId) -> Result<(), WalError> {
        let fail = |expected| Err(WalError { at: page, problem: WalProblem::Timeline { expected, got } });
        if let Some(history) = &self.config.history {
            let ancestor = history.switches.iter().find(|switch| switch.at > page).map(|switch| switch.parent);
            let expected = ancestor.unwrap_or(self.config.timeline);
            if got != expected {
                return fail(expected);
            }
        } else if got < self.latest_timeline {
            return fail(self.latest_timeline);
        } else if got > self.config.timeline {
            return fail(self.config.timeline);
        }
        self.latest_timeline = got;
        Ok(())
    }

    fn check_continuation(&mut self, page: Lsn, header: &WalPageHeader) -> Result<(), WalError> {
        let fail = |problem| Err(WalError { at: page, problem });
        let continues = header.info & FIRST_IS_CONTRECORD != 0;
        let got = header.remaining;
        let expected = match &self.phase {
            Phase::Record(partial) => partial.left(),
            Phase::Skipping(left) => *left,
            _ => 0,
        };
        if expected > 0 && header.info & FIRST_IS_OVERWRITE_CONTRECORD != 0 {
            self.phase = Phase::Between;
        } else if expected > 0 && !continues {
            return fail(WalProblem::NoContrecord);
        } else if expected == 0 && page == self.config.start && continues && got > 0 {
            self.phase = Phase::Skipping(got.into());
        } else if u64::from(got) != expected || continues != (expected > 0) {
            return fail(WalProblem::ContrecordLength { expected, got });
        }
        Ok(())
    }
}
