//! How attempts end, and what becomes of the task: retries, refunds, poison, time limits, cancels, going down.

use model::link::StopWhy;
use model::{FailureClass, GpuState, Millis};

use super::make::{config, prompt, script, whisper};
use super::rig::{Rig, id};
use crate::action::Action;

/// One task whose attempts end like this; the numbers of its attempts' starts in seconds after the first.
fn attempts(outcomes: &[Option<FailureClass>]) -> (Rig, Vec<i64>) {
    let mut rig = Rig::new().gpus([24_576, 24_576]);
    rig.outcomes.insert("t".into(), outcomes.iter().copied().collect());
    rig.drop_task(script("t", "embed")).run_until_ended("t");
    let starts: Vec<Millis> = rig
        .log
        .iter()
        .filter(|(_, action)| matches!(action, Action::Start { .. }))
        .map(|(at, _)| *at)
        .collect();
    let gaps = starts.windows(2).map(|pair| (pair[1] - pair[0]).0 / 1_000).collect();
    (rig, gaps)
}

#[test]
fn failures_by_class() {
    use FailureClass::{BadInput, Crash, Oom, Timeout};
    // (outcomes, complete, attempts, class at the end, seconds between starts; a run takes 2.3 s)
    type Row = (&'static [Option<FailureClass>], bool, u32, Option<FailureClass>, &'static [i64]);
    let table: [Row; 7] = [
        (&[None], true, 1, None, &[]),
        (&[Some(BadInput)], false, 1, Some(BadInput), &[]),
        (&[Some(Timeout)], false, 1, Some(Timeout), &[]),
        (&[Some(Crash), None], true, 2, None, &[2]),
        (&[Some(Crash), Some(Crash), None], true, 3, None, &[2, 32]),
        (&[Some(Crash), Some(Oom), Some(Crash)], false, 3, Some(Crash), &[2, 32]),
        (&[Some(Oom), None], true, 2, None, &[2]),
    ];
    for (outcomes, complete, attempt, class, gaps) in table {
        let (rig, seen) = attempts(outcomes);
        let ended = rig.ended("t");
        assert_eq!((ended.complete, ended.attempt), (complete, attempt), "{outcomes:?}");
        assert_eq!(ended.error.as_ref().map(|error| error.class), class, "{outcomes:?}");
        assert_eq!(seen, gaps, "{outcomes:?}");
    }
}

#[test]
fn back_off_is_a_reason_with_a_time() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.outcomes.insert("t".into(), [Some(FailureClass::Crash); 2].into());
    rig.drop_task(script("t", "embed"))
        .run_until("the back-off", |rig| rig.count(|action| matches!(action, Action::Requeue { .. })) == 2);
    rig.run_for(10_000);
    insta::assert_snapshot!(rig.why("t"), @"it failed and is tried again in 20 s (attempt 3 of 3)");
    assert_eq!(rig.world.rest(), crate::Rest::Busy);
}

#[test]
fn a_gpus_fault_is_not_the_tasks_until_a_second_gpu_fails_under_it() {
    let mut rig = Rig::new().gpus([24_576, 24_576]);
    rig.outcomes.insert("t".into(), [Some(FailureClass::GpuFault); 2].into());
    rig.drop_task(script("t", "embed")).run_until_ended("t");
    let ended = rig.ended("t");
    assert_eq!(ended.error.as_ref().map(|error| error.code.as_str()), Some("gpu_fault_suspect"));
    assert_eq!(ended.attempt, 2);
    let charges: Vec<u32> = rig
        .log
        .iter()
        .filter_map(|(_, action)| match action {
            Action::Start { task, .. } => Some(task.charged),
            _ => None,
        })
        .collect();
    assert_eq!(charges, [1, 1], "the first was refunded, its number is used up");
}

#[test]
fn what_an_engine_refuses_costs_a_task_nothing_until_it_is_refused_too_often() {
    for (drop, refusals, complete, attempt) in [
        (prompt("t"), 4, true, 5),
        (prompt("t"), 6, true, 7),
        (prompt("t"), 7, false, 7),
        // No engine was asked: a script that says so has broken like any other.
        (script("t", "embed"), 3, false, 3),
    ] {
        let mut rig = Rig::new().gpus([24_576]);
        rig.refuses = true;
        rig.outcomes.insert("t".into(), vec![Some(FailureClass::Crash); refusals].into());
        rig.drop_task(drop).run_until_ended("t");
        let ended = rig.ended("t");
        assert_eq!((ended.complete, ended.attempt), (complete, attempt), "{refusals} refusals");
    }
}

#[test]
fn three_starts_that_kill_their_worker_are_poison() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.hang.push("evil".into());
    rig.drop_task(script("evil", "embed")).drop_task(script("good", "embed"));
    for _ in 0..3 {
        rig.run_until("it runs", |rig| {
            rig.picture().gpus["0"]
                .slots
                .iter()
                .any(|slot| slot.task_id == id("evil") && slot.since.is_some())
        });
        rig.kill_worker(0, false);
    }
    rig.run_until_rest();
    let ended = rig.ended("evil");
    let error = ended.error.as_ref().expect("it failed");
    assert_eq!((error.class, error.code.as_str(), ended.attempt), (FailureClass::Poison, "worker_died", 3));
    assert!(rig.is_complete("good"), "other tasks keep starting");
}

#[test]
fn when_the_machine_dies_only_what_had_begun_is_charged() {
    let mut rig = Rig::new().gpus([4_096]);
    // Three runs taught that these take next to nothing: orders are given ahead.
    rig.times.script = 2;
    rig.drop_tasks((0..4).map(|n| whisper(&format!("warm-up-{n}")))).run_until_rest();
    rig.drop_tasks((0..20).map(|n| whisper(&format!("t{n:02}")))).think();
    let given = rig.starts().len() - 4;
    assert!((5..=10).contains(&given), "{given} were given ahead");
    rig.kill_worker(0, true);
    let charged = rig.count(|action| matches!(action, Action::Requeue { charged: true, .. }));
    let refunded = rig.count(|action| matches!(action, Action::Requeue { charged: false, .. }));
    assert_eq!((charged, refunded), (1, given - 1));
    rig.run_until_rest();
    assert_eq!(rig.ended.len(), 24);
}

#[test]
fn a_record_that_outlived_its_worker_ends_the_task() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_task(script("t", "embed")).run_until("it runs", |rig| rig.state(0) == GpuState::ScriptBusy);
    // It ends, and its worker dies before the brain looks.
    rig.now = rig.now + Millis(2_000);
    rig.kill_worker_after_end(0);
    rig.run_until_ended("t");
    assert!(rig.is_complete("t"));
    assert_eq!(rig.ended("t").attempt, 1);
}

#[test]
fn a_time_limit_stops_and_ends_it() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.hang.push("t".into());
    rig.drop_task(script("t", "embed").timeout(7.0))
        .run_until("it runs", |rig| rig.state(0) == GpuState::ScriptBusy);
    let began = rig.now;
    rig.run_until("the stop", |rig| {
        rig.count(|action| matches!(action, Action::Stop { why: StopWhy::Timeout, .. })) == 1
    });
    assert_eq!((rig.now - began).0, 7_000);
    rig.run_until_ended("t");
    assert_eq!(rig.ended("t").error.as_ref().map(|error| error.class), Some(FailureClass::Timeout));
}

#[test]
fn running_is_shown_once_and_only_after_a_second() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.times.script = 900;
    rig.drop_task(script("short", "embed")).run_until_ended("short");
    assert_eq!(rig.count(|action| matches!(action, Action::ShowRunning { .. })), 0);
    rig.times.script = 5_000;
    rig.drop_task(script("long", "embed")).run_until_ended("long");
    assert_eq!(
        rig.count(|action| matches!(action, Action::ShowRunning { gpu: Some(gpu), .. } if gpu == "0")),
        1
    );
}

#[test]
fn cancelling_what_waits_ends_it_without_a_start() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.times.script = 60_000;
    rig.drop_task(script("runs", "embed")).run_for(1_000);
    rig.drop_task(script("waits", "embed")).run_for(1_000);
    rig.tell(crate::Event::CancelAsked { task_id: id("waits") });
    rig.run_until_ended("waits");
    let error = rig.ended("waits").error.as_ref().expect("failed");
    assert_eq!(error.class, FailureClass::Cancelled);
    assert_eq!(rig.starts(), ["runs"]);
}

#[test]
fn cancelling_what_runs_stops_it_and_what_is_complete_stays_complete() {
    let mut rig = Rig::new().gpus([24_576, 24_576]);
    rig.times.script = 60_000;
    rig.drop_task(script("a", "embed")).run_for(1_000);
    rig.tell(crate::Event::CancelAsked { task_id: id("a") });
    rig.run_until_ended("a");
    assert_eq!(rig.ended("a").error.as_ref().map(|error| error.class), Some(FailureClass::Cancelled));

    rig.times.script = 1_000;
    rig.drop_task(script("b", "embed"))
        .run_until("b runs", |rig| rig.world.units.values().any(|unit| unit.running_since().is_some()));
    rig.run_for(950);
    rig.tell(crate::Event::CancelAsked { task_id: id("b") });
    // The stop takes 100 ms to reach it, the result is there after 50.
    rig.run_until_ended("b");
    assert!(rig.is_complete("b"));
}

#[test]
fn cancelling_what_backs_off_ends_it_at_once() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.outcomes.insert("t".into(), [Some(FailureClass::Crash); 2].into());
    rig.drop_task(script("t", "embed"))
        .run_until("the back-off", |rig| rig.count(|action| matches!(action, Action::Requeue { .. })) == 2);
    let asked = rig.now;
    rig.tell(crate::Event::CancelAsked { task_id: id("t") });
    rig.run_until_ended("t");
    assert_eq!(rig.now, asked);
}

#[test]
fn a_retry_by_hand_keeps_its_number_and_begins_a_new_count() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.outcomes.insert("t".into(), [Some(FailureClass::BadInput)].into());
    rig.drop_task(script("t", "embed")).run_until_ended("t");
    let mut again = script("t", "embed");
    (again.task.attempt, again.task.charged) = (1, 0);
    rig.ended.clear();
    rig.drop_task(again).run_until_ended("t");
    assert_eq!((rig.ended("t").attempt, rig.ended("t").complete), (2, true));
}

#[test]
fn down_lets_running_units_go_on_for_their_share_then_takes_them_back_and_frees_the_machine() {
    let mut rig = Rig::with(config()).gpus([24_576, 24_576]);
    rig.drop_task(prompt("p")).run_until_ended("p");
    rig.times.script = 5_000;
    rig.drop_task(script("short", "embed")).run_for(1_000);
    rig.hang.push("long".into());
    rig.drop_task(script("long", "embed").gpu(model::task::GpuRequirement::Key("1".into())));
    rig.drop_task(whisper("queued")).run_until_ended("short");
    rig.run_until("long runs", |rig| rig.starts().contains(&"long".to_owned())).run_for(1_000);
    let asked = rig.now;
    rig.tell(crate::Event::DownAsked { deadline: asked + Millis(60_000), now: false });
    rig.run_for(1_000);
    insta::assert_snapshot!(rig.why("queued"), @"the machine is being shut down");
    assert!(!rig.world.is_down() && rig.picture().shutting_down);
    rig.run_until("down", |rig| rig.world.is_down());
    let stops: Vec<Millis> = rig
        .log
        .iter()
        .filter(|(_, action)| matches!(action, Action::Stop { .. }))
        .map(|(at, _)| *at - asked)
        .collect();
    assert_eq!(stops, [Millis(18_000)], "0.3 of the minute");
    assert_eq!(rig.workers_alive(), 0);
    assert!(!rig.ended.contains_key(&id("long")), "it waits in its queue again");
    assert!(rig.world.is_queued(&id("long")) && rig.world.is_queued(&id("queued")));
}

#[test]
fn a_gpu_that_is_freed_for_good_is_not_seen_to_boot_again() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_task(prompt("p")).run_until_ended("p").run_for(100);
    let deadline = rig.now + Millis(60_000);
    rig.tell(crate::Event::DownAsked { deadline, now: false });
    rig.run_until("down", |rig| rig.world.is_down());
    let boots = rig.states(0).into_iter().filter(|state| *state == GpuState::BootingLlm).count();
    assert_eq!(boots, 1, "{:?}", rig.states(0));
    let freed = rig.picture();
    assert!(!freed.shutting_down && !freed.gpus["0"].draining, "nobody is at it any more");
    assert_eq!(freed.mode, model::Mode::Normal);
}

#[test]
fn down_at_once_stops_at_once() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.hang.push("long".into());
    rig.drop_task(script("long", "embed")).run_for(2_000);
    let asked = rig.now;
    rig.tell(crate::Event::DownAsked { deadline: asked + Millis(60_000), now: true });
    rig.run_until("down", |rig| rig.world.is_down());
    assert!((rig.now - asked).0 < 2_000);
}

#[test]
fn what_could_not_be_carried_out_is_tried_again_after_a_moment() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.run_for(200);
    let drop = script("t", "embed");
    let entry =
        model::Entry { class: drop.task.class(), priority: drop.task.priority, name: "t.json".into() };
    rig.tell(crate::Event::Queued { entry, task: Box::new(drop.task), order: 1, not_before: None });
    let plan = crate::plan(&rig.world, rig.now);
    let action =
        plan.actions.into_iter().find(|action| matches!(action, Action::Start { .. })).expect("a start");
    rig.tell(crate::Event::Issued(Box::new(action.clone())));
    assert!(crate::plan(&rig.world, rig.now).actions.is_empty(), "it is not chosen twice");
    rig.tell(crate::Event::Undone { action: Box::new(action.clone()), why: "no space left".into() });
    let plan = crate::plan(&rig.world, rig.now);
    assert!(plan.actions.is_empty());
    let wake = plan.wake_at.expect("it tries again");
    assert_eq!((wake - rig.now).0, 1_000);
    let again = crate::plan(&rig.world, wake).actions;
    assert_eq!(again, [action]);
}
