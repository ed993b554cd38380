//! Tasks of several GPUs: they take those that are free first, from when the last of them is.
//!
//! Not here: what is kept for them meanwhile (`plan::wide`).

use model::Millis;

use super::super::Span;
use super::super::place::Loaded;
use super::{Course, Use, Walk};
use crate::place::is_wanted;
use crate::queue::Queued;
use crate::shape::{Shape, What};

impl<'w> Walk<'w> {
    /// Whether an LLM of several GPUs that would serve these is loaded by then.
    pub(super) fn is_loaded_for(&self, shape: &Shape) -> bool {
        let model = self.world.spanning_model(shape).map(|(name, _)| name);
        let any = matches!(shape.what, What::Llm(None));
        self.places.iter().any(|place| match place.loaded {
            Loaded::Llm(loaded) => any || Some(loaded) == model,
            Loaded::Nothing | Loaded::Script(_) => false,
        })
    }

    pub(super) fn settle_wide(&mut self, item: &'w Queued) -> Option<Course<'w>> {
        let mut free: Vec<(bool, Millis, usize)> = Vec::new();
        for (at, place) in self.places.iter().enumerate() {
            let how = Use::of(self.world, self.now, self.pace, &item.shape, place);
            let start = match how {
                Use::Script => self.script_start(at, item).map(|start| start.at),
                Use::Llm { again_at, .. } => Some(again_at),
                Use::No => None,
            };
            if let (Some(gpu), Some(start)) = (place.gpu, start) {
                let is_wanted = is_wanted(&item.shape, &gpu.facts);
                free.push((!is_wanted, start.max(place.all_free_at()), at));
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
        let how = Use::of(self.world, self.now, self.pace, &item.shape, &self.places[lead]);
        let (serves, slots, start) = match how {
            Use::Llm { model, parallel, boot, .. } => (Loaded::Llm(model), parallel, start + boot),
            Use::Script | Use::No => (Loaded::Nothing, 1, start),
        };
        let name = gpu.map(|gpu| gpu.facts.name.as_str());
        let run = self.pace.of(self.world.memory.run(&self.world.config, &item.task, None, name));
        let end = start + run.max(Millis(1));
        for at in others.iter().map(|(_, at)| *at).chain([lead]) {
            self.places[at].load(serves, if at == lead { slots } else { 1 }, start);
            self.places[at].take(end);
        }
        self.lock_free = self.lock_free.map(|_| end);
        let span = Span { start, end, place: Some(self.places[lead].key()) };
        let beside = others.iter().filter_map(|(_, at)| self.places[*at].gpu).collect();
        let (was_busy, others) = (start > self.now, able - item.shape.gpus());
        Some(Course { span, gpu, beside, found, serves, leaves, was_busy, others })
    }
}
