//! Audit lines: what was done and why, one JSON object a line, a file a day. Recovery never reads them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use model::Timestamp;
use serde::Serialize;

use crate::layout::Layout;

/// The journal of one process. Lines of several processes may mix in a file, but never within a line.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    /// Today's file, and which day that is.
    open: Option<(String, File)>,
}

#[derive(Serialize)]
struct Line<'a, T> {
    at: Timestamp,
    what: &'a str,
    about: &'a T,
}

impl Journal {
    /// A journal in this spool; nothing is opened yet.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        Self { folder: layout.journal(), open: None }
    }

    /// Appends one line: `what` happened, with `about` as its particulars.
    ///
    /// # Errors
    /// As the system says. Nothing depends on the line: go on without it.
    pub fn append<T: Serialize>(&mut self, at: Timestamp, what: &str, about: &T) -> io::Result<()> {
        let day = at.format("%Y-%m-%d").to_string();
        let mut line = serde_json::to_vec(&Line { at, what, about })?;
        line.push(b'\n');
        if self.open.as_ref().is_none_or(|(open, _)| *open != day) {
            fs::create_dir_all(&self.folder)?;
            let path = self.folder.join(format!("{day}.jsonl"));
            let file =
                OpenOptions::new().append(true).create(true).mode(0o640).open(&path).map_err(|error| {
                    io::Error::new(error.kind(), format!("failed to open {}: {error}", path.display()))
                })?;
            self.open = Some((day, file));
        }
        match &mut self.open {
            // One `write` of one whole line, so that lines of several processes do not mix.
            Some((_, file)) => file.write_all(&line),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_day_has_its_file_and_each_line_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let mut journal = Journal::new(&layout);
        let day = |text: &str| -> Timestamp { text.parse().unwrap() };
        journal.append(day("2026-01-31T23:59:59Z"), "claimed", &serde_json::json!({"task_id": "a"})).unwrap();
        journal
            .append(day("2026-02-01T00:00:00Z"), "finished", &serde_json::json!({"task_id": "a"}))
            .unwrap();
        Journal::new(&layout).append(day("2026-02-01T00:00:01Z"), "down", &()).unwrap();
        let text = fs::read_to_string(layout.journal().join("2026-02-01.jsonl")).unwrap();
        let whats: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["what"].clone())
            .collect();
        assert_eq!(whats, ["finished", "down"]);
        assert!(layout.journal().join("2026-01-31.jsonl").is_file());
    }
}
