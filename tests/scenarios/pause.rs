//! A batch is paused while it runs, the brain is killed, and it goes on where somebody says so.

use serde_json::Value;

use crate::support::rig::Rig;

const BATCH_OF: usize = 60;

fn batch(rig: &Rig) -> String {
    let records = rig.names("batches");
    records.iter().find_map(|name| name.strip_suffix(".manifest.jsonl")).expect("a batch").to_owned()
}

fn submit(rig: &Rig) -> String {
    let folder = rig.path("videos");
    std::fs::create_dir_all(&folder).unwrap();
    for n in 0..BATCH_OF {
        std::fs::write(folder.join(format!("clip-{n:03}.webm")), "slow").unwrap();
    }
    let arguments = ["transcribe", folder.to_str().unwrap(), "--script", "transcriber", "--formats", "txt"];
    let submitted = rig.run("submit_batch", arguments);
    assert!(submitted.status.success(), "{submitted:?}");
    batch(rig)
}

fn shown<'p>(picture: &'p Value, batch: &str) -> &'p Value {
    &picture["batches"][batch]
}

#[test]
fn a_pause_outlives_the_brain_and_costs_nothing() {
    let mut rig = Rig::new().gpus([24_576, 12_227]).script("transcriber", "fake_transcribe.py", "warm");
    rig.start();
    let batch = submit(&rig);
    rig.run_until("a part is done", |rig| rig.ended("complete") >= 2);
    assert_eq!(rig.picture()["mode"], "exclusive");

    let paused = rig.run("gpuspool", ["pause", &batch]);
    assert!(paused.status.success(), "{paused:?}");
    assert!(String::from_utf8_lossy(&paused.stdout).contains("paused"), "{paused:?}");
    rig.run_until("nothing runs and the mode is over", |rig| {
        let picture = rig.picture();
        let of_batch = shown(&picture, &batch);
        picture["mode"] == "normal" && of_batch["paused"] == true && of_batch["gpus"] == serde_json::json!([])
    });
    let status = rig.run("gpuspool", ["status"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("PAUSED"), "{status:?}");
    let why = rig.run("gpuspool", ["why", &batch]);
    assert!(String::from_utf8_lossy(&why.stdout).contains("is paused"), "{why:?}");
    let done = rig.ended("complete");

    rig.kill_brain();
    std::fs::remove_file(rig.spool().join("gpu_state.json")).unwrap();
    rig.start();
    rig.drop_task("llm", 3, "chat", &serde_json::json!({"prompt": "meanwhile"}));
    rig.run_until("an LLM answers", |rig| rig.record("complete", "chat").is_some());
    rig.run_until("it is still paused", |rig| shown(&rig.picture(), &batch)["paused"] == true);
    assert_eq!(rig.ended("complete"), done + 1, "nothing of the batch was started");

    let single = rig.run("gpuspool", ["pause", "chat"]);
    assert_eq!(single.status.code(), Some(64), "{single:?}");
    rig.kill_brain();
    let resumed = rig.run("gpuspool", ["resume", &batch]);
    assert!(resumed.status.success(), "without a brain too: {resumed:?}");
    rig.start();
    rig.run_until("it goes on", |rig| rig.ended("complete") > done + 3);
    let cancelled = rig.run("gpuspool", ["pause", &batch]);
    assert!(cancelled.status.success(), "{cancelled:?}");
    drop(rig.run("gpuspool", ["cancel", &batch]));
    rig.run_until("a paused batch can be cancelled", |rig| {
        rig.ended("complete") + rig.ended("failed") == BATCH_OF + 1
    });
    rig.run_until("its mark is gone", |rig| {
        !rig.names("batches").iter().any(|name| name.ends_with(".paused"))
    });
}
