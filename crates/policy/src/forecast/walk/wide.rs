//! Tasks of several GPUs: they take those that are free first, from when the last of them is.
//!
//! Not here: what is kept for them meanwhile (`plan::wide`).

use model::Millis;

use super::super::Span;
use super::super::place::Loaded;
use super::{Course, Use, Walk};
use crate::place::is_wanted;
use crate::queue::Queued;

impl<'w> Walk<'w> {
    pub(super) fn settle_wide(&mut self, item: &'w Queued) -> Option<Course<'w>> {
        let mut free: Vec<(bool, Millis, usize)> = Vec::new();
        for (at, place) in self.places.iter().enumerate() {
            let how = Use::of(self.world, self.now, self.pace, &item.shape, place);
            if let (Some(gpu), Use::Script) = (place.gpu, how)
                && let Some(start) = self.script_start(at, item)
            {
                let is_wanted = is_wanted(&item.shape, &gpu.facts);
                free.push((!is_wanted, start.at.max(place.all_free_at()), at));
            }
        }
        free.sort();
        let (_, lead_free, lead) = free.first().copied().filter(|(unwanted, ..)| !unwanted)?;
        let able = free.len();
        let mut others: Vec<(Millis, usize)> = free[1..].iter().map(|(_, time, at)| (*time, *at)).collect();
        others.sort();
        let others = others.get(..item.shape.gpus() - 1)?;
        let floor = item.not_before.unwrap_or(self.now).max(self.now).max(self.lock_free.unwrap_or(self.now));
        let start = others.iter().map(|(time, _)| *time).chain([lead_free, floor]).max()?;
        let (gpu, found) = (self.places[lead].gpu, self.places[lead].loaded);
        let leaves = matches!(found, Loaded::Llm(_)).then_some(start);
        let name = gpu.map(|gpu| gpu.facts.name.as_str());
        let run = self.pace.of(self.world.memory.run(&self.world.config, &item.task, None, name));
        let end = start + run.max(Millis(1));
        for at in others.iter().map(|(_, at)| *at).chain([lead]) {
            self.places[at].load(Loaded::Nothing, 1, start);
            self.places[at].take(end);
        }
        self.lock_free = self.lock_free.map(|_| end);
        let span = Span { start, end, place: Some(self.places[lead].key()) };
        let (was_busy, others) = (start > self.now, able - item.shape.gpus());
        Some(Course { span, gpu, found, serves: Loaded::Nothing, leaves, was_busy, others })
    }
}
