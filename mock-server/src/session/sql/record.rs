//! The server's book of backups that are run with SQL.
//!
//! The session that begins a backup need not be the one that reads its files: sessions with the same `application_name` work for the
//! same backup.

use std::collections::BTreeMap;

use backstop_protocol::base_backup::options::{BaseBackupOptions, ServerFacts};
use backstop_protocol::diagnostic::Diagnostic;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;

use super::Session;
use crate::cluster::BackupEnd;
use crate::server::{BackupOutcome, BackupRecord, Found, SqlBackup};

impl Session {
    /// A backup has begun.
    pub(super) fn open_sql_record(
        &mut self,
        start: Lsn,
        start_timeline: TimelineId,
        label_text: String,
        exclusive: bool,
    ) -> Result<(), Diagnostic> {
        let facts = ServerFacts {
            flavour: self.shared.config.flavour,
            wal_summaries: false,
            writes_server_files: false,
            manifest_uploaded: false,
            gzip: false,
            lz4: false,
            zstd: false,
        };
        let options =
            BaseBackupOptions::from_command(&[], self.version, &facts).map_err(super::super::refused_option)?;
        let mut book = self.shared.book();
        let record = book.backups.len();
        book.backups.push(BackupRecord {
            session: self.seat.number,
            start,
            start_timeline,
            end: None,
            end_timeline: None,
            options,
            label_text,
            tablespaces: self.shared.cluster.tablespaces(),
            ended: BackupOutcome::Running,
            command_complete: false,
            client_terminated: false,
            found: BTreeMap::new(),
            profile: None,
        });
        let client = self.seat.identity().application_name;
        book.backups_by_sql.push(SqlBackup { client, exclusive, record });
        drop(book);
        if !exclusive {
            self.sql.record = Some(record);
        }
        Ok(())
    }

    /// It has ended; whether its end is told remains to be seen.
    pub(super) fn end_sql_record(&mut self, end: BackupEnd, exclusive: bool) {
        let own = self.sql.record.take();
        let mut book = self.shared.book();
        let ended = |backup: &SqlBackup| if exclusive { backup.exclusive } else { Some(backup.record) == own };
        let Some(place) = book.backups_by_sql.iter().position(ended) else { return };
        let record = book.backups_by_sql.remove(place).record;
        if let Some(backup) = book.backups.get_mut(record) {
            (backup.end, backup.end_timeline) = (Some(end.end), Some(end.timeline));
        }
        drop(book);
        self.sql.ended_record = Some(record);
    }

    /// The answer to the statement that ended it was said.
    pub(super) fn confirm_sql_record(&mut self) {
        if let Some(record) = self.sql.ended_record.take()
            && let Some(backup) = self.shared.book().backups.get_mut(record)
        {
            backup.ended = BackupOutcome::Complete;
            backup.command_complete = true;
        }
    }

    /// It will not end well. An exclusive backup goes on without its session.
    pub(in super::super) fn fail_sql_record(&mut self, why: &str) {
        let (running, ended) = (self.sql.record.take(), self.sql.ended_record.take());
        let mut book = self.shared.book();
        book.backups_by_sql.retain(|backup| Some(backup.record) != running);
        for record in running.into_iter().chain(ended) {
            if let Some(backup) = book.backups.get_mut(record) {
                backup.ended = BackupOutcome::Failed(why.to_owned());
            }
        }
    }

    /// Where the backup started for which this session reads files, if there is one.
    pub(super) fn start_of_sql_backup(&self) -> Option<Lsn> {
        let client = self.seat.identity().application_name;
        let book = self.shared.book();
        let backup = book.backups_by_sql.iter().rfind(|backup| backup.client == client)?;
        book.backups.get(backup.record).map(|record| record.start)
    }

    /// What a backup finds first stays true: from there on everything is as it was found.
    pub(super) fn note_found_by_sql(&self, path: &[u8], found: Found) {
        let client = self.seat.identity().application_name;
        let mut book = self.shared.book();
        let Some(record) = book.backups_by_sql.iter().rfind(|backup| backup.client == client) else { return };
        let record = record.record;
        if let Some(backup) = book.backups.get_mut(record) {
            backup.found.entry(path.to_vec()).or_insert(found);
        }
    }
}
