//! Backups that do not come to the client: targets of the server, and standard output.

use std::io::Read;

use super::site::{Site, Tool, names, said};
use backstop_scenarios::postgres::succeed;

#[test]
fn the_server_keeps_it() {
    for major in [15, 18] {
        let Some(site) = Site::new(major, &[]) else { continue };
        for (index, compress) in ["none", "gzip", "server-gzip:9"].into_iter().enumerate() {
            let mut kept = Vec::new();
            for (tool, name) in [(Tool::Ours, "ours"), (Tool::Theirs, "theirs")] {
                let directory = site.path(&format!("{name}{index}"));
                let target = format!("--target=server:{}", directory.display());
                succeed(&mut site.tool(tool, &["-c", "fast", "-X", "fetch", &target, "--compress", compress]));
                kept.push(names(&directory));
            }
            assert_eq!(kept[0], kept[1], "{major} {compress}");
            assert!(kept[0].len() >= 3, "{:?}", kept[0]);
        }
    }
}

#[test]
fn nobody_keeps_it() {
    for major in [15, 16, 18] {
        let Some(site) = Site::new(major, &[]) else { continue };
        let told = |tool| {
            let output = succeed(&mut site.tool(tool, &["-c", "fast", "-X", "none", "-t", "blackhole", "-P"]));
            assert!(output.stdout.is_empty());
            said(&output)
        };
        let (ours, theirs) = (told(Tool::Ours), told(Tool::Theirs));
        // The last line says how much it was, which both know from the server.
        let last = |text: &str| text.lines().last().unwrap_or_default().to_owned();
        assert_eq!(last(&ours), last(&theirs), "{ours}\n{theirs}");
    }
}

#[test]
fn what_no_target_is_is_refused_alike() {
    for major in [15, 18] {
        let Some(site) = Site::new(major, &[]) else { continue };
        for arguments in [
            &["-t", "nosuch"][..],
            &["-t", "blackhole:detail"],
            &["-t", "server"],
            &["-t", "server:relative/path"],
            &["-t", "server:/"],
            &["-t", "blackhole", "-R"],
        ] {
            let arguments = [&["-c", "fast", "-X", "none"], arguments].concat();
            assert_eq!(site.refused(Tool::Ours, &arguments), site.refused(Tool::Theirs, &arguments), "{arguments:?}");
        }
    }
}

#[test]
fn one_tar_file_on_standard_output() {
    let Some(site) = Site::new(15, &[]) else { return };
    site.server.sql("drop table u, v");
    site.server.sql("drop tablespace ts");
    site.server.sql("drop tablespace inside");
    for compress in ["none", "gzip", "client-zstd", "server-gzip"] {
        let output = succeed(&mut site.tool(Tool::Ours, &["-c", "fast", "-Ft", "-D", "-", "-Xfetch", "-Z", compress]));
        let stream: Box<dyn Read> = match compress {
            "none" => Box::new(&output.stdout[..]),
            "client-zstd" => Box::new(zstd::stream::read::Decoder::new(&output.stdout[..]).unwrap()),
            _ => Box::new(flate2::read::GzDecoder::new(&output.stdout[..])),
        };
        let whole = site.path(&format!("whole-{compress}"));
        std::fs::create_dir(&whole).unwrap();
        tar::Archive::new(stream).unpack(&whole).unwrap();
        site.installation.give(&whole);
        site.verify(&whole, &[]);
    }
}
