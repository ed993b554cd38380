//! What is done before anybody asks, and what was learned for it.

use model::config::ModelEntry;
use model::learned::Learned;
use model::task::GpuRequirement;
use model::{GpuState, Millis, Saying};
use proptest::prelude::*;

use super::make::{QWEN_14B, config, prompt, whisper};
use super::random::random;
use super::rig::Rig;
use crate::action::Action;
use crate::event::Event;
use crate::learn::Estimate;

const HOUR: Millis = Millis::from_secs(3_600);

/// A rig that has learned that requests come in these hours, each so many.
fn usually(hours: &[(usize, f64)]) -> Rig {
    let mut learned = Learned::default();
    let mut rates = vec![None; 24];
    for (hour, rate) in hours {
        rates[*hour] = Some(*rate);
    }
    learned.arrivals.insert("chatbot".into(), rates);
    Rig::knowing(config(), learned)
}

fn prewarms(rig: &Rig) -> Vec<Millis> {
    let prewarms = |action: &Action| matches!(action, Action::Say(Saying::Prewarms { .. }));
    rig.log.iter().filter(|(_, action)| prewarms(action)).map(|(at, _)| *at).collect()
}

#[test]
fn an_llm_is_loaded_before_the_hour_in_which_requests_are_usual() {
    let mut rig = usually(&[(9, 6.0)]).gpus([24_576]);
    rig.tell(Event::Hour { hour: 8, left: HOUR });
    let nine = rig.now + HOUR;
    rig.run_for(3_300_000);
    assert_eq!(rig.state(0), GpuState::Idle, "it is too early");
    rig.run_until("the load", |rig| rig.boots() == 1);
    // 160 s is what its load is said to take, and a minute more.
    assert_eq!(nine - rig.now, Millis::from_secs(220));
    insta::assert_snapshot!(rig.said().join("\n"), @"GPU 0: qwen2.5:14b is loaded ahead of demand: 6.0 requests are usual in the hour that begins at 9:00");
}

#[test]
fn an_idle_host_leaves_in_time_and_no_more_of_them_than_it_takes() {
    let mut rig = usually(&[(9, 6.0)]).gpus([24_576, 24_576]);
    let on = |gpu: u32| GpuRequirement::Key(gpu.to_string());
    rig.drop_tasks([whisper("a").gpu(on(0)), whisper("b").gpu(on(1))]).run_until_rest();
    rig.tell(Event::Hour { hour: 8, left: HOUR });
    let nine = rig.now + HOUR;
    rig.run_for(3_300_000);
    assert_eq!(rig.host_pids().len(), 2, "it is too early");
    rig.run_until("the load", |rig| rig.boots() == 1);
    assert_eq!(nine - rig.now, Millis::from_secs(220), "as early as without a host");
    rig.run_for(600_000);
    assert_eq!((rig.host_pids().len(), rig.boots(), prewarms(&rig).len()), (1, 1, 1));
}

#[test]
fn a_host_that_is_used_again_and_again_stays() {
    let mut rig = usually(&[(8, 6.0)]).gpus([24_576]);
    rig.tell(Event::Hour { hour: 8, left: HOUR });
    for n in 0..30 {
        rig.drop_task(whisper(&format!("w{n}"))).run_for(10_000);
    }
    assert_eq!((rig.boots(), prewarms(&rig).len(), rig.host_pids().len()), (0, 0, 1));
    rig.run_for(60_000);
    assert_eq!((rig.boots(), prewarms(&rig).len(), rig.host_pids().len()), (1, 1, 0));
}

#[test]
fn more_gpus_hold_the_model_that_is_asked_for_and_no_other() {
    const BIG: &str = "big";
    let loads = |gpus: u32| {
        let mut config = config();
        let big =
            ModelEntry { mib: Some(20_000), gpus: Some(gpus), parallel: Some(2), ..ModelEntry::default() };
        config.models.insert(BIG.into(), big);
        config.models_order.push(BIG.into());
        let mut rig = Rig::with(config);
        rig.can = super::make::can(&[QWEN_14B, BIG]);
        let mut rig = rig.gpus([24_576, 24_576, 24_576]);
        rig.times.llm = 10_000;
        for n in 0..150 {
            rig.drop_task(prompt(&format!("p{n}")).with_model(BIG)).run_for(4_000);
        }
        let loads = rig.log.iter().filter_map(|(_, action)| match action {
            Action::Engine { engine: Some(order), .. } => Some(order.model.clone()),
            _ => None,
        });
        loads.collect::<Vec<_>>()
    };
    assert_eq!(loads(1), [BIG; 3]);
    assert_eq!(loads(2), [BIG], "one GPU is left, and it takes two");
}

#[test]
fn nothing_is_loaded_ahead_where_scripts_wait_or_run_or_requests_are_rare() {
    let mut rig = usually(&[(8, 0.9)]).gpus([24_576]);
    rig.tell(Event::Hour { hour: 8, left: HOUR });
    rig.run_for(3_600_000);
    assert_eq!(rig.boots(), 0);
    let mut rig = usually(&[(8, 9.0)]).gpus([24_576]);
    rig.drop_tasks((0..3).map(|n| whisper(&format!("w{n}")).media(5_000.0)));
    rig.tell(Event::Hour { hour: 8, left: HOUR });
    rig.run_for(490_000);
    assert_eq!(rig.boots(), 0);
    let mut config = config();
    config.prediction.prewarm = false;
    let learned = usually(&[(8, 9.0)]).world.learned().clone();
    let mut rig = Rig::knowing(config, learned).gpus([24_576]);
    rig.tell(Event::Hour { hour: 8, left: HOUR });
    rig.run_for(1_000_000);
    assert_eq!(rig.boots(), 0, "it is switched off");
}

#[test]
fn an_llm_that_made_room_comes_back_once_no_script_has_waited_for_twenty_seconds() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_task(prompt("a")).run_until_ended("a");
    rig.drop_tasks((0..6).map(|n| whisper(&format!("w{n}")).media(600.0)));
    rig.run_until("room", |rig| rig.unloads() == 1).run_until_ended("w5");
    let ended = rig.now;
    rig.run_until("the LLM is back", |rig| rig.boots() == 2);
    assert!(rig.now - ended <= Millis::from_secs(20), "{}", rig.now - ended);
    rig.run_for(60_000);
    assert_eq!((rig.state(0), rig.boots()), (GpuState::LlmReady, 2));
}

#[test]
fn as_many_gpus_hold_an_llm_as_the_requests_make_use_of() {
    let busy = |scale: bool| {
        let mut config = config();
        config.prediction.scale = scale;
        let mut rig = Rig::with(config).gpus([24_576, 24_576, 24_576]);
        rig.times.llm = 10_000;
        // One each four seconds, ten seconds each, two at once: 1.25 GPUs, and twice that for good measure.
        for n in 0..200 {
            rig.drop_task(prompt(&format!("p{n}"))).run_for(4_000);
        }
        rig.boots()
    };
    assert_eq!((busy(false), busy(true)), (2, 3));
}

#[test]
fn hours_are_learned_and_half_forgotten_each_day() {
    let mut rig = Rig::new().gpus([24_576]);
    let day = |rig: &mut Rig, requests: u32, name: &str| {
        rig.tell(Event::Hour { hour: 8, left: HOUR });
        rig.drop_tasks((0..requests).map(|n| prompt(&format!("{name}-{n}")))).run_for(3_600_000);
        rig.tell(Event::Hour { hour: 9, left: HOUR });
    };
    let at_eight = |rig: &Rig| rig.world.learned().arrivals["summarization"][8].unwrap();
    day(&mut rig, 4, "monday");
    assert!((at_eight(&rig) - 4.0).abs() < 0.01, "the first is all that is known");
    day(&mut rig, 8, "tuesday");
    assert!((at_eight(&rig) - 6.0).abs() < 0.01);
    day(&mut rig, 0, "wednesday");
    assert!((at_eight(&rig) - 3.0).abs() < 0.01);
    // A clock that is set tells of an hour that nobody saw: nothing is learned of it.
    let before = rig.world.learned().arrivals.clone();
    rig.tell(Event::Hour { hour: 3, left: HOUR });
    rig.tell(Event::Hour { hour: 20, left: Millis(-5) });
    assert_eq!(rig.world.learned().arrivals, before);
    assert_eq!(rig.world.memory.requests_per_hour(20), None, "nobody knows that hour");
}

#[test]
fn what_is_usual_in_other_hours_says_nothing_about_one_that_was_never_seen() {
    let per_minute = |learned: Learned| {
        let mut rig = Rig::knowing(config(), learned).gpus([24_576]);
        rig.tell(Event::Hour { hour: 8, left: HOUR });
        for n in 0..20 {
            rig.drop_task(prompt(&format!("p{n}"))).run_for(15_000);
        }
        rig.world.requests(rig.now).per_s() * 60.0
    };
    let known = per_minute(usually(&[(3, 9.0)]).world.learned().clone());
    assert!((known - per_minute(Learned::default())).abs() < 1e-9);
    // And what is known for certain to be a silent hour is believed no longer than requests take to come.
    let silent = per_minute(usually(&[(8, 0.0)]).world.learned().clone());
    assert!(known > 2.5 && silent > known * 0.8, "{silent} a minute where {known} are thought to come");
}

#[test]
fn cold_loads_are_told_from_warm_ones_and_all_count_until_there_are_enough() {
    let mut rig = Rig::new().gpus([24_576]);
    for n in 0..4 {
        rig.times.boot = if n == 0 { 40_000 } else { 4_000 };
        rig.drop_task(prompt(&format!("p{n}"))).run_until_ended(&format!("p{n}"));
        rig.drop_tasks((0..6).map(|w| whisper(&format!("w{n}-{w}")).media(600.0)));
        rig.run_until("room", |rig| rig.unloads() == n + 1).run_until_ended(&format!("w{n}-5"));
    }
    let learned = rig.world.learned();
    assert_eq!(learned.boot_ms["ollama/qwen2.5:14b|2|cold"], [40_000]);
    assert_eq!(learned.boot_ms["ollama/qwen2.5:14b|2|warm"][..3], [4_000; 3]);
}

/// The longest of a batch come first, and those are the ones that are thought too long.
#[test]
fn a_stated_speed_holds_as_far_as_what_was_measured_is_spread() {
    let speed = |stated: Option<f64>, samples: &[f64]| {
        let mut config = config();
        config.scripts.get_mut("whisper").unwrap().speed = stated;
        let mut learned = Learned::default();
        learned.speed.insert("whisper/small.en/SIM".into(), samples.to_vec());
        let rig = Rig::knowing(config, learned);
        let task = whisper("w").task;
        let model::task::Work::Script(work) = task.work else { panic!("it is a script") };
        let host = crate::place::host_key(&rig.config, &work);
        rig.world.memory.speed_anywhere(&rig.config, &host).unwrap()
    };
    let around_1_4 = [1.0, 1.2, 1.4, 1.6, 2.0];
    assert!((speed(Some(1.0), &around_1_4) - 1.0).abs() < 1e-9, "chance and order explain that");
    assert!((speed(None, &around_1_4) - 1.4).abs() < 1e-9, "nothing else is known");
    let corrected = speed(Some(1.0), &around_1_4.map(|speed| 10.0 * speed));
    assert!((8.0..14.0).contains(&corrected), "{corrected}: what was stated is wrong");
    assert!((speed(Some(1.0), &[1.4; 5]) - 1.4).abs() < 1e-9, "all say the same");
    assert!((speed(Some(1.0), &[1.4; 2]) - 1.0).abs() < 1e-9, "two samples are none");
}

#[test]
fn what_an_earlier_version_learned_still_counts() {
    let mut learned = Learned::default();
    learned.boot_ms.insert("ollama/qwen2.5:14b".into(), vec![7_000; 3]);
    let rig = Rig::knowing(config(), learned);
    let estimate = rig.world.memory.llm_boot(&rig.config, "ollama", "qwen2.5:14b");
    assert_eq!((estimate.p50, estimate.samples), (Millis(7_000), 3));
}

#[test]
fn the_files_of_llms_are_read_while_the_last_items_of_a_batch_run() {
    let mut config = config();
    config.models.get_mut(QWEN_14B).unwrap().file = Some("/models/14b.gguf".into());
    let mut rig = Rig::with(config).gpus([24_576]);
    rig.drop_task(prompt("a")).run_until_ended("a");
    rig.drop_batch("b", model::GpuMode::Exclusive, &[100.0, 3_000.0]).run_until_ended("b.1");
    let reads = |rig: &Rig| rig.count(|action| matches!(action, Action::ReadAhead { .. }));
    assert_eq!(reads(&rig), 0, "nobody knows how much memory there is");
    rig.tell(Event::Ram(model::gpu::Ram { total_mib: 64_000, available_mib: 9_000 }));
    rig.drop_batch("c", model::GpuMode::Exclusive, &[100.0, 3_000.0]).run_until_ended("c.1");
    assert_eq!(reads(&rig), 0, "there is too little");
    rig.run_until("the LLM is back", |rig| rig.state(0) == GpuState::LlmReady);
    rig.tell(Event::Ram(model::gpu::Ram { total_mib: 64_000, available_mib: 50_000 }));
    rig.drop_batch("d", model::GpuMode::Exclusive, &[100.0, 3_000.0]).run_until_ended("d.1");
    assert_eq!(reads(&rig), 1);
}

proptest! {
    #![proptest_config(random(256))]

    #[test]
    fn one_wrong_sample_costs_a_bounded_factor(samples in prop::collection::vec(1_u64..1_000_000_000, 3..40), wrong: u64) {
        let mut memory = crate::learn::Memory::new(Learned::default());
        for ms in &samples {
            memory.ran("script/".into(), *ms, None, None, 1);
        }
        let before = memory.run_by_name("script/").unwrap();
        memory.ran("script/".into(), wrong, None, None, 1);
        let kept = &memory.learned().run_ms["script/"];
        let last = Millis(i64::try_from(*kept.last().unwrap()).unwrap());
        prop_assert!(last.0 <= before.p50.0 * 8 && last.0 * 8 >= before.p50.0 - 8);
        prop_assert!(Estimate::of(kept).is_some());
    }

    #[test]
    fn a_wrong_prediction_costs_one_load_an_hour(
        rates in prop::collection::vec(0.0_f64..100.0, 24),
        hours in prop::collection::vec((0_u8..30, 0_i64..4_000_000), 1..30),
        boots_fail: u8,
        scripts in prop::collection::vec(any::<bool>(), 30),
    ) {
        let mut learned = Learned::default();
        learned.arrivals.insert("chatbot".into(), rates.into_iter().map(Some).collect());
        let mut rig = Rig::knowing(config(), learned).gpus([24_576, 24_576]);
        rig.lenient = true;
        rig.boots_to_fail = u32::from(boots_fail);
        for (n, (hour, ms)) in hours.into_iter().enumerate() {
            rig.tell(Event::Hour { hour, left: Millis(ms) });
            // Its host stays, and leaves for the LLM.
            if scripts[n] {
                rig.drop_task(whisper(&format!("w{n}")).media(300.0));
            }
            rig.run_for(ms);
        }
        let prewarms = prewarms(&rig);
        prop_assert!(prewarms.windows(2).all(|two| two[1] - two[0] >= HOUR), "{:?}", prewarms);
        prop_assert_eq!(rig.boots(), prewarms.len(), "nothing else asked for an LLM");
    }
}
