//! Where things go: parents of the target, tablespaces with odd names, manifests of every kind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::site::{Site, Tool, names};
use backstop_scenarios::postgres::succeed;

#[test]
fn the_parents_of_a_target_are_made() {
    let Some(site) = Site::new(15, &[]) else { return };
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    let mut modes = Vec::new();
    for (tool, name) in [(Tool::Ours, "ours"), (Tool::Theirs, "theirs")] {
        for format in ["-Fp", "-Ft"] {
            let backup = site.back_up(tool, &format!("{name}{format}/deep/er"), &["-X", "none", format]);
            assert!(backup.join("backup_manifest").exists());
            let parents = backup.ancestors().skip(1).take(2).map(mode);
            modes.push((format, mode(&backup), parents.collect::<Vec<_>>()));
        }
    }
    assert_eq!(modes[..2], modes[2..]);
}

/// A tablespace at `location`, with a table in it.
fn tablespace(site: &Site, name: &str, location: &Path) {
    fs::create_dir_all(location).unwrap();
    site.installation.give(location);
    site.server.sql(&format!("create tablespace {name} location '{}'", location.display()));
    site.server.sql(&format!("create table in_{name} tablespace {name} as select generate_series(1, 100) as i"));
}

#[test]
fn an_equals_sign_may_stand_in_a_location() {
    for major in [15, 18] {
        let Some(site) = Site::new(major, &[]) else { continue };
        tablespace(&site, "equal", &site.path("e=mc"));
        let oid = site.oid("equal");
        for (tool, name) in [(Tool::Ours, "ours"), (Tool::Theirs, "theirs")] {
            let place = site.path(&format!("{name}=new"));
            let escaped = |path: &Path| path.to_str().unwrap().replace('=', "\\=");
            let mapping = format!("{}={}", escaped(&site.path("e=mc")), escaped(&place));
            let backup = site.back_up(tool, name, &["-X", "none", "-T", &mapping]);
            assert_eq!(fs::read_link(backup.join("pg_tblspc").join(&oid)).unwrap(), place, "{major} {tool:?}");
            assert_eq!(names(&place), names(&site.path("e=mc")), "{major} {tool:?}");
        }
        site.verify(&site.path("ours"), &["-n"]);
    }
}

#[test]
fn a_location_too_long_for_an_archive_does_not_stop_one() {
    for major in [15, 18] {
        let Some(site) = Site::new(major, &[]) else { continue };
        let location = site.path(&"d".repeat(60)).join("e".repeat(60));
        tablespace(&site, "far", &location);
        site.installation.give(location.parent().unwrap());
        let arguments = ["-Ft", "-X", "fetch"];
        let (ours, theirs) =
            (site.back_up(Tool::Ours, "ours", &arguments), site.back_up(Tool::Theirs, "theirs", &arguments));
        assert_eq!(names(&ours), names(&theirs), "{major}");
        assert!(names(&ours).contains(&format!("{}.tar", site.oid("far"))), "{major}");
        let map = |backup: &Path| {
            let mut archive = tar::Archive::new(fs::File::open(backup.join("base.tar")).unwrap());
            let mut entries = archive.entries().unwrap().map(Result::unwrap);
            let mut map = entries.find(|entry| entry.path().unwrap() == Path::new("tablespace_map")).unwrap();
            std::io::read_to_string(&mut map).unwrap()
        };
        assert!(map(&ours).contains(location.to_str().unwrap()), "{major}: {}", map(&ours));
        assert_eq!(map(&ours), map(&theirs), "{major}");
    }
}

#[test]
fn manifests_of_every_kind_verify() {
    for major in [15, 18] {
        let Some(site) = Site::new(major, &[]) else { continue };
        for kind in ["none", "crc32c", "sha224", "sha256", "sha384", "SHA512"] {
            for format in ["-Fp", "-Ft"] {
                let checksums = format!("--manifest-checksums={kind}");
                let arguments = ["-X", "fetch", format, &checksums, "--manifest-force-encode"];
                let backup = site.back_up(Tool::Ours, &format!("{kind}{format}"), &arguments);
                let manifest = fs::read_to_string(backup.join("backup_manifest")).unwrap();
                let algorithm = format!("\"Checksum-Algorithm\": \"{}\"", kind.to_uppercase());
                let (encoded, plain) =
                    (manifest.matches("\"Encoded-Path\": ").count(), manifest.matches("\"Path\": ").count());
                assert!(encoded > 100 && plain == 0, "{major} {kind}: {encoded} {plain}");
                let sums = manifest.matches(&algorithm).count();
                assert_eq!(sums, if kind == "none" { 0 } else { encoded }, "{major} {kind}");
                if format == "-Fp" {
                    site.verify(&backup, &["-e"]);
                } else if major == 18 {
                    site.verify(&backup, &["-e", "-n"]);
                }
            }
        }
        for format in ["-Fp", "-Ft"] {
            for tool in [Tool::Ours, Tool::Theirs] {
                // Ours does not ask the server for it.
                let said = site.fails(tool, "target", &[format, "--manifest-checksums=bogus"]);
                assert!(said.contains("unrecognized checksum algorithm: \"bogus\"\n"), "{major} {tool:?}: {said}");
            }
        }
    }
}

#[test]
fn the_server_writes_for_those_who_may() {
    for major in [15, 18] {
        let Some(site) = Site::new(major, &[]) else { continue };
        site.server.sql("create role writer login replication; grant pg_write_server_files to writer");
        site.server.sql("create role reader login replication");
        let mut kept = Vec::new();
        for (tool, name) in [(Tool::Ours, "ours"), (Tool::Theirs, "theirs")] {
            let directory = site.path(name);
            let target = format!("server:{}", directory.display());
            let arguments = |role| ["-U", role, "-c", "fast", "-X", "none", "-t", &target];
            let refused = site.refused(tool, &arguments("reader"));
            assert!(!directory.exists() && refused.contains("to create backup stored on server"), "{refused}");
            succeed(&mut site.tool(tool, &arguments("writer")));
            kept.push((refused.replace(name, ""), names(&directory)));
        }
        assert_eq!(kept[0], kept[1], "{major}");
        assert!(kept[0].1.contains(&"backup_manifest".to_owned()), "{:?}", kept[0]);
    }
}
