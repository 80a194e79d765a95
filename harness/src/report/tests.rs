//! Every report of the same run.

use std::collections::BTreeMap;
use std::time::Duration;

use backstop_mock::transcript::{self, Direction};

use super::*;
use crate::event::Finished;
use crate::verdict::{Check, Level, Summary, Verdict};

fn case(id: &str, client: &str) -> CaseRef {
    CaseRef { id: id.to_owned(), client: client.to_owned(), server: "mock".to_owned(), path: "scenarios/x.toml".into() }
}

fn check(name: &str, expected: &str, actual: &str, level: Level) -> Check {
    let ok = expected == actual;
    Check { check: name.to_owned(), expected: expected.to_owned(), actual: actual.to_owned(), ok, level }
}

fn finished(case: CaseRef, verdict: Verdict, checks: Vec<Check>) -> Finished {
    let elapsed = Duration::from_micros(12_345);
    Finished {
        case,
        verdict,
        checks,
        known: None,
        elapsed,
        seed: 7,
        transcript: Vec::new(),
        line: None,
        lines: BTreeMap::new(),
        said: Vec::new(),
        kept: None,
    }
}

fn said(at: u64, direction: Direction, message: &'static str, detail: &str) -> transcript::Event {
    transcript::Event { at, session: 1, direction, message, detail: detail.to_owned(), count: 1, bytes: 0 }
}

/// A run with two clients in which about everything happens.
fn events() -> Vec<Event> {
    let clients = ["builtin", "exec=tool -D {dir}"];
    let sound = || vec![check("expect.backup.must.outcome", "success", "success", Level::Must)];
    let corrupt = Finished {
        transcript: vec![
            said(10_000, Direction::Sent, "CopyData", "n base.tar"),
            said(11_000, Direction::Note, "fault", "truncate"),
            said(12_000, Direction::Received, "Query", "</script><!-- x"),
        ],
        line: Some(9),
        lines: [("expect.backup.must.outcome".to_owned(), 9)].into(),
        said: vec![("backup".to_owned(), "backup \u{1b}[31mcompleted\u{1b}[0m\n<ok> & done\n".to_owned())],
        kept: Some("/tmp/kept/tar-empty".into()),
        ..finished(
            case("tar/tar-empty-archive[server.version=18]", clients[1]),
            Verdict::SilentCorruption,
            vec![
                check("expect.backup.must.outcome", "failure", "success", Level::Must),
                check("complete", "every member of the manifest", "base/5/1259 is missing", Level::Law),
                check("outside", "unchanged", "unchanged", Level::Law),
            ],
        )
    };
    let weak = vec![check("expect.backup.should.within", "at most 10s", "12s", Level::Should)];
    let mut summary = Summary::default();
    for verdict in [Verdict::Pass, Verdict::Pass, Verdict::Pass, Verdict::SilentCorruption, Verdict::Weak] {
        summary.count(verdict);
    }
    summary.count_known(Verdict::Fail);
    summary.count_skipped();
    let finish = |finished| Event::CaseFinished(Box::new(finished));
    vec![
        Event::RunStarted {
            cases: 5,
            clients: clients.map(ToOwned::to_owned).into(),
            server: "mock".to_owned(),
            jobs: 2,
        },
        Event::CaseStarted(case("sound/plain", clients[0])),
        finish(corrupt),
        finish(finished(case("sound/plain", clients[0]), Verdict::Pass, sound())),
        finish(Finished {
            known: Some("it trusts headers (#7)".to_owned()),
            ..finished(case("tar/tar-bad-header", clients[1]), Verdict::Fail, weak.clone())
        }),
        finish(finished(case("sound/plain", clients[1]), Verdict::Weak, weak)),
        Event::Skipped { case: case("wal/slot", clients[1]), reason: "it has no slots".to_owned() },
        Event::Progress { case: case("crash/everywhere", clients[0]), phase: "recording".to_owned() },
        Event::CasesFound { case: case("crash/everywhere", clients[0]), cases: 2 },
        finish(finished(case("crash/everywhere[1]", clients[0]), Verdict::Pass, sound())),
        finish(finished(case("crash/everywhere[2]", clients[0]), Verdict::Pass, sound())),
        Event::RunFinished { summary, elapsed: Duration::from_millis(2_500), cancelled: false },
    ]
}

fn feed(mut report: impl Report, events: &[Event]) {
    for event in events {
        report.event(event).expect("a Vec takes everything");
    }
}

fn utf8(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("reports are UTF-8")
}

/// What a terminal report writes where there is no terminal.
fn plain(events: &[Event]) -> String {
    let mut out = Vec::new();
    feed(Terminal::new(anstream::StripStream::new(&mut out as &mut dyn Write), false), events);
    utf8(out)
}

#[test]
fn the_terminal_shows_what_is_wrong_and_how_to_run_it_again() {
    insta::assert_snapshot!(plain(&events()), @r#"
    5 cases, builtin, exec=tool -D {dir} against mock
     CORRUPT   0.012s tar/tar-empty-archive[server.version=18] (exec=tool -D {dir})
             expect.backup.must.outcome scenarios/x.toml:9
               expected failure
               seen     success
             law: complete
               expected every member of the manifest
               seen     base/5/1259 is missing
             backup said:
               backup �[31mcompleted�[0m
               <ok> & done
             transcript:
                   0.010 #1 > CopyData n base.tar
                   0.011 #1 ! fault truncate
                   0.012 #1 < Query </script><!-- x
             kept in /tmp/kept/tar-empty
             again: backstop run 'tar/tar-empty-archive[server.version=18]' --client 'exec=tool -D {dir}' --seed 7
        pass   0.012s sound/plain (builtin)
       known   0.012s tar/tar-bad-header (exec=tool -D {dir}): fail, it trusts headers (#7)
        weak   0.012s sound/plain (exec=tool -D {dir})
             expect.backup.should.within
               expected at most 10s
               seen     12s
             again: backstop run sound/plain --client 'exec=tool -D {dir}' --seed 7
        skip wal/slot (exec=tool -D {dir}): it has no slots
        pass crash/everywhere (builtin): 2 steps

                                              builtin  exec=tool -D {dir}
    crash/everywhere                          pass     -
    sound/plain                               pass     weak
    tar/tar-bad-header                        -        FAIL
    tar/tar-empty-archive[server.version=18]  -        CORRUPT
    wal/slot                                  -        skip

    7 cases: 3 passed, 1 weak, 1 failed, 1 silent corruption, 1 skipped, 1 of them known in 2.50 s (2.4 cases/s; in memory 162.0)
    "#);
}

#[test]
fn colours_are_removed_where_there_is_no_terminal() {
    let mut out = Vec::new();
    feed(Terminal::new(&mut out, false), &events());
    let coloured = utf8(out);
    assert!(coloured.contains("\u{1b}[1m\u{1b}[31m CORRUPT"), "{coloured:?}");
    assert!(!plain(&events()).contains('\u{1b}'));
}

#[test]
fn one_client_has_no_matrix() {
    let events = [
        Event::RunStarted { cases: 1, clients: vec!["builtin".to_owned()], server: "mock".to_owned(), jobs: 2 },
        Event::RunFinished { summary: Summary::default(), elapsed: Duration::from_secs(1), cancelled: true },
    ];
    insta::assert_snapshot!(plain(&events), @r#"
    1 case, builtin against mock
    cancelled: the other cases did not run
    0 cases: nothing ran in 1.00 s (0.0 cases/s)
    "#);
}

#[test]
fn of_many_cases_that_are_skipped_for_one_reason_some_are_named() {
    let skip = |id: &str, reason: &str| Event::Skipped { case: case(id, "builtin"), reason: reason.to_owned() };
    let mut events =
        vec![Event::RunStarted { cases: 7, clients: vec!["builtin".to_owned()], server: "url".to_owned(), jobs: 1 }];
    events
        .extend(["a", "b", "c", "d", "e", "f"].map(|id| skip(id, "the server is PostgreSQL 15, the scenario's is 18")));
    events.push(skip("g", "it has no slots"));
    let mut summary = Summary::default();
    (0..7).for_each(|_| summary.count_skipped());
    events.push(Event::RunFinished { summary, elapsed: Duration::from_secs(1), cancelled: false });
    insta::assert_snapshot!(plain(&events), @r"
    7 cases, builtin against url
        skip a: the server is PostgreSQL 15, the scenario's is 18
        skip b: the server is PostgreSQL 15, the scenario's is 18
        skip c: the server is PostgreSQL 15, the scenario's is 18
        skip g: it has no slots
        skip 3 more cases: the server is PostgreSQL 15, the scenario's is 18
    7 cases: 7 skipped in 1.00 s (0.0 cases/s)
    ");
}

#[test]
fn json_has_its_documented_shape() {
    let mut out = Vec::new();
    feed(Json::new(&mut out), &events());
    insta::assert_snapshot!(utf8(out), @r#"
    {
      "schema": 1,
      "summary": {
        "total": 7,
        "passed": 3,
        "weak": 1,
        "failed": 1,
        "silent_corruption": 1,
        "hung": 0,
        "escaped": 0,
        "crashed": 0,
        "skipped": 1,
        "seconds": 2.5
      },
      "cases": [
        {
          "id": "crash/everywhere[1]",
          "client": "builtin",
          "server": "mock",
          "verdict": "pass",
          "checks": [
            {
              "check": "expect.backup.must.outcome",
              "expected": "success",
              "actual": "success",
              "ok": true
            }
          ],
          "seconds": 0.012345
        },
        {
          "id": "crash/everywhere[2]",
          "client": "builtin",
          "server": "mock",
          "verdict": "pass",
          "checks": [
            {
              "check": "expect.backup.must.outcome",
              "expected": "success",
              "actual": "success",
              "ok": true
            }
          ],
          "seconds": 0.012345
        },
        {
          "id": "sound/plain",
          "client": "builtin",
          "server": "mock",
          "verdict": "pass",
          "checks": [
            {
              "check": "expect.backup.must.outcome",
              "expected": "success",
              "actual": "success",
              "ok": true
            }
          ],
          "seconds": 0.012345
        },
        {
          "id": "sound/plain",
          "client": "exec=tool -D {dir}",
          "server": "mock",
          "verdict": "weak",
          "checks": [
            {
              "check": "expect.backup.should.within",
              "expected": "at most 10s",
              "actual": "12s",
              "ok": false
            }
          ],
          "seconds": 0.012345
        },
        {
          "id": "tar/tar-bad-header",
          "client": "exec=tool -D {dir}",
          "server": "mock",
          "verdict": "fail",
          "checks": [
            {
              "check": "expect.backup.should.within",
              "expected": "at most 10s",
              "actual": "12s",
              "ok": false
            }
          ],
          "seconds": 0.012345
        },
        {
          "id": "tar/tar-empty-archive[server.version=18]",
          "client": "exec=tool -D {dir}",
          "server": "mock",
          "verdict": "silent_corruption",
          "checks": [
            {
              "check": "expect.backup.must.outcome",
              "expected": "failure",
              "actual": "success",
              "ok": false
            },
            {
              "check": "complete",
              "expected": "every member of the manifest",
              "actual": "base/5/1259 is missing",
              "ok": false
            },
            {
              "check": "outside",
              "expected": "unchanged",
              "actual": "unchanged",
              "ok": true
            }
          ],
          "seconds": 0.012345
        },
        {
          "id": "wal/slot",
          "client": "exec=tool -D {dir}",
          "server": "mock",
          "verdict": "skipped",
          "checks": [
            {
              "check": "skipped",
              "expected": "",
              "actual": "it has no slots",
              "ok": true
            }
          ],
          "seconds": 0.0
        }
      ]
    }
    "#);
}

#[test]
fn junit_has_a_suite_for_each_client() {
    let mut out = Vec::new();
    feed(Junit::new(&mut out), &events());
    insta::assert_snapshot!(utf8(out), @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <testsuites name="backstop" tests="7" skipped="2" failures="1" errors="0" time="2.500">
        <testsuite name="builtin" tests="3" skipped="0" errors="0" failures="0" time="0.037">
            <testcase name="crash/everywhere[1]" classname="crash" time="0.012"/>
            <testcase name="crash/everywhere[2]" classname="crash" time="0.012"/>
            <testcase name="sound/plain" classname="sound" time="0.012"/>
        </testsuite>
        <testsuite name="exec=tool -D {dir}" tests="4" skipped="2" errors="0" failures="1" time="0.037">
            <testcase name="sound/plain" classname="sound" time="0.012"/>
            <testcase name="tar/tar-bad-header" classname="tar" time="0.012">
                <skipped message="known fail: it trusts headers (#7)" type="fail"/>
            </testcase>
            <testcase name="tar/tar-empty-archive[server.version=18]" classname="tar" time="0.012">
                <failure message="expect.backup.must.outcome (scenarios/x.toml:9): expected failure, was success" type="silent_corruption">expect.backup.must.outcome (scenarios/x.toml:9): expected failure, was success
    complete: expected every member of the manifest, was base/5/1259 is missing

    backup said:
    backup completed
    &lt;ok&gt; &amp; done

    transcript:
        0.010 #1 &gt; CopyData n base.tar
        0.011 #1 ! fault truncate
        0.012 #1 &lt; Query &lt;/script&gt;&lt;!-- x

    again: backstop run &apos;tar/tar-empty-archive[server.version=18]&apos; --client &apos;exec=tool -D {dir}&apos; --seed 7</failure>
            </testcase>
            <testcase name="wal/slot" classname="wal" time="0.000">
                <skipped message="it has no slots"/>
            </testcase>
        </testsuite>
    </testsuites>
    "#);
}

#[test]
fn tap_tells_people_and_programs() {
    let mut out = Vec::new();
    feed(Tap::new(&mut out), &events());
    insta::assert_snapshot!(utf8(out), @r#"
    TAP version 14
    not ok 1 - tar/tar-empty-archive[server.version=18] (exec=tool -D {dir})
      ---
      verdict: silent_corruption
      at: "scenarios/x.toml:9"
      failed:
        - "expect.backup.must.outcome (scenarios/x.toml:9): expected failure, was success"
        - "complete: expected every member of the manifest, was base/5/1259 is missing"
      said:
        - "backup: backup \u001b[31mcompleted\u001b[0m"
        - "backup: <ok> & done"
      transcript:
        - "    0.010 #1 > CopyData n base.tar"
        - "    0.011 #1 ! fault truncate"
        - "    0.012 #1 < Query </script><!-- x"
      again: "backstop run 'tar/tar-empty-archive[server.version=18]' --client 'exec=tool -D {dir}' --seed 7"
      ...
    ok 2 - sound/plain (builtin)
    not ok 3 - tar/tar-bad-header (exec=tool -D {dir}) # TODO it trusts headers (\#7)
    ok 4 - sound/plain (exec=tool -D {dir})
      ---
      verdict: weak
      failed:
        - "expect.backup.should.within: expected at most 10s, was 12s"
      again: "backstop run sound/plain --client 'exec=tool -D {dir}' --seed 7"
      ...
    ok 5 - wal/slot (exec=tool -D {dir}) # SKIP it has no slots
    ok 6 - crash/everywhere[1] (builtin)
    ok 7 - crash/everywhere[2] (builtin)
    1..7
    "#);
}

#[test]
fn annotations_point_at_the_line_of_the_scenario() {
    let mut out = Vec::new();
    feed(Github::new(&mut out), &events());
    insta::assert_snapshot!(utf8(out), @r#"
    ::error file=scenarios/x.toml,line=9,title=tar/tar-empty-archive[server.version=18] (exec=tool -D {dir})%3A silent corruption::expect.backup.must.outcome (scenarios/x.toml:9): expected failure, was success%0Acomplete: expected every member of the manifest, was base/5/1259 is missing%0Aagain: backstop run 'tar/tar-empty-archive[server.version=18]' --client 'exec=tool -D {dir}' --seed 7
    ::warning file=scenarios/x.toml,line=1,title=sound/plain (exec=tool -D {dir})%3A weak::expect.backup.should.within: expected at most 10s, was 12s%0Aagain: backstop run sound/plain --client 'exec=tool -D {dir}' --seed 7
    "#);
}

#[test]
fn the_page_holds_everything_and_fetches_nothing() {
    let mut out = Vec::new();
    feed(Html::new(&mut out), &events());
    let page = utf8(out);
    let (_, data) = page.split_once(r#"<script type="application/json" id="data">"#).expect("data");
    let (data, rest) = data.split_once("</script>").expect("the end of the data");
    let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
    let cases = data["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 7);
    let corrupt = cases.iter().find(|case| case["verdict"] == "silent_corruption").expect("the corrupt one");
    let messages = &corrupt["details"]["messages"];
    assert_eq!(messages[1]["kind"], "fault");
    // What a client sends must not end the script that holds it.
    assert_eq!(messages[2]["detail"], "</script><!-- x");
    assert_eq!(corrupt["details"]["place"], "scenarios/x.toml:9");
    assert!(cases.iter().filter(|case| case["verdict"] == "pass").all(|case| case.get("details").is_none()));
    assert_eq!(rest.matches("</script>").count(), 1, "the script of the page and nothing else");
    // The only address in the page is the name of SVG.
    let addresses: Vec<_> = page.match_indices("://").map(|(at, _)| &page[at..(at + 20).min(page.len())]).collect();
    assert_eq!(addresses, ["://www.w3.org/2000/s"]);
}

#[test]
fn report_specs_round_trip() {
    for text in ["junit=out.xml", "json=-", "json=a=b", "tap=-", "html=x.html", "github=-"] {
        assert_eq!(text.parse::<ReportSpec>().expect(text).to_string(), text);
    }
    for text in ["", "junit", "json=", "xml=-", "=x"] {
        assert!(text.parse::<ReportSpec>().is_err(), "{text:?}");
    }
}

#[test]
fn the_command_is_one_that_a_shell_reads_back() {
    let case = case("crash/everywhere[server.version=15][137]", "exec=it's {dir}");
    assert_eq!(
        again(&case, 7),
        r"backstop run 'crash/everywhere[server.version=15][137]' --client 'exec=it'\''s {dir}' --seed 7"
    );
}

#[test]
fn a_long_transcript_is_shown_around_the_fault_and_at_its_end() {
    let mut transcript: Vec<_> = (0..200).map(|at| said(at * 1000, Direction::Sent, "CopyData", "d")).collect();
    transcript[50] = said(50_000, Direction::Note, "fault", "truncate");
    let finished = Finished { transcript, ..finished(case("x", "builtin"), Verdict::Fail, Vec::new()) };
    let lines = shown(&finished);
    assert_eq!(lines.len(), 1 + SHOWN_AROUND + 1 + SHOWN_END);
    assert_eq!(lines[0].trim(), "… 40 more …");
    assert!(lines[11].ends_with("! fault truncate"), "{lines:?}");
    assert_eq!(lines[21].trim(), "… 134 more …");
    assert!(lines[27].contains("0.199"), "{lines:?}");
}
