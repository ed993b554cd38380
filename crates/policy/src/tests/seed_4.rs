//! The seed's example of a large batch: five GPUs, two of them for the orchestrating LLM, 125 videos of ten minutes.

use model::config::GpuRole;
use model::task::GpuRequirement;
use model::{Config, GpuMode, GpuState, Millis, Mode};

use super::make::{QWEN_7B, QWEN_14B, can, config, one_at_a_time, prompt};
use super::rig::Rig;
use crate::action::Action;

const QWEN_3B: &str = "qwen2.5:3b";
/// Unload, load of Whisper, 125 videos of 45 s on three GPUs, its end, and one load of Qwen.
const BOUND_S: f64 = 5.0 + 5.0 + 125.0 * 45.0 / 3.0 + 1.0 + 120.0;

fn on(gpu: u32) -> GpuRequirement {
    GpuRequirement::Key(gpu.to_string())
}

/// The seed's times: Qwen boots in 120 s, is unloaded in 5 s, Whisper loads in 5 s and takes 45 s for ten minutes.
fn with_the_seeds_times(config: Config) -> Rig {
    let mut rig = Rig::with(one_at_a_time(config)).gpus([24_576; 5]);
    rig.times.boot = 120_000;
    rig.times.unload = 5_000;
    rig.times.host_load = 5_000;
    rig.times.speed = 600.0 / 45.0;
    rig
}

fn with_the_seeds_roles(mut config: Config) -> Config {
    let role = |gpu: u32| match gpu {
        0 => GpuRole::BrainPrimary,
        3 => GpuRole::BrainSecondary,
        _ => GpuRole::WorkerOrScript,
    };
    let roles = (0..5).map(|gpu| (gpu.to_string(), role(gpu))).collect();
    config.resource_manager.gpu_roles = model::config::Auto::Set(roles);
    config
}

/// Loads these models on the GPUs of the batch.
fn load(rig: &mut Rig, models: [&str; 3]) {
    rig.run_until("the brains' LLMs", |rig| [0, 3].iter().all(|gpu| rig.state(*gpu) == GpuState::LlmReady));
    for (gpu, model) in [1, 2, 4].into_iter().zip(models) {
        rig.drop_task(prompt(&format!("early-{gpu}")).gpu(on(gpu)).with_model(model));
    }
    rig.run_until("LLMs everywhere", |rig| {
        rig.ended.len() == 3 && (0..5).all(|gpu| rig.state(gpu) == GpuState::LlmReady)
    });
}

/// The batch from its submission to the last LLM that is ready again, in seconds; LLM tasks keep arriving.
fn run_the_batch(rig: &mut Rig) -> f64 {
    let began = rig.now;
    rig.drop_batch("whisper-urban-prepper-2025-02-05", GpuMode::Auto, &[600.0; 125]);
    for n in 0..10 {
        rig.run_for(60_000).drop_task(prompt(&format!("late-{n}")));
    }
    rig.run_until("everything is as it was", |rig| {
        let llms =
            [1, 2, 4].iter().all(|gpu| matches!(rig.state(*gpu), GpuState::LlmReady | GpuState::LlmBusy));
        llms && rig.world.batches.is_empty()
    });
    (rig.now - began).as_secs_f64()
}

#[test]
fn seed_4_video_batch_of_125_workflow() {
    let mut rig = with_the_seeds_times(with_the_seeds_roles(config()));
    load(&mut rig, [QWEN_7B; 3]);
    let (boots, unloads, began) = (rig.boots(), rig.unloads(), rig.now);
    let took_s = run_the_batch(&mut rig);
    assert!(took_s <= 1.02 * BOUND_S, "{took_s} s, at best {BOUND_S} s");
    assert!((0..125).all(|n| rig.is_complete(&format!("whisper-urban-prepper-2025-02-05.{n}"))));
    // Qwen is unloaded from GPUs 1, 2 and 4 only, at once, and loaded again at the same time.
    let engines: Vec<(Millis, bool, String)> = rig
        .log
        .iter()
        .filter(|(at, _)| *at >= began)
        .filter_map(|(at, action)| match action {
            Action::Engine { worker, engine } => Some((*at, engine.is_some(), rig.gpu_key(worker)?)),
            _ => None,
        })
        .collect();
    let of = |loads: bool| -> Vec<&(Millis, bool, String)> {
        engines.iter().filter(|(_, engine, _)| *engine == loads).collect()
    };
    let keys = |loads: bool| {
        let mut keys: Vec<&str> = of(loads).iter().map(|(_, _, gpu)| gpu.as_str()).collect();
        keys.sort_unstable();
        keys
    };
    assert_eq!((keys(false), keys(true)), (vec!["1", "2", "4"], vec!["1", "2", "4"]));
    assert_eq!((rig.boots() - boots, rig.unloads() - unloads), (3, 3));
    assert!(of(false).iter().all(|(at, ..)| *at == began), "unloaded at once");
    let loads = of(true);
    let (first, last) = (loads[0].0, loads[2].0);
    assert!(last - first < Millis(60_000), "the loads overlap: {first} and {last}");
    // LLM tasks that came meanwhile waited, and are served now.
    rig.run_until_rest();
    assert!((0..10).all(|n| rig.is_complete(&format!("late-{n}"))));
    let over = rig.ended.values().filter(|ends| ends[0].at > began).count();
    assert_eq!(over, 125 + 10);
    assert_eq!(rig.picture().mode, Mode::Normal);
}

#[test]
fn seed_4_state_transitions_of_each_gpu() {
    let mut rig = with_the_seeds_times(with_the_seeds_roles(config()));
    load(&mut rig, [QWEN_7B; 3]);
    let began: Vec<usize> = (0..5).map(|gpu| rig.states(gpu).len()).collect();
    assert!(began.iter().all(|seen| *seen >= 3));
    let name = "whisper-urban-prepper-2025-02-05";
    rig.drop_batch(name, GpuMode::Auto, &[600.0; 125]).run_for(15_000);
    let names = |states: &[GpuState]| states.iter().map(ToString::to_string).collect::<Vec<_>>().join(" → ");
    let at_first: Vec<String> = (0..5).map(|gpu| names(&rig.states(gpu))).collect();
    insta::assert_snapshot!(at_first[1], @"idle → booting_llm → llm_ready → llm_busy → llm_ready → cooling → idle → booting_script → script_busy");
    assert_eq!((&at_first[1], &at_first[1]), (&at_first[2], &at_first[4]));
    assert_eq!(
        [&at_first[0], &at_first[3]],
        [&names(&[GpuState::Idle, GpuState::BootingLlm, GpuState::LlmReady]); 2]
    );
    rig.run_until("its end", |rig| rig.world.batches.is_empty() && rig.state(1) == GpuState::LlmReady);
    let seen = rig.states(1);
    insta::assert_snapshot!(names(&seen[seen.len() - 6..]), @"script_busy → idle → cooling → idle → booting_llm → llm_ready");
    assert_eq!(
        rig.states(0).len() + rig.states(3).len(),
        6,
        "those of the orchestrating LLM stay as they are"
    );
}

#[test]
fn where_loads_follow_each_other_gpus_leave_in_turn() {
    let mut config = with_the_seeds_roles(config());
    let three = model::config::ModelEntry { mib: Some(2_500), parallel: Some(2), ..Default::default() };
    config.models.insert(QWEN_3B.into(), three);
    config.models_order.push(QWEN_3B.into());
    let took = |loads_at_a_time: u32| {
        let mut config = config.clone();
        config.resource_manager.batch_settings.cold_loads_per_disk = loads_at_a_time;
        let mut rig = with_the_seeds_times(config);
        rig.can = can(&[QWEN_14B, QWEN_7B, QWEN_3B]);
        load(&mut rig, [QWEN_14B, QWEN_7B, QWEN_3B]);
        let took_s = run_the_batch(&mut rig);
        let left = rig.said().iter().filter(|line| line.contains("leaves batch")).count();
        rig.run_until_rest();
        (took_s, left)
    };
    let (overlapped_s, left) = took(3);
    assert!(overlapped_s <= 1.02 * BOUND_S && left == 0, "{overlapped_s} s, {left} left");
    let (in_turn_s, left) = took(1);
    // At best the three loads of 120 s end as the work of the others does.
    let bound_s = BOUND_S + 120.0;
    assert!(in_turn_s <= 1.05 * bound_s && left >= 2, "{in_turn_s} s, at best {bound_s} s; {left} left");
}

#[test]
fn two_exclusive_batches_share_the_gpus_and_the_mode_ends_with_the_last() {
    let mut rig = Rig::with(one_at_a_time(config())).gpus([24_576; 3]);
    rig.drop_batch("first", GpuMode::Exclusive, &[600.0, 600.0, 600.0, 600.0]);
    rig.drop_batch("second", GpuMode::Exclusive, &[100.0; 12]);
    rig.drop_batch("third", GpuMode::Shared, &[100.0; 3]);
    rig.drop_task(prompt("held"));
    rig.run_until_ended("first.3");
    let starts = rig.starts();
    assert_eq!(starts[..4], ["first.0", "first.1", "first.2", "first.3"]);
    let of = |rig: &Rig, name: &str| rig.ended.keys().filter(|id| id.as_str().starts_with(name)).count();
    assert!(of(&rig, "second") >= 8, "the second fills what the first cannot use: {}", of(&rig, "second"));
    assert_eq!(rig.picture().mode, Mode::Exclusive);
    let third_first = starts.iter().position(|name| name.starts_with("third"));
    let second_last = starts.iter().rposition(|name| name.starts_with("second"));
    assert!(third_first > second_last, "in the order of their arrival");
    rig.run_until("both are over", |rig| of(rig, "second") == 12);
    rig.run_until_ended("held").run_until_rest();
    assert_eq!(rig.ended.len(), 4 + 12 + 3 + 1);
}

#[test]
fn the_end_of_a_batch_is_told_by_what_was_learned() {
    let mut rig = with_the_seeds_times(config());
    rig.drop_batch("b", GpuMode::Exclusive, &[600.0; 60])
        .run_until("some are done", |rig| rig.ended.len() >= 6);
    let told = rig.picture().batches.values().next().and_then(|batch| batch.eta).expect("an end");
    let told_s = (told - model::Timestamp::UNIX_EPOCH).num_milliseconds() as f64 / 1_000.0;
    rig.run_until("it is over", |rig| rig.world.batches.is_empty());
    let over_s = rig.now.as_secs_f64();
    assert!((told_s - over_s).abs() < 0.05 * over_s, "told {told_s} s, over at {over_s} s");
}
