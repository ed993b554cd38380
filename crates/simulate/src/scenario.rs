//! What is simulated, as a file: the machine, how long things take, who wants what, and what goes wrong.
//!
//! Not here: reading one (`read`), what its values may be (`check`), the draws (`people`, `faults`) and the run (`sim`).

mod check;
mod expected;
mod read;

use std::collections::BTreeMap;

use model::GpuMode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dice::Times;

pub use check::{FAULTS_MAX, TASKS_MAX};
pub use expected::Missed;
pub use read::{ScenarioError, shipped};

/// A scenario file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// What it shows, in a sentence.
    pub about: String,
    /// The seed of everything that is drawn.
    pub seed: u64,
    /// How long people and faults go on, in seconds.
    pub duration_s: f64,
    /// Within how many seconds after that everything must have ended.
    pub settle_s: f64,
    /// The GPUs.
    pub gpus: Vec<GpuSpec>,
    /// Whether their memory is read; else the mind keeps its own account of it.
    pub measured: bool,
    /// Settings that differ from the base, in the shape of `config.json`.
    pub config: Value,
    /// Whether those are all of its settings, as of a real machine; else they are laid over what scenarios have in common.
    pub whole_config: bool,
    /// How long engines take.
    pub engines: Engines,
    /// Who wants what.
    pub people: Vec<Stream>,
    /// What goes wrong.
    pub faults: Faults,
    /// Recorded outcome: lowest and highest value allowed, by the name of the number.
    pub expected: BTreeMap<String, [f64; 2]>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: String::new(),
            about: String::new(),
            seed: 1,
            duration_s: 3_600.0,
            settle_s: 6.0 * 3_600.0,
            gpus: vec![GpuSpec::default()],
            measured: true,
            config: Value::Object(serde_json::Map::new()),
            whole_config: false,
            engines: Engines::default(),
            people: Vec::new(),
            faults: Faults::default(),
            expected: BTreeMap::new(),
        }
    }
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GpuSpec {
    /// Memory in MiB.
    pub mib: u64,
    /// Work done in a second, where 1 is what the streams' times are meant for.
    pub speed: f64,
    /// CUDA compute capability, such as `8.6`.
    pub capability: Option<String>,
}

impl Default for GpuSpec {
    fn default() -> Self {
        Self { mib: 24_576, speed: 1.0, capability: None }
    }
}

/// How long engines take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Engines {
    /// Boot of an LLM by model, in seconds; with a disk, what comes after its file was read.
    pub boot: BTreeMap<String, Times>,
    /// Boot of an LLM that is not named.
    pub boot_other: Times,
    /// The disk that model files are read from; none where boots do not share one.
    pub disk: Option<Disk>,
    /// Unload of an LLM.
    pub unload: Times,
    /// Load of a script host.
    pub host_load: Times,
    /// End of a script host.
    pub host_unload: Times,
    /// Start of a script of one process a task.
    pub once_start: Times,
}

impl Default for Engines {
    fn default() -> Self {
        Self {
            boot: BTreeMap::new(),
            boot_other: Times::constant(120.0),
            disk: None,
            unload: Times::constant(5.0),
            host_load: Times::constant(5.0),
            host_unload: Times::constant(1.0),
            once_start: Times::constant(0.3),
        }
    }
}

/// A disk with model files.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// MiB read in a second; files that are read at the same time share it.
    pub mib_per_s: f64,
    /// MiB of files that stay in the page cache.
    pub cache_mib: u64,
}

/// What one kind of people does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stream {
    /// How its tasks are called.
    pub name: String,
    /// What a task is.
    pub work: WorkSpec,
    /// Its job type; that of its class where absent.
    pub job_type: Option<String>,
    /// 1 to 5.
    pub priority: u8,
    /// When they come.
    pub arrive: Arrive,
    /// How long a task runs on a GPU of speed 1, in seconds.
    pub run: Times,
    /// Media seconds worked off in a second; tasks then say how long their media is.
    pub media_speed: Option<f64>,
    /// By how much what a task says of its length is wrong: deviation of the logarithm.
    pub estimate_sigma: f64,
    /// Memory a task states, in MiB.
    pub vram_mib: Option<u64>,
    /// GPUs a task needs at once.
    pub gpus: u32,
    /// Time limit of an attempt, in seconds.
    pub timeout_s: Option<f64>,
    /// Charged attempts a task may have; the configuration's where absent.
    pub max_attempts: Option<u32>,
    /// Seconds of work between two points at which a task can give way; none where it cannot.
    pub boundary_s: Option<f64>,
    /// Since when, in seconds.
    pub from_s: f64,
    /// Until when; the end of the scenario where absent.
    pub to_s: Option<f64>,
    /// Only in these hours of the day.
    pub hours: Option<[f64; 2]>,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            name: "task".into(),
            work: WorkSpec::Llm { model: None },
            job_type: None,
            priority: 3,
            arrive: Arrive::At { times_s: vec![0.0] },
            run: Times::constant(10.0),
            media_speed: None,
            estimate_sigma: 0.0,
            vram_mib: None,
            gpus: 1,
            timeout_s: None,
            max_attempts: None,
            boundary_s: None,
            from_s: 0.0,
            to_s: None,
            hours: None,
        }
    }
}

/// What a task is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum WorkSpec {
    /// A request to an LLM.
    Llm {
        /// The model it insists on.
        #[serde(default)]
        model: Option<String>,
    },
    /// A script.
    Script {
        /// Its registered name.
        script: String,
        /// The model of its host.
        #[serde(default)]
        model: Option<String>,
        /// Whether it runs in the CPU lane.
        #[serde(default)]
        cpu: bool,
    },
}

/// When tasks come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Arrive {
    /// At these times.
    At {
        /// Seconds.
        times_s: Vec<f64>,
    },
    /// At random.
    Poisson {
        /// How many an hour.
        per_hour: f64,
    },
    /// Several at once, at random.
    Bursts {
        /// Bursts an hour.
        per_hour: f64,
        /// Tasks of a burst.
        size: Times,
    },
    /// Conversations: one request after the other, with pauses.
    Sessions {
        /// Conversations an hour.
        per_hour: f64,
        /// Requests of one.
        turns: Times,
        /// Seconds from one request to the next.
        think: Times,
    },
    /// Batches at these times.
    Batch {
        /// Seconds.
        times_s: Vec<f64>,
        /// Items of each.
        items: u32,
        /// How they want the GPUs.
        mode: GpuMode,
    },
    /// Batches at random.
    Batches {
        /// How many an hour.
        per_hour: f64,
        /// Items of one.
        items: Times,
        /// How they want the GPUs.
        mode: GpuMode,
    },
}

/// What goes wrong. Rates are per hour, shares from 0 to 1; nothing goes wrong by default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// A worker dies with all it runs.
    pub worker_dies: f64,
    /// The machine dies and comes back.
    pub machine_dies: f64,
    /// The brain dies and another one takes over.
    pub brain_dies: f64,
    /// How long there is no brain then.
    pub brain_away: Times,
    /// Somebody frees the machine, and starts it again.
    pub downs: f64,
    /// A GPU is lost.
    pub gpu_lost: f64,
    /// How long it is lost.
    pub gpu_away: Times,
    /// A loaded LLM dies.
    pub engine_dies: f64,
    /// Boots that fail.
    pub boot_fails: f64,
    /// Boots that never end.
    pub boot_hangs: f64,
    /// Loads of script hosts that fail.
    pub host_fails: f64,
    /// Launches that come to nothing.
    pub launch_fails: f64,
    /// Attempts that end as `crash`.
    pub crash: f64,
    /// Attempts that end as `oom`.
    pub oom: f64,
    /// Attempts that end as `gpu_fault`.
    pub gpu_fault: f64,
    /// Tasks that are `bad_input`.
    pub bad_input: f64,
    /// Attempts with a time limit that never end by themselves.
    pub hangs: f64,
    /// The brain stands still while the world goes on.
    pub stalls: f64,
    /// For how long.
    pub stall: Times,
    /// Facts that are told twice.
    pub duplicates: f64,
    /// Lines of orders and reports that are read late.
    pub late: f64,
    /// How late.
    pub lateness: Times,
    /// The disk is full.
    pub disk_full: f64,
    /// For how long.
    pub disk_away: Times,
    /// Somebody cancels a task.
    pub cancels: f64,
    /// The machine's memory runs low.
    pub ram_low: f64,
    /// For how long.
    pub ram_away: Times,
    /// Another program takes memory of a GPU.
    pub foreign: f64,
    /// How much, in MiB.
    pub foreign_mib: u64,
    /// For how long.
    pub foreign_stay: Times,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            worker_dies: 0.0,
            machine_dies: 0.0,
            brain_dies: 0.0,
            brain_away: Times::Exponential { mean: 20.0 },
            downs: 0.0,
            gpu_lost: 0.0,
            gpu_away: Times::Exponential { mean: 600.0 },
            engine_dies: 0.0,
            boot_fails: 0.0,
            boot_hangs: 0.0,
            host_fails: 0.0,
            launch_fails: 0.0,
            crash: 0.0,
            oom: 0.0,
            gpu_fault: 0.0,
            bad_input: 0.0,
            hangs: 0.0,
            stalls: 0.0,
            stall: Times::Exponential { mean: 60.0 },
            duplicates: 0.0,
            late: 0.0,
            lateness: Times::Exponential { mean: 5.0 },
            disk_full: 0.0,
            disk_away: Times::Exponential { mean: 60.0 },
            cancels: 0.0,
            ram_low: 0.0,
            ram_away: Times::Exponential { mean: 300.0 },
            foreign: 0.0,
            foreign_mib: 4_000,
            foreign_stay: Times::Exponential { mean: 1_200.0 },
        }
    }
}
