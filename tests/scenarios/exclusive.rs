//! A large batch takes all GPUs, and gives them back.

use std::fmt::Write as _;

use serde_json::json;

use crate::support::rig::Rig;

/// 125 items of about 20 ms each.
fn submit_125(rig: &Rig) {
    let folder = rig.path("videos");
    std::fs::create_dir_all(&folder).unwrap();
    for n in 0..125 {
        std::fs::write(folder.join(format!("clip-{n:03}.webm")), format!("words {n}")).unwrap();
    }
    let arguments = ["transcribe", folder.to_str().unwrap(), "--script", "transcriber", "--formats", "txt"];
    let submitted = rig.run("submit_batch", arguments);
    assert!(submitted.status.success(), "{submitted:?}");
}

fn rig() -> Rig {
    Rig::new().gpus([24_576, 12_227]).script("transcriber", "fake_transcribe.py", "warm")
}

fn time(record: &serde_json::Value, field: &str) -> String {
    record[field].as_str().unwrap_or_else(|| panic!("{field} of {record}")).to_owned()
}

#[test]
fn an_exclusive_batch_holds_llm_tasks_back_unloads_and_reloads() {
    let mut rig = rig();
    rig.start();
    rig.drop_task("llm", 3, "before", &json!({"prompt": "before"}));
    rig.run_until("an LLM is loaded", |rig| rig.ended("complete") == 1);
    submit_125(&rig);
    rig.run_until("exclusive mode", |rig| rig.picture()["mode"] == "exclusive");
    for n in 0..10 {
        rig.drop_task("llm", 5, &format!("inside-{n}"), &json!({"prompt": "inside"}));
    }
    rig.run_until("a waiting LLM task says why", |rig| {
        rig.picture()["queues"]["llm"]["head"]["reason"]["code"] == "held_by_batch"
    });
    rig.run_until("everything is complete", |rig| rig.ended("complete") == 136);
    assert_eq!(rig.ended("failed"), 0);
    assert!(rig.states("0").contains(&"cooling"), "the LLM was unloaded: {:?}", rig.states("0"));
    let last_item = (0..125)
        .map(|n| {
            rig.names("tasks/complete")
                .into_iter()
                .find(|name| name.ends_with(&format!(".{n}.json")))
                .unwrap()
        })
        .map(|name| time(&rig.record("complete", name.strip_suffix(".json").unwrap()).unwrap(), "started_at"))
        .max()
        .unwrap();
    let mut early = String::new();
    for n in 0..10 {
        let started = time(&rig.record("complete", &format!("inside-{n}")).unwrap(), "started_at");
        if started < last_item {
            writeln!(early, "inside-{n} started {started}, the last item {last_item}").unwrap();
        }
    }
    assert_eq!(early, "", "no LLM task starts before the batch's last item has");
    rig.run_until("the mode is normal and an LLM is back", |rig| {
        let picture = rig.picture();
        picture["mode"] == "normal" && picture["gpus"]["0"]["state"] == "llm_ready"
    });
}

#[test]
fn down_in_the_middle_leaves_no_process_and_up_finishes_it() {
    let mut rig = rig();
    rig.start();
    submit_125(&rig);
    rig.run_until("a part is done", |rig| rig.ended("complete") >= 10);
    let down = rig.run("gpuspool", ["down", "--timeout", "20"]);
    assert!(down.status.success(), "{down:?}");
    assert_eq!(rig.brain_ends(), Some(0));
    assert_eq!(rig.processes(), [], "nothing is left running");
    assert!(rig.ended("complete") < 125, "it was stopped in the middle");
    rig.start();
    rig.run_until("the rest is done", |rig| rig.ended("complete") == 125);
    assert_eq!(rig.ended("failed"), 0);
}
