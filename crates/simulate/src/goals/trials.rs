//! Many trials on a few threads, in the order of their seeds whoever was first; and what is said of them all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::makespan::TrialError;

/// Runs so many seeds, beginning with `from`, on so many threads.
///
/// # Errors
/// The error of the first seed that has one.
pub(super) fn trials<T: Send>(
    from: u64,
    count: u64,
    threads: usize,
    run: impl Fn(u64) -> Result<T, TrialError> + Sync,
) -> Result<Vec<T>, TrialError> {
    let next = AtomicU64::new(from);
    let done: Mutex<Vec<(u64, Result<T, TrialError>)>> = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        return;
                    }
                    let result = run(seed);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((seed, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(seed, _)| *seed);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The mean; 0 of nothing.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0_u32);
    for value in values {
        sum += value;
        count += 1;
    }
    sum / f64::from(count.max(1))
}

/// What all but five of a hundred do not exceed.
pub(super) fn p95(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = (values.len() * 95).div_ceil(100).max(1) - 1;
    values.get(at).copied().unwrap_or_default()
}
