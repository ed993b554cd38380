//! Births that succeed, fail and are cut short; records that are torn, repeated and waited for.

use std::process::Command;
use std::sync::PoisonError;

use model::link::Protocol;
use model::{Status, TaskId};

use super::*;

fn spool() -> (tempfile::TempDir, Layout) {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    layout.create().unwrap();
    (dir, layout)
}

fn gpu() -> GpuIdentity {
    let uuid = GpuUuid::new("SIM-0").unwrap();
    GpuIdentity { uuid, index: 0, name: "SIMULATED 8192 MiB".into(), vram_mib: Some(8_192) }
}

fn birth(gpu: Option<GpuIdentity>) -> Birth {
    let exe = "/usr/bin/worker".to_owned();
    Birth { launch: Some("l-1".into()), exe, gpu, can: Can::default(), durability: Durability::Power }
}

fn key(task: &str, attempt: u32) -> AttemptKey {
    AttemptKey { task_id: TaskId::new(task).unwrap(), attempt }
}

fn record(key: &AttemptKey) -> TaskRecord {
    TaskRecord {
        task_id: Some(key.task_id.clone()),
        attempt: Some(key.attempt),
        status: Some(Status::Complete),
        ..TaskRecord::default()
    }
}

fn newborns(layout: &Layout) -> Vec<PathBuf> {
    let all = fs::read_dir(layout.workers()).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(".new-")).collect()
}

fn inherited(file: impl AsFd) -> bool {
    !rustix::io::fcntl_getfd(file).unwrap().contains(FdFlags::CLOEXEC)
}

#[test]
fn a_newborn_worker_has_said_who_it_is_before_it_has_a_name() {
    let (_dir, layout) = spool();
    let points = crash::passed(|| drop(WorkerHome::birth(&layout, birth(Some(gpu()))).unwrap()));
    let own: Vec<_> = points.into_iter().filter(|point| point.starts_with("birth.")).collect();
    assert_eq!(own, ["birth.W2", "birth.W3", "birth.W4", "birth.W5", "birth.W6"]);

    let (_dir, layout) = spool();
    let mut home = WorkerHome::birth(&layout, birth(Some(gpu()))).unwrap();
    assert_eq!(named(&layout).unwrap(), [home.id().clone()]);
    let mut reports = Reader::<ReportsLine>::open(&layout.worker(home.id()), REPORTS).unwrap();
    reports.read().unwrap();
    let said = reports.state();
    assert_eq!(said.worker.as_ref().unwrap().process(), process::me().unwrap());
    assert_eq!(
        (said.gpu.as_ref(), said.protocol, said.phase),
        (Some(&gpu()), Protocol::default(), Phase::Serving)
    );
    assert!(!home.orders.read().unwrap().changed && home.outbox_is_empty().unwrap());
    assert!(inherited(home.gpu_lock().unwrap()), "an engine keeps its GPU");
    assert!(!inherited(&home.lock), "a worker's life is its own");
    assert!(home.still_ours());
    fs::remove_file(home.folder().join(LOCK)).unwrap();
    assert!(!home.still_ours());
}

#[test]
fn a_gpu_has_one_worker_and_the_second_is_told_which() {
    let (_dir, layout) = spool();
    let first = WorkerHome::birth(&layout, birth(Some(gpu()))).unwrap();
    let refused = WorkerHome::birth(&layout, birth(Some(gpu()))).unwrap_err();
    assert_eq!(refused.exit_code(), 4);
    let text = refused.to_string();
    assert!(text.contains(first.id().as_str()) && text.contains(&std::process::id().to_string()), "{text}");
    let BirthError::GpuHeld { pid, .. } = refused else { panic!("{text}") };
    assert_eq!(pid, Some(std::process::id()));
    assert!(newborns(&layout).is_empty(), "nothing of the second is left");
    WorkerHome::birth(&layout, birth(None)).unwrap();
    assert_eq!(named(&layout).unwrap().len(), 2, "the CPU lane needs no GPU");
}

#[test]
fn an_engine_that_outlives_its_worker_keeps_the_gpu() {
    let _alone = process::STARTING.write().unwrap_or_else(PoisonError::into_inner);
    let (_dir, layout) = spool();
    let home = WorkerHome::birth(&layout, birth(Some(gpu()))).unwrap();
    let mut engine = process::started_cat(&mut Command::new("cat"));
    let own_lock = open_lock(&home.folder().join(LOCK)).unwrap();
    drop(home);
    assert!(own_lock.try_lock().is_ok(), "the worker's lock died with it");
    let refused = WorkerHome::birth(&layout, birth(Some(gpu()))).unwrap_err();
    assert_eq!(refused.exit_code(), 4, "{refused}");
    engine.kill().unwrap();
    engine.wait().unwrap();
}

#[test]
fn a_birth_cut_short_leaves_nothing_with_a_name() {
    let _quiet = process::STARTING.read().unwrap_or_else(PoisonError::into_inner);
    for point in ["birth.W2", "birth.W3", "birth.W4", "birth.W5"] {
        let (_dir, layout) = spool();
        crash::at(point, 1, || WorkerHome::birth(&layout, birth(Some(gpu()))).map(drop)).unwrap_err();
        assert!(named(&layout).unwrap().is_empty(), "{point}");
        assert_eq!(newborns(&layout).len(), 1, "{point}");
    }
    let (_dir, layout) = spool();
    crash::at("birth.W6", 1, || WorkerHome::birth(&layout, birth(None)).map(drop)).unwrap_err();
    assert!(newborns(&layout).is_empty());
    assert_eq!(named(&layout).unwrap().len(), 1);
}

#[test]
fn a_record_is_whole_in_the_outbox_or_not_there_and_may_be_put_twice() {
    let (_dir, layout) = spool();
    let mut home = WorkerHome::birth(&layout, birth(None)).unwrap();
    let first = key("a", 1);
    for point in ["finish.F1", "finish.F2", "finish.F3"] {
        crash::at(point, 1, || home.put_record(&first, &record(&first))).unwrap_err();
        home.forget_record(&first).unwrap();
    }
    // Torn by a death between creation and write, then by one in the middle.
    let path = layout.outbox(home.id()).join("a.1.json");
    for torn in ["", "{\"task_id\": \"a\""] {
        fs::write(&path, torn).unwrap();
        assert!(home.outbox_is_empty().unwrap());
        home.put_record(&first, &record(&first)).unwrap();
        assert_eq!(home.waiting_records().unwrap(), vec![first.clone()]);
    }
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    home.put_record(&first, &record(&first)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before, "the same again does nothing");
    let other = home.put_record(&key("a", 2), &record(&first)).unwrap_err();
    assert!(other.to_string().contains("a.2"), "{other}");
}

#[test]
fn many_records_are_made_durable_together_and_a_worker_leaves_without_any() {
    let (_dir, layout) = spool();
    let mut home = WorkerHome::birth(&layout, birth(None)).unwrap();
    let keys: Vec<_> = (1..=5).map(|attempt| key("a", attempt)).collect();
    for key in &keys {
        home.write_record(key, &record(key)).unwrap();
    }
    home.sync_job().run().unwrap();
    let LeaveError::Outbox(waiting) = home.leave().unwrap_err() else { panic!("it must wait") };
    assert_eq!(waiting, keys);
    for key in &keys {
        home.forget_record(key).unwrap();
        home.forget_record(key).unwrap();
    }
    home.leave().unwrap();
    assert_eq!(home.reports.state().phase, Phase::Left);
}
