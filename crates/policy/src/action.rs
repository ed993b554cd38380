//! Choices. The hands carry them out and choose nothing themselves.

use model::link::{EngineOrder, HostOrder, StopWhy};
use model::{AttemptKey, GpuUuid, Millis, Saying, Task, TaskError, TaskId, WorkerId};

use model::Entry;

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start a worker process for a GPU (none: the CPU lane). Answered by `Launched`, later `WorkerBorn` or `LaunchEnded`.
    Launch {
        /// The GPU.
        gpu: Option<GpuUuid>,
    },
    /// Claim a queued task and write it into a worker's orders as attempt `task.attempt`, already counted and charged.
    /// Answered by `Started` or `StartLost`.
    Start {
        /// Where it lies.
        entry: Entry,
        /// The worker.
        worker: WorkerId,
        /// The task as it goes into the orders, attempt and charge raised; the claim settles its id.
        task: Box<Task>,
        /// All GPUs it has for itself, the worker's first; none where it runs on the worker's alone.
        gpus: Vec<GpuUuid>,
    },
    /// Write into a worker's orders which LLM should be loaded. None unloads.
    Engine {
        /// The worker.
        worker: WorkerId,
        /// The LLM.
        engine: Option<EngineOrder>,
    },
    /// Write into a worker's orders which script hosts may stay loaded.
    Hosts {
        /// The worker.
        worker: WorkerId,
        /// The hosts.
        hosts: Vec<HostOrder>,
    },
    /// Write a stop into a worker's orders.
    Stop {
        /// The worker.
        worker: WorkerId,
        /// The attempt.
        key: AttemptKey,
        /// Why.
        why: StopWhy,
    },
    /// Move the record in a worker's outbox to `complete/` or `failed/`, as it says itself. Answered by `Finished`;
    /// the hands then write the drop of the key.
    Finish {
        /// The worker (living or dead).
        worker: WorkerId,
        /// The attempt.
        key: AttemptKey,
    },
    /// Put a task back into its queue folder with this body (its history holds the attempt that is over), remove the
    /// outbox record if there is one, drop the key. Answered by `Requeued`.
    Requeue {
        /// The worker that had it.
        worker: WorkerId,
        /// The attempt that is over.
        key: AttemptKey,
        /// The body: attempt kept, `charged` as decided, history without this attempt.
        task: Box<Task>,
        /// The attempt's error, for the history.
        error: Option<TaskError>,
        /// Whether the attempt counted.
        charged: bool,
        /// Wait this long before the next attempt.
        back_off: Millis,
    },
    /// End a claimed task that has no usable record of its own as failed. Answered by `Finished`.
    Fail {
        /// The worker that had it.
        worker: WorkerId,
        /// The attempt that is over.
        key: AttemptKey,
        /// The task.
        task: Box<Task>,
        /// Why.
        error: TaskError,
    },
    /// Claim a queued task and end it as failed at once (cancelled, unsatisfiable). Answered by `Finished` or `StartLost`.
    FailQueued {
        /// Where it lies.
        entry: Entry,
        /// The task.
        task: Box<Task>,
        /// Why.
        error: TaskError,
    },
    /// Show in `processing/` that a task has been running for a second. Never answered.
    ShowRunning {
        /// The task with its attempt.
        task: Box<Task>,
        /// The GPU's key in the picture; none in the CPU lane.
        gpu: Option<String>,
        /// The GPU's uuid.
        gpu_uuid: Option<GpuUuid>,
        /// When the attempt began.
        since: Millis,
    },
    /// The room that an LLM makes on this GPU is for this task. Never answered.
    Reserve {
        /// The GPU.
        gpu: GpuUuid,
        /// The task.
        task_id: TaskId,
        /// Until when at most.
        until: Millis,
    },
    /// These GPUs are kept for a task that needs several at once, until it starts. Never answered.
    Keep {
        /// The task.
        task_id: TaskId,
        /// Which.
        gpus: Vec<GpuUuid>,
        /// When all of them are expected to be free.
        until: Millis,
    },
    /// Read a model's file ahead of its load, into the memory that is free anyway. Never answered.
    ReadAhead {
        /// The model, as `models` of the configuration names it.
        model: String,
    },
    /// Write what was decided into log and journal. Never answered; once issued it is not said again.
    Say(Saying),
    /// Tell a worker to end what runs, unload and go.
    Leave {
        /// The worker.
        worker: WorkerId,
    },
}

impl Action {
    /// The worker it concerns, where it concerns one.
    #[must_use]
    pub const fn worker(&self) -> Option<&WorkerId> {
        match self {
            Self::Start { worker, .. }
            | Self::Engine { worker, .. }
            | Self::Hosts { worker, .. }
            | Self::Stop { worker, .. }
            | Self::Finish { worker, .. }
            | Self::Requeue { worker, .. }
            | Self::Fail { worker, .. }
            | Self::Leave { worker } => Some(worker),
            Self::Launch { .. }
            | Self::FailQueued { .. }
            | Self::ShowRunning { .. }
            | Self::Reserve { .. }
            | Self::Keep { .. }
            | Self::ReadAhead { .. }
            | Self::Say(_) => None,
        }
    }
}

/// What `plan` returns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// To be carried out in this order.
    pub actions: Vec<Action>,
    /// The earliest instant at which time alone could change the answer.
    pub wake_at: Option<Millis>,
    /// First in line of each class, and why it waits.
    pub heads: Vec<(TaskId, model::Reason)>,
}
