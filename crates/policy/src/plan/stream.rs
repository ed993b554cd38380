//! Queued tasks of one shape, row by row, as `fill` takes them.

use std::collections::BTreeMap;
use std::iter::Peekable;

use model::Entry;

use super::draft::Draft;
use crate::learn::run_name_of;
use crate::order::Rank;
use crate::queue::{Line, Queued};
use crate::shape::Shape;
use crate::world::World;

/// No more places than these are made for chatbots of one shape at a time.
const CHATBOTS_COUNTED: u64 = 64;

/// Startable tasks of one shape.
pub(super) struct Stream<'w> {
    pub shape: &'w Shape,
    /// How many are left.
    pub left: u64,
    rows: Vec<StreamRow<'w>>,
}

/// Tasks of one shape that follow each other.
struct StreamRow<'w> {
    /// Where all of them stand; none where each stands for itself.
    place: Option<Rank>,
    items: Peekable<Box<dyn Iterator<Item = &'w Entry> + 'w>>,
}

impl<'w> StreamRow<'w> {
    fn new(place: Option<Rank>, items: impl Iterator<Item = &'w Entry> + 'w) -> Self {
        let items: Box<dyn Iterator<Item = &'w Entry> + 'w> = Box::new(items);
        Self { place, items: items.peekable() }
    }
}

impl<'w> Stream<'w> {
    const fn new(shape: &'w Shape) -> Self {
        Self { shape, left: 0, rows: Vec::new() }
    }

    /// How many rows it has.
    pub(super) const fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The next of a row, and its place in the one order.
    pub(super) fn head(&mut self, draft: &Draft<'w>, row: usize) -> Option<(&'w Entry, &'w Queued, Rank)> {
        let row = self.rows.get_mut(row)?;
        let world = draft.world;
        while let Some(entry) = row.items.peek().copied() {
            if let Some(item) = world.queue.get(entry) {
                let rank = row.place.unwrap_or_else(|| item.rank(world.ageing(), draft.now));
                return Some((entry, item, rank));
            }
            row.items.next();
        }
        None
    }

    /// How many of those that are next in a row are chatbots, up to a few. It takes them out: for a stream that is over.
    pub(super) fn chatbots(&mut self, draft: &Draft<'w>, row: usize) -> u64 {
        let mut count = 0;
        while count < CHATBOTS_COUNTED
            && self.head(draft, row).is_some_and(|(_, item, _)| item.task.is_chatbot())
        {
            count += 1;
            self.advance(row);
        }
        count
    }

    /// On to the one after it.
    pub(super) fn advance(&mut self, row: usize) {
        if let Some(row) = self.rows.get_mut(row) {
            row.items.next();
            self.left = self.left.saturating_sub(1);
        }
    }
}

/// All streams. Items of a batch go longest first, at the place of the batch's first item.
pub(super) fn streams<'w>(draft: &Draft<'w>) -> Vec<Stream<'w>> {
    let world = draft.world;
    let mut streams: BTreeMap<&'w Shape, Stream<'w>> = BTreeMap::new();
    for (shape, line) in draft.front.iter().copied() {
        let mut stream = Stream::new(shape);
        stream.left = line.len();
        if shape.batch.is_some() {
            stream.rows.push(StreamRow::new(first_place(draft, line), longest_first(world, shape, line)));
        } else {
            stream.rows.extend(line.rows().map(|(_, row)| StreamRow::new(None, row.values())));
        }
        streams.insert(shape, stream);
    }
    // Parked tasks whose time came since the last event: the world learns of that only with the next one.
    for entry in world.queue.matured(draft.now) {
        if let Some(item) = world.queue.get(entry) {
            let stream = streams.entry(&item.shape).or_insert_with(|| Stream::new(&item.shape));
            stream.left += 1;
            stream.rows.push(StreamRow::new(None, std::iter::once(entry)));
        }
    }
    streams.into_values().collect()
}

/// Items of a batch, the longest first by what was learned of their kind.
pub(crate) fn longest_first<'w>(
    world: &World,
    shape: &Shape,
    line: &'w Line,
) -> impl Iterator<Item = &'w Entry> + use<'w> {
    let (memory, config) = (&world.memory, &world.config);
    let host = shape.host();
    let speed = host.and_then(|host| memory.speed_anywhere(config, host)).unwrap_or(1.0);
    let typical = host.and_then(|host| memory.run_by_name(&run_name_of(host))).map(|run| run.p50);
    line.longest_first(1.0 / speed, typical)
}

/// The place of the first of a line.
fn first_place(draft: &Draft<'_>, line: &Line) -> Option<Rank> {
    let firsts = line.rows().filter_map(|(_, row)| row.values().next());
    let ranks = firsts.filter_map(|entry| draft.world.queue.get(entry));
    ranks.map(|item| item.rank(draft.world.ageing(), draft.now)).min()
}
