//! What can go wrong with the senses.

use std::time::Duration;

/// Why GPUs could not be found or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SensesError {
    /// The setting is none of those there are.
    #[error(
        "`{setting}` is not a way to find GPUs: {detail}; use `auto`, or `simulated:24576,12227` (MiB each)"
    )]
    BadSetting {
        /// As given.
        setting: String,
        /// What is wrong with it.
        detail: String,
    },
    /// NVML did not answer.
    #[error("NVML: {0}")]
    Nvml(String),
    /// nvidia-smi cannot be started.
    #[error("`{program}` cannot be started: {detail}")]
    SmiMissing {
        /// The program.
        program: String,
        /// What the system said.
        detail: String,
    },
    /// nvidia-smi did not end in time and was killed.
    #[error("`{program}` gave no answer within {} s and was killed", .after.as_secs_f64())]
    SmiHangs {
        /// The program.
        program: String,
        /// How long it had.
        after: Duration,
    },
    /// nvidia-smi answered with something in which no GPU can be recognised.
    #[error("`{program}` named no GPU; it said: {said}")]
    SmiUnreadable {
        /// The program.
        program: String,
        /// The beginning of its answer, escaped.
        said: String,
    },
}
