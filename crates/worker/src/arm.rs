//! The loop of a worker: orders, what is there, what happened; then act, then say.
//!
//! ```text
//!  orders.jsonl ─► fold ─┐                          ┌─► boot, unload, start, stop   (`hands`)
//!  happenings of units ──┼─► the state of the arm ──┼─► records into the outbox     (`saving`)
//!  brain's pidfd, clock ─┘                          └─► reports.jsonl               (`report`)
//! ```
//!
//! Everything is level-triggered: each turn compares what is wanted with what is there. Nothing is remembered of how
//! an order came about. The one thread of this loop is also the one that starts programs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::config::Config;
use model::link::{Orders, Phase, ProcessIdentity, Reports};
use model::{AttemptKey, Durability};
use spool::layout::Layout;
use spool::link::LinkWatch;
use spool::worker::{LeaveError, WorkerHome};
use spool::{clock, process};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::time::{Instant, sleep_until};

use crate::attempt::{Attempt, Stage};
use crate::happening::{Happening, HostId};
use crate::llm::Seat;
use crate::report::{Pace, amendment};
use crate::scripts::{HostKey, HostSeat, Workshop};

/// How often the orders are read without a hint.
const LOOK_ANYWAY: Duration = Duration::from_secs(5);

/// A worker at work.
pub(crate) struct Arm {
    pub(crate) home: WorkerHome,
    pub(crate) config: Arc<Config>,
    pub(crate) layout: Layout,
    pub(crate) shop: Workshop,
    pub(crate) find: engine::server::FindProgram,
    pub(crate) seat: Option<Seat>,
    pub(crate) hosts: Vec<HostSeat>,
    pub(crate) hosts_made: HostId,
    pub(crate) loads: BTreeMap<HostKey, u32>,
    /// Hosts that could not be loaded, and when: they are not loaded again just because they may stay.
    pub(crate) refused: BTreeMap<HostKey, Instant>,
    pub(crate) attempts: BTreeMap<AttemptKey, Attempt>,
    pub(crate) syncing: bool,
    pub(crate) retry_at: Option<Instant>,
    pace: Pace,
    brain: Option<ProcessIdentity>,
    alone_since: Option<Instant>,
    /// Somebody told this process to end.
    told_to_go: bool,
    /// It has been without a brain for too long.
    orphaned: bool,
    /// Its folder was taken away.
    homeless: bool,
    /// Next look at everything, hint or not.
    look_at: Instant,
}

/// What wakes the loop.
pub(crate) struct Ears {
    pub(crate) watch: LinkWatch,
    pub(crate) hints: Receiver<()>,
    pub(crate) happenings: UnboundedReceiver<Happening>,
}

impl Arm {
    pub(crate) fn new(
        home: WorkerHome,
        config: Arc<Config>,
        layout: Layout,
        shop: Workshop,
        find: engine::server::FindProgram,
    ) -> Self {
        Self {
            home,
            config,
            layout,
            shop,
            find,
            seat: None,
            hosts: Vec::new(),
            hosts_made: 0,
            loads: BTreeMap::new(),
            refused: BTreeMap::new(),
            attempts: BTreeMap::new(),
            syncing: false,
            retry_at: None,
            pace: Pace::new(Instant::now()),
            brain: None,
            alone_since: Some(Instant::now()),
            told_to_go: false,
            orphaned: false,
            homeless: false,
            look_at: Instant::now() + LOOK_ANYWAY,
        }
    }

    /// Obeys orders until there is nothing left to do here.
    ///
    /// # Errors
    /// When signals cannot be listened to, or its folder was taken away: what ran here has been ended then.
    pub(crate) async fn serve(mut self, mut ears: Ears) -> std::io::Result<()> {
        let mut terminate = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
        if let Some(warning) = ears.watch.warning() {
            tracing::warn!("{warning}");
        }
        self.read_orders();
        loop {
            self.act();
            self.speak();
            if self.is_done() {
                return if self.homeless { Err(no_home(self.home.folder())) } else { Ok(()) };
            }
            tokio::select! {
                Some(()) = ears.hints.recv() => self.read_orders(),
                Some(happening) = ears.happenings.recv() => {
                    self.take(happening);
                    while let Ok(more) = ears.happenings.try_recv() {
                        self.take(more);
                    }
                }
                () = either(&mut terminate) => {
                    tracing::info!("told to end by a signal");
                    self.told_to_go = true;
                    self.look_at = Instant::now();
                }
                () = sleep_until(self.wake_at()) => self.read_orders(),
            }
            if Instant::now() >= self.look_at {
                self.look();
            }
        }
    }

    /// What no hint may have told.
    fn look(&mut self) {
        self.look_at = Instant::now() + LOOK_ANYWAY;
        if !self.homeless && self.home.is_gone() {
            self.homeless = true;
            tracing::error!("{}", no_home(self.home.folder()));
        }
        if !self.homeless {
            self.read_orders();
        }
    }

    fn read_orders(&mut self) {
        let before = self.home.orders.snapshots();
        if let Err(error) = self.home.orders.read() {
            tracing::warn!("cannot read the orders: {error}");
        }
        // A snapshot of the orders asks for one of the reports: the brain is new here, or has missed a line.
        if self.home.orders.snapshots() > before
            && let Err(error) = self.home.reports.heal()
        {
            tracing::warn!("cannot report anew: {error}");
        }
        let orders = self.home.orders.state();
        let (brain, seen) = (orders.brain.clone(), orders.seen);
        self.home.reports.seen_by_reader(seen);
        if brain != self.brain {
            self.meet(brain);
        }
    }

    /// Another brain writes the orders now: from here its life counts.
    fn meet(&mut self, brain: Option<ProcessIdentity>) {
        let pidfd = brain.as_ref().and_then(process::pidfd_of);
        self.brain.clone_from(&brain);
        match (brain, pidfd) {
            (Some(brain), Some(pidfd)) => {
                (self.alone_since, self.orphaned) = (None, false);
                let tell = self.shop.tell.clone();
                tokio::spawn(async move {
                    if let Err(error) = process::ended(pidfd).await {
                        tracing::warn!("cannot watch the brain: {error}");
                    }
                    let _ = tell.send(Happening::BrainGone(brain));
                });
            }
            _ => self.alone_since = self.alone_since.or_else(|| Some(Instant::now())),
        }
    }

    pub(crate) fn brain_gone(&mut self, brain: &ProcessIdentity) {
        if self.brain.as_ref() == Some(brain) {
            tracing::info!("the brain (pid {}) is gone; tasks go on", brain.pid);
            self.alone_since = Some(Instant::now());
        }
    }

    pub(crate) fn orders(&self) -> &Orders {
        self.home.orders.state()
    }

    /// Whether it unloads and goes, and whether what runs is stopped for that.
    pub(crate) fn leaving(&self) -> Option<Haste> {
        let foreign = self.home.orders.foreign().and_then(|foreign| foreign.leave) == Some(true);
        if self.orders().leave || foreign || self.told_to_go || self.homeless {
            Some(Haste::Now)
        } else {
            self.orphaned.then_some(Haste::WhenIdle)
        }
    }

    /// Without a brain for too long, and nothing runs any more.
    pub(crate) fn check_orphan(&mut self) {
        let ttl = Duration::from_secs_f64(self.config.timing.orphan_ttl_s);
        let late = self.alone_since.is_some_and(|since| since.elapsed() >= ttl);
        let busy = self.attempts.values().any(|attempt| attempt.on().is_some());
        if late && !busy && !self.orphaned {
            tracing::info!("no brain for {:.0} s: unloading and leaving", ttl.as_secs_f64());
            self.orphaned = true;
        }
    }

    fn wake_at(&self) -> Instant {
        let ttl = Duration::from_secs_f64(self.config.timing.orphan_ttl_s.min(1e8));
        let orphan = self.alone_since.filter(|_| !self.orphaned).map(|since| since + ttl);
        let orphan = orphan.filter(|at| *at > Instant::now());
        [self.pace.due(), orphan, self.retry_at].into_iter().flatten().fold(self.look_at, Instant::min)
    }

    /// What is true now, as it is to be reported.
    fn state(&self) -> Reports {
        let orders = &self.home.orders;
        let phase = if orders.foreign().is_some() && self.leaving().is_none() {
            Phase::CannotRead
        } else if orders.gap() && self.leaving().is_none() {
            Phase::Gap
        } else if self.leaving().is_some() {
            Phase::Leaving
        } else {
            Phase::Serving
        };
        let attempts =
            self.attempts.iter().filter_map(|(key, one)| Some((key.clone(), one.report()?))).collect();
        Reports {
            seen: orders.seen(),
            engine: self.seat.as_ref().map(|seat| seat.report.clone()),
            hosts: self.hosts.iter().map(|host| host.report.clone()).collect(),
            attempts,
            phase,
            ..self.home.reports.state().clone()
        }
    }

    /// Appends what has changed, if it is due.
    fn speak(&mut self) {
        let now = Instant::now();
        let Some((line, urgency)) = amendment(self.home.reports.state(), &self.state()) else {
            return self.pace.nothing_to_say();
        };
        if !self.pace.is_due(urgency, now) {
            return;
        }
        match self.home.reports.amend(line) {
            Ok(seen) => {
                self.pace.said(now);
                self.attempts.values_mut().for_each(|attempt| attempt.told(seen));
            }
            Err(error) => {
                tracing::warn!("cannot report: {error}");
                self.pace.failed(now);
            }
        }
    }

    /// Whether this worker has gone: nothing is left, and what it had to say is said.
    fn is_done(&mut self) -> bool {
        if self.leaving().is_none() || self.seat.is_some() || !self.hosts.is_empty() {
            return false;
        }
        if self.homeless {
            // What it has to say and to leave would reach nobody.
            return !self.attempts.values().any(|one| matches!(one.stage, Stage::Running(_)));
        }
        let open =
            |attempt: &Attempt| !matches!(attempt.stage, Stage::Ended { .. } | Stage::NeverStarted { .. });
        if self.attempts.values().any(open) || self.pace.due().is_some() {
            return false;
        }
        match self.home.leave() {
            Ok(()) => true,
            // Records are safe where they are: a brain that comes later finds them in a dead worker's outbox.
            Err(LeaveError::Outbox(_)) => self.told_to_go && self.alone_since.is_some(),
            Err(error) => {
                tracing::warn!("{error}");
                false
            }
        }
    }

    pub(crate) fn engine_log(&self, generation: u64) -> PathBuf {
        let gpu =
            self.home.reports.state().gpu.as_ref().map_or_else(|| "cpu".into(), |gpu| gpu.index.to_string());
        self.layout.engine_log(&gpu, generation)
    }

    pub(crate) fn syncs(&self) -> bool {
        self.config.durability == Durability::Power
    }

    pub(crate) fn now(&self) -> model::Millis {
        clock::now()
    }
}

/// How a worker leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Haste {
    /// What runs is taken back.
    Now,
    /// What runs has ended.
    WhenIdle,
}

fn no_home(folder: &Path) -> std::io::Error {
    let why = format!("its folder {} was removed: what ran here is ended", folder.display());
    std::io::Error::new(std::io::ErrorKind::NotFound, why)
}

async fn either(signals: &mut [Signal; 2]) {
    let [first, second] = signals;
    tokio::select! {
        _ = first.recv() => {}
        _ = second.recv() => {}
    }
}
