//! Backups of a real server: PostgreSQL's own verifier accepts them, and PostgreSQL starts on them.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use backstop_scenarios::postgres::{Installation, PORT, Postgres, reachable, succeed};
use tempfile::TempDir;

/// A server with a table in a tablespace of its own, and the client where the server's user can run it.
struct Setup {
    installation: Installation,
    server: Postgres,
    client: PathBuf,
    // Last: it holds everything above.
    scratch: TempDir,
}

const ROWS: &str = "select count(*), sum(i) from t";
const EXPECTED: &str = "10000|50005000";

impl Setup {
    fn new(settings: &[&str]) -> Option<Self> {
        let installation = Installation::find("backups of a real server")?;
        let scratch = installation.scratch();
        let server = Postgres::new(&installation, scratch.path(), settings);
        let client = reachable(Path::new(env!("CARGO_BIN_EXE_backstop-client")), scratch.path());
        server.sql("create table t as select generate_series(1, 10000) as i");
        Some(Self { installation, server, client, scratch })
    }

    fn with_tablespace(settings: &[&str]) -> Option<Self> {
        let setup = Self::new(settings)?;
        let location = setup.path("ts");
        std::fs::create_dir(&location).unwrap();
        setup.installation.give(&location);
        setup.server.sql(&format!("create tablespace ts location '{}'", location.display()));
        setup.server.sql("alter table t set tablespace ts");
        Some(setup)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = self.installation.command(&self.client);
        command.args(["basebackup", "-c", "fast", "-h"]).arg(self.server.socket());
        command.env("PGUSER", "postgres").args(["-p", &PORT.to_string()]).args(arguments);
        command
    }

    /// Without waiting for the disk: one test does that.
    fn back_up(&self, arguments: &[&str]) -> Output {
        succeed(self.client(arguments).arg("--no-sync"))
    }

    fn mapping(&self, name: &str) -> String {
        format!("{}={}", self.path("ts").display(), self.path(name).display())
    }

    fn verify(&self, backup: &Path, arguments: &[&str]) {
        succeed(self.installation.tool("pg_verifybackup").arg(backup).args(arguments));
    }

    /// A server on the backup. Its own WAL is all that it has.
    fn restore(&self, backup: &Path) -> Postgres {
        self.server.stop();
        Postgres::start(&self.installation, backup, &self.path("r"))
    }

    fn assert_restores(&self, backup: &Path) {
        assert_eq!(self.restore(backup).sql(ROWS), EXPECTED);
    }

    /// Unpacks a tar file with a reader that is not ours.
    fn unpack(&self, archive: impl Read, into: &Path) {
        std::fs::create_dir_all(into).unwrap();
        let mut archive = tar::Archive::new(archive);
        archive.set_preserve_permissions(true);
        archive.unpack(into).unwrap();
        self.installation.give(into);
    }
}

/// How many WAL segments lie in a directory.
fn segments(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_name().len() == 24).count()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn plain_with_streamed_wal_and_a_mapped_tablespace() {
    let Some(setup) = Setup::with_tablespace(&[]) else { return };
    let backup = setup.path("backup");
    let output = succeed(&mut setup.client(&["-D", text(&backup), "-T", &setup.mapping("new"), "-v"]));
    assert!(stderr(&output).ends_with("base backup completed\n"), "{}", stderr(&output));
    setup.verify(&backup, &[]);
    assert_eq!(segments(&backup.join("pg_wal")), 1);
    assert_eq!(setup.server.sql("select count(*) from pg_replication_slots"), "0");
    setup.assert_restores(&backup);
}

#[test]
fn tar_with_streamed_wal_and_a_tablespace() {
    let Some(setup) = Setup::with_tablespace(&[]) else { return };
    let (tar, backup, new) = (setup.path("tar"), setup.path("backup"), setup.path("new"));
    setup.back_up(&["-D", text(&tar), "-Ft"]);
    let mut names: Vec<String> =
        std::fs::read_dir(&tar).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let oid = setup.server.sql("select oid from pg_tablespace where spcname = 'ts'");
    assert_eq!(names, [format!("{oid}.tar"), "backup_manifest".into(), "base.tar".into(), "pg_wal.tar".into()]);

    let open = |name: &str| std::fs::File::open(tar.join(name)).unwrap();
    setup.unpack(open("base.tar"), &backup);
    setup.unpack(open("pg_wal.tar"), &backup.join("pg_wal"));
    setup.unpack(open(&format!("{oid}.tar")), &new);
    std::fs::set_permissions(&backup, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::copy(tar.join("backup_manifest"), backup.join("backup_manifest")).unwrap();
    symlink(&new, backup.join("pg_tblspc").join(&oid)).unwrap();
    setup.installation.give(&backup);
    setup.verify(&backup, &[]);
    // What a person does who moves a tablespace.
    std::fs::write(backup.join("tablespace_map"), format!("{oid} {}\n", new.display())).unwrap();
    setup.assert_restores(&backup);
}

#[test]
fn plain_with_fetched_wal_in_a_directory_of_its_own() {
    let Some(setup) = Setup::new(&[]) else { return };
    let (backup, wal) = (setup.path("backup"), setup.path("wal"));
    setup.back_up(&["-D", text(&backup), "-Xfetch", "--waldir", text(&wal), "--manifest-checksums=SHA384"]);
    assert_eq!(std::fs::read_link(backup.join("pg_wal")).unwrap(), wal);
    setup.verify(&backup, &[]);
    setup.assert_restores(&backup);
}

#[test]
fn plain_with_streamed_wal_in_a_directory_of_its_own() {
    let Some(setup) = Setup::new(&[]) else { return };
    let (backup, wal) = (setup.path("backup"), setup.path("wal"));
    setup.back_up(&["-D", text(&backup), "--waldir", text(&wal), "--manifest-force-encode", "--no-slot"]);
    setup.verify(&backup, &[]);
    setup.assert_restores(&backup);
}

#[test]
fn without_wal() {
    let Some(setup) = Setup::new(&[]) else { return };
    let backup = setup.path("backup");
    let output = setup.back_up(&["-D", text(&backup), "-X", "none"]);
    assert!(stderr(&output).starts_with("NOTICE:  WAL archiving is not enabled"), "{}", stderr(&output));
    setup.verify(&backup, &["--no-parse-wal"]);
    assert_eq!(segments(&backup.join("pg_wal")), 0);
}

#[test]
fn to_standard_output() {
    let Some(setup) = Setup::new(&[]) else { return };
    let backup = setup.path("backup");
    let output = setup.back_up(&["-D", "-", "-Ft", "-Xfetch"]);
    setup.unpack(&output.stdout[..], &backup);
    std::fs::set_permissions(&backup, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    setup.verify(&backup, &[]);
    setup.assert_restores(&backup);
}

#[test]
fn standard_output_that_nobody_reads_is_an_error() {
    let Some(setup) = Setup::new(&[]) else { return };
    let mut command = setup.client(&["-D", "-", "-Ft", "-Xfetch"]);
    let mut client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Less than a pipe holds, of much more.
    client.stdout.take().unwrap().read_exact(&mut [0; 512]).unwrap();
    let output = client.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("Broken pipe"), "{}", stderr(&output));
}

#[test]
fn a_backup_becomes_a_standby() {
    let Some(setup) = Setup::new(&[]) else { return };
    let backup = setup.path("backup");
    setup.back_up(&["-D", text(&backup), "-R", "-S", "standby", "-C"]);
    setup.verify(&backup, &[]);
    let standby = Postgres::start(&setup.installation, &backup, &setup.path("r"));
    assert_eq!(standby.sql("select pg_is_in_recovery()"), "t");
    assert_eq!(standby.sql("show primary_slot_name"), "standby");
    assert_eq!(standby.sql(ROWS), EXPECTED);
}

#[test]
fn a_tar_backup_becomes_a_standby() {
    let Some(setup) = Setup::new(&[]) else { return };
    let (tar, backup) = (setup.path("tar"), setup.path("backup"));
    setup.back_up(&["-D", text(&tar), "-Ft", "-Xfetch", "-R"]);
    setup.unpack(std::fs::File::open(tar.join("base.tar")).unwrap(), &backup);
    std::fs::set_permissions(&backup, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let standby = Postgres::start(&setup.installation, &backup, &setup.path("r"));
    assert_eq!(standby.sql("select pg_is_in_recovery()"), "t");
}

#[test]
fn group_access_is_the_servers() {
    let Some(setup) = Setup::new(&[]) else { return };
    setup.server.stop();
    let data = setup.server.data().to_path_buf();
    std::fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o750)).unwrap();
    let server = Postgres::start(&setup.installation, &data, &setup.path("s"));
    let backup = setup.path("backup");
    setup.back_up(&["-D", text(&backup)]);
    let mode = |name: &str| {
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(backup.join(name)).unwrap().permissions()) & 0o777
    };
    assert_eq!((mode(""), mode("base"), mode("PG_VERSION"), mode("pg_wal")), (0o750, 0o750, 0o640, 0o750));
    drop(server);
}

#[test]
fn damaged_pages_leave_no_backup() {
    let Some(setup) = Setup::new(&[]) else { return };
    let file = setup.server.data().join(setup.server.sql("select pg_relation_filepath('t')"));
    setup.server.stop();
    let mut content = std::fs::read(&file).unwrap();
    content[4000] ^= 0xFF;
    std::fs::write(&file, content).unwrap();
    let data = setup.server.data().to_path_buf();
    let server = Postgres::start(&setup.installation, &data, &setup.path("s"));
    let backup = setup.path("backup");
    let output = setup.client(&["-D", text(&backup)]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("WARNING:  checksum verification failed in file"), "{}", stderr(&output));
    assert!(stderr(&output).contains("error: checksum error occurred\n"), "{}", stderr(&output));
    assert!(!backup.exists());
    setup.back_up(&["-D", text(&backup), "--no-verify-checksums"]);
    drop(server);
}

#[test]
fn a_signal_leaves_nothing() {
    let Some(setup) = Setup::with_tablespace(&[]) else { return };
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let (backup, new) = (setup.path("backup"), setup.path("new"));
        let mapping = setup.mapping("new");
        let mut command = setup.client(&["-D", text(&backup), "-T", &mapping, "--max-rate", "32", "-v"]);
        let mut client = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(client.stderr.take().unwrap()).lines();
        let begun = lines.find(|line| line.as_ref().unwrap().contains("created temporary replication slot"));
        assert!(begun.is_some());
        assert!(backup.exists() && new.exists());
        rustix::process::kill_process(rustix::process::Pid::from_child(&client), signal).unwrap();
        assert_eq!(client.wait().unwrap().code(), Some(1));
        let last = lines.last().unwrap().unwrap();
        assert!(last.contains("canceled by"), "{last}");
        assert!(!backup.exists() && !new.exists());
    }
}

#[test]
fn what_is_there_is_not_touched() {
    let Some(setup) = Setup::with_tablespace(&[]) else { return };
    let backup = setup.path("backup");
    let refused = |arguments: &[&str]| {
        let output = setup.client(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        stderr(&output)
    };
    // The tablespace's own location is in use.
    let problem = format!("directory \"{}\" exists but is not empty", setup.path("ts").display());
    assert!(refused(&["-D", text(&backup)]).contains(&problem));
    assert!(!backup.exists());
    std::fs::create_dir(&backup).unwrap();
    setup.installation.give(&backup);
    assert!(refused(&["-D", text(&backup)]).contains("removing contents of data directory"));
    assert_eq!(std::fs::read_dir(&backup).unwrap().count(), 0);
    std::fs::write(backup.join("mine"), "").unwrap();
    let problem = format!("directory \"{}\" exists but is not empty", backup.display());
    assert!(refused(&["-D", text(&backup)]).contains(&problem));
    assert!(backup.join("mine").exists());
    assert!(
        refused(&["-D", "-", "-Ft", "-Xfetch"]).contains("can only write single tablespace to stdout, database has 2")
    );
    let other = setup.path("other");
    let mapping = setup.mapping("new");
    let problem = refused(&["-D", text(&other), "-T", &mapping, "-S", "nosuch"]);
    assert!(problem.contains("replication slot \"nosuch\" does not exist"), "{problem}");
    assert!(!other.exists() && !setup.path("new").exists());
}

#[test]
fn logs_in_with_every_method() {
    let Some(setup) = Setup::new(&[]) else { return };
    for (method, encryption) in [("password", "md5"), ("md5", "md5"), ("scram-sha-256", "scram-sha-256")] {
        let user = format!("u_{}", method.replace('-', "_"));
        let sql = format!(
            "set password_encryption = '{encryption}'; create role {user} login replication password 'sec ret'"
        );
        setup.server.sql(&sql);
        let hba = setup.server.data().join("pg_hba.conf");
        let rules = std::fs::read_to_string(&hba).unwrap();
        std::fs::write(&hba, format!("local replication {user} {method}\n{rules}")).unwrap();
        setup.server.sql("select pg_reload_conf()");
        let attempt = |password: Option<&str>| {
            let mut client = setup.client(&["--discard", "-X", "none", "-w", "-U", &user]);
            // Nobody's password file.
            client.env("PGPASSFILE", "/nonexistent");
            if let Some(password) = password {
                client.env("PGPASSWORD", password);
            }
            client.output().unwrap()
        };
        assert!(attempt(Some("sec ret")).status.success(), "{method}");
        let wrong = attempt(Some("wrong"));
        let expected = format!("failed: FATAL:  password authentication failed for user \"{user}\"\n");
        assert!(stderr(&wrong).ends_with(&expected), "{method}: {}", stderr(&wrong));
        let none = attempt(None);
        assert!(stderr(&none).contains("no password supplied"), "{method}: {}", stderr(&none));
    }
}
