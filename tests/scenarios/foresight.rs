//! Why and when, asked of a living brain.

use serde_json::{Value, json};

use crate::support::rig::Rig;

fn answer(rig: &Rig, words: &[&str]) -> Value {
    let output = rig.end_of(rig.command("gpuspool").args(words).arg("--json"));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn a_task_a_batch_and_a_gpu_say_why_and_when() {
    let mut rig = Rig::new().gpus([12_227]).script("transcriber", "fake_transcribe.py", "warm");
    let folder = rig.path("videos");
    std::fs::create_dir_all(&folder).unwrap();
    for n in 0..20 {
        std::fs::write(folder.join(format!("clip-{n}.webm")), "slow").unwrap();
    }
    rig.start();
    let words =
        ["transcribe", folder.to_str().unwrap(), "--script", "transcriber", "--name", "talks", "--json"];
    let submitted = rig.run("submit_batch", words);
    let submitted: Value = serde_json::from_slice(&submitted.stdout).expect("what was submitted");
    let batch = submitted["batches"][0]["batch_id"].as_str().expect("a batch").to_owned();
    rig.run_until("times are known", |rig| rig.ended("complete") >= 4);
    rig.drop_task(
        "script",
        1,
        "last",
        &json!({"script": "transcriber", "script_args": {
            "input": folder.join("clip-0.webm"), "outputs": {},
        }}),
    );
    rig.run_until("it is known", |rig| answer(rig, &["why", "last"])[0]["outcome"] == "waiting");

    let last = &answer(&rig, &["eta", "last"])[0]["expected"];
    let whole = &answer(&rig, &["eta", &batch])[0]["expected"];
    let (start, end) = (last["starts_in_s"].as_f64().unwrap(), whole["ends_in_s"].as_f64().unwrap());
    assert!(start > 2.0 && start < 40.0, "16 items of one second are ahead of it: {last}");
    assert!(end > 2.0 && end < 40.0, "{whole}");
    let everything = answer(&rig, &["eta"]);
    assert_eq!(everything["batches"][0]["batch_id"], json!(batch), "{everything}");
    let gpu = &answer(&rig, &["why", "0"])[0]["gpu"];
    assert_eq!(gpu["state"], "script_busy", "{gpu}");
    assert_eq!(gpu["why_not"][0]["code"], "full", "{gpu}");
    let told = String::from_utf8(rig.run("gpuspool", ["why", "0"]).stdout).unwrap();
    assert!(told.contains("tasks wait, and its slots (1) are taken"), "{told}");
    rig.run_until("everything is complete", |rig| rig.ended("complete") == 21);
}

#[test]
fn a_task_that_is_not_submitted_is_explained_and_then_it_comes_so() {
    let mut rig = Rig::new().gpus([24_576]).script("transcriber", "fake_transcribe.py", "warm");
    let prompt = r#"{"prompt": "hello"}"#;
    let without = answer(&rig, &["explain", prompt]);
    assert_eq!((&without["brain_running"], &without["explained"]), (&json!(false), &Value::Null));
    rig.start();
    rig.run_until("the worker has said what it can", |rig| {
        answer(rig, &["explain", prompt])["explained"]["reason"]["code"] == "booting"
    });
    let first = &answer(&rig, &["explain", prompt])["explained"];
    assert_eq!((&first["fate"], &first["model"]), (&json!("waits"), &json!("small")), "{first}");
    assert_eq!(rig.boots(), 0, "explaining loads nothing");
    assert!(rig.names("brain/requests").is_empty() && rig.names("tasks/llm_queue/priority_3").is_empty());

    rig.drop_task("llm", 3, "hello", &json!({"prompt": "hello"}));
    rig.run_until("it is complete", |rig| rig.ended("complete") == 1);
    assert_eq!(rig.record("complete", "hello").unwrap()["result"]["model"], "small");
    let again = &answer(&rig, &["explain", prompt])["explained"];
    assert_eq!((&again["fate"], &again["here"]["code"]), (&json!("starts"), &json!("no_other")), "{again}");
    let swap = &answer(&rig, &["explain", r#"{"prompt": "hello", "model": "large"}"#])["explained"];
    assert_eq!((&swap["fate"], &swap["model"]), (&json!("waits"), &json!("large")), "{swap}");
    let huge = rig.run("gpuspool", ["explain", r#"{"script": "transcriber", "vram_mib": 80000}"#]);
    let told = String::from_utf8(huge.stdout).unwrap();
    assert_eq!(huge.status.code(), Some(1));
    assert!(told.contains("could not run here as things are") && told.contains("80000 MiB"), "{told}");
}

#[test]
fn a_batch_that_would_take_llms_in_use_says_so_before_and_then_takes_them() {
    let mut rig = Rig::new().gpus([24_576, 12_227]).script("transcriber", "fake_transcribe.py", "warm");
    let folder = rig.path("videos");
    std::fs::create_dir_all(&folder).unwrap();
    for n in 0..60 {
        std::fs::write(folder.join(format!("clip-{n}.webm")), format!("words {n}")).unwrap();
    }
    let submit = |rig: &Rig, more: &[&str]| {
        let mut command = rig.command("submit_batch");
        command.args(["transcribe", folder.to_str().unwrap(), "--script", "transcriber"]);
        rig.end_of(command.args(["--formats", "txt"]).args(more))
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let without = text(&submit(&rig, &["--dry-run"]).stdout);
    assert!(without.contains("no brain runs, so nobody can say when it ends"), "{without}");

    rig.start();
    rig.drop_task("llm", 3, "before", &json!({"prompt": "before"}));
    rig.run_until("an LLM is in use", |rig| rig.ended("complete") == 1);
    let told = submit(&rig, &["--dry-run", "--json"]);
    let told: Value =
        serde_json::from_slice(&told.stdout).unwrap_or_else(|error| panic!("{error}: {told:?}"));
    let forecast = &told["forecast"];
    assert_eq!(
        (&forecast["exclusive"], &forecast["takes_llms_in_use"]),
        (&json!(true), &json!(true)),
        "{forecast}"
    );
    assert_eq!(forecast["gpus"], json!(["0", "1"]));
    assert_eq!(forecast["leaves"][0]["model"], "small", "{forecast}");
    assert!(
        forecast["on_one"]["ends_in_s"].as_f64() >= forecast["on_all"]["ends_in_s"].as_f64(),
        "{forecast}"
    );
    assert!(
        rig.names("batches").is_empty() && rig.names("brain/requests").is_empty(),
        "nothing was submitted"
    );

    let submitted = submit(&rig, &[]);
    assert!(submitted.status.success(), "without a terminal nobody is asked: {submitted:?}");
    let notes = text(&submitted.stderr);
    assert!(notes.contains("it gets the GPUs for itself") && notes.contains("LLMs are in use"), "{notes}");
    assert!(!notes.contains("[y/N]"), "{notes}");
    rig.run_until("exclusive mode", |rig| rig.picture()["mode"] == "exclusive");
    rig.run_until("everything is complete", |rig| rig.ended("complete") == 61);
}
