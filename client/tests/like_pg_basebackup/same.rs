//! What both tools make of the same server.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::site::{Item, Site, Tool, names, tree};

/// What differs from backup to backup, whoever takes it: where it begins, and the WAL from there on.
fn of_this_backup(name: &[u8]) -> bool {
    const FILES: [&[u8]; 3] = [b"backup_label", b"backup_manifest", b"global/pg_control"];
    FILES.contains(&name) || name.starts_with(b"pg_wal/")
}

/// Compares two trees of files, in which `theirs` and `ours` stand for each other in links.
pub(super) fn assert_same(ours: &Path, theirs: &Path) {
    let (mut ours_tree, theirs_tree) = (tree(ours), tree(theirs));
    let segment = |name: &Vec<u8>| name.starts_with(b"pg_wal/") && !name.ends_with(b"archive_status");
    ours_tree.retain(|name, _| !segment(name));
    let theirs_tree: BTreeMap<_, _> = theirs_tree.into_iter().filter(|(name, _)| !segment(name)).collect();
    let list = |tree: &BTreeMap<Vec<u8>, Item>| -> Vec<String> {
        tree.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    };
    assert_eq!(list(&ours_tree), list(&theirs_tree));
    for (name, theirs_item) in &theirs_tree {
        let shown = String::from_utf8_lossy(name);
        match (&ours_tree[name], theirs_item) {
            (Item::File { mode, content }, Item::File { mode: their_mode, content: their_content }) => {
                assert_eq!(mode, their_mode, "{shown}");
                if !of_this_backup(name) {
                    assert!(content == their_content, "{shown}");
                }
            }
            (Item::Link { target }, Item::Link { target: their_target }) => {
                let moved = target.to_str().unwrap().replace("ours", "theirs");
                assert_eq!(Path::new(&moved), their_target, "{shown}");
            }
            (item, their_item) => assert_eq!(item, their_item, "{shown}"),
        }
    }
}

#[test]
fn plain_backups_hold_the_same_files_contents_modes_and_links() {
    for major in [15, 16, 18] {
        let Some(site) = Site::new(major, &[]) else { continue };
        for (index, arguments) in [
            &["-X", "stream"][..],
            &["-X", "fetch", "--no-manifest"],
            &["-X", "none", "--manifest-force-encode", "--manifest-checksums=SHA256"],
            &["-X", "stream", "--no-slot", "-l", "a label"],
        ]
        .into_iter()
        .enumerate()
        .take(if major == 16 { 1 } else { usize::MAX })
        {
            let ours = site.back_up(Tool::Ours, &format!("ours{index}"), arguments);
            let theirs = site.back_up(Tool::Theirs, &format!("theirs{index}"), arguments);
            assert_same(&ours, &theirs);
            assert_same(&site.path(&format!("ours{index}.ts")), &site.path(&format!("theirs{index}.ts")));
            if !arguments.contains(&"--no-manifest") {
                site.verify(&ours, if arguments.contains(&"none") { &["-n"] } else { &[] });
            }
        }
    }
}

/// Names, kinds, modes, sizes and link targets of the members of a tar file.
fn members(mut archive: tar::Archive<impl Read>) -> Vec<String> {
    let entries = archive.entries().unwrap();
    let member = |entry: tar::Entry<_>| {
        let header = entry.header();
        let (name, kind) = (entry.path().unwrap().display().to_string(), header.entry_type());
        let link = entry.link_name().unwrap().map(|link| link.display().to_string()).unwrap_or_default();
        format!("{name} {kind:?} {:o} {} {link}", header.mode().unwrap(), entry.size())
    };
    let mut members: Vec<_> = entries.map(|entry| member(entry.unwrap())).collect();
    // Segments have names of their own.
    for member in &mut members {
        let name = member.strip_prefix("pg_wal/").map(|name| name.strip_prefix("archive_status/").unwrap_or(name));
        if let Some((_, rest)) = name.and_then(|name| name.strip_prefix("0000")?.split_once(' ')) {
            *member = format!("a segment {rest}");
        }
    }
    members
}

#[test]
fn tar_backups_hold_the_same_members() {
    for major in [15, 18] {
        let Some(site) = Site::new(major, &[]) else { continue };
        for (index, arguments) in
            [&["-X", "stream"][..], &["-X", "fetch"], &["-X", "none", "-R"]].into_iter().enumerate()
        {
            let arguments = [&["-F", "tar"], arguments].concat();
            let ours = site.back_up(Tool::Ours, &format!("ours{index}"), &arguments);
            let theirs = site.back_up(Tool::Theirs, &format!("theirs{index}"), &arguments);
            assert_eq!(names(&ours), names(&theirs));
            for name in names(&ours)
                .iter()
                .filter(|name| Path::new(name).extension().is_some_and(|end| end == "tar") && *name != "pg_wal.tar")
            {
                let open = |directory: &Path| tar::Archive::new(std::fs::File::open(directory.join(name)).unwrap());
                let (ours, theirs) = (members(open(&ours)), members(open(&theirs)));
                let differing = ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs);
                assert_eq!((differing, ours.len()), (None, theirs.len()), "{major} {name} {arguments:?}");
            }
        }
    }
}

#[test]
fn group_access_is_taken_over_alike() {
    for major in [15, 16, 18] {
        let Some(site) = Site::on(major, &[], &["--allow-group-access"]) else { continue };
        for (index, arguments) in [&["-X", "stream"][..], &["-X", "fetch", "-R"]].into_iter().enumerate() {
            let ours = site.back_up(Tool::Ours, &format!("ours{index}"), arguments);
            let theirs = site.back_up(Tool::Theirs, &format!("theirs{index}"), arguments);
            let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
            assert_eq!((mode(&ours), mode(&ours.join("PG_VERSION"))), (0o750, 0o640), "{major}");
            assert_eq!((mode(&ours), mode(&site.path(&format!("ours{index}.ts")))), (mode(&theirs), 0o750), "{major}");
            assert_same(&ours, &theirs);
            let segment = names(&ours.join("pg_wal")).into_iter().find(|name| name.len() == 24).unwrap();
            assert_eq!(mode(&ours.join("pg_wal").join(segment)), 0o640, "{major}");
        }
        let (ours, theirs) = (site.back_up(Tool::Ours, "o", &["-Ft"]), site.back_up(Tool::Theirs, "t", &["-Ft"]));
        let modes = |directory: &Path| -> Vec<(String, u32)> {
            let mode = |name: &String| directory.join(name).metadata().unwrap().permissions().mode() & 0o7777;
            names(directory).into_iter().map(|name| (name.clone(), mode(&name))).collect()
        };
        assert_eq!(modes(&ours), modes(&theirs), "{major}");
        assert!(modes(&ours).iter().all(|(_, mode)| *mode == 0o640), "{:?}", modes(&ours));
    }
}

#[test]
fn a_wal_directory_elsewhere_is_linked_alike() {
    let Some(site) = Site::new(15, &[]) else { return };
    for (tool, name) in [(Tool::Ours, "ours"), (Tool::Theirs, "theirs")] {
        let wal = site.path(&format!("{name}.wal"));
        let backup = site.back_up(tool, name, &["--waldir", wal.to_str().unwrap(), "-X", "fetch"]);
        assert_eq!(std::fs::read_link(backup.join("pg_wal")).unwrap(), wal);
    }
    assert_same(&site.path("ours"), &site.path("theirs"));
    assert_eq!(names(&site.path("ours.wal")).len(), names(&site.path("theirs.wal")).len());
}
