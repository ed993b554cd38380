//! What is kept for good and what can be thrown away: the picture is only drawn, what was learned and the journal stay.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::rig::Rig;

/// Two GPUs, on which LLMs load fast and make room for transcribers as soon as nobody needs them.
fn rig() -> Rig {
    Rig::new()
        .gpus([12_227, 12_227])
        .script("transcriber", "fake_transcribe.py", "warm")
        .set("/resource_manager/boot_times", json!({"small": 0.3, "large": 0.3}))
        .set("/resource_manager/eviction_policy/min_residency_s", json!(0))
        .set("/resource_manager/eviction_policy/keep_last_s", json!(0))
        .set("/resource_manager/eviction_policy/chat_weight", json!(0.1))
}

fn transcription(rig: &Rig, name: &str, words: &str) -> Value {
    let media = rig.path(&format!("{name}.webm"));
    std::fs::write(&media, words).unwrap();
    json!({"script": "transcriber", "script_args": {"input": media, "outputs": {}}})
}

/// Three prompts and three transcriptions, all of them complete.
fn work(rig: &mut Rig) {
    for n in 0..3 {
        let (run, ask) = (format!("run-{n}"), format!("ask-{n}"));
        rig.drop_task("script", 3, &run, &transcription(rig, &run, "words"));
        rig.drop_task("llm", 3, &ask, &json!({"prompt": "hello"}));
    }
    rig.run_until("all is complete", |rig| rig.ended("complete") == 6);
}

/// Ends the brain in order: its workers stay, and what it has learned is written.
fn leave(rig: &mut Rig) -> Value {
    let told = Command::new("kill").args(["-TERM", &rig.brain_pid().to_string()]).status().unwrap();
    assert!(told.success());
    assert_eq!(rig.brain_ends(), Some(0));
    let path = rig.spool().join("brain/learned.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn throw_the_picture_away(rig: &Rig) {
    std::fs::remove_file(rig.spool().join("gpu_state.json")).unwrap();
}

#[test]
fn without_the_picture_nothing_that_was_learned_is_lost() {
    let mut rig = rig();
    rig.start();
    work(&mut rig);
    let (times, boots) = (rig.picture()["boot_times"].clone(), rig.boots());
    let learned = leave(&mut rig);
    for (kind, names) in
        [("boot_ms", ["openai_command/small|2|", "script:"]), ("run_ms", ["llm/small", "transcriber"])]
    {
        let known = learned[kind].as_object().unwrap();
        for name in names {
            assert!(known.keys().any(|key| key.starts_with(name)), "{name} is not in {kind}: {known:?}");
        }
    }

    throw_the_picture_away(&rig);
    rig.start();
    assert_eq!(rig.picture()["boot_times"], times, "they are drawn as they were");
    throw_the_picture_away(&rig);
    rig.run_until("it is drawn again, though nothing happens", |rig| rig.picture()["boot_times"] == times);
    assert_eq!(leave(&mut rig), learned, "nothing is lost, and nothing is learned twice");

    rig.start();
    rig.drop_task("llm", 3, "more", &json!({"prompt": "hello"}));
    rig.run_until("it is complete", |rig| rig.ended("complete") == 7);
    let samples = |learned: &Value| learned["run_ms"]["llm/small"].as_array().unwrap().clone();
    let (before, after) = (samples(&learned), samples(&leave(&mut rig)));
    assert_eq!(
        (after.len(), &after[..before.len()]),
        (before.len() + 1, &before[..]),
        "and it goes on from there"
    );
    assert_eq!(rig.boots(), boots, "the LLM stayed all the time");
}

#[test]
fn what_the_journal_recorded_can_be_done_again_as_often_as_one_likes() {
    let mut rig = rig();
    rig.start();
    work(&mut rig);
    rig.drop_task("script", 5, "mute", &transcription(&rig, "mute", "broken"));
    let mut pair = transcription(&rig, "pair", "words");
    pair["gpus"] = json!(2);
    rig.drop_task("script", 3, "pair", &pair);
    rig.drop_task("llm", 3, "chat", &json!({"prompt": "hello", "job_type": "chatbot"}));
    let folder = rig.path("talks");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["one.webm", "two.webm"] {
        std::fs::write(folder.join(name), name).unwrap();
    }
    let words = ["transcribe", folder.to_str().unwrap(), "--script", "transcriber", "--wait"];
    let batch = rig.run("submit_batch", words);
    assert!(batch.status.success(), "{batch:?}");
    rig.run_until("all has ended", |rig| rig.ended("complete") == 10 && rig.ended("failed") == 1);
    leave(&mut rig);

    // The days lie one after the other, should midnight have come between.
    let days = rig.names("journal").into_iter().map(|day| rig.spool().join("journal").join(day));
    let journal: String = days.map(|day| std::fs::read_to_string(day).unwrap()).collect();
    assert!(journal.contains(r#""gpus":2"#), "what a task needs is recorded: {journal}");
    std::fs::write(rig.path("recorded.jsonl"), journal).unwrap();
    let replay = |name: &str| {
        let (recorded, drawn) = (rig.path("recorded.jsonl"), rig.path(name));
        // As on the machine that recorded it: its settings lie here.
        let mut command = rig.command("gpuspool");
        command
            .env_remove("GPUSPOOL_CONFIG")
            .args(["simulate", "--json", "--policy", "ours", "--replay"])
            .arg(recorded);
        let done = rig.end_of(command.arg("--svg").arg(&drawn));
        assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
        (done.stdout, std::fs::read_to_string(drawn).unwrap())
    };
    let (told, drawn) = replay("first.svg");
    let again = replay("second.svg");
    assert!((&told, &drawn) == (&again.0, &again.1), "told twice, it is the same byte for byte");

    let told: Value = serde_json::from_slice(&told).unwrap();
    assert_eq!(told["simulated"], true);
    let ours = &told["policies"][0];
    assert_eq!((&ours["policy"], &ours["broken"]), (&json!("ours"), &json!([])), "{ours}");
    let numbers = &ours["numbers"];
    assert_eq!((&numbers["tasks"], &numbers["complete"]), (&json!(11.0), &json!(11.0)), "{ours}");
    let tasks = rig.names("tasks/complete").into_iter().chain(rig.names("tasks/failed"));
    for task in tasks.filter_map(|name| Some(name.strip_suffix(".json")?.to_owned())) {
        assert!(drawn.contains(&task), "{task} does not come again");
    }
}
