//! The smallest scenario found that still breaks a law, and the end of its story.

use crate::mind::Mind;
use crate::outcome::Outcome;
use crate::scenario::{Faults, Scenario, ScenarioError};
use crate::sim::Sim;

/// Lines of the story's end that are shown.
const LINES_SHOWN: usize = 60;
/// Runs that may be spent on one seed.
const RUNS_MAX: usize = 120;

/// A scenario that breaks a law with little.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The scenario.
    pub scenario: Scenario,
    /// What broke.
    pub outcome: Outcome,
    /// The last lines of its story.
    pub last: Vec<String>,
}

/// Leaves out what can be left out.
///
/// # Errors
/// When the scenario makes no sense.
pub fn shrink(scenario: &Scenario) -> Result<Shrunk, ScenarioError> {
    let mut best = scenario.clone();
    let mut runs = 0;
    let breaks = |scenario: &Scenario, runs: &mut usize| -> Result<bool, ScenarioError> {
        *runs += 1;
        Ok(!Sim::new(scenario.clone(), Mind::Ours)?.run().broken.is_empty())
    };
    loop {
        let mut smaller = None;
        for candidate in candidates(&best) {
            if runs >= RUNS_MAX {
                break;
            }
            if breaks(&candidate, &mut runs)? {
                smaller = Some(candidate);
                break;
            }
        }
        match smaller {
            Some(candidate) => best = candidate,
            None => break,
        }
    }
    let outcome = Sim::new(best.clone(), Mind::Ours)?.tracing().run();
    let lines: Vec<&str> = outcome.story.lines().collect();
    let last = lines[lines.len().saturating_sub(LINES_SHOWN)..].iter().map(ToString::to_string).collect();
    Ok(Shrunk { scenario: best, outcome, last })
}

/// Scenarios with something left out, the largest cuts first.
fn candidates(scenario: &Scenario) -> Vec<Scenario> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Scenario)| {
        let mut candidate = scenario.clone();
        change(&mut candidate);
        if candidate != *scenario {
            all.push(candidate);
        }
    };
    with(&|scenario| scenario.faults = Faults::default());
    with(&|scenario| scenario.duration_s = (scenario.duration_s / 2.0).max(600.0));
    for at in 0..scenario.people.len() {
        with(&|scenario| drop(scenario.people.remove(at)));
    }
    let zeros: [fn(&mut Faults); 21] = [
        |faults| faults.worker_dies = 0.0,
        |faults| faults.machine_dies = 0.0,
        |faults| faults.brain_dies = 0.0,
        |faults| faults.downs = 0.0,
        |faults| faults.gpu_lost = 0.0,
        |faults| faults.engine_dies = 0.0,
        |faults| faults.boot_fails = 0.0,
        |faults| faults.boot_hangs = 0.0,
        |faults| faults.host_fails = 0.0,
        |faults| faults.launch_fails = 0.0,
        |faults| faults.crash = 0.0,
        |faults| faults.oom = 0.0,
        |faults| faults.gpu_fault = 0.0,
        |faults| faults.bad_input = 0.0,
        |faults| faults.hangs = 0.0,
        |faults| faults.stalls = 0.0,
        |faults| faults.duplicates = 0.0,
        |faults| faults.late = 0.0,
        |faults| faults.disk_full = 0.0,
        |faults| faults.ram_low = 0.0,
        |faults| faults.foreign = 0.0,
    ];
    for zero in zeros {
        with(&|scenario| zero(&mut scenario.faults));
    }
    with(&|scenario| scenario.faults.cancels = 0.0);
    all
}
