//! Facts about GPUs.

use model::config::VramAccounting;
use model::gpu::{Inventory, Reading};
use model::link::HostState;
use model::{GpuUuid, Health, InventorySource, Millis};

use crate::demand::HOURS;
use crate::gpu::Gpu;
use crate::world::World;

impl World {
    pub(super) fn inventory(&mut self, at: Millis, inventory: Inventory) {
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
        if reading.lost {
            gpu.health = Health::Lost;
        } else if gpu.health == Health::Lost {
            gpu.health = Health::Ok;
        }
        if measured && empty {
            gpu.foreign_mib = reading.used_mib;
        }
        gpu.reading = Some(reading);
        gpu.read_at = at;
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
        let mut more: Vec<(String, Option<String>, u64)> = Vec::new();
        for host in worker.reports.hosts.iter().filter(|host| host.state != HostState::Unloading) {
            let found = host.pid.and_then(|pid| reading.processes.iter().find(|(of, _)| *of == pid));
            let Some(used) = found.and_then(|(_, mib)| *mib) else { continue };
            let known = self.host_mib(&host.script, host.model.as_deref());
            // Of one that nothing was stated of, what it uses counts once a task has run on it.
            let counts = match known {
                Some(known) => used > known,
                None => host.state == HostState::Busy,
            };
            if counts {
                more.push((host.script.clone(), host.model.clone(), used));
            }
        }
        for (script, model, mib) in more {
            self.memory.used(&script, model.as_deref(), mib);
        }
    }
}
