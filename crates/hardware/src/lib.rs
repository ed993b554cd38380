//! THE SENSES: which GPUs there are, what they read, and how much memory the machine has. Read only.
//!
//! ```text
//! auto ──► NVML ──(not there, too old, no GPU)──► nvidia-smi ──(the same)──► one GPU, UNMEASURED, and why
//! simulated:24576,12227 ──► those GPUs, SIMULATED
//! ```
//!
//! A value that could not be read is none and never zero: an idle GPU and a silent one are different things.
//! All calls block, and a sick driver may block them for ever; callers put them on a thread of their own and watch it.
//!
//! Not here: what a reading means (slots, health, whether memory is free) — that is the mind's — and anything that
//! changes a GPU.

#![forbid(unsafe_code)]

mod error;
mod nvidia_smi;
mod nvml;
mod ram;
mod senses;
mod setting;

pub use error::SensesError;
pub use ram::ram;
pub use senses::{Drivers, Senses};
pub use setting::{GPUS_MAX, Setting};

/// Bytes in a MiB: drivers speak of bytes, this project of MiB.
pub(crate) const MIB: u64 = 1 << 20;
