//! `gpu_lock: "single"`: one unit on all GPUs together.

use model::config::GpuLock;
use model::task::GpuRequirement;
use model::{Config, GpuState};

use super::make::{config, prompt, script, whisper};
use super::rig::Rig;
use crate::{Action, Event, breaches, plan};

fn single() -> Config {
    let mut config = config();
    config.gpu_lock = GpuLock::Single;
    config
}

#[test]
fn one_unit_runs_at_a_time_and_the_cpu_lane_is_outside() {
    let mut rig = Rig::with(single()).gpus([24_576; 3]);
    rig.drop_tasks((0..3).map(|n| script(&format!("g{n}"), "embed")));
    rig.drop_tasks((0..2).map(|n| script(&format!("c{n}"), "count").gpu(GpuRequirement::None)));
    rig.drop_task(prompt("p"));
    let mut beside = false;
    while rig.ended.len() < 6 {
        rig.run_for(100);
        let shown = rig.picture();
        let on_gpus: usize = shown.gpus.values().map(|gpu| gpu.slots.len()).sum();
        assert!(on_gpus <= 1, "{on_gpus} at once");
        beside |= on_gpus == 1 && !shown.cpu.slots.is_empty();
    }
    assert!(beside, "the CPU lane ran beside a GPU");
}

#[test]
fn an_llm_loads_while_something_else_has_the_lock_and_why_names_the_holder() {
    let mut rig = Rig::with(single()).gpus([24_576, 24_576]);
    rig.drop_task(whisper("long").media(600.0)).run_for(5_000);
    rig.drop_task(prompt("p")).run_for(10_000);
    let llms = [0, 1].map(|gpu| rig.state(gpu) == GpuState::LlmReady);
    assert_eq!(llms.iter().filter(|ready| **ready).count(), 1, "it waits, loaded");
    insta::assert_snapshot!(rig.why("p"), @"long runs on GPU 0, and `gpu_lock` is `single`; 0 ahead of it");
    rig.drop_task(prompt("later")).think();
    insta::assert_snapshot!(rig.why("later"), @"long runs on GPU 0, and `gpu_lock` is `single`; 1 ahead of it, in 30 min at most only chatbots, older tasks, or other job types at their turn");
    rig.run_until_rest();
    assert_eq!(rig.starts(), ["long", "p", "later"]);
    assert_eq!((rig.boots(), rig.unloads()), (1, 0));
}

#[test]
fn what_an_earlier_brain_let_run_side_by_side_goes_on_and_nothing_starts_beside_it() {
    let mut rig = Rig::new().gpus([24_576, 24_576]);
    rig.times.script = 20_000;
    rig.drop_tasks((0..2).map(|n| script(&format!("g{n}"), "embed"))).run_for(3_000);
    assert_eq!(rig.world.units.len(), 2);
    rig.config.gpu_lock = GpuLock::Single;
    rig.restart_brain().drop_task(script("next", "embed")).run_until_rest();
    let ends = ["g0", "g1"].map(|name| rig.ended(name).at);
    let started = rig.log.iter().find_map(|(at, action)| match action {
        Action::Start { task, .. } if task.task_id.as_str() == "next" => Some(*at),
        _ => None,
    });
    assert!(started >= ends.into_iter().max());
}

#[test]
fn a_start_under_way_has_the_lock_already() {
    let mut rig = Rig::with(single()).gpus([24_576, 24_576]);
    rig.run_for(1_000).drop_tasks((0..2).map(|n| script(&format!("g{n}"), "embed")));
    let starts = |actions: Vec<Action>| -> Vec<Action> {
        actions.into_iter().filter(|action| matches!(action, Action::Start { .. })).collect()
    };
    let first = starts(plan(&rig.world, rig.now).actions);
    assert_eq!(first.len(), 1);
    rig.world.apply(rig.now, Event::Issued(Box::new(first[0].clone())));
    assert!(starts(plan(&rig.world, rig.now).actions).is_empty());
}

#[test]
fn two_units_at_once_break_the_law() {
    let mut rig = Rig::new().gpus([24_576, 24_576]);
    rig.times.script = 20_000;
    rig.drop_tasks((0..2).map(|n| script(&format!("g{n}"), "embed"))).run_for(3_000);
    let mut world = rig.world.clone();
    assert!(breaches(&world).is_empty());
    world.config.gpu_lock = GpuLock::Single;
    let laws: Vec<_> = breaches(&world).into_iter().map(|breach| breach.law.name).collect();
    assert_eq!(laws, ["I7 one lock"]);
}
