//! The ledger of a GPU's memory: what holds some of it, and what still fits beside that.
//!
//! A unit that has a GPU for itself needs only its own memory and what programs of others hold; as soon as it shares,
//! `vram_headroom_mb` stays free as well. What is not known to need so much never shares. A start counts from the
//! moment it was decided, whether or not it has allocated anything yet. Not here: which GPU is taken (`plan::scripts`).

use model::config::{ModelEntry, VramAccounting};
use model::gpu::Reading;
use model::link::{HostOrder, HostReport, HostState};
use model::task::Script;

use crate::gpu::Gpu;
use crate::place;
use crate::shape::{HostKey, Shape, What};
use crate::worker::{Llm, Worker};
use crate::world::World;

/// What holds memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder<'w> {
    /// An LLM.
    Llm(&'w str),
    /// Hosts of a script and its model, which stay between tasks.
    Host(&'w str, Option<&'w str>),
    /// Processes of a script that live as long as their task.
    Once(&'w Script, Option<&'w str>),
}

impl<'w> Holder<'w> {
    /// The holder that a unit of this key is part of.
    pub(crate) fn of(key: &'w HostKey) -> Self {
        match &key.script {
            Script::Registered(name) if key.warm => Self::Host(name, key.model.as_deref()),
            script => Self::Once(script, key.model.as_deref()),
        }
    }
}

/// What one unit of a shape needs, in MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Need {
    /// What was stated of it: it does not even run alone where less is there.
    pub stated: Option<u64>,
    /// What it is counted with beside others: what was stated, or measured if that is more; none while nobody knows.
    pub counted: Option<u64>,
}

/// One kind of holder and how many there are.
#[derive(Clone, Debug)]
pub(crate) struct Line<'w> {
    /// Which.
    pub who: Holder<'w>,
    /// What each of them is counted with, in MiB.
    pub each: Option<u64>,
    /// Those that may stay: hosts by the orders, an LLM that is ordered.
    pub kept: u32,
    /// Hosts of these that are loaded.
    pub loaded: u32,
    /// Hosts that are seen to run a task.
    pub busy: u32,
    /// Those on their way out, whose memory is not free yet.
    pub leaving: u32,
    /// Units, those that were only ordered included.
    pub units: u32,
    /// Room that was promised to what waits for somebody else to leave.
    pub promised: u32,
    /// Whether one of its units is not known to need so much: `each` says nothing then.
    pub unknown: bool,
}

/// At which moment room is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// As things are.
    Now,
    /// When what is on its way out has gone.
    Soon,
    /// When idle hosts have gone as well.
    Cleared,
}

impl<'w> Line<'w> {
    pub(crate) const fn new(who: Holder<'w>, each: Option<u64>) -> Self {
        Self { who, each, kept: 0, loaded: 0, busy: 0, leaving: 0, units: 0, promised: 0, unknown: false }
    }

    /// How many of them hold memory then.
    fn held(&self, when: When) -> u32 {
        let stays = match (self.who, when) {
            (Holder::Once(..), _) => self.units,
            (Holder::Llm(_), _) => self.kept,
            // Orders given ahead wait for the same host: only those that may stay hold memory.
            (Holder::Host(..), When::Now | When::Soon) => self.kept.max(self.units.min(1)).max(self.busy),
            (Holder::Host(..), When::Cleared) => self.units.min(self.kept.max(1)).max(self.busy),
        };
        let goes = if when == When::Now { self.leaving } else { 0 };
        stays + goes + self.promised
    }

    /// What each is counted with; none where nobody knows.
    fn known(&self) -> Option<u64> {
        self.each.filter(|_| !self.unknown)
    }

    /// One more unit of this need.
    pub(crate) fn takes(&mut self, counted: Option<u64>) {
        self.each = self.each.max(counted);
        self.unknown |= counted.is_none();
    }

    /// One more unit; one that no host waits for brings its own, beside those that are there. True where more may stay.
    pub(crate) fn grow(&mut self, brings_a_host: bool) -> bool {
        let there = self.kept.max(self.units.min(1)).max(self.busy);
        self.units += 1;
        let more = brings_a_host && self.units > self.kept;
        if more {
            self.kept = (there + 1).min(self.units);
        }
        more
    }

    /// Hosts that wait for a task.
    pub(crate) const fn idle(&self) -> u32 {
        self.kept.saturating_sub(self.units)
    }
}

/// The memory of one GPU.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room<'w> {
    /// All of it, in MiB; none where nobody could read it.
    total: Option<u64>,
    /// What those who share it leave free.
    headroom: u64,
    /// What programs of others hold.
    foreign: u64,
    /// What holds the rest.
    pub lines: Vec<Line<'w>>,
    /// Whether a unit of several GPUs has this one: nothing fits beside it.
    whole: bool,
}

/// What is left after one more unit, in MiB; none where the memory of the GPU, or the need, is not known.
pub(crate) type Leftover = Option<u64>;

impl<'w> Room<'w> {
    /// The ledger of a GPU and its worker.
    pub(crate) fn of(world: &'w World, gpu: &Gpu, worker: Option<&'w Worker>) -> Self {
        let mut room = worker.map(|worker| holders(world, worker)).unwrap_or_default();
        room.total = gpu.facts.total_mib;
        room.headroom = world.config.resource_manager.vram_headroom_mb;
        room.foreign = room.foreign_mib(world, gpu, worker);
        room
    }

    /// What programs of others hold: as it was read, less what is ours. Where a process of ours cannot be told from
    /// theirs, what is read beyond our own ledger counts as theirs, so that free memory is never more than was
    /// measured, and never more than the ledger leaves.
    fn foreign_mib(&self, world: &World, gpu: &Gpu, worker: Option<&Worker>) -> u64 {
        if world.config.resource_manager.vram_accounting == VramAccounting::Declared {
            return 0;
        }
        let before = gpu.foreign_mib.unwrap_or(0);
        // A reading from before something left still counts what has gone.
        let Some(reading) = gpu.reading.as_ref().filter(|_| gpu.read_at > gpu.shrunk_at) else {
            return before;
        };
        let Some(used) = reading.used_mib else { return before };
        let hosts_only = self.lines.iter().all(|line| matches!(line.who, Holder::Host(..)));
        let hosts = worker.map_or(&[][..], |worker| worker.reports.hosts.as_slice());
        if let Some(ours) = ours_mib(reading, hosts).filter(|_| hosts_only) {
            return used.saturating_sub(ours);
        }
        match self.sum(When::Now) {
            Some(ledger) => before.max(used.saturating_sub(ledger)),
            None => before,
        }
    }

    /// What the ledger counts; none where a holder's need is not known.
    fn sum(&self, when: When) -> Option<u64> {
        let held = self.lines.iter().filter(|line| line.held(when) > 0);
        held.map(|line| Some(line.known()?.saturating_mul(u64::from(line.held(when))))).sum()
    }

    /// The same, as if its worker had been ordered to keep these hosts.
    #[must_use]
    pub(crate) fn with_hosts(mut self, world: &World, hosts: &'w [HostOrder]) -> Self {
        for line in self.lines.iter_mut().filter(|line| matches!(line.who, Holder::Host(..))) {
            line.kept = 0;
        }
        for order in hosts {
            let who = Holder::Host(&order.script, order.model.as_deref());
            let each = world.host_mib(&order.script, order.model.as_deref());
            self.line_mut(who, each).kept += order.count;
        }
        self
    }

    /// Whether what stays is more than there is: all of it for one, all but the headroom for several.
    pub(crate) fn is_overdrawn(&self) -> bool {
        let units: u32 = self.lines.iter().map(|line| line.held(When::Soon)).sum();
        let (Some(total), true) = (self.total, units > 1) else { return false };
        let taken = |sum: u64| sum.saturating_add(self.foreign).saturating_add(self.headroom);
        self.sum(When::Soon).is_none_or(|sum| taken(sum) > total)
    }

    /// The line of a holder.
    pub(crate) fn line(&self, who: Holder<'_>) -> Option<&Line<'w>> {
        self.lines.iter().find(|line| line.who == who)
    }

    /// The line of a holder, made if it is not there.
    pub(crate) fn line_mut(&mut self, who: Holder<'w>, each: Option<u64>) -> &mut Line<'w> {
        let at = self.lines.iter().position(|line| line.who == who).unwrap_or_else(|| {
            self.lines.push(Line::new(who, each));
            self.lines.len() - 1
        });
        let line = &mut self.lines[at];
        line.each = line.each.max(each);
        line
    }

    /// Whether nothing holds any of it then.
    pub(crate) fn is_empty(&self, when: When) -> bool {
        self.lines.iter().all(|line| line.held(when) == 0)
    }

    /// Whether one more unit of this kind fits then, and what that leaves.
    pub(crate) fn leftover(&self, when: When, who: Holder<'_>, need: Need) -> Option<Leftover> {
        if self.whole {
            return None;
        }
        let (mut count, mut sum, mut known) = (0_u32, Some(0_u64), false);
        for line in &self.lines {
            let mut held = line.held(when);
            let mut each = line.known();
            if line.who == who {
                known = true;
                // A host that waits for a task is one more place without one more host.
                let takes_idle = matches!(who, Holder::Host(..)) && when != When::Cleared && line.idle() > 0;
                held += u32::from(!takes_idle);
                let known = need.counted.filter(|_| !line.unknown);
                each = known.max(each.filter(|_| known.is_some()));
            }
            if held > 0 {
                count += held;
                sum =
                    sum.zip(each).map(|(sum, each)| sum.saturating_add(each.saturating_mul(u64::from(held))));
            }
        }
        if !known {
            count += 1;
            sum = sum.zip(need.counted).map(|(sum, need)| sum.saturating_add(need));
        }
        let Some(total) = self.total else { return (count <= 1).then_some(None) };
        if count <= 1 {
            let taken = |mib: u64| mib.saturating_add(self.foreign);
            let fits = need.stated.is_none_or(|mib| taken(mib) <= total);
            return fits.then(|| need.counted.and_then(|mib| total.checked_sub(taken(mib))));
        }
        let taken = sum?.saturating_add(self.foreign).saturating_add(self.headroom);
        total.checked_sub(taken).map(Some)
    }

    /// What is left for somebody else of what one unit leaves: if that unit has the GPU for itself, sharing costs the
    /// headroom.
    pub(crate) fn shared(&self, left: u64) -> u64 {
        let alone = self.lines.iter().all(|line| line.held(When::Cleared) == 0);
        if alone { left.saturating_sub(self.headroom) } else { left }
    }

    /// How many units fit here at once if all that come have this need.
    fn slots_and_others(&self, who: Holder<'_>, need: Need) -> Option<u32> {
        let others: u32 = self.lines.iter().filter(|line| line.who != who).map(|line| line.units).sum();
        Some(self.slots(who, need)?.saturating_add(others))
    }

    /// How many units of this kind and need fit here at once, those that run included; none where nobody can say.
    pub(crate) fn slots(&self, who: Holder<'_>, need: Need) -> Option<u32> {
        let others = self.lines.iter().filter(|line| line.who != who);
        let (mut count, mut resident) = (0_u32, Some(0_u64));
        for line in others {
            let held = line.held(When::Cleared);
            if held > 0 {
                count += held;
                resident =
                    resident.zip(line.known()).map(|(sum, mib)| sum + mib.saturating_mul(u64::from(held)));
            }
        }
        let alone = u32::from(count == 0);
        let (Some(total), Some(each)) = (self.total, need.counted.filter(|mib| *mib > 0)) else {
            return Some(alone);
        };
        let room = total.checked_sub(resident?.saturating_add(self.headroom).saturating_add(self.foreign));
        let slots = room.map_or(0, |room| u32::try_from(room / each).unwrap_or(u32::MAX));
        let fits = need.stated.is_none_or(|mib| mib.saturating_add(self.foreign) <= total);
        Some(slots.max(if fits { alone } else { 0 }))
    }
}

/// Memory of our hosts as it was read; none where one that is loaded is not among the processes read, as in a container
/// that counts processes anew.
fn ours_mib(reading: &Reading, hosts: &[HostReport]) -> Option<u64> {
    let mut ours = 0_u64;
    for host in hosts {
        let found = host.pid.and_then(|pid| reading.processes.iter().find(|(of, _)| *of == pid));
        match found {
            Some((_, mib)) => ours = ours.saturating_add((*mib)?),
            None if host.state == HostState::Booting => {}
            None => return None,
        }
    }
    Some(ours)
}

/// What holds memory on a worker's GPU.
fn holders<'w>(world: &'w World, worker: &'w Worker) -> Room<'w> {
    let mut room = Room::default();
    if worker.dead {
        return room;
    }
    let of_llm = worker.gpu.as_ref().and_then(|gpu| world.lead_over(gpu)).unwrap_or(worker);
    let model = of_llm.reports.engine.as_ref().map(|engine| engine.model.as_str());
    if let Some(model) = model.or(of_llm.engine.as_ref().map(|order| order.model.as_str())) {
        let line = room.line_mut(Holder::Llm(model), world.llm_mib(model));
        match of_llm.llm() {
            Some(Llm::Booting { .. } | Llm::Ready { .. }) => line.kept = 1,
            Some(Llm::Failed { .. } | Llm::Unloading) => line.leaving = 1,
            None => {}
        }
    }
    for order in &worker.hosts {
        let who = Holder::Host(&order.script, order.model.as_deref());
        room.line_mut(who, world.host_mib(&order.script, order.model.as_deref())).kept += order.count;
    }
    for (host, stays) in worker.hosts_and_whether_they_stay() {
        let who = Holder::Host(&host.script, host.model.as_deref());
        let line = room.line_mut(who, world.host_mib(&host.script, host.model.as_deref()));
        let busy = host.state == HostState::Busy;
        line.busy += u32::from(busy);
        line.leaving += u32::from(!stays && !busy);
        line.loaded += u32::from(stays && host.state != HostState::Booting);
    }
    let live = world.units_on(worker).filter(|unit| unit.is_live()).map(|unit| &unit.shape);
    let claims = worker.claims.iter().filter_map(|entry| world.claims.get(entry));
    for shape in live.chain(claims.map(|claim| &claim.queued.shape)) {
        if let What::Script(key) = &shape.what {
            let need = world.need(shape);
            let line = room.line_mut(Holder::of(key), need.counted);
            line.units += 1;
            line.takes(need.counted);
        }
        room.whole |= shape.is_wide();
    }
    room
}

impl World {
    /// What one unit of a shape needs.
    pub(crate) fn need(&self, shape: &Shape) -> Need {
        let stated = shape.needs.vram_mib;
        let What::Script(key) = &shape.what else { return Need { stated, counted: stated } };
        let manager = &self.config.resource_manager;
        let counted = match manager.vram_accounting {
            VramAccounting::Declared => {
                Some(stated.filter(|_| shape.vram_stated).unwrap_or(0).max(manager.vram_per_job_mb))
            }
            VramAccounting::Measured => {
                // A host that stays is the same process whatever a task says of itself.
                let of_host = match &key.script {
                    Script::Registered(name) if key.warm => self.host_mib(name, key.model.as_deref()),
                    script => self.memory.vram(script, key.model.as_deref()),
                };
                stated.max(of_host)
            }
        };
        Need { stated, counted }
    }

    /// What one host of a script is counted with.
    pub(crate) fn host_mib(&self, script: &str, model: Option<&str>) -> Option<u64> {
        let manager = &self.config.resource_manager;
        match manager.vram_accounting {
            VramAccounting::Declared => Some(manager.vram_per_job_mb),
            VramAccounting::Measured => {
                let stated = self.config.scripts.get(script).and_then(|entry| entry.vram_mib);
                stated.max(self.memory.vram_by_name(script, model))
            }
        }
    }

    /// What an LLM is counted with, on each of its GPUs.
    pub(crate) fn llm_mib(&self, model: &str) -> Option<u64> {
        self.config.models.get(model).and_then(ModelEntry::share_mib)
    }

    /// How many units of `vram_per_job_mb` a GPU has room for: what is said of it at the start.
    pub(crate) fn slots_declared(&self, gpu: &Gpu) -> u32 {
        let manager = &self.config.resource_manager;
        let room = gpu.facts.total_mib.map_or(0, |total| total.saturating_sub(manager.vram_headroom_mb));
        u32::try_from(room / manager.vram_per_job_mb.max(1)).unwrap_or(u32::MAX).max(1)
    }

    /// How many script units a GPU has room for at once, those that run included: of this shape, else of one that
    /// needs `vram_per_job_mb`. None where nobody can say.
    pub(crate) fn slots_max(&self, gpu: &Gpu, worker: Option<&Worker>, next: Option<&Shape>) -> Option<u32> {
        let colocates = self.config.resource_manager.colocate_scripts;
        if !self.takes_scripts(gpu) || (!colocates && worker.is_some_and(|worker| worker.llm().is_some())) {
            return Some(0);
        }
        let room = Room::of(self, gpu, worker);
        if room.whole {
            return Some(1);
        }
        let next = next.filter(|shape| place::fits(shape, &gpu.facts));
        match next.and_then(|shape| Some((shape, shape.host()?))) {
            Some((shape, key)) => room.slots_and_others(Holder::of(key), self.need(shape)),
            None => {
                let counted = Some(self.config.resource_manager.vram_per_job_mb);
                room.slots_and_others(Holder::Host("", None), Need { stated: None, counted })
            }
        }
    }

    /// How many units of this shape a GPU has room for once nothing else of ours is on it.
    pub(crate) fn slots_alone(&self, gpu: &Gpu, worker: Option<&Worker>, shape: &Shape) -> u32 {
        let Some(key) = shape.host() else { return 1 };
        let mut room = Room::of(self, gpu, worker);
        room.lines.clear();
        room.slots(Holder::of(key), self.need(shape)).unwrap_or(1).max(1)
    }

    /// Whether a task of this shape could start on this GPU as things are: memory only.
    pub(crate) fn has_room(&self, gpu: &Gpu, worker: Option<&Worker>, shape: &Shape) -> bool {
        let Some(key) = shape.host() else { return false };
        let room = Room::of(self, gpu, worker);
        place::fits(shape, &gpu.facts)
            && room.leftover(When::Now, Holder::of(key), self.need(shape)).is_some()
    }
}
