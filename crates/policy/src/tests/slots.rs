//! Several scripts on one GPU, by its memory; and the machine's memory, which keeps them from starting.

use model::config::{RamWaitOver, VramAccounting};
use model::gpu::{Ram, Reading};
use model::task::GpuRequirement;
use model::{Config, FailureClass, GpuState, GpuUuid, Saying};
use proptest::prelude::*;

use super::make::{Drop, config, prompt, script, whisper};
use super::random::random;
use super::rig::{Rig, id};
use crate::Event;
use crate::action::Action;

/// The two cards of the seed's document.
const CARDS: [u64; 2] = [12_227, 8_192];

/// The seed's figures: 3,000 MiB a job, 2,000 MiB headroom.
fn seed_5() -> Rig {
    let mut config = config();
    config.scripts.get_mut("whisper").unwrap().vram_mib = Some(3_000);
    config.retry.backoff_s = vec![30.0];
    let mut rig = Rig::with(config);
    rig.times.script = 60_000;
    rig.gpus(CARDS).named(&["RTX 5070 Ti", "RTX 2080 Super"])
}

fn used(rig: &Rig) -> [(u32, Option<u32>); 2] {
    let picture = rig.picture();
    ["0", "1"].map(|key| (picture.gpus[key].slots_used, picture.gpus[key].slots_max))
}

fn jobs(range: std::ops::Range<usize>) -> impl Iterator<Item = Drop> {
    range.map(|n| whisper(&format!("job{n}")))
}

#[test]
fn seed_5_five_concurrent_jobs() {
    let mut rig = seed_5();
    rig.drop_tasks(jobs(0..6)).run_until("five run", |rig| used(rig) == [(3, Some(3)), (2, Some(2))]);
    rig.run_for(2_000);
    assert_eq!(rig.starts().len(), 5, "the sixth waits");
    insta::assert_snapshot!(rig.why("job5"), @"every GPU that could run it is busy; 0 ahead of it");
    // A crash gives its slot back, and the sixth takes it.
    rig.end_now("job0", Some(FailureClass::Crash)).run_for(100);
    assert!(rig.starts().contains(&"job5".to_owned()));
    assert_eq!(used(&rig), [(3, Some(3)), (2, Some(2))]);
    // So does a cancellation.
    rig.drop_tasks(jobs(6..7)).run_for(100);
    rig.tell(Event::CancelAsked { task_id: id("job3") });
    rig.run_for(500);
    assert!(rig.ended.contains_key(&id("job3")) && !rig.is_complete("job3"));
    assert_eq!(used(&rig), [(3, Some(3)), (2, Some(2))]);
    rig.run_until_rest();
    assert_eq!(rig.ended.len(), 7);
    assert_eq!(used(&rig), [(0, Some(3)), (0, Some(2))]);
}

#[test]
fn what_is_said_of_slots_in_the_words_of_the_seed() {
    let mut rig = seed_5();
    rig.drop_tasks(jobs(0..6)).run_until("five run", |rig| used(rig)[0].0 + used(rig)[1].0 == 5);
    rig.run_until_ended("job0").run_for(10);
    rig.tell(Event::CancelAsked { task_id: id("job5") });
    rig.tell(Event::Ram(Ram { total_mib: 32_768, available_mib: 3_277 }));
    rig.run_until_ended("job5").drop_task(whisper("late")).run_until_ended("late");
    insta::assert_snapshot!(rig.lines().join("\n"));
    let of = |what: fn(&Saying) -> bool| {
        let says = |action: &Action| matches!(action, Action::Say(saying) if what(saying));
        rig.count(says)
    };
    assert_eq!(of(|saying| matches!(saying, Saying::AllSlots { .. })), 1);
    assert_eq!(of(|saying| matches!(saying, Saying::RamLow { .. })), 1);
}

#[test]
fn declared_accounting_is_the_seed_s_fixed_slots_and_reads_nothing() {
    let mut config = config();
    config.resource_manager.vram_accounting = VramAccounting::Declared;
    let mut rig = Rig::with(config).gpus(CARDS);
    rig.times.script = 60_000;
    // Nobody knows what `embed` needs, and `whisper` says 2,000: both are counted with 3,000.
    rig.drop_tasks((0..3).map(|n| script(&format!("e{n}"), "embed")));
    rig.drop_tasks(jobs(0..3)).run_for(20_000);
    assert_eq!(rig.starts().len(), 5);
    assert_eq!(used(&rig), [(3, Some(3)), (2, Some(2))]);
}

#[test]
fn what_nobody_knows_the_need_of_is_alone_and_so_is_everything_on_an_unmeasured_gpu() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.times.script = 60_000;
    rig.drop_tasks([script("a", "embed"), script("b", "embed"), whisper("c")]).run_for(30_000);
    assert_eq!(rig.starts(), ["a"]);
    let mut rig = Rig::new().gpus([24_576]).unmeasured();
    rig.times.script = 60_000;
    rig.drop_tasks(jobs(0..3)).run_for(30_000);
    assert_eq!(rig.starts(), ["job0"]);
    assert_eq!(rig.picture().gpus["0"].slots_max, Some(1));
}

#[test]
fn different_scripts_share_a_card_and_idle_hosts_leave_for_one_that_needs_their_room() {
    let mut rig = Rig::new().gpus([12_227]);
    rig.drop_tasks([whisper("a"), whisper("b").with_model("large-v3"), whisper("c")]).run_for(1_500);
    assert_eq!(rig.starts().len(), 3);
    rig.run_until_rest();
    assert_eq!(rig.picture().gpus["0"].residents.len(), 3);
    rig.drop_task(whisper("d").with_model("huge").vram(9_000)).run_until_ended("d");
    assert_eq!(rig.picture().gpus["0"].residents.len(), 1, "all three had to go");
}

#[test]
fn a_large_need_waits_for_its_card_and_small_ones_behind_it_do_not_keep_it_waiting() {
    let mut rig = Rig::new().gpus([12_227]);
    rig.times.script = 10_000;
    rig.drop_tasks(jobs(0..5)).run_for(3_000);
    rig.drop_task(whisper("large").with_model("huge").vram(11_000).priority(4));
    rig.drop_tasks(jobs(5..20)).run_until_ended("large");
    let starts = rig.starts();
    let place = starts.iter().position(|name| name == "large").unwrap();
    assert_eq!(place, 5, "what ran ended, and then it had the card: {starts:?}");
}

#[test]
fn the_smallest_card_that_will_do_and_an_idle_one_before_a_shared_one() {
    let mut rig = Rig::new().gpus([24_576, 8_192, 12_227]);
    rig.times.script = 60_000;
    rig.drop_tasks(jobs(0..3)).run_for(5_000);
    let on = |rig: &Rig| ["0", "1", "2"].map(|key| rig.picture().gpus[key].slots_used);
    assert_eq!(on(&rig), [1, 1, 1]);
    // With a large need in the queue, its only card stays free.
    let mut rig = Rig::new().gpus([24_576, 8_192]);
    rig.times.script = 60_000;
    let later = whisper("large").with_model("huge").vram(20_000).priority(1);
    rig.drop_task(later).drop_tasks(jobs(0..2)).run_for(5_000);
    assert_eq!(rig.starts(), ["job0", "job1", "large"]);
    assert_eq!((rig.picture().gpus["0"].slots_used, rig.picture().gpus["1"].slots_used), (1, 2));
}

#[test]
fn a_script_runs_beside_a_ready_llm_where_that_is_wanted_and_fits() {
    for (colocates, mib, runs) in [(true, 24_576, true), (true, 12_227, false), (false, 24_576, false)] {
        let mut config = config();
        config.resource_manager.colocate_scripts = colocates;
        let mut rig = Rig::with(config).gpus([mib]);
        rig.drop_task(prompt("a")).run_until_ended("a");
        rig.times.llm = 30_000;
        rig.drop_task(prompt("b")).run_for(100);
        rig.drop_task(whisper("beside")).run_for(5_000);
        assert_eq!(rig.starts().contains(&"beside".to_owned()), runs, "{colocates} {mib}");
        assert_eq!(rig.state(0), GpuState::LlmBusy, "the state is that of the LLM");
        let accepts = &rig.picture().gpus["0"].accepts;
        assert_eq!(accepts.contains(&model::TaskClass::Script), runs, "{accepts:?}");
        rig.run_until_rest();
        assert_eq!(rig.unloads() > 0, !runs);
    }
}

#[test]
fn idle_hosts_beside_an_llm_leave_for_another_script_and_the_llm_is_not_one_of_them() {
    let mut config = config();
    config.resource_manager.colocate_scripts = true;
    let mut rig = Rig::with(config).gpus([24_576]);
    rig.drop_task(prompt("a")).run_until_ended("a");
    rig.drop_tasks((0..4).map(|n| whisper(&format!("w{n}")).vram(3_000))).run_until_rest();
    assert_eq!(rig.picture().gpus["0"].residents.len(), 5, "the LLM and four hosts");
    rig.drop_task(script("other", "embed").vram(1_500)).run_until_ended("other");
    assert_eq!(rig.unloads(), 0);
}

fn measured(rig: &mut Rig, used_mib: u64, hosts: &[(u32, u64)]) {
    let processes = hosts.iter().map(|(pid, mib)| (*pid, Some(*mib))).collect();
    let uuid = GpuUuid::new("SIM-0").unwrap();
    rig.tell(Event::Read(Reading { uuid, used_mib: Some(used_mib), processes, lost: false }));
}

#[test]
fn what_programs_of_others_hold_is_taken_from_the_slots() {
    let mut rig = Rig::new().gpus([12_227]).measured();
    rig.times.script = 60_000;
    measured(&mut rig, 5_000, &[]);
    rig.drop_tasks(jobs(0..5)).run_for(3_000);
    assert_eq!(rig.starts().len(), 2, "12,227 − 2,000 − 5,000 is room for two of 2,000");
}

#[test]
fn a_host_that_uses_more_than_it_was_counted_with_counts_by_what_was_measured_and_is_told_once() {
    let mut rig = Rig::new().gpus([12_227]).measured();
    rig.times.script = 60_000;
    rig.drop_task(whisper("a")).run_until("it runs", |rig| rig.state(0) == GpuState::ScriptBusy);
    let pid = rig.host_pids()[0];
    for _ in 0..3 {
        rig.run_for(1_000);
        measured(&mut rig, 4_300, &[(pid, 4_000)]);
    }
    rig.drop_tasks(jobs(0..5)).run_for(20_000);
    assert_eq!(
        rig.starts().len(),
        2,
        "two of 4,000 beside 300 of others and the headroom, not five of 2,000"
    );
    let says = |action: &Action| matches!(action, Action::Say(Saying::OverItsNeed { .. }));
    assert_eq!(rig.count(says), 1);
    assert_eq!(rig.world.learned().vram_mib["whisper/small.en"].iter().max(), Some(&4_000));
}

#[test]
fn out_of_memory_beside_others_counts_for_more_and_alone_asks_for_a_larger_card() {
    let mut rig = Rig::new().gpus([8_192]);
    rig.config.retry.backoff_s = vec![0.0];
    rig.outcomes.insert("job0".into(), std::collections::VecDeque::from([Some(FailureClass::Oom)]));
    rig.drop_tasks(jobs(0..3)).run_until_rest();
    assert_eq!(rig.world.learned().vram_mib["whisper/small.en"], [2_500]);
    assert!(rig.is_complete("job0"));

    let mut rig = Rig::new().gpus([8_192, 24_576]);
    rig.outcomes.insert("big".into(), std::collections::VecDeque::from([Some(FailureClass::Oom)]));
    rig.drop_task(script("big", "embed").gpu(GpuRequirement::Any)).run_until_ended("big");
    assert_eq!(rig.ended("big").gpu.as_deref(), Some("1"));

    // Where the larger one goes meanwhile, or is not for scripts, the smaller one has another try.
    let mut rig = Rig::new().gpus([8_192, 24_576]);
    rig.outcomes.insert("big".into(), std::collections::VecDeque::from([Some(FailureClass::Oom)]));
    rig.drop_task(script("big", "embed")).run_until("it runs", |rig| rig.state(0) == GpuState::ScriptBusy);
    rig.drop_task(script("long", "embed").gpu(GpuRequirement::Key("1".into()))).hang.push("long".into());
    rig.run_for(10_000);
    assert!(!rig.ended.contains_key(&id("big")), "{:?} {:?}", rig.lines(), rig.ended);
    assert_eq!(rig.why("big").code(), "waiting_for_gpu");
    let mut inventory = rig.inventory();
    inventory.gpus.pop();
    rig.tell(Event::Inventory(inventory));
    rig.run_until_ended("big");
    assert_eq!(rig.ended("big").gpu.as_deref(), Some("0"));
}

fn ram(available_mib: u64) -> Event {
    Event::Ram(Ram { total_mib: 32_768, available_mib })
}

#[test]
fn scripts_wait_for_memory_and_start_when_it_is_back() {
    let mut rig = seed_5();
    rig.tell(ram(3_000));
    rig.drop_task(whisper("a")).drop_task(script("lane", "count").gpu(GpuRequirement::None)).run_for(60_000);
    assert!(rig.starts().is_empty(), "the CPU lane waits as well");
    insta::assert_snapshot!(rig.why("a"), @"the machine has 3000 MiB of memory available for 60 s now, and no script starts below 4000 MiB (`min_system_ram_mb`)");
    assert_eq!(rig.why("lane").code(), "ram_low");
    rig.drop_task(prompt("b")).run_until_ended("b");
    rig.tell(ram(4_000));
    rig.run_until_ended("a").run_until_ended("lane");
}

#[test]
fn after_the_wait_one_goes_on_when_nothing_of_ours_could_give_memory_back() {
    let mut rig = seed_5();
    rig.drop_task(whisper("runs")).run_until("it runs", |rig| rig.starts().len() == 1);
    rig.tell(ram(1_000));
    rig.drop_tasks(["a", "b"].map(whisper)).run_until_ended("runs");
    // It ended within the wait; the second has a wait of its own.
    rig.run_until("the first goes on", |rig| rig.starts().len() == 2);
    let first = rig.now;
    rig.run_for(200_000);
    assert_eq!(rig.starts().len(), 2);
    rig.run_until("the second goes on", |rig| rig.starts().len() == 3);
    assert_eq!((rig.now - first).0, 300_000);
    let says = |action: &Action| matches!(action, Action::Say(Saying::RamWaitOver { .. }));
    assert_eq!(rig.count(says), 2);
}

#[test]
fn by_the_seed_s_literal_rule_each_goes_on_after_its_wait() {
    let mut config = config();
    config.resource_manager.ram_wait_over = RamWaitOver::Proceed;
    let mut rig = Rig::with(config).gpus([24_576]);
    rig.times.script = 3_000_000;
    rig.tell(ram(1_000));
    rig.drop_tasks(["a", "b"].map(whisper)).run_until("both", |rig| rig.starts().len() == 2);
    assert_eq!((rig.now.0 - 1_000) / 1_000, 600);
}

#[test]
fn starts_that_were_not_seen_in_the_memory_yet_count_with_what_they_should_take() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.times.script = 60_000;
    rig.tell(ram(6_100));
    rig.drop_tasks(jobs(0..6)).run_for(1_000);
    assert_eq!(rig.starts().len(), 3, "6,100, 5,076 and 4,052 are enough, 3,028 is not");
    rig.run_for(5_000);
    assert_eq!(rig.starts().len(), 6, "no reading came: they took nothing");
}

#[test]
fn a_larger_card_that_is_read_as_lost_is_waited_for_no_more() {
    let mut rig = Rig::new().gpus([8_192, 24_576]);
    rig.outcomes.insert("big".into(), std::collections::VecDeque::from([Some(FailureClass::Oom)]));
    rig.drop_task(script("big", "embed")).run_until("it runs", |rig| rig.state(0) == GpuState::ScriptBusy);
    rig.drop_task(script("long", "embed").gpu(GpuRequirement::Key("1".into()))).hang.push("long".into());
    rig.run_for(10_000);
    assert!(!rig.ended.contains_key(&id("big")), "it waits for the larger one");
    let uuid = GpuUuid::new("SIM-1").unwrap();
    rig.tell(Event::Read(Reading { uuid, used_mib: None, processes: Vec::new(), lost: true }));
    rig.run_until_ended("big");
    assert_eq!(rig.ended("big").gpu.as_deref(), Some("0"));
}

#[test]
fn what_a_workers_orders_say_of_its_hosts_is_not_said_again() {
    let mut rig = Rig::new().gpus([24_576]);
    rig.drop_task(whisper("first")).run_until_rest();
    rig.drop_tasks((0..3).map(|n| whisper(&format!("next-{n}")))).run_until_rest();
    rig.drop_task(whisper("large").with_model("large-v3")).run_until_rest();
    rig.drop_tasks((0..9).map(|n| whisper(&format!("last-{n}")))).run_until_rest();
    let orders = rig.log.iter().filter_map(|(_, action)| match action {
        Action::Hosts { hosts, .. } => Some(hosts),
        _ => None,
    });
    let orders: Vec<_> = orders.collect();
    assert!(orders.len() >= 3, "{orders:?}");
    assert!(orders.windows(2).all(|pair| pair[0] != pair[1]), "{orders:?}");
}

#[test]
fn beside_an_llm_idle_hosts_leave_for_another_script_and_the_llm_is_none_of_them() {
    let mut config = config();
    config.resource_manager.colocate_scripts = true;
    let mut rig = Rig::with(config).gpus([24_576]);
    rig.drop_task(prompt("p")).run_until_ended("p");
    rig.drop_tasks((0..6).map(|n| whisper(&format!("small-{n}")))).run_until_rest();
    rig.drop_task(whisper("large").with_model("large-v3")).run_until_ended("large");
    let hosts = rig.log.iter().rev().find_map(|(_, action)| match action {
        Action::Hosts { hosts, .. } => Some(hosts.clone()),
        _ => None,
    });
    let kept: Vec<(Option<String>, u32)> =
        hosts.unwrap().into_iter().map(|order| (order.model, order.count)).collect();
    assert_eq!(
        kept,
        [(Some("small.en".into()), 5), (Some("large-v3".into()), 1)],
        "12,576 MiB are six hosts"
    );
    assert_eq!(rig.unloads(), 0);
}

#[test]
fn while_memory_is_short_two_kinds_of_hosts_do_not_send_each_other_away_for_ever() {
    let mut config = config();
    config.resource_manager.vram_accounting = VramAccounting::Declared;
    let mut rig = Rig::with(config).gpus([8_192]);
    rig.drop_tasks((0..2).map(|n| whisper(&format!("before-{n}")))).run_until_rest();
    rig.tell(ram(500));
    rig.drop_tasks((0..2).map(|n| whisper(&format!("large-{n}")).with_model("large-v3").priority(5)));
    rig.drop_tasks((0..3).map(|n| whisper(&format!("small-{n}")))).run_for(60_000);
    rig.tell(ram(30_000));
    rig.run_until_rest();
    assert_eq!(rig.ended.len(), 7);
}

#[test]
fn hosts_that_could_not_be_ordered_are_not_believed_to_be_there() {
    let mut config = config();
    config.resource_manager.vram_accounting = VramAccounting::Declared;
    let mut rig = Rig::with(config).gpus([8_192]);
    rig.run_for(1_000);
    rig.full = 1;
    rig.drop_tasks((0..6).map(|n| whisper(&format!("w{n}")))).run_until_rest();
    assert_eq!(rig.ended.len(), 6);
    let most = rig.log.iter().filter_map(|(_, action)| match action {
        Action::Hosts { hosts, .. } => Some(hosts.iter().map(|order| order.count).sum::<u32>()),
        _ => None,
    });
    assert_eq!(most.max(), Some(2), "two units of 3,000 MiB have room beside the headroom");
}

/// What is never granted: more than the card has, or, where it is shared, more than it has less headroom and others.
fn granted_fits(rig: &Rig, cards: &[u64], foreign: u64) -> Result<(), TestCaseError> {
    for (index, total) in cards.iter().enumerate() {
        let (needs, count) = rig.granted(index);
        let room = if count > 1 { total.saturating_sub(2_000 + foreign) } else { *total };
        prop_assert!(needs <= room, "GPU {index}: {needs} MiB granted of {room}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(random(64))]

    #[test]
    fn granted_memory_fits_whatever_the_cards_and_needs(
        cards in prop::collection::vec(2_000_u64..50_000, 1..4),
        needs in prop::collection::vec((500_u64..20_000, 1_u8..=5, 0..3_usize), 1..25),
        foreign in 0_u64..4_000,
        ooms in prop::collection::btree_set(0..25_usize, 0..3),
    ) {
        let mut rig = Rig::with(Config { retry: model::config::Retry { max_attempts: 3, backoff_s: vec![0.0] }, ..config() });
        rig.times.script = 5_000;
        let mut rig = rig.of_sizes(&cards).measured();
        for index in 0..cards.len() {
            let uuid = GpuUuid::new(format!("SIM-{index}")).unwrap();
            rig.tell(Event::Read(Reading { uuid, used_mib: Some(foreign), processes: Vec::new(), lost: false }));
        }
        let largest = cards.iter().max().unwrap().saturating_sub(foreign);
        let mut count = 0;
        for (n, (mib, priority, kind)) in needs.iter().enumerate() {
            if *mib > largest {
                continue;
            }
            let name = format!("t{n}");
            if ooms.contains(&n) {
                rig.outcomes.insert(name.clone(), std::collections::VecDeque::from([Some(FailureClass::Oom)]));
            }
            let drop = match kind {
                0 => script(&name, "embed"),
                1 => whisper(&name),
                _ => whisper(&name).with_model("large-v3"),
            };
            rig.drop_task(drop.vram(*mib).priority(*priority));
            count += 1;
        }
        for _ in 0..40 {
            rig.run_for(997);
            granted_fits(&rig, &cards, foreign)?;
        }
        rig.run_until_rest();
        prop_assert_eq!(rig.ended.len(), count);
    }
}

#[test]
fn an_unmeasured_machine_says_one_slot() {
    let mut rig = Rig::new().gpus([24_576]).unmeasured();
    rig.think();
    let said = rig.lines();
    assert!(
        said.contains(&"INFO: Resource manager initialized: 1 total slots across 1 GPUs".to_owned()),
        "{said:?}"
    );
}

/// The two cards with an LLM on each, one of which takes so much longer to leave.
fn both_with_an_llm(learned: model::learned::Learned) -> Rig {
    let mut config = config();
    config.scripts.get_mut("whisper").unwrap().vram_mib = Some(3_000);
    let mut rig = Rig::knowing(config, learned).gpus(CARDS).named(&["RTX 5070 Ti", "RTX 2080 Super"]);
    for gpu in ["0", "1"] {
        rig.drop_task(
            prompt(&format!("p{gpu}")).with_model(super::make::QWEN_7B).gpu(GpuRequirement::Key(gpu.into())),
        );
    }
    rig.run_until_rest().run_for(30_000);
    rig
}

fn on_the_small_one(rig: &Rig) -> Vec<String> {
    let started = rig.log.iter().filter_map(|(_, action)| match action {
        Action::Start { worker, task, .. } if rig.gpu_key(worker).as_deref() == Some("1") => {
            Some(task.task_id.to_string())
        }
        _ => None,
    });
    started.filter(|task| task.starts_with("b.")).collect()
}

const LENGTHS: [f64; 7] = [100.0, 900.0, 300.0, 800.0, 200.0, 700.0, 400.0];

#[test]
fn the_longest_items_of_a_batch_go_to_the_large_gpu_though_the_small_one_is_free_a_moment_sooner() {
    let mut rig = both_with_an_llm(model::learned::Learned::default());
    rig.drop_batch("b", model::GpuMode::Exclusive, &LENGTHS);
    rig.run_until("five run", |rig| rig.starts().len() == 2 + 5);
    assert_eq!(on_the_small_one(&rig), ["b.6", "b.2"], "900, 800 and 700 s went to the large one");
    rig.run_until_rest();
}

#[test]
fn where_the_small_gpu_is_known_to_be_faster_it_gets_the_longest() {
    let mut learned = model::learned::Learned::default();
    for (gpu, speed) in [("RTX 5070 Ti", 5.0), ("RTX 2080 Super", 9.0)] {
        learned.speed.insert(format!("whisper/small.en/{gpu}"), vec![speed; 3]);
    }
    let mut rig = both_with_an_llm(learned);
    rig.drop_batch("b", model::GpuMode::Exclusive, &LENGTHS);
    rig.run_until("five run", |rig| rig.starts().len() == 2 + 5);
    assert_eq!(on_the_small_one(&rig), ["b.1", "b.3"]);
    rig.run_until_rest();
}
