//! Why something waits: exactly one reason for each waiting thing, as data and as a sentence.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a thing waits. `code()` is stable; `Display` is for people.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences say it")]
pub enum Reason {
    #[error("it is next")]
    Next,
    #[error("{model} is booting on GPU {gpu}, expected ready in {ready_in_s:.0} s")]
    Booting { model: String, gpu: String, ready_in_s: f64 },
    #[error("all {slots} slots of {model} are busy; {ahead} ahead of it")]
    WaitingForSlot { model: String, slots: u32, ahead: u64 },
    #[error("every GPU that could run it is busy; {ahead} ahead of it")]
    WaitingForGpu { ahead: u64 },
    #[error("GPU {gpu} is being freed: its memory is watched until it is free")]
    Cooling { gpu: String },
    #[error("{ahead} tasks of higher priority or earlier arrival go first")]
    Behind { ahead: u64 },
    #[error("exclusive batch `{batch}` has the GPUs ({remaining} items left); LLM tasks wait for its end")]
    HeldByBatch { batch: String, remaining: u64 },
    #[error("exclusive batch `{batch}` waits for {running} running LLM tasks to end")]
    Draining { batch: String, running: u64 },
    #[error(
        "an LLM is loaded on every GPU that could run it, and the backlog of scripts does not yet justify unloading one ({backlog} waiting, evicted above {evict_above})"
    )]
    LlmKept { backlog: u64, evict_above: u64 },
    #[error("it failed and is tried again in {again_in_s:.0} s (attempt {attempt} of {max_attempts})")]
    BackingOff { again_in_s: f64, attempt: u32, max_attempts: u32 },
    #[error("it is not to start before {in_s:.0} s from now")]
    NotBefore { in_s: f64 },
    #[error("no GPU here is {wanted}; it waits for one")]
    NoSuchGpu { wanted: String },
    #[error("no GPU here can hold it: it needs {needs}, the largest has {largest}")]
    DoesNotFit { needs: String, largest: String },
    #[error("no engine can serve it: {detail}")]
    NoEngine { detail: String },
    #[error("no worker is there yet for a GPU that could run it")]
    NoWorker,
    #[error("all {slots} slots of the CPU lane are busy; {ahead} ahead of it")]
    CpuLaneFull { slots: u32, ahead: u64 },
    #[error("the machine is being shut down")]
    ShuttingDown,
    #[error("its file is not complete or was written moments ago: {detail}")]
    Settling { detail: String },
    #[error("it stays where it is: {detail}")]
    Held { detail: String },
    #[error("it runs on GPU {gpu} since {for_s:.0} s")]
    Running { gpu: String, for_s: f64 },
}

impl Reason {
    /// The machine-readable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Booting { .. } => "booting",
            Self::WaitingForSlot { .. } => "waiting_for_slot",
            Self::WaitingForGpu { .. } => "waiting_for_gpu",
            Self::Cooling { .. } => "cooling",
            Self::Behind { .. } => "behind",
            Self::HeldByBatch { .. } => "held_by_batch",
            Self::Draining { .. } => "draining",
            Self::LlmKept { .. } => "llm_kept",
            Self::BackingOff { .. } => "backing_off",
            Self::NotBefore { .. } => "not_before",
            Self::NoSuchGpu { .. } => "no_such_gpu",
            Self::DoesNotFit { .. } => "does_not_fit",
            Self::NoEngine { .. } => "no_engine",
            Self::NoWorker => "no_worker",
            Self::CpuLaneFull { .. } => "cpu_lane_full",
            Self::ShuttingDown => "shutting_down",
            Self::Settling { .. } => "settling",
            Self::Held { .. } => "held",
            Self::Running { .. } => "running",
        }
    }

    /// The reason as it stands in files and answers.
    #[must_use]
    pub fn told(&self) -> ReasonTold {
        ReasonTold { code: self.code().to_owned(), text: self.to_string() }
    }
}

/// A reason in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReasonTold {
    /// Machine-readable name.
    pub code: String,
    /// The sentence.
    pub text: String,
}
