//! What holds where the file says nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{
    Auto, BatchSettings, CONFIG_SCHEMA_VERSION, Config, EnginePreset, EvictionPolicy, EvictionRule, Fairness,
    GpuLock, HostKind, JobType, Launcher, Limits, Prediction, RamWaitOver, ResourceManager, Retry,
    ScriptEntry, ScriptGpu, Shutdown, Timing, VramAccounting,
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
            fairness: Fairness::default(),
            gpu_lock: GpuLock::Slots,
            prediction: Prediction::default(),
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
            vram_per_job_mb: 3_000,
            vram_headroom_mb: 2_000,
            vram_accounting: VramAccounting::Measured,
            min_system_ram_mb: 4_000,
            ram_wait_s: 300.0,
            ram_wait_over: RamWaitOver::Guarded,
            colocate_scripts: false,
            eviction_policy: EvictionPolicy::default(),
            batch_settings: BatchSettings::default(),
        }
    }
}

impl Default for EvictionPolicy {
    fn default() -> Self {
        Self {
            rule: EvictionRule::CostBenefit,
            chat_weight: 10.0,
            reserve_for_chat: 0,
            min_residency_s: 20.0,
            keep_last_s: 900.0,
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
        Self {
            auto_exclusive_threshold: 50,
            reload_llms_after_batch: true,
            drain_s: 600.0,
            exclusive_admits_chat: true,
            chat_linger_s: 60.0,
            cold_loads_per_disk: 1,
        }
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

impl Default for Fairness {
    fn default() -> Self {
        let of = |weight, most| JobType { weight, max_consecutive: Some(most), yields: true };
        let types = [("transcription", of(70, 2)), ("summarization", of(30, 1))];
        Self {
            job_types: types.into_iter().map(|(name, job_type)| (name.to_owned(), job_type)).collect(),
            default_weight: 30,
            ageing_s: 900.0,
            strict_consecutive: false,
        }
    }
}

impl Default for JobType {
    fn default() -> Self {
        Self { weight: 30, max_consecutive: None, yields: true }
    }
}

impl Default for Prediction {
    fn default() -> Self {
        Self { prewarm: true, scale: true }
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
