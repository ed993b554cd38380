//! What holds where the file says nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{
    Auto, BatchSettings, CONFIG_SCHEMA_VERSION, Config, EnginePreset, EvictionPolicy, HostKind, Launcher,
    Limits, ResourceManager, Retry, ScriptEntry, ScriptGpu, Shutdown, Timing,
};
use crate::kind::Durability;

impl Default for Config {
    fn default() -> Self {
        Self {
            schema: None,
            schema_version: CONFIG_SCHEMA_VERSION,
            spool: None,
            gpus: "auto".into(),
            resource_manager: ResourceManager::default(),
            engines: BTreeMap::new(),
            engine: "auto".into(),
            models: BTreeMap::new(),
            models_order: Vec::new(),
            scripts: BTreeMap::new(),
            script_dirs: vec!["scripts".into()],
            on_complete: BTreeMap::new(),
            durability: Durability::Power,
            launcher: Launcher::Local,
            cpu_slots: Auto::Auto,
            retry: Retry::default(),
            timing: Timing::default(),
            shutdown: Shutdown::default(),
            limits: Limits::default(),
            strict: false,
            shared_group: None,
            allow_network_fs: false,
        }
    }
}

impl Default for ResourceManager {
    fn default() -> Self {
        let times = [("qwen2.5:14b", 160.0), ("qwen2.5:7b", 120.0), ("whisper:small.en", 5.0)];
        Self {
            gpu_count: Auto::Auto,
            gpu_roles: Auto::Auto,
            boot_times: times.into_iter().map(|(name, s)| (name.to_owned(), s)).collect(),
            eviction_policy: EvictionPolicy::default(),
            batch_settings: BatchSettings::default(),
        }
    }
}

impl Default for EvictionPolicy {
    fn default() -> Self {
        Self {
            min_script_queue_for_evict: 5,
            huge_script_queue: 20,
            avg_script_time_s: 45.0,
            prefer_idle_llm_eviction: true,
            never_evict_brain: true,
        }
    }
}

impl Default for BatchSettings {
    fn default() -> Self {
        Self { auto_exclusive_threshold: 50, reload_llms_after_batch: true, drain_s: 600.0 }
    }
}

impl Default for EnginePreset {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            env: BTreeMap::new(),
            pass_env: Vec::new(),
            ready_path: "/health".into(),
            served_model: "{model}".into(),
            canary: true,
            boot_timeout_s: 600.0,
            request_timeout_s: 600.0,
            stop_grace_s: 10.0,
        }
    }
}

impl Default for ScriptEntry {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            host: HostKind::Once,
            key: Vec::new(),
            model: None,
            vram_mib: None,
            gpu: ScriptGpu::Any,
            env: Vec::new(),
            api_key_file: None,
            speed: None,
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { max_attempts: 3, backoff_s: vec![0.0, 30.0, 120.0] }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            cooling_s: 1.0,
            settle_s: 30.0,
            rescan_s: 5.0,
            orphan_ttl_s: 900.0,
            kill_grace_s: 10.0,
            script_timeout_s: 0.0,
            host_boot_timeout_s: 300.0,
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { timeout_s: 60.0, running_share: 0.3 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            task_bytes_max: 1 << 20,
            log_bytes_max: 64 << 20,
            tail_bytes_max: 64 << 10,
            result_bytes_max: 16 << 20,
        }
    }
}
