//! The call at a task's end: a registered command or an address, with the record.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::support::rig::Rig;

#[test]
fn a_registered_command_gets_the_record_even_if_the_brain_died_in_between() {
    let rig = Rig::new();
    let told = rig.path("told.json");
    let mut rig = rig.set("/on_complete/note", json!(["tee", "-a", told]));
    rig.start();
    rig.drop_task("llm", 3, "one", &json!({"prompt": "hello", "on_complete": "note"}));
    rig.run_until("the command was called", |_| {
        std::fs::read(&told).is_ok_and(|bytes| bytes.ends_with(b"}"))
    });
    let record: Value = serde_json::from_slice(&std::fs::read(&told).unwrap()).unwrap();
    assert_eq!((&record["task_id"], &record["status"]), (&json!("one"), &json!("complete")));
    std::fs::remove_file(&told).unwrap();

    // A call that is owed when the brain dies is made by the next one.
    let owed = rig.spool().join("brain/owed_calls.jsonl");
    rig.run_until("the call is struck out", |_| {
        std::fs::read_to_string(&owed).is_ok_and(|text| text.contains(r#""owed":false"#))
    });
    rig.kill_brain();
    std::fs::write(&owed, "{\"task_id\":\"one\",\"owed\":true}\n").unwrap();
    rig.start();
    rig.run_until("the command was called again", |_| told.exists());
}

#[test]
fn an_address_gets_the_record_and_an_unknown_name_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/done", listener.local_addr().unwrap());
    let mut rig = Rig::new();
    rig.start();
    rig.drop_task("llm", 3, "web", &json!({"prompt": "hello", "on_complete": address}));
    let (mut caller, _) = listener.accept().unwrap();
    let mut asked = Vec::new();
    let mut piece = [0; 4_096];
    while !asked.ends_with(b"}") {
        let n = caller.read(&mut piece).unwrap();
        assert!(n > 0, "the record is sent whole");
        asked.extend_from_slice(&piece[..n]);
    }
    caller.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    let asked = String::from_utf8(asked).unwrap();
    assert!(asked.starts_with("POST /done ") && asked.contains(r#""task_id":"web""#), "{asked}");

    rig.drop_task("llm", 3, "nobody", &json!({"prompt": "hello", "on_complete": "nobody"}));
    rig.run_until("it is rejected", |rig| rig.record("failed", "nobody.json.rejected.reason").is_some());
    assert_eq!(rig.record("failed", "nobody.json.rejected.reason").unwrap()["code"], "bad_enum");
}
