//! The picture, drawn once; file, command line and web page are frames around it.
//!
//! Not here: writing it.

use std::collections::BTreeMap;

use model::picture::{
    BatchPicture, CpuPicture, GpuPicture, HeadPicture, PICTURE_SCHEMA_VERSION, Picture, QueuePicture,
    Resident, SAID_SHOWN, SaidPicture, SlotPicture, VramPicture,
};
use model::{
    BatchId, Entry, GpuState, InventorySource, Millis, Priority, Reason, TaskClass, TaskId, Timestamp,
};

use crate::batch::Batch;
use crate::forecast::{self, Pace, expected_end};
use crate::gpu::Gpu;
use crate::plan::plan;
use crate::shape::Shape;
use crate::unit::Unit;
use crate::why::reason_of;
use crate::worker::{Llm, Worker};
use crate::world::World;

/// What the picture says of the brain that draws it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PictureFrame {
    /// Counts up with every writing.
    pub seq: u64,
    /// The brain's life.
    pub epoch: u64,
    /// Which boot of the machine.
    pub boot_id: Option<String>,
    /// The brain's process id.
    pub brain_pid: u32,
}

/// What one moment is called by both clocks.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    pub now: Millis,
    pub wall: Timestamp,
}

impl Moment {
    fn of(self, time: Millis) -> Timestamp {
        time.on_the_wall(self.now, self.wall)
    }
}

/// Draws the world.
#[must_use]
pub fn picture(world: &World, now: Millis, wall: Timestamp, frame: PictureFrame) -> Picture {
    let now = now.max(world.now);
    let moment = Moment { now, wall };
    let (inventory, inventory_why) = world.inventory.clone().unwrap_or_default();
    let wanted = wanted_by_batches(world, now);
    let gpus = world.gpus.values();
    let heads = plan(world, now).heads;
    let next = first_script(world, &heads);
    Picture {
        schema_version: PICTURE_SCHEMA_VERSION,
        seq: frame.seq,
        epoch: frame.epoch,
        boot_id: frame.boot_id,
        written_at: wall,
        brain_pid: frame.brain_pid,
        inventory,
        inventory_why,
        mode: world.mode(now),
        shutting_down: world.is_being_freed(),
        gpus: gpus.map(|gpu| (gpu.key(), gpu_picture(world, gpu, moment, wanted.as_deref(), next))).collect(),
        cpu: cpu_picture(world, moment),
        boot_times: world.memory.boot_times(&world.config),
        queues: queues(world, moment, &heads),
        batches: world
            .batches
            .iter()
            .map(|(id, batch)| (id.clone(), batch_picture(world, batch, moment)))
            .collect(),
        leases: BTreeMap::new(),
        system_ram_mb: world.ram.map(|ram| ram.total_mib),
        system_ram_available_mb: world.ram.map(|ram| ram.available_mib),
        ended: world.ended,
        anomalies: world.anomalies.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
        said: said(world, moment),
        notices: notices(world),
    }
}

/// What waits of the batches that have the GPUs for themselves; none outside exclusive mode.
pub(crate) fn wanted_by_batches(world: &World, now: Millis) -> Option<Vec<&Shape>> {
    let exclusive = world.exclusive(now)?;
    let lines = world.queue.front().map(|(shape, _)| shape);
    Some(lines.filter(|shape| exclusive.has(shape.batch.as_ref())).collect())
}

/// The shape of the first script in line that wants a GPU.
pub(crate) fn first_script<'w>(world: &'w World, heads: &[(TaskId, Reason)]) -> Option<&'w Shape> {
    let waiting = heads.iter().flat_map(|(task_id, _)| world.queue.by_id(task_id));
    let mut waiting = waiting.filter_map(|entry| world.queue.get(entry)).map(|item| &item.shape);
    waiting.find(|shape| shape.host().is_some() && !shape.in_cpu_lane())
}

pub(crate) fn gpu_picture(
    world: &World,
    gpu: &Gpu,
    moment: Moment,
    wanted: Option<&[&Shape]>,
    next: Option<&Shape>,
) -> GpuPicture {
    let worker = world.worker_on(gpu);
    let (state, since) = gpu.state_at(moment.now);
    let mut units: Vec<&Unit> = worker
        .map(|worker| world.units_on(worker).filter(|unit| unit.is_live()).collect())
        .unwrap_or_default();
    units.sort_by_key(|unit| (unit.running_since().is_none(), unit.running_since(), unit.ordered_at));
    let oldest = units.first();
    let of_llm = world.llm_worker(gpu);
    let llm = of_llm.and_then(Worker::llm);
    let engine = of_llm.and_then(|worker| worker.reports.engine.as_ref()).filter(|_| llm.is_some());
    let all_of_it = of_llm.into_iter().flat_map(|worker| world.gpus_of_llm(worker));
    let paired_with = all_of_it.filter(|other| other.facts.uuid != gpu.facts.uuid).map(Gpu::key).collect();
    let model = match &llm {
        Some(Llm::Booting { order }) => Some(order.model.clone()),
        Some(Llm::Ready { report } | Llm::Failed { report }) => Some(report.model.clone()),
        Some(Llm::Unloading) => engine.map(|engine| engine.model.clone()),
        None => None,
    };
    let loads = matches!(state, GpuState::BootingLlm | GpuState::BootingScript);
    let started_boot = loads.then_some(since);
    let host = oldest.and_then(|unit| unit.shape.host());
    let expected_ready = match state {
        GpuState::BootingLlm => world.boot_on(gpu).map(|(_, at)| at),
        GpuState::BootingScript => host.map(|host| since + world.memory.host_boot(&world.config, host).p50),
        _ => None,
    };
    let mut transitions: Vec<_> =
        gpu.transitions.iter().map(|(state, at)| (*state, moment.of(*at))).collect();
    if state != gpu.state {
        transitions.push((state, moment.of(since)));
    }
    let residents = residents(world, worker, of_llm);
    let scripts = units.iter().filter(|unit| unit.class() == TaskClass::Script).count();
    let scripts = u32::try_from(scripts).unwrap_or(u32::MAX);
    let slots_max = world.slots_max(gpu, worker, next).map(|most| most.max(scripts));
    let has_slot = slots_max.is_some_and(|most| scripts < most);
    GpuPicture {
        state,
        model,
        paired_with,
        script: host.map(crate::shape::HostKey::name),
        pid: engine.and_then(|engine| engine.pid).or(worker_pid(worker)),
        port: engine.and_then(|engine| engine.port),
        since: moment.of(since),
        started_boot: started_boot.map(|at| moment.of(at)),
        expected_ready: expected_ready.map(|at| moment.of(at)),
        tasks_completed: world.memory.tasks_completed(&gpu.facts.uuid),
        task_id: oldest.map(|unit| unit.key.task_id.clone()),
        progress: oldest.and_then(|unit| unit.progress),
        uuid: gpu.facts.uuid.clone(),
        name: gpu.facts.name.clone(),
        role: world.config.role(&gpu.key()),
        vram: vram(world, gpu, &residents),
        health: gpu.health,
        draining: is_draining(world, gpu, llm.is_some(), wanted),
        accepts: accepts(
            world,
            gpu,
            (worker, of_llm),
            state,
            &units,
            has_slot,
            wanted.is_none() || world.is_lent(gpu),
        ),
        residents,
        slots_used: scripts,
        slots_max,
        slots: units.iter().filter_map(|unit| Some(slot(world, worker?, unit, moment))).collect(),
        lease: None,
        transitions,
        worker_pid: worker_pid(worker),
    }
}

fn worker_pid(worker: Option<&Worker>) -> Option<u32> {
    worker.and_then(|worker| worker.reports.worker.as_ref()).map(|worker| worker.pid)
}

fn slot(world: &World, worker: &Worker, unit: &Unit, moment: Moment) -> SlotPicture {
    let eta =
        unit.running_since().map(|_| expected_end(world, moment.now, worker, unit, Pace::Usual) - moment.now);
    SlotPicture {
        task_id: unit.key.task_id.clone(),
        attempt: unit.key.attempt,
        class: unit.class(),
        priority: unit.task.priority,
        since: unit.running_since().map(|since| moment.of(since)),
        progress: unit.progress,
        eta_s: eta.map(|eta| eta.as_secs_f64().max(0.0)),
    }
}

/// What is loaded, with the memory it is declared to take.
fn residents(world: &World, worker: Option<&Worker>, of_llm: Option<&Worker>) -> Vec<Resident> {
    let mut residents = Vec::new();
    if let Some(engine) = of_llm.and_then(|worker| worker.reports.engine.as_ref()) {
        residents.push(Resident {
            kind: TaskClass::Llm,
            model: engine.model.clone(),
            mib: world.llm_mib(&engine.model),
            loads: u32::try_from(engine.generation).unwrap_or(u32::MAX),
        });
    }
    for host in worker.into_iter().flat_map(|worker| &worker.reports.hosts) {
        let model = host
            .model
            .as_ref()
            .map_or_else(|| host.script.clone(), |model| format!("{}:{model}", host.script));
        let mib = world.config.scripts.get(&host.script).and_then(|entry| entry.vram_mib);
        residents.push(Resident { kind: TaskClass::Script, model, mib, loads: host.loads });
    }
    residents
}

/// Memory as it was read; of a simulated GPU, as its residents are declared to use it.
fn vram(world: &World, gpu: &Gpu, residents: &[Resident]) -> VramPicture {
    let declared: u64 = residents.iter().filter_map(|resident| resident.mib).sum();
    let simulated = world.inventory.as_ref().is_some_and(|(source, _)| *source == InventorySource::Simulated);
    VramPicture {
        total_mib: gpu.facts.total_mib,
        used_mib: if simulated {
            Some(declared)
        } else {
            gpu.reading.as_ref().and_then(|reading| reading.used_mib)
        },
        foreign_mib: if simulated { Some(0) } else { gpu.foreign_mib },
    }
}

/// Whether what is loaded is meant to go: for an exclusive batch that has items waiting, or because the machine is freed.
fn is_draining(world: &World, gpu: &Gpu, llm: bool, wanted: Option<&[&Shape]>) -> bool {
    let for_batch =
        || wanted.is_some_and(|shapes| shapes.iter().any(|shape| crate::place::fits(shape, &gpu.facts)));
    world.is_being_freed() || (llm && world.takes_scripts(gpu) && !world.is_lent(gpu) && for_batch())
}

/// What it would take now.
fn accepts(
    world: &World,
    gpu: &Gpu,
    (worker, of_llm): (Option<&Worker>, Option<&Worker>),
    state: GpuState,
    units: &[&Unit],
    has_slot: bool,
    llms: bool,
) -> Vec<TaskClass> {
    let serves = |worker: Option<&Worker>| worker.is_some_and(Worker::serves);
    if !serves(worker) || !serves(of_llm) || !gpu.is_usable() || world.down.is_some() {
        return Vec::new();
    }
    let engine = of_llm.and_then(|worker| worker.reports.engine.as_ref());
    let parallel = engine.map_or(1, |engine| engine.parallel.max(1));
    let requests = units.iter().filter(|unit| unit.class() == TaskClass::Llm).count();
    let mut takes = Vec::new();
    match state {
        GpuState::Idle => {
            if llms {
                takes.push(TaskClass::Llm);
            }
            if world.takes_scripts(gpu) {
                takes.push(TaskClass::Script);
            }
        }
        GpuState::BootingScript | GpuState::ScriptBusy if has_slot => takes.push(TaskClass::Script),
        GpuState::LlmReady | GpuState::LlmBusy => {
            if llms && requests < parallel as usize {
                takes.push(TaskClass::Llm);
            }
            if world.config.resource_manager.colocate_scripts && has_slot {
                takes.push(TaskClass::Script);
            }
        }
        _ => {}
    }
    takes
}

fn cpu_picture(world: &World, moment: Moment) -> CpuPicture {
    let worker = world.cpu_worker();
    let mut units: Vec<&Unit> = worker
        .map(|worker| world.units_on(worker).filter(|unit| unit.is_live()).collect())
        .unwrap_or_default();
    units.sort_by_key(|unit| unit.ordered_at);
    CpuPicture {
        capacity: world.cpu_slots(),
        slots: units.iter().filter_map(|unit| Some(slot(world, worker?, unit, moment))).collect(),
        worker_pid: worker_pid(worker),
    }
}

fn queues(world: &World, moment: Moment, heads: &[(TaskId, Reason)]) -> BTreeMap<TaskClass, QueuePicture> {
    let entry_of = |task_id, class| world.queue.by_id(task_id).find(|entry| entry.class == class);
    let head_of = |class| heads.iter().find_map(|(task_id, _)| entry_of(task_id, class));
    let wanted: Vec<&Entry> = TaskClass::ALL.into_iter().filter_map(head_of).collect();
    let starts = forecast::starts(world, moment.now, &wanted);
    TaskClass::ALL
        .into_iter()
        .map(|class| {
            let count = |priority: Priority| world.queue.in_folder((class, priority));
            let head = head_of(class).and_then(|entry| {
                let item = world.queue.get(entry)?;
                Some(HeadPicture {
                    task_id: item.task.task_id.clone(),
                    reason: reason_of(world, moment.now, item).told(),
                    eta: starts.get(entry).map(|at| moment.of(*at)),
                })
            });
            let by_priority =
                Priority::ALL.into_iter().map(|priority| (priority.to_string(), count(priority))).collect();
            let waiting = Priority::ALL.into_iter().map(count).sum();
            (class, QueuePicture { waiting, by_priority, head })
        })
        .collect()
}

fn batch_picture(world: &World, batch: &Batch, moment: Moment) -> BatchPicture {
    let threshold = world.config.resource_manager.batch_settings.auto_exclusive_threshold;
    let facts = &batch.facts;
    let eta = world.batch_ends_at(batch, moment.now);
    BatchPicture {
        script: facts.script.clone(),
        gpu_mode: batch.facts.mode(threshold),
        total_items: facts.total,
        completed: facts.completed,
        failed: facts.failed,
        paused: facts.paused,
        gpus: world.gpus_of_batch(&facts.batch_id),
        eta: eta.map(|at| moment.of(at)),
    }
}

/// What was decided lately.
fn said(world: &World, moment: Moment) -> Vec<SaidPicture> {
    let first = world.said.len().saturating_sub(SAID_SHOWN);
    let shown = world.said.iter().skip(first).map(|said| SaidPicture {
        at: moment.of(said.at),
        gpu: said.saying.gpu().map(str::to_owned),
        text: said.saying.to_string(),
        warning: said.saying.is_warning(),
    });
    shown.collect()
}

impl World {
    /// Keys of the GPUs that run items of a batch.
    fn gpus_of_batch(&self, batch: &BatchId) -> Vec<String> {
        let gpus = self.units_of_batch(batch).flat_map(|unit| {
            let beside = unit.beside.iter().filter_map(|uuid| self.gpus.get(uuid));
            self.gpu_of(&unit.worker).into_iter().chain(beside)
        });
        let gpus: BTreeMap<u32, String> = gpus.map(|gpu| (gpu.facts.index, gpu.key())).collect();
        gpus.into_values().collect()
    }
}

/// Things a person should look at.
fn notices(world: &World) -> Vec<String> {
    let mut notices = Vec::new();
    if let Some(wanted) = world.config.resource_manager.gpu_count.set()
        && world.inventory.is_some()
        && *wanted as usize != world.gpus.len()
    {
        notices
            .push(format!("config.json expects {wanted} GPUs (`gpu_count`), {} are here", world.gpus.len()));
    }
    for (lane, launching) in &world.launching {
        if let Some(message) = launching.message.as_ref().filter(|_| launching.failures > 0) {
            let lane = lane.as_ref().map_or("the CPU lane".into(), |uuid| format!("GPU `{uuid}`"));
            notices.push(format!("the worker of {lane} is being started again: {message}"));
        }
    }
    let reading: Vec<&str> = world.loading_models().into_iter().collect();
    for (gpu, model) in world.waiting_for_the_disk() {
        let (key, reading) = (gpu.key(), reading.join("`, `"));
        notices.push(format!("GPU {key} waits to load `{model}`: `{reading}` is being read from the disk (`cold_loads_per_disk`)"));
    }
    if let Some(gpu) = world.lent.as_ref().and_then(|uuid| world.gpus.get(uuid)) {
        notices.push(format!("GPU {} is lent to chatbots; it goes back to its batch after them", gpu.key()));
    }
    for gpu in world.gpus.values() {
        for (model, failure) in &gpu.boot_failures {
            let (key, count, error) = (gpu.key(), failure.count, &failure.error);
            notices.push(format!("`{model}` failed to load on GPU {key} ({count} times): {error}"));
        }
    }
    notices
}
