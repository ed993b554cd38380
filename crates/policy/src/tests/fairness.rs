//! How job types share the GPUs, as people see it.

use std::collections::VecDeque;

use model::config::Auto;
use model::task::GpuRequirement;
use model::{Config, FailureClass, GpuMode};

use super::make::{Drop, config, one_at_a_time, prompt, script, whisper};
use super::rig::Rig;
use crate::{Action, Event, Rest, plan};

fn t(n: usize) -> Drop {
    script(&format!("t{n}"), "embed").of_type("transcription")
}

fn s(n: usize) -> Drop {
    script(&format!("s{n}"), "embed").of_type("summarization")
}

fn c(n: usize) -> Drop {
    script(&format!("c{n}"), "embed").of_type("chatbot")
}

/// The starts by the first letters of their names.
fn order(rig: &Rig) -> String {
    rig.starts().iter().map(|name| name.chars().next().expect("a name").to_ascii_uppercase()).collect()
}

fn without_limits() -> Config {
    let mut config = config();
    config.fairness.job_types.values_mut().for_each(|job_type| job_type.max_consecutive = None);
    config
}

fn strict() -> Config {
    let mut config = config();
    config.fairness.strict_consecutive = true;
    config
}

#[test]
fn t_t_s_with_limits() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_tasks((0..6).map(s)).drop_tasks((0..12).map(t)).run_until_rest();
    assert_eq!(order(&rig), "TTS".repeat(6));
}

#[test]
fn seven_and_three_in_every_window_of_ten_without_limits() {
    let mut rig = Rig::with(without_limits()).gpus([24_576]);
    rig.drop_tasks((0..30).map(s)).drop_tasks((0..70).map(t)).run_until_rest();
    let order = order(&rig);
    assert!(order.starts_with("TTSTTSTTTS"), "{order}");
    for window in order.as_bytes().windows(10) {
        assert_eq!(window.iter().filter(|letter| **letter == b'T').count(), 7, "{order}");
    }
}

#[test]
fn several_gpus_that_come_free_at_once_are_given_out_turn_by_turn() {
    let mut rig = Rig::new().gpus([24_576; 6]);
    rig.drop_tasks((0..12).map(s)).drop_tasks((0..24).map(t)).run_until_rest();
    assert_eq!(order(&rig), "TTS".repeat(12));
}

#[test]
fn max_consecutive_never_idles_a_gpu_when_the_other_queue_is_empty() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_tasks((0..6).map(t)).run_until("all but one", |rig| rig.ended.len() == 5);
    assert_eq!(order(&rig), "TTTTTT");
    rig.drop_task(s(0)).drop_task(t(6)).run_until_rest();
    assert_eq!(order(&rig), "TTTTTTST", "the other type is next as soon as it comes");
}

#[test]
fn max_consecutive_binds_among_equals_only() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_tasks((0..2).map(s)).drop_tasks((0..4).map(|n| t(n).priority(4))).run_until_rest();
    assert_eq!(order(&rig), "TTTTSS");
}

#[test]
fn max_consecutive_waits_for_nobody_who_could_not_start_now() {
    let mut rig = Rig::new().gpus([24_576, 24_576]);
    rig.hang.push("busy".into());
    rig.drop_task(script("busy", "embed").gpu(GpuRequirement::Key("1".into()))).run_for(1_000);
    rig.drop_task(s(0).gpu(GpuRequirement::Key("1".into())));
    rig.drop_tasks((0..5).map(|n| t(n).gpu(GpuRequirement::Key("0".into()))));
    rig.run_until("the last of them", |rig| rig.ended.len() == 5);
    assert_eq!(order(&rig), "BTTTTT");
}

#[test]
fn max_consecutive_strict_waits_for_another_type_to_start() {
    let mut rig = Rig::with(strict()).gpus([24_576]);
    rig.drop_tasks((0..3).map(t)).run_for(600_000);
    assert_eq!(order(&rig), "TT");
    insta::assert_snapshot!(rig.why("t2"), @"`transcription` has started 2 times in a row, and by `strict_consecutive` another job type has to start before the next one");
    assert!(matches!(rig.world.rest(), Rest::Held(held) if held.len() == 1));
    let said = rig.log.iter().filter_map(|(_, action)| match action {
        Action::Say(saying) => Some(saying.to_string()),
        _ => None,
    });
    let said: Vec<String> = said.filter(|sentence| sentence.contains("in a row")).collect();
    insta::assert_snapshot!(said.join("\n"), @"transcription has started 2 times in a row: it waits until another job type has started (`strict_consecutive`)");
    // A chatbot is no other type; anything else is.
    rig.drop_task(c(0)).run_for(60_000);
    assert_eq!(order(&rig), "TTC");
    rig.drop_task(s(0)).run_until_rest();
    assert_eq!(order(&rig), "TTCST");
}

#[test]
fn a_chatbot_is_next_whatever_its_priority_and_changes_no_turn() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_tasks((0..3).map(|n| s(n).priority(5))).drop_tasks((0..6).map(|n| t(n).priority(5)));
    rig.run_until("one ended", |rig| rig.ended.len() == 1);
    rig.drop_task(c(0).priority(1)).run_until("two more ended", |rig| rig.ended.len() == 4);
    rig.drop_task(c(1).priority(1)).run_until_rest();
    assert_eq!(order(&rig), "TTCSTCTSTTS");
}

#[test]
fn the_cpu_lane_has_turns_of_its_own() {
    let mut config = config();
    config.cpu_slots = Auto::Set(1);
    let mut rig = Rig::with(config).gpus([24_576]);
    let lane = |drop: Drop| drop.gpu(GpuRequirement::None);
    rig.drop_tasks((0..3).map(|n| lane(script(&format!("s-cpu-{n}"), "count").of_type("summarization"))));
    rig.drop_tasks((0..6).map(|n| lane(script(&format!("t-cpu-{n}"), "count").of_type("transcription"))));
    rig.drop_tasks((0..3).map(s)).drop_tasks((0..6).map(t)).run_until_rest();
    let of = |cpu: bool| -> String {
        let names = rig.starts().into_iter().filter(|name| name.contains("cpu") == cpu);
        names.filter_map(|name| name.chars().next()).collect()
    };
    assert_eq!((of(true).as_str(), of(false).as_str()), ("ttsttstts", "ttsttstts"));
}

#[test]
fn what_takes_no_time_does_not_keep_the_cpu_lane_from_others() {
    let mut config = config();
    config.cpu_slots = Auto::Set(1);
    let tally = config.scripts["count"].clone();
    config.scripts.insert("tally".into(), tally);
    let mut rig = Rig::with(config).gpus([24_576]);
    rig.times.script = 2;
    let lane = |name: String, kind: &str| script(&name, kind).gpu(GpuRequirement::None);
    rig.drop_tasks((0..5).map(|n| lane(format!("known-{n}"), "count"))).run_until_rest();
    rig.hang.push("short-0".into());
    rig.drop_tasks((0..3).map(|n| lane(format!("short-{n}"), "count"))).think();
    assert_eq!(rig.starts().len(), 5 + 3, "those behind the one that runs are ordered ahead");
    rig.drop_tasks((3..6).map(|n| lane(format!("short-{n}"), "count")));
    assert!(!plan(&rig.world, rig.now).actions.is_empty(), "and so would these be");
    rig.drop_task(lane("urgent".into(), "tally").priority(5)).think();
    assert_eq!(rig.starts().len(), 5 + 3, "but somebody before them waits for the lane");
}

#[test]
fn what_takes_no_time_does_not_keep_a_gpu_from_others() {
    let mut rig = Rig::with(one_at_a_time(config())).gpus([24_576]);
    rig.times.script = 2;
    rig.drop_tasks((0..5).map(|n| whisper(&format!("known-{n}")))).run_until_rest();
    rig.hang.push("short-0".into());
    rig.drop_tasks((0..3).map(|n| whisper(&format!("short-{n}")))).think();
    assert_eq!(rig.starts().len(), 5 + 3, "those behind the one that runs are ordered ahead");
    rig.drop_tasks((3..6).map(|n| whisper(&format!("short-{n}"))));
    assert!(!plan(&rig.world, rig.now).actions.is_empty(), "and so would these be");
    rig.drop_task(script("urgent", "embed").priority(5)).think();
    assert_eq!(rig.starts().len(), 5 + 3, "but somebody before them waits for the GPU");
}

#[test]
fn items_of_a_batch_and_single_tasks_share_the_turns_of_their_type() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_tasks((0..8).map(s)).drop_tasks((0..2).map(|n| t(n).of_type("process")));
    // Its items are of type `process` too, which weighs as much as summarization.
    rig.drop_batch("talks", GpuMode::Shared, &[20.0; 6]).run_until_rest();
    assert_eq!(order(&rig), "ST".repeat(8));
    assert_eq!(rig.starts().iter().filter(|name| name.starts_with("talks")).count(), 6);
}

#[test]
fn turns_survive_the_death_of_the_brain() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_tasks((0..4).map(s)).drop_tasks((0..8).map(t));
    for starts in 1..12 {
        rig.run_until("one more start", |rig| rig.starts().len() >= starts).restart_brain();
    }
    rig.run_until_rest();
    assert_eq!(order(&rig), "TTS".repeat(4));
}

#[test]
fn turns_are_kept_as_they_are_written_and_read() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_tasks((0..2).map(s)).drop_tasks((0..3).map(t)).run_until_rest();
    let grants = &rig.world.learned().grants;
    assert_eq!((grants.total["transcription"], grants.total["summarization"]), (3, 2));
    assert_eq!((grants.last.as_deref(), grants.in_a_row), (Some("summarization"), 1));
    assert_eq!(grants.earlier.iter().map(|run| run.starts).collect::<Vec<_>>(), [2, 1, 1]);
}

#[test]
fn a_start_that_could_not_be_carried_out_or_was_lost_gives_its_turn_back() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_tasks((0..2).map(t)).run_until_rest();
    rig.drop_tasks((0..2).map(s)).drop_task(t(2));
    let before = rig.world.learned().grants.clone();
    let action = plan(&rig.world, rig.now).actions.into_iter().next().expect("the next start");
    let Action::Start { entry, task, .. } = &action else { panic!("{action:?}") };
    assert_eq!(task.job_type, "summarization");
    let entry = entry.clone();
    for answer in [
        Event::Undone { action: Box::new(action.clone()), why: "the disk is full".into() },
        Event::StartLost { entry, why: "somebody took it away".into() },
    ] {
        let mut world = rig.world.clone();
        world.apply(rig.now, Event::Issued(Box::new(action.clone())));
        assert_ne!(world.learned().grants, before);
        world.apply(rig.now, answer);
        let after = &world.learned().grants;
        assert_eq!(
            (&after.last, after.in_a_row, &after.total),
            (&before.last, before.in_a_row, &before.total)
        );
    }
}

#[test]
fn an_attempt_that_does_not_count_is_no_turn() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.outcomes.insert("t0".into(), VecDeque::from([Some(FailureClass::GpuFault)]));
    rig.drop_tasks((0..3).map(t)).drop_task(s(0)).run_until_rest();
    assert_eq!(order(&rig), "TTTST", "one of the first three was taken back");
    let grants = &rig.world.learned().grants;
    assert_eq!((grants.total["transcription"], grants.total["summarization"]), (3, 1));
}

#[test]
fn why_names_the_turn_it_waits_for() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_tasks((0..2).map(t)).run_until_rest();
    rig.drop_tasks((2..4).map(t)).drop_tasks((0..2).map(s));
    insta::assert_snapshot!(rig.why("t2"), @"it is the turn of `summarization` (0 starts so far, weight 30); `transcription` has had 2, weight 70");
    assert_eq!(rig.why("s0").code(), "next");
    insta::assert_snapshot!(rig.why("t3"), @"there is room for others first; 2 ahead of it, in 30 min at most only chatbots, older tasks, or other job types at their turn");
}

/// The runtime example of the seed's document on data flow: A runs, B and then a chatbot C come. A has no boundary.
fn seed_3(mut rig: Rig) -> Rig {
    rig.drop_task(whisper("a").media(300.0).of_type("transcription"))
        .run_until("a runs", |rig| rig.starts().iter().any(|name| name == "a"))
        .run_for(100);
    rig.drop_task(whisper("b").media(100.0).of_type("transcription")).run_for(400);
    rig.drop_task(prompt("c").of_type("chatbot")).run_until_ended("b");
    rig
}

#[test]
fn seed_3_runtime_example_a_c_b() {
    // A card with one slot for scripts.
    let slots = seed_3(Rig::new().gpus([5_900]));
    assert_eq!(slots.starts(), ["a", "c", "b"]);

    let mut config = strict();
    config.gpu_lock = model::config::GpuLock::Single;
    let mut rig = Rig::with(config).gpus([12_227, 8_192]);
    rig.drop_task(prompt("warm").of_type("chatbot")).run_until_ended("warm");
    let mut rig = seed_3(rig);
    assert_eq!(rig.starts(), ["warm", "a", "c", "b"]);
    let (a, c, b) = (rig.ended("a").at, rig.ended("c").at, rig.ended("b").at);
    assert!(a < c && c < b);
    // "If another transcription arrives, it must wait. Next job must be summarization."
    rig.drop_task(whisper("d").of_type("transcription")).run_for(600_000);
    assert_eq!(rig.why("d").code(), "too_many_in_a_row");
    rig.drop_task(prompt("e").of_type("summarization")).run_until_rest();
    assert_eq!(rig.starts(), ["warm", "a", "c", "b", "e", "d"]);
}
