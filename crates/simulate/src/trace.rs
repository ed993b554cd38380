//! The story of a run as text, one line a happening: kept whole for people, else only counted and hashed.

use std::fmt::Write as _;

use model::{AttemptKey, Millis, Task};
use policy::Action;

/// The story.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    kept: Option<String>,
}

impl Trace {
    /// Keeps everything.
    pub(crate) fn whole() -> Self {
        Self { kept: Some(String::new()) }
    }

    /// One line; it is only made where it is kept.
    pub(crate) fn line(&mut self, at: Millis, text: impl FnOnce() -> String) {
        if let Some(kept) = &mut self.kept {
            // Writing into a text cannot fail.
            let _ = writeln!(kept, "{:>12.3} {}", at.as_secs_f64(), text());
        }
    }

    pub(crate) fn into_text(self) -> String {
        self.kept.unwrap_or_default()
    }
}

/// An action in a few words.
pub(crate) fn brief(action: &Action) -> String {
    let key = |task: &Task| AttemptKey { task_id: task.task_id.clone(), attempt: task.attempt };
    match action {
        Action::Launch { gpu } => format!("launch for {gpu:?}"),
        Action::Start { worker, task, .. } => {
            format!("start {} ({}, {}) on {worker}", key(task), task.job_type, task.priority)
        }
        Action::Engine { worker, engine: None } => format!("unload on {worker}"),
        Action::Engine { worker, engine: Some(order) } => {
            format!("boot {} (generation {}) on {worker}", order.model, order.generation)
        }
        Action::Hosts { worker, hosts } => {
            let hosts = hosts.iter().map(|order| format!("{} x{}", order.script, order.count));
            format!("hosts on {worker}: {}", hosts.collect::<Vec<_>>().join(", "))
        }
        Action::Stop { worker, key, why } => format!("stop {key} on {worker}: {why:?}"),
        Action::Finish { worker, key } => format!("finish {key} of {worker}"),
        Action::Requeue { key, charged, back_off, .. } => {
            format!("requeue {key}, charged {charged}, after {back_off}")
        }
        Action::Fail { key, error, .. } => format!("fail {key}: {error}"),
        Action::FailQueued { task, error, .. } => format!("fail queued {}: {error}", task.task_id),
        Action::ShowRunning { task, .. } => format!("show that {} runs", key(task)),
        Action::Keep { task_id, gpus, until } => format!("keep {gpus:?} for {task_id} until {until}"),
        Action::Reserve { gpu, task_id, .. } => format!("keep the room of {gpu} for {task_id}"),
        Action::ReadAhead { model } => format!("read the file of {model} ahead"),
        Action::Say(saying) => format!("say: {saying}"),
        Action::Leave { worker } => format!("leave {worker}"),
    }
}
