//! Connections and streams.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use backstop_protocol::base_backup::options::CompressionAlgorithm;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use tokio::sync::watch;
use tokio::time::Instant;

use super::archive::Archive;
use super::start::{self, Owner, Start};
use super::{ReceiveOptions, Trouble, WalEvent, WalObserver, slot};
use crate::connection::Connection;
use crate::connector::{Connector, Purpose};
use crate::error::ClientError;
use crate::mutation::Mutation;
use crate::observer::Phase;
use crate::session;
use crate::start_up::cancel_backup;
use crate::tree::Modes;
use crate::wal_stream;

/// `RECONNECT_SLEEP_TIME`
const PAUSE: Duration = Duration::from_secs(5);

/// The longest that telling the server to stop may take.
const CANCELLATION: Duration = Duration::from_secs(3);

/// Receives WAL into an archive, until the end position has come or `stop` holds true.
///
/// Returns an error if no other try could help, or if none shall be made. What the archive holds is sound then, too: complete
/// segments under their names, and the beginning of the next one as `….partial`.
pub async fn receive_wal(
    connector: &dyn Connector,
    options: &ReceiveOptions,
    observer: Arc<dyn WalObserver>,
    stop: watch::Receiver<bool>,
) -> Result<(), ClientError> {
    if options.compression.algorithm == CompressionAlgorithm::Zstd {
        return Err(ClientError::Refused("compression with ZSTD is not yet supported".to_owned()));
    }
    let archive = Archive::open(&options.directory, &options.compression, options.sync, Arc::clone(&options.disk))?;
    let mut receiver = Receiver {
        connector,
        options,
        observer,
        stop,
        archive,
        owner: None,
        previous: None,
        stopping: false,
        position: Lsn::INVALID,
        flushed: Lsn::INVALID,
        next_status: None,
    };
    receiver.run().await
}

/// Opens a connection for WAL, and learns the permissions of the server's files.
pub(super) async fn connect(
    connector: &dyn Connector,
    options: &ReceiveOptions,
    observer: Arc<dyn WalObserver>,
) -> Result<(Connection, Modes), ClientError> {
    let (limit, weakness) = (options.deadlines.connect, options.weakness);
    let opening = Connection::open(connector, Purpose::Wal, &options.login, limit, weakness, observer);
    let mut connection = opening.await?;
    connection.set_patience(options.deadlines.silence, Phase::WaitingForWal);
    let group = session::group_access(&mut connection).await?;
    Ok((connection, Modes::new(group)))
}

pub(super) struct Receiver<'a> {
    pub(super) connector: &'a dyn Connector,
    pub(super) options: &'a ReceiveOptions,
    pub(super) observer: Arc<dyn WalObserver>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) archive: Archive,
    /// Whose WAL this is, once a server has said so.
    pub(super) owner: Option<Owner>,
    /// The timeline and position at which it was last asked whether to stop.
    pub(super) previous: Option<(TimelineId, Lsn)>,
    /// Nothing more is wanted.
    pub(super) stopping: bool,
    /// Received and written up to here.
    pub(super) position: Lsn,
    /// Safe on disk up to here.
    pub(super) flushed: Lsn,
    /// When the server is told the next time.
    pub(super) next_status: Option<Instant>,
}

impl Receiver<'_> {
    async fn run(&mut self) -> Result<(), ClientError> {
        // Without a first connection nothing is known to be right: no second try.
        let Some(connection) =
            self.unless_stopped(connect(self.connector, self.options, Arc::clone(&self.observer))).await
        else {
            self.cancel().await;
            return Ok(());
        };
        let mut connection = Some(connection?);
        loop {
            let lost = match self.session(connection.take()).await {
                Ok(()) => return Ok(()),
                Err(Trouble::Fatal(error)) => return Err(error),
                Err(Trouble::Lost(error)) => error,
            };
            self.tell(&WalEvent::Failed { problem: lost.to_string() });
            match self.archive.leave() {
                Ok(_) => {}
                Err(Trouble::Lost(error)) => self.tell(&WalEvent::Failed { problem: error.to_string() }),
                Err(Trouble::Fatal(error)) => return Err(error),
            }
            if self.stopping || *self.stop.borrow() {
                return Ok(());
            }
            if !self.options.reconnect {
                return Err(ClientError::Refused("disconnected".to_owned()));
            }
            self.tell(&WalEvent::Waiting { pause: PAUSE });
            if self.unless_stopped(tokio::time::sleep(PAUSE)).await.is_none() {
                return Ok(());
            }
        }
    }

    pub(super) fn weak(&self, mutation: Mutation) -> bool {
        self.options.weakness.is(mutation)
    }

    pub(super) fn tell(&self, event: &WalEvent) {
        self.observer.event(event);
    }

    /// The result of `work`, or nothing if the caller asked to stop before.
    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            () = asked(&mut stop) => {
                self.tell(&WalEvent::Interrupted);
                None
            }
            done = work => Some(done),
        }
    }

    /// Tells the server that nobody waits for an answer any more.
    async fn cancel(&self) {
        let _ = tokio::time::timeout(CANCELLATION, cancel_backup(self.connector, &self.options.login)).await;
    }

    /// One connection, from its first command to its end.
    async fn session(&mut self, first: Option<(Connection, Modes)>) -> Result<(), Trouble> {
        let opened = match first {
            Some(opened) => Some(Ok(opened)),
            None => self.unless_stopped(connect(self.connector, self.options, Arc::clone(&self.observer))).await,
        };
        let Some(opened) = opened else {
            self.cancel().await;
            return Ok(());
        };
        let (mut connection, modes) = opened?;
        self.archive.set_modes(modes);
        let (options, before) = (self.options, self.owner);
        let Some(found) = self.unless_stopped(set_up(&mut connection, options, before)).await else {
            self.cancel().await;
            return Ok(());
        };
        let (owner, server) = found?;
        self.owner = Some(owner);
        let observer = Arc::clone(&self.observer);
        let found = start::find(&self.archive, owner, &mut |event| observer.event(&event)).map_err(Trouble::Fatal)?;
        let start = if let Some(start) = found {
            start
        } else {
            let asking = slot::start_of(&mut connection, options.slot.as_deref());
            let Some(asked) = self.unless_stopped(asking).await else {
                self.cancel().await;
                return Ok(());
            };
            asked?.unwrap_or(server)
        };
        if start.timeline > server.timeline {
            let text = format!("starting timeline {} is not present in the server", start.timeline);
            return Err(ClientError::Incomplete(text).into());
        }
        let mut position = owner.segment_size.round_down(start.position);
        let mut timeline = start.timeline;
        self.tell(&WalEvent::Starting { at: position, timeline });
        // Whoever lets us start there has it from us, or from somebody else who is responsible.
        self.flushed = position;
        loop {
            if !self.archive.has_history(timeline) {
                let content = wal_stream::history(&mut connection, timeline).await?;
                self.archive.store_history(timeline, &content)?;
            }
            self.position = position;
            if self.should_stop(timeline, false) {
                break;
            }
            match self.stream(&mut connection, owner, timeline).await? {
                None => break,
                Some(next) => {
                    timeline = next.timeline;
                    position = owner.segment_size.round_down(next.start);
                    self.flushed = self.flushed.min(position);
                }
            }
        }
        connection.terminate().await;
        Ok(())
    }

    /// Whether nothing more is wanted. Asked at the end of each segment and whenever something has come.
    pub(super) fn should_stop(&mut self, timeline: TimelineId, finished: bool) -> bool {
        let at = self.position;
        if finished {
            self.tell(&WalEvent::FinishedSegment { at, timeline });
        }
        if self.options.end.is_some_and(|end| end < at) {
            self.tell(&WalEvent::Stopped { at, timeline });
            self.stopping = true;
            return true;
        }
        // The position before, as this one is the beginning of a segment after a switch. It is close enough to be told.
        if let Some((before, at)) = self.previous.filter(|(before, _)| *before != timeline) {
            debug_assert!(before < timeline);
            self.tell(&WalEvent::SwitchedTimeline { at, timeline });
        }
        self.previous = Some((timeline, at));
        if *self.stop.borrow() {
            self.tell(&WalEvent::Interrupted);
            self.stopping = true;
        }
        self.stopping
    }
}

/// Who the server is, and where it is.
async fn set_up(
    connection: &mut Connection,
    options: &ReceiveOptions,
    before: Option<Owner>,
) -> Result<(Owner, Start), Trouble> {
    let fatal = |text: String| Trouble::Fatal(ClientError::Incomplete(text));
    let version = connection.version();
    if !version.has_timeline_history() {
        return Err(fatal(format!(
            "incompatible server version {}; client does not support streaming from server versions older than 9.3",
            version.name()
        )));
    }
    let system = session::identify(connection).await.map_err(Trouble::Fatal)?;
    if system.database.is_some() {
        let slot = options.slot.as_deref().unwrap_or_default();
        return Err(fatal(format!("replication connection using slot \"{slot}\" is unexpectedly database specific")));
    }
    let segment_size = session::segment_size(connection).await.map_err(Trouble::Fatal)?;
    let owner = Owner { version, system_identifier: system.identifier, segment_size };
    if before.is_some_and(|before| before.system_identifier != system.identifier) {
        let text = "system identifier does not match between this connection and the one before";
        return Err(fatal(text.to_owned()));
    }
    Ok((owner, Start { position: system.position, timeline: system.timeline }))
}

/// Waits until the caller asks to stop, for ever if nobody can ask any more.
pub(super) async fn asked(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
