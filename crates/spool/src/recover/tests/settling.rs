//! Every state that a death or a power cut can leave in the task folders, and where each task is afterwards.

use model::link::StopWhy;
use model::{FailureClass, TaskRecord};

use super::*;
use crate::ledger::LedgerError;

/// What a sequence that was cut short leaves, and where the task must be after recovery.
struct Case {
    cut: &'static str,
    leaves: fn(&mut House),
    expected: &'static [&'static str],
    /// Whether an attempt is left for the mind to decide on.
    open: bool,
}

const QUEUED: &[&str] = &["llm_queue/priority_3/x.json"];
const CLAIMED: &[&str] = &["processing/x.json"];
const COMPLETE: &[&str] = &["complete/x.json"];
const FAILED: &[&str] = &["failed/x.json"];

const CASES: &[Case] = &[
    Case { cut: "claim.C2", leaves: |h| h.processing("x.json", RAW), expected: QUEUED, open: false },
    Case {
        cut: "claim.C2, of a script task with a priority",
        leaves: |h| h.processing("x.json", r#"{"script": "s", "priority": 5}"#),
        expected: &["script_queue/priority_5/x.json"],
        open: false,
    },
    Case {
        cut: "claim.C2, and the name is taken by a new drop",
        leaves: |h| {
            h.processing("x.json", RAW);
            h.queue("x.json", r#"{"prompt": "other"}"#);
        },
        expected: &["llm_queue/priority_3/x-2.json", "llm_queue/priority_3/x.json"],
        open: false,
    },
    Case {
        cut: "start.T2, worker dead",
        leaves: |h| {
            h.dead(ordered(&[("x", 1, Wish::Run)]), Reports::default());
            h.processing("x.json", RAW);
        },
        expected: CLAIMED,
        open: true,
    },
    Case {
        cut: "start.T2, worker alive",
        leaves: |h| {
            h.living(ordered(&[("x", 1, Wish::Run)]), reported("x", 1, AttemptState::Running));
            h.processing("x.json", RAW);
        },
        expected: CLAIMED,
        open: true,
    },
    Case {
        cut: "start.T3 by a power cut that forgot the claim",
        leaves: |h| {
            h.dead(ordered(&[("x", 1, Wish::Run)]), Reports::default());
            h.queue("x.json", RAW);
        },
        expected: CLAIMED,
        open: true,
    },
    Case {
        cut: "a person removed the file of a running task",
        leaves: |h| h.living(ordered(&[("x", 1, Wish::Run)]), reported("x", 1, AttemptState::Running)),
        expected: CLAIMED,
        open: true,
    },
    Case {
        cut: "a person removed it and dropped another of its name",
        leaves: |h| {
            h.living(ordered(&[("x", 1, Wish::Run)]), reported("x", 1, AttemptState::Running));
            h.queue("x.json", r#"{"prompt": "other"}"#);
        },
        expected: &["llm_queue/priority_3/x.json", "processing/x.json"],
        open: true,
    },
    Case {
        cut: "start.T6",
        leaves: |h| {
            h.living(ordered(&[("x", 2, Wish::Run)]), reported("x", 2, AttemptState::Running));
            h.processing("x.json", &body("running", 2, &past(1)));
        },
        expected: CLAIMED,
        open: true,
    },
    Case {
        cut: "start.T2 of a retry: the file still holds the first end",
        leaves: |h| {
            h.dead(ordered(&[("x", 2, Wish::Run)]), Reports::default());
            h.processing("x.json", &body("failed", 1, ""));
        },
        expected: CLAIMED,
        open: true,
    },
    Case {
        cut: "finish.F1",
        leaves: |h| {
            h.dead(ordered(&[("x", 1, Wish::Run)]), reported("x", 1, AttemptState::Running));
            h.processing("x.json", RAW);
            h.outbox(&key("x", 1), &body("complete", 1, "")[..30]);
        },
        expected: CLAIMED,
        open: true,
    },
    Case {
        cut: "finish.F3",
        leaves: |h| {
            h.dead(ordered(&[("x", 1, Wish::Run)]), reported("x", 1, AttemptState::Running));
            h.processing("x.json", RAW);
            h.outbox(&key("x", 1), &body("complete", 1, ""));
        },
        expected: CLAIMED,
        open: true,
    },
    Case {
        cut: "finish.F3, orders lost",
        leaves: |h| {
            h.dead(Orders::default(), Reports::default());
            h.processing("x.json", RAW);
            h.outbox(&key("x", 1), &body("complete", 1, ""));
        },
        expected: CLAIMED,
        open: true,
    },
    Case {
        cut: "finish.F5",
        leaves: |h| {
            h.dead(ordered(&[("x", 1, Wish::Run)]), reported("x", 1, AttemptState::Ended));
            h.processing("x.json", &body("complete", 1, ""));
        },
        expected: COMPLETE,
        open: false,
    },
    Case {
        cut: "finish.F5, failed, and its worker is buried",
        leaves: |h| h.processing("x.json", &body("failed", 1, "")),
        expected: FAILED,
        open: false,
    },
    Case {
        cut: "finish.F6",
        leaves: |h| {
            h.living(ordered(&[("x", 1, Wish::Run)]), reported("x", 1, AttemptState::Ended));
            h.complete("x.json", &body("complete", 1, ""));
        },
        expected: COMPLETE,
        open: false,
    },
    Case {
        cut: "a record that was told twice",
        leaves: |h| {
            h.dead(ordered(&[("x", 1, Wish::Run)]), reported("x", 1, AttemptState::Ended));
            h.complete("x.json", &body("complete", 1, ""));
            h.outbox(&key("x", 1), &body("complete", 1, ""));
        },
        expected: COMPLETE,
        open: false,
    },
    Case {
        cut: "two different ends of one task",
        leaves: |h| {
            h.dead(ordered(&[("x", 2, Wish::Run)]), Reports::default());
            h.complete("x.json", &body("complete", 1, ""));
            h.outbox(&key("x", 2), &body("failed", 2, ""));
        },
        expected: &["complete/x.json", "failed/x.conflict.7"],
        open: false,
    },
    Case {
        cut: "requeue.R3",
        leaves: |h| {
            h.dead(ordered(&[("x", 1, Wish::Run)]), reported("x", 1, AttemptState::Ended));
            h.processing("x.json", &body("queued", 1, &past(1)));
            h.outbox(&key("x", 1), &body("failed", 1, ""));
        },
        expected: QUEUED,
        open: false,
    },
    Case {
        cut: "requeue.R4",
        leaves: |h| {
            h.dead(ordered(&[("x", 1, Wish::Run)]), reported("x", 1, AttemptState::Ended));
            h.queue("x.json", &body("queued", 1, &past(1)));
            h.outbox(&key("x", 1), &body("failed", 1, ""));
        },
        expected: QUEUED,
        open: false,
    },
    Case {
        cut: "requeue.R4 under another name, as a new drop has its own",
        leaves: |h| {
            h.dead(ordered(&[("x", 1, Wish::Run)]), reported("x", 1, AttemptState::Ended));
            h.queue("x.again-1.json", &body("queued", 1, &past(1)));
            h.queue("x.json", RAW);
        },
        expected: &["llm_queue/priority_3/x.again-1.json", "llm_queue/priority_3/x.json"],
        open: false,
    },
    Case {
        cut: "a person has put an ended task into a queue before its key was dropped",
        leaves: |h| {
            h.dead(ordered(&[("x", 1, Wish::Run)]), reported("x", 1, AttemptState::Ended));
            h.queue("x.json", &body("failed", 1, ""));
        },
        expected: QUEUED,
        open: false,
    },
    Case {
        cut: "complete and failed",
        leaves: |h| {
            h.processing("x.json", RAW);
            h.complete("x.json", &body("complete", 1, ""));
            h.put(&h.layout.failed(), "x.json", &body("failed", 1, ""));
        },
        expected: &["complete/x.json", "failed/x.dup.7", "failed/x.dup.7.2"],
        open: false,
    },
    Case {
        cut: "complete, and another end in processing",
        leaves: |h| {
            h.complete("x.json", &body("complete", 1, ""));
            h.processing("x.json", &body("failed", 1, ""));
        },
        expected: &["complete/x.json", "failed/x.conflict.7"],
        open: false,
    },
    Case {
        cut: "finish.F6 where a rename is a link and an unlink",
        leaves: |h| {
            h.processing("x.json", &body("complete", 1, ""));
            fs::hard_link(h.layout.processing().join("x.json"), h.layout.complete().join("x.json")).unwrap();
        },
        expected: COMPLETE,
        open: false,
    },
    Case {
        cut: "claim.C2 where a rename is a link and an unlink",
        leaves: |h| {
            h.dead(ordered(&[("x", 1, Wish::Run)]), Reports::default());
            h.processing("x.json", RAW);
            let queue = h.layout.queue(TaskClass::Llm, Priority::NORMAL);
            fs::hard_link(h.layout.processing().join("x.json"), queue.join("x.json")).unwrap();
        },
        expected: CLAIMED,
        open: true,
    },
];

fn set_up(case: &Case) -> House {
    let mut house = house();
    fs::write(house.layout.brain_epoch(), "7\n").unwrap();
    (case.leaves)(&mut house);
    house
}

#[test]
fn whatever_a_death_leaves_every_task_is_in_one_place_afterwards() {
    for case in CASES {
        let house = set_up(case);
        let (survey, notes) = house.recover();
        assert_eq!(house.tasks(), case.expected, "{}: {notes:?}", case.cut);
        let open = survey.workers.iter().any(|found| {
            found
                .orders
                .attempts
                .keys()
                .chain(found.reports.attempts.keys())
                .any(|key| key.task_id == task_id("x"))
        });
        assert_eq!(open, case.open, "{}: {survey:?}", case.cut);
        let (_, again) = house.recover();
        assert_eq!(
            (house.tasks(), again),
            (case.expected.iter().map(ToString::to_string).collect(), vec![]),
            "{}: again",
            case.cut
        );
    }
}

#[test]
fn recovery_may_be_killed_at_every_step_and_done_again() {
    let mut deaths = 0;
    for case in CASES {
        let points = {
            let house = set_up(case);
            crash::passed(|| drop(house.recover()))
        };
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        for point in points {
            let time = times.entry(point).or_default();
            *time += 1;
            let house = set_up(case);
            crash::at(point, *time, || drop(house.recover())).unwrap_err();
            house.recover();
            assert_eq!(house.tasks(), case.expected, "{}: killed at {point}", case.cut);
            deaths += 1;
        }
    }
    assert!(deaths >= 3 * CASES.len(), "{deaths}");
}

#[test]
fn what_is_left_to_decide_can_be_carried_out() {
    for cut in ["finish.F3", "finish.F3, orders lost"] {
        let house = set_up(CASES.iter().find(|case| case.cut == cut).unwrap());
        let (survey, _) = house.recover();
        let report = &survey.workers[0].reports.attempts[&key("x", 1)];
        assert_eq!(report.state, AttemptState::Ended, "{cut}");
        assert_eq!(report.outcome.as_ref().unwrap().failure, None);
        let mut ledger = Ledger::new(house.layout.clone(), Durability::Process);
        ledger.finish(&id("w"), &key("x", 1)).unwrap();
        assert_eq!(house.tasks(), COMPLETE, "{cut}");
        bury(&house.layout, &id("w")).unwrap();
    }
    let house = set_up(CASES.iter().find(|case| case.cut == "finish.F1").unwrap());
    let (survey, _) = house.recover();
    assert_eq!(survey.workers[0].torn, ["x.1.json"]);
    assert_eq!(survey.workers[0].reports.attempts[&key("x", 1)].state, AttemptState::Running);
    let mut ledger = Ledger::new(house.layout.clone(), Durability::Process);
    assert!(matches!(ledger.finish(&id("w"), &key("x", 1)), Err(LedgerError::NoRecord(_))));
}

#[test]
fn a_file_made_again_from_the_orders_says_what_was_ordered() {
    let cut = "a person removed the file of a running task";
    let house = set_up(CASES.iter().find(|case| case.cut == cut).unwrap());
    let (_, notes) = house.recover();
    assert_eq!(notes, [Note::Restored(task_id("x"))]);
    let record: TaskRecord =
        serde_json::from_slice(&fs::read(house.layout.processing().join("x.json")).unwrap()).unwrap();
    assert_eq!((record.prompt.as_deref(), record.attempt, record.charged), (Some("p"), Some(1), Some(1)));
    assert_eq!(record.status, Some(model::Status::Assigned));
}

#[test]
fn what_is_none_of_ours_is_left_where_it_lies() {
    let house = house();
    house.processing("notes.txt", "mine");
    house.processing("torn.json", "{\"prompt\": ");
    fs::create_dir(house.layout.processing().join("folder.json")).unwrap();
    let before = house.tasks();
    let (_, notes) = house.recover();
    assert_eq!(house.tasks(), before);
    assert_eq!(notes.len(), 3);
    assert!(
        notes.iter().all(|note| matches!(note, Note::Foreign(..)) && note.to_string().contains("left alone"))
    );
}

#[test]
fn a_living_worker_is_told_to_stop_what_has_ended() {
    let mut house = house();
    house.living(
        ordered(&[("x", 1, Wish::Run), ("y", 1, Wish::Stop)]),
        reported("x", 1, AttemptState::Running),
    );
    house.complete("x.json", &body("complete", 1, ""));
    house.processing("y.json", RAW);
    let (survey, _) = house.recover();
    let orders = &survey.workers[0].orders.attempts;
    assert_eq!(
        (orders[&key("x", 1)].wish, orders[&key("x", 1)].why),
        (Wish::Stop, Some(StopWhy::Superfluous))
    );
    assert_eq!(orders[&key("y", 1)].wish, Wish::Stop, "a stop stays a stop");
    assert_eq!(survey.workers[0].orders_epoch, 5);
}

#[test]
fn an_end_that_was_ordered_is_told_as_stopped() {
    let house = house();
    house.dead(ordered(&[("x", 1, Wish::Stop)]), reported("x", 1, AttemptState::Running));
    house.processing("x.json", RAW);
    let error = r#", "error": {"class": "cancelled", "code": "cancelled", "message": "stopped"}"#;
    house.outbox(&key("x", 1), &body("failed", 1, error));
    let outcome =
        last_words(&house.layout, &id("w")).unwrap().attempts[&key("x", 1)].outcome.clone().unwrap();
    assert!(outcome.stopped);
    assert_eq!(outcome.failure, Some(FailureClass::Cancelled));
}
