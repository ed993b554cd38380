//! A folder of media becomes a batch; a second run redoes nothing.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::rig::Rig;

fn media(folder: &Path, files: &[(&str, &str)]) {
    for (name, words) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, words).unwrap();
    }
}

fn rig() -> Rig {
    let mut rig = Rig::new()
        .gpus([24_576, 12_227, 8_192])
        .script("transcriber", "fake_transcribe.py", "warm")
        .set("/scripts/transcriber/env", json!(["LOADS"]));
    let loads = rig.path("loads.log");
    rig.environment("LOADS", loads.to_str().unwrap());
    rig
}

#[test]
fn a_cancelled_batch_says_in_one_sentence_what_became_of_its_items() {
    let mut rig = rig();
    let folder = rig.path("videos");
    let names: Vec<String> = (0..30).map(|n| format!("talk-{n:02}.webm")).collect();
    let words = |index: usize| if index < 5 { "quick" } else { "endless" };
    let files: Vec<(&str, &str)> =
        names.iter().enumerate().map(|(index, name)| (name.as_str(), words(index))).collect();
    media(&folder, &files);
    rig.start();
    let words =
        ["transcribe", folder.to_str().unwrap(), "--script", "transcriber", "--formats", "txt", "--json"];
    let submitted = rig.run("submit_batch", words);
    let submitted: Value = serde_json::from_slice(&submitted.stdout).expect("what was submitted");
    let batch = submitted["batches"][0]["batch_id"].as_str().expect("a batch").to_owned();
    let running = [5, 6, 7].map(|index| format!("{batch}.{index}"));
    rig.run_until("five have ended and three run", |rig| {
        let why = rig.end_of(rig.command("gpuspool").args(["why", "--json"]).args(&running));
        let why: Value = serde_json::from_slice(&why.stdout).unwrap_or_default();
        rig.ended("complete") == 5 && (0..3).all(|index| why[index]["outcome"] == "running")
    });
    let cancelled = rig.run("gpuspool", ["cancel", &batch]);
    assert!(cancelled.status.success(), "{cancelled:?}");
    assert_eq!(
        String::from_utf8(cancelled.stdout).unwrap(),
        format!(
            "{batch}: cancelled: 22 items waited and will not start, 3 ran and were stopped, 5 had ended\n"
        )
    );
    assert_eq!((rig.ended("complete"), rig.ended("failed")), (5, 25));
    let again = rig.run("gpuspool", ["cancel", &batch]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    let again = String::from_utf8(again.stdout).unwrap();
    assert_eq!(again, format!("{batch}: it is over\n"));
}

#[test]
fn every_gpu_is_used_with_one_load_each_and_nothing_is_done_twice() {
    let mut rig = rig();
    let folder = rig.path("videos");
    let names: Vec<String> = (0..24).map(|n| format!("set-{}/talk-{n}.webm", n % 3)).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    media(&folder, &files);
    media(&folder, &[("set-0/same.webm", "first"), ("set-1/same.webm", "second")]);
    rig.start();
    let arguments = [
        "transcribe",
        folder.to_str().unwrap(),
        "--script",
        "transcriber",
        "--formats",
        "txt",
        "--wait",
        "--json",
    ];
    let first = rig.run("submit_batch", arguments);
    assert!(first.status.success(), "{first:?}");
    assert_eq!(rig.ended("complete"), 26);
    assert_eq!(std::fs::read_to_string(folder.join("set-0/same.txt")).unwrap(), "fake transcript: first\n");
    assert_eq!(std::fs::read_to_string(folder.join("set-1/same.txt")).unwrap(), "fake transcript: second\n");
    let gpus: BTreeSet<String> = rig
        .names("tasks/complete")
        .iter()
        .filter_map(|name| {
            rig.record("complete", name.strip_suffix(".json")?)?["assigned_gpu"].as_str().map(str::to_owned)
        })
        .collect();
    assert_eq!(gpus.len(), 3, "each GPU is used");
    let loads = std::fs::read_to_string(rig.path("loads.log")).unwrap();
    assert_eq!(loads.lines().count(), 3, "one load for each GPU:\n{loads}");

    let again = rig.run("submit_batch", arguments);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(rig.ended("complete"), 26, "nothing is done again");
}

#[test]
fn a_broken_item_fails_alone_and_the_exit_code_tells() {
    let mut rig = rig();
    let folder = rig.path("videos");
    media(&folder, &[("a.webm", "alpha"), ("b.webm", "broken"), ("c.webm", "gamma")]);
    rig.start();
    let arguments =
        ["transcribe", folder.to_str().unwrap(), "--script", "transcriber", "--formats", "txt", "--wait"];
    let batch = rig.run("submit_batch", arguments);
    assert_eq!(batch.status.code(), Some(1), "{batch:?}");
    assert!(String::from_utf8_lossy(&batch.stdout).contains("no_audio"), "{batch:?}");
    let records = rig.names("batches");
    let record = records.iter().find(|name| name.ends_with(".json")).expect("a batch record");
    let record: Value =
        serde_json::from_slice(&std::fs::read(rig.spool().join("batches").join(record)).unwrap()).unwrap();
    assert_eq!(
        (&record["completed"], &record["failed"], &record["total_items"]),
        (&json!(2), &json!(1), &json!(3))
    );
}
