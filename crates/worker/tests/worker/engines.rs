//! LLM tasks through the fake engine.

use model::link::{AttemptState, EngineState, OrdersLine, StopWhy};
use model::{FailureClass, Status};
use serde_json::json;

use crate::rig::{Rig, code, question, wait_for};

#[test]
fn questions_wait_for_the_boot_and_are_answered_by_one_engine() {
    let rig = Rig::with(&json!({}), &["--boot-ms", "200", "--parallel", "4"]);
    let mut worker = rig.worker();
    let generation = worker.boot();
    let keys = worker.run((0..8).map(|n| question(&format!("q{n}"), &format!("number {n}"))).collect());
    worker.engine(EngineState::Booting);
    for (n, key) in keys.iter().enumerate() {
        let (report, record) = worker.ended(key);
        let result = record.result.unwrap();
        assert_eq!(result.output, format!("fake engine: number {n}"));
        assert_eq!((result.model.as_deref(), result.engine.as_deref()), (Some("fake-7b"), Some("fake")));
        assert_eq!(result.usage.unwrap()["prompt_tokens"], 2);
        assert_eq!(record.status, Some(Status::Complete));
        assert_eq!(record.assigned_gpu.as_deref(), Some("0"));
        assert_eq!(record.assigned_gpu_uuid.unwrap().as_str(), "SIM-0");
        assert!(record.started_at.unwrap() <= record.completed_at.unwrap());
        assert_eq!(report.outcome.unwrap().failure, None);
        worker.finish(key);
    }
    worker.until("all keys to be forgotten", |reports| reports.attempts.is_empty().then_some(()));
    let engine = worker.reports().engine.unwrap();
    assert_eq!((engine.generation, engine.state), (generation, EngineState::Ready));
    assert!(engine.boot_ms.unwrap() >= 200 && engine.port.is_some() && engine.pid.is_some());
    assert_eq!(rig.lines("boots"), 1);
}

#[test]
fn as_many_questions_run_at_once_as_the_engine_has_slots() {
    let rig = Rig::with(&json!({}), &["--answer-ms", "300", "--parallel", "4"]);
    let mut worker = rig.worker();
    worker.boot();
    worker.engine(EngineState::Ready);
    let keys = worker.run((0..5).map(|n| question(&format!("q{n}"), "x")).collect());
    worker.until("four running questions", |reports| {
        let running = reports.attempts.values().filter(|one| one.state == AttemptState::Running).count();
        assert!(running <= 4);
        (running == 4).then_some(())
    });
    for key in &keys {
        worker.attempt(key, AttemptState::Ended);
    }
}

#[test]
fn an_engine_is_unloaded_and_another_booted_by_its_generation() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    worker.boot();
    worker.engine(EngineState::Ready);
    worker.order(OrdersLine { engine: Some(None), ..OrdersLine::default() });
    worker.until("no engine", |reports| reports.engine.is_none().then_some(()));
    assert_eq!(worker.programs(), 0);
    worker.boot();
    worker.engine(EngineState::Ready);
    worker.boot();
    worker.until("the third boot", |reports| {
        reports.engine.as_ref().filter(|one| one.generation == 3 && one.state == EngineState::Ready).map(drop)
    });
    assert_eq!(rig.lines("boots"), 3);
}

#[test]
fn the_death_of_an_engine_fails_its_questions_and_shows_why() {
    let rig = Rig::with(&json!({}), &["--die-after", "1"]);
    let mut worker = rig.worker();
    worker.boot();
    worker.engine(EngineState::Ready);
    let key = worker.run_one(question("q", "x"));
    let (report, record) = worker.ended(&key);
    assert_eq!(report.outcome.unwrap().failure, Some(FailureClass::Crash));
    assert_eq!(code(&record), "engine_died");
    assert!(record.error.unwrap().tail.unwrap().contains("dying as told"));
    worker.engine(EngineState::Failed);
    let engine = worker.reports().engine.unwrap();
    assert!(engine.error.unwrap().contains("SIGABRT") && engine.pid.is_none());
    worker.boot();
    worker.engine(EngineState::Ready);
}

#[test]
fn an_engine_that_refuses_everything_is_ended_and_what_waits_is_asked_of_the_next() {
    let rig = Rig::with(&json!({}), &["--unready-after", "2", "--parallel", "2"]);
    let mut worker = rig.worker();
    worker.boot();
    worker.engine(EngineState::Ready);
    // The first was the canary.
    let key = worker.run_one(question("answered", "x"));
    assert_eq!(worker.ended(&key).1.status, Some(Status::Complete));
    let keys = worker.run((0..4).map(|n| question(&format!("q{n}"), "x")).collect());
    worker.engine(EngineState::Failed);
    let error = worker.reports().engine.unwrap().error.unwrap();
    assert!(error.contains("refused") && error.contains("in a row with status 503"), "{error}");
    wait_for("its end", || (worker.programs() == 0).then_some(()));
    let refused: Vec<_> = keys.iter().filter(|key| worker.record_path(key).exists()).cloned().collect();
    assert!(refused.len() >= 3, "{refused:?}");
    for key in &refused {
        assert_eq!(code(&worker.ended(key).1), "http_503");
        worker.finish(key);
    }
    let key = worker.run_one(question("later", "x"));
    worker.boot();
    assert_eq!(worker.ended(&key).1.status, Some(Status::Complete));
    assert_eq!(rig.lines("boots"), 2);
}

#[test]
fn a_boot_that_fails_is_reported_with_its_last_lines_and_its_questions_wait() {
    let rig = Rig::with(&json!({}), &["--die-booting"]);
    let mut worker = rig.worker();
    worker.boot();
    let key = worker.run_one(question("q", "x"));
    worker.engine(EngineState::Failed);
    assert!(worker.reports().engine.unwrap().error.unwrap().contains("cannot load the model"));
    worker.stop(&key, StopWhy::TakenBack);
    worker.attempt(&key, AttemptState::NeverStarted);
    assert!(!worker.record_path(&key).exists());
}

#[test]
fn a_question_can_be_stopped_and_its_input_may_be_a_file() {
    let rig = Rig::with(&json!({}), &["--answer-ms", "200"]);
    let mut worker = rig.worker();
    worker.boot();
    worker.engine(EngineState::Ready);
    let key = worker.run_one(question("long", "x"));
    worker.attempt(&key, AttemptState::Running);
    worker.stop(&key, StopWhy::Cancel);
    let (report, record) = worker.ended(&key);
    assert!(report.outcome.unwrap().stopped);
    assert_eq!(code(&record), "cancelled");
    let text = rig.dir.path().join("text.txt");
    std::fs::write(&text, "the text").unwrap();
    let with_input = |id: &str, path: &str| {
        let mut task = question(id, "sum up");
        let model::task::Work::Llm(work) = &mut task.work else { unreachable!("a question is LLM work") };
        work.input = Some(path.to_owned());
        task
    };
    let key = worker.run_one(with_input("there", text.to_str().unwrap()));
    assert_eq!(worker.ended(&key).1.result.unwrap().output, "fake engine: sum up\n\nthe text");
    let key = worker.run_one(with_input("absent", "/no/such/file"));
    let record = worker.ended(&key).1;
    assert_eq!(code(&record), "input_not_found");
    assert_eq!(record.error.unwrap().class, FailureClass::BadInput);
}

#[test]
fn records_that_must_be_synced_are_synced_together_and_none_is_lost() {
    let rig = Rig::durable();
    let mut worker = rig.worker();
    worker.boot();
    let keys = worker.run((0..20).map(|n| question(&format!("q{n}"), &n.to_string())).collect());
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(worker.ended(key).1.result.unwrap().output, format!("fake engine: {n}"));
        worker.finish(key);
    }
    worker.until("all keys to be forgotten", |reports| reports.attempts.is_empty().then_some(()));
}
