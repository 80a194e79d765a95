//! A client may send any bytes, in any order, with any length, slowly or not at all, and read or not: its session ends in order,
//! and the session beside it never notices.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::time::Duration;

use backstop_mock::config::Config;
use backstop_mock::{MemoryStream, Server};
use backstop_protocol::frame::{MAX_FRAME, read_frame};
use backstop_protocol::version::ServerVersion;
use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

/// StartupMessage 3.0, user=repl, replication=true.
const STARTUP: &[u8] = b"\0\0\0\x24\0\x03\0\0user\0repl\0replication\0true\0\0";

/// The clock is tokio's paused one: it moves only when nobody has anything to do.
const PATIENCE: Duration = Duration::from_secs(600);

/// What a hostile client does next.
#[derive(Clone, Debug)]
enum Move {
    /// Writes, all at once.
    Write(Vec<u8>),
    /// Writes a byte a second.
    Trickle(Vec<u8>),
    /// Does nothing for so many seconds.
    Wait(u16),
    /// Reads what is there, at most so many bytes.
    Read(usize),
}

/// How it leaves.
#[derive(Clone, Copy, Debug)]
enum Exit {
    Close,
    Reset,
    /// It stays until the other client is done.
    Stay,
}

fn frame(tag: u8, length: u32, body: &[u8]) -> Vec<u8> {
    [&[tag], length.to_be_bytes().as_slice(), body].concat()
}

fn honest(tag: u8, body: &[u8]) -> Vec<u8> {
    frame(tag, u32::try_from(body.len() + 4).unwrap(), body)
}

fn commands() -> impl Strategy<Value = Vec<u8>> {
    let known = select(&[
        "IDENTIFY_SYSTEM",
        "SHOW wal_segment_size",
        "TIMELINE_HISTORY 1",
        "BASE_BACKUP",
        "BASE_BACKUP (CHECKPOINT 'fast', WAL, MANIFEST 'yes')",
        "BASE_BACKUP (MAX_RATE 32)",
        "BASE_BACKUP (COMPRESSION 'gzip', PROGRESS)",
        "BASE_BACKUP FAST NOWAIT",
        "CREATE_REPLICATION_SLOT s PHYSICAL RESERVE_WAL",
        "CREATE_REPLICATION_SLOT t TEMPORARY PHYSICAL",
        "START_REPLICATION SLOT s 0/2000000",
        "START_REPLICATION 0/2000000 TIMELINE 1",
        "START_REPLICATION 7F/0",
        "DROP_REPLICATION_SLOT s WAIT",
        "READ_REPLICATION_SLOT s",
        "UPLOAD_MANIFEST",
        "SELECT 1; SELECT 2",
        "BEGIN",
    ]);
    let garbled = (known.clone(), 0..40_usize, any::<u8>()).prop_map(|(text, at, byte)| {
        let mut text = text.as_bytes().to_vec();
        let at = at % text.len();
        text[at] = byte;
        text
    });
    let known = known.prop_map(|text| text.as_bytes().to_vec());
    prop_oneof![known, garbled, "[ -~]{0,60}".prop_map(String::into_bytes)].prop_map(|mut text| {
        text.push(0);
        honest(b'Q', &text)
    })
}

fn messages() -> impl Strategy<Value = Vec<u8>> {
    let tag = || prop_oneof![4 => select(b"QpdcfXSHPBDECF".to_vec()), 1 => any::<u8>()];
    let body = || vec(any::<u8>(), 0..80);
    // A standby's status update, whatever it claims.
    let status = vec(any::<u8>(), 33).prop_map(|fields| honest(b'd', &[b"r", fields.as_slice()].concat()));
    prop_oneof![
        6 => commands(),
        2 => (tag(), body()).prop_map(|(tag, body)| honest(tag, &body)),
        2 => (tag(), any::<u32>(), body()).prop_map(|(tag, length, body)| frame(tag, length, &body)),
        1 => (tag(), 0..2_000_000_000_u32).prop_map(|(tag, length)| frame(tag, length, b"")),
        1 => status,
        1 => Just(honest(b'c', b"")),
        1 => body(),
    ]
}

fn openings() -> impl Strategy<Value = Vec<u8>> {
    let packet = |code: u32| [8_u32.to_be_bytes(), code.to_be_bytes()].concat();
    let cancel = (any::<[u8; 8]>())
        .prop_map(|key| [&16_u32.to_be_bytes(), &80_877_102_u32.to_be_bytes(), key.as_slice()].concat());
    prop_oneof![
        8 => Just(STARTUP.to_vec()),
        1 => Just([packet(80_877_103), STARTUP.to_vec()].concat()),
        1 => Just(packet(80_877_104)),
        1 => cancel,
        1 => (any::<u32>(), vec(any::<u8>(), 0..60)).prop_map(|(length, rest)| [&length.to_be_bytes(), rest.as_slice()].concat()),
        1 => vec(any::<u8>(), 0..200),
        1 => Just(Vec::new()),
    ]
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        8 => messages().prop_map(Move::Write),
        1 => messages().prop_map(Move::Trickle),
        1 => any::<u16>().prop_map(Move::Wait),
        3 => select(&[1, 100, 100_000, 10_000_000][..]).prop_map(Move::Read),
    ];
    (openings(), vec(one, 0..8)).prop_map(|(opening, moves)| [vec![Move::Write(opening)], moves].concat())
}

/// Plays the hostile client.
async fn harass(mut stream: MemoryStream, moves: Vec<Move>, exit: Exit, done: tokio::sync::oneshot::Receiver<()>) {
    for next in moves {
        match next {
            // A server that does not read is waited for a while: it waits for the client to read, perhaps.
            Move::Write(bytes) => drop(timeout(Duration::from_secs(5), stream.write_all(&bytes)).await),
            Move::Trickle(bytes) => {
                for byte in bytes {
                    sleep(Duration::from_secs(1)).await;
                    let _ = timeout(Duration::from_secs(5), stream.write_all(&[byte])).await;
                }
            }
            Move::Wait(seconds) => sleep(Duration::from_secs(seconds.into())).await,
            Move::Read(most) => {
                let mut left = most;
                let mut buffer = [0; 8192];
                while left > 0 {
                    let piece = left.min(buffer.len());
                    match timeout(Duration::from_secs(1), stream.read(&mut buffer[..piece])).await {
                        Ok(Ok(read @ 1..)) => left -= read,
                        _ => break,
                    }
                }
            }
        }
    }
    match exit {
        Exit::Close => drop(stream),
        Exit::Reset => stream.reset(),
        Exit::Stay => {
            let _ = done.await;
        }
    }
}

/// A client that knows what it does.
struct Sound {
    stream: MemoryStream,
    input: BytesMut,
}

impl Sound {
    async fn start(server: &Server) -> Self {
        let mut client = Self { stream: server.connect(), input: BytesMut::new() };
        client.stream.write_all(STARTUP).await.unwrap();
        client.answer().await;
        client
    }

    /// Sends a command; the messages of its answer.
    async fn ask(&mut self, command: &str) -> Vec<(u8, Bytes)> {
        self.stream.write_all(&honest(b'Q', &[command.as_bytes(), b"\0"].concat())).await.unwrap();
        self.answer().await
    }

    async fn answer(&mut self) -> Vec<(u8, Bytes)> {
        let mut messages = Vec::new();
        loop {
            while let Some(frame) = read_frame(&mut self.input, MAX_FRAME).unwrap() {
                messages.push((frame.tag, frame.body));
                if frame.tag == b'Z' {
                    return messages;
                }
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await;
            assert!(matches!(read, Ok(Ok(1..))), "the sound client waits in vain: {read:?}");
        }
    }
}

/// What must be the same whatever another client does: lengths, and all content but positions and times.
fn essence(answer: &[(u8, Bytes)]) -> Vec<(u8, usize, Option<Bytes>)> {
    /// Pages of relations come in larger messages than labels and `pg_control`.
    const SMALL: usize = 8200;
    let message = |(tag, body): &(u8, Bytes)| {
        let content = (body.len() > SMALL && *tag == b'd' && body.first() == Some(&b'd')).then(|| body.clone());
        (*tag, body.len(), content)
    };
    answer.iter().map(message).collect()
}

const BACKUP: &str = "BASE_BACKUP (CHECKPOINT 'fast', WAIT false)";

fn server() -> Server {
    let config = Config { version: ServerVersion::V17, size: 256 << 10, max_wal_senders: 3, ..Config::default() };
    Server::new(config).unwrap()
}

/// What the sound client is told by a server that has no other.
async fn alone() -> Vec<Vec<(u8, usize, Option<Bytes>)>> {
    let server = server();
    let mut sound = Sound::start(&server).await;
    let mut told = Vec::new();
    for command in ["IDENTIFY_SYSTEM", BACKUP, "SHOW server_version"] {
        told.push(essence(&sound.ask(command).await));
    }
    told
}

async fn beside_each_other(moves: Vec<Move>, exit: Exit) {
    let expected = alone().await;
    let server = server();
    let mut sound = Sound::start(&server).await;
    let (done, waits) = tokio::sync::oneshot::channel();
    let hostile = tokio::spawn(harass(server.connect(), moves, exit, waits));
    for (command, expected) in ["IDENTIFY_SYSTEM", BACKUP, "SHOW server_version"].into_iter().zip(&expected) {
        // Both have their turns.
        sleep(Duration::from_secs(3)).await;
        assert_eq!(&essence(&sound.ask(command).await), expected, "{command}");
    }
    if matches!(exit, Exit::Stay) {
        drop(done);
        hostile.await.unwrap();
    } else {
        hostile.await.unwrap();
        assert_eq!(&essence(&sound.ask("IDENTIFY_SYSTEM").await), &expected[0], "after the other has left");
    }
    drop(sound);
    timeout(PATIENCE, server.idle()).await.expect("every session ends");
    let state = server.state();
    assert_eq!((state.sessions, state.running_backups), (0, 0));
    assert!(state.slots.iter().all(|slot| !slot.temporary && slot.active_pid.is_none()), "{:?}", state.slots);
    // A session that panicked could not say its last word.
    let transcript = server.transcript();
    for session in 1..=2 {
        let last = transcript.iter().rev().find(|event| event.session == session).unwrap();
        assert_eq!(last.message, "connection", "session {session}");
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn nobody_notices_a_hostile_client(
        moves in moves(),
        exit in select(&[Exit::Close, Exit::Reset, Exit::Stay][..]),
    ) {
        run(beside_each_other(moves, exit));
    }
}

/// A length is judged before anything is waited for: what follows it need not come.
#[test]
fn a_length_that_cannot_be_ends_the_session_at_once() {
    run(async {
        for (tag, length) in [(b'Q', 3), (b'Q', 0x7FFF_FFFF), (b'Q', u32::MAX), (b'd', 0), (b'X', 70 << 20)] {
            let server = server();
            let mut client = Sound::start(&server).await;
            client.stream.write_all(&frame(tag, length, b"")).await.unwrap();
            timeout(Duration::from_secs(1), server.idle()).await.unwrap_or_else(|_| panic!("{tag} {length}"));
        }
    });
}

/// Nobody who is silent keeps a connection that has not started up (`authentication_timeout`), or a stream
/// (`wal_sender_timeout`).
#[test]
fn silence_is_limited_where_the_server_limits_it() {
    run(async {
        let server = server();
        let silent = server.connect();
        timeout(Duration::from_secs(61), server.idle()).await.expect("one minute to start up");
        drop(silent);
        let mut streaming = Sound::start(&server).await;
        let start = honest(b'Q', b"START_REPLICATION 0/2000000\0");
        streaming.stream.write_all(&start).await.unwrap();
        timeout(Duration::from_secs(61), server.idle()).await.expect("one minute to answer");
    });
}
