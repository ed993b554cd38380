//! What people read: the picture and the sentences.

use model::{GpuMode, Millis};

use super::make::{prompt, script, whisper};
use super::rig::{Rig, id};

#[test]
fn the_picture_of_a_busy_machine() {
    let mut rig = Rig::new().gpus([24_576, 8_192]);
    rig.drop_task(prompt("done")).run_until_ended("done");
    rig.times.llm = 30_000;
    rig.times.script = 30_000;
    rig.drop_tasks(["asks", "asks-too", "waits"].map(prompt))
        .drop_task(whisper("speech").gpu(model::task::GpuRequirement::Key("1".into())));
    rig.drop_task(script("lane", "count").gpu(model::task::GpuRequirement::None)).run_for(4_000);
    insta::assert_json_snapshot!(rig.picture());
}

#[test]
fn the_picture_of_an_exclusive_batch() {
    let mut rig = Rig::new().gpus([6_500]);
    rig.drop_batch("whisper-zim", GpuMode::Exclusive, &[50.0; 12]).run_for(20_000);
    rig.drop_task(prompt("held")).think();
    insta::assert_json_snapshot!(rig.picture());
}

#[test]
fn the_picture_of_a_machine_without_a_worker() {
    let rig = Rig::new().gpus([24_576]);
    insta::assert_json_snapshot!(rig.picture());
}

#[test]
fn sentences_about_what_waits() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.times.llm = 30_000;
    rig.drop_tasks(["a", "b", "c", "d"].map(prompt)).run_for(2_000);
    insta::assert_snapshot!(rig.why("a"), @"qwen2.5:14b is booting on GPU 0, expected ready in 2m");
    rig.run_for(5_000);
    insta::assert_snapshot!(rig.why("a"), @"it runs on GPU 0 since 2 s");
    insta::assert_snapshot!(rig.why("d"), @"all 2 slots of qwen2.5:14b are busy; 1 ahead of it, in 30 min at most only chatbots, older tasks, or other job types at their turn");
    rig.drop_task(whisper("w")).think();
    insta::assert_snapshot!(rig.why("w"), @"every GPU that could run it is busy; 0 ahead of it");
    let mut later = script("later", "embed");
    later.task.priority = model::Priority::URGENT;
    let entry =
        model::Entry { class: later.task.class(), priority: later.task.priority, name: "later.json".into() };
    let not_before = Some(rig.now + Millis(90_000));
    rig.tell(crate::Event::Queued { entry, task: Box::new(later.task), order: 0, not_before });
    insta::assert_snapshot!(rig.why("later"), @"it is not to start before 90 s from now");
    assert_eq!(crate::why(&rig.world, rig.now, &id("nobody")), None);
}

#[test]
fn the_head_of_each_queue_has_one_reason_and_it_is_the_one_that_why_gives() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_tasks(["a", "b", "c", "d"].map(prompt)).drop_tasks(["x", "y"].map(whisper));
    for _ in 0..40 {
        rig.run_for(500);
        let heads = crate::plan(&rig.world, rig.now).heads;
        for (task_id, reason) in heads {
            let (told, _) = crate::why(&rig.world, rig.now, &task_id).expect("a head is known");
            assert_eq!(told, reason);
        }
    }
}

#[test]
fn counted_files_show_before_they_are_read() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_task(prompt("a")).drop_task(prompt("b"));
    let folder = (model::TaskClass::Llm, model::Priority::NORMAL);
    rig.tell(crate::Event::Counted([(folder, 5)].into()));
    let queue = &rig.picture().queues[&model::TaskClass::Llm];
    assert_eq!((queue.waiting, queue.by_priority["3"], queue.by_priority["5"]), (5, 5, 0));
    rig.drop_task(prompt("c"));
    assert_eq!(rig.picture().queues[&model::TaskClass::Llm].waiting, 5);
    assert_eq!(rig.world.rest(), crate::Rest::Busy);
}

#[test]
fn estimates_are_priors_until_three_samples() {
    use crate::Estimate;
    assert_eq!(Estimate::of(&[1, 2]), None);
    let estimate = Estimate::of(&[300, 100, 200]).unwrap();
    assert_eq!((estimate.p50, estimate.p90, estimate.samples), (Millis(200), Millis(300), 3));
    let many: Vec<u64> = (1..=10).collect();
    let estimate = Estimate::of(&many).unwrap();
    assert_eq!((estimate.p50, estimate.p90), (Millis(5), Millis(9)));
}

#[test]
fn what_was_learned_outlives_the_brain() {
    let mut rig = Rig::new().gpus([24_576]);
    for n in 0..3 {
        rig.drop_task(whisper(&format!("w{n}")).media(100.0)).run_until_ended(&format!("w{n}"));
        rig.kill_worker(0, false);
    }
    rig.restart_brain();
    let learned = rig.world.learned();
    assert_eq!(learned.boot_ms["script:whisper/small.en"], [1_000, 1_000, 1_000]);
    assert_eq!(learned.run_ms["whisper/small.en"], [10_000, 10_000, 10_000]);
    assert_eq!(learned.speed["whisper/small.en/SIMULATED 24576 MiB"], [10.0, 10.0, 10.0]);
    let picture = rig.picture();
    assert!((picture.boot_times["whisper:small.en"] - 1.0).abs() < 1e-9);
    assert_eq!(picture.gpus["0"].tasks_completed, 3);
}
