//! Tasks that need several GPUs, with real processes: they see all of them, have them for themselves, and get them
//! although smaller tasks wait and come all the time.

use serde_json::{Value, json};

use crate::support::rig::Rig;

fn pair(script: &str, args: Value) -> Value {
    json!({"script": script, "gpus": 2, "script_args": args})
}

#[test]
fn a_task_of_two_gpus_among_small_ones_gets_both_and_sees_both() {
    let mut rig = Rig::new().gpus([24_576, 24_576]).script("once", "once.sh", "once");
    rig = rig.script("warm", "warm_host.py", "warm").set("/scripts/warm/vram_mib", json!(20_000));
    rig.start();
    let small = json!({"script": "warm", "script_args": {"do": "sleep", "seconds": 1.0}});
    for index in 0..4 {
        rig.drop_task("script", 3, &format!("before{index}"), &small);
    }
    rig.run_until("two run", |rig| {
        ["0", "1"].iter().all(|gpu| rig.picture()["gpus"][gpu]["state"] == "script_busy")
    });
    rig.drop_task("script", 4, "pair", &pair("once", json!({"do": "environment"})));
    rig.run_until("the pair is complete", |rig| rig.record("complete", "pair").is_some());
    let record = rig.record("complete", "pair").unwrap();
    let gpus = record["result"]["output"]["gpus"].as_str().unwrap().to_owned();
    assert!(["SIM-0,SIM-1", "SIM-1,SIM-0"].contains(&gpus.as_str()), "{gpus}");
    assert!(gpus.starts_with(record["assigned_gpu_uuid"].as_str().unwrap()), "its worker's own comes first");
    assert!(rig.ended("complete") < 5, "it did not wait for all the small ones");
    rig.run_until("all are complete", |rig| rig.ended("complete") == 5);
    let log = std::fs::read_to_string(rig.path("brain.log")).unwrap_or_default();
    assert_eq!(log.matches("GPU 0 and 1 are kept for pair, which needs 2 at once").count(), 1, "{log}");
    assert_eq!(log.matches("pair starts on GPU 0 and 1").count(), 1, "{log}");
}

#[test]
fn while_it_runs_both_gpus_show_it_and_a_new_brain_knows() {
    let mut rig = Rig::new().gpus([24_576, 24_576]).script("warm", "warm_host.py", "warm");
    rig.start();
    rig.drop_task("script", 3, "pair", &pair("warm", json!({"do": "sleep", "seconds": 6.0})));
    let shown = |rig: &Rig| {
        let picture = rig.picture();
        ["0", "1"].iter().all(|key| {
            let gpu = &picture["gpus"][key];
            gpu["state"] == "script_busy" && gpu["task_id"] == "pair"
        })
    };
    rig.run_until("both show it", shown);
    rig.kill_brain();
    rig.start();
    rig.drop_task("script", 3, "small", &json!({"script": "warm", "script_args": {"echo": 1}}));
    rig.run_until("both show it again", shown);
    assert_eq!(rig.ended("complete"), 0, "nothing runs beside it");
    rig.run_until("both are complete", |rig| rig.ended("complete") == 2);
    let record = rig.record("complete", "pair").unwrap();
    assert_eq!(record["attempt"], 1);
}
