//! Facts about GPUs.

use model::config::VramAccounting;
use model::gpu::{Inventory, Ram, Reading};
use model::link::HostState;
use model::{AttemptKey, GpuUuid, Health, InventorySource, Millis, TaskId};

use crate::demand::HOURS;
use crate::gpu::Gpu;
use crate::place;
use crate::shape::Shape;
use crate::world::{OverItsNeed, World};

impl World {
    pub(super) fn inventory(&mut self, at: Millis, inventory: Inventory) {
        let before = self.slots_seen();
        for gpu in self.gpus.values_mut() {
            if !inventory.gpus.iter().any(|facts| facts.uuid == gpu.facts.uuid) {
                gpu.health = Health::Lost;
            }
        }
        for facts in inventory.gpus {
            match self.gpus.get_mut(&facts.uuid) {
                Some(gpu) => {
                    gpu.facts = facts;
                    if gpu.health == Health::Lost {
                        gpu.health = Health::Ok;
                    }
                }
                None => {
                    let cooling = Millis::from_secs_f64(self.config.timing.cooling_s);
                    self.gpus.insert(facts.uuid.clone(), Gpu::new(facts, cooling, at));
                }
            }
        }
        self.inventory = Some((inventory.source, inventory.why));
        if self.slots_seen() != before {
            self.slots_told = false;
            self.forget_larger_needs(at);
        }
    }

    /// What the number of slots depends on.
    fn slots_seen(&self) -> Vec<(GpuUuid, Option<u64>)> {
        let usable = self.gpus.values().filter(|gpu| gpu.is_usable());
        usable.map(|gpu| (gpu.facts.uuid.clone(), gpu.facts.total_mib)).collect()
    }

    pub(super) fn ram(&mut self, ram: Ram) {
        self.ram = Some(ram);
        if self.low_ram().is_none() {
            self.ram_wait = None;
        }
    }

    pub(super) fn hour(&mut self, at: Millis, hour: u8, left: Millis) {
        if usize::from(hour) >= HOURS {
            return self.anomaly("no_such_hour");
        }
        if let Some((over, counts, watched)) = self.demand.turn_hour(at, hour, left) {
            self.memory.hour_passed(over, counts, watched);
        }
    }

    pub(super) fn read(&mut self, at: Millis, reading: Reading) {
        let measured =
            self.inventory.as_ref().is_some_and(|(source, _)| *source == InventorySource::Measured);
        let Some(gpu) = self.gpus.get(&reading.uuid) else {
            self.anomaly("reading_of_unknown_gpu");
            return;
        };
        let empty = gpu.state == model::GpuState::Idle
            && self.worker_on(gpu).is_none_or(|worker| worker.reports.hosts.is_empty());
        let uuid = reading.uuid.clone();
        let Some(gpu) = self.gpus.get_mut(&uuid) else { return };
        let was_lost = gpu.health == Health::Lost;
        if reading.lost {
            gpu.health = Health::Lost;
        } else if was_lost {
            gpu.health = Health::Ok;
        }
        let came_or_went = was_lost != reading.lost;
        if measured && empty {
            gpu.foreign_mib = reading.used_mib;
        }
        gpu.reading = Some(reading);
        gpu.read_at = at;
        if came_or_went {
            self.slots_told = false;
            self.forget_larger_needs(at);
        }
        if measured {
            self.learn_memory(&uuid);
        }
    }

    /// A host that uses more than it is counted with counts by what was read, at once and for all that come after it.
    fn learn_memory(&mut self, uuid: &GpuUuid) {
        if self.config.resource_manager.vram_accounting == VramAccounting::Declared {
            return;
        }
        let Some(gpu) = self.gpus.get(uuid) else { return };
        let Some((worker, reading)) = self.worker_on(gpu).zip(gpu.reading.as_ref()) else { return };
        if self.units_on(worker).any(|unit| unit.shape.is_wide()) {
            return;
        }
        let key = gpu.key();
        let mut more: Vec<(String, Option<String>, u64)> = Vec::new();
        let mut over: Vec<(String, OverItsNeed)> = Vec::new();
        for host in worker.reports.hosts.iter().filter(|host| host.state != HostState::Unloading) {
            let found = host.pid.and_then(|pid| reading.processes.iter().find(|(of, _)| *of == pid));
            let Some(used) = found.and_then(|(_, mib)| *mib) else { continue };
            let known = self.host_mib(&host.script, host.model.as_deref());
            // Of one that nothing was stated of, what it uses counts once a task has run on it.
            let counts = match known {
                Some(known) => used > known,
                None => host.state == HostState::Busy,
            };
            if let Some(counted_mib) = known.filter(|known| used > *known) {
                let name = crate::learn::host_name(&host.script, host.model.as_deref());
                let gpu = key.clone();
                over.push((name, OverItsNeed { gpu, used_mib: used, counted_mib, said: false }));
            }
            if counts {
                more.push((host.script.clone(), host.model.clone(), used));
            }
        }
        for (script, model, mib) in more {
            self.memory.used(&script, model.as_deref(), mib);
        }
        for (name, over) in over {
            self.over_their_need.entry(name).or_insert(over);
        }
    }

    /// What the hosts of a task that has just ended use is remembered, so that a peak of long ago is forgotten in time.
    pub(super) fn learn_peak(&mut self, key: &AttemptKey) {
        let Some(unit) = self.units.get(key) else { return };
        let Some(host) = unit.shape.host().filter(|host| host.warm && !unit.shape.is_wide()) else { return };
        let Some(worker) = self.workers.get(&unit.worker) else { return };
        let reading = self.gpu_of(&unit.worker).and_then(|gpu| gpu.reading.as_ref());
        let hosts = worker.reports.hosts.iter().filter(|one| host.is(&one.script, one.model.as_deref()));
        let used = hosts.filter_map(|one| {
            let found = reading?.processes.iter().find(|(pid, _)| Some(*pid) == one.pid);
            found.and_then(|(_, mib)| *mib)
        });
        let measures = self.config.resource_manager.vram_accounting == VramAccounting::Measured;
        if let Some(peak) = used.max().filter(|_| measures) {
            let (script, model) = (host.name(), host.model.clone());
            self.memory.used(&script, model.as_deref(), peak);
        }
    }

    /// The GPUs where this script may run, whatever their size.
    fn script_gpus<'w>(&'w self, shape: &'w Shape) -> impl Iterator<Item = &'w Gpu> {
        let usable = self.gpus.values().filter(|gpu| gpu.is_usable() && self.takes_scripts(gpu));
        usable.filter(|gpu| place::is_wanted(shape, &gpu.facts))
    }

    /// Where the larger GPU has gone that a task should have had, a smaller one is tried again.
    fn forget_larger_needs(&mut self, at: Millis) {
        let unmet = |(task_id, mib): (&TaskId, &u64)| {
            let shape =
                self.queue.by_id(task_id).find_map(|entry| self.queue.get(entry)).map(|item| &item.shape)?;
            let is_there = self.script_gpus(shape).any(|gpu| gpu.facts.total_mib >= Some(*mib));
            (!is_there).then(|| task_id.clone())
        };
        let unmet: Vec<TaskId> = self.ran_out.iter().filter_map(unmet).collect();
        for task_id in unmet {
            self.ran_out.remove(&task_id);
            let entries: Vec<_> = self.queue.by_id(&task_id).cloned().collect();
            for entry in entries {
                if let Some(mut item) = self.queue.remove(&entry) {
                    item.shape = Shape::of(&item.task, &self.config);
                    self.queue.insert(entry, item, at);
                }
            }
        }
    }

    /// A script ran out of memory. Beside others it counts with a quarter more from now on; where it had the GPU for
    /// itself, this task needs a larger one, if there is any.
    pub(super) fn ran_out(&mut self, key: &AttemptKey) {
        let Some(unit) = self.units.get(key) else { return };
        // What runs on several GPUs tells nothing of what it needs on one.
        let Some(host) = unit.shape.host().filter(|_| !unit.shape.is_wide()) else { return };
        let Some(gpu) = self.gpu_of(&unit.worker) else { return };
        let Some(total) = gpu.facts.total_mib else { return };
        if self.config.resource_manager.vram_accounting == VramAccounting::Declared {
            return;
        }
        let worker = self.workers.get(&unit.worker);
        let shares = worker.is_some_and(|worker| {
            let beside = self.units_on(worker).filter(|other| other.is_live() && other.key != *key);
            beside.count() > 0 || worker.engine.is_some() || worker.reports.hosts.len() > 1
        });
        if shares && let Some(counted) = self.need(&unit.shape).counted {
            let raised = (counted + counted / 4).min(total);
            let (script, model) = (host.name(), host.model.clone());
            self.memory.used(&script, model.as_deref(), raised);
            return;
        }
        // It had what programs of others left it, and goes where they leave more, if that is anywhere.
        let need = gpu.foreign_mib.map_or(total, |foreign| total.saturating_sub(foreign)) + 1;
        let has_more = |gpu: &Gpu| match (gpu.facts.total_mib, gpu.foreign_mib) {
            (Some(total), foreign) => total >= need.saturating_add(foreign.unwrap_or_default()),
            (None, _) => false,
        };
        if self.script_gpus(&unit.shape).any(has_more) {
            self.ran_out.insert(key.task_id.clone(), need);
        }
    }
}
