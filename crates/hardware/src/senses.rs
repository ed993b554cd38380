//! The one door to all ways of finding GPUs.

use std::ffi::OsString;
use std::time::Duration;

use model::gpu::{GpuFacts, Inventory, Reading};
use model::{GpuUuid, InventorySource};

use crate::error::SensesError;
use crate::nvidia_smi::NvidiaSmi;
use crate::nvml::NvmlSense;
use model::gpu::Ram;

use crate::ram::ram;
use crate::setting::Setting;

/// The environment variable that names another NVML library than the driver's.
const NVML_LIB_VARIABLE: &str = "GPUSPOOL_NVML_LIB";

/// How long nvidia-smi may take. A healthy one answers in tens of milliseconds, one that loads the driver first in
/// two or three seconds; one that takes longer hangs in the kernel.
const NVIDIA_SMI_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the drivers' answers come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drivers {
    /// The NVML library to load; the driver's own if absent.
    pub nvml_library: Option<OsString>,
    /// The program to run where NVML does not help.
    pub nvidia_smi: OsString,
    /// How long that program may take.
    pub nvidia_smi_timeout: Duration,
}

impl Drivers {
    /// Those of this machine, unless `GPUSPOOL_NVML_LIB` names another NVML.
    #[must_use]
    pub fn of_this_machine() -> Self {
        Self {
            nvml_library: std::env::var_os(NVML_LIB_VARIABLE),
            nvidia_smi: "nvidia-smi".into(),
            nvidia_smi_timeout: NVIDIA_SMI_TIMEOUT,
        }
    }
}

/// A way of finding and reading GPUs.
#[derive(Debug)]
pub struct Senses {
    source: Source,
}

#[derive(Debug)]
enum Source {
    Nvml(Box<NvmlSense>),
    NvidiaSmi(NvidiaSmi),
    Simulated(Vec<u64>),
    Fixed { why: String },
}

impl Senses {
    /// Finds the GPUs of this machine as `setting` says: `auto`, or `simulated:MiB,MiB,…`.
    ///
    /// # Errors
    /// [`SensesError::BadSetting`] alone: `auto` always ends with at least one GPU, if only an assumed one.
    pub fn find(setting: &str) -> Result<Self, SensesError> {
        Ok(Self::with(setting.parse()?, &Drivers::of_this_machine()))
    }

    /// The same with given drivers.
    #[must_use]
    pub fn with(setting: Setting, drivers: &Drivers) -> Self {
        let source = match setting {
            Setting::Simulated(sizes) => Source::Simulated(sizes),
            Setting::Auto => Self::look_for_drivers(drivers),
        };
        Self { source }
    }

    fn look_for_drivers(drivers: &Drivers) -> Source {
        let nvml = match NvmlSense::find(drivers.nvml_library.as_deref()) {
            Ok(nvml) => return Source::Nvml(Box::new(nvml)),
            Err(error) => error,
        };
        let smi = match NvidiaSmi::find(&drivers.nvidia_smi, drivers.nvidia_smi_timeout) {
            Ok(smi) => {
                tracing::info!("GPUs are read by nvidia-smi, because {nvml}");
                return Source::NvidiaSmi(smi);
            }
            Err(error) => error,
        };
        Source::Fixed { why: format!("no GPU driver answered: {nvml}; {smi}") }
    }

    /// All GPUs there are now.
    pub fn inventory(&mut self) -> Inventory {
        match &mut self.source {
            Source::Nvml(nvml) => nvml.inventory(),
            Source::NvidiaSmi(smi) => smi.inventory(),
            Source::Simulated(sizes) => Inventory {
                source: InventorySource::Simulated,
                why: Some(
                    "these GPUs are invented: nothing that is said of their memory was measured".into(),
                ),
                gpus: (0..).zip(&*sizes).filter_map(|(index, mib)| simulated(index, *mib)).collect(),
            },
            Source::Fixed { why } => Inventory {
                source: InventorySource::Unmeasured,
                why: Some(format!("one GPU with one slot is assumed; {why}")),
                gpus: fixed().into_iter().collect(),
            },
        }
    }

    /// Reads all GPUs that have been in an inventory; those that are gone are said to be lost.
    ///
    /// # Errors
    /// When the driver as a whole does not answer. Nothing is known then, which does not mean that GPUs are lost.
    pub fn read(&mut self) -> Result<Vec<Reading>, SensesError> {
        match &mut self.source {
            Source::Nvml(nvml) => nvml.read(),
            Source::NvidiaSmi(smi) => smi.read(),
            // The memory of an invented GPU is what the mind's ledger says: nobody can measure it.
            Source::Simulated(_) | Source::Fixed { .. } => {
                Ok(self.inventory().gpus.into_iter().map(|gpu| unread(gpu.uuid)).collect())
            }
        }
    }

    /// The machine's memory; none where the kernel does not say.
    #[must_use]
    pub fn ram(&self) -> Option<Ram> {
        ram()
    }
}

/// A reading in which nothing could be read.
pub(crate) const fn unread(uuid: GpuUuid) -> Reading {
    Reading { uuid, used_mib: None, processes: Vec::new(), lost: false }
}

fn simulated(index: u32, mib: u64) -> Option<GpuFacts> {
    Some(GpuFacts {
        uuid: GpuUuid::new(format!("SIM-{index}")).ok()?,
        index,
        name: format!("SIMULATED {mib} MiB"),
        total_mib: Some(mib),
        compute_capability: None,
    })
}

fn fixed() -> Option<GpuFacts> {
    Some(GpuFacts {
        uuid: GpuUuid::new("FIXED-0").ok()?,
        index: 0,
        name: "UNMEASURED GPU".into(),
        total_mib: None,
        compute_capability: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_gpus_say_so_and_are_never_read() {
        let mut senses = Senses::find("simulated:24576,8192").unwrap();
        let inventory = senses.inventory();
        assert_eq!(inventory.source, InventorySource::Simulated);
        let names: Vec<&str> = inventory.gpus.iter().map(|gpu| gpu.name.as_str()).collect();
        assert_eq!(names, ["SIMULATED 24576 MiB", "SIMULATED 8192 MiB"]);
        assert_eq!(inventory.gpus[1].uuid.as_str(), "SIM-1");
        assert!(senses.read().unwrap().iter().all(|reading| reading.used_mib.is_none() && !reading.lost));
    }

    #[test]
    fn without_any_driver_one_gpu_is_assumed_and_both_reasons_are_given() {
        let nowhere = Drivers {
            nvml_library: Some("/nowhere/libnvidia-ml.so".into()),
            nvidia_smi: "/nowhere/nvidia-smi".into(),
            nvidia_smi_timeout: Duration::from_secs(5),
        };
        let mut senses = Senses::with(Setting::Auto, &nowhere);
        let inventory = senses.inventory();
        assert_eq!(inventory.source, InventorySource::Unmeasured);
        assert_eq!(inventory.gpus.len(), 1);
        assert_eq!(inventory.gpus[0].total_mib, None);
        let why = inventory.why.unwrap();
        assert!(why.contains("NVML:") && why.contains("`/nowhere/nvidia-smi` cannot be started"), "{why}");
        assert_eq!(senses.read().unwrap(), [unread(GpuUuid::new("FIXED-0").unwrap())]);
    }
}
