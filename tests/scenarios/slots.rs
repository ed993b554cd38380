//! Document 5 with real processes: three scripts on one card and two on the other, and memory that is short.

use serde_json::json;

use crate::support::rig::Rig;

fn log(rig: &Rig) -> String {
    std::fs::read_to_string(rig.path("brain.log")).unwrap_or_default()
}

fn journal(rig: &Rig) -> String {
    let files = rig.names("journal");
    let texts =
        files.iter().map(|name| std::fs::read_to_string(rig.spool().join("journal").join(name)).unwrap());
    texts.collect()
}

fn sleep(seconds: f64) -> serde_json::Value {
    json!({"script": "warm", "script_args": {"do": "sleep", "seconds": seconds}})
}

#[test]
fn five_jobs_run_on_two_cards_and_the_seed_s_lines_are_in_log_and_journal() {
    let mut rig = Rig::new().gpus([12_227, 8_192]).script("warm", "warm_host.py", "warm");
    rig = rig.set("/scripts/warm/vram_mib", json!(3_000));
    rig.start();
    for index in 0..6 {
        rig.drop_task("script", 3, &format!("job{index}"), &sleep(2.0));
    }
    rig.run_until("three and two run", |rig| {
        let picture = rig.picture();
        let used = |gpu: &str| picture["gpus"][gpu]["slots_used"].as_u64();
        (used("0"), used("1")) == (Some(3), Some(2))
    });
    let picture = rig.picture();
    let most = |gpu: &str| picture["gpus"][gpu]["slots_max"].as_u64();
    assert_eq!((most("0"), most("1")), (Some(3), Some(2)));
    assert!(picture["system_ram_mb"].as_u64() >= picture["system_ram_available_mb"].as_u64());
    rig.run_until("six results", |rig| rig.ended("complete") == 6);
    let told = [
        "GPU 0 (SIMULATED 12227 MiB): 12227 MB VRAM, 3 slots available",
        "GPU 1 (SIMULATED 8192 MiB): 8192 MB VRAM, 2 slots available",
        "Resource manager initialized: 5 total slots across 2 GPUs",
        "assigned to GPU 0 (slot 3/3 now used)",
        "assigned to GPU 1 (slot 2/2 now used)",
        "completed, GPU 1 slot released (",
        "All GPU slots busy, job job5 queued",
    ];
    let (log, journal) = (log(&rig), journal(&rig));
    for line in told {
        assert!(log.contains(line), "`{line}` is not in the log:\n{log}");
        assert!(journal.contains(line), "`{line}` is not in the journal:\n{journal}");
    }
    assert_eq!(log.matches("total slots across").count(), 1);
    assert_eq!(log.matches("All GPU slots busy, job job5 queued").count(), 1);
}

#[test]
fn a_script_waits_for_memory_and_then_goes_on_with_a_warning() {
    // No machine has so much.
    let mut rig = Rig::new().script("warm", "warm_host.py", "warm");
    rig = rig.set("/resource_manager/min_system_ram_mb", json!(1_000_000_000_u64));
    rig = rig.set("/resource_manager/ram_wait_s", json!(1.5));
    rig.start();
    rig.drop_task("script", 3, "patient", &json!({"script": "warm", "script_args": {"echo": 1}}));
    rig.run_until("the reason", |rig| {
        rig.picture()["queues"]["script"]["head"]["reason"]["code"] == "ram_low"
    });
    rig.run_until("its result", |rig| rig.ended("complete") == 1);
    let log = log(&rig);
    assert_eq!(log.matches("System RAM low (").count(), 1, "{log}");
    assert!(log.contains("GB free), waiting before starting job..."), "{log}");
    assert!(log.contains("starting job patient all the same"), "{log}");
}
