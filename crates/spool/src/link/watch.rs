//! Waking a worker when there may be something to read in its orders. A hint only: `Reader::read` is the truth.
//!
//! The *folder* is watched, not the file: after a rotation a watch of the file would stay on the old one.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// How often sizes are compared where there are no events.
const POLL_EVERY: Duration = Duration::from_millis(250);

/// A running watch of one log in a folder; dropping it ends it.
#[derive(Debug)]
pub struct LinkWatch {
    /// None where sizes are compared instead.
    _watcher: Option<RecommendedWatcher>,
    warning: Option<String>,
}

impl LinkWatch {
    /// Watches the log `name` in `folder`, and nothing else there (one's own log lies beside it). Hints that nobody
    /// has taken yet are one hint. Where the system gives no events, sizes are compared four times a second.
    #[must_use]
    pub fn start(folder: &Path, name: &str) -> (Self, Receiver<()>) {
        let (hints, received) = channel(1);
        match events(folder, name, hints.clone()) {
            Ok(watcher) => (Self { _watcher: Some(watcher), warning: None }, received),
            Err(error) => {
                let warning =
                    format!("failed to watch {}: {error}; its size is compared instead", folder.display());
                poll(folder.join(name), hints);
                (Self { _watcher: None, warning: Some(warning) }, received)
            }
        }
    }

    /// A watch that compares sizes: for network file systems, which do not tell of other hosts' writes.
    #[must_use]
    pub fn polling(folder: &Path, name: &str) -> (Self, Receiver<()>) {
        let (hints, received) = channel(1);
        poll(folder.join(name), hints);
        (Self { _watcher: None, warning: None }, received)
    }

    /// Why sizes are compared, if they are for want of events.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }
}

fn events(folder: &Path, name: &str, hints: Sender<()>) -> notify::Result<RecommendedWatcher> {
    let name = name.to_owned();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let concerns = match &event {
            // An error may be a lost event.
            Err(_) => true,
            Ok(event) if event.need_rescan() => true,
            Ok(event) => may_have_grown(&event.kind) && names(event, OsStr::new(&name)),
        };
        if concerns {
            // A full channel holds a hint already; a closed one has nobody to tell.
            let _ = hints.try_send(());
        }
    })?;
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Reading is an event too, and would wake the reader for ever.
const fn may_have_grown(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) | EventKind::Remove(_) => false,
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Other => true,
    }
}

fn names(event: &notify::Event, name: &OsStr) -> bool {
    event.paths.is_empty() || event.paths.iter().any(|path| path.file_name() == Some(name))
}

/// Ends with the receiver.
fn poll(path: PathBuf, hints: Sender<()>) {
    let look = move || fs::metadata(&path).ok().map(|meta| (meta.ino(), meta.len()));
    let mut before = look();
    std::thread::spawn(move || {
        while !hints.is_closed() {
            std::thread::sleep(POLL_EVERY);
            let now = look();
            if now != before {
                before = now;
                let _ = hints.try_send(());
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    async fn hinted(hints: &mut Receiver<()>) -> bool {
        tokio::time::timeout(Duration::from_secs(10), hints.recv()).await == Ok(Some(()))
    }

    fn append(path: &Path) {
        fs::OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(b"line\n").unwrap();
    }

    #[test]
    fn an_append_and_a_rotation_wake_the_reader_and_its_own_log_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let orders = dir.path().join("orders.jsonl");
        fs::write(&orders, "").unwrap();
        let (watch, mut hints) = LinkWatch::start(dir.path(), "orders.jsonl");
        assert_eq!(watch.warning(), None);
        runtime().block_on(async {
            append(&orders);
            assert!(hinted(&mut hints).await, "an append");
            // Everything before this rename has been told once its hint is here: events come in order.
            append(&dir.path().join("reports.jsonl"));
            fs::read(&orders).unwrap();
            fs::write(dir.path().join(".orders.new"), "x").unwrap();
            fs::rename(dir.path().join(".orders.new"), &orders).unwrap();
            assert!(hinted(&mut hints).await, "a rotation");
        });
    }

    #[test]
    fn without_events_a_new_size_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let orders = dir.path().join("orders.jsonl");
        fs::write(&orders, "").unwrap();
        let (_watch, mut hints) = LinkWatch::polling(dir.path(), "orders.jsonl");
        append(&orders);
        assert!(runtime().block_on(hinted(&mut hints)));
    }

    #[test]
    fn only_what_may_hold_more_is_a_hint() {
        let event =
            |kind: EventKind, name: &str| notify::Event::new(kind).add_path(PathBuf::from("/w").join(name));
        let orders = OsStr::new("orders.jsonl");
        let open = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let read = EventKind::Access(AccessKind::Close(AccessMode::Read));
        assert!(!may_have_grown(&open) && !may_have_grown(&read));
        assert!(may_have_grown(&EventKind::Modify(notify::event::ModifyKind::Any)));
        assert!(names(&event(open, "orders.jsonl"), orders) && !names(&event(open, "reports.jsonl"), orders));
        assert!(
            names(&notify::Event::new(EventKind::Other), orders),
            "an event without a path may be about anything"
        );
    }
}
