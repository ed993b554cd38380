//! Command lines on a spool of their own: what they print, what they leave behind, and how they exit.

mod cancel;
mod desk;
mod explain;
mod simulate;
mod submit;

use std::io::{self, Write};
use std::path::Path;

use desk::{Brain, Desk, batch, complete, failed, id, names};
use gpuspool_cli::{Console, exit, run};
use model::reason::Ahead;
use model::request::{AboutBatch, AboutQueue, AboutTask, Answer, ExpectedIn, Verb};
use model::{AttemptKey, Reason, TaskClass, TaskId};
use serde_json::{Value, json};

#[test]
fn a_living_brain_is_asked() {
    let desk = Desk::new();
    let name = desk.gpuspool(&["submit", "--prompt", "x"]).out.trim().to_owned();
    let _brain = Brain::answering(&desk, |verb, ids| {
        let ahead = Ahead { count: 3, only_older_in_s: None };
        let reason = Reason::WaitingForSlot { model: "qwen2.5:7b".into(), slots: 2, ahead };
        let about = ids.iter().map(|id| AboutTask {
            id: id.clone(),
            task_id: TaskId::new(id.as_str()).ok(),
            outcome: if verb == Verb::Cancel { "cancelled".into() } else { "waiting".into() },
            reason: (verb == Verb::Why).then(|| reason.told()),
            starts_in_s: (verb == Verb::Why).then_some(40.0),
            ..AboutTask::default()
        });
        Answer { ok: true, about: about.collect(), ..Answer::default() }
    });
    let why = desk.gpuspool(&["why", &name]);
    assert_eq!(
        why.out,
        format!("{name}: all 2 slots of qwen2.5:7b are busy; 3 ahead of it (expected to start in 40s)\n")
    );
    assert_eq!(desk.gpuspool(&["cancel", &name]).out, format!("{name}: cancelled\n"));
    assert_eq!(desk.gpuspool(&["submit", "--prompt", "y"]).err, "", "nothing is said of a brain that runs");
    let status: Value = serde_json::from_str(&desk.gpuspool(&["status", "--json"]).out).unwrap();
    assert_eq!((&status["brain"]["pid"], &status["queued"]["llm"]), (&json!(std::process::id()), &json!(2)));

    let second = desk.gpuspool(&["up", "--plain"]);
    assert_eq!(second.code, exit::BRAIN_RUNS);
    assert!(second.err.contains(&format!("(pid {})", std::process::id())), "{}", second.err);

    let down = desk.gpuspool(&["down", "--timeout", "5s"]);
    assert_eq!((down.code, down.out.as_str()), (0, "the machine is free\n"));
    assert!(desk.gpuspool(&["down"]).err.contains("nothing runs"));
}

#[test]
fn a_living_brain_says_when_and_what_a_gpu_does() {
    let desk = Desk::new();
    let name = desk.gpuspool(&["submit", "--prompt", "x"]).out.trim().to_owned();
    let nothing = desk.gpuspool(&["eta"]).out;
    assert_eq!(
        nothing,
        "no brain runs, so nothing starts: 1 LLM task and 0 script tasks wait; `gpuspool up` starts the work\n"
    );
    let unasked = desk.gpuspool(&["eta", &name]).out;
    assert!(unasked.contains("it lies in llm_queue/priority_3, and no brain runs"), "{unasked}");
    std::fs::write(desk.layout().gpu_state(), picture_with_a_gpu()).unwrap();
    let idle = desk.gpuspool(&["why", "0"]).out;
    assert!(idle.contains("nothing new starts on GPU 0"), "{idle}");

    let _brain = Brain::answering(&desk, foresight);
    let eta = desk.gpuspool(&["eta", &name]).out;
    assert_eq!(eta, format!("{name}: starts in 1m on GPU 1, ends in 6m (9 times of 10 within 11m)\n"));
    insta::assert_snapshot!("eta_of_everything", desk.gpuspool(&["eta"]).out);
    insta::assert_snapshot!("why_of_a_gpu", desk.gpuspool(&["why", "SIM-0"]).out);
    let unknown = desk.gpuspool(&["why", "7"]);
    assert_eq!(unknown.code, exit::NOT_ALL, "{unknown:?}");
    // One that is nothing does not hide the others.
    let some = desk.gpuspool(&["eta", "nothing", &name, "nil"]);
    assert_eq!((some.code, some.out), (exit::NOT_ALL, eta));
    for nobody in ["nothing", "nil"] {
        let said = format!("error: no task or batch is called `{nobody}`\n next: ");
        assert!(some.err.contains(&said), "{}", some.err);
    }
    let some = desk.gpuspool(&["eta", "--json", "nothing", &name]);
    let told: Value = serde_json::from_str(&some.out).expect("JSON");
    assert_eq!((some.code, &told[0]["task_id"]), (exit::NOT_ALL, &json!(name)));
    assert!(some.err.contains("`nothing`"), "{}", some.err);
}

/// A brain that foresees the same for everything.
fn foresight(verb: Verb, ids: &[String]) -> Answer {
    let expected = |starts_in_s: f64, place: Option<&str>| ExpectedIn {
        starts_in_s,
        ends_in_s: 400.0,
        starts_in_p90_s: starts_in_s,
        ends_in_p90_s: 700.0,
        place: place.map(str::to_owned),
    };
    let about = ids.iter().map(|id| AboutTask {
        id: id.clone(),
        task_id: TaskId::new(id.as_str()).ok().filter(|_| verb == Verb::Eta),
        outcome: if verb == Verb::Eta { "waiting".into() } else { "gpu".into() },
        expected: (verb == Verb::Eta).then(|| expected(90.0, Some("1"))),
        gpu: (verb == Verb::Why).then(a_gpu_explained),
        ..AboutTask::default()
    });
    let queue = |class, expected| AboutQueue { class, waiting: 7, held: 1, expected };
    let queues = [queue(TaskClass::Llm, None), queue(TaskClass::Script, Some(expected(-3.0, None)))];
    let batch = AboutBatch {
        batch_id: model::BatchId::new("talks-20250205").unwrap(),
        remaining: 40,
        expected: Some(expected(5.0, None)),
    };
    let all = ids.is_empty();
    Answer {
        ok: true,
        about: about.collect(),
        queues: queues.into_iter().filter(|_| all).collect(),
        batches: [batch].into_iter().filter(|_| all).collect(),
        ..Answer::default()
    }
}

fn a_gpu_explained() -> model::GpuReason {
    use model::gpu_reason::{NextHere, WhyNot};
    model::GpuReason {
        gpu: "0".into(),
        uuid: model::GpuUuid::new("SIM-0").unwrap(),
        name: "SIMULATED 24576 MiB".into(),
        state: model::GpuState::LlmReady,
        for_s: 31.0,
        model: Some("qwen2.5:7b".into()),
        ready_in_s: None,
        health: model::Health::Ok,
        role: None,
        vram: model::picture::VramPicture::default(),
        residents: Vec::new(),
        running: Vec::new(),
        accepts: vec![TaskClass::Llm],
        why_not: vec![WhyNot::LlmKept { scripts: 2, leaves_in_s: Some(12.0) }],
        next: Some(NextHere { task_id: TaskId::new("talk").unwrap(), starts_in_s: 14.0 }),
        lately: vec!["31 s ago: GPU 0 (SIMULATED 24576 MiB): 24576 MB VRAM, 7 slots available".into()],
    }
}

/// A picture of one GPU, as little of it as a reader needs.
fn picture_with_a_gpu() -> String {
    let gpu = json!({
        "state": "idle", "since": "2026-01-01T00:00:00Z", "tasks_completed": 0, "uuid": "SIM-0", "name": "a GPU",
        "vram": {"total_mib": null, "used_mib": null, "foreign_mib": null}, "health": "ok", "draining": false,
        "accepts": [], "residents": [], "slots": [], "transitions": [],
    });
    json!({
        "schema_version": 1, "seq": 1, "epoch": 1, "written_at": "2026-01-01T00:00:00Z", "brain_pid": 1,
        "inventory": "simulated", "inventory_why": null, "mode": "normal", "shutting_down": false,
        "gpus": {"0": gpu}, "cpu": {"capacity": 1, "slots": []}, "boot_times": {}, "queues": {}, "batches": {},
        "leases": {}, "ended": {"complete": 0, "failed": 0},
    })
    .to_string()
}

#[test]
fn results_are_texts_or_json_and_failures_show_the_end_of_the_log() {
    let desk = Desk::new();
    desk.ended(&complete("said", json!("Because of\n\u{1b}]0;Rayleigh\u{7} scattering.")));
    desk.ended(&complete("made", json!({"srt": "/videos/a.srt"})));
    desk.ended(&failed("broken"));
    assert_eq!(desk.gpuspool(&["result", "said"]).out, "Because of\n\\x1b]0;Rayleigh\\x07 scattering.\n");
    assert_eq!(desk.gpuspool(&["result", "made"]).out, "{\n  \"srt\": \"/videos/a.srt\"\n}\n");
    let broken = desk.gpuspool(&["result", "broken"]);
    assert_eq!((broken.code, broken.out.as_str()), (exit::NOT_ALL, ""));
    insta::assert_snapshot!("a_failed_result", broken.err);

    let wait = desk.gpuspool(&["wait", "said", "made"]);
    assert_eq!((wait.code, wait.out.as_str()), (0, "made: complete\nsaid: complete\n"));
    let wait = desk.gpuspool(&["wait", "said", "broken", "--json"]);
    let told: Value = serde_json::from_str(&wait.out).unwrap();
    assert_eq!((wait.code, &told["all_complete"]), (exit::NOT_ALL, &json!(false)));
    insta::assert_snapshot!("why_of_ended_tasks", desk.gpuspool(&["why", "said", "broken"]).out);
    // One that is nothing does not hide the others.
    let some = desk.gpuspool(&["why", "sad", "made"]);
    assert_eq!((some.code, some.out.as_str()), (exit::NOT_ALL, "made: it is complete\n"));
    assert_eq!(some.err, "error: no task or batch is called `sad`\n next: did you mean `said` or `made`?\n");
    let some = desk.gpuspool(&["why", "--json", "sad", "made"]);
    let told: Value = serde_json::from_str(&some.out).unwrap();
    assert_eq!((some.code, &told[0]["task_id"]), (exit::NOT_ALL, &json!("made")));
    assert!(some.err.contains("`sad`"), "{}", some.err);
}

#[test]
fn a_failed_task_is_queued_again_by_moving_its_record() {
    let desk = Desk::new();
    desk.ended(&failed("broken"));
    let before = std::fs::read(desk.layout().failed().join("broken.json")).unwrap();
    let said = desk.gpuspool(&["retry", "broken"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.out, "broken: queued again in DESK/shared/tasks/script_queue/priority_4\n");
    assert_eq!(std::fs::read(desk.queue(TaskClass::Script, 4).join("broken.json")).unwrap(), before);
    assert!(names(&desk.layout().failed()).is_empty());

    let again = desk.gpuspool(&["retry", "broken"]);
    assert_eq!(again.code, exit::NOT_ALL);
    assert!(again.err.contains("is queued already"), "{}", again.err);
}

#[test]
fn a_batch_is_spoken_of_by_its_name() {
    let desk = Desk::new();
    let batch = batch(&desk);
    let name = batch.as_str();
    assert_eq!(desk.gpuspool(&["wait", name, "--timeout", "0"]).code, exit::TRY_AGAIN);
    assert!(desk.gpuspool(&["result", name]).err.contains("`gpuspool result talks-20250205.0`"));
    let why = desk.gpuspool(&["why", name]).out;
    assert_eq!(why, "talks-20250205.2: its batch has not been taken up yet, and no brain runs\n");
    let clean = desk.gpuspool(&["clean", "--older-than", "0s", "--what", "complete"]).out;
    assert!(clean.contains("removed 0"), "items of a live batch are counted by their files: {clean}");

    desk.ended(&complete("talks-20250205.2", json!({})));
    let wait = desk.gpuspool(&["wait", name]);
    assert_eq!((wait.code, wait.out.as_str()), (exit::NOT_ALL, "talks-20250205: 1 of 3 items failed\n"));

    let retry = desk.gpuspool(&["retry", name]);
    assert_eq!((retry.code, retry.out.lines().count()), (0, 1), "{retry:?}");
    assert!(retry.out.starts_with("talks-20250205.1: queued again"), "{}", retry.out);
    assert!(desk.gpuspool(&["retry", name]).err.contains("no item of it has failed"));

    let cancel = desk.gpuspool(&["cancel", name]);
    assert_eq!((cancel.code, cancel.out.as_str()), (0, "talks-20250205: the next brain ends its items\n"));
}

#[test]
fn a_status_without_a_brain_counts_what_waits() {
    let desk = Desk::new();
    desk.gpuspool(&["submit", "--prompt", "x"]);
    let said = desk.gpuspool(&["status"]);
    assert_eq!(said.code, 0);
    assert!(said.out.contains("Nothing runs. `gpuspool up` starts the work."), "{}", said.out);
    assert!(said.out.contains("LLM queue: 1 waiting"), "{}", said.out);

    std::fs::write(desk.layout().gpu_state(), "{\"schema_version\": 99}").unwrap();
    let said = desk.gpuspool(&["status"]);
    assert_eq!(said.code, exit::DATA);
    assert!(said.err.contains("DESK/shared/gpu_state.json cannot be read: missing field"), "{}", said.err);
}

#[test]
fn logs_come_from_the_latest_attempt_and_are_harmless() {
    let desk = Desk::new();
    desk.ended(&failed("broken"));
    for (attempt, text) in [(1, "first"), (3, "third \x1b[2J\nand last, without a line end")] {
        let key = AttemptKey { task_id: id("broken"), attempt };
        std::fs::write(desk.layout().attempt_log(&key), text).unwrap();
    }
    assert_eq!(desk.gpuspool(&["logs", "broken"]).out, "third \\x1b[2J\nand last, without a line end");
    assert_eq!(desk.gpuspool(&["logs", "-f", "broken"]).out, "third \\x1b[2J\nand last, without a line end");
    assert_eq!(desk.gpuspool(&["logs", "broken", "--attempt", "1"]).out, "first");
    assert_eq!(desk.gpuspool(&["logs", "broken", "--attempt", "2"]).code, exit::NO_INPUT);
}

#[test]
fn an_id_that_is_nothing_brings_those_it_could_have_been() {
    let desk = Desk::new();
    desk.ended(&complete("lecture-12", json!("x")));
    for verb in ["result", "wait", "logs", "cancel", "retry", "why", "eta"] {
        let said = desk.gpuspool(&[verb, "lecture-21"]);
        assert_eq!(said.code, exit::NOT_ALL, "{verb}");
        assert_eq!(
            said.err, "error: no task or batch is called `lecture-21`\n next: did you mean `lecture-12`?\n",
            "{verb}"
        );
    }
    let evil = desk.gpuspool(&["result", "../../etc/passwd\x1b[2J"]);
    assert_eq!(evil.code, exit::NOT_ALL);
    assert!(evil.err.contains("`../../etc/passwd\\x1b[2J`"), "{}", evil.err);
}

#[test]
fn check_tells_what_would_be_said_and_queues_nothing() {
    let desk = Desk::new();
    let files = [
        desk.write("good.json", r#"{"prompt": "x", "priority": 4}"#),
        desk.write("odd.json", r#"{"promt": "x", "prompt": "y"}"#),
        desk.write("comma.json", "{\n  \"prompt\": \"x\",\n}"),
        desk.write("level.json", "{\"prompt\": \"x\",\n \"priority\": 9}"),
        desk.write("script.json", r#"{"script": "no_such_script"}"#),
        desk.write("config.json", r#"{"timing": {"settle_s": -1}}"#),
        desk.write("x.manifest.jsonl", "{\"batch\": {}}\n"),
    ];
    let mut words = vec!["check"];
    words.extend(files.iter().map(String::as_str));
    let said = desk.gpuspool(&words);
    assert_eq!(said.code, exit::DATA);
    insta::assert_snapshot!("check", said.out);
    assert!(names(&desk.queue(TaskClass::Llm, 4)).is_empty());
    assert_eq!(desk.gpuspool(&["check", &files[0]]).code, 0);
    assert_eq!(desk.gpuspool(&["check", "/nowhere"]).code, exit::NO_INPUT);
}

#[test]
fn check_knows_a_configuration_by_any_of_its_keys() {
    let desk = Desk::new();
    let checked = |text: &str| {
        let file = desk.write("c.json", text);
        desk.gpuspool(&["check", "--json", &file])
    };
    for (text, kind, valid) in [
        (r#"{"spool": "sq", "gpu_lock": "double"}"#, "config", false),
        (r#"{"spool": "sq", "gpu_lock": "single"}"#, "config", true),
        (r#"{"fairness": {"ageing_s": -1}}"#, "config", false),
        (r#"{"models_order": "small"}"#, "config", false),
        (r#"{"prediction": {"prewarm": 3}}"#, "config", false),
        (r#"{"gpus": "simulated:24576"}"#, "config", true),
        (r#"{"gpus": 2}"#, "config", false),
        (r#"{"scripts": {"s": {"path": "s.py", "speed": 0}}}"#, "config", false),
        (r#"{"gpus": 2, "script": "s"}"#, "task", false),
        (r#"{"prompt": "x", "job_type": "chatbot", "spool": "sq"}"#, "task", true),
        (r#"{"schema_version": 1, "prompt": "x"}"#, "task", true),
        (r#"{"promt": "x"}"#, "task", false),
        ("{}", "task", false),
    ] {
        let told: Value = serde_json::from_str(&checked(text).out).expect("JSON");
        assert_eq!((&told[0]["kind"], &told[0]["valid"]), (&json!(kind), &json!(valid)), "{text}: {told}");
    }
    let said = desk.gpuspool(&["check", &desk.write("c.json", r#"{"gpu_lock": "double"}"#)]).out;
    assert!(said.contains("`gpu_lock`: unknown variant `double`"), "{said}");
}

#[test]
fn clean_removes_what_is_old_and_says_so_before() {
    let desk = Desk::new();
    desk.ended(&complete("said", json!("x")));
    desk.ended(&failed("broken"));
    std::fs::write(desk.layout().failed().join("x.json.rejected"), "torn").unwrap();
    std::fs::write(desk.layout().failed().join("x.json.rejected.reason.json"), "{}").unwrap();
    std::fs::write(desk.layout().processing().join("busy.json"), "{}").unwrap();
    for name in ["said.1.log", "busy.1.log"] {
        std::fs::write(desk.layout().logs().join(name), "lines").unwrap();
    }
    assert!(
        desk.gpuspool(&["clean"]).out.contains("removed 0 complete records older than 7d"),
        "nothing is old"
    );
    let dry = desk.gpuspool(&["clean", "--older-than", "0s", "--dry-run"]);
    assert!(dry.out.contains("would remove 1 failed record older"), "{}", dry.out);
    assert_eq!(names(&desk.layout().failed()).len(), 3);

    let said = desk.gpuspool(&["clean", "--older-than", "0s", "--what", "failed,rejected"]);
    assert_eq!(said.code, 0);
    assert!(names(&desk.layout().failed()).is_empty());
    assert_eq!(names(&desk.layout().complete()), ["said.json"]);
    desk.gpuspool(&["clean", "--older-than", "0s"]);
    assert!(names(&desk.layout().complete()).is_empty());
    assert_eq!(names(&desk.layout().logs()), ["busy.1.log"], "a running task's log is being written");
}

#[test]
fn the_schemas_in_the_repository_are_those_of_the_types() {
    let desk = Desk::new();
    let written = desk.path("schemas");
    assert_eq!(desk.gpuspool(&["schema", "--write", written.to_str().unwrap()]).code, 0);
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/schemas");
    assert_eq!(names(&written), names(&kept), "run `gpuspool schema --write crates/model/schemas`");
    for name in names(&written) {
        let text = |folder: &Path| std::fs::read_to_string(folder.join(&name)).unwrap();
        assert!(
            text(&written) == text(&kept),
            "{name} is old: run `gpuspool schema --write crates/model/schemas`"
        );
    }
    let task: Value =
        serde_json::from_str(&desk.gpuspool(&["schema", "task"]).out).expect("a schema is JSON");
    assert!(task["properties"]["prompt"].is_object());
    assert!(desk.gpuspool(&["schema", "taks"]).err.contains("did you mean `task`?"));
}

/// A reader that has gone.
struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let mut err = Vec::new();
    let code = run(["gpuspool", "schema", "task"], &mut Console::new(&mut Gone, &mut err));
    assert_eq!((code, err), (exit::PIPE, Vec::new()));
}

#[test]
fn what_cannot_be_understood_is_a_usage_error() {
    let desk = Desk::new();
    for words in [
        &[][..],
        &["dance"],
        &["wait"],
        &["submit"],
        &["submit", "--prompt", "x", "--priority", "9"],
        &["submit", "a", "--prompt", "x"],
    ] {
        let said = desk.gpuspool(words);
        assert_eq!((said.code, said.out.as_str()), (exit::USAGE, ""), "{words:?}");
        assert!(
            said.err.contains("Usage:") || said.err.contains("use 1 (low) to 5 (urgent)"),
            "{}",
            said.err
        );
    }
    assert_eq!(desk.gpuspool(&["--version"]).out, format!("gpuspool {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_is_there_for_every_verb() {
    let desk = Desk::new();
    let mut all = desk.gpuspool(&["--help"]).out;
    for verb in [
        "up", "down", "submit", "status", "wait", "result", "logs", "cancel", "retry", "why", "eta",
        "explain", "check", "clean", "schema",
    ] {
        let said = desk.gpuspool(&[verb, "--help"]);
        assert_eq!(said.code, 0, "{verb}");
        all.push_str(&format!("\n──── {verb}\n{}", said.out));
    }
    insta::assert_snapshot!("help", all);
}
