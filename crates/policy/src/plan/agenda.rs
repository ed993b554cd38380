//! Whose head is looked at next: the one order over the heads of all rows, told again after each start.

use std::collections::{BTreeMap, BTreeSet};

use model::learned::Grants;

use crate::order::{Arrival, Rank, Urgency};
use crate::turn::Turns;

/// Where a head stands: its stream, and its row there.
pub(crate) type At = (usize, usize);

/// Heads by job type, by arrival.
type Heads<'w> = BTreeMap<&'w str, BTreeSet<(Arrival, At)>>;

/// Heads by urgency.
#[derive(Default)]
pub(crate) struct Agenda<'w> {
    heads: BTreeMap<Urgency, Heads<'w>>,
}

impl<'w> Agenda<'w> {
    pub(crate) fn insert(&mut self, rank: Rank, job_type: &'w str, at: At) {
        let types = self.heads.entry(rank.urgency).or_default();
        types.entry(job_type).or_default().insert((rank.arrival, at));
    }

    /// A job type that is left although nothing more is next: it has to wait until another has started. Streams that
    /// ended wait for room.
    pub(super) fn held_back(&self, ended: &BTreeSet<usize>) -> Option<&'w str> {
        let waits = |heads: &BTreeSet<(Arrival, At)>| heads.iter().any(|(_, (at, _))| !ended.contains(at));
        let mut types = self.heads.values().flatten();
        types.find(|(_, heads)| waits(heads)).map(|(job_type, _)| *job_type)
    }

    /// The next one. A type that has to wait until another has started is left out, and comes in once that is so.
    pub(crate) fn pop(&mut self, turns: &Turns, grants: &Grants) -> Option<At> {
        let next = |types: &Heads<'w>| {
            let firsts = types.iter().filter_map(|(job_type, heads)| Some((*job_type, heads.first()?.0)));
            turns.next(grants, firsts)
        };
        let (urgency, job_type) =
            self.heads.iter().find_map(|(urgency, types)| Some((*urgency, next(types)?)))?;
        let types = self.heads.get_mut(&urgency)?;
        let heads = types.get_mut(job_type)?;
        let first = heads.pop_first();
        if heads.is_empty() {
            types.remove(job_type);
            if types.is_empty() {
                self.heads.remove(&urgency);
            }
        }
        first.map(|(_, at)| at)
    }
}
