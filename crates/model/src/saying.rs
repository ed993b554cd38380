//! What the mind says about its decisions: data, and one sentence with its numbers for the log and the journal.
//!
//! Not here: why a thing waits (`reason`), and when something is said (`policy`).

use serde::Serialize;

use crate::id::{BatchId, TaskId};

/// Something the mind says, once.
#[derive(Clone, Debug, PartialEq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "code")]
#[expect(missing_docs, reason = "the sentences say it")]
pub enum Saying {
    #[error("GPU {gpu} ({name}): {total_mib} MB VRAM, {slots} slots available")]
    Slots { gpu: String, name: String, total_mib: u64, slots: u32 },
    #[error("Resource manager initialized: {slots} total slots across {gpus} GPUs")]
    AllSlots { slots: u32, gpus: usize },
    #[error("Job {task} assigned to GPU {gpu} (slot {used}/{slots} now used)")]
    Assigned { task: TaskId, gpu: String, used: u32, slots: u32 },
    #[error("Job {task} completed, GPU {gpu} slot released ({used}/{slots} now used)")]
    Released { task: TaskId, gpu: String, used: u32, slots: u32 },
    #[error("GPU {gpu} ({name}): VRAM not measured, 1 slot available")]
    OneSlot { gpu: String, name: String },
    #[error("Job {task} {how}, GPU {gpu} slot released ({used}/{slots} now used)")]
    Freed { task: TaskId, how: String, gpu: String, used: u32, slots: u32 },
    #[error("All GPU slots busy, job {task} queued")]
    AllBusy { task: TaskId },
    #[error("batch {batch} is paused with {remaining} items left: none of them starts, and what runs ends")]
    BatchPaused { batch: BatchId, remaining: u64 },
    #[error("batch {batch} goes on with {remaining} items left")]
    BatchResumed { batch: BatchId, remaining: u64 },
    #[error(
        "{job_type} has started {limit} times in a row{}: it waits until another job type has started (`strict_consecutive`)",
        if *in_cpu_lane { " in the CPU lane" } else { "" }
    )]
    TooManyInARow { job_type: String, limit: u32, in_cpu_lane: bool },
    #[error(
        "GPU {gpu} is lent to chatbots inside exclusive batch {batch} for {task}: free in {free_in_s:.0} s, given back {linger_s:.0} s after their last request"
    )]
    LentToChat { gpu: String, batch: BatchId, task: TaskId, free_in_s: f64, linger_s: f64 },
    #[error("GPU {gpu} goes back to exclusive batch {batch}: no chatbot has asked for {quiet_s:.0} s")]
    BackFromChat { gpu: String, batch: BatchId, quiet_s: f64 },
    #[error(
        "GPU {gpu} leaves batch {batch} to load {model}: what is left takes {remaining_s:.0} s of work, and the loads have to follow each other, {load_s:.0} s each"
    )]
    LeavesBatch { gpu: String, batch: BatchId, model: String, remaining_s: f64, load_s: f64 },
    #[error("{task} on GPU {gpu} gives way to chatbot {to} at its next boundary{} and goes on later", so_far(*.progress))]
    Yields { task: TaskId, gpu: String, to: TaskId, progress: Option<f64> },
    #[error("System RAM low ({free_gb:.1} GB free), waiting before starting job...")]
    RamLow { free_gb: f64 },
    #[error(
        "System RAM still low ({free_gb:.1} GB free) after {waited_s:.0} s, starting job {task} all the same"
    )]
    RamWaitOver { task: TaskId, free_gb: f64, waited_s: f64 },
    #[error(
        "GPU {gpu}: a host of {script} uses {used_mib} MiB and is counted with {counted_mib} MiB: from now on it counts by what was measured; `vram_mib` in config.json is what was stated"
    )]
    OverItsNeed { gpu: String, script: String, used_mib: u64, counted_mib: u64 },
    #[error(
        "GPU {gpu}: {model} makes room for {scripts} waiting scripts, {task} first, by {rule}: unloading it saves them {benefit_s:.0} s of waiting and costs requests {cost_s:.0} s by their weight"
    )]
    Evicts {
        gpu: String,
        model: String,
        task: TaskId,
        scripts: u64,
        rule: &'static str,
        benefit_s: f64,
        cost_s: f64,
    },
    #[error("GPU {gpu}: {model} makes room for {wanted}, which {task} waits for since {waited_s:.0} s")]
    Swaps { gpu: String, model: String, wanted: String, task: TaskId, waited_s: f64 },
    #[error(
        "GPU {gpu}: {model} makes room for exclusive batch {batch}, which has {items} items that wait for a GPU"
    )]
    MakesRoomForBatch { gpu: String, model: String, batch: BatchId, items: u64 },
    #[error(
        "GPU {gpu}: {tasks} running tasks are taken back and start again later, so that {model} makes room for exclusive batch {batch}, which has waited {waited_s:.0} s for their end"
    )]
    TakesBack { gpu: String, model: String, batch: BatchId, tasks: u64, waited_s: f64 },
    #[error("GPU {gpu}: {model} goes, because GPU {lost}, over which it is spread, is lost")]
    LosesGpu { gpu: String, model: String, lost: String },
    #[error("GPU {gpu}: {model} has failed: {error}; it is not loaded there again for {again_in_s:.0} s")]
    Fails { gpu: String, model: String, error: String, again_in_s: f64 },
    #[error("GPU {gpu}: the load of {model} is given up, as it is not ready after {after_s:.0} s")]
    GivesUpBoot { gpu: String, model: String, after_s: f64 },
    #[error(
        "GPU {gpu}: {model} is loaded ahead of demand: {per_hour:.1} requests are usual in the hour that begins at {hour}:00"
    )]
    Prewarms { gpu: String, model: String, hour: u8, per_hour: f64 },
    #[error(
        "GPU {gpu}: {model} is loaded: no script waits, and {per_minute:.1} requests a minute make use of {target} LLMs, {have} are loaded"
    )]
    ScalesUp { gpu: String, model: String, have: u64, target: u64, per_minute: f64 },
    #[error(
        "GPU {gpus} are kept for {task}, which needs {count} at once and waits for {waited_s:.0} s: expected free in {free_in_s:.0} s; until then only what ends before starts there"
    )]
    KeepsGpus { task: TaskId, gpus: String, count: u32, waited_s: f64, free_in_s: f64 },
    #[error("{task} starts on GPU {gpus}, which it has for itself, after {waited_s:.0} s")]
    StartsOnGpus { task: TaskId, gpus: String, waited_s: f64 },
    #[error("{task} was refused: {why}")]
    Refused { task: TaskId, why: String },
    #[error("{task} cannot start here as things are, and waits: {why}")]
    CannotStart { task: TaskId, why: String },
}

/// How far something is, as part of a sentence.
fn so_far(progress: Option<f64>) -> String {
    progress.map_or_else(String::new, |progress| format!(", {:.0} % done,", progress * 100.0))
}

impl Saying {
    /// Whether somebody should look at it.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        matches!(
            self,
            Self::RamLow { .. }
                | Self::RamWaitOver { .. }
                | Self::OverItsNeed { .. }
                | Self::LosesGpu { .. }
                | Self::Fails { .. }
                | Self::GivesUpBoot { .. }
                | Self::Refused { .. }
                | Self::CannotStart { .. }
        )
    }

    /// Whether it is said of every task that comes and goes, or of every GPU at the start: such lines would crowd the
    /// others out.
    #[must_use]
    pub const fn is_routine(&self) -> bool {
        matches!(
            self,
            Self::Slots { .. }
                | Self::OneSlot { .. }
                | Self::AllSlots { .. }
                | Self::Assigned { .. }
                | Self::Released { .. }
                | Self::Freed { .. }
                | Self::AllBusy { .. }
        )
    }

    /// Key of the GPU it is about, where it is about one.
    #[must_use]
    pub fn gpu(&self) -> Option<&str> {
        match self {
            Self::Slots { gpu, .. }
            | Self::Assigned { gpu, .. }
            | Self::Released { gpu, .. }
            | Self::Freed { gpu, .. }
            | Self::OneSlot { gpu, .. }
            | Self::OverItsNeed { gpu, .. }
            | Self::LentToChat { gpu, .. }
            | Self::BackFromChat { gpu, .. }
            | Self::LeavesBatch { gpu, .. }
            | Self::Yields { gpu, .. }
            | Self::Evicts { gpu, .. }
            | Self::Swaps { gpu, .. }
            | Self::MakesRoomForBatch { gpu, .. }
            | Self::TakesBack { gpu, .. }
            | Self::LosesGpu { gpu, .. }
            | Self::Fails { gpu, .. }
            | Self::GivesUpBoot { gpu, .. }
            | Self::Prewarms { gpu, .. }
            | Self::ScalesUp { gpu, .. } => Some(gpu),
            _ => None,
        }
    }

    /// The line of a log.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{}: {self}", if self.is_warning() { "WARN" } else { "INFO" })
    }
}

#[cfg(test)]
mod tests {
    use super::Saying;
    use crate::id::BatchId;

    #[test]
    fn an_llm_that_goes_is_one_line_with_its_numbers_about_its_gpu() {
        let (gpu, model) = (|| "1".to_owned(), || "qwen2.5:14b".to_owned());
        let batch = || BatchId::new("talks").unwrap();
        let table = [
            (
                Saying::MakesRoomForBatch { gpu: gpu(), model: model(), batch: batch(), items: 40 },
                "INFO: GPU 1: qwen2.5:14b makes room for exclusive batch talks, which has 40 items that wait for a GPU",
            ),
            (
                Saying::TakesBack { gpu: gpu(), model: model(), batch: batch(), tasks: 2, waited_s: 120.4 },
                "INFO: GPU 1: 2 running tasks are taken back and start again later, so that qwen2.5:14b makes room for exclusive batch talks, which has waited 120 s for their end",
            ),
            (
                Saying::LosesGpu { gpu: gpu(), model: model(), lost: "2".into() },
                "WARN: GPU 1: qwen2.5:14b goes, because GPU 2, over which it is spread, is lost",
            ),
            (
                Saying::Fails {
                    gpu: gpu(),
                    model: model(),
                    error: "exit code 1: CUDA out of memory".into(),
                    again_in_s: 30.0,
                },
                "WARN: GPU 1: qwen2.5:14b has failed: exit code 1: CUDA out of memory; it is not loaded there again for 30 s",
            ),
            (
                Saying::GivesUpBoot { gpu: gpu(), model: model(), after_s: 305.0 },
                "WARN: GPU 1: the load of qwen2.5:14b is given up, as it is not ready after 305 s",
            ),
        ];
        for (saying, line) in table {
            assert_eq!(saying.line(), line);
            assert_eq!(saying.gpu(), Some("1"));
        }
    }
}
