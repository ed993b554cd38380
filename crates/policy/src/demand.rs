//! How often LLM requests come: what was seen in the last fifteen minutes, and in this hour of the day.
//!
//! Not here: what the hours of other days were like (`learn`), and what follows from either (`evict`, `plan`).

use std::collections::{BTreeMap, VecDeque};

use model::Millis;

/// Requests of this long are remembered.
pub(crate) const WINDOW: Millis = Millis::from_secs(900);
/// Hours of a day.
pub(crate) const HOURS: usize = 24;
/// Requests are counted together that come within this long: whatever their number, little is remembered.
const STEP: Millis = Millis::from_secs(15);
/// Requests a second where nothing is known: one in ten minutes.
const RATE_PRIOR: f64 = 1.0 / 600.0;
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

    /// Requests a second. The part of the window that nobody watched counts at the rate that is usual, or at one
    /// request in ten minutes where nothing is known.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    pub(crate) fn per_second(&self, now: Millis, usual: Option<f64>) -> f64 {
        let first = (now - WINDOW).0.div_euclid(STEP.0);
        let seen: u64 = self.counts.iter().filter(|(step, _)| *step > first).map(|(_, count)| count).sum();
        let unseen = (WINDOW - self.watched(now)).as_secs_f64() * usual.unwrap_or(RATE_PRIOR);
        (seen as f64 + unseen) / WINDOW.as_secs_f64()
    }

    /// How much of the window was watched, in whole steps.
    fn watched(&self, now: Millis) -> Millis {
        let watched = self.since.map_or(Millis::ZERO, |since| now - since).clamp(Millis::ZERO, WINDOW);
        Millis(watched.0.div_euclid(STEP.0).saturating_mul(STEP.0))
    }

    /// When the rate changes if no request comes.
    pub(crate) fn rate_until(&self, now: Millis) -> Option<Millis> {
        let first = (now - WINDOW).0.div_euclid(STEP.0);
        let leaves = self.counts.iter().map(|(step, _)| *step).find(|step| *step > first);
        let leaves = leaves.map(|step| Millis(step.saturating_mul(STEP.0)) + WINDOW);
        let watched = self.watched(now);
        let watches = self.since.filter(|_| watched < WINDOW).map(|since| since + watched + STEP);
        [leaves, watches].into_iter().flatten().filter(|at| *at > now).min()
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
