//! Every document on disk that a released shape ever had must load for ever.
//!
//! `tests/fixtures/documents/<kind>.v<version>[.<variant>].json[l]`: one file or more for each kind. Files are
//! added, never edited: a changed shape gets a new version and a new file, and the old file stays.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use model::link::{EngineState, Line, OrdersLine, Phase, ReportsLine, StopWhy, Wish};
use model::task::{Message, TaskRecord};
use model::{Config, FailureClass, GpuMode, GpuState, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The kinds of document that lie on disk, each with its newest version.
const KINDS: &[(&str, u32)] = &[
    ("answer", 1),
    ("batch", model::batch::BATCH_SCHEMA_VERSION),
    ("config", model::config::CONFIG_SCHEMA_VERSION),
    ("gpu_state", model::picture::PICTURE_SCHEMA_VERSION),
    ("learned", model::learned::LEARNED_SCHEMA_VERSION),
    ("manifest", model::batch::BATCH_SCHEMA_VERSION),
    ("orders", model::link::LINK_SCHEMA),
    ("rejection", spool::ledger::REJECTION_SCHEMA_VERSION),
    ("reports", model::link::LINK_SCHEMA),
    ("request", 1),
    ("task", model::task::TASK_SCHEMA_VERSION),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/documents")
}

fn text(name: &str) -> String {
    let path = folder().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn loaded<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_str(&text(name)).unwrap_or_else(|error| panic!("{name} no longer loads: {error}"))
}

/// Loads a document, and sees that what is written back says the same.
fn kept<T: DeserializeOwned + Serialize + PartialEq + Debug>(name: &str) -> T {
    let value: T = loaded(name);
    let written = serde_json::to_string(&value).expect("a document is JSON");
    let again: T = serde_json::from_str(&written).expect("what is written can be read");
    assert_eq!(again, value, "{name} says something else once it has been written back");
    value
}

/// Folds the lines of a log as a reader does, each after a round trip.
fn folded<L: Line + PartialEq + Debug>(name: &str) -> L::State {
    let mut state = L::State::default();
    for line in text(name).lines().filter(|line| !line.is_empty()) {
        let line: L = serde_json::from_str(line).unwrap_or_else(|error| panic!("{name}: {error}: {line}"));
        let written = serde_json::to_string(&line).expect("a line is JSON");
        assert_eq!(serde_json::from_str::<L>(&written).expect("it can be read"), line);
        line.fold_into(&mut state);
    }
    state
}

#[test]
fn each_kind_of_document_has_a_fixture_of_its_newest_version() {
    let mut there = BTreeSet::new();
    for entry in fs::read_dir(folder()).expect("the fixtures can be listed") {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let mut parts = name.split('.');
        let kind = parts.next().unwrap_or_default().to_owned();
        let version =
            parts.next().and_then(|part| part.strip_prefix('v')).and_then(|n| n.parse::<u32>().ok());
        assert!(KINDS.iter().any(|(known, _)| *known == kind), "`{name}` is of no known kind");
        there.insert((kind, version.unwrap_or_else(|| panic!("`{name}` names no version"))));
    }
    for (kind, newest) in KINDS {
        assert!(
            there.contains(&((*kind).to_owned(), *newest)),
            "`{kind}` has no fixture of version {newest}"
        );
    }
}

#[test]
fn tasks_of_version_2() {
    let dropped: TaskRecord = kept("task.v2.dropped.json");
    assert!(dropped.prompt.is_some() && dropped.task_id.is_none());

    let seed: TaskRecord = kept("task.v2.seed.json");
    assert_eq!(seed.status, Some(Status::Queued));
    assert_eq!(seed.gpu_requirement.as_deref(), Some("1"), "a number is as good as a text");

    let complete: TaskRecord = kept("task.v2.complete.json");
    let result = complete.result.expect("a result");
    assert_eq!(result.output, "This is a demonstration model.");
    assert_eq!(result.model.as_deref(), Some("demo-model"));
    let messages: Vec<Message> = complete.messages.expect("messages");
    assert_eq!(messages.len(), 2);

    let failed: TaskRecord = kept("task.v2.failed.json");
    assert_eq!(failed.error.expect("an error").class, FailureClass::Oom);
    assert_eq!(failed.history.iter().filter(|past| past.charged).count(), 1);

    let requeued: TaskRecord = kept("task.v2.requeued.json");
    assert_eq!((requeued.attempt, requeued.charged), (Some(1), Some(1)));
    assert!(requeued.not_before.is_some());
}

#[test]
fn batches_of_version_1() {
    let listed: model::batch::BatchRecord = kept("batch.v1.listed.json");
    assert_eq!(listed.gpu_mode, GpuMode::Exclusive);
    assert_eq!(listed.items.expect("items").len(), 2);
    let large: model::batch::BatchRecord = kept("batch.v1.large.json");
    assert!(large.items.is_none() && large.items_file.is_some());

    let manifest = model::batch::Manifest::parse(&text("manifest.v1.jsonl")).expect("an accepted manifest");
    assert_eq!(manifest.items.len(), 2);
    assert_eq!(manifest.task_id(1).expect("an id").as_str(), "sphinx-talks-2026-11-21.1");
    let again = model::batch::Manifest::parse(&manifest.text().expect("it is JSON"));
    assert_eq!(again, Some(manifest));
}

#[test]
fn a_manifest_cut_anywhere_was_never_accepted() {
    let whole = text("manifest.v1.jsonl");
    let end = whole.trim_end().len();
    for cut in (0..end).filter(|cut| whole.is_char_boundary(*cut)) {
        assert_eq!(model::batch::Manifest::parse(&whole[..cut]), None, "cut at {cut}");
    }
}

#[test]
fn configurations_of_version_1() {
    let read = |name: &str| {
        let read = Config::parse(text(name).as_bytes(), Path::new("/srv/gpuspool"));
        let read = read.unwrap_or_else(|fault| panic!("{name} no longer loads: {fault}"));
        assert!(read.warnings.is_empty(), "{name}: {:?}", read.warnings);
        read.value
    };
    let seed = read("config.v1.seed.json");
    assert_eq!(seed.resource_manager.gpu_count.set(), Some(&5));
    assert_eq!(seed.role("3"), Some(model::config::GpuRole::BrainSecondary));

    let full = read("config.v1.full.json");
    assert_eq!(full.spool.as_deref(), Some(Path::new("/srv/gpuspool/spool")));
    assert_eq!(full.scripts["whisper_transcribe"].vram_mib, Some(3000));
    assert_eq!(full.preset("vllm").expect("a preset").stop_grace_s, 20.0);
    let _: Config = kept("config.v1.full.json");
}

#[test]
fn pictures_of_version_1() {
    let picture: model::picture::Picture = kept("gpu_state.v1.json");
    assert_eq!(picture.gpus["0"].state, GpuState::LlmBusy);
    assert_eq!(picture.gpus["1"].state, GpuState::BootingScript);
    let head = picture.queues[&model::TaskClass::Llm].head.as_ref().expect("a head");
    assert_eq!(head.reason.code, "waiting_for_slot");
}

#[test]
fn what_was_learned_in_version_1() {
    let learned: model::learned::Learned = kept("learned.v1.json");
    assert_eq!(learned.boot_ms["embedded/demo-model"], [412, 398]);
}

#[test]
fn requests_and_answers_of_version_1() {
    let cancel: model::request::Request = kept("request.v1.cancel.json");
    assert_eq!(cancel.ids.len(), 2);
    let down: model::request::Request = kept("request.v1.down.json");
    assert!(down.now && down.timeout_s == Some(60.0));
    let answer: model::request::Answer = kept("answer.v1.json");
    assert_eq!(answer.about[0].reason.as_ref().expect("a reason").code, "waiting_for_gpu");
}

#[test]
fn rejections_of_version_1() {
    let rejection: spool::ledger::Rejection = kept("rejection.v1.json");
    assert_eq!(rejection.code, model::Code::WrongQueue);
}

#[test]
fn orders_of_schema_1() {
    let orders = folded::<OrdersLine>("orders.v1.jsonl");
    assert!(orders.leave && orders.engine.is_none() && orders.hosts.len() == 1);
    let [order] = Vec::from_iter(orders.attempts.into_values()).try_into().expect("one attempt is left");
    let order: model::link::AttemptOrder = order;
    assert_eq!((order.wish, order.why), (Wish::Stop, Some(StopWhy::Cancel)));
    assert_eq!(order.task.priority, model::Priority::URGENT);
}

#[test]
fn reports_of_schema_1() {
    let reports = folded::<ReportsLine>("reports.v1.jsonl");
    assert_eq!(reports.phase, Phase::Leaving);
    assert_eq!(reports.engine.expect("an engine").state, EngineState::Failed);
    assert_eq!(reports.attempts.len(), 2);
    let outcomes: Vec<_> = reports.attempts.values().filter_map(|attempt| attempt.outcome.as_ref()).collect();
    assert!(outcomes.len() == 1 && outcomes[0].stopped);
}
