//! How one task of one program ended. Not here: the record that is written of it (`worker`).

use model::task::TaskError;
use model::{FailureClass, TaskId};
use serde_json::{Map, Value};

use crate::group::End;

/// What a script gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// Its result.
    pub output: Map<String, Value>,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// With a result; also when the result came while it was being stopped.
    Done(Done),
    /// With an error of its own.
    Failed(TaskError),
    /// Because it was to stop, or to give way.
    Stopped,
}

/// The error of a program that ended where it should not have.
#[must_use]
pub fn ended_badly(what: &str, end: End) -> TaskError {
    let hint = match end {
        End::Signal(9, _) => "; the kernel does that when memory runs out",
        End::Exit(127) => "; 127 often means that a program it needs is missing",
        _ => "",
    };
    TaskError::new(FailureClass::Crash, end.code(), format!("{what} {end}{hint}"))
}

/// The error of a script that ended well and gave nothing.
#[must_use]
pub fn no_result(task_id: &TaskId) -> TaskError {
    TaskError::new(
        FailureClass::BadInput,
        "no_result",
        format!(
            "the script of `{task_id}` ended with exit status 0 and gave no result; print one JSON object as its last line"
        ),
    )
}
