//! A real server that is written to, and the client that takes parallel backups of it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use backstop_protocol::lsn::Lsn;
use backstop_protocol::wal_file::WalSegmentSize;
use backstop_scenarios::postgres::{Installation, PORT, Postgres, reachable, succeed};
use tempfile::TempDir;

/// Enough that no segment is recycled before the loop comes round, however slow the machine is.
pub const SETTINGS: [&str; 2] = ["wal_keep_size = '1GB'", "max_wal_size = '4GB'"];

/// Every transaction moves money, and says where WAL was when it did: a later one of the same client stands behind its commit.
pub const TRANSACTION: &str = r"
\set aid random(1, 200000)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
INSERT INTO moved (client, delta, lsn) VALUES (:client_id, :delta, pg_current_wal_insert_lsn());
END;
";

/// A server and the client.
pub struct Setup {
    pub installation: Installation,
    pub server: Postgres,
    pub client: PathBuf,
    // Last: it holds everything above.
    pub scratch: TempDir,
}

impl Setup {
    pub fn new(major: u16) -> Option<Self> {
        let installation = Installation::find_release(major, "parallel backups of a real server")?;
        let scratch = installation.scratch();
        let server = Postgres::new(&installation, scratch.path(), &SETTINGS);
        let client = reachable(Path::new(env!("CARGO_BIN_EXE_backstop-client")), scratch.path());
        Some(Self { installation, server, client, scratch })
    }

    /// With tables of some pieces each.
    pub fn with_tables(major: u16) -> Option<Self> {
        let setup = Self::new(major)?;
        succeed(setup.pgbench().args(["-i", "-q", "-s", "2"]));
        setup.server.sql("create table moved (n bigserial, client int, delta int, lsn pg_lsn)");
        Some(setup)
    }

    pub fn pgbench(&self) -> Command {
        let mut pgbench = self.installation.tool("pgbench");
        pgbench.args(["-U", "postgres", "-p", &PORT.to_string(), "-h"]).arg(self.server.socket());
        pgbench.env("PGDATABASE", "postgres").stdout(Stdio::null()).stderr(Stdio::null());
        pgbench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub fn dsn(&self) -> String {
        format!("host={} port={PORT} user=postgres dbname=postgres", self.server.socket().display())
    }

    pub fn client(&self, arguments: &[&str], destination: &Path) -> Command {
        let mut command = self.installation.command(&self.client);
        command.args(["parallelbackup", "-c", "fast", "-v"]).args(arguments).arg(self.dsn()).arg(destination);
        command
    }

    /// Without waiting for the disk: one test does that.
    pub fn back_up(&self, arguments: &[&str], destination: &Path) -> Output {
        succeed(self.client(arguments, destination).arg("--no-sync"))
    }

    /// Starts a load.
    pub fn load(&self) -> Load<'_> {
        let script = self.path("transaction.sql");
        std::fs::write(&script, TRANSACTION).unwrap();
        let mut pgbench = self.pgbench();
        let child = pgbench.args(["-n", "-c", "3", "-T", "600", "-f"]).arg(script).spawn().unwrap();
        let load = Load { setup: self, child };
        load.wait_for(1);
        load
    }

    /// A server on the backup. Its own WAL is all that it has.
    pub fn restore(&self, backup: &Path) -> Postgres {
        let restored = Postgres::start(&self.installation, backup, &self.path("r"));
        assert!(restored.log().contains("consistent recovery state reached"), "{}", restored.log());
        restored
    }

    /// Requires that the backup starts and is of the moment of its end, where the server switched to another segment.
    pub fn assert_restores(&self, backup: &Path, output: &Output) {
        let more = self.assert_holds_all(backup, output);
        assert!(!more, "transactions from behind the end");
    }

    /// Requires that the backup starts and holds every transaction up to its end. Whether it holds some from behind the end's
    /// segment: between the end of a backup and the switch to another segment anybody may write.
    pub fn assert_holds_all(&self, backup: &Path, output: &Output) -> bool {
        let end = position(output, "write-ahead log end point: ");
        let restored = self.restore(backup);
        let balance =
            "select coalesce(sum(abalance), 0) = (select coalesce(sum(delta), 0) from moved) from pgbench_accounts";
        assert_eq!(restored.sql(balance), "t");
        // Whose successor stands before the end was committed before the end.
        let committed = format!(
            "select n from (select n, lead(lsn) over (partition by client order by n) as next from moved) t \
             where next < '{end}' order by n"
        );
        let there = restored.sql("select n from moved order by n");
        let there: Vec<&str> = there.lines().collect();
        for n in self.server.sql(&committed).lines() {
            assert!(there.contains(&n), "transaction {n} is missing");
        }
        let size = WalSegmentSize::DEFAULT;
        let switched = size.start_of(size.segment_before(end) + 1);
        let more = restored.sql(&format!("select exists (select from moved where lsn > '{switched}')")) == "t";
        assert!(!there.is_empty());
        assert!(self.server.sql("select count(*) from moved").parse::<usize>().unwrap() >= there.len());
        restored.stop();
        let mut check = self.installation.tool("pg_checksums");
        succeed(check.args(["--check", "-D"]).arg(backup));
        more
    }
}

/// A load under way.
pub struct Load<'a> {
    setup: &'a Setup,
    child: Child,
}

impl Load<'_> {
    pub fn count(&self) -> u64 {
        self.setup.server.sql("select count(*) from moved").parse().unwrap()
    }

    /// Waits for so many more transactions.
    pub fn wait_for(&self, more: u64) {
        let wanted = self.count() + more;
        while self.count() < wanted {}
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The position that stands behind `words`.
pub fn position(output: &Output, words: &str) -> Lsn {
    let text = stderr(output);
    let found = text.lines().find_map(|line| line.split_once(words));
    assert!(found.is_some(), "{text}");
    found.unwrap().1.split_whitespace().next().unwrap().parse().unwrap()
}
