//! Which model and which GPU a task gets.

use model::config::{Auto, EnginePreset, GpuRole};
use model::link::Can;
use model::task::{ComputeCapability, GpuRequirement};
use model::{FailureClass, GpuState, Millis};

use super::make::{QWEN_7B, QWEN_14B, can, config, prompt, script, whisper, with_brains};
use super::rig::Rig;
use crate::Rest;

fn model_on(rig: &Rig, gpu: &str) -> Option<String> {
    rig.picture().gpus[gpu].model.clone()
}

#[test]
fn the_first_model_that_fits_is_booted() {
    for (mib, model) in [(24_576, QWEN_14B), (8_192, QWEN_7B)] {
        let mut rig = Rig::new().gpus([mib]);
        rig.drop_task(prompt("p")).run_until_ended("p");
        assert_eq!(model_on(&rig, "0").as_deref(), Some(model));
    }
}

#[test]
fn the_tasks_own_model_comes_first_and_the_ready_one_before_any_boot() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_task(prompt("own").with_model(QWEN_7B)).run_until_ended("own");
    assert_eq!(model_on(&rig, "0").as_deref(), Some(QWEN_7B));
    rig.drop_task(prompt("any")).run_until_ended("any");
    assert_eq!((model_on(&rig, "0").as_deref(), rig.boots()), (Some(QWEN_7B), 1));
}

#[test]
fn another_model_is_swapped_in_when_nobody_needs_the_one_that_is_there() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_task(prompt("a")).run_until_ended("a");
    rig.drop_task(prompt("b").with_model(QWEN_7B)).run_until_ended("b");
    assert_eq!(model_on(&rig, "0").as_deref(), Some(QWEN_7B));
}

#[test]
fn a_stream_of_one_model_does_not_starve_a_task_of_another() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_tasks((0..4).map(|n| prompt(&format!("first-{n}")).with_model(QWEN_14B))).run_for(6_500);
    rig.drop_task(prompt("other").with_model(QWEN_7B));
    rig.drop_tasks((0..40).map(|n| prompt(&format!("more-{n}")).with_model(QWEN_14B)));
    // The 14B stays for its 20 s, and serves meanwhile; then it makes room, once, and comes back for the rest.
    rig.run_until_ended("other");
    let before = rig.starts().iter().position(|name| name == "other").unwrap();
    assert!((4..44).contains(&before), "{before}");
    assert!(rig.ended("other").at < Millis::from_secs(45), "{}", rig.ended("other").at);
    let swaps = |rig: &Rig| rig.said().iter().filter(|said| said.contains("makes room for qwen2.5")).count();
    assert_eq!(swaps(&rig), 1, "{:?}", rig.said());
    rig.run_until_rest();
    assert_eq!(swaps(&rig), 2, "{:?}", rig.said());
    assert_eq!(rig.ended.len(), 45);
}

#[test]
fn the_roles_model_is_booted_at_start_and_stays() {
    let mut config = with_brains(config());
    config.models.get_mut(QWEN_7B).unwrap().role = Some(GpuRole::BrainPrimary);
    let mut rig = Rig::with(config).gpus([24_576, 24_576]);
    rig.run_until("the brain's LLM", |rig| rig.state(0) == GpuState::LlmReady);
    assert_eq!(model_on(&rig, "0").as_deref(), Some(QWEN_7B));
    assert_eq!(rig.state(1), GpuState::Idle);
    rig.times.script = 60_000;
    rig.drop_tasks((0..30).map(|n| script(&format!("s{n}"), "embed"))).run_for(300_000);
    assert_eq!((rig.state(0), rig.unloads()), (GpuState::LlmReady, 0));
    // It serves tasks like any other.
    rig.drop_task(prompt("p")).run_until_ended("p");
    assert_eq!(rig.ended("p").gpu.as_deref(), Some("0"));
}

#[test]
fn a_script_that_only_a_pinned_gpu_could_run_says_so() {
    let mut rig = Rig::with(with_brains(config())).gpus([24_576]);
    rig.drop_task(whisper("w")).run_for(20_000);
    insta::assert_snapshot!(rig.why("w"), @"it stays where it is: every GPU that could run it is pinned for the LLM of a `brain_*` role; see `gpu_roles` and `never_evict_brain` in config.json");
}

#[test]
fn the_demonstration_model_serves_tasks_that_name_none() {
    let mut rig = Rig::new();
    rig.can = can(&["demo-model"]);
    let mut rig = rig.gpus([24_576]);
    rig.drop_task(prompt("any")).run_until_ended("any");
    assert_eq!(model_on(&rig, "0").as_deref(), Some("demo-model"));
    rig.drop_task(prompt("named").with_model(QWEN_7B)).run_until_ended("named");
    let error = rig.ended("named").error.clone().expect("it failed");
    assert_eq!((error.class, error.code.as_str()), (FailureClass::BadInput, "model_not_found"));
    insta::assert_snapshot!(error.message, @"no worker here can load model `qwen2.5:7b`; `models` in config.json names: qwen2.5:14b, qwen2.5:7b; leave `model` out to take any");
    rig.drop_task(prompt("demo").with_model("demo-model")).run_until_ended("demo");
    assert_eq!(rig.ended("demo").error.as_ref().map(|error| error.code.as_str()), Some("model_not_found"));
}

#[test]
fn a_model_is_not_called_absent_before_all_workers_have_spoken() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_task(prompt("p").with_model("nobody-knows-it")).think();
    assert!(rig.ended.is_empty());
    rig.run_for(100);
    assert_eq!(rig.ended("p").error.as_ref().map(|error| error.code.as_str()), Some("model_not_found"));
}

#[test]
fn without_any_engine_tasks_wait_with_the_workers_own_words() {
    let mut rig = Rig::new();
    rig.can = Can {
        engines: Vec::new(),
        missing: vec!["`gpuspool-embedded` is not built: run `scripts/embedded`".into()],
    };
    let mut rig = rig.gpus([24_576]);
    rig.drop_task(prompt("any")).drop_task(prompt("named").with_model(QWEN_7B)).run_for(1_000);
    insta::assert_snapshot!(rig.why("any"), @"no engine can serve it: `gpuspool-embedded` is not built: run `scripts/embedded`");
    assert_eq!(rig.why("named").code(), "no_engine");
    let Rest::Held(held) = rig.world.rest() else { panic!("{:?}", rig.world.rest()) };
    assert_eq!(held.len(), 2);
}

#[test]
fn a_stated_engine_is_taken_and_no_other() {
    let mut config = config();
    config
        .engines
        .insert("vllm".into(), EnginePreset { command: vec!["vllm".into()], ..EnginePreset::default() });
    config.models.get_mut(QWEN_14B).unwrap().engine = Some("vllm".into());
    let mut rig = Rig::with(config).gpus([24_576]);
    rig.drop_task(prompt("p")).run_until_ended("p");
    assert_eq!(model_on(&rig, "0").as_deref(), Some(QWEN_7B), "no worker has vllm");
}

#[test]
fn needs_are_met_or_told() {
    let mut rig = Rig::new().gpus([24_576, 8_192]);
    rig.drop_task(script("small", "embed").vram(8_000)).run_until_ended("small");
    assert_eq!(rig.ended("small").gpu.as_deref(), Some("1"), "the smallest that will do");
    rig.drop_task(script("large", "embed").vram(20_000)).run_until_ended("large");
    assert_eq!(rig.ended("large").gpu.as_deref(), Some("0"));
    rig.drop_task(script("huge", "embed").vram(80_000));
    let mut modern = script("modern", "embed");
    modern.task.needs.min_compute_capability = Some(ComputeCapability { major: 9, minor: 0 });
    let mut pair = script("pair", "embed");
    pair.task.needs.gpus = 3;
    rig.drop_task(modern)
        .drop_task(pair)
        .drop_task(script("there", "embed").gpu(GpuRequirement::Key("1".into())));
    rig.drop_task(script("nowhere", "embed").gpu(GpuRequirement::Key("9".into()))).run_for(5_000);
    assert_eq!(rig.ended("there").gpu.as_deref(), Some("1"));
    insta::assert_snapshot!(rig.why("huge"), @"no GPU here can hold it: it needs 80000 MiB, the largest has 24576 MiB");
    insta::assert_snapshot!(rig.why("modern"), @"no GPU here can hold it: it needs compute capability 9.0, the largest has one that nobody could read");
    insta::assert_snapshot!(rig.why("pair"), @"it needs 3 GPUs at once, and 2 of the 2 GPUs here can be had for it");
    insta::assert_snapshot!(rig.why("nowhere"), @"no GPU here is number 9; it waits for one");
    let Rest::Held(held) = rig.world.rest() else { panic!("{:?}", rig.world.rest()) };
    assert_eq!(
        held.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["huge", "modern", "nowhere", "pair"]
    );
}

#[test]
fn strict_fails_what_cannot_be_met() {
    let mut config = config();
    config.strict = true;
    let mut rig = Rig::with(config).gpus([8_192]);
    rig.drop_task(script("huge", "embed").vram(80_000)).run_until_ended("huge");
    assert_eq!(rig.ended("huge").error.as_ref().map(|error| error.code.as_str()), Some("unsatisfiable"));
}

#[test]
fn an_unmeasured_gpu_takes_what_states_no_memory() {
    let mut rig = Rig::new().gpus([0]);
    let mut inventory = rig.inventory();
    inventory.source = model::InventorySource::Unmeasured;
    inventory.gpus[0].total_mib = None;
    rig.tell(crate::Event::Inventory(inventory));
    rig.drop_task(whisper("w"))
        .drop_task(prompt("p"))
        .drop_task(script("s", "embed").vram(1))
        .run_for(400_000);
    assert!(rig.is_complete("w") && rig.is_complete("p"));
    insta::assert_snapshot!(rig.why("s"), @"no GPU here can hold it: it needs 1 MiB, the largest has memory that nobody could measure");
}

#[test]
fn the_gpu_whose_host_is_loaded_is_preferred() {
    let mut rig = Rig::new().gpus([24_576, 24_576]);
    rig.drop_task(whisper("a").gpu(GpuRequirement::Key("1".into()))).run_until_ended("a");
    rig.drop_task(whisper("b")).run_until_ended("b");
    assert_eq!(rig.ended("b").gpu.as_deref(), Some("1"));
    // Another model is another host: it fits beside the first one, which leaves the other GPU whole.
    rig.drop_task(whisper("c").with_model("large-v3")).run_until_ended("c");
    assert_eq!(rig.ended("c").gpu.as_deref(), Some("1"));
    assert_eq!(rig.picture().gpus["1"].residents.len(), 2);
}

#[test]
fn a_warm_host_makes_room_for_another_script() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_task(whisper("a")).run_until_ended("a");
    rig.drop_task(whisper("b").with_model("large-v3")).run_until_ended("b");
    rig.drop_task(script("c", "embed")).run_until_ended("c");
    assert!(rig.picture().gpus["0"].residents.is_empty());
}

#[test]
fn urgent_goes_first_then_who_came_first() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_task(script("first", "embed")).run_for(1_000);
    rig.drop_task(script("low", "embed").priority(1).order(10));
    rig.drop_task(script("normal-2", "embed").order(12));
    rig.drop_task(script("normal-1", "embed").order(11));
    rig.drop_task(script("urgent", "embed").priority(5).order(13));
    rig.run_until_rest();
    assert_eq!(rig.starts(), ["first", "urgent", "normal-1", "normal-2", "low"]);
}

#[test]
fn programs_of_others_leave_less_room() {
    let mut rig = Rig::new().gpus([24_576]);
    let mut inventory = rig.inventory();
    inventory.source = model::InventorySource::Measured;
    rig.tell(crate::Event::Inventory(inventory));
    let uuid = model::GpuUuid::new("SIM-0").unwrap();
    let mut reading =
        model::gpu::Reading { uuid, used_mib: Some(20_000), processes: Vec::new(), lost: false };
    rig.tell(crate::Event::Read(reading.clone()));
    rig.drop_task(script("big", "embed").vram(8_000)).run_for(5_000);
    insta::assert_snapshot!(rig.why("big"), @"it stays where it is: programs of others hold 20000 MiB of the 24576 MiB of GPU 0, and it needs 8000 MiB");
    reading.used_mib = Some(300);
    rig.tell(crate::Event::Read(reading));
    rig.run_until_ended("big");
}

#[test]
fn a_long_queue_boots_a_second_llm_and_a_short_one_waits_for_the_first() {
    let mut rig = Rig::new().gpus([24_576, 24_576]);
    rig.drop_tasks((0..6).map(|n| prompt(&format!("p{n}")))).run_until_rest();
    assert_eq!(rig.boots(), 1, "six tasks of some seconds are through before another boot of 160 s");
    rig.drop_tasks((0..2_000).map(|n| prompt(&format!("q{n}")))).run_for(1_000);
    assert_eq!(rig.boots(), 2);
}

#[test]
fn one_engine_serves_as_many_as_it_says() {
    let mut config = config();
    config.models.get_mut(QWEN_14B).unwrap().parallel = Some(4);
    config.cpu_slots = Auto::Auto;
    let mut rig = Rig::with(config).gpus([24_576]);
    rig.drop_tasks((0..6).map(|n| prompt(&format!("p{n}"))))
        .run_until("it is full", |rig| rig.starts().len() == 4);
    assert_eq!(rig.picture().gpus["0"].slots.len(), 4);
    rig.run_until_rest();
}

#[test]
fn a_pinned_gpu_is_for_its_own_model_alone_and_who_could_only_go_there_is_told() {
    let mut rig = Rig::with(with_brains(config())).gpus([24_576, 8_192]);
    // The 14B is the pinned one, as the first that fits; the 7B goes to the other GPU, though this one is free too.
    rig.drop_task(prompt("small").with_model(QWEN_7B)).run_until_ended("small");
    assert_eq!(rig.ended("small").gpu.as_deref(), Some("1"));
    assert_eq!(model_on(&rig, "0").as_deref(), Some(QWEN_14B));
    let mut config = with_brains(config());
    config.models_order = vec![QWEN_7B.into(), QWEN_14B.into()];
    let mut rig = Rig::with(config).gpus([24_576, 8_192]);
    rig.drop_task(prompt("large").with_model(QWEN_14B))
        .drop_task(script("s", "embed").vram(20_000))
        .run_for(5_000);
    insta::assert_snapshot!(rig.why("large"), @"it stays where it is: `qwen2.5:14b` would fit on GPU 0 alone, which is pinned for `qwen2.5:7b`; see `gpu_roles` and `never_evict_brain` in config.json");
    insta::assert_snapshot!(rig.why("s"), @"it stays where it is: every GPU that could run it is pinned for the LLM of a `brain_*` role; see `gpu_roles` and `never_evict_brain` in config.json");
    assert!(matches!(rig.world.rest(), Rest::Held(held) if held.len() == 2));
    insta::assert_snapshot!(rig.said().iter().filter(|said| said.contains("large")).cloned().collect::<Vec<_>>().join("\n"), @"large cannot start here as things are, and waits: it stays where it is: `qwen2.5:14b` would fit on GPU 0 alone, which is pinned for `qwen2.5:7b`; see `gpu_roles` and `never_evict_brain` in config.json");
}

#[test]
fn a_brain_role_that_may_be_evicted_makes_room_for_another_model() {
    let mut config = with_brains(config());
    config.models_order = vec![QWEN_7B.into(), QWEN_14B.into()];
    config.resource_manager.eviction_policy.never_evict_brain = false;
    let mut rig = Rig::with(config).gpus([24_576, 8_192]);
    rig.run_until("the brain's LLM is there", |rig| model_on(rig, "0").is_some()).run_for(30_000);
    rig.drop_task(prompt("large").with_model(QWEN_14B)).run_until_ended("large");
    assert_eq!(rig.ended("large").gpu.as_deref(), Some("0"));
}

#[test]
fn a_model_that_no_gpu_can_hold_is_told_with_both_figures() {
    let mut rig = Rig::new().gpus([8_192]);
    rig.drop_task(prompt("large").with_model(QWEN_14B)).run_for(1_000);
    insta::assert_snapshot!(rig.why("large"), @"no GPU here can hold it: it needs 10000 MiB for `qwen2.5:14b`, the largest has 8192 MiB");
}
