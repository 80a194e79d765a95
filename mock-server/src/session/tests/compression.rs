//! Server-side compression: what is inside is the archive that is sent without it.

use std::io::Read;

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::base_backup::archive::ArchiveMessage;
use backstop_protocol::version::ServerVersion;
use tokio::time::{Duration, Instant};

use crate::config::Config;
use crate::fault::Fault;
use crate::server::Server;
use crate::testing::{Client, End, archives, config, diagnostics, fault, payloads, server, tags};

const METHODS: [(&str, &str); 3] = [("gzip", ".gz"), ("lz4", ".lz4"), ("zstd", ".zst")];

fn decompress(suffix: &str, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match suffix {
        ".gz" => drop(flate2::read::GzDecoder::new(data).read_to_end(&mut out).expect("gzip")),
        ".lz4" => drop(lz4_flex::frame::FrameDecoder::new(data).read_to_end(&mut out).expect("lz4")),
        _ => out = zstd::decode_all(data).expect("zstd"),
    }
    out
}

/// A backup from a fresh server, so that its start is always the same.
async fn backup(faults: Vec<Fault>, options: &str) -> (Vec<BackendMessage>, End) {
    let server = server(ServerVersion::V18, faults);
    let mut client = Client::start(&server, "test").await;
    client.query(&format!("BASE_BACKUP (CHECKPOINT 'fast', WAIT false, MANIFEST 'yes'{options})")).await
}

fn progress(messages: &[BackendMessage]) -> Vec<i64> {
    let told = payloads(messages).into_iter().filter_map(|payload| match ArchiveMessage::decode(payload) {
        Ok(ArchiveMessage::Progress(done)) => Some(done),
        _ => None,
    });
    told.collect()
}

#[tokio::test(start_paused = true)]
async fn archives_are_compressed_and_the_manifest_is_not() {
    let (plain, _) = backup(vec![], ", WAL").await;
    for (method, suffix) in METHODS {
        let (messages, end) = backup(vec![], &format!(", WAL, COMPRESSION '{method}'")).await;
        assert_eq!((tags(&messages).as_str(), end), ("TDCTDDCHdcTDCCZ", End::Ready), "{method}");
        for ((name, data), (plain_name, plain_data)) in archives(&messages).iter().zip(archives(&plain)) {
            if plain_name == "manifest" {
                assert!(*name == plain_name && *data == plain_data, "{method}");
            } else {
                assert_eq!(*name, format!("{plain_name}{suffix}"));
                assert!(decompress(suffix, data) == plain_data, "{name}");
            }
        }
        // Bytes before compression.
        assert_eq!(progress(&messages), progress(&plain), "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_is_said_again() {
    for options in ["'zstd', COMPRESSION_DETAIL 'level=1,workers=4,long'", "'gzip'", "'lz4', COMPRESSION_DETAIL '9'"] {
        let options = format!(", COMPRESSION {options}");
        assert!(backup(vec![], &options).await == backup(vec![], &options).await, "{options}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_compresses_with_what_it_was_built_with() {
    let settings = [("backstop.compression".to_owned(), "gzip".to_owned())].into();
    let server = Server::new(Config { settings, ..config(ServerVersion::V18, vec![]) }).unwrap();
    let mut client = Client::start(&server, "test").await;
    let (messages, _) = client.query("BASE_BACKUP (COMPRESSION 'lz4')").await;
    let refusal = "invalid compression specification: this build does not support compression with LZ4";
    assert_eq!(diagnostics(&messages), [format!("ERROR 42601: {refusal}")]);
    let (messages, _) = client.query("BASE_BACKUP (COMPRESSION 'gzip', CHECKPOINT 'fast', WAIT false)").await;
    assert_eq!(tags(&messages), "TDCTDDCHdcTDCCZ");
    let settings = [("backstop.compression".to_owned(), "gzip, bzip2".to_owned())].into();
    let error = Server::new(Config { settings, ..Config::default() }).unwrap_err().to_string();
    assert_eq!(error, "invalid settings.backstop.compression: \"bzip2\" is none of gzip, lz4 and zstd");
}

/// The tar archive has the same fault, whether it is compressed or not.
#[tokio::test(start_paused = true)]
async fn faults_strike_the_archive_inside() {
    for (when, action) in [
        (r#"{"member": {"path": "PG_VERSION"}}"#, r#"{"rename-member": {"to": "../../etc/passwd"}}"#),
        (r#"{"member": {"path": "PG_VERSION"}}"#, r#"{"omit-member": {}}"#),
        (r#"{"member": {"path": "PG_VERSION"}}"#, r#"{"extra-member": {"name": "x", "content": "y"}}"#),
        (r#"{"member": {"path": "PG_VERSION"}}"#, r#"{"repeat": {}}"#),
        (r#"{"member": {"path": "base/1/1259", "at": "50%"}}"#, r#"{"garble": {"bits": 3}}"#),
        (r#"{"archive-data": {"archive": "base.tar", "at": "100001B"}}"#, r#"{"insert": {"hex": "00ff"}}"#),
        (r#"{"archive-data": {"archive": "base.tar", "at": "100001B"}}"#, r#"{"truncate": {}}"#),
        (r#"{"archive-begin": {"archive": "base.tar"}}"#, r#"{"omit-archive": {}}"#),
        (r#"{"archive-end": {"archive": "16400.tar"}}"#, r#"{"omit-trailer": {}}"#),
    ] {
        let (plain, _) = backup(vec![fault(when, action)], "").await;
        let (sound, _) = backup(vec![], "").await;
        assert!(archives(&plain) != archives(&sound), "{action}");
        for (method, suffix) in METHODS {
            let (messages, end) = backup(vec![fault(when, action)], &format!(", COMPRESSION '{method}'")).await;
            assert_eq!(end, End::Ready);
            let inside: Vec<_> = archives(&messages)
                .into_iter()
                .map(|(name, data)| match name.strip_suffix(suffix) {
                    Some(name) => (name.to_owned(), decompress(suffix, &data)),
                    None => (name, data),
                })
                .collect();
            assert!(inside == archives(&plain), "{action} {method}");
            assert_eq!(progress(&messages), progress(&plain), "{action} {method}");
        }
    }
}

/// What is cut is the message, not the archive: bytes arrive in smaller pieces and are the same.
#[tokio::test(start_paused = true)]
async fn compressed_messages_are_chopped() {
    let chop = fault(r#"{"copy-begin": {}}"#, r#"{"chop": {"into": "1000B"}}"#);
    let (messages, _) = backup(vec![chop], ", COMPRESSION 'gzip'").await;
    let data = payloads(&messages).into_iter().filter(|payload| payload.starts_with(b"d"));
    assert!(data.clone().count() > 10 && data.clone().all(|payload| payload.len() <= 1001));
    let (whole, _) = backup(vec![], ", COMPRESSION 'gzip'").await;
    assert!(archives(&messages) == archives(&whole));
}

/// A crash leaves a part of a frame.
#[tokio::test(start_paused = true)]
async fn a_crash_strikes_between_compressed_bytes() {
    let crash = fault(r#"{"archive-data": {"archive": "base.tar", "at": "300000B"}}"#, r#"{"crash": {}}"#);
    let (messages, end) = backup(vec![crash], ", COMPRESSION 'gzip'").await;
    assert!(matches!(end, End::Closed(1..)), "{end:?}");
    let (whole, _) = backup(vec![], ", COMPRESSION 'gzip'").await;
    let (part, whole) = (archives(&messages).swap_remove(1), archives(&whole).swap_remove(1));
    assert_eq!(part.0, whole.0);
    assert!(whole.1.starts_with(&part.1) && part.1.len() < whole.1.len());
}

/// The throttle stands behind the compressor: what a client allows is what it receives.
#[tokio::test(start_paused = true)]
async fn max_rate_counts_compressed_bytes() {
    let begun = Instant::now();
    let (messages, _) = backup(vec![], ", MAX_RATE 64, COMPRESSION 'gzip'").await;
    let took = begun.elapsed();
    let sent: usize = archives(&messages).iter().map(|(_, data)| data.len()).sum();
    let least = Duration::from_millis(u64::try_from(sent * 1000 / 65536 + 1).unwrap());
    assert!(took <= least && took + Duration::from_secs(1) > least, "{sent} bytes took {took:?}");
}
