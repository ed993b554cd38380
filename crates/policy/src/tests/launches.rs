//! Workers come to be, die, and come again; engines that do not boot.

use model::{GpuState, GpuUuid, Health, Millis};

use super::make::{config, prompt, script, whisper};
use super::rig::{Rig, id};
use crate::Event;
use crate::action::Action;

fn launches(rig: &Rig) -> Vec<(i64, Option<String>)> {
    let launches = rig.log.iter().filter_map(|(at, action)| match action {
        Action::Launch { gpu } => Some((at.0, gpu.as_ref().map(ToString::to_string))),
        _ => None,
    });
    launches.collect()
}

#[test]
fn each_gpu_gets_a_worker_and_the_cpu_lane_one() {
    let mut rig = Rig::new().gpus([24_576, 12_227]);
    rig.run_for(1_000);
    assert_eq!(launches(&rig), [(1_000, Some("SIM-0".into())), (1_000, Some("SIM-1".into())), (1_000, None)]);
    assert_eq!(rig.workers_alive(), 3);
}

#[test]
fn with_no_launcher_nothing_is_launched_and_what_a_person_starts_is_used() {
    let mut config = config();
    config.launcher = model::config::Launcher::None;
    let mut rig = Rig::with(config).gpus([24_576]);
    rig.drop_task(prompt("p")).run_for(5_000);
    assert!(launches(&rig).is_empty());
    insta::assert_snapshot!(rig.why("p"), @"no worker is there yet for a GPU that could run it");
    rig.bear(None, Some(GpuUuid::new("SIM-0").unwrap()));
    rig.run_until_ended("p");
}

#[test]
fn a_worker_that_keeps_dying_comes_again_after_1_5_30_30_seconds() {
    let mut rig = Rig::new().gpus([24_576]);
    let mut waits = Vec::new();
    for _ in 0..4 {
        rig.run_for(100);
        let died = rig.now;
        rig.kill_worker(0, false);
        let before = launches(&rig).len();
        rig.run_until("another launch", |rig| launches(rig).len() > before);
        waits.push((rig.now - died).0);
    }
    assert_eq!(waits, [1_000, 5_000, 30_000, 30_000]);
    assert_eq!(rig.picture().notices, ["the worker of GPU `SIM-0` is being started again: its worker died"]);
    // One that lived for a minute begins a new count.
    rig.run_for(70_000);
    let died = rig.now;
    rig.kill_worker(0, false);
    let before = launches(&rig).len();
    rig.run_until("another launch", |rig| launches(rig).len() > before);
    assert_eq!((rig.now - died).0, 1_000);
}

#[test]
fn a_gpu_that_somebody_else_holds_is_left_alone_for_30_seconds() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.think();
    let launch = "launch-1".to_owned();
    rig.tell(Event::LaunchEnded { launch, status: Some(4), message: Some("pid 7 holds the lock".into()) });
    let plan = crate::plan(&rig.world, rig.now);
    assert!(plan.actions.is_empty());
    assert_eq!(plan.wake_at, Some(rig.now + Millis(30_000)));
    let again = crate::plan(&rig.world, rig.now + Millis(30_000)).actions;
    assert!(matches!(&again[..], [Action::Launch { gpu: Some(_) }]));
}

#[test]
fn a_worker_whose_predecessors_death_is_not_told_yet_waits_for_its_seat() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.run_for(100);
    let second = rig.bear(None, Some(GpuUuid::new("SIM-0").unwrap()));
    rig.run_for(1_000);
    assert_eq!(rig.count(|action| matches!(action, Action::Leave { .. })), 0);
    rig.kill_worker(0, false);
    rig.drop_task(prompt("p")).run_until_ended("p");
    let engines = rig.count(|action| matches!(action, Action::Engine { worker, .. } if *worker == second));
    assert_eq!((engines, launches(&rig).len()), (1, 2), "nobody was launched in between");
}

#[test]
fn a_launch_of_which_nothing_is_heard_is_tried_again() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.think();
    let quiet = crate::plan(&rig.world, rig.now);
    assert_eq!((quiet.actions.len(), quiet.wake_at), (0, Some(rig.now + Millis(120_000))));
    assert_eq!(crate::plan(&rig.world, rig.now + Millis(120_000)).actions.len(), 2);
}

#[test]
fn a_lost_gpu_gets_nothing_and_is_used_again_when_it_is_back() {
    let mut rig = Rig::new().gpus([24_576, 24_576]);
    rig.run_for(100);
    let mut inventory = rig.inventory();
    inventory.gpus.remove(0);
    rig.tell(Event::Inventory(inventory));
    rig.drop_task(whisper("a")).run_until_ended("a");
    assert_eq!(rig.ended("a").gpu.as_deref(), Some("1"));
    assert_eq!(rig.picture().gpus["0"].health, Health::Lost);
    rig.drop_task(script("b", "embed").gpu(model::task::GpuRequirement::Key("0".into()))).run_for(1_000);
    insta::assert_snapshot!(rig.why("b"), @"no GPU here is number 0; it waits for one");
    let inventory = rig.inventory();
    rig.tell(Event::Inventory(inventory));
    rig.run_until_ended("b");
}

#[test]
fn a_boot_that_fails_is_tried_again_later_and_people_see_why() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.boots_to_fail = 2;
    rig.drop_task(prompt("p")).run_until("the first failure", |rig| rig.unloads() == 1);
    let failed = rig.now;
    rig.run_for(2_000);
    insta::assert_snapshot!(rig.why("p"), @"no engine can serve it: `qwen2.5:14b` could not be loaded on GPU 0: the model file is broken; tried again in 3 s");
    rig.run_until("the second boot", |rig| rig.boots() == 2);
    assert_eq!((rig.now - failed).0, 5_000);
    rig.run_until("the second failure", |rig| rig.unloads() == 2);
    let failed = rig.now;
    rig.run_until("the third boot", |rig| rig.boots() == 3);
    assert_eq!((rig.now - failed).0, 30_000);
    rig.run_until_ended("p");
    assert!(rig.picture().notices.is_empty());
    insta::assert_snapshot!(rig.said().join("\n"), @r"
    GPU 0: qwen2.5:14b has failed: the model file is broken; it is not loaded there again for 5 s
    GPU 0: qwen2.5:14b has failed: the model file is broken; it is not loaded there again for 30 s
    ");
}

#[test]
fn a_boot_that_never_ends_is_given_up() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.times.boot = 100_000_000;
    rig.drop_task(prompt("p")).run_until("the boot is given up", |rig| rig.unloads() == 1);
    assert!(rig.now.0 > 600_000);
    rig.run_for(2_000);
    assert_eq!(rig.state(0), GpuState::Idle);
    insta::assert_snapshot!(rig.said().join("\n"), @"GPU 0: the load of qwen2.5:14b is given up, as it is not ready after 630 s");
}

#[test]
fn the_cpu_lane_runs_as_many_as_it_has_slots_and_never_behind_gpus() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.hang.push("gpu".into());
    rig.drop_task(whisper("gpu")).run_for(3_000);
    let cpu = |name: &str| script(name, "count").gpu(model::task::GpuRequirement::None);
    rig.drop_tasks(["a", "b", "c"].map(cpu)).run_for(1_500);
    let picture = rig.picture();
    assert_eq!((picture.cpu.capacity, picture.cpu.slots.len()), (2, 2));
    insta::assert_snapshot!(rig.why("c"), @"all 2 slots of the CPU lane are busy; 0 ahead of it");
    rig.run_until_ended("c");
    assert_eq!(rig.ended("c").gpu, None);
    assert!(rig.world.attempt(&model::AttemptKey { task_id: id("gpu"), attempt: 1 }).is_some());
}

#[test]
fn the_cpu_lane_loads_no_more_hosts_than_run_at_once() {
    let mut rig = Rig::new().gpus([24_576]);
    let cpu = |name: &str| script(name, "count").gpu(model::task::GpuRequirement::None);
    let counts = |rig: &Rig| -> Vec<u32> {
        let hosts = rig.log.iter().filter_map(|(_, action)| match action {
            Action::Hosts { hosts, .. } => Some(hosts[0].count),
            _ => None,
        });
        hosts.collect()
    };
    rig.drop_task(cpu("a")).run_until_ended("a");
    rig.drop_task(cpu("b")).run_until_ended("b");
    assert_eq!(counts(&rig), [1]);
    rig.drop_tasks(["c", "d", "e"].map(cpu)).run_until_ended("e");
    assert_eq!(counts(&rig), [1, 2]);
}
