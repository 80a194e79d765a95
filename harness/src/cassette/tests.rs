//! Recorded from the mock, played to the built-in client, all in memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backstop_client::{
    BackupOptions, ClientError, Connecting, Connector, Place, Purpose, Silent, Target, WalMethod, base_backup,
};
use backstop_mock::capture::Capture;
use backstop_mock::config::{Auth, Config, TablespaceConfig};
use backstop_mock::transcript::Direction;
use backstop_mock::{MemoryStream, Server};
use backstop_protocol::base_backup::manifest::ChecksumAlgorithm;
use backstop_protocol::version::ServerVersion;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::file::{self, Writer};
use super::format::{Event, FromClient, FromServer, Kind, Member, Octets, Part};
use super::{CassetteError, Player, Recorder, Tape};

/// The name of the secret that nobody may find.
const PASSWORD: &str = "secret";

/// A cassette that tests can look at when it is done.
#[derive(Clone, Debug, Default)]
struct Shelf(Arc<Mutex<Vec<u8>>>);

impl Shelf {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl std::io::Write for Shelf {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Hands on what it hears in small pieces.
#[derive(Debug)]
struct Pieces(Recorder<Shelf>, usize);

impl Capture for Pieces {
    fn bytes(&mut self, at: Duration, session: u32, direction: Direction, bytes: &[u8]) {
        bytes.chunks(self.1).for_each(|piece| self.0.bytes(at, session, direction, piece));
    }

    fn end(&mut self, session: u32) {
        self.0.end(session);
    }
}

enum Source {
    Mock(Server),
    Player(Player),
}

impl Connector for Source {
    fn connect(&self, _place: &Place, _purpose: Purpose) -> Connecting<'_> {
        let stream: MemoryStream = match self {
            Self::Mock(server) => server.connect(),
            Self::Player(player) => player.connect(),
        };
        Box::pin(async { Ok(Box::new(stream) as _) })
    }
}

fn in_memory<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    tokio::task::LocalSet::new().block_on(&runtime.expect("a runtime"), work)
}

fn config(version: ServerVersion) -> Config {
    let tablespaces = vec![TablespaceConfig { oid: 16_400, location: "/srv/ts".to_owned(), size: 64 << 10 }];
    Config { version, size: 2 << 20, auth: Auth::Password, tablespaces, ..Config::default() }
}

fn options(directory: &Path, wal: WalMethod, checksums: ChecksumAlgorithm) -> BackupOptions {
    let mut options =
        BackupOptions::new("replicator", Target::Plain { directory: directory.join("data"), waldir: None });
    options.login.password = Some(PASSWORD.to_owned());
    options.tablespace_mapping = vec![("/srv/ts".into(), directory.join("ts"))];
    (options.wal, options.fast_checkpoint, options.sync) = (wal, true, false);
    options.manifest_checksums = checksums;
    options
}

fn back_up(source: Source, options: BackupOptions) -> Result<(), ClientError> {
    in_memory(async { base_backup(Arc::new(source), options, Arc::new(Silent)).await.map(drop) })
}

/// The files below a directory and their sizes.
fn sizes(directory: &Path) -> BTreeMap<String, u64> {
    let entries = walkdir::WalkDir::new(directory).into_iter().map(|entry| entry.expect("an entry"));
    let files = entries.filter(|entry| entry.file_type().is_file());
    let sized = files.map(|entry| {
        let path = entry.path().strip_prefix(directory).expect("a path below").display().to_string();
        (path, entry.metadata().expect("a file").len())
    });
    sized.collect()
}

/// A backup of `version` with its cassette.
fn record(version: ServerVersion, wal: WalMethod, checksums: ChecksumAlgorithm, piece: usize) -> (TempDir, Vec<u8>) {
    let directory = tempfile::tempdir().expect("a directory");
    let shelf = Shelf::default();
    let recorder = Arc::new(Mutex::new(Pieces(Recorder::new(shelf.clone()).expect("memory"), piece)));
    let server = Server::new(config(version)).expect("a server");
    server.capture(Arc::clone(&recorder) as _);
    back_up(Source::Mock(server), options(directory.path(), wal, checksums)).expect("a backup");
    recorder.lock().unwrap_or_else(PoisonError::into_inner).0.finish().expect("memory");
    (directory, shelf.bytes())
}

fn player(cassette: &[u8]) -> Player {
    Player::new(Tape::read(cassette).expect("a cassette"))
}

#[test]
fn a_backup_is_played_again_with_the_same_files_and_sizes() {
    let sha = ChecksumAlgorithm::Sha256;
    let crc = ChecksumAlgorithm::Crc32c;
    for (version, wal, checksums) in [
        (ServerVersion::V9_4, WalMethod::Fetch, crc),
        (ServerVersion::V12, WalMethod::Fetch, crc),
        (ServerVersion::V14, WalMethod::Stream, sha),
        (ServerVersion::V15, WalMethod::Stream, crc),
        (ServerVersion::V18, WalMethod::Fetch, sha),
        (ServerVersion::V18, WalMethod::Stream, crc),
        (ServerVersion::V18, WalMethod::None, ChecksumAlgorithm::None),
    ] {
        let (recorded, cassette) = record(version, wal, checksums, usize::MAX);
        let again = tempfile::tempdir().expect("a directory");
        let played = back_up(Source::Player(player(&cassette)), options(again.path(), wal, checksums));
        played.unwrap_or_else(|error| unreachable!("{version} {wal:?}: {error}"));
        let known = sizes(recorded.path());
        assert!(known.len() > 30, "{version}: {known:?}");
        assert_eq!(sizes(again.path()), known, "{version} {wal:?}");
        let all: u64 = known.values().sum();
        assert!((cassette.len() as u64) < all / 50, "{version}: {} of {all} bytes", cassette.len());
    }
}

#[test]
fn contents_are_those_of_every_other_time() {
    let (_recorded, cassette) = record(ServerVersion::V18, WalMethod::Fetch, ChecksumAlgorithm::Crc32c, usize::MAX);
    let manifests = [(); 2].map(|()| {
        let directory = tempfile::tempdir().expect("a directory");
        let options = options(directory.path(), WalMethod::Fetch, ChecksumAlgorithm::Crc32c);
        back_up(Source::Player(player(&cassette)), options).expect("a backup");
        fs::read(directory.path().join("data/backup_manifest")).expect("a manifest")
    });
    assert_eq!(manifests[0], manifests[1]);
}

#[test]
fn how_the_bytes_came_in_pieces_is_of_no_account() {
    let cassettes = [11, 4096, usize::MAX].map(|piece| {
        let (_directory, cassette) = record(ServerVersion::V15, WalMethod::Fetch, ChecksumAlgorithm::Crc32c, piece);
        zstd::decode_all(&cassette[..]).expect("a cassette")
    });
    assert!(cassettes.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn secrets_and_contents_are_left_out() {
    let (directory, cassette) = record(ServerVersion::V18, WalMethod::Fetch, ChecksumAlgorithm::Crc32c, usize::MAX);
    let text = zstd::decode_all(&cassette[..]).expect("a cassette");
    let has = |wanted: &[u8]| text.windows(wanted.len()).any(|window| window == wanted);
    assert!(has(b"replicator") && has(b"pg_control"));
    assert!(!has(PASSWORD.as_bytes()), "the password is on the cassette");
    let entry =
        walkdir::WalkDir::new(directory.path().join("data/base")).into_iter().map(|entry| entry.expect("an entry"));
    let page = entry
        .filter(|entry| entry.metadata().is_ok_and(|data| data.len() > 8192))
        .find_map(|entry| fs::read(entry.path()).ok());
    assert!(!has(&page.expect("a relation")[4096..4128]), "a page is on the cassette");
}

#[test]
fn what_was_not_recorded_is_refused_by_name() {
    let (_recorded, cassette) = record(ServerVersion::V18, WalMethod::Fetch, ChecksumAlgorithm::Crc32c, usize::MAX);
    let directory = tempfile::tempdir().expect("a directory");
    let other = options(directory.path(), WalMethod::Fetch, ChecksumAlgorithm::Sha512);
    let error = back_up(Source::Player(player(&cassette)), other).expect_err("another manifest").to_string();
    assert!(error.contains("the cassette holds no answer to") && error.contains("SHA512"), "{error}");
    assert!(error.contains("it was recorded with \"BASE_BACKUP") && error.contains("WAL"), "{error}");
    assert!(!directory.path().join("data").exists());
}

#[test]
fn a_cut_cassette_is_refused() {
    let (_recorded, cassette) = record(ServerVersion::V18, WalMethod::None, ChecksumAlgorithm::Crc32c, usize::MAX);
    for length in (0..cassette.len()).step_by(97).chain([1, 3, 4, 5, cassette.len() - 1]) {
        let error = Tape::read(&cassette[..length]).expect_err("a part");
        let fits =
            if length < 4 { matches!(error, CassetteError::Foreign(_)) } else { matches!(error, CassetteError::Cut) };
        assert!(fits, "{length} of {}: {error}", cassette.len());
    }
}

#[test]
fn a_changed_cassette_is_refused() {
    let (_recorded, cassette) = record(ServerVersion::V18, WalMethod::None, ChecksumAlgorithm::Crc32c, usize::MAX);
    for at in (0..cassette.len()).step_by(61) {
        let mut changed = cassette.clone();
        changed[at] ^= 0x20;
        let _ = Tape::read(&changed[..]).expect_err("another byte");
    }
    let text = zstd::decode_all(&cassette[..]).expect("a cassette");
    let again = |text: &[u8]| Tape::read(&zstd::encode_all(text, 1).expect("memory")[..]);
    assert!(again(&text).is_ok());
    let edited = String::from_utf8(text.clone()).expect("text").replacen("PG_VERSION", "PG_VERSIOn", 1);
    let error = again(edited.as_bytes()).expect_err("another name");
    assert!(matches!(error, CassetteError::Changed(_)), "{error}");
    let longer = [&text[..], b"[1,\"end\"]\n"].concat();
    assert!(matches!(again(&longer), Err(CassetteError::Changed(_))));
    let followed = [&cassette[..], b"x"].concat();
    assert!(matches!(Tape::read(&followed[..]), Err(CassetteError::Changed(_))));
}

#[test]
fn foreign_files_are_refused() {
    let packed = |text: &str| zstd::encode_all(text.as_bytes(), 1).expect("memory");
    let foreign: [Vec<u8>; 5] = [
        Vec::new(),
        b"\xd4\xc3\xb2\xa1\x02\0\x04\0".to_vec(),
        b"{\"cassette\":1}\n".to_vec(),
        packed("hello\n"),
        packed("{\"other\":1}\n"),
    ];
    for file in foreign {
        let error = Tape::read(&file[..]).expect_err("another file");
        assert!(matches!(error, CassetteError::Foreign(_)), "{}: {error}", file.escape_ascii());
    }
    let newer = Tape::read(&packed("{\"cassette\":2,\"lines\":\"many\"}\n")[..]).expect_err("another format");
    assert!(newer.to_string().contains("format 2"), "{newer}");
    let long = "x".repeat(file::MAX_LINE + 2);
    assert!(Tape::read(&packed(&long)[..]).is_err());
}

/// A cassette of these events.
fn sealed(events: &[(u32, Event)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).expect("memory");
    for (connection, event) in events {
        writer.event(*connection, event).expect("memory");
    }
    writer.finish().expect("memory")
}

#[test]
fn what_cannot_be_is_refused_with_its_line() {
    let startup = Event::Client(FromClient::Startup { protocol: (3, 0), parameters: Vec::new() });
    let query = Event::Client(FromClient::Query("BASE_BACKUP".to_owned()));
    let member = |name: &[u8], size| Member {
        name: Octets(name.to_vec()),
        kind: Kind::File,
        mode: 0o600,
        owner: (0, 0),
        mtime: 0,
        size,
        crc32c: None,
        contents: None,
        blocks: None,
    };
    let archive = Event::Part(Part::Archive(None));
    let cases: [(Vec<Event>, &str); 8] = [
        (vec![query.clone()], "has not begun"),
        (vec![startup.clone(), startup.clone()], "begins a second time"),
        (vec![startup.clone(), Event::End, Event::End], "is over"),
        (vec![startup.clone(), archive.clone()], "nobody asked for"),
        (vec![startup.clone(), query.clone(), Event::Member(member(b"a", 1))], "neither an archive nor"),
        (vec![startup.clone(), query.clone(), archive.clone(), Event::Member(member(b"", 1))], "name"),
        (vec![startup.clone(), query.clone(), archive, Event::Text(Octets(Vec::new()))], "outside of a manifest"),
        (vec![startup, query, Event::Server(FromServer::Data("4294967295*9".to_owned()))], "no size"),
    ];
    for (events, expected) in cases {
        let events: Vec<_> = events.into_iter().map(|event| (1, event)).collect();
        let error = Tape::read(&sealed(&events)[..]).expect_err(expected).to_string();
        assert!(error.contains(expected) && error.starts_with("line "), "{error}");
    }
}

fn octets() -> impl Strategy<Value = Octets> {
    prop_oneof![
        "[a-z/._0-9]{0,12}".prop_map(|text| Octets(text.into_bytes())),
        proptest::collection::vec(any::<u8>(), 0..12).prop_map(Octets),
        Just(Octets(b"\\x6".to_vec())),
    ]
}

fn said() -> impl Strategy<Value = FromServer> {
    let text = "[a-zA-Z0-9 \"\\\\.]{0,12}";
    let sizes = prop_oneof!["[0-9]{1,5}(\\*[1-9])?", Just("512 8192*3 512".to_owned())];
    let lsn = || (0..1_u64 << 40).prop_map(backstop_protocol::lsn::Lsn);
    prop_oneof![
        (text, text).prop_map(|(name, value)| FromServer::Parameter(name, value)),
        Just(FromServer::Parameter("server_version".to_owned(), "14.1".to_owned())),
        any::<(i32, u16)>().prop_map(|(pid, bytes)| FromServer::Key(pid, bytes)),
        prop_oneof![Just('I'), Just('T'), any::<char>()].prop_map(FromServer::Ready),
        proptest::collection::vec(proptest::option::of(octets()), 0..4).prop_map(FromServer::Row),
        proptest::collection::vec(proptest::option::of(any::<u16>().prop_map(u32::from)), 0..4)
            .prop_map(FromServer::RowOf),
        proptest::collection::vec((any::<char>(), text), 0..4).prop_map(FromServer::Error),
        (octets(), octets()).prop_map(|(name, location)| FromServer::Archive(name, location)),
        any::<i64>().prop_map(FromServer::Progress),
        sizes.prop_map(FromServer::Data),
        (lsn(), "[0-9]{1,5}", lsn()).prop_map(|(start, sizes, end)| FromServer::Wal(start, sizes, end)),
        (lsn(), any::<bool>()).prop_map(|(end, reply)| FromServer::Keepalive(end, reply)),
        (any::<char>(), 0..100_000_u32).prop_map(|(tag, size)| FromServer::Other(tag, size)),
        Just(FromServer::CopyBoth),
        Just(FromServer::CopyOut),
        Just(FromServer::CopyDone),
    ]
}

fn member() -> impl Strategy<Value = Member> {
    let kind = prop_oneof![Just(Kind::File), Just(Kind::Directory), octets().prop_map(Kind::Link)];
    let name = prop_oneof![
        octets(),
        Just(Octets(b"base/1/1259".to_vec())),
        Just(Octets(b"pg_wal/000000010000000000000002".to_vec())),
        Just(Octets(b"base/1/INCREMENTAL.1259".to_vec())),
    ];
    let size = prop_oneof![0..20_000_u64, Just(16 << 20), any::<u64>()];
    let blocks = proptest::option::of((0..10_u32, proptest::collection::vec(0..10_u32, 0..3)));
    (name, kind, any::<(u32, (u32, u32), u64)>(), size, any::<Option<u32>>(), proptest::option::of(octets()), blocks)
        .prop_map(|(name, kind, (mode, owner, mtime), size, crc32c, contents, blocks)| {
            let file = kind == Kind::File;
            Member { name, kind, mode, owner, mtime, size: if file { size } else { 0 }, crc32c, contents, blocks }
        })
}

fn event() -> impl Strategy<Value = Event> {
    let asked = prop_oneof![
        Just("IDENTIFY_SYSTEM".to_owned()),
        Just("BASE_BACKUP".to_owned()),
        Just("START_REPLICATION 0/2000000 TIMELINE 1".to_owned()),
        "[A-Z_ ]{0,12}",
    ];
    let startup =
        FromClient::Startup { protocol: (3, 0), parameters: vec![("replication".to_owned(), "true".to_owned())] };
    prop_oneof![
        Just(Event::Client(startup)),
        asked.prop_map(|text| Event::Client(FromClient::Query(text))),
        Just(Event::Client(FromClient::CopyDone)),
        Just(Event::Client(FromClient::Terminate)),
        (".{0,3}", "[0-9a-f]{0,4}").prop_map(|(begins, sha256)| Event::Client(FromClient::Sql { begins, sha256 })),
        said().prop_map(Event::Server),
        proptest::option::of(any::<u32>()).prop_map(|oid| Event::Part(Part::Archive(oid))),
        Just(Event::Part(Part::Manifest)),
        member().prop_map(Event::Member),
        octets().prop_map(Event::Text),
        (octets(), octets()).prop_map(|(before, after)| Event::Sealed(before, after)),
        (octets(), octets()).prop_map(|(before, after)| Event::Summed(before, after)),
        ".{0,9}".prop_map(Event::Opaque),
        Just(Event::End),
    ]
}

/// Asks a player what the strategies above record, and takes whatever comes.
async fn ask(player: &Player) {
    let mut stream = player.connect();
    let mut wire = bytes::BytesMut::new();
    let parameters = vec![("user".to_owned(), "u".to_owned()), ("replication".to_owned(), "true".to_owned())];
    let startup = backstop_protocol::frontend::Startup { major: 3, minor: 0, parameters };
    backstop_protocol::frontend::StartupPacket::Startup(startup).encode(&mut wire);
    for text in ["IDENTIFY_SYSTEM", "BASE_BACKUP", "START_REPLICATION 0/2000000 TIMELINE 1", "SELECT 1"] {
        backstop_protocol::frontend::FrontendMessage::Query(text.into()).encode(&mut wire);
        backstop_protocol::frontend::FrontendMessage::CopyDone.encode(&mut wire);
    }
    backstop_protocol::frontend::FrontendMessage::Terminate.encode(&mut wire);
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let mut sink = tokio::io::sink();
    // The player may close before it has read everything.
    let sending = async {
        let _ = write.write_all(&wire).await;
        let _ = write.shutdown().await;
    };
    let mut reading = (&mut read).take(8 << 20);
    let ((), _) = tokio::join!(sending, tokio::io::copy(&mut reading, &mut sink));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn events_round_trip(events in proptest::collection::vec((1..4_u32, event()), 0..20)) {
        let mut read = Vec::new();
        file::read(&sealed(&events)[..], |_, connection, event| {
            read.push((connection, event));
            Ok(())
        }).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(read, events);
    }

    #[test]
    fn any_recording_is_refused_or_played(mut events in proptest::collection::vec((1..3_u32, event()), 0..30)) {
        let startup = FromClient::Startup {
            protocol: (3, 0),
            parameters: vec![("replication".to_owned(), "true".to_owned())],
        };
        events.insert(0, (1, Event::Client(startup)));
        events.insert(1, (1, Event::Server(FromServer::Ready('I'))));
        if let Ok(tape) = Tape::read(&sealed(&events)[..]) {
            in_memory(ask(&Player::new(tape)));
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes: Vec<u8>) {
        prop_assert!(Tape::read(&bytes[..]).is_err());
        let mut head = b"{\"cassette\":1,\"recorder\":\"\"}\n".to_vec();
        head.extend_from_slice(&bytes);
        prop_assert!(Tape::read(&zstd::encode_all(&head[..], 1).expect("memory")[..]).is_err());
    }

    #[test]
    fn any_bytes_are_recorded(pieces in proptest::collection::vec((1..3_u32, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..20)) {
        let shelf = Shelf::default();
        let mut recorder = Recorder::new(shelf.clone()).expect("memory");
        for (session, sent, bytes) in pieces {
            recorder.bytes(Duration::ZERO, session, if sent { Direction::Sent } else { Direction::Received }, &bytes);
        }
        recorder.finish().expect("memory");
        prop_assert!(Tape::read(&shelf.bytes()[..]).is_ok());
    }
}
