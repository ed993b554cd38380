//! A worker as the mind knows it: what it was ordered and what it says.
//!
//! Not here: the state of its GPU (`gpu`), and processes.

use std::collections::BTreeSet;

use model::link::{EngineOrder, EngineReport, EngineState, HostOrder, HostReport, HostState, Phase, Reports};
use model::{AttemptKey, Entry, GpuUuid, Millis, WorkerId};

use crate::queue::HostKey;

/// A worker.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    /// Its name.
    pub id: WorkerId,
    /// Its GPU; none in the CPU lane.
    pub gpu: Option<GpuUuid>,
    /// What it says.
    pub reports: Reports,
    /// The LLM in its orders.
    pub engine: Option<EngineOrder>,
    /// The LLM in its orders before the last change, in case that cannot be carried out.
    pub engine_before: Option<EngineOrder>,
    /// When its LLM order last changed.
    pub engine_at: Millis,
    /// The hosts in its orders.
    pub hosts: Vec<HostOrder>,
    /// The highest generation used.
    pub generation: u64,
    /// Whether it was told to leave.
    pub leave: bool,
    /// When it was born, or adopted.
    pub since: Millis,
    /// Whether it is dead.
    pub dead: bool,
    /// Attempts in its orders.
    pub units: BTreeSet<AttemptKey>,
    /// Starts that were issued and not answered.
    pub claims: BTreeSet<Entry>,
    /// Attempts that are done with, until its reports drop them too.
    pub closed: BTreeSet<AttemptKey>,
    /// The generation whose boot was learned or counted as failed.
    pub judged: u64,
    /// Not to be given orders before, after one could not be written.
    pub again_at: Option<Millis>,
}

/// Where a worker's LLM is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Llm<'a> {
    /// Ordered, not usable yet.
    Booting {
        /// Which.
        order: &'a EngineOrder,
    },
    /// Usable.
    Ready {
        /// Which.
        report: &'a EngineReport,
    },
    /// The one that was ordered is broken.
    Failed {
        /// Which.
        report: &'a EngineReport,
    },
    /// Not wanted any more, and not gone yet.
    Unloading,
}

impl Worker {
    /// Where its LLM is; none where there is none.
    pub(crate) fn llm(&self) -> Option<Llm<'_>> {
        if self.dead {
            return None;
        }
        match (&self.engine, &self.reports.engine) {
            (None, None) => None,
            (None, Some(_)) => Some(Llm::Unloading),
            // A worker that leaves unloads what its orders still name, and boots nothing any more.
            (Some(_), None) if self.leave => None,
            (Some(order), Some(report)) if report.generation == order.generation => {
                Some(match report.state {
                    EngineState::Booting => Llm::Booting { order },
                    EngineState::Ready => Llm::Ready { report },
                    EngineState::Failed => Llm::Failed { report },
                    EngineState::Unloading => Llm::Unloading,
                })
            }
            (Some(order), _) => Some(Llm::Booting { order }),
        }
    }

    /// Whether it obeys orders.
    pub(crate) fn serves(&self) -> bool {
        !self.dead && !self.leave && self.reports.phase == Phase::Serving
    }

    /// Whether it is alive and has not gone.
    pub(crate) fn is_here(&self) -> bool {
        !self.dead && self.reports.phase != Phase::Left
    }

    /// Whether a host may stay by its orders.
    fn allows(&self, host: &HostReport) -> bool {
        self.hosts
            .iter()
            .any(|order| order.count > 0 && order.script == host.script && order.model == host.model)
    }

    /// Hosts that stay loaded between tasks.
    pub(crate) fn residents(&self) -> impl Iterator<Item = &HostReport> {
        let alive = !self.dead;
        self.reports
            .hosts
            .iter()
            .filter(move |host| alive && host.state != HostState::Unloading && self.allows(host))
    }

    /// Whether hosts are still there that may not stay.
    pub(crate) fn sheds_hosts(&self) -> bool {
        let goes = |host: &HostReport| match host.state {
            HostState::Unloading => true,
            HostState::Booting | HostState::Idle => !self.allows(host),
            HostState::Busy => false,
        };
        !self.dead && self.reports.hosts.iter().any(goes)
    }

    /// Whether a loaded host of this key is there.
    pub(crate) fn has_host(&self, key: &HostKey) -> bool {
        self.residents()
            .any(|host| host.state != HostState::Booting && key.is(&host.script, host.model.as_deref()))
    }

    /// Whether its orders let a host of this key stay, `count` times.
    pub(crate) fn keeps(&self, key: &HostKey, count: u32) -> bool {
        self.hosts.iter().any(|order| order.count >= count && key.is(&order.script, order.model.as_deref()))
    }

    /// Units and claims.
    pub(crate) fn load(&self) -> usize {
        self.units.len() + self.claims.len()
    }
}
