//! Chatbots that found no place: what runs gives way to them at its next boundary, where that is worth it.
//!
//! ```text
//!  a chatbot waits ─► how soon is there a place by itself?
//!                  └► the ways to make one: a request of its LLM · scripts (then its LLM boots there) · requests of
//!                     another LLM · a script for a script ─► one that is sooner by more than [`WORTH`] and costs least
//! ```
//!
//! The freed place needs no reservation: a chatbot is first in the order, and a GPU that cools for it is its own. Who was
//! asked is not asked twice, and counts as a place that comes. Not here: who may be asked at all (`yields`), what becomes
//! of him (`retry`).

use model::link::StopWhy;
use model::{Millis, Saying, TaskClass};

use super::draft::{Desk, Draft};
use super::fill::Left;
use super::span;
use crate::action::Action;
use crate::forecast::{Pace, expected_end};
use crate::model_choice::choose;
use crate::place;
use crate::shape::{Shape, What};
use crate::unit::Unit;
use crate::worker::Worker;

/// How much sooner than by itself a place must come to be worth a yield.
const WORTH: Millis = Millis::from_secs(2);
/// How long it takes until a script comes to a boundary; nobody knows before it does.
pub(crate) const TO_A_BOUNDARY: Millis = Millis::from_secs(2);
/// How long it takes to unload what was loaded.
const TO_UNLOAD: Millis = Millis::from_secs(1);

/// A way to make a place.
struct Way<'w> {
    desk: Option<usize>,
    units: Vec<&'w Unit>,
    /// Whether an LLM has to be loaded there first.
    boots: bool,
    /// When the chatbot can start there.
    at: Millis,
    /// What is lost: work that is done again, hosts that are loaded again.
    loss: Millis,
}

/// Before anything is filled: where scripts are about to give way nothing new starts, until all of them have left.
pub(super) fn hold(draft: &mut Draft<'_>) {
    let world = draft.world;
    for at in 0..draft.desks.len() {
        let desk = &draft.desks[at];
        let ends = world.units_on(desk.worker).filter_map(Unit::yields_until).max();
        if desk.llm.is_none() && ends.is_some_and(|until| !draft.is_time(until)) {
            draft.desks[at].taken = true;
        }
    }
}

/// Lets something give way for each chatbot that waits, where that helps. Also for those who let chatbots into exclusive
/// mode: `left` is what found no place.
pub(super) fn make_way<'w>(draft: &mut Draft<'w>, left: &[Left<'w>]) {
    pass_the_lock(draft);
    let mut coming = places_that_come(draft);
    for left in left.iter().filter(|left| left.chatbots > 0) {
        if left.shape.needs_several() {
            make_way_on_all(draft, left);
            continue;
        }
        let mut need = left.chatbots;
        for (desk, places) in &mut coming {
            if draft.could_run(left, *desk) {
                let taken = need.min(*places);
                (need, *places) = (need - taken, *places - taken);
            }
        }
        while need > 0 {
            let Some(way) = best_way(draft, left) else { break };
            let places = way.desk.map_or(1, |at| draft.places(left.shape, at, way.boots));
            for unit in &way.units {
                give_way(draft, unit, left.task);
            }
            need = need.saturating_sub(places);
        }
    }
}

/// Lets what runs on all GPUs that are kept for a chatbot give way, where it needs several: all of it or nothing.
fn make_way_on_all<'w>(draft: &mut Draft<'w>, left: &Left<'w>) {
    let world = draft.world;
    let is_his = draft.reserved.as_ref().is_some_and(|kept| kept.item.task.task_id == left.task.task_id);
    let kept: Vec<usize> = (0..draft.desks.len()).filter(|at| is_his && draft.desks[*at].reserved).collect();
    let choice = kept.first().and_then(|at| span::choice_on(draft, *at, left.shape));
    let boot = choice.map_or(Millis::ZERO, |choice| {
        TO_UNLOAD + world.memory.llm_boot(&world.config, &choice.preset, &choice.model).p50
    });
    let (mut by_itself, mut ways) = (draft.now, Vec::new());
    for at in kept {
        // An LLM makes room by a rule of its own.
        if draft.desks[at].load == 0 || draft.desks[at].llm.is_some() {
            continue;
        }
        let worker = draft.desks[at].worker;
        let (Some(end), Some(way)) = (last_end(draft, worker), all_of(draft, at, boot)) else { return };
        by_itself = by_itself.max(end + boot);
        ways.push(way);
    }
    let at = ways.iter().map(|way| way.at).max();
    if at.is_some_and(|at| is_worth(draft, at, by_itself)) {
        for unit in ways.iter().flat_map(|way| &way.units) {
            give_way(draft, unit, left.task);
        }
    }
}

/// What holds the single lock gives it to a chatbot, unless that waits for an LLM that loads meanwhile.
fn pass_the_lock(draft: &mut Draft<'_>) {
    let world = draft.world;
    let (Some((shape, chatbot)), Some(holder)) = (draft.locked_out, world.lock_holder()) else { return };
    if let What::Llm(wanted) = &shape.what {
        // What was taken for it is loaded all the same.
        let comes = |desk: &&Desk<'_>| {
            let promised = desk.promised.as_ref().map(|choice| choice.model.as_str());
            let model = promised.or(desk.llm.as_ref().map(|llm| llm.model));
            let right = model.is_some_and(|model| wanted.as_deref().is_none_or(|name| name == model));
            right && place::fits(shape, &desk.gpu.facts)
        };
        let is_ready = |desk: &Desk<'_>| desk.llm.as_ref().is_some_and(|llm| llm.ready);
        let coming: Vec<bool> = draft.desks.iter().filter(comes).map(is_ready).collect();
        if !coming.is_empty() && !coming.contains(&true) {
            return;
        }
    }
    let Some(worker) = world.workers.get(holder.worker) else { return };
    let Some(by_itself) = last_end(draft, worker) else { return };
    if let Some(way) = one_of(draft, None, worker, false).filter(|way| is_worth(draft, way.at, by_itself)) {
        for unit in &way.units {
            give_way(draft, unit, chatbot);
        }
    }
}

fn give_way(draft: &mut Draft<'_>, unit: &Unit, chatbot: &model::Task) {
    let gpu = draft.world.gpu_of(&unit.worker).map_or_else(|| "cpu".to_owned(), crate::gpu::Gpu::key);
    let (task, to) = (unit.key.task_id.clone(), chatbot.task_id.clone());
    draft.act(Action::Say(Saying::Yields { task, gpu, to, progress: unit.progress }));
    draft.stop(&unit.worker, &unit.key, StopWhy::Yield);
}

/// Places that come because somebody was asked before, by desk; none is the CPU lane.
fn places_that_come(draft: &mut Draft<'_>) -> Vec<(Option<usize>, u64)> {
    let world = draft.world;
    let mut places = Vec::new();
    let desks: Vec<(Option<usize>, &Worker)> = (0..draft.desks.len())
        .map(|at| (Some(at), draft.desks[at].worker))
        .chain(world.cpu_worker().map(|worker| (None, worker)))
        .collect();
    for (at, worker) in desks {
        let mut count = 0;
        for unit in world.units_on(worker) {
            if let Some(until) = unit.yields_until()
                && !draft.is_time(until)
            {
                count += 1;
            }
        }
        // Where scripts leave, a whole LLM comes.
        let is_llm = at.is_some_and(|at| draft.desks[at].llm.is_some());
        if count > 0 && at.is_some() && !is_llm {
            count = at.map_or(count, |at| draft.slots_of_an_llm(at).max(1));
        }
        if count > 0 {
            places.push((at, count));
        }
    }
    places
}

impl<'w> Draft<'w> {
    /// Whether these could ever run on this desk; none is the CPU lane.
    fn could_run(&self, left: &Left<'_>, at: Option<usize>) -> bool {
        let shape = left.shape;
        match at {
            None => shape.in_cpu_lane(),
            Some(at) => {
                let gpu = self.desks[at].gpu;
                if self.is_firmly_kept(&self.desks[at], left.since) {
                    return false;
                }
                let scripts = matches!(shape.what, What::Llm(_)) || self.world.takes_scripts(gpu);
                scripts && place::fits(shape, &gpu.facts)
            }
        }
    }

    /// Requests that an LLM which would be loaded on this desk serves at once.
    fn slots_of_an_llm(&self, at: usize) -> u64 {
        let desk = &self.desks[at];
        choose(self.world, desk.gpu, desk.worker, None).map_or(1, |choice| u64::from(choice.parallel))
    }

    /// How many chatbots of this shape a way makes room for.
    fn places(&self, shape: &Shape, at: usize, boots: bool) -> u64 {
        match &shape.what {
            What::Llm(wanted) if boots => {
                let desk = &self.desks[at];
                let choice = choose(self.world, desk.gpu, desk.worker, wanted.as_deref());
                choice.map_or(1, |choice| u64::from(choice.parallel))
            }
            _ => 1,
        }
    }
}

/// The way that costs least among those that are worth it.
fn best_way<'w>(draft: &mut Draft<'w>, left: &Left<'w>) -> Option<Way<'w>> {
    let shape = left.shape;
    if shape.in_cpu_lane() {
        let worker = draft.world.cpu_worker()?;
        let by_itself = first_end(draft, worker)?;
        let way = one_of(draft, None, worker, false);
        return way.filter(|way| is_worth(draft, way.at, by_itself));
    }
    let mut by_itself: Option<Millis> = None;
    let mut ways = Vec::new();
    for at in (0..draft.desks.len()).filter(|at| draft.could_run(left, Some(*at))).collect::<Vec<_>>() {
        let (free_at, way) = match &shape.what {
            What::Llm(wanted) => ways_of_an_llm(draft, at, wanted.as_deref()),
            What::Script(_) => ways_of_a_script(draft, at, shape),
        };
        by_itself = by_itself.into_iter().chain(free_at).min();
        ways.extend(way);
    }
    // Where no place comes by itself, something will have to give way at any price.
    let by_itself = by_itself.unwrap_or(Millis(i64::MAX));
    ways.retain(|way| is_worth(draft, way.at, by_itself));
    ways.into_iter().min_by_key(|way| (way.boots, way.loss, way.at, way.desk))
}

/// Whether a place at that time is so much sooner than one by itself.
fn is_worth(draft: &Draft<'_>, at: Millis, by_itself: Millis) -> bool {
    by_itself > at.max(draft.now) + WORTH
}

/// When an LLM request could start on a desk by itself, and how that could be sooner.
fn ways_of_an_llm<'w>(
    draft: &mut Draft<'w>,
    at: usize,
    wanted: Option<&str>,
) -> (Option<Millis>, Option<Way<'w>>) {
    let world = draft.world;
    let desk = &draft.desks[at];
    let (gpu, worker) = (desk.gpu, desk.worker);
    let serves = desk.serves().is_some_and(|(_, model, _)| wanted.is_none_or(|name| name == model));
    if serves {
        let is_ready = desk.llm.as_ref().is_some_and(|llm| llm.ready) && !desk.taken;
        if !is_ready {
            return (ready_at(draft, at), None);
        }
        return (first_end(draft, worker), one_of(draft, Some(at), worker, false));
    }
    let again_at = |model: &String| gpu.boot_failures.get(model).map(|failure| failure.again_at);
    let choice = choose(world, gpu, worker, wanted)
        .filter(|choice| choice.gpus == 1 && again_at(&choice.model).is_none_or(|time| time <= draft.now));
    let Some(choice) = choice.filter(|_| !world.is_pinned(gpu) || desk.llm.is_none()) else {
        return (None, None);
    };
    // Requests of another LLM are replaced by others as they leave, unless that one is let run empty.
    if desk.llm.is_some() && !desk.taken {
        return (None, None);
    }
    let boot = TO_UNLOAD + world.memory.llm_boot(&world.config, &choice.preset, &choice.model).p50;
    let by_itself = last_end(draft, worker).map(|end| end + boot);
    (by_itself, all_of(draft, at, boot))
}

/// When a script could start on a desk by itself, and how that could be sooner.
fn ways_of_a_script<'w>(
    draft: &mut Draft<'w>,
    at: usize,
    shape: &Shape,
) -> (Option<Millis>, Option<Way<'w>>) {
    let desk = &draft.desks[at];
    let worker = desk.worker;
    // When an LLM makes room for scripts is another question.
    if desk.llm.is_some() || desk.promised.is_some() || !desk.gpu.has_room_for(shape) {
        return (None, None);
    }
    let units: Vec<&Unit> = draft.world.units_on(worker).filter(|unit| unit.is_live()).collect();
    if shape.host().is_some_and(|host| units.iter().all(|unit| unit.shape.host() == Some(host))) {
        return (first_end(draft, worker), one_of(draft, Some(at), worker, false));
    }
    (last_end(draft, worker), all_of(draft, at, Millis::ZERO))
}

/// When an LLM that loads, or will, is expected to be ready.
fn ready_at(draft: &Draft<'_>, at: usize) -> Option<Millis> {
    let world = draft.world;
    let desk = &draft.desks[at];
    let (preset, model, _) = desk.serves()?;
    let boot = world.memory.llm_boot(&world.config, preset, model).p50;
    let begins = if desk.llm.is_some() { desk.worker.engine_at } else { draft.now };
    Some((begins + boot).max(draft.now))
}

/// The one unit of a worker that gives way at the least loss.
fn one_of<'w>(
    draft: &mut Draft<'w>,
    desk: Option<usize>,
    worker: &'w Worker,
    boots: bool,
) -> Option<Way<'w>> {
    let world = draft.world;
    let able = world.units_on(worker).filter(|unit| may_be_asked(draft, unit)).collect::<Vec<_>>();
    let unit = able.into_iter().min_by_key(|unit| (loss_of(draft, unit), unit.ordered_at))?;
    Some(Way {
        desk,
        units: vec![unit],
        boots,
        at: draft.now + boundary_of(unit),
        loss: loss_of(draft, unit),
    })
}

/// All units of a desk, if all of them give way; then something is loaded there.
fn all_of<'w>(draft: &mut Draft<'w>, at: usize, then: Millis) -> Option<Way<'w>> {
    let world = draft.world;
    let desk = &draft.desks[at];
    if desk.promised.is_some() || !desk.worker.claims.is_empty() {
        return None;
    }
    let units: Vec<&Unit> = world.units_on(desk.worker).filter(|unit| unit.is_live()).collect();
    if units.is_empty() || !units.iter().all(|unit| may_be_asked(draft, unit)) {
        return None;
    }
    let boundary = units.iter().map(|unit| boundary_of(unit)).max().unwrap_or(Millis::ZERO);
    let loss = units.iter().fold(Millis::ZERO, |sum, unit| sum + loss_of(draft, unit));
    Some(Way { desk: Some(at), units, boots: then > Millis::ZERO, at: draft.now + boundary + then, loss })
}

/// Whether it gives way, was not asked in this plan, and has not given way too often.
fn may_be_asked(draft: &mut Draft<'_>, unit: &Unit) -> bool {
    if !draft.world.can_yield(unit) || draft.is_stopping(&unit.key) {
        return false;
    }
    match draft.world.yields.in_peace_until(&unit.key.task_id, draft.now) {
        Some(until) => draft.is_time(until),
        None => true,
    }
}

/// How long until it can be left.
fn boundary_of(unit: &Unit) -> Millis {
    match unit.class() {
        TaskClass::Script if unit.running_since().is_some() => TO_A_BOUNDARY,
        _ => Millis::ZERO,
    }
}

/// What is done twice if it gives way: an LLM's answer from its beginning, and the load of a script's host.
fn loss_of(draft: &Draft<'_>, unit: &Unit) -> Millis {
    let world = draft.world;
    match (unit.running_since(), unit.shape.host()) {
        (None, _) => Millis::ZERO,
        (Some(since), None) => draft.now - since,
        (Some(_), Some(host)) => world.memory.host_boot(&world.config, host).p50,
    }
}

/// When the first unit of a worker is expected to end by itself.
fn first_end(draft: &mut Draft<'_>, worker: &Worker) -> Option<Millis> {
    let world = draft.world;
    let units = world.units_on(worker).filter(|unit| unit.is_live());
    units.map(|unit| end_of(draft, worker, unit)).min()
}

/// When the last one is.
fn last_end(draft: &mut Draft<'_>, worker: &Worker) -> Option<Millis> {
    let world = draft.world;
    let units = world.units_on(worker).filter(|unit| unit.is_live());
    units.map(|unit| end_of(draft, worker, unit)).max()
}

/// When a unit is expected to end. One that should have ended is expected to take half as long again as it was to.
fn end_of(draft: &mut Draft<'_>, worker: &Worker, unit: &Unit) -> Millis {
    let world = draft.world;
    let since = unit.running_since().unwrap_or(draft.now);
    let expected =
        unit.ends_at_its_pace().unwrap_or_else(|| expected_end(world, since, worker, unit, Pace::Usual));
    if draft.is_time(expected) {
        return draft.now + Millis((expected - since).0 / 2);
    }
    expected
}
