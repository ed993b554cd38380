//! Startable tasks of one shape, row by row, and what they add up to.
//!
//! Not here: which lines a plan looks at (`front`).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use model::{Entry, Millis, Priority};

use super::{Length, Queued, expected_ms};
use crate::order::Arrival;

/// Startable tasks of one shape.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    rows: BTreeMap<RowKey, Row>,
    /// Items of a batch whose media is known, by its length.
    by_media: BTreeMap<Length, Entry>,
    /// The other items of a batch, by what their author expects; those that nobody knows anything of come first.
    by_estimate: BTreeMap<Length, Entry>,
    count: u64,
    tally: Tally,
}

/// What the tasks of a line add up to, kept as they come and go.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// The instants since when they wait, added up, in milliseconds.
    since_sum: i128,
    /// The lengths they are known by, added up, in milliseconds; see `expected_ms`.
    pub length_sum: u64,
    /// Since when tasks of this line wait without one of them leaving it.
    pub still_since: Millis,
}

/// What tells the rows of a shape from each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowKey {
    /// The job type of its tasks.
    pub job_type: String,
    /// Their priority.
    pub priority: Priority,
}

/// Startable tasks of one shape, job type and priority, in the order of their arrival.
pub(crate) type Row = BTreeMap<Arrival, Entry>;

impl Line {
    /// How many.
    pub(crate) const fn len(&self) -> u64 {
        self.count
    }

    /// What they add up to.
    pub(crate) const fn tally(&self) -> Tally {
        self.tally
    }

    /// How long they have waited, added up.
    pub(crate) fn waited(&self, now: Millis) -> Millis {
        let sum = i128::from(now.0) * i128::from(self.count) - self.tally.since_sum;
        Millis(i64::try_from(sum.max(0)).unwrap_or(i64::MAX))
    }

    /// The one that came first in a row.
    pub(super) fn first_of(&self, row: &RowKey) -> Option<Arrival> {
        self.rows.get(row)?.keys().next().copied()
    }

    /// Row by row.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&RowKey, &Row)> {
        self.rows.iter()
    }

    /// Any of them: the oldest of one of its rows.
    pub(crate) fn any(&self) -> Option<&Entry> {
        self.entries().next()
    }

    /// All of them, row by row.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.rows.values().flat_map(BTreeMap::values)
    }

    /// The longest first, where a second of media takes this many seconds, and what has no media typically takes so long.
    pub(crate) fn longest_first(
        &self,
        of_media: f64,
        typical: Option<Millis>,
    ) -> impl Iterator<Item = &Entry> + use<'_> {
        let mut by_media = self.by_media.iter().peekable();
        let mut by_estimate = self.by_estimate.iter().peekable();
        let typical = typical.map(|typical| u64::try_from(typical.0).unwrap_or_default());
        std::iter::from_fn(move || {
            let media = by_media.peek().map(|((priority, Reverse(ms), arrival), _)| {
                (*priority, Reverse(scaled(*ms, of_media)), *arrival)
            });
            let other = by_estimate.peek().map(|((priority, Reverse(ms), arrival), _)| {
                (*priority, Reverse(typical.unwrap_or(*ms)), *arrival)
            });
            let media_goes_first = match (media, other) {
                (Some(media), Some(other)) => media < other,
                (media, _) => media.is_some(),
            };
            let next = if media_goes_first { by_media.next() } else { by_estimate.next() };
            next.map(|(_, entry)| entry)
        })
    }

    pub(super) fn insert(&mut self, entry: &Entry, item: &Queued, now: Millis) {
        let row = self.rows.entry(item.row()).or_default();
        if row.insert(item.arrival(), entry.clone()).is_none() {
            if self.count == 0 {
                self.tally.still_since = now;
            }
            self.count += 1;
            self.tally.since_sum += i128::from(item.since.0);
            self.tally.length_sum = self.tally.length_sum.saturating_add(expected_ms(&item.task));
        }
        if item.shape.batch.is_some() {
            let by_length =
                if item.task.media_s.is_some() { &mut self.by_media } else { &mut self.by_estimate };
            by_length.insert(item.length(), entry.clone());
        }
    }

    pub(super) fn remove(&mut self, item: &Queued, now: Millis) {
        let key = item.row();
        let Some(row) = self.rows.get_mut(&key) else { return };
        if row.remove(&item.arrival()).is_some() {
            self.count -= 1;
            self.tally.since_sum -= i128::from(item.since.0);
            self.tally.length_sum = self.tally.length_sum.saturating_sub(expected_ms(&item.task));
            self.tally.still_since = now;
        }
        if row.is_empty() {
            self.rows.remove(&key);
        }
        self.by_media.remove(&item.length());
        self.by_estimate.remove(&item.length());
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "milliseconds of media, never below 0"
)]
fn scaled(ms: u64, factor: f64) -> u64 {
    (ms as f64 * factor) as u64
}
