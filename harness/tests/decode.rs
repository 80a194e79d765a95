//! `backstop decode`, from the command line: what was kept, what was recorded, what comes on standard input.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

use assert_cmd::Command;

const STORY: &str =
    "summary = \"A plain backup\"\nbecause = \"It must work\"\n[matrix]\nserver.version = [\"14\", \"18\"]\n";

fn backstop(root: &Path, arguments: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstop"));
    let output = command.env("BACKSTOP_SCENARIOS", root).args(arguments).write_stdin(input).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
}

#[test]
fn a_kept_case_is_decoded_down_to_members_in_both_generations() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("story.toml"), STORY).expect("a scenario");
    let kept = directory.path().join("kept");
    let keep = kept.to_str().expect("UTF-8");
    let (status, out, error) = backstop(directory.path(), &["run", "story", "--capture", "--keep", keep], b"");
    assert_eq!(status, 0, "{out}{error}");
    for version in ["14", "18"] {
        let wire = kept.join(format!("story[server.version={version}]/wire.pcap"));
        let (status, out, error) = backstop(directory.path(), &["decode", wire.to_str().expect("UTF-8")], b"");
        assert_eq!((status, error.as_str()), (0, ""), "{out}");
        let said = |text: &str| assert!(out.contains(text), "{version} does not say {text:?}:\n{out}");
        said("StartupMessage 3.0 user=backstop");
        said("ParameterStatus server_version=");
        said("Query BASE_BACKUP");
        said("DataRow recptr=0/2000028, tli=1");
        said(if version == "14" { "CopyData base.tar 0..512" } else { "CopyData d base.tar 0..512" });
        said("  base/1/1247 32768..65536 of 65536");
        said("backup_manifest 0..");
        said("CopyData w 0/2000000..");
        said("CopyData r write 0/");
        said("Terminate");
        assert!(!out.contains(" ! "), "{out}");
    }
}

#[test]
fn what_serve_records_is_decoded() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("story.toml"), STORY).expect("a scenario");
    let file = directory.path().join("wire.pcap");
    let mut server = std::process::Command::new(env!("CARGO_BIN_EXE_backstop"))
        .args(["serve", "story[server.version=18]", "--scenarios"])
        .arg(directory.path())
        .arg("--record")
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let address = line.trim_end().strip_prefix("listening on ").expect(&line);
    let mut client = TcpStream::connect(address).expect("somebody listens");
    client.write_all(b"\0\0\0\x08\x04\xd2\x16\x2f").expect("SSLRequest");
    let mut answer = [0];
    client.read_exact(&mut answer).expect("an answer");
    let interrupted = Command::new("kill").args(["-INT", &server.id().to_string()]).output().expect("kill");
    let ended = server.wait().expect("it ended");
    assert!(interrupted.status.success() && ended.success(), "{ended}");
    let (status, out, error) = backstop(directory.path(), &["decode", file.to_str().expect("UTF-8")], b"");
    assert_eq!((status, answer, error.as_str()), (0, *b"N", ""));
    assert!(out.contains("SSLRequest") && out.contains("answer no encryption"), "{out}");

    let nowhere = ["serve", "story[server.version=18]", "--record", "/nowhere/wire.pcap"];
    let (status, _, error) = backstop(directory.path(), &nowhere, b"");
    assert_eq!(status, 96);
    assert!(error.contains("could not write /nowhere/wire.pcap"), "{error}");
}

#[test]
fn standard_input_and_broken_files() {
    let decode = |file: &str, input: &[u8]| backstop(Path::new("."), &["decode", file], input);
    let (status, out, _) = decode("-", b"> 5a0000000549\n");
    assert_eq!((status, out.as_str()), (0, "        - #1 >         0 Z      6 ReadyForQuery I\n"));
    let (status, _, error) = decode("-", b"> 5a000000054\n");
    assert_eq!((status, error.as_str()), (2, "error: -: line 1, column 14: half a byte at the end of the line\n"));
    let (status, _, error) = decode("/nowhere", b"");
    assert_eq!(status, 96);
    assert!(error.starts_with("error: could not read /nowhere: "), "{error}");
    let (status, out, _) = backstop(Path::new("."), &["decode", "-", "--from", "client"], b"Q\0\0\0\x06x\0");
    assert_eq!((status, out.as_str()), (0, "        - #1 <         0 Q      7 Query x\n"));
}
