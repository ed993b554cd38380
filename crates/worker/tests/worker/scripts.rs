//! Script tasks: warm hosts, scripts of one process, and those that do not behave.

use model::link::{AttemptState, EngineState, HostState, StopWhy};
use model::{FailureClass, Status};
use serde_json::json;

use crate::rig::{Rig, Worker, code, question, script, wait_for};

fn idle_hosts(worker: &mut Worker, count: usize) {
    worker.until(&format!("{count} idle hosts"), |reports| {
        let idle = reports.hosts.iter().filter(|host| host.state == HostState::Idle).count();
        (idle == count && reports.hosts.len() == count).then_some(())
    });
}

#[test]
fn a_warm_host_is_loaded_once_for_many_tasks_and_goes_when_it_may_not_stay() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    worker.hosts(1);
    idle_hosts(&mut worker, 1);
    for n in 0..10 {
        let key = worker.run_one(script(&format!("s{n}"), "warm", json!({"echo": n})));
        let (report, record) = worker.ended(&key);
        let result = record.result.unwrap();
        assert_eq!(result.output["echo"], n);
        assert_eq!(result.log, Some(format!("logs/s{n}.1.log")));
        assert_eq!((report.progress, report.media_s), (Some(1.0), Some(25.0)));
        assert_eq!(report.outcome.unwrap().media_s, Some(25.0));
        worker.finish(&key);
    }
    assert_eq!(rig.lines("loads"), 1);
    let host = worker.reports().hosts[0].clone();
    assert_eq!((host.script.as_str(), host.loads), ("warm", 1));
    assert!(host.boot_ms.is_some() && host.pid.is_some());
    let log = std::fs::read_to_string(rig.layout.logs().join("s3.1.log")).unwrap();
    assert!(log.contains("serving s3"), "{log}");
    worker.hosts(0);
    idle_hosts(&mut worker, 0);
    assert_eq!(worker.programs(), 0);
}

#[test]
fn a_task_of_several_gpus_has_a_host_of_its_own_that_sees_them_all_and_is_gone_with_its_end() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    worker.hosts(1);
    idle_hosts(&mut worker, 1);
    let alone = worker.run_one(script("alone", "warm", json!({"echo": 1})));
    let own = worker.ended(&alone).1.result.unwrap().output;
    assert_eq!(own["gpus"], "SIM-0");
    let both = ["SIM-0", "SIM-1"];
    let key = worker.run_over(&both, script("pair", "warm", json!({"echo": 2})));
    let (report, record) = worker.ended(&key);
    let output = record.result.unwrap().output;
    assert_eq!((report.state, &output["gpus"]), (AttemptState::Ended, &json!("SIM-0,SIM-1")));
    assert_ne!(output["pid"], own["pid"], "the host of one GPU does not see them");
    let pid = output["pid"].as_u64().unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "its memory is free with its end");
    let once = worker.run_over(&both, script("once", "once", json!({"do": "environment"})));
    assert_eq!(worker.ended(&once).1.result.unwrap().output["gpus"], "SIM-0,SIM-1");
    idle_hosts(&mut worker, 1);
}

#[test]
fn a_task_loads_the_host_it_needs_without_an_order_for_it() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    let keys = worker.run((0..3).map(|n| script(&format!("s{n}"), "warm", json!({"echo": n}))).collect());
    for key in &keys {
        assert_eq!(worker.ended(key).1.status, Some(Status::Complete));
    }
    idle_hosts(&mut worker, 0);
    assert_eq!(rig.lines("loads"), 1);
}

#[test]
fn two_hosts_run_two_tasks_at_once_and_one_runs_one() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    worker.hosts(2);
    idle_hosts(&mut worker, 2);
    let sleepers =
        || (0..2).map(|n| script(&format!("s{n}"), "warm", json!({"do": "sleep", "seconds": 0.4}))).collect();
    let keys = worker.run(sleepers());
    worker.until("two running tasks", |reports| {
        let running = reports.attempts.values().filter(|one| one.state == AttemptState::Running).count();
        (running == 2).then_some(())
    });
    for key in &keys {
        worker.attempt(key, AttemptState::Ended);
    }
}

#[test]
fn an_llm_three_hosts_and_a_script_of_one_task_run_on_one_gpu_at_once() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    worker.boot();
    worker.engine(EngineState::Ready);
    worker.hosts(3);
    idle_hosts(&mut worker, 3);
    let sleep =
        |name: &str, script_name: &str| script(name, script_name, json!({"do": "sleep", "seconds": 1.0}));
    let mut tasks: Vec<_> = (0..3).map(|n| sleep(&format!("s{n}"), "warm")).collect();
    tasks.push(sleep("beside", "once"));
    let keys = worker.run(tasks);
    worker.until("four running scripts", |reports| {
        let running = reports.attempts.values().filter(|one| one.state == AttemptState::Running).count();
        (running == 4).then_some(())
    });
    // The LLM answers meanwhile, and is the same one when they have ended.
    let asked = worker.run_one(question("q", "hello"));
    worker.ended(&asked);
    for key in &keys[..3] {
        assert_eq!(worker.ended(key).1.status, Some(Status::Complete));
    }
    worker.stop(&keys[3], StopWhy::Cancel);
    worker.attempt(&keys[3], AttemptState::Ended);
    let reports = worker.reports();
    assert_eq!(reports.engine.map(|engine| (engine.state, engine.generation)), Some((EngineState::Ready, 1)));
    assert_eq!((reports.hosts.len(), rig.lines("loads")), (3, 3));
    // One of the three goes when only two may stay.
    worker.hosts(2);
    idle_hosts(&mut worker, 2);
}

#[test]
fn a_script_of_one_task_runs_on_a_gpu_and_in_the_cpu_lane() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    let key = worker.run_one(script("on-gpu", "once", json!({"do": "echo"})));
    let record = worker.ended(&key).1;
    let output = record.result.unwrap().output;
    assert_eq!((&output["task"], &output["attempt"]), (&json!("on-gpu"), &json!("1")));
    let mut lane = rig.start(&["--gpu", "cpu"]);
    assert_eq!(lane.reports().gpu, None);
    let key = lane.run_one(script("on-cpu", "once", json!({"do": "protocol"})));
    let record = lane.ended(&key).1;
    assert_eq!((record.assigned_gpu, record.assigned_gpu_uuid), (None, None));
    assert_eq!(record.result.unwrap().output["words"], 7);
}

#[test]
fn what_a_script_does_wrong_is_said_and_nothing_of_it_is_left() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    let wrong = [
        ("silence", "no_result", FailureClass::BadInput),
        ("binary", "bad_result", FailureClass::BadInput),
        ("fail", "exit_status_3", FailureClass::Crash),
        ("die", "killed_by:SIGSEGV", FailureClass::Crash),
    ];
    for (what, expected, class) in wrong {
        let key = worker.run_one(script(what, "once", json!({"do": what})));
        let (report, record) = worker.ended(&key);
        assert_eq!((code(&record), report.outcome.unwrap().failure), (expected, Some(class)));
        worker.finish(&key);
    }
    let key = worker.run_one(script("linger", "once", json!({"do": "linger"})));
    assert_eq!(worker.ended(&key).1.status, Some(Status::Complete));
    assert_eq!(worker.programs(), 0, "the grandchild it left behind");
    let key = worker.run_one(script("hide", "once", json!({"do": "hide"})));
    let hidden = worker.ended(&key).1.result.unwrap().output["hidden"].as_u64().unwrap();
    let hidden = spool::process::identity_of(u32::try_from(hidden).unwrap());
    assert_eq!(hidden, None, "also one without session, mark or parent");
    let mut task = script("absent", "once", json!({}));
    let model::task::Work::Script(work) = &mut task.work else { unreachable!("a script is script work") };
    work.input = Some("/no/such/video.webm".into());
    let key = worker.run_one(task);
    assert_eq!(code(&worker.ended(&key).1), "input_not_found");
}

#[test]
fn a_script_that_ignores_sigterm_is_stopped_with_its_grandchildren() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    let key = worker.run_one(script("stubborn", "once", json!({"do": "stubborn"})));
    worker.until("its first line", |reports| reports.attempts.get(&key)?.progress);
    assert!(worker.programs() >= 2);
    worker.stop(&key, StopWhy::TakenBack);
    let (report, record) = worker.ended(&key);
    let outcome = report.outcome.unwrap();
    assert!(outcome.stopped && outcome.failure == Some(FailureClass::Cancelled));
    assert_eq!(code(&record), "taken_back");
    assert_eq!(worker.programs(), 0);
}

#[test]
fn a_time_limit_holds_without_anybody_saying_so() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    let mut task = script("slow", "once", json!({"do": "sleep"}));
    task.timeout_s = Some(0.2);
    let key = worker.run_one(task);
    let (report, record) = worker.ended(&key);
    assert!(!report.outcome.unwrap().stopped, "it was not orders that stopped it");
    assert_eq!(code(&record), "timeout");
}

#[test]
fn a_stopped_task_keeps_a_host_that_listens_and_loses_one_that_does_not() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    worker.hosts(1);
    idle_hosts(&mut worker, 1);
    for (what, loads) in [("listen", 1), ("sleep", 2)] {
        let key = worker.run_one(script(what, "warm", json!({"do": what, "seconds": 600})));
        worker.until("its progress", |reports| reports.attempts.get(&key)?.progress);
        worker.stop(&key, StopWhy::Cancel);
        assert_eq!(code(&worker.ended(&key).1), "cancelled");
        worker.drop_key(&key);
        idle_hosts(&mut worker, 1);
        assert_eq!(rig.lines("loads"), loads, "{what}");
    }
}

#[test]
fn a_host_that_dies_fails_its_task_and_is_loaded_again_for_the_next() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    worker.hosts(1);
    let key = worker.run_one(script("bad", "warm", json!({"do": "die"})));
    assert_eq!(code(&worker.ended(&key).1), "killed_by:SIGSEGV");
    let key = worker.run_one(script("good", "warm", json!({"echo": 1})));
    assert_eq!(worker.ended(&key).1.status, Some(Status::Complete));
    let hosts = worker.reports().hosts;
    assert!(hosts.len() == 1 && hosts[0].loads == 2, "{hosts:?}");
}

#[test]
fn a_task_given_to_a_host_as_that_dies_is_not_lost() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    worker.hosts(1);
    for round in 0..5 {
        idle_hosts(&mut worker, 1);
        let pid = worker.reports().hosts[0].pid.and_then(|pid| i32::try_from(pid).ok()).unwrap();
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        // The order races with the news; whichever is first, there is an end, and the next host is loaded.
        let key = worker.run_one(script(&format!("t{round}"), "warm", json!({"echo": round})));
        let (_, record) = worker.ended(&key);
        let died = record.error.as_ref().is_some_and(|error| error.class == FailureClass::Crash);
        assert!(died || record.status == Some(Status::Complete), "{record:?}");
    }
}

#[test]
fn a_host_that_cannot_load_its_model_fails_the_task_that_wants_it() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    let mut task = script("t", "warm", json!({}));
    let model::task::Work::Script(work) = &mut task.work else { unreachable!("a script is script work") };
    work.model = Some("broken".into());
    let key = worker.run_one(task);
    let record = worker.ended(&key).1;
    assert_eq!(code(&record), "model_not_found");
    assert_eq!(record.error.unwrap().class, FailureClass::BadInput);
    wait_for("nothing to be left", || (worker.programs() == 0).then_some(()));
}

#[test]
fn a_script_inherits_the_lock_of_its_gpu_and_no_other_file() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    let key = worker.run_one(script("files", "once", json!({"do": "files"})));
    let output = worker.ended(&key).1.result.unwrap().output;
    let files = output["files"].as_str().unwrap();
    let beyond: Vec<&str> = files.split(' ').filter(|file| file.starts_with('/')).collect();
    let lock = rig.layout.gpu_lock(&model::GpuUuid::new("SIM-0").unwrap());
    assert_eq!(beyond, [lock.to_str().unwrap()], "{files}");
}
