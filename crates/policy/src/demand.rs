//! How often LLM requests come: what was seen in the last fifteen minutes, and in this hour of the day.
//!
//! Not here: what follows from the counts (`rate`), what the hours of other days were like (`learn`), and what follows
//! from either (`evict`, `plan`).

use std::collections::{BTreeMap, VecDeque};

use model::Millis;

use crate::rate::Rate;

/// Requests of this long are remembered.
pub(crate) const WINDOW: Millis = Millis::from_secs(900);
/// Hours of a day.
pub(crate) const HOURS: usize = 24;
/// Requests are counted together that come within this long: whatever their number, little is remembered.
const STEP: Millis = Millis::from_secs(15);
/// Requests a second where nothing is known: one in ten minutes.
const RATE_PRIOR: f64 = 1.0 / 600.0;
/// No hour is believed to have fewer than one in a day.
const RATE_LEAST: f64 = 1.0 / 86_400.0;
/// Of an hour of which less was seen nothing is learned.
const SEEN_AT_LEAST: Millis = Millis::from_secs(1_800);
/// Job types that are told apart; what more of them there are is counted as one.
const JOB_TYPES: usize = 64;
/// The name of those.
const OTHERS: &str = "others";

/// What was seen of late.
#[derive(Clone, Debug, Default)]
pub(crate) struct Demand {
    /// How many came, by the step of time they came in.
    counts: VecDeque<(i64, u64)>,
    since: Option<Millis>,
    last: Option<Millis>,
    hour: Option<Hour>,
    /// Since when no script waits for a GPU.
    scripts_gone: Option<Millis>,
    prewarmed: Option<Millis>,
    read_ahead: BTreeMap<String, Millis>,
}

/// The hour of the day.
#[derive(Clone, Debug)]
pub(crate) struct Hour {
    /// 0 to 23.
    pub hour: u8,
    /// Since when it was seen.
    since: Millis,
    /// When it ends.
    pub ends: Millis,
    /// Requests of it by job type.
    counts: BTreeMap<String, u64>,
}

/// An hour that is over: which, its requests by job type, and how much of it was seen.
pub(crate) type Over = (u8, BTreeMap<String, u64>, Millis);

impl Demand {
    /// Somebody is looking from now on.
    pub(crate) fn watch(&mut self, at: Millis) {
        self.since.get_or_insert(at);
    }

    /// A request came.
    pub(crate) fn came(&mut self, at: Millis, job_type: &str) {
        self.last = Some(at);
        let step = at.0.div_euclid(STEP.0);
        match self.counts.back_mut() {
            Some((last, count)) if *last == step => *count += 1,
            _ => self.counts.push_back((step, 1)),
        }
        let first = (at - WINDOW).0.div_euclid(STEP.0);
        while self.counts.front().is_some_and(|(step, _)| *step <= first) {
            self.counts.pop_front();
        }
        if let Some(hour) = &mut self.hour {
            let known = hour.counts.contains_key(job_type) || hour.counts.len() < JOB_TYPES;
            let name = if known { job_type } else { OTHERS };
            *hour.counts.entry(name.to_owned()).or_default() += 1;
        }
    }

    /// How often requests come of late; as is usual, or one in ten minutes where nothing is known, as far as nobody
    /// watched.
    pub(crate) fn rate(&self, now: Millis, usual: Option<f64>) -> Rate {
        let newest = now.0.div_euclid(STEP.0);
        let mut counts = vec![0; self.steps_watched(now)];
        for (step, count) in self.counts.iter().rev() {
            if let Some(slot) = usize::try_from(newest - step).ok().and_then(|at| counts.get_mut(at)) {
                *slot = *count;
            }
        }
        let usual = usual.unwrap_or(RATE_PRIOR).max(RATE_LEAST);
        Rate::now(&counts, STEP.as_secs_f64(), usual)
    }

    /// How many steps of the window were watched, the one under way included.
    fn steps_watched(&self, now: Millis) -> usize {
        let Some(since) = self.since.filter(|since| *since <= now) else { return 0 };
        let steps = now.0.div_euclid(STEP.0) - since.0.div_euclid(STEP.0) + 1;
        usize::try_from(steps.min(WINDOW.0 / STEP.0)).unwrap_or_default()
    }

    /// When the rate is another one though no request comes.
    pub(crate) fn rate_until(&self, now: Millis) -> Option<Millis> {
        let next = Millis((now.0.div_euclid(STEP.0) + 1).saturating_mul(STEP.0));
        let watches = self.since.is_some_and(|since| next <= since + WINDOW);
        let leaves = self.counts.iter().any(|(step, _)| Millis(step.saturating_mul(STEP.0)) + WINDOW >= next);
        (watches || leaves).then_some(next)
    }

    /// When the last one came.
    pub(crate) const fn last(&self) -> Option<Millis> {
        self.last
    }

    /// The hour of the day, as long as it lasts.
    pub(crate) fn hour(&self, now: Millis) -> Option<&Hour> {
        self.hour.as_ref().filter(|hour| now < hour.ends)
    }

    /// What the clock on the wall says. Gives the hour that is over, if one is and enough of it was seen.
    pub(crate) fn turn_hour(&mut self, at: Millis, hour: u8, left: Millis) -> Option<Over> {
        let ends = at + left.clamp(Millis::ZERO, Millis::from_secs(3_600));
        let before = match self.hour.take() {
            // A clock that was set within the hour.
            Some(mut same) if same.hour == hour && at < same.ends => {
                same.ends = ends;
                self.hour = Some(same);
                return None;
            }
            before => before,
        };
        self.hour = Some(Hour { hour, since: at, ends, counts: BTreeMap::new() });
        let before = before?;
        let seen = at - before.since;
        (seen >= SEEN_AT_LEAST).then_some((before.hour, before.counts, seen))
    }

    /// Whether scripts wait for a GPU.
    pub(crate) fn look_at_scripts(&mut self, at: Millis, wait: bool) {
        if wait {
            self.scripts_gone = None;
        } else {
            self.scripts_gone.get_or_insert(at);
        }
    }

    /// Since when no script waits for a GPU.
    pub(crate) const fn scripts_gone(&self) -> Option<Millis> {
        self.scripts_gone
    }

    /// An LLM is loaded ahead of demand.
    pub(crate) const fn prewarms(&mut self, at: Millis) {
        self.prewarmed = Some(at);
    }

    /// When that was done last.
    pub(crate) const fn prewarmed(&self) -> Option<Millis> {
        self.prewarmed
    }

    /// A model's file is read ahead.
    pub(crate) fn read_ahead(&mut self, at: Millis, model: String) {
        self.read_ahead.insert(model, at);
    }

    /// When that was done last.
    pub(crate) fn was_read_ahead(&self, model: &str) -> Option<Millis> {
        self.read_ahead.get(model).copied()
    }
}
