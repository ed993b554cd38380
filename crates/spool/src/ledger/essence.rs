//! Whether two files ask for the same: judged on what they say, as one may be a person's and the other ours.

use model::task::Message;
use model::{TaskClass, TaskRecord, TaskType};
use serde_json::{Map, Value};

/// What a task asks for, without what merely happened to it.
#[derive(Debug, PartialEq)]
pub(crate) struct Essence {
    task_type: TaskType,
    job_type: String,
    prompt: Option<String>,
    messages: Vec<Message>,
    options: Map<String, Value>,
    script: Option<String>,
    args: Map<String, Value>,
    model: Option<String>,
    input: Option<String>,
    output_dir: Option<String>,
}

impl Essence {
    /// Of a record that lies in a queue of this class.
    pub(crate) fn of(record: &TaskRecord, class: TaskClass) -> Self {
        let task_type = record.task_type.unwrap_or(TaskType::default_of(class));
        let mut args = record.script_args.clone().unwrap_or_default();
        if class == TaskClass::Script {
            let own =
                [("input", &record.input), ("output_dir", &record.output_dir), ("model", &record.model)];
            for (key, value) in own {
                if let Some(value) = value {
                    args.entry(key).or_insert_with(|| Value::String(value.clone()));
                }
            }
        }
        let said = |field: &Option<String>| if class == TaskClass::Llm { field.clone() } else { None };
        Self {
            task_type,
            job_type: record.job_type.clone().unwrap_or_else(|| task_type.default_job_type().to_owned()),
            prompt: record.prompt.clone(),
            messages: record.messages.clone().unwrap_or_default(),
            options: record.options.clone().unwrap_or_default(),
            // A path is made absolute at intake; its last part is what a person wrote in any case.
            script: record.script.as_deref().map(|path| path.rsplit('/').next().unwrap_or(path).to_owned()),
            args,
            model: said(&record.model),
            input: said(&record.input),
            output_dir: said(&record.output_dir),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimal_drop_and_its_full_record_ask_for_the_same() {
        let dropped: TaskRecord =
            serde_json::from_str(r#"{"script": "scripts/x.py", "input": "a.wav"}"#).unwrap();
        let ours: TaskRecord = serde_json::from_str(
            r#"{"script": "/srv/scripts/x.py", "input": "a.wav", "script_args": {"input": "a.wav"}, "task_type": "process",
                "job_type": "process", "status": "running", "attempt": 2, "priority": 5}"#,
        )
        .unwrap();
        let other: TaskRecord =
            serde_json::from_str(r#"{"script": "scripts/x.py", "input": "b.wav"}"#).unwrap();
        let essence = |record| Essence::of(record, TaskClass::Script);
        assert_eq!(essence(&dropped), essence(&ours));
        assert_ne!(essence(&dropped), essence(&other));
    }
}
