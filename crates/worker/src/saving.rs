//! From the end of a unit to its record in the outbox, durable, and only then to the report.
//!
//! Records are written by the loop and synced together on another thread. On a full disk a result is held and tried
//! again: nothing is lost, and its slot stays taken.

use std::time::Duration;

use model::AttemptKey;
use spool::clock;
use tokio::time::Instant;

use crate::arm::Arm;
use crate::attempt::{On, Saving, Stage};
use crate::happening::Happening;
use crate::record::{Ending, Run, conclude};
use crate::scripts::HostSeat;

/// How long after a failure a record is written again.
const RETRY: Duration = Duration::from_millis(500);

impl Arm {
    /// A unit is over: its record is made.
    pub(crate) fn over(&mut self, key: &AttemptKey, ending: Ending) {
        let gpu = self.home.reports.state().gpu.clone();
        let ending = self.explained(ending);
        let Some(attempt) = self.attempts.get_mut(key) else { return };
        let Stage::Running(running) = &mut attempt.stage else { return };
        match (running.on, &mut self.seat) {
            (On::Host(id), _) => {
                self.hosts.iter_mut().filter(|host| host.id == id).for_each(HostSeat::free);
            }
            (On::Llm, Some(seat)) => seat.judged_by(&ending),
            _ => {}
        }
        let run = Run {
            gpu,
            started_at: running.started_at,
            completed_at: clock::wall(),
            took: running.begun.elapsed(),
            media_s: running.progress.media_s,
            log: running.log.take(),
            checkpoint: running.checkpoint.take(),
        };
        let (record, outcome) = conclude(&attempt.order, &run, ending);
        attempt.stage = Stage::Saving(Saving {
            since: running.since,
            progress: running.progress,
            record: Box::new(record),
            outcome,
            written: false,
            again: None,
            on: running.on,
        });
    }

    /// A connection that broke because the engine died is told as what it is.
    fn explained(&self, ending: Ending) -> Ending {
        match (ending, self.seat.as_ref().and_then(|seat| seat.report.error.as_ref())) {
            (Ending::Failed(mut error), Some(death)) if error.code.starts_with("connection_") => {
                error.code = "engine_died".into();
                error.message = death.lines().next().unwrap_or_default().to_owned();
                error.tail = death.split_once('\n').map(|(_, tail)| tail.to_owned());
                Ending::Failed(error)
            }
            (ending, _) => ending,
        }
    }

    /// F1 for all records that are due, then F2–F3 for all together.
    pub(crate) fn save_records(&mut self) {
        let now = Instant::now();
        self.retry_at = None;
        for (key, attempt) in &mut self.attempts {
            let Stage::Saving(saving) = &mut attempt.stage else { continue };
            if saving.written {
                continue;
            }
            if saving.again.is_none_or(|again| again <= now) {
                match self.home.write_record(key, &saving.record) {
                    Ok(()) => saving.written = true,
                    Err(error) => {
                        let first = saving.again.replace(now + RETRY).is_none();
                        if first {
                            tracing::warn!("no_space: the record of {key} is held and tried again: {error}");
                        }
                    }
                }
            }
            if !saving.written {
                self.retry_at = self.retry_at.into_iter().chain(saving.again).min();
            }
        }
        self.sync_records();
    }

    fn sync_records(&mut self) {
        let is_written = |stage: &Stage| matches!(stage, Stage::Saving(saving) if saving.written);
        let keys: Vec<AttemptKey> = self
            .attempts
            .iter()
            .filter(|(_, one)| is_written(&one.stage))
            .map(|(key, _)| key.clone())
            .collect();
        if keys.is_empty() || self.syncing {
            return;
        }
        if !self.syncs() {
            return self.synced(keys, Ok(()));
        }
        self.syncing = true;
        let (job, tell) = (self.home.sync_job(), self.shop.tell.clone());
        tokio::task::spawn_blocking(move || {
            let done = job.run();
            let _ = tell.send(Happening::Synced(keys, done));
        });
    }

    /// These records are safe and can be reported; or they must be written anew, as a failed sync is told only once.
    pub(crate) fn synced(&mut self, keys: Vec<AttemptKey>, result: std::io::Result<()>) {
        self.syncing = false;
        for key in keys {
            let Some(attempt) = self.attempts.get_mut(&key) else { continue };
            let Stage::Saving(saving) = &mut attempt.stage else { continue };
            match &result {
                Ok(()) => {
                    let (since, progress) = (saving.since, saving.progress);
                    let outcome = saving.outcome.clone();
                    attempt.stage = Stage::Ended { since, progress, outcome, told: None };
                    // Said in the same turn as the orders that still name it.
                    attempt.ordered_at_end = self.home.orders.state().attempts.contains_key(&key);
                }
                Err(error) => {
                    tracing::warn!(
                        "the record of {key} could not be made durable and is written anew: {error}"
                    );
                    (saving.written, saving.again) = (false, Some(Instant::now() + RETRY));
                    if let Err(error) = self.home.forget_record(&key) {
                        tracing::warn!("cannot remove the record of {key}: {error}");
                    }
                }
            }
        }
    }
}
