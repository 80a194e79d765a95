//! Two programs that take turns.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::Serialize;

use super::CompareError;
use super::process::{Usage, cores, measure};
use super::servers::Serves;

/// Puts into a directory what must be there.
pub type Prepare<'a> = dyn Fn(&Path) -> std::io::Result<()> + 'a;

/// One side of a comparison.
pub struct Arm<'a> {
    /// `pg_basebackup 15`.
    pub label: String,
    /// Bytes that go through.
    pub bytes: u64,
    /// What the program talks to, if it talks to anybody.
    pub server: Option<&'a dyn Serves>,
    /// Whether it may use every core. Else it runs on the last one, and its server on the first.
    pub all_cores: bool,
    /// Puts into the given empty directory what must be there. Not measured.
    pub prepare: Box<Prepare<'a>>,
    /// The program that works in the given directory.
    pub command: Box<dyn Fn(&Path) -> Command + 'a>,
}

/// Ours and another program, on the same data.
pub struct Comparison<'a> {
    /// What `--only` calls it: `client-tar-mock`.
    pub name: String,
    /// What is done, in a line.
    pub what: String,
    /// Our side.
    pub ours: Arm<'a>,
    /// The yardstick.
    pub theirs: Arm<'a>,
    /// What is aimed at.
    pub targets: Vec<Target>,
}

/// A ratio that is aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Target {
    /// Of what.
    pub metric: Metric,
    /// Ours by theirs, at most.
    pub at_most: f64,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Time by the clock.
    Wall,
    /// CPU time of the program.
    ClientCpu,
    /// CPU time of its server.
    ServerCpu,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Wall, Self::ClientCpu, Self::ServerCpu];

    /// `client CPU`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wall => "wall",
            Self::ClientCpu => "client CPU",
            Self::ServerCpu => "server CPU",
        }
    }
}

/// Medians of one side.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Measured {
    /// Which program.
    pub label: String,
    /// Bytes that went through.
    pub bytes: u64,
    /// Seconds by the clock.
    pub wall: f64,
    /// 10⁹ bytes in a second.
    pub gigabytes_per_second: f64,
    /// Seconds of CPU for 10⁹ bytes.
    pub client_cpu_per_gigabyte: f64,
    /// The same, of the server.
    pub server_cpu_per_gigabyte: Option<f64>,
    /// CPU seconds of both ends in a second.
    pub busy: f64,
    /// The most memory resident, in bytes.
    pub client_peak_rss: u64,
    /// The same, of the server, where it is one process.
    pub server_peak_rss: Option<u64>,
}

/// What came out of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// What was done.
    pub what: String,
    /// Rounds that count.
    pub rounds: usize,
    /// Our side.
    pub ours: Measured,
    /// The yardstick.
    pub theirs: Measured,
    /// Ours by theirs: the median of the rounds' ratios.
    pub ratios: Vec<(Metric, f64)>,
    /// Our best round by their best: what disturbs a machine only ever makes a round worse.
    pub best_ratios: Vec<(Metric, f64)>,
    /// What was aimed at.
    pub targets: Vec<Target>,
}

impl Outcome {
    /// The ratio of a metric, if both sides have it.
    pub fn ratio(&self, metric: Metric) -> Option<f64> {
        find(&self.ratios, metric)
    }

    /// The same of the best rounds.
    pub fn best_ratio(&self, metric: Metric) -> Option<f64> {
        find(&self.best_ratios, metric)
    }
}

fn find(ratios: &[(Metric, f64)], metric: Metric) -> Option<f64> {
    ratios.iter().find(|(of, _)| *of == metric).map(|(_, ratio)| *ratio)
}

#[derive(Clone, Copy)]
struct Round {
    client: Usage,
    server: Option<Duration>,
}

impl Round {
    fn seconds(&self, metric: Metric) -> Option<f64> {
        let time = match metric {
            Metric::Wall => self.client.wall,
            Metric::ClientCpu => self.client.cpu,
            Metric::ServerCpu => self.server?,
        };
        Some(time.as_secs_f64())
    }
}

/// Runs `rounds` rounds of both sides, and one before that does not count. Targets lie below `scratch`.
///
/// # Errors
/// A program that cannot be started or fails.
pub(super) fn run(comparison: &Comparison<'_>, rounds: usize, scratch: &Path) -> Result<Outcome, CompareError> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        // Whoever comes second may find warmer caches.
        let mut order = [(&comparison.ours, &mut ours), (&comparison.theirs, &mut theirs)];
        if round % 2 == 1 {
            order.reverse();
        }
        for (arm, rounds) in order {
            let one = once(arm, scratch)?;
            if round > 0 {
                rounds.push(one);
            }
        }
    }
    // What goes through one side is not always as much as on the other.
    #[expect(clippy::cast_precision_loss, reason = "bytes of a measurement")]
    let per_byte = comparison.theirs.bytes as f64 / comparison.ours.bytes as f64;
    let ratio = |metric| {
        let pairs = ours.iter().zip(&theirs).filter_map(|(ours, theirs): (&Round, &Round)| {
            let theirs = theirs.seconds(metric)?;
            (theirs > 0.0).then_some(ours.seconds(metric)? / theirs * per_byte)
        });
        let ratios: Vec<f64> = pairs.collect();
        (!ratios.is_empty()).then(|| (metric, median(ratios)))
    };
    let best = |metric| {
        let least = |rounds: &[Round]| rounds.iter().filter_map(|round| round.seconds(metric)).min_by(f64::total_cmp);
        let theirs = least(&theirs).filter(|theirs| *theirs > 0.0)?;
        Some((metric, least(&ours)? / theirs * per_byte))
    };
    Ok(Outcome {
        name: comparison.name.clone(),
        what: comparison.what.clone(),
        rounds,
        ours: measured(&comparison.ours, &ours),
        theirs: measured(&comparison.theirs, &theirs),
        ratios: Metric::ALL.into_iter().filter_map(ratio).collect(),
        best_ratios: Metric::ALL.into_iter().filter_map(best).collect(),
        targets: comparison.targets.clone(),
    })
}

fn once(arm: &Arm<'_>, scratch: &Path) -> Result<Round, CompareError> {
    let target = scratch.join("target");
    fs::create_dir(&target).map_err(CompareError::io("could not make", &target))?;
    (arm.prepare)(&target).map_err(CompareError::io("could not prepare", &target))?;
    warm(scratch, arm.bytes)?;
    let before = arm.server.map(Serves::cpu).transpose()?;
    let core = if arm.all_cores { None } else { cores().last().copied() };
    let measured = measure(&mut (arm.command)(&target), core);
    let server = match (arm.server, before) {
        (Some(server), Some(before)) => Some(server.cpu()?.saturating_sub(before)),
        _ => None,
    };
    fs::remove_dir_all(&target).map_err(CompareError::io("could not remove", &target))?;
    Ok(Round { client: measured?, server })
}

/// Uses as much memory as the program will need, and gives it back. A virtual machine's memory may have been taken by its host
/// while nobody used it; whoever needs it next would pay for that, several times what a copy costs.
fn warm(scratch: &Path, bytes: u64) -> Result<(), CompareError> {
    let path = scratch.join("warm");
    let piece = vec![1; 1 << 20];
    let write = || {
        let mut file = fs::File::create(&path)?;
        (0..=bytes >> 20).try_for_each(|_| file.write_all(&piece))?;
        fs::remove_file(&path)
    };
    write().map_err(CompareError::io("could not write", &path))
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a measurement")]
fn measured(arm: &Arm<'_>, rounds: &[Round]) -> Measured {
    let of = |metric| {
        let all: Option<Vec<f64>> = rounds.iter().map(|round| round.seconds(metric)).collect();
        all.filter(|all| !all.is_empty()).map(median)
    };
    let gigabytes = arm.bytes as f64 / 1e9;
    let wall = of(Metric::Wall).unwrap_or_default();
    let busy = rounds.iter().map(|round| {
        (round.client.cpu + round.server.unwrap_or_default()).as_secs_f64() / round.client.wall.as_secs_f64()
    });
    Measured {
        label: arm.label.clone(),
        bytes: arm.bytes,
        wall,
        gigabytes_per_second: gigabytes / wall,
        client_cpu_per_gigabyte: of(Metric::ClientCpu).unwrap_or_default() / gigabytes,
        server_cpu_per_gigabyte: of(Metric::ServerCpu).map(|cpu| cpu / gigabytes),
        busy: median(busy.collect()),
        client_peak_rss: rounds.iter().map(|round| round.client.peak_rss).max().unwrap_or_default(),
        server_peak_rss: arm.server.and_then(Serves::peak_rss),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.len() % 2, values.get(middle), middle.checked_sub(1).and_then(|below| values.get(below))) {
        (0, Some(above), Some(below)) => f64::midpoint(*above, *below),
        (_, Some(value), _) => *value,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(label: &str, script: &'static str) -> Arm<'static> {
        Arm {
            label: label.to_owned(),
            bytes: 1_000_000,
            server: None,
            all_cores: false,
            prepare: Box::new(|target| fs::write(target.join("given"), "x")),
            command: Box::new(move |target| {
                let mut command = Command::new("sh");
                command.args(["-c", script]).current_dir(target);
                command
            }),
        }
    }

    fn comparison(theirs: &'static str) -> Comparison<'static> {
        let loops = "test -e given; i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; touch made";
        Comparison {
            name: "loops".to_owned(),
            what: "a shell that counts".to_owned(),
            ours: arm("ours", loops),
            theirs: arm("theirs", theirs),
            targets: vec![Target { metric: Metric::Wall, at_most: 1.0 }],
        }
    }

    #[test]
    fn sides_take_turns_and_leave_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let result = run(&comparison("i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done"), 2, scratch.path()).unwrap();
        assert_eq!((result.rounds, result.ours.label.as_str()), (2, "ours"));
        assert!(result.ratio(Metric::ClientCpu).is_some_and(|ratio| ratio > 0.0));
        assert_eq!(result.ratio(Metric::ServerCpu), None);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_side_that_fails_is_no_figure() {
        let scratch = tempfile::tempdir().unwrap();
        let error = run(&comparison("echo full >&2; exit 1"), 1, scratch.path()).unwrap_err().to_string();
        assert_eq!(error, "sh failed (exit status: 1): full");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0]) - 2.5).abs() < 1e-9);
        assert!(median(Vec::new()).is_nan());
    }
}
