//! Do the scenarios notice? Deliberately broken clients run against them, and each has to be caught by one at least.
//!
//! A mutant is the built-in client with one of its decisions switched off ([`Mutation`]). The sound client runs behind them:
//! what refuses everybody has caught nobody.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use backstop_client::{Mutation, Weakness};

use crate::runner::{self, RunError};
use crate::scenario::Case;
use crate::scenario::sweep;
use crate::verdict::{Check, Verdict};

/// A case that a client failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// The case.
    pub case: String,
    /// How bad it was.
    pub verdict: Verdict,
    /// The first check that failed, and what was seen instead.
    pub because: String,
}

/// What became of a client.
#[derive(Debug)]
pub struct Fate {
    /// What is wrong with it; nothing for the sound client.
    pub mutation: Option<Mutation>,
    /// How many cases it ran through.
    pub ran: usize,
    /// Those that it failed, the first only unless all were asked for.
    pub kills: Vec<Kill>,
}

impl Fate {
    /// Whether it is what it should be: a mutant that died, a sound client that did not.
    pub fn is_deserved(&self) -> bool {
        self.kills.is_empty() == self.mutation.is_none()
    }
}

/// Runs each of `mutations`, and then the sound client, against `cases`, `jobs` clients at a time, and tells of each, in this order.
/// A mutant stops at the first case that it fails, unless `all` are wanted; the cheapest cases come first.
///
/// # Errors
/// The environment, as in [`runner::run`].
pub fn run(
    mut cases: Vec<Case>,
    mutations: &[Mutation],
    all: bool,
    jobs: usize,
    mut tell: impl FnMut(&Fate),
) -> Result<(), RunError> {
    cases.sort_by_key(cost);
    let clients: Vec<Option<Mutation>> = mutations.iter().copied().map(Some).chain([None]).collect();
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (sender, clients, cases, next) = (sender.clone(), &clients, &cases, &next);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(mutation) = clients.get(index) else { return };
                    // Whoever stopped listening has met an error, and wants no more of this.
                    if sender.send((index, fate(cases, *mutation, all))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut told = 0;
        for (index, fate) in receiver {
            early.insert(index, fate?);
            while let Some(fate) = early.remove(&told) {
                tell(&fate);
                told += 1;
            }
        }
        Ok(())
    })
}

/// What a case costs, roughly: a sweep is many cases, and a cluster has to be copied.
fn cost(case: &Case) -> (bool, u64) {
    let cluster = &case.scenario.cluster;
    let tablespaces = cluster.tablespaces.iter().map(|tablespace| tablespace.size.0);
    (sweep::is_sweep(&case.scenario), tablespaces.fold(cluster.size.0, u64::saturating_add))
}

fn fate(cases: &[Case], mutation: Option<Mutation>, all: bool) -> Result<Fate, RunError> {
    let mut fate = Fate { mutation, ran: 0, kills: Vec::new() };
    let weakness = mutation.map_or(Weakness::NONE, Weakness::of);
    for case in cases {
        runner::judge_builtin(case, weakness, &mut |case, verdict, checks| {
            fate.ran += 1;
            if verdict.is_failure(false) {
                fate.kills.push(Kill { case: case.id.clone(), verdict, because: reason(checks) });
            }
            all || mutation.is_none() || fate.kills.is_empty()
        })?;
        if !all && mutation.is_some() && !fate.kills.is_empty() {
            break;
        }
    }
    Ok(fate)
}

fn reason(checks: &[Check]) -> String {
    let failed = checks.iter().find(|check| !check.ok);
    failed.map(|check| format!("{}: {}", check.check, check.actual)).unwrap_or_default()
}
