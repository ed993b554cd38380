//! `gpuspool pause` and `gpuspool resume`: the brain marks batches; where none runs, the mark is made here.

use std::time::Duration;

use clap::Args;
use model::request::Verb;
use serde::Serialize;
use spool::lock::BrainLock;
use spool::settings::Settings;

use crate::ask::{self, Asked};
use crate::brain::{Presence, presence};
use crate::console::Console;
use crate::failure::{Failure, exit};
use crate::locate::{self, Meant};

/// The brain answers this at once, or it hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is said of a batch of which nothing is left.
pub(super) const IS_OVER: &str = "it is over";

/// Options of `pause` and `resume`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Batches. A single queued task cannot be paused: cancel it and submit it again instead.
    #[arg(required = true, value_name = "BATCH")]
    ids: Vec<String>,
}

/// What came of one id.
#[derive(Debug, Serialize)]
struct Told {
    id: String,
    outcome: String,
    message: String,
}

pub(crate) fn run(
    options: &Options,
    paused: bool,
    settings: &Settings,
    console: &mut Console<'_>,
) -> Result<u8, Failure> {
    for name in &options.ids {
        if let Meant::Task(id, _) =
            locate::meant(settings, name)?.ok_or_else(|| locate::unknown(settings, name))?
        {
            let verb = if paused { "paused" } else { "resumed" };
            return Err(Failure::new(
                exit::USAGE,
                format!("`{id}` is a task, and only batches can be {verb}"),
            )
            .next(format!("`gpuspool cancel {id}` ends it; it can be submitted again later")));
        }
    }
    let outcomes = match presence(&settings.layout) {
        Presence::Absent => without_a_brain(options, paused, settings)?,
        Presence::Runs { .. } | Presence::Starts => by_the_brain(options, paused, settings)?,
    };
    let told: Vec<Told> = outcomes.into_iter().map(|(id, outcome)| told(id, outcome)).collect();
    let all = told.iter().all(|one| is_so(paused, &one.outcome));
    if console.json {
        console.say_json(&serde_json::json!({ "paused": paused, "all": all, "about": told }))?;
    } else {
        for one in &told {
            console.say(&format!("{}: {}", one.id, one.message))?;
        }
    }
    Ok(if all { exit::OK } else { exit::NOT_ALL })
}

/// Whether the batch is now as it was to be.
fn is_so(paused: bool, outcome: &str) -> bool {
    let wanted = if paused { ["paused", "already_paused"] } else { ["resumed", "not_paused"] };
    wanted.contains(&outcome)
}

fn told(id: String, outcome: String) -> Told {
    let message = match outcome.as_str() {
        "paused" => "paused; what runs ends, and nothing more of it starts".to_owned(),
        "resumed" => "goes on".to_owned(),
        "already_paused" => "it is paused already".to_owned(),
        "not_paused" => "it is not paused".to_owned(),
        "already_ended" => IS_OVER.to_owned(),
        "failed" => "its mark could not be written; the brain's log says why".to_owned(),
        other => other.replace('_', " "),
    };
    Told { id, outcome, message }
}

fn by_the_brain(
    options: &Options,
    paused: bool,
    settings: &Settings,
) -> Result<Vec<(String, String)>, Failure> {
    let request = ask::request(if paused { Verb::Pause } else { Verb::Resume }, &options.ids);
    match ask::ask(settings, &request, PATIENCE, false)? {
        Asked::Answered(answer) => Ok(answer.about.into_iter().map(|one| (one.id, one.outcome)).collect()),
        Asked::Unanswered | Asked::Orphaned => {
            Err(Failure::new(exit::TRY_AGAIN, "the brain has not answered yet")
                .next("the request stays; `gpuspool status` shows whether it was carried out"))
        }
    }
}

/// Takes the brain's place for a moment, so that nobody starts an item meanwhile.
fn without_a_brain(
    options: &Options,
    paused: bool,
    settings: &Settings,
) -> Result<Vec<(String, String)>, Failure> {
    let _lock = BrainLock::take(&settings.layout).map_err(|error| {
        Failure::new(exit::TRY_AGAIN, format!("failed to take the brain's place: {error}"))
            .next("a brain is probably starting; try again")
    })?;
    let batches = locate::batches(settings);
    let mut outcomes = Vec::new();
    for name in &options.ids {
        let Some(Meant::Batch(id, manifest)) = locate::meant(settings, name)? else {
            return Err(locate::unknown(settings, name));
        };
        let failed = |error: std::io::Error| Failure::io(format_args!("mark batch `{id}`"), &error);
        let states = batches.states(&manifest).map_err(failed)?;
        let over =
            states.iter().all(|state| matches!(state, Some(model::Status::Complete | model::Status::Failed)));
        let outcome = match over || batches.pause(&id, paused).map_err(failed)? {
            _ if over => "already_ended",
            true if paused => "paused",
            true => "resumed",
            false if paused => "already_paused",
            false => "not_paused",
        };
        outcomes.push((name.clone(), outcome.to_owned()));
    }
    Ok(outcomes)
}
