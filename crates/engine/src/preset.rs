//! Which engines this machine has, what each can load, and the command that boots one.
//!
//! Not here: booting (`server`); which model should be loaded (`policy`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::config::{Config, DEMO_MODEL, EMBEDDED, EnginePreset, ModelEntry};
use model::link::{Can, CanEngine};

/// Engines in the order in which `auto` prefers them; others follow by name, the built-in one comes last.
const PREFERRED: &[&str] = &["ollama", "llama-server", "llama_server", "vllm"];

/// Where a program lies, if this machine has it.
pub type Find<'a> = &'a dyn Fn(&str) -> Option<PathBuf>;

/// A preset cannot boot a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unbootable {
    /// There is no such preset.
    #[error("no engine is called `{0}`; `engines` in the configuration names them")]
    NoSuchPreset(String),
    /// Its program is missing.
    #[error("{0}")]
    NoProgram(String),
    /// The model has no file, but the engine needs one.
    #[error("the model `{0}` has no readable file; set `models.{0}.file` to one")]
    NoFile(String),
}

/// The values that a command's braces stand for.
#[derive(Clone, Debug)]
pub struct Values {
    /// The model's name.
    pub model: String,
    /// The port on the loopback address.
    pub port: u16,
    /// Requests to serve at once.
    pub parallel: u32,
    /// Cores it may use.
    pub threads: usize,
    /// The GPU's uuid, or `cpu`.
    pub gpu: String,
    /// How many GPUs it has.
    pub gpus: usize,
}

/// A command that is ready to be started.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables to set.
    pub env: BTreeMap<String, String>,
    /// The name the engine knows the model by.
    pub served_model: String,
}

/// The command with which `preset_name` boots a model.
///
/// # Errors
/// [`Unbootable`].
pub fn command(
    config: &Config,
    preset_name: &str,
    values: &Values,
    find: Find<'_>,
) -> Result<Command, Unbootable> {
    let preset = complete(config, preset_name, &values.model)
        .ok_or_else(|| Unbootable::NoSuchPreset(preset_name.into()))?;
    let entry = config.models.get(&values.model);
    if let (true, None) = (needs_file(&preset), entry.and_then(file_of)) {
        return Err(Unbootable::NoFile(values.model.clone()));
    }
    let program = program_of(&preset, preset_name, find).map_err(Unbootable::NoProgram)?;
    let fill = |text: &String| fill(text, values, entry);
    let mut argv: Vec<String> = preset.command.iter().map(fill).collect();
    if let Some(first) = argv.first_mut() {
        *first = program.to_string_lossy().into_owned();
    }
    let env = preset.env.iter().map(|(name, value)| (name.clone(), fill(value))).collect();
    Ok(Command { argv, env, served_model: fill(&preset.served_model) })
}

/// The preset with what the built-in engine adds for this model: its file, or the demonstration.
fn complete(config: &Config, name: &str, model: &str) -> Option<EnginePreset> {
    let mut preset = config.preset(name)?;
    let built_in = config.engines.get(name).is_none_or(|preset| preset.command.is_empty());
    if name == EMBEDDED && built_in {
        let words: &[&str] = if model == DEMO_MODEL { &["--demo"] } else { &["--model", "{file}"] };
        preset.command.extend(words.iter().map(|word| (*word).to_owned()));
    }
    Some(preset)
}

fn needs_file(preset: &EnginePreset) -> bool {
    preset.command.iter().chain(preset.env.values()).any(|word| word.contains("{file}"))
}

fn file_of(entry: &ModelEntry) -> Option<&Path> {
    entry.file.as_deref().filter(|file| file.is_file())
}

fn program_of(preset: &EnginePreset, name: &str, find: Find<'_>) -> Result<PathBuf, String> {
    let program = preset.command.first().map(String::as_str).unwrap_or_default();
    find(program).ok_or_else(|| {
        if name == EMBEDDED && program == "gpuspool-embedded" {
            "the embedded engine is not built; run `scripts/embedded` to build the embedded engine".to_owned()
        } else {
            format!("the engine `{name}` needs the program `{program}`, which is not on PATH; install it")
        }
    })
}

fn fill(text: &str, values: &Values, entry: Option<&ModelEntry>) -> String {
    let tag = entry.and_then(|entry| entry.tag.clone()).unwrap_or_else(|| values.model.clone());
    let file = entry.and_then(|entry| entry.file.as_ref()).map(|file| file.to_string_lossy().into_owned());
    let known = [
        ("model", values.model.clone()),
        ("file", file.unwrap_or_default()),
        ("tag", tag),
        ("host", "127.0.0.1".to_owned()),
        ("port", values.port.to_string()),
        ("parallel", values.parallel.to_string()),
        ("threads", values.threads.to_string()),
        ("gpu", values.gpu.clone()),
        ("gpus", values.gpus.to_string()),
    ];
    // One pass: what was filled in is not looked at again, braces in a file's name stay what they are.
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let (before, after) = rest.split_at(open);
        filled.push_str(before);
        let value = after[1..]
            .split_once('}')
            .and_then(|(name, _)| known.iter().find(|(known, _)| *known == name))
            .map(|(name, value)| (value, name.len() + 2));
        match value {
            Some((value, skip)) => {
                filled.push_str(value);
                rest = &after[skip..];
            }
            None => {
                filled.push('{');
                rest = &after[1..];
            }
        }
    }
    filled + rest
}

/// Finds out what this machine can boot.
#[must_use]
pub fn resolve(config: &Config, find: Find<'_>) -> Can {
    let mut can = Can::default();
    let mut present: Vec<(String, EnginePreset)> = Vec::new();
    for name in names(config) {
        let Some(preset) = config.preset(&name) else { continue };
        match program_of(&preset, &name, find) {
            Ok(_) => present.push((name, preset)),
            Err(sentence) => can.missing.push(sentence),
        }
    }
    let mut served: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (model, entry) in config.models_in_order() {
        let wanted = entry.engine.as_deref().unwrap_or(&config.engine);
        let able = |(name, _): &&(String, EnginePreset)| {
            complete(config, name, model)
                .is_some_and(|preset| !needs_file(&preset) || file_of(entry).is_some())
        };
        let engine = present.iter().filter(|(name, _)| wanted == "auto" || wanted == name).find(able);
        match engine {
            Some((name, _)) => served.entry(name.clone()).or_default().push(model.to_owned()),
            None => can.missing.push(format!(
                "no engine here can load `{model}`; set `models.{model}.file` to a GGUF file, or install an engine that has it"
            )),
        }
    }
    let only_demo = served.is_empty() && present.iter().any(|(name, _)| name == EMBEDDED);
    if only_demo && matches!(config.engine.as_str(), "auto" | EMBEDDED) {
        served.insert(EMBEDDED.into(), vec![DEMO_MODEL.into()]);
    }
    for (name, _) in present {
        if let Some(models) = served.remove(&name) {
            can.engines.push(CanEngine { preset: name, models });
        }
    }
    can
}

fn names(config: &Config) -> Vec<String> {
    let preferred =
        PREFERRED.iter().filter(|name| config.engines.contains_key(**name)).map(|name| (*name).to_owned());
    let others =
        config.engines.keys().filter(|name| !PREFERRED.contains(&name.as_str()) && *name != EMBEDDED);
    preferred.chain(others.cloned()).chain([EMBEDDED.to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(model: &str) -> Values {
        Values { model: model.into(), port: 18_100, parallel: 2, threads: 4, gpu: "GPU-1".into(), gpus: 1 }
    }

    fn found(name: &str) -> Option<PathBuf> {
        Some(Path::new("/bin").join(name))
    }

    fn absent(_: &str) -> Option<PathBuf> {
        None
    }

    fn config(text: &str) -> Config {
        Config::parse(text.as_bytes(), Path::new("/etc")).unwrap().value
    }

    const SERVER: &str = r#"{"engines": {"mine": {
        "command": ["srv", "-m", "{file}", "--np={parallel}", "{port}{x}", "{tag}"], "env": {"GPU": "{gpu}"}}},
        "models": {"m": {"file": "FILE"}, "n": {"tag": "n:latest"}}}"#;

    #[test]
    fn a_missing_embedded_engine_says_how_to_build_it() {
        let can = resolve(&Config::default(), &absent);
        assert!(can.engines.is_empty());
        assert_eq!(
            can.missing,
            ["the embedded engine is not built; run `scripts/embedded` to build the embedded engine"]
        );
    }

    #[test]
    fn with_nothing_else_the_demonstration_is_what_there_is() {
        let config = config(r#"{"models": {"qwen2.5:7b": {}}}"#);
        let can = resolve(&config, &found);
        assert_eq!(can.engines, [CanEngine { preset: EMBEDDED.into(), models: vec![DEMO_MODEL.into()] }]);
        assert!(can.missing[0].contains("`qwen2.5:7b`"), "{:?}", can.missing);
        let command = command(&config, EMBEDDED, &values(DEMO_MODEL), &found).unwrap();
        assert_eq!(
            command.argv.join(" "),
            "/bin/gpuspool-embedded serve --host 127.0.0.1 --port 18100 --name demo-model --demo"
        );
        assert_eq!(command.served_model, DEMO_MODEL);
    }

    #[test]
    fn braces_are_filled_in_once_and_unknown_ones_stay() {
        let file = tempfile::Builder::new().suffix("{port}.gguf").tempfile().unwrap();
        let path = file.path().to_str().unwrap();
        let config = config(&SERVER.replace("FILE", path));
        let command = command(&config, "mine", &values("m"), &found).unwrap();
        assert_eq!(command.argv, ["/bin/srv", "-m", path, "--np=2", "18100{x}", "m"]);
        assert_eq!(command.env["GPU"], "GPU-1");
    }

    #[test]
    fn a_model_goes_to_the_first_engine_that_can_load_it() {
        let file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
        let config = config(&SERVER.replace("FILE", file.path().to_str().unwrap()));
        let can = resolve(&config, &found);
        assert_eq!(can.engines, [CanEngine { preset: "mine".into(), models: vec!["m".into()] }]);
        assert!(can.missing[0].contains("`n`"), "{:?}", can.missing);
        assert_eq!(
            command(&config, "mine", &values("n"), &found).unwrap_err(),
            Unbootable::NoFile("n".into())
        );
        let only_embedded = resolve(&config, &|name| (name == "gpuspool-embedded").then(|| name.into()));
        assert_eq!(only_embedded.engines, [CanEngine { preset: EMBEDDED.into(), models: vec!["m".into()] }]);
    }
}
