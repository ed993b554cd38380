//! Laws of rest: what must not be left as it is when the mind has nothing more to do.

use model::link::StopWhy;
use model::{GpuState, Millis};

use super::{Found, Pause};
use crate::gpu::Gpu;
use crate::model_choice::choose;
use crate::place;
use crate::queue::Line;
use crate::retry::verdict;
use crate::room::{Holder, Room, When};
use crate::shape::{Shape, What};
use crate::unit::Phase;
use crate::worker::{Llm, Worker};
use crate::world::World;

/// I19: `wake_at` is still to come.
pub(super) fn wakes_later(pause: &Pause<'_>, found: &mut Found) {
    if let Some(wake) = pause.plan.wake_at.filter(|wake| *wake <= pause.now) {
        found.push(format!("at {} it wants to be woken at {wake}", pause.now));
    }
}

/// R3: nothing that is over, cancelled or late is left lying.
pub(super) fn nothing_left_lying(pause: &Pause<'_>, found: &mut Found) {
    let world = pause.world;
    for unit in world.units.values().filter(|unit| unit.again_at.is_none_or(|time| time <= pause.now)) {
        if unit.closing.is_none() && verdict(world, unit).is_some() {
            found.push(format!("{} is over and is left lying", unit.key));
        }
        let stopped = matches!(unit.stop, Some(StopWhy::Cancel | StopWhy::Timeout | StopWhy::Superfluous));
        if unit.is_live() && unit.cancelled && !stopped {
            found.push(format!("{} is cancelled and runs on", unit.key));
        }
        let limit = unit.task.timeout_s.map(Millis::from_secs_f64);
        if let (Phase::Running { since }, Some(limit)) = (&unit.phase, limit)
            && *since + limit <= pause.now
            && unit.stop.is_none()
        {
            found.push(format!("{} runs past its limit of {limit}", unit.key));
        }
    }
    for entry in world.queue.cancelled() {
        let rests = |item: &crate::queue::Queued| item.not_before.is_some_and(|time| time > pause.now);
        if !world.claims.contains_key(entry) && !world.queue.get(entry).is_some_and(rests) {
            found.push(format!("{} is cancelled and waits on", entry.name));
        }
    }
}

/// A GPU that could be given something, and its worker.
fn able<'w>(pause: &Pause<'w>) -> impl Iterator<Item = (&'w Gpu, &'w Worker)> {
    let (world, now) = (pause.world, pause.now);
    let able = world
        .gpus
        .values()
        .filter(|gpu| gpu.is_usable())
        .filter_map(|gpu| Some((gpu, world.worker_on(gpu)?)));
    able.filter(move |(gpu, worker)| {
        let kept = gpu.kept_for.as_ref().is_some_and(|kept| kept.until > now);
        let rests = worker.again_at.is_some_and(|time| time > now);
        let covered = world.covered.contains_key(&gpu.facts.uuid);
        worker.serves() && !rests && !kept && !covered && worker.claims.is_empty()
    })
}

/// Whether GPUs are kept, as a rule, for a task that needs several.
fn some_are_kept(world: &World) -> bool {
    world.queue.lines().any(|(shape, _)| shape.needs_several())
}

/// Whether nothing but its place keeps work from starting: one of a shape that stands in line and may go on.
fn may_go_on(world: &World, shape: &Shape, line: &Line) -> bool {
    let grants = world.grants(shape.in_cpu_lane());
    line.rows().any(|(key, row)| {
        let free = row.values().any(|entry| !world.claims.contains_key(entry));
        free && !world.turns.must_wait(grants, &key.job_type)
    })
}

/// I20: an idle GPU takes a script that fits, and loads an LLM for a request that none serves.
pub(super) fn no_idle_gpu(pause: &Pause<'_>, found: &mut Found) {
    let world = pause.world;
    if world.down.is_some() || world.lock_holder().is_some() || some_are_kept(world) {
        return;
    }
    for (gpu, worker) in able(pause) {
        let empty =
            gpu.state_at(pause.now).0 == GpuState::Idle && worker.load() == 0 && worker.llm().is_none();
        if !empty || world.is_lent(gpu) || world.has_left(gpu) {
            continue;
        }
        for (shape, line) in world.queue.lines().filter(|(shape, line)| may_go_on(world, shape, line)) {
            let starts = match &shape.what {
                What::Script(_) => script_starts(pause, gpu, worker, shape),
                What::Llm(wanted) => llm_boots(pause, gpu, worker, shape, wanted.as_deref()),
            };
            if starts {
                found.push(format!("GPU {} is idle and {} of {shape:?} wait", gpu.key(), line.len()));
            }
        }
    }
}

/// Whether nothing keeps a script of this shape from starting on an idle GPU.
fn script_starts(pause: &Pause<'_>, gpu: &Gpu, worker: &Worker, shape: &Shape) -> bool {
    let world = pause.world;
    let Some(key) = shape.host().filter(|_| !shape.in_cpu_lane()) else { return false };
    let short = world.low_ram().is_some() || !world.ram_pledges(pause.now).is_empty();
    // Where its host runs elsewhere, the queue there may be the shorter way.
    let elsewhere = world.units.values().any(|unit| unit.is_live() && unit.shape.host() == Some(key));
    let room = Room::of(world, gpu, Some(worker));
    let fits = room.leftover(When::Now, Holder::of(key), world.need(shape)).is_some();
    let waits = short || (key.warm && elsewhere);
    !waits && fits && world.takes_scripts(gpu) && place::fits(shape, &gpu.facts)
}

/// Whether nothing keeps an LLM from being loaded on an idle GPU for requests of this shape.
fn llm_boots(pause: &Pause<'_>, gpu: &Gpu, worker: &Worker, shape: &Shape, wanted: Option<&str>) -> bool {
    let world = pause.world;
    let others = world.gpus.values().filter(|other| other.facts.uuid != gpu.facts.uuid && other.is_usable());
    let mut others = others.filter_map(|other| Some((other, world.worker_on(other)?)));
    // One that serves, loads, cools or makes room may be the shorter way.
    let elsewhere = others.any(|(other, worker)| {
        let asked = world.units_on(worker).any(|unit| unit.stop.is_some());
        worker.llm().is_some() || other.state_at(pause.now).0 == GpuState::Cooling || asked
    });
    let choice = choose(world, gpu, worker, wanted);
    let again_at = choice.as_ref().and_then(|choice| gpu.boot_failures.get(&choice.model));
    let alone = choice.as_ref().is_some_and(|choice| choice.gpus == 1);
    let may = world.exclusive(pause.now).is_none() && alone;
    may && !elsewhere
        && place::fits(shape, &gpu.facts)
        && again_at.is_none_or(|failure| failure.again_at <= pause.now)
}

/// I20: an LLM that runs nothing serves what waits for it.
pub(super) fn no_idle_llm(pause: &Pause<'_>, found: &mut Found) {
    let world = pause.world;
    let waits = world.down.is_some() || world.lock_holder().is_some() || some_are_kept(world);
    if waits || world.exclusive(pause.now).is_some() {
        return;
    }
    for (gpu, worker) in able(pause) {
        let Some(Llm::Ready { report }) = worker.llm().filter(|_| worker.load() == 0) else {
            continue;
        };
        let waits = world.queue.lines().filter(|(shape, line)| may_go_on(world, shape, line)).find(|(shape, _)| {
            let right = matches!(&shape.what, What::Llm(wanted) if wanted.as_ref().is_none_or(|name| *name == report.model));
            right && place::fits(shape, &gpu.facts)
        });
        if let Some((shape, line)) = waits {
            found.push(format!(
                "{} is idle on GPU {} and {} of {shape:?} wait",
                report.model,
                gpu.key(),
                line.len()
            ));
        }
    }
}

/// I20: what a lost GPU leaves of an LLM over several does not keep the others.
pub(super) fn no_half_llm(pause: &Pause<'_>, found: &mut Found) {
    let world = pause.world;
    for (gpu, lead) in world.spans.iter().filter_map(|(gpu, lead)| Some((gpu, world.workers.get(lead)?))) {
        let is_whole = world.gpus_of_llm(lead).all(Gpu::is_usable);
        let rests = lead.again_at.is_some_and(|time| time > pause.now) || lead.load() > 0;
        if lead.engine.is_some() && lead.serves() && !is_whole && !rests && world.down.is_none() {
            found.push(format!("GPU {gpu} is held by an LLM of {} that has lost a GPU", lead.id));
        }
    }
}

/// I7: nobody waits for ever for a worker that nobody launches.
pub(super) fn each_gpu_its_worker(pause: &Pause<'_>, found: &mut Found) {
    let world = pause.world;
    let launches = world.config.launcher != model::config::Launcher::None && world.inventory.is_some();
    if world.down.is_some() || !launches {
        return;
    }
    for gpu in world.gpus.values().filter(|gpu| gpu.is_usable()) {
        let uuid = Some(gpu.facts.uuid.clone());
        let lives = world.workers.values().any(|worker| !worker.dead && worker.gpu == uuid);
        let due = world.launching.get(&uuid).and_then(|launching| launching.due_at().max());
        if !lives && due.is_none_or(|due| due <= pause.now) {
            found.push(format!("GPU {} has no worker and nobody launches one", gpu.key()));
        }
    }
}
