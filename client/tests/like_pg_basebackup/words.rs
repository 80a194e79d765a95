//! What both tools say of command lines that they refuse, and what they tell of a backup.

use super::site::{Site, Tool, said};
use backstop_scenarios::postgres::succeed;

/// Command lines that are refused before any server is asked.
const REFUSED: &[&[&str]] = &[
    &[],
    &["-D", "/x", "y"],
    &["-D", "/x", "--nosuch"],
    &["-D", "/x", "-Fz"],
    &["-D", "/x", "-Xwrong"],
    &["-D", "/x", "-c", "slow"],
    &["-D", "-", "-Ft"],
    &["-D", "/x", "-X", "none", "-S", "s"],
    &["-D", "/x", "--no-slot", "-S", "s"],
    &["-D", "/x", "-C"],
    &["-D", "/x", "-Ft", "--waldir", "/w"],
    &["-D", "/x", "--waldir", "w"],
    &["-D", "/x", "-P", "--no-estimate-size"],
    &["-D", "/x", "--no-manifest", "--manifest-checksums=none"],
    &["-D", "/x", "--no-manifest", "--manifest-force-encode"],
    &["-D", "/x", "-z"],
    &["-D", "/x", "-t", "blackhole"],
    &["-t", "blackhole"],
    &["-t", "blackhole", "-Fp", "-Xnone"],
    &["-t", "blackhole", "-Xnone", "-Z", "client-gzip"],
    &["-t", "blackhole", "-Xnone", "--waldir", "/w"],
    &["-D", "/x", "-Ft", "-Z", "none:1"],
    &["-D", "/x", "-Ft", "-Z", "none+"],
    &["-D", "/x", "-Ft", "-Z", "gzip:"],
    &["-D", "/x", "-Ft", "-Z", "gzip:level=9,"],
    &["-D", "/x", "-Ft", "-Z", "gzip:thunk"],
    &["-D", "/x", "-Ft", "-Z", "gzip:level"],
    &["-D", "/x", "-Ft", "-Z", "gzip:level="],
    &["-D", "/x", "-Ft", "-Z", "gzip:level=high"],
    &["-D", "/x", "-Ft", "-Z", "gzip:236"],
    &["-D", "/x", "-Ft", "-Z", "gzip:workers=3"],
    &["-D", "/x", "-T", "=/foo"],
    &["-D", "/x", "-T", "/foo="],
    &["-D", "/x", "-T", "/foo"],
    &["-D", "/x", "-T", "/foo=/bar=/baz"],
    &["-D", "/x", "-T", "foo=/bar"],
    &["-D", "/x", "-T", "/foo=bar"],
    &["-D", "/x", "-r", "31"],
    &["-D", "/x", "-r", "1T"],
    &["-D", "/x", "-s", "-1"],
    &["-D", "/x", "-d", "postgres"],
    &["-D", "/x", "--sync-method=never"],
    &["-D", "/x", "-C", "-S", "s", "--no-slot"],
    &["-D", "/x", "-Ft", "-Z", "gzip:long"],
    &["-D", "/x", "-Ft", "-Z", "snappy"],
];

#[test]
fn mistakes_are_told_in_the_same_words() {
    // 18 has options that 15 does not have, and other words for some.
    let Some(site) = Site::new(18, &[]) else { return };
    let mut differing = Vec::new();
    for arguments in REFUSED {
        let (ours, theirs) = (site.refused(Tool::Ours, arguments), site.refused(Tool::Theirs, arguments));
        // The hint says how the program was called.
        let plain = |text: &str| text.replace(&format!("{}/", site.path("bin").display()), "").replace('"', "'");
        let program = site.installation.path("pg_basebackup").display().to_string();
        if plain(&ours) != plain(&theirs).replace(&program, "pg_basebackup") {
            differing.push(format!("{arguments:?}\n  ours:   {ours}  theirs: {theirs}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.concat());
}

/// The numbers in a text, and the identifier of the process in a slot's name, are of the moment.
pub(super) fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '0'..='9' | 'A'..='F' if out.ends_with('N') => {}
            '0'..='9' => out.push('N'),
            c => out.push(c),
        }
    }
    out
}

#[test]
fn a_verbose_backup_tells_the_same_story() {
    for major in [15, 18] {
        let Some(site) = Site::new(major, &[]) else { continue };
        for (index, arguments) in [&["-Fp"][..], &["-Ft"], &["-Ft", "-Xfetch"]].into_iter().enumerate() {
            let told = |tool: Tool, name: &str| {
                let target = site.path(name);
                let mapping = format!("{}={}", site.path("ts").display(), site.path(&format!("{name}.ts")).display());
                let arguments =
                    [&["-v", "-c", "fast", "-D", target.to_str().unwrap(), "-T", &mapping][..], arguments].concat();
                let text = without_numbers(&said(&succeed(&mut site.tool(tool, &arguments))));
                // The WAL receiver is a process of its own there, and its words may come earlier or later.
                let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            let (ours, theirs) = (told(Tool::Ours, &format!("o{index}")), told(Tool::Theirs, &format!("t{index}")));
            assert_eq!(ours, theirs, "{major} {arguments:?}");
        }
    }
}
