//! Giving way to a chatbot: who does, what it costs, and that nothing is lost by it.

use model::config::JobType;
use model::link::StopWhy;
use model::{FailureClass, GpuState, Millis, Saying};

use super::make::{Drop, QWEN_7B, QWEN_14B, config, prompt, script, whisper};
use super::rig::{Rig, id};
use crate::action::Action;
use crate::{Event, Rest};

/// Somebody waits for an answer.
fn chatbot(name: &str) -> Drop {
    prompt(name).of_type("chatbot")
}

/// A transcription that takes this many seconds.
fn transcription(name: &str, seconds: f64) -> Drop {
    whisper(name).media(seconds * 10.0)
}

/// Scripts with a boundary every two seconds.
fn rig<const N: usize>(sizes: [u64; N]) -> Rig {
    let mut rig = Rig::new().gpus(sizes);
    rig.boundary = Some(2_000);
    rig
}

fn yields(rig: &Rig) -> Vec<String> {
    let said = rig.log.iter().filter_map(|(_, action)| match action {
        Action::Say(saying @ Saying::Yields { .. }) => Some(saying.to_string()),
        _ => None,
    });
    said.collect()
}

fn asked(rig: &Rig) -> usize {
    rig.count(|action| matches!(action, Action::Stop { why: StopWhy::Yield, .. }))
}

/// What each start of a task was charged with.
fn charges(rig: &Rig, name: &str) -> Vec<u32> {
    let starts = rig.log.iter().filter_map(|(_, action)| match action {
        Action::Start { task, .. } if task.task_id == id(name) => Some(task.charged),
        _ => None,
    });
    starts.collect()
}

fn runs(rig: &Rig, name: &str) -> bool {
    rig.world.units.values().any(|unit| unit.key.task_id == id(name) && unit.running_since().is_some())
}

fn ended_at(rig: &Rig, name: &str) -> Millis {
    rig.ended(name).at
}

/// When the last start was, and from what it goes on.
fn last_start(rig: &Rig) -> (Millis, Option<i64>) {
    let starts = rig.log.iter().rev().filter_map(|(at, action)| match action {
        Action::Start { task, .. } => {
            Some((*at, task.checkpoint.as_ref().map(|state| state.as_i64().expect("milliseconds"))))
        }
        _ => None,
    });
    starts.take(1).next().expect("a start")
}

/// Document 1: the single GPU transcribes, a chatbot comes, and is answered before the transcription ends.
#[test]
fn test_priority() {
    let mut rig = rig([24_576]);
    rig.drop_task(transcription("long", 300.0)).run_until("it runs", |rig| runs(rig, "long")).run_for(60_500);
    let asked_at = rig.now;
    rig.drop_task(chatbot("chat")).think();
    insta::assert_snapshot!(yields(&rig).join("\n"), @"long on GPU 0 gives way to chatbot chat at its next boundary, 0 % done, and goes on later");
    insta::assert_snapshot!(rig.why("chat"), @"long on GPU 0 gives way to it at its next boundary");
    rig.run_until_ended("chat");
    // One boundary, the host leaves, the LLM boots, the answer.
    assert!(
        ended_at(&rig, "chat") - asked_at < Millis(2_000 + 2_000 + 5_000 + 1_500),
        "{}",
        rig.now - asked_at
    );
    rig.run_until_ended("long");
    assert!(rig.is_complete("chat") && rig.is_complete("long"));
    assert!(ended_at(&rig, "chat") < ended_at(&rig, "long"));
    assert_eq!((rig.ended("long").attempt, charges(&rig, "long")), (2, vec![1, 1]), "it was not charged");
    assert_eq!(asked(&rig), 1);
    // Whole: what the first attempt had done by its last boundary, the second one did not do again.
    let (again_at, done) = last_start(&rig);
    let done = done.expect("a checkpoint");
    assert!((60_000..=64_000).contains(&done), "{done}");
    let rest = Millis(300_000 - done);
    assert!((rest..rest + Millis(2_000)).contains(&(ended_at(&rig, "long") - again_at)));
}

/// Document 3: with both queues full of transcriptions and summaries, a chatbot is next.
#[test]
fn test_chatbot_priority() {
    let mut rig = rig([24_576]);
    rig.drop_tasks((0..3).map(|n| transcription(&format!("t{n}"), 120.0)));
    rig.drop_tasks((0..3).map(|n| prompt(&format!("s{n}"))));
    rig.run_until("a transcription runs", |rig| runs(rig, "t0")).run_for(10_500);
    rig.drop_task(chatbot("chat")).run_until_ended("chat");
    let first = rig.now;
    assert!(rig.ended.keys().all(|task| !task.as_str().starts_with('t')), "{:?}", rig.ended);
    rig.run_until_rest();
    assert!(rig.ended.values().all(|ends| ends[0].at >= first), "nothing had ended before it");
    assert_eq!(rig.ended.len(), 7);
    assert!(rig.ended.values().all(|ends| ends.len() == 1 && ends[0].complete));
    let attempts: u32 = rig.ended.values().map(|ends| ends[0].attempt).sum();
    assert_eq!(attempts, 8, "one gave way, once");
}

#[test]
fn a_request_of_a_lower_job_type_gives_its_slot_to_a_chatbot_and_starts_over() {
    let mut rig = rig([24_576]);
    rig.times.llm = 60_000;
    rig.drop_task(prompt("old")).run_until("it runs", |rig| runs(rig, "old")).run_for(20_000);
    rig.drop_tasks([prompt("young"), prompt("waits")]).run_for(5_000);
    assert!(runs(&rig, "young") && !runs(&rig, "waits"));
    rig.times.llm = 1_000;
    rig.drop_task(chatbot("chat")).run_until_ended("chat");
    assert_eq!(yields(&rig).len(), 1);
    assert_eq!(charges(&rig, "young").len(), 1, "the one that loses least gives way: {:?}", yields(&rig));
    rig.run_until_rest();
    assert_eq!((rig.ended("old").attempt, rig.ended("young").attempt), (1, 2));
    assert_eq!(charges(&rig, "young"), [1, 1]);
    assert_eq!(rig.boots(), 1);
}

#[test]
fn nobody_gives_way_where_a_place_comes_soon_by_itself() {
    let mut rig = rig([24_576]);
    rig.times.llm = 1_500;
    rig.drop_tasks((0..3).map(|n| prompt(&format!("warm-up-{n}")))).run_until_rest();
    rig.drop_tasks([prompt("a"), prompt("b")]).run_for(500);
    rig.drop_task(chatbot("chat")).run_until_rest();
    assert_eq!(asked(&rig), 0);
    assert!(rig.is_complete("chat"));
}

#[test]
fn nobody_gives_way_where_another_gpu_serves_the_chatbot() {
    let mut rig = rig([24_576, 24_576]);
    rig.drop_tasks([transcription("long", 300.0)]).run_until("it runs", |rig| runs(rig, "long"));
    rig.drop_task(chatbot("chat")).run_until_ended("chat");
    assert_eq!(asked(&rig), 0);
}

#[test]
fn one_place_is_made_for_one_chatbot_and_an_llm_serves_as_many_as_it_has_slots() {
    let mut rig = rig([24_576, 24_576]);
    rig.drop_tasks([transcription("a", 300.0), transcription("b", 300.0)]).run_for(20_500);
    assert!(runs(&rig, "a") && runs(&rig, "b"));
    rig.drop_tasks([chatbot("c1"), chatbot("c2")]).run_for(1_000);
    assert_eq!(asked(&rig), 1, "its two slots are enough");
    rig.run_until("both are answered", |rig| rig.is_complete("c1") && rig.is_complete("c2"));
    assert_eq!(asked(&rig), 1);
    rig.run_until_rest();
    assert_eq!(rig.ended.len(), 4);
}

#[test]
fn a_chatbot_a_type_that_does_not_yield_and_a_script_without_boundaries_run_on() {
    let stubborn = |job_type: &str, boundary: Option<i64>| {
        let mut config = config();
        let settled = JobType { yields: false, ..JobType::default() };
        config.fairness.job_types.insert("settled".into(), settled);
        let mut rig = Rig::with(config).gpus([24_576]);
        rig.boundary = boundary;
        let mut long = transcription("long", 100.0);
        long.task.job_type = job_type.into();
        rig.drop_task(long).run_until("it runs", |rig| runs(rig, "long"));
        rig.drop_task(chatbot("chat")).run_until_rest();
        (asked(&rig), ended_at(&rig, "long") < ended_at(&rig, "chat"))
    };
    assert_eq!(stubborn("chatbot", Some(2_000)), (0, true));
    assert_eq!(stubborn("settled", Some(2_000)), (0, true));
    assert_eq!(stubborn("transcription", None), (0, true));
    assert_eq!(stubborn("transcription", Some(2_000)), (1, false));
}

#[test]
fn the_single_lock_is_passed_to_a_chatbot_once_its_llm_is_there() {
    for gpus in 1..=2 {
        let mut config = config();
        config.gpu_lock = model::config::GpuLock::Single;
        let rig = Rig::with(config);
        let mut rig = if gpus == 1 { rig.gpus([24_576]) } else { rig.gpus([24_576, 24_576]) };
        rig.boundary = Some(2_000);
        rig.drop_task(transcription("long", 300.0)).run_until("it runs", |rig| runs(rig, "long"));
        rig.drop_task(chatbot("chat")).run_until_ended("chat");
        assert!(!rig.ended.contains_key(&id("long")), "{gpus} GPUs");
        rig.run_until_rest();
        assert_eq!((rig.ended("long").attempt, asked(&rig)), (2, 1), "{gpus} GPUs");
    }
}

#[test]
fn what_ends_before_it_gives_way_has_ended() {
    let mut rig = rig([24_576]);
    rig.boundary = Some(20_000);
    rig.drop_task(transcription("long", 30.0)).run_until("it runs", |rig| runs(rig, "long")).run_for(21_000);
    rig.drop_task(chatbot("chat")).run_until_rest();
    assert_eq!((asked(&rig), rig.ended("long").attempt), (1, 1));
    assert!(rig.is_complete("long") && rig.is_complete("chat"));
}

#[test]
fn a_cancel_while_it_gives_way_cancels_it() {
    let mut rig = rig([24_576]);
    rig.boundary = Some(20_000);
    rig.drop_task(transcription("long", 300.0)).run_until("it runs", |rig| runs(rig, "long")).run_for(1_000);
    rig.drop_task(chatbot("chat")).run_for(1_000);
    assert_eq!(asked(&rig), 1);
    rig.tell(Event::CancelAsked { task_id: id("long") });
    rig.run_until_rest();
    let ended = rig.ended("long");
    assert_eq!(ended.error.as_ref().map(|error| error.class), Some(FailureClass::Cancelled));
    assert!(rig.is_complete("chat"));
}

#[test]
fn a_worker_that_dies_while_it_gives_way_is_a_death_like_any_other() {
    let mut rig = rig([24_576]);
    rig.boundary = Some(20_000);
    rig.drop_task(transcription("long", 100.0)).run_until("it runs", |rig| runs(rig, "long")).run_for(1_000);
    rig.drop_task(chatbot("chat")).run_for(1_000);
    rig.kill_worker(0, false).run_until_rest();
    assert!(rig.is_complete("long") && rig.is_complete("chat"));
    assert_eq!(charges(&rig, "long"), [1, 2], "it had run when its worker died");
}

#[test]
fn a_new_brain_goes_on_where_the_old_one_had_asked() {
    let mut rig = rig([24_576]);
    rig.boundary = Some(10_000);
    rig.drop_task(transcription("long", 300.0)).run_until("it runs", |rig| runs(rig, "long")).run_for(1_000);
    rig.drop_task(chatbot("chat")).run_for(1_000);
    rig.restart_brain().run_until_rest();
    assert_eq!(asked(&rig), 1, "who was asked is not asked again");
    assert_eq!((rig.ended("long").attempt, charges(&rig, "long")), (2, vec![1, 1]));
}

#[test]
fn a_script_for_which_nobody_can_wait_takes_the_place_of_another() {
    let mut rig = rig([24_576]);
    rig.drop_task(transcription("long", 300.0)).run_until("it runs", |rig| runs(rig, "long")).run_for(20_500);
    rig.drop_task(script("chat", "embed").of_type("chatbot")).run_until_ended("chat");
    assert!(!rig.ended.contains_key(&id("long")));
    rig.run_until_rest();
    assert_eq!((rig.ended("long").attempt, asked(&rig)), (2, 1));
}

#[test]
fn a_chatbot_that_wants_another_llm_makes_its_requests_give_way() {
    let mut rig = rig([12_227]);
    rig.times.llm = 60_000;
    rig.drop_tasks([prompt("a").with_model(QWEN_7B), prompt("b").with_model(QWEN_7B)]);
    rig.run_until("both run", |rig| runs(rig, "a") && runs(rig, "b")).run_for(1_000);
    rig.times.llm = 1_000;
    rig.drop_tasks([prompt("c").with_model(QWEN_7B), chatbot("chat").with_model(QWEN_14B)]);
    rig.run_until_ended("chat");
    assert_eq!((asked(&rig), rig.ended.len()), (2, 1));
    rig.run_until_rest();
    assert_eq!(rig.ended.len(), 4);
}

#[test]
fn a_task_that_gave_way_twenty_times_within_an_hour_is_left_in_peace() {
    let mut rig = rig([24_576]);
    rig.drop_task(transcription("long", 2_000.0)).run_until("it runs", |rig| runs(rig, "long"));
    for n in 0..25 {
        let name = format!("chat-{n}");
        rig.drop_task(chatbot(&name)).run_until_ended(&name);
        rig.run_until("it runs again or has ended", |rig| {
            runs(rig, "long") || rig.ended.contains_key(&id("long"))
        });
    }
    assert_eq!(asked(&rig), 20);
    rig.run_until_rest();
    assert!(rig.is_complete("long"));
    assert!(charges(&rig, "long").iter().all(|charged| *charged == 1));
}

#[test]
fn a_broken_attempt_goes_on_from_its_checkpoint_and_not_twice_from_one_that_breaks_it() {
    let mut rig = rig([24_576]);
    rig.outcomes.insert("long".into(), [Some(FailureClass::Crash), None].into());
    rig.times.script = 5_000;
    rig.drop_task(script("long", "embed")).run_until_rest();
    assert_eq!(last_start(&rig).1, Some(4_000));

    let mut rig = self::rig([24_576]);
    // It runs for five seconds, breaks, goes on for the last one, breaks before it gets any further, and starts over.
    rig.outcomes.insert("long".into(), [Some(FailureClass::Crash), Some(FailureClass::Crash), None].into());
    rig.times.script = 5_000;
    rig.drop_task(script("long", "embed")).run_until_rest();
    assert!(rig.is_complete("long"));
    assert_eq!(last_start(&rig).1, None);
}

#[test]
fn a_checkpoint_that_is_refused_is_dropped_once_and_not_charged() {
    let mut rig = rig([24_576]);
    rig.times.script = 5_000;
    let refused = Some(FailureClass::BadInput);
    rig.outcomes.insert("long".into(), [Some(FailureClass::Crash), refused, None].into());
    rig.drop_task(script("long", "embed")).run_until_rest();
    assert!(rig.is_complete("long"));
    assert_eq!((rig.ended("long").attempt, charges(&rig, "long")), (3, vec![1, 2, 2]));
    assert_eq!(rig.world.rest(), Rest::Idle);
    assert_eq!(rig.state(0), GpuState::Idle);
}
