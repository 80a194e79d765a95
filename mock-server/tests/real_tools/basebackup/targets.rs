//! Backups that the server keeps, or sends nowhere.

use std::fs;
use std::path::Path;

use backstop_mock::config::Config;

use super::backup::Backup;
use crate::served::{Served, TABLESPACES, said, small};
use crate::{installations, own};

#[test]
fn a_backup_into_the_black_hole_leaves_nothing() {
    for tool in installations("pg_basebackup --target=blackhole") {
        let served = Served::start(small(own(&tool), true));
        let scratch = tool.scratch();
        let backup = Backup { tool: &tool, served: &served, directory: scratch.path().join("backup") };
        for options in
            [&["-Xnone"][..], &["-Xfetch"], &["-Xnone", "--compress=server-gzip"], &["-Xnone", "--no-manifest"]]
        {
            let mut all = vec!["--target=blackhole"];
            all.extend_from_slice(options);
            let output = backup.run_bare(&all);
            assert!(output.status.success(), "{options:?}: {}", said(&output));
            assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
        }
    }
}

#[test]
fn a_backup_is_stored_on_the_server() {
    for tool in installations("pg_basebackup --target=server") {
        let scratch = tool.scratch();
        // The directories that the server's machine has.
        fs::create_dir_all(scratch.path().join("root/srv")).unwrap();
        let server_root = Some(scratch.path().join("root"));
        let served = Served::start(Config { server_root, ..small(own(&tool), true) });
        for (name, options, suffix) in [
            ("plain", &[][..], ""),
            ("gzip", &["--compress=server-gzip:3"], ".gz"),
            ("lz4", &["--compress=server-lz4"], ".lz4"),
            ("zstd", &["--compress=server-zstd:workers=2"], ".zst"),
        ] {
            let target = format!("--target=server:/srv/{name}");
            let mut all = vec!["-Xfetch", &target];
            all.extend_from_slice(options);
            let directory = scratch.path().join("root/srv").join(name);
            let backup = Backup { tool: &tool, served: &served, directory };
            let output = backup.run_bare(&all);
            assert!(output.status.success(), "{options:?}: {}", said(&output));
            let mut expected: Vec<_> = TABLESPACES.iter().map(|(oid, _)| format!("{oid}.tar{suffix}")).collect();
            expected.extend(["backup_manifest".to_owned(), format!("base.tar{suffix}")]);
            assert_eq!(backup.files(), expected);
            backup.check(&backup.unpack(suffix, None), true);
            if ["", ".gz"].contains(&suffix) {
                backup.verify_archives();
            }
            let output = backup.run_bare(&all);
            let refused = format!("ERROR:  directory \"/srv/{name}\" exists but is not empty");
            assert!(!output.status.success() && said(&output).contains(&refused), "{}", said(&output));
        }
        assert!(!Path::new("/srv/plain").exists(), "nothing outside of the root");
    }
}
