//! Scripts, warm and once; and scripts that misbehave.

use serde_json::{Value, json};

use crate::support::rig::Rig;

fn once(what: &str) -> Value {
    json!({"script": "once", "script_args": {"do": what}, "max_attempts": 1})
}

#[test]
fn a_warm_host_serves_many_tasks_with_one_load() {
    let mut rig =
        Rig::new().script("warm", "warm_host.py", "warm").set("/scripts/warm/env", json!(["LOADS"]));
    let loads = rig.path("loads.log");
    rig.environment("LOADS", loads.to_str().unwrap());
    rig.start();
    for index in 0..10 {
        let task = json!({"script": "warm", "script_args": {"echo": index}});
        rig.drop_task("script", 3, &format!("warm-{index}"), &task);
    }
    rig.run_until("ten results", |rig| rig.ended("complete") == 10);
    assert_eq!(std::fs::read_to_string(&loads).unwrap().lines().count(), 1, "one load for all");
    assert_eq!(rig.record("complete", "warm-7").unwrap()["result"]["output"]["echo"], 7);
    rig.run_until("the GPU is idle with its host named", |rig| {
        let gpu = &rig.picture()["gpus"]["0"];
        gpu["state"] == "idle" && gpu["residents"][0]["kind"] == "script"
    });
}

#[test]
fn a_script_of_one_task_gets_its_arguments_and_its_object_is_the_result() {
    let mut rig = Rig::new().script("once", "once.sh", "once");
    rig.start();
    rig.drop_task("script", 3, "echo", &json!({"script": "once", "script_args": {"do": "echo", "n": 4}}));
    rig.run_until("a result", |rig| rig.ended("complete") == 1);
    let record = rig.record("complete", "echo").unwrap();
    assert_eq!(record["result"]["output"]["args"]["n"], 4);
    assert_eq!(record["result"]["output"]["attempt"], "1");
    rig.run_until("the GPU is idle again", |rig| rig.picture()["gpus"]["0"]["state"] == "idle");
    assert_eq!(rig.states("0"), ["idle", "booting_script", "script_busy", "idle"]);
}

#[test]
fn scripts_that_misbehave_get_a_clear_record_and_leave_nothing_running() {
    let mut rig = Rig::new().script("once", "once.sh", "once");
    rig.start();
    let stories = [
        ("nothing", "no_result"),
        ("silence", "no_result"),
        ("binary", "bad_result"),
        ("broken", "bad_result"),
        ("fail", "exit_status_3"),
        ("die", "killed_by:SIGSEGV"),
    ];
    for (what, _) in stories {
        rig.drop_task("script", 3, what, &once(what));
    }
    let mut stubborn = once("stubborn");
    stubborn["timeout_s"] = json!(0.5);
    rig.drop_task("script", 3, "stubborn", &stubborn);
    rig.run_until("all have failed", |rig| rig.ended("failed") == 7);
    for (what, code) in stories {
        let error = rig.record("failed", what).unwrap()["error"].clone();
        assert_eq!(error["code"], code, "{what}: {error}");
        let tail = error["tail"].as_str().unwrap_or_default();
        assert!(!tail.contains('\u{1b}'), "escape sequences are shown, not sent: {tail:?}");
    }
    assert_eq!(rig.record("failed", "stubborn").unwrap()["error"]["class"], "timeout");
    rig.drop_task("script", 3, "linger", &once("linger"));
    rig.run_until("the one that left a grandchild is complete", |rig| rig.ended("complete") == 1);
    let left =
        rig.processes().into_iter().filter(|(_, text)| text.contains("sleep") || text.contains("once.sh"));
    assert_eq!(left.collect::<Vec<_>>(), [], "nothing is left running");
}

#[test]
fn a_task_without_a_gpu_runs_in_the_cpu_lane_while_the_gpu_is_busy() {
    let mut rig = Rig::new().script("once", "once.sh", "once");
    rig.start();
    rig.drop_task("script", 3, "long", &json!({"script": "once", "script_args": {"do": "sleep"}}));
    rig.run_until("the GPU is busy", |rig| rig.picture()["gpus"]["0"]["state"] == "script_busy");
    let task = json!({"script": "once", "script_args": {"do": "protocol"}, "gpu_requirement": "none"});
    rig.drop_task("script", 3, "light", &task);
    rig.run_until("the light one is complete", |rig| rig.ended("complete") == 1);
    assert_eq!(rig.record("complete", "light").unwrap()["assigned_gpu"], Value::Null);
    let cancelled = rig.run("gpuspool", ["cancel", "long"]);
    assert!(cancelled.status.success(), "{cancelled:?}");
    assert_eq!(rig.record("failed", "long").unwrap()["error"]["class"], "cancelled");
}

#[test]
fn a_crash_is_tried_again_and_a_bad_input_is_not() {
    let mut rig = Rig::new().script("once", "once.sh", "once").script("warm", "warm_host.py", "warm");
    rig.start();
    rig.drop_task(
        "script",
        3,
        "crash",
        &json!({"script": "once", "script_args": {"do": "fail"}, "max_attempts": 2}),
    );
    rig.drop_task("script", 3, "bad", &json!({"script": "warm", "script_args": {"do": "fail"}}));
    rig.run_until("both have failed", |rig| rig.ended("failed") == 2);
    let crash = rig.record("failed", "crash").unwrap();
    assert_eq!(
        (&crash["attempt"], &crash["history"].as_array().map(Vec::len)),
        (&json!(2), &Some(1)),
        "{crash}"
    );
    assert_eq!(rig.record("failed", "bad").unwrap()["attempt"], 1);
}
