//! Incremental backups, which PostgreSQL 18 takes, combines and starts on.

use std::path::{Path, PathBuf};

use backstop_scenarios::postgres::{Postgres, succeed};

use super::site::{Site, Tool, tree};

fn site() -> Option<Site> {
    Site::new(18, &["summarize_wal = on"])
}

/// The manifest of a backup, as an option.
fn on_top_of(backup: &Path) -> String {
    format!("--incremental={}", backup.join("backup_manifest").display())
}

fn combine(site: &Site, chain: &[&Path], name: &str) -> PathBuf {
    let output = site.path(name);
    let mut combine = site.installation.tool("pg_combinebackup");
    combine.args(chain).arg("-N").arg("-o").arg(&output);
    let place = |backup: &Path| site.path(&format!("{}.ts", backup.file_name().unwrap().to_str().unwrap()));
    let last = chain.last().unwrap();
    combine.arg("-T").arg(format!("{}={}", place(last).display(), site.path(&format!("{name}.ts")).display()));
    succeed(&mut combine);
    output
}

#[test]
fn a_chain_is_combined_and_starts() {
    let Some(site) = site() else { return };
    let full = site.back_up(Tool::Ours, "full", &[]);
    site.server.sql("update t set x = 'monday' where i <= 100");
    site.server.sql("create table w tablespace ts as select 1 as i");
    site.server.sql("drop table v");
    let monday = site.back_up(Tool::Ours, "monday", &[&on_top_of(&full)]);
    site.server.sql("delete from t where i > 5000");
    site.server.sql("vacuum t");
    let tuesday = site.back_up(Tool::Ours, "tuesday", &[&on_top_of(&monday)]);
    for backup in [&full, &monday, &tuesday] {
        site.verify(backup, &[]);
    }
    let blocks = tree(&monday).keys().filter(|name| String::from_utf8_lossy(name).contains("INCREMENTAL.")).count();
    assert!(blocks > 100, "{blocks} incremental files");
    let combined = combine(&site, &[&full, &monday, &tuesday], "combined");
    site.verify(&combined, &[]);
    let answer = "select count(*), count(*) filter (where x = 'monday'), (select count(*) from w) from t";
    let expected = site.server.sql(answer);
    site.server.stop();
    let restored = Postgres::start(&site.installation, &combined, &site.path("r"));
    assert_eq!(restored.sql(answer), expected);
    assert_eq!(expected, "5000|100|1");
}

#[test]
fn both_tools_continue_each_others_chains() {
    let Some(site) = site() else { return };
    let theirs = site.back_up(Tool::Theirs, "theirs", &[]);
    let ours = site.back_up(Tool::Ours, "ours", &[&on_top_of(&theirs)]);
    let last = site.back_up(Tool::Theirs, "last", &[&on_top_of(&ours)]);
    let combined = combine(&site, &[&theirs, &ours, &last], "combined");
    site.verify(&combined, &[]);
    let tar = site.back_up(Tool::Ours, "tar", &["-Ft", "-Xfetch", "-z", &on_top_of(&last)]);
    site.verify(&tar, &["--no-parse-wal"]);
}

#[test]
fn what_is_no_backup_before_is_refused_alike() {
    let Some(site) = site() else { return };
    let full = site.back_up(Tool::Theirs, "full", &[]);
    let manifest = std::fs::read_to_string(full.join("backup_manifest")).unwrap();
    let spoilt = site.path("spoilt");
    let spoil = |text: &str| {
        std::fs::write(&spoilt, text).unwrap();
        site.installation.give(&spoilt);
    };
    let target = site.path("target");
    let attempt = |tool, manifest: &Path| {
        let mapping = format!("{}={}", site.path("ts").display(), site.path("target.ts").display());
        let arguments =
            ["-c", "fast", "-D", target.to_str().unwrap(), "-T", &mapping, "-i", manifest.to_str().unwrap()];
        let said = site.refused(tool, &arguments);
        assert!(!target.exists());
        // What is removed is told by both, after the reason.
        said.lines().next().unwrap_or_default().to_owned()
    };
    let alike = |manifest: &Path| {
        let (ours, theirs) = (attempt(Tool::Ours, manifest), attempt(Tool::Theirs, manifest));
        assert_eq!(ours, theirs);
        ours
    };
    assert!(alike(&site.path("nosuch")).contains("could not open file"));
    spoil("");
    alike(&spoilt);
    spoil(&manifest[..manifest.len() / 2]);
    alike(&spoilt);
    spoil(&manifest.replace("\"Size\": 8192", "\"Size\": 8193"));
    assert!(alike(&spoilt).contains("manifest checksum mismatch"));
    let start = manifest.find("\"System-Identifier\": ").unwrap() + 21;
    let digits = manifest[start..].find(',').unwrap();
    spoil(&[&manifest[..start], "77", &manifest[start + digits..]].concat());
    assert!(alike(&spoilt).contains("system identifier"));
}

#[test]
fn servers_before_17_are_not_asked() {
    for major in [15, 16] {
        let Some(site) = Site::new(major, &[]) else { continue };
        let target = site.path("ours");
        let said = site.refused(Tool::Ours, &["-D", target.to_str().unwrap(), "-i", "/nonexistent"]);
        assert!(said.starts_with("pg_basebackup: error: server does not support incremental backup\n"), "{said}");
        assert!(!target.exists());
    }
}

#[test]
fn a_server_without_summaries_says_so() {
    let Some(site) = Site::new(18, &[]) else { return };
    let full = site.back_up(Tool::Ours, "full", &[]);
    let target = site.path("ours");
    let arguments = ["-c", "fast", "-D", target.to_str().unwrap(), &on_top_of(&full)];
    assert_eq!(site.refused(Tool::Ours, &arguments), site.refused(Tool::Theirs, &arguments));
    assert!(!target.exists());
}
