//! What came out, for eyes and for programs.

use std::fmt::Write as _;

use super::rounds::{Measured, Outcome, Target};

/// A comparison as a few lines of text.
pub fn text(outcome: &Outcome) -> String {
    let mut text = format!("{}: {} ({} rounds)\n", outcome.name, outcome.what, outcome.rounds);
    let _ = writeln!(text, "  {:<32} wall s   GB/s  client CPU s/GB  server CPU s/GB  busy  peak MB", "");
    for side in [&outcome.ours, &outcome.theirs] {
        let server = side.server_cpu_per_gigabyte.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.3}"));
        let _ = writeln!(
            text,
            "  {:<32} {:>6.3} {:>6.2}  {:>15.3}  {server:>15}  {:>4.2}  {:>7}",
            side.label,
            side.wall,
            side.gigabytes_per_second,
            side.client_cpu_per_gigabyte,
            side.busy,
            peaks(side)
        );
    }
    for (metric, ratio) in &outcome.ratios {
        let target = outcome.targets.iter().find(|target| target.metric == *metric);
        let aim = target.map(|target| verdict(*target, *ratio)).unwrap_or_default();
        let best = outcome.best_ratio(*metric).map(|best| format!("  best rounds {best:.2}×")).unwrap_or_default();
        let _ = writeln!(text, "  {:<32} {ratio:>6.2}×{best}{aim}", metric.name());
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "megabytes of memory")]
fn peaks(side: &Measured) -> String {
    let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
    let server = side.server_peak_rss.map(|bytes| format!("/{}", megabytes(bytes)));
    megabytes(side.client_peak_rss) + &server.unwrap_or_default()
}

fn verdict(target: Target, ratio: f64) -> String {
    let word = if ratio <= target.at_most { "met" } else { "missed" };
    format!("  (at most {:.2}: {word})", target.at_most)
}

/// Whether every target was met.
pub fn all_met(outcomes: &[Outcome]) -> bool {
    outcomes.iter().all(|outcome| {
        let mut targets = outcome.targets.iter();
        targets.all(|target| outcome.ratio(target.metric).is_none_or(|ratio| ratio <= target.at_most))
    })
}

/// The ratios that have a target as one page with a picture, and with nothing that has to be fetched.
pub fn html(outcomes: &[Outcome], machine: &str) -> String {
    /// Pixels of a ratio of 1.
    const UNIT: f64 = 360.0;
    const ROW: usize = 26;
    const LEFT: f64 = 330.0;
    let mut rows = String::new();
    let mut count = 0;
    for outcome in outcomes {
        for target in &outcome.targets {
            let Some(ratio) = outcome.ratio(target.metric) else { continue };
            let y = count * ROW;
            let class = if ratio <= target.at_most { "met" } else { "missed" };
            let (width, aim) = (ratio.min(1.5) * UNIT, LEFT + target.at_most * UNIT);
            let _ = writeln!(
                rows,
                "<g><title>{} against {}</title><text x=\"0\" y=\"{}\">{}, {}</text><rect class=\"{class}\" x=\"{LEFT}\" y=\"{}\" \
                 width=\"{width:.0}\" height=\"16\"/><line x1=\"{aim:.0}\" x2=\"{aim:.0}\" y1=\"{y}\" y2=\"{}\"/>\
                 <text x=\"{:.0}\" y=\"{}\">{ratio:.2}</text></g>",
                escape(&outcome.ours.label),
                escape(&outcome.theirs.label),
                y + 16,
                escape(&outcome.name),
                target.metric.name(),
                y + 4,
                y + 24,
                LEFT + width.max(target.at_most * UNIT) + 8.0,
                y + 16,
            );
            count += 1;
        }
    }
    let figures: String = outcomes.iter().map(|outcome| escape(&text(outcome)) + "\n").collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Backstop beside PostgreSQL</title>\n<style>\n\
         body {{ font: 14px sans-serif; margin: 2em; color: #222; background: #fff }}\nsvg text {{ font-size: 13px; fill: #222 }}\n\
         .met {{ fill: #5a8f69 }} .missed {{ fill: #c0504d }} line {{ stroke: #222; stroke-width: 2 }}\n</style>\n\
         <h1>Ours by theirs</h1>\n<p>{}. Less is better; a line marks what is aimed at.</p>\n\
         <svg width=\"960\" height=\"{}\" role=\"img\" aria-label=\"Ratios\">\n{rows}</svg>\n<pre>{figures}</pre>\n</html>\n",
        escape(machine),
        count * ROW + 8
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::rounds::Metric;
    use super::*;

    fn outcome() -> Outcome {
        let side = |label: &str, wall: f64| Measured {
            label: label.to_owned(),
            bytes: 1_000_000_000,
            wall,
            gigabytes_per_second: 1.0 / wall,
            client_cpu_per_gigabyte: 0.2,
            server_cpu_per_gigabyte: Some(0.1),
            busy: 1.5,
            client_peak_rss: 4_200_000,
            server_peak_rss: None,
        };
        Outcome {
            name: "stdout-mock-15".to_owned(),
            what: "tar to <standard output>".to_owned(),
            rounds: 5,
            ours: side("basebackup", 0.5),
            theirs: side("pg_basebackup 15", 1.0),
            ratios: vec![(Metric::Wall, 0.5), (Metric::ClientCpu, 1.0)],
            best_ratios: vec![(Metric::Wall, 0.48), (Metric::ClientCpu, 0.95)],
            targets: vec![
                Target { metric: Metric::Wall, at_most: 0.6 },
                Target { metric: Metric::ClientCpu, at_most: 0.9 },
            ],
        }
    }

    #[test]
    fn figures_stand_beside_each_other() {
        insta::assert_snapshot!(text(&outcome()), @r"
        stdout-mock-15: tar to <standard output> (5 rounds)
                                           wall s   GB/s  client CPU s/GB  server CPU s/GB  busy  peak MB
          basebackup                        0.500   2.00            0.200            0.100  1.50      4.2
          pg_basebackup 15                  1.000   1.00            0.200            0.100  1.50      4.2
          wall                               0.50×  best rounds 0.48×  (at most 0.60: met)
          client CPU                         1.00×  best rounds 0.95×  (at most 0.90: missed)
        ");
    }

    #[test]
    fn a_target_that_is_missed_is_said_everywhere() {
        let mut outcome = outcome();
        assert!(!all_met(&[outcome.clone()]));
        assert!(html(&[outcome.clone()], "2 cores").contains("class=\"missed\""));
        outcome.targets.truncate(1);
        assert!(all_met(&[outcome.clone()]));
        let page = html(&[outcome], "2 cores");
        assert!(!page.contains("class=\"missed\"") && page.contains("&lt;standard output&gt;"), "{page}");
    }
}
