//! TARGET: where a backup goes.

use backstop_protocol::base_backup::archive::ArchiveMessage;
use backstop_protocol::version::ServerVersion;
use sha2::{Digest, Sha256};

use crate::config::{Config, RoleConfig};
use crate::server::Server;
use crate::testing::{Client, End, archives, config, diagnostics, fault, payloads, server, tags};

/// What the client is told instead of data.
fn kinds(messages: &[backstop_protocol::backend::BackendMessage]) -> String {
    payloads(messages).iter().map(|payload| char::from(payload[0])).collect()
}

const STORED: &str =
    "BASE_BACKUP (CHECKPOINT 'fast', WAIT false, MANIFEST 'yes', TARGET 'server', TARGET_DETAIL '/srv/b')";

#[tokio::test(start_paused = true)]
async fn a_backup_on_the_server_is_what_a_client_would_have_got() {
    for (compression, suffix) in [("", ""), (", COMPRESSION 'lz4'", ".lz4")] {
        let command = |target: &str| {
            format!("BASE_BACKUP (CHECKPOINT 'fast', WAIT false, MANIFEST 'yes', TARGET {target}{compression})")
        };
        let to_client = server(ServerVersion::V18, vec![]);
        let mut client = Client::start(&to_client, "test").await;
        let (sent, _) = client.query(&command("'client'")).await;
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("srv")).unwrap();
        let server_root = Some(root.path().to_owned());
        let server = Server::new(Config { server_root, ..config(ServerVersion::V18, vec![]) }).unwrap();
        let mut client = Client::start_as(&server, "postgres", "test").await;
        let (messages, end) = client.query(&command("'server', TARGET_DETAIL '/srv/b'")).await;
        assert_eq!((tags(&messages).as_str(), end), ("TDCTDDCHdcTDCCZ", End::Ready));
        assert_eq!(kinds(&messages), "npnpm");
        let names: Vec<_> = archives(&messages).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, [format!("16400.tar{suffix}"), format!("base.tar{suffix}"), "manifest".to_owned()]);
        let stored = server.cluster().stored_files();
        assert_eq!(stored.len(), 3);
        for (name, data) in archives(&sent) {
            let path = if name == "manifest" { "/srv/b/backup_manifest".to_owned() } else { format!("/srv/b/{name}") };
            let file = stored.iter().find(|file| file.path == path).unwrap();
            assert_eq!((file.size, file.sha256), (data.len() as u64, Some(Sha256::digest(&data).into())), "{path}");
            assert!(std::fs::read(root.path().join(&path[1..])).unwrap() == data, "{path}");
        }
        let (messages, _) = client.query(&command("'server', TARGET_DETAIL '/srv/b'")).await;
        assert_eq!(diagnostics(&messages), ["ERROR 58P02: directory \"/srv/b\" exists but is not empty"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_directory_and_a_role_must_be_right() {
    let role = |name: &str, groups: &[&str]| RoleConfig {
        replication: true,
        superuser: name == "postgres",
        member_of: groups.iter().map(|group| (*group).to_owned()).collect(),
        ..RoleConfig::new(name)
    };
    let writers: [(&str, &[&str]); 4] =
        [("repl", &[]), ("alice", &["pg_write_server_files"]), ("backup", &["alice"]), ("postgres", &[])];
    let roles = writers.map(|(name, groups)| role(name, groups));
    for version in [ServerVersion::V15, ServerVersion::V16] {
        let server = Server::new(Config { roles: roles.to_vec(), ..config(version, vec![]) }).unwrap();
        let mut told = String::new();
        for (user, detail) in
            [("repl", "/srv/b"), ("alice", "srv/b"), ("backup", "/nonexistent/x"), ("postgres", "/var")]
        {
            let mut client = Client::start_as(&server, user, "test").await;
            let command = format!("BASE_BACKUP (TARGET 'server', TARGET_DETAIL '{detail}')");
            let (messages, end) = client.query(&command).await;
            assert_eq!((tags(&messages).as_str(), end), ("EZ", End::Ready));
            told += &diagnostics(&messages).join(" ");
            told.push('\n');
        }
        if version == ServerVersion::V15 {
            insta::assert_snapshot!(told, @r#"
            ERROR 42501: must be superuser or a role with privileges of the pg_write_server_files role to create backup stored on server
            ERROR 42602: relative path not allowed for backup stored on server
            ERROR 58P01: could not create directory "/nonexistent/x": No such file or directory
            ERROR 58P02: directory "/var" exists but is not empty
            "#);
        } else {
            assert!(told.starts_with("ERROR 42501: permission denied to create backup stored on server\n"), "{told}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_fails_leaves_a_part_without_a_manifest() {
    let error = fault(
        r#"{"archive-data": {"archive": "base.tar", "at": "50%"}}"#,
        r#"{"error": {"sqlstate": "58030", "message": "could not read"}}"#,
    );
    let server = server(ServerVersion::V17, vec![error]);
    let mut client = Client::start_as(&server, "postgres", "test").await;
    let (messages, _) = client.query(STORED).await;
    assert!(tags(&messages).ends_with("NEZ"));
    let stored: Vec<_> =
        server.cluster().stored_files().into_iter().map(|file| (file.path, file.sha256.is_some())).collect();
    assert_eq!(stored, [("/srv/b/16400.tar".to_owned(), true), ("/srv/b/base.tar".to_owned(), false)]);
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_of_what_nobody_gets() {
    let server = server(ServerVersion::V18, vec![]);
    let mut client = Client::start(&server, "test").await;
    let progress = |messages: Vec<_>| {
        let last = payloads(&messages).into_iter().rev().find_map(|payload| match ArchiveMessage::decode(payload) {
            Ok(ArchiveMessage::Progress(done)) => Some(done),
            _ => None,
        });
        last.unwrap()
    };
    let (sent, _) = client.query("BASE_BACKUP (CHECKPOINT 'fast', WAIT false)").await;
    let to_nobody =
        "BASE_BACKUP (CHECKPOINT 'fast', WAIT false, TARGET 'blackhole', COMPRESSION 'zstd', MAX_RATE 1024)";
    let (swallowed, _) = client.query(to_nobody).await;
    assert_eq!(kinds(&swallowed), "npnp");
    assert_eq!(progress(sent), progress(swallowed));
}
