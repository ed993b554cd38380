//! Ways to end: until idle, down, a signal.

use serde_json::json;

use crate::support::rig::Rig;

#[test]
fn until_idle_finishes_all_work_frees_the_machine_and_ends() {
    // What is loaded makes room at once: nobody is to wait here for requests that never come.
    let mut rig = Rig::new()
        .script("once", "once.sh", "once")
        .set("/resource_manager/eviction_policy/min_residency_s", json!(0))
        .set("/resource_manager/eviction_policy/chat_weight", json!(0))
        .set("/resource_manager/boot_times", json!({"small": 0.3, "large": 0.3}));
    for n in 0..5 {
        rig.drop_task("llm", 3, &format!("ask-{n}"), &json!({"prompt": "hello"}));
        rig.drop_task(
            "script",
            3,
            &format!("run-{n}"),
            &json!({"script": "once", "script_args": {"do": "protocol"}}),
        );
    }
    rig.start_with(&["--until-idle"]);
    assert_eq!(rig.brain_ends(), Some(0));
    assert_eq!((rig.ended("complete"), rig.ended("failed")), (10, 0));
    assert_eq!(rig.processes(), [], "nothing is left running");
    let picture = rig.picture();
    assert_eq!((&picture["mode"], &picture["shutting_down"]), (&json!("normal"), &json!(false)));
    assert_eq!(picture["gpus"]["0"]["state"], "idle", "the last picture shows a free machine");
}

#[test]
fn until_idle_lists_what_cannot_run_here_and_ends_with_1() {
    let mut rig = Rig::new();
    let wish = json!({"prompt": "hello", "gpu_requirement": "7"});
    rig.drop_task("llm", 3, "elsewhere", &wish);
    rig.start_with(&["--until-idle"]);
    assert_eq!(rig.brain_ends(), Some(1));
    assert_eq!(rig.names("tasks/llm_queue/priority_3"), ["elsewhere.json"], "it stays in its queue");
}

#[test]
fn a_second_brain_says_who_holds_the_lock() {
    let mut rig = Rig::new();
    rig.start();
    let second = rig.run("brain", ["--gpus", "simulated:8192"]);
    assert_eq!(second.status.code(), Some(3), "{second:?}");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains(&rig.brain_pid().to_string()), "{said}");
}

#[test]
fn a_worker_started_by_hand_finds_a_free_gpu_and_is_used() {
    let mut rig = Rig::new().gpus([8_192, 24_576]).set("/launcher", json!("none"));
    rig.start();
    rig.drop_task("llm", 3, "ask", &json!({"prompt": "by hand"}));
    rig.run_until("the task says that there is no worker", |rig| {
        rig.picture()["queues"]["llm"]["head"]["reason"]["code"] == "no_worker"
    });
    let mut worker =
        rig.command("worker").args(["--gpus", "simulated:8192,24576"]).spawn().expect("a worker");
    rig.run_until("it is answered", |rig| rig.ended("complete") == 1);
    let key = rig.record("complete", "ask").unwrap()["assigned_gpu"].as_str().unwrap().to_owned();
    let second = rig.run("worker", ["--gpus", "simulated:8192,24576", "--gpu", &key]);
    assert_eq!(second.status.code(), Some(4), "its GPU is held: {second:?}");
    assert!(String::from_utf8_lossy(&second.stderr).contains(&worker.id().to_string()), "{second:?}");
    let down = rig.run("gpuspool", ["down"]);
    assert!(down.status.success(), "{down:?}");
    assert!(worker.wait().expect("its end").success(), "a worker that is told to leave leaves well");
}
