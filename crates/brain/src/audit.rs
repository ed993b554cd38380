//! What the journal says of tasks and batches: enough that `gpuspool simulate --replay` can do a day again.
//!
//! Not here: writing it (`spool::journal`), and anything that recovery reads: it reads none of this.

use model::task::{GpuRequirement, Work};
use model::{Task, TaskRecord};
use policy::event::BatchFacts;
use serde_json::{Value, json};

/// What a task was, in the line of its first start.
pub(crate) fn task(task: &Task) -> Value {
    let (script, model) = match &task.work {
        Work::Llm(work) => (None, work.model.clone()),
        Work::Script(work) => (Some(work.script.to_string()), work.model.clone()),
    };
    let mut told = json!({
        "class": task.class(),
        "job_type": task.job_type,
        "priority": task.priority,
        "script": script,
        "model": model,
        "media_s": task.media_s,
        "estimated_s": task.estimated_duration_sec,
        "vram_mib": task.needs.vram_mib,
        "cpu": task.gpu == GpuRequirement::None,
        "batch_id": task.batch_id,
        "created_at": task.created_at,
    });
    if task.needs.gpus > 1 {
        told["gpus"] = task.needs.gpus.into();
    }
    match &task.gpu {
        GpuRequirement::Any | GpuRequirement::None => {}
        GpuRequirement::Key(key) => told["gpu_requirement"] = key.as_str().into(),
        GpuRequirement::Uuid(uuid) => told["gpu_requirement"] = uuid.as_str().into(),
    }
    told
}

/// How a batch wants the GPUs, in the line of its acceptance.
pub(crate) fn batch(facts: &BatchFacts) -> Value {
    json!({ "batch_id": facts.batch_id, "gpu_mode": facts.gpu_mode, "script": facts.script, "total": facts.total })
}

/// How a task ended.
pub(crate) fn end(record: &TaskRecord) -> Value {
    let error = record.error.as_ref().map(|error| format!("{}: {}", error.class.name(), error.code));
    json!({
        "task_id": record.task_id,
        "complete": record.status == Some(model::Status::Complete),
        "error": error,
        "ran_s": record.result.as_ref().map(|result| result.duration),
    })
}
