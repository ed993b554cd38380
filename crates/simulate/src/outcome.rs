//! What came of a run: who waited how long, what was loaded when, and which laws were broken.
//!
//! Not here: how it is shown (`table`, `gantt`).

mod record;

use std::collections::BTreeMap;

use model::{BatchId, Millis, TaskClass, TaskId};

use crate::check::Broken;
use crate::mind::Mind;
use crate::sim::{BEGIN, Sim};

pub(crate) use record::Record;

/// Names of the numbers that a scenario file may state bounds for.
pub const NUMBERS: [&str; 18] = [
    "tasks",
    "complete",
    "failed",
    "makespan_s",
    "restored_s",
    "llm_wait_mean_s",
    "llm_wait_p50_s",
    "llm_wait_p99_s",
    "chat_wait_p50_s",
    "chat_wait_p99_s",
    "script_wait_mean_s",
    "script_wait_p50_s",
    "script_wait_p99_s",
    "wait_max_s",
    "wait_total_h",
    "loads",
    "evictions",
    "host_loads",
];

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Name of the scenario.
    pub scenario: String,
    /// Which policy decided.
    pub mind: Mind,
    /// The seed.
    pub seed: u64,
    /// How long it took, from its beginning.
    pub took: Millis,
    /// Laws that were broken.
    pub broken: Vec<Broken>,
    /// Every task.
    pub tasks: BTreeMap<TaskId, Story>,
    /// What was on which GPU when.
    pub spans: Vec<Span>,
    /// Loads of LLMs that were begun.
    pub loads: u64,
    /// Ready LLMs that were told to go.
    pub evictions: u64,
    /// Loads of script hosts that were begun.
    pub host_loads: u64,
    /// Plans that were made.
    pub plans: u64,
    /// Faults that came.
    pub faults: u64,
    /// The longest that a task waited for its start, as far as one brain knew.
    pub longest_wait: Millis,
    /// Impossible things that the last mind has counted, by name.
    pub anomalies: BTreeMap<&'static str, u64>,
    /// The story as text, where it was asked for.
    pub story: String,
}

/// What became of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Story {
    /// Its class.
    pub class: TaskClass,
    /// Its job type.
    pub job_type: String,
    /// Its batch.
    pub batch: Option<BatchId>,
    /// When it was dropped.
    pub arrived: Millis,
    /// When it first ran.
    pub began: Option<Millis>,
    /// When its record was there, and whether it is complete.
    pub ended: Option<(Millis, bool)>,
    /// Attempts that ran.
    pub runs: u32,
    /// Somebody cancelled it.
    pub cancelled: bool,
}

impl Story {
    /// How long it waited for its first run; for its end, where it never ran.
    #[must_use]
    pub fn wait(&self) -> Option<Millis> {
        let until = self.began.or(self.ended.map(|(at, _)| at))?;
        Some(until - self.arrived)
    }
}

/// Something on a GPU, or in the CPU lane, for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The GPU's number; none in the CPU lane.
    pub gpu: Option<usize>,
    /// Which of the things that are there at once.
    pub lane: u32,
    /// Since when, from the beginning.
    pub from: Millis,
    /// Until when.
    pub to: Millis,
    /// What.
    pub kind: SpanKind,
    /// Its name: a task, a model, a script.
    pub label: String,
}

/// What a span shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpanKind {
    /// An LLM loads.
    LlmLoads,
    /// An LLM is loaded.
    LlmReady,
    /// An LLM goes.
    LlmGoes,
    /// A script host loads.
    HostLoads,
    /// A chatbot's request.
    Chat,
    /// Another request to an LLM.
    Request,
    /// A script.
    Script,
    /// The GPU is lost.
    Lost,
}

/// Waits of some tasks, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Waits {
    /// How many.
    pub count: usize,
    /// Their sum.
    pub total: f64,
    /// The mean.
    pub mean: f64,
    /// Half wait no longer.
    pub p50: f64,
    /// All but one of a hundred wait no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Waits {
    /// Of these, in any order.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "no run has that many tasks")]
    pub fn of(mut waits: Vec<f64>) -> Self {
        if waits.is_empty() {
            return Self::default();
        }
        waits.sort_by(f64::total_cmp);
        let count = waits.len();
        let at = |share: usize| waits[(count * share).div_ceil(100).max(1) - 1];
        let total: f64 = waits.iter().sum();
        Self { count, total, mean: total / count as f64, p50: at(50), p99: at(99), max: at(100) }
    }
}

impl Outcome {
    pub(crate) fn of(sim: Sim) -> Self {
        Self {
            scenario: sim.scenario.name.clone(),
            mind: sim.mind,
            seed: sim.scenario.seed,
            took: sim.now - BEGIN,
            longest_wait: sim.checks.longest_wait(),
            broken: sim.checks.into_broken(),
            loads: sim.record.loads,
            evictions: sim.record.evictions,
            host_loads: sim.record.host_loads,
            plans: sim.record.plans,
            faults: sim.record.faults,
            anomalies: sim.world.anomalies().clone(),
            story: sim.trace.into_text(),
            spans: sim.record.spans,
            tasks: sim.record.tasks,
        }
    }

    /// Waits of the tasks for which `wanted` holds; cancelled ones left out.
    #[must_use]
    pub fn waits(&self, wanted: impl Fn(&Story) -> bool) -> Waits {
        let among = self.tasks.values().filter(|story| !story.cancelled && wanted(story));
        Waits::of(among.filter_map(Story::wait).map(Millis::as_secs_f64).collect())
    }

    /// From the first arrival to the last end.
    #[must_use]
    pub fn makespan(&self) -> Millis {
        let first = self.tasks.values().map(|story| story.arrived).min().unwrap_or_default();
        let last = self.tasks.values().filter_map(|story| story.ended).map(|(at, _)| at).max();
        last.unwrap_or(first) - first
    }

    /// From the first arrival until, after the last end, the last load of an LLM is over as well.
    #[must_use]
    pub fn restored(&self) -> Millis {
        let first = self.tasks.values().map(|story| story.arrived).min().unwrap_or_default();
        let loads = self.spans.iter().filter(|span| span.kind == SpanKind::LlmLoads).map(|span| span.to);
        loads.max().map_or(self.makespan(), |at| (at - first).max(self.makespan()))
    }

    /// How many ended so.
    #[must_use]
    pub fn ended(&self, complete: bool) -> usize {
        self.tasks.values().filter(|story| story.ended.is_some_and(|(_, how)| how == complete)).count()
    }

    /// The numbers that a scenario file may state bounds for, by name ([`NUMBERS`]).
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    pub fn numbers(&self) -> BTreeMap<&'static str, f64> {
        let llm = self.waits(|story| story.class == TaskClass::Llm);
        let chat = self.waits(|story| story.job_type == "chatbot");
        let script = self.waits(|story| story.class == TaskClass::Script);
        let all = self.waits(|_| true);
        BTreeMap::from([
            ("tasks", self.tasks.len() as f64),
            ("complete", self.ended(true) as f64),
            ("failed", self.ended(false) as f64),
            ("makespan_s", self.makespan().as_secs_f64()),
            ("restored_s", self.restored().as_secs_f64()),
            ("llm_wait_mean_s", llm.mean),
            ("llm_wait_p50_s", llm.p50),
            ("llm_wait_p99_s", llm.p99),
            ("chat_wait_p50_s", chat.p50),
            ("chat_wait_p99_s", chat.p99),
            ("script_wait_mean_s", script.mean),
            ("script_wait_p50_s", script.p50),
            ("script_wait_p99_s", script.p99),
            ("wait_max_s", all.max),
            ("wait_total_h", all.total / 3_600.0),
            ("loads", self.loads as f64),
            ("evictions", self.evictions as f64),
            ("host_loads", self.host_loads as f64),
        ])
    }
}
