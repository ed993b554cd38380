//! Fault runs: mixed machines, people and faults, laws after each fact; and every seed that ever failed.
//!
//! `GPUSPOOL_STORM_SEEDS` (default 40) sets how many mixed seeds are run, from `GPUSPOOL_STORM_FROM` (default 1) on.

use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use simulate::storm::{self, Storm};
use simulate::{Mind, Scenario, Sim};

fn report(storm: &Storm) -> String {
    let mut text = String::new();
    for outcome in &storm.broken {
        let seed = outcome.seed;
        text += &format!("seed {seed}: {}\n", outcome.broken[0]);
        text += &format!("  replay: gpuspool simulate --faults --seeds 1 --from {seed}\n");
    }
    if let Some(outcome) = storm.broken.first() {
        let shrunk = storm::shrink(&storm::mix(outcome.seed)).unwrap();
        text += &format!("the least that breaks a law of seed {}:\n", outcome.seed);
        text += &format!("  {}\n", serde_json::to_string(&shrunk.scenario).unwrap());
        text += &shrunk.last.join("\n");
    }
    text
}

#[test]
fn no_law_breaks_in_a_simulated_day_of_any_seed() {
    let seeds = std::env::var("GPUSPOOL_STORM_SEEDS").ok();
    let seeds = seeds.map_or(40, |seeds| seeds.parse().expect("GPUSPOOL_STORM_SEEDS is a number"));
    let from = std::env::var("GPUSPOOL_STORM_FROM").ok();
    let from = from.map_or(1, |from| from.parse().expect("GPUSPOOL_STORM_FROM is a number"));
    let storm = storm::run(from, seeds, 2, 3).unwrap();
    println!(
        "{} seeds, {:.0} simulated hours, {} tasks, {} faults, {} plans; the longest wait was {}",
        storm.seeds, storm.hours, storm.tasks, storm.faults, storm.plans, storm.longest_wait
    );
    assert!(storm.broken.is_empty(), "{}", report(&storm));
    assert_eq!(storm.seeds, seeds);
    let day = 24.0 * f64::from(u32::try_from(seeds).unwrap());
    assert!(storm.hours >= day * 0.9, "{} hours of {day}", storm.hours);
}

/// A seed that failed: the scenario it was found in (shrunk), and what it found.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    found: String,
    scenario: Scenario,
}

#[test]
fn no_seed_that_ever_failed_fails_again() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/seeds"));
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    for path in files {
        let text = fs::read(&path).unwrap();
        let kept: Kept =
            serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(!kept.found.is_empty(), "{} does not say what it found", path.display());
        let outcome = Sim::new(kept.scenario, Mind::Ours).unwrap().run();
        assert!(outcome.broken.is_empty(), "{} ({}): {}", path.display(), kept.found, outcome.broken[0]);
    }
}
