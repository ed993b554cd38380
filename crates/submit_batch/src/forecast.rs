//! What a batch would mean before it is one: the brain is asked, and its answer becomes some lines for people.
//!
//! A batch that would take LLMs away from somebody who uses them is not submitted from a terminal before that is agreed
//! to. Nothing depends on the answer otherwise: without a brain, or where it is silent, batches are accepted as ever.

use std::time::Duration;

use model::batch::Manifest;
use model::explained::{BatchAsked, BatchExplained, ChatMeanwhile, LlmLeaves};
use model::request::{ExpectedIn, Request, Verb};
use model::{Config, GpuMode};
use spool::request::{Asked, Requests};
use spool::settings::Settings;

use crate::brain;
use crate::words::{count, safe, span};

/// LLMs that are named one by one; what is beyond is a number.
const LLMS_NAMED: usize = 8;

/// What is known ahead.
#[derive(Clone, Debug, PartialEq)]
pub enum Forecast {
    /// The brain's answer.
    Known(Box<BatchExplained>),
    /// No brain runs.
    NoBrain,
    /// It does not answer.
    Silent(String),
}

/// Asks the brain about these manifests; it answers within `patience`, or it is not waited for.
#[must_use]
pub fn of(manifests: &[Manifest], settings: &Settings, patience: Duration) -> Forecast {
    let Some(batch) = asked(manifests).filter(|_| brain::is_up(&settings.layout)) else {
        return Forecast::NoBrain;
    };
    let by = format!("submit_batch, pid {}", std::process::id());
    let request = Request { batch: Some(batch), ..Request::new(Verb::Explain, &[], by) };
    let requests = Requests::new(settings.layout.clone(), settings.config.durability);
    match requests.ask_and_wait(&request, patience, true) {
        Ok(Asked::Answered(answer)) => match answer.batch_explained {
            Some(told) => Forecast::Known(told),
            None => Forecast::Silent(format!("the brain cannot say it: {}", answer.message)),
        },
        Ok(Asked::Unanswered) => {
            Forecast::Silent(format!("the brain did not answer within {} s", patience.as_secs()))
        }
        Ok(Asked::Orphaned) => Forecast::Silent("the brain left before it could answer".into()),
        Err(error) => Forecast::Silent(format!("the brain could not be asked: {error}")),
    }
}

/// The batch without its items; none where there is nothing to submit.
fn asked(manifests: &[Manifest]) -> Option<BatchAsked> {
    let header = &manifests.first()?.header;
    let items = || manifests.iter().flat_map(|manifest| &manifest.items);
    let media = || items().filter_map(|item| item.media_s);
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    Some(BatchAsked {
        batch_id: header.batch_id.clone(),
        task_type: header.task_type,
        script: header.script.clone(),
        model: header.model.clone(),
        gpu_mode: header.gpu_mode,
        priority: header.priority,
        items: number(items().count()),
        items_of_a_part: number(manifests.iter().map(|part| part.items.len()).max()?),
        with_media: number(media().count()),
        media_s: media().sum(),
        media_s_max: media().fold(0.0, f64::max),
    })
}

impl Forecast {
    /// Whether LLMs that are in use would be taken away.
    #[must_use]
    pub const fn takes_llms_in_use(&self) -> bool {
        matches!(self, Self::Known(told) if told.takes_llms_in_use)
    }

    /// What people read, a line for each part.
    #[must_use]
    pub fn text(&self, manifests: &[Manifest], config: &Config) -> String {
        let lines = match self {
            Self::Known(told) => lines(told),
            Self::NoBrain => without_a_brain("no brain runs", manifests, config),
            Self::Silent(why) => without_a_brain(why, manifests, config),
        };
        lines.into_iter().map(|line| format!("{}\n", safe(&line))).collect()
    }
}

fn lines(told: &BatchExplained) -> Vec<String> {
    let mut lines = vec![when(told)];
    lines.extend(times(told));
    lines.push(if told.exclusive {
        "it gets the GPUs for itself: LLM tasks wait for its end".to_owned()
    } else {
        "it shares the GPUs: LLM tasks go on".to_owned()
    });
    lines.extend(told.leaves.iter().take(LLMS_NAMED).map(leaves));
    if told.leaves.len() > LLMS_NAMED {
        lines.push(format!("so do {}", count(told.leaves.len() - LLMS_NAMED, "other LLM", "other LLMs")));
    }
    lines.push(chat(&told.chat));
    if told.takes_llms_in_use {
        lines.push(in_use(told));
    }
    lines
}

fn when(told: &BatchExplained) -> String {
    let Some(expected) = &told.expected else {
        let why = told.reason.as_ref().map_or("nothing like it was seen yet", |reason| reason.text.as_str());
        return format!("nobody can say when it ends: {why}");
    };
    let late = nine_of_ten(expected);
    let guess = if told.is_a_guess { "; a guess, until some of its kind have been measured" } else { "" };
    let wait = match (&told.reason, expected.starts_in_s) {
        (Some(reason), s) if s >= 1.0 => format!("; it starts in {}: {}", span(s), reason.text),
        _ => String::new(),
    };
    format!("expected to end in {}{late}{wait}{guess}", span(expected.ends_in_s))
}

fn nine_of_ten(expected: &ExpectedIn) -> String {
    let late_s = expected.ends_in_p90_s;
    if span(late_s) == span(expected.ends_in_s) {
        return String::new();
    }
    format!(" (9 times of 10 within {})", span(late_s))
}

/// On one GPU, and on all that can.
fn times(told: &BatchExplained) -> Option<String> {
    let (one, all) = (told.on_one.as_ref()?, told.on_all.as_ref()?);
    let gpu = one.place.as_deref().unwrap_or("0");
    Some(match told.gpus.len() {
        0 | 1 => format!("only GPU {gpu} can run it"),
        n => format!(
            "on GPU {gpu} alone it would take {}, on all {n} that can run it {}",
            span(one.ends_in_s),
            span(all.ends_in_s)
        ),
    })
}

fn leaves(leaves: &LlmLeaves) -> String {
    let goes = match leaves.leaves_in_s {
        s if s < 1.0 => "at once".to_owned(),
        s => format!("in {}", span(s)),
    };
    let back = leaves.back_in_s.map_or_else(
        || "comes back when something asks for it".to_owned(),
        |s| format!("is expected back in {}", span(s)),
    );
    format!("{} leaves GPU {} {goes} and {back}", leaves.model, leaves.gpu)
}

fn chat(chat: &ChatMeanwhile) -> String {
    match chat {
        ChatMeanwhile::AsBefore => "chat is not interrupted".into(),
        ChatMeanwhile::Served { gpu, model } => {
            format!("chat is not interrupted: {model} stays on GPU {gpu}")
        }
        ChatMeanwhile::Within { within_s } => {
            format!(
                "chat is interrupted: a chatbot that asks meanwhile gets a GPU within {}",
                span(*within_s)
            )
        }
        ChatMeanwhile::Waits => {
            "chat is interrupted: chatbots wait for its end (`exclusive_admits_chat` is false)".into()
        }
        ChatMeanwhile::WaitsForSeveral => {
            "chat is interrupted: chatbots wait for its end (it lends one GPU, and every LLM needs several)"
                .into()
        }
    }
}

fn in_use(told: &BatchExplained) -> String {
    let tasks = usize::try_from(told.llm_tasks).unwrap_or(usize::MAX);
    match (tasks, told.llm_asked_s_ago) {
        (0, Some(s)) => format!("LLMs are in use: the last LLM task came {} ago", span(s)),
        _ => format!("LLMs are in use: {} wait or run", count(tasks, "LLM task", "LLM tasks")),
    }
}

/// What the configuration alone says.
fn without_a_brain(why: &str, manifests: &[Manifest], config: &Config) -> Vec<String> {
    let settings = &config.resource_manager.batch_settings;
    let from = settings.auto_exclusive_threshold as usize;
    let is_exclusive = manifests.iter().any(|manifest| match manifest.header.gpu_mode {
        GpuMode::Exclusive => true,
        GpuMode::Shared => false,
        GpuMode::Auto => manifest.items.len() >= from,
    });
    let mut lines = vec![format!(
        "{why}, so nobody can say when it ends, on which GPUs, and which LLMs are loaded there"
    )];
    if is_exclusive {
        let chat = if settings.exclusive_admits_chat {
            "chatbots are lent one GPU"
        } else {
            "chatbots wait too (`exclusive_admits_chat` is false)"
        };
        lines
            .push(format!("it gets the GPUs for itself: LLMs make room, LLM tasks wait for its end, {chat}"));
    }
    lines
}

#[cfg(test)]
mod tests;
