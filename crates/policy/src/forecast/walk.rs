//! The walk: what waits, in the one order, each to where it would start first.
//!
//! Not here: what the places are like (`place`).

use std::collections::BTreeMap;

use model::{BatchId, Entry, Millis, TaskClass};

use super::order::Order;
use super::place::{Loaded, Place};
use super::{Pace, Span, WALKED_MAX};
use crate::exclusive::Exclusive;
use crate::gpu::Gpu;
use crate::model_choice::choose;
use crate::place::{fits, is_wanted};
use crate::plan::{Outlook, eviction_outlook};
use crate::queue::{Queued, Shape, What};
use crate::world::World;

/// What a shape can do with a place: nothing, or what it costs to get going there.
#[derive(Clone, Copy, Debug)]
enum Use<'w> {
    No,
    /// A script.
    Script,
    /// An LLM: the model that would be booted, its slots, its boot, and not before when.
    Llm {
        model: &'w str,
        parallel: u32,
        boot: Millis,
        again_at: Millis,
    },
}

/// How a task would get going at a place.
struct Start {
    at: Millis,
    place: usize,
    loads: bool,
}

/// A forecast in the making.
pub(super) struct Walk<'w> {
    world: &'w World,
    now: Millis,
    pace: Pace,
    places: Vec<Place<'w>>,
    uses: BTreeMap<&'w Shape, Vec<Use<'w>>>,
    exclusive: Option<Exclusive<'w>>,
    /// When an LLM makes room for scripts, by the rule of eviction: now, or then at the latest.
    evicts: Outlook,
    /// When the one lock of `gpu_lock: "single"` is free; none without it.
    lock_free: Option<Millis>,
    classes: BTreeMap<TaskClass, Tally>,
    batches: BTreeMap<BatchId, Tally>,
}

/// What was walked of a queue or batch.
#[derive(Clone, Debug, Default)]
struct Tally {
    walked: u64,
    held: u64,
    run: Millis,
    span: Option<Span>,
}

impl Tally {
    fn add(&mut self, span: Option<&Span>) {
        let Some(span) = span else {
            self.held += 1;
            return;
        };
        self.walked += 1;
        self.run = self.run + (span.end - span.start);
        self.span = Some(match self.span.take() {
            Some(before) => before.join(span),
            None => span.clone(),
        });
    }

    /// With `more` of the same kind, on `width` slots at once.
    fn and_more(&self, more: u64, width: u64) -> Option<Span> {
        let mut span = self.span.clone()?;
        let each = self.run.0 / i64::try_from(self.walked.max(1)).unwrap_or(i64::MAX);
        let rounds = i64::try_from(more.div_ceil(width.max(1))).unwrap_or(i64::MAX);
        span.end = span.end + Millis(each.saturating_mul(rounds));
        Some(span)
    }
}

impl<'w> Walk<'w> {
    pub(super) fn new(world: &'w World, now: Millis, pace: Pace) -> Self {
        let mut places: Vec<Place<'w>> = Vec::new();
        places.push(Place::of_cpu(world, now, pace));
        let usable = world.gpus.values().filter(|gpu| gpu.is_usable());
        places.extend(usable.map(|gpu| Place::of_gpu(world, now, gpu, pace)));
        let llm_here = places.iter().any(|place| matches!(place.loaded, Loaded::Llm(_)));
        let is_script = |shape: &Shape| shape.class() == TaskClass::Script && !shape.in_cpu_lane();
        let asks = llm_here && world.queue.lines().any(|(shape, _)| is_script(shape));
        let mut walk = Self {
            world,
            now,
            pace,
            places,
            uses: BTreeMap::new(),
            exclusive: world.exclusive(now),
            evicts: if asks { eviction_outlook(world, now) } else { Outlook::Unknown },
            lock_free: world.has_single_lock().then_some(now),
            classes: BTreeMap::new(),
            batches: BTreeMap::new(),
        };
        walk.count_running();
        walk
    }

    fn count_running(&mut self) {
        for unit in self.world.units.values().filter(|unit| unit.is_live()) {
            let Some(worker) = self.world.workers.get(&unit.worker) else { continue };
            let start = unit.running_since().unwrap_or(self.now);
            let end = super::expected_end(self.world, self.now, worker, unit, self.pace);
            if worker.gpu.is_some() {
                self.lock_free = self.lock_free.map(|free| free.max(end));
            }
            let Some(batch) = &unit.task.batch_id else { continue };
            let span = Span { start, end, place: Some(super::key(self.world, worker)) };
            self.batches.entry(batch.clone()).or_default().add(Some(&span));
        }
    }

    fn order(&self) -> Order<'w> {
        Order::new(self.world, self.now, self.exclusive.as_ref())
    }

    /// When this task starts and ends.
    pub(super) fn until(mut self, wanted: &Entry, most: usize) -> Option<Span> {
        let item = self.world.queue.get(wanted)?;
        let order = self.order();
        for (entry, next) in order.take(most) {
            let span = self.put(next);
            if entry == wanted {
                return span;
            }
        }
        self.beyond(item)
    }

    /// When these start, as far as `most` steps tell.
    pub(super) fn starts_of(mut self, wanted: &[&Entry], most: usize) -> BTreeMap<Entry, Millis> {
        let mut starts = BTreeMap::new();
        let order = self.order();
        for (entry, next) in order.take(most) {
            let span = self.put(next);
            if wanted.contains(&entry)
                && let Some(span) = span
            {
                starts.insert(entry.clone(), span.start);
            }
            if starts.len() == wanted.len() {
                break;
            }
        }
        for entry in wanted {
            if !starts.contains_key(*entry)
                && let Some(span) = self.world.queue.get(entry).and_then(|item| self.beyond(item))
            {
                starts.insert((*entry).clone(), span.start);
            }
        }
        starts
    }

    /// The first task that comes to a place.
    pub(super) fn next_on(mut self, key: &str, most: usize) -> Option<(Entry, Millis)> {
        let order = self.order();
        for (entry, next) in order.take(most) {
            if let Some(span) = self.put(next)
                && span.place.as_deref() == Some(key)
            {
                return Some((entry.clone(), span.start));
            }
        }
        None
    }

    /// Everything that waits, as far as it is walked at all.
    pub(super) fn whole(mut self) -> Self {
        let order = self.order();
        for (_, item) in order.take(WALKED_MAX) {
            self.put(item);
        }
        self
    }

    /// Tasks of a class that were walked and of which nobody can say when they start.
    pub(super) fn held(&self, class: TaskClass) -> u64 {
        self.classes.get(&class).map_or(0, |tally| tally.held)
    }

    /// First start and last end of a class.
    pub(super) fn of_class(&self, class: TaskClass) -> Option<Span> {
        let tally = self.classes.get(&class)?;
        let waiting: u64 = model::Priority::ALL
            .into_iter()
            .map(|priority| self.world.queue.in_folder((class, priority)))
            .sum();
        tally.and_more(waiting.saturating_sub(tally.walked + tally.held), self.width(class))
    }

    /// First start and last end of a batch; none for one with held items only.
    pub(super) fn of_batch(&self, batch: &BatchId) -> Option<Span> {
        let tally = self.batches.get(batch)?;
        let remaining = self.world.batches.get(batch).map_or(0, |batch| batch.facts.remaining());
        tally.and_more(remaining.saturating_sub(tally.walked + tally.held), self.width(TaskClass::Script))
    }

    /// How many tasks of a class run at once where things stand at the end of the walk.
    fn width(&self, class: TaskClass) -> u64 {
        let of_class = |place: &&Place<'_>| match class {
            TaskClass::Llm => matches!(place.loaded, Loaded::Llm(_)),
            TaskClass::Script => matches!(place.loaded, Loaded::Script(_)),
        };
        self.places.iter().filter(of_class).map(Place::width).sum::<u64>().max(1)
    }

    /// A task that was not reached: after what was, at the rate that was.
    fn beyond(&mut self, item: &'w Queued) -> Option<Span> {
        let mut span = self.settle(item)?;
        let class = item.shape.class();
        let tally = self.classes.get(&class)?;
        let ahead = self.world.standing(self.now, item).ahead.count;
        let first = span.start;
        let moved = tally.and_more(ahead.saturating_sub(tally.walked), self.width(class))?;
        let end = moved.end.max(first);
        span.end = end + (span.end - span.start);
        span.start = end;
        span.place = None;
        Some(span)
    }

    /// Puts a task where it starts first; none where nobody can say.
    fn put(&mut self, item: &'w Queued) -> Option<Span> {
        let span = self.settle(item);
        self.classes.entry(item.shape.class()).or_default().add(span.as_ref());
        if let Some(batch) = &item.task.batch_id {
            self.batches.entry(batch.clone()).or_default().add(span.as_ref());
        }
        span
    }

    fn settle(&mut self, item: &'w Queued) -> Option<Span> {
        if self.world.down.is_some() || item.cancelled || self.world.queue.is_paused(&item.shape) {
            return None;
        }
        if item.shape.is_wide() {
            return self.settle_wide(item);
        }
        let start = self.first_start(item)?;
        let place = &mut self.places[start.place];
        if start.loads {
            match self.uses.get(&item.shape).and_then(|uses| uses.get(start.place)) {
                Some(Use::Llm { model, parallel, .. }) => place.load(Loaded::Llm(model), *parallel, start.at),
                _ => place.load(item.shape.host().map_or(Loaded::Nothing, Loaded::Script), 1, start.at),
            }
        }
        let llm = match place.loaded {
            Loaded::Llm(model) => Some(model),
            _ => None,
        };
        let gpu = place.gpu.map(|gpu| gpu.facts.name.as_str());
        let run = self.pace.of(self.world.memory.run(&self.world.config, &item.task, llm, gpu));
        let end = start.at + run.max(Millis(1));
        place.take(end);
        if place.gpu.is_some() {
            self.lock_free = self.lock_free.map(|_| end);
        }
        Some(Span { start: start.at, end, place: Some(place.key()) })
    }

    /// A task of several GPUs takes those that are free first, from when the last of them is.
    fn settle_wide(&mut self, item: &'w Queued) -> Option<Span> {
        let mut free: Vec<(bool, Millis, usize)> = Vec::new();
        for (at, place) in self.places.iter().enumerate() {
            if let (Some(gpu), Use::Script) = (place.gpu, self.use_of(&item.shape, place))
                && let Some((time, _)) = self.script_start(place, item)
            {
                let is_wanted = is_wanted(&item.shape, &gpu.facts);
                free.push((!is_wanted, time.max(place.all_free_at()), at));
            }
        }
        free.sort();
        let (_, lead_free, lead) = free.first().copied().filter(|(unwanted, ..)| !unwanted)?;
        let mut others: Vec<(Millis, usize)> = free[1..].iter().map(|(_, time, at)| (*time, *at)).collect();
        others.sort();
        let others = others.get(..item.shape.gpus() - 1)?;
        let floor = item.not_before.unwrap_or(self.now).max(self.now).max(self.lock_free.unwrap_or(self.now));
        let start = others.iter().map(|(time, _)| *time).chain([lead_free, floor]).max()?;
        let gpu = self.places[lead].gpu.map(|gpu| gpu.facts.name.as_str());
        let run = self.pace.of(self.world.memory.run(&self.world.config, &item.task, None, gpu));
        let end = start + run.max(Millis(1));
        for at in others.iter().map(|(_, at)| *at).chain([lead]) {
            self.places[at].load(Loaded::Nothing, 1, start);
            self.places[at].take(end);
        }
        self.lock_free = self.lock_free.map(|_| end);
        Some(Span { start, end, place: Some(self.places[lead].key()) })
    }

    /// Where and when a task starts first.
    fn first_start(&mut self, item: &'w Queued) -> Option<Start> {
        let mut floor = item.not_before.unwrap_or(self.now).max(self.now);
        if item.shape.class() == TaskClass::Llm && !self.world.is_admitted_chat(&item.task) {
            floor = floor.max(self.llms_from());
        }
        if let Some(free) = self.lock_free.filter(|_| !item.shape.in_cpu_lane()) {
            floor = floor.max(free);
        }
        if !self.uses.contains_key(&item.shape) {
            let uses = self.places.iter().map(|place| self.use_of(&item.shape, place)).collect();
            self.uses.insert(&item.shape, uses);
        }
        let mut first: Option<Start> = None;
        for (at, how) in self.uses.get(&item.shape)?.iter().enumerate() {
            let place = &self.places[at];
            let start = match *how {
                Use::No => None,
                Use::Llm { model, boot, again_at, .. } => {
                    self.llm_start(place, item, model, (boot, again_at))
                }
                Use::Script => self.script_start(place, item),
            };
            if let Some((time, loads)) = start {
                let time = time.max(floor);
                if first.as_ref().is_none_or(|best| time < best.at) {
                    first = Some(Start { at: time, place: at, loads });
                }
            }
        }
        first
    }

    /// LLM tasks wait until the exclusive batches are over.
    fn llms_from(&self) -> Millis {
        let batches = self.exclusive.as_ref().map_or([].as_slice(), |exclusive| &exclusive.batches);
        let ends = batches.iter().filter_map(|batch| self.of_batch(batch)).map(|span| span.end);
        ends.max().unwrap_or(self.now)
    }

    /// When an LLM task would start at a place, and whether that loads the LLM there.
    fn llm_start(
        &self,
        place: &Place<'w>,
        item: &Queued,
        model: &str,
        (boot, again_at): (Millis, Millis),
    ) -> Option<(Millis, bool)> {
        let What::Llm(wanted) = &item.shape.what else { return None };
        let gpu = place.gpu?;
        match place.loaded {
            Loaded::Llm(loaded) if wanted.as_deref().is_none_or(|name| name == loaded) => {
                Some((place.free_at(), false))
            }
            // The orchestrating LLM stays.
            Loaded::Llm(_) if self.world.is_pinned(gpu) && model != loaded_name(&place.loaded) => None,
            Loaded::Nothing => Some((place.all_free_at().max(again_at) + boot, true)),
            Loaded::Llm(_) | Loaded::Script(_) => {
                let free = place.all_free_at() + gpu.cooling;
                Some((free.max(again_at) + boot, true))
            }
        }
    }

    /// When a script would start at a place, and whether that loads it there.
    fn script_start(&self, place: &Place<'w>, item: &'w Queued) -> Option<(Millis, bool)> {
        let host = item.shape.host()?;
        let Some(gpu) = place.gpu else { return Some((place.free_at(), false)) };
        let load = || self.pace.of(self.world.memory.host_boot(&self.world.config, host));
        let warm = |place: &Place<'_>| host.warm && place.worker.is_some_and(|worker| worker.has_host(host));
        match place.loaded {
            Loaded::Script(loaded) if loaded == host => Some((place.free_at(), false)),
            Loaded::Nothing if warm(place) => Some((place.free_at(), true)),
            Loaded::Nothing | Loaded::Script(_) => {
                let load = if host.warm { load() } else { Millis::ZERO };
                Some((place.all_free_at() + load, true))
            }
            Loaded::Llm(_) => {
                let leaves = self.llm_leaves_at(place, item)?;
                let load = if host.warm { load() } else { Millis::ZERO };
                Some((leaves + gpu.cooling + load, true))
            }
        }
    }

    /// When the LLM of a place would make room for this script.
    fn llm_leaves_at(&self, place: &Place<'_>, item: &Queued) -> Option<Millis> {
        let free = place.all_free_at();
        if self.exclusive.as_ref().is_some_and(|exclusive| exclusive.has(item.shape.batch.as_ref())) {
            return Some(free);
        }
        match self.evicts {
            Outlook::At(at) => Some(free.max(at)),
            Outlook::Unknown => Some(free + self.reload_time(place)),
            Outlook::Never => None,
        }
    }

    /// The same for the LLM of a GPU, and the first script that could run in its place.
    pub(super) fn llm_of_leaves_at(&self, gpu: &Gpu) -> Option<Millis> {
        let place =
            self.places.iter().find(|place| place.gpu.is_some_and(|at| at.facts.uuid == gpu.facts.uuid))?;
        let scripts = self.order().map(|(_, item)| item);
        let mut scripts = scripts.filter(|item| item.shape.class() == TaskClass::Script);
        let first = scripts.find(|item| !item.shape.in_cpu_lane() && gpu.has_room_for(&item.shape))?;
        self.llm_leaves_at(place, first)
    }

    fn reload_time(&self, place: &Place<'_>) -> Millis {
        let Loaded::Llm(model) = place.loaded else { return Millis::ZERO };
        let preset = place.worker.and_then(|worker| worker.engine.as_ref()).map_or("", |order| &order.preset);
        self.pace.of(self.world.memory.llm_boot(&self.world.config, preset, model))
    }

    /// What this shape can do with a place.
    fn use_of(&self, shape: &'w Shape, place: &Place<'w>) -> Use<'w> {
        let Some(gpu) = place.gpu else {
            return if shape.in_cpu_lane() && place.worker.is_some() { Use::Script } else { Use::No };
        };
        // One of several GPUs need not be the one that it asks for.
        let fits = if shape.is_wide() { gpu.could_be_one_for(shape) } else { fits(shape, &gpu.facts) };
        let Some(worker) = place.worker.filter(|_| fits && !shape.in_cpu_lane()) else {
            return Use::No;
        };
        let What::Llm(wanted) = &shape.what else {
            let may = self.world.takes_scripts(gpu) && (shape.is_wide() || gpu.has_room_for(shape));
            return if may { Use::Script } else { Use::No };
        };
        let loaded = match place.loaded {
            Loaded::Llm(model) => Some(model),
            _ => None,
        };
        match choose(self.world, gpu, worker, wanted.as_deref()) {
            Some(choice) => {
                let failure = gpu.boot_failures.get(&choice.model);
                let named =
                    self.world.config.models.get_key_value(&choice.model).map(|(name, _)| name.as_str());
                Use::Llm {
                    model: named.unwrap_or(model::config::DEMO_MODEL),
                    parallel: choice.parallel,
                    boot: self.pace.of(self.world.memory.llm_boot(
                        &self.world.config,
                        &choice.preset,
                        &choice.model,
                    )),
                    again_at: failure.map_or(self.now, |failure| failure.again_at),
                }
            }
            // Nothing more could be booted, but what is loaded serves.
            None => loaded.map_or(Use::No, |model| Use::Llm {
                model,
                parallel: 1,
                boot: Millis::ZERO,
                again_at: self.now,
            }),
        }
    }
}

fn loaded_name<'w>(loaded: &Loaded<'w>) -> &'w str {
    match loaded {
        Loaded::Llm(model) => model,
        Loaded::Nothing | Loaded::Script(_) => "",
    }
}
