//! The HTML report is a program in a page: a real browser draws it here, where there is one.
//!
//! The browser is the one that `BACKSTOP_BROWSER` names, else a Chromium on the path. Where `BACKSTOP_REQUIRE_BROWSER` is 1
//! there must be one.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use assert_cmd::cargo::cargo_bin_cmd;

fn browser() -> Option<PathBuf> {
    if let Some(named) = env::var_os("BACKSTOP_BROWSER") {
        return Some(named.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    env::split_paths(&path).flat_map(|directory| names.map(|name| directory.join(name))).find(|file| file.is_file())
}

/// The page's text after its script ran.
fn drawn(browser: &Path, scratch: &Path, address: &str) -> String {
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", scratch.join("profile").display())).arg(address).env("HOME", scratch);
    let output = command.output().expect("a browser that starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_browser_draws_the_matrix_and_the_details_of_a_failure() {
    let Some(browser) = browser() else {
        assert_ne!(env::var("BACKSTOP_REQUIRE_BROWSER").as_deref(), Ok("1"), "there is no browser");
        println!("skipped: the HTML report in a browser: no Chromium on the path (set BACKSTOP_BROWSER)");
        return;
    };
    let scratch = tempfile::tempdir().expect("a directory");
    let (page, scenario) = (scratch.path().join("report.html"), scratch.path().join("story.toml"));
    // A sound client does not fail here, as this story demands.
    let story = "summary = \"x\"\nbecause = \"y\"\n[[client]]\nname = \"backup\"\n[[fault]]\nwhen.copy-done = {}\n\
                 do.notice = { message = \"all is well\" }\n[expect.backup]\nmust.outcome = \"failure\"\n";
    std::fs::write(&scenario, story).expect("a scenario");
    let report = format!("html={}", page.display());
    let run = cargo_bin_cmd!("backstop").arg("run").arg(&scenario).args(["--report", &report]).output().expect("a run");
    assert_eq!(run.status.code(), Some(100), "{}", String::from_utf8_lossy(&run.stdout));

    let address = format!("file://{}", page.display());
    let matrix = drawn(&browser, scratch.path(), &address);
    assert!(matrix.contains(r#"<td class="verdict fail">"#), "{matrix}");
    assert!(matrix.contains(r#"<section id="details" aria-live="polite" hidden="">"#), "{matrix}");

    let (_, id) = matrix.split_once(r#"<td class="case">"#).expect("a row");
    let id = id.split('<').next().expect("an id").replace('/', "%2F");
    let details = drawn(&browser, scratch.path(), &format!("{address}#{id}%20builtin"));
    let place = format!(r#"expect.backup.must.outcome<span class="place">{}:9</span></p>"#, scenario.display());
    assert!(details.contains(&place), "{details}");
    assert!(details.contains(r#"class="message fault chosen""#), "{details}");
    assert!(details.contains("fault notice"), "{details}");
}
