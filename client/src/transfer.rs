//! The data of a backup on its way from the connection to the sink: unpacked, judged, hashed, kept.

use std::sync::Arc;

use backstop_protocol::base_backup::manifest::{ChecksumAlgorithm, PriorBackup};
use backstop_protocol::base_backup::options::CompressionAlgorithm;
use backstop_protocol::base_backup::profile::{self, MAX_PROFILE};
use backstop_protocol::base_backup::tar::{TarEvent, TarReader, Trailer};
use bytes::Bytes;

use crate::archive_check::ArchiveCheck;
use crate::backup::wal_check;
use crate::compression::Decoder;
use crate::connection::Connection;
use crate::contents::{Contents, Refusal};
use crate::error::{ClientError, shown};
use crate::mutation::{Mutation, Weakness};
use crate::observer::{Observer, Phase, Progress};
use crate::options::{BackupOptions, WalMethod};
use crate::profile_check::{LeftOut, check_profile};
use crate::receive::{Part, Receiver, Tablespace};
use crate::request::{self, Place};
use crate::sink::Sink;
use crate::verify::{self, Said};

/// No manifest is larger, in bytes: ten million files fit.
const MAX_MANIFEST: usize = 2 << 30;

/// After so many unpacked pieces others have their turn.
const PIECES_AT_ONCE: u64 = 64;

/// The archives and the manifest on their way from the connection to the sink.
pub(crate) struct Transfer<'a> {
    sink: &'a mut dyn Sink,
    observer: Arc<dyn Observer>,
    /// Whether the archives come here.
    here: bool,
    receiver: Receiver,
    trailer: Trailer,
    reader: TarReader,
    check: ArchiveCheck,
    contents: Contents,
    /// What the server compresses archives with, and the current one on its way out of that.
    compression: CompressionAlgorithm,
    decoder: Option<Decoder>,
    /// The names of the archives, as they come and as they are stored.
    archives: Vec<String>,
    stored: Vec<String>,
    /// The current archive, and the current member in it.
    archive: String,
    member: String,
    progress: Progress,
    manifest: Option<Vec<u8>>,
    /// Whether a profile follows the archives, as one more, and what came of it.
    wants_profile: bool,
    profile: Option<Vec<u8>>,
    events: Vec<TarEvent>,
    max_size: Option<u64>,
    weakness: Weakness,
}

/// What arrived.
pub(crate) struct Received {
    /// None of a backup that went elsewhere.
    contents: Option<(Contents, ArchiveCheck)>,
    pub(crate) archives: Vec<String>,
    pub(crate) manifest: Option<Vec<u8>>,
    pub(crate) profile: Option<Vec<u8>>,
    pub(crate) bytes: u64,
}

impl<'a> Transfer<'a> {
    pub(crate) fn new(
        options: &BackupOptions,
        observer: Arc<dyn Observer>,
        place: &Place,
        sink: &'a mut dyn Sink,
        tablespaces: &'a [Tablespace],
        said: &Said,
        prior: Option<PriorBackup>,
    ) -> Self {
        let version = said.version;
        let manifest = request::manifest_wanted(options, version);
        let algorithm = if manifest { options.manifest_checksums } else { ChecksumAlgorithm::None };
        let fetch = options.wal == WalMethod::Fetch;
        let weakness = options.weakness;
        let trailer = if version.sends_tar_trailer() && !weakness.is(Mutation::NeedsNoTrailer) {
            Trailer::Required
        } else {
            Trailer::Absent
        };
        let compression = options.compression.on_server();
        let names = |suffix: &str| -> Vec<String> {
            tablespaces.iter().map(|tablespace| format!("{}{suffix}", tablespace.archive_name())).collect()
        };
        let archives = names(compression.suffix());
        let stored = if *place == Place::Plain {
            archives.clone()
        } else {
            names(options.compression.stored().algorithm.suffix())
        };
        let sizes: Option<Vec<u64>> = tablespaces.iter().map(|tablespace| tablespace.size).collect();
        let total = sizes.map(|sizes| sizes.into_iter().fold(0, u64::saturating_add).saturating_mul(1024));
        let here = place.is_here();
        let wants_profile = said.flavour.sends_profile();
        Self {
            sink,
            observer,
            here,
            receiver: Receiver::new(version, tablespaces, &archives, wants_profile, manifest, here, weakness),
            trailer,
            reader: TarReader::new(trailer),
            check: ArchiveCheck::new(version, tablespaces.to_vec(), fetch, prior, weakness),
            contents: Contents::new(version, said.segment_size, said.start, algorithm, wal_check(said).in_files()),
            compression,
            decoder: None,
            archives,
            stored,
            archive: String::new(),
            member: String::new(),
            progress: Progress {
                done: 0,
                total: total.filter(|_| options.estimate_size),
                tablespaces_done: 0,
                tablespaces: tablespaces.len(),
                archive: String::new(),
                member: None,
                finished: false,
            },
            manifest: None,
            wants_profile,
            profile: None,
            events: Vec::new(),
            max_size: options.max_size,
            weakness,
        }
    }

    /// Receives everything that COPY carries.
    pub(crate) async fn receive(&mut self, connection: &mut Connection) -> Result<(), ClientError> {
        self.observer.phase(&Phase::Receiving);
        connection.set_doing("could not read COPY data");
        let mut parts = Vec::new();
        loop {
            let message = connection.receive().await.map_err(ended)?;
            let pushed = self.receiver.push(message, &mut parts);
            for part in parts.drain(..) {
                if part == Part::End {
                    self.progress.finished = true;
                    self.progress.member = None;
                    self.observer.progress(&self.progress);
                    return Ok(());
                }
                self.part(part).await?;
            }
            pushed.map_err(|unexpected| connection.unexpected(unexpected.expected, unexpected.got))?;
        }
    }

    async fn part(&mut self, part: Part) -> Result<(), ClientError> {
        match part {
            Part::ArchiveBegin(index) if self.wants_profile && index == self.archives.len() => {
                self.profile = Some(Vec::new());
                Ok(())
            }
            Part::ArchiveBegin(index) => {
                self.archive = self.archives.get(index).cloned().unwrap_or_default();
                self.progress.archive = self.stored.get(index).cloned().unwrap_or_default();
                self.progress.member = None;
                self.member.clear();
                self.reader = TarReader::new(self.trailer);
                self.decoder = Decoder::new(self.compression).map_err(|problem| self.archive_error(problem))?;
                self.check.begin(index);
                self.sink.begin_archive(index)
            }
            Part::Data(bytes) if self.profile.is_some() => {
                let profile = self.profile.get_or_insert_default();
                if profile.len() + bytes.len() > MAX_PROFILE {
                    return Err(ClientError::Profile("it does not end".to_owned()));
                }
                profile.extend_from_slice(&bytes);
                Ok(())
            }
            Part::Data(bytes) => self.data(bytes).await,
            Part::Progress(done) => {
                self.progress.done = done;
                self.observer.progress(&self.progress);
                Ok(())
            }
            Part::ArchiveEnd => match &self.profile {
                Some(profile) if self.here => {
                    self.contents.add(profile::FILE_NAME.as_bytes(), profile);
                    Ok(())
                }
                Some(_) => Ok(()),
                None => self.end_archive(),
            },
            Part::ManifestBegin => {
                self.manifest = self.here.then(Vec::new);
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

    /// Bytes of the archive as they came.
    async fn data(&mut self, bytes: Bytes) -> Result<(), ClientError> {
        match self.decoder.take() {
            None => self.unpacked(&bytes)?,
            Some(mut decoder) => {
                decoder.push(bytes.clone());
                for step in 1_u64.. {
                    let Some(piece) = decoder.next().map_err(|problem| self.archive_error(problem))? else { break };
                    self.unpacked(&piece)?;
                    // A few bytes can stand for very many: others must have their turn meanwhile, signals among them.
                    if step % PIECES_AT_ONCE == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                self.decoder = Some(decoder);
            }
        }
        self.sink.raw(&bytes)?;
        self.observer.progress(&self.progress);
        Ok(())
    }

    /// Bytes of the tar file.
    fn unpacked(&mut self, bytes: &Bytes) -> Result<(), ClientError> {
        self.progress.done = self.progress.done.saturating_add(bytes.len() as u64);
        if let Some(limit) = self.max_size.filter(|limit| self.progress.done > *limit) {
            return Err(self.archive_error(format!("the backup is larger than {limit} bytes, the most that may come")));
        }
        let mut events = std::mem::take(&mut self.events);
        let pushed = self.reader.push(bytes.clone(), &mut events);
        if self.weakness.is(Mutation::SkipsMemberAtBorder) {
            events.pop_if(|last| matches!(last, TarEvent::Member(_)));
        }
        for event in events.drain(..) {
            self.event(&event)?;
        }
        self.events = events;
        pushed.map_err(|error| self.archive_error(error.problem.to_string()))
    }

    fn event(&mut self, event: &TarEvent) -> Result<(), ClientError> {
        match event {
            TarEvent::Member(header) => {
                self.member = shown(&header.name);
                let member = self.check.member(header).map_err(|problem| self.archive_error(problem))?;
                self.contents.begin(&member, header.mtime).map_err(|problem| self.archive_error(problem))?;
                self.progress.member = Some(shown(&member.path));
                if self.progress.tablespaces_done == 1
                    && self.progress.tablespaces > 2
                    && self.weakness.is(Mutation::ForgetsSecondTablespace)
                {
                    return Ok(());
                }
                // All that is empty in every cluster, among other things.
                let empty = member.path == b"pg_notify" && self.weakness.is(Mutation::ForgetsEmptyDirectories);
                if empty { Ok(()) } else { self.sink.begin_member(header, &member) }
            }
            TarEvent::Data(bytes) => {
                if let Err(refusal) = self.contents.data(bytes) {
                    return Err(self.refused(refusal));
                }
                self.sink.data(bytes)
            }
            TarEvent::MemberEnd => {
                self.contents.end().map_err(|problem| self.archive_error(problem))?;
                self.sink.end_member()
            }
            TarEvent::End => Ok(()),
        }
    }

    fn refused(&self, refusal: Refusal) -> ClientError {
        match refusal {
            Refusal::Member(problem) => self.archive_error(problem),
            Refusal::Wal(error) => error,
        }
    }

    fn end_archive(&mut self) -> Result<(), ClientError> {
        if !self.here {
            self.progress.tablespaces_done += 1;
            return Ok(());
        }
        if let Some(decoder) = self.decoder.take() {
            decoder.finish().map_err(|problem| self.archive_error(problem))?;
        }
        match self.reader.finish() {
            Err(_) if self.weakness.is(Mutation::AcceptsCutArchives) && !self.reader.is_at_boundary() => {
                self.event(&TarEvent::MemberEnd)?;
            }
            finished => finished.map_err(|error| self.archive_error(error.problem.to_string()))?,
        }
        self.member.clear();
        let ended = self.check.end();
        ended.map_err(|problem| self.archive_error(problem))?;
        self.sink.end_archive()?;
        self.progress.tablespaces_done += 1;
        Ok(())
    }

    pub(crate) fn received(self) -> Received {
        let Self { here, contents, check, stored, manifest, profile, .. } = self;
        let contents = here.then_some((contents, check));
        Received { contents, archives: stored, manifest, profile: profile.filter(|_| here), bytes: self.progress.done }
    }
}

/// What the server reports instead of more data is the result of the backup, in the words of `pg_basebackup`: for libpq, COPY has
/// ended there.
fn ended(error: ClientError) -> ClientError {
    match error {
        ClientError::Server { diagnostic, .. } => ClientError::Server { doing: "backup failed".to_owned(), diagnostic },
        other => other,
    }
}

impl Received {
    /// Requires that all of it is one whole backup. Of a backup that went elsewhere there is only the server's word.
    pub(crate) fn check(
        &self,
        options: &BackupOptions,
        tablespaces: &[Tablespace],
        said: &Said,
        map_wanted: bool,
    ) -> Result<LeftOut, ClientError> {
        let Some((contents, check)) = &self.contents else { return Ok(LeftOut::default()) };
        if options.weakness.looks_once() {
            return Ok(LeftOut::default());
        }
        verify::check_files(contents, said)?;
        verify::check_tablespaces(contents, tablespaces, &check.unlinked(), map_wanted, said.version)?;
        if options.wal == WalMethod::Fetch {
            contents.check_wal(said.end)?;
        }
        let left_out = match &self.profile {
            Some(profile) => check_profile(profile, contents, said)?,
            None => LeftOut::default(),
        };
        match &self.manifest {
            Some(_) if options.weakness.is(Mutation::LogsManifestMismatch) => {}
            Some(manifest) => verify::check_manifest(manifest, contents, said)?,
            None => {}
        }
        Ok(left_out)
    }
}
