//! Queued tasks of one shape, in their order, as `fill` takes them.

use std::collections::BTreeMap;
use std::iter::Peekable;

use model::Entry;

use super::draft::Draft;
use crate::queue::{Queued, Rank, Shape};

/// Startable tasks of one shape.
pub(super) struct Stream<'w> {
    pub shape: &'w Shape,
    /// How many are left, the next one included.
    pub left: u64,
    items: Peekable<Box<dyn Iterator<Item = (Rank, &'w Entry)> + 'w>>,
}

impl<'w> Stream<'w> {
    /// The rank of the next.
    pub(super) fn rank(&mut self) -> Option<Rank> {
        self.items.peek().map(|(rank, _)| *rank)
    }

    /// The next.
    pub(super) fn head(&mut self) -> Option<&'w Entry> {
        self.items.peek().map(|(_, entry)| *entry)
    }

    /// On to the one after it.
    pub(super) fn advance(&mut self) {
        self.items.next();
        self.left = self.left.saturating_sub(1);
    }
}

/// All streams. Items of an exclusive batch go longest first, at the place of the batch's first item.
pub(super) fn streams<'w>(draft: &Draft<'w>) -> Vec<Stream<'w>> {
    let queue = &draft.world.queue;
    let exclusive = draft.exclusive.as_ref();
    let mut streams: Vec<Stream<'w>> = Vec::new();
    for (shape, line) in queue.lines() {
        let by_length = exclusive.is_some_and(|exclusive| exclusive.has(shape.batch.as_ref()));
        let items: Box<dyn Iterator<Item = (Rank, &'w Entry)> + 'w> = match line.rank() {
            Some(rank) if by_length => Box::new(line.longest_first().map(move |entry| (rank, entry))),
            _ => Box::new(line.in_order()),
        };
        streams.push(Stream { shape, left: line.len() as u64, items: items.peekable() });
    }
    streams.extend(matured(draft));
    streams
}

/// Parked tasks whose time came since the last event: the world learns of that only with the next one.
fn matured<'w>(draft: &Draft<'w>) -> Vec<Stream<'w>> {
    let queue = &draft.world.queue;
    let mut by_shape: BTreeMap<&'w Shape, Vec<(Rank, &'w Entry)>> = BTreeMap::new();
    for entry in queue.matured(draft.now) {
        if let Some(item) = queue.get(entry) {
            by_shape.entry(&item.shape).or_default().push((Queued::rank(item), entry));
        }
    }
    let stream = |(shape, mut items): (&'w Shape, Vec<(Rank, &'w Entry)>)| {
        items.sort_unstable();
        let left = items.len() as u64;
        let items: Box<dyn Iterator<Item = (Rank, &'w Entry)> + 'w> = Box::new(items.into_iter());
        Stream { shape, left, items: items.peekable() }
    };
    by_shape.into_iter().map(stream).collect()
}
