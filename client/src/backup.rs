//! A base backup from the first message to the last rename.

use std::sync::{Arc, OnceLock};

use backstop_protocol::base_backup::manifest::ChecksumAlgorithm;
use backstop_protocol::base_backup::options::{
    self, BaseBackupOptions, Compression, CompressionAlgorithm, ManifestOption,
};
use backstop_protocol::base_backup::tar::{TarEvent, TarReader, Trailer};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use bytes::Bytes;
use tokio::sync::watch;

use crate::archive_check::ArchiveCheck;
use crate::connection::Connection;
use crate::connector::{Connector, Purpose};
use crate::contents::Contents;
use crate::error::{ClientError, shown};
use crate::mutation::{Mutation, Weakness};
use crate::observer::{Observer, Phase, Progress};
use crate::options::{BackupOptions, SlotOption, Target, WalMethod};
use crate::receive::{Part, Receiver, Tablespace, read_end, read_start, read_tablespaces};
use crate::session;
use crate::sink::{self, Sink, SinkSettings, WalFiles};
use crate::slot;
use crate::tree::Modes;
use crate::verify::{self, Said};
use crate::wal_check::WalCheck;
use crate::wal_receiver::WalReceiver;

/// No manifest is larger, in bytes: ten million files fit.
const MAX_MANIFEST: usize = 2 << 30;

/// What was backed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSummary {
    /// Where recovery begins.
    pub start: Lsn,
    /// On which timeline.
    pub timeline: TimelineId,
    /// Where recovery may end.
    pub end: Lsn,
    /// On which timeline.
    pub end_timeline: TimelineId,
    /// The cluster.
    pub system_identifier: u64,
    /// Archives received: `16391.tar`, `base.tar`.
    pub archives: Vec<String>,
    /// Bytes of them.
    pub bytes: u64,
    /// Whether there is a manifest.
    pub manifest: bool,
}

/// Takes a base backup.
///
/// Returns only when the backup is whole, agrees with itself and the server, is on disk (unless
/// [`sync`](BackupOptions::sync) says otherwise) and has its names. On any error, and when the future is dropped before, what
/// was made is removed (unless [`clean`](BackupOptions::clean) says otherwise).
///
/// # Errors
/// Whatever keeps the backup from being whole: see [`ClientError`].
pub async fn base_backup(
    connector: Arc<dyn Connector>,
    mut options: BackupOptions,
    observer: Arc<dyn Observer>,
) -> Result<BackupSummary, ClientError> {
    let target = std::mem::replace(&mut options.target, Target::Discard);
    check_options(&options, &target)?;
    let plain = matches!(target, Target::Plain { .. });
    observer.phase(&Phase::Connecting);
    let (login, limit) = (&options.login, options.deadlines.connect);
    let opening = Connection::open(&*connector, Purpose::Backup, login, limit, options.weakness, Arc::clone(&observer));
    let mut connection = opening.await?;
    connection.set_patience(options.deadlines.connect, Phase::Connecting);
    let created_slot = OnceLock::new();
    let mut backup = Backup {
        connector: &*connector,
        options: &options,
        observer: &observer,
        connection,
        plain,
        created_slot: &created_slot,
    };
    let group = session::group_access(&mut backup.connection).await?;
    let mut sink = sink::open(target, backup.sink_settings(group))?;
    if !options.clean || options.weakness.is(Mutation::LeavesPartialTarget) {
        sink.keep();
    }
    let result = backup.run(&mut *sink).await;
    if result.is_err()
        && options.clean
        && let Some(name) = created_slot.get().filter(|_| !options.weakness.is(Mutation::LeaksSlot))
    {
        slot::drop_created(&*connector, &options, &observer, name).await;
    }
    if result.is_err()
        && let Some(directory) = sink.directory()
    {
        let (path, existed) = (directory.path, directory.existed);
        observer.phase(&if options.clean {
            Phase::Removing { directory: path, contents_only: existed }
        } else {
            Phase::NotRemoving { directory: path }
        });
    }
    result
}

/// Refuses what cannot be followed before anybody is asked anything.
fn check_options(options: &BackupOptions, target: &Target) -> Result<(), ClientError> {
    let refuse = |problem: &str| Err(ClientError::Refused(problem.to_owned()));
    if matches!(target, Target::Stream(_)) && options.wal == WalMethod::Stream {
        return refuse("cannot stream write-ahead logs in tar mode to stdout");
    }
    if options.wal != WalMethod::Stream && matches!(options.slot, SlotOption::Named { .. }) {
        return refuse("replication slots can only be used with WAL streaming");
    }
    if options.label.contains('\0') {
        return refuse("backup label contains a zero byte");
    }
    Ok(())
}

struct Backup<'a> {
    connector: &'a dyn Connector,
    options: &'a BackupOptions,
    observer: &'a Arc<dyn Observer>,
    connection: Connection,
    plain: bool,
    created_slot: &'a OnceLock<String>,
}

impl Backup<'_> {
    fn sink_settings(&self, group: bool) -> SinkSettings {
        SinkSettings {
            version: self.connection.version(),
            modes: Modes::new(group),
            wal: self.options.wal,
            mapping: self.options.tablespace_mapping.clone(),
            unmapped: self.options.unmapped_tablespaces,
            recovery: self.options.recovery.clone(),
            sync: self.options.sync,
            clock: Arc::clone(&self.options.clock),
            disk: Arc::clone(&self.options.disk),
            weakness: self.options.weakness,
        }
    }

    fn manifest_wanted(&self) -> bool {
        self.options.manifest != ManifestOption::No && self.connection.version().has_manifest()
    }

    /// Archives that nobody unpacks want a `tablespace_map`; servers before 9.5 send links only.
    fn map_wanted(&self) -> bool {
        !self.plain && self.connection.version().has_tablespace_map()
    }

    /// BASE_BACKUP as this backup wants it.
    fn command(&self) -> String {
        let options = self.options;
        let version = self.connection.version();
        let wanted = BaseBackupOptions {
            label: options.label.clone(),
            progress: options.estimate_size,
            fast_checkpoint: options.fast_checkpoint,
            wal: options.wal == WalMethod::Fetch,
            wait: options.wal == WalMethod::None,
            incremental: false,
            max_rate: options.max_rate,
            tablespace_map: self.map_wanted(),
            verify_checksums: options.verify_checksums,
            manifest: if self.manifest_wanted() { options.manifest } else { ManifestOption::No },
            manifest_checksums: options.manifest_checksums,
            target: options::Target::Client,
            compression: Compression::plain(CompressionAlgorithm::None),
        };
        wanted.to_command(version).to_sql(version)
    }

    async fn run(mut self, sink: &mut dyn Sink) -> Result<BackupSummary, ClientError> {
        let segment_size = session::segment_size(&mut self.connection).await?;
        let system = session::identify(&mut self.connection).await?;
        let version = self.connection.version();
        let deadlines = self.options.deadlines;

        self.observer.phase(&Phase::WaitingForCheckpoint);
        let command = self.command();
        self.connection.set_doing("could not initiate base backup");
        self.connection.set_patience(deadlines.checkpoint, Phase::WaitingForCheckpoint);
        self.connection.query(&command).await?;
        let start = read_start(&mut self.connection, version).await?;
        self.observer.phase(&Phase::CheckpointCompleted { start: start.lsn, timeline: start.timeline });
        self.connection.set_doing("could not get backup header");
        self.connection.set_patience(deadlines.data, Phase::Receiving);
        let tablespaces = read_tablespaces(&mut self.connection).await?;
        sink.prepare(&tablespaces)?;
        let stream = self.options.wal == WalMethod::Stream;
        let mut wal_files = stream.then(|| sink.wal_files()).transpose()?;
        if !self.options.clean {
            sink.keep();
            if let Some(files) = &mut wal_files {
                files.keep();
            }
        }

        let said = Said {
            version,
            system_identifier: system.identifier,
            segment_size,
            label: self.options.label.clone(),
            start,
            end: start,
        };
        let (announce, end) = watch::channel(None);
        let check = wal_check(&said);
        let receiver = wal_files.as_mut().map(|files| WalReceiver {
            connector: self.connector,
            options: self.options,
            observer: Arc::clone(self.observer),
            system_identifier: system.identifier,
            version,
            segment_size,
            start,
            files: &mut **files,
            check,
            created_slot: self.created_slot,
            end,
        });
        let transfer = Transfer::new(&self, sink, &tablespaces, &said);
        let options = self.options;
        let observer = self.observer;
        let connection = &mut self.connection;
        let main = async {
            let mut transfer = transfer;
            transfer.receive(connection).await?;
            connection.set_patience(deadlines.finish, Phase::WaitingForEnd);
            observer.phase(&Phase::WaitingForEnd);
            let end = read_end(connection, version, start, |end| {
                observer.phase(&Phase::EndPosition { end: end.lsn });
                if stream {
                    observer.phase(&Phase::WaitingForWal);
                }
                announce.send_replace(Some(end));
            })
            .await?;
            Ok::<_, ClientError>((transfer.received(), end))
        };
        let wal = async {
            match receiver {
                Some(receiver) => receiver.run().await,
                None => Ok(()),
            }
        };
        // Whichever fails first ends both: without its WAL a backup is worth nothing, and the other way round.
        let ((), (received, end)) = tokio::try_join!(wal, main)?;

        let said = Said { end, ..said };
        let late = match received.check(options, &tablespaces, &said, self.map_wanted()) {
            Err(error) if options.weakness.is(Mutation::PublishesUnverified) => Err(error),
            whole => Ok(whole?),
        };
        self.connection.terminate().await;
        publish(sink, wal_files, &received, options, observer)?;
        late?;
        Ok(BackupSummary {
            start: start.lsn,
            timeline: start.timeline,
            end: end.lsn,
            end_timeline: end.timeline,
            system_identifier: system.identifier,
            archives: tablespaces.iter().map(Tablespace::archive_name).collect(),
            bytes: received.bytes,
            manifest: received.manifest.is_some(),
        })
    }
}

/// A check of the WAL from the start position on.
fn wal_check(said: &Said) -> WalCheck {
    WalCheck::streamed(said.version, said.system_identifier, said.segment_size, said.start.timeline, said.start.lsn)
}

/// Makes the backup one.
fn publish(
    sink: &mut dyn Sink,
    wal_files: Option<Box<dyn WalFiles>>,
    received: &Received,
    options: &BackupOptions,
    observer: &Arc<dyn Observer>,
) -> Result<(), ClientError> {
    if options.sync {
        observer.phase(&Phase::Syncing);
    }
    let mut wal_files = wal_files;
    if let Some(files) = &mut wal_files {
        files.finish(options.sync)?;
    }
    sink.finish(received.manifest.as_deref())?;
    if received.manifest.is_some() {
        observer.phase(&Phase::Publishing);
    }
    sink.publish()?;
    if let Some(files) = &mut wal_files {
        files.keep();
    }
    observer.phase(&Phase::Completed);
    Ok(())
}

/// The archives and the manifest on their way from the connection to the sink.
struct Transfer<'a> {
    sink: &'a mut dyn Sink,
    observer: Arc<dyn Observer>,
    tablespaces: &'a [Tablespace],
    receiver: Receiver,
    trailer: Trailer,
    reader: TarReader,
    check: ArchiveCheck,
    contents: Contents,
    /// The current archive, and the current member in it.
    archive: String,
    member: String,
    progress: Progress,
    manifest: Option<Vec<u8>>,
    events: Vec<TarEvent>,
    weakness: Weakness,
}

/// What arrived.
struct Received {
    contents: Contents,
    check: ArchiveCheck,
    manifest: Option<Vec<u8>>,
    bytes: u64,
}

impl<'a> Transfer<'a> {
    fn new(backup: &Backup, sink: &'a mut dyn Sink, tablespaces: &'a [Tablespace], said: &Said) -> Self {
        let version = said.version;
        let manifest = backup.manifest_wanted();
        let algorithm = if manifest { backup.options.manifest_checksums } else { ChecksumAlgorithm::None };
        let fetch = backup.options.wal == WalMethod::Fetch;
        let weakness = backup.options.weakness;
        let trailer = if version.sends_tar_trailer() && !weakness.is(Mutation::NeedsNoTrailer) {
            Trailer::Required
        } else {
            Trailer::Absent
        };
        let sizes: Option<Vec<u64>> = tablespaces.iter().map(|tablespace| tablespace.size).collect();
        let total = sizes.map(|sizes| sizes.into_iter().fold(0, u64::saturating_add).saturating_mul(1024));
        Self {
            sink,
            observer: Arc::clone(backup.observer),
            tablespaces,
            receiver: Receiver::new(version, tablespaces, manifest, weakness),
            trailer,
            reader: TarReader::new(trailer),
            check: ArchiveCheck::new(version, tablespaces.to_vec(), fetch, weakness),
            contents: Contents::new(version, said.segment_size, said.start, algorithm, wal_check(said).in_files()),
            archive: String::new(),
            member: String::new(),
            progress: Progress {
                done: 0,
                total: total.filter(|_| backup.options.estimate_size),
                tablespaces_done: 0,
                tablespaces: tablespaces.len(),
                archive: String::new(),
                member: None,
                finished: false,
            },
            manifest: None,
            events: Vec::new(),
            weakness,
        }
    }

    /// Receives everything that COPY carries.
    async fn receive(&mut self, connection: &mut Connection) -> Result<(), ClientError> {
        self.observer.phase(&Phase::Receiving);
        connection.set_doing("could not read COPY data");
        let mut parts = Vec::new();
        loop {
            let message = connection.receive().await?;
            let pushed = self.receiver.push(message, &mut parts);
            for part in parts.drain(..) {
                if part == Part::End {
                    self.progress.finished = true;
                    self.progress.member = None;
                    self.observer.progress(&self.progress);
                    return Ok(());
                }
                self.part(part)?;
            }
            pushed.map_err(|unexpected| connection.unexpected(unexpected.expected, unexpected.got))?;
        }
    }

    fn part(&mut self, part: Part) -> Result<(), ClientError> {
        match part {
            Part::ArchiveBegin(index) => {
                self.archive = self.tablespaces.get(index).map(Tablespace::archive_name).unwrap_or_default();
                self.progress.archive.clone_from(&self.archive);
                self.progress.member = None;
                self.member.clear();
                self.reader = TarReader::new(self.trailer);
                self.check.begin(index);
                self.sink.begin_archive(index)
            }
            Part::Data(bytes) => self.data(&bytes),
            Part::ArchiveEnd => self.end_archive(),
            Part::ManifestBegin => {
                self.manifest = Some(Vec::new());
                Ok(())
            }
            Part::ManifestData(bytes) => {
                let manifest = self.manifest.get_or_insert_default();
                if manifest.len() + bytes.len() > MAX_MANIFEST {
                    return Err(ClientError::Manifest("the backup manifest does not end".to_owned()));
                }
                manifest.extend_from_slice(&bytes);
                Ok(())
            }
            Part::End => Ok(()),
        }
    }

    /// An error about the current archive.
    fn archive_error(&self, problem: String) -> ClientError {
        let (archive, member) = (self.archive.clone(), self.member.clone());
        ClientError::Archive { archive, member, offset: self.reader.offset(), problem }
    }

    fn data(&mut self, bytes: &Bytes) -> Result<(), ClientError> {
        self.progress.done = self.progress.done.saturating_add(bytes.len() as u64);
        let mut events = std::mem::take(&mut self.events);
        let pushed = self.reader.push(bytes.clone(), &mut events);
        if self.weakness.is(Mutation::SkipsMemberAtBorder) {
            events.pop_if(|last| matches!(last, TarEvent::Member(_)));
        }
        for event in events.drain(..) {
            self.event(&event)?;
        }
        self.events = events;
        pushed.map_err(|error| self.archive_error(error.problem.to_string()))?;
        self.sink.raw(bytes)?;
        self.observer.progress(&self.progress);
        Ok(())
    }

    fn event(&mut self, event: &TarEvent) -> Result<(), ClientError> {
        match event {
            TarEvent::Member(header) => {
                self.member = shown(&header.name);
                let member = self.check.member(header).map_err(|problem| self.archive_error(problem))?;
                self.contents.begin(&member).map_err(|problem| self.archive_error(problem))?;
                self.progress.member = Some(shown(&member.path));
                if self.progress.tablespaces_done == 1
                    && self.progress.tablespaces > 2
                    && self.weakness.is(Mutation::ForgetsSecondTablespace)
                {
                    return Ok(());
                }
                self.sink.begin_member(header, &member)
            }
            TarEvent::Data(bytes) => {
                self.contents.data(bytes)?;
                self.sink.data(bytes)
            }
            TarEvent::MemberEnd => {
                self.contents.end();
                self.sink.end_member()
            }
            TarEvent::End => Ok(()),
        }
    }

    fn end_archive(&mut self) -> Result<(), ClientError> {
        let finished = self.reader.finish();
        finished.map_err(|error| self.archive_error(error.problem.to_string()))?;
        self.member.clear();
        let ended = self.check.end();
        ended.map_err(|problem| self.archive_error(problem))?;
        self.sink.end_archive()?;
        self.progress.tablespaces_done += 1;
        Ok(())
    }

    fn received(self) -> Received {
        let Self { contents, check, manifest, .. } = self;
        Received { contents, check, manifest, bytes: self.progress.done }
    }
}

impl Received {
    /// Requires that all of it is one whole backup.
    fn check(
        &self,
        options: &BackupOptions,
        tablespaces: &[Tablespace],
        said: &Said,
        map_wanted: bool,
    ) -> Result<(), ClientError> {
        if options.weakness.looks_once() {
            return Ok(());
        }
        verify::check_files(&self.contents, said)?;
        let unlinked = self.check.unlinked();
        verify::check_tablespaces(&self.contents, tablespaces, &unlinked, map_wanted, said.version)?;
        if options.wal == WalMethod::Fetch {
            self.contents.check_wal(said.end)?;
        }
        match &self.manifest {
            Some(_) if options.weakness.is(Mutation::LogsManifestMismatch) => Ok(()),
            Some(manifest) => verify::check_manifest(manifest, &self.contents, said),
            None => Ok(()),
        }
    }
}
