//! `kill -9`, of the brain and of a worker, in the middle of work.

use std::time::Duration;

use serde_json::json;

use crate::support::rig::Rig;

/// A small generator, so that a failing run can be repeated by its seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn seed() -> u64 {
    let given = std::env::var("GPUSPOOL_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    given.unwrap_or(now.as_nanos() as u64 | 1)
}

#[test]
fn the_brain_killed_ten_times_loses_nothing_and_reloads_nothing() {
    let seed = seed();
    println!("GPUSPOOL_TEST_SEED={seed}");
    let mut dice = Dice(seed);
    let mut rig = Rig::new().gpus([24_576, 12_227]).boot_ms(4_000).script("once", "once.sh", "once");
    let mut accepted = Vec::new();
    let mut deaths_in_boots = 0;
    rig.start();
    for turn in 0..10 {
        for n in 0..4 {
            let (ask, run) = (format!("ask-{turn}-{n}"), format!("run-{turn}-{n}"));
            rig.drop_task("llm", 3, &ask, &json!({"prompt": ask}));
            rig.drop_task("script", 3, &run, &json!({"script": "once", "script_args": {"do": "protocol"}}));
            accepted.extend([ask, run]);
        }
        if turn < 3 {
            rig.run_until("an LLM boots", boots);
        }
        std::thread::sleep(Duration::from_millis(dice.below(150)));
        deaths_in_boots += usize::from(boots(&rig));
        rig.kill_brain();
        rig.start();
    }
    let all = accepted.len();
    rig.run_until("everything has ended", |rig| rig.ended("complete") + rig.ended("failed") == all);
    assert_eq!(rig.ended("failed"), 0, "seed {seed}: {:?}", rig.names("tasks/failed"));
    for id in &accepted {
        let record =
            rig.record("complete", id).unwrap_or_else(|| panic!("seed {seed}: {id} is not complete"));
        assert_eq!(record["attempt"], 1, "seed {seed}: adopted, not run again: {record}");
    }
    assert!(deaths_in_boots >= 3, "seed {seed}: only {deaths_in_boots} deaths inside a boot");
    assert!(rig.boots() <= 2, "seed {seed}: one boot for each GPU at most, not {}", rig.boots());
    assert_eq!(
        rig.names("workers").len(),
        3,
        "seed {seed}: workers were adopted: {:?}",
        rig.names("workers")
    );
}

fn boots(rig: &Rig) -> bool {
    let picture = rig.picture();
    ["0", "1"].iter().any(|gpu| picture["gpus"][*gpu]["state"] == "booting_llm")
}

#[test]
fn a_killed_worker_s_task_is_run_again_once_it_is_dead() {
    let mut rig = Rig::new().script("warm", "warm_host.py", "warm");
    rig.start();
    let task = json!({"script": "warm", "script_args": {"do": "sleep", "seconds": 1.5}});
    rig.drop_task("script", 3, "long", &task);
    rig.run_until("it runs", |rig| rig.picture()["gpus"]["0"]["state"] == "script_busy");
    let worker = rig.picture()["gpus"]["0"]["worker_pid"].as_u64().expect("a worker");
    let killed = std::process::Command::new("kill").args(["-9", &worker.to_string()]).status().unwrap();
    assert!(killed.success());
    rig.run_until("it is complete", |rig| rig.ended("complete") == 1);
    let record = rig.record("complete", "long").unwrap();
    assert_eq!(record["attempt"], 2, "{record}");
    assert_eq!(record["history"][0]["charged"], true, "{record}");
}

#[test]
fn a_task_that_kills_its_worker_three_times_is_poison() {
    let mut rig = Rig::new().script("once", "kill_worker.sh", "once").script("well", "once.sh", "once");
    rig.start();
    rig.drop_task("script", 3, "poison", &json!({"script": "once"}));
    rig.run_until("it is put aside", |rig| rig.ended("failed") == 1);
    let record = rig.record("failed", "poison").unwrap();
    assert_eq!((&record["error"]["class"], &record["attempt"]), (&json!("poison"), &json!(3)), "{record}");
    rig.drop_task("script", 3, "well", &json!({"script": "well", "script_args": {"do": "protocol"}}));
    rig.run_until("others go on", |rig| rig.ended("complete") == 1);
}

#[test]
fn an_engine_that_refuses_everything_is_loaded_anew_and_no_task_is_lost() {
    // It answers its canary and two more, and nothing after that.
    let mut rig = Rig::new().engine(["--unready-after", "3"]);
    rig.start();
    for n in 0..4 {
        rig.drop_task("llm", 3, &format!("ask-{n}"), &json!({"prompt": "hello", "max_attempts": 1}));
    }
    rig.run_until("all are complete", |rig| rig.ended("complete") == 4);
    assert_eq!(rig.ended("failed"), 0);
    assert_eq!(rig.boots(), 2);
    let refused = (0..4).map(|n| rig.record("complete", &format!("ask-{n}")).unwrap());
    let refused: Vec<_> = refused.filter(|record| record["attempt"] != 1).collect();
    assert!(!refused.is_empty());
    for record in refused {
        assert_eq!(record["charged"], 1, "{record}");
        assert_eq!(record["history"][0]["error"]["code"], "http_503", "{record}");
    }
}

#[test]
fn a_worker_whose_folder_was_removed_goes_and_another_one_does_its_task() {
    let mut rig = Rig::new().script("warm", "warm_host.py", "warm");
    rig.start();
    let task = json!({"script": "warm", "script_args": {"do": "sleep", "seconds": 1}});
    rig.drop_task("script", 3, "long", &task);
    rig.run_until("it runs", |rig| rig.picture()["gpus"]["0"]["state"] == "script_busy");
    let pid = |rig: &Rig| rig.picture()["gpus"]["0"]["worker_pid"].as_u64();
    let first = pid(&rig).expect("a worker");
    for worker in rig.names("workers") {
        std::fs::remove_dir_all(rig.spool().join("workers").join(worker)).unwrap();
    }
    rig.run_until("it is complete", |rig| rig.ended("complete") == 1);
    assert_eq!(rig.record("complete", "long").unwrap()["attempt"], 2);
    assert!(pid(&rig).is_some_and(|second| second != first));
    assert!(!rig.processes().iter().any(|(process, _)| u64::from(*process) == first));
}

#[test]
fn a_damaged_link_is_healed_by_a_snapshot_and_its_worker_is_not_taken_for_dead() {
    let mut rig = Rig::new();
    rig.start();
    rig.drop_task("llm", 3, "first", &json!({"prompt": "hello"}));
    rig.run_until("an LLM is loaded", |rig| rig.ended("complete") == 1);
    let workers = rig.names("workers");
    let reports = |rig: &Rig| {
        workers
            .iter()
            .map(|name| rig.spool().join("workers").join(name).join("reports.jsonl"))
            .collect::<Vec<_>>()
    };
    for path in reports(&rig) {
        let mut log = std::fs::OpenOptions::new().append(true).open(path).unwrap();
        std::io::Write::write_all(&mut log, b"{garbage\n").unwrap();
    }
    rig.drop_task("llm", 3, "second", &json!({"prompt": "hello"}));
    rig.run_until("reports are read again", |rig| rig.ended("complete") == 2);

    rig.kill_brain();
    for path in reports(&rig) {
        std::fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap();
    }
    rig.drop_task("llm", 3, "third", &json!({"prompt": "hello"}));
    rig.start();
    rig.run_until("the worker is adopted", |rig| rig.ended("complete") == 3);
    assert_eq!((rig.boots(), rig.names("workers")), (1, workers.clone()), "no reload, no new worker");
}
