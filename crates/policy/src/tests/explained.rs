//! What would become of a task or a batch that nobody has submitted; then it is submitted, and both are compared.

use model::config::ModelEntry;
use model::explained::{BatchAsked, BatchExplained, ChatMeanwhile, Effect, Explained, Fate, Here};
use model::{BatchId, GpuMode, Priority, TaskType};

use super::foresight::experienced;
use super::make::{self, Drop, QWEN_7B, QWEN_14B, config, prompt, script, whisper};
use super::rig::{Rig, id};
use crate::{explain, explain_batch};

fn explained(rig: &Rig, drop: &Drop) -> Explained {
    let before = format!("{:?}", rig.world);
    let told = explain(&rig.world, rig.now, &drop.task, None);
    assert_eq!(format!("{:?}", rig.world), before, "nothing happens to the world");
    told
}

fn asked(name: &str, mode: GpuMode, media: &[f64]) -> BatchAsked {
    BatchAsked {
        batch_id: BatchId::new(name).unwrap(),
        task_type: TaskType::Transcribe,
        script: "whisper".into(),
        model: None,
        gpu_mode: mode,
        priority: Priority::NORMAL,
        items: media.len() as u64,
        items_of_a_part: media.len() as u64,
        with_media: media.len() as u64,
        media_s: media.iter().sum(),
        media_s_max: media.iter().copied().fold(0.0, f64::max),
    }
}

fn batch(rig: &Rig, asked: &BatchAsked) -> BatchExplained {
    explain_batch(&rig.world, rig.now, &whisper("item").media(60.0).task, asked)
}

/// What is told, then what comes, as a share of the time to the end.
fn come_true(rig: &mut Rig, drop: Drop) -> f64 {
    let name = drop.task.task_id.to_string();
    let told = explained(rig, &drop).expected.unwrap_or_else(|| panic!("nobody can say when {name} ends"));
    let asked = rig.now;
    rig.drop_task(drop).run_until_ended(&name);
    let came_s = (rig.ended(&name).at - asked).as_secs_f64();
    assert_eq!(told.place, rig.ended(&name).gpu, "{told:?}");
    (told.ends_in_s - came_s).abs() / came_s
}

#[test]
fn on_an_idle_machine_it_starts_at_once_where_nothing_runs() {
    let mut rig = experienced([24_576]);
    let told = explained(&rig, &whisper("talk").media(60.0));
    assert_eq!((told.fate, &told.reason, told.ahead), (Fate::Starts, &None, 0));
    assert_eq!((told.here, told.expected.unwrap().place.as_deref()), (Some(Here::NoOther), Some("0")));
    let off = come_true(&mut rig, whisper("talk").media(60.0));
    assert!(off < 0.02, "{off}");
    let told = explained(&rig, &script("lane", "count").gpu(model::task::GpuRequirement::None));
    assert_eq!(told.expected.unwrap().place.as_deref(), Some("cpu"));
}

#[test]
fn on_a_busy_machine_it_says_what_it_waits_for_and_that_comes_true() {
    let mut one_at_a_time =
        Rig::knowing(make::one_at_a_time(config()), experienced([24_576, 24_576]).world.learned().clone());
    one_at_a_time = one_at_a_time.gpus([24_576, 24_576]);
    let mut rig = one_at_a_time;
    rig.drop_tasks((0..6).map(|n| whisper(&format!("w{n}")).media(60.0 + 10.0 * f64::from(n))))
        .run_for(3_000);
    let told = explained(&rig, &whisper("late").media(90.0));
    assert_eq!((told.fate, told.ahead), (Fate::Waits, 4));
    assert_eq!(told.reason.unwrap().code, "waiting_for_gpu");
    assert_eq!(told.here, Some(Here::HostLoaded { script: "whisper".into() }));
    let off = come_true(&mut rig, whisper("late").media(90.0));
    assert!(off < 0.05, "{off}");
    let urgent = explained(&rig, &whisper("now").media(90.0).priority(5));
    assert_eq!(urgent.ahead, 0, "whoever is urgent goes first");
}

#[test]
fn a_prompt_without_a_model_is_told_which_one_it_gets() {
    let mut rig = experienced([24_576, 8_192]);
    rig.run_for(600_000);
    let told = explained(&rig, &prompt("hello"));
    assert_eq!(told.model.as_deref(), Some(QWEN_14B), "{told:?}");
    let loads = Some(Here::LlmLoads { model: QWEN_14B.into() });
    assert!(told.here == loads || told.here == Some(Here::LlmLoaded { model: QWEN_14B.into() }), "{told:?}");
    let mut fresh = Rig::new().gpus([24_576, 24_576]);
    fresh.run_for(1_000);
    assert_eq!(explained(&fresh, &prompt("hello")).here, loads, "nothing is loaded yet");
    let small = explained(&rig, &prompt("hello").with_model(QWEN_7B));
    assert_eq!(small.model.as_deref(), Some(QWEN_7B));
    let off = come_true(&mut rig, prompt("hello"));
    assert!(off < 0.05, "{off}");
    let nobody = explained(&rig, &prompt("hello").with_model("llama9"));
    assert_eq!((nobody.expected, nobody.model), (None, None));
}

#[test]
fn an_llm_that_would_make_room_is_named_with_its_requests() {
    let mut rig = experienced([24_576]);
    rig.drop_task(prompt("p").with_model(QWEN_7B)).run_until_ended("p");
    rig.run_for(900_000);
    let told = explained(&rig, &whisper("w").media(60.0));
    let leaves = |effect: &Effect| matches!(effect, Effect::LlmLeaves { gpu, running: 0, .. } if gpu == "0");
    assert!(told.effects.iter().any(leaves), "{told:?}");
    assert_eq!(told.fate, Fate::Waits);
    let off = come_true(&mut rig, whisper("w").media(60.0));
    assert!(off < 0.15, "{off}");
}

#[test]
fn a_script_that_gives_way_to_a_chatbot_is_named() {
    let mut rig = experienced([24_576]);
    rig.boundary = Some(1_000);
    rig.drop_task(whisper("long").media(6_000.0).vram(23_000)).run_for(5_000);
    let told = explained(&rig, &prompt("hello").of_type("chatbot"));
    let expected =
        Effect::GivesWay { task: id("long"), job_type: "process".into(), batch: None, gpu: "0".into() };
    assert_eq!(told.effects, [expected]);
    assert!(told.expected.as_ref().unwrap().starts_in_s < 30.0, "{told:?}");
    let patient = explained(&rig, &prompt("hello"));
    assert_eq!(patient.effects, []);
    assert!(patient.expected.unwrap().starts_in_s > 500.0);
}

#[test]
fn an_exclusive_batch_holds_it_back_and_a_chatbot_borrows() {
    let mut rig = experienced([24_576, 24_576]);
    rig.drop_batch("zim", GpuMode::Exclusive, &[120.0; 60]).run_for(3_000);
    let told = explained(&rig, &prompt("held"));
    let held = told.held_by.expect("an exclusive batch");
    assert_eq!((held.batch.as_str(), held.remaining), ("zim", 60));
    assert!(told.expected.unwrap().starts_in_s >= held.ends_in_s.unwrap());
    let chat = explained(&rig, &prompt("hello").of_type("chatbot"));
    assert_eq!(chat.held_by, None);
    let lent = |effect: &Effect| matches!(effect, Effect::Lent { batch, .. } if batch.as_str() == "zim");
    assert!(chat.effects.iter().any(lent), "{chat:?}");
}

#[test]
fn what_never_fits_is_said_to_wait_or_to_be_refused() {
    let rig = experienced([24_576]);
    let huge = whisper("huge").vram(80_000);
    let told = explained(&rig, &huge);
    assert_eq!((told.fate, told.expected, told.effects.len()), (Fate::CannotRun, None, 0));
    assert_eq!(told.reason.unwrap().code, "does_not_fit");
    let mut strict = config();
    strict.strict = true;
    let mut rig = Rig::with(strict).gpus([24_576]);
    rig.run_until_rest();
    let told = explained(&rig, &huge);
    assert_eq!(told.fate, Fate::Refused);
    assert!(told.reason.unwrap().text.contains("80000 MiB"));
}

#[test]
fn an_exclusive_batch_is_told_to_its_end_and_what_it_takes() {
    let mut rig = experienced([24_576, 24_576]);
    rig.drop_tasks((0..4).map(|n| prompt(&format!("p{n}")))).run_until_rest();
    let media: Vec<f64> = (0..60).map(|n| 60.0 + 5.0 * f64::from(n % 3)).collect();
    let told = batch(&rig, &asked("talks", GpuMode::Auto, &media));
    assert!(told.exclusive && told.exclusive_from == 50 && !told.is_a_guess);
    assert_eq!(told.gpus, ["0", "1"]);
    assert!(told.takes_llms_in_use, "prompts came moments ago: {told:?}");
    assert!(!told.leaves.is_empty(), "{} {told:?}", rig.describe());
    assert!(
        matches!(told.chat, ChatMeanwhile::Within { within_s } if within_s > 5.0 && within_s < 20.0),
        "{told:?}"
    );
    let (one, all) = (told.on_one.unwrap().ends_in_s, told.on_all.unwrap().ends_in_s);
    assert!(one > 1.5 * all, "one GPU takes {one} s, two take {all} s");

    let asked = rig.now;
    rig.drop_batch("talks", GpuMode::Auto, &media);
    rig.run_until("its end", |rig| rig.world.batches.is_empty());
    let (came_s, told_s) = ((rig.now - asked).as_secs_f64(), told.expected.unwrap().ends_in_s);
    assert!((told_s - came_s).abs() / came_s < 0.1, "told {told_s} s, came {came_s} s");
    for leaves in &told.leaves {
        let back_s = leaves.back_in_s.expect("it comes back");
        assert!(back_s > told_s && back_s < told_s + 20.0, "{leaves:?}");
    }
    let first = told.leaves[0].gpu.parse().unwrap();
    rig.run_until("its LLM is back", |rig| rig.state(first) == model::GpuState::LlmReady);
    let came_s = (rig.now - asked).as_secs_f64();
    let told_s = told.leaves[0].back_in_s.unwrap();
    assert!((told_s - came_s).abs() / came_s < 0.2, "told {told_s} s, came {came_s} s");
}

#[test]
fn a_small_batch_shares_and_leaves_the_llms_alone() {
    let mut rig = experienced([24_576, 24_576]);
    rig.drop_task(prompt("p")).run_until_rest();
    let told = batch(&rig, &asked("two", GpuMode::Auto, &[60.0, 60.0]));
    assert!(!told.exclusive && told.leaves.is_empty() && !told.takes_llms_in_use, "{told:?}");
    assert_eq!(told.chat, ChatMeanwhile::AsBefore);
    let parts = BatchAsked { items_of_a_part: 40, ..asked("many", GpuMode::Auto, &[60.0; 120]) };
    assert!(!batch(&rig, &parts).exclusive, "parts of 40 are not 50");
}

#[test]
fn chat_that_is_not_admitted_waits_and_llms_that_nobody_uses_are_not_missed() {
    let mut literal = config();
    literal.resource_manager.batch_settings.exclusive_admits_chat = false;
    let mut rig = Rig::with(literal).gpus([24_576]);
    rig.drop_task(prompt("p")).run_until_rest().run_for(2_000_000);
    let told = batch(&rig, &asked("talks", GpuMode::Exclusive, &[60.0; 9]));
    assert_eq!(told.chat, ChatMeanwhile::Waits);
    assert!(told.is_a_guess, "no transcription has ever run");
    assert!(!told.takes_llms_in_use, "the last prompt is half an hour old: {told:?}");
    assert!(told.llm_asked_s_ago.unwrap() > 1_900.0);
}

#[test]
fn a_batch_of_very_many_items_is_told_at_its_rate() {
    let rig = experienced([24_576]);
    let told = batch(&rig, &asked("all", GpuMode::Exclusive, &vec![60.0; 22_000]));
    let end_s = told.expected.unwrap().ends_in_s;
    let by_hand_s = 22_000.0 / 11.0 * 6.0;
    assert!((end_s / by_hand_s - 1.0).abs() < 0.05, "{end_s} s, by hand {by_hand_s} s");
}

/// What is told of a task: its fate, where, why there, and its reason.
fn in_words(rig: &Rig, drop: &Drop) -> String {
    let told = explained(rig, drop);
    let because = told.here.as_ref().map(|here| format!(", because {here}")).unwrap_or_default();
    let place = told.place().map(|place| format!(" on {place}")).unwrap_or_default();
    let reason = told.reason.map(|reason| format!(": {}", reason.text)).unwrap_or_default();
    format!("{:?}{place}{because}{reason}", told.fate)
}

#[test]
fn of_a_task_that_needs_several_gpus_all_are_named() {
    let two = script("two", "embed").gpus(2);
    let mut rig = Rig::new().gpus([24_576, 24_576, 24_576]);
    rig.run_for(1_000);
    let mut told = vec![in_words(&rig, &two)];
    let key = model::task::GpuRequirement::Key("1".into());
    told.push(in_words(&rig, &script("first", "embed").gpus(2).gpu(key)));
    told.push(in_words(&rig, &script("four", "embed").gpus(4)));
    let mut rig = Rig::new().gpus([24_576, 24_576]);
    rig.run_for(1_000);
    told.push(in_words(&rig, &two));
    rig.drop_task(whisper("w").media(600.0)).run_for(3_000);
    told.push(in_words(&rig, &two));
    insta::assert_snapshot!(told.join("\n"), @r"
    Starts on GPU 0 and 1, because nothing runs there
    Starts on GPU 0 and 1, because nothing runs there
    CannotRun: it needs 4 GPUs at once, and 3 of the 3 GPUs here can be had for it
    Starts on GPU 0 and 1, because no other GPU could run it
    Waits on GPU 0 and 1, because no other GPU could run it: it needs 2 GPUs at once: GPU 0 and 1 are kept for it, expected free in 43 s with the end of w; until then only what ends before starts there, or what goes before it, chatbots among that for another 15 min at most
    ");
}

#[test]
fn of_a_prompt_all_gpus_of_its_llm_are_named_and_one_that_asks_for_more_is_told_so() {
    let mut rig = only_over_two([24_576, 24_576, 24_576]);
    rig.run_for(1_000);
    let mut told = vec![in_words(&rig, &prompt("hello"))];
    rig.drop_task(prompt("before")).run_until_rest();
    told.push(in_words(&rig, &prompt("hello")));
    told.push(in_words(&rig, &prompt("hello").gpus(3)));
    let mut rig = experienced([24_576, 24_576]);
    rig.drop_task(prompt("before").with_model(QWEN_7B)).run_until_rest();
    told.push(in_words(&rig, &prompt("hello").with_model(QWEN_7B).gpus(2)));
    told.push(in_words(&rig, &prompt("hello").gpus(2)));
    insta::assert_snapshot!(told.join("\n"), @r"
    Waits on GPU 0 and 1, because llama:70b loads there: llama:70b is booting on GPU 0, expected ready in 120 s
    Starts on GPU 0 and 1, because llama:70b is loaded there
    CannotRun: no engine can serve it: it asks for 3 GPUs, and an LLM that is loaded for it has 2; leave `gpus` out to take it, or see `models.<name>.gpus` in config.json
    CannotRun: no engine can serve it: it asks for 2 GPUs, and an LLM that is loaded for it has 1; leave `gpus` out to take it, or see `models.<name>.gpus` in config.json
    CannotRun: no engine can serve it: it asks for 2 GPUs, and an LLM that is loaded for it has 1; leave `gpus` out to take it, or see `models.<name>.gpus` in config.json
    ");
}

/// A machine whose only LLM is spread over two GPUs.
fn only_over_two<const N: usize>(gpus: [u64; N]) -> Rig {
    let mut config = config();
    let big = ModelEntry { mib: Some(40_000), gpus: Some(2), parallel: Some(2), ..ModelEntry::default() };
    config.models = [("llama:70b".to_owned(), big)].into();
    config.models_order.clear();
    let mut rig = Rig::with(config);
    rig.can = make::can(&["llama:70b"]);
    rig.gpus(gpus)
}

#[test]
fn an_llm_of_two_gpus_makes_room_once_and_no_chatbot_is_promised_one() {
    let mut rig = only_over_two([24_576, 24_576]);
    rig.drop_task(prompt("before")).run_until_rest();
    let told = batch(&rig, &asked("talks", GpuMode::Exclusive, &[60.0; 60]));
    let leaves: Vec<_> = told.leaves.iter().map(|leaves| (leaves.gpu.as_str(), &*leaves.model)).collect();
    assert_eq!((leaves, told.chat), (vec![("0", "llama:70b")], ChatMeanwhile::WaitsForSeveral));
    let ends_s = told.expected.unwrap().ends_in_s;
    assert!(told.leaves[0].back_in_s.is_some_and(|back_s| back_s >= ends_s), "when both are free");
    // It comes true: nothing answers before the end.
    rig.drop_batch("talks", GpuMode::Exclusive, &[60.0; 60]).run_for(3_000);
    rig.drop_task(prompt("chat").of_type("chatbot")).run_until_ended("chat");
    assert!(rig.world.batches.is_empty());
}
