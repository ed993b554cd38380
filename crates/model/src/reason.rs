//! Why something waits: exactly one reason for each waiting thing, as data and as a sentence.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::TaskId;
use crate::time::span;

/// How many go before a waiting thing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ahead {
    /// How many.
    pub count: u64,
    /// In how many seconds nothing that comes later goes before it any more, but chatbots and other job types at their
    /// turn; none where waiting raises nothing.
    pub only_older_in_s: Option<f64>,
}

impl fmt::Display for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ahead of it", self.count)?;
        match self.only_older_in_s {
            _ if self.count == 0 => Ok(()),
            None => Ok(()),
            Some(s) if s <= 0.0 => {
                f.write_str(", only chatbots, older tasks, or other job types at their turn")
            }
            Some(s) => {
                let minutes = (s / 60.0).ceil();
                write!(
                    f,
                    ", in {minutes:.0} min at most only chatbots, older tasks, or other job types at their turn"
                )
            }
        }
    }
}

/// Why a thing waits. `code()` is stable; `Display` is for people.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences say it")]
pub enum Reason {
    #[error("it is next")]
    Next,
    #[error("{model} is booting on GPU {gpu}, expected ready in {}", span(*ready_in_s))]
    Booting { model: String, gpu: String, ready_in_s: f64 },
    #[error("all {slots} slots of {model} are busy; {ahead}")]
    WaitingForSlot { model: String, slots: u32, ahead: Ahead },
    #[error("every GPU that could run it is busy; {ahead}")]
    WaitingForGpu { ahead: Ahead },
    #[error("{task} on GPU {gpu} gives way to it at its next boundary")]
    WaitingForYield { task: String, gpu: String },
    #[error("GPU {gpu} is being freed: its memory is watched until it is free")]
    Cooling { gpu: String },
    #[error("there is room for others first; {ahead}")]
    Behind { ahead: Ahead },
    #[error(
        "it is the turn of `{next}` ({next_starts} starts so far, weight {next_weight}); `{job_type}` has had {starts}, weight {weight}"
    )]
    NotItsTurn {
        job_type: String,
        starts: u64,
        weight: u32,
        next: String,
        next_starts: u64,
        next_weight: u32,
    },
    #[error(
        "`{job_type}` has started {limit} times in a row, and by `strict_consecutive` another job type has to start before the next one"
    )]
    TooManyInARow { job_type: String, limit: u32 },
    #[error("{task} runs on GPU {gpu}, and `gpu_lock` is `single`; {ahead}")]
    Locked { task: TaskId, gpu: String, ahead: Ahead },
    #[error("exclusive batch `{batch}` has the GPUs ({remaining} items left); LLM tasks wait for its end")]
    HeldByBatch { batch: String, remaining: u64 },
    #[error("exclusive batch `{batch}` lends GPU {gpu} to chatbots, free in {}", span(*free_in_s))]
    LentToChat { batch: String, gpu: String, free_in_s: f64 },
    #[error("exclusive batch `{batch}` waits for {running} running LLM tasks to end")]
    Draining { batch: String, running: u64 },
    #[error("batch `{batch}` is paused; `gpuspool resume {batch}` lets it go on")]
    BatchPaused { batch: String },
    #[error(
        "an LLM is loaded on every GPU that could run it, and stays: unloading one would save the {backlog} waiting scripts {benefit_s:.0} s and cost requests {cost_s:.0} s by their weight{}",
        at_the_latest(*latest_in_s)
    )]
    LlmKept { backlog: u64, benefit_s: f64, cost_s: f64, latest_in_s: Option<f64> },
    #[error("{model} on GPU {gpu} was loaded moments ago and stays for {} more at least", span(*in_s))]
    LlmYoung { model: String, gpu: String, in_s: f64 },
    #[error("`reserve_for_chat` keeps {reserved} GPUs with an LLM, and no more than that have one{}", at_the_latest(*latest_in_s))]
    LlmReserved { reserved: u32, latest_in_s: Option<f64> },
    #[error("it failed and is tried again in {} (attempt {attempt} of {max_attempts})", span(*again_in_s))]
    BackingOff { again_in_s: f64, attempt: u32, max_attempts: u32 },
    #[error("it is not to start before {} from now", span(*in_s))]
    NotBefore { in_s: f64 },
    #[error("no GPU here is {wanted}; it waits for one")]
    NoSuchGpu { wanted: String },
    #[error("no GPU here can hold it: it needs {needs}, the largest has {largest}")]
    DoesNotFit { needs: String, largest: String },
    #[error(
        "it needs {count} GPUs at once{each}, and {fit} of the {here} GPUs here can be had for it{pinned}",
        each = with_so_much(*.mib), pinned = so_many_pinned(*.pinned)
    )]
    TooFewGpus { count: u32, mib: Option<u64>, fit: usize, here: usize, pinned: usize },
    #[error(
        "it needs {count} GPUs at once: {gpus} are kept for it, expected free in {free}{waits_for}; until then only what ends before starts there{firm}",
        free = span(*.free_in_s), waits_for = whose_end(waits_for), firm = goes_first(*.firm_in_s)
    )]
    GpusKept { count: u32, gpus: String, free_in_s: f64, waits_for: Option<String>, firm_in_s: f64 },
    #[error("it needs {count} GPUs at once, and GPUs are kept for {task} first; {ahead}")]
    BehindWide { count: u32, task: TaskId, ahead: Ahead },
    #[error(
        "GPU {gpu} is kept for {task}, which needs {count} GPUs at once in about {soon}, and it is not expected to end before; {ahead}",
        soon = span(*.in_s)
    )]
    KeptForWide { gpu: String, task: TaskId, count: u32, in_s: f64, ahead: Ahead },
    #[error("no engine can serve it: {detail}")]
    NoEngine { detail: String },
    #[error("no worker is there yet for a GPU that could run it")]
    NoWorker,
    #[error("all {slots} slots of the CPU lane are busy; {ahead}")]
    CpuLaneFull { slots: u32, ahead: Ahead },
    #[error(
        "the machine has {free_mib} MiB of memory available for {low} now, and no script starts below {least_mib} MiB (`min_system_ram_mb`)",
        low = span(*.for_s)
    )]
    RamLow { free_mib: u64, least_mib: u64, for_s: f64 },
    #[error("the machine is being shut down")]
    ShuttingDown,
    #[error("its file is not complete or was written moments ago: {detail}")]
    Settling { detail: String },
    #[error("it stays where it is: {detail}")]
    Held { detail: String },
    #[error("it runs on GPU {gpu} since {}", span(*for_s))]
    Running { gpu: String, for_s: f64 },
}

fn so_many_pinned(pinned: usize) -> String {
    match pinned {
        0 => String::new(),
        1 => "; 1 has its LLM pinned by `gpu_roles`".into(),
        count => format!("; {count} have their LLM pinned by `gpu_roles`"),
    }
}

fn with_so_much(mib: Option<u64>) -> String {
    mib.map(|mib| format!(" with {mib} MiB each")).unwrap_or_default()
}

#[expect(clippy::ref_option, reason = "the sentences hand their fields over as they are")]
fn whose_end(task: &Option<String>) -> String {
    task.as_ref().map(|task| format!(" with the end of {task}")).unwrap_or_default()
}

fn goes_first(firm_in_s: f64) -> String {
    if firm_in_s <= 0.0 {
        return ", or what came before it".into();
    }
    let minutes = (firm_in_s / 60.0).ceil();
    format!(", or what goes before it, chatbots among that for another {minutes:.0} min at most")
}

fn at_the_latest(in_s: Option<f64>) -> String {
    in_s.map(|in_s| format!("; one goes in {} at the latest", span(in_s))).unwrap_or_default()
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
            Self::WaitingForYield { .. } => "waiting_for_yield",
            Self::Cooling { .. } => "cooling",
            Self::Behind { .. } => "behind",
            Self::NotItsTurn { .. } => "not_its_turn",
            Self::TooManyInARow { .. } => "too_many_in_a_row",
            Self::Locked { .. } => "locked",
            Self::HeldByBatch { .. } => "held_by_batch",
            Self::LentToChat { .. } => "lent_to_chat",
            Self::Draining { .. } => "draining",
            Self::BatchPaused { .. } => "batch_paused",
            Self::LlmKept { .. } => "llm_kept",
            Self::LlmYoung { .. } => "llm_young",
            Self::LlmReserved { .. } => "llm_reserved",
            Self::BackingOff { .. } => "backing_off",
            Self::NotBefore { .. } => "not_before",
            Self::NoSuchGpu { .. } => "no_such_gpu",
            Self::DoesNotFit { .. } => "does_not_fit",
            Self::TooFewGpus { .. } => "too_few_gpus",
            Self::GpusKept { .. } => "gpus_kept",
            Self::BehindWide { .. } => "behind_wide",
            Self::KeptForWide { .. } => "kept_for_wide",
            Self::NoEngine { .. } => "no_engine",
            Self::NoWorker => "no_worker",
            Self::CpuLaneFull { .. } => "cpu_lane_full",
            Self::RamLow { .. } => "ram_low",
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
