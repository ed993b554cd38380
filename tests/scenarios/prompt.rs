//! One prompt, dropped as a file, becomes an answer; the LLM stays.

use serde_json::json;

use crate::support::rig::Rig;

#[test]
fn a_dropped_prompt_boots_an_llm_and_is_answered_and_the_next_does_not_boot_again() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.start();
    rig.drop_task("llm", 3, "first", &json!({"prompt": "what is spooled?"}));
    rig.run_until("the first answer", |rig| rig.ended("complete") == 1);
    let record = rig.record("complete", "first").expect("a record");
    assert_eq!(record["result"]["output"], "fake engine: what is spooled?");
    assert_eq!(record["status"], "complete");
    assert_eq!(record["assigned_gpu"], "0");
    assert_eq!(record["result"]["model"], "small");
    for time in ["created_at", "started_at", "completed_at"] {
        assert!(record[time].is_string(), "{time}: {record}");
    }
    rig.run_until("the LLM is ready again", |rig| rig.picture()["gpus"]["0"]["state"] == "llm_ready");
    assert_eq!(rig.states("0"), ["idle", "booting_llm", "llm_ready", "llm_busy", "llm_ready"]);

    rig.drop_task("llm", 3, "second", &json!({"prompt": "again"}));
    rig.run_until("the second answer", |rig| rig.ended("complete") == 2);
    assert_eq!(rig.boots(), 1, "the LLM stays loaded");
}

#[test]
fn the_same_file_copied_twice_is_two_tasks() {
    let mut rig = Rig::new();
    rig.start();
    for turn in 1..=2 {
        rig.drop_task("llm", 3, "task", &json!({"prompt": "hello"}));
        rig.run_until("an answer", |rig| rig.ended("complete") == turn);
    }
    assert!(rig.record("complete", "task").is_some() && rig.record("complete", "task-2").is_some());
}

#[test]
fn the_urgent_go_first() {
    let mut rig = Rig::new().set("/models/small/parallel", json!(1));
    for (name, priority) in [("low", 1), ("urgent", 5), ("normal", 3)] {
        rig.drop_task("llm", priority, name, &json!({"prompt": name}));
    }
    rig.start();
    rig.run_until("three answers", |rig| rig.ended("complete") == 3);
    let started =
        |name: &str| rig.record("complete", name).unwrap()["started_at"].as_str().unwrap().to_owned();
    assert!(started("urgent") < started("normal") && started("normal") < started("low"));
}

#[test]
fn a_task_that_names_an_absent_model_fails_and_says_so() {
    let mut rig = Rig::new();
    rig.start();
    rig.drop_task("llm", 3, "who", &json!({"prompt": "hello", "model": "nobody"}));
    rig.run_until("it failed", |rig| rig.ended("failed") == 1);
    let record = rig.record("failed", "who").unwrap();
    assert_eq!(record["error"]["code"], "model_not_found", "{record}");
}

#[test]
fn submit_wait_and_result_read_as_a_person_would() {
    let mut rig = Rig::new();
    let question = rig.path("question.json");
    std::fs::write(&question, r#"{"prompt": "one two"}"#).unwrap();
    let submitted = rig.run("gpuspool", ["submit", question.to_str().unwrap()]);
    assert!(submitted.status.success(), "{submitted:?}");
    let id = String::from_utf8(submitted.stdout).unwrap().trim().to_owned();
    assert!(
        String::from_utf8_lossy(&submitted.stderr).contains("brain not running"),
        "{:?}",
        submitted.stderr
    );
    rig.start();
    let waited = rig.run("gpuspool", ["wait", &id]);
    assert!(waited.status.success(), "{waited:?}");
    let result = rig.run("gpuspool", ["result", &id]);
    assert_eq!(String::from_utf8_lossy(&result.stdout).trim(), "fake engine: one two");
}
