//! What `pg_basebackup` says of a mock is, word for word, what it says of a real server of the same release.

use std::collections::BTreeMap;
use std::process::Command;

use backstop_mock::config::Config;
use backstop_protocol::lsn::Lsn;
use backstop_scenarios::postgres::{Installation, PORT, Postgres, USER};

use crate::served::{Served, said, small};
use crate::{installations, own};

/// Options, with what success and what refusals bring. `DIR` is where the backup goes.
const SAID: [&str; 22] = [
    "-D DIR -Fp -Xstream",
    "-D DIR -Ft -Xfetch",
    "-D DIR -Fp -Xnone",
    "-D DIR -Ft -Xstream --compress=server-gzip --no-manifest",
    "-D DIR -Fp -Xnone --manifest-checksums=none",
    "-D DIR -Fp -Xfetch --no-slot",
    "-D DIR -C -S kept",
    "-D DIR -C -S kept",
    "-D DIR -S kept",
    "-D DIR -S nobodys",
    "-D DIR -C -S Nobodys",
    "-D DIR -Xnone --manifest-checksums=bogus",
    "--target=blackhole -Xnone",
    "--target=blackhole -Xfetch",
    "--target=blackhole:deep -Xnone",
    "--target=moon -Xnone",
    "--target=server:relative -Xnone",
    "--target=server:/nowhere/at/all -Xnone",
    "-D DIR -Ft -Xnone --compress=server-gzip:10",
    "-D DIR -Ft -Xnone --compress=server-gzip:workers=3",
    "-D DIR -Ft -Xnone --compress=server-gzip:level=3,bogus",
    "-D DIR -Ft -Xnone --compress=server-bzip2",
];

/// The options that ask for WAL of a slot that is not there.
const WITHOUT_SLOT: &str = "-S nobodys";

/// Runs the tool with each of the options and returns its exit status and what it said, without what is another each time.
fn words(tool: &Installation, connect: &dyn Fn(&mut Command)) -> Vec<String> {
    let once = |options: &&str| {
        let scratch = tool.scratch();
        let directory = scratch.path().join("backup");
        let directory = directory.to_str().unwrap();
        let mut command = tool.tool("pg_basebackup");
        connect(&mut command);
        command
            .args(["--verbose", "--no-sync", "--checkpoint=fast"])
            .args(options.replace("DIR", directory).split(' '));
        let output = command.output().unwrap();
        let said = said(&output).replace(directory, "DIR");
        // Whether the process for WAL fails before or after the backup has ended is its luck: only why it did counts.
        let counts = |line: &&str| !options.ends_with(WITHOUT_SLOT) || line.contains("could not send");
        let said: String = said.split_inclusive('\n').filter(counts).collect();
        let said: Vec<_> = said.split_inclusive(char::is_whitespace).map(normal).collect();
        format!("pg_basebackup {options}: {}\n{}", output.status, said.concat())
    };
    SAID.iter().map(once).collect()
}

/// A word, unless it is a position or the name of a temporary slot.
fn normal(word: &str) -> String {
    let bare = word.trim();
    if bare.parse::<Lsn>().is_ok() {
        return word.replace(bare, "LSN");
    }
    match bare.strip_prefix("\"pg_basebackup_") {
        Some(_) => word.replace(bare, "\"pg_basebackup_PID\""),
        None => word.to_owned(),
    }
}

#[test]
fn are_the_same() {
    for tool in installations("what pg_basebackup says of a real server") {
        let scratch = tool.scratch();
        let real = Postgres::new(&tool, scratch.path(), &[]);
        let of_real = words(&tool, &|command| {
            command.arg("-h").arg(real.socket()).args(["-p", &PORT.to_string(), "-U", USER]);
        });
        // Both builds of the later releases know gzip alone.
        let settings = BTreeMap::from([("backstop.compression".to_owned(), "gzip".to_owned())]);
        let served = Served::start(Config { settings, ..small(own(&tool), false) });
        let of_mock = words(&tool, &|command| served.connect(command));
        for (of_mock, of_real) in of_mock.iter().zip(&of_real) {
            assert_eq!(of_mock, of_real, "release {}", tool.major());
        }
    }
}
