//! A batch that somebody pauses: nothing more of it starts, an exclusive one gives the GPUs back, and it loses nothing.

use model::{FailureClass, GpuMode, GpuState, Mode, Reason};

use super::make::{prompt, whisper};
use super::rig::{Rig, id};
use crate::Rest;

/// A card that holds an LLM, or one script beside its headroom.
const ONE_SLOT: u64 = 5_900;

#[test]
fn a_paused_batch_ends_what_runs_and_starts_nothing_more() {
    let mut rig = Rig::new().gpus([ONE_SLOT, ONE_SLOT]);
    rig.drop_batch("b", GpuMode::Shared, &[10.0; 6]).run_until("two run", |rig| rig.starts().len() == 2);
    rig.pause("b", true).run_for(60_000);
    assert_eq!(rig.starts().len(), 2, "what ran has ended, and nothing was started");
    assert_eq!(rig.ended.len(), 2);
    assert_eq!(rig.why("b.5"), Reason::BatchPaused { batch: "b".into() });
    let picture = rig.picture();
    let batch = picture.batches.values().next().unwrap();
    assert!(batch.paused && batch.eta.is_none() && batch.gpus.is_empty());
    let head = picture.queues[&model::TaskClass::Script].head.as_ref().unwrap();
    assert_eq!(head.reason.text, "batch `b` is paused; `gpuspool resume b` lets it go on");
    rig.drop_task(whisper("other")).run_until_ended("other");
    rig.pause("b", false).run_until_rest();
    assert!((0..6).all(|n| rig.is_complete(&format!("b.{n}"))));
    let told: Vec<String> = rig.said().into_iter().filter(|line| line.starts_with("batch b")).collect();
    assert_eq!(
        told,
        [
            "batch b is paused with 6 items left: none of them starts, and what runs ends",
            "batch b goes on with 4 items left"
        ]
    );
}

#[test]
fn while_an_exclusive_batch_is_paused_the_llms_are_back() {
    let mut rig = Rig::new().gpus([ONE_SLOT, ONE_SLOT]);
    rig.drop_tasks([prompt("a"), prompt("b")]).run_until_rest();
    rig.drop_batch("zim", GpuMode::Exclusive, &[10.0; 8])
        .run_until("some are done", |rig| rig.ended.len() >= 4);
    rig.drop_task(prompt("held")).run_for(1_000);
    assert!(!rig.ended.contains_key(&id("held")));
    rig.pause("zim", true).run_until_ended("held");
    assert_eq!(rig.picture().mode, Mode::Normal);
    let began = rig.starts().len();
    rig.run_for(30_000);
    assert_eq!(rig.starts().len(), began);
    assert!([0, 1].iter().any(|gpu| rig.state(*gpu) == GpuState::LlmReady));
    rig.pause("zim", false).run_for(100);
    assert_ne!(rig.picture().mode, Mode::Normal);
    rig.run_until_rest();
    assert!((0..8).all(|n| rig.is_complete(&format!("zim.{n}"))));
}

#[test]
fn a_paused_batch_is_not_waited_for_and_can_be_cancelled() {
    let mut rig = Rig::new().gpus([ONE_SLOT]);
    rig.drop_batch("b", GpuMode::Exclusive, &[10.0; 3]).pause("b", true).run_for(20_000);
    assert_eq!(rig.world.rest(), Rest::Held(vec![id("b.0"), id("b.1"), id("b.2")]));
    for n in 0..3 {
        rig.tell(crate::Event::CancelAsked { task_id: id(&format!("b.{n}")) });
    }
    rig.run_until_rest();
    assert!(rig.world.batches.is_empty());
    assert_eq!(rig.ended.values().filter(|ends| !ends[0].complete).count(), 3);
}

#[test]
fn a_pause_outlives_the_brain() {
    let mut rig = Rig::new().gpus([ONE_SLOT]);
    rig.drop_batch("b", GpuMode::Exclusive, &[10.0; 4]).run_until_ended("b.0");
    rig.pause("b", true).run_for(5_000).restart_brain().run_for(30_000);
    let started = rig.starts().len();
    assert!(started <= 2 && rig.picture().mode == Mode::Normal);
    rig.restart_brain().pause("b", false).run_until_rest();
    assert!((0..4).all(|n| rig.is_complete(&format!("b.{n}"))));
}

#[test]
fn a_paused_item_whose_back_off_is_over_waits_on() {
    let mut rig = Rig::new().gpus([ONE_SLOT]);
    rig.outcomes.insert("b.0".into(), [Some(FailureClass::Crash), Some(FailureClass::Crash)].into());
    rig.drop_batch("b", GpuMode::Shared, &[10.0]);
    rig.run_until("its second crash", |rig| rig.outcomes.get("b.0").is_none_or(|left| left.is_empty()));
    rig.run_for(2_000).pause("b", true);
    let starts = rig.starts().len();
    // Nothing happens but that its time comes.
    rig.run_for(120_000);
    assert_eq!(rig.starts().len(), starts);
    rig.pause("b", false).run_until_ended("b.0");
    assert!(rig.is_complete("b.0"));
}
