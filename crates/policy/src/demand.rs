//! How often LLM requests come: what was seen in the last fifteen minutes.
//!
//! Not here: what hours of the day are like (`learn`), and what follows from either (`evict`, `plan`).

use std::collections::VecDeque;

use model::Millis;

/// Requests of this long are remembered.
pub(crate) const WINDOW: Millis = Millis::from_secs(900);
/// Requests are counted together that come within this long: whatever their number, little is remembered.
const STEP: Millis = Millis::from_secs(15);
/// Requests a second where nothing is known: one in ten minutes.
const RATE_PRIOR: f64 = 1.0 / 600.0;

/// What was seen of late.
#[derive(Clone, Debug, Default)]
pub(crate) struct Demand {
    /// How many came, by the step of time they came in.
    counts: VecDeque<(i64, u64)>,
    since: Option<Millis>,
    last: Option<Millis>,
}

impl Demand {
    /// Somebody is looking from now on.
    pub(crate) fn watch(&mut self, at: Millis) {
        self.since.get_or_insert(at);
    }

    /// A request came.
    pub(crate) fn came(&mut self, at: Millis) {
        self.last = Some(at);
        let step = at.0.div_euclid(STEP.0);
        match self.counts.back_mut() {
            Some((last, count)) if *last == step => *count += 1,
            _ => self.counts.push_back((step, 1)),
        }
        let first = (at - WINDOW).0.div_euclid(STEP.0);
        while self.counts.front().is_some_and(|(step, _)| *step < first) {
            self.counts.pop_front();
        }
    }

    /// Requests a second. The part of the window that nobody watched counts at the rate that is usual, or at one
    /// request in ten minutes where nothing is known.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    pub(crate) fn per_second(&self, now: Millis, usual: Option<f64>) -> f64 {
        let first = (now - WINDOW).0.div_euclid(STEP.0);
        let seen: u64 = self.counts.iter().filter(|(step, _)| *step > first).map(|(_, count)| count).sum();
        let watched = self.since.map_or(Millis::ZERO, |since| now - since).clamp(Millis::ZERO, WINDOW);
        let unseen = (WINDOW - watched).as_secs_f64() * usual.unwrap_or(RATE_PRIOR);
        (seen as f64 + unseen) / WINDOW.as_secs_f64()
    }

    /// When the last one came.
    pub(crate) const fn last(&self) -> Option<Millis> {
        self.last
    }
}
