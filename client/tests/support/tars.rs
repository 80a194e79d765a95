//! Spoilt backups in tar format.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::{Able, Case, OtherWords, Place, Same, Stricter, case};
use crate::backups::{change, replace};

type Member = (tar::Header, Vec<u8>);

/// Rewrites an archive with what `edit` leaves of its members.
fn rewrite(path: &Path, edit: impl FnOnce(&mut Vec<Member>)) {
    let mut archive = tar::Archive::new(File::open(path).unwrap());
    let mut members: Vec<Member> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.header().clone(), content)
        })
        .collect();
    edit(&mut members);
    let mut builder = tar::Builder::new(Vec::new());
    for (header, content) in &members {
        builder.append(header, content.as_slice()).unwrap();
    }
    replace(path, builder.into_inner().unwrap());
}

fn member<'a>(members: &'a mut [Member], name: &str) -> &'a mut Member {
    members.iter_mut().find(|(header, _)| *header.path_bytes() == *name.as_bytes()).unwrap()
}

/// Gives a member another content.
fn resize(member: &mut Member, content: Vec<u8>) {
    member.0.set_size(content.len() as u64);
    member.0.set_cksum();
    member.1 = content;
}

fn base(place: &Place<'_>, edit: impl FnOnce(&mut Vec<Member>)) {
    rewrite(&place.path("base.tar"), edit);
}

fn rename(member: &mut Member, name: &[u8]) {
    let field = &mut member.0.as_mut_bytes()[..100];
    field.fill(0);
    field[..name.len()].copy_from_slice(name);
    member.0.set_cksum();
}

fn tablespace(place: &Place<'_>, edit: impl FnOnce(&mut Vec<Member>)) {
    rewrite(&place.path(&format!("{}.tar", place.oid)), edit);
}

pub(crate) const CASES: &[Case] = &[
    case("tar: sound", &["-n", "b"], |_| {}, Same),
    case("tar: sound, with WAL", &["b"], |_| {}, Able("pg_waldump cannot read tar files")),
    case("tar: called tar", &["-n", "-F", "t", "b"], |_| {}, Same),
    case("tar: called plain", &["-n", "-F", "plain", "b"], |_| {}, Same),
    case("tar: checksums skipped", &["-n", "-s", "b"], |_| {}, Same),
    case("tar: rewritten", &["-n", "b"], |p| base(p, |_| {}), Same),
    case(
        "tar: member missing",
        &["-n", "b"],
        |p| base(p, |m| m.retain(|(h, _)| *h.path_bytes() != *b"base/1/1255")),
        Same,
    ),
    case(
        "tar: member extra",
        &["-n", "b"],
        |p| {
            base(p, |m| {
                let mut copy = m.iter().find(|(h, _)| *h.path_bytes() == *b"base/1/1255").unwrap().clone();
                rename(&mut copy, b"base/1/extra");
                m.push(copy);
            });
        },
        Same,
    ),
    case(
        "tar: member extra that is ignored",
        &["-n", "-i", "base/1", "b"],
        |p| {
            base(p, |m| {
                let mut copy = m.iter().find(|(h, _)| *h.path_bytes() == *b"base/1/1255").unwrap().clone();
                rename(&mut copy, b"base/1/extra");
                m.push(copy);
            });
        },
        Same,
    ),
    case(
        "tar: member shorter",
        &["-n", "b"],
        |p| {
            base(p, |m| {
                let member = member(m, "base/1/1255");
                let content = member.1[..8192].to_vec();
                resize(member, content);
            });
        },
        Same,
    ),
    case("tar: member empty", &["-n", "b"], |p| base(p, |m| resize(member(m, "base/1/1255"), Vec::new())), Same),
    case(
        "tar: member longer",
        &["-n", "b"],
        |p| {
            base(p, |m| {
                let member = member(m, "base/1/1255");
                let content = [&member.1[..], b"x"].concat();
                resize(member, content);
            });
        },
        Same,
    ),
    case("tar: content changed", &["-n", "b"], |p| base(p, |m| member(m, "base/1/1255").1[9] ^= 1), Same),
    case(
        "tar: content changed, checksums skipped",
        &["-n", "-s", "b"],
        |p| base(p, |m| member(m, "base/1/1255").1[9] ^= 1),
        Same,
    ),
    case(
        "tar: several problems, the first alone",
        &["-n", "-e", "b"],
        |p| {
            base(p, |m| {
                m.retain(|(h, _)| *h.path_bytes() != *b"base/1/1255");
                member(m, "base/1/1259").1[9] ^= 1;
            });
        },
        Same,
    ),
    case(
        "tar: absolute name",
        &["-n", "b"],
        |p| base(p, |m| rename(member(m, "base/1/1255"), b"/base/1/1255")),
        OtherWords("tar member has unsafe path name: \"/base/1/1255\""),
    ),
    case(
        "tar: name that leads out",
        &["-n", "b"],
        |p| base(p, |m| rename(member(m, "base/1/1255"), b"../1255")),
        OtherWords("tar member has unsafe path name: \"../1255\""),
    ),
    case(
        "tar: member twice",
        &["-n", "b"],
        |p| {
            base(p, |m| {
                let copy = m.iter().find(|(h, _)| *h.path_bytes() == *b"base/1/1255").unwrap().clone();
                m.push(copy);
            });
        },
        Stricter("not restorable: file \"base/1/1255\" is present in archive \"base.tar\" more than once"),
    ),
    case(
        "tar: directory missing",
        &["-n", "b"],
        |p| base(p, |m| m.retain(|(h, _)| !h.path_bytes().starts_with(b"pg_notify"))),
        Stricter("not restorable: directory \"pg_notify\" is missing"),
    ),
    case(
        "tar: base.tar missing",
        &["-n", "-e", "b"],
        |p| fs::remove_file(p.path("base.tar")).unwrap(),
        OtherWords("is present in the manifest but not on disk"),
    ),
    case(
        "tar: base.tar a directory",
        &["-n", "-e", "b"],
        |p| {
            fs::remove_file(p.path("base.tar")).unwrap();
            fs::create_dir(p.path("base.tar")).unwrap();
        },
        Same,
    ),
    case(
        "tar: base.tar unreadable",
        &["-n", "-e", "b"],
        |p| {
            change(&p.path("base.tar"), |_| {});
            fs::set_permissions(p.path("base.tar"), std::os::unix::fs::PermissionsExt::from_mode(0o0)).unwrap();
        },
        Same,
    ),
    case("tar: base.tar empty", &["-n", "b"], |p| replace(&p.path("base.tar"), ""), OtherWords("archive \"base.tar\"")),
    case(
        "tar: base.tar of zeros",
        &["-n", "b"],
        |p| change(&p.path("base.tar"), |c| c.fill(0)),
        OtherWords("archive \"base.tar\""),
    ),
    case(
        "tar: base.tar of garbage",
        &["-n", "b"],
        |p| change(&p.path("base.tar"), |c| c.fill(b'x')),
        OtherWords("input file does not appear to be a valid tar archive"),
    ),
    case(
        "tar: base.tar cut",
        &["-n", "b"],
        |p| change(&p.path("base.tar"), |c| c.truncate(c.len() / 2)),
        OtherWords("COPY stream ended before last file was finished"),
    ),
    case(
        "tar: base.tar without its end",
        &["-n", "b"],
        |p| change(&p.path("base.tar"), |c| c.truncate(c.len() - 1024)),
        Stricter("archive ended without its two terminating zero blocks"),
    ),
    case(
        "tar: tablespace missing",
        &["-n", "b"],
        |p| fs::remove_file(p.path(&format!("{}.tar", p.oid))).unwrap(),
        Same,
    ),
    case(
        "tar: tablespace twice",
        &["-n", "b"],
        |p| {
            fs::copy(p.path(&format!("{}.tar", p.oid)), p.path(&format!("0{}.tar", p.oid))).unwrap();
        },
        Stricter("hold the same archive"),
    ),
    case(
        "tar: member of the tablespace changed",
        &["-n", "b"],
        |p| {
            tablespace(p, |m| {
                m.iter_mut().find(|(_, content)| !content.is_empty()).unwrap().1[9] ^= 1;
            });
        },
        Same,
    ),
    case(
        "tar: member of the tablespace missing",
        &["-n", "b"],
        |p| {
            tablespace(p, |m| {
                let at = m.iter().position(|(_, content)| !content.is_empty()).unwrap();
                m.remove(at);
            });
        },
        Same,
    ),
    case("tar: file extra", &["-n", "b"], |p| fs::write(p.path("extra"), "x").unwrap(), Same),
    case("tar: archive extra", &["-n", "b"], |p| fs::write(p.path("base.tar.bz2"), "x").unwrap(), Same),
    case("tar: archive of tablespace 0", &["-n", "b"], |p| fs::write(p.path("0.tar"), "x").unwrap(), Same),
    case(
        "tar: link to nowhere",
        &["-n", "b"],
        |p| std::os::unix::fs::symlink("nowhere", p.path("1.tar")).unwrap(),
        Same,
    ),
    case(
        "tar: manifest changed",
        &["-n", "b"],
        |p| {
            change(&p.path("backup_manifest"), |c| {
                let at = c.iter().position(|b| *b == b'9').unwrap();
                c[at] = b'8';
            });
        },
        Same,
    ),
    case(
        "tar: manifest of another cluster",
        &["-n", "b"],
        |p| {
            p.reseal(|t| t.replace("\"System-Identifier\": ", "\"System-Identifier\": 1"));
        },
        Same,
    ),
    case("tar: control file changed", &["-n", "b"], |p| base(p, |m| member(m, "global/pg_control").1[100] ^= 1), Same),
    case(
        "tar: checksum short in the manifest",
        &["-n", "b"],
        |p| {
            p.entry("base/1/1255", |l| {
                let at = l.find("\"Checksum\": \"").unwrap() + 13;
                format!("{}{}", &l[..at], &l[at + 2..])
            });
        },
        Same,
    ),
    case(
        "tar: WAL missing",
        &["b"],
        |p| fs::remove_file(p.path("pg_wal.tar")).unwrap(),
        OtherWords("WAL parsing failed for timeline 1"),
    ),
    case("tar: WAL missing and not wanted", &["-n", "b"], |p| fs::remove_file(p.path("pg_wal.tar")).unwrap(), Same),
    case(
        "tar: WAL of zeros",
        &["b"],
        |p| rewrite(&p.path("pg_wal.tar"), |m| m.iter_mut().for_each(|m| m.1.fill(0))),
        OtherWords("WAL parsing failed for timeline 1"),
    ),
    case(
        "tar: WAL cut",
        &["b"],
        |p| change(&p.path("pg_wal.tar"), |c| c.truncate(100_000)),
        OtherWords("WAL parsing failed for timeline 1"),
    ),
    case("tar: progress", &["-n", "-P", "-q", "b"], |_| {}, Same),
];

pub(crate) const GZIP_CASES: &[Case] = &[
    case("gzip: sound", &["-n", "b"], |_| {}, Same),
    case("gzip: sound, with WAL", &["b"], |_| {}, Able("pg_waldump cannot read tar files")),
    case("gzip: called .tgz", &["-n", "b"], |p| fs::rename(p.path("base.tar.gz"), p.path("base.tgz")).unwrap(), Same),
    case(
        "gzip: called .tar",
        &["-n", "b"],
        |p| fs::rename(p.path("base.tar.gz"), p.path("base.tar")).unwrap(),
        OtherWords("input file does not appear to be a valid tar archive"),
    ),
    case(
        "gzip: cut",
        &["-n", "b"],
        |p| change(&p.path("base.tar.gz"), |c| c.truncate(c.len() / 2)),
        OtherWords("archive \"base.tar.gz\""),
    ),
    case(
        "gzip: changed",
        &["-n", "b"],
        |p| {
            change(&p.path("base.tar.gz"), |c| {
                let at = c.len() / 2;
                c[at..at + 100].fill(0);
            });
        },
        OtherWords("archive \"base.tar.gz\""),
    ),
    case("gzip: empty", &["-n", "b"], |p| replace(&p.path("base.tar.gz"), ""), OtherWords("archive \"base.tar.gz\"")),
];
