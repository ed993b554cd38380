//! Giving way: at a boundary, with what was done kept, and never between boundaries.

use std::path::PathBuf;

use model::link::{AttemptReport, AttemptState, EngineState, HostState, Outcome, StopWhy};
use model::task::{Task, Work};
use model::{AttemptKey, FailureClass, Status};
use serde_json::{Value, json};

use crate::rig::{Rig, Worker, code, question, script};

const SEGMENTS: u64 = 40;

fn output(rig: &Rig) -> PathBuf {
    rig.dir.path().join("out")
}

/// A task of forty segments in a second, on the host of this model.
fn long(rig: &Rig, name: &str, model: Option<&str>) -> Task {
    let args = json!({"segments": SEGMENTS, "seconds": 0.025, "output": output(rig)});
    let mut task = script("long", name, args);
    let Work::Script(work) = &mut task.work else { unreachable!("a script is script work") };
    work.model = model.map(str::to_owned);
    task
}

/// The same task as a brain gives it again.
fn again(task: &Task, checkpoint: Option<Value>) -> Task {
    Task { attempt: task.attempt + 1, checkpoint, ..task.clone() }
}

fn a_segment_is_done(worker: &mut Worker, key: &AttemptKey) {
    worker.until("a segment", |reports| reports.attempts.get(key)?.progress);
}

/// Makes it give way, and returns the state it left.
fn gives_way(worker: &mut Worker, key: &AttemptKey) -> Value {
    worker.stop(key, StopWhy::Yield);
    let (report, record) = worker.ended(key);
    let outcome = report.outcome.unwrap();
    assert_eq!((outcome.stopped, outcome.failure), (true, Some(FailureClass::Cancelled)));
    assert_eq!(code(&record), "yielded");
    assert_eq!(record.checkpoint, outcome.checkpoint, "whoever finds the record alone knows as much");
    let state = outcome.checkpoint.unwrap();
    assert!((1..SEGMENTS).contains(&state["done"].as_u64().unwrap()), "{state}");
    worker.drop_key(key);
    state
}

fn is_whole(rig: &Rig, worker: &mut Worker, key: &AttemptKey, from: &Value) {
    let record = worker.ended(key).1;
    assert_eq!((record.status, record.checkpoint), (Some(Status::Complete), None));
    assert_eq!(record.result.unwrap().output["began_at"], from["done"]);
    let expected: String = (0..SEGMENTS).map(|n| format!("segment {n}\n")).collect();
    assert_eq!(std::fs::read_to_string(output(rig)).unwrap(), expected);
}

fn said(worker: &mut Worker, key: &AttemptKey) -> AttemptReport {
    worker.reports().attempts[key].clone()
}

#[test]
fn a_task_gives_way_at_its_boundary_and_goes_on_from_there_on_the_same_host() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    let hosts = vec![model::link::HostOrder { script: "segments".into(), model: None, count: 1 }];
    worker.order(model::link::OrdersLine { hosts: Some(hosts), ..Default::default() });
    let task = long(&rig, "segments", None);
    let key = worker.run_one(task.clone());
    worker.attempt(&key, AttemptState::Running);
    assert!(said(&mut worker, &key).yields, "its host has said so before it began");
    a_segment_is_done(&mut worker, &key);
    let state = gives_way(&mut worker, &key);
    assert!(!output(&rig).exists());
    worker.until("its host to be idle", |reports| {
        (reports.hosts.len() == 1 && reports.hosts[0].state == HostState::Idle).then_some(())
    });
    let key = worker.run_one(again(&task, Some(state.clone())));
    is_whole(&rig, &mut worker, &key, &state);
    assert_eq!(rig.lines("loads"), 1);
}

#[test]
fn a_host_that_knows_no_yield_is_ended_after_a_checkpoint_and_loaded_again() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    let task = long(&rig, "segments", Some("deaf"));
    let key = worker.run_one(task.clone());
    worker.until("a checkpoint", |reports| reports.attempts.get(&key)?.yields.then_some(()));
    let state = gives_way(&mut worker, &key);
    let key = worker.run_one(again(&task, Some(state.clone())));
    is_whole(&rig, &mut worker, &key, &state);
    assert_eq!(rig.lines("loads"), 2);
}

#[test]
fn a_script_of_one_task_gives_way_after_a_checkpoint() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    let task = long(&rig, "segments_once", None);
    let key = worker.run_one(task.clone());
    worker.until("a checkpoint", |reports| reports.attempts.get(&key)?.yields.then_some(()));
    let state = gives_way(&mut worker, &key);
    let key = worker.run_one(again(&task, Some(state.clone())));
    is_whole(&rig, &mut worker, &key, &state);
}

#[test]
fn what_has_no_boundary_is_not_interrupted_and_a_harder_word_still_ends_it() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    let key = worker.run_one(script("s", "warm", json!({"do": "sleep", "seconds": 0.3})));
    a_segment_is_done(&mut worker, &key);
    assert!(!said(&mut worker, &key).yields);
    worker.stop(&key, StopWhy::Yield);
    assert_eq!(worker.ended(&key).1.status, Some(Status::Complete));
    let key = worker.run_one(script("t", "warm", json!({"do": "sleep", "seconds": 600})));
    a_segment_is_done(&mut worker, &key);
    worker.stop(&key, StopWhy::Yield);
    worker.stop(&key, StopWhy::Cancel);
    assert_eq!(code(&worker.ended(&key).1), "cancelled");
}

#[test]
fn a_request_gives_way_at_once() {
    let rig = Rig::with(&json!({}), &["--answer-ms", "2000"]);
    let mut worker = rig.worker();
    worker.boot();
    worker.engine(EngineState::Ready);
    let key = worker.run_one(question("q", "a long story"));
    worker.attempt(&key, AttemptState::Running);
    worker.stop(&key, StopWhy::Yield);
    let (report, record) = worker.ended(&key);
    assert!(matches!(report.outcome, Some(Outcome { stopped: true, checkpoint: None, .. })));
    assert_eq!(code(&record), "yielded");
}

#[test]
fn an_attempt_that_breaks_leaves_how_far_it_was() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    let mut task = long(&rig, "segments", None);
    let Work::Script(work) = &mut task.work else { unreachable!("a script is script work") };
    work.args.insert("dies_after".into(), json!(3));
    let key = worker.run_one(task.clone());
    let (report, record) = worker.ended(&key);
    let outcome = report.outcome.unwrap();
    assert_eq!((code(&record), outcome.stopped), ("killed_by:SIGSEGV", false));
    let state = outcome.checkpoint.unwrap();
    assert_eq!(state["done"], 3);
    let key = worker.run_one(again(&task, Some(state.clone())));
    is_whole(&rig, &mut worker, &key, &state);
    let mut task = again(&again(&task, None), Some(state.clone()));
    let Work::Script(work) = &mut task.work else { unreachable!("a script is script work") };
    work.args.insert("picky".into(), json!(true));
    let key = worker.run_one(task);
    let outcome = worker.ended(&key).0.outcome.unwrap();
    assert_eq!(outcome.checkpoint, Some(state), "it got no further than where it began");
}
