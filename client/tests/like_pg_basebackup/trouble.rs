//! What goes wrong on the server: no walsender, damaged pages, a WAL stream that is lost.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::Stdio;

use backstop_scenarios::postgres::Postgres;

use super::same::assert_same;
use super::site::{Site, Tool, said, without_remains};

#[test]
fn without_walsenders_there_is_no_backup() {
    for major in [15, 16, 18] {
        let Some(site) = Site::new(major, &[]) else { continue };
        // With one alone there is none for the WAL.
        for (senders, problem) in [("0", "failed: FATAL:  number of requested"), ("1", "(currently 1)\n")] {
            site.server.sql(&format!("alter system set max_wal_senders = {senders}"));
            site.server.restart();
            for options in [&["-X", "stream"][..], &["-X", "stream", "--no-clean"], &["-X", "stream", "-Ft"]] {
                let [ours, theirs] = [Tool::Ours, Tool::Theirs].map(|tool| {
                    let output = site.attempt(tool, "backup", options).output().unwrap();
                    assert_eq!(output.status.code(), Some(1), "{major} {tool:?} {options:?}");
                    assert!(output.stdout.is_empty());
                    if senders == "1" && options.contains(&"--no-clean") {
                        // What is kept are directories on which nothing starts.
                        for place in [site.path("backup"), site.space("backup")] {
                            assert!(place.exists() && !place.join("global/pg_control").exists(), "{major} {tool:?}");
                            fs::remove_dir_all(place).unwrap();
                        }
                    }
                    site.assert_gone(tool, "backup");
                    site.quiet();
                    without_remains(&said(&output))
                });
                assert!(ours.contains(problem), "{major} {senders}: {ours}");
                assert_eq!(ours, theirs, "{major} {senders} {options:?}");
            }
        }
    }
}

#[test]
fn damaged_pages_are_told_in_the_servers_words() {
    for major in [15, 16, 18] {
        let Some(site) = Site::new(major, &[]) else { continue };
        let damage: Vec<(PathBuf, &[usize])> = [("t", &[0, 1, 2, 3, 4, 5, 9][..]), ("u", &[1])]
            .into_iter()
            .map(|(table, pages)| {
                let path = site.server.sql(&format!("select pg_relation_filepath('{table}')"));
                (site.server.data().join(path), pages)
            })
            .collect();
        site.server.stop();
        for (path, pages) in &damage {
            let mut content = fs::read(path).unwrap();
            for page in *pages {
                content[page * 8192 + 4000] ^= 0xFF;
            }
            fs::write(path, content).unwrap();
        }
        let data = site.server.data().to_path_buf();
        let _again = Postgres::start(&site.installation, &data, site.server.socket());
        for format in ["-Fp", "-Ft"] {
            let ours = site.fails(Tool::Ours, "backup", &["-X", "none", format]);
            let output = site.attempt(Tool::Theirs, "backup", &["-X", "none", format]).output().unwrap();
            assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{major}: {}", said(&output));
            // Theirs leaves such a backup where it is. Ours removes it, and says so.
            fs::remove_dir_all(site.path("backup")).unwrap();
            site.assert_gone(Tool::Theirs, "backup");
            let removing = format!("pg_basebackup: removing data directory \"{}\"\n", site.path("backup").display());
            assert!(format != "-Fp" || ours.ends_with(&removing), "{major}: {ours}");
            let (ours, theirs) = (ours.replace(&removing, ""), without_remains(&said(&output)));
            assert!(ours.starts_with("WARNING:  checksum verification failed in file \""), "{major}: {ours}");
            let told = |text: &str| ours.lines().filter(|line| line.contains(text)).count();
            // Five of those in one file are told one by one.
            assert_eq!(told("WARNING:  checksum verification failed in "), 5 + 1, "{major}: {ours}");
            assert_eq!(told("WARNING:  further checksum verification failures in file "), 1, "{major}: {ours}");
            assert_eq!(told("has a total of 7 checksum verification failures"), 1, "{major}: {ours}");
            assert_eq!(told("WARNING:  8 total checksum verification failures"), 1, "{major}: {ours}");
            assert_eq!(told("pg_basebackup: error: checksum error occurred"), 1, "{major}: {ours}");
            assert_eq!(ours, theirs, "{major} {format}");
        }
        let unverified = ["-X", "none", "--no-verify-checksums"];
        for (tool, name) in [(Tool::Ours, "ours"), (Tool::Theirs, "theirs")] {
            let output = site.attempt(tool, name, &unverified).output().unwrap();
            assert!(output.status.success(), "{major} {tool:?}: {}", said(&output));
            assert!(!said(&output).contains("WARNING"), "{major} {tool:?}: {}", said(&output));
        }
        assert_same(&site.path("ours"), &site.path("theirs"));
    }
}

#[test]
fn a_wal_stream_that_is_lost_ends_the_backup() {
    for major in [15, 16, 18] {
        let Some(site) = Site::new(major, &[]) else { continue };
        for format in ["-Fp", "-Ft"] {
            let [ours, theirs] = [Tool::Ours, Tool::Theirs].map(|tool| {
                // At this rate it would take a quarter of an hour.
                let mut command = site.attempt(tool, "backup", &["-r", "32", "-v", format]);
                let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
                let mut words = BufReader::new(child.stderr.take().unwrap());
                let (mut line, mut before) = (String::new(), String::new());
                while !line.contains("starting background WAL receiver") {
                    line.clear();
                    assert_ne!(words.read_line(&mut line).unwrap(), 0, "{major} {tool:?}: {before}");
                    before.push_str(&line);
                }
                let streaming = "from pg_stat_replication r join pg_stat_activity a using (pid) \
                                 where r.state = 'streaming' and a.query like 'START_REPLICATION%'";
                site.until(&format!("select count(*) {streaming}"), "1");
                site.server.sql(&format!("select pg_terminate_backend(pid) {streaming}"));
                let mut said = String::new();
                words.read_to_string(&mut said).unwrap();
                assert_eq!(child.wait().unwrap().code(), Some(1), "{major} {tool:?}: {said}");
                site.assert_gone(tool, "backup");
                site.quiet();
                assert_eq!(site.server.sql("select count(*) from pg_replication_slots"), "0", "{major} {tool:?}");
                said
            });
            for said in [ours, theirs] {
                assert!(said.contains("error: background process terminated unexpectedly\n"), "{major}: {said}");
                assert!(said.contains("FATAL:  terminating connection due to administrator command\n"), "{said}");
            }
        }
    }
}
