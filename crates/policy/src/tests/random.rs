//! How many random cases are run, of which seed, and where those that failed are kept.

use proptest::test_runner::{Config, FileFailurePersistence, RngSeed};

/// Everybody tells the same random stories, or a red test of one would be nobody else's.
const SEED: RngSeed = RngSeed::Fixed(1);
/// What proptest runs where nobody says anything.
const UNSAID: u32 = 256;

/// So many cases, or as many as `PROPTEST_CASES` says; others with `PROPTEST_RNG_SEED`.
pub(super) fn random(usual: u32) -> Config {
    let stated = Config::default();
    let cases = if stated.cases == UNSAID { usual } else { stated.cases };
    let rng_seed = if stated.rng_seed == RngSeed::Random { SEED } else { stated.rng_seed };
    Config { cases, rng_seed, failure_persistence: None, max_shrink_iters: 2_000, ..stated }
}

/// The same; cases that fail are written to this file and run first from then on.
pub(super) fn random_and_kept(usual: u32, kept: &'static str) -> Config {
    let config = random(usual);
    println!("{} random cases of {:?}; those that fail are kept in {kept}", config.cases, config.rng_seed);
    Config { failure_persistence: Some(Box::new(FileFailurePersistence::Direct(kept))), ..config }
}
