//! Chains of backups over what changes a cluster most: a promotion, a database that is made again, WAL without summaries.

use std::fs;
use std::path::{Path, PathBuf};

use backstop_protocol::base_backup::manifest::Manifest;
use backstop_scenarios::postgres::{PORT, Postgres, USER, succeed};

use super::same::assert_same;
use super::site::{Site, Tool, tree};
use super::words::without_numbers;

const TOOLS: [(Tool, &str); 2] = [(Tool::Ours, "ours"), (Tool::Theirs, "theirs")];

fn site() -> Option<Site> {
    Site::new(18, &["summarize_wal = on", "wal_keep_size = 512MB"])
}

/// The manifest of a backup, as an option.
fn on_top_of(backup: &Path) -> String {
    format!("--incremental={}", backup.join("backup_manifest").display())
}

/// Combines a chain, the last of which is called `last`.
fn combine(site: &Site, tool: Tool, chain: &[&Path], last: &str, name: &str) -> PathBuf {
    let output = site.path(name);
    let mut command = site.named(tool, "pg_combinebackup");
    command.args(chain).arg("-N").arg("-o").arg(&output);
    command.arg("-T").arg(format!("{}={}", site.space(last).display(), site.space(name).display()));
    succeed(&mut command);
    output
}

/// Compares two combined backups, and the files that their manifests list: both tools write these themselves.
fn assert_combined_alike(site: &Site, ours: &str, theirs: &str) {
    assert_same(&site.path(ours), &site.path(theirs));
    assert_same(&site.space(ours), &site.space(theirs));
    // A backup that hears its end before the rest of the segment comes leaves that segment unmarked: a matter of the moment.
    let listed = |name: &str| -> Vec<String> {
        let manifest = Manifest::parse(&fs::read(site.path(name).join("backup_manifest")).unwrap()).unwrap();
        let names = manifest.files.iter().map(|file| String::from_utf8_lossy(&file.path).into_owned());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with("pg_wal/")).collect();
        names.sort();
        names
    };
    assert_eq!(listed(ours), listed(theirs));
}

#[test]
fn an_incremental_backup_builds_on_one_of_the_timeline_before() {
    let Some(site) = site() else { return };
    let full = site.back_up(Tool::Ours, "full", &[]);
    site.server.sql("update t set x = 'before' where i <= 100");
    let before = site.back_up(Tool::Ours, "before", &["-X", "none", &on_top_of(&full)]);

    // Another server comes out of both, and goes its own way.
    let heir = combine(&site, Tool::Ours, &[&full, &before], "before", "heir");
    fs::write(heir.join("standby.signal"), "").unwrap();
    let primary = site.server.socket().display();
    let settings = format!("\nprimary_conninfo = 'host={primary} port={PORT} user={USER}'\n");
    let auto = heir.join("postgresql.auto.conf");
    fs::write(&auto, fs::read_to_string(&auto).unwrap() + &settings).unwrap();
    site.installation.give(&heir);
    let heir = Postgres::start(&site.installation, &heir, &site.path("h"));
    site.server.sql("update t set x = 'at last' where i > 9900");
    let end = site.server.sql("select pg_current_wal_lsn()");
    let reached = format!("select pg_last_wal_replay_lsn() >= '{end}'");
    while heir.sql(&reached) != "t" {}
    heir.sql("select pg_promote()");
    heir.sql("update t set x = 'after' where i between 201 and 300");
    heir.sql("create table w tablespace ts as select generate_series(1, 50) as i");
    heir.sql("checkpoint");

    for (tool, name) in TOOLS {
        let target = site.path(name);
        let mapping = format!("{}={}", site.space("heir").display(), site.space(name).display());
        let arguments = ["-c", "fast", "-N", "-D", target.to_str().unwrap(), "-T", &mapping, &on_top_of(&before)];
        succeed(site.tool(tool, &arguments).env("PGHOST", heir.socket()));
        site.verify(&target, &[]);
        let label = fs::read_to_string(target.join("backup_label")).unwrap();
        assert!(label.contains("START TIMELINE: 2\n") && label.contains("INCREMENTAL FROM TLI: 1\n"), "{label}");
        let changed = tree(&target).into_keys().filter(|name| String::from_utf8_lossy(name).contains("INCREMENTAL."));
        assert!(changed.count() > 100);
    }
    assert_same(&site.path("ours"), &site.path("theirs"));
    // Each combines what the other took.
    for ((tool, word), (_, other)) in TOOLS.into_iter().zip(TOOLS.into_iter().rev()) {
        let last = site.path(other);
        let combined = combine(&site, tool, &[&full, &before, &last], other, &format!("whole-{word}"));
        site.verify(&combined, &[]);
    }
    assert_combined_alike(&site, "whole-ours", "whole-theirs");
    let answer = "select string_agg(c, ' ' order by c) from \
                  (select x || '=' || count(*) as c from t where length(x) < 10 group by x) as s";
    let restored = Postgres::start(&site.installation, &site.path("whole-ours"), &site.path("r"));
    for server in [&heir, &restored] {
        assert_eq!(server.sql(answer), "after=100 at last=100 before=100");
        assert_eq!(server.sql("select count(*) from w"), "50");
    }
}

/// SQL in a database of its own.
fn sql_in(site: &Site, server: &Postgres, database: &str, sql: &str) -> String {
    let mut psql = site.installation.tool("psql");
    psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", USER, "-d", database, "-c", sql, "-p", &PORT.to_string(), "-h"]);
    String::from_utf8(succeed(psql.arg(server.socket())).stdout).unwrap().trim_end().to_owned()
}

#[test]
fn a_database_that_was_made_again_is_the_new_one() {
    for strategy in ["file_copy", "wal_log"] {
        let Some(site) = site() else { return };
        let make = |name: &str, more: &str, table: &str| {
            site.server.sql(&format!("create database {name} strategy = {strategy} {more}"));
            sql_in(&site, &site.server, name, table);
            site.server.sql("checkpoint");
        };
        let table = |name: &str, rows: u32| format!("create table {name} as select generate_series(1, {rows}) as i");
        make("lakh", "oid = 100000", &table("old", 5000));
        make("afar", "oid = 100001 tablespace = ts", &table("old", 5000));
        make("gone", "oid = 100002", &table("old", 10));
        let full = site.back_up(Tool::Ours, "full", &[]);
        for name in ["lakh", "afar", "gone"] {
            site.server.sql(&format!("drop database {name}"));
        }
        make("lakh", "oid = 100000", &table("new", 70));
        make("afar", "oid = 100001 tablespace = ts", &table("new", 70));
        for (tool, word) in TOOLS {
            let backup = site.back_up(tool, word, &[&on_top_of(&full)]);
            site.verify(&backup, &[]);
            combine(&site, tool, &[&full, &backup], word, &format!("whole-{word}"));
        }
        assert_same(&site.path("ours"), &site.path("theirs"));
        assert_combined_alike(&site, "whole-ours", "whole-theirs");
        let whole = site.path("whole-ours");
        site.verify(&whole, &[]);
        assert!(!whole.join("base/100002").exists(), "{strategy}");
        site.server.stop();
        let restored = Postgres::start(&site.installation, &whole, &site.path("r"));
        for name in ["lakh", "afar"] {
            assert_eq!(sql_in(&site, &restored, name, "select count(*) from new"), "70", "{strategy} {name}");
            let old = "select count(*) from pg_class where relname = 'old'";
            assert_eq!(sql_in(&site, &restored, name, old), "0", "{strategy} {name}");
        }
    }
}

#[test]
fn wal_that_was_never_summarized_is_missed() {
    let Some(site) = site() else { return };
    let full = site.back_up(Tool::Theirs, "full", &[]);
    let minimal = [("wal_level", "minimal"), ("max_wal_senders", "0"), ("summarize_wal", "off")];
    for (setting, value) in minimal {
        site.server.sql(&format!("alter system set {setting} = {value}"));
    }
    site.server.restart();
    site.server.sql("create table unseen as select generate_series(1, 100) as i");
    for (setting, _) in minimal {
        site.server.sql(&format!("alter system reset {setting}"));
    }
    site.server.restart();
    let said = |tool| site.fails(tool, "backup", &[&on_top_of(&full)]);
    let (ours, theirs) = (said(Tool::Ours), said(Tool::Theirs));
    assert!(
        ours.contains("ERROR:  WAL summaries are required on timeline 1 from ") && ours.contains("are incomplete"),
        "{ours}"
    );
    // Positions are of the moment.
    assert_eq!(without_numbers(&ours), without_numbers(&theirs));
}
