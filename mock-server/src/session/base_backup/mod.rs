//! BASE_BACKUP.
//!
//! The order of things is that of `perform_base_backup`, in both generations of the protocol: since 15 one COPY whose messages
//! say which archive they belong to, before one COPY for each archive. Here is the frame: positions, the list, notices, the end.
//! `archive` sends archives and their members, which `member` reads; `data` sends bytes and is where faults strike them,
//! `compress` stands between the two since 15, `store` takes the bytes with TARGET 'server', `incremental` (17) finds what
//! changed since the backup before, `profile` which files did where backups are incremental by LSN, `manifest` writes the manifest while files are sent, into a `spool`.

mod archive;
mod changed;
mod checksums;
mod compress;
mod data;
mod incremental;
mod manifest;
mod member;
mod profile;
mod spool;
mod store;

use std::collections::BTreeMap;

use backstop_protocol::backend::{BackendMessage, Column, Diagnostic, SqlState};
use backstop_protocol::base_backup::archive::ArchiveMessage;
use backstop_protocol::base_backup::manifest::WalRange;
use backstop_protocol::base_backup::options::{BaseBackupOptions, ManifestOption, ServerFacts, Target};
use backstop_protocol::command::CommandOption;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use bytes::BytesMut;
use tokio::time::Instant;

use self::data::Flow;
use self::incremental::Incremental;
use self::manifest::ManifestInProgress;
use self::profile::ProfileInProgress;
use self::store::Store;
use super::output::{INT8, OID, TEXT, column, value};
use super::throttle::Throttle;
use super::{Session, Stop};
use crate::cluster::{BackupEnd, KeptWal, RunningBackup, Tablespace};
use crate::fault::Moment;
use crate::server::{BackupOutcome, BackupRecord};

/// A base backup on its way.
#[derive(Debug)]
struct Backup {
    options: BaseBackupOptions,
    /// Until it is stopped.
    running: Option<RunningBackup>,
    /// Appended WAL is read when the backup has been stopped.
    _wal: KeptWal,
    label_text: String,
    start: Lsn,
    start_timeline: TimelineId,
    tablespaces: Vec<Tablespace>,
    /// What it builds on.
    incremental: Option<Incremental>,
    manifest: Option<ManifestInProgress>,
    /// Where the server is built to send one.
    profile: Option<ProfileInProgress>,
    throttle: Option<Throttle>,
    /// With TARGET 'server'.
    store: Option<Store>,
    /// Bytes of all archives so far.
    done: u64,
    /// When the client was told last, and how much when that was last considered.
    last_progress: Instant,
    done_at_last_check: u64,
    /// The archive, or the manifest, that is being sent.
    flow: Flow,
    /// Whether pages are verified, and how many were wrong.
    verifies: bool,
    checksum_failures: u64,
    /// Faults: the archive is not sent at all, or without its two zero blocks.
    omitted: bool,
    without_trailer: bool,
}

impl Session {
    /// Sends a base backup.
    pub(super) async fn base_backup(&mut self, options: &[CommandOption]) -> Result<(), Stop> {
        if self.sql.backup_runs() {
            let message = "a backup is already in progress in this session";
            return Err(Diagnostic::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message).into());
        }
        let wal_summaries = self.shared.cluster.summarizes_wal();
        let built_with = self.shared.cluster.compression();
        let flavour = self.shared.config.flavour;
        let facts = ServerFacts {
            flavour,
            wal_summaries,
            writes_server_files: self.writes_server_files(),
            manifest_uploaded: self.uploaded.is_some(),
            gzip: built_with.gzip,
            lz4: built_with.lz4,
            zstd: built_with.zstd,
        };
        let options = BaseBackupOptions::from_command(options, self.version, &facts)?;
        let prior = self.uploaded.clone().filter(|_| options.incremental);
        let store = match &options.target {
            Target::Server(directory) => Some(Store::new(self.shared.cluster.server_files(), directory)?),
            Target::Client | Target::Blackhole => None,
        };
        let mut running = self.shared.cluster.start_backup(&options.label, options.fast_checkpoint)?;
        self.backup_runs = true;
        let tablespaces = self.shared.cluster.tablespaces();
        self.open_record(&running, &options, &tablespaces);
        let incremental = match prior {
            Some(prior) => Some(self.prepare_incremental(prior, &mut running).await?),
            None => None,
        };
        if let Some(since) = options.incremental_from {
            Self::build_on_location(since, &mut running)?;
        }
        self.edit_record(|record| record.label_text.clone_from(&running.label_text));
        let running_label = running.label_text.clone();
        let mut backup = Backup {
            label_text: running_label.clone(),
            start: running.start,
            start_timeline: running.timeline,
            _wal: running.keep_wal(),
            running: Some(running),
            tablespaces,
            incremental,
            manifest: (options.manifest != ManifestOption::No).then(|| {
                let force_encode = options.manifest == ManifestOption::ForceEncode;
                let system_identifier = self.shared.cluster.system_identifier();
                ManifestInProgress::new(self.version, system_identifier, options.manifest_checksums, force_encode)
            }),
            profile: flavour.sends_profile().then(|| ProfileInProgress::new(&running_label)),
            store,
            throttle: options.max_rate.map(|rate| Throttle::new(u64::from(rate) * 1024)),
            done: 0,
            last_progress: Instant::now(),
            done_at_last_check: 0,
            flow: Flow::default(),
            verifies: options.verify_checksums
                && self.version.verifies_checksums()
                && self.shared.cluster.data_checksums(),
            checksum_failures: 0,
            omitted: false,
            without_trailer: false,
            options,
        };
        self.send_backup(&mut backup).await
    }

    async fn send_backup(&mut self, backup: &mut Backup) -> Result<(), Stop> {
        self.position(Moment::StartPosition, backup.start, backup.start_timeline).await?;
        self.tablespace_list(backup).await?;
        let one_copy = self.version.has_archive_stream();
        if one_copy {
            self.emit(Moment::CopyBegin, vec![BackendMessage::CopyOutResponse]).await?;
        }
        for tablespace in backup.tablespaces.clone() {
            self.tablespace_archive(backup, &tablespace).await?;
        }
        let end = self.base_archive(backup).await?;
        self.send_profile(backup).await?;
        if let Some(manifest) = backup.manifest.take() {
            let ranges = self.wal_ranges(backup, end);
            self.send_manifest(backup, manifest, &ranges).await?;
        }
        if one_copy {
            self.emit(Moment::CopyDone, vec![BackendMessage::CopyDone]).await?;
        }
        self.position(Moment::EndPosition, end.end, end.timeline).await?;
        // The backup has arrived as a whole; that it is bad is said last.
        if backup.checksum_failures > 1 {
            let summary = format!("{} total checksum verification failures", backup.checksum_failures);
            self.send(BackendMessage::NoticeResponse(checksums::warning(summary))).await?;
        }
        if backup.checksum_failures > 0 {
            let message = "checksum verification failure during base backup";
            return Err(Diagnostic::error(SqlState::DATA_CORRUPTED, message).into());
        }
        Ok(())
    }

    /// Whether the role has the privileges of `pg_write_server_files`.
    fn writes_server_files(&self) -> bool {
        self.superuser || self.shared.access.is_member(&self.user, "pg_write_server_files")
    }

    /// `do_pg_backup_stop`, and what it says about archiving.
    async fn stop_backup(&mut self, backup: &mut Backup) -> Result<BackupEnd, Stop> {
        let Some(running) = backup.running.take() else {
            let message = "a backup is not in progress";
            return Err(Diagnostic::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message).into());
        };
        let standby = self.shared.cluster.in_recovery();
        let end = self.shared.cluster.stop_backup(running)?;
        self.backup_runs = false;
        self.edit_record(|record| (record.end, record.end_timeline) = (Some(end.end), Some(end.timeline)));
        if backup.options.wait {
            self.wait_for_archiving(standby).await?;
        }
        Ok(end)
    }

    /// The result set of the start or the end position.
    async fn position(&mut self, moment: Moment<'_>, position: Lsn, timeline: TimelineId) -> Result<(), Stop> {
        let precise = self.version.describes_rows_precisely();
        let modifier = if precise { -1 } else { 0 };
        let mut columns = vec![column("recptr", TEXT, modifier)];
        let mut row = vec![Some(value(position))];
        if self.version.has_timeline_history() {
            let tli = column("tli", INT8, modifier);
            columns.push(if precise { tli } else { Column { type_len: -1, ..tli } });
            row.push(Some(value(timeline)));
        }
        self.result_set(moment, columns, vec![row]).await
    }

    /// The list of tablespaces, the base directory last.
    async fn tablespace_list(&mut self, backup: &Backup) -> Result<(), Stop> {
        let modifier = if self.version.describes_rows_precisely() { -1 } else { 0 };
        let columns = vec![
            column("spcoid", OID, modifier),
            column("spclocation", TEXT, modifier),
            column("size", INT8, modifier),
        ];
        let cluster = &self.shared.cluster;
        let size = |oid| backup.options.progress.then(|| value(cluster.tablespace_size(oid) / 1024));
        let mut rows: Vec<_> = backup
            .tablespaces
            .iter()
            .map(|tablespace| {
                let (oid, location) = (value(tablespace.oid), value(&tablespace.location));
                vec![Some(oid), Some(location), size(Some(tablespace.oid))]
            })
            .collect();
        rows.push(vec![None, None, size(None)]);
        self.result_set(Moment::TablespaceList, columns, rows).await
    }

    async fn result_set(
        &mut self,
        moment: Moment<'_>,
        columns: Vec<Column>,
        rows: Vec<Vec<Option<bytes::Bytes>>>,
    ) -> Result<(), Stop> {
        let mut messages = vec![BackendMessage::RowDescription(columns)];
        messages.extend(rows.into_iter().map(BackendMessage::DataRow));
        messages.push(BackendMessage::CommandComplete("SELECT".to_owned()));
        self.emit(moment, messages).await.map(drop)
    }

    /// Sends one message of the archive stream that carries no data.
    async fn archive_message(&mut self, message: &ArchiveMessage, what: &str) -> Result<(), Stop> {
        let mut payload = BytesMut::new();
        message.encode(&mut payload);
        self.put("CopyData", what, 0, false, |out| super::output::write_data(out, &payload, &[])).await
    }

    /// The WAL that the backup needs, newest timeline first.
    fn wal_ranges(&self, backup: &Backup, end: BackupEnd) -> Vec<WalRange> {
        let history = self.shared.cluster.history(end.timeline).unwrap_or_default();
        let mut ranges = Vec::new();
        let (mut timeline, mut until) = (end.timeline, end.end);
        for switch in history.switches.iter().rev() {
            if timeline == backup.start_timeline {
                break;
            }
            ranges.push(WalRange { timeline, start: switch.at, end: until });
            (timeline, until) = (switch.parent, switch.at);
        }
        ranges.push(WalRange { timeline, start: backup.start, end: until });
        ranges
    }

    /// Adds to what the server's book says of the backup.
    pub(super) fn edit_record(&self, edit: impl FnOnce(&mut BackupRecord)) {
        if let Some(record) = self.record
            && let Some(record) = self.shared.book().backups.get_mut(record)
        {
            edit(record);
        }
    }

    fn open_record(&mut self, running: &RunningBackup, options: &BaseBackupOptions, tablespaces: &[Tablespace]) {
        let mut book = self.shared.book();
        self.record = Some(book.backups.len());
        book.backups.push(BackupRecord {
            session: self.seat.number,
            start: running.start,
            start_timeline: running.timeline,
            end: None,
            end_timeline: None,
            options: options.clone(),
            label_text: running.label_text.clone(),
            tablespaces: tablespaces.to_vec(),
            ended: BackupOutcome::Running,
            command_complete: false,
            client_terminated: false,
            found: BTreeMap::new(),
            profile: None,
        });
    }
}

impl Backup {
    /// Whether bytes of archives reach the client.
    fn to_client(&self) -> bool {
        self.options.target == Target::Client
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::version::ServerVersion;

    use crate::testing::{Client, End, server, tags};

    #[tokio::test(start_paused = true)]
    async fn messages_come_in_the_order_of_the_recordings() {
        let full =
            "BASE_BACKUP ( LABEL 'full',  PROGRESS,  CHECKPOINT 'fast',  WAIT 0,  MANIFEST 'yes',  TARGET 'client')";
        let old = "BASE_BACKUP LABEL 'full' PROGRESS FAST NOWAIT";
        for (version, command, expected) in [
            (ServerVersion::V12, old, "TDCTDDCHdcHdcTDCCZ"),
            (ServerVersion::V14, "BASE_BACKUP FAST NOWAIT MANIFEST 'yes'", "TDCTDDCHdcHdcHdcTDCCZ"),
            (ServerVersion::V14, "BASE_BACKUP FAST", "TDCTDDCHdcHdcNTDCCZ"),
            (ServerVersion::V14, "BASE_BACKUP FAST WAL", "TDCTDDCHdcHdNdcTDCCZ"),
            (ServerVersion::V18, full, "TDCTDDCHdcTDCCZ"),
            (ServerVersion::V18, "BASE_BACKUP (CHECKPOINT 'fast')", "TDCTDDCHdNcTDCCZ"),
            (ServerVersion::V18, "BASE_BACKUP (CHECKPOINT 'fast', WAL)", "TDCTDDCHdNdcTDCCZ"),
        ] {
            let server = server(version, vec![]);
            let mut client = Client::start(&server, "test").await;
            let (messages, end) = client.query(command).await;
            assert_eq!((tags(&messages).as_str(), end), (expected, End::Ready), "{version} {command}");
        }
    }
}
