//! When an LLM makes room for scripts by what they gain and requests lose: the formula by hand, and the stories behind it.

use model::{GpuState, Millis, TaskClass};

use super::evictions::facts;
use super::make::{QWEN_7B, QWEN_14B, config, prompt, script, whisper};
use super::rig::Rig;
use crate::evict::cost_benefit::{AGED, erlang_c, keep, waiting};
use crate::evict::{CostBenefit, EvictionFacts, Judge, Keeping, Ruling};
use crate::plan_by;
use crate::rate::Rate;

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 0.01 * expected.abs().max(0.01), "{found} is not {expected}");
}

/// Ten scripts of 45 s; a reload of 120 s; a request of 10 s each minute.
fn ten_scripts(script_gpus: u64, llms: u64) -> EvictionFacts {
    let mut facts = facts(10, 0, llms, 45, 120);
    facts.scripts.total_time = Millis::from_secs(450);
    facts.script_gpus = script_gpus;
    facts.ready_llms = llms;
    facts.requests = Rate::exactly(1.0 / 60.0);
    facts.since_request = Some(Millis::from_secs(1));
    facts
}

fn numbers(facts: &EvictionFacts) -> (f64, f64) {
    match CostBenefit.rule(facts) {
        Ruling::Evict(eviction) => (eviction.benefit_s, eviction.cost_s),
        Ruling::Keep(Keeping { benefit_s, cost_s, .. }) => (benefit_s, cost_s),
    }
}

#[test]
fn erlangs_formula_by_hand() {
    near(erlang_c(1, 0.5), 0.5);
    near(erlang_c(2, 1.0), 1.0 / 3.0);
    near(erlang_c(3, 2.0), 4.0 / 9.0);
    near(waiting(2, 0.1, 10.0).unwrap(), 10.0 / 3.0);
    assert_eq!(waiting(0, 0.1, 10.0), None);
    assert_eq!(waiting(1, 0.1, 10.0), None, "as much comes as is served");
}

#[test]
fn benefit_and_cost_by_hand() {
    // One GPU serves them: 10 · (450/2 − 450/4 − 10). One LLM is left: h = 225 + 125, C(1, 1/6) = 1/6, a wait of 2 s.
    let (benefit, cost) = numbers(&ten_scripts(1, 2));
    near(benefit, 1_025.0);
    near(cost, 10.0 * (350.0 / 60.0) * 2.0);
    // Nobody serves them, and no LLM is left: 10 · (120 + 225) against 455 s in which each waits for a script and the
    // load, 45 + 120, and the load itself, in which each waits for half of it.
    let (benefit, cost) = numbers(&ten_scripts(0, 1));
    near(benefit, 3_450.0);
    near(cost, 10.0 * (455.0 * 165.0 + 120.0 * 60.0) / 60.0);
    // What they have waited is added where nobody serves them.
    let mut facts = ten_scripts(0, 1);
    facts.scripts.waited = Millis::from_secs(600);
    near(numbers(&facts).0, 4_050.0);
}

#[test]
fn as_many_llms_stay_as_the_chat_keeps_busy() {
    let keeps = |per_s: f64, since_s: i64, slots: u64| {
        let mut facts = ten_scripts(1, 3);
        facts.requests = Rate::exactly(per_s);
        facts.since_request = Some(Millis::from_secs(since_s));
        facts.llm_slots = slots;
        keep(&facts, &facts.candidates[0])
    };
    assert_eq!(keeps(0.125, 5, 1), 2, "1.25 GPUs of requests");
    assert_eq!(keeps(0.125, 5, 2), 1, "each serves two at once");
    assert_eq!(keeps(1.0 / 60.0, 899, 1), 1);
    assert_eq!(keeps(1.0 / 60.0, 900, 1), 0, "none came of late");
    assert_eq!(keeps(1.0 / 600.0, 5, 1), 0, "none is expected before it could be back");
    let mut facts = ten_scripts(1, 2);
    facts.requests = Rate::exactly(0.125);
    assert!(matches!(CostBenefit.rule(&facts), Ruling::Keep(_)), "two are needed");
    facts.ready_llms = 4;
    assert!(matches!(CostBenefit.rule(&facts), Ruling::Evict(_)));
}

#[test]
fn an_llm_that_is_hardly_used_goes_and_the_sentence_says_why() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_task(prompt("a")).run_until_ended("a");
    rig.drop_tasks((0..6).map(|n| whisper(&format!("w{n}")).media(600.0)));
    rig.run_for(5_000);
    insta::assert_snapshot!(rig.why("w0"), @"qwen2.5:14b on GPU 0 was loaded moments ago and stays for 14 s more at least");
    rig.run_until("room", |rig| rig.unloads() == 1);
    let said = "GPU 0: qwen2.5:14b makes room for 6 waiting scripts, w0 first, by cost_benefit: unloading it saves them ";
    assert!(rig.said()[0].starts_with(said), "{:?}", rig.said());
    rig.run_until_ended("w5");
    let evictions = rig.said().iter().filter(|said| said.contains("makes room")).count();
    assert_eq!(evictions, 1, "it is said once: {:?}", rig.said());
}

/// One GPU, whose LLM has answered once a minute and then been idle for so long, when so many scripts come.
fn first_script_waits(idle_s: i64, scripts: usize) -> Millis {
    let mut rig = Rig::new().gpus([24_576]);
    rig.times.llm = 5_000;
    rig.times.script = 45_000;
    for n in 0..10 {
        rig.drop_task(prompt(&format!("p{n}")).of_type("chatbot")).run_for(60_000);
    }
    rig.run_for((idle_s - 60) * 1_000);
    let since = rig.now;
    rig.drop_tasks((0..scripts).map(|n| script(&format!("s{n}"), "embed")));
    rig.run_until("a script runs", |rig| rig.state(0) == GpuState::ScriptBusy);
    rig.now - since
}

#[test]
fn scripts_on_the_only_gpu_start_within_tens_of_seconds_where_the_chat_has_gone_quiet() {
    for (idle_s, scripts) in [(300, 5), (300, 20), (600, 1), (600, 5), (800, 1)] {
        let waits = first_script_waits(idle_s, scripts);
        assert!(waits <= Millis::from_secs(40), "{scripts} scripts, idle for {idle_s} s: {waits}");
    }
    // A person who has asked a moment ago is likely to ask again.
    let waits = first_script_waits(60, 5);
    assert!(waits > Millis::from_secs(60), "{waits}");
}

#[test]
fn scripts_beside_a_chat_that_never_rests_wait_to_the_bound_and_no_longer() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.times.llm = 2_000;
    rig.drop_task(prompt("first")).run_until_ended("first");
    rig.drop_task(script("patient", "embed"));
    let since = rig.now;
    for n in 0..400 {
        rig.drop_task(prompt(&format!("p{n}"))).run_for(3_000);
    }
    let waited = rig.ended("patient").at - since;
    assert!(waited > Millis::from_secs(60), "{waited}");
    assert!(waited <= AGED + Millis::from_secs(20), "{waited}");
}

#[test]
fn what_is_reserved_for_chat_stays_while_another_gpu_serves_the_scripts() {
    let mut config = config();
    config.resource_manager.eviction_policy.reserve_for_chat = 1;
    let mut rig = Rig::with(config).gpus([24_576, 24_576]);
    rig.drop_task(prompt("a")).run_until_ended("a");
    rig.drop_tasks((0..80).map(|n| whisper(&format!("w{n}")).media(600.0))).run_for(3_600_000);
    assert_eq!((rig.state(0), rig.unloads()), (GpuState::LlmReady, 0));
    // An exclusive batch has it all the same.
    rig.drop_batch("b", model::GpuMode::Exclusive, &[10.0, 10.0]).run_until("room", |rig| rig.unloads() == 1);
}

#[test]
fn scripts_that_nobody_else_serves_get_a_reserved_gpu_in_the_end() {
    let mut config = config();
    config.resource_manager.eviction_policy.reserve_for_chat = 1;
    let mut rig = Rig::with(config).gpus([24_576]);
    rig.drop_task(prompt("a")).run_until_ended("a").run_for(60_000);
    let since = rig.now;
    rig.drop_task(whisper("w")).run_for(1_000);
    insta::assert_snapshot!(rig.why("w"), @"`reserve_for_chat` keeps 1 GPUs with an LLM, and no more than that have one; one goes in 14m at the latest");
    rig.run_until("room", |rig| rig.unloads() == 1);
    assert_eq!(rig.now - since, AGED);
    rig.run_until_ended("w");
}

#[test]
fn room_that_was_made_is_kept_for_whom_it_was_made() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.times.unload = 5_000;
    rig.drop_task(prompt("a")).run_until_ended("a");
    rig.drop_tasks((0..6).map(|n| whisper(&format!("w{n}")).media(600.0)));
    rig.run_until("room is made", |rig| rig.unloads() == 1);
    rig.drop_task(prompt("pushes").priority(5)).run_until_ended("w0");
    assert_eq!(rig.starts()[1], "w0");
    rig.run_until_ended("pushes");
}

#[test]
fn the_llm_with_the_least_credit_for_its_memory_goes() {
    let mut rig = Rig::new().gpus([24_576, 24_576]);
    rig.drop_task(prompt("big").with_model(QWEN_14B)).drop_task(prompt("small").with_model(QWEN_7B));
    rig.run_until_rest().run_for(30_000);
    let model = |rig: &Rig, gpu: &str| rig.picture().gpus[gpu].model.clone().unwrap_or_default();
    assert_eq!((model(&rig, "0").as_str(), model(&rig, "1").as_str()), (QWEN_14B, QWEN_7B));
    // 160 s for 10,000 MiB are less than 120 s for 5,600.
    rig.times.script = 60_000;
    rig.drop_tasks((0..8).map(|n| script(&format!("s{n}"), "embed")))
        .run_until("room", |rig| rig.unloads() > 0);
    assert!(rig.said()[0].starts_with("GPU 0: qwen2.5:14b makes room"), "{:?}", rig.said());
}

#[test]
fn an_llm_stays_where_the_scripts_that_wait_would_not_fit() {
    let mut rig = Rig::new().gpus([24_576, 8_192]);
    rig.drop_task(prompt("s").with_model(QWEN_7B).gpu(model::task::GpuRequirement::Key("1".into())));
    rig.run_until_rest();
    rig.times.script = 600_000;
    rig.drop_tasks((0..20).map(|n| script(&format!("l{n}"), "embed").vram(20_000))).run_for(1_200_000);
    assert_eq!((rig.state(1), rig.unloads()), (GpuState::LlmReady, 0));
}

#[test]
fn a_judge_can_be_brought_along() {
    struct Always;
    impl Judge for Always {
        fn rule(&self, facts: &EvictionFacts) -> Ruling {
            Ruling::evict(0, "always", facts.scripts.total_time.as_secs_f64(), 0.0)
        }
    }
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_task(prompt("a")).run_until_ended("a").run_for(25_000);
    rig.drop_task(whisper("w"));
    let unloads = |plan: crate::Plan| {
        plan.actions
            .iter()
            .filter(|action| matches!(action, crate::Action::Engine { engine: None, .. }))
            .count()
    };
    assert_eq!(unloads(crate::plan(&rig.world, rig.now)), 0);
    assert_eq!(unloads(plan_by(&rig.world, rig.now, &Always)), 1);
    assert_eq!(rig.picture().queues[&TaskClass::Script].waiting, 1);
}
