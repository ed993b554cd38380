//! A worker's life beside its brain's: adoption, orphans, leaving, burial.

use model::link::{AttemptState, EngineState, Orders, Phase, ProcessIdentity, StopWhy};
use rustix::process::Signal;
use serde_json::json;
use spool::process;

use crate::rig::{Rig, Worker, code, question, script, wait_for};

/// A brain that has died: its pid is not ours any more.
fn dead() -> ProcessIdentity {
    let me = process::me().unwrap();
    ProcessIdentity { starttime: me.starttime + 1, ..me }
}

fn running(worker: &mut Worker, what: &str) -> model::AttemptKey {
    let key = worker.run_one(script(what, "once", json!({"do": what})));
    worker.until("its first line", |reports| reports.attempts.get(&key)?.progress);
    key
}

#[test]
fn a_new_brain_adopts_what_runs_and_nothing_is_loaded_again() {
    let rig = Rig::with(&json!({}), &["--answer-ms", "600"]);
    let mut worker = rig.worker();
    worker.boot();
    worker.engine(EngineState::Ready);
    let key = worker.run_one(question("q", "still there?"));
    worker.attempt(&key, AttemptState::Running);
    let (pid, orders) = (worker.reports().engine.unwrap().pid, worker.ordered());
    worker.adopt(2, orders);
    worker.until("the new epoch to be seen", |reports| (reports.seen.epoch == 2).then_some(()));
    let record = worker.ended(&key).1;
    assert_eq!(record.result.unwrap().output, "fake engine: still there?");
    assert_eq!(worker.reports().engine.unwrap().pid, pid);
    assert_eq!(rig.lines("boots"), 1);
}

#[test]
fn silence_about_a_key_says_nothing_and_its_record_stays() {
    let rig = Rig::with(&json!({}), &["--answer-ms", "300"]);
    let mut worker = rig.worker();
    worker.boot();
    worker.engine(EngineState::Ready);
    let key = worker.run_one(question("q", "x"));
    worker.attempt(&key, AttemptState::Running);
    let forgetful = Orders { attempts: Default::default(), ..worker.ordered() };
    worker.adopt(2, forgetful);
    worker.attempt(&key, AttemptState::Ended);
    assert!(worker.record_path(&key).exists());
}

#[test]
fn a_worker_without_a_brain_finishes_then_unloads_and_waits_for_its_outbox() {
    let rig = Rig::with(&json!({"orphan_ttl_s": 0.4}), &["--answer-ms", "800"]);
    let mut worker = rig.worker();
    worker.boot();
    worker.engine(EngineState::Ready);
    let key = worker.run_one(question("q", "x"));
    worker.attempt(&key, AttemptState::Running);
    let orders = Orders { brain: Some(dead()), ..worker.ordered() };
    worker.adopt(2, orders.clone());
    let record = worker.ended(&key).1;
    assert!(record.result.is_some(), "the task outlives the wait");
    worker.until("the engine to go", |reports| reports.engine.is_none().then_some(()));
    assert_eq!(worker.reports().phase, Phase::Leaving);
    assert!(worker.child.try_wait().unwrap().is_none(), "a record waits in the outbox");
    std::fs::rename(worker.record_path(&key), rig.layout.complete().join("q.json")).unwrap();
    let orders = Orders { attempts: Default::default(), ..orders };
    worker.adopt(3, orders);
    assert_eq!(worker.exit_code(), 0);
    assert_eq!(worker.reports().phase, Phase::Left);
}

#[test]
fn a_brain_that_comes_in_time_keeps_an_orphan() {
    let rig = Rig::with(&json!({"orphan_ttl_s": 0.3}), &[]);
    let mut worker = rig.worker();
    let living = worker.ordered();
    worker.adopt(2, Orders { brain: Some(dead()), ..living.clone() });
    worker.adopt(3, living);
    worker.until("the living brain to be seen", |reports| (reports.seen.epoch == 3).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(worker.reports().phase, Phase::Serving);
}

#[test]
fn leaving_takes_running_tasks_back_unloads_and_ends_when_the_outbox_is_empty() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    worker.boot();
    worker.engine(EngineState::Ready);
    let key = running(&mut worker, "sleep");
    let waiting = worker.run_one(script("waiting", "once", json!({"do": "echo"})));
    worker.leave();
    assert_eq!(code(&worker.ended(&key).1), "taken_back");
    worker.attempt(&waiting, AttemptState::NeverStarted);
    worker.until("the engine to go", |reports| reports.engine.is_none().then_some(()));
    assert_eq!(worker.reports().phase, Phase::Leaving);
    worker.finish(&key);
    assert_eq!(worker.exit_code(), 0);
    assert_eq!(worker.reports().phase, Phase::Left);
    assert_eq!(worker.programs(), 0);
}

#[test]
fn sigterm_is_a_request_to_leave() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    let key = running(&mut worker, "sleep");
    worker.signal(Signal::TERM);
    assert_eq!(code(&worker.ended(&key).1), "taken_back");
    worker.finish(&key);
    assert_eq!(worker.exit_code(), 0);
}

#[test]
fn a_stop_that_comes_before_the_start_is_told_as_that() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    let key = worker.run_one(question("q", "no engine for this"));
    worker.stop(&key, StopWhy::TakenBack);
    worker.attempt(&key, AttemptState::NeverStarted);
    worker.drop_key(&key);
    worker.until("the key to be forgotten", |reports| reports.attempts.is_empty().then_some(()));
}

#[test]
fn what_a_killed_worker_leaves_is_buried() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    running(&mut worker, "stubborn");
    worker.signal(Signal::KILL);
    worker.child.wait().unwrap();
    // The script itself dies with its worker; the grandchild in a session of its own does not.
    wait_for("the script's death", || (worker.programs() < 4).then_some(()));
    assert!(worker.programs() > 0);
    let buried = rig.command(&["--bury", worker.id.as_str()]).status().unwrap();
    assert!(buried.success());
    assert_eq!(worker.programs(), 0);
    let again = rig.command(&["--bury", worker.id.as_str()]).status().unwrap();
    assert!(again.success());
}
