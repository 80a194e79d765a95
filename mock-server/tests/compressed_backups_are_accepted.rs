//! What the mock compresses, PostgreSQL's own programs take apart: `pg_basebackup` with the libraries that it was built with,
//! and `pg_verifybackup` behind it.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Output;

use backstop_mock::Server;
use backstop_mock::config::{Config, RoleConfig, TablespaceConfig};
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal_file::WalSegmentSize;
use backstop_scenarios::postgres::{Installation, succeed};

const DETAILS: [&str; 6] =
    ["server-gzip:5", "server-gzip", "server-lz4", "server-lz4:9", "server-zstd", "server-zstd:level=3,workers=2"];

const LOCATION: &str = "/srv/tablespaces/fast";

fn config() -> Config {
    Config {
        version: ServerVersion::V15,
        size: 2 << 20,
        wal_segment_size: WalSegmentSize::new(1 << 20).expect("a size"),
        tablespaces: vec![TablespaceConfig { oid: 16400, location: LOCATION.to_owned(), size: 256 << 10 }],
        roles: vec![RoleConfig { superuser: true, ..RoleConfig::new("postgres") }],
        seed: 5,
        ..Config::default()
    }
}

/// Runs `pg_basebackup` against a server on TCP.
fn take(installation: &Installation, server: &Server, arguments: &[&str]) -> Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = server.listen(([127, 0, 0, 1], 0).into()).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let mut command = installation.tool("pg_basebackup");
        command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres", "--no-sync", "-c", "fast"]);
        command.args(arguments);
        let serving = tokio::spawn(listener.run());
        let output = tokio::task::spawn_blocking(move || succeed(&mut command)).await;
        serving.abort();
        output.expect("a backup")
    })
}

fn verify(installation: &Installation, data: &Path) {
    let output = succeed(installation.tool("pg_verifybackup").arg("-n").arg(data));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "backup successfully verified\n");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a name of ours")
}

/// A plain backup is compressed on its way only: the client decompresses it.
#[test]
fn on_the_way_to_a_plain_backup() {
    let Some(installation) = Installation::find("pg_basebackup decompressing what the mock sends") else { return };
    for detail in DETAILS.iter().filter(|detail| detail.starts_with("server")) {
        let scratch = installation.scratch();
        let server = Server::new(config()).expect("a server");
        let (data, space) = (scratch.path().join("data"), scratch.path().join("space"));
        let mapping = format!("{LOCATION}={}", text(&space));
        let arguments =
            ["-Fp", "-Xfetch", "-P", "-v", "-T", &mapping, "-D", text(&data), &format!("--compress={detail}")];
        let said = String::from_utf8(take(&installation, &server, &arguments).stderr).expect("text");
        assert!(said.contains("(100%), 2/2 tablespaces"), "{detail}: {said}");
        let method = detail.trim_start_matches("server-").split(':').next().unwrap_or_default();
        assert!(server.state().commands.iter().any(|command| command.contains(&format!("COMPRESSION '{method}'"))));
        verify(&installation, &data);
    }
}

/// Decompresses an archive by its name.
fn unpack(archive: &Path, into: &Path) {
    let file = File::open(archive).expect("an archive");
    let mut bytes = Vec::new();
    match archive.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => drop(flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).expect("gzip")),
        Some("lz4") => drop(lz4_flex::frame::FrameDecoder::new(file).read_to_end(&mut bytes).expect("lz4")),
        Some("zst") => bytes = zstd::decode_all(file).expect("zstd"),
        _ => drop({ file }.read_to_end(&mut bytes).expect("tar")),
    }
    fs::create_dir_all(into).expect("a directory");
    tar::Archive::new(bytes.as_slice()).unpack(into).expect("a sound archive");
}

/// Archives as they lie there, sent to the client or stored on the server.
fn assemble(installation: &Installation, directory: &Path, suffix: &str) {
    let whole = directory.with_extension("whole");
    unpack(&directory.join(format!("base.tar{suffix}")), &whole);
    let space = whole.join("pg_tblspc/16400");
    if space.is_symlink() {
        fs::remove_file(&space).expect("a link");
    }
    unpack(&directory.join(format!("16400.tar{suffix}")), &space);
    fs::copy(directory.join("backup_manifest"), whole.join("backup_manifest")).expect("the manifest");
    installation.give(&whole);
    verify(installation, &whole);
}

#[test]
fn in_archives_of_a_client() {
    let Some(installation) = Installation::find("pg_basebackup storing what the mock compresses") else { return };
    for (detail, suffix) in DETAILS.into_iter().zip([".gz", ".gz", ".lz4", ".lz4", ".zst", ".zst"]) {
        let scratch = installation.scratch();
        let server = Server::new(config()).expect("a server");
        let data = scratch.path().join("data");
        take(&installation, &server, &["-Ft", "-Xfetch", "-D", text(&data), &format!("--compress={detail}")]);
        assemble(&installation, &data, suffix);
    }
}

#[test]
fn in_archives_on_the_server() {
    let Some(installation) = Installation::find("pg_basebackup --target against the mock") else { return };
    for (detail, suffix) in [("none", ""), ("server-gzip", ".gz"), ("server-zstd:-3", ".zst")] {
        let root = installation.scratch();
        let server = Server::new(Config { server_root: Some(root.path().to_owned()), ..config() }).expect("a server");
        take(&installation, &server, &["-Xfetch", "--target=server:/backup", &format!("--compress={detail}")]);
        assert_eq!(server.cluster().stored_files().len(), 3);
        assemble(&installation, &root.path().join("backup"), suffix);
    }
    let server = Server::new(config()).expect("a server");
    let said = take(&installation, &server, &["-Xfetch", "--target=blackhole", "-P", "-v"]).stderr;
    assert!(String::from_utf8_lossy(&said).contains("(100%), 2/2 tablespaces"));
    assert!(server.cluster().stored_files().is_empty());
}
