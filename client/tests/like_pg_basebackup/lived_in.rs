//! Clusters that have been lived in: what the server leaves out of a backup and what it leaves in is stored by both tools alike.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Stdio};

use backstop_scenarios::postgres::{PORT, Postgres, USER};

use super::same::assert_same;
use super::site::{Item, Site, Tool, tree};

/// A session, as long as it is kept: its temporary tables live with it.
struct Session(Child);

impl Session {
    /// Runs SQL in a session of its own, and returns when it is done.
    fn begin(site: &Site, sql: &str) -> Self {
        let mut psql = site.installation.tool("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", USER, "-d", "postgres", "-p", &PORT.to_string(), "-h"]);
        let mut child =
            psql.arg(site.server.socket()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("psql starts");
        writeln!(child.stdin.as_mut().unwrap(), "{sql}; select 'done';").unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
        Self(child)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The end of its input is the end of psql.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// What servers leave out, wherever it lies, and nobody may find in a backup.
const LEFT_OUT: [&str; 12] = [
    "base/1/pg_internal.init.123",
    "base/pgsql_tmp/pgsql_tmp4711.0",
    "base/pgsql_tmp/pgsql_tmp4711.1.sharedfileset/0.0",
    "current_logfiles.tmp",
    "pg_dynshmem/junk",
    "pg_replslot/junk",
    "pg_serial/junk",
    "pg_snapshots/junk",
    "pg_stat_tmp/junk",
    "pg_subtrans/junk",
    "postgresql.auto.conf.tmp",
    "tablespace_map",
];

/// What they do not know, and therefore send.
const SENT: [&str; 3] = ["base/1/notes", "mine", "pg_xact/.hidden"];

#[test]
fn what_servers_leave_out_is_left_out_alike() {
    for major in [15, 16, 18] {
        let Some(site) = Site::new(major, &[]) else { continue };
        let server = &site.server;
        server.sql("create unlogged table unlogged as select generate_series(1, 1000) as i");
        server.sql("create unlogged table outside tablespace ts as select generate_series(1, 1000) as i");
        server.sql("create index on unlogged (i)");
        let lodger = Session::begin(
            &site,
            "create temp table lodging as select generate_series(1, 1000) as i; \
             create temp table second tablespace ts as select 1 as i",
        );
        server.sql("checkpoint");
        let path = |relation: &str| server.sql(&format!("select pg_relation_filepath('{relation}')"));
        let unlogged = ["unlogged", "outside", "unlogged_i_idx"].map(path);
        let temporary = ["lodging", "second"].map(|name| {
            server.sql(&format!("select pg_relation_filepath(oid) from pg_class where relname = '{name}'"))
        });
        let data = server.data().to_path_buf();
        for name in unlogged.iter().chain(&temporary) {
            assert!(data.join(name).exists(), "{major}: {name}");
        }
        let put = |name: &str, content: &str| {
            let path = data.join(name);
            let directory = path.parent().unwrap();
            if !directory.exists() {
                fs::create_dir_all(directory).unwrap();
                fs::set_permissions(directory, Permissions::from_mode(0o700)).unwrap();
                site.installation.give(directory);
            }
            fs::write(&path, content).unwrap();
            // Of all others, ours makes what is usual.
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            site.installation.give(&path);
        };
        for name in LEFT_OUT.into_iter().chain(SENT) {
            put(name, "junk\n");
        }
        site.installation.give(&data.join("base/pgsql_tmp"));
        // The backup has its own.
        put("backup_label", "START WAL LOCATION: of another backup\n");
        put("backup_manifest", "of another backup\n");

        let arguments = ["-X", "stream"];
        let ours = site.back_up(Tool::Ours, "ours", &arguments);
        let theirs = site.back_up(Tool::Theirs, "theirs", &arguments);
        assert_same(&ours, &theirs);
        assert_same(&site.space("ours"), &site.space("theirs"));
        site.verify(&ours, &["-e"]);
        // Both could have gone wrong alike.
        let name_of = |path: &str| path.rsplit('/').next().unwrap().to_owned();
        let stored: Vec<String> = [tree(&ours), tree(&site.space("ours"))]
            .into_iter()
            .flat_map(|tree| tree.into_keys().map(|name| String::from_utf8(name).unwrap()))
            .collect();
        let is_stored = |name: &str| stored.iter().any(|stored| stored == name);
        for name in LEFT_OUT.into_iter().chain(["postmaster.pid", "postmaster.opts"]) {
            assert!(!is_stored(name), "{major}: {name}");
        }
        for name in SENT {
            assert!(is_stored(name), "{major}: {name}");
        }
        for path in &unlogged {
            let name = name_of(path);
            let ends = |ending: &str| stored.iter().any(|stored| name_of(stored) == format!("{name}{ending}"));
            assert!(ends("_init") && !ends(""), "{major}: {path}");
        }
        for name in temporary.iter().map(|path| name_of(path)) {
            assert!(name.starts_with('t') && !stored.iter().any(|stored| name_of(stored) == name), "{major}: {name}");
        }
        for name in
            ["pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans"]
        {
            assert_eq!(fs::read_dir(ours.join(name)).unwrap().count(), 0, "{major}: {name}");
        }
        let label = fs::read_to_string(ours.join("backup_label")).unwrap();
        assert!(!label.contains("another backup") && label.contains("LABEL: "), "{label}");

        drop(lodger);
        fs::remove_file(data.join("backup_label")).unwrap();
        fs::remove_file(data.join("tablespace_map")).unwrap();
        server.stop();
        let restored = Postgres::start(&site.installation, &ours, &site.path("r"));
        let counts = "select (select count(*) from t), (select count(*) from unlogged), (select count(*) from outside)";
        assert_eq!(restored.sql(counts), "10000|0|0", "{major}");
    }
}

#[test]
fn a_link_in_place_of_the_slots_becomes_a_directory() {
    for major in [15, 18] {
        let Some(site) = Site::new(major, &[]) else { continue };
        site.server.stop();
        let data = site.server.data().to_path_buf();
        fs::rename(data.join("pg_replslot"), site.path("slots")).unwrap();
        symlink(site.path("slots"), data.join("pg_replslot")).unwrap();
        site.installation.give(&data.join("pg_replslot"));
        let _again = Postgres::start(&site.installation, &data, site.server.socket());
        let ours = site.back_up(Tool::Ours, "ours", &[]);
        let theirs = site.back_up(Tool::Theirs, "theirs", &[]);
        assert_same(&ours, &theirs);
        assert_eq!(tree(&ours).get(&b"pg_replslot"[..]), Some(&Item::Directory { mode: 0o700 }), "{major}");
        site.verify(&ours, &[]);
    }
}

#[test]
fn a_name_too_long_for_an_archive_ends_the_backup() {
    for major in [15, 18] {
        let Some(site) = Site::new(major, &[]) else { continue };
        let long = site.server.data().join("f".repeat(101));
        fs::write(&long, "").unwrap();
        site.installation.give(&long);
        for format in ["-Ft", "-Fp"] {
            let said = |tool| site.fails(tool, "target", &[format, "-X", "none"]);
            let ours = said(Tool::Ours);
            assert!(ours.contains("file name too long for tar format: \"ffff"), "{major}: {ours}");
            assert_eq!(ours, said(Tool::Theirs), "{major} {format}");
        }
    }
}
