//! Whatever a client sends, the session ends in order.

use backstop_protocol::frontend::{Startup, StartupPacket};
use backstop_protocol::version::ServerVersion;
use bytes::BytesMut;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::config::{Auth, Config};
use crate::server::Server;
use crate::testing::config;

/// Sends bytes, closes, and waits for the session to end. A panic in the session would be lost with its task, so the book must
/// show that it said its last word.
fn survives(auth: Auth, bytes: &[u8]) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let server = Server::new(Config { auth, size: 0, ..config(ServerVersion::V18, vec![]) }).unwrap();
        let mut stream = server.connect();
        // The session may close early.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said).await;
        drop(stream);
        server.idle().await;
        server.transcript().last().is_some_and(|event| event.message == "connection")
    })
}

fn started() -> BytesMut {
    let parameters = [("user", "repl"), ("replication", "true")];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let mut bytes = BytesMut::new();
    StartupPacket::Startup(Startup { major: 3, minor: 0, parameters }).encode(&mut bytes);
    bytes
}

/// Frames with tags that mean something and bodies that may not.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let commands = prop_oneof![
        "[ -~]{0,60}",
        Just("IDENTIFY_SYSTEM".to_owned()),
        Just("START_REPLICATION 0/2000000".to_owned()),
        Just("UPLOAD_MANIFEST".to_owned()),
        Just("BASE_BACKUP (CHECKPOINT fast)".to_owned()),
    ];
    let body = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..60),
        commands.prop_map(|text| [text.as_bytes(), b"\0"].concat()),
    ];
    let tag = proptest::sample::select(b"QpdcfXSHPBDECFz".to_vec());
    let frame = (tag, body).prop_map(|(tag, body)| {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[tag], length.as_slice(), &body].concat()
    });
    proptest::collection::vec(frame, 0..6).prop_map(|frames| frames.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_first_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(survives(Auth::Trust, &bytes));
    }

    #[test]
    fn any_bytes_after_start_up(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(survives(Auth::Trust, &[&started(), bytes.as_slice()].concat()));
    }

    #[test]
    fn any_messages(frames in frames()) {
        prop_assert!(survives(Auth::Trust, &[&started(), frames.as_slice()].concat()));
    }

    #[test]
    fn any_answers_to_challenges(frames in frames(), scram: bool) {
        let auth = if scram { Auth::ScramSha256 } else { Auth::Md5 };
        prop_assert!(survives(auth, &[&started(), frames.as_slice()].concat()));
    }
}
