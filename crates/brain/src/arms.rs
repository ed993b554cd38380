//! The brain's end of every link: orders it writes, reports it reads, and the pidfd that tells of a death.
//!
//! Not here: what to order (`policy`), and how a log is written (`spool::link`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;

use model::link::{AttemptOrder, AttemptState, Orders, OrdersLine, ProcessIdentity, Reports, ReportsLine};
use model::{AttemptKey, Durability, WorkerId};
use spool::layout::{Layout, ORDERS, REPORTS};
use spool::link::{Reader, Writer};
use spool::sync::SyncJob;
use tokio::sync::mpsc::UnboundedSender;

use crate::inbox::Note;

/// A living worker.
#[derive(Debug)]
struct Arm {
    orders: Writer<OrdersLine>,
    reports: Reader<ReportsLine>,
    /// Whether it has said who it is.
    heard: bool,
    unsynced: bool,
}

/// What is new of a worker.
#[derive(Debug)]
pub(crate) enum News {
    /// It has said for the first time who it is; with the orders that it lives by.
    Born(Reports, Orders),
    /// It has reported.
    Reported(Reports),
}

/// A dead worker with attempts that are not settled yet.
#[derive(Debug)]
struct Remains {
    open: BTreeSet<AttemptKey>,
    /// Whether nothing of it runs any more and its last words were read.
    quiet: bool,
    /// Held so that nobody takes the folder for a living worker's.
    #[expect(dead_code, reason = "held for its lock")]
    lock: Option<std::fs::File>,
}

/// All workers.
#[derive(Debug)]
pub(crate) struct Arms {
    layout: Layout,
    epoch: u64,
    durability: Durability,
    me: ProcessIdentity,
    notes: UnboundedSender<Note>,
    living: BTreeMap<WorkerId, Arm>,
    /// Living workers whose logs could not be opened, with the orders they live by.
    out_of_reach: BTreeMap<WorkerId, Orders>,
    dead: BTreeMap<WorkerId, Remains>,
}

impl Arms {
    pub(crate) const fn new(
        layout: Layout,
        epoch: u64,
        durability: Durability,
        me: ProcessIdentity,
        notes: UnboundedSender<Note>,
    ) -> Self {
        Self {
            layout,
            epoch,
            durability,
            me,
            notes,
            living: BTreeMap::new(),
            out_of_reach: BTreeMap::new(),
            dead: BTreeMap::new(),
        }
    }

    /// Whether this worker is known, living or dead.
    pub(crate) fn knows(&self, worker: &WorkerId) -> bool {
        self.living.contains_key(worker) || self.dead.contains_key(worker)
    }

    /// Whether this worker has been taken up, and is not known to be dead.
    pub(crate) fn lives(&self, worker: &WorkerId) -> bool {
        self.living.contains_key(worker)
    }

    /// Whether no worker lives, and every dead one is settled.
    pub(crate) fn is_empty(&self) -> bool {
        self.living.is_empty() && self.dead.is_empty()
    }

    /// Names of the living.
    pub(crate) fn living(&self) -> impl Iterator<Item = &WorkerId> {
        self.living.keys()
    }

    /// A living worker could not be taken up: it is tried again with the same orders.
    pub(crate) fn leave_for_later(&mut self, worker: WorkerId, orders: Orders) {
        self.out_of_reach.insert(worker, orders);
    }

    /// The orders that a worker lives by which is not taken up yet; empty for one born under this brain.
    pub(crate) fn left_orders(&mut self, worker: &WorkerId) -> Option<Orders> {
        self.out_of_reach.remove(worker)
    }

    /// Workers that live by their lock and have not said yet who they are.
    pub(crate) fn unheard(&self) -> Vec<WorkerId> {
        self.living.iter().filter(|(_, arm)| !arm.heard).map(|(worker, _)| worker.clone()).collect()
    }

    /// Takes up the link to a living worker: the first orders of this epoch are a `whole` that repeats `orders`, which
    /// the worker answers with a `whole` of its own. What it says; none if its log does not say yet who it is.
    ///
    /// # Errors
    /// When its logs cannot be opened, or it died meanwhile.
    pub(crate) fn take_up(&mut self, worker: &WorkerId, orders: Orders) -> io::Result<Option<Reports>> {
        let folder = self.layout.worker(worker);
        let mut reports = Reader::<ReportsLine>::open(&folder, REPORTS)?;
        reports.read()?;
        let pidfd = self.listen(&reports)?;
        let orders = Orders { brain: Some(self.me.clone()), seen: reports.seen(), ..orders };
        let orders = Writer::<OrdersLine>::create(&folder, ORDERS, self.epoch, orders)?.at(self.durability);
        let heard = pidfd.is_some();
        let said = heard.then(|| reports.state().clone());
        if let Some(pidfd) = pidfd {
            self.watch_for_death(worker.clone(), pidfd);
        }
        self.living.insert(worker.clone(), Arm { orders, reports, heard, unsynced: true });
        Ok(said)
    }

    /// The descriptor of the process that the reports name, if they name one.
    fn listen(&self, reports: &Reader<ReportsLine>) -> io::Result<Option<OwnedFd>> {
        let Some(worker) = &reports.state().worker else { return Ok(None) };
        let gone = || io::Error::new(io::ErrorKind::NotFound, "its process is gone");
        spool::process::pidfd_of(&worker.process()).ok_or_else(gone).map(Some)
    }

    fn watch_for_death(&self, worker: WorkerId, pidfd: OwnedFd) {
        let notes = self.notes.clone();
        tokio::spawn(async move {
            // An error here means that the runtime is ending; the next brain finds the worker by its lock.
            if spool::process::ended(pidfd).await.is_ok() {
                drop(notes.send(Note::ProcessGone(worker)));
            }
        });
    }

    /// Appends an amendment to a worker's orders.
    ///
    /// # Errors
    /// When the worker is not there any more, or the log cannot be written.
    pub(crate) fn amend(&mut self, worker: &WorkerId, mut line: OrdersLine) -> io::Result<()> {
        let arm = self
            .living
            .get_mut(worker)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("worker {worker} is gone")))?;
        line.seen = Some(arm.reports.seen());
        arm.unsynced = true;
        arm.orders.amend(line).map(drop)
    }

    /// Removes an attempt's key: from a living worker's orders, or from a dead one's open attempts.
    pub(crate) fn drop_key(&mut self, worker: &WorkerId, key: &AttemptKey) {
        if let Some(remains) = self.dead.get_mut(worker) {
            remains.open.remove(key);
            return;
        }
        let there = self.living.get(worker).is_some_and(|arm| arm.orders.state().attempts.contains_key(key));
        if there
            && let Err(error) =
                self.amend(worker, OrdersLine { drop: vec![key.clone()], ..OrdersLine::default() })
        {
            // The key stays in the orders; its task is terminal, so a later `whole` or the next brain drops it.
            tracing::warn!(%worker, %key, %error, "failed to drop an attempt from the orders");
        }
    }

    /// Reads a worker's reports; what is new of it.
    ///
    /// # Errors
    /// When a log cannot be read or written, or the worker died before it was heard.
    pub(crate) fn read(&mut self, worker: &WorkerId) -> io::Result<Option<News>> {
        let Some(arm) = self.living.get_mut(worker) else { return Ok(None) };
        let fold = arm.reports.read()?;
        arm.orders.seen_by_reader(arm.reports.state().seen);
        if fold.gap || arm.reports.state().phase == model::link::Phase::Gap {
            // Either side misses a line: a snapshot of the orders heals theirs, and asks for one of the reports.
            arm.unsynced = true;
            arm.orders.heal()?;
        }
        let state = arm.reports.state().clone();
        if arm.heard {
            return Ok(fold.changed.then_some(News::Reported(state)));
        }
        let orders = arm.orders.state().clone();
        let Some(arm) = self.living.get(worker) else { return Ok(None) };
        let Some(pidfd) = self.listen(&arm.reports)? else { return Ok(None) };
        self.watch_for_death(worker.clone(), pidfd);
        if let Some(arm) = self.living.get_mut(worker) {
            arm.heard = true;
        }
        Ok(Some(News::Born(state, orders)))
    }

    /// Takes a worker for dead; its attempts stay open until each is settled.
    pub(crate) fn bury_later(
        &mut self,
        worker: &WorkerId,
        open: BTreeSet<AttemptKey>,
        lock: Option<std::fs::File>,
    ) {
        self.living.remove(worker);
        self.dead.insert(worker.clone(), Remains { open, quiet: false, lock });
    }

    /// Nothing of a dead worker runs any more, and its outbox was read.
    pub(crate) fn quieten(&mut self, worker: &WorkerId) {
        if let Some(remains) = self.dead.get_mut(worker) {
            remains.quiet = true;
        }
    }

    /// The attempts named by a worker's orders.
    pub(crate) fn ordered(&self, worker: &WorkerId) -> BTreeSet<AttemptKey> {
        self.living
            .get(worker)
            .map(|arm| arm.orders.state().attempts.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// Whether some worker reports that this attempt runs.
    pub(crate) fn runs(&self, key: &AttemptKey) -> bool {
        let running = |arm: &Arm| {
            let report = arm.reports.state().attempts.get(key);
            report.is_some_and(|report| report.state == AttemptState::Running)
        };
        self.living.values().any(running)
    }

    /// An attempt in a worker's orders.
    pub(crate) fn order_of(&self, worker: &WorkerId, key: &AttemptKey) -> Option<AttemptOrder> {
        self.living.get(worker)?.orders.state().attempts.get(key).cloned()
    }

    /// Moves the folders of dead workers aside whose attempts are all settled.
    pub(crate) fn bury_settled(&mut self) {
        let settled: Vec<WorkerId> = self
            .dead
            .iter()
            .filter(|(_, remains)| remains.quiet && remains.open.is_empty())
            .map(|(id, _)| id.clone())
            .collect();
        for worker in settled {
            match spool::recover::bury(&self.layout, &worker) {
                Ok(()) => drop(self.dead.remove(&worker)),
                Err(error) => tracing::warn!(%worker, %error, "failed to move a dead worker's folder aside"),
            }
        }
    }

    /// What must be synced of the orders written since the last call.
    pub(crate) fn sync_jobs(&mut self) -> Vec<SyncJob> {
        self.living
            .values_mut()
            .filter_map(|arm| std::mem::take(&mut arm.unsynced).then(|| arm.orders.sync_job()))
            .collect()
    }
}
