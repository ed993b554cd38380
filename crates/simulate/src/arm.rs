//! A virtual worker: it folds orders and compares what is wanted with what is there, as a real one does.
//!
//! ```text
//! orders it has read ─► heed ─► engine, hosts, attempts ─► timers (what ends when)
//! timers that ring   ─► what is there ─► its reports
//! ```
//! Level-triggered: [`Arm::turn`] may be called at any time, any number of times. Not here: when orders are read and
//! reports are heard (`sim`), and what things cost (`nature`).

mod attempts;
mod engine;
mod hosts;

use std::collections::BTreeMap;

use model::link::{
    AttemptReport, AttemptState, EngineOrder, EngineState, GpuIdentity, HostOrder, Orders, Outcome, Phase,
    Reports, StopWhy, WorkerIdentity,
};
use model::{AttemptKey, Config, Millis, WorkerId};

use crate::nature::Nature;

pub(crate) use hosts::Host;

/// Something that a worker waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// An LLM is loaded.
    EngineReady(u64),
    /// A boot fails.
    EngineFails(u64),
    /// An LLM is gone.
    EngineGone(u64),
    /// A host is loaded.
    HostReady(u64),
    /// A load fails.
    HostFails(u64),
    /// A host is gone.
    HostGone(u64),
    /// An attempt ends by itself.
    Ends(AttemptKey),
    /// An attempt has come to its time limit.
    Limit(AttemptKey),
    /// An attempt has obeyed a stop.
    Stopped(AttemptKey),
    /// Time alone may change something.
    Look,
}

/// What a turn asks of the world around.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    /// Timers to ring.
    pub timers: Vec<(Millis, Timer)>,
    /// A model file to be read for a boot: generation, model, size.
    pub reads: Vec<(u64, String, u64)>,
}

/// The LLM of a worker.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub order: EngineOrder,
    pub state: EngineState,
    pub since: Millis,
    pub began: Millis,
    pub boot_ms: Option<u64>,
    pub error: Option<String>,
    pub mib: u64,
    pub pid: u32,
}

/// What an attempt runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Llm,
    Host(u64),
    Once { pid: u32, mib: u64 },
}

/// Where an attempt is.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    Waiting,
    Running {
        since: Millis,
        on: On,
        stopping: Option<StopWhy>,
        /// Work that was done before this attempt began, at speed 1.
        before: Millis,
    },
    Ended {
        since: Option<Millis>,
        outcome: Outcome,
    },
    NeverStarted,
}

#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub stage: Stage,
    pub stop: Option<StopWhy>,
    /// Whether it can be left at a boundary and gone on from.
    pub yields: bool,
    pub order: model::link::AttemptOrder,
}

impl Attempt {
    pub(crate) const fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting)
    }

    pub(crate) const fn on(&self) -> Option<On> {
        match self.stage {
            Stage::Running { on, .. } => Some(on),
            _ => None,
        }
    }

    pub(crate) const fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Ended { .. } | Stage::NeverStarted)
    }

    fn report(&self) -> Option<AttemptReport> {
        let (state, since, outcome) = match &self.stage {
            Stage::Waiting => return None,
            Stage::Running { since, .. } => (AttemptState::Running, Some(*since), None),
            Stage::Ended { since, outcome } => (AttemptState::Ended, *since, Some(outcome.clone())),
            Stage::NeverStarted => (AttemptState::NeverStarted, None, None),
        };
        Some(AttemptReport {
            task_id: self.order.task_id.clone(),
            attempt: self.order.attempt,
            state,
            since,
            progress: None,
            media_s: None,
            yields: self.yields && state == AttemptState::Running,
            outcome,
        })
    }
}

/// A worker.
#[derive(Clone, Debug)]
pub(crate) struct Arm {
    pub id: WorkerId,
    /// Its GPU's number; none in the CPU lane.
    pub gpu: Option<usize>,
    /// Orders as they lie on the disk.
    pub written: Orders,
    /// Orders as it has read them.
    pub orders: Orders,
    /// Its reports as they lie on the disk.
    pub told: Reports,
    pub seat: Option<Seat>,
    pub hosts: Vec<Host>,
    pub attempts: BTreeMap<AttemptKey, Attempt>,
    pub loads: BTreeMap<(String, Option<String>), u32>,
    /// Since when it has no brain.
    pub alone_since: Option<Millis>,
    /// When it looks again by itself.
    looks_at: Option<Millis>,
    pub dead: bool,
    /// The machine went down with it.
    pub died_with_machine: bool,
    /// Its GPU is gone from under it.
    pub gpu_is_lost: bool,
    pub phase: Phase,
    made: u64,
    pids: u32,
}

impl Arm {
    pub(crate) fn new(id: WorkerId, number: u32, gpu: Option<(usize, GpuIdentity)>, launch: String) -> Self {
        let identity = WorkerIdentity {
            uuid: id.clone(),
            launch: Some(launch),
            pid: 1_000 * number,
            starttime: u64::from(number),
            boot_id: "simulated".into(),
            exe: "simulated".into(),
        };
        let (gpu, told_gpu) = gpu.unzip();
        let told = Reports { worker: Some(identity), gpu: told_gpu, ..Reports::default() };
        Self {
            id,
            gpu,
            written: Orders::default(),
            orders: Orders::default(),
            told,
            seat: None,
            hosts: Vec::new(),
            attempts: BTreeMap::new(),
            loads: BTreeMap::new(),
            alone_since: None,
            looks_at: None,
            dead: false,
            died_with_machine: false,
            gpu_is_lost: false,
            phase: Phase::Serving,
            made: 0,
            pids: 1_000 * number,
        }
    }

    /// Compares and acts; says whether its reports have changed.
    pub(crate) fn turn(&mut self, now: Millis, nature: &mut Nature<'_>, wants: &mut Wants) -> bool {
        if self.dead || self.phase == Phase::Left {
            return false;
        }
        self.mind_the_brain(now, nature, wants);
        self.heed(now, nature, wants);
        self.seat_engine(now, nature, wants);
        self.keep_hosts(now, nature, wants);
        self.start_attempts(now, nature, wants);
        self.look_once(now, wants);
        if self.is_leaving() {
            self.phase = if self.is_empty() { Phase::Left } else { Phase::Leaving };
        } else {
            self.phase = Phase::Serving;
        }
        let reports = self.reports();
        let changed = reports != self.told;
        self.told = reports;
        changed
    }

    /// However many wait for something, it looks again once: each look that asked for one more would double them.
    fn look_once(&mut self, now: Millis, wants: &mut Wants) {
        let looks = wants.timers.iter().filter(|(_, timer)| matches!(timer, Timer::Look));
        let soonest = looks.map(|(delay, _)| now + *delay).min();
        wants.timers.retain(|(_, timer)| !matches!(timer, Timer::Look));
        if let Some(at) = soonest
            && self.looks_at.is_none_or(|noted| noted <= now || at < noted)
        {
            self.looks_at = Some(at);
            wants.timers.push((at - now, Timer::Look));
        }
    }

    /// Without a brain for too long it goes once nothing runs.
    fn mind_the_brain(&mut self, now: Millis, nature: &Nature<'_>, wants: &mut Wants) {
        let Some(since) = self.alone_since else { return };
        let late = since + Millis::from_secs_f64(nature.config.timing.orphan_ttl_s);
        if now < late {
            wants.timers.push((late - now, Timer::Look));
        }
    }

    pub(crate) fn is_orphan(&self, now: Millis, config: &Config) -> bool {
        let ttl = Millis::from_secs_f64(config.timing.orphan_ttl_s);
        let busy = self.attempts.values().any(|attempt| attempt.on().is_some());
        self.alone_since.is_some_and(|since| now >= since + ttl) && !busy
    }

    pub(crate) const fn is_leaving(&self) -> bool {
        self.orders.leave
    }

    fn is_empty(&self) -> bool {
        self.seat.is_none() && self.hosts.is_empty() && self.attempts.is_empty()
    }

    fn host_orders(&self) -> &[HostOrder] {
        if self.is_leaving() { &[] } else { &self.orders.hosts }
    }

    fn next_pid(&mut self) -> u32 {
        self.pids += 1;
        self.pids
    }

    /// MiB that it holds of its GPU.
    pub(crate) fn held_mib(&self) -> u64 {
        let engine = self.seat.as_ref().filter(|seat| seat.state != EngineState::Failed);
        let hosts: u64 = self.hosts.iter().map(|host| host.mib).sum();
        let once = self.attempts.values().filter_map(Attempt::on).map(|on| match on {
            On::Once { mib, .. } => mib,
            _ => 0,
        });
        engine.map_or(0, |seat| seat.mib) + hosts + once.sum::<u64>()
    }

    /// Its processes on the GPU.
    pub(crate) fn processes(&self) -> Vec<(u32, Option<u64>)> {
        let mut all = Vec::new();
        if let Some(seat) = self.seat.as_ref().filter(|seat| seat.state != EngineState::Failed) {
            all.push((seat.pid, Some(seat.mib)));
        }
        all.extend(self.hosts.iter().map(|host| (host.pid, Some(host.mib))));
        for on in self.attempts.values().filter_map(Attempt::on) {
            if let On::Once { pid, mib } = on {
                all.push((pid, Some(mib)));
            }
        }
        all
    }

    fn reports(&self) -> Reports {
        let attempts = self.attempts.iter().filter_map(|(key, one)| Some((key.clone(), one.report()?)));
        Reports {
            engine: self.seat.as_ref().map(Seat::report),
            hosts: self.hosts.iter().map(Host::report).collect(),
            attempts: attempts.collect(),
            phase: self.phase,
            ..self.told.clone()
        }
    }

    /// What can be read of it after its death: its records, and nothing that still runs.
    pub(crate) fn last_words(&self) -> Reports {
        let over = self.attempts.iter().filter(|(_, one)| matches!(one.stage, Stage::Ended { .. }));
        let mut reports = self.told.clone();
        for (key, attempt) in over {
            if let Some(report) = attempt.report() {
                reports.attempts.insert(key.clone(), report);
            }
        }
        reports
    }
}
