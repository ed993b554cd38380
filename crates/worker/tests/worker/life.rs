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
fn a_worker_whose_folder_was_removed_ends_what_it_runs_and_goes() {
    for signal in [Some(Signal::TERM), None] {
        let rig = Rig::new();
        let mut worker = rig.worker();
        worker.boot();
        worker.engine(EngineState::Ready);
        running(&mut worker, "sleep");
        std::fs::remove_dir_all(rig.layout.worker(&worker.id)).unwrap();
        if let Some(signal) = signal {
            worker.signal(signal);
        }
        assert_eq!(worker.exit_code(), 71);
        assert_eq!(worker.programs(), 0);
    }
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

#[test]
fn a_result_that_cannot_be_written_is_held_with_its_slot_until_it_can() {
    let rig = Rig::new();
    // The CPU lane, with one slot; on a GPU the brain counts the slots, by what is reported.
    let mut worker = rig.start(&["--gpu", "cpu"]);
    // What stands in its place makes the write fail as a full disk would.
    let blocked = rig.layout.outbox(&worker.id).join("held.1.json");
    std::fs::create_dir(&blocked).unwrap();
    let held = worker.run_one(script("held", "once", json!({"do": "protocol"})));
    let next = worker.run_one(script("next", "once", json!({"do": "echo"})));
    let log = worker_log(&rig, &worker);
    wait_for("the failure to be noted", || {
        std::fs::read_to_string(&log).unwrap().contains("no_space").then_some(())
    });
    worker.attempt(&held, AttemptState::Running);
    let reports = worker.reports();
    assert!(!reports.attempts.contains_key(&next), "the slot is still taken");
    std::fs::remove_dir(&blocked).unwrap();
    assert_eq!(worker.ended(&held).1.result.unwrap().output["words"], 7);
    worker.ended(&next);
}

fn worker_log(rig: &Rig, worker: &Worker) -> std::path::PathBuf {
    rig.layout.worker(&worker.id).join("log")
}

fn append_to_orders(rig: &Rig, worker: &Worker, line: &str) {
    use std::io::Write as _;
    let path = rig.layout.worker(&worker.id).join(spool::layout::ORDERS);
    std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(line.as_bytes()).unwrap();
}

#[test]
fn a_missing_line_is_said_and_what_runs_goes_on_until_a_whole_heals_it() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    let key = running(&mut worker, "sleep");
    append_to_orders(&rig, &worker, "{\"epoch\":1,\"n\":99,\"schema\":1,\"leave\":true}\n");
    worker.until("the gap to be told", |reports| (reports.phase == Phase::Gap).then_some(()));
    let orders = worker.ordered();
    assert_eq!(worker.reports().attempts[&key].state, AttemptState::Running);
    worker.adopt(2, orders);
    worker.until("the gap to be healed", |reports| (reports.phase == Phase::Serving).then_some(()));
    worker.stop(&key, StopWhy::Cancel);
    assert_eq!(code(&worker.ended(&key).1), "cancelled");
}

#[test]
fn orders_of_an_unknown_schema_are_told_and_their_leave_is_obeyed() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    append_to_orders(&rig, &worker, "{\"epoch\":1,\"n\":2,\"schema\":99,\"whole\":true,\"strange\":{}}\n");
    worker.until("the worker to say so", |reports| (reports.phase == Phase::CannotRead).then_some(()));
    append_to_orders(&rig, &worker, "{\"epoch\":1,\"n\":3,\"schema\":99,\"leave\":true}\n");
    assert_eq!(worker.exit_code(), 0);
}

#[test]
fn sigterm_without_a_brain_leaves_the_record_for_the_next_one() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    let key = running(&mut worker, "sleep");
    let orders = Orders { brain: Some(dead()), ..worker.ordered() };
    worker.adopt(2, orders);
    worker.until("the dead brain to be seen", |reports| (reports.seen.epoch == 2).then_some(()));
    worker.signal(Signal::TERM);
    assert_eq!(worker.exit_code(), 0);
    assert_eq!(code(&worker.record(&key)), "taken_back");
}
