//! What `--write-recovery-conf` writes: what a standby is told, byte for byte.

use std::fs;
use std::io::Read;
use std::path::Path;

use super::site::{Site, Tool};
use backstop_scenarios::postgres::succeed;

/// A way to say where the server is: arguments and environment, in which `{host}` is its socket's directory.
type Way = (&'static [&'static str], &'static [(&'static str, &'static str)]);

const WAYS: &[Way] = &[
    (&[], &[]),
    (&["-h", "{host}", "-p", "5432", "-U", "postgres"], &[("PGUSER", "nobody"), ("PGPORT", "1")]),
    (&["-d", "user=postgres dbname='a b' application_name=\"it's\""], &[("PGDATABASE", "c")]),
    (&["-d", "postgresql:///mydb?host={host}&connect_timeout=7&keepalives_idle=3"], &[]),
    (&[], &[("PGDATABASE", "c"), ("PGAPPNAME", "me"), ("PGPASSWORD", r"a'b\c"), ("PGOPTIONS", "-c geqo=off")]),
    (&["-d", "host=/nowhere,{host} port=1,5432 target_session_attrs=any fallback_application_name=x"], &[]),
    (&["-d", "passfile=/somewhere/pass sslcert=/x sslrootcert='' replication=database"], &[]),
    (&["-d", "service=mine", "-p", "5432"], &[("PGSERVICEFILE", "{host}/services")]),
    (&["-S", "standby"], &[("PGREQUIREPEER", "postgres")]),
];

/// The settings of the standby, out of a plain backup or a tar file.
fn settings(backup: &Path) -> (String, bool) {
    let archive = backup.join("base.tar");
    if !archive.exists() {
        let text = fs::read_to_string(backup.join("postgresql.auto.conf")).unwrap();
        return (text, fs::read(backup.join("standby.signal")).unwrap().is_empty());
    }
    let mut found = (String::new(), false);
    let mut archive = tar::Archive::new(fs::File::open(archive).unwrap());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        match entry.path().unwrap().to_str().unwrap() {
            "postgresql.auto.conf" => drop(entry.read_to_string(&mut found.0).unwrap()),
            "standby.signal" => found.1 = entry.size() == 0,
            _ => {}
        }
    }
    found
}

#[test]
fn a_standby_is_told_the_same() {
    for major in [15, 16, 18] {
        let Some(site) = Site::new(major, &[]) else { continue };
        site.server.sql("drop table u, v");
        site.server.sql("drop tablespace ts");
        site.server.sql("drop tablespace inside");
        site.server.sql("select pg_create_physical_replication_slot('standby')");
        site.server.sql("alter system set work_mem = '5MB'");
        let host = site.server.socket().to_str().unwrap();
        fs::write(site.server.socket().join("services"), format!("[mine]\nhost={host}\nuser=postgres\n")).unwrap();
        for (index, (arguments, environment)) in WAYS.iter().enumerate() {
            for format in if index < 2 { &["plain", "tar"][..] } else { &["plain"] } {
                let wal = if arguments.contains(&"-S") { "stream" } else { "none" };
                let told = |tool: Tool| {
                    let target = site.path(&format!("{tool:?}-{index}-{format}"));
                    let fill = |text: &str| text.replace("{host}", host);
                    let mut command = site
                        .tool(tool, &["-cfast", "-N", "-R", "-X", wal, "-F", format, "-D", target.to_str().unwrap()]);
                    command.args(arguments.iter().map(|argument| fill(argument)));
                    command.envs(environment.iter().map(|(name, value)| (name, fill(value))));
                    succeed(&mut command);
                    settings(&target)
                };
                let (ours, theirs) = (told(Tool::Ours), told(Tool::Theirs));
                assert_eq!(ours, theirs, "{major} {arguments:?} {environment:?}");
                assert!(ours.1 && ours.0.contains("work_mem = '5MB'\nprimary_conninfo = '"), "{}", ours.0);
                assert_eq!(ours.0.contains("\nprimary_slot_name = 'standby'\n"), arguments.contains(&"standby"));
            }
        }
    }
}
