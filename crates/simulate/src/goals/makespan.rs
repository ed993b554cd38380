//! A batch on idle LLM GPUs, run by our mind in the simulator: the goals M1 to M5.
//!
//! Not here: what it is compared with (`batch_model`).

use model::task::GpuRequirement;
use model::{BatchId, GpuMode, Millis};
use serde_json::json;

use super::batch_model::{
    BatchPolicy, Gpus, HOST_END_S, HOST_LOAD_S, Item, LLM_LOAD_S, SEED, SIMPLE, UNLOAD_S, bound, makespan,
};
use crate::dice::{Dice, Times};
use crate::mind::Mind;
use crate::outcome::{Outcome, SpanKind};
use crate::people::{Arrival, Job, Wish};
use crate::scenario::{Disk, Engines, GpuSpec, Scenario, ScenarioError, WorkSpec};
use crate::sim::Sim;

/// Items of the seed's batch, and how long one runs.
const ITEMS: usize = 125;
const RUN_S: f64 = 45.0;
/// Deviation of the logarithm of what is thought of a length.
const ESTIMATE_SIGMA: f64 = 0.3;
/// When the batch comes: by then every GPU holds an LLM that has nothing to do.
const BATCH_AT_S: f64 = 2_000.0;
/// How long the request runs that each of them is loaded for.
const BEFORE_S: f64 = 10.0;
/// Long after the batch, so that the simulation does not end with it.
const LATE_S: f64 = 30_000.0;
/// Memory of an LLM's file in MiB.
const MODEL_MIB: u32 = 5_600;

/// How unequal the items are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// All alike.
    Constant,
    /// Lognormal, deviation 1.
    Lognormal,
    /// Pareto 1.5.
    Pareto,
    /// One of ten is twenty times as long.
    Bimodal,
}

impl Mix {
    /// The unequal ones.
    pub const UNEQUAL: [Self; 3] = [Self::Lognormal, Self::Pareto, Self::Bimodal];

    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Constant => "alike",
            Self::Lognormal => "lognormal",
            Self::Pareto => "Pareto",
            Self::Bimodal => "bimodal",
        }
    }

    /// A batch, its mean exactly 45 s, with what is thought of each length.
    fn items(self, dice: &mut Dice) -> Vec<Item> {
        let drawn: Vec<f64> = (0..ITEMS)
            .map(|_| match self {
                Self::Constant => 1.0,
                Self::Lognormal => dice.normal().exp(),
                Self::Pareto => (1.0 - dice.unit()).powf(-1.0 / 1.5).min(60.0),
                Self::Bimodal if dice.chance(0.1) => 10.0,
                Self::Bimodal => 0.5,
            })
            .collect();
        let scale = RUN_S * 125.0 / drawn.iter().sum::<f64>();
        let item = |drawn: f64| {
            let run_s = drawn * scale;
            let wrong = if self == Self::Constant { 1.0 } else { (ESTIMATE_SIGMA * dice.normal()).exp() };
            Item { run_s, expected_s: run_s * wrong }
        };
        drawn.into_iter().map(item).collect()
    }
}

/// A machine with a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The GPUs.
    pub gpus: Gpus,
    /// The items.
    pub mix: Mix,
    /// Whether only one LLM can be loaded at a time: each GPU has another model, on one slow disk.
    pub in_turn: bool,
}

/// One batch under every policy, in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// What no policy can beat.
    pub bound: f64,
    /// Ours, until the last LLM was loaded again.
    pub ours: f64,
    /// From the first GPU without an item to the first LLM that could be used.
    pub first_llm: f64,
    /// The seed's policy.
    pub seed: f64,
    /// The simple ones, in their order.
    pub simple: Vec<f64>,
}

/// Why a trial says nothing.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The scenario makes no sense.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// Something was not done.
    #[error("{case} with seed {seed}: {what}")]
    Undone {
        /// Which batch.
        case: String,
        /// Its seed.
        seed: u64,
        /// What was not done.
        what: String,
    },
}

impl Case {
    /// This many GPUs alike.
    #[must_use]
    pub fn alike(gpus: usize, mix: Mix, in_turn: bool) -> Self {
        Self { gpus: Gpus::alike(gpus), mix, in_turn }
    }

    /// What it is called in the table.
    #[must_use]
    pub fn name(&self) -> String {
        let slots: Vec<usize> = self.gpus.0.iter().map(|(slots, _)| *slots).collect();
        let gpus = match slots.iter().all(|slots| *slots == 1) {
            true => format!("{} GPUs", slots.len()),
            false => format!("{slots:?} slots"),
        };
        format!("125 {}, {gpus}", self.mix.name())
    }

    /// Runs it once under every policy.
    ///
    /// # Errors
    /// When an item has not ended or an LLM is not back.
    pub fn trial(&self, seed: u64) -> Result<Trial, TrialError> {
        let items = self.items(seed);
        let outcome = self.sim(seed)?.run();
        let undone = |what: String| TrialError::Undone { case: self.name(), seed, what };
        if let Some(broken) = outcome.broken.first() {
            return Err(undone(format!("a law is broken: {broken}")));
        }
        if outcome.ended(true) != outcome.tasks.len() {
            let failed = outcome.tasks.iter().filter(|(_, story)| story.ended.is_none_or(|(_, well)| !well));
            let failed: Vec<String> = failed.map(|(task_id, _)| task_id.to_string()).collect();
            return Err(undone(format!("not complete: {}", failed.join(", "))));
        }
        let (ours, first_llm) = self.measure(&outcome).map_err(undone)?;
        let took = |policy: BatchPolicy| makespan(policy, &items, &self.gpus);
        Ok(Trial {
            bound: bound(&items, &self.gpus, self.in_turn),
            ours,
            first_llm,
            seed: took(SEED),
            simple: SIMPLE.into_iter().map(took).collect(),
        })
    }

    fn items(&self, seed: u64) -> Vec<Item> {
        self.mix.items(&mut Dice::of(seed, "items"))
    }

    /// One of them under ours, ready to run: also for a picture of it.
    ///
    /// # Errors
    /// When the scenario makes no sense.
    pub fn sim(&self, seed: u64) -> Result<Sim, TrialError> {
        let arrivals = self.arrivals(&self.items(seed));
        Ok(Sim::with_arrivals(self.scenario(seed), arrivals, Mind::Ours)?)
    }

    /// When the last LLM was back, and how long after the first GPU had nothing to do the first one was.
    fn measure(&self, outcome: &Outcome) -> Result<(f64, f64), String> {
        let begin = Millis::from_secs_f64(BATCH_AT_S);
        let late = Millis::from_secs_f64(LATE_S);
        let among = |gpu: usize, kind: SpanKind| {
            let spans = outcome.spans.iter().filter(move |span| span.gpu == Some(gpu) && span.kind == kind);
            spans.filter(move |span| span.to > begin && span.from < late)
        };
        let mut last = begin;
        let mut first = late;
        let mut drained = late;
        for gpu in 0..self.gpus.0.len() {
            if among(gpu, SpanKind::LlmReady).all(|span| span.from > begin) {
                return Err(format!("GPU {gpu} had no LLM before the batch"));
            }
            let Some(back) =
                among(gpu, SpanKind::LlmReady).map(|span| span.from).filter(|at| *at > begin).max()
            else {
                return Err(format!("GPU {gpu} has no LLM after the batch"));
            };
            last = last.max(back);
            first = first.min(back);
            if let Some(end) = among(gpu, SpanKind::Script).map(|span| span.to).max() {
                drained = drained.min(end);
            }
        }
        Ok(((last - begin).as_secs_f64(), (first - drained).as_secs_f64()))
    }

    fn scenario(&self, seed: u64) -> Scenario {
        let alike = self.gpus.0.iter().all(|(slots, _)| *slots == 1);
        let spec = |(slots, speed): &(usize, f64)| {
            // The seed's two cards; where a GPU runs one item at a time, an item needs most of it.
            let mib = match slots {
                1 => 12_000,
                2 => 8_192,
                _ => 12_227,
            };
            GpuSpec { mib, speed: *speed, capability: None }
        };
        let models: serde_json::Map<String, serde_json::Value> = (0..self.gpus.0.len())
            .map(|gpu| (model_name(gpu), json!({ "mib": MODEL_MIB, "parallel": 1 })))
            .collect();
        let names: Vec<String> = models.keys().cloned().collect();
        let need = if alike { 9_000 } else { 3_000 };
        let disk = Disk { mib_per_s: f64::from(MODEL_MIB) / LLM_LOAD_S, cache_mib: 0 };
        let boot = if self.in_turn { 0.0 } else { LLM_LOAD_S };
        Scenario {
            name: self.name(),
            seed,
            duration_s: LATE_S + 100.0,
            gpus: self.gpus.0.iter().map(spec).collect(),
            config: json!({
                "models": models,
                "models_order": names,
                "scripts": { "whisper": { "vram_mib": need, "speed": 1.0 } },
            }),
            engines: Engines {
                boot_other: Times::constant(boot),
                disk: Some(disk).filter(|_| self.in_turn),
                unload: Times::constant(UNLOAD_S),
                host_load: Times::constant(HOST_LOAD_S),
                host_unload: Times::constant(HOST_END_S),
                ..Engines::default()
            },
            ..Scenario::default()
        }
    }

    fn arrivals(&self, items: &[Item]) -> Vec<Arrival> {
        let at = Millis::from_secs_f64;
        let mut all = Vec::new();
        for gpu in 0..self.gpus.0.len() {
            let model = self.in_turn.then(|| model_name(gpu));
            let mut job = job(&format!("before-{gpu}"), &WorkSpec::Llm { model }, BEFORE_S);
            job.task.gpu = GpuRequirement::Key(gpu.to_string());
            all.push(Arrival { at: Millis::ZERO, what: Wish::Task(Box::new(job)) });
        }
        let whisper = WorkSpec::Script { script: "whisper".into(), model: None, cpu: false };
        let batch_id = BatchId::new("batch").expect("a legal name");
        let item = |(n, item): (usize, &Item)| {
            let mut job = job(&format!("batch.{n}"), &whisper, item.run_s);
            job.task.media_s = Some(item.expected_s);
            job.task.batch_id = Some(batch_id.clone());
            job
        };
        let items = items.iter().enumerate().map(item).collect();
        let batch = Wish::Batch {
            batch_id: batch_id.clone(),
            script: "whisper".into(),
            mode: GpuMode::Exclusive,
            items,
        };
        all.push(Arrival { at: at(BATCH_AT_S), what: batch });
        let late = job("late", &WorkSpec::Llm { model: None }, 1.0);
        all.push(Arrival { at: at(LATE_S), what: Wish::Task(Box::new(late)) });
        all
    }
}

fn model_name(gpu: usize) -> String {
    format!("model-{gpu}")
}

fn job(name: &str, work: &WorkSpec, run_s: f64) -> Job {
    Job::new(name, work, Millis::from_secs_f64(run_s)).expect("a legal name")
}
