//! A scenario from a seed: any machine, any settings, any people, any faults, within what such a machine can carry.

use model::GpuMode;
use serde_json::{Value, json};

use crate::dice::{Dice, Times};
use crate::scenario::{Arrive, Disk, Engines, Faults, GpuSpec, Scenario, Stream, WorkSpec};

/// How long people and faults go on: a day.
const DAY_S: f64 = 86_400.0;

/// The mixed scenario of a seed.
#[must_use]
pub fn mix(seed: u64) -> Scenario {
    let mut dice = Dice::of(seed, "mix");
    let mut gpus = gpus(&mut dice);
    let mut config = settings(&mut dice, gpus.len());
    if config["resource_manager"]["gpu_roles"]["0"] == "brain_primary" {
        // What is pinned is for one LLM alone: another GPU can hold each of the two.
        gpus[1].mib = gpus[1].mib.max(12_227);
    }
    let pairs = pairs(seed, &config, gpus.len());
    let spread = spread(seed, &mut config, gpus.len());
    // Under a single lock the machine carries what one GPU does.
    let carries = if config["gpu_lock"] == "single" { 1 } else { gpus.len() };
    Scenario {
        name: format!("mix-{seed}"),
        about: "drawn from its seed".into(),
        seed,
        duration_s: DAY_S,
        settle_s: 12.0 * 3_600.0,
        measured: dice.chance(0.7),
        config,
        engines: engines(&mut dice),
        people: people(&mut dice, carries).into_iter().chain(pairs).chain(spread).collect(),
        faults: faults(&mut dice),
        gpus,
        ..Scenario::default()
    }
}

fn gpus(dice: &mut Dice) -> Vec<GpuSpec> {
    let sizes = [8_192, 12_227, 24_576, 24_576, 49_140];
    let count = one_of(dice, &[1, 1, 2, 2, 3, 4]);
    let same = dice.chance(0.4);
    let first = one_of(dice, &sizes);
    let gpu = |mib: u64, speed: f64| GpuSpec { mib, speed, capability: None };
    // One GPU at least can hold each of the two LLMs, or nobody could serve the tasks that name one.
    let mut gpus = vec![gpu(first.max(12_227), 1.0)];
    for _ in 1..count {
        let mib = if same { gpus[0].mib } else { one_of(dice, &sizes) };
        let speed = if same { 1.0 } else { one_of(dice, &[0.6, 1.0, 1.5]) };
        gpus.push(gpu(mib, speed));
    }
    gpus
}

fn one_of<T: Copy>(dice: &mut Dice, among: &[T]) -> T {
    among[usize::try_from(dice.below(among.len() as u64)).unwrap_or(0)]
}

/// Settings that must not matter for the laws. `strict_consecutive` is left out, because waiting for ever is what it says:
/// a lone job type waits.
fn settings(dice: &mut Dice, gpus: usize) -> Value {
    let roles = match dice.below(5) {
        0 => json!({ "0": "brain_primary" }),
        1 => json!({ "0": "worker_or_script" }),
        _ => Value::String("auto".into()),
    };
    let roles = if gpus < 2 { Value::String("auto".into()) } else { roles };
    json!({
        "resource_manager": {
            "gpu_roles": roles,
            "colocate_scripts": dice.chance(0.3),
            "vram_accounting": if dice.chance(0.8) { "measured" } else { "declared" },
            "eviction_policy": {
                "rule": if dice.chance(0.75) { "cost_benefit" } else { "thresholds" },
                "reserve_for_chat": dice.below(gpus as u64 + 1),
                "prefer_idle_llm_eviction": dice.chance(0.8),
                "never_evict_brain": dice.chance(0.7),
                "min_residency_s": one_of(dice, &[0, 20, 120]),
            },
            "batch_settings": {
                "exclusive_admits_chat": dice.chance(0.7),
                "reload_llms_after_batch": dice.chance(0.8),
                "drain_s": one_of(dice, &[5, 60, 600]),
                "cold_loads_per_disk": dice.between(1, 2),
            },
        },
        "fairness": {
            "ageing_s": one_of(dice, &[0, 300, 900]),
        },
        "gpu_lock": if dice.chance(0.08) { "single" } else { "slots" },
        "prediction": { "prewarm": dice.chance(0.7), "scale": dice.chance(0.7) },
        "models_order": if dice.chance(0.5) { ["qwen2.5:14b", "qwen2.5:7b"] } else { ["qwen2.5:7b", "qwen2.5:14b"] },
    })
}

fn engines(dice: &mut Dice) -> Engines {
    let boot = match dice.below(4) {
        0 => Times::Constant { mean: 120.0 },
        1 => Times::Lognormal { mean: 40.0, sigma: 0.6 },
        2 => Times::Pareto { mean: 30.0, shape: 1.8 },
        _ => Times::Bimodal { mean: 20.0, share: 0.1, factor: 8.0 },
    };
    Engines {
        boot_other: boot,
        disk: dice.chance(0.3).then_some(Disk { mib_per_s: 200.0, cache_mib: 12_000 }),
        unload: Times::Lognormal { mean: 3.0, sigma: 0.5 },
        host_load: Times::Lognormal { mean: 5.0, sigma: 0.5 },
        ..Engines::default()
    }
}

fn people(dice: &mut Dice, gpus: usize) -> Vec<Stream> {
    let scale = 0.5 + f64::from(u32::try_from(gpus).unwrap_or(1)) * 0.5;
    let llm = |model: Option<&str>| WorkSpec::Llm { model: model.map(str::to_owned) };
    let script = |script: &str, model: Option<&str>, cpu| {
        let model = model.map(str::to_owned);
        WorkSpec::Script { script: script.into(), model, cpu }
    };
    let chat = Stream {
        name: "chat".into(),
        work: llm(None),
        job_type: Some("chatbot".into()),
        priority: 3,
        arrive: Arrive::Sessions {
            per_hour: 0.6 * scale,
            turns: Times::Lognormal { mean: 4.0, sigma: 0.6 },
            think: Times::Exponential { mean: 40.0 },
        },
        run: Times::Lognormal { mean: 8.0, sigma: 0.7 },
        hours: dice.chance(0.5).then_some([8.0, 19.0]),
        ..Stream::default()
    };
    let asks = Stream {
        name: "ask".into(),
        work: llm(one_of(dice, &[None, Some("qwen2.5:7b"), Some("qwen2.5:14b")])),
        priority: 3,
        arrive: Arrive::Poisson { per_hour: 1.5 * scale },
        run: Times::Exponential { mean: 20.0 },
        timeout_s: dice.chance(0.5).then_some(120.0),
        ..Stream::default()
    };
    let burst = Stream {
        name: "whisper".into(),
        work: script("whisper", None, false),
        priority: 3,
        arrive: Arrive::Bursts { per_hour: 0.25 * scale, size: Times::Pareto { mean: 5.0, shape: 1.7 } },
        run: Times::Lognormal { mean: 60.0, sigma: 0.8 },
        media_speed: Some(10.0),
        estimate_sigma: 0.3,
        timeout_s: dice.chance(0.5).then_some(1_800.0),
        boundary_s: dice.chance(0.7).then_some(20.0),
        ..Stream::default()
    };
    let embed = Stream {
        name: "embed".into(),
        work: script("embed", None, false),
        priority: u8::try_from(dice.between(1, 5)).unwrap_or(3),
        arrive: Arrive::Poisson { per_hour: scale },
        run: Times::Exponential { mean: 15.0 },
        vram_mib: dice.chance(0.3).then_some(6_000),
        ..Stream::default()
    };
    let count = Stream {
        name: "count".into(),
        work: script("count", None, true),
        priority: 2,
        arrive: Arrive::Poisson { per_hour: 0.6 },
        run: Times::Exponential { mean: 10.0 },
        ..Stream::default()
    };
    let mode = one_of(dice, &[GpuMode::Auto, GpuMode::Exclusive, GpuMode::Shared]);
    let batch = Stream {
        name: "batch".into(),
        work: script("whisper", Some("large-v3").filter(|_| dice.chance(0.3)), false),
        priority: u8::try_from(dice.between(1, 4)).unwrap_or(3),
        arrive: Arrive::Batches { per_hour: 0.06, items: Times::Lognormal { mean: 25.0, sigma: 0.8 }, mode },
        run: Times::Lognormal { mean: 40.0, sigma: 0.8 },
        media_speed: Some(10.0),
        estimate_sigma: 0.3,
        boundary_s: dice.chance(0.5).then_some(15.0),
        ..Stream::default()
    };
    [(chat, 0.8), (asks, 0.9), (burst, 0.9), (embed, 0.6), (count, 0.4), (batch, 0.7)]
        .into_iter()
        .filter(|(_, likely)| dice.chance(*likely))
        .map(|(stream, _)| stream)
        .collect()
}

/// How many GPUs are not pinned for an LLM.
fn not_pinned(config: &Value, gpus: usize) -> usize {
    let manager = &config["resource_manager"];
    let is_pinned = manager["eviction_policy"]["never_evict_brain"] == true
        && manager["gpu_roles"]["0"] == "brain_primary";
    gpus.saturating_sub(usize::from(is_pinned))
}

/// Requests to an LLM over two GPUs, drawn by themselves as well.
fn spread(seed: u64, config: &mut Value, gpus: usize) -> Option<Stream> {
    let mut dice = Dice::of(seed, "spread");
    let model = "llama:70b";
    if not_pinned(config, gpus) < 2 || !dice.chance(0.4) {
        return None;
    }
    config["models"][model] = json!({ "mib": 12_000, "gpus": 2, "parallel": 2 });
    Some(Stream {
        name: "spread".into(),
        work: WorkSpec::Llm { model: Some(model.into()) },
        job_type: dice.chance(0.3).then(|| "chatbot".into()),
        priority: u8::try_from(dice.between(1, 5)).unwrap_or(3),
        arrive: Arrive::Poisson { per_hour: 0.2 },
        run: Times::Exponential { mean: 20.0 },
        ..Stream::default()
    })
}

/// Tasks of two GPUs, where two are not pinned. They are drawn by themselves, so that the rest of a seed stays as it was.
fn pairs(seed: u64, config: &Value, gpus: usize) -> Option<Stream> {
    let mut dice = Dice::of(seed, "pairs");
    let script = one_of(&mut dice, &["embed", "whisper"]);
    let stream = Stream {
        name: "pair".into(),
        work: WorkSpec::Script { script: script.into(), model: None, cpu: false },
        priority: u8::try_from(dice.between(1, 5)).unwrap_or(3),
        arrive: Arrive::Poisson { per_hour: 0.15 },
        run: Times::Exponential { mean: 120.0 },
        gpus: 2,
        timeout_s: dice.chance(0.5).then_some(1_800.0),
        boundary_s: dice.chance(0.5).then_some(20.0),
        ..Stream::default()
    };
    (not_pinned(config, gpus) >= 2 && dice.chance(0.6)).then_some(stream)
}

/// Each kind of fault comes in about half of the seeds, so that some are seen with few others.
fn faults(dice: &mut Dice) -> Faults {
    let rate = |dice: &mut Dice, most: f64| if dice.chance(0.5) { dice.unit() * most } else { 0.0 };
    Faults {
        worker_dies: rate(dice, 0.6),
        machine_dies: rate(dice, 0.1),
        brain_dies: rate(dice, 0.5),
        brain_away: if dice.chance(0.8) {
            Times::Exponential { mean: 20.0 }
        } else {
            Times::Exponential { mean: 1_500.0 }
        },
        downs: rate(dice, 0.08),
        gpu_lost: rate(dice, 0.2),
        engine_dies: rate(dice, 0.4),
        boot_fails: rate(dice, 0.15),
        boot_hangs: rate(dice, 0.05),
        host_fails: rate(dice, 0.1),
        launch_fails: rate(dice, 0.2),
        crash: rate(dice, 0.08),
        oom: rate(dice, 0.04),
        gpu_fault: rate(dice, 0.03),
        bad_input: rate(dice, 0.05),
        hangs: rate(dice, 0.05),
        stalls: rate(dice, 0.2),
        duplicates: rate(dice, 0.3),
        late: rate(dice, 0.02),
        disk_full: rate(dice, 0.1),
        cancels: rate(dice, 0.5),
        ram_low: rate(dice, 0.1),
        foreign: rate(dice, 0.15),
        ..Faults::default()
    }
}
