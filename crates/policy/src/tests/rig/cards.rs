//! GPUs as they are found and read, and what is granted on them.

use model::Saying;

use super::*;
use crate::worker::Worker;

impl Rig {
    /// Finds as many GPUs as sizes are given, in MiB.
    pub(in crate::tests) fn of_sizes(self, sizes: &[u64]) -> Self {
        let mut rig = self.gpus([1]);
        let first = rig.gpus[0].clone();
        let card = |(index, mib): (usize, &u64)| GpuFacts {
            uuid: GpuUuid::new(format!("SIM-{index}")).expect("legal"),
            index: u32::try_from(index).expect("few"),
            name: format!("SIMULATED {mib} MiB"),
            total_mib: Some(*mib),
            ..first.clone()
        };
        rig.gpus = sizes.iter().enumerate().map(card).collect();
        rig.find()
    }

    fn find(mut self) -> Self {
        let inventory = self.inventory();
        self.tell(Event::Inventory(inventory));
        self
    }

    /// Gives a GPU its product name.
    pub(in crate::tests) fn named(mut self, names: &[&str]) -> Self {
        for (gpu, name) in self.gpus.iter_mut().zip(names) {
            gpu.name = (*name).to_owned();
        }
        self.find()
    }

    /// From now on nobody knows how much memory the GPUs have.
    pub(in crate::tests) fn unmeasured(mut self) -> Self {
        self.source = InventorySource::Unmeasured;
        self.gpus.iter_mut().for_each(|gpu| gpu.total_mib = None);
        self.find()
    }

    /// From now on the GPUs are real ones, which are read.
    pub(in crate::tests) fn measured(mut self) -> Self {
        self.source = InventorySource::Measured;
        self.find()
    }

    /// A running task ends this way now.
    pub(in crate::tests) fn end_now(&mut self, name: &str, failure: Option<FailureClass>) -> &mut Self {
        let running = |worker: &VirtualWorker| {
            let mut attempts = worker.reports.attempts.values();
            attempts
                .find(|one| one.task_id == id(name) && one.state == AttemptState::Running)
                .map(AttemptReport::key)
        };
        let found = self.workers.iter().find_map(|(worker, one)| Some((worker.clone(), running(one)?)));
        let (worker, key) = found.expect("it runs");
        self.outcomes.entry(name.to_owned()).or_default().push_front(failure);
        self.end_attempt(&worker, &key, None);
        self
    }

    /// Process ids of the hosts of all workers.
    pub(in crate::tests) fn host_pids(&self) -> Vec<u32> {
        self.workers.values().flat_map(|worker| &worker.reports.hosts).filter_map(|host| host.pid).collect()
    }

    /// What the scripts on a GPU were granted by what is stated of them, in MiB, and how many they are.
    pub(in crate::tests) fn granted(&self, gpu: usize) -> (u64, usize) {
        let uuid = GpuUuid::new(format!("SIM-{gpu}")).expect("legal");
        let worker: Option<&Worker> = self.world.gpus.get(&uuid).and_then(|gpu| self.world.worker_on(gpu));
        let units = worker.into_iter().flat_map(|worker| self.world.units_on(worker));
        let needs = units.filter(|unit| unit.is_live()).map(|unit| unit.shape.needs.vram_mib.unwrap_or(0));
        let needs: Vec<u64> = needs.collect();
        (needs.iter().sum(), needs.len())
    }

    /// What was said, as it stands in the log.
    pub(in crate::tests) fn lines(&self) -> Vec<String> {
        let said = self.log.iter().filter_map(|(_, action)| match action {
            Action::Say(saying) => Some(Saying::line(saying)),
            _ => None,
        });
        said.collect()
    }
}
