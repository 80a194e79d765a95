//! Verifying pages while their files are sent: `verify_page_checksum` of `basebackup.c`.
//!
//! The pages of a real data directory are verified; those of a synthetic cluster only if its configuration damages some, since all
//! others are right by construction.

use backstop_protocol::backend::{Diagnostic, SqlState};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::page::{BLOCK_SIZE, PageCheck, PageHeader, verify};

use backstop_protocol::base_backup::relation::RelationFile;

/// Blocks in a segment of a relation: `RELSEG_SIZE`.
const SEGMENT: u32 = 131_072;

/// Failures of one file that are reported one by one.
const REPORTED: u64 = 5;

/// The pages of one file.
#[derive(Debug)]
pub(super) struct Verifier {
    /// As in messages: `./base/5/16407`.
    name: String,
    /// The backup's start: newer pages are restored from WAL.
    start: Lsn,
    /// The relation's block with which this file begins.
    first_block: u32,
    /// Whether a page of it can be wrong at all.
    doubts: bool,
    /// Whether all of it came in whole pages so far.
    aligned: bool,
    pub(super) failures: u64,
}

impl Verifier {
    /// A verifier for the file at `path` below the data directory, if it is one of a relation. Without `doubts` pages are right by
    /// construction.
    pub(super) fn new(path: &[u8], start: Lsn, doubts: bool) -> Option<Self> {
        let file = RelationFile::parse(path)?;
        let first_block = file.segment.checked_mul(SEGMENT)?;
        let path = str::from_utf8(path).ok()?;
        Some(Self { name: format!("./{path}"), start, first_block, doubts, aligned: true, failures: 0 })
    }

    /// Looks at the bytes of the file from block `block` on, whole pages but for its end. What is to be reported.
    pub(super) fn check(&mut self, block: u32, piece: &[u8]) -> Vec<Diagnostic> {
        let mut reports = Vec::new();
        let (pages, rest) = piece.as_chunks::<BLOCK_SIZE>();
        if self.aligned && !rest.is_empty() {
            self.aligned = false;
            reports.push(format!(
                "could not verify checksum in file \"{}\", block {block}: read buffer size {} and page size {BLOCK_SIZE} differ",
                self.name,
                piece.len()
            ));
        }
        let pages = if self.aligned && self.doubts { pages } else { &[] };
        for (page, block) in pages.iter().zip(block..) {
            let newer = PageHeader::parse(page).lsn >= self.start;
            let check = verify(page, self.first_block.wrapping_add(block));
            if let (false, PageCheck::Mismatch { calculated, expected }) = (newer, check) {
                self.failures += 1;
                if self.failures <= REPORTED {
                    let name = &self.name;
                    reports.push(format!(
                        "checksum verification failed in file \"{name}\", block {block}: calculated {calculated:X} but \
                         expected {expected:X}"
                    ));
                }
                if self.failures == REPORTED {
                    let name = &self.name;
                    reports.push(format!(
                        "further checksum verification failures in file \"{name}\" will not be reported"
                    ));
                }
            }
        }
        reports.into_iter().map(warning).collect()
    }

    /// The summary at the end of a file with several failures.
    pub(super) fn finish(&self) -> Option<Diagnostic> {
        let Self { name, failures, .. } = self;
        let summary = || warning(format!("file \"{name}\" has a total of {failures} checksum verification failures"));
        (*failures > 1).then(summary)
    }
}

/// A WARNING of class 01000.
pub(super) fn warning(message: String) -> Diagnostic {
    Diagnostic::warning(SqlState::WARNING, message)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use backstop_protocol::control::{ControlFile, DbState};
    use backstop_protocol::page::set_checksum;
    use backstop_protocol::timeline::TimelineId;
    use backstop_protocol::version::ServerVersion;
    use backstop_protocol::wal::log::{WalLog, WalLogConfig};
    use backstop_protocol::wal_file::WalSegmentSize;

    use super::*;
    use crate::config::{Config, DamagedPages, Source};
    use crate::server::{BackupOutcome, Server};
    use crate::testing::{Client, End, diagnostics, tags};

    #[test]
    fn a_segment_goes_on_counting_blocks() {
        let mut page = [0; BLOCK_SIZE];
        PageHeader::empty(Lsn(8)).write(&mut page);
        set_checksum(&mut page, SEGMENT);
        let mut verifier = Verifier::new(b"base/5/16407.1", Lsn(0x100), true).unwrap();
        assert!(verifier.check(0, &page).is_empty());
        // The same page as the block after, and a page that WAL will restore.
        assert_eq!(verifier.check(1, &page).len(), 1);
        PageHeader::empty(Lsn(0x100)).write(&mut page);
        assert!(verifier.check(2, &page).is_empty());
    }

    #[test]
    fn a_file_of_no_whole_pages_is_told_once_and_not_looked_at() {
        let mut verifier = Verifier::new(b"base/5/16407", Lsn(0x100), true).unwrap();
        let text =
            |reports: Vec<Diagnostic>| -> Vec<String> { reports.into_iter().map(|report| report.message).collect() };
        let wrong = vec![7; 2 * BLOCK_SIZE + 3];
        assert_eq!(
            text(verifier.check(4, &wrong)),
            [
                "could not verify checksum in file \"./base/5/16407\", block 4: read buffer size 16387 and page size 8192 differ"
            ]
        );
        assert!(verifier.check(6, &wrong).is_empty());
        assert_eq!((verifier.failures, verifier.finish()), (0, None));
    }

    /// A stopped server of version 18 whose one table has eight damaged pages.
    fn damaged(root: &Path) {
        for directory in ["base/5", "global", "pg_tblspc", "pg_wal"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::write(root.join("PG_VERSION"), "18\n").unwrap();
        let (version, timeline, system_identifier) = (ServerVersion::V18, TimelineId(1), 7_710_437_665_680_982_376);
        let segment_size = WalSegmentSize::new(1 << 20).unwrap();
        let (start, prev) = (Lsn(0x10_0028), Lsn(0));
        let log = WalLogConfig { version, system_identifier, timeline, segment_size, start, prev, seed: 9 };
        let mut log = WalLog::new(log).unwrap();
        log.fill(5000);
        let shutdown = log.shutdown_checkpoint();
        let mut segment = vec![0; 1 << 20];
        log.read_zero_filled(Lsn(0x10_0000), &mut segment).unwrap();
        fs::write(root.join("pg_wal/000000010000000000000001"), segment).unwrap();
        let control = ControlFile {
            state: DbState::ShutDown,
            checkpoint: shutdown.checkpoint,
            checkpoint_copy: shutdown.checkpoint_copy,
            wal_segment_size: segment_size,
            data_checksum_version: 1,
            ..ControlFile::new(version, system_identifier, timeline)
        };
        fs::write(root.join("global/pg_control"), control.encode()).unwrap();
        let mut table = Vec::new();
        for block in 0..20 {
            let mut page = [0; BLOCK_SIZE];
            PageHeader::empty(Lsn(8)).write(&mut page);
            set_checksum(&mut page, block);
            if (1..=8).contains(&block) {
                page[5000] ^= 1;
            }
            table.extend_from_slice(&page);
        }
        fs::write(root.join("base/5/16407"), table).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn damaged_pages_are_reported_and_fail_the_backup_at_its_end() {
        let root = tempfile::tempdir().unwrap();
        damaged(root.path());
        let source = Source::Directory(root.path().to_owned());
        let server = Server::new(Config { source, ..Config::default() }).unwrap();
        let mut client = Client::start(&server, "test").await;
        let (messages, end) = client.query("BASE_BACKUP (CHECKPOINT 'fast', WAIT false)").await;
        // As recorded: three WARNINGs, a message of data, three more; the end position before the ERROR.
        assert_eq!((tags(&messages).as_str(), end), ("TDCTDCHdNNNdNNNdNdcTDCNEZ", End::Ready));
        let told: Vec<_> = diagnostics(&messages)
            .into_iter()
            .map(|text| text.split(": calculated").next().unwrap_or_default().to_owned())
            .collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        WARNING 01000: checksum verification failed in file "./base/5/16407", block 1
        WARNING 01000: checksum verification failed in file "./base/5/16407", block 2
        WARNING 01000: checksum verification failed in file "./base/5/16407", block 3
        WARNING 01000: checksum verification failed in file "./base/5/16407", block 4
        WARNING 01000: checksum verification failed in file "./base/5/16407", block 5
        WARNING 01000: further checksum verification failures in file "./base/5/16407" will not be reported
        WARNING 01000: file "./base/5/16407" has a total of 8 checksum verification failures
        WARNING 01000: 8 total checksum verification failures
        ERROR XX001: checksum verification failure during base backup
        "#);
        let failed = "checksum verification failure during base backup".to_owned();
        assert_eq!(server.backups()[0].ended, BackupOutcome::Failed(failed));
        let (messages, end) = client.query("BASE_BACKUP (CHECKPOINT 'fast', WAIT false, VERIFY_CHECKSUMS false)").await;
        assert_eq!((tags(&messages).as_str(), end), ("TDCTDCHdcTDCCZ", End::Ready));
    }

    #[tokio::test(start_paused = true)]
    async fn damage_of_a_synthetic_cluster_is_told_file_by_file() {
        let damage = |path: &str, blocks: &[u32]| DamagedPages { path: path.to_owned(), blocks: blocks.to_vec() };
        let damaged_pages = vec![
            damage("base/16384/16385", &[9, 3, 3, 4, 5, 20, 1]),
            damage("global/1260", &[0]),
            damage("pg_tblspc/16400/PG_12_201909212/16384/16401", &[2, 0]),
        ];
        let config = crate::testing::config(ServerVersion::V12, vec![]);
        let server = Server::new(Config { damaged_pages, size: 2 << 20, ..config.clone() }).unwrap();
        let mut client = Client::start(&server, "test").await;
        let (messages, end) = client.query("BASE_BACKUP FAST NOWAIT").await;
        assert_eq!(end, End::Ready);
        let told: Vec<_> = diagnostics(&messages)
            .into_iter()
            .map(|text| text.split(": calculated").next().unwrap_or_default().to_owned())
            .collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        WARNING 01000: checksum verification failed in file "./pg_tblspc/16400/PG_12_201909212/16384/16401", block 0
        WARNING 01000: checksum verification failed in file "./pg_tblspc/16400/PG_12_201909212/16384/16401", block 2
        WARNING 01000: file "./pg_tblspc/16400/PG_12_201909212/16384/16401" has a total of 2 checksum verification failures
        WARNING 01000: checksum verification failed in file "./base/16384/16385", block 1
        WARNING 01000: checksum verification failed in file "./base/16384/16385", block 3
        WARNING 01000: checksum verification failed in file "./base/16384/16385", block 4
        WARNING 01000: checksum verification failed in file "./base/16384/16385", block 5
        WARNING 01000: checksum verification failed in file "./base/16384/16385", block 9
        WARNING 01000: further checksum verification failures in file "./base/16384/16385" will not be reported
        WARNING 01000: file "./base/16384/16385" has a total of 6 checksum verification failures
        WARNING 01000: checksum verification failed in file "./global/1260", block 0
        WARNING 01000: 9 total checksum verification failures
        ERROR XX001: checksum verification failure during base backup
        "#);
        let (messages, end) = client.query("BASE_BACKUP FAST NOWAIT NOVERIFY_CHECKSUMS").await;
        assert_eq!((diagnostics(&messages), end), (Vec::new(), End::Ready));
        // Without checksums there is nothing to verify.
        let damaged_pages = vec![damage("base/16384/16385", &[1])];
        let server = Server::new(Config { checksums: false, damaged_pages, size: 2 << 20, ..config }).unwrap();
        let mut client = Client::start(&server, "test").await;
        let (messages, _) = client.query("BASE_BACKUP FAST NOWAIT").await;
        assert_eq!(diagnostics(&messages), Vec::<String>::new());
    }
}
