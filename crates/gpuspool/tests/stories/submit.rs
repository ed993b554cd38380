//! `gpuspool submit`: what comes into which queue, and what comes into none.

use gpuspool_cli::exit;
use model::TaskClass;
use model::task::TaskRecord;
use serde_json::{Value, json};

use crate::desk::{Desk, complete, names};

#[test]
fn a_prompt_is_queued_without_a_brain_and_waits_in_its_folder() {
    let desk = Desk::new();
    let said = desk.gpuspool(&[
        "submit",
        "--prompt",
        "Why is the sky blue?",
        "--priority",
        "5",
        "--model",
        "qwen2.5:7b",
    ]);
    assert_eq!(
        (said.code, said.err.as_str()),
        (0, "queued, brain not running; `gpuspool up` starts the work\n")
    );
    let name = said.out.trim();
    let file = desk.queue(TaskClass::Llm, 5).join(format!("{name}.json"));
    let record: TaskRecord = serde_json::from_slice(&std::fs::read(file).expect("it is there")).unwrap();
    assert_eq!(record.prompt.as_deref(), Some("Why is the sky blue?"));
    assert_eq!(record.model.as_deref(), Some("qwen2.5:7b"));

    let why = desk.gpuspool(&["why", name]);
    assert_eq!(
        why.out,
        format!(
            "{name}: it lies in llm_queue/priority_5, and no brain runs; `gpuspool up` starts the work\n"
        )
    );
    let wait = desk.gpuspool(&["wait", "--timeout", "0.2", name]);
    assert_eq!(wait.code, exit::TRY_AGAIN);
    assert!(
        wait.err.contains("no brain runs") && wait.err.contains("1 id not ended in time"),
        "{}",
        wait.err
    );
    let result = desk.gpuspool(&["result", name]);
    assert_eq!((result.code, result.out.as_str()), (exit::TRY_AGAIN, ""));
}

#[test]
fn a_files_fields_tell_its_queue_and_its_name_becomes_the_id() {
    let desk = Desk::new();
    let talk = desk.write("talk.json", r#"{"prompt": "Summarize", "priority": 2}"#);
    let other =
        desk.write("other.json", r#"{"task_id": "my-own", "task_class": "llm", "input": "/tmp/x.txt"}"#);
    let said = desk.gpuspool(&["submit", &talk, &other, "--json"]);
    assert_eq!(said.code, 0, "{said:?}");
    let answer: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(answer["submitted"][0]["task_id"], "talk");
    assert_eq!(answer["submitted"][1]["task_id"], "my-own");
    assert_eq!(answer["brain_running"], false);
    assert_eq!(names(&desk.queue(TaskClass::Llm, 2)), ["talk.json"]);
    assert_eq!(names(&desk.queue(TaskClass::Llm, 3)), ["my-own.json"]);

    let again = desk.gpuspool(&["submit", &other]);
    assert_eq!((again.code, again.out.as_str()), (0, "my-own\n"), "the same demand twice is one task");
    let another = desk.write("other.json", r#"{"task_id": "my-own", "prompt": "something else"}"#);
    let again = desk.gpuspool(&["submit", &another]);
    assert_eq!((again.code, again.out.as_str()), (exit::NOT_ALL, ""), "{again:?}");
    assert!(again.err.contains("leave `task_id` out"), "{}", again.err);
}

#[test]
fn one_bad_file_of_several_means_that_nothing_is_queued() {
    let desk = Desk::new();
    let good = desk.write("good.json", r#"{"prompt": "x"}"#);
    let bad = desk.write("bad.json", "{\n  \"prompt\": \"x\",\n}");
    let said = desk.gpuspool(&["submit", &good, &bad]);
    assert_eq!(said.code, exit::DATA);
    insta::assert_snapshot!("a_bad_file", said.err);
    assert!(names(&desk.queue(TaskClass::Llm, 3)).is_empty());

    assert_eq!(desk.gpuspool(&["submit", "/nowhere/task.json"]).code, exit::NO_INPUT);
    let nothing = desk.write("nothing.json", "{}");
    assert!(desk.gpuspool(&["submit", &nothing]).err.contains("say `--class`"));
}

#[test]
fn a_task_can_be_written_on_the_command_line() {
    let desk = Desk::new();
    let file = desk.write("talk.json", r#"{"prompt": "from a file"}"#);
    let said = desk.gpuspool(&["submit", r#" {"prompt": "Why?", "priority": 5, "promt": "?"}"#, &file]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.starts_with("warning: task 1: unknown field `promt`"), "{}", said.err);
    let (first, second) = said.out.split_once('\n').expect("two ids");
    assert_eq!(second, "talk\n", "a file's name is its id");
    assert_eq!(names(&desk.queue(TaskClass::Llm, 5)), [format!("{first}.json")], "and text has none");
    let demand = r#"{"task_id": "mine", "prompt": "x", "priority": 1}"#;
    assert_eq!(desk.gpuspool(&["submit", demand]).out, "mine\n");
    assert_eq!(desk.gpuspool(&["submit", demand]).out, "mine\n", "the same demand twice is one task");
    assert_eq!(names(&desk.queue(TaskClass::Llm, 1)), ["mine.json"]);
}

#[test]
fn one_bad_text_of_several_means_that_nothing_is_queued() {
    let desk = Desk::new();
    let file = desk.write("good.json", r#"{"prompt": "x"}"#);
    let good = r#"{"prompt": "x"}"#;
    let mut told = String::new();
    for bad in [r#"{"prompt": "x",}"#, r#"{"prompt": "x", "priority": 9}"#, r#"{"promt": "x"}"#] {
        let said = desk.gpuspool(&["submit", good, &file, bad]);
        assert_eq!((said.code, said.out.as_str()), (exit::DATA, ""), "{bad}");
        told.push_str(&said.err);
        told.push_str(&desk.gpuspool(&["submit", bad]).err);
    }
    insta::assert_snapshot!("bad_texts", told);
    assert!(names(&desk.queue(TaskClass::Llm, 3)).is_empty());
}

#[test]
fn an_id_that_is_taken_means_that_nothing_is_queued_and_one_that_was_submitted_before_does_not() {
    let desk = Desk::new();
    let (mine, good) = (r#"{"task_id": "mine", "prompt": "x"}"#, r#"{"prompt": "good"}"#);
    let other = r#"{"task_id": "mine", "prompt": "something else"}"#;
    let both = desk.gpuspool(&["submit", good, mine, other]);
    assert_eq!((both.code, both.out.as_str()), (exit::DATA, ""), "{both:?}");
    assert!(both.err.contains("two of these tasks demand the id `mine`"), "{}", both.err);
    assert_eq!(desk.gpuspool(&["submit", mine, mine]).out, "mine\nmine\n", "they ask for the same");
    let taken = desk.gpuspool(&["submit", good, other]);
    assert_eq!((taken.code, taken.out.as_str()), (exit::NOT_ALL, ""), "{taken:?}");
    assert!(taken.err.contains("a task `mine` exists already"), "{}", taken.err);
    assert_eq!(names(&desk.queue(TaskClass::Llm, 3)), ["mine.json"]);

    std::fs::remove_file(desk.queue(TaskClass::Llm, 3).join("mine.json")).unwrap();
    desk.ended(&TaskRecord { prompt: Some("x".into()), ..complete("mine", json!("done")) });
    let again = desk.gpuspool(&["submit", mine, good]);
    assert_eq!((again.code, again.out.lines().count()), (exit::NOT_ALL, 1), "{again:?}");
    assert!(again.err.contains("not queued again"), "{}", again.err);
    assert_eq!(names(&desk.queue(TaskClass::Llm, 3)), [format!("{}.json", again.out.trim())]);
}
