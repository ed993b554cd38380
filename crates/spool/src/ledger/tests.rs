//! Stories of tasks on their way through the folders, and of deaths at every step.

use std::fs;
use std::time::{Duration, Instant};

use model::config::Config;
use model::fault::Code;
use model::task::{IdClaim, PastAttempt, TaskError};
use model::validate::{Folder as Folders, task_of};
use model::{Entry, FailureClass, Priority, Status, Task, TaskClass, WorkerId};

use super::*;
use crate::{crash, find};

struct House {
    _dir: tempfile::TempDir,
    layout: Layout,
    ledger: Ledger,
}

fn house() -> House {
    let dir = crate::rig::folder();
    let layout = Layout::new(dir.path());
    layout.create().unwrap();
    let ledger = Ledger::new(layout.clone(), Durability::Process);
    fs::create_dir_all(layout.outbox(&worker())).unwrap();
    House { _dir: dir, layout, ledger }
}

fn worker() -> WorkerId {
    WorkerId::new("w1").unwrap()
}

fn id(text: &str) -> TaskId {
    TaskId::new(text).unwrap()
}

fn key(text: &str, attempt: u32) -> AttemptKey {
    AttemptKey { task_id: id(text), attempt }
}

fn entry(name: &str) -> Entry {
    Entry { class: TaskClass::Llm, priority: Priority::NORMAL, name: format!("{name}.json") }
}

fn record(json: serde_json::Value) -> TaskRecord {
    serde_json::from_value(json).unwrap()
}

fn submission(stem: &str, demand: bool) -> Submission {
    let body = Box::new(record(serde_json::json!({"prompt": format!("say {stem}")})));
    Submission { class: TaskClass::Llm, priority: Priority::NORMAL, stem: id(stem), demand, body }
}

impl House {
    fn drop_file(&self, entry: &Entry, text: &str) {
        fs::write(self.layout.entry(entry), text).unwrap();
    }
    fn read(&self, entry: &Entry) -> Task {
        let bytes = fs::read(self.layout.entry(entry)).unwrap();
        let stem = entry.name.strip_suffix(".json").unwrap();
        let place = Folders { class: entry.class, priority: entry.priority, stem, fresh: &fresh_id() };
        task_of(&bytes, &place, &Config::default()).unwrap()
    }
    /// Drops a file and claims it.
    fn take(&mut self, entry: &Entry, text: &str) -> Result<TaskId, ClaimError> {
        self.drop_file(entry, text);
        let task = self.read(entry);
        self.ledger.claim(entry, &task)
    }
    /// What a worker leaves in its outbox at the end of attempt 1.
    fn end(&self, task: &str, status: &str) -> Vec<u8> {
        let record = serde_json::json!({
            "task_id": task, "attempt": 1, "status": status, "prompt": "p", "completed_at": "2026-01-01T00:00:00Z",
        });
        let bytes = serde_json::to_vec(&record).unwrap();
        fs::write(self.layout.outbox(&worker()).join(format!("{task}.1.json")), &bytes).unwrap();
        bytes
    }
    fn running(&mut self, task: &str) {
        self.take(&entry(task), r#"{"prompt": "p"}"#).unwrap();
    }
    /// Every folder in which this task has an entry.
    fn places(&self, task: &str) -> Vec<String> {
        let name = format!("{task}.json");
        let all = self.layout.folders().into_iter().filter(|folder| folder.join(&name).exists());
        all.map(|folder| folder.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }
    fn staged(&self) -> usize {
        fs::read_dir(self.layout.stage()).unwrap().count()
    }
    fn files(&self, folder: &Path) -> Vec<String> {
        let names =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
    /// Another brain, after the death of the first.
    fn again(&mut self) {
        self.ledger = Ledger::new(self.layout.clone(), Durability::Process);
    }
}

/// Queued again after attempt 1 went wrong.
fn second_chance(task: &str) -> TaskRecord {
    let mut queued = record(serde_json::json!({"task_id": task, "prompt": "p", "attempt": 1, "charged": 1}));
    queued.history.push(PastAttempt {
        attempt: 1,
        worker: Some(worker()),
        gpu: None,
        started_at: None,
        ended_at: None,
        charged: true,
        error: Some(TaskError::new(FailureClass::Crash, "crash", "it broke")),
        was: None,
    });
    queued
}

// ------------------------------------------------------------------------------------------------- submit

#[test]
fn a_submission_is_queued_once_wherever_its_author_dies() {
    for durability in [Durability::Power, Durability::Process] {
        let mut house = house();
        house.ledger = Ledger::new(house.layout.clone(), durability);
        let passed = crash::passed(|| drop(house.ledger.submit(&[submission("a", true)])));
        let synced = ["submit.S3", "sync.files", "submit.S4", "submit.S5", "sync.job", "submit.S6"];
        let points = ["submit.S3", "submit.S4", "submit.S5", "submit.S6"];
        assert_eq!(passed, if durability == Durability::Power { &synced[..] } else { &points });
        for point in points {
            let task = [submission(point, true)];
            crash::at(point, 1, || house.ledger.submit(&task)).unwrap_err();
            assert!(house.places(point).len() <= 1);
            let told = house.ledger.submit(&task).pop().unwrap().unwrap();
            assert_eq!((told.as_str(), house.places(point)), (point, vec!["priority_3".to_owned()]));
            assert_eq!(house.read(&entry(point)).id_is, IdClaim::Demand);
        }
        assert_eq!(house.staged(), 2, "only S3 and S4 leave a staged file behind");
    }
}

#[test]
fn a_wish_gets_the_next_free_name_and_a_demand_gets_its_own_or_none() {
    let mut house = house();
    let told = house.ledger.submit(&[submission("a", false), submission("a", false)]);
    assert_eq!(told.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [id("a"), id("a-2")]);
    house.running("b");
    fs::write(house.layout.complete().join("c.json"), r#"{"prompt": "say c"}"#).unwrap();
    for (demand, same) in [("b", false), ("c", true)] {
        let told = house.ledger.submit(&[submission(demand, true)]).pop().unwrap().unwrap_err();
        assert!(matches!(&told, SubmitError::Exists { same: found, .. } if *found == same), "{told:?}");
        assert_eq!(told.exit_code(), 1);
    }
    assert_eq!(house.staged(), 0, "nothing is left of what was refused");
}

#[test]
fn a_thousand_submissions_are_durable_in_groups() {
    let mut house = house();
    house.ledger = Ledger::new(house.layout.clone(), Durability::Power);
    let tasks: Vec<Submission> = (0..1_000).map(|i| submission(&format!("t{i}"), false)).collect();
    let passed = crash::passed(|| {
        assert!(house.ledger.submit(&tasks).iter().all(Result::is_ok));
    });
    assert_eq!(passed.len(), 16 * 6, "four steps and two syncs for each group of 64, not for each task");
    assert_eq!(house.files(&house.layout.queue(TaskClass::Llm, Priority::NORMAL)).len(), 1_000);
    assert_eq!(house.staged(), 0);
}

// ------------------------------------------------------------------------------------------------- claim

#[test]
fn copying_the_same_file_again_is_another_task() {
    let mut house = house();
    for wanted in ["task", "task-2", "task-3"] {
        assert_eq!(house.take(&entry("task"), r#"{"prompt": "p"}"#).unwrap(), id(wanted));
    }
    house.end("task", "complete");
    house.ledger.finish(&worker(), &key("task", 1)).unwrap();
    house.again();
    assert_eq!(house.take(&entry("task"), r#"{"prompt": "p"}"#).unwrap(), id("task-4"));
}

#[test]
fn the_thousandth_copy_is_named_as_quickly_as_the_first() {
    let mut house = house();
    for turn in 1..=1_000 {
        let name = format!("{}.json", id("task").candidate(turn).unwrap());
        fs::write(house.layout.complete().join(name), "").unwrap();
    }
    assert_eq!(house.take(&entry("task"), r#"{"prompt": "p"}"#).unwrap(), id("task-1001"));
    assert_eq!(house.take(&entry("task"), r#"{"prompt": "p"}"#).unwrap(), id("task-1002"));
}

#[test]
fn a_name_that_cannot_be_an_id_or_leaves_no_room_for_a_number_gets_a_fresh_one() {
    let mut house = house();
    let long = "x".repeat(128);
    assert_eq!(house.take(&entry(&long), r#"{"prompt": "p"}"#).unwrap().as_str(), long);
    let second = house.take(&entry(&long), r#"{"prompt": "p"}"#).unwrap();
    assert!(second.as_str().parse::<uuid::Uuid>().is_ok(), "{second}");
    let device = house.take(&entry("con"), r#"{"prompt": "p"}"#).unwrap();
    assert!(device.as_str().parse::<uuid::Uuid>().is_ok(), "{device}");
}

#[test]
fn a_demand_is_met_once_then_dropped_or_rejected() {
    let mut house = house();
    let demand = r#"{"task_id": "d", "prompt": "p"}"#;
    assert_eq!(house.take(&entry("any"), demand).unwrap(), id("d"));
    let same = house.take(&entry("second"), r#"{ "prompt":"p", "task_id":"d" }"#).unwrap_err();
    assert!(matches!(same, ClaimError::Duplicate { dropped: true, .. }), "{same}");
    let other = house.take(&entry("third"), r#"{"task_id": "d", "prompt": "another"}"#).unwrap_err();
    let ClaimError::Duplicate { dropped: false, fault, .. } = &other else { panic!("{other}") };
    assert_eq!(fault.code, Code::DuplicateId);
    house.end("d", "complete");
    house.ledger.finish(&worker(), &key("d", 1)).unwrap();
    let late = house.take(&entry("fourth"), demand).unwrap_err();
    let ClaimError::Duplicate { dropped: false, fault, .. } = &late else { panic!("{late}") };
    assert_eq!(fault.code, Code::AlreadyFinished);
    assert_eq!(
        house.files(&house.layout.failed()),
        [
            "fourth.json.rejected",
            "fourth.json.rejected.reason.json",
            "third.json.rejected",
            "third.json.rejected.reason.json"
        ]
    );
    assert_eq!(house.places("d"), ["complete"]);
}

#[test]
fn an_ended_record_that_is_moved_back_into_a_queue_is_the_same_task_again() {
    let mut house = house();
    house.running("t");
    house.end("t", "failed");
    house.ledger.finish(&worker(), &key("t", 1)).unwrap();
    fs::rename(house.layout.failed().join("t.json"), house.layout.entry(&entry("t"))).unwrap();
    let task = house.read(&entry("t"));
    assert_eq!((task.attempt, task.charged, task.history.len()), (1, 0, 1));
    assert_eq!(house.ledger.claim(&entry("t"), &task).unwrap(), id("t"));
}

#[test]
fn a_task_that_waits_for_another_attempt_keeps_its_name() {
    let mut house = house();
    house.running("task");
    let (class, urgent) = (TaskClass::Llm, Priority::URGENT);
    house.ledger.requeue(&worker(), &key("task", 1), &second_chance("task"), class, urgent).unwrap();
    assert_eq!(house.take(&entry("task"), r#"{"prompt": "new"}"#).unwrap(), id("task-2"));
    let demand = house.take(&entry("x"), r#"{"task_id": "task", "prompt": "new"}"#).unwrap_err();
    assert!(matches!(demand, ClaimError::Duplicate { dropped: false, .. }), "{demand}");
    let back = Entry { priority: urgent, ..entry("task") };
    let task = house.read(&back);
    assert_eq!(house.ledger.claim(&back, &task).unwrap(), id("task"));
}

#[test]
fn a_claim_that_came_too_late_takes_nothing_and_one_can_be_taken_back() {
    let mut house = house();
    house.drop_file(&entry("t"), r#"{"prompt": "p"}"#);
    let task = house.read(&entry("t"));
    fs::remove_file(house.layout.entry(&entry("t"))).unwrap();
    assert!(matches!(house.ledger.claim(&entry("t"), &task), Err(ClaimError::Gone)));
    house.running("u");
    assert_eq!(house.ledger.unclaim(&id("u"), &entry("u")).unwrap(), entry("u"));
    assert_eq!(house.places("u"), ["priority_3"]);
    house.running("v");
    house.drop_file(&entry("v"), r#"{"prompt": "a new one"}"#);
    let back = house.ledger.unclaim(&id("v"), &entry("v")).unwrap();
    assert_ne!(back, entry("v"), "the new file keeps its name");
    assert!(house.layout.entry(&back).exists() && house.layout.entry(&entry("v")).exists());
}

#[test]
fn a_death_in_a_claim_leaves_the_task_in_one_place() {
    let mut house = house();
    house.drop_file(&entry("t"), r#"{"prompt": "p"}"#);
    let task = house.read(&entry("t"));
    for (point, place) in [("claim.C1", "priority_3"), ("claim.C2", "processing")] {
        crash::at(point, 1, || house.ledger.claim(&entry("t"), &task).map(drop)).unwrap_err();
        assert_eq!(house.places("t"), [place], "{point}");
    }
}

#[test]
fn a_claim_costs_microseconds() {
    let mut house = house();
    let tasks: Vec<Entry> = (0..500).map(|i| entry(&format!("t{i}"))).collect();
    tasks.iter().for_each(|entry| house.drop_file(entry, r#"{"prompt": "p"}"#));
    let task = house.read(&tasks[0]);
    let begun = Instant::now();
    for (i, entry) in tasks.iter().enumerate() {
        let task = Task { task_id: id(&format!("t{i}")), ..task.clone() };
        house.ledger.claim(entry, &task).unwrap();
    }
    assert!(house.ledger.pending().is_empty(), "a claim needs no sync");
    // Measured: about 20 us each in a release build. The bound is for a debug build on a busy machine.
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?} each", begun.elapsed() / 500);
}

// ------------------------------------------------------------------------------------------------- finish

#[test]
fn a_finished_task_has_one_end_wherever_the_brain_dies() {
    for (status, folder) in [("complete", "complete"), ("failed", "failed")] {
        for point in ["finish.F5", "finish.F6"] {
            let mut house = house();
            house.running("t");
            let bytes = house.end("t", status);
            crash::at(point, 1, || house.ledger.finish(&worker(), &key("t", 1)).map(drop)).unwrap_err();
            assert_eq!(house.places("t").len(), 1, "{point}");
            house.again();
            for _ in 0..2 {
                let told = house.ledger.finish(&worker(), &key("t", 1)).unwrap();
                assert_eq!(told.task_id, Some(id("t")));
            }
            assert_eq!(house.places("t"), [folder]);
            let end = house.layout.root().join("tasks").join(folder).join("t.json");
            assert_eq!(fs::read(end).unwrap(), bytes, "the record is the worker's, to the byte");
            assert_eq!(house.files(&house.layout.outbox(&worker())), [""; 0]);
        }
    }
}

#[test]
fn an_end_is_noted_for_the_disk_in_all_three_folders() {
    let mut house = house();
    house.ledger = Ledger::new(house.layout.clone(), Durability::Power);
    house.running("t");
    house.end("t", "complete");
    assert!(house.ledger.pending().is_empty());
    house.ledger.finish(&worker(), &key("t", 1)).unwrap();
    let job = format!("{:?}", house.ledger.pending().take());
    for folder in ["complete", "processing", "outbox"] {
        assert!(job.contains(folder), "{folder} in {job}");
    }
}

#[test]
fn an_entry_that_a_person_has_deleted_is_made_again_by_its_end() {
    let mut house = house();
    house.running("t");
    fs::remove_file(house.layout.processing().join("t.json")).unwrap();
    house.end("t", "complete");
    house.ledger.finish(&worker(), &key("t", 1)).unwrap();
    assert_eq!(house.places("t"), ["complete"]);
}

#[test]
fn a_claim_that_a_power_cut_has_forgotten_leaves_no_second_entry() {
    let mut house = house();
    house.drop_file(&entry("t"), r#"{"prompt": "p"}"#);
    house.end("t", "complete");
    house.ledger.finish(&worker(), &key("t", 1)).unwrap();
    assert_eq!(house.places("t"), ["complete"]);
    house.drop_file(&entry("u"), r#"{"prompt": "something else of the same name"}"#);
    house.end("u", "complete");
    house.ledger.finish(&worker(), &key("u", 1)).unwrap();
    assert_eq!(house.places("u"), ["priority_3", "complete"], "another task is left alone");
}

#[test]
fn a_torn_record_does_not_exist_and_a_strange_one_is_not_believed() {
    let mut house = house();
    house.running("t");
    let bytes = house.end("t", "complete");
    let path = house.layout.outbox(&worker()).join("t.1.json");
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let torn = house.ledger.finish(&worker(), &key("t", 1)).unwrap_err();
    assert!(matches!(torn, LedgerError::NoRecord(_)) && !torn.may_be_repeated());
    for strange in [
        r#"{"task_id": "other", "attempt": 1, "status": "complete"}"#,
        r#"{"task_id": "t", "attempt": 2, "status": "complete"}"#,
        r#"{"task_id": "t", "attempt": 1, "status": "running"}"#,
    ] {
        fs::write(&path, strange).unwrap();
        let told = house.ledger.finish(&worker(), &key("t", 1)).unwrap_err();
        assert!(matches!(told, LedgerError::Stale { .. }), "{strange}: {told}");
    }
    assert_eq!(house.places("t"), ["processing"]);
}

#[test]
fn the_first_end_stands_and_a_second_one_is_kept_aside() {
    let mut house = house();
    house.ledger.set_epoch(7);
    fs::write(house.layout.failed().join("t.json"), r#"{"task_id": "t", "status": "failed"}"#).unwrap();
    house.running("u");
    house.end("t", "complete");
    let told = house.ledger.finish(&worker(), &key("t", 1)).unwrap_err();
    let LedgerError::Conflict { kept, aside, record, .. } = &told else { panic!("{told}") };
    assert!(kept.ends_with("failed/t.json") && aside.ends_with("failed/t.conflict.7"));
    assert_eq!(record.status, Some(Status::Complete));
    assert_eq!(house.places("t"), ["failed"]);
    let again = house.ledger.finish(&worker(), &key("t", 1)).unwrap();
    assert_eq!(again.status, Some(Status::Failed), "asked again, it tells the end that stands");
    let bytes = house.end("u", "complete");
    fs::write(house.layout.complete().join("u.json"), bytes).unwrap();
    house.ledger.finish(&worker(), &key("u", 1)).unwrap();
    assert_eq!(house.places("u"), ["complete"], "the same end twice is one end");
}

// ------------------------------------------------------------------------------------------------- requeue

#[test]
fn a_task_goes_back_to_its_queue_once_wherever_the_brain_dies() {
    let (class, priority) = (TaskClass::Llm, Priority::NORMAL);
    let points = ["requeue.R1", "requeue.R2", "requeue.R3", "requeue.R4", "requeue.R6"];
    for point in points {
        let mut house = house();
        house.running("t");
        house.end("t", "failed");
        let back = second_chance("t");
        let died = crash::at(point, 1, || {
            house.ledger.requeue(&worker(), &key("t", 1), &back, class, priority).map(drop)
        });
        died.unwrap_err();
        assert_eq!(house.places("t").len(), 1, "{point}");
        house.again();
        for _ in 0..2 {
            let told = house.ledger.requeue(&worker(), &key("t", 1), &back, class, priority).unwrap();
            assert_eq!(told, entry("t"));
        }
        assert_eq!(house.places("t"), ["priority_3"]);
        assert_eq!(house.files(&house.layout.outbox(&worker())), [""; 0]);
        let task = house.read(&entry("t"));
        assert_eq!((task.attempt, task.charged, task.history.len()), (1, 1, 1), "{point}");
        assert_eq!(task.id_is, IdClaim::Demand);
    }
}

#[test]
fn a_task_comes_back_beside_a_new_drop_of_its_name() {
    let mut house = house();
    house.running("t");
    house.drop_file(&entry("t"), r#"{"prompt": "new"}"#);
    let (class, priority) = (TaskClass::Llm, Priority::NORMAL);
    for _ in 0..2 {
        let told =
            house.ledger.requeue(&worker(), &key("t", 1), &second_chance("t"), class, priority).unwrap();
        assert_eq!(told, entry("t.again-1"));
    }
    assert_eq!(fs::read(house.layout.entry(&entry("t"))).unwrap(), br#"{"prompt": "new"}"#);
    let task = house.read(&entry("t.again-1"));
    assert_eq!(house.ledger.claim(&entry("t.again-1"), &task).unwrap(), id("t"));
    let new = house.read(&entry("t"));
    assert_eq!(house.ledger.claim(&entry("t"), &new).unwrap(), id("t-2"));
}

#[test]
fn a_record_without_its_attempt_in_the_history_does_not_go_back() {
    let mut house = house();
    house.running("t");
    let mut forgetful = second_chance("t");
    forgetful.history.clear();
    let told = house
        .ledger
        .requeue(&worker(), &key("t", 1), &forgetful, TaskClass::Llm, Priority::NORMAL)
        .unwrap_err();
    assert!(matches!(told, LedgerError::Stale { .. }));
    assert_eq!(house.places("t"), ["processing"]);
}

#[test]
fn what_replaces_an_entry_is_on_the_disk_before_it_does() {
    let mut house = house();
    house.ledger = Ledger::new(house.layout.clone(), Durability::Power);
    for task in ["t", "u", "v"] {
        house.running(task);
    }
    let (class, priority) = (TaskClass::Llm, Priority::NORMAL);
    let back = crash::passed(|| {
        house
            .ledger
            .requeue(&worker(), &key("t", 1), &second_chance("t"), class, priority)
            .map(drop)
            .unwrap();
    });
    assert_eq!(back[..4], ["requeue.R1", "sync.files", "requeue.R2", "requeue.R3"]);
    let cancelled = record(serde_json::json!({"prompt": "p"}));
    let ended = crash::passed(|| house.ledger.fail(&id("u"), &cancelled).unwrap());
    assert_eq!(ended, ["cancel.K2", "sync.files", "cancel.K2", "cancel.K3", "finish.F6"]);
    let shown = record(serde_json::json!({"task_id": "v", "status": "running"}));
    let shown = crash::passed(|| house.ledger.show_running(&shown).map(drop).unwrap());
    assert_eq!(shown, ["start.T5", "sync.files", "start.T5", "start.T6"]);
    house.drop_file(&entry("x"), "{");
    let fault = Fault::new(Code::IncompleteJson, "torn");
    let rejected = crash::passed(|| house.ledger.reject(&entry("x"), &fault).map(drop).unwrap());
    assert_eq!(rejected, ["drop.D5", "sync.files", "drop.D5", "drop.D5", "drop.D6"]);
}

// ------------------------------------------------------------------------------------------------- fail, show, reject

#[test]
fn a_cancelled_task_has_one_end_wherever_the_brain_dies() {
    for point in ["cancel.K2", "cancel.K3", "finish.F6"] {
        let mut house = house();
        house.running("t");
        let mut cancelled = record(serde_json::json!({"prompt": "p"}));
        cancelled.error = Some(TaskError::new(FailureClass::Cancelled, "cancelled", "somebody asked"));
        crash::at(point, 1, || house.ledger.fail(&id("t"), &cancelled)).unwrap_err();
        assert_eq!(house.places("t").len(), 1, "{point}");
        for _ in 0..2 {
            house.ledger.fail(&id("t"), &cancelled).unwrap();
        }
        assert_eq!(house.places("t"), ["failed"]);
        let found = find::locate(&house.layout, &id("t")).unwrap().unwrap().record.unwrap();
        assert_eq!((found.status, found.task_id), (Some(Status::Failed), Some(id("t"))));
    }
}

#[test]
fn a_running_task_is_shown_only_while_it_has_an_entry() {
    let mut house = house();
    house.running("t");
    let shown =
        record(serde_json::json!({"task_id": "t", "status": "running", "attempt": 1, "assigned_gpu": "0"}));
    for point in ["start.T5", "start.T6"] {
        crash::at(point, 1, || house.ledger.show_running(&shown).map(drop)).unwrap_err();
        assert_eq!(house.places("t"), ["processing"], "{point}");
    }
    let found = find::locate(&house.layout, &id("t")).unwrap().unwrap().record.unwrap();
    assert_eq!((found.status, found.assigned_gpu.as_deref()), (Some(Status::Running), Some("0")));
    fs::remove_file(house.layout.processing().join("t.json")).unwrap();
    let left = house.staged();
    assert!(!house.ledger.show_running(&shown).unwrap());
    assert_eq!((house.places("t"), house.staged()), (vec![], left));
}

#[test]
fn a_rejected_file_lies_beside_its_reason_wherever_the_brain_dies() {
    let mut house = house();
    let text = "{\n  \"prompt\": 1,\n}";
    let fault = Fault::new(Code::InvalidJson, "trailing comma").at(3, 1).next("remove the comma");
    house.drop_file(&entry("t"), text);
    for time in [1, 2, 3] {
        crash::at("drop.D5", time, || house.ledger.reject(&entry("t"), &fault).map(drop)).unwrap_err();
        assert_eq!(house.places("t"), ["priority_3"]);
    }
    crash::at("drop.D6", 1, || house.ledger.reject(&entry("t"), &fault).map(drop)).unwrap_err();
    assert_eq!(house.ledger.reject(&entry("t"), &fault).unwrap(), None, "it is done, and said once");
    house.drop_file(&entry("t"), "second");
    house.ledger.reject(&entry("t"), &fault).unwrap().unwrap();
    assert_eq!(
        house.files(&house.layout.failed()),
        [
            "t.json.rejected",
            "t.json.rejected.2",
            "t.json.rejected.2.reason.json",
            "t.json.rejected.reason.json"
        ]
    );
    assert_eq!(fs::read_to_string(house.layout.failed().join("t.json.rejected")).unwrap(), text);
    let bytes = fs::read(house.layout.failed().join("t.json.rejected.reason.json")).unwrap();
    let reason: Rejection = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((reason.code, reason.shown), (Code::InvalidJson, vec!["}".to_owned(), "^".to_owned()]));
    assert_eq!(reason.text, "line 3, column 1: trailing comma (invalid_json); remove the comma");
    let found = find::locate(&house.layout, &id("t")).unwrap().unwrap();
    assert_eq!(found.place, find::Place::Rejected);
    assert!(found.path.ends_with("t.json.rejected.2"));
}
