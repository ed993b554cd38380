//! Each row of the seed's state table, each arrow of its diagram, and the stories that walk along them.

use model::GpuState::{BootingLlm, BootingScript, Cooling, Idle, LlmBusy, LlmReady, ScriptBusy};
use model::{GpuState, TaskClass};

use super::make::{prompt, script, whisper};
use super::rig::Rig;
use crate::state::{Cue, next, towards};

/// The diagram, and nothing but the diagram.
const ARROWS: [(GpuState, Cue, GpuState); 14] = [
    (Idle, Cue::BootLlm, BootingLlm),
    (BootingLlm, Cue::Ready, LlmReady),
    (LlmReady, Cue::Began, LlmBusy),
    (LlmBusy, Cue::Ended, LlmReady),
    (LlmReady, Cue::Unload, Cooling),
    (Idle, Cue::BootScript, BootingScript),
    (BootingScript, Cue::ScriptRuns, ScriptBusy),
    (Idle, Cue::ScriptRuns, ScriptBusy),
    (ScriptBusy, Cue::ScriptEnded, Idle),
    (BootingScript, Cue::ScriptEnded, Idle),
    (Cooling, Cue::Cooled, Idle),
    (BootingLlm, Cue::Unload, Cooling),
    (LlmBusy, Cue::Unload, Cooling),
    (Idle, Cue::Unload, Cooling),
];

#[test]
fn every_arrow_of_the_diagram_is_there_and_no_other() {
    for state in GpuState::ALL {
        for cue in Cue::ALL {
            let arrow = ARROWS.iter().find(|(from, by, _)| *from == state && *by == cue);
            match (next(state, cue), arrow) {
                (Ok(to), Some((_, _, expected))) => assert_eq!(to, *expected, "{state} {cue:?}"),
                (Err(illegal), None) => assert_eq!((illegal.state, illegal.cue), (state, cue)),
                (found, expected) => panic!("{state} {cue:?}: {found:?}, expected {expected:?}"),
            }
        }
    }
}

#[test]
fn an_illegal_cue_says_what_and_where() {
    let illegal = next(Cooling, Cue::Began).unwrap_err();
    assert_eq!(illegal.to_string(), "cue Began means nothing to a GPU that is cooling");
}

#[test]
fn from_each_state_a_way_leads_to_each_other() {
    for from in GpuState::ALL {
        for to in GpuState::ALL {
            let mut state = from;
            let mut steps = 0;
            while let Some(cue) = towards(state, to) {
                state = next(state, cue).unwrap_or_else(|illegal| panic!("{from} to {to}: {illegal}"));
                steps += 1;
                assert!(steps <= 5, "{from} to {to} goes in circles");
            }
            assert_eq!(state, to);
        }
    }
}

#[test]
fn a_prompt_boots_an_llm_and_the_next_one_does_not() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_task(prompt("first")).run_until_ended("first");
    assert_eq!(rig.states(0), [Idle, BootingLlm, LlmReady, LlmBusy, LlmReady]);
    rig.drop_task(prompt("second")).run_until_ended("second");
    assert_eq!(rig.states(0), [Idle, BootingLlm, LlmReady, LlmBusy, LlmReady, LlmBusy, LlmReady]);
    assert_eq!(rig.boots(), 1);
    assert!(rig.is_complete("first") && rig.is_complete("second"));
}

#[test]
fn idle_accepts_any_task_type() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.run_for(100);
    assert_eq!(rig.state(0), Idle);
    assert_eq!(rig.picture().gpus["0"].accepts, [TaskClass::Llm, TaskClass::Script]);
}

#[test]
fn booting_llm_accepts_nothing() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_task(prompt("a")).run_until("a boot", |rig| rig.state(0) == BootingLlm);
    rig.drop_task(whisper("b")).run_for(1_000);
    assert_eq!(rig.state(0), BootingLlm);
    assert!(rig.picture().gpus["0"].accepts.is_empty());
    assert!(rig.starts().is_empty());
    let gpu = &rig.picture().gpus["0"];
    assert!(gpu.started_boot.is_some() && gpu.expected_ready > gpu.started_boot);
}

#[test]
fn booting_script_accepts_nothing() {
    let mut rig = Rig::new().gpus([24_576]);
    // Nobody knows what it needs: it has the GPU for itself.
    rig.drop_task(script("a", "embed")).run_until("its load", |rig| rig.state(0) == BootingScript);
    rig.drop_task(whisper("b")).drop_task(prompt("c")).run_for(100);
    assert_eq!(rig.starts(), ["a"]);
    assert!(rig.picture().gpus["0"].accepts.is_empty());
    assert_eq!(rig.picture().gpus["0"].script.as_deref(), Some("embed"));
}

#[test]
fn llm_ready_accepts_llm_tasks() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_task(prompt("a")).run_until_ended("a");
    assert_eq!(rig.state(0), LlmReady);
    assert_eq!(rig.picture().gpus["0"].accepts, [TaskClass::Llm]);
}

#[test]
fn llm_busy_accepts_as_many_as_the_engine_serves_and_queues_the_rest() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_tasks(["a", "b", "c"].map(prompt)).run_until("two of them", |rig| rig.starts().len() == 2);
    assert_eq!(rig.state(0), LlmBusy);
    assert!(rig.picture().gpus["0"].accepts.is_empty());
    insta::assert_snapshot!(rig.why("c"), @"all 2 slots of qwen2.5:14b are busy; 0 ahead of it");
    rig.run_until_ended("c");
}

#[test]
fn script_busy_without_room_accepts_nothing_and_then_is_idle_with_its_host_resident() {
    let mut rig = Rig::new().gpus([4_096]);
    rig.drop_task(whisper("a")).run_until("running", |rig| rig.state(0) == ScriptBusy);
    assert!(rig.picture().gpus["0"].accepts.is_empty());
    rig.run_until_ended("a").run_for(0);
    assert_eq!(rig.states(0), [Idle, BootingScript, ScriptBusy, Idle]);
    assert_eq!(rig.picture().gpus["0"].residents[0].model, "whisper:small.en");
    // The next of its kind finds the host loaded.
    rig.drop_task(whisper("b")).run_until_ended("b");
    assert_eq!(rig.states(0), [Idle, BootingScript, ScriptBusy, Idle, ScriptBusy, Idle]);
    assert_eq!(rig.picture().gpus["0"].residents[0].loads, 1);
}

#[test]
fn a_script_of_one_process_a_task_loads_each_time() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_task(script("a", "embed")).run_until_ended("a");
    rig.drop_task(script("b", "embed")).run_until_ended("b");
    assert_eq!(rig.states(0), [Idle, BootingScript, ScriptBusy, Idle, BootingScript, ScriptBusy, Idle]);
}

#[test]
fn unloading_an_llm_cools_before_a_script_loads() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_task(prompt("a")).run_until_ended("a");
    rig.drop_tasks((0..6).map(|n| whisper(&format!("w{n}")))).run_until_ended("w0");
    assert_eq!(
        rig.states(0)[..9],
        [Idle, BootingLlm, LlmReady, LlmBusy, LlmReady, Cooling, Idle, BootingScript, ScriptBusy]
    );
}

#[test]
fn cooling_accepts_any_task_after_its_delay_and_not_before_the_memory_is_free() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.times.unload = 4_000;
    rig.drop_task(prompt("a")).run_until_ended("a");
    rig.drop_tasks((0..6).map(|n| whisper(&format!("w{n}"))))
        .run_until("cooling", |rig| rig.state(0) == Cooling);
    assert!(rig.picture().gpus["0"].accepts.is_empty());
    insta::assert_snapshot!(rig.why("w0"), @"GPU 0 is being freed: its memory is watched until it is free");
    let began = rig.now;
    rig.run_until("idle again", |rig| rig.starts().len() > 1);
    assert_eq!((rig.now - began).0, 4_000, "the engine takes longer to go than the delay");

    let mut rig = Rig::new().gpus([24_576]);
    rig.times.unload = 100;
    rig.drop_task(prompt("a")).run_until_ended("a");
    rig.drop_tasks((0..6).map(|n| whisper(&format!("w{n}"))))
        .run_until("cooling", |rig| rig.state(0) == Cooling);
    let began = rig.now;
    rig.run_until("idle again", |rig| rig.starts().len() > 1);
    assert_eq!((rig.now - began).0, 1_000, "the delay holds though the engine is gone sooner");
}

#[test]
fn a_warm_host_leaves_when_an_llm_needs_the_room() {
    let mut rig = Rig::new().gpus([12_000]);
    rig.drop_task(whisper("w")).run_until_ended("w");
    rig.drop_task(prompt("a")).run_until_ended("a");
    assert_eq!(
        rig.states(0),
        [Idle, BootingScript, ScriptBusy, Idle, Cooling, Idle, BootingLlm, LlmReady, LlmBusy, LlmReady]
    );
    assert!(rig.picture().gpus["0"].residents.iter().all(|resident| resident.kind == TaskClass::Llm));
}

#[test]
fn an_engine_that_dies_takes_its_gpu_through_cooling_and_its_tasks_are_tried_again() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.hang.push("a".into());
    rig.drop_task(prompt("a")).run_until("running", |rig| rig.state(0) == LlmBusy).run_for(10);
    rig.kill_engine(0);
    rig.hang.clear();
    rig.run_until_ended("a");
    assert_eq!(rig.ended("a").attempt, 2);
    assert_eq!(
        rig.states(0),
        [Idle, BootingLlm, LlmReady, LlmBusy, Cooling, Idle, BootingLlm, LlmReady, LlmBusy, LlmReady]
    );
}

#[test]
fn a_prompt_ordered_of_an_llm_that_dies_before_it_begins_waits_for_the_next_one() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_task(prompt("first")).run_until_ended("first");
    rig.run_for(100);
    rig.drop_task(prompt("crossed")).think();
    assert_eq!(rig.starts().len(), 2, "it is in the orders");
    // The order crosses the news of the death: the worker has nothing to begin it with.
    rig.hinder("crossed");
    rig.kill_engine(0);
    rig.run_until_ended("crossed");
    assert_eq!((rig.boots(), rig.ended("crossed").attempt), (2, 2));
}

#[test]
fn a_script_that_began_and_ended_between_two_reports_was_busy_all_the_same() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_task(script("t", "embed")).run_until("its start", |rig| rig.starts().len() == 1);
    rig.end_unseen(0);
    assert_eq!(rig.states(0), [Idle, BootingScript, ScriptBusy, Idle]);
}
