//! Long transcriptions give way to chatbots and go on later: with a real brain, a real worker and real processes.

use serde_json::{Value, json};

use crate::support::rig::Rig;

const SEGMENTS: u64 = 60;

/// One GPU on which LLMs load fast and make room for scripts as soon as nobody needs them.
fn rig() -> Rig {
    Rig::new()
        .script("segments", "segments.py", "warm")
        .set("/resource_manager/boot_times", json!({"small": 0.3, "large": 0.3}))
        .set("/resource_manager/eviction_policy/min_residency_s", json!(0))
        .set("/resource_manager/eviction_policy/keep_last_s", json!(0))
        .set("/resource_manager/eviction_policy/chat_weight", json!(0.1))
}

/// A transcription of six seconds that can be left ten times a second.
fn transcription(rig: &Rig, name: &str) -> Value {
    json!({"script": "segments", "job_type": "transcription",
           "script_args": {"segments": SEGMENTS, "seconds": 0.1, "output": rig.path(name)}})
}

fn transcript() -> String {
    (0..SEGMENTS).map(|n| format!("segment {n}\n")).collect()
}

fn is_at_work(rig: &mut Rig) {
    rig.run_until("a transcription is under way", |rig| {
        rig.picture()["gpus"]["0"]["slots"][0]["progress"].as_f64().is_some_and(|progress| progress > 0.1)
    });
}

fn completed(rig: &Rig, name: &str) -> Value {
    let record = rig.record("complete", name).unwrap_or_else(|| panic!("{name} is not complete"));
    record["completed_at"].clone()
}

/// Document 1: the single GPU transcribes, a chatbot comes and is answered before the transcription ends.
#[test]
fn test_priority() {
    let mut rig = rig();
    rig.start();
    rig.drop_task("script", 3, "long", &transcription(&rig, "out"));
    is_at_work(&mut rig);
    rig.drop_task("llm", 3, "chat", &json!({"prompt": "hello", "job_type": "chatbot"}));
    rig.run_until("the chatbot is answered", |rig| rig.record("complete", "chat").is_some());
    assert!(rig.record("complete", "long").is_none());
    rig.run_until("the transcription is complete", |rig| rig.record("complete", "long").is_some());
    let record = rig.record("complete", "long").unwrap();
    assert_eq!((&record["attempt"], &record["charged"]), (&json!(2), &json!(1)), "{record}");
    let past = &record["history"][0];
    assert_eq!((&past["charged"], &past["error"]["code"]), (&json!(false), &json!("yielded")), "{record}");
    let began_at = record["result"]["output"]["began_at"].as_u64().unwrap();
    assert!(began_at > 5, "it went on from where it was: {record}");
    assert_eq!(std::fs::read_to_string(rig.path("out")).unwrap(), transcript());
    let log = std::fs::read_to_string(rig.path("brain.log")).unwrap();
    assert_eq!(log.matches("long on GPU 0 gives way to chatbot chat").count(), 1);
}

/// Document 3: with transcriptions and summaries waiting, a chatbot is next.
#[test]
fn test_chatbot_priority() {
    let mut rig = rig();
    rig.start();
    for name in ["t0", "t1"] {
        rig.drop_task("script", 3, name, &transcription(&rig, name));
    }
    is_at_work(&mut rig);
    for name in ["s0", "s1"] {
        rig.drop_task("llm", 3, name, &json!({"prompt": "a long text", "job_type": "summarization"}));
    }
    rig.drop_task("llm", 3, "chat", &json!({"prompt": "hello", "job_type": "chatbot"}));
    rig.run_until("the chatbot is answered", |rig| rig.record("complete", "chat").is_some());
    assert!(["t0", "t1"].iter().all(|name| rig.record("complete", name).is_none()));
    rig.run_until("all are complete", |rig| rig.ended("complete") == 5);
    for name in ["t0", "t1"] {
        assert!(completed(&rig, name).as_str() > completed(&rig, "chat").as_str());
        assert_eq!(std::fs::read_to_string(rig.path(name)).unwrap(), transcript());
        assert_eq!(rig.record("complete", name).unwrap()["charged"], 1);
    }
}
