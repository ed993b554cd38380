//! How many go before a task, for people: those of higher urgency, and among equals those whose turn comes first.
//!
//! Nothing is decided by these numbers. They take time by how many go first, so that the first in line costs next to
//! nothing and a plan can afford to say why it waits. Not here: the sentences (`why`).

use std::collections::BTreeMap;

use model::Millis;
use model::reason::Ahead;

use crate::order::{Arrival, Rank, Urgency};
use crate::queue::{Queued, Row, RowKey};
use crate::world::World;

/// Where a task stands among those of its class and lane.
pub(crate) struct Standing {
    /// How many go first.
    pub ahead: Ahead,
    /// The job type whose turn it is, where it waits for nothing but that.
    pub turn_of: Option<String>,
}

/// Tasks of one job type at one level.
struct Waiting {
    count: usize,
    first: Arrival,
}

impl World {
    /// Where a waiting task stands.
    pub(crate) fn standing(&self, now: Millis, item: &Queued) -> Standing {
        let rank = item.rank(self.ageing(), now);
        let own = item.task.job_type.as_str();
        let (mut higher, mut earlier) = (0, 0);
        for (key, row) in self.rivals(item) {
            higher += self.urgencies(key, row, now).take_while(|urgency| *urgency < rank.urgency).count();
            if key.job_type == own {
                earlier +=
                    self.equals(key, row, rank, now).take_while(|it| it.arrival < rank.arrival).count();
            }
        }
        let mut waiting: BTreeMap<&str, Waiting> = BTreeMap::new();
        for (key, row) in self.rivals(item).filter(|(key, _)| key.job_type != own) {
            let Some(first) = self.equals(key, row, rank, now).next() else { continue };
            let ratio = self.turns.weight(&key.job_type) / self.turns.weight(own);
            let most = (earlier + 1).saturating_mul(ratio as usize + 2);
            let count = self.equals(key, row, rank, now).take(most).count();
            let known = waiting.entry(&key.job_type).or_insert(Waiting { count: 0, first: first.arrival });
            known.count += count;
            known.first = known.first.min(first.arrival);
        }
        waiting.insert(own, Waiting { count: earlier + 1, first: rank.arrival });
        let (turns, first) =
            if item.task.is_chatbot() { (earlier, None) } else { self.until_turn(item, waiting) };
        let ahead = Ahead { count: (higher + turns) as u64, only_older_in_s: self.bound_left(now, item) };
        Standing { ahead, turn_of: first.filter(|_| higher == 0 && earlier == 0 && turns > 0) }
    }

    /// How many turns pass before that of a task, the last of its type here; and whose the first one is.
    fn until_turn(&self, item: &Queued, mut waiting: BTreeMap<&str, Waiting>) -> (usize, Option<String>) {
        let own = item.task.job_type.as_str();
        let mut grants = self.grants(item.shape.in_cpu_lane()).clone();
        let mut first = None;
        for turns in 0.. {
            let types = waiting.iter().map(|(job_type, waiting)| (*job_type, waiting.first));
            let Some(next) = self.turns.next(&grants, types) else { return (turns, first) };
            first.get_or_insert_with(|| next.to_owned());
            let left = waiting.get_mut(next).map_or(0, |waiting| {
                waiting.count -= 1;
                waiting.count
            });
            if left == 0 {
                if next == own {
                    return (turns, first);
                }
                waiting.remove(next);
            }
            self.turns.grant(&mut grants, next);
        }
        (0, first)
    }

    /// Rows of the same class and lane; of the lane, where one lock is all there is. For who is at the front, those there:
    /// that leaves out no more than some of its own level where hundreds of rows of one kind wait, and a plan can afford it.
    fn rivals(&self, item: &Queued) -> impl Iterator<Item = (&RowKey, &Row)> {
        let (class, in_cpu_lane) = (item.shape.class(), item.shape.in_cpu_lane());
        let one_queue = !in_cpu_lane && self.has_single_lock();
        let is_first = self.queue.is_at_front(item);
        let front = is_first.then(|| self.queue.front()).into_iter().flatten();
        let all = (!is_first).then(|| self.queue.lines()).into_iter().flatten();
        let lines = front.chain(all).filter(move |(shape, _)| {
            (one_queue || shape.class() == class) && shape.in_cpu_lane() == in_cpu_lane
        });
        lines.flat_map(|(_, line)| line.rows())
    }

    fn ranks<'w>(&self, key: &'w RowKey, row: &'w Row, now: Millis) -> impl Iterator<Item = Rank> + use<'w> {
        let (ageing, chatbot) = (self.ageing(), key.job_type == model::task::CHATBOT);
        row.keys().map(move |arrival| {
            let urgency = Urgency::of(chatbot, key.priority, arrival.since, ageing, now);
            Rank { urgency, arrival: *arrival }
        })
    }

    fn urgencies<'w>(
        &self,
        key: &'w RowKey,
        row: &'w Row,
        now: Millis,
    ) -> impl Iterator<Item = Urgency> + use<'w> {
        self.ranks(key, row, now).map(|rank| rank.urgency)
    }

    /// Those at the same level, in their order.
    fn equals<'w>(
        &self,
        key: &'w RowKey,
        row: &'w Row,
        with: Rank,
        now: Millis,
    ) -> impl Iterator<Item = Rank> + use<'w> {
        let ranks = self.ranks(key, row, now).skip_while(move |rank| rank.urgency < with.urgency);
        ranks.take_while(move |rank| rank.urgency == with.urgency)
    }

    /// How long it is until nothing that comes later goes before it but chatbots and other job types at their turn.
    fn bound_left(&self, now: Millis, item: &Queued) -> Option<f64> {
        let bound = self.ageing().bound(item.task.priority)?;
        Some((item.since + bound - now).as_secs_f64().max(0.0))
    }
}
