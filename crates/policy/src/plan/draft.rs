//! The plan as it grows: what was decided so far, and what that leaves of each GPU.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use model::learned::Grants;
use model::link::{EngineOrder, HostOrder, StopWhy};
use model::task::GpuRequirement;
use model::{AttemptKey, Entry, GpuState, GpuUuid, Millis, Reason, Saying, Task, TaskId, WorkerId};

use super::hold::Hold;
use super::ram::Guard;
use super::scripts::Seeker;
use super::wide::{self, Reserved};
use crate::action::{Action, Plan};
use crate::exclusive::Exclusive;
use crate::gpu::Gpu;
use crate::model_choice::Choice;
use crate::queue::Line;
use crate::room::{Holder, Room};
use crate::shape::Shape;
use crate::worker::{Llm, Worker};
use crate::world::World;

/// A plan in the making.
pub(super) struct Draft<'w> {
    pub world: &'w World,
    pub now: Millis,
    pub desks: Vec<Desk<'w>>,
    pub exclusive: Option<Exclusive<'w>>,
    /// Queued tasks that an action of this plan is about.
    pub spoken_for: BTreeSet<&'w Entry>,
    /// Whether something has the single lock, or this plan starts it.
    pub locked: bool,
    /// The first chatbot that waits for the single lock alone.
    pub locked_out: Option<(&'w Shape, &'w Task)>,
    /// Busy LLMs that get no further requests, so that scripts get their room.
    pub drained: u64,
    /// What the job types were granted, this plan's starts included: on the GPUs, and in the CPU lane.
    grants: [Grants; 2],
    /// The largest need, in MiB, that a script that waits has stated.
    pub largest_waiting: Option<u64>,
    /// What is left of the machine's memory.
    pub ram: Guard,
    /// Whether scripts of more than one shape wait, or LLM tasks beside them: only then can one be in another's way.
    pub is_mixed: bool,
    /// The lines to look at.
    pub front: Rc<[(&'w Shape, &'w Line)]>,
    /// The task that some desks are kept for, as it needs several.
    pub reserved: Option<Reserved<'w>>,
    actions: Vec<Action>,
    wake_at: Option<Millis>,
    heads: Vec<(TaskId, Reason)>,
    stopping: BTreeSet<AttemptKey>,
}

/// A usable GPU with a worker that obeys, and what this plan has left of it.
pub(super) struct Desk<'w> {
    pub gpu: &'w Gpu,
    pub worker: &'w Worker,
    pub state: GpuState,
    /// Units that live, and starts under way.
    pub load: usize,
    /// The LLM that is loaded or loads.
    pub llm: Option<DeskLlm<'w>>,
    /// Requests that a booting or coming LLM will take, and that need no further boot.
    pub cover: u64,
    /// What this plan has decided to boot here, now or when it has cooled.
    pub promised: Option<Choice>,
    /// Whether this plan has decided about it: nothing else is placed here.
    pub taken: bool,
    /// For tasks of which shape an LLM made room here.
    pub kept_for: Option<&'w Shape>,
    /// Its memory: what holds some of it, what was decided included.
    pub room: Room<'w>,
    /// How long its script units should take all together, for orders ahead; none where it has other units.
    pub work: Option<Millis>,
    /// What of a higher rank waits for it.
    pub hold: Option<Hold>,
    /// Whether it is kept for a task that needs several.
    pub reserved: bool,
    /// When the scripts that run here, or are about to, should end; found when first asked for.
    pub ends: OnceCell<Vec<(Millis, Holder<'w>)>>,
    /// Scripts that this plan starts here, and when they should end.
    pub starts: Vec<(Millis, Holder<'w>)>,
    /// Until when what is on its way out is waited for; none where nothing is.
    freed_by: Option<Millis>,
    /// Whether that took too long.
    is_stuck: bool,
    /// Where its order of hosts stands among the actions of this plan.
    hosts_order: Option<usize>,
}

/// How long room that is being freed is waited for, before those it was meant for look elsewhere.
const FREED_WITHIN: Millis = Millis::from_secs(60);

/// The LLM of a desk, or the one of another desk that is spread to it.
pub(super) struct DeskLlm<'w> {
    /// Whose it is: the worker of its first GPU.
    pub worker: &'w Worker,
    /// Whether that is this desk's. It alone serves requests.
    pub leads: bool,
    pub preset: &'w str,
    pub model: &'w str,
    pub parallel: u32,
    pub ready: bool,
    pub free: u32,
}

impl<'w> DeskLlm<'w> {
    /// The LLM of a worker, which has so many requests; where it is spread to from another GPU, it has no slots.
    fn of(worker: &'w Worker, leads: bool, requests: usize) -> Option<Self> {
        let (preset, model, parallel, ready) = match worker.llm()? {
            Llm::Ready { report } => (&report.preset, &report.model, report.parallel.max(1), true),
            Llm::Booting { order } => (&order.preset, &order.model, order.parallel.max(1), false),
            Llm::Failed { .. } | Llm::Unloading => return None,
        };
        let slots = if ready && leads { parallel } else { 0 };
        let free = slots.saturating_sub(u32::try_from(requests).unwrap_or(u32::MAX));
        Some(Self { worker, leads, preset, model, parallel, ready, free })
    }
}

impl<'w> Draft<'w> {
    pub(super) fn new(world: &'w World, now: Millis) -> Self {
        let mut draft = Self {
            world,
            now,
            desks: Vec::new(),
            exclusive: world.exclusive(now),
            spoken_for: BTreeSet::new(),
            locked: world.lock_holder().is_some(),
            locked_out: None,
            drained: 0,
            grants: [false, true].map(|in_cpu_lane| world.grants(in_cpu_lane).clone()),
            largest_waiting: None,
            ram: Guard::default(),
            is_mixed: false,
            front: world.queue.front().collect(),
            reserved: None,
            actions: Vec::new(),
            wake_at: None,
            heads: Vec::new(),
            stopping: BTreeSet::new(),
        };
        for gpu in world.gpus.values() {
            if let Some(end) = gpu.cooled_at() {
                draft.wake(end);
            }
            if let Some(kept) = &gpu.kept_for {
                draft.wake(kept.until);
            }
            let Some(worker) = world.worker_on(gpu).filter(|worker| gpu.is_usable() && worker.serves())
            else {
                continue;
            };
            match worker.again_at {
                Some(time) if time > now => draft.wake(time),
                _ => draft.desks.push(Desk::new(world, gpu, worker, now)),
            }
        }
        draft.desks.sort_by_key(|desk| (desk.gpu.health, desk.gpu.facts.index));
        draft.share_loads();
        let freed_by: Vec<Millis> = draft.desks.iter().filter_map(|desk| desk.freed_by).collect();
        for time in freed_by {
            draft.wake(time);
        }
        draft.look_at_needs();
        if let Some(due) = world.queue.next_due(now) {
            draft.wake(due);
        }
        wide::take_over(&mut draft);
        draft
    }

    fn look_at_needs(&mut self) {
        let mut kinds = 0_usize;
        for (shape, _) in self.front.clone().iter().filter(|(shape, _)| !shape.in_cpu_lane()) {
            kinds += 1;
            if shape.host().is_some() {
                self.largest_waiting = self.largest_waiting.max(shape.needs.vram_mib);
            }
        }
        self.is_mixed = kinds > 1;
    }

    /// Time alone changes the answer at this instant.
    pub(super) fn wake(&mut self, at: Millis) {
        if at > self.now {
            self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
        }
    }

    /// Whether the time has come; wakes then if not.
    pub(super) fn is_time(&mut self, at: Millis) -> bool {
        self.wake(at);
        at <= self.now
    }

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Says a sentence into log and journal.
    pub(super) fn say(&mut self, saying: Saying) {
        self.act(Action::Say(saying));
    }

    pub(super) fn head(&mut self, task_id: TaskId, reason: Reason) {
        self.heads.push((task_id, reason));
    }

    /// What the job types were granted, this plan's starts included.
    pub(super) const fn grants(&self, in_cpu_lane: bool) -> &Grants {
        if in_cpu_lane { &self.grants[1] } else { &self.grants[0] }
    }

    /// Orders a stop, once.
    pub(super) fn stop(&mut self, worker: &WorkerId, key: &AttemptKey, why: StopWhy) {
        if self.stopping.insert(key.clone()) {
            self.act(Action::Stop { worker: worker.clone(), key: key.clone(), why });
        }
    }

    /// Whether this plan stops it.
    pub(super) fn is_stopping(&self, key: &AttemptKey) -> bool {
        self.stopping.contains(key)
    }

    /// Starts a queued task.
    pub(super) fn start(&mut self, entry: &'w Entry, worker: &WorkerId, task: &Task) {
        self.start_on(entry, worker, task, Vec::new());
    }

    /// Starts a queued task that has these GPUs for itself.
    pub(super) fn start_on(&mut self, entry: &'w Entry, worker: &WorkerId, task: &Task, gpus: Vec<GpuUuid>) {
        let mut task = Box::new(task.clone());
        task.attempt += 1;
        task.charged += 1;
        self.spoken_for.insert(entry);
        let on_a_gpu = self.world.workers.get(worker).is_some_and(|worker| worker.gpu.is_some());
        self.locked |= on_a_gpu && self.world.has_single_lock();
        let grants = &mut self.grants[usize::from(task.gpu == GpuRequirement::None)];
        self.world.turns.grant(grants, &task.job_type);
        self.act(Action::Start { entry: entry.clone(), worker: worker.clone(), task, gpus });
    }

    /// Orders an LLM, or none, on a desk and on all others of the one that is there, and nothing else.
    pub(super) fn order_engine(&mut self, desk: usize, engine: Option<EngineOrder>) {
        self.take(desk);
        let desk = &self.desks[desk];
        let worker = desk.llm.as_ref().map_or(desk.worker, |llm| llm.worker).id.clone();
        self.act(Action::Engine { worker, engine });
    }

    /// Lets the hosts stay on a desk that its ledger keeps: one order a plan.
    pub(super) fn order_hosts(&mut self, desk: usize) {
        let found = &mut self.desks[desk];
        let kept = found.room.lines.iter().filter(|line| line.kept > 0);
        let hosts = kept.filter_map(|line| match line.who {
            Holder::Host(script, model) => Some(HostOrder {
                script: script.to_owned(),
                model: model.map(str::to_owned),
                count: line.kept,
            }),
            Holder::Llm(_) | Holder::Once(..) => None,
        });
        let hosts: Vec<HostOrder> = hosts.collect();
        // What its orders say already is not said again: the plan would never come to rest.
        if found.hosts_order.is_none() && hosts == found.worker.hosts {
            return;
        }
        let action = Action::Hosts { worker: found.worker.id.clone(), hosts };
        match found.hosts_order {
            Some(at) => self.actions[at] = action,
            None => {
                found.hosts_order = Some(self.actions.len());
                self.actions.push(action);
            }
        }
    }

    /// Lets no idle host stay on a desk.
    pub(super) fn clear_hosts(&mut self, desk: usize) {
        for line in &mut self.desks[desk].room.lines {
            if matches!(line.who, Holder::Host(..)) {
                line.leaving += line.kept.saturating_sub(line.units);
                line.kept = line.kept.min(line.units);
            }
        }
        self.order_hosts(desk);
    }

    /// Until when the LLM of a desk stays at least.
    pub(super) fn settled_at(&self, at: usize) -> Millis {
        let desk = &self.desks[at];
        let lead = desk.llm.as_ref().map_or(desk.worker, |llm| llm.worker);
        let gpu = self.world.gpu_of(&lead.id).unwrap_or(desk.gpu);
        self.world.settled_at(gpu, lead, self.now)
    }

    pub(super) fn finish(self) -> Plan {
        Plan { actions: self.actions, wake_at: self.wake_at, heads: self.heads }
    }
}

impl<'w> Desk<'w> {
    fn new(world: &'w World, gpu: &'w Gpu, worker: &'w Worker, now: Millis) -> Self {
        let live = world.units_on(worker).filter(|unit| unit.is_live());
        let (live, requests) = live.fold((0, 0), |(live, requests), unit| {
            (live + 1, requests + usize::from(unit.shape.host().is_none()))
        });
        let claims = worker.claims.iter().filter_map(|entry| world.claims.get(entry));
        let requests = requests + claims.filter(|claim| claim.queued.shape.host().is_none()).count();
        let lead = world.llm_worker(gpu).unwrap_or(worker);
        let leads = lead.id == worker.id;
        // Where its lead obeys nobody, the LLM that is spread here goes with that one, or not at all.
        let obeys = lead.serves() && lead.again_at.is_none_or(|time| time <= now);
        let usable = obeys && world.gpu_of(&lead.id).is_some_and(Gpu::is_usable);
        let taken = !leads && !usable;
        let load = live + worker.claims.len();
        let llm = DeskLlm::of(lead, leads, requests);
        let cover =
            llm.as_ref().filter(|llm| !llm.ready && llm.leads).map_or(0, |llm| u64::from(llm.parallel));
        let state = gpu.state_at(now).0;
        let room = Room::of(world, gpu, Some(worker));
        let freed_by = freed_by(gpu, worker, state, &room);
        Self {
            gpu,
            worker,
            state,
            load,
            llm,
            cover,
            promised: None,
            taken,
            kept_for: kept_for(world, gpu, now),
            work: work(world, gpu, worker),
            room,
            hold: None,
            reserved: false,
            ends: OnceCell::new(),
            starts: Vec::new(),
            freed_by: freed_by.filter(|time| *time > now),
            is_stuck: freed_by.is_some_and(|time| time <= now),
            hosts_order: None,
        }
    }

    /// Whether scripts may start here now as far as its state goes; their memory is another question.
    pub(super) fn is_open(&self, draft: &Draft<'_>) -> bool {
        let colocates = draft.world.config.resource_manager.colocate_scripts;
        !self.taken
            && match self.state {
                GpuState::Idle | GpuState::BootingScript | GpuState::ScriptBusy => self.llm.is_none(),
                GpuState::LlmReady | GpuState::LlmBusy => {
                    colocates && self.llm.as_ref().is_some_and(|llm| llm.ready)
                }
                GpuState::BootingLlm | GpuState::Cooling => false,
            }
    }

    /// Whether something leaves it, and no LLM is meant to stay; one that is ready may where scripts run beside it.
    pub(super) fn frees_soon(&self, colocates: bool) -> bool {
        let leaves = self.state == GpuState::Cooling || self.freed_by.is_some();
        let shares = self.llm.as_ref().is_none_or(|llm| colocates && llm.ready);
        leaves && !self.is_stuck && !self.taken && shares
    }

    /// What it is held for goes on having the rest.
    pub(super) fn spend(&mut self, seeker: &Seeker<'_>) {
        if let (Some(hold), Some(mib)) = (&mut self.hold, seeker.need.counted) {
            hold.spare = hold.spare.saturating_sub(mib);
        }
    }

    /// The LLM that is here, or will be: preset, model, requests at once.
    pub(super) fn serves(&self) -> Option<(&str, &str, u32)> {
        match (&self.promised, &self.llm) {
            (Some(choice), _) => Some((&choice.preset, &choice.model, choice.parallel)),
            (None, Some(llm)) if !self.taken && llm.leads => Some((llm.preset, llm.model, llm.parallel)),
            _ => None,
        }
    }

    /// Whether its room was made for tasks of another shape; `None` is what no task asks for.
    pub(super) fn is_kept_from(&self, shape: Option<&Shape>) -> bool {
        self.kept_for.is_some_and(|kept| shape != Some(kept))
    }

    /// Whether nothing is loaded that matters, nothing runs and nothing was decided.
    pub(super) fn is_idle(&self) -> bool {
        self.state == GpuState::Idle && self.load == 0 && !self.taken && self.llm.is_none()
    }

    /// Whether it is on its way to idle, for nobody in particular.
    pub(super) fn is_coming(&self) -> bool {
        self.state == GpuState::Cooling && self.load == 0 && !self.taken && !self.is_stuck
    }

    /// Whether an LLM is loaded and runs nothing.
    pub(super) fn is_idle_llm(&self) -> bool {
        self.llm.as_ref().is_some_and(|llm| llm.ready) && self.load == 0 && !self.taken
    }

    /// Whether its LLM is that of this worker, or is spread to it from there.
    pub(super) fn has_llm_of(&self, lead: &WorkerId) -> bool {
        self.llm.as_ref().is_some_and(|llm| llm.worker.id == *lead)
    }

    /// Whether a host is loaded.
    pub(super) fn has_resident(&self) -> bool {
        self.worker.residents().next().is_some()
    }
}

/// Until when what is on its way out of a GPU is waited for; none where nothing is.
fn freed_by(gpu: &Gpu, worker: &Worker, state: GpuState, room: &Room<'_>) -> Option<Millis> {
    let leaves = room.lines.iter().any(|line| line.leaving > 0);
    let since = match state {
        GpuState::Cooling if gpu.freed_at.is_none() => gpu.since,
        _ if leaves => worker.hosts_at.max(worker.engine_at),
        _ => return None,
    };
    Some(since + FREED_WITHIN)
}

/// How long the script units of a worker should take all together; none where it has others, or scripts of two kinds.
fn work(world: &World, gpu: &Gpu, worker: &Worker) -> Option<Millis> {
    let units = world.units_on(worker).filter(|unit| unit.is_live()).map(|unit| (&unit.shape, &unit.task));
    let claims = worker.claims.iter().filter_map(|entry| world.claims.get(entry));
    let claims = claims.map(|claim| (&claim.queued.shape, &claim.task));
    let mut sum = Millis::ZERO;
    let mut host = None;
    for (shape, task) in units.chain(claims) {
        let key = shape.host()?;
        if host.is_some_and(|host| host != key) {
            return None;
        }
        host = Some(key);
        let estimate = world.memory.run(&world.config, task, None, Some(&gpu.facts.name));
        sum = sum + estimate.p50.max(Millis(1));
    }
    Some(sum)
}

/// The shape of the task that room was made for, as long as it waits and it is not too late.
fn kept_for<'w>(world: &'w World, gpu: &Gpu, now: Millis) -> Option<&'w Shape> {
    let kept = gpu.kept_for.as_ref().filter(|kept| now < kept.until)?;
    let entry = world.queue.by_id(&kept.task_id).next()?;
    world.queue.get(entry).map(|item| &item.shape)
}
