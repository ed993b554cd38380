//! `config.json`: every setting, its default and its bounds. As shipped it works unchanged on any machine.
//!
//! Not here: finding and reading the file (`spool::settings`).

mod defaults;
mod listed;
mod programs;
mod sharing;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::fault::{Code, Fault};
use crate::json::{Read, read_object};
use crate::kind::Durability;
use listed::Listed;
pub use programs::{EnginePreset, HostKind, ModelEntry, ScriptEntry, ScriptGpu};
pub use sharing::{Fairness, GpuLock, JobType, Prediction, RamWaitOver, VramAccounting};

/// Schema version of the configuration written by this program.
pub const CONFIG_SCHEMA_VERSION: u32 = 1;

/// A setting that is `"auto"` or a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auto<T> {
    /// Found out at start.
    #[default]
    Auto,
    /// Set.
    Set(T),
}

impl<T> Auto<T> {
    /// The value, if one is set.
    #[must_use]
    pub const fn set(&self) -> Option<&T> {
        match self {
            Self::Auto => None,
            Self::Set(value) => Some(value),
        }
    }
}

impl<T: Serialize> Serialize for Auto<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Set(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: serde::de::DeserializeOwned> Deserialize<'de> for Auto<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        if value == "auto" {
            return Ok(Self::Auto);
        }
        T::deserialize(value)
            .map(Self::Set)
            .map_err(|error| serde::de::Error::custom(format!("`auto`, or {error}")))
    }
}

impl<T: JsonSchema> JsonSchema for Auto<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Auto_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let inner = generator.subschema_for::<T>();
        schemars::json_schema!({ "anyOf": [{ "const": "auto" }, inner] })
    }
}

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// For editors: where the schema of this file lies.
    #[serde(rename = "$schema", skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Version of this shape: 1.
    pub schema_version: u32,
    /// The spool folder; relative to this file. `shared` beside this file if absent.
    pub spool: Option<PathBuf>,
    /// `auto` (NVML, nvidia-smi, else one slot) or `simulated:MiB,MiB,…`.
    pub gpus: String,
    /// The seed's settings of GPUs, roles, boot times, eviction and batches.
    pub resource_manager: ResourceManager,
    /// LLM engines by name; `embedded` is built in.
    pub engines: BTreeMap<String, EnginePreset>,
    /// The engine of models that name none: `auto` is the first that this machine has.
    pub engine: String,
    /// LLMs by name; without `models_order` the first is the preferred one.
    pub models: BTreeMap<String, ModelEntry>,
    /// Names of `models`, the preferred first; those not named follow by name. As `models` lists them if empty.
    pub models_order: Vec<String>,
    /// Scripts by name.
    pub scripts: BTreeMap<String, ScriptEntry>,
    /// Folders whose files may be named as scripts; relative to this file.
    pub script_dirs: Vec<PathBuf>,
    /// Commands that `on_complete` may name: argument lists, the record on standard input.
    pub on_complete: BTreeMap<String, Vec<String>>,
    /// How durable an accepted task is.
    pub durability: Durability,
    /// Who starts workers.
    pub launcher: Launcher,
    /// Tasks that run at once in the CPU lane; half the cores if `auto`.
    pub cpu_slots: Auto<u32>,
    /// How jobs of different types share what they compete for.
    pub fairness: Fairness,
    /// Whether several units may run at once: `slots` by memory, or `single`, one on the whole machine.
    pub gpu_lock: GpuLock,
    /// What the mind does ahead of demand.
    pub prediction: Prediction,
    /// What happens after a failure.
    pub retry: Retry,
    /// Times in seconds.
    pub timing: Timing,
    /// How `gpuspool down` frees the machine.
    pub shutdown: Shutdown,
    /// Bounds on sizes.
    pub limits: Limits,
    /// Whether unknown fields of a task are errors.
    pub strict: bool,
    /// The group that shares the spool; the spool is its owner's alone if absent.
    pub shared_group: Option<String>,
    /// Whether the spool may lie on a network file system.
    pub allow_network_fs: bool,
}

/// Settings by the names of the seed's design.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourceManager {
    /// How many GPUs to expect; only checked against what is found.
    pub gpu_count: Auto<u32>,
    /// Role by GPU key.
    pub gpu_roles: Auto<BTreeMap<String, GpuRole>>,
    /// Boot times in seconds by model or `script:model`, until they have been learned.
    pub boot_times: BTreeMap<String, f64>,
    /// What a script is counted with on a GPU, in MiB, under `declared` accounting; slots are told of this size at start.
    pub vram_per_job_mb: u64,
    /// Memory of a GPU in MiB that units which share it leave free.
    pub vram_headroom_mb: u64,
    /// How the memory of GPUs is shared out.
    pub vram_accounting: VramAccounting,
    /// Available system memory in MiB below which no script is started.
    pub min_system_ram_mb: u64,
    /// How long a start waits for system memory, in seconds.
    pub ram_wait_s: f64,
    /// What happens after that wait.
    pub ram_wait_over: RamWaitOver,
    /// Whether scripts may run beside a ready LLM where the memory allows.
    pub colocate_scripts: bool,
    /// When a loaded LLM makes room.
    pub eviction_policy: EvictionPolicy,
    /// Batches.
    pub batch_settings: BatchSettings,
}

/// What a GPU is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GpuRole {
    /// The orchestrating LLM's GPU: booted at start, pinned, no scripts.
    BrainPrimary,
    /// Its second GPU.
    BrainSecondary,
    /// Either kind of work.
    WorkerOrScript,
}

impl GpuRole {
    /// Its name in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BrainPrimary => "brain_primary",
            Self::BrainSecondary => "brain_secondary",
            Self::WorkerOrScript => "worker_or_script",
        }
    }
}

impl std::fmt::Display for GpuRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// When a loaded LLM makes room for scripts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EvictionPolicy {
    /// By which rule: `cost_benefit` weighs both sides, `thresholds` are the seed's three rules.
    pub rule: EvictionRule,
    /// What a second that an LLM task waits weighs against one that a script waits.
    pub chat_weight: f64,
    /// GPUs with an LLM that are never taken for scripts outside an exclusive batch.
    pub reserve_for_chat: u32,
    /// Least time in seconds that a loaded LLM stays; twice its boot time if that is longer.
    pub min_residency_s: f64,
    /// Seconds without a request after which no LLM is kept for the sake of its class.
    pub keep_last_s: f64,
    /// With an idle LLM GPU, more waiting scripts than this evict it.
    pub min_script_queue_for_evict: u32,
    /// With no LLM task waiting, more waiting scripts than this evict an LLM.
    pub huge_script_queue: u32,
    /// Expected seconds of a script task of which nothing is known.
    pub avg_script_time_s: f64,
    /// Whether only an idle LLM is evicted while there is one.
    pub prefer_idle_llm_eviction: bool,
    /// Whether LLMs on `brain_*` GPUs stay.
    pub never_evict_brain: bool,
}

/// By which rule a loaded LLM makes room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EvictionRule {
    /// What the scripts gain against what the requests lose.
    #[default]
    CostBenefit,
    /// The seed's three thresholds.
    Thresholds,
}

/// Batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BatchSettings {
    /// From this many items on a batch of mode `auto` is exclusive.
    pub auto_exclusive_threshold: u32,
    /// Whether the LLMs that made room come back at the end.
    pub reload_llms_after_batch: bool,
    /// How long running LLM tasks may go on when an exclusive batch waits, in seconds.
    pub drain_s: f64,
    /// Whether a chatbot may borrow a GPU inside an exclusive batch.
    pub exclusive_admits_chat: bool,
    /// How long a GPU that a chatbot borrowed stays with it after its last request, in seconds.
    pub chat_linger_s: f64,
    /// How many LLMs that come back after a batch are read from the disk at a time; loads of the same model count once.
    pub cold_loads_per_disk: u32,
}

/// Who starts workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Launcher {
    /// The brain, as processes of this machine.
    #[default]
    Local,
    /// Somebody else: workers are started by hand.
    None,
}

/// What happens after a failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Retry {
    /// Charged attempts a task may have.
    pub max_attempts: u32,
    /// Seconds to wait before the second, third, … attempt; the last holds for all further ones.
    pub backoff_s: Vec<f64>,
}

/// Times, all in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Timing {
    /// Least stay in `cooling` after an unload.
    pub cooling_s: f64,
    /// How long a broken file must lie unchanged before it is rejected.
    pub settle_s: f64,
    /// How often folders are looked at without an event.
    pub rescan_s: f64,
    /// How long a worker without a brain keeps its LLM.
    pub orphan_ttl_s: f64,
    /// From SIGTERM to SIGKILL of a script.
    pub kill_grace_s: f64,
    /// Time limit of a script task that sets none; 0 is none.
    pub script_timeout_s: f64,
    /// Longest load of a warm script host.
    pub host_boot_timeout_s: f64,
}

/// How `gpuspool down` frees the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Shutdown {
    /// All of it, in seconds.
    pub timeout_s: f64,
    /// The share of that which running units may use up before they are stopped and requeued.
    pub running_share: f64,
}

/// Bounds on sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Limits {
    /// Largest task file in bytes.
    pub task_bytes_max: u64,
    /// Largest log of one attempt in bytes.
    pub log_bytes_max: u64,
    /// How much of the log's end goes into a record, in bytes.
    pub tail_bytes_max: u64,
    /// Largest result of a script in bytes.
    pub result_bytes_max: u64,
}

/// The name of the engine that is built in.
pub const EMBEDDED: &str = "embedded";
/// The name of the demonstration model.
pub const DEMO_MODEL: &str = "demo-model";

impl Config {
    /// Reads a configuration; relative paths in it become relative to `folder`, where the file lies.
    ///
    /// # Errors
    /// A [`Fault`] with line and column, or with field and range.
    pub fn parse(bytes: &[u8], folder: &Path) -> Result<Read<Self>, Fault> {
        let mut read = read_object::<Self>(bytes, CONFIG_KEYS)?;
        if read.value.models_order.is_empty() {
            read.value.models_order = read_object::<Listed>(bytes, &[])?.value.models.0;
        }
        read.value.check()?;
        read.value.anchor(folder);
        Ok(read)
    }

    /// Makes relative paths relative to `folder`.
    pub fn anchor(&mut self, folder: &Path) {
        let place = |path: &mut PathBuf| {
            if path.is_relative() {
                *path = folder.join(&*path);
            }
        };
        self.spool.iter_mut().for_each(place);
        self.script_dirs.iter_mut().for_each(place);
        for entry in self.scripts.values_mut() {
            place(&mut entry.path);
            entry.api_key_file.iter_mut().for_each(place);
        }
        for entry in self.models.values_mut() {
            entry.file.iter_mut().for_each(place);
        }
    }

    fn check(&self) -> Result<(), Fault> {
        let timing = &self.timing;
        let manager = &self.resource_manager;
        let seconds = [
            ("timing.cooling_s", timing.cooling_s),
            ("timing.settle_s", timing.settle_s),
            ("timing.rescan_s", timing.rescan_s),
            ("timing.orphan_ttl_s", timing.orphan_ttl_s),
            ("timing.kill_grace_s", timing.kill_grace_s),
            ("timing.script_timeout_s", timing.script_timeout_s),
            ("timing.host_boot_timeout_s", timing.host_boot_timeout_s),
            ("shutdown.timeout_s", self.shutdown.timeout_s),
            ("resource_manager.batch_settings.drain_s", manager.batch_settings.drain_s),
            ("resource_manager.eviction_policy.avg_script_time_s", manager.eviction_policy.avg_script_time_s),
            ("resource_manager.eviction_policy.min_residency_s", manager.eviction_policy.min_residency_s),
            ("resource_manager.eviction_policy.keep_last_s", manager.eviction_policy.keep_last_s),
            ("resource_manager.batch_settings.chat_linger_s", manager.batch_settings.chat_linger_s),
            ("resource_manager.ram_wait_s", manager.ram_wait_s),
            ("fairness.ageing_s", self.fairness.ageing_s),
        ];
        let waits = self.retry.backoff_s.iter().map(|s| ("retry.backoff_s", *s));
        let boots = manager.boot_times.values().map(|s| ("resource_manager.boot_times", *s));
        for (field, value) in seconds.into_iter().chain(waits).chain(boots) {
            within(field, value, 0.0, 31_536_000.0)?;
        }
        within("shutdown.running_share", self.shutdown.running_share, 0.0, 1.0)?;
        within("timing.rescan_s", timing.rescan_s, 0.1, 3_600.0)?;
        within(
            "resource_manager.eviction_policy.chat_weight",
            manager.eviction_policy.chat_weight,
            0.0,
            1e6,
        )?;
        within("resource_manager.vram_per_job_mb", manager.vram_per_job_mb as f64, 1.0, 1e9)?;
        let loads = f64::from(manager.batch_settings.cold_loads_per_disk);
        within("resource_manager.batch_settings.cold_loads_per_disk", loads, 1.0, 1_024.0)?;
        within("fairness.default_weight", f64::from(self.fairness.default_weight), 1.0, 1_000.0)?;
        for (name, job_type) in &self.fairness.job_types {
            let field = format!("fairness.job_types.{name}");
            within(&format!("{field}.weight"), f64::from(job_type.weight), 1.0, 1_000.0)?;
            let in_a_row = f64::from(job_type.max_consecutive.unwrap_or(1));
            within(&format!("{field}.max_consecutive"), in_a_row, 1.0, 1_000_000.0)?;
        }
        within("retry.max_attempts", f64::from(self.retry.max_attempts), 1.0, 100.0)?;
        for (name, preset) in &self.engines {
            if preset.command.is_empty() && name != EMBEDDED {
                return Err(Fault::new(Code::MissingField, "an engine needs a command")
                    .in_field(format!("engines.{name}.command"))
                    .next("give the program and its arguments as a list"));
            }
        }
        for (name, entry) in &self.models {
            self.check_model(name, entry)?;
        }
        for (name, entry) in &self.scripts {
            if entry.path.as_os_str().is_empty() {
                return Err(Fault::new(Code::MissingField, "a script needs a path")
                    .in_field(format!("scripts.{name}.path")));
            }
            // No media are worked off backwards or never.
            within(&format!("scripts.{name}.speed"), entry.speed.unwrap_or(1.0), 1e-6, 1e6)?;
        }
        Ok(())
    }

    fn check_model(&self, name: &str, entry: &ModelEntry) -> Result<(), Fault> {
        within(&format!("models.{name}.parallel"), f64::from(entry.parallel.unwrap_or(1)), 1.0, 1_024.0)?;
        within(&format!("models.{name}.gpus"), f64::from(entry.gpus.unwrap_or(1)), 1.0, 64.0)?;
        match &entry.engine {
            Some(engine) if engine != EMBEDDED && engine != "auto" && !self.engines.contains_key(engine) => {
                let known: Vec<&str> =
                    self.engines.keys().map(String::as_str).chain(["auto", EMBEDDED]).collect();
                Err(Fault::new(Code::BadEnum, format!("no engine is called `{engine}`"))
                    .in_field(format!("models.{name}.engine"))
                    .next(format!("use one of {}", known.join(", "))))
            }
            _ => Ok(()),
        }
    }

    /// Names of the registered scripts, for messages.
    #[must_use]
    pub fn script_names(&self) -> String {
        if self.scripts.is_empty() {
            return "none".into();
        }
        self.scripts.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// The models, the preferred first.
    pub fn models_in_order(&self) -> impl Iterator<Item = (&str, &ModelEntry)> {
        let named = self.models_order.iter().filter_map(|name| self.models.get_key_value(name));
        let rest = self.models.iter().filter(|(name, _)| !self.models_order.contains(name));
        named.chain(rest).map(|(name, entry)| (name.as_str(), entry))
    }

    /// The role of the GPU with this key.
    #[must_use]
    pub fn role(&self, gpu_key: &str) -> Option<GpuRole> {
        self.resource_manager.gpu_roles.set().and_then(|roles| roles.get(gpu_key)).copied()
    }

    /// The preset called `name`, with the built-in command where it is `embedded`.
    #[must_use]
    pub fn preset(&self, name: &str) -> Option<EnginePreset> {
        let mut preset = match self.engines.get(name) {
            Some(preset) => preset.clone(),
            None if name == EMBEDDED => EnginePreset::default(),
            None => return None,
        };
        if preset.command.is_empty() && name == EMBEDDED {
            preset.command =
                ["gpuspool-embedded", "serve", "--host", "{host}", "--port", "{port}", "--name", "{model}"]
                    .map(str::to_owned)
                    .to_vec();
        }
        Some(preset)
    }
}

fn within(field: &str, value: f64, least: f64, most: f64) -> Result<(), Fault> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(Fault::new(Code::OutOfRange, format!("{value} is not within {least} to {most}")).in_field(field))
    }
}

/// Top-level keys of the configuration, for suggestions.
pub const CONFIG_KEYS: &[&str] = &[
    "schema_version",
    "spool",
    "gpus",
    "resource_manager",
    "engines",
    "engine",
    "models",
    "models_order",
    "scripts",
    "script_dirs",
    "on_complete",
    "durability",
    "launcher",
    "cpu_slots",
    "fairness",
    "gpu_lock",
    "prediction",
    "retry",
    "timing",
    "shutdown",
    "limits",
    "strict",
    "shared_group",
    "allow_network_fs",
];
