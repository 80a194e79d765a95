//! What a server costs does not depend on how much it serves, and what a client costs not on how much it takes.

mod support;

use std::env;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{Serving, client};
use wait4::Wait4;

/// A cluster of a size that nobody has at hand.
const TERABYTE: &str = "\
summary = \"A backup of a cluster of 1 TiB\"
because = \"Nothing of it exists, and none of it is kept\"
[server]
version = \"18\"
[cluster]
size = \"1TiB\"
[[cluster.tablespace]]
oid = 16400
location = \"/srv/large\"
size = \"256MiB\"
";

/// A message with a length of its own.
fn with_length(tag: &[u8], body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a short message").to_be_bytes();
    [tag, &length, body].concat()
}

/// Reads `wanted` bytes of what BASE_BACKUP answers, and keeps none of them.
fn drive(port: u16, wanted: u64) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    let startup = with_length(b"", b"\0\x03\0\0user\0postgres\0replication\0true\0\0");
    let query = with_length(b"Q", b"BASE_BACKUP (PROGRESS, CHECKPOINT 'fast', WAIT 0, MANIFEST 'yes')\0");
    stream.write_all(&[startup, query].concat()).expect("the request");
    let (mut buf, mut read) = (vec![0; 1 << 20], 0);
    while read < wanted {
        let count = stream.read(&mut buf).expect("data");
        assert!(count > 0, "the server closed after {read} bytes");
        read += count as u64;
    }
}

fn server_program() -> PathBuf {
    env::var_os("BACKSTOP_SERVED_BY").map_or_else(|| env!("CARGO_BIN_EXE_backstop").into(), PathBuf::from)
}

/// `BACKSTOP_SERVED_MIB` says how much is served, and `BACKSTOP_SERVED_BY` by which build of `backstop`: the gate serves 20 GiB
/// with the one for release.
#[test]
fn a_terabyte_is_served_in_a_few_megabytes() {
    const LIMIT: u64 = 64 << 20;
    let wanted = env::var("BACKSTOP_SERVED_MIB").map_or(2048, |mib| mib.parse().expect("a number of MiB"));
    let directory = tempfile::tempdir().expect("a directory");
    let server = Serving::start_program(&server_program(), directory.path(), "terabyte", TERABYTE, &[]);
    // The first part is what any backup costs.
    drive(server.port, 32 << 20);
    let Some(small) = server.peak_memory() else {
        return println!("skipped: a terabyte in a few megabytes: the system does not tell a process's memory");
    };
    drive(server.port, wanted << 20);
    let large = server.peak_memory().expect("it did before");
    println!("{small} bytes for 32 MiB, {large} bytes for {wanted} MiB");
    assert!(large < LIMIT, "{large} bytes of memory for {wanted} MiB");
    assert!(large < small + (4 << 20), "it grows: {small} bytes for 32 MiB, {large} bytes for {wanted} MiB");
}

/// A cluster of so many MiB.
fn cluster(mib: u64) -> String {
    format!(
        "summary = \"A backup of a cluster of {mib} MiB\"\nbecause = \"It is taken in bounded memory\"\n[server]\nversion = \"18\"\n\
         [cluster]\nsize = \"{mib}MiB\"\n"
    )
}

/// Takes a backup of `mib` MiB into `directory`, or reads it from standard output, and tells the most memory that it took.
fn taken(program: &Path, directory: &Path, mib: u64, format: &[&str]) -> u64 {
    let server = Serving::start_program(&server_program(), directory, "cluster", &cluster(mib), &[]);
    let mut command = Command::new(program);
    command.args(["basebackup", "-h", "127.0.0.1", "-U", "backstop", "-c", "fast", "-X", "none", "--no-sync"]);
    let mut taking = command.args(["-p", &server.port.to_string()]).args(format).current_dir(directory);
    taking = taking.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut taking = taking.spawn().expect("backstop-client");
    let mut out = taking.stdout.take().expect("a pipe");
    let read = io::copy(&mut out, &mut io::sink()).expect("an archive");
    let ended = taking.wait4().expect("it ended");
    assert!(ended.status.success(), "{format:?}: {}", ended.status);
    if format.contains(&"-") {
        // The relations share the size, and each is cut to whole pages.
        assert!(read > (mib << 20) / 100 * 99, "{read} bytes of {mib} MiB");
    }
    ended.rusage.maxrss
}

/// `BACKSTOP_TAKEN_MIB` says how much is taken, and `BACKSTOP_TAKEN_BY` by which build of `backstop-client`: the gate has the one for
/// release read 20 GiB from standard output. Of what goes to disk a part is enough to see growth.
#[test]
fn a_backup_is_taken_in_a_few_megabytes() {
    const LIMIT: u64 = 32 << 20;
    const ON_DISK: u64 = 2048;
    let wanted = env::var("BACKSTOP_TAKEN_MIB").map_or(256, |mib| mib.parse().expect("a number of MiB"));
    let program = env::var_os("BACKSTOP_TAKEN_BY").map_or_else(client::client_program, PathBuf::from);
    let formats = [
        (["-D", "backup", "-F", "tar"], wanted.min(ON_DISK)),
        (["-D", "backup", "-F", "plain"], wanted.min(ON_DISK)),
        (["-D", "-", "-F", "tar"], wanted),
    ];
    for (format, wanted) in formats {
        let peaks = [16, wanted].map(|mib| {
            let directory = tempfile::tempdir().expect("a directory");
            taken(&program, directory.path(), mib, &format)
        });
        let [small, large] = peaks;
        println!("{}: {small} bytes for 16 MiB, {large} bytes for {wanted} MiB", format.join(" "));
        assert!(large < LIMIT, "{format:?}: {large} bytes of memory for {wanted} MiB");
        assert!(large < small + (4 << 20), "{format:?} grows: {small} bytes for 16 MiB, {large} for {wanted} MiB");
    }
}
