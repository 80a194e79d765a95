//! What goes wrong on the server while `pg_basebackup` takes a backup: the tool says what the server said, fails, and takes
//! back what it made; the server holds nothing of it.

use backstop_mock::BackupOutcome;
use backstop_mock::config::{Config, Role};
use backstop_mock::fault::Fault;

use super::backup::Backup;
use crate::served::{Served, said, small};
use crate::{installations, own};

struct Misfortune {
    role: Role,
    options: &'static [&'static str],
    fault: &'static str,
    /// What the tool says.
    words: &'static str,
}

const MISFORTUNES: [Misfortune; 7] = [
    Misfortune {
        role: Role::Primary,
        options: &["-Xfetch"],
        fault: r#"{"when": {"end-position": {}}, "do": {"error": {"sqlstate": "58030", "message": "could not do it"}}}"#,
        words: "ERROR:  could not do it",
    },
    Misfortune {
        role: Role::Primary,
        options: &["-Xfetch"],
        fault: r#"{"when": {"archive-data": {"archive": "base.tar", "at": "50%"}}, "do": {"close": {}}}"#,
        words: "server closed the connection unexpectedly",
    },
    Misfortune {
        role: Role::Primary,
        // In plain format the tool has no ear for the server: it complains of half a file.
        options: &["-Ft", "-Xfetch"],
        fault: r#"{"when": {"archive-data": {"archive": "base.tar", "at": "50%"}}, "do": {"shutdown": {"mode": "fast"}}}"#,
        words: "FATAL:  terminating connection due to administrator command",
    },
    Misfortune {
        role: Role::Primary,
        // Slow enough for the connection of the WAL to be there in time.
        options: &["-Xstream", "-r", "512"],
        fault: r#"{"when": {"wal-begin": {}}, "do": {"crash": {}}}"#,
        words: "server closed the connection unexpectedly",
    },
    Misfortune {
        role: Role::Primary,
        options: &["-Ft", "-Xstream", "-r", "512"],
        fault: r#"{"when": {"wal-begin": {}}, "do": {"terminate": {}}}"#,
        words: "background process terminated unexpectedly",
    },
    Misfortune {
        role: Role::Standby,
        options: &["-Ft", "-Xfetch"],
        fault: r#"{"when": {"archive-data": {"archive": "base.tar", "at": "50%"}}, "do": {"promote": {}}}"#,
        words: "ERROR:  the standby was promoted during online backup",
    },
    Misfortune {
        role: Role::Primary,
        options: &["-Ft", "-Xfetch", "--compress=server-gzip"],
        fault: r#"{"when": {"archive-data": {"archive": "base.tar", "at": "50%"}}, "do": {"recycle-wal": {"through": "000000010000000000000002"}}}"#,
        words: "ERROR:  requested WAL segment 000000010000000000000002 has already been removed",
    },
];

#[test]
fn a_misfortune_is_told_and_leaves_nothing() {
    for tool in installations("pg_basebackup and misfortunes") {
        for Misfortune { role, options, fault, words } in MISFORTUNES {
            let faults = vec![serde_json::from_str::<Fault>(fault).unwrap()];
            let served = Served::start(Config { role, faults, ..small(own(&tool), true) });
            let scratch = tool.scratch();
            let backup = Backup { tool: &tool, served: &served, directory: scratch.path().join("backup") };
            let output = backup.run(options);
            let context = format!("pg_basebackup {} {options:?} and {fault}", tool.major());
            assert!(served.server.fired().contains(&0), "{context}: it never happened");
            assert!(!output.status.success() && said(&output).contains(words), "{context}: {}", said(&output));
            assert!(!backup.directory.exists(), "{context}");
            assert!(served.server.state().slots.is_empty(), "{context}");
            let ended = served.server.backups().pop().unwrap().ended;
            assert!(matches!(ended, BackupOutcome::Complete | BackupOutcome::Failed(_)), "{context}");
        }
    }
}
