//! Everything that waits, in the one order as it is now, each start counted as a turn; parked tasks last, by their time.
//!
//! GPU tasks and those of the CPU lane alternate, as they are never in each other's way. Items of a batch go
//! longest first, at the place of its first; LLM tasks that such a batch holds back come after everything else. Not
//! here: where they go (`walk`).

use std::iter::Peekable;

use model::learned::Grants;
use model::task::CHATBOT;
use model::{BatchId, Entry, Millis, TaskClass};

use crate::exclusive::Exclusive;
use crate::order::Rank;
use crate::plan::{Agenda, longest_first};
use crate::queue::{Line, Queued};
use crate::shape::Shape;
use crate::world::World;

type Items<'w> = Peekable<Box<dyn Iterator<Item = &'w Entry> + 'w>>;

/// Tasks that follow each other.
struct OrderRow<'w> {
    lane: usize,
    /// Where all of them stand; none where each stands for itself.
    place: Option<Rank>,
    items: Items<'w>,
}

/// Who competes with whom: what wants a GPU, the CPU lane, and LLM tasks that an exclusive batch holds back.
const LANES: usize = 3;
const HELD_BACK: usize = 2;

/// The waiting tasks, one after the other.
pub(super) struct Order<'w> {
    world: &'w World,
    now: Millis,
    rows: Vec<OrderRow<'w>>,
    agendas: [Agenda<'w>; LANES],
    grants: [Grants; LANES],
    /// The lane whose turn it is.
    lane: usize,
    parked: Box<dyn Iterator<Item = &'w Entry> + 'w>,
}

impl<'w> Order<'w> {
    /// All of them, or those of one batch.
    pub(super) fn new(
        world: &'w World,
        now: Millis,
        exclusive: Option<&Exclusive<'w>>,
        only: Option<&BatchId>,
    ) -> Self {
        let mut order = Self {
            world,
            now,
            rows: Vec::new(),
            agendas: Default::default(),
            grants: [false, true, false].map(|in_cpu_lane| world.grants(in_cpu_lane).clone()),
            lane: 0,
            parked: if only.is_some() {
                Box::new(std::iter::empty())
            } else {
                Box::new(world.queue.parked())
            },
        };
        let wanted = |shape: &Shape| only.is_none_or(|batch| shape.batch.as_ref() == Some(batch));
        for (shape, line) in world.queue.lines().filter(|(shape, _)| wanted(shape)) {
            let lane = usize::from(shape.in_cpu_lane());
            let held_back = exclusive.is_some() && shape.class() == TaskClass::Llm;
            let chat = world.config.resource_manager.batch_settings.exclusive_admits_chat;
            if shape.batch.is_some() {
                order.add(lane, order.first_place(line), Box::new(longest_first(world, shape, line)));
            } else {
                for (key, row) in line.rows() {
                    let admitted = chat && key.job_type == CHATBOT;
                    let lane = if held_back && !admitted { HELD_BACK } else { lane };
                    order.add(lane, None, Box::new(row.values()));
                }
            }
        }
        order
    }

    fn add(&mut self, lane: usize, place: Option<Rank>, items: Box<dyn Iterator<Item = &'w Entry> + 'w>) {
        self.rows.push(OrderRow { lane, place, items: items.peekable() });
        self.line_up(self.rows.len() - 1);
    }

    /// The place of the first of a line.
    fn first_place(&self, line: &Line) -> Option<Rank> {
        let firsts = line.rows().filter_map(|(_, row)| row.values().next());
        firsts.filter_map(|entry| self.world.queue.get(entry)).map(|item| self.rank(item)).min()
    }

    fn rank(&self, item: &Queued) -> Rank {
        item.rank(self.world.ageing(), self.now)
    }

    fn line_up(&mut self, at: usize) {
        let row = &mut self.rows[at];
        let Some(item) = row.items.peek().and_then(|entry| self.world.queue.get(entry)) else { return };
        let rank = row.place.unwrap_or_else(|| item.rank(self.world.ageing(), self.now));
        self.agendas[row.lane].insert(rank, &item.task.job_type, (at, 0));
    }

    fn next_of(&mut self, lane: usize) -> Option<(&'w Entry, &'w Queued)> {
        let (at, _) = self.agendas[lane].pop(&self.world.turns, &self.grants[lane])?;
        let entry = self.rows[at].items.next()?;
        let item = self.world.queue.get(entry)?;
        self.world.turns.grant(&mut self.grants[lane], &item.task.job_type);
        self.line_up(at);
        Some((entry, item))
    }
}

impl<'w> Iterator for Order<'w> {
    type Item = (&'w Entry, &'w Queued);

    fn next(&mut self) -> Option<Self::Item> {
        let lanes = [self.lane, 1 - self.lane, HELD_BACK];
        for lane in lanes {
            if let Some(next) = self.next_of(lane) {
                self.lane = 1 - self.lane;
                return Some(next);
            }
        }
        let entry = self.parked.next()?;
        Some((entry, self.world.queue.get(entry)?))
    }
}
