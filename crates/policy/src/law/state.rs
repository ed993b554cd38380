//! Laws of a world: what can be seen of it alone, after each fact.

use std::collections::BTreeMap;

use model::config::VramAccounting;
use model::link::StopWhy;
use model::picture::TRANSITIONS_SHOWN;
use model::{GpuUuid, Millis, TaskClass, TaskId};

use super::Found;
use crate::gpu::Gpu;
use crate::shape::HostKey;
use crate::turn::{RUNS_KEPT, TYPES_KEPT};
use crate::unit::Unit;
use crate::worker::Worker;
use crate::world::{SAID_KEPT, World};

/// I1: every task ends exactly once.
pub(super) fn one_ending(world: &World, found: &mut Found) {
    if let Some(times) = world.anomalies.get("ended_twice") {
        found.push(format!("{times} tasks ended twice"));
    }
}

/// I2: an entry is in one place.
pub(super) fn one_place(world: &World, found: &mut Found) {
    for entry in world.claims.keys().filter(|entry| world.failing.contains_key(*entry)) {
        found.push(format!("{} is being started and being failed", entry.name));
    }
    for unit in world.units.values() {
        if !world.workers.get(&unit.worker).is_some_and(|worker| worker.units.contains(&unit.key)) {
            found.push(format!("{} is on no worker", unit.key));
        }
    }
    for worker in world.workers.values() {
        for key in worker.units.iter().filter(|key| !world.units.contains_key(*key)) {
            found.push(format!("{key} is on worker {} and nowhere else", worker.id));
        }
        for entry in worker.claims.iter().filter(|entry| !world.claims.contains_key(*entry)) {
            found.push(format!("{} is claimed for worker {} and nobody knows", entry.name, worker.id));
        }
    }
}

/// I6: no two live attempts of one task; attempt numbers are never reused.
pub(super) fn no_double_run(world: &World, found: &mut Found) {
    let mut live: BTreeMap<&TaskId, u32> = BTreeMap::new();
    for unit in world.units.values().filter(|unit| unit.is_live() && unit.stop.is_none()) {
        *live.entry(&unit.key.task_id).or_default() += 1;
    }
    for (task_id, count) in live.into_iter().filter(|(_, count)| *count > 1) {
        found.push(format!("{count} attempts of {task_id} live"));
    }
    if world.anomalies.contains_key("attempt_number_used_twice") {
        found.push("an attempt number was used twice".into());
    }
}

/// I7: a GPU has one holder, and what is granted on it fits.
pub(super) fn one_holder(world: &World, found: &mut Found) {
    let mut holders: BTreeMap<&GpuUuid, u32> = BTreeMap::new();
    for worker in world.workers.values().filter(|worker| worker.serves()) {
        let gpu = worker.gpu.as_ref().and_then(|uuid| world.gpus.get(uuid));
        if let Some(gpu) = gpu.filter(|gpu| gpu.worker.as_ref() == Some(&worker.id)) {
            *holders.entry(&gpu.facts.uuid).or_default() += 1;
        }
        let units: Vec<&Unit> = world.units_on(worker).filter(|unit| unit.is_live()).collect();
        let llms = units.iter().filter(|unit| unit.class() == TaskClass::Llm).count();
        let colocates = world.config.resource_manager.colocate_scripts;
        if worker.gpu.is_some() && !colocates && llms > 0 && units.len() > llms {
            found.push(format!("worker {} has an LLM task and a script task", worker.id));
        }
        let parallel = worker.engine.as_ref().map_or(0, |engine| engine.parallel.max(1) as usize);
        if worker.engine.is_some() && llms > parallel {
            found.push(format!("worker {} has {llms} LLM tasks and {parallel} slots", worker.id));
        }
        if worker.gpu.is_some() && !colocates && worker.engine.is_some() && units.len() > llms {
            found.push(format!("worker {} runs a script where an LLM is ordered", worker.id));
        }
    }
    for (gpu, count) in holders.into_iter().filter(|(_, count)| *count > 1) {
        found.push(format!("GPU {gpu} has {count} workers"));
    }
    for worker in world.workers.values().filter(|worker| worker.serves()) {
        if let Some(detail) = world.gpu_of(&worker.id).and_then(|gpu| over_granted(world, gpu, worker)) {
            found.push(detail);
        }
    }
}

/// I7 for tasks of several GPUs: nothing else is on any of them, started or about to.
pub(super) fn whole_gpus(world: &World, found: &mut Found) {
    for worker in world.workers.values().filter(|worker| worker.serves()) {
        let live = world.units_on(worker).filter(|unit| unit.is_live());
        let claims = worker.claims.iter().filter_map(|entry| world.claims.get(entry));
        let shapes: Vec<_> = live.map(|unit| &unit.shape).chain(claims.map(|it| &it.queued.shape)).collect();
        if shapes.iter().any(|shape| shape.is_wide()) && (shapes.len() > 1 || worker.engine.is_some()) {
            let count = shapes.len();
            found.push(format!("worker {} has {count} units, one of several GPUs", worker.id));
        }
    }
}

/// I7 for LLMs of several GPUs: on the others nothing else is loaded, and nothing runs that could not run beside any LLM.
pub(super) fn whole_llms(world: &World, found: &mut Found) {
    if world.anomalies.contains_key("gpu_of_two_llms") {
        found.push("two LLMs are spread to one GPU".into());
    }
    let colocates = world.config.resource_manager.colocate_scripts;
    for (gpu, lead) in &world.spans {
        let Some(worker) = world.gpus.get(gpu).and_then(|gpu| world.worker_on(gpu)) else { continue };
        let live = world.units_on(worker).filter(|unit| unit.is_live() && unit.worker != *lead);
        let (scripts, wide) =
            live.fold((0, 0), |(scripts, wide), unit| (scripts + 1, wide + u32::from(unit.shape.is_wide())));
        if worker.engine.is_some() || wide > 0 || (scripts > 0 && !colocates) {
            let engine = worker.engine.as_ref().map(|order| &order.model);
            found.push(format!(
                "GPU {gpu} is part of the LLM of {lead} and has {scripts} units and {engine:?}"
            ));
        }
    }
}

/// What was granted on a GPU by what was stated of it: all of the GPU for one, all but the headroom for several. What
/// was only measured may turn out to be more after it was granted; that is no breach.
fn over_granted(world: &World, gpu: &Gpu, worker: &Worker) -> Option<String> {
    let total = gpu.facts.total_mib?;
    let manager = &world.config.resource_manager;
    let (mut units, mut sum) = (0_u64, 0_u64);
    let live = world.units_on(worker).filter(|unit| unit.is_live()).map(|unit| &unit.shape);
    let claims = worker.claims.iter().filter_map(|entry| world.claims.get(entry));
    let mut hosts: BTreeMap<&HostKey, (u64, u64)> = BTreeMap::new();
    for shape in live.chain(claims.map(|claim| &claim.queued.shape)) {
        let Some(key) = shape.host() else { continue };
        let stated = shape.needs.vram_mib.unwrap_or(0);
        let mib = match manager.vram_accounting {
            VramAccounting::Declared if shape.vram_stated => stated.max(manager.vram_per_job_mb),
            VramAccounting::Declared => manager.vram_per_job_mb,
            VramAccounting::Measured => stated,
        };
        let (count, each) = hosts.entry(key).or_default();
        (*count, *each) = (*count + 1, mib.max(*each));
    }
    for (key, (count, each)) in hosts {
        // Orders given ahead wait for a host: no more run than hosts may stay.
        let kept = worker.hosts.iter().filter(|order| key.is(&order.script, order.model.as_deref()));
        let kept: u64 = kept.map(|order| u64::from(order.count)).sum();
        let count = if key.warm { count.min(kept.max(1)) } else { count };
        units += count;
        sum = sum.saturating_add(count.saturating_mul(each));
    }
    let room = if units > 1 { total.saturating_sub(manager.vram_headroom_mb) } else { total };
    (units > 1 && sum > room).then(|| {
        format!("GPU {} has {room} MiB for its {units} units, and {sum} MiB were granted", gpu.key())
    })
}

/// I7 under `gpu_lock: "single"`: nothing starts on a GPU while anything runs on one.
pub(super) fn one_lock(world: &World, found: &mut Found) {
    if !world.has_single_lock() {
        return;
    }
    let on_a_gpu = |worker| world.workers.get(worker).is_some_and(|worker| worker.gpu.is_some());
    let units = world.units.values().filter(|unit| unit.is_live() && on_a_gpu(&unit.worker));
    // Those of an earlier brain may have been started under another rule.
    let (adopted, ours): (Vec<&Unit>, Vec<&Unit>) = units.partition(|unit| unit.adopted);
    let claims = world.claims.values().filter(|claim| on_a_gpu(&claim.worker)).count();
    let beside = |unit: &&Unit| adopted.iter().any(|other| other.ordered_at < unit.ordered_at);
    if ours.len() + claims > 1 || ours.iter().any(beside) {
        let all = ours.len() + claims + adopted.len();
        found.push(format!("{all} units run at once under a single lock"));
    }
}

/// I8: no task runs beyond its charges.
pub(super) fn no_poison(world: &World, found: &mut Found) {
    for unit in world.units.values() {
        if unit.task.charged > unit.task.max_attempts {
            let (charged, most) = (unit.task.charged, unit.task.max_attempts);
            found.push(format!("{} was charged {charged} of {most} times", unit.key));
        }
        if unit.task.charged > unit.key.attempt {
            found.push(format!("{} was charged more often than it was tried", unit.key));
        }
    }
}

/// Y1: whoever gives way gives it to a chatbot, and is none.
pub(super) fn chatbots_stay(world: &World, found: &mut Found) {
    let asked = |unit: &&Unit| unit.stop == Some(StopWhy::Yield);
    for unit in world.units.values().filter(asked).filter(|unit| unit.task.is_chatbot()) {
        found.push(format!("{} is a chatbot and was asked to give way", unit.key));
    }
}

/// I17: a batch ends with as many ends as items; inside exclusive mode no LLM task starts, but chatbots that may borrow
/// a GPU.
pub(super) fn exact_batches(world: &World, found: &mut Found) {
    if world.anomalies.contains_key("batch_has_more_ends_than_items") {
        found.push("a batch has more ends than items".into());
    }
    let Some(exclusive) = world.exclusive(world.now) else { return };
    let began: Option<Millis> = world.exclusive_since;
    let held = |unit: &&Unit| {
        unit.class() == TaskClass::Llm && unit.is_live() && !world.is_admitted_chat(&unit.task)
    };
    for unit in world.units.values().filter(held) {
        if began.is_some_and(|began| unit.ordered_at > began) {
            let batch = &exclusive.batch.facts.batch_id;
            found.push(format!("{} started inside exclusive batch {batch}", unit.key));
        }
    }
}

/// I2: what waits is counted once: in line, parked, or to be ended.
pub(super) fn whole_queue(world: &World, found: &mut Found) {
    let queue = &world.queue;
    let in_line: u64 = queue.lines().chain(queue.paused_lines()).map(|(_, line)| line.len()).sum();
    let (parked, cancelled) = (queue.parked().count(), queue.cancelled().count());
    let all = queue.len();
    if in_line + (parked + cancelled) as u64 != all as u64 {
        found.push(format!("{all} wait: {in_line} in line, {parked} parked, {cancelled} cancelled"));
    }
}

/// I21: what is remembered of the past has a bound, whatever comes.
pub(super) fn bounded_memory(world: &World, found: &mut Found) {
    let mut most = |what: &str, count: usize, most: usize| {
        if count > most {
            found.push(format!("{count} {what}, where {most} are kept"));
        }
    };
    most("sentences", world.said.len(), SAID_KEPT);
    for in_cpu_lane in [false, true] {
        let grants = world.grants(in_cpu_lane);
        most("job types", grants.total.len(), TYPES_KEPT);
        most("runs of job types", grants.earlier.len(), RUNS_KEPT);
    }
    for gpu in world.gpus.values() {
        most("states of a GPU", gpu.transitions.len(), TRANSITIONS_SHOWN);
    }
    for worker in world.workers.values().filter(|worker| worker.claims.is_empty()) {
        let stale = |key: &&model::AttemptKey| !worker.reports.attempts.contains_key(*key);
        most("attempts that nobody reports any more", worker.closed.iter().filter(stale).count(), 0);
    }
}
