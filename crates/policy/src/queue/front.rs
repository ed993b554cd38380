//! The front of the queue: the lines that a plan looks at, so that what it costs does not grow with what waits.
//!
//! Shapes that differ in the path of a program or in the batch alone can run in the same places: they are of one *kind*.
//! A thousand one-item batches, or programs of their own, are a thousand shapes and one kind. Of each kind and job type
//! the first few rows are looked at, by a place that time does not change: the instant at which a row's first reaches
//! the top level. Nothing that comes after that instant is ever before it, so whatever waits comes to the front.
//!
//! Not here: the order of what is at the front (`order`, `turn`).

use std::collections::{BTreeMap, BTreeSet};

use model::BatchId;
use model::task::Script;

use super::line::RowKey;
use crate::order::{Ageing, Arrival, Summit};
use crate::shape::{Shape, What};

/// How many rows of one kind and job type are looked at: more than start at once on any machine of this size.
pub(crate) const WIDTH: usize = 128;

/// What a batch asks for, as far as its items' places in the queue go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Admission {
    /// Nothing: its items stand among all others.
    #[default]
    Shared,
    /// The GPUs for itself: its items must not stand behind what does not start beside them.
    Exclusive,
    /// Its items do not start.
    Paused,
}

/// Shapes that can run in the same places, and a job type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    admission: Admission,
    shape: Shape,
    job_type: String,
}

/// Every row by its kind.
#[derive(Clone, Debug)]
pub(crate) struct Front {
    ageing: Ageing,
    width: usize,
    kinds: BTreeMap<Kind, BTreeMap<Summit, Shape>>,
    of_batches: BTreeMap<BatchId, BTreeSet<(Shape, RowKey, Arrival)>>,
    admissions: BTreeMap<BatchId, Admission>,
}

impl Front {
    pub(super) const fn new(ageing: Ageing) -> Self {
        Self {
            ageing,
            width: WIDTH,
            kinds: BTreeMap::new(),
            of_batches: BTreeMap::new(),
            admissions: BTreeMap::new(),
        }
    }

    /// A row of this shape has another first, or none before or after.
    pub(super) fn moves(&mut self, shape: &Shape, row: &RowKey, from: Option<Arrival>, to: Option<Arrival>) {
        if from == to {
            return;
        }
        let kind = self.kind(shape, row);
        let summit = |first| self.ageing.summit(row.priority, first);
        let (left, entered) = (from.map(summit), to.map(summit));
        let rows = self.kinds.entry(kind.clone()).or_default();
        if let Some(left) = left {
            rows.remove(&left);
        }
        if let Some(entered) = entered {
            rows.insert(entered, shape.clone());
        }
        if rows.is_empty() {
            self.kinds.remove(&kind);
        }
        self.note(shape, row, from, to);
    }

    /// Keeps apart which rows belong to a batch: they move when it changes its mind.
    fn note(&mut self, shape: &Shape, row: &RowKey, from: Option<Arrival>, to: Option<Arrival>) {
        let Some(batch) = &shape.batch else { return };
        let rows = self.of_batches.entry(batch.clone()).or_default();
        if let Some(from) = from {
            rows.remove(&(shape.clone(), row.clone(), from));
        }
        if let Some(to) = to {
            rows.insert((shape.clone(), row.clone(), to));
        }
        if rows.is_empty() {
            self.of_batches.remove(batch);
        }
    }

    /// What a batch asks for from now on.
    pub(super) fn admit(&mut self, batch: &BatchId, admission: Admission) {
        if self.admission(Some(batch)) == admission {
            return;
        }
        let rows = self.of_batches.get(batch).cloned().unwrap_or_default();
        for (shape, row, first) in &rows {
            self.moves(shape, row, Some(*first), None);
        }
        if admission == Admission::default() {
            self.admissions.remove(batch);
        } else {
            self.admissions.insert(batch.clone(), admission);
        }
        for (shape, row, first) in &rows {
            self.moves(shape, row, None, Some(*first));
        }
    }

    pub(super) fn admission(&self, batch: Option<&BatchId>) -> Admission {
        batch.and_then(|batch| self.admissions.get(batch)).copied().unwrap_or_default()
    }

    /// Whether a row with this first is looked at.
    pub(super) fn has(&self, shape: &Shape, row: &RowKey, first: Arrival) -> bool {
        let summit = self.ageing.summit(row.priority, first);
        let rows = self.kinds.get(&self.kind(shape, row));
        rows.is_some_and(|rows| rows.keys().take(self.width).any(|at| *at == summit))
    }

    /// The shapes to look at, in their order; those of paused batches, or all others.
    pub(super) fn shapes(&self, paused: bool) -> BTreeSet<&Shape> {
        let kinds = self.kinds.iter().filter(|(kind, _)| (kind.admission == Admission::Paused) == paused);
        kinds.flat_map(|(_, rows)| rows.values().take(self.width)).collect()
    }

    /// Whether anything of this sort waits, that of paused batches included.
    pub(super) fn any_kind(&self, wanted: impl Fn(&Shape) -> bool) -> bool {
        self.kinds.keys().any(|kind| wanted(&kind.shape))
    }

    fn kind(&self, shape: &Shape, row: &RowKey) -> Kind {
        let mut alike = Shape { batch: None, ..shape.clone() };
        if let What::Script(host) = &mut alike.what
            && let Script::File(path) = &mut host.script
        {
            path.clear();
        }
        let admission = self.admission(shape.batch.as_ref());
        Kind { admission, shape: alike, job_type: row.job_type.clone() }
    }

    /// Looks at fewer.
    #[cfg(test)]
    pub(super) const fn narrow(&mut self, width: usize) {
        self.width = width;
    }
}
