//! Rows of the bad-input catalogue, through a running brain, which goes on.

use std::io::Write as _;
use std::process::Command;

use serde_json::json;

use crate::support::rig::Rig;

fn reason(rig: &Rig, name: &str) -> serde_json::Value {
    rig.record("failed", &format!("{name}.json.rejected.reason"))
        .unwrap_or_else(|| panic!("no reason for {name} among {:?}", rig.names("tasks/failed")))
}

#[test]
fn broken_files_are_answered_and_the_brain_goes_on() {
    let mut rig = Rig::new();
    rig.start();
    let queue = rig.spool().join("tasks/llm_queue/priority_3");
    for (name, text) in [
        ("syntax", r#"{"prompt": "x",}"#),
        ("two", r#"{"prompt": "x"} {"prompt": "y"}"#),
        ("list", "[1]"),
        ("path", r#"{"prompt": "x", "task_id": "../../etc/x"}"#),
        ("wrong", r#"{"script": "whisper_transcribe", "task_class": "script"}"#),
        ("nothing", "{}"),
    ] {
        std::fs::write(queue.join(format!("{name}.json")), text).unwrap();
    }
    let scripts = rig.spool().join("tasks/script_queue/priority_3");
    std::fs::write(scripts.join("stranger.json"), r#"{"script": "nobody"}"#).unwrap();
    let fifo = queue.join("pipe.json");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    rig.run_until("seven are rejected", |rig| {
        rig.names("tasks/failed").iter().filter(|name| name.ends_with(".rejected")).count() == 7
    });
    for (name, code) in [
        ("syntax", "invalid_json"),
        ("two", "trailing_data"),
        ("list", "not_an_object"),
        ("path", "bad_task_id"),
        ("wrong", "wrong_queue"),
        ("nothing", "missing_field"),
        ("stranger", "unknown_script"),
    ] {
        assert_eq!(reason(&rig, name)["code"], code, "{name}");
    }
    let kept = std::fs::read_to_string(rig.spool().join("tasks/failed/syntax.json.rejected")).unwrap();
    assert_eq!(kept, r#"{"prompt": "x",}"#, "the bytes are kept as they were");
    assert!(fifo.exists(), "a pipe is left in place and never opened");
    let notices = rig.picture()["notices"].to_string();
    assert!(notices.contains("pipe.json"), "{notices}");
    rig.drop_task("llm", 3, "fine", &json!({"prompt": "hello"}));
    rig.run_until("the brain goes on", |rig| rig.ended("complete") == 1);
}

#[test]
fn a_file_that_is_copied_slowly_is_not_rejected() {
    let mut rig = Rig::new();
    rig.start();
    let path = rig.spool().join("tasks/llm_queue/priority_3/slow.json");
    let mut file = std::fs::File::create(&path).unwrap();
    for piece in [r#"{"pro"#, r#"mpt": "sl"#, r#"ow"#, r#"ly"}"#] {
        file.write_all(piece.as_bytes()).unwrap();
        file.flush().unwrap();
        // Longer than `settle_s` (1 s) in all, with the file held open.
        std::thread::sleep(std::time::Duration::from_millis(600));
    }
    drop(file);
    rig.run_until("it is answered", |rig| rig.ended("complete") == 1);
    assert_eq!(rig.record("complete", "slow").unwrap()["result"]["output"], "fake engine: slowly");
}
