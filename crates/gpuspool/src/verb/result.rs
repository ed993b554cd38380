//! `gpuspool result`: what came of a task.

use clap::Args;
use model::task::TaskRecord;
use serde_json::Value;
use spool::find::{Located, Place};
use spool::settings::Settings;

use crate::console::Console;
use crate::failure::{Failure, exit};
use crate::locate::{self, Meant};

/// Options of `result`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The task. With `--json` its whole record is printed.
    id: String,
}

pub(crate) fn run(options: &Options, settings: &Settings, console: &mut Console<'_>) -> Result<u8, Failure> {
    let name = &options.id;
    let located = match locate::meant(settings, name)? {
        Some(Meant::Task(_, located)) => located,
        Some(Meant::Batch(id, manifest)) => {
            let mut failure =
                Failure::new(exit::USAGE, format!("`{id}` is a batch of {} items", manifest.items.len()));
            failure.next_step =
                manifest.task_id(0).map(|first| format!("ask for one of them: `gpuspool result {first}`"));
            return Err(failure);
        }
        None => return Err(locate::unknown(settings, name)),
    };
    let Located { place, path, record } = *located;
    if console.json {
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Failure::io(format_args!("read {}", path.display()), &error))?;
        console.say_json_text(if text.ends_with('\n') { text } else { text + "\n" }.as_str())?;
    }
    match place {
        Place::Queue(_) => Err(not_yet(name, "is still queued", "why")),
        Place::Processing => Err(not_yet(name, "still runs", "logs -f")),
        Place::Rejected => {
            Err(Failure::new(exit::NOT_ALL, format!("`{name}` was rejected: it never was a task"))
                .next(format!("the reason lies beside {}", path.display())))
        }
        Place::Failed => Err(failed(name, record.as_deref())),
        Place::Complete if console.json => Ok(exit::OK),
        Place::Complete => {
            console.say(&output(record.as_deref(), &path.display().to_string())?)?;
            Ok(exit::OK)
        }
    }
}

fn not_yet(name: &str, how: &str, verb: &str) -> Failure {
    Failure::new(exit::TRY_AGAIN, format!("`{name}` {how}: there is no result yet"))
        .next(format!("`gpuspool wait {name}` waits for its end, `gpuspool {verb} {name}` says more"))
}

fn failed(name: &str, record: Option<&TaskRecord>) -> Failure {
    let error = record.and_then(|record| record.error.as_ref());
    let mut message = match error {
        Some(error) => format!("`{name}` failed: {error}"),
        None => format!("`{name}` failed, and its record gives no reason"),
    };
    if let Some(tail) = error.and_then(|error| error.tail.as_deref()) {
        message.push_str("\nthe end of its log:");
        for line in tail.lines() {
            message.push_str("\n    ");
            message.push_str(line);
        }
    }
    Failure::new(exit::NOT_ALL, message)
        .next(format!("`gpuspool logs {name}` shows all of it, `gpuspool retry {name}` queues it again"))
}

/// A text as it is, anything else as JSON.
fn output(record: Option<&TaskRecord>, path: &str) -> Result<String, Failure> {
    match record.and_then(|record| record.result.as_ref()).map(|result| &result.output) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(value) => Ok(serde_json::to_string_pretty(value).map_err(std::io::Error::from)?),
        None => Err(Failure::new(exit::DATA, format!("{path} holds no result"))
            .next("`--json` prints the record as it is")),
    }
}
