//! How a worker comes to be: which GPU, what it can boot, its folder and locks.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use engine::Surroundings;
use engine::interpreter::Interpreters;
use engine::preset;
use engine::server::FindProgram;
use hardware::Senses;
use model::gpu::Inventory;
use model::link::{Can, GpuIdentity};
use model::{GpuUuid, InventorySource};
use spool::settings::{self, Settings};
use spool::worker::{Birth, BirthError, WorkerHome};

use crate::memory::Gate;

/// The word that stands for the CPU lane in place of a GPU.
const CPU: &str = "cpu";

/// Why a worker cannot begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unborn {
    /// All GPUs have a worker.
    #[error("every GPU is held: {}", .0.join("; "))]
    AllHeld(Vec<String>),
    /// The named one is not there.
    #[error("there is no GPU `{wanted}` here; there are: {there}, and `cpu` for none")]
    NoSuchGpu { wanted: String, there: String },
    /// The setting cannot be read.
    #[error("{0}")]
    BadSetting(String),
    /// The GPU is held, or the system refused.
    #[error(transparent)]
    Birth(#[from] BirthError),
}

impl Unborn {
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::AllHeld(_) => 4,
            Self::NoSuchGpu { .. } => 69,
            Self::BadSetting(_) => 78,
            Self::Birth(error) => error.exit_code(),
        }
    }
}

/// A worker that is registered.
pub(crate) struct Born {
    pub(crate) home: WorkerHome,
    pub(crate) around: Surroundings,
    pub(crate) gate: Gate,
    pub(crate) find: FindProgram,
    pub(crate) interpreters: Arc<Mutex<Interpreters>>,
}

/// Is born for the GPU called `wanted`, for none if that is `cpu`, or for the first that is free.
pub(crate) fn be_born(
    settings: &Settings,
    gpus: &str,
    wanted: Option<&str>,
    launch: Option<String>,
) -> Result<Born, Unborn> {
    let find = find_program();
    let mut senses = Senses::find(gpus).map_err(|error| Unborn::BadSetting(error.to_string()))?;
    let inventory = if wanted == Some(CPU) { Inventory::default() } else { senses.inventory() };
    // Looked up before the GPU's lock is taken: every later child holds that too.
    let can =
        if wanted == Some(CPU) { Can::default() } else { preset::resolve(&settings.config, find.as_ref()) };
    let birth = |gpu: Option<GpuIdentity>| Birth {
        launch: launch.clone(),
        exe: std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default(),
        gpu,
        can: can.clone(),
        durability: settings.config.durability,
    };
    let candidates = candidates(&inventory, wanted)?;
    let named = wanted.is_some();
    let mut held = Vec::new();
    let mut home = None;
    for gpu in candidates {
        match WorkerHome::birth(&settings.layout, birth(gpu)) {
            Ok(born) => {
                home = Some(born);
                break;
            }
            Err(error @ BirthError::GpuHeld { .. }) if !named => held.push(error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    let home = home.ok_or(Unborn::AllHeld(held))?;
    let gpu: Option<GpuUuid> = home.reports.state().gpu.as_ref().map(|gpu| gpu.uuid.clone());
    let gate = match &gpu {
        Some(uuid) if inventory.source == InventorySource::Measured => Gate::of(senses, uuid.clone()),
        _ => Gate::open(),
    };
    let around = Surroundings {
        worker: home.id().clone(),
        gpu,
        beside: Vec::new(),
        simulated: inventory.source == InventorySource::Simulated,
    };
    let interpreters = Arc::new(Mutex::new(Interpreters::new(find_uv(settings))));
    Ok(Born { home, around, gate, find, interpreters })
}

fn candidates(inventory: &Inventory, wanted: Option<&str>) -> Result<Vec<Option<GpuIdentity>>, Unborn> {
    let all = inventory.gpus.iter().map(|gpu| GpuIdentity {
        uuid: gpu.uuid.clone(),
        index: gpu.index,
        name: gpu.name.clone(),
        vram_mib: gpu.total_mib,
    });
    match wanted {
        None => Ok(all.map(Some).collect()),
        Some(CPU) => Ok(vec![None]),
        Some(name) => {
            let is_it = |gpu: &GpuIdentity| gpu.uuid.as_str() == name || gpu.index.to_string() == name;
            let found: Vec<_> = all.clone().filter(is_it).map(Some).collect();
            if found.is_empty() {
                let there = all.map(|gpu| format!("`{}`", gpu.uuid)).collect::<Vec<_>>().join(", ");
                return Err(Unborn::NoSuchGpu { wanted: name.into(), there });
            }
            Ok(found)
        }
    }
}

/// A program by its path, beside this one, or on the PATH.
fn find_program() -> FindProgram {
    Arc::new(|name| {
        let path = PathBuf::from(name);
        if path.is_absolute() { path.is_file().then_some(path) } else { settings::program(name) }
    })
}

/// `uv` on the PATH, or where setup puts it: beside the configuration, or in the current folder.
fn find_uv(settings: &Settings) -> Option<PathBuf> {
    let beside =
        settings.config_path.as_ref().and_then(|path| path.parent()).map(|folder| folder.to_path_buf());
    let tools = beside.into_iter().chain(std::env::current_dir()).map(|folder| folder.join(".tools/bin/uv"));
    settings::program("uv").or_else(|| tools.into_iter().find(|path| path.is_file()))
}
