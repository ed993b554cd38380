//! The bad-input catalogue, as far as a task's text alone decides: each mistake gets its code, field and next step.

use std::path::Path;

use model::task::{ComputeCapability, GpuRequirement, IdClaim, Script, Work};
use model::validate::{Folder, task_of};
use model::{Code, Config, Fault, Priority, Status, Task, TaskClass, TaskId, TaskType};
use serde_json::{Value, json};

fn config() -> Config {
    let text = json!({
        "scripts": {
            "whisper_transcribe": { "path": "w.py", "gpu": "any" },
            "embed_1536": { "path": "e.py", "gpu": "none" },
        },
        "script_dirs": ["scripts"],
        "on_complete": { "tell": ["/bin/tell"] },
        "retry": { "max_attempts": 4 },
    });
    Config::parse(text.to_string().as_bytes(), Path::new("/srv")).expect("a usable configuration").value
}

fn read(class: TaskClass, text: &str, config: &Config) -> Result<Task, Fault> {
    let fresh = TaskId::new("fresh-id").expect("a legal id");
    let folder = Folder { class, priority: Priority::NORMAL, stem: "dropped", fresh: &fresh };
    task_of(text.as_bytes(), &folder, config)
}

fn llm(text: &str) -> Result<Task, Fault> {
    read(TaskClass::Llm, text, &config())
}

fn script(text: &str) -> Result<Task, Fault> {
    read(TaskClass::Script, text, &config())
}

/// Code, field and what to do, which must say `step`.
fn refused(task: Result<Task, Fault>, code: Code, field: Option<&str>, step: &str) {
    let fault = task.expect_err("it must be turned away");
    assert_eq!((fault.code, fault.place.field.as_deref()), (code, field), "{fault}");
    assert!(fault.to_string().contains(step), "`{fault}` does not say `{step}`");
}

#[test]
fn a_prompt_is_a_task_and_folder_and_defaults_say_the_rest() {
    let task = llm(r#"{"prompt": "Why is the sky blue?"}"#).expect("a task");
    assert_eq!((task.task_id.as_str(), task.id_is), ("dropped", IdClaim::Wish));
    assert_eq!(
        (task.class(), task.task_type, task.priority),
        (TaskClass::Llm, TaskType::Generate, Priority::NORMAL)
    );
    assert_eq!(task.job_type, "summarization");
    assert_eq!((task.gpu, task.needs.gpus, task.max_attempts), (GpuRequirement::Any, 1, 4));
    assert_eq!((task.attempt, task.charged, task.warnings.len()), (0, 0, 0));
}

#[test]
fn row_15_an_unknown_field_is_a_warning_and_an_error_where_that_is_wished() {
    let text = r#"{"prompt": "x", "promt": "y"}"#;
    let task = llm(text).expect("it is accepted");
    assert_eq!(task.warnings, ["unknown field `promt` is ignored; did you mean `prompt`?"]);
    let strict = Config { strict: true, ..config() };
    refused(read(TaskClass::Llm, text, &strict), Code::UnknownField, None, "did you mean `prompt`?");
}

#[test]
fn row_16_something_to_do_must_be_named() {
    for nothing in ["{}", r#"{"prompt": " "}"#, r#"{"messages": []}"#, r#"{"task_class": "llm"}"#] {
        refused(llm(nothing), Code::MissingField, Some("prompt"), "give `prompt`, `messages` or `input`");
    }
    refused(
        script("{}"),
        Code::MissingField,
        Some("script"),
        "registered are: embed_1536, whisper_transcribe",
    );
    for enough in [
        r#"{"messages": [{"role": "user", "content": "x"}]}"#,
        r#"{"input": "/data/text.txt"}"#,
        r#"{"prompt": "x", "task_id": null}"#,
    ] {
        assert!(llm(enough).is_ok(), "{enough}");
    }
}

#[test]
fn row_17_words_that_are_none_of_the_known_ones() {
    refused(llm(r#"{"task_class": "gpu", "prompt": "x"}"#), Code::BadEnum, Some("task_class"), "`llm`");
    refused(llm(r#"{"task_type": "think", "prompt": "x"}"#), Code::BadEnum, Some("task_type"), "`transform`");
    refused(
        llm(r#"{"task_type": "transcribe", "prompt": "x"}"#),
        Code::BadEnum,
        Some("task_type"),
        "use one of parse, transform, generate, execute, decide",
    );
    refused(
        script(r#"{"task_type": "generate", "script": "whisper_transcribe"}"#),
        Code::BadEnum,
        Some("task_type"),
        "use one of transcribe, embed, process",
    );
    refused(llm(r#"{"status": "done", "prompt": "x"}"#), Code::BadEnum, Some("status"), "`queued`");
}

#[test]
fn row_18_priorities() {
    for bad in ["0", "6", "-1", "\"high\"", "3.5", "300"] {
        let text = format!(r#"{{"prompt": "x", "priority": {bad}}}"#);
        refused(llm(&text), Code::BadPriority, Some("priority"), "");
    }
    let other = llm(r#"{"prompt": "x", "priority": 5}"#).expect("the folder wins");
    assert_eq!(other.priority, Priority::NORMAL);
    assert_eq!(other.warnings, ["`priority` differs from the folder; the folder's 3 holds"]);
}

#[test]
fn row_20_where_the_id_comes_from() {
    let stated = llm(r#"{"prompt": "x", "task_id": "mine"}"#).expect("a task");
    assert_eq!((stated.task_id.as_str(), stated.id_is), ("mine", IdClaim::Demand));
    let fresh = TaskId::new("0199-fresh").expect("a legal id");
    let odd =
        Folder { class: TaskClass::Llm, priority: Priority::NORMAL, stem: "my task (2)", fresh: &fresh };
    let task = task_of(br#"{"prompt": "x"}"#, &odd, &config()).expect("a task");
    assert_eq!((task.task_id, task.id_is), (fresh, IdClaim::Wish));
}

#[test]
fn row_21_ids_that_could_leave_their_folder() {
    let long = "x".repeat(300);
    for bad in [
        "../../etc/x",
        "/abs",
        "a/b",
        ".",
        "-rf",
        &long,
        "a\u{7}b",
        "a\u{202e}b",
        "CON",
        "a b",
        "",
        "a\\b",
        "é",
    ] {
        let text = json!({ "prompt": "x", "task_id": bad }).to_string();
        let fault = llm(&text).expect_err(bad);
        assert_eq!((fault.code, fault.place.field.as_deref()), (Code::BadTaskId, Some("task_id")), "{fault}");
        assert!(!fault.to_string().contains(['\u{7}', '\u{202e}']), "shown as it must not be: {fault:?}");
    }
    refused(
        llm(r#"{"prompt": "x", "batch_id": "../x"}"#),
        Code::BadTaskId,
        Some("batch_id"),
        "is not a legal id",
    );
}

#[test]
fn row_25_scripts_that_are_not_registered() {
    refused(
        script(r#"{"script": "whisper_transcibe"}"#),
        Code::UnknownScript,
        Some("script"),
        "did you mean `whisper_transcribe`?",
    );
    for bad in ["/etc/passwd", "scripts/../../x.py", "../x.py", "/srv/scripts/../x", "", "/srv/scripts"] {
        let text = json!({ "script": bad }).to_string();
        refused(script(&text), Code::UnknownScript, Some("script"), "register it with `\"scripts\":");
    }
    // Where a relative one lies is for whoever sees files to say.
    for good in ["mine.py", "scripts/sub/x.sh", "/srv/scripts/mine.py"] {
        let task = script(&json!({ "script": good }).to_string()).expect(good);
        let Work::Script(work) = task.work else { panic!("a script") };
        assert_eq!(work.script, Script::File(good.into()));
    }
}

#[test]
fn row_26_a_task_in_the_wrong_queue_is_told_the_right_one() {
    let right = "put it into `llm_queue/priority_3/`";
    refused(script(r#"{"task_class": "llm", "prompt": "x"}"#), Code::WrongQueue, Some("task_class"), right);
    refused(script(r#"{"prompt": "x"}"#), Code::WrongQueue, None, right);
    let right = "put it into `script_queue/priority_3/`";
    refused(
        llm(r#"{"task_class": "script", "script": "embed_1536"}"#),
        Code::WrongQueue,
        Some("task_class"),
        right,
    );
    refused(llm(r#"{"script": "embed_1536"}"#), Code::WrongQueue, None, right);
}

#[test]
fn row_27_where_a_task_may_run() {
    let gpu =
        |text: &str| llm(&format!(r#"{{"prompt": "x", "gpu_requirement": {text}}}"#)).map(|task| task.gpu);
    assert_eq!(gpu(r#""any""#), Ok(GpuRequirement::Any));
    assert_eq!(gpu("1"), Ok(GpuRequirement::Key("1".into())));
    assert_eq!(gpu(r#""2""#), Ok(GpuRequirement::Key("2".into())));
    assert!(matches!(gpu(r#""GPU-8f5b""#), Ok(GpuRequirement::Uuid(_))));
    refused(
        llm(r#"{"prompt": "x", "gpu_requirement": "the big one"}"#),
        Code::BadEnum,
        Some("gpu_requirement"),
        "use `any`, `none`, a key of `gpus`",
    );
    refused(
        llm(r#"{"prompt": "x", "gpu_requirement": "none"}"#),
        Code::BadEnum,
        Some("gpu_requirement"),
        "use `any`, a key of `gpus`",
    );
    let lane = script(r#"{"script": "embed_1536"}"#).expect("a task");
    assert_eq!(lane.gpu, GpuRequirement::None, "the script needs no GPU");
    let asked = script(r#"{"script": "embed_1536", "gpu_requirement": "any"}"#).expect("a task");
    assert_eq!(asked.gpu, GpuRequirement::Any, "the task's own word holds");
    let needs =
        llm(r#"{"prompt": "x", "min_compute_capability": 8.6, "vram_mib": 9000}"#).expect("a task").needs;
    assert_eq!(needs.min_compute_capability, Some(ComputeCapability { major: 8, minor: 6 }));
    assert_eq!(needs.vram_mib, Some(9_000));
    refused(
        llm(r#"{"prompt": "x", "min_compute_capability": "ampere"}"#),
        Code::BadNumber,
        Some("min_compute_capability"),
        "write it like `8.6`",
    );
    refused(llm(r#"{"prompt": "x", "gpus": 0}"#), Code::OutOfRange, Some("gpus"), "not within 1 to 64");
}

#[test]
fn row_46_bombs() {
    let deep = format!(
        r#"{{"script": "embed_1536", "script_args": {{"x": {}1{}}}}}"#,
        "[".repeat(90),
        "]".repeat(90)
    );
    refused(script(&deep), Code::TooDeep, None, "");
    let wide =
        format!(r#"{{"script": "embed_1536", "script_args": {{"x": [{}]}}}}"#, vec!["0"; 100_000].join(","));
    assert!(script(&wide).is_ok(), "what is below the limit of bytes is only large");
}

#[test]
fn row_47_a_task_cannot_set_the_environment() {
    for variable in ["LD_PRELOAD", "PATH", "CUDA_VISIBLE_DEVICES", "HARMLESS"] {
        let text = json!({ "script": "embed_1536", "env": { variable: "x" } }).to_string();
        refused(script(&text), Code::EnvNotAllowed, Some("env"), "under `scripts.<name>.env` in config.json");
    }
}

#[test]
fn rows_48_and_49_times_that_nobody_can_mean() {
    for (field, bad) in [
        ("estimated_duration_sec", "-5"),
        ("estimated_duration_sec", "1e18"),
        ("media_s", "-1"),
        ("timeout_s", "0"),
        ("timeout_s", "-0.5"),
    ] {
        let text = format!(r#"{{"prompt": "x", "{field}": {bad}}}"#);
        refused(llm(&text), Code::BadNumber, Some(field), "give seconds, more than 0");
    }
    for field in ["estimated_duration_sec", "timeout_s", "media_s"] {
        let text = format!(r#"{{"prompt": "x", "{field}": "soon"}}"#);
        refused(llm(&text), Code::BadNumber, Some(field), "");
    }
    refused(
        llm(r#"{"prompt": "x", "max_attempts": 0}"#),
        Code::OutOfRange,
        Some("max_attempts"),
        "within 1 to 100",
    );
    assert!(llm(r#"{"prompt": "x", "estimated_duration_sec": 0}"#).is_ok(), "instant is a fine expectation");
}

#[test]
fn options_cannot_take_over_what_is_the_tasks_own() {
    for key in ["messages", "model", "stream"] {
        let text = json!({ "prompt": "x", "options": { key: true } }).to_string();
        refused(llm(&text), Code::OutOfRange, Some(&format!("options.{key}")), "use the task's own fields");
    }
    assert!(llm(r#"{"prompt": "x", "options": {"max_tokens": 5, "temperature": 0}}"#).is_ok());
}

#[test]
fn what_is_called_at_the_end_is_registered_or_an_address() {
    for good in ["tell", "http://127.0.0.1/done"] {
        assert!(llm(&json!({ "prompt": "x", "on_complete": good }).to_string()).is_ok(), "{good}");
    }
    refused(
        llm(r#"{"prompt": "x", "on_complete": "rm -rf /"}"#),
        Code::BadEnum,
        Some("on_complete"),
        "registered under `on_complete` in config.json are: tell",
    );
}

#[test]
fn a_scripts_arguments_get_the_tasks_input_folder_and_model_unless_they_name_their_own() {
    let text = r#"{"script": "whisper_transcribe", "input": "/m/a.mp4", "output_dir": "/out", "model": "turbo",
                   "script_args": {"model": "tiny", "language": "en"}}"#;
    let Work::Script(work) = script(text).expect("a task").work else { panic!("a script") };
    assert_eq!(
        Value::Object(work.args),
        json!({ "input": "/m/a.mp4", "output_dir": "/out", "model": "tiny", "language": "en" })
    );
    assert_eq!((work.model.as_deref(), work.input.as_deref()), (Some("tiny"), Some("/m/a.mp4")));
}

/// A record as it lies in `failed/` or `complete/`.
fn ended(status: &str) -> Value {
    json!({
        "task_id": "t", "prompt": "x", "status": status, "attempt": 3, "charged": 2, "assigned_gpu": "1",
        "created_at": "2026-01-01T00:00:00Z", "started_at": "2026-01-01T00:01:00Z",
        "completed_at": "2026-01-01T00:02:00Z", "not_before": "2030-01-01T00:00:00Z",
        "error": { "class": "oom", "code": "out_of_memory", "message": "too big" },
        "history": [{ "attempt": 2, "charged": true }],
    })
}

#[test]
fn a_record_moved_back_into_a_queue_is_a_retry() {
    for (status, was) in [("failed", Status::Failed), ("complete", Status::Complete)] {
        let task = llm(&ended(status).to_string()).expect("a retry");
        assert_eq!((task.attempt, task.charged), (3, 0), "attempts go on, charges begin anew");
        assert_eq!(task.not_before, None, "back-off begins anew");
        let last = task.history.last().expect("the old outcome");
        assert_eq!(task.history.len(), 2);
        assert_eq!((last.attempt, last.was, last.charged), (3, Some(was), false));
        assert_eq!(last.error.as_ref().map(|error| error.code.as_str()), Some("out_of_memory"));
        assert_eq!((task.id_is, task.warnings.len()), (IdClaim::Demand, 0));
    }
}

#[test]
fn a_queued_record_with_a_history_is_ours_and_keeps_its_past() {
    let task = llm(&ended("queued").to_string()).expect("a requeued task");
    assert_eq!((task.attempt, task.charged, task.history.len()), (3, 2, 1));
    assert!(task.not_before.is_some(), "it still backs off");
}

#[test]
fn anybody_elses_past_is_ignored_with_a_warning() {
    let mut forged = ended("queued");
    forged["history"] = json!([]);
    forged["result"] = json!({ "task_id": "t", "output": "fine", "duration": 1 });
    let task = llm(&forged.to_string()).expect("a task");
    assert_eq!((task.attempt, task.charged, task.history.len()), (0, 0, 0));
    let ignored: Vec<&str> = ["attempt", "charged", "result", "error"].to_vec();
    let warned = ignored.iter().map(|field| format!("`{field}` is not a new task's to say, and is ignored"));
    assert_eq!(task.warnings, warned.collect::<Vec<_>>());
    assert!(task.not_before.is_some(), "a person may say when it begins");
}

#[test]
fn a_task_written_back_and_read_again_is_the_same_task() {
    let config = config();
    for text in [
        r#"{"prompt": "x", "options": {"max_tokens": 3}, "model": "m", "timeout_s": 5, "vram_mib": 7, "batch_id": "b"}"#,
        r#"{"messages": [{"role": "user", "content": "x"}], "gpu_requirement": 1, "min_compute_capability": "9"}"#,
    ] {
        let mut first = llm(text).expect("a task");
        let record = serde_json::to_string(&first.record()).expect("JSON");
        let second = read(TaskClass::Llm, &record, &config).expect("the same task");
        first.id_is = IdClaim::Demand;
        assert_eq!(second, first);
    }
}
