//! A parallel backup from the first session to the last rename.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use backstop_protocol::base_backup::label::BackupLabel;
use backstop_protocol::base_backup::profile::{CHECKSUM_FILE_NAME, FILE_NAME, checksum_file};
use backstop_protocol::base_backup::tablespace_map::TablespaceMap;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::Flavour;
use backstop_protocol::wal_file::WalFileName;
use tokio::sync::watch;

use super::fetch::{Crew, Totals};
use super::fetched::{Fetched, Outcome};
use super::listing::{self, Listing};
use super::place::{Place, lock};
use super::session::{Opener, Server, Session, Stopped};
use super::wal::{End, WalLoop, WalTotals};
use super::{ParallelOptions, ParallelSummary, force, profile};
use crate::archive_check::wal_segment;
use crate::compression::ArchiveCompression;
use crate::connector::{Connector, Purpose};
use crate::error::{ClientError, shown};
use crate::observer::{Observer, Phase};
use crate::options::WalMethod;
use crate::receive::{Position, Tablespace};
use crate::sink::{CONTROL_UNPUBLISHED, Plain, Sink, SinkSettings};
use crate::tree::Modes;
use crate::verify::{self, Said};

/// Takes a backup, unless `canceled` ends first, which says by what.
///
/// Returns only when the backup is whole, agrees with itself and the server, is on disk (unless
/// [`sync`](ParallelOptions::sync) says otherwise) and has its names. On any error, and when the future is dropped before, what
/// was made is removed. An exclusive backup (before 9.6) is stopped on the server after an error, but not when the future is
/// dropped.
///
/// # Errors
/// Whatever keeps the backup from being whole: see [`ClientError`].
pub async fn parallel_backup(
    connector: &dyn Connector,
    options: &ParallelOptions,
    observer: Arc<dyn Observer>,
    canceled: impl Future<Output = &'static str> + Send,
) -> Result<ParallelSummary, ClientError> {
    let opener = Opener { connector, options, observer: &observer };
    let stopped = async {
        let name = canceled.await;
        ClientError::Refused(format!("canceled by {name} signal"))
    };
    tokio::pin!(stopped);
    observer.phase(&Phase::Connecting);
    let (mut hold, server) = tokio::select! {
        biased;
        opened = opener.open(Purpose::Backup, "backup") => opened?,
        error = &mut stopped => return Err(error),
    };
    if server.in_recovery && !server.version.has_non_exclusive_backup() {
        let text = format!("release {} takes no such backups from standbys", server.version);
        return Err(ClientError::Refused(text));
    }
    let place = open_place(options, &server)?;
    let existed = place.directory().is_some_and(|directory| directory.existed);
    let place = Mutex::new(place);
    let mut backup = Backup { opener, server: &server, place: &place, started: None };
    let result = tokio::select! {
        biased;
        result = backup.run(&mut hold) => result,
        error = &mut stopped => Err(error),
    };
    if result.is_err() {
        if backup.started.is_some() && !server.version.has_non_exclusive_backup() {
            // Nobody else would.
            let stopped = async {
                let (mut session, _) = opener.open(Purpose::Backup, "stop").await?;
                session.stop(false).await
            };
            if let Err(error) = stopped.await {
                observer.warning(&format!("the server may still be in backup mode: {error}"));
            }
        }
        observer.phase(&Phase::Removing { directory: options.directory.clone(), contents_only: existed });
        return result;
    }
    hold.terminate().await;
    if options.sync {
        observer.phase(&Phase::Syncing);
    }
    let mut place = place.into_inner().unwrap_or_else(PoisonError::into_inner);
    let durable = async {
        place.finish(None)?;
        while options.sync && !place.sync_some()? {
            tokio::task::yield_now().await;
        }
        // The last chance: what follows makes it a backup.
        tokio::task::yield_now().await;
        Ok::<_, ClientError>(())
    };
    tokio::select! {
        biased;
        error = &mut stopped => {
            observer.phase(&Phase::Removing { directory: options.directory.clone(), contents_only: existed });
            return Err(error);
        }
        durable = durable => durable?,
    }
    place.publish()?;
    observer.phase(&Phase::Completed);
    result
}

/// The directory, empty.
fn open_place(options: &ParallelOptions, server: &Server) -> Result<Plain, ClientError> {
    if options.force {
        force::clear(&options.directory, &options.disk)?;
    }
    let settings = SinkSettings {
        version: server.version,
        modes: Modes::new(server.group_access),
        wal: WalMethod::None,
        mapping: options.tablespace_mapping.clone(),
        unmapped: options.unmapped_tablespaces,
        recovery: None,
        compression: ArchiveCompression::None,
        sync: options.sync,
        sync_method: options.sync_method,
        clock: Arc::clone(&options.clock),
        disk: Arc::clone(&options.disk),
        weakness: options.weakness,
    };
    Plain::open(&options.directory, None, settings)
}

/// What is written when all else is there.
struct LastFiles<'a> {
    stopped: Stopped,
    early: Option<(Vec<u8>, Vec<u8>)>,
    control: &'a [u8],
    tablespaces: &'a [Tablespace],
    profile: Vec<(Arc<Fetched>, Outcome)>,
}

struct Backup<'a> {
    opener: Opener<'a>,
    server: &'a Server,
    place: &'a Mutex<Plain>,
    /// Where the backup starts, once it has begun.
    started: Option<Lsn>,
}

impl Backup<'_> {
    async fn run(&mut self, hold: &mut Session) -> Result<ParallelSummary, ClientError> {
        let Opener { options, observer, .. } = self.opener;
        let version = self.server.version;
        observer.phase(&Phase::WaitingForCheckpoint);
        hold.connection().set_patience(options.deadlines.checkpoint, Phase::WaitingForCheckpoint);
        let start = hold.start(&options.label, options.fast_checkpoint).await?;
        self.started = Some(start);
        if let Some(since) = options.incremental_from.filter(|since| *since > start) {
            return Err(ClientError::Refused(format!(
                "cannot take a backup of what changed since {since}: the server's write-ahead log is at {start}"
            )));
        }
        hold.connection().set_patience(options.deadlines.data, Phase::Receiving);
        let exclusive = !version.has_non_exclusive_backup();
        let early = if exclusive { Some(exclusive_files(hold).await?) } else { None };
        let timeline = self.timeline(hold, start).await?;
        observer.phase(&Phase::CheckpointCompleted { start, timeline });

        let (announce, end) = watch::channel(None);
        self.place.with(None, |tree| {
            let wal = version.wal_directory();
            tree.create_directory(wal.as_bytes())?;
            tree.create_directory(format!("{wal}/archive_status").as_bytes())
        })?;
        let wal = async {
            let Some(delay) = options.wal else { return Ok(None) };
            WalLoop::new(self.opener, self.server, self.place, start, timeline).run(delay, end).await.map(Some)
        };
        let main = async {
            let tablespaces = hold.tablespaces().await?;
            let listing = self.listing(hold, &tablespaces).await?;
            self.make_directories(&tablespaces, &listing)?;
            let (totals, profile) = self.fetch(hold, listing, start, tablespaces.len()).await?;
            // The last of all files: of a standby, it says how far the others may have come.
            let (control, _) = hold.control().await?;
            observer.phase(&Phase::WaitingForEnd);
            hold.connection().set_patience(options.deadlines.finish, Phase::WaitingForEnd);
            let stopped = hold.stop(options.wal.is_none()).await?;
            observer.phase(&Phase::EndPosition { end: stopped.end });
            announce.send_replace(Some(End::At(stopped.end)));
            Ok::<_, ClientError>(((totals, profile), control, stopped, tablespaces))
        };
        // Whichever fails first ends both: without its WAL a backup is worth nothing, and the other way round.
        let (wal, ((totals, profile), control, stopped, tablespaces)) = tokio::try_join!(wal, main)?;

        let position = |lsn| Position { lsn, timeline };
        let said = Said {
            version,
            flavour: Flavour::Stock,
            system_identifier: self.server.system_identifier,
            segment_size: self.server.segment_size,
            label: options.label.clone(),
            start: position(start),
            end: position(stopped.end),
            builds_on: None,
            // The label that the server gives says nothing of it.
            builds_on_location: None,
        };
        let last = LastFiles { stopped, early, control: &control, tablespaces: &tablespaces, profile };
        self.write_last_files(&said, last)?;
        self.started = None;
        Ok(summary(&said, totals, wal))
    }

    /// The timeline that the backup starts on.
    async fn timeline(&self, hold: &mut Session, start: Lsn) -> Result<TimelineId, ClientError> {
        if let (_, Some(control)) = hold.control().await? {
            return Ok(control.checkpoint_copy.timeline);
        }
        // The segment that holds the start was written just now; of an earlier timeline there may be one of the same number.
        let (wal, size) = (self.server.version.wal_directory(), self.server.segment_size);
        let found = hold.tree(wal.as_bytes(), &[format!("{wal}/archive_status").into_bytes()]).await?;
        let segments =
            found.iter().filter_map(|file| wal_segment(str::from_utf8(file.path.get(wal.len() + 1..)?).ok()?));
        let holding = segments.filter(|name| name.segment(size) == Some(size.segment_of(start)));
        holding.map(|name| name.timeline).max().ok_or_else(|| {
            let name = WalFileName::holding(TimelineId(1), start, size).to_string();
            let segment = name.get(8..).unwrap_or_default().to_owned();
            ClientError::Incomplete(format!("no timeline has WAL segment {segment}, where the backup starts"))
        })
    }

    async fn listing(&self, hold: &mut Session, tablespaces: &[Tablespace]) -> Result<Listing, ClientError> {
        let version = self.server.version;
        let mut listing = Listing::default();
        listing.add_base(hold.tree(b".", &listing::closed(version)).await?, version)?;
        for (index, tablespace) in tablespaces.iter().enumerate() {
            let found = hold.tree(&listing::root(tablespace, version), &[]).await?;
            listing.add_tablespace(index, tablespace, found, version)?;
        }
        Ok(listing)
    }

    fn make_directories(&self, tablespaces: &[Tablespace], listing: &Listing) -> Result<(), ClientError> {
        let mut place = lock(self.place);
        place.prepare(tablespaces)?;
        for entry in &listing.directories {
            let tree = place.tree(entry.tablespace);
            // Those were made for what is in them.
            let early = [&b"pg_tblspc"[..], self.server.version.wal_directory().as_bytes()];
            if early.iter().any(|name| entry.name.starts_with(name)) {
                tree.ensure_directory(&entry.name)?;
            } else {
                tree.create_directory(&entry.name)?;
            }
        }
        for (index, tablespace) in tablespaces.iter().enumerate().filter(|(_, tablespace)| !tablespace.in_place()) {
            let name = format!("pg_tblspc/{}", tablespace.oid.unwrap_or_default());
            place.link(name.as_bytes(), index)?;
        }
        Ok(())
    }

    /// Fetches all files, while the session that holds the backup is watched.
    async fn fetch(
        &self,
        hold: &mut Session,
        listing: Listing,
        start: Lsn,
        tablespaces: usize,
    ) -> Result<(Totals, Vec<(Arc<Fetched>, Outcome)>), ClientError> {
        let Opener { options, observer, .. } = self.opener;
        let checksums = self.server.control.as_ref().is_some_and(|control| control.data_checksum_version > 0);
        let verify_from = Some(start).filter(|_| checksums && options.verify_checksums);
        let files = in_wanted_order(listing, &options.first, observer.as_ref());
        observer.phase(&Phase::Receiving);
        let crew = Crew::new(self.opener, self.server, self.place, files, verify_from, tablespaces);
        tokio::select! {
            biased;
            fetched = crew.run() => fetched?,
            error = hold.broken() => return Err(error),
        }
        hold.connection().set_patience(options.deadlines.data, Phase::Receiving);
        let (totals, profile) = (*lock(&crew.totals), std::mem::take(&mut *lock(&crew.profile)));
        Ok((totals, profile))
    }

    /// Writes and checks what says that this is a backup. `pg_control` gets its name when everything is on disk.
    fn write_last_files(&self, said: &Said, last: LastFiles<'_>) -> Result<(), ClientError> {
        let LastFiles { stopped, early, control, tablespaces, profile } = last;
        let Some((label_text, map)) = stopped.files.or(early) else {
            return Err(ClientError::Incomplete("the server gave no backup_label".to_owned()));
        };
        let label_text = String::from_utf8_lossy(&label_text).into_owned();
        let label = BackupLabel::parse(&label_text)
            .map_err(|error| ClientError::Incomplete(format!("invalid data in file \"backup_label\": {error}")))?;
        verify::check_label(&label, said)?;
        verify::check_control(control, &label, said)?;
        if said.end.lsn <= said.start.lsn {
            let (start, end) = (said.start.lsn, said.end.lsn);
            return Err(ClientError::Incomplete(format!("the backup ends at {end}, not behind its start, {start}")));
        }
        let mut place = lock(self.place);
        let map = mapped(&map, &place, tablespaces, said)?;
        let since = self.opener.options.incremental_from;
        let label_text = match since {
            // The server knows nothing of it.
            Some(since) => BackupLabel { incremental_from_location: Some(since), ..label }.to_text(said.version),
            None => label_text,
        };
        let mut files = vec![(&b"backup_label"[..], label_text.clone().into_bytes())];
        files.extend(map.map(|map| (&b"tablespace_map"[..], map)));
        if since.is_some() {
            let profile = profile::text(&label_text, &profile, tablespaces, &files, control);
            let checksum = checksum_file(&profile).into_bytes();
            files.extend([(FILE_NAME.as_bytes(), profile), (CHECKSUM_FILE_NAME.as_bytes(), checksum)]);
        }
        files.push((CONTROL_UNPUBLISHED, control.to_vec()));
        for (name, content) in &files {
            let tree = place.tree(None);
            let written = tree.create_file(name)?.write_all_at(content, 0);
            written.map_err(ClientError::local("write to file", tree.full(name)))?;
        }
        Ok(())
    }
}

/// `backup_label` and `tablespace_map` of an exclusive backup, which the server keeps in its data directory.
async fn exclusive_files(hold: &mut Session) -> Result<(Vec<u8>, Vec<u8>), ClientError> {
    let label = hold.read(b"backup_label", 0).await?;
    let label = label.ok_or_else(|| ClientError::Incomplete("the server has no file \"backup_label\"".to_owned()))?;
    let map = hold.tablespace_map().await?.unwrap_or_default();
    Ok((label.to_vec(), map.to_vec()))
}

/// The map with the places where the tablespaces are now; none if there is nothing in it.
fn mapped(map: &[u8], place: &Plain, tablespaces: &[Tablespace], said: &Said) -> Result<Option<Vec<u8>>, ClientError> {
    use std::os::unix::ffi::OsStrExt;
    let mut map = TablespaceMap::parse_as(map, said.version)
        .map_err(|error| ClientError::Incomplete(format!("invalid data in file \"tablespace_map\": {error}")))?;
    // One that was dropped before the files were listed is gone when WAL is replayed, and must not be looked for.
    map.entries.retain_mut(|(oid, location)| {
        let index = tablespaces.iter().position(|tablespace| tablespace.oid == Some(*oid));
        let Some(here) = index.and_then(|index| place.location(index)) else { return false };
        let here = std::path::absolute(here).unwrap_or_else(|_| here.to_path_buf());
        *location = here.as_os_str().as_bytes().to_vec();
        true
    });
    Ok((!map.entries.is_empty()).then(|| map.to_bytes(said.version)))
}

/// The files, those of `first` before all others.
fn in_wanted_order(listing: Listing, first: &[Vec<u8>], observer: &dyn Observer) -> Vec<Arc<Fetched>> {
    let mut files: BTreeMap<Vec<u8>, Arc<Fetched>> = BTreeMap::new();
    for entry in listing.files {
        files.insert(entry.path.clone(), Arc::new(Fetched::new(entry)));
    }
    let mut ordered = Vec::with_capacity(files.len());
    for path in first {
        match files.remove(path) {
            Some(file) => ordered.push(file),
            None => observer.detail(&format!("file \"{}\" is not part of the backup", shown(path))),
        }
    }
    if !first.is_empty() && !files.is_empty() {
        observer.detail(&format!("{} files that were not named are fetched, too", files.len()));
    }
    let mut rest: Vec<Arc<Fetched>> = files.into_values().collect();
    rest.sort_by_key(|file| std::cmp::Reverse(file.entry.size));
    ordered.extend(rest);
    ordered
}

fn summary(said: &Said, totals: Totals, wal: Option<WalTotals>) -> ParallelSummary {
    ParallelSummary {
        start: said.start.lsn,
        end: said.end.lsn,
        timeline: said.start.timeline,
        system_identifier: said.system_identifier,
        files: totals.files,
        bytes: totals.bytes,
        gone: totals.gone,
        left_out: totals.left_out,
        left_out_bytes: totals.left_out_bytes,
        wal_segments: wal.map_or(0, |wal| wal.segments),
        wal_bytes: wal.map_or(0, |wal| wal.bytes),
    }
}
