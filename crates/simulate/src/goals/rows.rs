//! The lines of the table, goal by goal, with the limits that the specification names.

use super::batch_model::{Gpus, LLM_LOAD_S, SIMPLE};
use super::makespan::{Case, Mix, Trial, TrialError};
use super::online::{Asks, DAYS, DayCase, DayTrial};
use super::trials::{mean, p95, trials};
use super::turns::{Rules, turns, wrong_tens, wrong_triples};
use super::{Effort, Row};
use crate::mind::Mind;

/// The minds of a day, ours first. One that never makes room would leave every script waiting: its place takes the best
/// fixed number of GPUs for scripts.
const MINDS: [Mind; 5] = [Mind::Ours, Mind::Thresholds, Mind::Always, Mind::SkiRental, Mind::Fifo];
/// GPUs of a machine.
const SIZES: [usize; 2] = [3, 5];

/// Every line. `wanted` chooses goals by name.
///
/// # Errors
/// When something was not done, or a law was broken: then no figure says anything.
pub fn rows(effort: Effort, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Row>, TrialError> {
    let mut rows = Vec::new();
    let mut first_llm: f64 = 0.0;
    if wanted("M") {
        for gpus in SIZES {
            let (row, first) = alike(gpus, effort)?;
            rows.push(row);
            first_llm = first_llm.max(first);
        }
        for gpus in SIZES {
            for mix in Mix::UNEQUAL {
                let (more, first) = unequal(gpus, mix, effort)?;
                rows.extend(more);
                first_llm = first_llm.max(first);
            }
        }
        for gpus in SIZES {
            for mix in Mix::UNEQUAL {
                rows.push(in_turn(gpus, mix, effort)?);
            }
        }
        for mix in [Mix::Constant].into_iter().chain(Mix::UNEQUAL) {
            rows.push(slots(mix, effort)?);
        }
        rows.push(Row {
            goal: "M5",
            workload: "all of M1 and M2".into(),
            measure: "first GPU drained to first LLM usable, longest, s",
            bound: format!("{LLM_LOAD_S} s load"),
            ours: first_llm,
            limit: LLM_LOAD_S + 10.0,
            seed: None,
            simple: Vec::new(),
        });
    }
    if wanted("E1") {
        for asks in [Asks::Tasks, Asks::Chat] {
            rows.extend(days(asks, effort)?);
        }
    }
    if wanted("E2") {
        rows.extend(taking_turns()?);
    }
    Ok(rows)
}

/// A line about makespans, each divided by its bound.
fn of_trials(goal: &'static str, case: &Case, found: &[Trial], limit: f64) -> Row {
    let simple = SIMPLE.iter().enumerate().filter(|(_, policy)| {
        // What needs several loads at once is no policy where there is one at a time.
        case.in_turn == (policy.name == "longest, one load at a time")
    });
    Row {
        goal,
        workload: case.name(),
        measure: if case.in_turn { "makespan / bound, one load at a time" } else { "makespan / bound" },
        bound: format!("{:.2} min", mean(found.iter().map(|trial| trial.bound)) / 60.0),
        ours: mean(found.iter().map(|trial| trial.ours / trial.bound)),
        limit,
        seed: Some(mean(found.iter().map(|trial| trial.seed / trial.bound))),
        simple: simple
            .map(|(at, policy)| (policy.name, mean(found.iter().map(|trial| trial.simple[at] / trial.bound))))
            .collect(),
    }
}

fn longest_first_llm(found: &[Trial]) -> f64 {
    found.iter().map(|trial| trial.first_llm).fold(0.0, f64::max)
}

fn alike(gpus: usize, effort: Effort) -> Result<(Row, f64), TrialError> {
    let case = Case::alike(gpus, Mix::Constant, false);
    let found = trials(effort.from, 1, effort.threads, |seed| case.trial(seed))?;
    Ok((of_trials("M1", &case, &found, 1.02), longest_first_llm(&found)))
}

fn unequal(gpus: usize, mix: Mix, effort: Effort) -> Result<(Vec<Row>, f64), TrialError> {
    let case = Case::alike(gpus, mix, false);
    let found = trials(effort.from, effort.batches, effort.threads, |seed| case.trial(seed))?;
    let whole = of_trials("M2", &case, &found, 1.03);
    let ratio = |of: &dyn Fn(&Trial) -> f64| p95(found.iter().map(|trial| of(trial) / trial.bound));
    let tail = Row {
        measure: "makespan / bound, 95 of 100",
        ours: ratio(&|trial| trial.ours),
        limit: 1.05,
        seed: Some(ratio(&|trial| trial.seed)),
        simple: whole
            .simple
            .iter()
            .enumerate()
            .map(|(at, (name, _))| (*name, ratio(&|trial| trial.simple[at])))
            .collect(),
        ..whole.clone()
    };
    let of_seed = mean(found.iter().map(|trial| trial.seed));
    let against = Row {
        measure: "makespan / the seed's",
        bound: format!("{:.2} min", of_seed / 60.0),
        ours: mean(found.iter().map(|trial| trial.ours)) / of_seed,
        limit: if gpus == 3 { 0.75 } else { 0.60 },
        seed: Some(1.0),
        simple: whole
            .simple
            .iter()
            .enumerate()
            .map(|(at, (name, _))| (*name, mean(found.iter().map(|trial| trial.simple[at])) / of_seed))
            .collect(),
        ..whole.clone()
    };
    Ok((vec![whole, tail, against], longest_first_llm(&found)))
}

fn in_turn(gpus: usize, mix: Mix, effort: Effort) -> Result<Row, TrialError> {
    let case = Case::alike(gpus, mix, true);
    let found = trials(effort.from, effort.batches, effort.threads, |seed| case.trial(seed))?;
    Ok(of_trials("M3", &case, &found, 1.05))
}

/// The seed's two cards: three items at once, and two at 0.6 of the speed.
fn slots(mix: Mix, effort: Effort) -> Result<Row, TrialError> {
    let case = Case { gpus: Gpus(vec![(3, 1.0), (2, 0.6)]), mix, in_turn: false };
    let count = if mix == Mix::Constant { 1 } else { effort.batches };
    let found = trials(effort.from, count, effort.threads, |seed| case.trial(seed))?;
    Ok(of_trials("M4", &case, &found, 1.02))
}

/// A line for each day and size, and one for all of them.
fn days(asks: Asks, effort: Effort) -> Result<Vec<Row>, TrialError> {
    let mut rows = Vec::new();
    let measure = match asks {
        Asks::Tasks => "total wait / foresight's",
        Asks::Chat => "total wait, chat x10 / foresight's",
    };
    for day in DAYS {
        for gpus in SIZES {
            let case = DayCase { day, gpus, asks, hours: effort.hours };
            let found = trials(effort.from, effort.days, effort.threads, |seed| case.trial(seed, &MINDS))?;
            rows.extend(of_days(&case, measure, &found));
        }
    }
    let all = rows.iter().filter(|row| row.measure == measure);
    rows.push(Row {
        goal: "E1",
        workload: "all of them".into(),
        measure,
        bound: "mean".into(),
        ours: mean(all.clone().map(|row| row.ours)),
        limit: 1.12,
        seed: Some(mean(all.filter_map(|row| row.seed))),
        simple: Vec::new(),
    });
    Ok(rows)
}

fn of_days(case: &DayCase, measure: &'static str, found: &[DayTrial]) -> [Row; 2] {
    let of = |value: &dyn Fn(&DayTrial) -> f64| mean(found.iter().map(value));
    let under = |mind: Mind| {
        of(&|trial| {
            let it = trial.minds.iter().find(|(of, _)| *of == mind);
            it.map_or(f64::NAN, |(_, hours)| *hours)
        })
    };
    let foresight = of(&|trial| trial.foresight);
    let (ours, seed) = (under(Mind::Ours), under(Mind::Thresholds));
    let simple = vec![
        ("always", under(Mind::Always) / foresight),
        ("ski rental", under(Mind::SkiRental) / foresight),
        ("fifo", under(Mind::Fifo) / foresight),
        ("best fixed split", of(&|trial| trial.best_static) / foresight),
    ];
    let against_foresight = Row {
        goal: "E1",
        workload: case.name(),
        measure,
        bound: format!("{foresight:.2} h; alone {:.2} h", of(&|trial| trial.bound)),
        ours: ours / foresight,
        limit: 1.25,
        seed: Some(seed / foresight),
        simple,
    };
    let against_seed = Row {
        measure: "total wait / the seed's",
        bound: format!("{seed:.2} h"),
        ours: ours / seed,
        limit: 1.0,
        seed: Some(1.0),
        simple: Vec::new(),
        ..against_foresight.clone()
    };
    [against_foresight, against_seed]
}

fn taking_turns() -> Result<Vec<Row>, TrialError> {
    const SEED: u64 = 1;
    /// What a worker and two logs take beside the work.
    const SLACK_S: f64 = 1.0;
    let run = |rules, boundary, mind| turns(rules, boundary, mind, SEED);
    let limits = run(Rules::Limits, None, Mind::Ours)?;
    let shares = run(Rules::SharesAlone, None, Mind::Ours)?;
    let yields = run(Rules::Limits, Some(10.0), Mind::Ours)?;
    let fifo = run(Rules::Limits, None, Mind::Fifo)?;
    #[expect(clippy::cast_precision_loss, reason = "some hundred starts")]
    let row = |measure, order: &str, ours: usize, other: usize| Row {
        goal: "E2",
        workload: "T and S always wait, chats come".into(),
        measure,
        bound: format!("exact {}", order.get(..20).unwrap_or(order)).trim_end().to_owned(),
        ours: ours as f64,
        limit: 0.0,
        seed: None,
        simple: vec![("fifo", other as f64)],
    };
    let waits = |measure, bound_s: f64, ours| Row {
        goal: "E2",
        workload: "T and S always wait, chats come".into(),
        measure,
        bound: format!("{bound_s} s"),
        ours,
        limit: bound_s + SLACK_S,
        seed: None,
        simple: vec![("fifo", fifo.chat.p99)],
    };
    Ok(vec![
        row(
            "limits: triples that are not T T S",
            &limits.order,
            wrong_triples(&limits.order),
            wrong_triples(&fifo.order),
        ),
        row(
            "no limits: tens that are not 7 and 3",
            &shares.order,
            wrong_tens(&shares.order),
            wrong_tens(&fifo.order),
        ),
        row(
            "chats that were passed over",
            "",
            limits.passed_over + shares.passed_over + yields.passed_over,
            fifo.passed_over,
        ),
        waits("chat p99, next release, s", 45.0, limits.chat.p99),
        waits("chat p99, boundaries of 10 s, s", 10.0, yields.chat.p99),
    ])
}
