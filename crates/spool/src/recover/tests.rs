//! The living, the dead and the half-buried. What they leave in the task folders: `settling`.

mod settling;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{PoisonError, RwLockReadGuard};
use std::time::{Duration, SystemTime};

use model::config::Config;
use model::link::WorkerIdentity;
use model::link::{AttemptOrder, AttemptReport, AttemptState, GpuIdentity, OrdersLine, ReportsLine, Wish};
use model::validate::{Folder as Place, task_of};
use model::{Durability, Priority, Task, TaskClass};

use super::*;
use crate::layout::record_file;
use crate::ledger::Ledger;
use crate::link::Writer;

struct House {
    _dir: tempfile::TempDir,
    layout: Layout,
    held: Vec<File>,
    /// No child is started meanwhile: it would keep locks for an instant.
    quiet: Option<RwLockReadGuard<'static, ()>>,
}

fn id(text: &str) -> WorkerId {
    WorkerId::new(text).unwrap()
}

fn task_id(text: &str) -> TaskId {
    TaskId::new(text).unwrap()
}

fn key(task: &str, attempt: u32) -> AttemptKey {
    AttemptKey { task_id: task_id(task), attempt }
}

fn task(name: &str, attempt: u32) -> Task {
    let fresh = task_id("fresh");
    let folder = Place { class: TaskClass::Llm, priority: Priority::NORMAL, stem: name, fresh: &fresh };
    let task = task_of(br#"{"prompt": "p"}"#, &folder, &Config::default()).unwrap();
    Task { attempt, charged: attempt, ..task }
}

fn ordered(tasks: &[(&str, u32, Wish)]) -> Orders {
    let order = |(name, attempt, wish): &(&str, u32, Wish)| AttemptOrder {
        task_id: task_id(name),
        attempt: *attempt,
        wish: *wish,
        why: None,
        gpus: Vec::new(),
        task: Box::new(task(name, *attempt)),
    };
    Orders {
        attempts: tasks.iter().map(|one| (key(one.0, one.1), order(one))).collect(),
        ..Orders::default()
    }
}

fn reported(name: &str, attempt: u32, state: AttemptState) -> Reports {
    let report = AttemptReport {
        task_id: task_id(name),
        attempt,
        state,
        since: None,
        progress: None,
        media_s: None,
        yields: false,
        outcome: None,
    };
    Reports { attempts: BTreeMap::from([(key(name, attempt), report)]), ..Reports::default() }
}

/// A process of this boot that is gone.
fn gone() -> ProcessIdentity {
    let me = process::me().unwrap();
    ProcessIdentity { starttime: me.starttime + 1, ..me }
}

fn house() -> House {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    layout.create().unwrap();
    let quiet = process::STARTING.read().unwrap_or_else(PoisonError::into_inner);
    House { _dir: dir, layout, held: Vec::new(), quiet: Some(quiet) }
}

impl House {
    /// A registered worker's folder, as this process left it; its lock is free.
    fn worker(&self, name: &str, process: &ProcessIdentity, orders: Orders, reports: Reports) {
        let folder = self.layout.worker(&id(name));
        fs::create_dir_all(folder.join(OUTBOX)).unwrap();
        open_lock(&folder.join(LOCK)).unwrap();
        let worker = Some(WorkerIdentity {
            uuid: id(name),
            launch: None,
            pid: process.pid,
            starttime: process.starttime,
            boot_id: process.boot_id.clone(),
            exe: "worker".into(),
        });
        Writer::<ReportsLine>::create(&folder, REPORTS, 1, Reports { worker, ..reports }).unwrap();
        Writer::<OrdersLine>::create(&folder, ORDERS, 5, orders).unwrap();
    }
    fn dead(&self, orders: Orders, reports: Reports) {
        self.worker("w", &gone(), orders, reports);
    }
    fn living(&mut self, orders: Orders, reports: Reports) {
        self.worker("w", &process::me().unwrap(), orders, reports);
        // A lock belongs to an open file: a second opening in the same process meets it as a stranger's.
        let lock = open_lock(&self.layout.worker(&id("w")).join(LOCK)).unwrap();
        lock.try_lock().unwrap();
        self.held.push(lock);
    }
    fn put(&self, folder: &Path, name: &str, text: &str) {
        fs::write(folder.join(name), text).unwrap();
    }
    fn processing(&self, name: &str, text: &str) {
        self.put(&self.layout.processing(), name, text);
    }
    fn complete(&self, name: &str, text: &str) {
        self.put(&self.layout.complete(), name, text);
    }
    fn queue(&self, name: &str, text: &str) {
        self.put(&self.layout.queue(TaskClass::Llm, Priority::NORMAL), name, text);
    }
    fn outbox(&self, key: &AttemptKey, text: &str) {
        self.put(&self.layout.outbox(&id("w")), &record_file(key), text);
    }
    fn recover(&self) -> (Survey, Vec<Note>) {
        let survey = survey(&self.layout).unwrap();
        let orders = survey.workers.iter().flat_map(|found| &found.orders.attempts);
        let live =
            orders.map(|(key, order)| (key.task_id.clone(), (key.clone(), (*order.task).clone()))).collect();
        let mut ledger = Ledger::new(self.layout.clone(), Durability::Process);
        let notes = settle(&self.layout, &mut ledger, &live).unwrap();
        (survey, notes)
    }
    /// Everything under `tasks/`, by folder and name; what is staged does not count, and is swept an hour later.
    fn tasks(&self) -> Vec<String> {
        let tasks = self.layout.processing().parent().unwrap().to_owned();
        let staging = self.layout.stage();
        let mut all = Vec::new();
        for folder in self
            .layout
            .folders()
            .iter()
            .filter(|folder| folder.starts_with(&tasks) && **folder != tasks && **folder != staging)
        {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if !entry.path().is_dir() || folder.ends_with("processing") {
                    all.push(entry.path().strip_prefix(&tasks).unwrap().display().to_string());
                }
            }
        }
        all.sort();
        all
    }
}

const RAW: &str = r#"{"prompt": "p"}"#;

fn body(status: &str, attempt: u32, rest: &str) -> String {
    format!(r#"{{"task_id": "x", "prompt": "p", "status": "{status}", "attempt": {attempt}{rest}}}"#)
}

fn past(attempt: u32) -> String {
    format!(r#", "history": [{{"attempt": {attempt}, "charged": true}}]"#)
}

/// A process that holds a lock for as long as it lives.
fn holder_of_lock(path: &Path) -> Child {
    // `flock --no-fork` becomes the program it runs: one process, which holds the lock itself.
    process::started_cat(Command::new("flock").args(["--no-fork", "--exclusive"]).arg(path).arg("cat"))
}

#[test]
fn a_worker_lives_as_long_as_it_holds_its_lock() {
    let mut house = house();
    house.quiet = None;
    let _alone = process::STARTING.write().unwrap_or_else(PoisonError::into_inner);
    let folder = house.layout.worker(&id("v"));
    fs::create_dir_all(&folder).unwrap();
    let mut child = holder_of_lock(&folder.join(LOCK));
    let process = process::identity_of(child.id()).unwrap();
    house.worker("v", &process, ordered(&[("x", 1, Wish::Run)]), Reports::default());
    let found = survey(&house.layout).unwrap().workers.remove(0);
    assert!(found.alive && found.lock.is_none() && !found.other_boot);
    assert_eq!(found.process.as_ref(), Some(&process));
    assert!(pronounce(&house.layout, &id("v")).unwrap().is_none());
    let pidfd = process::pidfd_of(&process).unwrap();
    child.kill().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(process::ended(pidfd)).unwrap();
    let lock = pronounce(&house.layout, &id("v")).unwrap().expect("it is dead");
    assert!(
        pronounce(&house.layout, &id("v")).unwrap().is_none(),
        "whoever has pronounced it holds the lock"
    );
    child.wait().unwrap();
    drop(lock);
    let found = survey(&house.layout).unwrap().workers.remove(0);
    assert!(!found.alive && found.lock.is_some() && !found.other_boot);
    assert_eq!(found.orders.attempts.len(), 1);
}

#[test]
fn a_free_lock_is_not_believed_while_its_worker_lives() {
    let mut house = house();
    house.living(Orders::default(), Reports::default());
    let path = house.layout.worker(&id("w")).join(LOCK);
    fs::remove_file(&path).unwrap();
    assert!(pronounce(&house.layout, &id("w")).unwrap().is_none());
    assert!(survey(&house.layout).unwrap().workers[0].alive);
}

#[test]
fn a_worker_of_another_boot_died_with_the_machine() {
    let house = house();
    let before = ProcessIdentity { boot_id: "the boot before".into(), ..process::me().unwrap() };
    house.worker("a", &before, Orders::default(), Reports::default());
    house.worker("b", &gone(), Orders::default(), Reports::default());
    house.worker("c", &gone(), Orders { brain: Some(before), ..Orders::default() }, Reports::default());
    // Reports are never synced: after a power cut they may be gone, and the orders tell.
    fs::write(house.layout.worker(&id("c")).join(REPORTS), [0; 300]).unwrap();
    let workers = survey(&house.layout).unwrap().workers;
    let died: Vec<_> =
        workers.iter().map(|found| (found.id.as_str(), found.alive, found.other_boot)).collect();
    assert_eq!(died, [("a", false, true), ("b", false, false), ("c", false, true)]);
}

#[test]
fn no_result_is_buried() {
    let house = house();
    house.dead(Orders::default(), Reports::default());
    house.outbox(&key("x", 1), &body("complete", 1, ""));
    let refused = bury(&house.layout, &id("w")).unwrap_err();
    assert!(refused.to_string().contains("x.1"), "{refused}");
    fs::remove_file(house.layout.outbox(&id("w")).join("x.1.json")).unwrap();
    house.outbox(&key("y", 1), "{torn");
    crash::at("recovery.X10", 1, || bury(&house.layout, &id("w"))).unwrap_err();
    bury(&house.layout, &id("w")).unwrap();
    assert!(house.layout.buried(&id("w")).is_dir());
    assert!(worker::named(&house.layout).unwrap().is_empty());
}

fn make_old(path: &Path, age: Duration) {
    File::open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
}

#[test]
fn what_the_dead_left_unfinished_is_swept_when_it_is_old_and_nobodys() {
    let house = house();
    let hours = |hours: u64| Duration::from_secs(hours * 3_600);
    let newborn = |name: &str| {
        let folder = house.layout.newborn(&id(name));
        fs::create_dir_all(folder.join(OUTBOX)).unwrap();
        let lock = open_lock(&folder.join(LOCK)).unwrap();
        (folder, lock)
    };
    let (young, _) = newborn("young");
    let (old, _) = newborn("old");
    let (slow, held) = newborn("slow");
    held.try_lock().unwrap();
    let (buried, long_buried) = (house.layout.buried(&id("a")), house.layout.buried(&id("b")));
    fs::create_dir_all(&buried).unwrap();
    fs::create_dir_all(&long_buried).unwrap();
    let staged = house.layout.stage().join("left");
    let temporary = house.layout.root().join(".gpu_state.json.1.tmp");
    for file in [&staged, &temporary] {
        fs::write(file, "").unwrap();
        make_old(file, hours(2));
    }
    fs::write(house.layout.stage().join("new"), "").unwrap();
    make_old(&old, hours(2));
    make_old(&slow, hours(2));
    make_old(&buried, hours(24));
    make_old(&long_buried, hours(24 * 8));
    let swept = survey(&house.layout).unwrap().notes;
    assert_eq!(swept.len(), 4, "{swept:?}");
    for path in [old, long_buried, staged, temporary] {
        assert!(!path.exists() && swept.contains(&Note::Swept(path)));
    }
    assert!(young.exists() && slow.exists() && buried.exists() && house.layout.stage().join("new").exists());
}

#[test]
fn a_gpu_that_a_dead_workers_engine_keeps_is_shown_with_its_holder() {
    let mut house = house();
    let gpu = |name: &str| GpuUuid::new(name).unwrap();
    let reports = Reports {
        gpu: Some(GpuIdentity { uuid: gpu("SIM-0"), index: 0, name: "SIMULATED".into(), vram_mib: None }),
        ..Reports::default()
    };
    house.living(Orders::default(), reports);
    for name in ["SIM-0", "SIM-1", "SIM-2"] {
        let lock = open_lock(&house.layout.gpu_lock(&gpu(name))).unwrap();
        if name != "SIM-2" {
            lock.try_lock().unwrap();
        }
        house.held.push(lock);
    }
    let held = survey(&house.layout).unwrap().gpus_held;
    assert_eq!(held, [HeldGpu { gpu: gpu("SIM-1"), pid: std::process::id(), holder: None }]);
}
