//! When an LLM makes room for scripts by the seed's thresholds: the table, and the stories behind it.

use model::config::{EvictionPolicy, EvictionRule};
use model::{GpuState, GpuUuid, Millis, TaskClass};

use super::make::{QWEN_7B, QWEN_14B, config, prompt, script, whisper};
use super::rig::{Rig, id};
use crate::evict::{Candidate, EvictionFacts, Judge, Ruling, ScriptsWaiting, Thresholds};
use crate::rate::Rate;

/// One LLM that runs nothing if `idle`, and what the thresholds look at.
pub(super) fn facts(scripts: u64, llms: u64, idle: u64, script_s: i64, reload_s: i64) -> EvictionFacts {
    let now = Millis::from_secs(100_000);
    let candidate = Candidate {
        uuid: GpuUuid::new("SIM-0").unwrap(),
        gpu: "0".into(),
        model: QWEN_7B.into(),
        running: u64::from(idle == 0),
        free_at: now,
        idle_since: now,
        reload_time: Millis::from_secs(reload_s),
        credit: 0,
        misplaced: false,
    };
    EvictionFacts {
        now,
        policy: EvictionPolicy::default(),
        scripts: ScriptsWaiting {
            count: scripts,
            mean_time: Millis::from_secs(script_s),
            ..ScriptsWaiting::default()
        },
        script_gpus: 0,
        llms_waiting: llms,
        ready_llms: 1,
        booting_llms: 0,
        idle_llms: idle,
        llm_slots: 1,
        requests: Rate::exactly(0.0),
        rate_until: None,
        request_time: Millis::from_secs(10),
        since_request: None,
        unload_time: Millis::from_secs(5),
        host_load: Millis::from_secs(5),
        candidates: vec![candidate],
    }
}

#[test]
fn the_three_thresholds() {
    let (backlog, huge) = (Some("min_script_queue_for_evict"), Some("huge_script_queue"));
    let outweighs = Some("the scripts would wait longer than the reload takes");
    // (scripts, LLM tasks waiting, idle LLM GPUs, seconds a script, seconds a reload)
    let table = [
        ((0, 0, 3, 45, 120), None),
        ((5, 9, 3, 45, 120), None),
        ((6, 9, 3, 45, 120), backlog),
        ((6, 0, 0, 45, 120), None),
        ((20, 0, 0, 45, 120), None),
        ((21, 0, 0, 45, 120), huge),
        ((21, 1, 0, 45, 120), None),
        ((21, 1, 1, 45, 120), backlog),
        // 2 × 45 s on one GPU is less than 120 s, 3 × 45 s is more; shared by two GPUs it is less again.
        ((2, 0, 1, 45, 120), None),
        ((3, 0, 1, 45, 120), outweighs),
        ((3, 0, 2, 45, 120), None),
        ((1, 0, 1, 121, 120), outweighs),
        // Nothing is divided by no GPU at all.
        ((3, 0, 0, 1_000_000, 1), None),
    ];
    for ((scripts, llms, idle, script_s, reload_s), expected) in table {
        let rule = match Thresholds.rule(&facts(scripts, llms, idle, script_s, reload_s)) {
            Ruling::Evict(eviction) => Some(eviction.rule),
            Ruling::Keep(_) => None,
        };
        assert_eq!(rule, expected, "{scripts} {llms} {idle} {script_s} {reload_s}");
    }
}

/// By the seed's rule, and with LLMs that may go as soon as they are loaded.
fn seed() -> model::Config {
    let mut config = config();
    config.resource_manager.eviction_policy.rule = EvictionRule::Thresholds;
    config.resource_manager.eviction_policy.min_residency_s = 0.0;
    config
}

/// With boots that take no time, and so no stay that is twice as long.
fn rig<const N: usize>(config: model::Config, sizes: [u64; N]) -> Rig {
    let mut rig = Rig::with(config).gpus(sizes);
    rig.times.boot = 0;
    rig
}

/// Seed document 4, `should_evict_for_scripts`, with its own numbers: 45 s a script, 120 s a boot.
#[test]
fn should_evict_for_scripts_of_document_4() {
    let rule = |scripts, llms, idle| match Thresholds.rule(&facts(scripts, llms, idle, 45, 120)) {
        Ruling::Evict(eviction) => Some(eviction.rule),
        Ruling::Keep(_) => None,
    };
    // "If we have idle LLM GPUs and script backlog": more than five.
    assert_eq!(rule(6, 1, 1), Some("min_script_queue_for_evict"));
    // "If script queue is huge and LLM queue is empty": more than twenty, and here no LLM is idle either.
    assert_eq!((rule(21, 0, 0), rule(21, 1, 0)), (Some("huge_script_queue"), None));
    // "If scripts would wait longer than LLM boot time": 3 × 45 s / 1 is more than 120 s, 2 × 45 s is not.
    assert!(rule(3, 1, 1).is_some() && rule(2, 1, 1).is_none());
    // The original divides by zero here.
    assert_eq!(rule(5, 1, 0), None);
}

#[test]
fn scripts_prefer_an_idle_gpu() {
    let mut rig = rig(seed(), [24_576, 24_576]);
    rig.drop_task(prompt("a")).run_until_ended("a");
    rig.drop_task(whisper("w")).run_until_ended("w");
    assert_eq!(rig.ended("w").gpu.as_deref(), Some("1"));
    assert_eq!(rig.unloads(), 0);
}

#[test]
fn a_few_scripts_leave_an_llm_alone_until_they_have_waited_as_long_as_its_reload() {
    let mut rig = rig(seed(), [24_576]);
    rig.drop_task(prompt("a")).run_until_ended("a");
    let ended = rig.now;
    rig.drop_task(whisper("w")).run_for(1_000);
    assert_eq!(rig.state(0), GpuState::LlmReady);
    insta::assert_snapshot!(
        rig.why("w"),
        @"an LLM is loaded on every GPU that could run it, and stays: unloading one would save the 1 waiting scripts 45 s and cost requests 160 s by their weight; one goes in 2m at the latest"
    );
    rig.run_until("the eviction", |rig| rig.unloads() == 1);
    // 160 s is what the configuration says of qwen2.5:14b.
    assert_eq!((rig.now - ended).0, 160_000);
    rig.run_until_ended("w");
}

#[test]
fn one_llm_goes_for_the_sixth_script_and_not_two() {
    let mut rig = rig(seed(), [24_576, 24_576]);
    rig.drop_tasks((0..40).map(|n| prompt(&format!("p{n}"))));
    rig.run_until("two LLMs", |rig| rig.boots() == 2).run_until_rest();
    assert_eq!((rig.state(0), rig.state(1)), (GpuState::LlmReady, GpuState::LlmReady));
    rig.times.script = 40_000;
    rig.drop_tasks((0..6).map(|n| script(&format!("s{n}"), "embed").estimate(20.0))).run_for(2_000);
    assert_eq!(rig.unloads(), 1);
}

#[test]
fn a_busy_llm_is_never_cut() {
    let mut rig = rig(seed(), [24_576]);
    rig.times.llm = 30_000;
    rig.drop_task(prompt("long")).run_until("it runs", |rig| rig.state(0) == GpuState::LlmBusy);
    rig.drop_tasks((0..25).map(|n| whisper(&format!("w{n}")))).run_for(10_000);
    assert_eq!((rig.state(0), rig.unloads()), (GpuState::LlmBusy, 0));
    rig.run_until_ended("long");
    assert_eq!(rig.ended("long").attempt, 1);
    rig.run_until("room", |rig| rig.unloads() == 1);
}

#[test]
fn without_the_preference_the_cheapest_llm_drains_though_another_is_idle() {
    let story = |prefer_idle: bool| {
        let mut config = seed();
        config.resource_manager.eviction_policy.prefer_idle_llm_eviction = prefer_idle;
        let mut rig = rig(config, [24_576, 6_000]);
        // GPU 0 holds the 14B (160 s to reload), GPU 1 the 7B (120 s).
        rig.drop_task(prompt("big").with_model(QWEN_14B))
            .drop_task(prompt("small").with_model(QWEN_7B).gpu(model::task::GpuRequirement::Key("1".into())));
        rig.run_until_rest();
        rig.times.llm = 20_000;
        rig.drop_task(prompt("busy").with_model(QWEN_7B)).run_for(100);
        assert_eq!((rig.state(0), rig.state(1)), (GpuState::LlmReady, GpuState::LlmBusy));
        rig.drop_tasks((0..6).map(|n| whisper(&format!("w{n}")).estimate(20.0)));
        rig.drop_task(prompt("behind").with_model(QWEN_7B).gpu(model::task::GpuRequirement::Key("1".into())))
            .run_for(5_000);
        rig
    };
    let rig = story(true);
    assert_eq!(rig.unloads(), 1);
    assert_ne!(rig.state(0), GpuState::LlmReady, "the idle one went");
    let rig = story(false);
    assert_eq!(rig.state(0), GpuState::LlmReady, "the idle one stays");
    assert_eq!(rig.state(1), GpuState::LlmBusy, "the cheapest drains, and its request is not cut");
    assert!(!rig.starts().contains(&"behind".to_owned()), "it gets no new one");
}

#[test]
fn what_comes_first_by_priority_gets_the_gpu_that_becomes_free() {
    let mut rig = rig(seed(), [24_576]);
    rig.drop_task(whisper("now")).run_until("it runs", |rig| rig.state(0) == GpuState::ScriptBusy);
    rig.drop_task(whisper("later")).drop_task(prompt("urgent").priority(5)).run_until_ended("urgent");
    assert_eq!(rig.starts(), ["now", "urgent"]);
    rig.run_until_ended("later");
}

#[test]
fn learned_reloads_replace_the_prior() {
    let mut rig = rig(seed(), [24_576]);
    rig.times.boot = 5_000;
    for n in 0..3 {
        rig.drop_task(prompt(&format!("p{n}"))).run_until_ended(&format!("p{n}"));
        rig.drop_tasks((0..6).map(|w| whisper(&format!("w{n}-{w}")))).run_until_rest();
    }
    assert!((rig.picture().boot_times[QWEN_14B] - 5.0).abs() < f64::EPSILON);
    rig.drop_task(prompt("last")).run_until_ended("last");
    // A reload of 5 s is soon outweighed: one script is enough.
    rig.drop_task(script("alone", "embed").media(600.0));
    let waits_from = rig.now;
    rig.run_until("its room", |rig| rig.unloads() == 4);
    // It stays for twice its load all the same.
    assert!((rig.now - waits_from).0 <= 10_000, "{}", rig.now - waits_from);
    assert_eq!(rig.picture().queues[&TaskClass::Script].waiting, 1);
}

#[test]
fn an_llm_that_came_back_too_often_stays_twice_four_and_eight_times_as_long() {
    let mut config = config();
    config.resource_manager.eviction_policy.min_residency_s = 60.0;
    let mut rig = Rig::with(config).gpus([24_576]);
    rig.drop_task(prompt("p")).run_until_ended("p");
    let stays_s = |rig: &Rig, reloads: i64, ago_s: i64| {
        let mut world = rig.world.clone();
        let gpu = world.gpus.values_mut().next().expect("a GPU");
        let ready_at = gpu.idle_since;
        for n in 0..reloads {
            gpu.tenure.evicted = true;
            gpu.tenure.boots(ready_at - Millis::from_secs(ago_s + n));
        }
        // A load that nothing had to go for is none that counts.
        gpu.tenure.boots(ready_at);
        let gpu = world.gpus.values().next().expect("a GPU").clone();
        let worker = world.worker_on(&gpu).expect("a worker");
        let crate::worker::Llm::Ready { report } = worker.llm().expect("an LLM") else {
            panic!("it is ready")
        };
        (world.settled_at(&gpu, worker, rig.now) - report.since).0 / 1_000
    };
    let by_reloads: Vec<i64> = [0, 3, 4, 5, 6, 20].map(|reloads| stays_s(&rig, reloads, 1)).into();
    assert_eq!(by_reloads, [60, 60, 120, 240, 480, 480], "up to eight times");
    // A load takes five seconds here, so what is longer ago than fifty is forgotten.
    assert_eq!(stays_s(&rig, 6, 3_600), 60);
}

#[test]
fn a_forecast_says_of_a_young_llm_what_the_rule_will_say_when_it_may_go() {
    let mut rig = Rig::new().gpus([24_576]);
    for n in 0..20 {
        rig.drop_task(prompt(&format!("busy-{n}"))).run_for(2_000);
    }
    rig.kill_engine(0).drop_task(prompt("again")).run_until_ended("again");
    rig.drop_task(whisper("one")).run_for(100);
    insta::assert_snapshot!(rig.why("one"), @"qwen2.5:14b on GPU 0 was loaded moments ago and stays for 19 s more at least");
    let told = crate::eta(&rig.world, rig.now, &id("one")).expect("an eta").start;
    rig.run_until("its start", |rig| rig.starts().iter().any(|name| name == "one"));
    assert!((rig.now - told).0.abs() <= 10_000, "told {told}, and it was {}", rig.now);
}
