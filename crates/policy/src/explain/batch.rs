//! What would happen to a batch that is not submitted: when it ends, on how many GPUs, and which LLMs make room for it.
//!
//! Its items are not asked for: as many stand in for them as a walk looks at, the longest as long as it is, the others
//! as long as they are on average. Not here: single tasks.

use model::explained::{BatchAsked, BatchExplained, ChatMeanwhile, LlmLeaves};
use model::{BatchId, GpuMode, Millis, Priority, Task, TaskClass, TaskId};

use super::{come_to_rest, entry_of};
use crate::event::{BatchFacts, Event};
use crate::forecast::{self, Departure, Expected, Pace};
use crate::gpu::Gpu;
use crate::model_choice::choose;
use crate::plan::QUIET;
use crate::why::reason_of;
use crate::worker::Llm;
use crate::world::World;

/// Most items that are looked at one by one; what is beyond them goes on at their rate. The brain has no more of a
/// batch in its queues either.
pub const STAND_INS_MAX: u64 = 1_000;
/// On how many GPUs "one GPU" is tried: of more there are some of each kind among the first.
const SINGLES_MAX: usize = 8;

/// What would happen to this batch if it were submitted now; `item` is one of its tasks.
#[must_use]
pub fn explain_batch(world: &World, now: Millis, item: &Task, asked: &BatchAsked) -> BatchExplained {
    let now = now.max(world.now);
    let mut before = world.clone();
    come_to_rest(&mut before, now);
    let id = &asked.batch_id;
    let threshold = before.config.resource_manager.batch_settings.auto_exclusive_threshold;
    let facts = facts_of(asked, threshold);
    let exclusive = facts.gpu_mode == GpuMode::Exclusive;
    before.apply(now, Event::Batch(facts));
    // After everything that is there, each at a place of its own.
    let orders = u64::MAX - STAND_INS_MAX..;
    for ((n, media_s), order) in stand_ins(asked).into_iter().enumerate().zip(orders) {
        let Ok(task_id) = TaskId::new(format!("{id}.{n}")) else { break };
        let task = Task { task_id, media_s, batch_id: Some(id.clone()), ..item.clone() };
        let (entry, task) = (entry_of(&task), Box::new(task));
        before.apply(now, Event::Queued { entry, task, order, not_before: None });
    }
    let mut after = before.clone();
    come_to_rest(&mut after, now);
    let exclusive = exclusive && after.exclusive(now).is_some_and(|mode| mode.has(Some(id)));
    let leaves =
        if exclusive { for_an_exclusive(&before, now, id) } else { for_a_shared(&before, &after, now, id) };
    let eligible = eligible(&before, id);
    let told = |expected: Option<Expected>| expected.map(|expected| expected.from_now(now));
    let singles = eligible
        .iter()
        .take(SINGLES_MAX)
        .filter_map(|one| forecast::batch_alone(&before, now, id, &|gpu| gpu.facts.uuid == one.facts.uuid));
    let on_all = forecast::batch_alone(&before, now, id, &|_| true);
    let asked_ago = before.demand.last().map(|last| now - last);
    let llm_tasks = llm_tasks(&before);
    BatchExplained {
        exclusive,
        exclusive_from: threshold,
        gpus: eligible.iter().map(|gpu| gpu.key()).collect(),
        reason: first_waits_for(&after, now, id),
        expected: told(forecast::batch_eta(if exclusive { &before } else { &after }, now, id)),
        on_one: told(singles.min_by_key(|expected| expected.end)),
        on_all: told(on_all),
        is_a_guess: before.batches.get(id).is_none_or(|batch| !before.work_left(batch, now).known),
        chat: chat(&before, exclusive, &leaves, item, asked),
        llm_asked_s_ago: asked_ago.map(Millis::as_secs_f64),
        llm_tasks,
        takes_llms_in_use: (exclusive || !leaves.is_empty())
            && (llm_tasks > 0 || is_in_use(&before, asked_ago)),
        leaves,
    }
}

fn facts_of(asked: &BatchAsked, threshold: u32) -> BatchFacts {
    let mut facts = BatchFacts {
        batch_id: asked.batch_id.clone(),
        script: asked.script.clone(),
        gpu_mode: asked.gpu_mode,
        total: asked.items_of_a_part,
        completed: 0,
        failed: 0,
        paused: false,
    };
    // What is exclusive is decided part by part; what it takes is that of all of them.
    facts.gpu_mode = facts.mode(threshold);
    facts.total = asked.items;
    facts
}

/// Media of the items that stand in for all of them, in seconds.
#[expect(clippy::cast_precision_loss, reason = "counts of items")]
fn stand_ins(asked: &BatchAsked) -> Vec<Option<f64>> {
    let items = asked.items.min(STAND_INS_MAX);
    let with_media = asked.with_media.min(asked.items);
    // Of those that stand in, as large a part has media as of all.
    let known = (items * with_media).div_ceil(asked.items.max(1));
    let others = with_media.saturating_sub(1).max(1) as f64;
    let mean = ((asked.media_s - asked.media_s_max) / others).max(0.0);
    let of = |n: u64| match n {
        0 if known > 0 => Some(asked.media_s_max),
        n if n < known => Some(mean),
        _ => None,
    };
    (0..items).map(of).collect()
}

fn eligible<'w>(world: &'w World, id: &BatchId) -> Vec<&'w Gpu> {
    let Some(batch) = world.batches.get(id) else { return Vec::new() };
    let mut gpus: Vec<&Gpu> = world.gpus.values().filter(|gpu| world.is_eligible(gpu, batch)).collect();
    gpus.sort_by_key(|gpu| gpu.facts.index);
    gpus
}

/// Why none of it starts at once.
fn first_waits_for(world: &World, now: Millis, id: &BatchId) -> Option<model::reason::ReasonTold> {
    if world.claims.values().any(|claim| claim.task.batch_id.as_ref() == Some(id)) {
        return None;
    }
    let first = world.queue.by_id(&TaskId::new(format!("{id}.0")).ok()?).next()?;
    Some(reason_of(world, now, world.queue.get(first)?).told())
}

/// LLMs that make room for an exclusive batch, and come back as it leaves their GPUs: in turn, as the disk allows.
fn for_an_exclusive(world: &World, now: Millis, id: &BatchId) -> Vec<LlmLeaves> {
    let settings = &world.config.resource_manager.batch_settings;
    let mut departures = departures(world, now, id);
    departures.sort_by_key(|departure| (departure.until, departure.gpu.facts.index));
    let mut loads: Vec<(&str, Millis)> = Vec::new();
    let mut leaves = Vec::new();
    for departure in departures {
        let back = settings.reload_llms_after_batch.then(|| load_in_turn(world, &departure, &mut loads));
        leaves.push(told(&departure, now, back));
    }
    leaves.sort_by(|one, other| one.gpu.len().cmp(&other.gpu.len()).then_with(|| one.gpu.cmp(&other.gpu)));
    leaves
}

/// LLMs that make room for a batch. One of several GPUs goes once, from its first GPU, and is back when all of them are free.
fn departures<'w>(world: &'w World, now: Millis, id: &BatchId) -> Vec<Departure<'w>> {
    let mut once: Vec<Departure<'w>> = Vec::new();
    for mut departure in forecast::departures(world, now, id) {
        if let Some(lead) = world.lead_over(&departure.gpu.facts.uuid) {
            departure.gpu = world.gpu_of(&lead.id).unwrap_or(departure.gpu);
            departure.preset = lead.engine.as_ref().map_or(departure.preset, |order| &order.preset);
        }
        match once.iter_mut().find(|known| known.gpu.facts.uuid == departure.gpu.facts.uuid) {
            Some(known) => {
                known.at = known.at.min(departure.at);
                known.until = known.until.max(departure.until);
            }
            None => once.push(departure),
        }
    }
    once
}

/// When an LLM is back that loads once its GPU is free and the disk has room for it.
fn load_in_turn<'w>(world: &World, departure: &Departure<'w>, loads: &mut Vec<(&'w str, Millis)>) -> Millis {
    let boot = world.memory.llm_boot(&world.config, departure.preset, departure.model);
    let mut begins = departure.until + departure.gpu.cooling;
    loop {
        let going: Vec<&(&str, Millis)> = loads.iter().filter(|(_, ready)| *ready > begins).collect();
        let models: std::collections::BTreeSet<&str> = going.iter().map(|(model, _)| *model).collect();
        let first_ready = going.iter().map(|(_, ready)| *ready).min();
        match first_ready {
            Some(ready) if !models.contains(departure.model) && models.len() >= world.loads_at_a_time() => {
                begins = ready;
            }
            _ => break,
        }
    }
    let ready = begins + Pace::Usual.of(boot);
    loads.push((departure.model, ready));
    ready
}

/// LLMs that make room for a batch that shares the GPUs: those that the rule lets go now, else the one that goes first.
fn for_a_shared(before: &World, after: &World, now: Millis, id: &BatchId) -> Vec<LlmLeaves> {
    let goes = |departure: &Departure<'_>| {
        let worker = after.gpus.get(&departure.gpu.facts.uuid).and_then(|gpu| after.worker_on(gpu));
        worker.is_none_or(|worker| worker.engine.is_none())
    };
    let mut departures = departures(before, now, id);
    let going = departures.iter().filter(|departure| goes(departure)).count();
    if going > 0 {
        departures.retain(goes);
    } else {
        let first = departures.iter().map(|departure| departure.at).min();
        departures.retain(|departure| Some(departure.at) == first);
        departures.truncate(1);
    }
    let loaded = before.gpus.values().filter(|gpu| leads_llm(before, gpu)).count();
    let some_stay = loaded > departures.len();
    let keep = Millis::from_secs_f64(before.config.resource_manager.eviction_policy.keep_last_s);
    let back = |departure: &Departure<'_>| {
        let quiet = departure.until + QUIET;
        let is_wanted = before.demand.last().is_some_and(|last| quiet - last < keep);
        let boot = before.memory.llm_boot(&before.config, departure.preset, departure.model);
        (is_wanted && !some_stay).then(|| quiet + departure.gpu.cooling + Pace::Usual.of(boot))
    };
    departures.iter().map(|departure| told(departure, now, back(departure))).collect()
}

fn told(departure: &Departure<'_>, now: Millis, back: Option<Millis>) -> LlmLeaves {
    let seconds = |at: Millis| (at - now).as_secs_f64().max(0.0);
    LlmLeaves {
        gpu: departure.gpu.key(),
        model: departure.model.to_owned(),
        leaves_in_s: seconds(departure.at),
        back_in_s: back.map(seconds),
    }
}

/// Whether a GPU has an LLM, as the first of its GPUs.
fn leads_llm(world: &World, gpu: &Gpu) -> bool {
    let llm = world.llm_worker(gpu).and_then(|worker| worker.llm());
    gpu.is_usable()
        && world.lead_over(&gpu.facts.uuid).is_none()
        && matches!(llm, Some(Llm::Booting { .. } | Llm::Ready { .. }))
}

fn llm_tasks(world: &World) -> u64 {
    let waiting: u64 =
        Priority::ALL.into_iter().map(|priority| world.queue.in_folder((TaskClass::Llm, priority))).sum();
    let running = world.units.values().filter(|unit| unit.is_live() && unit.class() == TaskClass::Llm);
    waiting + running.count() as u64
}

/// Whether somebody asked an LLM so lately that the mind keeps one.
fn is_in_use(world: &World, asked_ago: Option<Millis>) -> bool {
    let keep = Millis::from_secs_f64(world.config.resource_manager.eviction_policy.keep_last_s);
    asked_ago.is_some_and(|ago| ago < keep)
}

/// What chatbots find meanwhile.
fn chat(
    world: &World,
    exclusive: bool,
    leaves: &[LlmLeaves],
    item: &Task,
    asked: &BatchAsked,
) -> ChatMeanwhile {
    if exclusive && !world.config.resource_manager.batch_settings.exclusive_admits_chat {
        return ChatMeanwhile::Waits;
    }
    let stays = |gpu: &&Gpu| leads_llm(world, gpu) && leaves.iter().all(|leaves| leaves.gpu != gpu.key());
    if let Some(gpu) = world.gpus.values().find(stays) {
        let model = world.llm_worker(gpu).and_then(|worker| worker.engine.as_ref());
        let model = model.map(|engine| engine.model.clone()).unwrap_or_default();
        return if exclusive || !leaves.is_empty() {
            ChatMeanwhile::Served { gpu: gpu.key(), model }
        } else {
            ChatMeanwhile::AsBefore
        };
    }
    if !exclusive && leaves.is_empty() {
        return ChatMeanwhile::AsBefore;
    }
    let choices = world.gpus.values().filter(|gpu| gpu.is_usable()).filter_map(|gpu| {
        let choice = choose(world, gpu, world.worker_on(gpu)?, None)?;
        let boot = world.memory.llm_boot(&world.config, &choice.preset, &choice.model).p50;
        Some((choice.gpus, boot + gpu.cooling))
    });
    let choices: Vec<(usize, Millis)> = choices.collect();
    let of_one = choices.iter().filter(|(gpus, _)| !exclusive || *gpus == 1).map(|(_, boot)| *boot);
    let first = of_one.min();
    // An exclusive batch lends one GPU and no more.
    if exclusive && first.is_none() && !choices.is_empty() {
        return ChatMeanwhile::WaitsForSeveral;
    }
    // At most until the end of an item: one that has boundaries gives way before that.
    let typical = Task { media_s: stand_ins(asked).last().copied().flatten(), ..item.clone() };
    let run = world.memory.run(&world.config, &typical, None, None).p50;
    let within = run + first.unwrap_or(Millis::ZERO);
    ChatMeanwhile::Within { within_s: within.as_secs_f64() }
}
