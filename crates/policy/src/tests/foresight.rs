//! When things start and end: a forecast is held against what then happens. And what a GPU says of itself.

use model::{GpuMode, Millis, Saying, TaskClass};

use super::make::{QWEN_14B, config, one_at_a_time, prompt, script, whisper, with_brains};
use super::rig::{Rig, id};
use crate::action::Action;
use crate::{Event, Expected, batch_eta, eta, forecast, why_gpu};

/// A machine that has learned how long its boots, prompts and transcriptions take, and is idle again.
pub(super) fn experienced<const N: usize>(gpus: [u64; N]) -> Rig {
    let mut config = config();
    config.resource_manager.boot_times.insert(QWEN_14B.into(), 5.0);
    config.resource_manager.boot_times.insert("whisper:small.en".into(), 1.0);
    let mut rig = Rig::with(config).gpus(gpus);
    for n in 0..3 {
        rig.drop_task(prompt(&format!("past-prompt-{n}"))).run_until_rest();
    }
    for n in 0..3 {
        for gpu in 0..N {
            let key = model::task::GpuRequirement::Key(gpu.to_string());
            rig.drop_task(whisper(&format!("past-{n}-{gpu}")).media(20.0).gpu(key));
        }
        rig.run_until_rest();
    }
    rig
}

fn expected(rig: &Rig, name: &str) -> Expected {
    eta(&rig.world, rig.now, &id(name)).unwrap_or_else(|| panic!("nobody can say when {name} starts"))
}

/// How far a forecast was off, as a share of the whole wait.
fn error_of(forecast: Millis, came: Millis, asked: Millis) -> f64 {
    let wait = (came - asked).as_secs_f64().max(1.0);
    (forecast - came).as_secs_f64().abs() / wait
}

#[test]
fn transcriptions_end_when_they_were_expected_to() {
    let mut rig = experienced([24_576, 12_227]);
    let names: Vec<String> = (0..12).map(|n| format!("w{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        rig.drop_task(whisper(name).media(60.0 + 30.0 * n as f64));
    }
    rig.run_for(2_500);
    let asked = rig.now;
    let expectations: Vec<Expected> = names.iter().map(|name| expected(&rig, name)).collect();
    rig.run_until_rest();
    for (name, told) in names.iter().zip(expectations) {
        let came = rig.ended(name).at;
        assert!(error_of(told.end, came, asked) < 0.02, "{name}: told {}, came {came}", told.end);
        assert!(told.start < told.end && told.end <= told.end_p90);
    }
}

#[test]
fn prompts_wait_for_the_boot_and_then_for_a_slot() {
    let mut rig = experienced([24_576]);
    let names: Vec<String> = (0..7).map(|n| format!("p{n}")).collect();
    rig.drop_tasks(names.iter().map(|name| prompt(name)));
    let asked = rig.now;
    let expectations: Vec<Expected> = names.iter().map(|name| expected(&rig, name)).collect();
    rig.run_until_rest();
    for (name, told) in names.iter().zip(expectations) {
        let came = rig.ended(name).at;
        assert!(error_of(told.end, came, asked) < 0.25, "{name}: told {}, came {came}", told.end);
    }
}

#[test]
fn an_exclusive_batch_holds_llm_tasks_until_its_expected_end() {
    let mut rig = experienced([24_576, 24_576]);
    rig.drop_batch("zim", GpuMode::Exclusive, &[120.0; 20]).run_for(3_000);
    rig.drop_task(prompt("held")).think();
    let asked = rig.now;
    let batch = batch_eta(&rig.world, rig.now, &model::BatchId::new("zim").unwrap()).expect("a live batch");
    let held = expected(&rig, "held");
    assert!(held.start >= batch.end, "{held:?} {batch:?}");
    let (queues, batches) = forecast(&rig.world, rig.now);
    assert_eq!(batches[0].expected.as_ref(), Some(&batch));
    assert_eq!((queues[0].class, queues[0].waiting, queues[0].held), (TaskClass::Llm, 1, 0));
    rig.run_until("the batch's end", |rig| rig.world.batches.is_empty());
    assert!(error_of(batch.end, rig.now, asked) < 0.1, "told {}, came {}", batch.end, rig.now);
    rig.run_until_ended("held");
    assert!(error_of(held.start, rig.ended("held").at, asked) < 0.2);
}

#[test]
fn what_runs_ends_when_its_progress_says_so() {
    let mut rig = experienced([24_576]);
    rig.drop_task(whisper("w").media(600.0))
        .run_until("it runs", |rig| rig.world.units.values().any(|unit| unit.running_since().is_some()));
    let told = expected(&rig, "w");
    assert!(told.start <= rig.now && told.place.as_deref() == Some("0"));
    rig.run_until_rest();
    assert!((told.end - rig.ended("w").at).0.abs() < 500);
}

#[test]
fn nobody_can_say_when_something_starts_that_cannot() {
    let mut rig = experienced([24_576]);
    rig.drop_task(whisper("huge").vram(80_000)).think();
    assert_eq!(eta(&rig.world, rig.now, &id("huge")), None);
    assert_eq!(eta(&rig.world, rig.now, &id("nobody")), None);
    let (queues, _) = forecast(&rig.world, rig.now);
    let scripts = queues.iter().find(|queue| queue.class == TaskClass::Script).unwrap();
    assert_eq!((scripts.waiting, scripts.held, scripts.expected.as_ref()), (1, 1, None));
}

#[test]
fn beyond_what_is_walked_it_is_the_rate() {
    let mut rig = experienced([24_576]);
    let count = 10_000_u64;
    for n in 0..count {
        let drop = whisper(&format!("w{n}")).media(60.0);
        let entry = model::Entry {
            class: drop.task.class(),
            priority: drop.task.priority,
            name: format!("w{n}.json"),
        };
        let event = Event::Queued { entry, task: Box::new(drop.task), order: 1_000 + n, not_before: None };
        rig.world.apply(rig.now, event);
    }
    let told = expected(&rig, "w9999");
    // Eleven of 2,000 MiB run at once on 24,576 MiB, 2,000 MiB left free.
    let each = 6.0 / 11.0;
    let wait = (told.start - rig.now).as_secs_f64();
    assert!((wait / (each * 9_999.0) - 1.0).abs() < 0.05, "{wait} s for 9,999 times {each} s");
    assert_eq!(told.place, None, "beyond the walk nobody says where");
    let (queues, _) = forecast(&rig.world, rig.now);
    let all =
        queues.iter().find(|queue| queue.class == TaskClass::Script).and_then(|queue| queue.expected.clone());
    let all = (all.unwrap().end - rig.now).as_secs_f64();
    assert!((all / (each * 10_000.0) - 1.0).abs() < 0.05, "{all} s");
}

fn about(rig: &Rig, gpu: &str) -> String {
    why_gpu(&rig.world, rig.now, gpu).unwrap_or_else(|| panic!("no GPU {gpu}")).to_string()
}

#[test]
fn a_gpu_says_what_it_does_and_why_nothing_else() {
    let mut rig = experienced([24_576]);
    insta::assert_snapshot!(about(&rig, "SIM-0"));
    rig.times.llm = 30_000;
    rig.drop_tasks(["a", "b", "c"].map(prompt)).run_for(1_000);
    insta::assert_snapshot!(about(&rig, "0"));
    rig.run_for(8_000);
    insta::assert_snapshot!(about(&rig, "0"));
    rig.run_until_rest();
    insta::assert_snapshot!(about(&rig, "0"));
    rig.drop_task(whisper("w").media(10.0)).think();
    insta::assert_snapshot!(about(&rig, "0"));
    let told = expected(&rig, "w").start;
    rig.run_until("its start", |rig| rig.starts().iter().any(|name| name == "w"));
    assert!((rig.now - told).0.abs() <= 1_000, "told {told}, and it was {}", rig.now);
    assert_eq!(why_gpu(&rig.world, rig.now, "7"), None);
}

#[test]
fn a_gpu_that_is_pinned_lost_or_held_says_so() {
    let mut rig = Rig::with(one_at_a_time(with_brains(config()))).gpus([24_576, 24_576]);
    rig.run_for(10_000).drop_task(script("s", "embed")).run_for(100);
    insta::assert_snapshot!(about(&rig, "0"));
    rig.drop_batch("zim", GpuMode::Exclusive, &[100.0; 9]).run_for(5_000);
    rig.drop_task(prompt("held")).think();
    insta::assert_snapshot!(about(&rig, "1"));
    let mut inventory = rig.inventory();
    inventory.gpus.pop();
    rig.tell(Event::Inventory(inventory));
    insta::assert_snapshot!(about(&rig, "1"));
}

#[test]
fn what_can_never_start_is_said_once_and_stays_to_be_read() {
    let mut strict = config();
    strict.strict = true;
    for (config, refused) in [(strict, true), (config(), false)] {
        let mut rig = Rig::with(config).gpus([24_576]);
        rig.drop_task(whisper("huge").vram(80_000)).run_for(60_000);
        rig.drop_task(prompt("other")).run_for(60_000);
        let said: Vec<&Saying> = rig
            .log
            .iter()
            .filter_map(|(_, action)| match action {
                Action::Say(saying @ (Saying::Refused { .. } | Saying::CannotStart { .. })) => Some(saying),
                _ => None,
            })
            .collect();
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(matches!(said[0], Saying::Refused { .. }), refused);
        let shown = rig.picture().said;
        assert!(shown.iter().any(|line| line.warning && line.text == said[0].to_string()), "{shown:?}");
    }
}

#[test]
fn nobody_says_when_a_paused_batch_ends_nor_what_comes_after_too_many_in_a_row() {
    let mut rig = experienced([24_576]);
    rig.drop_batch("b", GpuMode::Shared, &[100.0; 40]).run_for(2_000);
    assert!(crate::batch_eta(&rig.world, rig.now, &model::BatchId::new("b").unwrap()).is_some());
    rig.pause("b", true).run_for(100);
    assert_eq!(crate::batch_eta(&rig.world, rig.now, &model::BatchId::new("b").unwrap()), None);

    let mut config = config();
    config.gpu_lock = model::config::GpuLock::Single;
    config.fairness.strict_consecutive = true;
    let mut rig = Rig::with(config).gpus([24_576]);
    rig.drop_tasks((0..6).map(|n| whisper(&format!("t{n}")).of_type("transcription"))).run_for(100);
    // Two in a row, and then another type has to start, of which nothing waits.
    assert!(expected(&rig, "t1").start < rig.now + model::Millis(60_000));
    assert_eq!(eta(&rig.world, rig.now, &id("t5")), None);
    let (queues, _) = forecast(&rig.world, rig.now);
    let scripts = queues.iter().find(|queue| queue.class == TaskClass::Script).expect("a queue");
    assert!(scripts.held >= 3, "{scripts:?}");
}
