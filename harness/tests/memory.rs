//! What a server costs does not depend on how much it serves.

mod support;

use std::env;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use support::Serving;

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

/// `BACKSTOP_SERVED_MIB` says how much is served, and `BACKSTOP_SERVED_BY` by which build of `backstop`: the gate serves 20 GiB
/// with the one for release.
#[test]
fn a_terabyte_is_served_in_a_few_megabytes() {
    const LIMIT: u64 = 64 << 20;
    let wanted = env::var("BACKSTOP_SERVED_MIB").map_or(2048, |mib| mib.parse().expect("a number of MiB"));
    let program =
        env::var_os("BACKSTOP_SERVED_BY").map_or_else(|| env!("CARGO_BIN_EXE_backstop").into(), PathBuf::from);
    let directory = tempfile::tempdir().expect("a directory");
    let server = Serving::start_program(&program, directory.path(), "terabyte", TERABYTE, &[]);
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
