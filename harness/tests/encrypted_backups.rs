//! An unmodified `pg_basebackup` verifies the mock's certificate, binds the channel, and logs in with SCRAM; and it does not, where it
//! should not.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use backstop_scenarios::postgres::{Installation, succeed};
use support::Serving;

const SCENARIO: &str = r#"
summary = "An encrypted server"
because = "Its clients must not be fooled"
[server]
version = "15"
tls = true
hba = ["local all,replication all trust", "hostssl replication backstop 127.0.0.1/32 scram-sha-256"]
wal-segment-size = "1MiB"
[[server.user]]
name = "backstop"
password = "secret"
replication = true
[cluster]
size = "1MiB"
"#;

/// `pg_basebackup` into `directory/name`, with more of libpq's environment.
fn take(installation: &Installation, directory: &Path, name: &str, port: u16, libpq: &[(&str, &str)]) -> Command {
    let mut command = installation.tool("pg_basebackup");
    // libpq looks for a certificate of the client's own at home.
    command
        .env("HOME", directory)
        .env("PGPASSWORD", "secret")
        .envs(libpq.iter().copied())
        .arg("-D")
        .arg(directory.join(name));
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "backstop", "-w", "-cfast", "--no-sync"]);
    command
}

fn said(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn pg_basebackup_verifies_the_server_and_binds_the_channel() {
    let Some(installation) = Installation::find("encrypted backups") else { return };
    let scratch = installation.scratch();
    let ca = scratch.path().join("ca.pem");
    let ca = ca.to_str().expect("a path in UTF-8");
    let server = Serving::start_with(scratch.path(), "encrypted", SCENARIO, &["--ca-file", ca]);
    let verified = [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", ca), ("PGCHANNELBINDING", "require")];
    succeed(&mut take(&installation, scratch.path(), "backup", server.port, &verified));
    succeed(installation.tool("pg_verifybackup").arg(scratch.path().join("backup")));

    for version in ["TLSv1.2", "TLSv1.3"] {
        let libpq =
            [verified.as_slice(), &[("PGSSLMINPROTOCOLVERSION", version), ("PGSSLMAXPROTOCOLVERSION", version)]];
        succeed(&mut take(&installation, scratch.path(), version, server.port, &libpq.concat()));
    }
    server.finish();
    let log = fs::read_to_string(scratch.path().join("encrypted.log")).expect("the log");
    assert_eq!(log.matches("SASL SCRAM-SHA-256-PLUS SCRAM-SHA-256").count(), 3 * 2, "backup and WAL\n{log}");
}

#[test]
fn pg_basebackup_is_refused_or_refuses() {
    let Some(installation) = Installation::find("encrypted backups") else { return };
    let scratch = installation.scratch();
    let file = |name: &str| scratch.path().join(name).to_str().expect("a path in UTF-8").to_owned();
    let (ca, other_ca) = (file("ca.pem"), file("other.pem"));
    let server = Serving::start_with(scratch.path(), "encrypted", SCENARIO, &["--ca-file", &ca]);
    let _other = Serving::start_with(scratch.path(), "other", SCENARIO, &["--seed", "7", "--ca-file", &other_ca]);
    let refused = |libpq: &[(&str, &str)]| {
        said(&take(&installation, scratch.path(), "backup", server.port, libpq).output().expect("pg_basebackup"))
    };
    let told = refused(&[("PGSSLMODE", "disable")]);
    let entry =
        "no pg_hba.conf entry for replication connection from host \"127.0.0.1\", user \"backstop\", no encryption";
    assert!(told.contains(entry), "{told}");
    let told = refused(&[("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", &other_ca)]);
    assert!(told.contains("certificate verify failed"), "{told}");
    let told = refused(&[("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", &ca), ("PGPASSWORD", "wrong")]);
    assert!(told.contains("password authentication failed for user \"backstop\""), "{told}");
    assert!(!scratch.path().join("backup").exists());
}

#[test]
fn pg_basebackup_comes_over_a_unix_socket() {
    let Some(installation) = Installation::find("a backup over a Unix socket") else { return };
    let scratch = installation.scratch();
    let directory = scratch.path().to_str().expect("a path in UTF-8");
    let _server = Serving::start_with(scratch.path(), "local", SCENARIO, &["--listen", &format!("unix:{directory}")]);
    let mut command = installation.tool("pg_basebackup");
    command
        .args(["-h", directory, "-U", "backstop", "-w", "-cfast", "--no-sync", "-D"])
        .arg(scratch.path().join("backup"));
    succeed(&mut command);
    succeed(installation.tool("pg_verifybackup").arg(scratch.path().join("backup")));
    // Rules and TLS are as on a real server: local means the socket, and there is no encryption on it.
    let log = fs::read_to_string(scratch.path().join("local.log")).expect("the log");
    assert!(!log.contains("SASL") && !log.contains("SSLRequest"), "{log}");
}

#[test]
fn the_encrypted_stories_are_told() {
    let Some(installation) = Installation::find("backstop run over TLS") else { return };
    let client = format!("pg_basebackup={}", installation.path("pg_basebackup").display());
    let mut backstop = Command::new(env!("CARGO_BIN_EXE_backstop"));
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    backstop.args(["run", "sound/encryption", "connections/conn-mitm-error-before-tls"]);
    backstop.arg("disconnects/net-tls-close-notify-missing");
    backstop.args(["--client", &client, "--scenarios"]).arg(scenarios);
    let output = succeed(&mut backstop);
    let told = String::from_utf8_lossy(&output.stdout);
    // Of 18 this client takes no backup.
    assert!(told.contains("5 passed") && told.contains("1 skipped"), "{told}");
}
