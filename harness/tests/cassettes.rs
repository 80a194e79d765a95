//! Recordings of real servers, played to PostgreSQL's client and to ours.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use backstop_scenarios::postgres::{Installation, Postgres, USER, reachable, succeed};
use support::Serving;
use support::client::client_program;
use tempfile::TempDir;

const RELEASES: [u16; 2] = [15, 18];

/// A way to take a backup: its name and its arguments.
const WAYS: [(&str, &[&str]); 4] = [
    ("stream", &["-Xstream"]),
    ("fetch", &["-Xfetch", "--manifest-checksums=SHA256"]),
    ("tar-stream", &["-Ft", "-Xstream"]),
    ("tar-fetch", &["-Ft", "-Xfetch", "--no-manifest"]),
];

/// Who takes backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Postgres,
    Ours,
}

/// A server with a tablespace, and a place for what comes of it.
struct Setup {
    installation: Installation,
    server: Postgres,
    scratch: TempDir,
}

impl Setup {
    fn new(major: u16) -> Option<Self> {
        let installation = Installation::find_release(major, "cassettes")?;
        let scratch = installation.scratch();
        let server = Postgres::new(&installation, scratch.path(), &["max_wal_senders = 20", "autovacuum = off"]);
        let location = scratch.path().join("ts");
        fs::create_dir(&location).expect("a directory");
        installation.give(&location);
        server.sql(&format!("create tablespace ts location '{}'", location.display()));
        server.sql("create table t tablespace ts as select i, 'a row that nobody shall find ' || i from generate_series(1, 20000) as i");
        server.sql("alter role postgres password 'hush-hush'");
        server.sql("checkpoint");
        Some(Self { installation, server, scratch })
    }

    fn upstream(&self) -> String {
        format!("host={} user={USER}", self.server.socket().display())
    }

    fn cassette(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name).with_extension("cassette")
    }

    fn target(&self, name: &str) -> PathBuf {
        self.scratch.path().join(format!("backup-{name}"))
    }

    fn client(&self, tool: Tool) -> Command {
        match tool {
            Tool::Postgres => self.installation.tool("pg_basebackup"),
            Tool::Ours => {
                // As the user who verifies what it makes.
                let program = reachable(&client_program(), self.scratch.path());
                let mut command = self.installation.command(program);
                command.arg("basebackup");
                command
            }
        }
    }

    /// Takes a backup from what listens on `port`.
    fn back_up(&self, tool: Tool, port: u16, name: &str, way: &[&str]) -> Output {
        let mut command = self.client(tool);
        command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", USER, "-cfast", "--no-sync", "-w"]);
        command.arg("-D").arg(self.target(name)).args(way);
        let scratch = self.scratch.path().display();
        if !way.contains(&"-Ft") {
            command.arg(format!("-T{scratch}/ts={scratch}/new-{name}"));
        }
        command.output().expect("the client starts")
    }

    /// A backup through the proxy, which records it.
    fn record(&self, tool: Tool, name: &str, way: &[&str]) -> PathBuf {
        let cassette = self.cassette(name);
        let proxy = Serving::record(self.scratch.path(), name, &cassette, &self.upstream());
        let output = self.back_up(tool, proxy.port, name, way);
        assert!(output.status.success(), "{name}: {}", said(&output));
        assert_eq!(proxy.finish(), Some(0));
        cassette
    }

    /// Plays a cassette to a client.
    fn replay(&self, tool: Tool, cassette: &Path, name: &str, way: &[&str]) -> Output {
        let player = Serving::replay(self.scratch.path(), name, cassette);
        let output = self.back_up(tool, player.port, name, way);
        assert_eq!(player.finish(), Some(0));
        output
    }

    /// Files and their sizes, in the target and in the tablespace.
    fn files(&self, name: &str) -> BTreeMap<PathBuf, u64> {
        let new = self.scratch.path().join(format!("new-{name}"));
        let mut files = BTreeMap::new();
        for directory in [self.target(name), new].into_iter().filter(|directory| directory.exists()) {
            let base = directory.file_name().is_some_and(|name| name.to_string_lossy().starts_with("new-"));
            for entry in walkdir::WalkDir::new(&directory) {
                let entry = entry.expect("an entry");
                let path = entry.path().strip_prefix(&directory).expect("a path below").to_owned();
                // Whether a segment is marked as archived is the client's doing, and depends on when it hears of the end.
                let marks = path.starts_with("pg_wal/archive_status");
                if entry.file_type().is_file() && !marks {
                    let path = if base { Path::new("ts").join(path) } else { path };
                    files.insert(path, entry.metadata().expect("a file").len());
                }
            }
        }
        files
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn recordings_of_real_servers_are_played_to_both_clients() {
    for setup in RELEASES.into_iter().filter_map(Setup::new) {
        for recorder in [Tool::Postgres, Tool::Ours] {
            for (way, arguments) in WAYS {
                let name = format!("{recorder:?}-{way}");
                let cassette = setup.record(recorder, &name, arguments);
                let known = setup.files(&name);
                let all: u64 = known.values().sum();
                let kept = fs::metadata(&cassette).expect("a cassette").len();
                assert!(kept < all / 200 && kept < 256 << 10, "{name}: {kept} of {all} bytes");
                for player in [Tool::Postgres, Tool::Ours] {
                    let played = format!("{name}-{player:?}");
                    let output = setup.replay(player, &cassette, &played, arguments);
                    assert!(output.status.success(), "{played}: {}", said(&output));
                    assert_eq!(setup.files(&played), known, "{played}");
                    if way == "stream" || way == "fetch" {
                        succeed(setup.installation.tool("pg_verifybackup").arg(setup.target(&played)));
                    }
                    let _ = fs::remove_dir_all(setup.target(&played));
                }
            }
        }
    }
}

#[test]
fn nothing_secret_is_on_a_cassette() {
    for setup in RELEASES.into_iter().filter_map(Setup::new) {
        let cassette = setup.record(Tool::Postgres, "secrets", &["-Xstream"]);
        let text = zstd::decode_all(&fs::read(cassette).expect("a cassette")[..]).expect("a cassette");
        let has = |wanted: &str| text.windows(wanted.len()).any(|window| window == wanted.as_bytes());
        assert!(has("pg_control") && has("START_REPLICATION"));
        for secret in ["hush-hush", "SCRAM-SHA-256", "nobody shall find"] {
            assert!(!has(secret), "{secret} is on the cassette");
        }
    }
}

#[test]
fn an_error_of_the_server_is_played_again() {
    let Some(setup) = Setup::new(15) else { return };
    let cassette = setup.cassette("error");
    let proxy = Serving::record(setup.scratch.path(), "error", &cassette, &setup.upstream());
    let way = ["-Xstream", "--slot=nowhere"];
    let recorded = setup.back_up(Tool::Postgres, proxy.port, "error", &way);
    assert_eq!(proxy.finish(), Some(0));
    let played = setup.replay(Tool::Postgres, &cassette, "again", &way);
    assert!(!recorded.status.success() && !played.status.success());
    let error = "replication slot \"nowhere\" does not exist";
    assert!(said(&recorded).contains(error) && said(&played).contains(error), "{}", said(&played));
}

#[test]
fn a_client_that_asks_something_else_hears_what_was_recorded() {
    let Some(setup) = Setup::new(15) else { return };
    let cassette = setup.record(Tool::Postgres, "recorded", &["-Xnone"]);
    for tool in [Tool::Postgres, Tool::Ours] {
        let output =
            setup.replay(tool, &cassette, &format!("other-{tool:?}"), &["-Xnone", "--manifest-checksums=SHA512"]);
        assert!(!output.status.success());
        let said = said(&output);
        assert!(said.contains("the cassette holds no answer to \"BASE_BACKUP"), "{said}");
        assert!(said.contains("it was recorded with \"BASE_BACKUP"), "{said}");
    }
}

#[test]
fn what_is_no_cassette_is_one_clear_error() {
    let scratch = tempfile::tempdir().expect("a directory");
    let refused = |name: &str, content: Option<&[u8]>| {
        let path = scratch.path().join(name);
        if let Some(content) = content {
            fs::write(&path, content).expect("a file");
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_backstop"));
        let output = command.args(["serve", "--replay"]).arg(&path).output().expect("backstop");
        assert_eq!(output.status.code(), Some(96), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        said(&output).replace(&scratch.path().display().to_string(), "")
    };
    assert!(refused("nothing", None).contains("could not play /nothing: "));
    assert!(refused("foreign", Some(b"PK\x03\x04")).contains("it is no cassette"));
    let cut = zstd::encode_all(&b"{\"cassette\":1,\"recorder\":\"\"}\n"[..], 1).expect("memory");
    assert!(refused("cut", Some(&cut)).contains("it is cut short"));
    let later = zstd::encode_all(&b"{\"cassette\":7}\n"[..], 1).expect("memory");
    assert!(refused("later", Some(&later)).contains("format 7"));
}
