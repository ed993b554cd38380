//! Batches as the mind knows them: their facts, when they were last heard of, and what is left of their work.

use model::{BatchId, GpuMode, Millis};

use crate::event::BatchFacts;
use crate::forecast::{Pace, expected_end};
use crate::learn::run_name_of;
use crate::queue::BatchTally;
use crate::unit::Unit;
use crate::world::World;

/// How long an exclusive batch without a single known item keeps the GPUs: longer than its expansion into the queue
/// takes, short enough that a batch whose files somebody deleted does not hold the LLMs back for ever.
pub(crate) const UNSEEN_ITEMS_GRACE: Millis = Millis::from_secs(10);

/// A live batch.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// What is known.
    pub facts: BatchFacts,
    /// Since when.
    pub since: Millis,
    /// When an item was last seen, or the facts changed.
    pub heard_at: Millis,
    /// Place in the order of batches.
    pub order: u64,
    /// Whether the last thing said of it was that it is paused.
    pub said_paused: bool,
}

/// What is left to do of a batch, in time of one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Work {
    /// Of items that have not started, in seconds.
    pub waiting_s: f64,
    /// Of items that run, in seconds.
    pub running_s: f64,
    /// Of the one that runs longest from now, in seconds.
    pub longest_s: f64,
    /// How many run.
    pub running: u64,
    /// Whether this rests on what was measured or stated, and not on a guess.
    pub known: bool,
}

impl World {
    /// What is left to do of a batch.
    #[expect(clippy::cast_precision_loss, reason = "counts of items far below 2^53")]
    pub(crate) fn work_left(&self, batch: &Batch, now: Millis) -> Work {
        let id = &batch.facts.batch_id;
        let mut work = Work { known: true, ..Work::default() };
        for unit in self.units_of_batch(id) {
            let Some(worker) = self.workers.get(&unit.worker) else { continue };
            let left = (expected_end(self, now, worker, unit, Pace::Usual) - now).as_secs_f64().max(0.0);
            work.running += 1;
            work.running_s += left;
            work.longest_s = work.longest_s.max(left);
        }
        let known = self.items_known(id);
        let unseen = batch.facts.remaining().saturating_sub(known) as f64;
        let empty = BatchTally::default();
        let tally = self.queue.tally(id).unwrap_or(&empty);
        let (waiting_s, rests_on_facts) = self.expected_s(tally);
        work.known = rests_on_facts;
        // Items that are not in the queue yet are like those that are.
        let mean = if tally.count > 0 { waiting_s / tally.count as f64 } else { 0.0 };
        work.known &= unseen == 0.0 || tally.count > 0;
        work.waiting_s = waiting_s + unseen * mean;
        work
    }

    /// Items of a batch that are at a worker.
    pub(crate) fn units_of_batch(&self, batch: &BatchId) -> impl Iterator<Item = &Unit> {
        let live = self.units.values().filter(|unit| unit.is_live());
        live.filter(move |unit| unit.task.batch_id.as_ref() == Some(batch))
    }

    /// How long these take one after the other, in seconds, and whether that is more than a guess.
    #[expect(clippy::cast_precision_loss, reason = "counts and milliseconds far below 2^53")]
    fn expected_s(&self, tally: &BatchTally) -> (f64, bool) {
        let Some(host) = &tally.host else { return (0.0, tally.count == 0) };
        let guess = self.config.resource_manager.eviction_policy.avg_script_time_s;
        let typical = self.memory.run_by_name(&run_name_of(host)).map(|run| run.p50.as_secs_f64());
        let speed = self.memory.speed_anywhere(&self.config, host);
        let of_media = match (speed, typical) {
            (Some(speed), _) => tally.media_ms as f64 / 1_000.0 / speed,
            (None, each) => tally.with_media as f64 * each.unwrap_or(guess),
        };
        let others = tally.count.saturating_sub(tally.with_media);
        let unstated = others.saturating_sub(tally.estimated);
        let of_others = match typical {
            Some(each) => others as f64 * each,
            None => tally.estimated_ms as f64 / 1_000.0 + unstated as f64 * guess,
        };
        let known = typical.is_some() || ((speed.is_some() || tally.with_media == 0) && unstated == 0);
        (of_media + of_others, known)
    }

    /// When a batch is expected to be over; none where nobody can say, and while it is paused.
    #[expect(clippy::cast_precision_loss, reason = "counts of GPUs and items far below 2^53")]
    pub(crate) fn batch_ends_at(&self, batch: &Batch, now: Millis) -> Option<Millis> {
        let facts = &batch.facts;
        if facts.paused {
            return None;
        }
        let work = self.work_left(batch, now);
        let threshold = self.config.resource_manager.batch_settings.auto_exclusive_threshold;
        let places = match work.running {
            0 if facts.mode(threshold) == GpuMode::Exclusive => self.gpus_for(batch),
            running => running,
        };
        if work.known && places > 0 {
            let shared = (work.waiting_s + work.running_s) / places as f64;
            return Some(now + Millis::from_secs_f64(shared.max(work.longest_s)));
        }
        // As fast as so far; nobody can say before something has ended.
        let (ended, spent) = (facts.completed + facts.failed, now - batch.since);
        let turn = (ended > 0 && spent > Millis::ZERO).then(|| spent.as_secs_f64() / ended as f64)?;
        Some(now + Millis::from_secs_f64(turn * facts.remaining() as f64))
    }
}
