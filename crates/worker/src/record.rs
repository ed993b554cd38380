//! The record of an attempt that is over, and the outcome that is reported of it.

use std::time::Duration;

use engine::openai::Answer;
use model::link::{AttemptOrder, GpuIdentity, Outcome, StopWhy};
use model::task::{TaskError, TaskRecord, TaskResult};
use model::{FailureClass, Status, Timestamp};
use serde_json::{Map, Value};

/// How a unit ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// An LLM answered.
    Answered { answer: Answer, model: String, preset: String },
    /// A script gave its result.
    Gave { output: Map<String, Value>, model: Option<String> },
    /// It failed.
    Failed(TaskError),
    /// It was stopped; by orders, or for its time limit by the worker itself.
    Stopped { why: StopWhy, by_orders: bool },
}

/// Where and when it ran.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) gpu: Option<GpuIdentity>,
    pub(crate) started_at: Timestamp,
    pub(crate) completed_at: Timestamp,
    pub(crate) took: Duration,
    pub(crate) media_s: Option<f64>,
    /// Where its log lies, relative to the spool.
    pub(crate) log: Option<String>,
    /// The last state it said it could go on from.
    pub(crate) checkpoint: Option<Value>,
}

/// The record and the outcome of an attempt.
pub(crate) fn conclude(order: &AttemptOrder, run: &Run, ending: Ending) -> (TaskRecord, Outcome) {
    let mut record = order.task.record();
    record.attempt = Some(order.attempt);
    record.assigned_gpu = run.gpu.as_ref().map(|gpu| gpu.index.to_string());
    record.assigned_gpu_uuid = run.gpu.as_ref().map(|gpu| gpu.uuid.clone());
    record.started_at = Some(run.started_at);
    record.completed_at = Some(run.completed_at);
    let mut outcome = Outcome {
        failure: None,
        code: None,
        message: None,
        run_ms: u64::try_from(run.took.as_millis()).unwrap_or(u64::MAX),
        media_s: run.media_s,
        checkpoint: None,
        stopped: matches!(ending, Ending::Stopped { by_orders: true, .. }),
    };
    match result_of(order, run, ending) {
        Ok(result) => {
            record.status = Some(Status::Complete);
            record.result = Some(result);
            record.checkpoint = None;
        }
        Err(error) => {
            record.status = Some(Status::Failed);
            // Where it got no further, it can still go on from where it began.
            record.checkpoint = run.checkpoint.clone().or(record.checkpoint);
            outcome.checkpoint.clone_from(&record.checkpoint);
            outcome.failure = Some(error.class);
            outcome.code = Some(error.code.clone());
            outcome.message = Some(error.message.clone());
            record.error = Some(error);
        }
    }
    (record, outcome)
}

fn result_of(order: &AttemptOrder, run: &Run, ending: Ending) -> Result<TaskResult, TaskError> {
    let empty = TaskResult {
        task_id: order.task_id.clone(),
        output: Value::Null,
        duration: run.took.as_secs_f64(),
        model: None,
        engine: None,
        usage: None,
        finish_reason: None,
        log: run.log.clone(),
    };
    match ending {
        Ending::Answered { answer, model, preset } => Ok(TaskResult {
            output: Value::String(answer.text),
            model: Some(model),
            engine: Some(preset),
            usage: answer.usage,
            finish_reason: answer.finish_reason,
            ..empty
        }),
        Ending::Gave { output, model } => Ok(TaskResult { output: Value::Object(output), model, ..empty }),
        Ending::Failed(error) => Err(error),
        Ending::Stopped { why, .. } => Err(stopped(why, run.took)),
    }
}

fn stopped(why: StopWhy, took: Duration) -> TaskError {
    let after = format!("after {:.1} s", took.as_secs_f64());
    let (class, code, message) = match why {
        StopWhy::Cancel => (FailureClass::Cancelled, "cancelled", format!("it was cancelled {after}")),
        StopWhy::Timeout => (
            FailureClass::Timeout,
            "timeout",
            format!("it was stopped {after}, at its time limit (`timeout_s`)"),
        ),
        StopWhy::TakenBack => (
            FailureClass::Cancelled,
            "taken_back",
            format!("it was stopped {after} to free the GPU; it runs again"),
        ),
        StopWhy::Yield => (
            FailureClass::Cancelled,
            "yielded",
            format!("it gave way to a chatbot {after}; it goes on from there"),
        ),
        StopWhy::Superfluous => (
            FailureClass::Cancelled,
            "superfluous",
            format!("it was stopped {after}: the task has ended elsewhere"),
        ),
    };
    TaskError::new(class, code, message)
}
