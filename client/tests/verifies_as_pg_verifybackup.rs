//! Ours and PostgreSQL's `pg_verifybackup` on the same spoilt backups: both say the same, or the difference is named here.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use backstop_scenarios::postgres::{Installation, PORT, Postgres, succeed};
use tempfile::TempDir;

#[path = "support/backups.rs"]
mod backups;
#[path = "support/manifests.rs"]
mod manifests;
#[path = "support/tars.rs"]
mod tars;

use backups::{Said, change, copy, crc32c, named, replace, run, sealed};

/// How the two tools compare.
#[derive(Clone, Copy)]
enum Verdict {
    /// The same exit status, and the same errors but for their order and for what ours adds.
    Same,
    /// Theirs accepts what ours refuses, with this.
    Stricter(&'static str),
    /// Both refuse; ours says this instead.
    OtherWords(&'static str),
    /// Theirs refuses, with this, what ours can read.
    Able(&'static str),
}

/// A backup to be spoilt, and everything around it.
struct Place<'a> {
    /// The copy, called `b` in the working directory.
    backup: PathBuf,
    /// OID of the tablespace.
    oid: &'a str,
}

impl Place<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.backup.join(name)
    }

    fn manifest(&self) -> String {
        fs::read_to_string(self.path("backup_manifest")).unwrap()
    }

    /// Edits the manifest and gives it the right checksum.
    fn reseal(&self, edit: impl FnOnce(String) -> String) {
        let text = edit(self.manifest());
        replace(&self.path("backup_manifest"), sealed(&text));
    }

    /// Edits one file's entry.
    fn entry(&self, path: &str, edit: impl FnOnce(&str) -> String) {
        self.reseal(|text| {
            let line = text.lines().find(|line| line.contains(&format!("\"{path}\""))).unwrap().to_owned();
            text.replace(&line, &edit(&line))
        });
    }

    /// The first WAL segment that is needed.
    fn segment(&self) -> PathBuf {
        let mut names: Vec<PathBuf> = fs::read_dir(self.path("pg_wal")).unwrap().map(|e| e.unwrap().path()).collect();
        names.retain(|path| path.file_name().unwrap().len() == 24);
        names.sort();
        names.swap_remove(0)
    }

    /// A file in the tablespace.
    fn tablespace_file(&self) -> String {
        let text = self.manifest();
        let from = text.find(&format!("\"pg_tblspc/{}/", self.oid)).unwrap() + 1;
        text[from..].split('"').next().unwrap().to_owned()
    }

    fn control(&self, edit: impl FnOnce(&mut Vec<u8>)) {
        change(&self.path("global/pg_control"), edit);
        let content = fs::read(self.path("global/pg_control")).unwrap();
        self.entry("global/pg_control", |line| {
            let at = line.find("\"Checksum\": \"").unwrap() + 13;
            let line = format!("{}{}{}", &line[..at], crc32c(&content), &line[at + 8..]);
            line.replace("\"Size\": 8192", &format!("\"Size\": {}", content.len()))
        });
    }
}

struct Case {
    name: &'static str,
    arguments: &'static [&'static str],
    spoil: fn(&Place<'_>),
    verdict: Verdict,
}

use Verdict::{Able, OtherWords, Same, Stricter};

const fn case(name: &'static str, arguments: &'static [&'static str], spoil: fn(&Place<'_>), verdict: Verdict) -> Case {
    Case { name, arguments, spoil, verdict }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Of plain backups.
const PLAIN: &[Case] = &[
    case("sound", &["b"], |_| {}, Same),
    case("sound, quietly", &["-q", "b"], |_| {}, Same),
    case("sound, with long options", &["--exit-on-error", "--skip-checksums", "--no-parse-wal", "b/"], |_| {}, Same),
    case("file missing", &["b"], |p| fs::remove_file(p.path("base/1/1255")).unwrap(), Same),
    case("PG_VERSION of a database missing", &["b"], |p| fs::remove_file(p.path("base/1/PG_VERSION")).unwrap(), Same),
    case("backup_label missing", &["b"], |p| fs::remove_file(p.path("backup_label")).unwrap(), Same),
    case(
        "pg_control missing",
        &["b"],
        |p| fs::remove_file(p.path("global/pg_control")).unwrap(),
        OtherWords("\"global/pg_control\" is present in the manifest but not on disk"),
    ),
    case("database missing", &["b"], |p| fs::remove_dir_all(p.path("base/1")).unwrap(), Same),
    case("file extra", &["b"], |p| fs::write(p.path("extra"), "x").unwrap(), Same),
    case("file extra in a database", &["b"], |p| fs::write(p.path("base/1/extra"), "x").unwrap(), Same),
    case("file extra that is ignored", &["-i", "extra", "b"], |p| fs::write(p.path("extra"), "x").unwrap(), Same),
    case(
        "file extra whose name begins with an ignored one",
        &["-i", "ext", "b"],
        |p| {
            fs::write(p.path("extra"), "x").unwrap();
        },
        Same,
    ),
    case("directory extra", &["b"], |p| fs::create_dir(p.path("extra")).unwrap(), Same),
    case(
        "directory extra with a file",
        &["b"],
        |p| {
            fs::create_dir(p.path("extra")).unwrap();
            fs::write(p.path("extra/file"), "x").unwrap();
        },
        Same,
    ),
    case(
        "name that is not UTF-8",
        &["b"],
        |p| {
            fs::write(p.backup.join(std::ffi::OsStr::from_bytes(b"extra\xe4")), "x").unwrap();
        },
        Same,
    ),
    case("file in the tablespace missing", &["b"], |p| fs::remove_file(p.path(&p.tablespace_file())).unwrap(), Same),
    case(
        "file in the tablespace extra",
        &["b"],
        |p| {
            fs::write(p.path(&format!("{}.extra", p.tablespace_file())), "x").unwrap();
        },
        Same,
    ),
    case("tablespace missing", &["b"], |p| fs::remove_file(p.path(&format!("pg_tblspc/{}", p.oid))).unwrap(), Same),
    case(
        "tablespace's link leads nowhere",
        &["b"],
        |p| {
            let link = p.path(&format!("pg_tblspc/{}", p.oid));
            fs::remove_file(&link).unwrap();
            symlink("/nowhere", &link).unwrap();
        },
        Same,
    ),
    case("file shorter", &["b"], |p| change(&p.path("base/1/1255"), |c| c.truncate(100)), Same),
    case("file longer", &["b"], |p| change(&p.path("base/1/1255"), |c| c.push(1)), Same),
    case("file empty", &["b"], |p| replace(&p.path("base/1/1255"), ""), Same),
    case("content changed", &["b"], |p| change(&p.path("base/1/1255"), |c| c[1000] ^= 1), Same),
    case(
        "content changed, checksums skipped",
        &["-s", "b"],
        |p| change(&p.path("base/1/1255"), |c| c[1000] ^= 1),
        Same,
    ),
    case("content changed, quietly", &["--quiet", "b"], |p| change(&p.path("base/1/1255"), |c| c[1000] ^= 1), Same),
    case(
        "content changed of an ignored directory",
        &["--ignore=./base//1/", "b"],
        |p| {
            change(&p.path("base/1/1255"), |c| c[1000] ^= 1);
        },
        Same,
    ),
    case("backup_label changed", &["b"], |p| change(&p.path("backup_label"), |c| c[0] = b's'), Same),
    case(
        "several problems",
        &["b"],
        |p| {
            change(&p.path("base/1/1255"), |c| c[1000] ^= 1);
            fs::remove_file(p.path("base/1/1259")).unwrap();
            fs::write(p.path("extra"), "x").unwrap();
            replace(&p.path("base/1/1249"), "");
        },
        Same,
    ),
    case(
        "missing and changed, the first alone",
        &["-e", "b"],
        |p| {
            change(&p.path("base/1/1255"), |c| c[1000] ^= 1);
            fs::remove_file(p.path("base/1/1259")).unwrap();
        },
        Same,
    ),
    case(
        "file unreadable",
        &["b"],
        |p| {
            change(&p.path("base/1/1255"), |_| {});
            mode(&p.path("base/1/1255"), 0o0);
        },
        Same,
    ),
    case("directory unreadable", &["b"], |p| mode(&p.path("pg_subtrans"), 0o0), Same),
    case("database unreadable", &["b"], |p| mode(&p.path("base/1"), 0o0), Same),
    case("directory unsearchable", &["b"], |p| mode(&p.path("base"), 0o600), Same),
    case(
        "file that is a link to its like",
        &["b"],
        |p| {
            fs::rename(p.path("base/1/1255"), p.backup.with_file_name("aside")).unwrap();
            symlink(p.backup.with_file_name("aside"), p.path("base/1/1255")).unwrap();
        },
        Same,
    ),
    case(
        "file that is a link to nothing",
        &["b"],
        |p| {
            fs::remove_file(p.path("base/1/1255")).unwrap();
            symlink("nothing", p.path("base/1/1255")).unwrap();
        },
        Same,
    ),
    case(
        "file that is a link to itself",
        &["b"],
        |p| {
            fs::remove_file(p.path("base/1/1255")).unwrap();
            symlink("1255", p.path("base/1/1255")).unwrap();
        },
        Same,
    ),
    case(
        "link that leads back up",
        &["b"],
        |p| symlink("..", p.path("base/up")).unwrap(),
        OtherWords("not restorable: \"base/up\" leads back to a directory that holds it"),
    ),
    case(
        "file that is a directory",
        &["b"],
        |p| {
            fs::remove_file(p.path("base/1/1255")).unwrap();
            fs::create_dir(p.path("base/1/1255")).unwrap();
        },
        Same,
    ),
    case(
        "file that is a socket",
        &["b"],
        |p| {
            fs::remove_file(p.path("base/1/1255")).unwrap();
            drop(std::os::unix::net::UnixListener::bind(p.path("base/1/1255")).unwrap());
        },
        Same,
    ),
    case(
        "settings and signal files changed",
        &["b"],
        |p| {
            change(&p.path("postgresql.auto.conf"), |c| c.push(b'\n'));
            fs::write(p.path("standby.signal"), "").unwrap();
            fs::write(p.path("recovery.signal"), "x").unwrap();
        },
        Same,
    ),
    case(
        "rst-missing-empty-dirs: empty directory missing",
        &["b"],
        |p| fs::remove_dir(p.path("pg_notify")).unwrap(),
        Stricter("not restorable: directory \"pg_notify\" is missing"),
    ),
    // WAL
    case("WAL directory missing", &["b"], |p| fs::remove_dir_all(p.path("pg_wal")).unwrap(), Same),
    case(
        "man-wal-elsewhere-false-negative: WAL directory missing, WAL not wanted",
        &["-n", "b"],
        |p| fs::remove_dir_all(p.path("pg_wal")).unwrap(),
        Same,
    ),
    case(
        "man-wal-elsewhere-false-negative: WAL elsewhere",
        &["-w", "wal", "b"],
        |p| fs::rename(p.path("pg_wal"), p.backup.with_file_name("wal")).unwrap(),
        Same,
    ),
    case("WAL not elsewhere", &["--wal-directory=nowhere", "b"], |_| {}, Same),
    case("segment missing", &["b"], |p| fs::remove_file(p.segment()).unwrap(), Same),
    case("rst-partial-wal-wrong-size: segment cut", &["b"], |p| change(&p.segment(), |c| c.truncate(100)), Same),
    case("segment of zeros", &["b"], |p| change(&p.segment(), |c| c.fill(0)), Same),
    case("segment of garbage", &["b"], |p| change(&p.segment(), |c| c.iter_mut().for_each(|b| *b = !*b)), Same),
    case("record changed", &["b"], |p| change(&p.segment(), |c| c[0x28 + 30] ^= 1), Same),
    case(
        "WAL of another cluster",
        &["b"],
        |p| change(&p.segment(), |c| c[24] ^= 1),
        Stricter("WAL parsing failed for timeline 1"),
    ),
    case("WAL changed behind its end", &["b"], |p| change(&p.segment(), |c| *c.last_mut().unwrap() ^= 1), Same),
    case(
        "segment too long",
        &["b"],
        |p| change(&p.segment(), |c| c.push(0)),
        Stricter("WAL parsing failed for timeline 1"),
    ),
    case(
        "segment unreadable",
        &["b"],
        |p| {
            change(&p.segment(), |_| {});
            mode(&p.segment(), 0o0);
        },
        Same,
    ),
    // Where things are
    case("manifest missing", &["b"], |p| fs::remove_file(p.path("backup_manifest")).unwrap(), Same),
    case(
        "manifest elsewhere",
        &["-m", "m", "b"],
        |p| {
            fs::rename(p.path("backup_manifest"), p.backup.with_file_name("m")).unwrap();
        },
        Same,
    ),
    case("manifest not elsewhere", &["--manifest-path", "./not//there", "b"], |_| {}, Same),
    case("manifest that is a directory", &["-m", ".", "b"], |_| {}, OtherWords("could not read file \".\"")),
    case("backup missing", &["-m", "b/backup_manifest", "c"], |_| {}, Same),
    case("backup that is a file", &["-m", "b/backup_manifest", "b/PG_VERSION"], |_| {}, Same),
    // The manifest, with the right checksum
    case(
        "man-checksum-of-manifest: manifest changed",
        &["b"],
        |p| {
            change(&p.path("backup_manifest"), |c| {
                let at = c.iter().position(|b| *b == b'9').unwrap();
                c[at] = b'8';
            });
        },
        Same,
    ),
    case(
        "man-truncated: manifest cut",
        &["b"],
        |p| change(&p.path("backup_manifest"), |c| c.truncate(c.len() / 2)),
        Same,
    ),
    case(
        "manifest without its last line",
        &["b"],
        |p| {
            change(&p.path("backup_manifest"), |c| {
                let at = c.windows(12).rposition(|w| w == b"\"Manifest-Ch").unwrap();
                c.truncate(at);
            });
        },
        Same,
    ),
    case(
        "size wrong in the manifest",
        &["b"],
        |p| p.entry("base/1/1255", |l| l.replace("\"Size\": ", "\"Size\": 1")),
        Same,
    ),
    case(
        "checksum wrong in the manifest",
        &["b"],
        |p| {
            p.entry("base/1/1255", |l| {
                let at = l.find("\"Checksum\": \"").unwrap() + 13;
                format!("{}00000000{}", &l[..at], &l[at + 8..])
            });
        },
        Same,
    ),
    case(
        "checksum short in the manifest",
        &["b"],
        |p| {
            p.entry("base/1/1255", |l| {
                let at = l.find("\"Checksum\": \"").unwrap() + 13;
                format!("{}{}", &l[..at], &l[at + 2..])
            });
        },
        Same,
    ),
    case(
        "checksum odd in the manifest",
        &["b"],
        |p| {
            p.entry("base/1/1255", |l| {
                let at = l.find("\"Checksum\": \"").unwrap() + 13;
                format!("{}{}", &l[..at], &l[at + 1..])
            });
        },
        Same,
    ),
    case("algorithm unknown in the manifest", &["b"], |p| p.entry("base/1/1255", |l| l.replace("CRC32C", "MD5")), Same),
    case(
        "man-no-checksum-alg-none: no checksum of one file",
        &["b"],
        |p| {
            p.entry("base/1/1255", |l| {
                let at = l.find(", \"Checksum-Algorithm\"").unwrap();
                let end = l.find(" }").unwrap();
                format!("{}{}", &l[..at], &l[end..])
            });
        },
        Same,
    ),
    case("path twice in the manifest", &["b"], |p| p.entry("base/1/1255", |l| format!("{l}\n{l}")), Same),
    case(
        "path without its file in the manifest",
        &["b"],
        |p| p.entry("base/1/1255", |l| format!("{l}\n{}", l.replace("base/1/1255", "base/1/nosuch"))),
        Same,
    ),
    case(
        "path out of the backup in the manifest",
        &["b"],
        |p| p.entry("base/1/1255", |l| format!("{l}\n{}", l.replace("base/1/1255", "../aside"))),
        Same,
    ),
    case(
        "man-encoded-path: path encoded in the manifest",
        &["b"],
        |p| {
            p.entry("base/1/1255", |l| {
                l.replace("\"Path\": \"base/1/1255\"", "\"Encoded-Path\": \"626173652f312f31323535\"")
            });
        },
        Same,
    ),
    case(
        "WAL range that goes too far",
        &["b"],
        |p| p.reseal(|t| t.replace("\"End-LSN\": \"0/", "\"End-LSN\": \"7/")),
        Same,
    ),
    case(
        "WAL range of another timeline",
        &["b"],
        |p| p.reseal(|t| t.replace("\"Timeline\": 1", "\"Timeline\": 2")),
        Same,
    ),
    case(
        "WAL range that ends where it starts",
        &["b"],
        |p| {
            p.reseal(|t| {
                let start = t.split("\"Start-LSN\": \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
                let end = t.split("\"End-LSN\": \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
                t.replace(&format!("\"End-LSN\": \"{end}"), &format!("\"End-LSN\": \"{start}"))
            });
        },
        Same,
    ),
    case(
        "no WAL ranges",
        &["b"],
        |p| {
            p.reseal(|t| {
                let at = t.find("{ \"Timeline\"").unwrap();
                let end = t[at..].find('\n').unwrap() + at;
                format!("{}{}", &t[..at], &t[end..])
            });
        },
        Stricter("not restorable: the manifest asks for no WAL"),
    ),
    case(
        "man-verify-cannot-trust-liar: nothing, and a manifest that says so",
        &["-n", "b"],
        |p| {
            let manifest = p.manifest();
            let (files, ranges) = (manifest.find("\"Files\": [").unwrap() + 10, manifest.find("\n],\n\"WAL").unwrap());
            let empty = sealed(&format!("{}{}", &manifest[..files], &manifest[ranges..]));
            fs::rename(&p.backup, p.backup.with_file_name("old")).unwrap();
            fs::create_dir(&p.backup).unwrap();
            fs::write(p.path("backup_manifest"), empty).unwrap();
        },
        Stricter("not restorable: \"global/pg_control\" is not in the manifest"),
    ),
    case(
        "backup_label in neither",
        &["b"],
        |p| {
            fs::remove_file(p.path("backup_label")).unwrap();
            p.entry("backup_label", |_| String::new());
        },
        Stricter("not restorable: \"backup_label\" is not in the manifest"),
    ),
    case(
        "backup_label of another backup in both",
        &["b"],
        |p| {
            change(&p.path("backup_label"), |c| *c = String::from_utf8_lossy(c).replace("0/", "1/").into_bytes());
            let content = fs::read(p.path("backup_label")).unwrap();
            p.entry("backup_label", |l| {
                let at = l.find("\"Checksum\": \"").unwrap() + 13;
                format!("{}{}{}", &l[..at], crc32c(&content), &l[at + 8..])
            });
        },
        Stricter("not restorable: \"backup_label\" starts at "),
    ),
    case(
        "number with a sign in the manifest",
        &["b"],
        |p| {
            p.reseal(|t| t.replace("\"Timeline\": 1", "\"Timeline\": \"+1\""));
        },
        Stricter("could not parse backup manifest: timeline is not an integer"),
    ),
    case(
        "LSN with more behind it in the manifest",
        &["b"],
        |p| {
            p.reseal(|t| t.replacen("\", \"End-LSN", " \", \"End-LSN", 1));
        },
        Stricter("could not parse backup manifest: could not parse start LSN"),
    ),
    case("plain, called plain", &["-Fp", "b"], |_| {}, Same),
    case(
        "man-no-checksum-alg-none: bytes changed that nothing tells of",
        &["b"],
        |p| {
            p.entry("base/1/1255", |l| {
                let at = l.find(", \"Checksum-Algorithm\"").unwrap();
                let end = l.find(" }").unwrap();
                format!("{}{}", &l[..at], &l[end..])
            });
            change(&p.path("base/1/1255"), |c| c[1000] ^= 1);
        },
        Same,
    ),
    case(
        "man-wal-not-listed: what lies beside WAL",
        &["b"],
        |p| {
            fs::write(p.path("pg_wal/archive_status/000000010000000000000001.done"), "").unwrap();
            fs::write(p.path("pg_wal/00000002.history"), "x").unwrap();
        },
        Same,
    ),
    case("no backup", &["-n"], |_| {}, Same),
    case("two backups", &["b", "c", "d"], |_| {}, Same),
    case("unknown option", &["--nosuch", "b"], |_| {}, Same),
    case("unknown short option", &["-y", "b"], |_| {}, Same),
    case("option without its value", &["b", "-m"], |_| {}, Same),
];

/// Of plain backups with manifests of version 2, which are compared with the control file.
const PLAIN_17: &[Case] = &[
    case(
        "man-version-1-2-system-id: manifest of another cluster",
        &["b"],
        |p| p.reseal(|t| t.replace("\"System-Identifier\": ", "\"System-Identifier\": 1")),
        Same,
    ),
    case(
        "man-version-1-2-system-id: manifest of no cluster",
        &["b"],
        |p| {
            p.reseal(|t| {
                let at = t.find("\"System-Identifier\"").unwrap();
                let end = t[at..].find('\n').unwrap() + at + 1;
                format!("{}{}", &t[..at], &t[end..])
            });
        },
        Same,
    ),
    case("control file's CRC wrong", &["b"], |p| p.control(|c| c[100] ^= 1), Same),
    case(
        "control file of another release",
        &["b"],
        |p| {
            p.control(|c| {
                c[8] ^= 1;
                let sum = crc32c(&c[..292]);
                for (at, digits) in (292..296).zip(sum.as_bytes().chunks(2)) {
                    c[at] = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
                }
            });
        },
        Same,
    ),
    case("control file short", &["b"], |p| p.control(|c| c.truncate(200)), Same),
    case(
        "control file without its end",
        &["b"],
        |p| p.control(|c| c.truncate(4096)),
        Stricter("unexpected control file size 4096, expected 8192"),
    ),
    case("plain, called tar", &["-n", "--format=tar", "b"], |_| {}, Same),
    case("format unknown", &["--format", "y", "b"], |_| {}, Same),
    case("progress and quiet", &["-P", "-q", "b"], |_| {}, Same),
    case("progress", &["--progress", "b"], |_| {}, Same),
    case("progress of nothing", &["-P", "-s", "b"], |_| {}, Same),
];

/// Of a plain backup on timeline 2.
const LATER: &[Case] = &[
    case("later timeline: sound", &["b"], |_| {}, Same),
    case("later timeline: segment missing", &["b"], |p| fs::remove_file(p.segment()).unwrap(), Same),
    case("later timeline: segment of zeros", &["b"], |p| change(&p.segment(), |c| c.fill(0)), Same),
];

/// A server, its backups, and both tools.
struct Setup {
    installation: Installation,
    ours: PathBuf,
    plain: PathBuf,
    tar: PathBuf,
    gzip: PathBuf,
    oid: String,
    scratch: TempDir,
}

impl Setup {
    fn new(major: u16) -> Option<Self> {
        let installation = Installation::find_release(major, "verification of spoilt backups")?;
        let scratch = installation.scratch();
        let path = |name: &str| scratch.path().join(name);
        let server = Postgres::new(&installation, scratch.path(), &[]);
        fs::create_dir(path("ts")).unwrap();
        installation.give(&path("ts"));
        server.sql(&format!("create tablespace ts location '{}'", path("ts").display()));
        server.sql("create table t tablespace ts as select generate_series(1, 1000)");
        let back_up = |name: &str, arguments: &[&str]| {
            let mut command = installation.tool("pg_basebackup");
            command.args(["-c", "fast", "-N", "-U", "postgres", "-p", &PORT.to_string(), "-h"]).arg(server.socket());
            succeed(command.arg("-D").arg(path(name)).args(arguments));
            path(name)
        };
        let mapping = format!("{}={}", path("ts").display(), path("mapped").display());
        let plain = back_up("plain", &["-T", &mapping]);
        let (tar, gzip) = (back_up("tar", &["-Ft"]), back_up("gzip", &["-Ft", "-z"]));
        let oid = server.sql("select oid from pg_tablespace where spcname = 'ts'");
        server.stop();
        let ours = named("pg_verifybackup", scratch.path());
        Some(Self { installation, ours, plain, tar, gzip, oid, scratch })
    }

    /// A backup of the server after its promotion.
    fn on_a_later_timeline(&self) -> PathBuf {
        let path = |name: &str| self.scratch.path().join(name);
        fs::write(path("data/standby.signal"), "").unwrap();
        self.installation.give(&path("data/standby.signal"));
        let server = Postgres::start(&self.installation, &path("data"), &path("s"));
        server.sql("select pg_promote()");
        let mut command = self.installation.tool("pg_basebackup");
        command.args(["-c", "fast", "-N", "-U", "postgres", "-p", &PORT.to_string(), "-h"]).arg(server.socket());
        let mapping = format!("{}={}", path("ts").display(), path("mapped2").display());
        succeed(command.arg("-D").arg(path("later")).args(["-T", &mapping]));
        server.stop();
        path("later")
    }

    /// Has a copy of `backup` spoilt, and both tools look at it: theirs, ours.
    fn judge(&self, backup: &Path, case: &Case) -> (Said, Said) {
        let place = self.scratch.path().join("case");
        fs::create_dir(&place).unwrap();
        let copied = place.join("b");
        copy(backup, &copied);
        let link = copied.join("pg_tblspc").join(&self.oid);
        if link.exists() {
            let target = fs::read_link(&link).unwrap();
            copy(&target, &place.join("ts"));
            fs::remove_file(&link).unwrap();
            symlink(place.join("ts"), &link).unwrap();
        }
        (case.spoil)(&Place { backup: copied, oid: &self.oid });
        self.installation.give(&place);
        let arguments: Vec<String> = case.arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let theirs = run(&self.installation, &self.installation.path("pg_verifybackup"), &place, &arguments);
        let ours = run(&self.installation, &self.ours, &place, &arguments);
        // Whoever tests as another user could not remove what nobody may enter.
        succeed(std::process::Command::new("chmod").arg("-R").arg("u+rwx").arg(&place));
        fs::remove_dir_all(&place).unwrap();
        (theirs, ours)
    }

    /// What is wrong with the outcome of a case.
    fn objection(&self, backup: &Path, case: &Case) -> Option<String> {
        let (theirs, ours) = self.judge(backup, case);
        let holds = match case.verdict {
            Same => theirs.status == ours.status && theirs.stdout == ours.stdout && errors(&theirs) == errors(&ours),
            Stricter(text) => theirs.status == Some(0) && ours.status == Some(1) && ours.stderr.contains(text),
            OtherWords(text) => theirs.status == Some(1) && ours.status == Some(1) && ours.stderr.contains(text),
            Able(text) => theirs.status == Some(1) && theirs.stderr.contains(text) && ours.status == Some(0),
        };
        let major = self.installation.major();
        (!holds).then(|| format!("{major}: {}\n  theirs {theirs:?}\n  ours   {ours:?}", case.name))
    }
}

/// The errors, sorted, without what ours adds, and without what `pg_waldump` said before them. getopt says the program's path.
fn errors(said: &Said) -> Vec<String> {
    let named = |line: &'_ str| {
        let path = line.strip_prefix('/').and_then(|line| line.split_once("/pg_verifybackup: "));
        path.map_or_else(|| line.to_owned(), |(_, rest)| format!("pg_verifybackup: {rest}"))
    };
    let own = |line: &String| line.starts_with("pg_verifybackup: ") || line.ends_with("verified");
    let added =
        |line: &String| line.contains("error: not restorable: ") || line.starts_with("pg_verifybackup: detail: ");
    let mut lines: Vec<String> = said.stderr.lines().map(named).filter(own).filter(|line| !added(line)).collect();
    lines.sort();
    lines
}

fn assert_agreement(setup: &Setup, backup: &Path, cases: &[Case]) {
    let objections: Vec<String> = cases.iter().filter_map(|case| setup.objection(backup, case)).collect();
    assert!(objections.is_empty(), "{} of {}:\n{}", objections.len(), cases.len(), objections.join("\n"));
}

#[test]
fn plain_backups_of_18() {
    let Some(setup) = Setup::new(18) else { return };
    assert_agreement(&setup, &setup.plain, PLAIN);
    assert_agreement(&setup, &setup.plain, PLAIN_17);
    assert_agreement(&setup, &setup.on_a_later_timeline(), LATER);
}

/// `man-verify-tar-format`.
#[test]
fn tar_backups_of_18() {
    let Some(setup) = Setup::new(18) else { return };
    assert_agreement(&setup, &setup.tar, tars::CASES);
    assert_agreement(&setup, &setup.gzip, tars::GZIP_CASES);
}

/// `man-bad-json-fuzz`. Manifests are read before anything else, so that they need no backup.
#[test]
fn broken_manifests() {
    let Some(installation) = Installation::find_release(18, "verification of broken manifests") else { return };
    let scratch = installation.scratch();
    let ours = named("pg_verifybackup", scratch.path());
    let mut objections = Vec::new();
    for (name, text) in manifests::BROKEN {
        let backup = scratch.path().join("b");
        fs::create_dir(&backup).unwrap();
        fs::write(backup.join("backup_manifest"), text).unwrap();
        installation.give(&backup);
        let arguments = ["-n".to_owned(), "b".to_owned()];
        let theirs = run(&installation, &installation.path("pg_verifybackup"), scratch.path(), &arguments);
        let ours = run(&installation, &ours, scratch.path(), &arguments);
        if theirs != ours {
            objections.push(format!("{name}\n  theirs {theirs:?}\n  ours   {ours:?}"));
        }
        fs::remove_dir_all(&backup).unwrap();
    }
    assert!(objections.is_empty(), "{}:\n{}", objections.len(), objections.join("\n"));
}

/// What 15 says less clearly, or not at all.
const OTHER_WORDS_IN_15: [&str; 3] =
    ["file that is a socket", "man-truncated: manifest cut", "manifest without its last line"];

#[test]
fn plain_backups_of_15() {
    let Some(setup) = Setup::new(15) else { return };
    let known = PLAIN.iter().filter(|case| !case.arguments.contains(&"-Fp"));
    let cases: Vec<Case> = known
        .map(|case| {
            let other = OTHER_WORDS_IN_15.contains(&case.name);
            Case { verdict: if other { OtherWords("error: ") } else { case.verdict }, ..*case }
        })
        .collect();
    assert_agreement(&setup, &setup.plain, &cases);
}
