//! A base backup from the first message to the last rename.

use std::sync::Arc;

use backstop_protocol::base_backup::manifest::PriorBackup;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use tokio::sync::watch;

use crate::connection::Connection;
use crate::connector::{Connector, Purpose};
use crate::error::ClientError;
use crate::incremental;
use crate::mutation::Mutation;
use crate::observer::{Observer, Phase};
use crate::options::{BackupOptions, Target, WalMethod};
use crate::profile_check::LeftOut;
use crate::receive::{read_end, read_start, read_tablespaces};
use crate::request::{self, Place};
use crate::session::{self, System};
use crate::sink::{self, Sink, SinkSettings, WalFiles};
use crate::slot::{self, Creation};
use crate::transfer::{Received, Transfer};
use crate::tree::Modes;
use crate::verify::Said;
use crate::wal_check::WalCheck;
use crate::wal_receiver::WalReceiver;

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
    /// Archives received: `16391.tar`, `base.tar.gz`.
    pub archives: Vec<String>,
    /// Bytes of them, unpacked.
    pub bytes: u64,
    /// Whether there is a manifest.
    pub manifest: bool,
    /// What an incremental backup by LSN left out.
    pub left_out: LeftOut,
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
    options.sync &= !options.weakness.is(Mutation::NeverSyncs);
    request::check_options(&options, &target)?;
    let place = Place::of(&target);
    observer.phase(&Phase::Connecting);
    let (login, limit) = (&options.login, options.deadlines.connect);
    let opening = Connection::open(&*connector, Purpose::Backup, login, limit, options.weakness, Arc::clone(&observer));
    let mut connection = opening.await?;
    connection.set_patience(options.deadlines.connect, Phase::Connecting);
    let creation = Creation::new();
    let mut backup = Backup {
        connector: &*connector,
        options: &options,
        observer: &observer,
        connection,
        place,
        creation: &creation,
    };
    let group = session::group_access(&mut backup.connection).await?;
    let mut sink = sink::open(target, backup.sink_settings(group))?;
    if !options.clean || options.weakness.is(Mutation::LeavesPartialTarget) {
        sink.keep();
    }
    // Whoever awaits this has a small future to carry around.
    let result = Box::pin(backup.run(&mut *sink)).await;
    if result.is_err()
        && options.clean
        && let Some(name) = creation.created().filter(|_| !options.weakness.is(Mutation::LeaksSlot))
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

struct Backup<'a> {
    connector: &'a dyn Connector,
    options: &'a BackupOptions,
    observer: &'a Arc<dyn Observer>,
    connection: Connection,
    creation: &'a Creation,
    place: Place,
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
            compression: self.options.compression.clone(),
            sync: self.options.sync,
            sync_method: self.options.sync_method,
            clock: Arc::clone(&self.options.clock),
            disk: Arc::clone(&self.options.disk),
            weakness: self.options.weakness,
        }
    }

    /// Learns what the server is, and gives it the manifest on which an incremental backup builds.
    async fn prepare(&mut self) -> Result<(System, Option<PriorBackup>), ClientError> {
        let system = session::identify(&mut self.connection).await?;
        let (version, flavour) = (self.connection.version(), self.connection.flavour());
        request::check_version(self.options, &self.place, version, flavour)?;
        if let Some(since) = self.options.incremental_from
            && since > system.position
        {
            return Err(ClientError::Refused(format!(
                "start position {since} of the incremental backup is in the future: the server's WAL ends at {}",
                system.position
            )));
        }
        let Some(manifest) = &self.options.incremental else { return Ok((system, None)) };
        self.observer.phase(&Phase::UploadingManifest);
        self.connection.set_patience(self.options.deadlines.data, Phase::UploadingManifest);
        let prior = incremental::upload(&mut self.connection, manifest, system.identifier).await?;
        Ok((system, Some(prior)))
    }

    async fn run(mut self, sink: &mut dyn Sink) -> Result<BackupSummary, ClientError> {
        let segment_size = session::segment_size(&mut self.connection).await?;
        let (system, prior) = self.prepare().await?;
        let version = self.connection.version();
        let deadlines = self.options.deadlines;

        self.observer.phase(&Phase::WaitingForCheckpoint);
        let command = request::command(self.options, &self.place, version);
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
            flavour: self.connection.flavour(),
            system_identifier: system.identifier,
            segment_size,
            label: self.options.label.clone(),
            start,
            end: start,
            builds_on_location: self.options.incremental_from,
            builds_on: prior.as_ref().map(|prior| prior.wal_ranges().to_vec()),
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
            creation: self.creation,
            end,
        });
        let (options, observer) = (self.options, self.observer);
        let transfer = Transfer::new(options, Arc::clone(observer), &self.place, sink, &tablespaces, &said, prior);
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
        let creation = self.creation;
        let main = async {
            let result = main.await;
            if result.is_err() {
                // Meanwhile the other connection goes on.
                creation.settled().await;
            }
            result
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
        let map_wanted = request::map_wanted(&self.place, version);
        let late = match received.check(options, &tablespaces, &said, map_wanted) {
            Err(error) if options.weakness.is(Mutation::PublishesUnverified) => Err(error),
            whole => Ok(whole?),
        };
        self.connection.terminate().await;
        publish(sink, wal_files, &received, options.sync && self.place.is_here(), observer).await?;
        let left_out = late?;
        if let Some(since) = options.incremental_from {
            let LeftOut { files, bytes } = left_out;
            observer.phase(&Phase::LeftOut { files, bytes, since });
        }
        Ok(BackupSummary {
            start: start.lsn,
            timeline: start.timeline,
            end: end.lsn,
            end_timeline: end.timeline,
            system_identifier: system.identifier,
            archives: received.archives,
            bytes: received.bytes,
            manifest: received.manifest.is_some()
                || (!self.place.is_here() && request::manifest_wanted(options, version)),
            left_out,
        })
    }
}

/// A check of the WAL from the start position on.
pub(crate) fn wal_check(said: &Said) -> WalCheck {
    WalCheck::streamed(said.version, said.system_identifier, said.segment_size, said.start.timeline, said.start.lsn)
}

/// Makes the backup one. Forcing it to disk can take long; whoever wants to drop this future meanwhile has a chance to.
async fn publish(
    sink: &mut dyn Sink,
    wal_files: Option<Box<dyn WalFiles>>,
    received: &Received,
    sync: bool,
    observer: &Arc<dyn Observer>,
) -> Result<(), ClientError> {
    if sync {
        observer.phase(&Phase::Syncing);
    }
    let mut wal_files = wal_files;
    if let Some(files) = &mut wal_files {
        files.finish()?;
        while sync && !files.sync_some()? {
            tokio::task::yield_now().await;
        }
    }
    if let Some(profile) = &received.profile {
        sink.profile(profile, received.manifest.is_some())?;
    }
    sink.finish(received.manifest.as_deref())?;
    while sync && !sink.sync_some()? {
        tokio::task::yield_now().await;
    }
    // The last chance: what follows makes it a backup.
    tokio::task::yield_now().await;
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
