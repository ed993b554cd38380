//! How long LLMs load in a replay, and the limits that would be in the way of that.
//!
//! What the machine measured goes before what its settings say. Not here: reading either.

use model::learned::Learned;
use model::{Config, Millis};

use crate::dice::Times;
use crate::scenario::{Scenario, ScenarioError};

/// How much longer than a load a limit is made that would end it.
const ROOM: f64 = 2.0;

/// A limit of the settings within which no LLM would be loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Widened {
    /// Name in `engines`.
    pub engine: String,
    /// Its `boot_timeout_s`, as the settings say it.
    pub stated_s: f64,
    /// The longest load that it has to allow, in seconds.
    pub load_s: f64,
    /// What it is instead, in seconds.
    pub limit_s: f64,
}

impl Scenario {
    /// LLMs load as long as they did in the middle of what a machine measured, be that ever so little.
    pub fn boot_as_measured(&mut self, learned: &Learned) {
        let mut models: std::collections::BTreeMap<&str, Vec<u64>> = std::collections::BTreeMap::new();
        for (name, samples) in &learned.boot_ms {
            let plain = name.split('|').next().unwrap_or(name);
            if let Some((_, model)) = plain.split_once('/').filter(|_| !plain.starts_with("script:")) {
                models.entry(model).or_default().extend(samples);
            }
        }
        for (model, mut samples) in models {
            samples.sort_unstable();
            let middle = samples.get(samples.len() / 2).and_then(|ms| i64::try_from(*ms).ok());
            if let Some(ms) = middle {
                self.engines.boot.insert(model.to_owned(), Times::constant(Millis(ms).as_secs_f64()));
            }
        }
    }

    /// Widens every limit of the settings that loads would not keep here: no task would end otherwise. Which.
    ///
    /// # Errors
    /// When the settings are no configuration.
    pub fn let_boots_end(&mut self) -> Result<Vec<Widened>, ScenarioError> {
        let config = self.settings()?;
        let mut widened = Vec::new();
        for (engine, preset) in &config.engines {
            let load_s = self.longest_load_s(&config, engine);
            if preset.boot_timeout_s < load_s {
                let (engine, stated_s) = (engine.clone(), preset.boot_timeout_s);
                widened.push(Widened { engine, stated_s, load_s, limit_s: ROOM * load_s });
            }
        }
        for one in &widened {
            self.config["engines"][&one.engine]["boot_timeout_s"] = one.limit_s.into();
        }
        Ok(widened)
    }

    /// The longest load of the models that this engine may have to load.
    fn longest_load_s(&self, config: &Config, engine: &str) -> f64 {
        let models = config.models.iter().filter(|(_, entry)| {
            let stated = entry.engine.as_deref().filter(|stated| *stated != "auto");
            [engine, "auto"].contains(&stated.unwrap_or(&config.engine))
        });
        let times = models.map(|(name, _)| self.engines.boot.get(name).unwrap_or(&self.engines.boot_other));
        times.map(Times::mean).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Mind, Sim, replay};

    /// Three prompts, on a machine whose engine has 20 s to load.
    fn hurried(learned: Option<&str>) -> (Vec<Widened>, std::collections::BTreeMap<&'static str, f64>) {
        let mut scenario = Scenario {
            config: json!({
                "engines": { "server": { "command": ["server", "{port}"], "boot_timeout_s": 20 } },
                "engine": "server",
                "models": { "small": { "mib": 4_000 } }
            }),
            whole_config: true,
            ..Scenario::default()
        };
        scenario.boot_as_the_settings_say().unwrap();
        if let Some(text) = learned {
            scenario.boot_as_measured(&serde_json::from_str(text).unwrap());
        }
        let widened = scenario.let_boots_end().unwrap();
        let line = |n: u32| {
            format!(
                r#"{{"at":"2026-01-31T10:00:0{n}Z","what":"start","about":{{"task_id":"t{n}","task":{{"class":"llm","job_type":"t","priority":3}}}}}}"#
            )
        };
        let recorded = replay::read(&[line(1), line(2), line(3)].join("\n")).unwrap();
        let sim = Sim::with_arrivals(scenario, recorded.arrivals, Mind::Ours).unwrap();
        let outcome = sim.run();
        assert_eq!(outcome.broken, []);
        (widened, outcome.numbers())
    }

    #[test]
    fn a_limit_that_no_load_would_keep_is_widened_and_the_tasks_end() {
        let (widened, numbers) = hurried(None);
        let expected = Widened { engine: "server".into(), stated_s: 20.0, load_s: 120.0, limit_s: 240.0 };
        assert_eq!((widened, numbers["complete"]), (vec![expected], 3.0));
    }

    #[test]
    fn loads_that_were_measured_take_as_long_and_keep_the_limit() {
        let learned = r#"{"boot_ms": {"server/small|1|cold": [3000], "script:whisper/small": [90000]}}"#;
        let (widened, numbers) = hurried(Some(learned));
        assert_eq!((widened, numbers["complete"]), (vec![], 3.0));
    }
}
