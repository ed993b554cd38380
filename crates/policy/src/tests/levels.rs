//! Waiting raises a task, and the bound that is stated for it holds.

use model::{Millis, Priority};
use proptest::prelude::*;

use super::make::{config, script};
use super::random::random;
use super::rig::{Rig, id};
use crate::order::Ageing;
use crate::{Action, plan};

const SHIPPED: f64 = 900.0;

fn priority(level: u8) -> Priority {
    Priority::new(level).expect("1 to 5")
}

#[test]
fn each_ageing_interval_is_worth_one_priority_up_to_the_top() {
    let ageing = Ageing::of_seconds(SHIPPED);
    let level = |p: u8, waited_s: i64| ageing.level(priority(p), Millis(500), Millis(500 + waited_s * 1_000));
    assert_eq!([0, 899, 900, 1_800, 2_700, 3_600, 90_000].map(|s| level(1, s)), [1, 1, 2, 3, 4, 5, 5]);
    assert_eq!([0, 900, 1_800].map(|s| level(4, s)), [4, 5, 5]);
    let rise = |p: u8, waited_s: i64| {
        ageing.next_rise(priority(p), Millis(500), Millis(500 + waited_s * 1_000)).map(|at| at.0 - 500)
    };
    assert_eq!((rise(3, 0), rise(3, 900), rise(3, 1_800)), (Some(900_000), Some(1_800_000), None));
}

#[test]
fn the_stated_bound_of_each_priority() {
    let bounds = Priority::ALL.map(|p| Ageing::of_seconds(SHIPPED).bound(p).map(|bound| bound.0 / 60_000));
    let by_level: Vec<_> =
        (1..=5).map(|level| bounds[Priority::ALL.iter().position(|p| p.level() == level).unwrap()]).collect();
    assert_eq!(by_level, [Some(60), Some(45), Some(30), Some(15), Some(0)]);
    let off = Ageing::of_seconds(0.0);
    assert_eq!((off.bound(priority(5)), off.bound(priority(1))), (Some(Millis::ZERO), None));
    assert_eq!(off.level(priority(2), Millis(0), Millis(i64::MAX)), 2);
}

/// A GPU with more urgent work than it can do: every minute brings a minute of it.
fn crowded(ageing_s: f64, hours: i64) -> Rig {
    let mut config = config();
    config.fairness.ageing_s = ageing_s;
    let mut rig = Rig::with(config).gpus([24_576]);
    rig.times.script = 60_000;
    rig.drop_tasks((0..3).map(|n| script(&format!("first-{n}"), "embed").priority(5))).run_for(1);
    rig.drop_task(script("low", "embed").priority(1));
    for n in 0..hours * 60 {
        rig.drop_task(script(&format!("urgent-{n}"), "embed").priority(5)).run_for(60_000);
    }
    rig
}

#[test]
fn the_least_urgent_task_starts_within_its_bound_whatever_keeps_coming() {
    let rig = crowded(SHIPPED, 2);
    let at = rig.ended("low").at.0 / 60_000;
    // An hour to reach the top, the few that were there before it, and its own minute.
    assert!((60..=67).contains(&at), "{at} minutes");
}

#[test]
fn without_ageing_it_waits_for_ever() {
    let rig = crowded(0.0, 3);
    assert!(!rig.ended.contains_key(&id("low")));
    let why = rig.why("low").to_string();
    assert!(why.contains("ahead of it") && !why.contains("at most"), "{why}");
}

#[test]
fn a_task_that_has_to_run_again_keeps_its_age() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.times.script = 60_000;
    rig.outcomes.insert("again".into(), [Some(model::FailureClass::Crash)].into());
    rig.drop_task(script("again", "embed")).run_for(2_000);
    rig.drop_tasks((0..3).map(|n| script(&format!("later-{n}"), "embed")));
    rig.run_until_rest();
    assert_eq!(
        rig.starts(),
        ["again", "later-0", "again", "later-1", "later-2"],
        "it was not back before the GPU was given away"
    );
}

#[test]
fn time_before_a_task_may_start_is_not_waiting() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.hang.push("busy".into());
    rig.drop_task(script("busy", "embed")).run_for(1_000);
    let drop = script("tomorrow", "embed").priority(1);
    let entry =
        model::Entry { class: model::TaskClass::Script, priority: priority(1), name: "tomorrow.json".into() };
    let due = rig.now + Millis(7_200_000);
    let queued = crate::Event::Queued {
        entry: entry.clone(),
        task: Box::new(drop.task),
        order: 99,
        not_before: Some(due),
    };
    rig.tell(queued);
    rig.run_for(7_201_000);
    let item = rig.world.queue.get(&entry).expect("it waits");
    assert_eq!(rig.world.ageing().level(priority(1), item.since, rig.now), 1);
}

#[test]
fn the_brain_wakes_when_waiting_changes_the_order() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.hang.push("busy".into());
    rig.drop_task(script("busy", "embed")).run_for(2_000);
    let came = rig.now;
    rig.drop_task(script("low", "embed").priority(2));
    rig.think();
    assert_eq!(plan(&rig.world, rig.now).wake_at, Some(came + Millis(900_000)));
}

/// One that comes: when, of which priority and type, and how long it runs.
#[derive(Clone, Debug)]
struct Coming {
    at_s: i64,
    priority: u8,
    job_type: usize,
}

const TYPES: [&str; 4] = ["transcription", "summarization", "embed", "chatbot"];

fn coming() -> impl Strategy<Value = Vec<Coming>> {
    let one = (0..9_000_i64, 1..=5_u8, prop::sample::select(vec![0_usize, 0, 0, 1, 1, 2, 3]));
    let one = one.prop_map(|(at_s, priority, job_type)| Coming { at_s, priority, job_type });
    prop::collection::vec(one, 2..60).prop_map(|mut all| {
        all.sort_by_key(|coming| coming.at_s);
        all
    })
}

proptest! {
    #![proptest_config(random(256))]

    /// Once a task has waited its bound, nothing of its own type that came later goes before it, and of the other types
    /// together no more than their turns.
    #[test]
    fn nothing_waits_longer_than_its_bound_behind_what_comes_later(all in coming(), run_s in 60..600_i64) {
        let mut rig = Rig::new().gpus([24_576]);
        rig.times.script = run_s * 1_000;
        let began = rig.now;
        for (n, coming) in all.iter().enumerate() {
            let ms = (began + Millis(coming.at_s * 1_000) - rig.now).0;
            rig.run_for(ms.max(0));
            rig.drop_task(script(&format!("x{n}"), "embed").priority(coming.priority).of_type(TYPES[coming.job_type]));
            rig.think();
        }
        while rig.world.rest() == crate::Rest::Busy {
            rig.run_for(600_000);
        }
        let mut starts: Vec<(Millis, usize)> = Vec::new();
        for (at, action) in &rig.log {
            if let Action::Start { task, .. } = action {
                starts.push((*at, task.task_id.as_str()[1..].parse().expect("a number")));
            }
        }
        prop_assert_eq!(starts.len(), all.len(), "all of them ran, once");
        for (place, (_, waiting)) in starts.iter().enumerate() {
            let own = &all[*waiting];
            let bound = Ageing::of_seconds(SHIPPED).bound(priority(own.priority)).expect("ageing is on");
            let over = began + Millis(own.at_s * 1_000) + bound;
            let before = starts[..place].iter().filter(|(at, _)| *at >= over);
            let (mut later_others, mut own_turns) = (0_u32, 0_u32);
            for (at, other) in before {
                let same_type = all[*other].job_type == own.job_type;
                own_turns += u32::from(same_type);
                if *other > *waiting && own.job_type != 3 && all[*other].job_type != 3 {
                    prop_assert!(!same_type, "x{other} started at {at} before x{waiting}, which came first");
                    later_others += 1;
                }
            }
            let weight = |job_type: usize| if job_type == 0 { 70 } else { 30 };
            let a_round: u32 = (0..3).map(|job_type| weight(job_type) / weight(own.job_type) + 2).sum();
            prop_assert!(later_others <= (own_turns + 1) * a_round, "{later_others} before x{waiting}");
        }
    }
}
