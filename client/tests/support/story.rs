//! A server that plays a written story: the messages of one sound backup, put together from what the protocol says, for tests
//! to spoil.

use std::sync::{Arc, Mutex};

use backstop_client::{BoxStream, Connecting, Connector, Place, Purpose};
use backstop_protocol::backend::{Authentication, BackendMessage, Column, Diagnostic, SqlState, TransactionStatus};
use backstop_protocol::base_backup::archive::ArchiveMessage;
use backstop_protocol::base_backup::label::{BackupLabel, LabelSource};
use backstop_protocol::base_backup::manifest::{
    ChecksumAlgorithm, ChecksumHasher, ManifestFile, ManifestWriter, WalRange,
};
use backstop_protocol::base_backup::tar::{MemberHeader, MemberKind, padding};
use backstop_protocol::control::ControlFile;
use backstop_protocol::frame::{MAX_FRAME, read_frame, read_startup};
use backstop_protocol::frontend::FrontendMessage;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal::log::{WalLog, WalLogConfig};
use backstop_protocol::wal::stream::{PgTimestamp, StandbyMessage, WalMessage};
use backstop_protocol::wal_file::{WalFileName, WalSegmentSize};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

pub const SYSTEM: u64 = 7_710_438_972_347_355_289;
pub const LABEL: &str = "story";
pub const TABLESPACE: u32 = 16391;
/// The tablespace's location on the server.
pub const LOCATION: &str = "/srv/ts";

/// One sound backup. Tests change it before they play it.
#[derive(Clone)]
pub struct Story {
    pub version: ServerVersion,
    pub segment_size: WalSegmentSize,
    pub start: Lsn,
    pub end: Lsn,
    /// What answers BASE_BACKUP.
    pub backup: Vec<BackendMessage>,
    /// What follows CopyBothResponse until the client has enough.
    pub wal: Vec<BackendMessage>,
    /// What answers START_REPLICATION.
    pub wal_begin: Vec<BackendMessage>,
    /// What follows when the first timeline's WAL ends.
    pub promotion: Option<Promotion>,
    /// The system identifier on the WAL connection.
    pub wal_system: u64,
    /// Closes the connection behind the story instead of waiting for the client.
    pub hang_up: bool,
    /// The size of the pipe to the client in bytes.
    pub pipe: usize,
}

/// A second timeline.
#[derive(Clone)]
pub struct Promotion {
    /// Where it begins.
    pub fork: Lsn,
    /// The history file's name and content.
    pub history: (String, String),
    /// Its WAL.
    pub wal: Vec<BackendMessage>,
}

/// A member: name, what it is, content.
type Member = (String, MemberKind, Vec<u8>);

fn file(name: &str, content: &[u8]) -> Member {
    (name.to_owned(), MemberKind::File, content.to_vec())
}

fn directory(name: &str) -> Member {
    (name.to_owned(), MemberKind::Directory, Vec::new())
}

pub fn data(payload: &ArchiveMessage) -> BackendMessage {
    let mut out = BytesMut::new();
    payload.encode(&mut out);
    BackendMessage::CopyData(out.freeze())
}

pub fn rows(columns: usize, rows: &[&[Option<&str>]]) -> Vec<BackendMessage> {
    let column = |index| Column { name: format!("c{index}"), type_oid: 25, type_len: -1, type_modifier: -1, format: 0 };
    let mut messages = vec![BackendMessage::RowDescription((0..columns).map(column).collect())];
    for row in rows {
        let values = row.iter().map(|value| value.map(|text| Bytes::copy_from_slice(text.as_bytes())));
        messages.push(BackendMessage::DataRow(values.collect()));
    }
    messages.push(BackendMessage::CommandComplete("SELECT".into()));
    messages
}

/// Options of a story.
#[derive(Clone, Copy)]
pub struct Plot {
    pub version: ServerVersion,
    /// A tablespace beside the base directory.
    pub tablespace: bool,
    /// WAL inside of the base archive.
    pub fetch: bool,
    /// TABLESPACE_MAP was asked for.
    pub map: bool,
    /// The server goes on with timeline 2 before the backup ends.
    pub promoted: bool,
}

impl Plot {
    pub fn plain(version: ServerVersion) -> Self {
        Self { version, tablespace: true, fetch: false, map: false, promoted: false }
    }
}

impl Story {
    /// The backup that a server of this release sends.
    pub fn new(plot: Plot) -> Self {
        let Plot { version, .. } = plot;
        let segment_size = WalSegmentSize::new(1 << 20).expect("1 MiB");
        let timeline = TimelineId::FIRST;
        let config = WalLogConfig {
            version,
            system_identifier: SYSTEM,
            timeline,
            segment_size,
            start: Lsn(0x10_0028),
            prev: Lsn::INVALID,
            seed: 1,
        };
        let mut log = WalLog::new(config).expect("a log");
        let mut promotion = None;
        // The backup begins in a segment of its own.
        log.fill(100);
        let begun = log.backup_start();
        let (start, checkpoint) = (begun.redo, begun.checkpoint);
        // More than one segment.
        log.fill(segment_size.bytes() + 300_000);
        let first = segment_size.round_down(start);
        let fork = log.insert_position();
        let mut before_fork = vec![0; usize::try_from(fork - first).expect("a few megabytes")];
        log.read_zero_filled(first, &mut before_fork).expect("its bytes");
        if plot.promoted {
            log = log.branch(TimelineId(2));
        }
        let end = log.backup_end(start);
        let behind = log.switch();
        if plot.promoted {
            // The new timeline's first file begins as a copy of the old one's last.
            let from = segment_size.round_down(fork);
            let copied = usize::try_from(from - first).expect("a few megabytes");
            let mut own = vec![0; usize::try_from(behind - fork).expect("a few megabytes")];
            log.read_zero_filled(fork, &mut own).expect("its bytes");
            let bytes = [&before_fork[copied..], &own].concat();
            let history = format!("1\t{fork}\tno recovery target specified\n");
            let wal = vec![wal_data(from, behind, &bytes)];
            promotion = Some(Promotion { fork, history: ("00000002.history".into(), history), wal });
        }
        let mut wal_bytes = before_fork.clone();
        if !plot.promoted {
            wal_bytes.resize(usize::try_from(behind - first).expect("a few megabytes"), 0);
            log.read_zero_filled(first, &mut wal_bytes).expect("its bytes");
        }

        let mut control = ControlFile::new(version, SYSTEM, timeline);
        control.checkpoint = checkpoint;
        control.checkpoint_copy = begun.checkpoint_copy;
        control.wal_segment_size = segment_size;
        let label = BackupLabel {
            start,
            start_file: WalFileName::holding(timeline, start, segment_size),
            checkpoint,
            incremental_from_location: None,
            method: "streamed".into(),
            from: LabelSource::Primary,
            start_time: "2026-11-21 01:40:58 UTC".into(),
            label: LABEL.into(),
            timeline: version.label_has_timeline().then_some(timeline),
            incremental_from: None,
        };
        let mut archives = Vec::new();
        if plot.tablespace {
            let top = version.tablespace_version_directory();
            let members = vec![
                directory(&format!("{top}/")),
                directory(&format!("{top}/5/")),
                file(&format!("{top}/5/16400"), &[7; 8192]),
            ];
            archives.push((Some(TABLESPACE), members));
        }
        let mut base = vec![file("backup_label", label.to_text(version).as_bytes())];
        let oid = TABLESPACE;
        if plot.map {
            base.push(file("tablespace_map", format!("{oid} {LOCATION}\n").as_bytes()));
        }
        base.extend(version.required_directories().iter().map(|name| directory(&format!("{name}/"))));
        base.extend([directory("base/1/"), file("base/1/1259", &vec![42; 20_000]), file("base/1/empty", b"")]);
        if plot.tablespace && !plot.map {
            let target = LOCATION.into();
            base.push((format!("pg_tblspc/{oid}/"), MemberKind::Symlink { target }, Vec::new()));
        }
        base.extend([
            file("PG_VERSION", format!("{}\n", version.name()).as_bytes()),
            directory("./pg_wal/archive_status/"),
            file("global/pg_control", &control.encode()),
        ]);
        if plot.fetch {
            for (index, segment) in wal_bytes.chunks(1 << 20).enumerate() {
                let number = segment_size.segment_of(first) + index as u64;
                let name = WalFileName::new(timeline, number, segment_size);
                base.push(file(&format!("pg_wal/{name}"), segment));
                base.push(file(&format!("pg_wal/archive_status/{name}.done"), b""));
            }
        }
        archives.push((None, base));

        let streamed = if plot.promoted { &before_fork } else { &wal_bytes };
        let wal = streamed.chunks(128 << 10).enumerate().map(|(index, bytes)| {
            let at = first + ((index as u64) << 17);
            wal_data(at, behind, bytes)
        });
        let mut wal: Vec<BackendMessage> = wal.collect();
        let mut ranges = vec![WalRange { timeline, start, end }];
        if plot.promoted {
            wal.push(BackendMessage::CopyDone);
            ranges =
                vec![WalRange { timeline: TimelineId(2), start: fork, end }, WalRange { timeline, start, end: fork }];
        }
        Self {
            version,
            segment_size,
            start,
            end,
            backup: backup(version, &archives, start, end, &ranges),
            wal,
            promotion,
            wal_begin: vec![BackendMessage::CopyBothResponse],
            wal_system: SYSTEM,
            hang_up: false,
            pipe: 64 << 10,
        }
    }
}

/// XLogData.
pub fn wal_data(start: Lsn, wal_end: Lsn, bytes: &[u8]) -> BackendMessage {
    let mut out = BytesMut::new();
    let message = WalMessage::XLogData { start, wal_end, sent_at: PgTimestamp(0), data: Bytes::copy_from_slice(bytes) };
    message.encode(&mut out);
    BackendMessage::CopyData(out.freeze())
}

/// Everything from the start position to ReadyForQuery.
fn backup(
    version: ServerVersion,
    archives: &[(Option<u32>, Vec<Member>)],
    start: Lsn,
    end: Lsn,
    ranges: &[WalRange],
) -> Vec<BackendMessage> {
    let stream = version.has_archive_stream();
    let mut messages = rows(2, &[&[Some(&start.to_string()), Some("1")]]);
    let oid = TABLESPACE.to_string();
    let listed: Vec<Vec<Option<&str>>> = archives
        .iter()
        .map(|(tablespace, _)| match tablespace {
            Some(_) => vec![Some(oid.as_str()), Some(LOCATION), Some("9")],
            None => vec![None, None, Some("100")],
        })
        .collect();
    messages.extend(rows(3, &listed.iter().map(Vec::as_slice).collect::<Vec<_>>()));
    let identifier = (version.manifest_version() > 1).then_some(SYSTEM);
    let mut manifest = ManifestWriter::new(version.manifest_version(), identifier, false);
    let mut text = BytesMut::new();
    if stream {
        messages.push(BackendMessage::CopyOutResponse);
    }
    let mut done = 0;
    for (tablespace, members) in archives {
        let name = tablespace.map_or_else(|| "base.tar".to_owned(), |oid| format!("{oid}.tar"));
        let location = if tablespace.is_some() { LOCATION } else { "" };
        messages.push(if stream {
            data(&ArchiveMessage::NewArchive { name: name.into(), location: location.into() })
        } else {
            BackendMessage::CopyOutResponse
        });
        let mut pieces = Vec::new();
        for (name, kind, content) in members {
            pieces.extend(member(name, kind.clone(), content));
            let path = tablespace.map_or_else(|| name.clone(), |oid| format!("pg_tblspc/{oid}/{name}"));
            let segment = name.strip_prefix("pg_wal/").is_some_and(|name| name.len() == 24);
            if *kind == MemberKind::File && !segment {
                manifest.add_file(&manifest_file(&path, content), &mut text);
            }
        }
        if version.sends_tar_trailer() {
            pieces.push(vec![0; 1024]);
        }
        for piece in pieces {
            done += i64::try_from(piece.len()).expect("small");
            let piece = Bytes::from(piece);
            messages.push(if stream { data(&ArchiveMessage::Data(piece)) } else { BackendMessage::CopyData(piece) });
        }
        messages.push(if stream { data(&ArchiveMessage::Progress(done)) } else { BackendMessage::CopyDone });
    }
    if version.has_manifest() {
        manifest.finish(ranges, &mut text);
        messages.push(if stream { data(&ArchiveMessage::Manifest) } else { BackendMessage::CopyOutResponse });
        for piece in text.chunks(700) {
            let piece = Bytes::copy_from_slice(piece);
            messages.push(if stream { data(&ArchiveMessage::Data(piece)) } else { BackendMessage::CopyData(piece) });
        }
        if !stream {
            messages.push(BackendMessage::CopyDone);
        }
    }
    if stream {
        messages.push(BackendMessage::CopyDone);
    }
    let timeline = ranges.first().expect("a range").timeline.to_string();
    messages.extend(rows(2, &[&[Some(&end.to_string()), Some(&timeline)]]));
    messages.push(BackendMessage::CommandComplete(version.command_tag("BASE_BACKUP").into()));
    messages.push(BackendMessage::ReadyForQuery(TransactionStatus::Idle));
    messages
}

/// The header, the content in pieces, and the padding of a member.
pub fn member(name: &str, kind: MemberKind, content: &[u8]) -> Vec<Vec<u8>> {
    let mode = if kind == MemberKind::File { 0o600 } else { 0o700 };
    let size = content.len() as u64;
    let header = MemberHeader { name: name.into(), kind, mode, uid: 26, gid: 26, size, mtime: 1_790_000_000 };
    let mut pieces = vec![header.encode().expect("a header").to_vec()];
    pieces.extend(content.chunks(8192).map(<[u8]>::to_vec));
    pieces.extend((padding(size) > 0).then(|| vec![0; padding(size)]));
    pieces
}

fn manifest_file(path: &str, content: &[u8]) -> ManifestFile {
    let mut hasher = ChecksumHasher::new(ChecksumAlgorithm::Crc32c);
    hasher.update(content);
    ManifestFile {
        path: path.into(),
        size: content.len() as u64,
        last_modified: "2026-11-21 01:38:44 GMT".into(),
        checksum: Some((ChecksumAlgorithm::Crc32c, hasher.finish())),
    }
}

/// Plays a story to every connection, and remembers what it was asked.
pub struct Peer {
    story: Arc<Story>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    pub fn new(story: Story) -> Self {
        Self { story: Arc::new(story), heard: Arc::default() }
    }

    /// Commands and status updates, in the order in which they came.
    pub fn heard(&self) -> Arc<Mutex<Vec<String>>> {
        Arc::clone(&self.heard)
    }
}

impl Connector for Peer {
    fn connect(&self, _place: &Place, _purpose: Purpose) -> Connecting<'_> {
        let (ours, theirs) = tokio::io::duplex(self.story.pipe);
        let session =
            Session { story: Arc::clone(&self.story), heard: self.heard(), stream: ours, input: BytesMut::new() };
        tokio::spawn(session.play());
        Box::pin(std::future::ready(Ok(Box::new(theirs) as BoxStream)))
    }
}

struct Session {
    story: Arc<Story>,
    heard: Arc<Mutex<Vec<String>>>,
    stream: DuplexStream,
    input: BytesMut,
}

impl Session {
    async fn play(mut self) {
        // An error is the client's end of the pipe, gone.
        let _ = self.try_play().await;
    }

    async fn send(&mut self, messages: &[BackendMessage]) -> std::io::Result<()> {
        let mut out = BytesMut::new();
        for message in messages {
            message.encode(&mut out);
        }
        self.stream.write_all(&out).await
    }

    async fn hear(&mut self) -> std::io::Result<FrontendMessage> {
        loop {
            if let Some(frame) = read_frame(&mut self.input, MAX_FRAME).expect("a frame") {
                return Ok(FrontendMessage::decode(frame).expect("a message"));
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn note(&self, text: impl Into<String>) {
        self.heard.lock().expect("not poisoned").push(text.into());
    }

    async fn try_play(&mut self) -> std::io::Result<()> {
        while read_startup(&mut self.input).expect("a start-up packet").is_none() {
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Ok(());
            }
        }
        let ready = BackendMessage::ReadyForQuery(TransactionStatus::Idle);
        let version = self.story.version.announced().to_owned();
        self.send(&[
            BackendMessage::Authentication(Authentication::Ok),
            BackendMessage::ParameterStatus { name: "server_version".into(), value: version },
            BackendMessage::BackendKeyData { pid: 4711, key: Bytes::from_static(&[0; 4]) },
            ready.clone(),
        ])
        .await?;
        let mut on_wal_connection = false;
        loop {
            let query = match self.hear().await? {
                FrontendMessage::Query(query) => String::from_utf8_lossy(&query).into_owned(),
                _ => return Ok(()),
            };
            self.note(&query);
            let (one, system) = (
                |value: &str| rows(1, &[&[Some(value)]]),
                if on_wal_connection { self.story.wal_system } else { SYSTEM }.to_string(),
            );
            let mut answer = match query.split([' ', '(']).next().unwrap_or_default() {
                "SHOW" if query.ends_with("mode") => one("0700"),
                "SHOW" => one(&self.story.segment_size.setting()),
                "IDENTIFY_SYSTEM" => rows(4, &[&[Some(&system), Some("1"), Some("0/1"), None]]),
                "CREATE_REPLICATION_SLOT" => {
                    on_wal_connection = true;
                    rows(4, &[&[Some("s"), Some("0/0"), None, None]])
                }
                "BASE_BACKUP" => {
                    let story = Arc::clone(&self.story);
                    self.send(&story.backup).await?;
                    if story.hang_up {
                        return Ok(());
                    }
                    continue;
                }
                "TIMELINE_HISTORY" => {
                    let promotion = self.story.promotion.as_ref().expect("a second timeline");
                    rows(2, &[&[Some(&promotion.history.0), Some(&promotion.history.1)]])
                }
                "START_REPLICATION" => {
                    self.stream_wal(query.ends_with("TIMELINE 2")).await?;
                    continue;
                }
                _ => vec![BackendMessage::ErrorResponse(Diagnostic::error(SqlState::SYNTAX_ERROR, "syntax error"))],
            };
            answer.push(ready.clone());
            self.send(&answer).await?;
        }
    }

    async fn stream_wal(&mut self, promoted: bool) -> std::io::Result<()> {
        let story = Arc::clone(&self.story);
        self.send(&story.wal_begin).await?;
        let promotion = story.promotion.as_ref();
        self.send(promotion.filter(|_| promoted).map_or(&story.wal, |promotion| &promotion.wal)).await?;
        loop {
            match self.hear().await? {
                FrontendMessage::CopyData(payload) => {
                    if let Ok(StandbyMessage::StatusUpdate { write, flush, .. }) = StandbyMessage::decode(payload) {
                        self.note(format!("r {write} {flush}"));
                    }
                }
                FrontendMessage::CopyDone => break,
                _ => return Ok(()),
            }
        }
        self.note("CopyDone");
        let begin = match promotion {
            Some(promotion) if !promoted => {
                // The row alone, without a CommandComplete of its own.
                let mut next = rows(2, &[&[Some("2"), Some(&promotion.fork.to_string())]]);
                next.pop();
                next
            }
            _ => vec![BackendMessage::CopyDone],
        };
        self.send(&begin).await?;
        self.send(&[
            BackendMessage::CommandComplete("START_STREAMING".into()),
            BackendMessage::CommandComplete(self.story.version.command_tag("START_REPLICATION").into()),
            BackendMessage::ReadyForQuery(TransactionStatus::Idle),
        ])
        .await
    }
}
