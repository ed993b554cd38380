//! What a task is where its author did not say: its class by its fields.

use model::task::TaskRecord;
use model::{Priority, TaskClass};

/// The class the record states, or the one that its fields belong to; none if nothing tells.
#[must_use]
pub(crate) fn class_of(record: &TaskRecord) -> Option<TaskClass> {
    let by_fields = if record.script.is_some() {
        Some(TaskClass::Script)
    } else if record.prompt.is_some() || record.messages.is_some() || record.options.is_some() {
        Some(TaskClass::Llm)
    } else {
        None
    };
    record.task_class.or(record.task_type.map(model::TaskType::class)).or(by_fields)
}

/// The priority the record states, else the normal one.
#[must_use]
pub(crate) fn priority_of(record: &TaskRecord) -> Priority {
    record.priority.unwrap_or_default()
}
