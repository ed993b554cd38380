//! What a GPU does and why it does nothing else, by the same facts that `plan` decides by.
//!
//! Not here: the sentences (`model::gpu_reason`), and choices.

use model::gpu_reason::{GpuReason, NextHere, WhyNot};
use model::{GpuState, Millis, TaskClass, Timestamp};

use crate::forecast;
use crate::gpu::Gpu;
use crate::picture::{Moment, first_script, gpu_picture, wanted_by_batches};
use crate::place;
use crate::shape::Shape;
use crate::world::World;

/// How many of the latest decisions about a GPU are told.
const LATELY: usize = 5;

/// The GPU by its key or uuid, explained; none where there is no such GPU.
#[must_use]
pub fn why_gpu(world: &World, now: Millis, name: &str) -> Option<GpuReason> {
    let now = now.max(world.now);
    let gpu = world.gpus.values().find(|gpu| gpu.key() == name || gpu.facts.uuid.as_str() == name)?;
    let wanted = wanted_by_batches(world, now);
    // Only distances in time are told, so any wall clock will do.
    let heads = crate::plan(world, now).heads;
    let moment = Moment { now, wall: Timestamp::UNIX_EPOCH };
    let picture = gpu_picture(world, gpu, moment, wanted.as_deref(), first_script(world, &heads));
    let (state, since) = gpu.state_at(now);
    let until = |at: Millis| (at - now).as_secs_f64().max(0.0);
    let ready_at = match state {
        GpuState::Cooling => gpu.cooled_at(),
        _ => None,
    };
    let boot = picture.expected_ready.map(|at| (at - Timestamp::UNIX_EPOCH).as_seconds_f64().max(0.0));
    let next = forecast::next_on(world, now, gpu).and_then(|(entry, at)| {
        let task_id = world.queue.get(&entry)?.task.task_id.clone();
        Some(NextHere { task_id, starts_in_s: until(at) })
    });
    let about_it = world.said.iter().rev().filter(|said| said.saying.gpu() == Some(gpu.key().as_str()));
    let mut lately: Vec<String> = about_it
        .take(LATELY)
        .map(|said| format!("{:.0} s ago: {}", (now - said.at).as_secs_f64(), said.saying))
        .collect();
    lately.reverse();
    Some(GpuReason {
        gpu: gpu.key(),
        uuid: gpu.facts.uuid.clone(),
        name: gpu.facts.name.clone(),
        state,
        for_s: (now - since).as_secs_f64().max(0.0),
        model: picture.model,
        ready_in_s: ready_at.map(until).or(boot),
        health: gpu.health,
        role: picture.role,
        vram: picture.vram,
        residents: picture.residents,
        why_not: why_not(world, now, gpu, state, picture.slots.len()),
        running: picture.slots,
        accepts: picture.accepts,
        next,
        lately,
    })
}

fn why_not(world: &World, now: Millis, gpu: &Gpu, state: GpuState, running: usize) -> Vec<WhyNot> {
    if !gpu.is_usable() {
        return vec![WhyNot::Unusable { health: gpu.health }];
    }
    if world.down.is_some() {
        return vec![WhyNot::ShuttingDown];
    }
    if world.worker_on(gpu).is_none() {
        return vec![WhyNot::NoWorker];
    }
    let mut found = Vec::new();
    let takes_scripts = world.takes_scripts(gpu);
    let has_llm = matches!(state, GpuState::BootingLlm | GpuState::LlmReady | GpuState::LlmBusy);
    let exclusive = world.exclusive(now);
    if let Some(exclusive) = &exclusive {
        let batch = exclusive.batch.facts.batch_id.to_string();
        let remaining = exclusive.batch.facts.remaining();
        let wants = world
            .queue
            .lines()
            .any(|(shape, _)| exclusive.has(shape.batch.as_ref()) && place::fits(shape, &gpu.facts));
        found.push(if has_llm && takes_scripts && wants {
            WhyNot::LeavesForBatch { batch }
        } else {
            WhyNot::HeldForBatch { batch, remaining }
        });
    }
    let waits = |task_id| world.queue.by_id(task_id).next().is_some();
    if let Some(kept) = gpu.kept_for.as_ref().filter(|kept| now < kept.until && waits(&kept.task_id)) {
        let for_s = (kept.until - now).as_secs_f64();
        found.push(WhyNot::KeptFor { task: kept.task_id.clone(), for_s });
    }
    if let Some(unit) = world.unit_over(&gpu.facts.uuid).filter(|unit| unit.is_live()) {
        let lead = world.gpu_of(&unit.worker).map(Gpu::key).unwrap_or_default();
        let (task, count) = (unit.key.task_id.clone(), unit.shape.needs.gpus);
        found.push(WhyNot::PartOf { task, count, lead });
    }
    if let Some((kept, item)) = world.kept_gpus().filter(|(kept, _)| kept.gpus.contains(&gpu.facts.uuid)) {
        let (task, count) = (item.task.task_id.clone(), u32::try_from(item.shape.gpus()).unwrap_or(u32::MAX));
        let in_s = (kept.until - now).as_secs_f64().max(0.0);
        found.push(WhyNot::KeptForWide { task, count, in_s });
    }
    if let Some(role) = world.config.role(&gpu.key()).filter(|_| !takes_scripts) {
        found.push(WhyNot::Pinned { role });
    }
    for (model, failure) in &gpu.boot_failures {
        let (model, error, count) = (model.clone(), failure.error.clone(), failure.count as u64);
        found.push(WhyNot::BootFailed { model, count, error });
    }
    if has_llm && takes_scripts && exclusive.is_none() {
        let scripts = waiting(world, |shape| {
            shape.class() == TaskClass::Script && gpu.has_room_for(shape) && !shape.in_cpu_lane()
        });
        if scripts > 0 {
            let leaves_at = forecast::llm_leaves_at(world, now, gpu);
            let leaves_in_s = leaves_at.map(|at| (at - now).as_secs_f64().max(0.0));
            found.push(WhyNot::LlmKept { scripts, leaves_in_s });
        } else if state == GpuState::LlmReady {
            found.push(WhyNot::LlmUnchallenged);
        }
    }
    found.extend(queue_says(world, now, gpu, state, running));
    found
}

/// Why no more of what waits runs here.
fn queue_says(world: &World, now: Millis, gpu: &Gpu, state: GpuState, running: usize) -> Option<WhyNot> {
    let same_class = |shape: &Shape| match state {
        GpuState::LlmBusy => shape.class() == TaskClass::Llm,
        GpuState::ScriptBusy => shape.class() == TaskClass::Script,
        _ => true,
    };
    let all = waiting(world, |shape| !shape.in_cpu_lane());
    let here = waiting(world, |shape| !shape.in_cpu_lane() && place::fits(shape, &gpu.facts));
    if all == 0 {
        return (running == 0).then_some(WhyNot::NothingWaits);
    }
    if here == 0 {
        return Some(WhyNot::NoneFits { waiting: all });
    }
    let waiting =
        waiting(world, |shape| !shape.in_cpu_lane() && same_class(shape) && place::fits(shape, &gpu.facts));
    let (slots, free_at) = forecast::slots_of(world, now, gpu);
    (running > 0 && waiting > 0 && running as u64 >= slots).then(|| WhyNot::Full {
        waiting,
        slots,
        free_in_s: Some((free_at - now).as_secs_f64().max(0.0)),
    })
}

fn waiting(world: &World, wanted: impl Fn(&Shape) -> bool) -> u64 {
    world.queue.lines().filter(|(shape, _)| wanted(shape)).map(|(_, line)| line.len()).sum()
}
