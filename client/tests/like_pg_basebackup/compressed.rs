//! Compressed backups: the files that they are, and what is in them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::site::{Site, Tool, names};

/// Unpacks an archive, whatever it is compressed with, by readers that are not the client's.
fn unpack(site: &Site, archive: &Path, into: &Path) {
    let file = File::open(archive).unwrap();
    let reader: Box<dyn Read> = match archive.extension().unwrap().to_str().unwrap() {
        "gz" => Box::new(flate2::read::GzDecoder::new(file)),
        "lz4" => Box::new(lz4_flex::frame::FrameDecoder::new(file)),
        "zst" => Box::new(zstd::stream::read::Decoder::new(file).unwrap()),
        _ => Box::new(file),
    };
    std::fs::create_dir_all(into).unwrap();
    let mut archive = tar::Archive::new(reader);
    archive.set_preserve_permissions(true);
    archive.unpack(into).unwrap();
    site.installation.give(into);
}

/// Puts a tar backup back together and lets PostgreSQL verify it.
fn verify(site: &Site, backup: &Path, suffix: &str) {
    let (whole, oid) = (backup.with_extension("whole"), site.oid("ts"));
    unpack(site, &backup.join(format!("base.tar{suffix}")), &whole);
    // Since 17 a tablespace inside the data directory is an archive of its own as well.
    let inside = site.oid("inside");
    let archive = backup.join(format!("{inside}.tar{suffix}"));
    if archive.exists() {
        unpack(site, &archive, &whole.join("pg_tblspc").join(&inside));
    }
    let place = backup.with_extension("space");
    unpack(site, &backup.join(format!("{oid}.tar{suffix}")), &place);
    std::os::unix::fs::symlink(&place, whole.join("pg_tblspc").join(&oid)).unwrap();
    for name in ["pg_wal.tar", "pg_wal.tar.gz"] {
        if backup.join(name).exists() {
            unpack(site, &backup.join(name), &whole.join("pg_wal"));
        }
    }
    std::fs::copy(backup.join("backup_manifest"), whole.join("backup_manifest")).unwrap();
    site.installation.give(&whole);
    site.verify(&whole, &[]);
}

#[test]
fn whoever_compresses_the_files_are_those_of_pg_basebackup() {
    for major in [15, 18] {
        let Some(site) = Site::new(major, &[]) else { continue };
        let mut specifications = vec!["gzip:1", "client-lz4:12", "client-zstd:level=1,long", "server-gzip:5"];
        // The other installations are built with zlib alone, and so are their servers.
        if major == 15 {
            specifications =
                vec!["gzip:1", "client-lz4", "client-zstd:workers=3", "server-lz4:5", "server-zstd:workers=3"];
        }
        for (index, specification) in specifications.into_iter().enumerate() {
            let compress = format!("--compress={specification}");
            let arguments = ["-F", "tar", compress.as_str()];
            let ours = site.back_up(Tool::Ours, &format!("ours{index}"), &arguments);
            if major == 15 || specification.contains("gzip") {
                let theirs = site.back_up(Tool::Theirs, &format!("theirs{index}"), &arguments);
                assert_eq!(names(&ours), names(&theirs), "{specification}");
            }
            let method = specification.split(':').next().unwrap().rsplit('-').next().unwrap();
            let suffix = match method {
                "gzip" => ".gz",
                "lz4" => ".lz4",
                _ => ".zst",
            };
            verify(&site, &ours, suffix);
        }
    }
}

#[test]
fn a_compressed_stream_becomes_a_plain_directory() {
    for major in [15, 18] {
        let Some(site) = Site::new(major, &[]) else { continue };
        let methods: &[&str] =
            if major == 15 { &["server-gzip:5", "server-lz4:5", "server-zstd:workers=3"] } else { &["server-gzip:5"] };
        for (index, method) in methods.iter().enumerate() {
            let backup = site.back_up(Tool::Ours, &format!("ours{index}"), &["--compress", method]);
            site.verify(&backup, &[]);
        }
    }
}

#[test]
fn options_and_recovery_settings_go_into_compressed_archives() {
    let Some(site) = Site::new(15, &[]) else { return };
    for (index, compress) in ["client-zstd", "server-zstd", "server-gzip"].into_iter().enumerate() {
        let backup = site.back_up(Tool::Ours, &format!("ours{index}"), &["-Ft", "-R", "-Xfetch", "-Z", compress]);
        let suffix = if compress.ends_with("gzip") { ".gz" } else { ".zst" };
        let base = site.path(&format!("base{index}"));
        unpack(&site, &backup.join(format!("base.tar{suffix}")), &base);
        assert!(base.join("standby.signal").exists(), "{compress}");
        let settings = std::fs::read_to_string(base.join("postgresql.auto.conf")).unwrap();
        assert!(settings.contains("primary_conninfo"), "{compress}");
    }
}

#[test]
fn a_server_says_what_is_wrong_with_its_compression() {
    let Some(site) = Site::new(15, &[]) else { return };
    let target = site.path("ours");
    for specification in
        ["server-gzip:99", "server-thunk", "server-zstd:level=x", "server-lz4:workers=2", "server-gzip:"]
    {
        let arguments = ["-c", "fast", "-D", target.to_str().unwrap(), "-Ft", "--compress", specification];
        let (ours, theirs) = (site.refused(Tool::Ours, &arguments), site.refused(Tool::Theirs, &arguments));
        assert_eq!(ours, theirs, "{specification}");
        assert!(ours.starts_with("pg_basebackup: error: could not initiate base backup: ERROR:  "), "{ours}");
        assert!(!target.exists());
    }
}
