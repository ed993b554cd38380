//! Facts about GPUs.

use model::gpu::{Inventory, Reading};
use model::{Health, InventorySource, Millis};

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

    pub(super) fn read(&mut self, reading: Reading) {
        let measured =
            self.inventory.as_ref().is_some_and(|(source, _)| *source == InventorySource::Measured);
        let Some(gpu) = self.gpus.get(&reading.uuid) else {
            self.anomaly("reading_of_unknown_gpu");
            return;
        };
        let empty = gpu.state == model::GpuState::Idle
            && self.worker_on(gpu).is_none_or(|worker| worker.reports.hosts.is_empty());
        let Some(gpu) = self.gpus.get_mut(&reading.uuid) else { return };
        if reading.lost {
            gpu.health = Health::Lost;
        } else if gpu.health == Health::Lost {
            gpu.health = Health::Ok;
        }
        if measured && empty {
            gpu.foreign_mib = reading.used_mib;
        }
        gpu.reading = Some(reading);
    }
}
