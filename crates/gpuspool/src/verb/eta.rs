//! `gpuspool eta`: when tasks and batches are expected to start and to end.

use clap::Args;
use model::request::{AboutTask, Answer, ExpectedIn, Verb};
use model::{TaskClass, TaskId};
use spool::find::Place;
use spool::settings::Settings;

use super::why::{by_its_folder, not_expanded, one_task, tell};
use crate::ask;
use crate::brain::{Presence, presence};
use crate::console::Console;
use crate::failure::{Failure, exit};
use crate::locate;
use crate::verb::status::waiting;
use crate::words::{count, duration};

/// Options of `eta`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Tasks or batches [default: both queues and every live batch].
    #[arg(value_name = "ID")]
    ids: Vec<String>,
}

pub(crate) fn run(options: &Options, settings: &Settings, console: &mut Console<'_>) -> Result<u8, Failure> {
    let alive = matches!(presence(&settings.layout), Presence::Runs { .. });
    if options.ids.is_empty() {
        return if alive { everything(settings, console) } else { nothing_runs(settings, console) };
    }
    let mut about = Vec::new();
    let mut questions = Vec::new();
    let mut unknown = Vec::new();
    for name in &options.ids {
        let Some((id, located)) = one_task(settings, name)? else {
            unknown.push(locate::unknown(settings, name));
            continue;
        };
        let is_item = id.as_str() != name.as_str();
        match located {
            Some(located) if alive && matches!(located.place, Place::Queue(_) | Place::Processing) => {
                questions.push(if is_item { name.clone() } else { id.to_string() });
            }
            Some(located) => about.push(by_its_folder(name, &id, &located)),
            None if alive => questions.push(name.clone()),
            None => about.push(not_expanded(name, &id)),
        }
    }
    if !questions.is_empty() {
        about.extend(ask::answered(settings, &ask::request(Verb::Eta, &questions))?.about);
    }
    tell(&about, &unknown, console, |one, console| Ok(console.say(&sentence(one))?))
}

fn sentence(about: &AboutTask) -> String {
    let id = about.task_id.as_ref().map_or(about.id.as_str(), TaskId::as_str);
    if let Some(expected) = &about.expected {
        return format!("{id}: {}", told(expected));
    }
    let reason =
        about.reason.as_ref().map_or_else(|| about.outcome.replace('_', " "), |reason| reason.text.clone());
    match about.outcome.as_str() {
        "waiting" => format!("{id}: nobody can say yet: {reason}"),
        _ => format!("{id}: {reason}"),
    }
}

/// Start and end in words.
pub(super) fn told(expected: &ExpectedIn) -> String {
    let place = match expected.place.as_deref() {
        Some("cpu") => " in the CPU lane".to_owned(),
        Some(gpu) => format!(" on GPU {gpu}"),
        None => String::new(),
    };
    let start = if expected.starts_in_s > 0.0 {
        format!(
            "starts in {}{place}, ends in {}",
            duration(expected.starts_in_s),
            duration(expected.ends_in_s)
        )
    } else {
        format!("runs{place}, ends in {}", duration(expected.ends_in_s))
    };
    if expected.ends_in_p90_s > expected.ends_in_s + 1.0 {
        return format!("{start} (9 times of 10 within {})", duration(expected.ends_in_p90_s));
    }
    start
}

fn everything(settings: &Settings, console: &mut Console<'_>) -> Result<u8, Failure> {
    let answer = ask::answered(settings, &ask::request(Verb::Eta, &[]))?;
    if console.json {
        console.say_json(&serde_json::json!({ "queues": answer.queues, "batches": answer.batches }))?;
    } else {
        console.pass_on(&table(&answer))?;
    }
    Ok(exit::OK)
}

fn table(answer: &Answer) -> String {
    let mut rows = vec![["WHAT", "LEFT", "NEXT STARTS", "DONE IN", "9 TIMES OF 10"].map(str::to_owned)];
    let row = |name: String, left: u64, held: u64, expected: Option<&ExpectedIn>| {
        let left = if held > 0 { format!("{left} ({held} held)") } else { left.to_string() };
        let times = expected.map(|expected| {
            let start =
                if expected.starts_in_s > 0.0 { duration(expected.starts_in_s) } else { "runs".into() };
            [start, duration(expected.ends_in_s), duration(expected.ends_in_p90_s)]
        });
        let [start, end, late] = times.unwrap_or_else(|| ["-", "-", "-"].map(str::to_owned));
        [name, left, start, end, late]
    };
    for queue in &answer.queues {
        rows.push(row(format!("{} queue", queue.class), queue.waiting, queue.held, queue.expected.as_ref()));
    }
    for batch in &answer.batches {
        rows.push(row(format!("batch {}", batch.batch_id), batch.remaining, 0, batch.expected.as_ref()));
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 5] = std::array::from_fn(width);
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    });
    lines.collect()
}

fn nothing_runs(settings: &Settings, console: &mut Console<'_>) -> Result<u8, Failure> {
    let [llm, script] = [TaskClass::Llm, TaskClass::Script].map(|class| waiting(settings, class));
    if console.json {
        console.say_json(&serde_json::json!({ "queues": [], "batches": [], "brain_running": false }))?;
        return Ok(exit::OK);
    }
    let tasks = |n: u64, what: &str| count(usize::try_from(n).unwrap_or(usize::MAX), what);
    console.say(&format!(
        "no brain runs, so nothing starts: {} and {} wait; `gpuspool up` starts the work",
        tasks(llm, "LLM task"),
        tasks(script, "script task")
    ))?;
    Ok(exit::OK)
}
