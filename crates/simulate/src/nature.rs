//! What things cost and how they end: drawn from the scenario, the same for every policy.
//!
//! How an attempt ends hangs on seed, task and attempt alone, never on when or where it runs. Not here: what is wanted.

use std::collections::BTreeMap;

use model::config::HostKind;
use model::config::ModelEntry;
use model::link::{AttemptOrder, StopWhy};
use model::task::{Script, Work};
use model::{AttemptKey, Config, FailureClass, Millis, Task, TaskId};
use serde_json::Value;

use crate::arm::Arm;
use crate::dice::Dice;
use crate::people::Job;
use crate::scenario::{Faults, Scenario};

/// Memory of a script of which nothing is known, in MiB.
const UNKNOWN_SCRIPT_MIB: u64 = 1_000;
/// Memory of an LLM of which nothing is known, in MiB.
const UNKNOWN_MODEL_MIB: u64 = 5_000;
/// How long what runs takes to end when it is told to.
const OBEYS_IN: Millis = Millis(100);

/// What things cost at one moment.
pub(crate) struct Nature<'a> {
    pub scenario: &'a Scenario,
    pub config: &'a Config,
    pub jobs: &'a BTreeMap<TaskId, Job>,
    pub dice: &'a mut Dice,
    /// MiB that programs of other people hold, by GPU.
    pub foreign: &'a [u64],
    /// What goes wrong now; none once faults are off.
    pub faults: Option<&'a Faults>,
}

/// How a boot goes.
pub(crate) enum Boot {
    Ready(Millis),
    Fails(Millis),
    Hangs,
}

/// How the load of a host goes.
pub(crate) enum Load {
    Ready(Millis),
    Fails(Millis),
}

/// How an attempt ends, left to itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    Ends,
    /// After this share of its time.
    Fails(FailureClass, f64),
    Hangs,
}

impl Nature<'_> {
    pub(crate) fn boot(&mut self, model: &str) -> Boot {
        let time = self.boot_time(model);
        let Some(faults) = self.faults else { return Boot::Ready(time) };
        if self.dice.chance(faults.boot_hangs) {
            Boot::Hangs
        } else if self.dice.chance(faults.boot_fails) {
            Boot::Fails(time)
        } else {
            Boot::Ready(time)
        }
    }

    pub(crate) fn boot_time(&mut self, model: &str) -> Millis {
        let engines = &self.scenario.engines;
        engines.boot.get(model).unwrap_or(&engines.boot_other).draw(self.dice)
    }

    pub(crate) const fn reads_files(&self) -> bool {
        self.scenario.engines.disk.is_some()
    }

    pub(crate) fn unload(&mut self) -> Millis {
        self.scenario.engines.unload.draw(self.dice)
    }

    pub(crate) fn host_load(&mut self) -> Load {
        let time = self.scenario.engines.host_load.draw(self.dice);
        match self.faults {
            Some(faults) if self.dice.chance(faults.host_fails) => Load::Fails(time),
            _ => Load::Ready(time),
        }
    }

    pub(crate) fn host_unload(&mut self) -> Millis {
        self.scenario.engines.host_unload.draw(self.dice)
    }

    pub(crate) fn once_start(&mut self) -> Millis {
        self.scenario.engines.once_start.draw(self.dice)
    }

    pub(crate) fn cpu_slots(&self) -> u32 {
        self.config.cpu_slots.set().copied().unwrap_or(1).max(1)
    }

    /// The key of a warm host of this script; none where it is not one.
    pub(crate) fn warm_key(&self, script: &str, model: Option<&String>) -> Option<(String, Option<String>)> {
        let entry = self.config.scripts.get(script).filter(|entry| entry.host == HostKind::Warm)?;
        let keyed = entry.key.iter().any(|field| field == "model");
        Some((script.to_owned(), model.or(entry.model.as_ref()).filter(|_| keyed).cloned()))
    }

    // ------------------------------------------------------------------------------------------ memory

    pub(crate) fn model_mib(&self, model: &str) -> u64 {
        self.config.models.get(model).and_then(|entry| entry.mib).unwrap_or(UNKNOWN_MODEL_MIB)
    }

    /// What it takes on each of its GPUs.
    pub(crate) fn share_mib(&self, model: &str) -> u64 {
        self.config.models.get(model).and_then(ModelEntry::share_mib).unwrap_or(UNKNOWN_MODEL_MIB)
    }

    pub(crate) fn script_mib(&self, script: &str, stated: Option<u64>) -> u64 {
        let known = self.config.scripts.get(script).and_then(|entry| entry.vram_mib);
        stated.or(known).unwrap_or(UNKNOWN_SCRIPT_MIB)
    }

    pub(crate) fn task_mib(&self, task: &Task) -> u64 {
        match &task.work {
            Work::Llm(_) => 0,
            Work::Script(work) => match &work.script {
                Script::Registered(name) => self.script_mib(name, task.needs.vram_mib),
                Script::File(_) => task.needs.vram_mib.unwrap_or(UNKNOWN_SCRIPT_MIB),
            },
        }
    }

    /// MiB that are free on the GPU of a worker.
    pub(crate) fn room(&self, arm: &Arm) -> u64 {
        let Some(gpu) = arm.gpu else { return u64::MAX };
        let total = self.scenario.gpus.get(gpu).map_or(0, |spec| spec.mib);
        let foreign = self.foreign.get(gpu).copied().unwrap_or(0);
        total.saturating_sub(foreign).saturating_sub(arm.held_mib())
    }

    // ------------------------------------------------------------------------------------------ attempts

    fn speed(&self, gpu: Option<usize>) -> f64 {
        let spec = gpu.and_then(|gpu| self.scenario.gpus.get(gpu));
        spec.map_or(1.0, |spec| if spec.speed > 0.0 { spec.speed } else { 1.0 })
    }

    /// How long an attempt runs that goes on after `before`.
    pub(crate) fn takes(&self, key: &AttemptKey, before: Millis, gpu: Option<usize>) -> Millis {
        let run = self.jobs.get(&key.task_id).map_or(Millis(1_000), |job| job.run);
        let left = (run - before).as_secs_f64().max(0.0);
        Millis::from_secs_f64(left / self.speed(gpu)).max(Millis(1))
    }

    /// Work done in a time on a GPU, as if at speed 1.
    pub(crate) fn work_done(&self, gpu: Option<usize>, time: Millis) -> Millis {
        Millis::from_secs_f64(time.as_secs_f64() * self.speed(gpu))
    }

    /// The time limit that the worker keeps.
    pub(crate) fn limit_of(&self, task: &Task) -> Option<Millis> {
        let seconds = match &task.work {
            Work::Llm(_) => Some(task.timeout_s.unwrap_or(600.0)),
            Work::Script(_) => task.timeout_s.or(Some(self.config.timing.script_timeout_s)),
        };
        seconds.filter(|seconds| *seconds > 0.0).map(Millis::from_secs_f64)
    }

    pub(crate) fn fate(&self, key: &AttemptKey) -> Fate {
        let Some(faults) = self.faults else { return Fate::Ends };
        let mut of_task = Dice::of(self.scenario.seed, key.task_id.as_str());
        if of_task.chance(faults.bad_input) {
            return Fate::Fails(FailureClass::BadInput, 0.1);
        }
        let mut dice = Dice::new(of_task.throw() ^ u64::from(key.attempt));
        let share = dice.unit();
        let limited = self.jobs.get(&key.task_id).is_some_and(|job| self.limit_of(&job.task).is_some());
        let kinds = [
            (faults.crash, FailureClass::Crash),
            (faults.oom, FailureClass::Oom),
            (faults.gpu_fault, FailureClass::GpuFault),
        ];
        for (rate, class) in kinds {
            if dice.chance(rate) {
                return Fate::Fails(class, share);
            }
        }
        if limited && dice.chance(faults.hangs) { Fate::Hangs } else { Fate::Ends }
    }

    /// How long it takes until an attempt has obeyed a stop; `done` is the work behind it.
    pub(crate) fn obeys_in(
        &self,
        order: &AttemptOrder,
        why: StopWhy,
        done: Millis,
        gpu: Option<usize>,
    ) -> Millis {
        let boundary = self.jobs.get(&order.task_id).and_then(|job| job.boundary).filter(|b| b.0 > 0);
        match (why, boundary) {
            (StopWhy::Yield, Some(boundary)) => {
                let left = boundary.0 - done.0.rem_euclid(boundary.0);
                OBEYS_IN + Millis::from_secs_f64(Millis(left).as_secs_f64() / self.speed(gpu))
            }
            _ => OBEYS_IN,
        }
    }

    /// Whether a task has points at which it can give way.
    pub(crate) fn yields(&self, task_id: &TaskId) -> bool {
        self.jobs.get(task_id).is_some_and(|job| job.boundary.is_some())
    }

    /// What a script that ends after this much work says of where it can go on.
    pub(crate) fn checkpoint_at(&self, key: &AttemptKey, done: Millis) -> Option<Value> {
        let boundary = self.jobs.get(&key.task_id)?.boundary.filter(|boundary| boundary.0 > 0)?;
        let whole = done.0 / boundary.0 * boundary.0;
        (whole > 0).then(|| serde_json::json!({ "done_ms": whole }))
    }

    /// The work that lies behind a task.
    pub(crate) fn checkpoint_of(&self, task: &Task) -> Millis {
        let done = task.checkpoint.as_ref().and_then(|checkpoint| checkpoint.get("done_ms"));
        Millis(done.and_then(Value::as_i64).unwrap_or(0))
    }
}
