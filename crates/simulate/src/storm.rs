//! Fault runs: a machine, people and faults drawn from a seed, twenty-four hours of them, many seeds.
//!
//! Safety first (faults on, laws after each fact), then liveness (faults off, everything must end). A seed that breaks
//! a law is shrunk: kinds of faults and people are left out, and the time is cut, as long as a law still breaks.
//! Not here: the laws (`check`).

mod mix;
mod shrink;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::mind::Mind;
use crate::outcome::Outcome;
use crate::scenario::{Scenario, ScenarioError};
use crate::sim::Sim;

pub use mix::mix;
pub use shrink::{Shrunk, shrink};

/// What came of many seeds.
#[derive(Clone, Debug, Default)]
pub struct Storm {
    /// Seeds that were run.
    pub seeds: u64,
    /// Simulated hours, settling included.
    pub hours: f64,
    /// Tasks that were accepted.
    pub tasks: u64,
    /// Faults that came.
    pub faults: u64,
    /// Plans that were made.
    pub plans: u64,
    /// The longest that a task waited for its start.
    pub longest_wait: model::Millis,
    /// Outcomes in which a law broke, by seed.
    pub broken: Vec<Outcome>,
}

/// Runs the mixed scenario of each seed from `first` on, `count` of them, on so many threads.
///
/// Stops early once `broken_max` seeds have broken a law, and at the largest seed there is.
///
/// # Errors
/// When a drawn scenario makes no sense, which would be a fault of this module.
pub fn run(first: u64, count: u64, threads: usize, broken_max: usize) -> Result<Storm, ScenarioError> {
    let begun = AtomicU64::new(0);
    let bad = AtomicUsize::new(0);
    let all: Mutex<Result<Storm, ScenarioError>> = Mutex::new(Ok(Storm::default()));
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while bad.load(Ordering::Relaxed) < broken_max {
                    let number = begun.fetch_add(1, Ordering::Relaxed);
                    let seed = first.checked_add(number).filter(|_| number < count);
                    let Some(seed) = seed else { return };
                    let outcome = one(mix(seed));
                    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                    match (outcome, &mut *all) {
                        (Ok(outcome), Ok(storm)) => {
                            if !outcome.broken.is_empty() {
                                bad.fetch_add(1, Ordering::Relaxed);
                            }
                            storm.add(outcome);
                        }
                        (Err(error), _) => *all = Err(error),
                        (Ok(_), Err(_)) => return,
                    }
                }
            });
        }
    });
    let mut storm = all.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    storm.broken.sort_by_key(|outcome| outcome.seed);
    Ok(storm)
}

/// Runs one scenario under our mind.
///
/// # Errors
/// When it makes no sense.
pub fn one(scenario: Scenario) -> Result<Outcome, ScenarioError> {
    Ok(Sim::new(scenario, Mind::Ours)?.run())
}

impl Storm {
    fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.hours += outcome.took.as_secs_f64() / 3_600.0;
        self.tasks += outcome.tasks.len() as u64;
        self.faults += outcome.faults;
        self.plans += outcome.plans;
        self.longest_wait = self.longest_wait.max(outcome.longest_wait);
        if !outcome.broken.is_empty() {
            self.broken.push(outcome);
        }
    }
}
