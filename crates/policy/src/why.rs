//! Why a thing waits: exactly one reason for each, computed on demand by the same facts that `plan` decides by.
//!
//! Not here: choices; a reason never changes what happens.

use model::{GpuState, Millis, Reason, TaskId};

use crate::ahead::Standing;
use crate::forecast::{self, Pace};
use crate::gpu::Gpu;
use crate::model_choice::{choose, exists_somewhere};
use crate::place;
use crate::queue::Queued;
use crate::shape::What;
use crate::unit::Unit;
use crate::worker::{Llm, Worker};
use crate::world::World;

/// Why a task waits, or that it runs, and when it is expected to start; none for a task the mind does not know.
#[must_use]
pub fn why(world: &World, now: Millis, task_id: &TaskId) -> Option<(Reason, Option<Millis>)> {
    let now = now.max(world.now);
    if let Some(unit) = world.attempts_of(task_id).filter_map(|key| world.units.get(key)).last() {
        return Some((of_unit(world, now, unit), unit.running_since()));
    }
    if let Some(item) = world.queue.by_id(task_id).find_map(|entry| world.queue.get(entry)) {
        let start = forecast::eta(world, now, task_id).map(|expected| expected.start);
        return Some((reason_of(world, now, item), start));
    }
    let in_hand = world.claims.values().any(|claim| claim.task.task_id == *task_id)
        || world.failing.values().any(|item| item.task.task_id == *task_id);
    in_hand.then_some((Reason::Next, Some(now)))
}

fn of_unit(world: &World, now: Millis, unit: &Unit) -> Reason {
    let gpu = world.gpu_of(&unit.worker).map_or_else(|| "cpu".to_owned(), Gpu::key);
    match unit.running_since() {
        Some(since) => Reason::Running { gpu, for_s: (now - since).as_secs_f64() },
        None if unit.is_live() => Reason::Next,
        None => Reason::Held { detail: "it has run, and its record is being put away".into() },
    }
}

/// Why a queued task waits.
pub(crate) fn reason_of(world: &World, now: Millis, item: &Queued) -> Reason {
    if world.down.is_some() {
        return Reason::ShuttingDown;
    }
    if item.cancelled {
        return Reason::Held { detail: "somebody asked for its end".into() };
    }
    if let Some(batch) = item.shape.batch.as_ref().filter(|_| world.queue.is_paused(&item.shape)) {
        return Reason::BatchPaused { batch: batch.to_string() };
    }
    if let Some(time) = item.not_before.filter(|time| *time > now) {
        return of_parked(item, (time - now).as_secs_f64());
    }
    if item.shape.in_cpu_lane() {
        return of_cpu_lane(world, now, item);
    }
    if world.inventory.is_none() {
        return Reason::NoWorker;
    }
    if let Some(misfit) = world.misfit(&item.shape) {
        return misfit;
    }
    if let Some((unit, gpu)) = crate::yields::makes_way_for(world, item) {
        let gpu = gpu.map_or_else(|| "cpu".to_owned(), Gpu::key);
        return Reason::WaitingForYield { task: unit.key.task_id.to_string(), gpu };
    }
    match &item.shape.what {
        What::Script(_) if item.shape.is_wide() => of_wide(world, now, item),
        What::Llm(wanted) => of_llm(world, now, item, wanted.as_deref()),
        What::Script(_) => of_script(world, now, item),
    }
}

/// A rule that holds it back although there may be room: the single lock, or too many of its type in a row.
fn of_rules(world: &World, now: Millis, item: &Queued) -> Option<Reason> {
    let (job_type, grants) = (&item.task.job_type, world.grants(item.shape.in_cpu_lane()));
    if let Some(limit) = world.turns.limit_reached(grants, job_type)
        && world.turns.must_wait(grants, job_type)
    {
        return Some(Reason::TooManyInARow { job_type: job_type.clone(), limit });
    }
    let holder = world.lock_holder().filter(|_| !item.shape.in_cpu_lane())?;
    let ahead = world.standing(now, item).ahead;
    let gpu = world.gpu_of(holder.worker).map_or_else(|| "cpu".to_owned(), Gpu::key);
    Some(Reason::Locked { task: holder.task.clone(), gpu, ahead })
}

fn of_parked(item: &Queued, in_s: f64) -> Reason {
    let failed = item.task.history.last().is_some_and(|past| past.was.is_none() && past.error.is_some());
    if failed {
        let (attempt, max_attempts) = (item.task.charged + 1, item.task.max_attempts);
        Reason::BackingOff { again_in_s: in_s, attempt, max_attempts }
    } else {
        Reason::NotBefore { in_s }
    }
}

/// Why a script waits that there is a slot for, where the machine's memory is short.
fn short_of_ram(world: &World, now: Millis, item: &Queued) -> Option<Reason> {
    let free_mib = world.low_ram().filter(|_| item.shape.host().is_some())?;
    let for_s = world.ram_wait.map_or(0.0, |wait| (now - wait.since).as_secs_f64());
    Some(Reason::RamLow { free_mib, least_mib: world.least_ram_mib(), for_s })
}

/// Why a task waits that there is room for: others go first, or it is another job type's turn.
fn behind(world: &World, now: Millis, item: &Queued, standing: Standing) -> Reason {
    if let Some(short) = short_of_ram(world, now, item) {
        return short;
    }
    if standing.ahead.count == 0 {
        return Reason::Next;
    }
    let Some(next) = standing.turn_of else { return Reason::Behind { ahead: standing.ahead } };
    let total = &world.grants(item.shape.in_cpu_lane()).total;
    let starts = |job_type: &str| total.get(job_type).copied().unwrap_or_default();
    let job_type = item.task.job_type.clone();
    Reason::NotItsTurn {
        starts: starts(&job_type),
        weight: world.turns.weight(&job_type),
        next_starts: starts(&next),
        next_weight: world.turns.weight(&next),
        job_type,
        next,
    }
}

fn of_cpu_lane(world: &World, now: Millis, item: &Queued) -> Reason {
    let Some(worker) = world.cpu_worker() else { return Reason::NoWorker };
    let (slots, standing) = (world.cpu_slots(), world.standing(now, item));
    if let Some(held) = of_rules(world, now, item) {
        return held;
    }
    let load = world.units_on(worker).filter(|unit| unit.is_live()).count() + worker.claims.len();
    if load < slots as usize {
        return behind(world, now, item, standing);
    }
    let ahead = standing.ahead;
    Reason::CpuLaneFull { slots, ahead }
}

/// Why a task waits that needs several GPUs.
fn of_wide(world: &World, now: Millis, item: &Queued) -> Reason {
    let count = u32::try_from(item.shape.gpus()).unwrap_or(u32::MAX);
    let gpus = world.gpus.values().filter(|gpu| gpu.is_usable());
    let able: Vec<(&Gpu, Option<&Worker>)> = gpus
        .filter(|gpu| world.could_be_one_for(gpu, &item.shape))
        .map(|gpu| (gpu, world.worker_on(gpu)))
        .collect();
    if able.iter().filter(|(_, worker)| worker.is_some()).count() < item.shape.gpus() {
        return Reason::NoWorker;
    }
    if let Some(held) = of_rules(world, now, item) {
        return held;
    }
    let firm_in_s = (world.firm_at(item) - now).as_secs_f64().max(0.0);
    match world.kept_gpus() {
        Some((kept, holder)) if holder.task.task_id == item.task.task_id => {
            let gpus = kept.gpus.iter().filter_map(|uuid| world.gpus.get(uuid));
            let last = gpus.filter_map(|gpu| last_end(world, now, gpu)).max_by_key(|(end, _)| *end);
            // An LLM among them is not a unit: for that the time counts that was expected.
            let has_llm = |(gpu, _): &&(&Gpu, Option<&Worker>)| {
                let llm = world.llm_worker(gpu).and_then(Worker::llm);
                kept.gpus.contains(&gpu.facts.uuid) && llm.is_some()
            };
            let of_llm = able.iter().any(|able| has_llm(&able)).then_some(kept.until);
            let free_at = last.map(|(end, _)| end).into_iter().chain(of_llm).max().unwrap_or(now);
            Reason::GpusKept {
                count,
                gpus: format!("GPU {}", world.keys_of(&kept.gpus)),
                free_in_s: (free_at - now).as_secs_f64().max(0.0),
                waits_for: last.map(|(_, unit)| unit.key.task_id.to_string()),
                firm_in_s,
            }
        }
        Some((_, holder)) => {
            let ahead = world.standing(now, item).ahead;
            Reason::BehindWide { count, task: holder.task.task_id.clone(), ahead }
        }
        None => of_busy_gpus(world, now, item, &able),
    }
}

/// The unit of a GPU that should end last, and when nine of ten times it has.
fn last_end<'w>(world: &'w World, now: Millis, gpu: &Gpu) -> Option<(Millis, &'w Unit)> {
    let worker = world.worker_on(gpu)?;
    let live = world.units_on(worker).filter(|unit| unit.is_live());
    let ends = live.map(|unit| (forecast::expected_end(world, now, worker, unit, Pace::Slow), unit));
    ends.max_by_key(|(end, _)| *end)
}

/// Why it does not start where there would be room: GPUs are kept for a task that needs several.
fn kept_for_wide(world: &World, now: Millis, item: &Queued, room: &[&Gpu]) -> Option<Reason> {
    let (refusing, holder, until) = crate::plan::refusing(world, now, item)?;
    let gpu = room.first().filter(|_| room.iter().all(|gpu| refusing.contains(&&gpu.facts.uuid)))?;
    Some(Reason::KeptForWide {
        gpu: gpu.key(),
        task: holder.task.task_id.clone(),
        count: u32::try_from(holder.shape.gpus()).unwrap_or(u32::MAX),
        in_s: (until - now).as_secs_f64().max(0.0),
        ahead: world.standing(now, item).ahead,
    })
}

/// GPUs that could run it, with their living workers.
fn able<'w>(world: &'w World, item: &'w Queued) -> Vec<(&'w Gpu, Option<&'w Worker>)> {
    let gpus = world.gpus.values().filter(|gpu| gpu.is_usable() && place::fits(&item.shape, &gpu.facts));
    gpus.map(|gpu| (gpu, world.worker_on(gpu))).collect()
}

fn of_llm(world: &World, now: Millis, item: &Queued, wanted: Option<&str>) -> Reason {
    if world.exclusive(now).is_some()
        && world.is_admitted_chat(&item.task)
        && let Some(found) = of_admitted_chat(world, now, item, wanted)
    {
        return found;
    }
    if let Some(exclusive) = world.exclusive(now) {
        let batch = exclusive.batch.facts.batch_id.to_string();
        let running = world.llm_tasks_in_the_way();
        let remaining = exclusive.batch.facts.remaining();
        let reason = if running > 0 {
            Reason::Draining { batch, running }
        } else {
            Reason::HeldByBatch { batch, remaining }
        };
        return reason;
    }
    if let Some(detail) = world.no_engine() {
        return Reason::NoEngine { detail };
    }
    let able = able(world, item);
    if able.iter().all(|(_, worker)| worker.is_none()) {
        return Reason::NoWorker;
    }
    if let Some(held) = of_rules(world, now, item) {
        return held;
    }
    if let Some(found) = of_loaded_llm(world, now, item, wanted, &able) {
        return found;
    }
    let wanted = world.spanning_model(&item.shape).map(|(name, _)| name).or(wanted);
    let choices =
        able.iter().filter_map(|(gpu, worker)| Some((*gpu, choose(world, gpu, (*worker)?, wanted)?)));
    if choices.clone().next().is_none() {
        return no_choice(world, wanted);
    }
    let failure = |(gpu, choice): (&Gpu, crate::model_choice::Choice)| {
        let failure = gpu.boot_failures.get(&choice.model).filter(|failure| failure.again_at > now)?;
        Some((gpu.key(), choice.model, failure.clone()))
    };
    let failures: Vec<_> = choices.clone().map(failure).collect();
    if let Some(Some((gpu, model, failure))) = failures.first().cloned()
        && failures.iter().all(Option::is_some)
    {
        let in_s = (failure.again_at - now).as_secs_f64();
        let detail = format!(
            "`{model}` could not be loaded on GPU {gpu}: {}; tried again in {in_s:.0} s",
            failure.error
        );
        return Reason::NoEngine { detail };
    }
    if item.shape.needs_several() {
        return of_wide(world, now, item);
    }
    let is_idle = |gpu: &Gpu| gpu.state_at(now).0 == GpuState::Idle;
    let is_empty = |gpu: &Gpu| world.worker_on(gpu).is_some_and(|worker| worker.load() == 0);
    let room: Vec<&Gpu> = choices.map(|(gpu, _)| gpu).filter(|gpu| is_idle(gpu) && is_empty(gpu)).collect();
    if !room.is_empty() {
        let kept = kept_for_wide(world, now, item, &room);
        return kept.unwrap_or_else(|| behind(world, now, item, world.standing(now, item)));
    }
    of_busy_gpus(world, now, item, &able)
}

/// Inside an exclusive batch a chatbot waits for the GPU that is lent to it, or for an LLM that nobody needs.
fn of_admitted_chat(world: &World, now: Millis, item: &Queued, wanted: Option<&str>) -> Option<Reason> {
    let able = able(world, item);
    let Some(gpu) = world.lent.as_ref().and_then(|uuid| world.gpus.get(uuid)) else {
        return of_loaded_llm(world, now, item, wanted, &able);
    };
    let of_lent: Vec<_> = able.iter().copied().filter(|(able, _)| world.is_lent(able)).collect();
    if let Some(found) = of_loaded_llm(world, now, item, wanted, &of_lent) {
        return Some(found);
    }
    let batch = world.exclusive(now)?.batch.facts.batch_id.to_string();
    let worker = world.worker_on(gpu);
    let units = worker.into_iter().flat_map(|worker| world.units_on(worker).map(move |unit| (worker, unit)));
    let ends = units
        .filter(|(_, unit)| unit.is_live())
        .map(|(worker, unit)| forecast::expected_end(world, now, worker, unit, Pace::Usual));
    let free_in_s = (ends.max().unwrap_or(now) - now).as_secs_f64().max(0.0);
    Some(Reason::LentToChat { batch, gpu: gpu.key(), free_in_s })
}

fn no_choice(world: &World, wanted: Option<&str>) -> Reason {
    match wanted {
        Some(name) if exists_somewhere(world, name) == Some(true) => {
            Reason::NoEngine { detail: format!("`{name}` does not fit on a GPU whose worker could load it") }
        }
        Some(name) => {
            Reason::NoEngine { detail: format!("no worker that has spoken so far can load `{name}`") }
        }
        None => Reason::NoEngine {
            detail: "no model of `models` in config.json can be loaded by a worker here; add one that fits"
                .into(),
        },
    }
}

/// A model that would serve it is loaded, or loads.
fn of_loaded_llm(
    world: &World,
    now: Millis,
    item: &Queued,
    wanted: Option<&str>,
    able: &[(&Gpu, Option<&Worker>)],
) -> Option<Reason> {
    let right = |model: &str| wanted.is_none_or(|name| name == model);
    let ready: Vec<(&Worker, &str, u32)> = able
        .iter()
        .filter_map(|(_, worker)| match (*worker)?.llm()? {
            Llm::Ready { report } if right(&report.model) => {
                Some(((*worker)?, report.model.as_str(), report.parallel))
            }
            _ => None,
        })
        .collect();
    if let Some((_, model, _)) = ready.first() {
        let slots: u32 = ready.iter().map(|(_, _, parallel)| *parallel).sum();
        let live = |worker: &Worker| world.units_on(worker).filter(|unit| unit.is_live()).count();
        let load: usize = ready.iter().map(|(worker, ..)| live(worker) + worker.claims.len()).sum();
        let standing = world.standing(now, item);
        if load < slots as usize {
            let room: Vec<&Gpu> = ready.iter().filter_map(|(worker, ..)| world.gpu_of(&worker.id)).collect();
            let kept = kept_for_wide(world, now, item, &room);
            return Some(kept.unwrap_or_else(|| behind(world, now, item, standing)));
        }
        let ahead = standing.ahead;
        return Some(Reason::WaitingForSlot { model: (*model).to_owned(), slots, ahead });
    }
    let boots = world.booting().filter(|(gpu, model, _)| {
        right(model) && able.iter().any(|(able, _)| able.facts.uuid == gpu.facts.uuid)
    });
    let (gpu, model, ready_at) = boots.min_by_key(|(_, _, ready_at)| *ready_at)?;
    let ready_in_s = (ready_at - now).as_secs_f64().max(0.0);
    Some(Reason::Booting { model: model.to_owned(), gpu: gpu.key(), ready_in_s })
}

fn of_script(world: &World, now: Millis, item: &Queued) -> Reason {
    let mut able = able(world, item);
    able.retain(|(gpu, _)| world.takes_scripts(gpu));
    if able.iter().all(|(_, worker)| worker.is_none()) {
        return Reason::NoWorker;
    }
    if let Some(held) = of_rules(world, now, item) {
        return held;
    }
    let ready = |gpu: &Gpu, worker: Option<&Worker>| match gpu.state_at(now).0 {
        GpuState::Idle => worker.is_some_and(|worker| worker.load() == 0),
        GpuState::BootingScript | GpuState::ScriptBusy => world.has_room(gpu, worker, &item.shape),
        _ => false,
    };
    let room = able.iter().filter(|(gpu, worker)| ready(gpu, *worker)).map(|(gpu, _)| *gpu);
    let room: Vec<&Gpu> = room.collect();
    if let Some(kept) = kept_for_wide(world, now, item, &room) {
        return kept;
    }
    if let Some(gpu) = room.first() {
        if let (Some(need), Some(total), Some(foreign)) =
            (item.shape.needs.vram_mib, gpu.facts.total_mib, gpu.foreign_mib)
            && need.saturating_add(foreign) > total
        {
            let detail = format!(
                "programs of others hold {foreign} MiB of the {total} MiB of GPU {}, and it needs {need} MiB",
                gpu.key()
            );
            return Reason::Held { detail };
        }
        return behind(world, now, item, world.standing(now, item));
    }
    let some_script_gpu = able.iter().any(|(gpu, _)| {
        matches!(gpu.state_at(now).0, GpuState::BootingScript | GpuState::ScriptBusy | GpuState::Cooling)
    });
    let llm_kept = able.iter().any(|(gpu, _)| gpu.state_at(now).0 == GpuState::LlmReady);
    if llm_kept && !some_script_gpu && world.exclusive(now).is_none() {
        let rule = world.config.resource_manager.eviction_policy.rule;
        if let Some(kept) = crate::plan::kept(world, now, crate::plan::judge_of(rule)) {
            return kept;
        }
    }
    of_busy_gpus(world, now, item, &able)
}

fn of_busy_gpus(world: &World, now: Millis, item: &Queued, able: &[(&Gpu, Option<&Worker>)]) -> Reason {
    let ahead = world.standing(now, item).ahead;
    let cooling = able.iter().find(|(gpu, _)| gpu.state_at(now).0 == GpuState::Cooling);
    if let Some((gpu, _)) = cooling.filter(|_| ahead.count == 0) {
        return Reason::Cooling { gpu: gpu.key() };
    }
    Reason::WaitingForGpu { ahead }
}
