//! Ours and PostgreSQL's `pg_combinebackup` on the same chains of backups: the same bytes come out, or the same error, or the
//! difference is named here.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use backstop_protocol::base_backup::manifest::Manifest;
use backstop_scenarios::postgres::{Installation, PORT, Postgres, succeed};
use tempfile::TempDir;

#[path = "support/backups.rs"]
mod backups;

use backups::{Said, change, copy, crc32c, named, replace, run, sealed};

/// How the two tools compare.
#[derive(Clone, Copy)]
enum Verdict {
    /// The same exit status, the same messages in whatever order, and the same files.
    Same,
    /// The same exit status, and both say this.
    SameStatus(&'static str),
    /// Theirs accepts what ours refuses, with this.
    Stricter(&'static str),
    /// Ours refuses, with this; theirs is not asked, as it would write far too much.
    Alone(&'static str),
    /// Both accept; of ours more comes out: this file.
    More(&'static str),
    /// Both accept; this file is another. Theirs takes over checksums that are no longer true.
    Fresh(&'static str),
}

use Verdict::{Alone, Fresh, More, Same, SameStatus, Stricter};

/// Where the inputs lie: `full`, `inc1` and `inc2`, and `ts`, the tablespace of `inc2`.
struct Place(PathBuf);

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn change(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        change(&self.path(name), edit);
    }

    fn label(&self, backup: &str, old: &str, new: &str) {
        self.change(&format!("{backup}/backup_label"), |content| {
            let text = String::from_utf8(content.clone()).unwrap();
            assert!(text.contains(old), "{text}");
            *content = text.replace(old, new).into_bytes();
        });
    }

    fn manifest(&self, backup: &str, edit: impl FnOnce(String) -> String) {
        let path = self.path(backup).join("backup_manifest");
        let text = edit(fs::read_to_string(&path).unwrap());
        replace(&path, sealed(&text));
    }

    /// Changes a control file and gives it the right CRC.
    fn control(&self, backup: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        self.change(&format!("{backup}/global/pg_control"), |content| {
            edit(content);
            let sum = crc32c(&content[..292]);
            for (at, digits) in (292..296).zip(sum.as_bytes().chunks(2)) {
                content[at] = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
            }
        });
    }

    /// Makes manifests forget their sizes, where the case is about something else.
    fn without_manifests(&self) {
        for backup in ["full", "inc1", "inc2"] {
            fs::remove_file(self.path(backup).join("backup_manifest")).unwrap();
        }
    }

    fn tablespace(&self, backup: &str) -> PathBuf {
        let entries = fs::read_dir(self.path(backup).join("pg_tblspc")).unwrap();
        entries.map(|entry| entry.unwrap().path()).find(|path| path.is_symlink()).unwrap()
    }
}

struct Case {
    /// Begins with the known edge case, if it is one.
    name: &'static str,
    /// `{}` is the working directory.
    arguments: &'static [&'static str],
    /// Nothing, if the inputs stay as they are.
    spoil: Option<fn(&Place)>,
    verdict: Verdict,
}

const fn case(name: &'static str, arguments: &'static [&'static str], spoil: fn(&Place), verdict: Verdict) -> Case {
    Case { name, arguments, spoil: Some(spoil), verdict }
}

const fn sound(name: &'static str, arguments: &'static [&'static str], verdict: Verdict) -> Case {
    Case { name, arguments, spoil: None, verdict }
}

const CHAIN: &[&str] = &["full", "inc1", "inc2", "-N", "-o", "out", "-T", "{}/ts={}/new"];
/// The manifests would tell of many changes first.
const UNLISTED: &[&str] = &["full", "inc1", "inc2", "-N", "-o", "out", "-T", "{}/ts={}/new", "--no-manifest"];

/// A relation with blocks in every backup of the chain: `pg_class`.
const FULL: &str = "full/base/5/1259";
const FIRST: &str = "inc1/base/5/INCREMENTAL.1259";
const SECOND: &str = "inc2/base/5/INCREMENTAL.1259";

fn put(content: &mut [u8], at: usize, value: u32) {
    content[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// What comes out.
const WHOLE: &[Case] = &[
    sound("a chain of three", CHAIN, Same),
    sound("a chain of two", &["full", "inc1", "-o", "out", "-N", "-T{}/ts_inc1={}/new"], Same),
    sound(
        "a full backup alone",
        &["full", "--output=out", "--no-sync", "--tablespace-mapping={}/ts_full={}/new"],
        Same,
    ),
    sound("durably", &["full", "inc1", "inc2", "--output", "out", "-T", "{}/ts={}/new"], Same),
    sound(
        "durably, whole file systems",
        &["full", "inc1", "inc2", "-o", "out", "--sync-method=syncfs", "-T", "{}/ts={}/new"],
        Same,
    ),
    sound(
        "with copy_file_range",
        &["full", "inc1", "inc2", "-N", "-o", "out", "-T", "{}/ts={}/new", "--copy-file-range"],
        Same,
    ),
    sound(
        "inc-hardlink-mode-destroys-input: with links",
        &["full", "inc1", "inc2", "-N", "-o", "out", "-T", "{}/ts={}/new", "-k"],
        Same,
    ),
    sound(
        "with links, then not",
        &["full", "inc1", "inc2", "-N", "-o", "out", "-T", "{}/ts={}/new", "--link", "--copy"],
        Same,
    ),
    sound("with clones", &["full", "inc1", "inc2", "-N", "-o", "out", "-T", "{}/ts={}/new", "--clone"], SameStatus("")),
    sound("without a manifest", UNLISTED, Same),
    sound(
        "with other checksums",
        &["full", "inc1", "inc2", "-N", "-o", "out", "-T", "{}/ts={}/new", "--manifest-checksums=SHA224"],
        Same,
    ),
    sound(
        "without checksums",
        &["full", "inc1", "inc2", "-N", "-o", "out", "-T", "{}/ts={}/new", "--manifest-checksums", "none"],
        Same,
    ),
    case("into a directory that is there", CHAIN, |p| fs::create_dir(p.path("out")).unwrap(), Same),
    case(
        "for the group",
        CHAIN,
        |p| {
            fs::set_permissions(p.path("inc2"), fs::Permissions::from_mode(0o750)).unwrap();
        },
        Same,
    ),
    sound("in a dry run", &["full", "inc1", "inc2", "-n", "-o", "out", "-T", "{}/ts={}/new"], Same),
    sound(
        "with every step told, in a dry run",
        &["-d", "full", "inc1", "inc2", "-n", "-o", "out", "-T", "{}/ts={}/new"],
        Same,
    ),
    sound("with every step told", &["-d", "full", "inc1", "inc2", "-o", "out", "-T", "{}/ts={}/new"], Same),
    case(
        "inc-full-file-resent: a file of a name like INCREMENTAL",
        CHAIN,
        |p| {
            fs::write(p.path("inc2/INCREMENTAL.config"), "x").unwrap();
        },
        Same,
    ),
    case("a file that no manifest lists", CHAIN, |p| fs::write(p.path("inc2/base/extra"), "x").unwrap(), Same),
    case(
        "settings that were changed with the backup",
        CHAIN,
        |p| {
            p.change("inc2/postgresql.auto.conf", |c| c.push(b'\n'));
            fs::write(p.path("inc2/standby.signal"), "").unwrap();
        },
        Fresh("out/backup_manifest"),
    ),
    case(
        "links and sockets",
        CHAIN,
        |p| {
            symlink("nowhere", p.path("inc2/base/link")).unwrap();
            drop(std::os::unix::net::UnixListener::bind(p.path("inc2/socket")).unwrap());
        },
        Same,
    ),
    case(
        "WAL in a directory of its own",
        CHAIN,
        |p| {
            fs::rename(p.path("inc2/pg_wal"), p.path("wal")).unwrap();
            symlink(p.path("wal"), p.path("inc2/pg_wal")).unwrap();
        },
        More("pg_wal/archive_status"),
    ),
    case(
        "inc-parent-not-valid: a parent without a manifest",
        CHAIN,
        |p| fs::remove_file(p.path("inc1/backup_manifest")).unwrap(),
        Same,
    ),
    case("the last without a manifest", CHAIN, |p| fs::remove_file(p.path("inc2/backup_manifest")).unwrap(), Same),
    case(
        "the last without a manifest, and none is wanted",
        UNLISTED,
        |p| fs::remove_file(p.path("inc2/backup_manifest")).unwrap(),
        Same,
    ),
    case(
        "only some backups have checksums",
        CHAIN,
        |p| p.control("full", |c| put(c, 252, 0)),
        SameStatus("only some backups have checksums enabled"),
    ),
    sound(
        "an output directory in an input",
        &["full", "inc1", "inc2", "-N", "-o", "full/out", "-T", "{}/ts={}/new"],
        Stricter("output directory \"full/out\" is inside input directory \"full\""),
    ),
    case(
        "inc-tablespace-mapping-combine: names that are no OIDs",
        CHAIN,
        |p| {
            symlink("nowhere", p.path("inc2/pg_tblspc/x")).unwrap();
        },
        Same,
    ),
    case("a file that was written again", CHAIN, |p| p.change("inc2/PG_VERSION", |_| {}), Same),
    case(
        "inc-pgcombine-does-not-verify: a file gone that the manifest lists",
        CHAIN,
        |p| fs::remove_file(p.path(SECOND)).unwrap(),
        Stricter("\"base/5/INCREMENTAL.1259\" is present in the manifest but not in \"inc2\""),
    ),
    case(
        "full file longer, and no manifest says so",
        UNLISTED,
        |p| {
            p.change(FULL, |c| c.push(0));
            p.without_manifests();
        },
        Same,
    ),
];

/// What is refused. These get only some of the files.
const REFUSED: &[Case] = &[
    // What is asked for
    sound("no inputs", &["-o", "out"], Same),
    sound("no output", &["full"], Same),
    sound("unknown checksums", &["full", "-o", "out", "--manifest-checksums=md5"], Same),
    sound("unknown sync method", &["full", "-o", "out", "--sync-method=never"], Same),
    sound("a mapping without a target", &["full", "-o", "out", "-T", "/a"], Same),
    sound("a mapping with two targets", &["full", "-o", "out", "-T", "/a=/b=/c"], Same),
    sound("a mapping of a relative path", &["full", "-o", "out", "-T", "a=/b"], Same),
    sound("a mapping to a relative path", &["full", "-o", "out", "-T", "/a=b"], Same),
    case(
        "a full output directory",
        CHAIN,
        |p| {
            fs::create_dir(p.path("out")).unwrap();
            fs::write(p.path("out/mine"), "x").unwrap();
        },
        Same,
    ),
    case(
        "a full directory of a tablespace",
        CHAIN,
        |p| {
            fs::create_dir(p.path("new")).unwrap();
            fs::write(p.path("new/mine"), "x").unwrap();
        },
        Same,
    ),
    case("an output directory that is a file", CHAIN, |p| fs::write(p.path("out"), "x").unwrap(), Same),
    sound("inc-tablespace-mapping-combine: no mapping", &["full", "inc1", "inc2", "-o", "out"], Same),
    case(
        "inc-tablespace-mapping-combine: a link that is relative",
        CHAIN,
        |p| {
            let link = p.tablespace("inc2");
            fs::remove_file(&link).unwrap();
            symlink("../../ts", &link).unwrap();
        },
        Same,
    ),
    case(
        "inc-tablespace-mapping-combine: two in one directory",
        CHAIN,
        |p| {
            symlink(p.path("ts"), p.path("inc2/pg_tblspc/99999")).unwrap();
        },
        SameStatus("both point at directory"),
    ),
    // The chain
    sound("inc-chain-order: an input that is not there", &["full", "nowhere", "-o", "out"], Same),
    sound("inc-chain-order: the full backup twice", &["full", "full", "-o", "out"], Same),
    sound("inc-chain-order: no full backup", &["inc1", "inc2", "-o", "out"], Same),
    sound("inc-chain-order: an incremental backup twice", &["full", "inc1", "inc1", "-o", "out"], Same),
    sound("inc-chain-order: the wrong order", &["full", "inc2", "inc1", "-o", "out"], Same),
    sound("inc-chain-gap: the middle one missing", &["full", "inc2", "-o", "out"], Same),
    case(
        "inc-wrong-timeline: another timeline",
        CHAIN,
        |p| p.label("inc1", "START TIMELINE: 1", "START TIMELINE: 2"),
        Same,
    ),
    case("inc-wrong-system-id: control file", CHAIN, |p| p.control("inc1", |c| c[0] ^= 1), Same),
    case(
        "inc-wrong-system-id: manifest",
        CHAIN,
        |p| {
            p.manifest("full", |t| t.replace("\"System-Identifier\": ", "\"System-Identifier\": 1"));
        },
        Same,
    ),
    case("control file changed", CHAIN, |p| p.change("inc2/global/pg_control", |c| c[100] ^= 1), Same),
    case("control file missing", CHAIN, |p| fs::remove_file(p.path("full/global/pg_control")).unwrap(), Same),
    case("control file cut", CHAIN, |p| p.change("inc2/global/pg_control", |c| c.truncate(100)), Same),
    case("control file of another release", CHAIN, |p| p.control("inc1", |c| c[8] ^= 1), Same),
    case("PG_VERSION missing", CHAIN, |p| fs::remove_file(p.path("inc2/PG_VERSION")).unwrap(), Same),
    case("PG_VERSION that is no number", CHAIN, |p| replace(&p.path("inc2/PG_VERSION"), "x\n"), Same),
    case("PG_VERSION of 9.6", CHAIN, |p| replace(&p.path("inc2/PG_VERSION"), "9.6\n"), Same),
    case("PG_VERSION that is too long", CHAIN, |p| replace(&p.path("inc2/PG_VERSION"), [b'1'; 200]), Same),
    case("backup_label missing", CHAIN, |p| fs::remove_file(p.path("inc1/backup_label")).unwrap(), Same),
    case("backup_label too large", CHAIN, |p| replace(&p.path("inc1/backup_label"), vec![b'x'; 12_000]), Same),
    case("backup_label empty", CHAIN, |p| replace(&p.path("inc1/backup_label"), ""), Same),
    case(
        "backup_label without a start",
        CHAIN,
        |p| p.label("inc1", "START WAL LOCATION: 0/", "START WAL LOCATION: x"),
        Same,
    ),
    case("backup_label with something behind its start", CHAIN, |p| p.label("inc1", " (file", "(file"), Same),
    case("backup_label without a timeline", CHAIN, |p| p.label("inc1", "START TIMELINE: 1\n", ""), Same),
    case("backup_label of timeline 0", CHAIN, |p| p.label("inc1", "START TIMELINE: 1", "START TIMELINE: 0"), Same),
    case(
        "backup_label with half of what it builds on",
        CHAIN,
        |p| p.label("inc1", "INCREMENTAL FROM TLI: 1\n", ""),
        Same,
    ),
    case("backup_label with the other half", CHAIN, |p| p.label("inc1", "INCREMENTAL FROM LSN: ", "X: "), Same),
    case("manifest broken", CHAIN, |p| p.change("full/backup_manifest", |c| c[5] = b'x'), Same),
    case(
        "manifest with another checksum",
        CHAIN,
        |p| {
            p.change("inc1/backup_manifest", |c| {
                let at = c.len() / 2 + c[c.len() / 2..].iter().position(|b| *b == b'2').unwrap();
                c[at] = b'3';
            });
        },
        Same,
    ),
    case(
        "manifest of version 1",
        CHAIN,
        |p| p.manifest("full", |t| t.replace("Manifest-Version\": 2", "Manifest-Version\": 1")),
        Same,
    ),
    // The files
    case(
        "inc-file-in-full: an incremental file in the full backup",
        UNLISTED,
        |p| {
            fs::remove_file(p.path(FULL)).unwrap();
            fs::copy(p.path(FIRST), p.path("full/base/5/INCREMENTAL.1259")).unwrap();
        },
        Same,
    ),
    case(
        "inc-file-in-full: alone",
        &["full", "-o", "out", "-N", "-T{}/ts_full={}/new"],
        |p| {
            fs::remove_file(p.path(FULL)).unwrap();
            fs::copy(p.path(FIRST), p.path("full/base/5/INCREMENTAL.1259")).unwrap();
        },
        Same,
    ),
    case("full file missing", UNLISTED, |p| fs::remove_file(p.path(FULL)).unwrap(), Same),
    case("file in the middle missing", UNLISTED, |p| fs::remove_file(p.path(FIRST)).unwrap(), SameStatus("")),
    case("inc-header-magic-counts: magic", UNLISTED, |p| p.change(SECOND, |c| c[0] ^= 1), Same),
    case("inc-header-magic-counts: magic in the middle", UNLISTED, |p| p.change(FIRST, |c| c[3] ^= 1), Same),
    case("inc-header-magic-counts: block count", UNLISTED, |p| p.change(SECOND, |c| put(c, 4, 131_073)), Same),
    case(
        "inc-header-magic-counts: truncation block length",
        UNLISTED,
        |p| p.change(SECOND, |c| put(c, 8, 131_073)),
        Same,
    ),
    case(
        "inc-header-magic-counts: block count beyond the file",
        UNLISTED,
        |p| p.change(SECOND, |c| put(c, 4, 100_000)),
        SameStatus("could not read file \"inc2/base/5/INCREMENTAL.1259\": read "),
    ),
    case(
        "inc-header-magic-counts: block number",
        UNLISTED,
        |p| p.change(SECOND, |c| put(c, 12, 131_072)),
        Alone("has block number 131072 in excess of segment size 131072"),
    ),
    case(
        "inc-header-magic-counts: block numbers that descend",
        UNLISTED,
        |p| {
            p.change(FIRST, |c| {
                put(c, 4, 2);
                put(c, 12, 5);
                put(c, 16, 0);
                c.resize(3 * 8192, 0);
            });
        },
        Stricter("has block number 0 out of order"),
    ),
    case("inc-header-magic-counts: empty", UNLISTED, |p| replace(&p.path(SECOND), ""), Same),
    case("inc-header-magic-counts: cut in the magic", UNLISTED, |p| p.change(SECOND, |c| c.truncate(3)), Same),
    case("inc-header-magic-counts: cut in the counts", UNLISTED, |p| p.change(SECOND, |c| c.truncate(10)), Same),
    case(
        "inc-source-file-short-endless-loop: incremental file cut",
        UNLISTED,
        |p| {
            p.change(SECOND, |c| {
                c.truncate(c.len() - 100);
            });
        },
        SameStatus("could not read from file \"inc2/base/5/INCREMENTAL.1259\", offset 8192: read 8092 of 8192"),
    ),
    case(
        "inc-source-file-short-endless-loop: full file cut",
        UNLISTED,
        |p| p.change(FULL, |c| c.truncate(c.len() - 8192)),
        Stricter("has size "),
    ),
    case(
        "inc-source-file-short-endless-loop: found in a dry run",
        &["full", "inc1", "inc2", "-n", "-o", "out", "-T", "{}/ts={}/new"],
        |p| p.change(SECOND, |c| c.truncate(c.len() - 100)),
        Same,
    ),
    case(
        "incremental file longer than it says",
        UNLISTED,
        |p| p.change(SECOND, |c| c.push(0)),
        Stricter("bytes, expected"),
    ),
    case("full file longer than the manifest says", UNLISTED, |p| p.change(FULL, |c| c.push(0)), Stricter("has size ")),
    case(
        "inc-pgcombine-does-not-verify: a whole file with another content",
        CHAIN,
        |p| p.change("inc2/base/5/PG_VERSION", |c| c[0] ^= 1),
        Stricter("checksum mismatch for file \"inc2/base/5/PG_VERSION\""),
    ),
    case(
        "inc-pgcombine-does-not-verify: a whole file of another size",
        CHAIN,
        |p| p.change("inc2/base/5/PG_VERSION", |c| c.push(b'x')),
        Stricter("\"inc2/base/5/PG_VERSION\" has size 4 on disk but size 3 in the manifest"),
    ),
    case(
        "file unreadable",
        CHAIN,
        |p| {
            p.change("inc2/PG_VERSION", |_| {});
            p.change("inc2/base/5/PG_VERSION", |_| {});
            fs::set_permissions(p.path("inc2/base/5/PG_VERSION"), fs::Permissions::from_mode(0o0)).unwrap();
        },
        SameStatus("could not open file \"inc2/base/5/PG_VERSION\": Permission denied"),
    ),
    case(
        "directory unreadable",
        CHAIN,
        |p| {
            fs::set_permissions(p.path("inc2/pg_subtrans"), fs::Permissions::from_mode(0o0)).unwrap();
        },
        Same,
    ),
];

/// A chain of backups of a real server, and both tools.
struct Setup {
    installation: Installation,
    ours: PathBuf,
    server: Postgres,
    /// Inputs that stay as they are.
    sound: Place,
    scratch: TempDir,
}

/// What is in every table.
const CONTENT: &str = "select (select md5(string_agg(t::text, '|' order by i)) from t), (select sum(i) from u), \
     (select count(*) from shrink), (select count(*) from inplace), to_regclass('gone') is null, \
     (select count(*) from fresh), (select count(*) from fresh2)";

impl Setup {
    fn new() -> Option<Self> {
        let installation = Installation::find_release(18, "combination of backups")?;
        let scratch = installation.scratch();
        let path = |name: &str| scratch.path().join(name);
        let settings = ["summarize_wal = on", "allow_in_place_tablespaces = on", "autovacuum = off"];
        let server = Postgres::new(&installation, scratch.path(), &settings);
        fs::create_dir(path("origin")).unwrap();
        installation.give(&path("origin"));
        server.sql(&format!("create tablespace ts location '{}'", path("origin").display()));
        server.sql("create tablespace inside location ''");
        server.sql(
            "create table t as select i, repeat('x', 100) p from generate_series(1, 5000) i; \
             create table u tablespace ts as select generate_series(1, 20000) i; \
             create table inplace tablespace inside as select generate_series(1, 5000) i; \
             create table gone as select 1 a; create table shrink as select generate_series(1, 50000) i",
        );
        server.sql("vacuum");
        // Fewer files, less to do.
        server.sql("update pg_database set datistemplate = false");
        server.sql("drop database template1");
        server.sql("drop database template0");
        let back_up = |name: &str, from: Option<&str>| {
            let mut command = installation.tool("pg_basebackup");
            command.args(["-c", "fast", "-N", "-U", "postgres", "-p", &PORT.to_string(), "-h"]).arg(server.socket());
            command.arg("-D").arg(path(name)).arg("-T");
            command.arg(format!("{}={}", path("origin").display(), path(&format!("ts_{name}")).display()));
            if let Some(from) = from {
                command.arg("-i").arg(path(from).join("backup_manifest"));
            }
            succeed(&mut command);
        };
        back_up("full", None);
        server.sql(
            "update t set p = 'y' where i % 500 = 0; update u set i = i where i % 5000 = 0; drop table gone; \
             update inplace set i = i where i = 7; \
             create table fresh as select generate_series(1, 1000) i; delete from shrink where i > 1000",
        );
        server.sql("vacuum shrink");
        server.sql("create database passing template postgres");
        back_up("inc1", Some("full"));
        server.sql(
            "update t set p = 'z' where i % 777 = 0; insert into u select generate_series(1, 1000); \
             create table fresh2 as select 1",
        );
        server.sql("drop database passing");
        back_up("inc2", Some("inc1"));
        let ours = named("pg_combinebackup", scratch.path());
        let sound = place(scratch.path(), "sound", true);
        installation.give(&sound.0);
        Some(Self { installation, ours, server, sound, scratch })
    }

    fn place(&self, name: &str, whole: bool) -> Place {
        place(self.scratch.path(), name, whole)
    }
    fn run(&self, program: &Path, place: &Place, arguments: &[&str]) -> (Said, Tree) {
        let at = place.0.display().to_string();
        let arguments: Vec<String> = arguments.iter().map(|argument| argument.replace("{}", &at)).collect();
        let said = run(&self.installation, program, &place.0, &arguments);
        let mut tree = Tree::new();
        for name in ["out", "new", "full/out"] {
            list(&place.path(name), name, &mut tree);
        }
        (said, tree)
    }

    /// Both tools, one after the other: theirs, ours.
    fn judge(&self, case: &Case, whole: bool) -> ((Said, Tree), (Said, Tree)) {
        let tool = self.installation.path("pg_combinebackup");
        let once = |program: &Path| {
            let Some(spoil) = case.spoil else {
                let result = self.run(program, &self.sound, case.arguments);
                for name in ["out", "new", "full/out"] {
                    let path = self.sound.path(name);
                    let _ = fs::remove_dir_all(path);
                }
                return result;
            };
            let place = self.place("case", whole);
            spoil(&place);
            self.installation.give(&place.0);
            let result = self.run(program, &place, case.arguments);
            succeed(Command::new("chmod").arg("-R").arg("u+rwx").arg(&place.0));
            fs::remove_dir_all(&place.0).unwrap();
            result
        };
        let ours = once(&self.ours);
        let theirs = if matches!(case.verdict, Alone(_)) { ours.clone() } else { once(&tool) };
        (theirs, ours)
    }

    fn objection(&self, case: &Case, whole: bool) -> Option<String> {
        let ((theirs, their_tree), (ours, our_tree)) = self.judge(case, whole);
        let statuses = (theirs.status, ours.status);
        let refused = |text: &str| ours.status == Some(1) && ours.stderr.contains(text);
        let same = differences(&their_tree, &our_tree);
        let holds = match case.verdict {
            Same => statuses.0 == statuses.1 && messages(&theirs) == messages(&ours) && same.is_empty(),
            SameStatus(text) => {
                statuses.0 == statuses.1
                    && theirs.stderr.contains(text)
                    && ours.stderr.contains(text)
                    && same.is_empty()
            }
            Stricter(text) => theirs.status == Some(0) && refused(text) && !our_tree.contains_key("out/PG_VERSION"),
            Alone(text) => refused(text) && our_tree.is_empty(),
            Fresh(name) => statuses == (Some(0), Some(0)) && same.iter().all(|differing| differing == name),
            More(name) => {
                let name = format!("out/{name}");
                statuses == (Some(0), Some(0)) && our_tree.contains_key(&name) && !their_tree.contains_key(&name)
            }
        };
        let lines = |said: &Said| {
            said.stderr.lines().filter(|line| !line.contains(" blocks")).take(8).collect::<Vec<_>>().join(" ~ ")
        };
        (!holds).then(|| {
            let (theirs, ours) = ((theirs.status, lines(&theirs)), (ours.status, lines(&ours)));
            format!("{}\n  theirs {theirs:?}\n  ours   {ours:?}\n  {same:?}", case.name)
        })
    }
}

/// Copies of the inputs and of their tablespaces.
fn place(scratch: &Path, name: &str, whole: bool) -> Place {
    let place = Place(scratch.join(name));
    fs::create_dir(&place.0).unwrap();
    for backup in ["full", "inc1", "inc2"] {
        let (from, to) = (scratch.join(backup), place.path(backup));
        if whole {
            copy(&from, &to);
        } else {
            copy_some(&from, &to);
        }
        let tablespace = if backup == "inc2" { "ts".to_owned() } else { format!("ts_{backup}") };
        copy(&scratch.join(format!("ts_{backup}")), &place.path(&tablespace));
        let link = place.tablespace(backup);
        fs::remove_file(&link).unwrap();
        symlink(place.path(&tablespace), &link).unwrap();
    }
    place
}

/// Copies the files that say what a backup is, and a few others: to be refused, no more is needed.
fn copy_some(from: &Path, to: &Path) {
    for directory in ["", "global", "base", "base/5", "pg_subtrans"] {
        fs::create_dir(to.join(directory)).unwrap();
    }
    copy(&from.join("pg_tblspc"), &to.join("pg_tblspc"));
    let some = [
        "PG_VERSION",
        "backup_label",
        "backup_manifest",
        "global/pg_control",
        "base/5/PG_VERSION",
        "base/5/1259",
        "base/5/INCREMENTAL.1259",
    ];
    for name in some.into_iter().filter(|name| from.join(name).exists()) {
        fs::hard_link(from.join(name), to.join(name)).unwrap();
    }
}

/// What lies there: mode, number of links and content, or what a link leads to.
type Tree = BTreeMap<String, (u32, u64, Vec<u8>)>;

fn list(path: &Path, name: &str, tree: &mut Tree) {
    let Ok(metadata) = path.symlink_metadata() else { return };
    let (mode, links) = (metadata.mode(), metadata.nlink());
    if metadata.is_dir() {
        tree.insert(name.to_owned(), (mode, 0, Vec::new()));
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap().file_name().into_string().unwrap();
            list(&path.join(&entry), &format!("{name}/{entry}"), tree);
        }
    } else if metadata.is_symlink() {
        tree.insert(name.to_owned(), (mode, 0, fs::read_link(path).unwrap().into_os_string().into_encoded_bytes()));
    } else {
        let mut content = fs::read(path).unwrap();
        if name.ends_with("/backup_manifest") {
            content = comparable(&content);
        }
        tree.insert(name.to_owned(), (mode, links, content));
    }
}

/// A manifest without times, in the order of names.
fn comparable(content: &[u8]) -> Vec<u8> {
    let mut manifest = Manifest::parse(content).unwrap();
    manifest.files.sort_by(|a, b| a.path.cmp(&b.path));
    for file in &mut manifest.files {
        file.last_modified.clear();
    }
    manifest.to_bytes(false)
}

fn differences(theirs: &Tree, ours: &Tree) -> Vec<String> {
    let names = theirs.keys().chain(ours.keys()).filter(|name| theirs.get(*name) != ours.get(*name));
    names.map(String::clone).take(5).collect()
}

/// The messages in the order of their text: directories are read in another order. Ours checksums settings anew.
fn messages(said: &Said) -> Vec<String> {
    let settings = |line: &&str| line.contains("/postgresql.auto.conf\" to ");
    let mut lines: Vec<String> = said.stderr.lines().filter(|line| !settings(line)).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn the_same_comes_out() {
    let Some(setup) = Setup::new() else { return };
    let whole = WHOLE.iter().filter_map(|case| setup.objection(case, true));
    let refused = REFUSED.iter().filter_map(|case| setup.objection(case, false));
    let objections: Vec<String> = whole.chain(refused).collect();
    let count = WHOLE.len() + REFUSED.len();
    assert!(objections.is_empty(), "{} of {count}:\n{}", objections.len(), objections.join("\n"));

    // And PostgreSQL starts on it.
    let expected = setup.server.sql(CONTENT);
    let place = &setup.sound;
    let (said, _) = setup.run(&setup.ours, place, CHAIN);
    assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""));
    succeed(setup.installation.tool("pg_verifybackup").arg(place.path("out")));
    setup.server.stop();
    let restored = Postgres::start(&setup.installation, &place.path("out"), &setup.scratch.path().join("r"));
    assert_eq!(restored.sql(CONTENT), expected);
    drop(restored);
    fs::remove_dir_all(place.path("out")).unwrap();
    fs::remove_dir_all(place.path("new")).unwrap();
    over_two_timelines(&setup);
}

/// The server is promoted, and the next backup builds on one of the timeline before.
fn over_two_timelines(setup: &Setup) {
    let path = |name: &str| setup.scratch.path().join(name);
    fs::write(path("data/standby.signal"), "").unwrap();
    setup.installation.give(&path("data/standby.signal"));
    let server = Postgres::start(&setup.installation, &path("data"), &path("s"));
    server.sql("select pg_promote()");
    server.sql("update t set p = 'promoted' where i % 900 = 0");
    let mut command = setup.installation.tool("pg_basebackup");
    command.args(["-c", "fast", "-N", "-U", "postgres", "-p", &PORT.to_string(), "-h"]).arg(server.socket());
    command.arg("-D").arg(path("inc3")).arg("-i").arg(path("inc2/backup_manifest")).arg("-T");
    succeed(command.arg(format!("{}={}", path("origin").display(), path("ts_inc3").display())));
    let expected = server.sql(CONTENT);
    server.stop();
    let last = path("inc3").display().to_string();
    let mapping = format!("{}={{}}/new", path("ts_inc3").display());
    let arguments = ["full", "inc1", "inc2", &last, "-N", "-o", "out", "-T", &mapping];
    let (theirs, their_tree) = setup.run(&setup.installation.path("pg_combinebackup"), &setup.sound, &arguments);
    for name in ["out", "new"] {
        fs::remove_dir_all(setup.sound.path(name)).unwrap();
    }
    let (ours, our_tree) = setup.run(&setup.ours, &setup.sound, &arguments);
    assert_eq!((theirs.status, messages(&theirs)), (ours.status, messages(&ours)));
    assert_eq!((ours.status, differences(&their_tree, &our_tree)), (Some(0), vec![]));
    let restored = Postgres::start(&setup.installation, &setup.sound.path("out"), &path("r2"));
    assert_eq!(restored.sql(CONTENT), expected);
}
