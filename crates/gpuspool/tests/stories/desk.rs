//! A spool to run command lines on, and what to put into it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gpuspool_cli::{Console, run};
use model::batch::{BATCH_SCHEMA_VERSION, BatchHeader, BatchItem, Manifest};
use model::request::{Answer, Verb};
use model::task::{TaskError, TaskRecord, TaskResult};
use model::{BatchId, Durability, FailureClass, GpuMode, Priority, Status, TaskClass, TaskId, TaskType};
use serde_json::{Value, json};
use spool::batch::Batches;
use spool::layout::Layout;
use spool::lock::BrainLock;
use spool::request::Requests;

/// A spool with a configuration, and what a command line said on it.
pub(crate) struct Desk {
    folder: tempfile::TempDir,
}

/// What a command line left.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("config.json"), "{}").expect("a configuration");
        let desk = Self { folder };
        desk.layout().create().expect("a spool");
        desk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn layout(&self) -> Layout {
        Layout::new(self.path("shared"))
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).expect("a file");
        self.path(name).display().to_string()
    }

    pub(crate) fn gpuspool(&self, words: &[&str]) -> Said {
        let (spool, config) = (self.path("shared"), self.path("config.json"));
        let mut line =
            vec!["gpuspool", "--spool", spool.to_str().unwrap(), "--config", config.to_str().unwrap()];
        line.extend(words);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(line, &mut Console::new(&mut out, &mut err));
        let text = |bytes: Vec<u8>| {
            assert!(bytes.iter().all(|b| *b >= 0x20 || matches!(b, b'\n' | b'\t')), "{bytes:?}");
            String::from_utf8(bytes).expect("text").replace(self.folder.path().to_str().unwrap(), "DESK")
        };
        Said { code, out: text(out), err: text(err) }
    }

    /// Puts a record where an ended task lies.
    pub(crate) fn ended(&self, record: &TaskRecord) {
        let folder = match record.status {
            Some(Status::Complete) => self.layout().complete(),
            _ => self.layout().failed(),
        };
        let name = format!("{}.json", record.task_id.as_ref().unwrap());
        std::fs::write(folder.join(name), serde_json::to_vec(record).unwrap()).expect("a record");
    }

    pub(crate) fn queue(&self, class: TaskClass, level: u8) -> PathBuf {
        self.layout().queue(class, Priority::new(level).unwrap())
    }
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub(crate) fn id(text: &str) -> TaskId {
    TaskId::new(text).unwrap()
}

pub(crate) fn complete(name: &str, output: Value) -> TaskRecord {
    TaskRecord {
        task_id: Some(id(name)),
        task_class: Some(TaskClass::Llm),
        prompt: Some("?".into()),
        status: Some(Status::Complete),
        attempt: Some(1),
        result: Some(TaskResult {
            task_id: id(name),
            output,
            duration: 1.5,
            model: None,
            engine: None,
            usage: None,
            finish_reason: None,
            log: None,
        }),
        ..TaskRecord::default()
    }
}

pub(crate) fn failed(name: &str) -> TaskRecord {
    TaskRecord {
        task_id: Some(id(name)),
        task_class: Some(TaskClass::Script),
        script: Some("extract_keyframes".into()),
        priority: Priority::new(4),
        status: Some(Status::Failed),
        attempt: Some(3),
        error: Some(TaskError {
            tail: Some("opening talk.mp4\n\x1b[31mno such file".into()),
            ..TaskError::new(FailureClass::BadInput, "input_not_found", "`talk.mp4` does not exist")
        }),
        ..TaskRecord::default()
    }
}

/// A brain that only holds the lock and answers requests, for as long as it lives.
pub(crate) struct Brain {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Brain {
    pub(crate) fn answering(
        desk: &Desk,
        answer: impl Fn(Verb, &[String]) -> Answer + Send + 'static,
    ) -> Self {
        let layout = desk.layout();
        let lock = BrainLock::take(&layout).expect("the lock is free");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut requests = Requests::new(layout, Durability::Process);
            while !stopped.load(Ordering::Relaxed) {
                for (request, asked) in requests.take().expect("requests can be read") {
                    requests.answer(&request, &answer(asked.verb, &asked.ids)).expect("and answered");
                    if asked.verb == Verb::Down {
                        return drop(lock);
                    }
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            drop(lock);
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Brain {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// A batch of three items: one complete, one failed, one not yet in any queue.
pub(crate) fn batch(desk: &Desk) -> BatchId {
    let item = |name: &str| BatchItem {
        video_path: format!("/videos/{name}"),
        media_s: Some(60.0),
        outputs: BTreeMap::new(),
    };
    let manifest = Manifest {
        header: BatchHeader {
            schema_version: BATCH_SCHEMA_VERSION,
            batch_id: BatchId::new("talks-20250205").unwrap(),
            task_class: TaskClass::Script,
            task_type: TaskType::Transcribe,
            script: "whisper_transcribe".into(),
            model: None,
            gpu_mode: GpuMode::Auto,
            priority: Priority::NORMAL,
            created_at: spool::clock::wall(),
            formats: vec!["srt".into()],
            output_dir: None,
            script_args: serde_json::Map::new(),
            source: "/videos".into(),
        },
        items: ["a.mp4", "b.mp4", "c.mp4"].map(item).to_vec(),
    };
    Batches::new(desk.layout(), Durability::Process).accept(&manifest).expect("it is accepted");
    desk.ended(&complete("talks-20250205.0", json!({})));
    desk.ended(&failed("talks-20250205.1"));
    manifest.header.batch_id
}
