//! The configuration as shipped, and the one of the design document that the project grew from.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use model::config::{Auto, GpuRole, HostKind, ScriptGpu};
use model::{Code, Config};
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn shipped_text() -> String {
    fs::read_to_string(root().join("config.json")).expect("config.json lies at the root")
}

/// Reads a configuration that must be understood to its last word.
fn understood(text: &str) -> Config {
    let read = Config::parse(text.as_bytes(), Path::new("/srv")).expect("a usable configuration");
    assert_eq!(read.warnings, Vec::<String>::new());
    read.value
}

/// What is wrong with a configuration, as code, field and sentence.
fn fault(config: &Value) -> (Code, Option<String>, String) {
    let fault =
        Config::parse(config.to_string().as_bytes(), Path::new("/srv")).expect_err("it must be refused");
    (fault.code, fault.place.field.clone(), fault.to_string())
}

/// The example of the design document, word for word.
const DESIGN: &str = r#"{
  "resource_manager": {
    "gpu_count": 5,
    "gpu_roles": {
      "0": "brain_primary",
      "1": "worker_or_script",
      "2": "worker_or_script",
      "3": "brain_secondary",
      "4": "worker_or_script"
    },
    "boot_times": {
      "qwen2.5:14b": 160,
      "qwen2.5:7b": 120,
      "whisper:small.en": 5
    },
    "eviction_policy": {
      "min_script_queue_for_evict": 5,
      "prefer_idle_llm_eviction": true,
      "never_evict_brain": true
    },
    "batch_settings": {
      "auto_exclusive_threshold": 50,
      "reload_llms_after_batch": true
    }
  }
}"#;

#[test]
fn every_field_of_the_design_is_read_with_its_value() {
    let manager = understood(DESIGN).resource_manager;
    assert_eq!(manager.gpu_count, Auto::Set(5));
    let roles = manager.gpu_roles.set().expect("roles are set");
    let primary: Vec<&GpuRole> = ["0", "1", "2", "3", "4"].iter().map(|key| &roles[*key]).collect();
    use GpuRole::{BrainPrimary, BrainSecondary, WorkerOrScript};
    assert_eq!(primary, [&BrainPrimary, &WorkerOrScript, &WorkerOrScript, &BrainSecondary, &WorkerOrScript]);
    let boots: Vec<(&str, f64)> = manager.boot_times.iter().map(|(name, s)| (name.as_str(), *s)).collect();
    assert_eq!(boots, [("qwen2.5:14b", 160.0), ("qwen2.5:7b", 120.0), ("whisper:small.en", 5.0)]);
    let eviction = &manager.eviction_policy;
    assert_eq!(eviction.min_script_queue_for_evict, 5);
    assert!(eviction.prefer_idle_llm_eviction && eviction.never_evict_brain);
    assert_eq!(manager.batch_settings.auto_exclusive_threshold, 50);
    assert!(manager.batch_settings.reload_llms_after_batch);
}

#[test]
fn fields_of_the_design_are_not_merely_defaults() {
    let mut other: Value = serde_json::from_str(DESIGN).expect("JSON");
    let manager = &mut other["resource_manager"];
    manager["gpu_count"] = json!(2);
    manager["gpu_roles"] = json!({ "0": "worker_or_script" });
    manager["boot_times"] = json!({ "m": 1.5 });
    manager["eviction_policy"] = json!({
        "min_script_queue_for_evict": 9, "prefer_idle_llm_eviction": false, "never_evict_brain": false,
    });
    manager["batch_settings"] = json!({ "auto_exclusive_threshold": 7, "reload_llms_after_batch": false });
    let manager = understood(&other.to_string()).resource_manager;
    assert_eq!(manager.gpu_count, Auto::Set(2));
    assert_eq!(manager.gpu_roles.set().map(|roles| roles.len()), Some(1));
    assert_eq!(manager.boot_times.get("m"), Some(&1.5));
    let eviction = manager.eviction_policy;
    assert_eq!(eviction.min_script_queue_for_evict, 9);
    assert!(!eviction.prefer_idle_llm_eviction && !eviction.never_evict_brain);
    assert_eq!(manager.batch_settings.auto_exclusive_threshold, 7);
    assert!(!manager.batch_settings.reload_llms_after_batch);
}

#[test]
fn the_shipped_configuration_suits_any_machine() {
    let config = understood(&shipped_text());
    assert_eq!(config.schema.as_deref(), Some("crates/model/schemas/config.schema.json"));
    let manager = &config.resource_manager;
    assert_eq!((&manager.gpu_count, &manager.gpu_roles), (&Auto::Auto, &Auto::Auto));
    assert_eq!((config.gpus.as_str(), config.engine.as_str()), ("auto", "auto"));
    let design = understood(DESIGN).resource_manager;
    assert_eq!(manager.boot_times, design.boot_times);
    assert_eq!(manager.eviction_policy, design.eviction_policy);
    assert_eq!(manager.batch_settings, design.batch_settings);
    let models: Vec<(&str, Option<u64>, Option<u32>)> =
        config.models_in_order().map(|(name, entry)| (name, entry.mib, entry.parallel)).collect();
    assert_eq!(models, [("qwen2.5:14b", Some(10_000), Some(2)), ("qwen2.5:7b", Some(5_600), Some(2))]);
}

#[test]
fn models_are_preferred_as_they_are_listed_unless_another_order_is_stated() {
    let order = |text: &str| -> Vec<String> {
        understood(text).models_in_order().map(|(name, _)| name.to_owned()).collect()
    };
    assert_eq!(order(r#"{"models": {"zeta": {}, "alpha": {"mib": 5}, "mu": {}}}"#), ["zeta", "alpha", "mu"]);
    assert_eq!(order(r#"{"models_order": [], "models": {"zeta": {}, "alpha": {}}}"#), ["zeta", "alpha"]);
    let stated = r#"{"models": {"zeta": {}, "alpha": {}, "mu": {}}, "models_order": ["mu"]}"#;
    assert_eq!(order(stated), ["mu", "alpha", "zeta"], "those not named follow by name");
    assert_eq!(order(r#"{"gpus": "auto"}"#), Vec::<String>::new());
}

#[test]
fn the_keys_that_are_suggested_are_those_of_the_types() {
    use std::collections::BTreeMap;
    let schemas: BTreeMap<_, _> = model::schema::all().into_iter().collect();
    let known = |keys: &[&'static str]| keys.iter().copied().collect::<BTreeSet<&str>>();
    let of_type = |name: &str| model::schema::keys(&schemas[name]).into_iter().collect::<BTreeSet<&str>>();
    let mut config = known(model::config::CONFIG_KEYS);
    config.insert("$schema");
    assert_eq!(of_type("config"), config);
    let mut task = known(model::validate::TASK_KEYS);
    task.extend(["env", "checkpoint"]); // no task may state the one, and the other is nothing that people write
    assert_eq!(of_type("task"), task);
}

#[test]
fn the_shipped_scripts_are_there_and_see_only_what_they_name() {
    let config = Config::parse(shipped_text().as_bytes(), &root()).expect("a usable configuration").value;
    for (name, script) in &config.scripts {
        assert!(script.path.is_file(), "`{name}` is registered as {}", script.path.display());
    }
    let whisper = &config.scripts["whisper_transcribe"];
    assert_eq!((whisper.host, whisper.gpu), (HostKind::Warm, ScriptGpu::Any));
    assert_eq!(whisper.key, ["model"]);
    assert_eq!(whisper.vram_mib, Some(3_000));
    for variable in
        ["HF_TOKEN", "HF_HOME", "HF_HUB_OFFLINE", "HTTPS_PROXY", "https_proxy", "no_proxy", "SSL_CERT_FILE"]
    {
        assert!(whisper.env.iter().any(|name| name == variable), "{variable}");
    }
    let sphinx = &config.scripts["sphinx_transcribe"];
    assert_eq!((sphinx.host, sphinx.env.len()), (HostKind::Warm, 0));
    assert!(sphinx.speed.is_some_and(|speed| speed > 0.0));
}

#[test]
fn the_shipped_configuration_names_every_setting_and_changes_none_but_models_and_scripts() {
    let shipped: Value = serde_json::from_str(&shipped_text()).expect("JSON");
    let keys: BTreeSet<&str> = shipped.as_object().expect("an object").keys().map(String::as_str).collect();
    let known: BTreeSet<&str> = model::config::CONFIG_KEYS.iter().copied().chain(["$schema"]).collect();
    assert_eq!(keys, known, "the shipped file is where people look settings up");
    let mut config: Config = serde_json::from_value(shipped).expect("a configuration");
    let default = Config::default();
    config.schema = None;
    config.spool = None;
    config.models.clear();
    config.models_order.clear();
    config.scripts.clear();
    assert_eq!(config, default, "without a file the same settings hold");
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let config = understood(
        &json!({
            "spool": "spool", "script_dirs": ["mine", "/abs"],
            "scripts": { "s": { "path": "s.py", "api_key_file": "key" } }, "models": { "m": { "file": "m.gguf" } },
        })
        .to_string(),
    );
    assert_eq!(config.spool, Some(PathBuf::from("/srv/spool")));
    assert_eq!(config.script_dirs, [PathBuf::from("/srv/mine"), PathBuf::from("/abs")]);
    assert_eq!(config.scripts["s"].path, PathBuf::from("/srv/s.py"));
    assert_eq!(config.scripts["s"].api_key_file, Some(PathBuf::from("/srv/key")));
    assert_eq!(config.models["m"].file, Some(PathBuf::from("/srv/m.gguf")));
}

#[test]
fn a_number_that_nobody_can_mean_is_refused_with_field_and_range() {
    for (config, field) in [
        (json!({ "timing": { "cooling_s": -1 } }), "timing.cooling_s"),
        (json!({ "timing": { "rescan_s": 0 } }), "timing.rescan_s"),
        (json!({ "timing": { "orphan_ttl_s": 1e18 } }), "timing.orphan_ttl_s"),
        (json!({ "shutdown": { "running_share": 1.5 } }), "shutdown.running_share"),
        (json!({ "retry": { "max_attempts": 0 } }), "retry.max_attempts"),
        (json!({ "retry": { "backoff_s": [0, -5] } }), "retry.backoff_s"),
        (json!({ "models": { "m": { "parallel": 0 } } }), "models.m.parallel"),
        (json!({ "scripts": { "s": { "path": "s.py", "speed": 0 } } }), "scripts.s.speed"),
        (json!({ "scripts": { "s": { "path": "s.py", "speed": -2.5 } } }), "scripts.s.speed"),
        (json!({ "resource_manager": { "boot_times": { "m": -160 } } }), "resource_manager.boot_times"),
    ] {
        let (code, at, said) = fault(&config);
        assert_eq!((code, at.as_deref()), (Code::OutOfRange, Some(field)));
        assert!(said.contains("is not within"), "{said}");
    }
}

#[test]
fn what_is_no_setting_is_refused_or_warned_about() {
    let (code, at, said) = fault(&json!({ "models": { "m": { "engine": "olama" } } }));
    assert_eq!((code, at.as_deref()), (Code::BadEnum, Some("models.m.engine")));
    assert!(said.contains("use one of auto, embedded"), "{said}");
    let (code, at, _) = fault(&json!({ "resource_manager": { "gpu_roles": { "0": "boss" } } }));
    assert_eq!((code, at.as_deref()), (Code::BadType, Some("resource_manager.gpu_roles")));
    let (code, at, _) = fault(&json!({ "scripts": { "s": {} } }));
    assert_eq!((code, at.as_deref()), (Code::MissingField, Some("scripts.s.path")));
    let (code, at, _) = fault(&json!({ "engines": { "mine": {} } }));
    assert_eq!((code, at.as_deref()), (Code::MissingField, Some("engines.mine.command")));
    let read =
        Config::parse(br#"{"resource_manger": {}, "limits": {"tail": 1}}"#, Path::new("/")).expect("usable");
    assert_eq!(
        read.warnings,
        [
            "unknown field `resource_manger` is ignored; did you mean `resource_manager`?",
            "unknown field `limits.tail` is ignored",
        ]
    );
    let broken = Config::parse(b"{\n  \"strict\": true,\n}", Path::new("/")).expect_err("broken JSON");
    assert_eq!((broken.code, broken.place.line, broken.place.column), (Code::InvalidJson, Some(3), Some(1)));
}
