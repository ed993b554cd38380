//! Exclusive batches beside LLM tasks that keep arriving.

use model::link::StopWhy;
use model::task::GpuRequirement;
use model::{GpuMode, GpuState, Millis, Mode, TaskClass};

use super::make::{config, prompt, script, whisper, with_brains};
use super::rig::{Rig, id};
use crate::action::Action;

fn media(count: usize) -> Vec<f64> {
    (0..count).map(|n| 20.0 + (n * 37 % 50) as f64).collect()
}

/// Only on this GPU, so that each gets an LLM.
fn on(gpu: usize) -> GpuRequirement {
    GpuRequirement::Key(gpu.to_string())
}

fn llm_starts_between(rig: &Rig, from: Millis, to: Millis) -> usize {
    let inside = |at: &Millis| *at >= from && *at < to;
    let is_llm =
        |action: &Action| matches!(action, Action::Start { task, .. } if task.class() == TaskClass::Llm);
    rig.log.iter().filter(|(at, action)| inside(at) && is_llm(action)).count()
}

#[test]
fn a_big_batch_takes_all_gpus_while_llm_tasks_keep_arriving_and_gives_them_back() {
    let mut rig = Rig::new().gpus([24_576, 12_227, 8_192]);
    rig.times.llm = 5_000;
    rig.drop_tasks((0..9).map(|n| prompt(&format!("early-{n}")).gpu(on(n % 3))));
    rig.run_until("LLMs on all GPUs", |rig| rig.boots() == 3).run_for(6_000);
    let began = rig.now;
    rig.drop_batch("zim", GpuMode::Auto, &media(125));
    rig.think();
    assert_eq!(rig.picture().mode, Mode::Draining);
    for n in 0..20 {
        rig.drop_task(prompt(&format!("late-{n}"))).run_for(500);
    }
    rig.run_until("exclusive mode", |rig| rig.picture().mode == Mode::Exclusive);
    let reason = rig.why("late-3").to_string();
    assert!(reason.starts_with("exclusive batch `zim` has the GPUs"), "{reason}");
    rig.run_until("the last item", |rig| rig.world.batches.is_empty());
    let over = rig.now;
    assert_eq!(llm_starts_between(&rig, began, over), 0, "no LLM task starts inside");
    assert_eq!(rig.unloads(), 3);
    rig.run_until_rest();
    for n in 0..20 {
        assert!(rig.is_complete(&format!("late-{n}")));
    }
    assert!((0..125).all(|n| rig.is_complete(&format!("zim.{n}"))));
    for gpu in ["0", "1", "2"] {
        assert!(rig.ended.values().any(|ends| ends[0].gpu.as_deref() == Some(gpu)), "GPU {gpu} was used");
        let loads: Vec<u32> =
            rig.picture().gpus[gpu].residents.iter().map(|resident| resident.loads).collect();
        assert_eq!(loads, [2], "its LLM is back");
    }
}

#[test]
fn each_gpu_goes_back_to_its_llm_as_soon_as_the_tail_leaves_it_idle() {
    let mut rig = Rig::new().gpus([24_576, 24_576]);
    rig.times.llm = 60_000;
    rig.drop_tasks((0..6).map(|n| prompt(&format!("p{n}")).gpu(on(n % 2))));
    rig.run_until("LLMs on both", |rig| rig.boots() == 2)
        .run_until("both free", |rig| rig.world.units.is_empty() && rig.starts().len() == 6);
    // One item is ten times as long as the others: while it runs, the other GPU reloads.
    rig.drop_batch("tail", GpuMode::Exclusive, &[2_000.0, 100.0, 100.0, 100.0]);
    rig.run_until("the tail", |rig| rig.ended.len() == 6 + 3);
    rig.run_for(20_000);
    assert_eq!((rig.state(0), rig.state(1)), (GpuState::ScriptBusy, GpuState::LlmReady));
    assert_eq!(rig.picture().mode, Mode::Exclusive);
    rig.run_until_ended("tail.0").run_for(20_000);
    assert_eq!((rig.state(0), rig.state(1)), (GpuState::LlmReady, GpuState::LlmReady));
}

#[test]
fn a_gpu_gets_its_llm_back_although_the_first_order_to_load_it_could_not_be_written() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_task(prompt("a")).run_until_ended("a");
    rig.drop_batch("b", GpuMode::Exclusive, &[10.0]).run_until_ended("b.0");
    rig.full = 1;
    rig.run_for(20_000);
    assert_eq!(rig.boots(), 3, "the first load, the order that was lost, and the one after it");
    assert_eq!(rig.state(0), GpuState::LlmReady);
}

#[test]
fn without_reload_the_gpus_stay_idle() {
    let mut config = config();
    config.resource_manager.batch_settings.reload_llms_after_batch = false;
    let mut rig = Rig::with(config).gpus([24_576]);
    rig.drop_task(prompt("a")).run_until_ended("a");
    rig.drop_batch("b", GpuMode::Exclusive, &[10.0, 10.0]).run_until_ended("b.1").run_for(20_000);
    assert_eq!(rig.state(0), GpuState::Idle);
    assert_eq!(rig.boots(), 1);
}

#[test]
fn items_go_longest_first() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_batch("b", GpuMode::Exclusive, &[10.0, 40.0, 20.0, 30.0]).run_until_rest();
    assert_eq!(rig.starts(), ["b.1", "b.3", "b.2", "b.0"]);
    // In shared mode too: the tail is as short there.
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_batch("b", GpuMode::Shared, &[10.0, 40.0, 20.0, 30.0]).run_until_rest();
    assert_eq!(rig.starts(), ["b.1", "b.3", "b.2", "b.0"]);
}

#[test]
fn the_threshold_decides_and_fifty_is_exclusive() {
    for (items, mode) in [(49, Mode::Normal), (50, Mode::Exclusive)] {
        let mut rig = Rig::new().gpus([24_576]);
        rig.drop_batch("b", GpuMode::Auto, &media(items)).run_for(100);
        assert_eq!(rig.picture().mode, mode, "{items} items");
        let shown = rig.picture().batches.values().next().map(|batch| batch.gpu_mode);
        assert_eq!(shown, Some(if items < 50 { GpuMode::Shared } else { GpuMode::Exclusive }));
    }
}

#[test]
fn llm_tasks_that_do_not_end_within_the_drain_are_taken_back_uncharged() {
    let mut config = config();
    config.resource_manager.batch_settings.drain_s = 30.0;
    let mut rig = Rig::with(config).gpus([24_576]);
    rig.hang.push("slow".into());
    rig.drop_task(prompt("slow")).run_until("it runs", |rig| rig.state(0) == GpuState::LlmBusy).run_for(100);
    let began = rig.now;
    rig.drop_batch("b", GpuMode::Exclusive, &[10.0]).run_for(1_000);
    insta::assert_snapshot!(rig.why("slow"), @"it runs on GPU 0 since 1 s");
    rig.drop_task(prompt("next")).think();
    insta::assert_snapshot!(rig.why("next"), @"exclusive batch `b` waits for 1 running LLM tasks to end");
    assert!(rig.picture().gpus["0"].draining);
    rig.run_until("the stop", |rig| {
        rig.count(|action| matches!(action, Action::Stop { why: StopWhy::TakenBack, .. })) == 1
    });
    assert_eq!((rig.now - began).0, 30_000);
    rig.hang.clear();
    rig.run_until_rest();
    insta::assert_snapshot!(rig.said().join("\n"), @r"
GPU 0: 1 running tasks are taken back and start again later, so that qwen2.5:14b makes room for exclusive batch b, which has waited 30 s for their end
GPU 0: qwen2.5:14b makes room for exclusive batch b, which has 1 items that wait for a GPU
");
    assert_eq!(rig.ended("slow").attempt, 2);
    let charged = rig.log.iter().rev().find_map(|(_, action)| match action {
        Action::Start { task, .. } if task.task_id == id("slow") => Some(task.charged),
        _ => None,
    });
    assert_eq!(charged, Some(1), "the first attempt was refunded");
}

#[test]
fn gpus_of_the_orchestrating_llm_are_not_taken() {
    let mut rig = Rig::with(with_brains(config())).gpus([24_576; 5]);
    rig.run_until("its LLMs", |rig| rig.state(0) == GpuState::LlmReady && rig.state(3) == GpuState::LlmReady);
    assert_eq!(rig.state(1), GpuState::Idle);
    rig.drop_batch("b", GpuMode::Exclusive, &media(60)).run_for(6_000);
    assert_eq!((rig.state(0), rig.state(3)), (GpuState::LlmReady, GpuState::LlmReady));
    for gpu in [1, 2, 4] {
        assert_eq!(rig.state(gpu), GpuState::ScriptBusy);
    }
    rig.run_until_rest();
    assert_eq!(rig.unloads(), 0);
}

#[test]
fn with_the_pin_lifted_even_those_are_taken_and_their_llms_come_back() {
    let mut config = with_brains(config());
    config.resource_manager.eviction_policy.never_evict_brain = false;
    let mut rig = Rig::with(config).gpus([24_576; 2]);
    rig.run_until("its LLM", |rig| rig.state(0) == GpuState::LlmReady);
    rig.drop_batch("b", GpuMode::Exclusive, &media(60)).run_for(10_000);
    assert_eq!(rig.state(0), GpuState::ScriptBusy);
    rig.run_until_rest().run_for(20_000);
    assert_eq!(rig.state(0), GpuState::LlmReady);
}

#[test]
fn a_batch_of_the_cpu_lane_holds_no_llm_back() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_batch("b", GpuMode::Exclusive, &[]);
    let mut facts = crate::event::BatchFacts {
        batch_id: model::BatchId::new("c").unwrap(),
        script: "count".into(),
        gpu_mode: GpuMode::Exclusive,
        total: 3,
        completed: 0,
        failed: 0,
        paused: false,
    };
    rig.tell(crate::Event::Batch(facts.clone()));
    rig.drop_tasks(
        (0..3).map(|n| script(&format!("c.{n}"), "count").of_batch("c").gpu(GpuRequirement::None)),
    );
    rig.drop_task(prompt("a")).run_until_ended("a");
    facts.completed = 3;
    rig.tell(crate::Event::Batch(facts));
}

#[test]
fn a_batch_whose_items_vanished_does_not_hold_llms_back_for_ever() {
    let mut rig = Rig::new().gpus([24_576]);
    let facts = crate::event::BatchFacts {
        batch_id: model::BatchId::new("ghost").unwrap(),
        script: "whisper".into(),
        gpu_mode: GpuMode::Exclusive,
        total: 100,
        completed: 0,
        failed: 0,
        paused: false,
    };
    rig.tell(crate::Event::Batch(facts));
    rig.drop_task(prompt("a")).run_for(5_000);
    assert!(rig.starts().is_empty());
    rig.run_until_ended("a");
}

#[test]
fn failed_items_count_and_the_mode_ends() {
    let mut rig = Rig::new().gpus([24_576, 24_576]);
    rig.drop_batch("b", GpuMode::Exclusive, &media(60));
    for n in [0, 7, 59] {
        rig.outcomes.insert(format!("b.{n}"), [Some(model::FailureClass::BadInput)].into());
    }
    rig.outcomes.insert("b.9".into(), [Some(model::FailureClass::Crash); 3].into());
    rig.drop_task(prompt("a")).run_until_rest();
    assert!(rig.is_complete("a"));
    assert_eq!(rig.ended.values().filter(|ends| !ends[0].complete).count(), 4);
    assert_eq!(rig.picture().mode, Mode::Normal);
}

#[test]
fn a_brain_that_dies_in_the_middle_ends_it_all_the_same() {
    let mut rig = Rig::new().gpus([24_576, 24_576]);
    rig.drop_task(prompt("a")).run_until_ended("a");
    rig.drop_batch("b", GpuMode::Exclusive, &media(60));
    for _ in 0..6 {
        rig.run_for(7_300).restart_brain();
    }
    rig.drop_task(prompt("z")).run_until_rest();
    assert!((0..60).all(|n| rig.is_complete(&format!("b.{n}"))));
    assert!(rig.is_complete("z"));
}

#[test]
fn other_scripts_still_run_by_the_one_order() {
    let mut rig = Rig::new().gpus([4_096]);
    rig.drop_batch("b", GpuMode::Exclusive, &media(10)).run_for(3_000);
    rig.drop_task(whisper("urgent").priority(5)).run_until_ended("urgent");
    assert_eq!(rig.starts()[1], "urgent");
}
