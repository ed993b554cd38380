//! The goals of the policy as one table: ours beside the seed's policy, the simple ones, and what no policy can beat.
//!
//! ```text
//! M1–M5  a batch on idle LLM GPUs            makespan  against batch_model (arithmetic)
//! E1     requests and scripts through a day  online    against online_model (a small model) and other minds
//! E2     turns under the single lock         turns     against first come, first served
//! ```
//! Not here: decisions (`policy`), and how a run is simulated (`sim`).

pub mod batch_model;
pub mod makespan;
pub mod online;
pub mod online_model;
mod rows;
mod trials;
pub mod turns;

use std::fmt::Write as _;

pub use rows::rows;

/// How much is run for the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Batches of each kind.
    pub batches: u64,
    /// Days of each kind.
    pub days: u64,
    /// Hours of a day.
    pub hours: f64,
    /// The first seed: others show whether a figure hangs on those it was tuned with.
    pub from: u64,
    /// Threads.
    pub threads: usize,
}

impl Effort {
    /// What the figures are quoted from.
    pub const WHOLE: Self = Self { batches: 200, days: 6, hours: 12.0, from: 0, threads: 2 };
    /// What a test can afford; days as the specification ran the one that knows the future.
    pub const SHORT: Self = Self { batches: 4, days: 3, hours: 6.0, from: 0, threads: 2 };
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The goal's name in the specification.
    pub goal: &'static str,
    /// What is run.
    pub workload: String,
    /// What is measured.
    pub measure: &'static str,
    /// What the bound, or what it is measured against, comes to.
    pub bound: String,
    /// Ours.
    pub ours: f64,
    /// What ours may be at most.
    pub limit: f64,
    /// The seed's policy, where it has one for this.
    pub seed: Option<f64>,
    /// The simple ones, by name.
    pub simple: Vec<(&'static str, f64)>,
}

impl Row {
    /// Whether the goal is reached.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.ours <= self.limit + 5e-4
    }
}

/// The table as text.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text =
        String::from("| goal | workload | measured | bound | ours | at most | | seed | simple policies |\n");
    text.push_str("|---|---|---|---|---:|---:|---|---:|---|\n");
    for row in rows {
        let verdict = if row.is_reached() { "reached" } else { "MISSED" };
        let seed = row.seed.map_or_else(|| "-".to_owned(), |seed| format!("{seed:.3}"));
        let simple: Vec<String> =
            row.simple.iter().map(|(name, value)| format!("{name} {value:.3}")).collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {:.3} | {:.3} | {verdict} | {seed} | {} |",
            row.goal,
            row.workload,
            row.measure,
            row.bound,
            row.ours,
            row.limit,
            simple.join("; ")
        );
    }
    text
}
