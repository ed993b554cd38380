//! How many random cases are run, and where those that failed are kept.

use proptest::test_runner::{Config, FileFailurePersistence};

/// So many cases, or as many as `GPUSPOOL_CASES` says; cases that fail are written to this file and run first from then on.
#[expect(clippy::disallowed_methods, reason = "how many cases a test runs is no setting of the mind")]
pub(super) fn random(usual: u32, kept: &'static str) -> Config {
    let stated = std::env::var("GPUSPOOL_CASES").ok();
    let cases = stated.as_ref().map_or(usual, |cases| cases.parse().expect("GPUSPOOL_CASES is a number"));
    if stated.is_some() {
        println!("{cases} random cases; those that fail are kept in {kept}");
    }
    let failure_persistence = Some(Box::new(FileFailurePersistence::Direct(kept)) as Box<_>);
    Config { cases, failure_persistence, max_shrink_iters: 2_000, ..Config::default() }
}
