//! Requests and scripts through a day, run by our mind and the simple ones in the simulator: the goal E1.
//!
//! The same arrivals also go through the small model, for the one that knows the future and for what no policy can
//! beat. Not here: that model (`online_model`).

use model::Millis;
use model::task::GpuRequirement;
use serde_json::json;

use super::batch_model::{HOST_END_S, HOST_LOAD_S, LLM_LOAD_S, UNLOAD_S};
use super::makespan::TrialError;
use super::online_model::{OnlinePolicy, Waited, Work, bound, run};
use crate::dice::{Dice, Times};
use crate::mind::Mind;
use crate::people::{Arrival, Job, Wish};
use crate::scenario::{Engines, GpuSpec, Scenario, WorkSpec};
use crate::sim::Sim;

/// When people come: by then every GPU holds an LLM that has nothing to do.
const BEGIN_S: f64 = 1_500.0;
/// How long the request runs that each LLM is loaded for before.
const BEFORE_S: f64 = 10.0;
/// A wait beyond this is one that nobody ended: some hours more than any of the specification's policies needs.
const STRANDED_S: f64 = 6.0 * 3_600.0;

/// How much people want.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Day {
    /// What it is called.
    pub name: &'static str,
    /// Seconds from one request to the next.
    pub request_every_s: f64,
    /// Whether requests come by day and hardly by night; a day is an hour.
    pub by_day: bool,
    /// Bursts of scripts in an hour, and what their size is measured by.
    pub bursts: (f64, f64),
}

/// The four of the specification.
pub const DAYS: [Day; 4] = [
    Day { name: "light", request_every_s: 60.0, by_day: false, bursts: (1.5, 15.0) },
    Day { name: "busy", request_every_s: 8.0, by_day: false, bursts: (1.5, 15.0) },
    Day { name: "day and night", request_every_s: 12.0, by_day: true, bursts: (2.0, 10.0) },
    Day { name: "sparse", request_every_s: 600.0, by_day: false, bursts: (12.0, 3.0) },
];

/// What a second of a request counts against one of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// As much: they are ordinary tasks.
    Tasks,
    /// Ten times as much: a person waits.
    Chat,
}

impl Asks {
    /// That weight.
    #[must_use]
    pub const fn weight(self) -> f64 {
        match self {
            Self::Tasks => 1.0,
            Self::Chat => 10.0,
        }
    }
}

/// Waits of one day under every policy, in hours; requests count by their weight.
#[derive(Clone, Debug, PartialEq)]
pub struct DayTrial {
    /// Under each of these minds in the simulator, ours first.
    pub minds: Vec<(Mind, f64)>,
    /// With the best fixed number of GPUs for scripts, chosen afterwards.
    pub best_static: f64,
    /// Of the one that knows the next hour.
    pub foresight: f64,
    /// What no policy can beat.
    pub bound: f64,
    /// The longest wait under ours, in seconds.
    pub longest_s: f64,
}

/// A day on a machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DayCase {
    /// What people want.
    pub day: Day,
    /// GPUs, all alike.
    pub gpus: usize,
    /// What the requests are.
    pub asks: Asks,
    /// How long people come, in hours.
    pub hours: f64,
}

impl DayCase {
    /// What it is called in the table.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}, {} GPUs", self.day.name, self.gpus)
    }

    /// Runs it once under every policy.
    ///
    /// # Errors
    /// When a law is broken or a task has not ended.
    pub fn trial(&self, seed: u64, minds: &[Mind]) -> Result<DayTrial, TrialError> {
        let (requests, scripts) = self.works(seed);
        let hours = |waited: &Waited| waited.total(self.asks.weight()) / 3_600.0;
        let small = |policy| hours(&run(policy, self.gpus, &requests, &scripts));
        let splits = (1..self.gpus).map(|scripts| small(OnlinePolicy::Never { scripts }));
        let mut trial = DayTrial {
            minds: Vec::new(),
            best_static: splits.fold(f64::INFINITY, f64::min),
            foresight: small(OnlinePolicy::Foresight { weight: self.asks.weight() }),
            bound: hours(&bound(self.gpus, &requests, &scripts)),
            longest_s: 0.0,
        };
        for mind in minds {
            let (waited, longest_s) = self.simulate(seed, *mind)?;
            if *mind == Mind::Ours {
                trial.longest_s = longest_s;
            }
            trial.minds.push((*mind, hours(&waited)));
        }
        Ok(trial)
    }

    /// Lognormal runs of 10 s and 45 s in the mean, as the specification draws them.
    fn works(&self, seed: u64) -> (Vec<Work>, Vec<Work>) {
        let end = self.hours * 3_600.0;
        let mut dice = Dice::of(seed, "requests");
        let (mut requests, mut at) = (Vec::new(), 0.0);
        loop {
            let day = (std::f64::consts::TAU * at / 3_600.0).sin() > 0.0;
            let rate = if !self.day.by_day {
                1.0
            } else if day {
                1.8
            } else {
                0.2
            };
            at += dice.exponential(self.day.request_every_s / rate);
            if at > end {
                break;
            }
            requests.push(Work { at, run: lasts(&mut dice, 10.0).max(0.5) });
        }
        let mut dice = Dice::of(seed, "scripts");
        let (mut scripts, mut at) = (Vec::new(), 0.0);
        let (per_hour, size) = self.day.bursts;
        loop {
            at += dice.exponential(3_600.0 / per_hour);
            if at > end {
                break;
            }
            let drawn = (1.0 - dice.unit()).powf(-1.0 / 1.3) * size * 0.35;
            let mut left = drawn.floor().clamp(1.0, 200.0);
            while left >= 1.0 {
                scripts.push(Work { at: at + dice.unit(), run: lasts(&mut dice, 45.0).max(2.0) });
                left -= 1.0;
            }
        }
        scripts.sort_by(|a, b| a.at.total_cmp(&b.at));
        (requests, scripts)
    }

    fn simulate(&self, seed: u64, mind: Mind) -> Result<(Waited, f64), TrialError> {
        let undone = |what: String| TrialError::Undone {
            case: format!("{} under {}", self.name(), mind.name()),
            seed,
            what,
        };
        let outcome = self.sim(seed, mind)?.run();
        // The simple minds leave tasks behind, or let them wait for ever: that is what they are shown for.
        if let Some(broken) = outcome.broken.first().filter(|_| mind == Mind::Ours) {
            return Err(undone(format!("a law is broken: {broken}")));
        }
        let took = outcome.took;
        let waits = |kind: &str| -> Vec<f64> {
            let of_kind = outcome.tasks.iter().filter(|(task_id, _)| task_id.as_str().starts_with(kind));
            of_kind.map(|(_, story)| story.wait().unwrap_or(took - story.arrived).as_secs_f64()).collect()
        };
        let waited = Waited { requests: waits("request"), scripts: waits("script") };
        let longest = waited.requests.iter().chain(&waited.scripts).copied().fold(0.0, f64::max);
        if mind == Mind::Ours && longest > STRANDED_S {
            return Err(undone(format!("a task waited for {longest:.0} s")));
        }
        Ok((waited, longest))
    }

    /// One of them under this mind, ready to run: also for a picture of it.
    ///
    /// # Errors
    /// When the scenario makes no sense.
    pub fn sim(&self, seed: u64, mind: Mind) -> Result<Sim, TrialError> {
        let (requests, scripts) = self.works(seed);
        let arrivals = self.arrivals(&requests, &scripts);
        Ok(Sim::with_arrivals(self.scenario(seed), arrivals, mind)?)
    }

    fn scenario(&self, seed: u64) -> Scenario {
        Scenario {
            name: self.name(),
            seed,
            duration_s: self.hours.mul_add(3_600.0, BEGIN_S),
            settle_s: 24.0 * 3_600.0,
            gpus: vec![GpuSpec { mib: 12_000, ..GpuSpec::default() }; self.gpus],
            config: json!({
                "models": { "qwen2.5:14b": { "mib": 100_000 }, "qwen2.5:7b": { "mib": 5_600, "parallel": 1 } },
                "models_order": ["qwen2.5:7b"],
                "resource_manager": { "eviction_policy": { "chat_weight": self.asks.weight() } },
                "scripts": { "whisper": { "vram_mib": 9_000 } },
            }),
            engines: Engines {
                boot_other: Times::constant(LLM_LOAD_S),
                unload: Times::constant(UNLOAD_S),
                host_load: Times::constant(HOST_LOAD_S),
                host_unload: Times::constant(HOST_END_S),
                ..Engines::default()
            },
            ..Scenario::default()
        }
    }

    fn arrivals(&self, requests: &[Work], scripts: &[Work]) -> Vec<Arrival> {
        let llm = WorkSpec::Llm { model: None };
        let whisper = WorkSpec::Script { script: "whisper".into(), model: None, cpu: false };
        let mut all = Vec::new();
        for gpu in 0..self.gpus {
            // One for each GPU, as short as the others: nothing is learned from it that does not hold later.
            let mut job = job(&format!("before-{gpu}"), &llm, BEFORE_S);
            job.task.gpu = GpuRequirement::Key(gpu.to_string());
            all.push(Arrival { at: Millis::ZERO, what: Wish::Task(Box::new(job)) });
        }
        let mut add = |kind: &str, works: &[Work], spec: &WorkSpec| {
            for (n, work) in works.iter().enumerate() {
                let mut job = job(&format!("{kind}-{n}"), spec, work.run);
                if self.asks == Asks::Chat && kind == "request" {
                    job.task.job_type = "chatbot".into();
                }
                let at = Millis::from_secs_f64(BEGIN_S + work.at);
                all.push(Arrival { at, what: Wish::Task(Box::new(job)) });
            }
        };
        add("request", requests, &llm);
        add("script", scripts, &whisper);
        all.sort_by_key(|arrival| arrival.at);
        all
    }
}

fn lasts(dice: &mut Dice, mean: f64) -> f64 {
    mean * (0.8f64.mul_add(dice.normal(), -0.32)).exp()
}

fn job(name: &str, work: &WorkSpec, run_s: f64) -> Job {
    Job::new(name, work, Millis::from_secs_f64(run_s)).expect("a legal name")
}
