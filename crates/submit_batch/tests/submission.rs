//! Whole submissions into a real spool, with and without somebody who plays the brain.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use model::batch::{BATCH_SCHEMA_VERSION, BatchItemState, BatchRecord, BatchStatus, Manifest};
use model::explained::{BatchAsked, BatchExplained, ChatMeanwhile};
use model::request::Answer;
use model::task::{TaskError, TaskRecord, TaskResult};
use model::{BatchId, Durability, FailureClass, GpuMode, Priority, Status, TaskClass};
use serde_json::{Value, json};
use spool::batch::Batches;
use spool::layout::{Layout, task_file};
use spool::lock::BrainLock;
use spool::request::Requests;
use submit_batch::arguments::{Asked, parse};
use submit_batch::failure::Failure;
use submit_batch::interrupt::Interrupt;
use submit_batch::run::run;
use submit_batch::say::Voice;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is written into it can be read by others.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
    /// Reads until somebody has written these words.
    fn read_until(&self, words: &str) {
        let began = Instant::now();
        while !self.text().contains(words) {
            assert!(began.elapsed() < PATIENCE, "nobody writes `{words}`:\n{}", self.text());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What a command said and how it ended.
struct Said {
    end: Result<u8, Failure>,
    result: String,
    notes: String,
}

impl Said {
    /// The exit status it must have.
    fn exits(self, status: u8) -> Self {
        let code = self.end.as_ref().map_or_else(Failure::exit_code, |code| *code);
        assert_eq!(code, status, "{:?}\n{}\n{}", self.end, self.result, self.notes);
        self
    }
    fn result_says(self, words: &str) -> Self {
        assert!(self.result.contains(words), "`{words}` is not in:\n{}", self.result);
        self
    }
    fn notes_say(self, words: &str) -> Self {
        assert!(self.notes.contains(words), "`{words}` is not in:\n{}", self.notes);
        self
    }
    fn json(&self) -> Value {
        serde_json::from_str(&self.result).unwrap_or_else(|error| panic!("{error}: {}", self.result))
    }
}

/// A folder of media, a configuration, and a spool that does not exist yet.
struct Rig {
    dir: tempfile::TempDir,
}

impl Rig {
    fn with(media: &[&str]) -> Self {
        let rig = Self { dir: tempfile::tempdir().unwrap() };
        for name in media {
            let path = rig.media().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"not really media").unwrap();
        }
        let config =
            json!({ "scripts": { "whisper_transcribe": { "path": "w.py" }, "mine": { "path": "m.py" } } });
        fs::write(rig.dir.path().join("config.json"), config.to_string()).unwrap();
        rig
    }

    fn media(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join("Talks 2026")
    }

    fn layout(&self) -> Layout {
        Layout::new(self.dir.path().join("spool"))
    }

    fn batches(&self) -> Batches {
        Batches::new(self.layout(), Durability::Process)
    }

    fn manifests(&self) -> Vec<Manifest> {
        let batches = self.batches();
        let ids = batches.list().unwrap();
        ids.iter().map(|id| batches.manifest(id).unwrap().expect("an accepted batch")).collect()
    }

    /// Runs `submit_batch transcribe <media> <options>`.
    fn submit(&self, options: &str) -> Said {
        self.submit_interrupted(options, &Interrupt::default())
    }

    fn submit_interrupted(&self, options: &str, interrupt: &Interrupt) -> Said {
        self.submit_to(options, interrupt, None, Paper::default())
    }

    /// With somebody who answers questions by these words.
    fn submit_answering(&self, options: &str, answers: &'static str) -> Said {
        self.submit_to(options, &Interrupt::default(), Some(answers), Paper::default())
    }

    /// With notes that can be read meanwhile.
    fn submit_noting(&self, options: &str, notes: Paper) -> Said {
        self.submit_to(options, &Interrupt::default(), None, notes)
    }

    fn submit_to(
        &self,
        options: &str,
        interrupt: &Interrupt,
        answers: Option<&'static str>,
        notes: Paper,
    ) -> Said {
        let mut words: Vec<std::ffi::OsString> = vec!["submit_batch".into(), "transcribe".into()];
        words.push(self.media().into());
        words.extend(options.split_whitespace().map(Into::into));
        for (option, name) in [("--spool", "spool"), ("--config", "config.json")] {
            words.extend([option.into(), self.dir.path().join(name).into()]);
        }
        let Asked::Batch(wish) = parse(words).unwrap() else { panic!("a wish") };
        let result = Paper::default();
        let ffprobe = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ffprobe");
        let mut voice = Voice::to(result.clone(), notes.clone());
        if let Some(answers) = answers {
            voice = voice.answered_by(answers.as_bytes());
        }
        let end = run(&wish, &ffprobe, interrupt, &mut voice);
        Said { end, result: result.text(), notes: notes.text() }
    }

    /// Ends items as the brain and a worker would: outputs, records, and the batch's record.
    fn end_items(&self, manifest: &Manifest, failing: &[usize], ended: usize) {
        let layout = self.layout();
        for (index, item) in manifest.items.iter().enumerate().take(ended) {
            let fails = failing.contains(&index);
            let task_id = manifest.task_id(index).unwrap();
            let mut record = TaskRecord { task_id: Some(task_id.clone()), ..TaskRecord::default() };
            let folder = if fails {
                record.status = Some(Status::Failed);
                record.error =
                    Some(TaskError::new(FailureClass::BadInput, "no_audio", "there is no sound in it"));
                layout.failed()
            } else {
                for path in item.outputs.values() {
                    fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
                    fs::write(path, "spoken").unwrap();
                }
                record.status = Some(Status::Complete);
                record.result = Some(TaskResult {
                    task_id: task_id.clone(),
                    output: json!({ "outputs": item.outputs, "media_s": 28.0 }),
                    duration: 2.0,
                    model: None,
                    engine: None,
                    usage: None,
                    finish_reason: None,
                    log: None,
                });
                layout.complete()
            };
            fs::write(folder.join(task_file(&task_id)), serde_json::to_vec(&record).unwrap()).unwrap();
        }
        self.batches().write_record(&batch_record(manifest, failing, ended)).unwrap();
    }
}

fn batch_record(manifest: &Manifest, failing: &[usize], ended: usize) -> BatchRecord {
    let status = |index: usize| match index {
        _ if index >= ended => Status::Queued,
        _ if failing.contains(&index) => Status::Failed,
        _ => Status::Complete,
    };
    let items = manifest.items.iter().enumerate().map(|(index, item)| BatchItemState {
        video_path: item.video_path.clone(),
        status: status(index),
        task_id: manifest.task_id(index).unwrap(),
    });
    let failed = failing.iter().filter(|index| **index < ended).count();
    BatchRecord {
        schema_version: BATCH_SCHEMA_VERSION,
        batch_id: manifest.header.batch_id.clone(),
        task_class: TaskClass::Script,
        script: manifest.header.script.clone(),
        total_items: manifest.items.len(),
        completed: ended - failed,
        failed,
        gpu_mode: GpuMode::Shared,
        status: match (ended == manifest.items.len(), failed) {
            (false, _) => BatchStatus::Running,
            (true, 0) => BatchStatus::Complete,
            (true, _) => BatchStatus::CompleteWithFailures,
        },
        paused: false,
        created_at: manifest.header.created_at,
        completed_at: None,
        media_s_done: 0.0,
        media_s_total: 0.0,
        items: Some(items.collect()),
        items_file: None,
    }
}

#[test]
fn a_folder_becomes_a_manifest_that_says_everything() {
    let rig = Rig::with(&["ep1.mp4", "ep1.webm", "more/ep1.mp4", "notes.txt", "old.zip"]);
    rig.submit("--language en --priority 5 --gpu-mode exclusive --formats txt,srt --model turbo")
        .exits(0)
        .result_says("3 items")
        .notes_say("skipped 1 an archive; archives cannot be read yet, unpack it: old.zip")
        .notes_say("queued, brain not running");
    let [manifest] = rig.manifests().try_into().expect("one batch");
    let header = &manifest.header;
    assert!(header.batch_id.as_str().starts_with("whisper-talks-2026-"), "{}", header.batch_id);
    assert_eq!((header.script.as_str(), header.model.as_deref()), ("whisper_transcribe", Some("turbo")));
    assert_eq!((header.gpu_mode, header.priority), (GpuMode::Exclusive, Priority::URGENT));
    assert_eq!(Value::Object(header.script_args.clone()), json!({ "language": "en" }));
    assert_eq!(header.source, rig.media().display().to_string());
    let outputs: Vec<String> = manifest
        .items
        .iter()
        .flat_map(|item| item.outputs.values())
        .map(|path| Path::new(path).strip_prefix(rig.media()).unwrap().display().to_string())
        .collect();
    assert_eq!(
        outputs,
        ["ep1.mp4.srt", "ep1.mp4.txt", "ep1.webm.srt", "ep1.webm.txt", "more/ep1.srt", "more/ep1.txt"]
    );
}

#[test]
fn running_it_again_submits_nothing_whether_it_is_live_or_done() {
    let rig = Rig::with(&["a.mp4", "b.mp4"]);
    rig.submit("").exits(0);
    let [manifest] = rig.manifests().try_into().expect("one batch");
    let again = rig.submit("").exits(2).notes_say("nothing was submitted");
    assert!(again.notes.contains(manifest.header.batch_id.as_str()), "{}", again.notes);
    rig.end_items(&manifest, &[], 2);
    rig.submit("").exits(0).notes_say("nothing to do: 2 items, all finished");
    assert_eq!(rig.manifests().len(), 1);
    // Another format is new work, and so is `--overwrite`; the second batch of a day has a name of its own.
    fs::remove_file(rig.media().join("b.vtt")).unwrap();
    rig.submit("").exits(0).notes_say("skipped 1 finished");
    let second = BatchId::new(format!("{}.b", manifest.header.batch_id)).unwrap();
    let second = rig.batches().manifest(&second).unwrap().expect("a second batch");
    assert_eq!(second.items.len(), 1);
    assert!(second.items[0].video_path.ends_with("b.mp4"));
}

#[test]
fn what_failed_is_submitted_again_and_nothing_else() {
    let rig = Rig::with(&["a.mp4", "b.mp4", "c.mp4"]);
    rig.submit("").exits(0);
    let [manifest] = rig.manifests().try_into().expect("one batch");
    rig.end_items(&manifest, &[1], 3);
    rig.submit("").exits(0).result_says("1 item").notes_say("skipped 2 finished");
}

#[test]
fn a_large_folder_is_cut_into_parts() {
    let names: Vec<String> = (0..7).map(|n| format!("{n}.mp4")).collect();
    let rig = Rig::with(&names.iter().map(String::as_str).collect::<Vec<_>>());
    rig.submit("--batch-size 3 --name Season_1").exits(0);
    let mut sizes: Vec<(String, usize)> =
        rig.manifests().iter().map(|part| (part.header.batch_id.to_string(), part.items.len())).collect();
    sizes.sort();
    let first = sizes[0].0.clone();
    assert!(first.starts_with("whisper-season-1-2"), "{first}");
    assert_eq!(sizes, [(first.clone(), 3), (format!("{first}-2"), 3), (format!("{first}-3"), 1)]);
}

#[test]
fn a_dry_run_and_a_refusal_leave_no_trace() {
    let rig = Rig::with(&["a.mp4"]);
    rig.submit("--dry-run").exits(0).result_says("would submit `whisper-talks-2026-").result_says("a.mp4");
    let document = rig.submit("--dry-run --json").exits(0).json();
    assert_eq!(document["items"][0]["video_path"], json!(rig.media().join("a.mp4")));
    rig.submit("--script whisper_transcibe").exits(64);
    let failure = rig.submit("--script whisper_transcibe").end.unwrap_err().to_string();
    assert!(
        failure.contains("did you mean `whisper_transcribe`?") && failure.contains("are: mine,"),
        "{failure}"
    );
    fs::remove_file(rig.media().join("a.mp4")).unwrap();
    rig.submit("").exits(66);
    assert!(!rig.layout().root().exists(), "nothing was to be made");
}

#[test]
fn outputs_are_mirrored_below_another_folder() {
    let rig = Rig::with(&["a/x.mp4", "b/x.mp4"]);
    let out = rig.dir.path().join("out");
    rig.submit(&format!("--formats txt --output-dir {}", out.display())).exits(0);
    let [manifest] = rig.manifests().try_into().expect("one batch");
    let outputs: Vec<&str> = manifest.items.iter().map(|item| item.outputs["txt"].as_str()).collect();
    assert_eq!(outputs, [out.join("a/x.txt").to_str().unwrap(), out.join("b/x.txt").to_str().unwrap()]);
    rig.end_items(&manifest, &[], 2);
    rig.submit(&format!("--formats txt --output-dir {}", out.display())).exits(0).notes_say("nothing to do");
    fs::write(rig.dir.path().join("file"), "").unwrap();
    rig.submit(&format!("--output-dir {}", rig.dir.path().join("file").display())).exits(66);
}

#[test]
fn waiting_ends_with_the_batch_and_tells_what_failed() {
    let rig = Rig::with(&["a.mp4", "b.mp4"]);
    rig.submit("").exits(0);
    let [manifest] = rig.manifests().try_into().expect("one batch");
    // A second command follows the batch that has the media; somebody ends its items once it does.
    let notes = Paper::default();
    let said = thread::scope(|scope| {
        let waiter = scope.spawn(|| rig.submit_noting("--wait --timeout 60", notes.clone()));
        notes.read_until("the brain is not running: start it");
        rig.end_items(&manifest, &[], 1);
        rig.end_items(&manifest, &[1], 2);
        waiter.join().unwrap()
    });
    said.exits(1)
        .result_says("no_audio: there is no sound in it")
        .result_says("14.0x")
        .result_says("2 items: 1 complete, 1 failed")
        .notes_say("100% | 2/2 items | 1 failed")
        .notes_say("the same command again submits the failed items once more");
}

#[test]
fn a_wait_can_be_bounded_and_the_batch_goes_on() {
    let rig = Rig::with(&["a.mp4"]);
    let document =
        rig.submit("--wait --timeout 0.05 --json").exits(124).notes_say("gpuspool cancel whisper-").json();
    assert_eq!(document["outcome"], "timed_out");
    assert_eq!(document["items"][0]["status"], "not started");
    assert_eq!(rig.manifests().len(), 1);
}

#[test]
fn an_interrupt_is_answered_with_what_has_been_accepted() {
    let rig = Rig::with(&["a.mp4", "b.mp4"]);
    let interrupt = Interrupt::default();
    interrupt.defer();
    interrupt.raise();
    let said = rig.submit_interrupted("--batch-size 1", &interrupt).exits(130);
    let sentence = said.end.unwrap_err().to_string();
    assert!(
        sentence.contains("interrupted: submitted: whisper-") && sentence.contains("-2; run"),
        "{sentence}"
    );
    assert_eq!(rig.manifests().len(), 1, "one is whole, the other is not there");
    rig.submit_interrupted("--wait", &interrupt)
        .exits(130)
        .notes_say("the batch goes on without this command");
    assert_eq!(rig.manifests().len(), 2);
}

#[test]
fn a_brain_that_holds_its_lock_is_seen_and_one_that_is_gone_is_not() {
    let rig = Rig::with(&["a.mp4"]);
    rig.submit("").exits(0).notes_say("brain not running");
    let lock = rig.layout().brain_lock();
    let brain = BrainLock::take(&rig.layout()).expect("nobody else has it");
    assert_eq!(rig.submit("--json").exits(2).json()["brain"], "running");
    drop(brain);
    let mut holder: Value = serde_json::from_str(&fs::read_to_string(&lock).unwrap()).unwrap();
    holder["starttime"] = json!(1);
    fs::write(&lock, holder.to_string()).unwrap();
    let reused = rig.submit("--json").exits(2).json();
    assert_eq!(reused["brain"], "not_running", "another process has its pid now");
}

/// A brain that answers nothing but what a batch would take.
struct Brain {
    asked: Arc<Mutex<Vec<BatchAsked>>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Brain {
    fn saying(rig: &Rig, takes_llms_in_use: bool) -> Self {
        let layout = rig.layout();
        layout.create().unwrap();
        let lock = BrainLock::take(&layout).expect("nobody else has it");
        let (asked, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (noted, stopped) = (Arc::<Mutex<Vec<BatchAsked>>>::clone(&asked), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut requests = Requests::new(layout, Durability::Process);
            while !stopped.load(Ordering::Relaxed) {
                for (id, request) in requests.take().unwrap() {
                    noted.lock().unwrap().extend(request.batch);
                    let told = Box::new(told(takes_llms_in_use));
                    requests
                        .answer(&id, &Answer { ok: true, batch_explained: Some(told), ..Answer::default() })
                        .unwrap();
                }
                thread::sleep(Duration::from_millis(5));
            }
            drop(lock);
        });
        Self { asked, stop, thread: Some(thread) }
    }
}

impl Drop for Brain {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(thread::JoinHandle::join);
    }
}

fn told(takes_llms_in_use: bool) -> BatchExplained {
    BatchExplained {
        exclusive: takes_llms_in_use,
        exclusive_from: 50,
        gpus: vec!["0".into()],
        reason: None,
        expected: None,
        on_one: None,
        on_all: None,
        is_a_guess: true,
        leaves: Vec::new(),
        chat: if takes_llms_in_use { ChatMeanwhile::Waits } else { ChatMeanwhile::AsBefore },
        llm_asked_s_ago: Some(10.0),
        llm_tasks: 0,
        takes_llms_in_use,
    }
}

#[test]
fn whoever_sits_at_a_terminal_is_asked_before_llms_in_use_are_taken() {
    let rig = Rig::with(&["a.mp4", "b.mp4"]);
    let _brain = Brain::saying(&rig, true);
    for answer in ["n\n", "\n", "", "what?\n"] {
        let said = rig.submit_answering("", answer).exits(2);
        let said = said.notes_say("chat is interrupted").notes_say("submit it all the same? [y/N]");
        assert!(said.end.unwrap_err().to_string().contains("nothing was submitted"));
        assert!(rig.manifests().is_empty(), "{answer:?} is no");
    }
    rig.submit_answering("", "y\n").exits(0).notes_say("[y/N]");
    assert_eq!(rig.manifests().len(), 1);
}

#[test]
fn nobody_is_asked_by_yes_without_a_terminal_or_where_nobody_misses_anything() {
    let rig = Rig::with(&["a.mp4"]);
    let brain = Brain::saying(&rig, true);
    let said = rig.submit_answering("--yes", "n\n").exits(0).notes_say("LLMs are in use");
    assert!(!said.notes.contains("[y/N]"), "{}", said.notes);
    drop(brain);

    let rig = Rig::with(&["a.mp4"]);
    let brain = Brain::saying(&rig, true);
    let said = rig.submit("").exits(0).notes_say("LLMs are in use");
    assert!(!said.notes.contains("[y/N]"), "scripts keep working: {}", said.notes);
    drop(brain);

    let rig = Rig::with(&["a.mp4"]);
    let _brain = Brain::saying(&rig, false);
    let said = rig.submit_answering("", "n\n").exits(0);
    assert_eq!(said.notes, "", "nothing is taken from anybody");
    assert_eq!(rig.manifests().len(), 1);
}

#[test]
fn what_a_dry_run_is_for_stands_last_however_many_items_there_are() {
    let names: Vec<String> = (0..60).map(|n| format!("{n:02}.mp4")).collect();
    let rig = Rig::with(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let _brain = Brain::saying(&rig, true);
    let said = rig.submit("--dry-run").exits(0);
    let lines: Vec<&str> = said.result.lines().collect();
    let summary = lines.iter().position(|line| line.starts_with("would submit ")).expect("a summary");
    assert!(lines[summary - 1].starts_with("… and 50 more; --json lists all"), "{}", said.result);
    assert!(lines[summary].contains("60 items"), "{}", said.result);
    let after = lines[summary + 1..].join("\n");
    assert!(after.contains("when it ends") && after.contains("chat is interrupted"), "{}", said.result);
    assert!(lines.len() < 24, "it fits a terminal: {}", said.result);
    assert_eq!(rig.submit("--dry-run --json").exits(0).json()["items"].as_array().map(Vec::len), Some(60));
}

#[test]
fn a_dry_run_asks_the_brain_in_few_words_and_works_without_one() {
    let rig = Rig::with(&["a.mp4", "b.mp4", "c.mp4"]);
    rig.submit("--dry-run --gpu-mode exclusive")
        .exits(0)
        .result_says("no brain runs, so nobody can say when it ends")
        .result_says("it gets the GPUs for itself: LLMs make room, LLM tasks wait for its end, chatbots are lent one GPU");
    assert_eq!(rig.submit("--dry-run --json").exits(0).json()["forecast"], Value::Null);
    let brain = Brain::saying(&rig, true);
    rig.submit_answering("--dry-run --batch-size 2 --priority 4", "")
        .exits(0)
        .result_says("chat is interrupted");
    let asked = brain.asked.lock().unwrap()[0].clone();
    assert_eq!((asked.items, asked.items_of_a_part, asked.priority.level()), (3, 2, 4));
    assert!(serde_json::to_vec(&asked).unwrap().len() < 500, "it is a few numbers: {asked:?}");
    assert_eq!(rig.submit("--dry-run --json").exits(0).json()["forecast"]["takes_llms_in_use"], true);
    assert!(rig.manifests().is_empty());
}
