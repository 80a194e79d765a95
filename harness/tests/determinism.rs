//! The same case and seed give the same transcript, byte for byte.

use std::path::Path;

use backstop::plan::SubjectSpec;
use backstop::runner;
use backstop::scenario::select::Selection;

#[test]
fn every_scenario_run_twice_gives_the_same_transcript() {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let selection = Selection { root: scenarios, ..Selection::default() };
    let cases = selection.cases().expect("valid scenarios");
    assert!(cases.len() > 30, "only {} cases", cases.len());
    for case in &cases {
        let transcript = || {
            let record = runner::record(case, &SubjectSpec::Builtin, None);
            record.unwrap_or_else(|error| panic!("{}: {error}", case.id)).transcript
        };
        let (first, second) = (transcript(), transcript());
        assert!(!first.is_empty(), "{}: nothing was said", case.id);
        for (line, (first, second)) in first.iter().zip(&second).enumerate() {
            assert_eq!(first, second, "{}, line {}", case.id, line + 1);
        }
        assert_eq!(first.len(), second.len(), "{}", case.id);
    }
}
