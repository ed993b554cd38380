//! A chatbot inside an exclusive batch borrows one GPU, and gives it back.

use model::task::{CHATBOT, GpuRequirement};
use model::{GpuMode, GpuState, Millis, Reason, TaskClass};
use proptest::prelude::*;

use super::make::{Drop, QWEN_7B, QWEN_14B, config, one_at_a_time, prompt, with_brains};
use super::random::random;
use super::rig::{Rig, id};
use crate::action::Action;

fn chat(name: &str) -> Drop {
    let mut drop = prompt(name);
    drop.task.job_type = CHATBOT.into();
    drop
}

fn long_batch(rig: &mut Rig) {
    // Forty items of 30 s each.
    rig.drop_batch("zim", GpuMode::Exclusive, &[300.0; 40]).run_until("it runs everywhere", |rig| {
        let gpus = u32::try_from(rig.picture().gpus.len()).unwrap();
        (0..gpus).all(|gpu| rig.state(gpu) == GpuState::ScriptBusy)
    });
}

/// What was said of GPUs that were lent.
fn lendings(rig: &Rig) -> Vec<String> {
    rig.said()
        .into_iter()
        .filter(|line| line.contains("lent to chatbots") || line.contains("goes back"))
        .collect()
}

/// GPUs where LLM tasks were started since a time.
fn llm_gpus(rig: &Rig, since: Millis) -> std::collections::BTreeSet<String> {
    let of = rig.log.iter().filter(|(at, _)| *at >= since).filter_map(|(_, action)| match action {
        Action::Start { task, worker, .. } if task.class() == TaskClass::Llm => Some(worker.to_string()),
        _ => None,
    });
    of.collect()
}

#[test]
fn a_chatbot_borrows_one_gpu_at_the_next_boundary_and_it_goes_back_after_its_last_request() {
    let mut rig = Rig::with(one_at_a_time(config())).gpus([24_576; 3]);
    long_batch(&mut rig);
    rig.run_for(5_000);
    let asked = rig.now;
    rig.drop_tasks([chat("hello"), prompt("summary")]).run_for(100);
    assert!(matches!(rig.why("hello"), Reason::LentToChat { .. }), "{}", rig.why("hello"));
    assert!(rig.why("summary").to_string().starts_with("exclusive batch `zim`"));
    rig.run_until_ended("hello");
    // The rest of one item, its host's leave, cooling and the boot.
    assert!(rig.now - asked < Millis(30_000 + 1_500 + 5_000 + 2_000), "{}", rig.now - asked);
    let running = |rig: &Rig| rig.picture().batches.values().next().map(|batch| batch.gpus.len());
    assert_eq!(running(&rig), Some(2), "the others work on");
    rig.run_for(20_000).drop_task(chat("again")).run_until_ended("again");
    assert_eq!(lendings(&rig).len(), 1);
    // A forecast knows that the GPU stays lent for a minute after that.
    let (lent_key, told) = rig.next_on_the_lent_gpu().expect("an item comes there next");
    rig.run_until("all three work again", |rig| running(rig) == Some(3));
    assert!((rig.now - told).0.abs() < 5_000, "GPU {lent_key} was told for {told}, and it was {}", rig.now);
    let [lent, back] = &lendings(&rig)[..] else { panic!("{:?}", lendings(&rig)) };
    assert!(lent.contains("inside exclusive batch zim for hello"), "{lent}");
    assert!(back.ends_with("goes back to exclusive batch zim: no chatbot has asked for 60 s"), "{back}");
    assert_eq!(llm_gpus(&rig, asked).len(), 1);
    assert!(!rig.ended.contains_key(&id("summary")));
    rig.run_until_rest();
    assert!((0..40).all(|n| rig.is_complete(&format!("zim.{n}"))) && rig.is_complete("summary"));
}

#[test]
fn an_llm_that_is_still_loaded_is_kept_for_the_chatbot() {
    let mut rig = Rig::with(one_at_a_time(config())).gpus([24_576; 2]);
    let on = |gpu: u32| GpuRequirement::Key(gpu.to_string());
    rig.drop_tasks([prompt("a").gpu(on(0)), prompt("b").gpu(on(1))]).run_until_rest();
    let asked = rig.now;
    rig.drop_task(chat("hello"));
    rig.drop_batch("zim", GpuMode::Exclusive, &[300.0; 10]).run_until_ended("hello");
    assert!(rig.now - asked < Millis(1_500), "nothing was loaded for it");
    assert_eq!((rig.boots(), rig.unloads()), (2, 1));
    rig.run_until_rest();
    assert_eq!(lendings(&rig).len(), 2);
}

#[test]
fn an_llm_of_a_brain_role_serves_chatbots_and_nothing_is_lent() {
    let mut rig = Rig::with(with_brains(config())).gpus([24_576; 5]);
    rig.run_until("its LLMs", |rig| rig.state(0) == GpuState::LlmReady && rig.state(3) == GpuState::LlmReady);
    rig.drop_batch("zim", GpuMode::Exclusive, &[300.0; 20]).run_for(5_000);
    rig.drop_tasks([chat("hello"), prompt("summary")]).run_until_ended("hello");
    assert!(lendings(&rig).is_empty());
    assert!(!rig.ended.contains_key(&id("summary")));
    rig.run_until_rest();
}

#[test]
fn the_literal_rule_holds_chatbots_back_too() {
    let mut config = config();
    config.resource_manager.batch_settings.exclusive_admits_chat = false;
    let mut rig = Rig::with(config).gpus([24_576; 2]);
    long_batch(&mut rig);
    rig.drop_task(chat("hello"));
    rig.run_until("the last item", |rig| rig.world.batches.is_empty());
    assert!(!rig.ended.contains_key(&id("hello")) && lendings(&rig).is_empty());
    rig.run_until_ended("hello");
}

#[test]
fn under_the_single_lock_the_chatbot_gets_it_next() {
    let mut config = config();
    config.gpu_lock = model::config::GpuLock::Single;
    let mut rig = Rig::with(config).gpus([24_576; 2]);
    rig.drop_batch("zim", GpuMode::Exclusive, &[300.0; 6])
        .run_until("it runs", |rig| rig.starts().len() == 1);
    rig.drop_task(chat("hello"));
    let alone = |rig: &Rig| rig.world.units.values().filter(|unit| unit.is_live()).count() <= 1;
    rig.run_until("it is answered", |rig| {
        assert!(alone(rig));
        rig.ended.contains_key(&id("hello"))
    });
    assert!(rig.starts().len() <= 3, "{:?}", rig.starts());
    rig.run_until_rest();
    assert_eq!(rig.ended.len(), 7);
}

#[test]
fn two_models_take_turns_on_the_one_gpu() {
    let mut rig = Rig::with(one_at_a_time(config())).gpus([24_576; 3]);
    long_batch(&mut rig);
    let asked = rig.now;
    rig.drop_tasks([chat("small").with_model(QWEN_7B), chat("large").with_model(QWEN_14B)]);
    rig.run_until_ended("large");
    assert!(rig.is_complete("small"));
    assert_eq!(llm_gpus(&rig, asked).len(), 1);
    let swaps: Vec<String> = rig.said().into_iter().filter(|line| line.contains("makes room for")).collect();
    insta::assert_snapshot!(swaps.join("\n"), @"GPU 0: qwen2.5:7b makes room for qwen2.5:14b, which large waits for since 37 s");
    rig.run_until_rest();
    assert_eq!(rig.ended.len(), 42);
}

#[test]
fn a_chatbot_that_is_cancelled_before_it_starts_keeps_nothing() {
    let mut rig = Rig::with(one_at_a_time(config())).gpus([24_576; 2]);
    long_batch(&mut rig);
    rig.drop_task(chat("hello")).run_for(1_000);
    assert!(rig.world.lent.is_some());
    rig.tell(crate::Event::CancelAsked { task_id: id("hello") });
    rig.run_until("it is given back", |rig| rig.world.lent.is_none());
    assert_eq!(rig.boots(), 0);
    rig.run_until_rest();
}

proptest! {
    #![proptest_config(random(120))]

    /// Exclusive batches, paused, resumed and cancelled at random, with chatbots, deaths and restarts in between.
    #[test]
    fn batches_are_exact_and_every_lent_gpu_returns(
        steps in prop::collection::vec((0..9_u8, 0..60_u8, 0..40_000_u16), 1..25),
        brains: bool,
    ) {
        let mut rig = Rig::with(if brains { with_brains(config()) } else { config() }).gpus([24_576, 12_227, 8_192]);
        rig.lenient = true;
        let (mut batches, mut names): (Vec<(String, u8)>, Vec<String>) = (Vec::new(), Vec::new());
        for (turn, (kind, which, wait)) in steps.iter().enumerate() {
            let batch = batches.get(usize::from(*which) % batches.len().max(1)).cloned();
            let is_live = |rig: &Rig, name: &str| rig.world.batches.keys().any(|id| id.as_str() == name);
            match (kind, batch) {
                (0 | 1, _) => {
                    let items = which % 20 + 1;
                    let media: Vec<f64> = (0..items).map(|n| f64::from(n % 5) * 60.0 + 20.0).collect();
                    let mode = if *kind == 0 { GpuMode::Exclusive } else { GpuMode::Shared };
                    rig.drop_batch(&format!("b{turn}"), mode, &media);
                    names.extend((0..items).map(|n| format!("b{turn}.{n}")));
                    batches.push((format!("b{turn}"), items));
                }
                (2 | 3, Some((name, _))) if is_live(&rig, &name) => drop(rig.pause(&name, *kind == 2)),
                (4, Some((name, items))) => (0..items).for_each(|n| {
                    rig.tell(crate::Event::CancelAsked { task_id: id(&format!("{name}.{n}")) });
                }),
                (5, _) => drop(rig.restart_brain()),
                (6, _) => drop(rig.kill_worker(u32::from(which % 3), false)),
                _ => {
                    let name = format!("t{turn}");
                    rig.drop_task(if *kind == 7 { chat(&name) } else { prompt(&name) });
                    names.push(name);
                }
            }
            rig.run_for(i64::from(*wait));
        }
        for (name, _) in &batches {
            if rig.world.batches.keys().any(|id| id.as_str() == name) {
                rig.pause(name, false);
            }
        }
        rig.run_until_rest();
        for name in &names {
            prop_assert_eq!(rig.ended.get(&id(name)).map_or(0, Vec::len), 1, "{}", name);
        }
        prop_assert!(rig.world.batches.is_empty() && rig.world.lent.is_none());
        prop_assert!(rig.world.exclusive(rig.now).is_none());
    }
}
