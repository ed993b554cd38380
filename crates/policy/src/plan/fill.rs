//! Fills what is free, by the one order over both classes: slots of ready LLMs, idle GPUs for scripts, boots.
//!
//! A task that finds room on its way (a booting LLM, a GPU that cools) is covered: nothing more is done for it, and
//! what comes for it is not given to anybody behind it. A task that finds none ends its stream for this plan.

use std::collections::{BTreeMap, BTreeSet};

use model::link::EngineOrder;
use model::{Millis, Saying, TaskClass};

use super::agenda::Agenda;
use super::cpu_lane::CpuLane;
use super::draft::{Desk, Draft};
use super::evict::reserve;
use super::hold;
use super::scripts;
use super::stream::{Stream, streams};
use super::wide;
use crate::action::Action;
use crate::evict::Judge;
use crate::model_choice::{Choice, choose};
use crate::place;
use crate::shape::{Shape, What};

/// What came of the head of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// It starts, or its room is on the way.
    Yes,
    /// There is nothing for it now, nor for any of its shape.
    No,
    /// It waits, and nothing more is to be done for it or any of its shape: waiting is the shortest way.
    Covered,
    /// It is too long for GPUs that are kept for another task; one of its shape behind it may be short enough.
    TooLong,
}

/// How many of one shape are looked at in one plan for one that is short enough for GPUs that are kept.
const LOOKED_AT: usize = 64;

/// Tasks that found nothing, by shape: what eviction weighs.
pub(super) struct Left<'w> {
    pub shape: &'w Shape,
    pub count: u64,
    pub since: Millis,
    pub task: &'w model::Task,
    /// Chatbots among them, up to a few.
    pub chatbots: u64,
}

pub(super) fn fill<'w>(draft: &mut Draft<'w>, judge: &dyn Judge) -> Vec<Left<'w>> {
    let mut lane = CpuLane::new(draft);
    let (of_cpu_lane, of_gpus): (Vec<_>, Vec<_>) =
        streams(draft).into_iter().partition(|stream| stream.shape.in_cpu_lane());
    let mut left = fill_lane(draft, judge, &mut lane, of_gpus, false);
    left.extend(fill_lane(draft, judge, &mut lane, of_cpu_lane, true));
    left
}

/// Places the heads of these streams until there is nothing more for any of them.
fn fill_lane<'w>(
    draft: &mut Draft<'w>,
    judge: &dyn Judge,
    lane: &mut CpuLane<'w>,
    mut streams: Vec<Stream<'w>>,
    in_cpu_lane: bool,
) -> Vec<Left<'w>> {
    let world = draft.world;
    let mut agenda = Agenda::default();
    streams.retain(|stream| is_open(draft, stream.shape));
    for (at, stream) in streams.iter_mut().enumerate() {
        for row in 0..stream.rows() {
            enter(draft, &mut agenda, stream, (at, row));
        }
    }
    let mut ended = BTreeSet::new();
    let mut too_long: BTreeMap<usize, usize> = BTreeMap::new();
    let mut left = Vec::new();
    while let Some((at, row)) = agenda.pop(&world.turns, draft.grants(in_cpu_lane)) {
        let stream = &mut streams[at];
        let Some((entry, item, _)) = stream.head(draft, row).filter(|_| !ended.contains(&at)) else {
            continue;
        };
        // Its file's name is still in somebody's hands, or this plan ends it.
        let passed_over = world.claims.contains_key(entry) || draft.spoken_for.contains(entry);
        let placed = match stream.shape.what {
            _ if passed_over => Placed::Yes,
            // It waits for the lock, not for room: nothing has to leave for it.
            _ if draft.locked && !in_cpu_lane => {
                prepare(draft, item);
                ended.insert(at);
                if item.task.is_chatbot() {
                    draft.locked_out.get_or_insert((&item.shape, &item.task));
                }
                continue;
            }
            What::Llm(_) => place_llm(draft, judge, stream, entry, item),
            What::Script(_) if in_cpu_lane => lane.place(draft, entry, item),
            What::Script(_) if stream.shape.is_wide() => wide::place(draft, judge, entry, item),
            What::Script(_) => scripts::place(draft, entry, item, stream.left),
        };
        let starts = !passed_over && draft.spoken_for.contains(entry);
        // As it waits on, it may come to stand before others.
        if !starts && let Some(time) = world.ageing().next_rise(item.task.priority, item.since, draft.now) {
            draft.wake(time);
        }
        if matches!(placed, Placed::No | Placed::TooLong) {
            let looked_at = too_long.entry(at).or_default();
            *looked_at += 1;
            let goes_on = placed == Placed::TooLong && *looked_at < LOOKED_AT;
            if *looked_at == 1 {
                left.push(left_of(draft, stream, row, item, goes_on));
            }
            if goes_on {
                stream.advance(row);
                enter(draft, &mut agenda, stream, (at, row));
            } else {
                // The same room would do for the others of its shape.
                ended.insert(at);
            }
            continue;
        }
        if placed == Placed::Covered {
            ended.insert(at);
            continue;
        }
        stream.advance(row);
        enter(draft, &mut agenda, stream, (at, row));
    }
    if let Some(job_type) = agenda.held_back(&ended) {
        say_held_back(draft, job_type, in_cpu_lane);
    }
    left
}

/// What is left of a stream whose head found nothing.
fn left_of<'w>(
    draft: &Draft<'w>,
    stream: &mut Stream<'w>,
    row: usize,
    item: &'w crate::queue::Queued,
    goes_on: bool,
) -> Left<'w> {
    let (shape, count, since, task) = (stream.shape, stream.left, item.since, &*item.task);
    if shape.needs_several() {
        // What one GPU frees is not enough for it: what it waits for is kept for it as it ends.
        let (count, chatbots) = (wide::llms_missing(draft, shape), u64::from(task.is_chatbot()));
        return Left { shape, count, since, task, chatbots };
    }
    let chatbots = if goes_on { u64::from(task.is_chatbot()) } else { stream.chatbots(draft, row) };
    Left { shape, count, since, task, chatbots }
}

/// Says once that a job type waits for nothing but another one's start.
fn say_held_back(draft: &mut Draft<'_>, job_type: &str, in_cpu_lane: bool) {
    let world = draft.world;
    let limit = world.turns.limit_reached(draft.grants(in_cpu_lane), job_type);
    if let Some(limit) = limit.filter(|_| !world.said_in_a_row[usize::from(in_cpu_lane)]) {
        draft.say(Saying::TooManyInARow { job_type: job_type.to_owned(), limit, in_cpu_lane });
    }
}

/// Lets an LLM load, or stay, for what waits for the single lock.
fn prepare(draft: &mut Draft<'_>, item: &crate::queue::Queued) {
    let shape = &item.shape;
    let What::Llm(wanted) = &shape.what else { return };
    match serving(draft, shape, wanted.as_deref()).first() {
        Some(at) => draft.take(*at),
        None if shape.needs_several() => {}
        None => drop(boot(draft, item, wanted.as_deref(), true)),
    }
}

/// Desks whose LLM, loaded or to come, would do.
fn serving(draft: &Draft<'_>, shape: &Shape, wanted: Option<&str>) -> Vec<usize> {
    let serves = |at: &usize| {
        let desk = &draft.desks[*at];
        let right = desk.serves().is_some_and(|(_, model, _)| wanted.is_none_or(|name| name == model));
        right && draft.world.llm_is_for(shape, desk.gpu)
    };
    (0..draft.desks.len()).filter(serves).collect()
}

/// Puts the head of a row on the agenda.
fn enter<'w>(draft: &Draft<'w>, agenda: &mut Agenda<'w>, stream: &mut Stream<'w>, at: (usize, usize)) {
    if let Some((_, item, rank)) = stream.head(draft, at.1) {
        agenda.insert(rank, &item.task.job_type, at);
    }
}

/// Whether tasks of this shape may start now at all.
fn is_open(draft: &Draft<'_>, shape: &Shape) -> bool {
    let held = shape.class() == TaskClass::Llm && draft.exclusive.is_some();
    !held && !draft.world.queue.is_paused(shape) && draft.world.misfit(shape).is_none()
}

fn place_llm<'w>(
    draft: &mut Draft<'w>,
    judge: &dyn Judge,
    stream: &Stream<'w>,
    entry: &'w model::Entry,
    item: &'w crate::queue::Queued,
) -> Placed {
    let shape = &item.shape;
    let What::Llm(wanted) = &shape.what else { return Placed::No };
    let wanted = wanted.as_deref();
    let serving = serving(draft, shape, wanted);
    let free = |at: usize| match &draft.desks[at].llm {
        Some(llm) if !draft.desks[at].taken && draft.admits(at, item) => llm.free,
        _ => 0,
    };
    // The first among those with most room.
    if let Some(at) = serving.iter().copied().rev().max_by_key(|at| free(*at)).filter(|at| free(*at) > 0) {
        draft.add_request(at);
        let worker = &draft.desks[at].worker.id;
        draft.start(entry, worker, &item.task);
        return Placed::Yes;
    }
    if let Some(at) = serving.iter().copied().find(|at| draft.desks[*at].cover > 0) {
        draft.desks[at].cover -= 1;
        return Placed::Yes;
    }
    if waiting_is_shorter(draft, &serving, stream, &item.task) {
        return Placed::No;
    }
    if shape.needs_several() {
        return wide::place(draft, judge, entry, item);
    }
    boot(draft, item, wanted, serving.is_empty())
}

/// Whether this stream is through sooner by waiting for the LLMs that are there than by booting another.
fn waiting_is_shorter(draft: &Draft<'_>, desks: &[usize], stream: &Stream<'_>, task: &model::Task) -> bool {
    let world = draft.world;
    let mut slots = 0_i64;
    let mut boot: Option<Millis> = None;
    let mut model = None;
    for at in desks {
        let Some((preset, name, parallel)) = draft.desks[*at].serves() else { continue };
        slots += i64::from(parallel);
        let estimate = world.memory.llm_boot(&world.config, preset, name).p50;
        boot = Some(boot.map_or(estimate, |best: Millis| best.min(estimate)));
        model = Some(name);
    }
    let Some(boot) = boot else { return false };
    let run = world.memory.run(&world.config, task, model, None).p50;
    let left = i64::try_from(stream.left).unwrap_or(i64::MAX);
    run.0.saturating_mul(left) / slots.max(1) <= boot.0
}

/// Boots an LLM where there is room, or makes room where an LLM is loaded that nobody of a higher rank needs.
fn boot(
    draft: &mut Draft<'_>,
    item: &crate::queue::Queued,
    wanted: Option<&str>,
    none_serves: bool,
) -> Placed {
    let world = draft.world;
    let shape = &item.shape;
    let choices: Vec<Option<Choice>> = draft
        .desks
        .iter()
        .map(|desk| {
            let fits = place::fits(shape, &desk.gpu.facts) && draft.may_load(desk, item);
            choose(world, desk.gpu, desk.worker, wanted)
                .filter(|choice| choice.gpus == 1 && fits && !desk.taken && !desk.is_kept_from(Some(shape)))
        })
        .collect();
    let mut able: Vec<usize> = Vec::new();
    for (at, choice) in choices.iter().enumerate() {
        let failure = choice.as_ref().and_then(|choice| draft.desks[at].gpu.boot_failures.get(&choice.model));
        let again_at = failure.map(|failure| failure.again_at);
        if choice.is_some() && again_at.is_none_or(|time| draft.is_time(time)) {
            able.push(at);
        }
    }
    let find = |wanted: &dyn Fn(usize) -> bool| able.iter().copied().find(|at| wanted(*at));
    let idle = find(&|at| draft.desks[at].is_idle() && !draft.desks[at].has_resident())
        .or_else(|| find(&|at| draft.desks[at].is_idle()));
    let coming = find(&|at| draft.desks[at].is_coming());
    let other_llm = swap(draft, &able, &|desk| desk.is_idle_llm());
    let busy_llm = swap(draft, &able, &|desk| desk.llm.is_some());
    let at = match (idle, coming, other_llm, busy_llm) {
        (Some(at), ..) => {
            let order = choices[at].as_ref().map(|choice| choice.order(draft.desks[at].worker, Vec::new()));
            boot_on(draft, at, order);
            at
        }
        (None, Some(at), ..) => at,
        // Another model is loaded and nobody before this task has a use for it.
        (None, None, Some(at), _) => {
            let choice = choices[at].as_ref().map(|choice| choice.model.clone()).unwrap_or_default();
            make_room(draft, at, item, choice);
            at
        }
        // Its requests end; nobody behind this task gets another one there.
        (None, None, None, Some(at)) if none_serves => {
            draft.take(at);
            return Placed::No;
        }
        (None, None, None, None) if none_serves => {
            let scripts = able.into_iter().filter(|at| {
                let desk = &draft.desks[*at];
                desk.load > 0 && desk.llm.is_none() && desk.hold.is_none()
            });
            if let Some(at) = scripts.min_by_key(|at| hold::empty_at(draft, *at)) {
                hold::for_all_of_it(draft, at);
            }
            return Placed::No;
        }
        _ => return Placed::No,
    };
    let cover = choices[at].as_ref().map_or(0, |choice| u64::from(choice.parallel));
    draft.desks[at].taken = true;
    draft.desks[at].cover = cover.saturating_sub(1);
    draft.desks[at].promised = choices.into_iter().nth(at).flatten();
    Placed::Yes
}

/// The LLM that goes for another one, of those that were loaded long enough ago and are not pinned: the one with the
/// least credit for its memory, then the one whose GPU is meant for something else. Wakes when one may go.
fn swap(draft: &mut Draft<'_>, able: &[usize], wanted: &dyn Fn(&Desk<'_>) -> bool) -> Option<usize> {
    let world = draft.world;
    let mut found = Vec::new();
    for at in able.iter().copied() {
        let desk = &draft.desks[at];
        let gpu = desk.gpu;
        if !wanted(desk) || world.is_pinned(gpu) || !draft.is_time(draft.settled_at(at)) {
            continue;
        }
        let model = draft.desks[at].llm.as_ref().map(|llm| llm.model);
        let role = world.config.role(&gpu.key());
        let entry = model.and_then(|model| world.config.models.get(model));
        let misplaced = role.is_some() && entry.is_none_or(|entry| entry.role != role);
        found.push((world.credit(gpu), !misplaced, gpu.idle_since, at));
    }
    found.into_iter().min().map(|(.., at)| at)
}

/// An idle LLM goes for another one.
fn make_room(draft: &mut Draft<'_>, at: usize, item: &crate::queue::Queued, wanted: String) {
    let desk = &draft.desks[at];
    draft.act(Action::Say(Saying::Swaps {
        gpu: desk.gpu.key(),
        model: desk.llm.as_ref().map(|llm| llm.model.to_owned()).unwrap_or_default(),
        wanted,
        task: item.task.task_id.clone(),
        waited_s: (draft.now - item.since).as_secs_f64(),
    }));
    reserve(draft, at, &item.task.task_id);
    draft.order_engine(at, None);
}

/// Boots on an idle desk; a warm host leaves first.
pub(super) fn boot_on(draft: &mut Draft<'_>, at: usize, order: Option<EngineOrder>) {
    if draft.desks[at].has_resident() {
        draft.clear_hosts(at);
        draft.desks[at].taken = true;
    } else {
        draft.order_engine(at, order);
    }
}
