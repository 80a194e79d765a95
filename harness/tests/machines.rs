//! Clients that start at points and whose machines are struck: what never happened fails the case.

mod support;

use backstop::event::Finished;
use backstop::plan::SubjectSpec;
use backstop::subject::signals::is_ignored;
use backstop::verdict::Verdict;
use backstop_mock::fault::Signal;
use support::one_case::{hasty_client, verdict};

fn failed(finished: &Finished) -> Vec<&str> {
    finished.checks.iter().filter(|check| !check.ok).map(|check| check.check.as_str()).collect()
}

#[test]
fn a_client_that_never_starts_fails_its_case() {
    let text = r#"
summary = "The second client waits for what does not come"
because = "A story that was not told proves nothing"
[cluster]
size = "512KiB"
[[client]]
name = "first"
[[client]]
name = "second"
starts.message = { client = "first", n = 1000000 }
"#;
    let finished = verdict(text, SubjectSpec::Builtin);
    assert_eq!((finished.verdict, failed(&finished)), (Verdict::Fail, vec!["every fault fires"]));
}

#[test]
fn a_fault_on_a_machine_that_never_strikes_fails_its_case() {
    let text = r#"
summary = "The disk never fills"
because = "A story that was not told proves nothing"
[cluster]
size = "512KiB"
[[client]]
name = "backup"
wal = "fetch"
[[fault]]
when.member = { path = "no/such/file" }
do.fill-disk = {}
"#;
    let finished = verdict(text, SubjectSpec::Builtin);
    assert_eq!((finished.verdict, failed(&finished)), (Verdict::Fail, vec!["every fault fires"]));
}

#[test]
fn a_program_gets_its_signal() {
    let text = |signal: &str| {
        format!(
            r#"
summary = "Somebody stops the program"
because = "The server has to hear of it, and nothing may look finished"
[server]
version = "15"
[cluster]
size = "512KiB"
[[client]]
name = "backup"
wal = "none"
[[fault]]
when.archive-data = {{ archive = "base.tar", at = "50%" }}
do.kill-client = {{ client = "backup", signal = "{signal}" }}
[expect.backup]
must.outcome = "killed"
[expect.server]
must.sessions = 0
"#
        )
    };
    for (signal, number) in
        [("SIGINT", Signal::Int), ("SIGTERM", Signal::Term), ("SIGHUP", Signal::Hup), ("SIGKILL", Signal::Kill)]
    {
        if is_ignored(number) {
            println!("skipped: a program gets {signal}: whoever started this test has it ignored");
            continue;
        }
        let finished = verdict(&text(signal), hasty_client());
        assert_eq!(failed(&finished), Vec::<&str>::new(), "{signal}: {:?}", finished.said);
    }
}
