//! LLMs over several GPUs, with real processes: one engine sees all of them, a new brain finds it as it was, and scripts
//! get both GPUs back at once.

use serde_json::json;

use crate::support::rig::Rig;

fn rig() -> Rig {
    let rig = Rig::new().gpus([24_576, 24_576]).script("once", "once.sh", "once");
    rig.set("/models/spread", json!({"mib": 40_000, "gpus": 2, "parallel": 2}))
        // It has just been asked: by the other rule nobody would send it away for one script so soon.
        .set(
            "/resource_manager/eviction_policy",
            json!({"rule": "thresholds", "min_script_queue_for_evict": 1, "huge_script_queue": 1, "min_residency_s": 0}),
        )
}

fn both(rig: &Rig, state: &str) -> bool {
    let picture = rig.picture();
    ["0", "1"].iter().all(|gpu| picture["gpus"][gpu]["state"] == state)
}

#[test]
fn one_engine_has_both_gpus_outlives_the_brain_and_makes_room_on_both() {
    let mut rig = rig();
    rig.start();
    rig.drop_task("llm", 3, "first", &json!({"prompt": "hello", "model": "spread"}));
    rig.run_until("the answer", |rig| rig.record("complete", "first").is_some());
    rig.run_until("both show it", |rig| both(rig, "llm_ready"));
    let picture = rig.picture();
    for (gpu, other) in [("0", "1"), ("1", "0")] {
        let gpu = &picture["gpus"][gpu];
        assert_eq!((&gpu["model"], &gpu["paired_with"]), (&json!("spread"), &json!([other])));
        assert_eq!(gpu["vram"]["used_mib"], 20_000, "its share");
    }
    let logs = std::fs::read_dir(rig.path("shared/logs")).expect("logs").flatten();
    let logs: String = logs.filter_map(|log| std::fs::read_to_string(log.path()).ok()).collect();
    assert!(logs.contains("loading spread on SIM-0,SIM-1"), "{logs}");

    rig.kill_brain();
    rig.start();
    rig.drop_task("llm", 3, "second", &json!({"prompt": "hello", "model": "spread"}));
    rig.run_until("the second answer", |rig| rig.record("complete", "second").is_some());
    assert_eq!(rig.boots(), 1, "it was taken over as it was");

    let pair = json!({"script": "once", "gpus": 2, "script_args": {"do": "environment"}});
    rig.drop_task("script", 5, "pair", &pair);
    rig.run_until("the script", |rig| rig.record("complete", "pair").is_some());
    rig.drop_task("llm", 3, "third", &json!({"prompt": "hello", "model": "spread"}));
    rig.run_until("it is back", |rig| rig.record("complete", "third").is_some());
    assert_eq!(rig.boots(), 2);
}
