//! `on_complete`: a registered command or an address is called once a task has ended, with its record.
//!
//! A call is owed from the moment the task is started, in a log of its own, and is struck out when it was answered;
//! so a brain that dies in between calls again. A call can therefore come twice, and never not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::process::Stdio;
use std::time::Duration;

use model::{TaskId, TaskRecord};
use serde::{Deserialize, Serialize};
use spool::atomic;
use spool::find::{self, Place};
use spool::layout::Layout;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::mpsc::UnboundedSender;

use crate::inbox::Note;

/// How long one call may take.
const CALL_MAX: Duration = Duration::from_secs(60);
/// Waits before the second, third and fourth try; after that the call is given up, with a line in the log.
const TRY_AGAIN: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

/// One line of the log.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    task_id: TaskId,
    owed: bool,
}

/// Calls that are owed.
#[derive(Debug)]
pub(crate) struct Tell {
    layout: Layout,
    commands: BTreeMap<String, Vec<String>>,
    owed: BTreeSet<TaskId>,
    notes: UnboundedSender<Note>,
}

impl Tell {
    /// Reads what earlier brains owed, and forgets what has been struck out.
    pub(crate) fn open(
        layout: Layout,
        commands: BTreeMap<String, Vec<String>>,
        notes: UnboundedSender<Note>,
    ) -> io::Result<Self> {
        let mut owed = BTreeSet::new();
        let text = match std::fs::read_to_string(layout.owed_calls()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        // A line that was torn by a power cut was never acted upon.
        for line in text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
            if line.owed {
                owed.insert(line.task_id);
            } else {
                owed.remove(&line.task_id);
            }
        }
        let tell = Self { layout, commands, owed, notes };
        if !text.is_empty() {
            tell.rewrite()?;
        }
        Ok(tell)
    }

    fn rewrite(&self) -> io::Result<()> {
        let mut text = String::new();
        for task_id in &self.owed {
            text.push_str(&serde_json::to_string(&Line { task_id: task_id.clone(), owed: true })?);
            text.push('\n');
        }
        atomic::replace(&self.layout.owed_calls(), text.as_bytes(), true)
    }

    fn append(&self, line: &Line) -> io::Result<()> {
        let mut file =
            std::fs::OpenOptions::new().create(true).append(true).open(self.layout.owed_calls())?;
        file.write_all((serde_json::to_string(line)? + "\n").as_bytes())?;
        file.sync_data()
    }

    /// A task with a call is about to start.
    pub(crate) fn owe(&mut self, task_id: &TaskId) {
        if self.owed.insert(task_id.clone())
            && let Err(error) = self.append(&Line { task_id: task_id.clone(), owed: true })
        {
            tracing::warn!(%task_id, %error, "failed to note that a call is owed; it is made unless the brain dies first");
        }
    }

    /// Makes the calls of tasks that ended while no brain looked.
    pub(crate) fn catch_up(&mut self) {
        for task_id in self.owed.clone() {
            match find::locate(&self.layout, &task_id) {
                Ok(Some(located)) if matches!(located.place, Place::Complete | Place::Failed) => {
                    if let Some(record) = located.record {
                        self.tell(&task_id, &record);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => self.told(&task_id),
                Err(error) => {
                    tracing::warn!(%task_id, %error, "failed to look for a task whose end is to be told")
                }
            }
        }
    }

    /// A task has ended: its call is made, off the loop; its end comes as a note.
    pub(crate) fn tell(&mut self, task_id: &TaskId, record: &TaskRecord) {
        let Some(target) = record.on_complete.clone() else { return };
        self.owe(task_id);
        let body = match serde_json::to_vec(record) {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(%task_id, %error, "a record cannot be written as JSON");
                return;
            }
        };
        let (command, notes, task_id) =
            (self.commands.get(&target).cloned(), self.notes.clone(), task_id.clone());
        tokio::spawn(async move {
            let waits = TRY_AGAIN.into_iter().map(Some).chain([None]);
            for wait in waits {
                let called = tokio::time::timeout(CALL_MAX, call(&target, command.as_deref(), &body)).await;
                match called.unwrap_or_else(|_| Err(io::Error::other("it took more than a minute"))) {
                    Ok(()) => break,
                    Err(error) => tracing::warn!(%task_id, target, %error, "the call at a task's end failed"),
                }
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => tracing::error!(%task_id, target, "the call at a task's end is given up"),
                }
            }
            drop(notes.send(Note::Told(task_id)));
        });
    }

    /// A call was made, or given up.
    pub(crate) fn told(&mut self, task_id: &TaskId) {
        if self.owed.remove(task_id)
            && let Err(error) = self.append(&Line { task_id: task_id.clone(), owed: false })
        {
            tracing::warn!(%task_id, %error, "failed to strike out a call; it may be made twice");
        }
    }
}

async fn call(target: &str, command: Option<&[String]>, body: &[u8]) -> io::Result<()> {
    let Some((program, arguments)) = command.and_then(<[String]>::split_first) else {
        let answer = reqwest::Client::new()
            .post(target)
            .header("content-type", "application/json")
            .body(body.to_vec())
            .send()
            .await
            .map_err(io::Error::other)?;
        return answer.error_for_status().map(drop).map_err(io::Error::other);
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(body).await {
            // A command that does not read its input is judged by its exit status alone.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            other => other?,
        }
    }
    let status = child.wait().await?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("`{program}` ended with {status}"))) }
}
