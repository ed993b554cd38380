//! Where everything lies. Every path name of the spool stands here and nowhere else.
//!
//! Not here: what is in the files, and moving them (`ledger`, `atomic`).

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use model::{AttemptKey, BatchId, Entry, GpuUuid, Priority, TaskClass, TaskId, WorkerId};

use crate::rights;

/// The extension of every task file, dot included.
pub const JSON: &str = ".json";

/// The spool's folders and files, by what they are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout of the spool at `root`; nothing is touched.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The spool folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn tasks(&self) -> PathBuf {
        self.root.join("tasks")
    }

    /// The folder that holds the five priority folders of a class.
    #[must_use]
    pub fn class_queue(&self, class: TaskClass) -> PathBuf {
        self.tasks().join(match class {
            TaskClass::Llm => "llm_queue",
            TaskClass::Script => "script_queue",
        })
    }

    /// The folder people drop tasks into.
    #[must_use]
    pub fn queue(&self, class: TaskClass, priority: Priority) -> PathBuf {
        self.class_queue(class).join(priority_folder(priority))
    }

    /// All ten queue folders, the most urgent first.
    #[must_use]
    pub fn queues(&self) -> Vec<(TaskClass, Priority)> {
        Priority::ALL
            .into_iter()
            .flat_map(|priority| TaskClass::ALL.into_iter().map(move |class| (class, priority)))
            .collect()
    }

    /// A file in a queue folder.
    #[must_use]
    pub fn entry(&self, entry: &Entry) -> PathBuf {
        self.queue(entry.class, entry.priority).join(&entry.name)
    }

    /// The one live entry of each claimed task.
    #[must_use]
    pub fn processing(&self) -> PathBuf {
        self.tasks().join("processing")
    }

    /// Tasks that ended well.
    #[must_use]
    pub fn complete(&self) -> PathBuf {
        self.tasks().join("complete")
    }

    /// Tasks that failed, and drops that never were tasks.
    #[must_use]
    pub fn failed(&self) -> PathBuf {
        self.tasks().join("failed")
    }

    /// Where files are written before they get their name. Never scanned.
    #[must_use]
    pub fn stage(&self) -> PathBuf {
        self.tasks().join(".stage")
    }

    /// Manifests and records of batches.
    #[must_use]
    pub fn batches(&self) -> PathBuf {
        self.root.join("batches")
    }

    /// The immutable item list of a batch.
    #[must_use]
    pub fn manifest(&self, batch: &BatchId) -> PathBuf {
        self.batches().join(manifest_file(batch))
    }

    /// The derived record of a batch.
    #[must_use]
    pub fn batch_record(&self, batch: &BatchId) -> PathBuf {
        self.batches().join(format!("{batch}{JSON}"))
    }

    /// The mark of a paused batch: an empty file, there while it is paused.
    #[must_use]
    pub fn pause_mark(&self, batch: &BatchId) -> PathBuf {
        self.batches().join(pause_file(batch))
    }

    /// One folder for each worker.
    #[must_use]
    pub fn workers(&self) -> PathBuf {
        self.root.join("workers")
    }

    /// A registered worker's folder: its lock is held, or it is dead.
    #[must_use]
    pub fn worker(&self, worker: &WorkerId) -> PathBuf {
        self.workers().join(worker.as_str())
    }

    /// A worker's folder before its birth is complete.
    #[must_use]
    pub fn newborn(&self, worker: &WorkerId) -> PathBuf {
        self.workers().join(format!(".new-{worker}"))
    }

    /// A dead worker's folder once nothing in it is needed.
    #[must_use]
    pub fn buried(&self, worker: &WorkerId) -> PathBuf {
        self.workers().join(format!(".dead-{worker}"))
    }

    /// A worker's finished records.
    #[must_use]
    pub fn outbox(&self, worker: &WorkerId) -> PathBuf {
        self.worker(worker).join(OUTBOX)
    }

    /// The locks of the GPUs.
    #[must_use]
    pub fn gpus(&self) -> PathBuf {
        self.root.join("gpus")
    }

    /// The lock of one GPU.
    #[must_use]
    pub fn gpu_lock(&self, gpu: &GpuUuid) -> PathBuf {
        self.gpus().join(format!("{gpu}.lock"))
    }

    /// What belongs to the brain: `lock`, `epoch`, `reserve`, `learned.json`, requests and answers.
    #[must_use]
    pub fn brain(&self) -> PathBuf {
        self.root.join("brain")
    }

    /// The lock of the one brain.
    #[must_use]
    pub fn brain_lock(&self) -> PathBuf {
        self.brain().join("lock")
    }

    /// The number of the latest brain's life.
    #[must_use]
    pub fn brain_epoch(&self) -> PathBuf {
        self.brain().join("epoch")
    }

    /// Space kept for requeues on a full disk.
    #[must_use]
    pub fn brain_reserve(&self) -> PathBuf {
        self.brain().join("reserve")
    }

    /// The brain's own messages, where no terminal takes them.
    #[must_use]
    pub fn brain_log(&self) -> PathBuf {
        self.logs().join("brain.log")
    }

    /// A worker's own messages.
    #[must_use]
    pub fn worker_log(&self, worker: &WorkerId) -> PathBuf {
        self.worker(worker).join("log")
    }

    /// Calls that are owed to tasks' `on_complete`.
    #[must_use]
    pub fn owed_calls(&self) -> PathBuf {
        self.brain().join("owed_calls.jsonl")
    }

    /// What the command line asks, one file each.
    #[must_use]
    pub fn requests(&self) -> PathBuf {
        self.brain().join("requests")
    }

    /// What the brain answers, one file each.
    #[must_use]
    pub fn answers(&self) -> PathBuf {
        self.brain().join("answers")
    }

    /// The picture.
    #[must_use]
    pub fn gpu_state(&self) -> PathBuf {
        self.root.join("gpu_state.json")
    }

    /// What was learned.
    #[must_use]
    pub fn learned(&self) -> PathBuf {
        self.brain().join("learned.json")
    }

    /// Turns on a GPU lent to foreign programs.
    #[must_use]
    pub fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    /// Logs of attempts and engines.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// The log of one attempt.
    #[must_use]
    pub fn attempt_log(&self, key: &AttemptKey) -> PathBuf {
        self.logs().join(format!("{key}.log"))
    }

    /// The log of one life of an engine; `gpu_key` is the GPU's key in the picture.
    #[must_use]
    pub fn engine_log(&self, gpu_key: &str, generation: u64) -> PathBuf {
        self.logs().join(format!("engine-{gpu_key}-{generation}.log"))
    }

    /// Audit lines, never read by recovery.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// Every folder of the spool, parents first.
    #[must_use]
    pub fn folders(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.root.clone(), self.tasks()];
        folders.extend(TaskClass::ALL.map(|class| self.class_queue(class)));
        folders.extend(self.queues().into_iter().map(|(class, priority)| self.queue(class, priority)));
        folders.extend([self.processing(), self.complete(), self.failed(), self.stage(), self.batches()]);
        folders.extend([self.workers(), self.gpus(), self.leases(), self.brain()]);
        folders.extend([self.requests(), self.answers(), self.logs(), self.journal()]);
        folders
    }

    /// Makes all folders that are missing, for their owner alone ([`Layout::protect`] opens them to a group).
    ///
    /// # Errors
    /// The first folder that could not be made, named in the message.
    pub fn create(&self) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700);
        fs::create_dir_all(self.root.parent().unwrap_or(Path::new("/")))
            .and_then(|()| self.folders().iter().try_for_each(|folder| make(&builder, folder)))
    }

    /// Sets who may use the spool: its owner alone, or also the members of `shared_group` (a name or a number), who
    /// may drop tasks and read what came of them. Folders of other owners are left as they are.
    ///
    /// # Errors
    /// An unknown group, or a folder whose mode could not be set.
    pub fn protect(&self, shared_group: Option<&str>) -> io::Result<()> {
        let me = rustix::process::geteuid().as_raw();
        let mine = |folder: &Path| fs::metadata(folder).is_ok_and(|meta| meta.uid() == me);
        let Some(name) = shared_group else {
            return if mine(&self.root) { set_mode(&self.root, 0o700) } else { Ok(()) };
        };
        let group = rights::group_id(name).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("no group is called `{name}`; create it, or change `shared_group` in config.json"),
            )
        })?;
        let drop_into = self.drop_folders();
        for folder in self.folders().iter().filter(|folder| mine(folder)) {
            std::os::unix::fs::chown(folder, None, Some(group))?;
            set_mode(folder, if drop_into.contains(folder) { 0o3770 } else { 0o2750 })?;
        }
        Ok(())
    }

    /// Where members of a shared group put files of their own.
    fn drop_folders(&self) -> Vec<PathBuf> {
        let mut folders: Vec<PathBuf> =
            self.queues().into_iter().map(|(class, priority)| self.queue(class, priority)).collect();
        folders.extend([self.stage(), self.batches(), self.requests()]);
        folders
    }
}

/// Name of the folder of finished records in a worker's folder.
pub const OUTBOX: &str = "outbox";

/// Name of the log of orders in a worker's folder.
pub const ORDERS: &str = "orders.jsonl";

/// Name of the log of reports in a worker's folder.
pub const REPORTS: &str = "reports.jsonl";

/// Name of the lock in a worker's folder.
pub const LOCK: &str = "lock";

/// Name of a priority's folder.
#[must_use]
pub fn priority_folder(priority: Priority) -> String {
    format!("priority_{priority}")
}

/// The priority whose folder has this name.
#[must_use]
pub fn priority_of_folder(name: &str) -> Option<Priority> {
    let level = name.strip_prefix("priority_")?;
    Priority::ALL.into_iter().find(|priority| level == priority.to_string())
}

/// File name of a task.
#[must_use]
pub fn task_file(task: &TaskId) -> String {
    format!("{task}{JSON}")
}

/// File name of a finished record in an outbox.
#[must_use]
pub fn record_file(key: &AttemptKey) -> String {
    format!("{key}{JSON}")
}

/// File name of a manifest.
#[must_use]
pub fn manifest_file(batch: &BatchId) -> String {
    format!("{batch}{MANIFEST}")
}

/// File name of the mark of a paused batch.
#[must_use]
pub fn pause_file(batch: &BatchId) -> String {
    format!("{batch}{PAUSED}")
}

/// How the file names of marks of paused batches end.
pub const PAUSED: &str = ".paused";

/// How the file names of manifests end.
pub const MANIFEST: &str = ".manifest.jsonl";

/// The task whose file has this name.
#[must_use]
pub fn task_of_file(name: &str) -> Option<TaskId> {
    TaskId::new(name.strip_suffix(JSON)?).ok()
}

fn make(builder: &fs::DirBuilder, folder: &Path) -> io::Result<()> {
    match builder.create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => {
            Err(io::Error::new(error.kind(), format!("failed to make {}: {error}", folder.display())))
        }
        Ok(()) => Ok(()),
    }
}

fn set_mode(folder: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(mode)).map_err(|error| {
        io::Error::new(error.kind(), format!("failed to protect {}: {error}", folder.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_spool_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("deep/shared"));
        layout.create().unwrap();
        layout.create().unwrap();
        layout.protect(None).unwrap();
        assert_eq!(fs::metadata(layout.root()).unwrap().mode() & 0o7777, 0o700);
        assert!(layout.queue(TaskClass::Llm, Priority::URGENT).ends_with("tasks/llm_queue/priority_5"));
        assert!(layout.folders().iter().all(|folder| folder.is_dir()));
    }

    #[test]
    fn members_of_a_group_may_drop_and_read_but_not_touch_what_is_the_brains() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        layout.create().unwrap();
        let own = rustix::process::getegid().as_raw().to_string();
        layout.protect(Some(&own)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&layout.queue(TaskClass::Script, Priority::NORMAL)), 0o3770);
        assert_eq!(mode(&layout.processing()), 0o2750);
        assert!(layout.protect(Some("no-such-group")).unwrap_err().to_string().contains("shared_group"));
    }

    /// 50,000 texts of what has ever led out of a folder, always the same ones.
    fn nasty_texts() -> impl Iterator<Item = String> {
        const PIECES: [&str; 24] = [
            "/", "..", ".", "\\", "\0", "\n", "~", "%2f", " ", "-", "_", "a", "Z", "9", "é", "\u{202e}",
            "\u{ff0e}", "CON", "json", ":", "*", "$(x)", "\u{1b}", "task",
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 33).unwrap() % below
        };
        (0..50_000).map(move |_| (0..=next(9)).map(|_| PIECES[next(PIECES.len())]).collect())
    }

    #[test]
    fn no_text_becomes_an_id_that_leaves_its_folder() {
        let folder = Path::new("/spool/tasks/processing");
        let mut legal = 0;
        for text in nasty_texts() {
            if let Ok(id) = TaskId::new(text.clone()) {
                legal += 1;
                let file = folder.join(task_file(&id));
                assert_eq!(file.parent(), Some(folder), "{text:?}");
                assert_eq!(file.components().count(), folder.components().count() + 1, "{text:?}");
                assert!(file.file_name().is_some_and(|name| name.len() < 200), "{text:?}");
                assert_eq!(task_of_file(&task_file(&id)), Some(id));
            } else {
                assert_eq!(task_of_file(&format!("{text}.json")), None, "{text:?}");
            }
        }
        assert!((500..40_000).contains(&legal), "{legal} legal ones: both sides must be met");
    }
}
