//! A brain dies and another takes over: nothing is reloaded, nothing rerun, nothing taken back.

use model::GpuState;

use super::make::{config, prompt, script, whisper, with_brains};
use super::rig::{Rig, id};
use crate::action::Action;
use crate::worker::Llm;

#[test]
fn a_loaded_llm_and_what_it_runs_are_taken_over() {
    let mut rig = Rig::new().gpus([24_576, 24_576]);
    rig.times.llm = 20_000;
    rig.times.script = 20_000;
    rig.drop_task(prompt("p"))
        .drop_task(whisper("w"))
        .run_until("both run", |rig| rig.starts().len() == 2)
        .run_for(3_000);
    let (boots, starts) = (rig.boots(), rig.starts().len());
    rig.restart_brain();
    assert_eq!((rig.state(0), rig.state(1)), (GpuState::LlmBusy, GpuState::ScriptBusy));
    rig.run_until_rest();
    assert!(rig.is_complete("p") && rig.is_complete("w"));
    assert_eq!((rig.boots(), rig.starts().len()), (boots, starts));
    assert_eq!(rig.count(|action| matches!(action, Action::Stop { .. } | Action::Requeue { .. })), 0);
    assert_eq!(rig.picture().gpus["1"].residents[0].model, "whisper:small.en");
    rig.drop_task(prompt("next")).run_until_ended("next");
    assert_eq!(rig.boots(), boots);
}

#[test]
fn in_the_middle_of_a_boot_the_boot_goes_on() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_task(prompt("p")).run_until("a boot", |rig| rig.state(0) == GpuState::BootingLlm).run_for(2_000);
    rig.restart_brain();
    assert_eq!(rig.state(0), GpuState::BootingLlm);
    rig.run_until_ended("p");
    assert_eq!(rig.boots(), 1);
}

#[test]
fn in_the_middle_of_an_unload_the_unload_goes_on() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.times.unload = 5_000;
    rig.drop_task(prompt("p")).run_until_ended("p");
    rig.drop_tasks((0..6).map(|n| whisper(&format!("w{n}"))))
        .run_until("cooling", |rig| rig.state(0) == GpuState::Cooling);
    rig.restart_brain();
    assert_eq!(rig.state(0), GpuState::Cooling);
    rig.run_until_rest();
    assert_eq!(rig.ended.len(), 7);
    assert_eq!(rig.unloads(), 1);
}

#[test]
fn numbers_of_boots_go_on_where_they_were() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_task(prompt("p")).run_until_ended("p");
    rig.restart_brain();
    rig.drop_tasks((0..6).map(|n| whisper(&format!("w{n}")))).run_until_rest();
    rig.drop_task(prompt("q")).run_until_ended("q");
    let generation = rig.world.workers.values().find_map(|worker| match worker.llm()? {
        Llm::Ready { report } => Some(report.generation),
        _ => None,
    });
    assert_eq!(generation, Some(2));
}

#[test]
fn a_stop_that_was_ordered_by_the_dead_brain_is_still_meant() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.hang.push("t".into());
    rig.drop_task(script("t", "embed")).run_for(2_000);
    rig.tell(crate::Event::CancelAsked { task_id: id("t") });
    rig.think();
    rig.restart_brain();
    rig.run_until_ended("t");
    assert_eq!(rig.count(|action| matches!(action, Action::Stop { .. })), 1);
    assert_eq!(rig.ended("t").error.as_ref().map(|error| error.code.as_str()), Some("cancelled"));
}

#[test]
fn a_worker_that_died_meanwhile_gives_its_task_back_charged() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.hang.push("t".into());
    rig.drop_task(script("t", "embed")).run_for(2_000);
    rig.restart_brain();
    rig.kill_worker(0, false);
    rig.hang.clear();
    rig.run_until_ended("t");
    assert_eq!(rig.ended("t").attempt, 2);
}

#[test]
fn ten_brains_die_and_every_task_ends_once() {
    let mut rig = Rig::with(with_brains(config())).gpus([24_576, 12_227, 8_192]);
    rig.drop_tasks((0..10).map(|n| prompt(&format!("p{n}"))));
    rig.drop_tasks((0..10).map(|n| whisper(&format!("w{n}"))));
    for turn in 0..10 {
        rig.run_for(700 + 431 * turn).restart_brain();
    }
    rig.run_until_rest();
    assert_eq!(rig.ended.len(), 20);
    assert!(rig.ended.values().all(|ends| ends.len() == 1 && ends[0].complete && ends[0].attempt == 1));
}
