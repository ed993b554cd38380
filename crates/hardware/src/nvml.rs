//! GPUs by NVML, the driver's own library, loaded at run time.
//!
//! A GPU is known by its uuid; its index is where NVML had it last. NVML renumbers nothing while it is initialised,
//! so a GPU that falls off the bus keeps its index and answers `GpuLost` there.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use model::gpu::{GpuFacts, Inventory, Reading};
use model::task::ComputeCapability;
use model::{GpuUuid, InventorySource};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device, Nvml};

use crate::MIB;
use crate::error::SensesError;
use crate::ram::ram;
use crate::senses::unread;

/// NVML, and the GPUs it has named so far.
#[derive(Debug)]
pub(crate) struct NvmlSense {
    library: Option<OsString>,
    nvml: Option<Nvml>,
    known: BTreeMap<GpuUuid, u32>,
}

impl NvmlSense {
    /// Loads NVML and checks that it is of use: it names at least one GPU and can tell its memory.
    pub(crate) fn find(library: Option<&OsStr>) -> Result<Self, SensesError> {
        let mut sense = Self { library: library.map(OsStr::to_owned), nvml: None, known: BTreeMap::new() };
        let nvml = sense.start()?;
        let count = nvml.device_count().map_err(said)?;
        if count == 0 {
            return Err(SensesError::Nvml("it is loaded and names no GPU".into()));
        }
        let mut trouble = None;
        let usable =
            (0..count).any(|index| match nvml.device_by_index(index).and_then(|gpu| memory_of(&gpu)) {
                Ok(_) => true,
                Err(error) => {
                    trouble = Some(error);
                    false
                }
            });
        match trouble {
            // Drivers before R510 lack the call for memory that this wrapper uses; nvidia-smi has its own.
            Some(error @ NvmlError::FailedToLoadSymbol(_)) if !usable => Err(said(error)),
            _ => Ok(sense),
        }
    }

    fn start(&mut self) -> Result<&Nvml, SensesError> {
        // The old one must be gone first: NVML counts initialisations and only looks for GPUs at the first.
        self.nvml = None;
        let started = match &self.library {
            Some(path) => Nvml::builder().lib_path(path).init(),
            None => Nvml::init(),
        };
        Ok(self.nvml.insert(started.map_err(said)?))
    }

    /// All GPUs there are now. NVML is initialised anew, because only that finds added GPUs.
    pub(crate) fn inventory(&mut self) -> Inventory {
        let found = self.start().and_then(facts);
        let (gpus, why) = match found {
            Ok((gpus, why)) => (gpus, why),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        self.known.extend(gpus.iter().map(|gpu| (gpu.uuid.clone(), gpu.index)));
        Inventory { source: InventorySource::Measured, why, gpus }
    }

    /// Reads every GPU that has been named so far.
    pub(crate) fn read(&mut self) -> Result<Vec<Reading>, SensesError> {
        if self.nvml.is_none() {
            self.start()?;
        }
        let nvml = self.nvml.as_ref().ok_or_else(|| SensesError::Nvml("it is not loaded".into()))?;
        let count = nvml.device_count().map_err(said)?;
        let mut seats: BTreeMap<GpuUuid, u32> = BTreeMap::new();
        for index in 0..count {
            if let Ok(uuid) = nvml.device_by_index(index).and_then(|gpu| gpu.uuid())
                && let Ok(uuid) = GpuUuid::new(uuid)
            {
                seats.insert(uuid, index);
            }
        }
        let readings = self.known.iter().map(|(uuid, index)| match seats.get(uuid) {
            Some(index) => reading(nvml, uuid, *index),
            None => absent(nvml, uuid, *index, count),
        });
        let readings = readings.collect();
        for (uuid, seat) in &mut self.known {
            *seat = seats.get(uuid).copied().unwrap_or(*seat);
        }
        Ok(readings)
    }
}

fn said(error: NvmlError) -> SensesError {
    SensesError::Nvml(error.to_string())
}

/// What is known of each GPU, and what was odd about those that could not be identified.
fn facts(nvml: &Nvml) -> Result<(Vec<GpuFacts>, Option<String>), SensesError> {
    let mut gpus = Vec::new();
    let mut odd = Vec::new();
    for index in 0..nvml.device_count().map_err(said)? {
        match nvml.device_by_index(index).and_then(|gpu| facts_of(&gpu, index)) {
            Ok(Some(facts)) => gpus.push(facts),
            Ok(None) => odd.push(format!("GPU {index} has a uuid that cannot be used as a name")),
            Err(error) => odd.push(format!("GPU {index} cannot be identified: {error}")),
        }
    }
    Ok((gpus, (!odd.is_empty()).then(|| odd.join("; "))))
}

fn facts_of(gpu: &Device<'_>, index: u32) -> Result<Option<GpuFacts>, NvmlError> {
    let Ok(uuid) = GpuUuid::new(gpu.uuid()?) else { return Ok(None) };
    let capability = gpu.cuda_compute_capability().ok().and_then(|found| {
        Some(ComputeCapability { major: found.major.try_into().ok()?, minor: found.minor.try_into().ok()? })
    });
    Ok(Some(GpuFacts {
        uuid,
        index,
        name: gpu.name().unwrap_or_else(|_| "GPU of unknown name".into()),
        total_mib: memory_of(gpu).ok().flatten().map(|memory| memory.total_mib),
        compute_capability: capability,
    }))
}

struct Memory {
    total_mib: u64,
    used_mib: u64,
}

/// A GPU's memory; none where it says what cannot be.
fn memory_of(gpu: &Device<'_>) -> Result<Option<Memory>, NvmlError> {
    match gpu.memory_info() {
        Ok(memory) => Ok((memory.total >= MIB && memory.used <= memory.total)
            .then(|| Memory { total_mib: memory.total / MIB, used_mib: memory.used.div_ceil(MIB) })),
        // Boards whose GPU shares the system's memory have no figure of their own.
        Err(NvmlError::NotSupported) => Ok(ram().map(|ram| Memory {
            total_mib: ram.total_mib,
            used_mib: ram.total_mib.saturating_sub(ram.available_mib),
        })),
        Err(error) => Err(error),
    }
}

fn reading(nvml: &Nvml, uuid: &GpuUuid, index: u32) -> Reading {
    let gpu = match nvml.device_by_index(index) {
        Ok(gpu) => gpu,
        Err(error) => return Reading { lost: is_loss(&error), ..unread(uuid.clone()) },
    };
    let memory = memory_of(&gpu);
    Reading {
        uuid: uuid.clone(),
        lost: memory.as_ref().err().is_some_and(is_loss),
        used_mib: memory.ok().flatten().map(|memory| memory.used_mib),
        processes: processes_of(&gpu),
    }
}

/// A known GPU that no index names now: lost, unless the driver only failed to say what sits there.
fn absent(nvml: &Nvml, uuid: &GpuUuid, index: u32, count: u32) -> Reading {
    let silent = index < count
        && match nvml.device_by_index(index).and_then(|gpu| gpu.uuid()) {
            Ok(_) => false,
            Err(error) => !is_loss(&error),
        };
    Reading { lost: !silent, ..unread(uuid.clone()) }
}

const fn is_loss(error: &NvmlError) -> bool {
    matches!(error, NvmlError::GpuLost | NvmlError::NotFound | NvmlError::InvalidArg)
}

/// Compute and graphics processes; one that has both contexts stands in both lists with the same figure.
fn processes_of(gpu: &Device<'_>) -> Vec<(u32, Option<u64>)> {
    let mut found: BTreeMap<u32, Option<u64>> = BTreeMap::new();
    for list in [gpu.running_compute_processes(), gpu.running_graphics_processes()] {
        for ProcessInfo { pid, used_gpu_memory, .. } in list.unwrap_or_default() {
            let used = match used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Some(bytes.div_ceil(MIB)),
                UsedGpuMemory::Unavailable => None,
            };
            let known = found.entry(pid).or_default();
            *known = (*known).max(used);
        }
    }
    found.into_iter().collect()
}
