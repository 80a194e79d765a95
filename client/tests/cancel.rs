//! Who gives up tells the server, which would otherwise go on with what nobody waits for.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use backstop_scenarios::postgres::{Installation, Postgres, reachable};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn an_interrupt_ends_the_backup_on_the_server_too() {
    let Some(installation) = Installation::find("an interrupted backup") else { return };
    let scratch = installation.scratch();
    // The checkpoint is spread over the better part of an hour.
    let settings = ["checkpoint_timeout = 1h", "checkpoint_completion_target = 0.9"];
    let server = Postgres::new(&installation, scratch.path(), &settings);
    server.sql("create table t as select generate_series(1, 200000) as i");
    let client = reachable(Path::new(env!("CARGO_BIN_EXE_backstop-client")), scratch.path());
    let target = scratch.path().join("backup");
    for signal in [Signal::INT, Signal::TERM] {
        let mut command = installation.command(&client);
        command
            .args(["basebackup", "-v", "-Xnone", "-U", "postgres", "-h"])
            .arg(server.socket())
            .arg("-D")
            .arg(&target);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.ends_with("waiting for checkpoint to complete")));
        // The server has begun what it would go on with.
        while server.sql("select count(*) from pg_stat_activity where query like 'BASE_BACKUP%' and state = 'active'")
            == "0"
        {}
        kill_process(Pid::from_child(&child), signal).unwrap();
        let rest: Vec<String> = lines.collect();
        assert!(rest.iter().any(|line| line.contains("error: canceled by ")), "{rest:?}");
        assert_eq!(child.wait().unwrap().code(), Some(1));
        assert!(!target.exists());
        while server.sql("select count(*) from pg_stat_activity where backend_type = 'walsender'") != "0" {}
    }
    assert_eq!(server.log().matches("canceling statement due to user request").count(), 2, "{}", server.log());
}

/// A packet without a type: its length, and what follows.
fn packet(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut rest).unwrap();
    rest
}

/// A message: its type, and what follows its length.
fn message(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(4 + content.len()).unwrap().to_be_bytes();
    [&[kind][..], &length, content].concat()
}

#[test]
fn a_receiver_that_waits_for_its_first_answers_says_that_it_waits_no_longer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let scratch = tempfile::tempdir().unwrap();
    for signal in [Signal::INT, Signal::TERM] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backstop-client"));
        command.args([
            "receivewal",
            "-v",
            "-n",
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "me",
            "-d",
            "sslmode=disable",
            "-D",
        ]);
        let mut child = command.arg(scratch.path()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut session, _) = listener.accept().unwrap();
        assert_eq!(packet(&mut session)[..4], [0, 3, 0, 0]);
        let key = [0, 0, 0x12, 0x67, 1, 2, 3, 4];
        let answer = [
            message(b'R', &[0; 4]),
            message(b'S', b"server_version\x0018.4\0"),
            message(b'K', &key),
            message(b'Z', b"I"),
        ];
        session.write_all(&answer.concat()).unwrap();
        // Its first command, which this server never answers.
        let mut kind = [0];
        session.read_exact(&mut kind).unwrap();
        assert_eq!((kind, &packet(&mut session)[..5]), ([b'Q'], &b"SHOW "[..]));
        kill_process(Pid::from_child(&child), signal).unwrap();
        let (mut other, _) = listener.accept().unwrap();
        assert_eq!(packet(&mut other), [&[0x04, 0xd2, 0x16, 0x2e][..], &key].concat(), "CancelRequest");
        drop((other, session));
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(said.ends_with("receivewal: received interrupt signal, exiting\n"), "{said}");
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}
