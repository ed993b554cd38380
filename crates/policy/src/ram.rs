//! The machine's memory as far as it keeps scripts from starting. Unknown memory keeps nobody.
//!
//! Not here: reading it (the senses), and the choice to wait or to go on (`plan::ram`).

use model::Millis;
use model::link::HostState;

use crate::shape::HostKey;
use crate::world::World;

/// What a script is expected to take of the machine's memory until a reading shows it, in MiB: the lower end of the
/// seed's figure for a transcription, 1 to 2 GB. One that finds its host loaded takes nothing more.
pub(crate) const SCRIPT_MIB: u64 = 1_024;
/// How long after its order a script counts by that figure; readings come each second and show it from then on.
pub(crate) const SHOWN_WITHIN: Millis = Millis::from_secs(3);

/// A start that waits for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RamWait {
    /// Since when; after a start that went on all the same it begins anew.
    pub since: Millis,
}

impl World {
    /// The least that has to be available, in MiB; 0 is no guard.
    pub(crate) const fn least_ram_mib(&self) -> u64 {
        self.config.resource_manager.min_system_ram_mb
    }

    /// What was read as available, if that is too little.
    pub(crate) fn low_ram(&self) -> Option<u64> {
        let free = self.ram?.available_mib;
        (free < self.least_ram_mib()).then_some(free)
    }

    /// Hosts that were just ordered and are not loaded, and scripts of one process a task that were just started: until
    /// when each of them counts by what it is expected to take.
    pub(crate) fn ram_pledges(&self, now: Millis) -> Vec<Millis> {
        let mut pledges = Vec::new();
        for worker in self.workers.values().filter(|worker| !worker.dead) {
            let loaded = worker.residents().filter(|host| host.state != HostState::Booting).count();
            let kept: usize = worker.hosts.iter().map(|order| order.count as usize).sum();
            pledges.extend(std::iter::repeat_n(worker.hosts_at, kept.saturating_sub(loaded)));
        }
        let once = |key: &HostKey| !key.warm;
        let units = self.units.values().filter(|unit| unit.is_live() && unit.shape.host().is_some_and(once));
        pledges.extend(units.map(|unit| unit.ordered_at));
        let claims = self.claims.values().filter(|claim| claim.queued.shape.host().is_some_and(once));
        pledges.extend(claims.map(|claim| claim.at));
        pledges.iter_mut().for_each(|at| *at = *at + SHOWN_WITHIN);
        pledges.retain(|until| *until > now);
        pledges
    }

    /// Whether something of ours runs that could give memory back when it ends.
    pub(crate) fn runs_something(&self) -> bool {
        !self.claims.is_empty() || self.units.values().any(crate::unit::Unit::is_live)
    }
}
