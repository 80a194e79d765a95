//! The same case and seed give the same transcript, byte for byte. Here a few cases of each area; the gate compares all.

use std::collections::BTreeMap;
use std::path::Path;

use backstop::plan::SubjectSpec;
use backstop::runner;
use backstop::scenario::Case;
use backstop::scenario::select::Selection;

/// Cases on larger clusters take long without optimisation, and differ in nothing else.
const LARGEST: u64 = 1 << 20;

/// Of each area the first, a middle and the last scenario with a small cluster.
fn chosen(cases: &[Case]) -> Vec<&Case> {
    let mut areas: BTreeMap<&str, Vec<&Case>> = BTreeMap::new();
    for case in cases.iter().filter(|case| case.scenario.cluster.size.0 <= LARGEST) {
        let area = areas.entry(case.scenario_id().split('/').next().unwrap_or_default()).or_default();
        if area.last().is_none_or(|last| last.scenario_id() != case.scenario_id()) {
            area.push(case);
        }
    }
    let some = areas.into_values().flat_map(|area| {
        let mut indexes = vec![0, area.len() / 2, area.len() - 1];
        indexes.dedup();
        indexes.into_iter().map(move |index| area[index]).collect::<Vec<_>>()
    });
    some.collect()
}

#[test]
fn cases_of_every_area_run_twice_give_the_same_transcript() {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let selection = Selection { root: scenarios, ..Selection::default() };
    let cases = selection.cases().expect("valid scenarios");
    let chosen = chosen(&cases);
    assert!(chosen.len() > 30, "only {} cases", chosen.len());
    for case in chosen {
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
