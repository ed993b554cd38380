//! Reading scenarios: files, and those that come with the program.

use std::path::Path;

use model::Config;
use model::json::Read;
use model::task::ComputeCapability;
use serde_json::Value;

use super::Scenario;
use crate::dice::Times;

/// The fields that are lists.
const LISTS: [&str; 4] = ["gpus", "people", "times_s", "hours"];

/// What is wrong with a scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read the scenario `{path}`: {source}")]
    Unreadable {
        /// Where it should be.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// It is not a scenario.
    #[error("`{path}` is not a scenario: {source}")]
    Malformed {
        /// Where it is.
        path: String,
        /// What the parser says, with line and column.
        source: serde_json::Error,
    },
    /// Its settings are not a configuration.
    #[error("`config` of scenario `{name}` is no configuration: {fault}")]
    Settings {
        /// Its name.
        name: String,
        /// Why.
        fault: Box<model::Fault>,
    },
    /// An object is written as a list.
    #[error("`{path}` is not a scenario: {at} is a list, and must be an object: `{{ … }}`")]
    List {
        /// Where the document is.
        path: String,
        /// Where in it.
        at: String,
    },
    /// A value that cannot be.
    #[error("{place} of scenario `{name}`: `{field}` is {value}, and may be {allowed}")]
    Value {
        /// The scenario's name.
        name: String,
        /// Which part of it.
        place: String,
        /// The field.
        field: String,
        /// What it says.
        value: String,
        /// What it may say.
        allowed: String,
    },
    /// A part that cannot be.
    #[error("{place} of scenario `{name}`: {why}")]
    Impossible {
        /// The scenario's name.
        name: String,
        /// Which part of it.
        place: String,
        /// What is wrong, and the next step.
        why: String,
    },
}

impl Scenario {
    /// Reads a scenario file.
    ///
    /// # Errors
    /// [`ScenarioError`] with the path, and line and column or field.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let shown = path.display().to_string();
        let bytes = std::fs::read(path)
            .map_err(|source| ScenarioError::Unreadable { path: shown.clone(), source })?;
        Self::parse(&bytes, &shown)
    }

    /// Reads a scenario; `from` is where it comes from, and its name where it says none.
    ///
    /// # Errors
    /// [`ScenarioError`] with line and column or field.
    pub fn parse(bytes: &[u8], from: &str) -> Result<Self, ScenarioError> {
        let malformed = |source| ScenarioError::Malformed { path: from.to_owned(), source };
        let mut scenario: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        let whole: Value = serde_json::from_slice(bytes).map_err(malformed)?;
        if let Some(at) = misplaced_list(&whole, "", false) {
            return Err(ScenarioError::List { path: from.to_owned(), at });
        }
        if scenario.name.is_empty() {
            scenario.name = Path::new(from).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        }
        scenario.settings()?;
        scenario.check()?;
        Ok(scenario)
    }

    /// The configuration: the base of all scenarios, and what this one says otherwise, or that alone.
    ///
    /// # Errors
    /// When what it says is no configuration.
    pub fn settings(&self) -> Result<Config, ScenarioError> {
        Ok(self.read_settings()?.value)
    }

    /// What is odd about the settings, such as keys that nobody knows.
    ///
    /// # Errors
    /// When they are no configuration.
    pub fn odd_settings(&self) -> Result<Vec<String>, ScenarioError> {
        Ok(self.read_settings()?.warnings)
    }

    fn read_settings(&self) -> Result<Read<Config>, ScenarioError> {
        let wrong = |fault| ScenarioError::Settings { name: self.name.clone(), fault: Box::new(fault) };
        let mut value = if self.whole_config { serde_json::json!({}) } else { base() };
        merge(&mut value, &self.config);
        let bytes = serde_json::to_vec(&value).unwrap_or_default();
        Config::parse(&bytes, Path::new("/simulated")).map_err(wrong)
    }

    /// LLMs load as long as `resource_manager.boot_times` of the settings says, where it says it.
    ///
    /// # Errors
    /// When the settings are no configuration.
    pub fn boot_as_the_settings_say(&mut self) -> Result<(), ScenarioError> {
        for (model, seconds) in self.settings()?.resource_manager.boot_times {
            self.engines.boot.insert(model, Times::constant(seconds));
        }
        Ok(())
    }

    /// The compute capability of a GPU.
    pub(crate) fn capability(&self, gpu: usize) -> Option<ComputeCapability> {
        ComputeCapability::parse(self.gpus.get(gpu)?.capability.as_deref()?)
    }
}

/// Where an object is written as a list, which the parser would take for its fields in their order.
fn misplaced_list(value: &Value, at: &str, may_be: bool) -> Option<String> {
    match value {
        Value::Array(parts) if may_be => {
            parts.iter().enumerate().find_map(|(n, part)| misplaced_list(part, &format!("{at}[{n}]"), false))
        }
        Value::Array(_) if at.is_empty() => Some("it".into()),
        Value::Array(_) => Some(format!("`{at}`")),
        // Settings have lists of their own.
        Value::Object(parts) => parts
            .iter()
            .filter(|(key, part)| *key != "config" || !part.is_object())
            .find_map(|(key, part)| {
                let place = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                let may_be = LISTS.contains(&key.as_str()) || at == "expected";
                misplaced_list(part, &place, may_be)
            }),
        _ => None,
    }
}

/// Two LLMs, a warm `whisper`, `embed` of one process a task, `count` in the CPU lane.
fn base() -> Value {
    serde_json::json!({
        "models": {
            "qwen2.5:14b": { "mib": 10_000, "parallel": 2 },
            "qwen2.5:7b": { "mib": 5_600, "parallel": 2 }
        },
        "models_order": ["qwen2.5:14b", "qwen2.5:7b"],
        "scripts": {
            "whisper": {
                "path": "whisper.py", "host": "warm", "key": ["model"], "model": "small.en",
                "vram_mib": 3_000
            },
            "embed": { "path": "embed.py", "vram_mib": 1_500 },
            "count": { "path": "count.py", "gpu": "none", "host": "warm" }
        },
        "cpu_slots": 2
    })
}

/// Puts `patch` over `value`: objects are merged, everything else is replaced.
fn merge(value: &mut Value, patch: &Value) {
    match (value, patch) {
        (Value::Object(value), Value::Object(patch)) => {
            for (key, part) in patch {
                merge(value.entry(key.clone()).or_insert(Value::Null), part);
            }
        }
        (value, patch) => *value = patch.clone(),
    }
}

/// Scenarios that come with the program: name and text.
const SHIPPED: [(&str, &str); 7] = [
    ("chat_and_burst", include_str!("../../scenarios/chat_and_burst.json")),
    ("day_night", include_str!("../../scenarios/day_night.json")),
    ("faults_all", include_str!("../../scenarios/faults_all.json")),
    ("mixed_lab", include_str!("../../scenarios/mixed_lab.json")),
    ("pairs", include_str!("../../scenarios/pairs.json")),
    ("seed4_batch_125", include_str!("../../scenarios/seed4_batch_125.json")),
    ("slow_disk", include_str!("../../scenarios/slow_disk.json")),
];

/// Names of the scenarios that come with the program.
pub fn shipped() -> impl Iterator<Item = &'static str> {
    SHIPPED.into_iter().map(|(name, _)| name)
}

impl Scenario {
    /// The scenario of this name that comes with the program, else the file of this path.
    ///
    /// # Errors
    /// As [`Scenario::read`].
    pub fn find(name: &str) -> Result<Self, ScenarioError> {
        match SHIPPED.into_iter().find(|(shipped, _)| *shipped == name) {
            Some((name, text)) => Self::parse(text.as_bytes(), name),
            None => Self::read(Path::new(name)),
        }
    }
}
