//! The comparison as a table people can read.

use std::fmt::Write as _;

use model::{Millis, TaskClass};

use crate::outcome::Outcome;
use crate::scenario::Scenario;

const HEAD: [&str; 11] = [
    "policy",
    "makespan",
    "LLM wait mean",
    "p99",
    "script wait mean",
    "p99",
    "total wait",
    "loads",
    "evictions",
    "ended",
    "laws",
];

/// The table of a scenario: one row a policy.
#[must_use]
pub fn table(scenario: &Scenario, outcomes: &[Outcome]) -> String {
    let gpus = scenario.gpus.len();
    let about = if scenario.about.is_empty() { String::new() } else { format!(": {}", scenario.about) };
    let mut text = format!(
        "SIMULATED `{}`, seed {}, {gpus} GPU{}{about}\n",
        scenario.name,
        scenario.seed,
        if gpus == 1 { "" } else { "s" }
    );
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(outcomes.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            // Writing into a text cannot fail.
            let _ =
                if column == 0 { write!(text, "{cell:<width$}") } else { write!(text, "  {cell:>width$}") };
        }
        text.push('\n');
    }
    text
}

fn row(outcome: &Outcome) -> [String; 11] {
    let llm = outcome.waits(|story| story.class == TaskClass::Llm);
    let script = outcome.waits(|story| story.class == TaskClass::Script);
    let all = outcome.waits(|_| true);
    let failed = outcome.ended(false);
    let ended = outcome.ended(true) + failed;
    let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
    [
        outcome.mind.name().to_owned(),
        span(outcome.makespan()),
        seconds(llm.mean),
        seconds(llm.p99),
        seconds(script.mean),
        seconds(script.p99),
        format!("{:.2} h", all.total / 3_600.0),
        outcome.loads.to_string(),
        outcome.evictions.to_string(),
        format!("{ended} of {}{failures}", outcome.tasks.len()),
        if outcome.broken.is_empty() { "kept".into() } else { format!("{} broken", outcome.broken.len()) },
    ]
}

fn span(time: Millis) -> String {
    let seconds = time.0 / 1_000;
    format!("{}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

fn seconds(value: f64) -> String {
    format!("{value:.1} s")
}
