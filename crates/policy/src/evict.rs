//! When a loaded LLM makes room for scripts, as a question that a rule answers: facts in, a ruling out.
//!
//! The plan keeps to what no rule may break: it offers no LLM that is pinned, reserved for chat or loaded too recently,
//! and none whose GPU could not run one of the waiting scripts then. Not here: gathering the facts and doing it
//! (`plan::evict`).

pub(crate) mod cost_benefit;
mod thresholds;

use model::config::EvictionPolicy;
use model::{GpuUuid, Millis};

use crate::rate::Rate;

pub use cost_benefit::CostBenefit;
pub use thresholds::Thresholds;

/// A rule of eviction.
pub trait Judge {
    /// Which LLM makes room now, or until when none does. Asked again after each fact and at the ruling's `again_at`.
    fn rule(&self, facts: &EvictionFacts) -> Ruling;
}

/// Everything a rule may look at. "Waiting" leaves out those for whom room is already on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct EvictionFacts {
    /// The moment.
    pub now: Millis,
    /// The settings.
    pub policy: EvictionPolicy,
    /// The script tasks that wait for a GPU.
    pub scripts: ScriptsWaiting,
    /// GPUs without an LLM that could run the script that waits longest, those that are being freed included.
    pub script_gpus: u64,
    /// LLM tasks that wait.
    pub llms_waiting: u64,
    /// GPUs with an LLM that is loaded, pinned ones included.
    pub ready_llms: u64,
    /// GPUs whose LLM is loading.
    pub booting_llms: u64,
    /// GPUs whose LLM is loaded and runs nothing.
    pub idle_llms: u64,
    /// Requests that an LLM serves at once; the least of those that are loaded.
    pub llm_slots: u64,
    /// How often LLM requests come, as of late.
    pub requests: Rate,
    /// When that is another rate, if none comes.
    pub rate_until: Option<Millis>,
    /// What a request takes on average.
    pub request_time: Millis,
    /// Since when no request has come; none where none ever did.
    pub since_request: Option<Millis>,
    /// What it takes until an unloaded GPU is free.
    pub unload_time: Millis,
    /// What the script that waits longest takes to load.
    pub host_load: Millis,
    /// LLMs that may go: not pinned, not reserved for chat, loaded long enough ago. The first one is the one that
    /// should, where nothing else tells them apart: idle ones before busy ones, the lowest credit first.
    pub candidates: Vec<Candidate>,
}

/// Script tasks that wait for a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScriptsWaiting {
    /// How many.
    pub count: u64,
    /// What one takes on average.
    pub mean_time: Millis,
    /// What all of them take, one after the other.
    pub total_time: Millis,
    /// How long all of them have waited, added up.
    pub waited: Millis,
    /// How long the line that waits longest has waited without one of it starting.
    pub longest_wait: Millis,
}

/// An LLM that may go.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its GPU.
    pub uuid: GpuUuid,
    /// The GPU's key in the picture.
    pub gpu: String,
    /// The model.
    pub model: String,
    /// Requests that run on it; it drains first if it is chosen.
    pub running: u64,
    /// When the last of them should end.
    pub free_at: Millis,
    /// Since when it has run nothing.
    pub idle_since: Millis,
    /// What it takes to load it again.
    pub reload_time: Millis,
    /// What is left of its credit for each MiB, in weighted milliseconds a GiB: the lower, the sooner it goes.
    pub credit: u64,
    /// Whether its GPU is meant for something else than this model.
    pub misplaced: bool,
}

impl Candidate {
    /// Whether it runs nothing.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.running == 0
    }
}

/// The answer of a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Ruling {
    /// This one makes room: at once if it is idle, else it gets no further requests and goes when they have ended.
    Evict(Eviction),
    /// None does.
    Keep(Keeping),
}

/// An LLM makes room.
#[derive(Clone, Debug, PartialEq)]
pub struct Eviction {
    /// Its place among the candidates.
    pub victim: usize,
    /// By which rule, for the sentence about it.
    pub rule: &'static str,
    /// What the scripts gain, in seconds of waiting.
    pub benefit_s: f64,
    /// What the requests lose, in weighted seconds of waiting.
    pub cost_s: f64,
    /// Whether it goes even before requests that wait already, because scripts have waited to the bound.
    pub firm: bool,
}

/// No LLM makes room yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Keeping {
    /// What the scripts would gain, in seconds of waiting.
    pub benefit_s: f64,
    /// What the requests would lose, in weighted seconds of waiting.
    pub cost_s: f64,
    /// When time alone could change the answer.
    pub again_at: Option<Millis>,
    /// When one goes at the latest, if nothing else changes.
    pub latest: Option<Millis>,
}

impl Ruling {
    /// None makes room, and nothing but another fact changes that.
    #[must_use]
    pub fn keep() -> Self {
        Self::Keep(Keeping::default())
    }

    /// This candidate makes room.
    #[must_use]
    pub const fn evict(victim: usize, rule: &'static str, benefit_s: f64, cost_s: f64) -> Self {
        Self::Evict(Eviction { victim, rule, benefit_s, cost_s, firm: false })
    }
}
