//! Whether a GPU's memory is free of what was just unloaded: the driver must say so twice.
//!
//! The driver is asked on a thread of its own: a sick one may never answer. Where nothing is measured (a simulated
//! GPU, an assumed one, the CPU lane) there is nothing to ask.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::Duration;

use hardware::Senses;
use model::GpuUuid;
use model::gpu::Reading;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

/// Between two readings.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for one reading.
const READING_MAX: Duration = Duration::from_secs(5);
/// After this the worker goes on: it has done what it can, and the readings of the brain show the rest.
const GATE_MAX: Duration = Duration::from_secs(30);

type Ask = oneshot::Sender<Option<Vec<Reading>>>;

/// The gate of a worker's GPU, and of those that a program of it has besides.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    ask: Option<(mpsc::Sender<Ask>, GpuUuid)>,
}

impl Gate {
    /// A gate that is always open.
    pub(crate) const fn open() -> Self {
        Self { ask: None }
    }

    /// The gate of a GPU that `senses` can read.
    pub(crate) fn of(mut senses: Senses, gpu: GpuUuid) -> Self {
        let (ask, asked) = mpsc::channel::<Ask>();
        std::thread::spawn(move || {
            for answer in asked {
                // Who asked may have lost patience.
                let _ = answer.send(senses.read().ok());
            }
        });
        Self { ask: Some((ask, gpu)) }
    }

    /// Waits until none of `pids` has memory on the GPU, nor on those `beside` it, by two readings in a row.
    pub(crate) async fn passed(&self, pids: &BTreeSet<u32>, beside: &[GpuUuid]) {
        let Some((ask, own)) = &self.ask else { return };
        let begin = Instant::now();
        let mut clean = 0;
        while clean < 2 {
            if begin.elapsed() > GATE_MAX {
                tracing::warn!("the driver does not say that the memory of {pids:?} is free; going on");
                return;
            }
            let (answer, answered) = oneshot::channel();
            if ask.send(answer).is_err() {
                return;
            }
            let reading = timeout(READING_MAX, answered).await.ok().and_then(Result::ok).flatten();
            let is_free = |uuid: &GpuUuid| {
                let mut of_gpu = reading.iter().flatten().filter(|reading| reading.uuid == *uuid);
                of_gpu.next().is_some_and(|reading| is_clean(reading, pids))
            };
            let all_free = std::iter::once(own).chain(beside).all(is_free);
            clean = if all_free { clean + 1 } else { 0 };
            if clean < 2 {
                sleep(PAUSE).await;
            }
        }
    }
}

fn is_clean(reading: &Reading, pids: &BTreeSet<u32>) -> bool {
    reading.lost || !reading.processes.iter().any(|(pid, _)| pids.contains(pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_free_when_no_process_of_ours_is_listed_or_the_gpu_is_gone() {
        let uuid = GpuUuid::new("GPU-1").unwrap();
        let reading = |processes: &[u32], lost| Reading {
            uuid: uuid.clone(),
            used_mib: Some(100),
            processes: processes.iter().map(|pid| (*pid, None)).collect(),
            lost,
        };
        let ours = BTreeSet::from([7, 8]);
        assert!(is_clean(&reading(&[9], false), &ours));
        assert!(!is_clean(&reading(&[9, 8], false), &ours));
        assert!(is_clean(&reading(&[8], true), &ours));
    }

    #[tokio::test]
    async fn an_invented_gpu_has_readings_and_so_passes() {
        let senses = Senses::find("simulated:1000").unwrap();
        Gate::of(senses, GpuUuid::new("SIM-0").unwrap()).passed(&BTreeSet::from([1]), &[]).await;
        Gate::open().passed(&BTreeSet::new(), &[]).await;
    }
}
