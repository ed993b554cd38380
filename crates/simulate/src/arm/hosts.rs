//! Script hosts: those that orders let stay, and those that a waiting task needs.

use model::link::{HostReport, HostState};
use model::task::{Script, Work};
use model::{AttemptKey, Millis};

use super::{Arm, Attempt, Timer, Wants};
use crate::nature::{Load, Nature};

/// A host.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub id: u64,
    pub script: String,
    pub model: Option<String>,
    pub state: HostState,
    pub busy: Option<AttemptKey>,
    pub mib: u64,
    pub pid: u32,
    loads: u32,
    began: Millis,
    boot_ms: Option<u64>,
}

impl Host {
    pub(super) fn report(&self) -> HostReport {
        HostReport {
            script: self.script.clone(),
            model: self.model.clone(),
            state: self.state,
            pid: Some(self.pid),
            loads: self.loads,
            boot_ms: self.boot_ms,
        }
    }

    pub(super) fn is_ending(&self) -> bool {
        self.state == HostState::Unloading
    }

    fn is(&self, script: &str, model: Option<&str>) -> bool {
        self.script == script && self.model.as_deref() == model
    }
}

/// The warm host that a task needs; none if it needs none.
pub(super) fn host_key(nature: &Nature<'_>, attempt: &Attempt) -> Option<(String, Option<String>)> {
    let Work::Script(work) = &attempt.order.task.work else { return None };
    let Script::Registered(name) = &work.script else { return None };
    nature.warm_key(name, work.model.as_ref())
}

impl Arm {
    pub(super) fn keep_hosts(&mut self, now: Millis, nature: &mut Nature<'_>, wants: &mut Wants) {
        for at in 0..self.hosts.len() {
            let host = &self.hosts[at];
            if host.busy.is_some() || host.is_ending() {
                continue;
            }
            let key = (host.script.clone(), host.model.clone());
            let rank = self.hosts[..at]
                .iter()
                .filter(|other| !other.is_ending() && other.is(&key.0, key.1.as_deref()));
            let rank = rank.count();
            let stays = rank < self.allowed(&key);
            let needed = self
                .attempts
                .values()
                .any(|one| one.is_waiting() && host_key(nature, one).as_ref() == Some(&key));
            if !stays && !needed {
                self.hosts[at].state = HostState::Unloading;
                wants.timers.push((nature.host_unload(), Timer::HostGone(self.hosts[at].id)));
            }
        }
        let orders = self.host_orders().to_vec();
        for order in orders {
            if self.is_unloading() {
                return;
            }
            let there = self
                .hosts
                .iter()
                .filter(|host| !host.is_ending() && host.is(&order.script, order.model.as_deref()));
            for _ in there.count()..order.count as usize {
                self.load_host(order.script.clone(), order.model.clone(), now, nature, wants);
            }
        }
    }

    fn allowed(&self, key: &(String, Option<String>)) -> usize {
        let mine = self.host_orders().iter().filter(|order| order.script == key.0 && order.model == key.1);
        mine.map(|order| order.count as usize).sum()
    }

    /// Whether an engine or a host is on its way out: nothing is loaded before its memory is free.
    pub(super) fn is_unloading(&self) -> bool {
        let engine = self.seat.as_ref().is_some_and(|seat| seat.state == model::link::EngineState::Unloading);
        engine || self.hosts.iter().any(Host::is_ending)
    }

    fn load_host(
        &mut self,
        script: String,
        model: Option<String>,
        now: Millis,
        nature: &mut Nature<'_>,
        wants: &mut Wants,
    ) {
        self.made += 1;
        let id = self.made;
        let mib = if self.gpu.is_some() { nature.script_mib(&script, None) } else { 0 };
        let fits = self.gpu.is_none() || mib <= nature.room(self);
        let loads = self.loads.entry((script.clone(), model.clone())).or_default();
        *loads += 1;
        let loads = *loads;
        match nature.host_load() {
            Load::Ready(time) if fits => wants.timers.push((time, Timer::HostReady(id))),
            Load::Ready(time) | Load::Fails(time) => wants.timers.push((time, Timer::HostFails(id))),
        }
        let mib = if fits { mib } else { 0 };
        let pid = self.next_pid();
        let state = HostState::Booting;
        self.hosts.push(Host {
            id,
            script,
            model,
            state,
            busy: None,
            mib,
            pid,
            loads,
            began: now,
            boot_ms: None,
        });
    }

    /// A free host for this key; loads one if fewer are there than may stay, or none at all.
    pub(super) fn free_host(
        &mut self,
        key: &(String, Option<String>),
        now: Millis,
        nature: &mut Nature<'_>,
        wants: &mut Wants,
    ) -> Option<&mut Host> {
        let same = |host: &Host| host.is(&key.0, key.1.as_deref());
        let free = self.hosts.iter().position(|host| same(host) && host.state == HostState::Idle);
        let there = self.hosts.iter().filter(|host| same(host) && !host.is_ending()).count();
        if free.is_none() && !self.is_unloading() && there < self.allowed(key).max(1) {
            self.load_host(key.0.clone(), key.1.clone(), now, nature, wants);
        }
        free.map(|at| &mut self.hosts[at])
    }

    pub(super) fn host_rings(&mut self, now: Millis, timer: &Timer, nature: &Nature<'_>, wants: &mut Wants) {
        let (Timer::HostReady(id) | Timer::HostFails(id) | Timer::HostGone(id)) = *timer else { return };
        let Some(at) = self.hosts.iter().position(|host| host.id == id) else { return };
        match timer {
            Timer::HostReady(_) if self.hosts[at].state == HostState::Booting => {
                let host = &mut self.hosts[at];
                host.state = HostState::Idle;
                host.boot_ms = u64::try_from((now - host.began).0).ok();
            }
            Timer::HostFails(_) if self.hosts[at].state == HostState::Booting => {
                self.hosts[at].state = HostState::Unloading;
                wants.timers.push((Millis(100), Timer::HostGone(id)));
                // One task pays for one failed load.
                let key = (self.hosts[at].script.clone(), self.hosts[at].model.clone());
                let payer = self
                    .attempts
                    .iter()
                    .find(|(_, one)| one.is_waiting() && host_key(nature, one).as_ref() == Some(&key));
                if let Some(payer) = payer.map(|(key, _)| key.clone()) {
                    self.end(&payer, now, Some(model::FailureClass::Crash), false, None);
                }
            }
            Timer::HostGone(_) => drop(self.hosts.remove(at)),
            _ => {}
        }
    }
}
