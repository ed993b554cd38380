//! How a worker comes to be on this machine: a process of its own that outlives the brain.
//!
//! The child is spawned without any hook between fork and exec, so that the fast path of the standard library is
//! taken; the worker makes itself a session leader.

use std::path::PathBuf;
use std::process::Stdio;

use model::GpuUuid;
use spool::settings::program;
use tokio::process::Command;
use tokio::sync::mpsc::UnboundedSender;

use crate::inbox::Note;

/// Starts workers.
#[derive(Debug)]
pub(crate) struct Launcher {
    spool: PathBuf,
    config: Option<PathBuf>,
    gpus: String,
    notes: UnboundedSender<Note>,
}

impl Launcher {
    /// A launcher whose workers see the same spool, configuration and GPUs as this brain.
    pub(crate) fn new(
        spool: PathBuf,
        config: Option<PathBuf>,
        gpus: String,
        notes: UnboundedSender<Note>,
    ) -> Self {
        Self { spool, config, gpus, notes }
    }

    fn command(&self) -> std::io::Result<Command> {
        let worker = program("worker").ok_or_else(|| {
            std::io::Error::new(
                std::io::ErrorKind::NotFound,
                "the program `worker` lies neither beside `brain` nor on PATH",
            )
        })?;
        let mut command = Command::new(worker);
        command.arg("--spool").arg(&self.spool).arg("--gpus").arg(&self.gpus);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(false);
        Ok(command)
    }

    /// Starts a worker for `gpu` (none: the CPU lane) under the id `launch`; its end comes as a note.
    pub(crate) fn launch(&self, gpu: Option<&GpuUuid>, launch: &str) -> std::io::Result<()> {
        let mut command = self.command()?;
        command.arg("--gpu").arg(gpu.map_or("cpu", GpuUuid::as_str)).arg("--launch").arg(launch);
        let mut child = command.spawn()?;
        let (notes, launch) = (self.notes.clone(), launch.to_owned());
        tokio::spawn(async move {
            let status = child.wait().await.ok().and_then(|status| status.code());
            // Nobody listens once the loop has ended, which is as it should be.
            drop(notes.send(Note::LaunchExited { launch, status }));
        });
        Ok(())
    }

    /// Ends what a dead worker has left running; the outcome comes as a note.
    pub(crate) fn bury(&self, worker: &model::WorkerId) {
        let (notes, worker) = (self.notes.clone(), worker.clone());
        let command = self.command().map(|mut command| {
            command.arg("--bury").arg(worker.as_str()).stderr(Stdio::piped());
            command
        });
        tokio::spawn(async move {
            let outcome = match command {
                Ok(mut command) => match command.output().await {
                    Ok(output) if output.status.success() => Ok(()),
                    Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
                    Err(error) => Err(error.to_string()),
                },
                Err(error) => Err(error.to_string()),
            };
            drop(notes.send(Note::Buried(worker, outcome)));
        });
    }
}
