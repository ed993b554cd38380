//! `gpuspool explain`: what a task would meet, with and without a brain.

use gpuspool_cli::exit;
use model::TaskClass;
use model::explained::{Effect, Explained, Fate, HeldBy, Here};
use model::reason::ReasonTold;
use model::request::{Answer, ExpectedIn};
use serde_json::Value;

use crate::desk::{Brain, Desk, complete, id, names};

fn explained(fate: Fate) -> Explained {
    Explained {
        class: TaskClass::Llm,
        job_type: "summarization".into(),
        priority: model::Priority::NORMAL,
        fate,
        reason: None,
        expected: None,
        gpus: Vec::new(),
        here: None,
        model: None,
        ahead: 0,
        held_by: None,
        effects: Vec::new(),
    }
}

fn expected(starts_in_s: f64, ends_in_s: f64) -> Option<ExpectedIn> {
    Some(ExpectedIn {
        starts_in_s,
        ends_in_s,
        starts_in_p90_s: starts_in_s,
        ends_in_p90_s: ends_in_s * 2.0,
        place: Some("1".into()),
    })
}

fn reason(code: &str, text: &str) -> Option<ReasonTold> {
    Some(ReasonTold { code: code.into(), text: text.into() })
}

/// What is printed where the brain answers this.
fn told(explained: Explained) -> (u8, String) {
    let desk = Desk::new();
    let file = desk.write("ask.json", r#"{"prompt": "x"}"#);
    let _brain = Brain::answering(&desk, move |_, _| Answer {
        ok: true,
        explained: Some(Box::new(explained.clone())),
        ..Answer::default()
    });
    let said = desk.gpuspool(&["explain", &file]);
    assert!(names(&desk.queue(TaskClass::Llm, 3)).is_empty(), "nothing is queued");
    (said.code, said.out)
}

#[test]
fn what_would_start_wait_or_never_run_reads_well() {
    let starts = Explained {
        expected: expected(0.0, 12.0),
        here: Some(Here::LlmLoaded { model: "qwen2.5:7b".into() }),
        model: Some("qwen2.5:7b".into()),
        ..explained(Fate::Starts)
    };
    let waits = Explained {
        expected: expected(130.0, 160.0),
        here: Some(Here::FreeFirst),
        model: Some("qwen2.5:14b".into()),
        ahead: 3,
        reason: reason(
            "held_by_batch",
            "exclusive batch `talks` has the GPUs (40 items left); LLM tasks wait for its end",
        ),
        held_by: Some(HeldBy {
            batch: model::BatchId::new("talks").unwrap(),
            remaining: 40,
            ends_in_s: Some(120.0),
        }),
        effects: vec![
            Effect::LlmLeaves { gpu: "1".into(), model: "qwen2.5:7b".into(), running: 2, in_s: 4.2 },
            Effect::GivesWay {
                task: id("talks.7"),
                job_type: "transcription".into(),
                batch: Some(model::BatchId::new("talks").unwrap()),
                gpu: "1".into(),
            },
            Effect::Lent { gpu: "1".into(), batch: model::BatchId::new("talks").unwrap() },
        ],
        ..explained(Fate::Waits)
    };
    let pair = Explained {
        class: TaskClass::Script,
        expected: expected(0.0, 12.0),
        gpus: vec!["1".into(), "2".into()],
        here: Some(Here::Idle),
        ..explained(Fate::Starts)
    };
    let never = Explained {
        reason: reason(
            "does_not_fit",
            "no GPU here can hold it: it needs 80000 MiB, the largest has 24576 MiB",
        ),
        ..explained(Fate::CannotRun)
    };
    let refused = Explained { fate: Fate::Refused, ..never.clone() };
    let all = [starts, pair, waits, never, refused].map(told);
    assert_eq!(
        all.clone().map(|(code, _)| code),
        [exit::OK, exit::OK, exit::OK, exit::NOT_ALL, exit::NOT_ALL]
    );
    insta::assert_snapshot!("explained", all.map(|(_, text)| text).join("\n"));
}

#[test]
fn without_a_brain_it_is_validated_and_the_next_step_is_named() {
    let desk = Desk::new();
    let said = desk.gpuspool(&["explain", r#"{"prompt": "x", "job_type": "chatbot", "priority": 5}"#]);
    assert_eq!(said.code, exit::OK);
    insta::assert_snapshot!(said.out, @r"
    task: a valid llm task (type `generate`, job type `chatbot`, priority 5)
        no brain runs, so it would wait in llm_queue/priority_5; `gpuspool up` starts the work, and then this says where and when
    ");
    let json = desk.gpuspool(&["explain", "--json", r#"{"prompt": "x"}"#]).out;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["brain_running"], &json["explained"]), (&Value::Bool(false), &Value::Null));
    assert_eq!(json["job_type"], "summarization");
}

#[test]
fn what_would_be_rejected_is_said_as_at_submission() {
    let desk = Desk::new();
    for text in [
        "{\n  \"prompt\": \"x\",\n}",
        r#"{"script": "no_such_script"}"#,
        r#"{"prompt": "x", "priority": 9}"#,
        r#"{"prompt": "x", "gpus": 0}"#,
        r#"{"nothing": 1}"#,
    ] {
        let file = desk.write("bad.json", text);
        let explained = desk.gpuspool(&["explain", &file]);
        let submitted = desk.gpuspool(&["submit", &file]);
        assert_eq!(explained.code, exit::DATA, "{text}");
        assert!(explained.err.starts_with("error: "), "{}", explained.err);
        if text.contains("nothing") {
            continue; // `submit` has options to say what it is
        }
        assert_eq!(explained.err, submitted.err, "{text}");
        let [explained, submitted] = ["explain", "submit"].map(|verb| desk.gpuspool(&[verb, text]));
        assert_eq!((explained.code, submitted.code), (exit::DATA, exit::DATA), "{text}");
        assert!(submitted.err.starts_with("error: task: "), "{}", submitted.err);
        assert_eq!(explained.err, submitted.err, "{text}");
    }
    let odd = desk.gpuspool(&["explain", r#"{"promt": "x", "prompt": "y"}"#]);
    assert!(odd.out.contains("warning: unknown field `promt`"), "{}", odd.out);
}

#[test]
fn the_brain_s_own_configuration_has_the_last_word() {
    let desk = Desk::new();
    let _brain = Brain::answering(&desk, |_, _| Answer {
        message: "no script is called `talks`".into(),
        ..Answer::default()
    });
    let said = desk.gpuspool(&["explain", r#"{"prompt": "x"}"#]);
    assert_eq!(said.code, exit::DATA);
    assert!(said.err.contains("the brain would reject it: no script is called `talks`"), "{}", said.err);
}

#[test]
fn an_id_that_is_taken_would_be_rejected_as_submit_refuses_it() {
    let desk = Desk::new();
    let (mine, other) =
        (r#"{"task_id": "mine", "prompt": "x"}"#, r#"{"task_id": "mine", "prompt": "something else"}"#);
    assert_eq!(desk.gpuspool(&["explain", mine]).code, exit::OK, "nobody has this id");
    assert_eq!(desk.gpuspool(&["submit", mine]).out, "mine\n");
    assert_eq!(desk.gpuspool(&["explain", mine]).code, exit::OK, "it is this very task");
    let refused = |text: &str| {
        let [explained, submitted] = ["explain", "submit"].map(|verb| desk.gpuspool(&[verb, text]));
        assert_eq!((explained.code, explained.out.as_str()), (exit::DATA, ""), "{explained:?}");
        assert_eq!((explained.err.as_str(), submitted.code), (submitted.err.as_str(), exit::NOT_ALL));
        explained.err
    };
    assert!(refused(other).contains("not queued: a task `mine` exists already"));

    // A file that lies in its queue is no rival of its own, however it is written.
    let queued = desk.queue(TaskClass::Llm, 3).join("mine.json");
    std::fs::write(&queued, mine).unwrap();
    let said = desk.gpuspool(&["explain", queued.to_str().unwrap()]);
    assert_eq!(said.code, exit::OK, "{said:?}");

    std::fs::remove_file(queued).unwrap();
    desk.ended(&complete("mine", serde_json::json!("done")));
    assert!(refused(other).contains("not queued: a task `mine` exists already"));
    let again = refused(r#"{"task_id": "mine", "prompt": "?"}"#);
    assert!(again.contains("not queued again") && again.contains("gpuspool result mine"), "{again}");
}
