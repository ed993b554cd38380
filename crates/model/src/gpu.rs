//! What is known of the GPUs of a machine, however it was found out.

use crate::id::GpuUuid;
use crate::kind::InventorySource;
use crate::task::ComputeCapability;

/// All GPUs and how they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// How.
    pub source: InventorySource,
    /// Why, where nothing could be measured or the GPUs are invented.
    pub why: Option<String>,
    /// The GPUs, by index.
    pub gpus: Vec<GpuFacts>,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuFacts {
    /// The driver's name for it.
    pub uuid: GpuUuid,
    /// Its index with the driver, and its key in `gpu_state.json`.
    pub index: u32,
    /// Product name.
    pub name: String,
    /// Memory in MiB; none where it is not known.
    pub total_mib: Option<u64>,
    /// CUDA compute capability, where it is known.
    pub compute_capability: Option<ComputeCapability>,
}

/// The machine's memory in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ram {
    /// All of it.
    pub total_mib: u64,
    /// What could be had without swapping, as the kernel estimates it.
    pub available_mib: u64,
}

/// One reading of one GPU. A value that could not be read is none, never zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Which.
    pub uuid: GpuUuid,
    /// Memory in use, in MiB.
    pub used_mib: Option<u64>,
    /// Memory in use by each process, in MiB.
    pub processes: Vec<(u32, Option<u64>)>,
    /// Whether the driver no longer sees the GPU.
    pub lost: bool,
}
