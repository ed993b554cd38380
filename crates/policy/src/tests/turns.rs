//! Turns of job types by themselves: shares, limits, absence, and starts that came to nothing.

use model::Millis;
use model::config::{Fairness, JobType};
use model::learned::Grants;
use model::task::CHATBOT;
use proptest::prelude::*;

use super::random::random;

use crate::order::Arrival;
use crate::turn::Turns;

const NOW: Arrival = Arrival { since: Millis(0), order: 0 };

fn fairness(types: &[(u32, Option<u32>)]) -> Fairness {
    let named = types.iter().enumerate().map(|(n, (weight, max_consecutive))| {
        (format!("type-{n}"), JobType { weight: *weight, max_consecutive: *max_consecutive, yields: true })
    });
    Fairness { job_types: named.collect(), ..Fairness::default() }
}

/// Grants so many turns among these, all of which wait all the time.
fn sequence(turns: &Turns, grants: &mut Grants, types: &[&str], count: usize) -> Vec<String> {
    let next = |grants: &mut Grants| {
        let next = turns.next(grants, types.iter().map(|job_type| (*job_type, NOW))).expect("one of them");
        turns.grant(grants, next);
        next.to_owned()
    };
    (0..count).map(|_| next(grants)).collect()
}

fn letters(sequence: &[String]) -> String {
    sequence.iter().map(|job_type| job_type.chars().next().expect("a name").to_ascii_uppercase()).collect()
}

const BOTH: [&str; 2] = ["summarization", "transcription"];

#[test]
fn seventy_and_thirty_are_two_to_one_with_the_limits_and_seven_to_three_without() {
    let shipped = Fairness::default();
    let with_limits = sequence(&Turns::new(&shipped), &mut Grants::default(), &BOTH, 300);
    assert_eq!(letters(&with_limits), "TTS".repeat(100));
    let mut free = shipped;
    free.job_types.values_mut().for_each(|job_type| job_type.max_consecutive = None);
    let without = sequence(&Turns::new(&free), &mut Grants::default(), &BOTH, 300);
    assert_eq!(letters(&without), "TTSTTSTTTS".repeat(30));
}

#[test]
fn a_type_that_comes_back_has_hoarded_nothing() {
    let mut free = Fairness::default();
    free.job_types.values_mut().for_each(|job_type| job_type.max_consecutive = None);
    let turns = Turns::new(&free);
    let mut grants = Grants::default();
    sequence(&turns, &mut grants, &["transcription"], 1_000);
    // It is next, once, and then has its share.
    assert_eq!(letters(&sequence(&turns, &mut grants, &BOTH, 11)), "STTSTTSTTTS");
    sequence(&turns, &mut grants, &["summarization"], 1_000);
    let back = letters(&sequence(&turns, &mut grants, &BOTH, 20));
    assert!(back.starts_with("TTTS"), "{back}");
    assert!((13..=15).contains(&back.matches('T').count()), "{back}");
}

#[test]
fn limits_do_not_pile_up_credit() {
    let mut limited = Fairness::default();
    let turns = Turns::new(&limited);
    let mut grants = Grants::default();
    sequence(&turns, &mut grants, &BOTH, 3_000);
    // Transcription was held to two thirds for a long time; with the limits lifted it gets seven of ten, and no more.
    limited.job_types.values_mut().for_each(|job_type| job_type.max_consecutive = None);
    let after = sequence(&Turns::new(&limited), &mut grants, &BOTH, 100);
    assert!((69..=71).contains(&letters(&after).matches('T').count()), "{}", letters(&after));
}

#[test]
fn chatbots_count_for_nobody() {
    let turns = Turns::new(&Fairness::default());
    let mut grants = Grants::default();
    sequence(&turns, &mut grants, &BOTH, 2);
    let before = grants.clone();
    turns.grant(&mut grants, CHATBOT);
    assert_eq!((&grants.pass, &grants.last, grants.in_a_row), (&before.pass, &before.last, 2));
    assert_eq!(grants.total[CHATBOT], 1);
    assert_eq!(letters(&sequence(&turns, &mut grants, &BOTH, 3)), "STT");
}

#[test]
fn the_book_stays_small_whatever_job_types_are_called() {
    let turns = Turns::new(&Fairness::default());
    let mut grants = Grants::default();
    for n in 0..10_000 {
        turns.grant(&mut grants, &format!("word-{n}"));
    }
    assert!(grants.total.len() <= 256 && grants.pass.len() <= 256 && grants.earlier.len() <= 8);
}

#[test]
fn a_book_that_somebody_wrote_nonsense_into_still_gives_turns() {
    let turns = Turns::new(&Fairness::default());
    let mut grants = Grants { in_a_row: u32::MAX, last: Some("transcription".into()), ..Grants::default() };
    grants.pass.insert("transcription".into(), u64::MAX);
    grants.total.insert("transcription".into(), u64::MAX);
    assert_eq!(letters(&sequence(&turns, &mut grants, &BOTH, 7)), "STTSTTS");
}

fn types() -> impl Strategy<Value = Vec<(u32, Option<u32>)>> {
    prop::collection::vec((1..200_u32, prop::option::of(1..4_u32)), 2..6)
}

proptest! {
    #![proptest_config(random(256))]

    /// Never less than its share, rounded down; exactly its share whenever the weights add up.
    #[test]
    fn shares_are_kept_all_along(weights in prop::collection::vec(1..40_u32, 2..6)) {
        let free: Vec<_> = weights.iter().map(|weight| (*weight, None)).collect();
        let fairness = fairness(&free);
        let names: Vec<&str> = fairness.job_types.keys().map(String::as_str).collect();
        let whole: u32 = weights.iter().sum();
        let starts = sequence(&Turns::new(&fairness), &mut Grants::default(), &names, 2 * whole as usize);
        for (name, weight) in names.iter().zip(&weights) {
            let mut had = 0_u32;
            for (n, start) in (1_u32..).zip(&starts) {
                had += u32::from(start == name);
                prop_assert!(had >= n * weight / whole, "{name}: {had} of {n}");
                if n % whole == 0 {
                    prop_assert_eq!(had, n / whole * weight);
                }
            }
        }
    }

    /// While another type waits no limit is broken, and nobody waits longer than by the weights it could.
    #[test]
    fn limits_hold_and_nobody_starves(types in types()) {
        let fairness = fairness(&types);
        let names: Vec<&str> = fairness.job_types.keys().map(String::as_str).collect();
        let starts = sequence(&Turns::new(&fairness), &mut Grants::default(), &names, 400);
        for (name, (weight, limit)) in names.iter().zip(&types) {
            let most: u32 = types.iter().map(|(other, _)| other / weight + 2).sum();
            let runs = starts.chunk_by(|one, next| (one == name) == (next == name));
            for run in runs {
                let limit = if run[0] == *name { limit.unwrap_or(u32::MAX) } else { most };
                prop_assert!(run.len() <= limit as usize, "{name}: {} in a row", run.len());
            }
        }
    }

    /// A start that came to nothing leaves the run as if it had not been, wherever it was in it.
    #[test]
    fn a_start_that_came_to_nothing_is_taken_out(steps in prop::collection::vec((0..3_u8, any::<bool>()), 1..30)) {
        let turns = Turns::new(&Fairness::default());
        let names = ["summarization", "transcription", "embed"];
        let mut grants = Grants::default();
        let mut starts: Vec<&str> = Vec::new();
        for (which, undo) in steps {
            let name = names[usize::from(which)];
            let at = starts.iter().rposition(|start| *start == name).filter(|_| undo);
            // Only the last few runs are kept.
            if let Some(at) = at.filter(|at| starts.len() - at < 6) {
                starts.remove(at);
                turns.give_back(&mut grants, name);
            } else {
                starts.push(name);
                turns.grant(&mut grants, name);
            }
            let run = starts.chunk_by(|one, next| one == next).last();
            let run = run.map(|run| (run[0], run.len() as u32));
            let kept = grants.last.as_deref().map(|last| (last, grants.in_a_row));
            prop_assert!(kept == run || starts.len() > 6, "{:?} of {:?}", kept, starts);
            for name in names {
                let count = starts.iter().filter(|start| **start == name).count() as u64;
                prop_assert_eq!(grants.total.get(name).copied().unwrap_or_default(), count);
            }
        }
    }
}
