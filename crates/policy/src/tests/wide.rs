//! Tasks that need several GPUs at once: they have them for themselves, and they come to their turn.

use model::gpu::Reading;
use model::link::StopWhy;
use model::task::GpuRequirement;
use model::{GpuMode, GpuState, GpuUuid, Millis};
use proptest::prelude::*;

use super::make::{Drop, config, one_at_a_time, prompt, script, whisper, with_brains};
use super::random::random;
use super::rig::{Rig, id};
use crate::{Action, Event, why_gpu};

/// A task of two GPUs.
fn wide(name: &str) -> Drop {
    script(name, "embed").gpus(2).estimate(2.0)
}

/// A transcription of so many seconds that has a GPU for itself and knows how long it takes.
fn narrow(name: &str, seconds: f64) -> Drop {
    whisper(name).media(seconds * 10.0).estimate(seconds)
}

fn uuid(gpu: u32) -> GpuUuid {
    GpuUuid::new(format!("SIM-{gpu}")).expect("legal")
}

/// The GPUs that a task was started on, by number.
fn gpus_of(rig: &Rig, name: &str) -> Vec<String> {
    let found = rig.log.iter().rev().find_map(|(_, action)| match action {
        Action::Start { task, gpus, .. } if task.task_id == id(name) => Some(gpus.clone()),
        _ => None,
    });
    let gpus = found.unwrap_or_else(|| panic!("{name} was not started"));
    gpus.into_iter().map(|uuid| uuid.to_string()).collect()
}

fn started_at(rig: &Rig, name: &str) -> Millis {
    let found = rig.log.iter().find_map(|(at, action)| match action {
        Action::Start { task, .. } if task.task_id == id(name) => Some(*at),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("{name} was not started"))
}

fn lose(rig: &mut Rig, gpu: u32) {
    let reading = Reading { uuid: uuid(gpu), used_mib: None, processes: Vec::new(), lost: true };
    rig.tell(Event::Read(reading));
}

#[test]
fn it_has_its_gpus_for_itself() {
    let mut rig = Rig::new().gpus([24_576, 24_576, 5_000]);
    // By its memory there would be room beside it.
    rig.drop_task(whisper("w").gpus(2).vram(6_000).media(200.0));
    rig.drop_tasks((0..6).map(|n| whisper(&format!("n{n}")).media(20.0))).run_for(3_000);
    assert_eq!(gpus_of(&rig, "w"), ["SIM-0", "SIM-1"], "the worker's own first");
    let shown = rig.picture();
    for key in ["0", "1"] {
        let gpu = &shown.gpus[key];
        assert_eq!((gpu.state, gpu.task_id.as_ref()), (GpuState::ScriptBusy, Some(&id("w"))), "GPU {key}");
        assert_eq!((gpu.slots.len(), gpu.slots_max), (1, Some(1)), "GPU {key}");
        assert!(gpu.accepts.is_empty(), "GPU {key} takes nothing beside it");
    }
    let of_others: Vec<&str> = shown.gpus["2"].slots.iter().map(|slot| slot.task_id.as_str()).collect();
    assert!(of_others.iter().all(|task| task.starts_with('n')), "{of_others:?} run on the third");
    rig.run_until_rest();
    assert!(rig.is_complete("w"));
    assert_eq!(rig.picture().gpus["1"].state, GpuState::Idle);
}

#[test]
fn gpus_are_kept_for_it_and_what_starts_there_meanwhile_ends_before() {
    let mut rig = Rig::with(one_at_a_time(config())).gpus([24_576; 2]);
    rig.drop_task(narrow("long", 100.0)).run_for(2_000);
    rig.drop_task(wide("w"));
    rig.drop_tasks([narrow("longer", 200.0), narrow("short", 30.0), whisper("unknown").media(10.0)]);
    rig.run_for(2_000);
    assert_eq!(rig.starts(), ["long", "short"], "it ends before the one that is waited for");
    insta::assert_snapshot!(rig.why("w"), @"it needs 2 GPUs at once: GPU 0 and 1 are kept for it, expected free in 97 s with the end of long; until then only what ends before starts there, or what goes before it, chatbots among that for another 15 min at most");
    rig.run_for(45_000);
    insta::assert_snapshot!(rig.why("longer"), @"GPU 1 is kept for w, which needs 2 GPUs at once in about 52 s, and it is not expected to end before; 1 ahead of it, in 30 min at most only chatbots, older tasks, or other job types at their turn");
    insta::assert_snapshot!(why_gpu(&rig.world, rig.now, "1").expect("known").to_string(), @"GPU 1 (SIMULATED 24576 MiB) is idle (since 16 s). It is kept for w, which needs 2 GPUs at once in about 52 s: only what ends before, or goes before that task, starts here. It takes LLM tasks and scripts. Next here: w in 52 s.");
    rig.run_until_ended("w");
    assert_eq!(rig.starts()[..3], ["long", "short", "w"]);
    let waited = started_at(&rig, "w") - rig.ended("long").at;
    assert!(waited < Millis(2_000), "idle hosts leave, and then it starts: {waited}");
    rig.run_until_rest();
    insta::assert_snapshot!(rig.said().join("\n"), @r"
GPU 0 and 1 are kept for w, which needs 2 at once and waits for 0 s: expected free in 99 s; until then only what ends before starts there
w starts on GPU 0 and 1, which it has for itself, after 100 s
");
}

#[test]
fn why_a_gpu_does_what_it_does_names_the_task_that_has_it() {
    let mut rig = Rig::new().gpus([24_576; 2]);
    rig.times.script = 60_000;
    rig.drop_task(wide("w").estimate(60.0)).run_for(10_000);
    insta::assert_snapshot!(rig.why("w"), @"it runs on GPU 0 since 10 s");
    insta::assert_snapshot!(why_gpu(&rig.world, rig.now, "1").expect("known").to_string(), @"GPU 1 (SIMULATED 24576 MiB) runs w (since 10 s). It is one of the 2 GPUs that w has for itself, whose worker is that of GPU 0. It takes nothing now.");
}

#[test]
fn an_empty_gpu_takes_the_place_of_a_busy_one_and_what_was_said_is_not_said_again() {
    let mut rig = Rig::with(one_at_a_time(config())).gpus([24_576; 3]);
    // Nobody knows that it takes so much less than its author says.
    rig.drop_tasks([narrow("a", 50.0), narrow("b", 80.0), whisper("c").media(600.0).estimate(200.0)]);
    rig.run_for(2_000);
    rig.drop_task(wide("w")).run_until_ended("w");
    let waited = started_at(&rig, "w") - rig.ended("c").at.max(rig.ended("a").at);
    assert!(waited < Millis(2_000), "b is not waited for: {waited}");
    let kept = rig.said().into_iter().filter(|said| said.contains("are kept for w")).count();
    assert_eq!(kept, 1);
}

#[test]
fn one_of_its_gpus_is_lost_and_it_goes_on_elsewhere_uncharged() {
    let mut rig = Rig::new().gpus([24_576; 3]);
    rig.times.script = 30_000;
    rig.drop_task(wide("w").estimate(30.0)).run_for(5_000);
    assert_eq!(gpus_of(&rig, "w"), ["SIM-0", "SIM-1"]);
    lose(&mut rig, 1);
    rig.run_for(3_000);
    let stops = rig.count(|action| matches!(action, Action::Stop { why: StopWhy::TakenBack, .. }));
    assert_eq!(stops, 1);
    assert_eq!(gpus_of(&rig, "w"), ["SIM-0", "SIM-2"]);
    rig.run_until_rest();
    assert!(rig.is_complete("w"));
    let charged = rig.log.iter().rev().find_map(|(_, action)| match action {
        Action::Start { task, .. } => Some(task.charged),
        _ => None,
    });
    assert_eq!(charged, Some(1), "the GPU's end is not its own");
}

#[test]
fn the_death_of_its_worker_frees_all_its_gpus_and_that_of_another_one_none() {
    let mut rig = Rig::new().gpus([24_576; 2]);
    rig.times.script = 30_000;
    rig.drop_task(wide("w").estimate(30.0)).run_for(5_000);
    rig.kill_worker(1, false).run_for(5_000);
    assert_eq!((rig.state(1), rig.starts().len()), (GpuState::ScriptBusy, 1), "it was none of its own");
    rig.kill_worker(0, false).run_for(100);
    assert_eq!(rig.state(1), GpuState::Idle);
    rig.run_until_rest();
    assert_eq!((rig.is_complete("w"), rig.ended("w").attempt), (true, 2));
}

#[test]
fn a_brain_that_starts_anew_reads_from_the_orders_which_gpus_it_has() {
    let mut rig = Rig::new().gpus([24_576; 3]);
    rig.times.script = 30_000;
    rig.drop_task(wide("w").estimate(30.0)).run_for(5_000);
    rig.restart_brain().drop_tasks((0..3).map(|n| script(&format!("n{n}"), "embed"))).run_for(5_000);
    let shown = rig.picture();
    assert_eq!(shown.gpus["1"].task_id, Some(id("w")));
    assert_eq!(shown.gpus["1"].slots.len(), 1, "nothing starts beside it");
    assert!(shown.gpus["2"].task_id.as_ref().is_some_and(|task| task.as_str().starts_with('n')));
    rig.run_until_rest();
    assert_eq!(rig.ended.len(), 4);
}

#[test]
fn items_of_an_exclusive_batch_take_two_gpus_each() {
    let mut rig = Rig::new().gpus([24_576; 4]);
    rig.drop_task(prompt("p")).run_until_ended("p");
    rig.times.script = 10_000;
    let facts = crate::BatchFacts {
        batch_id: model::BatchId::new("pairs").expect("legal"),
        script: "embed".into(),
        gpu_mode: GpuMode::Exclusive,
        total: 4,
        completed: 0,
        failed: 0,
        paused: false,
    };
    rig.accept(facts);
    rig.drop_tasks((0..4).map(|n| wide(&format!("pairs.{n}")).of_batch("pairs").estimate(10.0)));
    let mut most = 0;
    while rig.ended.len() < 5 {
        rig.run_for(500);
        let shown = rig.picture();
        let busy = shown.gpus.values().filter(|gpu| !gpu.slots.is_empty()).count();
        most = most.max(busy);
        let gpus = &shown.batches.get(&model::BatchId::new("pairs").expect("legal"));
        assert!(gpus.is_none_or(|batch| batch.gpus.len() == busy), "{gpus:?}");
    }
    assert_eq!(most, 4, "two items at once, the GPU of the LLM included");
}

#[test]
fn a_pinned_gpu_is_not_taken_and_where_too_few_are_left_it_says_so() {
    let mut rig = Rig::with(with_brains(config())).gpus([24_576; 2]);
    rig.drop_task(wide("w")).drop_task(wide("large").vram(30_000)).run_for(2_000);
    insta::assert_snapshot!(rig.why("w"), @"it needs 2 GPUs at once, and 1 of the 2 GPUs here can be had for it; 1 has its LLM pinned by `gpu_roles`");
    insta::assert_snapshot!(rig.why("large"), @"no GPU here can hold it: it needs 30000 MiB, the largest has 24576 MiB");
    assert_eq!(rig.starts(), [""; 0]);
    let mut strict = with_brains(config());
    strict.strict = true;
    let mut rig = Rig::with(strict).gpus([24_576; 2]);
    rig.drop_task(wide("w")).run_until_rest();
    assert_eq!(rig.ended("w").error.as_ref().expect("refused").code, "unsatisfiable");
}

#[test]
fn the_gpu_it_asks_for_is_among_its_gpus_and_leads() {
    let mut rig = Rig::new().gpus([24_576; 3]);
    rig.drop_task(wide("w").gpu(GpuRequirement::Key("2".into()))).run_until_rest();
    assert_eq!(gpus_of(&rig, "w"), ["SIM-2", "SIM-0"]);
    assert_eq!(rig.ended("w").gpu.as_deref(), Some("2"));
}

#[test]
fn the_smallest_gpus_that_do_are_taken() {
    let mut rig = Rig::new().gpus([49_140, 8_192, 24_576, 24_576]);
    rig.drop_task(wide("w").vram(20_000)).run_until_rest();
    assert_eq!(gpus_of(&rig, "w"), ["SIM-2", "SIM-3"]);
}

#[test]
fn under_the_single_lock_it_is_one_unit() {
    let mut config = one_at_a_time(config());
    config.gpu_lock = model::config::GpuLock::Single;
    let mut rig = Rig::with(config).gpus([24_576; 2]);
    rig.drop_tasks([narrow("a", 10.0), wide("w"), narrow("b", 10.0)]).run_until_rest();
    assert_eq!(rig.starts(), ["a", "w", "b"]);
}

#[test]
fn an_llm_goes_for_it_when_nothing_else_is_missing() {
    let mut rig = Rig::with(one_at_a_time(config())).gpus([24_576; 2]);
    rig.drop_task(prompt("p")).run_until_ended("p");
    rig.drop_task(narrow("a", 400.0)).run_for(2_000);
    rig.drop_task(wide("w")).run_for(200_000);
    assert_eq!(rig.unloads(), 0, "it would wait for the other one all the same");
    rig.run_until_rest();
    assert_eq!(rig.unloads(), 1);
    assert!(started_at(&rig, "w") < rig.ended("a").at + Millis(10_000));
}

#[test]
fn a_chatbot_goes_first_and_a_task_that_can_gives_way_to_it() {
    let mut rig = Rig::new().gpus([24_576; 2]);
    (rig.times.script, rig.boundary) = (600_000, Some(5_000));
    rig.drop_task(wide("w").estimate(600.0)).run_for(20_000);
    rig.drop_task(prompt("chat").of_type("chatbot")).run_until_ended("chat");
    assert!(rig.ended("chat").at < Millis(120_000), "{}", rig.ended("chat").at);
    rig.run_until_ended("w");
    assert_eq!(
        rig.log.iter().filter(|(_, it)| matches!(it, Action::Stop { why: StopWhy::Yield, .. })).count(),
        1
    );
}

#[test]
fn idle_hosts_leave_before_it_starts() {
    let mut rig = Rig::new().gpus([24_576; 2]);
    rig.drop_tasks(["x", "y"].map(|name| whisper(name).media(10.0))).run_until_rest();
    rig.drop_task(whisper("as-wide").gpus(2).media(20.0)).run_until_rest().run_for(2_000);
    assert!(rig.is_complete("as-wide"));
    let residents: usize = rig.picture().gpus.values().map(|gpu| gpu.residents.len()).sum();
    assert_eq!(residents, 0, "its own host was for it alone");
}

#[test]
fn several_of_them_follow_the_order() {
    let mut rig = Rig::with(one_at_a_time(config())).gpus([24_576; 2]);
    rig.drop_task(narrow("a", 50.0)).run_for(2_000);
    rig.drop_tasks([wide("w1"), wide("w2"), wide("w3").priority(5)]).run_for(2_000);
    insta::assert_snapshot!(rig.why("w1"), @"it needs 2 GPUs at once, and GPUs are kept for w3 first; 1 ahead of it, in 30 min at most only chatbots, older tasks, or other job types at their turn");
    rig.run_until_rest();
    assert_eq!(rig.starts(), ["a", "w3", "w1", "w2"]);
}

proptest! {
    #![proptest_config(random(60))]

    /// However many small tasks come, and however wrong is what is said of them: what is waited for is what ran when
    /// GPUs were first kept, and what was let in until then.
    #[test]
    fn a_stream_of_small_tasks_never_keeps_it_from_starting(
        gpus in 2..4_usize,
        before in 0..5_u32,
        stream in prop::collection::vec((1..8_000_i64, 1..60_u32, 1..60_u32), 30..80),
    ) {
        let mut rig = Rig::with(one_at_a_time(config())).of_sizes(&vec![24_576; gpus]);
        let mut count = 0;
        let mut small = |truth: u32, told: u32| {
            count += 1;
            whisper(&format!("n{count}")).media(f64::from(truth) * 10.0).estimate(f64::from(told))
        };
        rig.drop_tasks((0..before).map(|n| small(10 + n * 7, 20)));
        rig.run_for(3_000);
        rig.drop_task(wide("w"));
        let dropped_at = rig.now;
        for (pause, truth, told) in stream {
            rig.run_for(pause);
            rig.drop_task(small(truth, told));
        }
        rig.run_until_rest();
        // The tasks before it, one after the other, then twice the longest: what runs, and what was let in meanwhile.
        let work: u32 = (0..before).map(|n| 10 + n * 7).sum();
        let bound = Millis::from_secs(i64::from(work + 2 * 60 + 10));
        let waited = started_at(&rig, "w") - dropped_at;
        prop_assert!(waited <= bound, "{waited} of {bound}");
    }
}

#[test]
fn chatbots_that_never_stop_keep_it_for_a_while_and_not_for_ever() {
    let mut rig = Rig::new().gpus([24_576; 2]);
    // Longer than room is kept for whom an LLM made it: by then a chatbot may have taken the other GPU.
    rig.times.boot = 80_000;
    rig.drop_task(prompt("chat").of_type("chatbot")).run_until_ended("chat");
    rig.drop_task(wide("w").estimate(20.0));
    let dropped_at = rig.now;
    for turn in 0..1_600 {
        rig.drop_task(prompt(&format!("chat{turn}")).of_type("chatbot")).run_for(1_000);
    }
    let waited = started_at(&rig, "w") - dropped_at;
    // A quarter of an hour, then what has loaded meanwhile stays twice as long as that took.
    assert!(waited < Millis::from_secs(900 + 80 + 160 + 60), "{waited}");
}

#[test]
fn what_is_reserved_for_chat_gives_way_in_the_end_also_where_one_gpu_is_kept_and_idle() {
    let mut config = config();
    config.resource_manager.eviction_policy.reserve_for_chat = 2;
    config.resource_manager.eviction_policy.min_residency_s = 0.0;
    config.fairness.ageing_s = 0.0;
    let mut rig = Rig::with(config).gpus([24_576, 12_227, 8_192]);
    rig.boundary = Some(3_000);
    rig.run_for(50);
    rig.drop_task(prompt("a").priority(1).with_model(super::make::QWEN_14B)).think();
    rig.drop_task(whisper("w").priority(1).media(31.0)).think();
    rig.drop_task(whisper("c").priority(1).gpus(2).of_type("chatbot").media(1.0)).think();
    rig.drop_task(whisper("d").priority(1).gpus(2).media(1.0)).think();
    rig.drop_task(prompt("p").priority(1).of_type("chatbot").with_model(super::make::QWEN_7B)).think();
    rig.run_until_rest();
    assert_eq!(rig.ended.len(), 5);
}

#[test]
fn an_llm_that_stays_longer_than_was_expected_goes_on_serving_while_gpus_are_kept() {
    let mut rig = Rig::new().gpus([24_576, 12_227]);
    rig.drop_task(prompt("warm")).run_until_ended("warm");
    // So many requests of late that the rule keeps the LLM: it stays as long as it may.
    for n in 0..20 {
        rig.drop_task(prompt(&format!("busy-{n}"))).run_for(2_000);
    }
    rig.drop_task(script("pair", "embed").gpus(2)).run_for(30_000);
    assert!(rig.starts().iter().all(|name| name != "pair"), "the rule keeps the LLM");
    let asked = rig.now;
    rig.drop_task(prompt("late")).run_until_ended("late");
    assert!((rig.now - asked).0 < 10_000, "it waited {} for an LLM that ran nothing", rig.now - asked);
    let waits_since = rig.now;
    rig.run_until_ended("pair");
    assert!((rig.now - waits_since).0 < 900_000);
}
