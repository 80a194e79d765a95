//! `pg_basebackup` takes backups in every way it has, and what it leaves is the server's, byte for byte; PostgreSQL's own
//! verifier accepts it.

mod backup;
mod faults;
mod refused;
mod slots;
mod targets;
mod ways;
mod words;

use std::fs;
use std::io::Write;

use backstop_mock::config::{Config, Role};
use backstop_protocol::version::ServerVersion;
use backstop_scenarios::postgres::Installation;

use self::backup::Backup;
use self::ways::{AT_HOME, EVERYWHERE, Way};
use crate::served::{Served, said, small};
use crate::{installations, own};

/// Takes backups in some ways from one server.
fn take<'a>(tool: &Installation, config: Config, ways: impl IntoIterator<Item = &'a Way>) {
    let served = Served::start(config);
    for way in ways {
        let scratch = tool.scratch();
        way.take(&Backup { tool, served: &served, directory: scratch.path().join("backup") });
    }
}

#[test]
fn every_format_and_wal_method_with_a_server_of_the_same_release() {
    for tool in installations("pg_basebackup and a mock of its release") {
        for tablespaces in [false, true] {
            take(&tool, small(own(&tool), tablespaces), EVERYWHERE);
        }
        // Segments of the usual size.
        take(
            &tool,
            Config { wal_segment_size: Config::default().wal_segment_size, ..small(own(&tool), false) },
            EVERYWHERE,
        );
    }
}

#[test]
fn every_option_with_a_server_of_the_same_release() {
    for tool in installations("pg_basebackup and its options") {
        take(&tool, small(own(&tool), true), AT_HOME);
    }
}

/// What no tool has asked of these releases for long: WAL is streamed to servers since 9.3, and TABLESPACE_MAP is understood
/// since 9.5.
fn possible(version: ServerVersion, way: &Way) -> bool {
    (version >= ServerVersion::V9_3 || !way.options.contains("-Xstream"))
        && (version >= ServerVersion::V9_5 || !way.options.contains("-Ft"))
}

#[test]
fn servers_of_every_older_release() {
    for tool in installations("pg_basebackup and mocks of older releases") {
        for version in ServerVersion::ALL.into_iter().filter(|version| *version < own(&tool)) {
            take(&tool, small(version, true), EVERYWHERE.iter().filter(|way| possible(version, way)));
        }
    }
}

#[test]
fn a_server_of_a_newer_release_is_refused_by_the_tool() {
    for tool in installations("pg_basebackup and mocks of newer releases") {
        for version in ServerVersion::ALL.into_iter().filter(|version| *version > own(&tool)) {
            let served = Served::start(small(version, false));
            let scratch = tool.scratch();
            let backup = Backup { tool: &tool, served: &served, directory: scratch.path().join("backup") };
            let output = backup.run(&[]);
            let refusal = format!("incompatible server version {}", version.announced());
            assert!(!output.status.success() && said(&output).contains(&refusal), "{}", said(&output));
            assert!(!backup.directory.exists());
        }
    }
}

#[test]
fn an_archive_on_standard_output() {
    for tool in installations("pg_basebackup to standard output") {
        let served = Served::start(small(own(&tool), false));
        for (options, suffix) in [
            ("-Xfetch", ""),
            ("-Xnone --no-manifest", ""),
            ("-Xfetch -z", ".gz"),
            ("-Xnone --no-manifest --compress=server-lz4", ".lz4"),
        ] {
            let scratch = tool.scratch();
            let backup = Backup { tool: &tool, served: &served, directory: scratch.path().join("backup") };
            let options: Vec<_> = ["-Ft", "-D", "-"].into_iter().chain(options.split(' ')).collect();
            let output = backup.run_bare(&options);
            assert!(output.status.success(), "{options:?}: {}", said(&output));
            fs::create_dir(&backup.directory).unwrap();
            let archive = backup.directory.join(format!("base.tar{suffix}"));
            fs::File::create(archive).unwrap().write_all(&output.stdout).unwrap();
            let whole = backup.unpack(suffix, None);
            // With an archive on standard output the manifest is a member of it.
            assert_eq!(whole.join("backup_manifest").exists(), !options.contains(&"--no-manifest"));
            backup.check(&whole, options.contains(&"-Xfetch"));
        }
    }
}

#[test]
fn a_standby_is_prepared_and_its_wal_kept_elsewhere() {
    for tool in installations("pg_basebackup -R --waldir") {
        let served = Served::start(small(own(&tool), true));
        let scratch = tool.scratch();
        let backup = Backup { tool: &tool, served: &served, directory: scratch.path().join("backup") };
        let elsewhere = scratch.path().join("wal");
        let waldir = format!("--waldir={}", elsewhere.display());
        let output = backup.run(&["-R", "-C", "-S", "standby", &waldir]);
        assert!(output.status.success(), "{}", said(&output));
        // `-R` changes a file of the manifest, so that the verifier would object.
        fs::remove_file(backup.directory.join("backup_manifest")).unwrap();
        backup.check(&backup.directory, true);
        assert!(backup.directory.join("standby.signal").is_file());
        let settings = fs::read_to_string(backup.directory.join("postgresql.auto.conf")).unwrap();
        assert!(settings.contains(&format!("port={}", served.port)), "{settings}");
        assert!(settings.contains("primary_slot_name = 'standby'"), "{settings}");
        assert_eq!(fs::read_link(backup.directory.join("pg_wal")).unwrap(), elsewhere);
    }
}

#[test]
fn a_standby_gives_backups_too() {
    for tool in installations("pg_basebackup from a standby") {
        take(&tool, Config { role: Role::Standby, ..small(own(&tool), true) }, EVERYWHERE);
    }
}
