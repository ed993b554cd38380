//! The walk: what waits, in the one order, each to where it would start first.
//!
//! Not here: what the places are like (`place`).

mod wide;

use std::collections::BTreeMap;

use model::{BatchId, Entry, Millis, TaskClass};

use super::order::Order;
use super::place::{Loaded, Place};
use super::uses::Use;
use super::{Pace, Span, WALKED_MAX};
use crate::event::BatchFacts;
use crate::exclusive::Exclusive;
use crate::gpu::Gpu;
use crate::plan::{Outlook, eviction_outlook};
use crate::queue::Queued;
use crate::shape::{Shape, What};
use crate::world::World;

/// How a task would get going at a place.
#[derive(Clone, Copy)]
struct Start {
    at: Millis,
    place: usize,
    loads: bool,
    /// When an LLM there makes room for it.
    leaves: Option<Millis>,
}

impl Start {
    /// By what is loaded.
    const fn warm(at: Millis, place: usize) -> Self {
        Self { at, place, loads: false, leaves: None }
    }

    /// After a load.
    const fn cold(at: Millis, place: usize) -> Self {
        Self { at, place, loads: true, leaves: None }
    }

    fn not_before(self, floor: Millis) -> Self {
        let late = (floor - self.at).max(Millis::ZERO);
        Self { at: self.at + late, leaves: self.leaves.map(|leaves| leaves + late), ..self }
    }
}

/// How a task would come to run.
pub(super) struct Course<'w> {
    pub span: Span,
    /// Its GPU; none in the CPU lane.
    pub gpu: Option<&'w Gpu>,
    /// GPUs that it has besides.
    pub beside: Vec<&'w Gpu>,
    /// What was loaded there before.
    pub found: Loaded<'w>,
    /// What is loaded there for it.
    pub serves: Loaded<'w>,
    /// When an LLM there makes room for it.
    pub leaves: Option<Millis>,
    /// Whether anything was still to end there first.
    pub was_busy: bool,
    /// How many other places could run it.
    pub others: usize,
}

/// An LLM that makes room, and until when it is not needed.
#[derive(Clone, Debug)]
pub(crate) struct Departure<'w> {
    /// Its GPU.
    pub gpu: &'w Gpu,
    /// What loads it.
    pub preset: &'w str,
    /// Which.
    pub model: &'w str,
    /// When it goes.
    pub at: Millis,
    /// When the last of the batch it left for has ended there.
    pub until: Millis,
}

/// A forecast in the making.
pub(super) struct Walk<'w> {
    world: &'w World,
    now: Millis,
    pace: Pace,
    places: Vec<Place<'w>>,
    uses: BTreeMap<&'w Shape, Vec<Use<'w>>>,
    exclusive: Option<Exclusive<'w>>,
    /// When an LLM makes room for scripts, by the rule of eviction.
    evicts: Outlook,
    /// When the one lock of `gpu_lock: "single"` is free; none without it.
    lock_free: Option<Millis>,
    classes: BTreeMap<TaskClass, Tally>,
    batches: BTreeMap<BatchId, Tally>,
    /// If only this batch is looked at, as if nothing else waited and no LLM were in its way.
    only: Option<BatchId>,
    /// LLMs that make room for a batch, by place.
    departures: BTreeMap<(BatchId, usize), Departure<'w>>,
    /// Whether the order came to its end: what was not reached is held back by a rule, and no time alone frees it.
    ended: bool,
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
            only: None,
            departures: BTreeMap::new(),
            ended: false,
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
        for claim in self.world.claims.values() {
            let Some(batch) = &claim.task.batch_id else { continue };
            let span = super::of_claim(self.world, self.now, claim, self.pace);
            self.batches.entry(batch.clone()).or_default().add(span.as_ref());
        }
    }

    fn order(&self) -> Order<'w> {
        Order::new(self.world, self.now, self.exclusive.as_ref(), self.only.as_ref())
    }

    /// As if only this batch waited, no LLM were in its way, and there were these GPUs alone.
    pub(super) fn only(mut self, batch: &BatchId, wanted: &dyn Fn(&Gpu) -> bool) -> Self {
        self.places.retain(|place| place.gpu.is_none_or(wanted));
        self.only = Some(batch.clone());
        self
    }

    /// How this task comes to run; none where nobody can say, or beyond what is walked.
    pub(super) fn course(mut self, wanted: &Entry) -> Option<Course<'w>> {
        let order = self.order();
        for (entry, next) in order.take(WALKED_MAX) {
            let course = self.put_course(next);
            if entry == wanted {
                return course;
            }
        }
        None
    }

    /// LLMs that make room for a batch, after the walk.
    pub(super) fn departures(&self, batch: &BatchId) -> Vec<Departure<'w>> {
        let of_batch = self.departures.iter().filter(|((of, _), _)| of == batch);
        of_batch.map(|(_, departure)| departure.clone()).collect()
    }

    /// When this task starts and ends.
    pub(super) fn until(mut self, wanted: &Entry, most: usize) -> Option<Span> {
        let item = self.world.queue.get(wanted)?;
        let mut order = self.order();
        for _ in 0..most {
            let (entry, next) = order.next()?;
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
        let mut order = self.order();
        for _ in 0..most {
            let Some((entry, next)) = order.next() else { return starts };
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
        let mut order = self.order();
        for _ in 0..WALKED_MAX {
            let Some((_, item)) = order.next() else {
                self.ended = true;
                break;
            };
            self.put(item);
        }
        self
    }

    /// Tasks of a class of which nobody can say when they start.
    pub(super) fn held(&self, class: TaskClass) -> u64 {
        let tally = self.classes.get(&class);
        let held = tally.map_or(0, |tally| tally.held);
        match self.ended {
            true => {
                held + self.waiting(class).saturating_sub(tally.map_or(0, |tally| tally.walked + tally.held))
            }
            false => held,
        }
    }

    /// Tasks of a class that wait and were read.
    fn waiting(&self, class: TaskClass) -> u64 {
        let folders = model::Priority::ALL.into_iter().map(|priority| (class, priority));
        folders.map(|folder| self.world.queue.in_folder(folder)).sum::<u64>()
            - self.world.queue.unparsed(class)
    }

    /// First start and last end of a class.
    pub(super) fn of_class(&self, class: TaskClass) -> Option<Span> {
        let tally = self.classes.get(&class)?;
        let unread = self.world.queue.unparsed(class);
        let more = match self.ended {
            true => unread,
            false => unread + self.waiting(class).saturating_sub(tally.walked + tally.held),
        };
        tally.and_more(more, self.width(class))
    }

    /// First start and last end of a batch; none for one that is paused, or has held items only.
    pub(super) fn of_batch(&self, batch: &BatchId) -> Option<Span> {
        let tally = self.batches.get(batch)?;
        let facts = self.world.batches.get(batch).map(|batch| &batch.facts);
        if facts.is_some_and(|facts| facts.paused) {
            return None;
        }
        let remaining = facts.map_or(0, BatchFacts::remaining);
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
        let mut span = self.settle(item)?.span;
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
        self.put_course(item).map(|course| course.span)
    }

    fn put_course(&mut self, item: &'w Queued) -> Option<Course<'w>> {
        let course = self.settle(item);
        let span = course.as_ref().map(|course| &course.span);
        self.classes.entry(item.shape.class()).or_default().add(span);
        if let Some(batch) = &item.task.batch_id {
            self.batches.entry(batch.clone()).or_default().add(span);
        }
        course
    }

    fn settle(&mut self, item: &'w Queued) -> Option<Course<'w>> {
        if self.world.down.is_some() || item.cancelled || self.world.queue.is_paused(&item.shape) {
            return None;
        }
        if item.shape.needs_several() && !self.is_loaded_for(&item.shape) {
            return self.settle_wide(item);
        }
        let start = self.first_start(item)?;
        let uses = self.uses.get(&item.shape).map_or(&[][..], Vec::as_slice);
        let others = uses.iter().filter(|how| !matches!(how, Use::No)).count().saturating_sub(1);
        let how = uses.get(start.place).copied();
        let place = &mut self.places[start.place];
        let (found, was_busy) = (place.loaded, place.free_at() > self.now);
        if start.loads {
            match how {
                Some(Use::Llm { model, parallel, .. }) => place.load(Loaded::Llm(model), parallel, start.at),
                _ => {
                    let host = item.shape.host().map_or(Loaded::Nothing, Loaded::Script);
                    let slots =
                        place.gpu.map_or(1, |gpu| self.world.slots_alone(gpu, place.worker, &item.shape));
                    place.load(host, slots, start.at);
                }
            }
        }
        let serves = place.loaded;
        let llm = match serves {
            Loaded::Llm(model) => Some(model),
            _ => None,
        };
        let (gpu, beside) = (place.gpu, place.in_use(start.at) + 1);
        let (config, name) = (&self.world.config, gpu.map(|gpu| gpu.facts.name.as_str()));
        let run = self.pace.of(self.world.memory.run_beside(config, &item.task, llm, name, beside));
        let end = start.at + run.max(Millis(1));
        place.take(end);
        let span = Span { start: start.at, end, place: Some(place.key()) };
        if gpu.is_some() {
            self.lock_free = self.lock_free.map(|_| end);
        }
        self.note_departure(item, &start, found, end);
        Some(Course { span, gpu, beside: Vec::new(), found, serves, leaves: start.leaves, was_busy, others })
    }

    /// For whom an LLM makes room, and how long it is not needed there.
    fn note_departure(&mut self, item: &Queued, start: &Start, found: Loaded<'w>, end: Millis) {
        let Some(batch) = &item.task.batch_id else { return };
        let place = &self.places[start.place];
        let key = (batch.clone(), start.place);
        if let Some(known) = self.departures.get_mut(&key) {
            known.until = known.until.max(end);
        } else if let (Loaded::Llm(model), Some(gpu), Some(at)) = (found, place.gpu, start.leaves) {
            let preset = place.worker.and_then(|worker| worker.engine.as_ref());
            let preset = preset.map_or("", |order| order.preset.as_str());
            self.departures.insert(key, Departure { gpu, preset, model, at, until: end });
        }
    }

    /// Where and when a task starts first; among those where that is the same, where least runs then.
    fn first_start(&mut self, item: &'w Queued) -> Option<Start> {
        let mut floor = item.not_before.unwrap_or(self.now).max(self.now);
        if item.shape.class() == TaskClass::Llm && !self.world.is_admitted_chat(&item.task) {
            floor = floor.max(self.llms_from());
        }
        if let Some(free) = self.lock_free.filter(|_| !item.shape.in_cpu_lane()) {
            floor = floor.max(free);
        }
        if !self.uses.contains_key(&item.shape) {
            let of = |place| Use::of(self.world, self.now, self.pace, &item.shape, place);
            let uses = self.places.iter().map(of).collect();
            self.uses.insert(&item.shape, uses);
        }
        let mut first: Option<Start> = None;
        for (at, how) in self.uses.get(&item.shape)?.iter().enumerate() {
            let start = match *how {
                Use::No => None,
                Use::Llm { model, boot, again_at, .. } => self.llm_start(at, item, model, (boot, again_at)),
                Use::Script => self.script_start(at, item),
            };
            let Some(start) = start.map(|start| start.not_before(floor)) else { continue };
            let is_better = first.as_ref().is_none_or(|best| {
                let runs = |at: usize| self.places[at].in_use(start.at);
                start.at < best.at || (start.at == best.at && runs(at) < runs(best.place))
            });
            if is_better {
                first = Some(start);
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

    /// How an LLM task would start at a place.
    fn llm_start(
        &self,
        at: usize,
        item: &Queued,
        model: &str,
        (boot, again_at): (Millis, Millis),
    ) -> Option<Start> {
        let What::Llm(wanted) = &item.shape.what else { return None };
        let place = &self.places[at];
        let gpu = place.gpu?;
        let free = place.all_free_at();
        match place.loaded {
            Loaded::Llm(loaded) if wanted.as_deref().is_none_or(|name| name == loaded) => {
                Some(Start::warm(place.free_at(), at))
            }
            // The orchestrating LLM stays.
            Loaded::Llm(loaded) if self.world.is_pinned(gpu) && model != loaded => None,
            Loaded::Nothing => Some(Start::cold(free.max(again_at) + boot, at)),
            Loaded::Llm(_) => {
                let start = Start::cold((free + gpu.cooling).max(again_at) + boot, at);
                Some(Start { leaves: Some(free), ..start })
            }
            Loaded::Script(_) => Some(Start::cold((free + gpu.cooling).max(again_at) + boot, at)),
        }
    }

    /// How a script would start at a place.
    fn script_start(&self, at: usize, item: &'w Queued) -> Option<Start> {
        let host = item.shape.host()?;
        let place = &self.places[at];
        let Some(gpu) = place.gpu else { return Some(Start::warm(place.free_at(), at)) };
        let is_there = host.warm && place.worker.is_some_and(|worker| worker.has_host(host));
        let load = match host.warm {
            true => self.pace.of(self.world.memory.host_boot(&self.world.config, host)),
            false => Millis::ZERO,
        };
        match place.loaded {
            Loaded::Script(loaded) if loaded == host => Some(Start::warm(place.free_at(), at)),
            Loaded::Nothing if is_there => Some(Start::cold(place.free_at(), at)),
            Loaded::Nothing | Loaded::Script(_) => Some(Start::cold(place.all_free_at() + load, at)),
            Loaded::Llm(_) => {
                let leaves = self.llm_leaves_at(place, item)?;
                Some(Start { leaves: Some(leaves), ..Start::cold(leaves + gpu.cooling + load, at) })
            }
        }
    }

    /// When the LLM of a place would make room for this script.
    fn llm_leaves_at(&self, place: &Place<'_>, item: &Queued) -> Option<Millis> {
        let free = place.all_free_at();
        let has_the_gpus = |exclusive: &Exclusive<'_>| exclusive.has(item.shape.batch.as_ref());
        if self.only.is_some() {
            return Some(free);
        }
        if self.exclusive.as_ref().is_some_and(has_the_gpus) {
            return Some(self.given_back_at(place).map_or(free, |back| back.max(free)));
        }
        match self.evicts {
            Outlook::At { expected, latest } => match self.pace {
                Pace::Usual => Some(free.max(expected)),
                Pace::Slow => Some(free.max(latest?)),
            },
            Outlook::Unknown => Some(free + self.reload_time(place)),
            Outlook::Never => None,
        }
    }

    /// When a GPU that is lent to chatbots goes back, if no more of them come.
    fn given_back_at(&self, place: &Place<'_>) -> Option<Millis> {
        let gpu = place.gpu.filter(|gpu| self.world.is_lent(gpu))?;
        let settings = &self.world.config.resource_manager.batch_settings;
        let free = place.all_free_at();
        let quiet_since = if free > self.now { free } else { gpu.idle_since };
        Some(quiet_since + Millis::from_secs_f64(settings.chat_linger_s))
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
}
