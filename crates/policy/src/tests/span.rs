//! LLMs that are spread over several GPUs: all of them or none, and nothing else beside.

use model::config::{Auto, GpuRole, ModelEntry};
use model::gpu::Reading;
use model::task::GpuRequirement;
use model::{Config, GpuMode, GpuState, GpuUuid, Millis, Saying};

use super::make::{Drop, QWEN_7B, QWEN_14B, config, one_at_a_time, prompt, script, whisper};
use super::rig::{Rig, id};
use crate::{Action, Event, Rest, why_gpu};

const LLAMA_70B: &str = "llama:70b";

/// The usual models, and one of 40,000 MiB over two GPUs.
fn spread() -> Config {
    let mut config = config();
    let big = ModelEntry { mib: Some(40_000), gpus: Some(2), parallel: Some(2), ..ModelEntry::default() };
    config.models.insert(LLAMA_70B.into(), big);
    config
}

fn rig<const N: usize>(config: Config, gpus: [u64; N]) -> Rig {
    let mut rig = Rig::with(config);
    rig.can = super::make::can(&[QWEN_14B, QWEN_7B, LLAMA_70B]);
    rig.gpus(gpus)
}

fn big(name: &str) -> Drop {
    prompt(name).with_model(LLAMA_70B)
}

/// The GPUs of each load, the first one's and those beside it.
fn loads(rig: &Rig) -> Vec<(String, String, Vec<String>)> {
    let loads = rig.log.iter().filter_map(|(_, action)| match action {
        Action::Engine { worker, engine: Some(order) } => {
            let beside = order.beside.iter().map(ToString::to_string).collect();
            Some((rig.gpu_key(worker).unwrap_or_default(), order.model.clone(), beside))
        }
        _ => None,
    });
    loads.collect()
}

fn states(rig: &Rig) -> Vec<GpuState> {
    rig.picture().gpus.values().map(|gpu| gpu.state).collect()
}

#[test]
fn it_is_one_load_of_both_and_both_show_it() {
    let mut rig = rig(spread(), [24_576, 24_576, 24_576]);
    rig.drop_task(big("a")).run_for(1_000);
    assert_eq!(loads(&rig), [("0".into(), LLAMA_70B.into(), vec!["SIM-1".into()])]);
    assert_eq!(states(&rig), [GpuState::BootingLlm, GpuState::BootingLlm, GpuState::Idle]);
    rig.run_until_ended("a");
    let shown = rig.picture();
    for (key, other) in [("0", "1"), ("1", "0")] {
        let gpu = &shown.gpus[key];
        assert_eq!((gpu.state, gpu.model.as_deref()), (GpuState::LlmReady, Some(LLAMA_70B)), "GPU {key}");
        assert_eq!(gpu.paired_with, [other], "GPU {key}");
        assert_eq!(gpu.vram.used_mib, Some(20_000), "its share");
    }
    // What runs on it is seen on both, and the other GPU goes on with its own.
    rig.times.llm = 30_000;
    rig.drop_tasks([big("b"), whisper("w").media(200.0)]).run_for(5_000);
    assert_eq!(states(&rig), [GpuState::LlmBusy, GpuState::LlmBusy, GpuState::ScriptBusy]);
    insta::assert_snapshot!(why_gpu(&rig.world, rig.now, "1").expect("known").to_string(), @"GPU 1 (SIMULATED 24576 MiB) answers with llama:70b: b (since 5 s). It takes LLM tasks.");
    rig.run_until_ended("b");
    assert_eq!(rig.boots(), 1);
}

#[test]
fn gpus_are_kept_for_it_as_for_a_task_that_needs_several() {
    let mut rig = rig(one_at_a_time(spread()), [24_576, 24_576]);
    let narrow = |name: &str, seconds: f64| whisper(name).media(seconds * 10.0).estimate(seconds);
    rig.drop_task(narrow("long", 100.0)).run_for(2_000);
    rig.drop_task(big("a"));
    rig.drop_tasks([narrow("longer", 200.0), narrow("short", 30.0)]).run_for(2_000);
    assert_eq!(rig.starts(), ["long", "short"], "it ends before the one that is waited for");
    insta::assert_snapshot!(rig.why("a"), @"it needs 2 GPUs at once: GPU 0 and 1 are kept for it, expected free in 97 s with the end of long; until then only what ends before starts there, or what goes before it, chatbots among that for another 15 min at most");
    rig.run_until_ended("a");
    assert_eq!(rig.starts()[..3], ["long", "short", "a"]);
    rig.run_until_rest();
    assert!(rig.is_complete("longer"), "it makes room in its turn");
}

#[test]
fn other_llms_make_room_for_it_once_they_run_nothing() {
    let mut rig = rig(spread(), [24_576, 24_576]);
    rig.times.llm = 200_000;
    rig.drop_task(prompt("small")).run_for(170_000);
    assert_eq!(rig.state(0), GpuState::LlmBusy);
    rig.drop_task(big("a")).run_until_ended("small");
    assert_eq!(rig.boots(), 1, "no request is cut");
    rig.run_until_ended("a");
    assert_eq!(loads(&rig)[1..], [("0".into(), LLAMA_70B.into(), vec!["SIM-1".into()])]);
    insta::assert_snapshot!(rig.said().join("\n"), @r"
GPU 0 and 1 are kept for a, which needs 2 at once and waits for 0 s: expected free in 6 s; until then only what ends before starts there
GPU 0: qwen2.5:14b makes room for llama:70b, which a waits for since 35 s
");
}

#[test]
fn a_script_of_its_second_gpu_sends_all_of_it_away() {
    let mut rig = rig(spread(), [24_576, 24_576]);
    rig.drop_task(big("a")).run_until_ended("a");
    rig.drop_task(whisper("w").gpu(GpuRequirement::Key("1".into())).media(100.0));
    rig.run_until_ended("w");
    assert_eq!((rig.unloads(), rig.ended("w").gpu.as_deref()), (1, Some("1")));
}

#[test]
fn a_task_of_two_gpus_sends_it_away() {
    let mut rig = rig(spread(), [24_576, 24_576]);
    rig.drop_task(big("a")).run_until_ended("a");
    rig.drop_task(script("w", "embed").gpus(2).estimate(2.0)).run_until_ended("w");
    assert_eq!(rig.unloads(), 1);
}

#[test]
fn an_exclusive_batch_has_all_its_gpus_and_it_comes_back_to_them() {
    let mut rig = rig(spread(), [24_576, 24_576, 24_576]);
    rig.drop_task(big("a")).run_until_ended("a");
    rig.drop_batch("b", GpuMode::Exclusive, &[300.0; 60]);
    rig.run_until("all three work", |rig| states(rig) == [GpuState::ScriptBusy; 3]);
    assert_eq!(rig.unloads(), 1);
    rig.run_until_rest();
    rig.run_until("it is back", |rig| states(rig)[..2] == [GpuState::LlmReady; 2]);
    assert_eq!(rig.boots(), 2, "{:?}", loads(&rig));
}

#[test]
fn two_brains_with_one_model_are_a_pair_and_pinned() {
    let mut config = one_at_a_time(spread());
    let roles = [("0", GpuRole::BrainPrimary), ("3", GpuRole::BrainSecondary)];
    config.resource_manager.gpu_roles =
        Auto::Set(roles.into_iter().map(|(key, role)| (key.to_owned(), role)).collect());
    if let Some(big) = config.models.get_mut(LLAMA_70B) {
        big.role = Some(GpuRole::BrainPrimary);
    }
    let mut rig = rig(config, [24_576; 4]);
    rig.run_until("the pair", |rig| rig.state(0) == GpuState::LlmReady);
    assert_eq!(loads(&rig), [("0".into(), LLAMA_70B.into(), vec!["SIM-3".into()])]);
    assert_eq!(rig.state(3), GpuState::LlmReady);
    // Neither takes scripts, in exclusive mode or out of it.
    rig.drop_batch("b", GpuMode::Exclusive, &[100.0; 60]).run_until_rest();
    let keys: Vec<_> = (0..60).map(|n| rig.ended(&format!("b.{n}")).gpu.clone()).collect();
    assert!(keys.iter().flatten().all(|key| key == "1" || key == "2"), "{keys:?}");
    assert_eq!((rig.boots(), rig.unloads()), (1, 0));
}

#[test]
fn a_pair_of_brains_that_loses_a_gpu_waits_for_it_and_takes_no_other() {
    let mut config = one_at_a_time(spread());
    let roles = [("1", GpuRole::BrainPrimary), ("2", GpuRole::BrainSecondary)];
    config.resource_manager.gpu_roles =
        Auto::Set(roles.into_iter().map(|(key, role)| (key.to_owned(), role)).collect());
    if let Some(big) = config.models.get_mut(LLAMA_70B) {
        big.role = Some(GpuRole::BrainPrimary);
    }
    let mut rig = rig(config, [24_576; 3]);
    rig.run_until("the pair", |rig| rig.state(1) == GpuState::LlmReady);
    let mut without = rig.inventory();
    without.gpus.remove(2);
    rig.tell(Event::Inventory(without));
    rig.drop_task(big("asked")).drop_task(whisper("heard")).run_until_ended("heard");
    assert_eq!(rig.ended("heard").gpu.as_deref(), Some("0"), "it is free for scripts all the while");
    insta::assert_snapshot!(rig.why("asked"), @"it needs 2 GPUs at once with 20000 MiB each, and 1 of the 3 GPUs here can be had for it; 1 has its LLM pinned by `gpu_roles`");
    let whole = rig.inventory();
    rig.tell(Event::Inventory(whole));
    rig.run_until_ended("asked").run_until_rest();
    let pair = ("1".to_owned(), LLAMA_70B.to_owned(), vec!["SIM-2".to_owned()]);
    assert_eq!(loads(&rig), [pair.clone(), pair]);
}

#[test]
fn a_dead_worker_takes_all_of_it_along_and_a_new_one_loads_it_again() {
    let mut rig = rig(spread(), [24_576, 24_576]);
    rig.drop_task(big("a")).run_until_ended("a");
    rig.kill_worker(0, false).run_until("both are free", |rig| states(rig) == [GpuState::Idle; 2]);
    rig.drop_task(big("b")).run_until_ended("b");
    assert_eq!(rig.boots(), 2);
    // That of the other GPU may die as it likes: it has nothing to do with it.
    rig.kill_worker(1, false).run_for(5_000);
    assert_eq!(states(&rig), [GpuState::LlmReady; 2]);
    rig.drop_task(big("c")).run_until_ended("c");
    assert_eq!(rig.boots(), 2);
}

#[test]
fn a_new_brain_takes_it_over_as_it_is() {
    let mut rig = rig(spread(), [24_576, 24_576]);
    rig.times.llm = 20_000;
    rig.drop_task(big("a")).run_until("it answers", |rig| rig.state(0) == GpuState::LlmBusy);
    rig.restart_brain().run_for(1_000);
    assert_eq!(states(&rig), [GpuState::LlmBusy; 2]);
    rig.drop_task(whisper("w").media(50.0)).run_until_ended("a");
    assert_eq!((rig.boots(), rig.ended("a").attempt), (1, 1));
}

#[test]
fn it_goes_when_one_of_its_gpus_is_lost_and_what_it_runs_is_not_charged() {
    for lost in [0, 1] {
        let mut rig = rig(spread(), [24_576, 24_576, 24_576]);
        rig.drop_task(big("a")).run_until_ended("a");
        rig.times.llm = 600_000;
        rig.drop_task(big("b")).run_for(2_000);
        rig.times.llm = 1_000;
        let uuid = GpuUuid::new(format!("SIM-{lost}")).unwrap();
        rig.tell(Event::Read(Reading { uuid, used_mib: None, processes: Vec::new(), lost: true }));
        rig.run_until_ended("b");
        let others: Vec<String> = [0, 1, 2].iter().filter(|n| **n != lost).map(ToString::to_string).collect();
        assert_eq!(loads(&rig)[1].0, others[0], "GPU {lost} is lost");
        assert_eq!(loads(&rig)[1].2, [format!("SIM-{}", others[1])]);
        assert!(rig.said().iter().any(|said| said.contains("is lost")), "{:?}", rig.said());
        let charged = rig.log.iter().filter_map(|(_, action)| match action {
            Action::Start { task, .. } if task.task_id == id("b") => Some(task.charged),
            _ => None,
        });
        assert_eq!(charged.collect::<Vec<_>>(), [1, 1]);
    }
}

#[test]
fn a_queue_for_one_that_is_loaded_keeps_no_other_gpu() {
    let mut rig = rig(spread(), [24_576, 24_576, 24_576]);
    rig.drop_task(big("a")).run_until_ended("a");
    rig.times.llm = 20_000;
    rig.drop_tasks((0..40).map(|n| big(&format!("q{n}")))).run_for(1_000);
    rig.drop_task(whisper("w").media(200.0)).run_for(3_000);
    assert_eq!(rig.state(2), GpuState::ScriptBusy);
    assert_eq!(rig.count(|action| matches!(action, Action::Keep { .. })), 0);
}

#[test]
fn a_task_that_names_any_of_its_gpus_is_served_by_it() {
    let mut rig = rig(spread(), [24_576, 24_576]);
    rig.drop_task(big("a")).run_until_ended("a");
    rig.drop_task(big("b").gpu(GpuRequirement::Key("1".into()))).run_for(2_000);
    assert!(rig.is_complete("b"));
    assert_eq!((rig.boots(), rig.unloads()), (1, 0));
    // What it asks of memory is meant for each of them.
    rig.drop_task(big("c").vram(30_000)).run_for(2_000);
    assert_eq!(rig.world.rest(), Rest::Held(vec![id("c")]));
}

#[test]
fn a_prompt_that_names_no_model_takes_it_where_there_is_no_other() {
    let mut config = spread();
    config.models.retain(|name, _| name == LLAMA_70B);
    config.models_order.clear();
    let mut rig = rig(config, [24_576, 24_576]);
    rig.drop_task(prompt("a")).run_until_ended("a");
    assert_eq!((rig.boots(), rig.is_complete("a")), (1, true));
    // Scripts have it go, and it comes back once they are through.
    rig.drop_tasks((0..8).map(|n| whisper(&format!("w{n}")).media(600.0)));
    rig.run_until("it makes room", |rig| rig.unloads() == 1).run_until_ended("w7");
    rig.run_until("it is back", |rig| states(rig) == [GpuState::LlmReady; 2]);
}

#[test]
fn where_too_few_gpus_are_large_enough_the_task_waits_with_the_reason() {
    let mut rig = rig(spread(), [24_576, 12_288]);
    rig.drop_task(big("a")).run_for(5_000);
    assert_eq!(rig.world.rest(), Rest::Held(vec![id("a")]));
    insta::assert_snapshot!(rig.why("a"), @"it needs 2 GPUs at once with 20000 MiB each, and 1 of the 2 GPUs here can be had for it");
    rig.drop_task(prompt("b").with_model(QWEN_7B).gpus(2)).run_for(5_000);
    insta::assert_snapshot!(rig.why("b"), @"no engine can serve it: it asks for 2 GPUs, and an LLM that is loaded for it has 1; leave `gpus` out to take it, or see `models.<name>.gpus` in config.json");
}

#[test]
fn a_load_that_fails_is_tried_again_later_and_the_other_gpu_is_not_lost_over_it() {
    let mut rig = rig(spread(), [24_576, 24_576]);
    rig.boots_to_fail = 2;
    rig.drop_task(big("a")).run_until_ended("a");
    assert!(rig.is_complete("a"));
    assert_eq!(rig.boots(), 3);
    let swaps = rig.count(|action| matches!(action, Action::Say(Saying::Swaps { .. })));
    assert_eq!((swaps, states(&rig)), (0, vec![GpuState::LlmReady; 2]));
}

#[test]
fn what_runs_on_all_its_gpus_gives_way_to_a_chatbot_that_needs_it() {
    let mut rig = rig(one_at_a_time(spread()), [24_576, 24_576]);
    rig.boundary = Some(2_000);
    rig.drop_tasks([whisper("v").media(6_000.0), whisper("w").media(6_000.0)]).run_for(5_000);
    assert_eq!(states(&rig), [GpuState::ScriptBusy; 2]);
    let asked = rig.now;
    rig.drop_task(big("a").of_type("chatbot")).run_until_ended("a");
    assert!(rig.now - asked < Millis(15_000), "{}", rig.now - asked);
    rig.run_until_rest();
    assert!(rig.is_complete("v") && rig.is_complete("w"));
}

#[test]
fn what_waits_for_it_does_not_keep_gpus_from_an_exclusive_batch() {
    let mut rig = rig(one_at_a_time(spread()), [24_576, 24_576]);
    rig.drop_task(prompt("small").of_type("chatbot")).run_until_ended("small");
    rig.drop_task(whisper("v").media(600.0)).run_for(2_000);
    rig.drop_task(big("a").of_type("chatbot")).run_for(2_000);
    rig.drop_batch("b", GpuMode::Exclusive, &[100.0; 4]).run_until_ended("b.3");
    rig.run_until_ended("a");
}
