//! What the server refuses, and what `pg_basebackup` says of it.

use backstop_mock::config::Config;

use super::backup::Backup;
use crate::served::{Served, said, small};
use crate::{installations, own};

/// Options, and the words of the server.
const REFUSED: [(&[&str], &str); 8] = [
    (&["-Xnone", "--target=moon"], "ERROR:  unrecognized target: \"moon\""),
    (&["-Xnone", "--target=blackhole:deep"], "ERROR:  target \"blackhole\" does not accept a target detail"),
    (&["-Xnone", "--target=server:backup"], "ERROR:  relative path not allowed for backup stored on server"),
    (
        &["-Xnone", "-Ft", "-D", "backup", "--manifest-checksums=bogus"],
        "ERROR:  unrecognized checksum algorithm: \"bogus\"",
    ),
    (
        &["-Xnone", "-Ft", "-D", "backup", "--compress=server-gzip:10"],
        "compression algorithm \"gzip\" expects a compression level between 1 and 9",
    ),
    (&["-Xnone", "-Ft", "-D", "backup", "--compress=server-lz4:bogus"], "unrecognized compression option: \"bogus\""),
    (
        &["-Xnone", "-Ft", "-D", "backup", "--compress=server-gzip:workers=3"],
        "compression algorithm \"gzip\" does not accept a worker count",
    ),
    (
        &["-Xnone", "-Ft", "-D", "backup", "--compress=server-bzip2"],
        "ERROR:  unrecognized compression algorithm: \"bzip2\"",
    ),
];

#[test]
fn the_servers_words_are_passed_on() {
    for tool in installations("pg_basebackup refused") {
        let served = Served::start(small(own(&tool), false));
        let scratch = tool.scratch();
        let backup = Backup { tool: &tool, served: &served, directory: scratch.path().join("backup") };
        let directory = backup.directory.to_str().unwrap().to_owned();
        for (options, words) in REFUSED {
            let options: Vec<_> =
                options.iter().map(|option| if *option == "backup" { &directory } else { *option }).collect();
            let output = backup.run_bare(&options);
            let said = said(&output);
            assert!(!output.status.success(), "{options:?}");
            assert!(
                said.contains("pg_basebackup: error: could not initiate base backup: ERROR:  ") && said.contains(words),
                "{options:?}: {said}"
            );
            assert!(!backup.directory.exists(), "{options:?} left something");
        }
    }
}

#[test]
fn a_server_without_walsenders_gives_no_backup() {
    for tool in installations("pg_basebackup and a server without walsenders") {
        let served = Served::start(Config { max_wal_senders: 0, ..small(own(&tool), false) });
        let scratch = tool.scratch();
        let backup = Backup { tool: &tool, served: &served, directory: scratch.path().join("backup") };
        let output = backup.run(&[]);
        assert!(!output.status.success());
        assert!(
            said(&output).contains("FATAL:  number of requested standby connections exceeds "),
            "{}",
            said(&output)
        );
        assert!(!backup.directory.exists());
    }
}
