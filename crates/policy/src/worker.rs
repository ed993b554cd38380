//! A worker as the mind knows it: what it was ordered and what it says.
//!
//! Not here: the state of its GPU (`gpu`), and processes.

use std::collections::BTreeSet;

use model::link::{EngineOrder, EngineReport, EngineState, HostOrder, HostReport, HostState, Phase, Reports};
use model::{AttemptKey, Entry, GpuUuid, Millis, WorkerId};

use crate::shape::HostKey;
use crate::tenure::Tenure;
use crate::wide::Kept;

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
    /// What its last LLM order replaced, in case that cannot be carried out.
    pub before: Option<Before>,
    /// When its LLM order last changed.
    pub engine_at: Millis,
    /// The hosts in its orders.
    pub hosts: Vec<HostOrder>,
    /// The hosts in its orders before the last change, in case that cannot be carried out.
    pub hosts_before: Vec<HostOrder>,
    /// When these last changed.
    pub hosts_at: Millis,
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

/// What an LLM order replaced.
#[derive(Clone, Debug)]
pub(crate) struct Before {
    /// The order before it.
    pub engine: Option<EngineOrder>,
    /// When that was given.
    pub engine_at: Millis,
    /// What its GPU remembered of LLMs. What the others have paid stays paid.
    pub tenure: Tenure,
    /// The LLM that its GPU was to get back after a batch.
    pub reload: Option<String>,
    /// The GPUs that were kept for what this order loads over several.
    pub kept: Option<Kept>,
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

    /// Its hosts, and whether each may stay by its orders: of one kind the first ones, as the worker itself counts.
    pub(crate) fn hosts_and_whether_they_stay(&self) -> impl Iterator<Item = (&HostReport, bool)> {
        let hosts = if self.dead { &[][..] } else { self.reports.hosts.as_slice() };
        hosts.iter().enumerate().map(move |(at, host)| {
            let same = |other: &&HostReport| {
                other.script == host.script
                    && other.model == host.model
                    && other.state != HostState::Unloading
            };
            let before = hosts[..at].iter().filter(same).count();
            let mine = |order: &&HostOrder| order.script == host.script && order.model == host.model;
            let kept: u32 = self.hosts.iter().filter(mine).map(|order| order.count).sum();
            let stays = host.state != HostState::Unloading && before < kept as usize;
            (host, stays)
        })
    }

    /// Hosts that stay loaded between tasks.
    pub(crate) fn residents(&self) -> impl Iterator<Item = &HostReport> {
        self.hosts_and_whether_they_stay().filter(|(_, stays)| *stays).map(|(host, _)| host)
    }

    /// Whether hosts are still there that may not stay.
    pub(crate) fn sheds_hosts(&self) -> bool {
        let mut hosts = self.hosts_and_whether_they_stay();
        hosts.any(|(host, stays)| !stays && host.state != HostState::Busy)
    }

    /// Whether a loaded host of this key is there.
    pub(crate) fn has_host(&self, key: &HostKey) -> bool {
        self.residents()
            .any(|host| host.state != HostState::Booting && key.is(&host.script, host.model.as_deref()))
    }

    /// How many of the units on its GPU can have begun at once: requests of its LLM, and hosts that may stay.
    pub(crate) fn at_once(&self) -> usize {
        let hosts: u32 = self.hosts.iter().map(|order| order.count).sum();
        let requests = self.engine.as_ref().map_or(0, |engine| engine.parallel.max(1));
        (hosts.max(1)).max(requests) as usize
    }

    /// Units and claims.
    pub(crate) fn load(&self) -> usize {
        self.units.len() + self.claims.len()
    }
}
