//! Chat while transcriptions and summaries always wait, one unit at a time on the whole machine: the goal E2.
//!
//! Two GPUs hold a loaded LLM and a loaded script host; the single lock lets one unit run. Here is who was let in, in
//! which order, and how long people waited. Not here: the order itself (`policy`).

use model::Millis;
use serde_json::json;

use super::batch_model::{HOST_END_S, HOST_LOAD_S, LLM_LOAD_S, UNLOAD_S};
use super::makespan::TrialError;
use crate::dice::{Dice, Times};
use crate::mind::Mind;
use crate::outcome::{Outcome, Span, SpanKind, Story, Waits};
use crate::people::{Arrival, Job, Wish};
use crate::scenario::{Engines, GpuSpec, Scenario, WorkSpec};
use crate::sim::Sim;

/// Transcriptions, and half as many summaries; each runs so long.
const TRANSCRIPTIONS: usize = 240;
const RUN_S: f64 = 45.0;
/// Requests of people: so many, one in so many seconds, each this long.
const CHATS: usize = 30;
const CHAT_EVERY_S: f64 = 400.0;
const CHAT_S: f64 = 5.0;
/// When people begin to ask: both engines are loaded by then.
const CHAT_FROM_S: f64 = 1_500.0;

/// What their tasks are called.
const CHAT: &str = "chatbot";
/// So many starts say something about an order.
const ENOUGH: usize = 60;

/// The rules of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// 70/30, at most two transcriptions and one summary in a row.
    Limits,
    /// 70/30 without limits.
    SharesAlone,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Turns {
    /// Who was let in while both waited: `T` and `S`, chats left out.
    pub order: String,
    /// How long chats waited.
    pub chat: Waits,
    /// Chats before which something else was let in after they had come.
    pub passed_over: usize,
}

/// Runs it; with `boundary_s`, what runs gives way to chats: summaries at once, transcriptions every so many seconds.
///
/// # Errors
/// When a law is broken or a task has not ended.
pub fn turns(rules: Rules, boundary_s: Option<f64>, mind: Mind, seed: u64) -> Result<Turns, TrialError> {
    let outcome =
        Sim::with_arrivals(scenario(rules, boundary_s.is_some(), seed), arrivals(boundary_s, seed), mind)?
            .run();
    let undone = |what: String| TrialError::Undone { case: format!("turns, {rules:?}"), seed, what };
    if let Some(broken) = outcome.broken.first() {
        return Err(undone(format!("a law is broken: {broken}")));
    }
    let starts = starts(&outcome);
    let chats =
        || outcome.tasks.iter().filter(|(task_id, _)| is_chat(task_id.as_str())).map(|(_, story)| story);
    let waits = chats().filter_map(Story::wait).map(Millis::as_secs_f64).collect();
    // What was let in within the moment in which nobody could have heard of the chat yet does not count.
    let passed_over = chats().filter(|chat| {
        let (heard, began) = (chat.arrived + Millis(50), chat.began.unwrap_or(outcome.took));
        starts.iter().any(|span| !is_chat(&span.label) && span.from > heard && span.from < began)
    });
    Ok(Turns { order: order(&starts), chat: Waits::of(waits), passed_over: passed_over.count() })
}

fn is_chat(name: &str) -> bool {
    name.starts_with(CHAT)
}

/// What was let in, in its order.
fn starts(outcome: &Outcome) -> Vec<&Span> {
    let units = [SpanKind::Chat, SpanKind::Request, SpanKind::Script];
    let mut starts: Vec<&Span> = outcome.spans.iter().filter(|span| units.contains(&span.kind)).collect();
    starts.sort_by_key(|span| span.from);
    starts
}

/// From the time when both engines are loaded until one kind has run out.
fn order(starts: &[&Span]) -> String {
    let from = Millis::from_secs_f64(CHAT_FROM_S);
    let others = starts.iter().filter(|span| !is_chat(&span.label) && span.from >= from);
    let mut all: String = others.map(|span| if span.kind == SpanKind::Script { 'T' } else { 'S' }).collect();
    let last = |letter| all.rfind(letter).map_or(0, |at| at + 1);
    all.truncate(last('T').min(last('S')));
    all
}

/// Triples that are not `TTS`, wherever the first one begins; all, where there are too few to say anything.
#[must_use]
pub fn wrong_triples(order: &str) -> usize {
    let Some(begins) = order.find("TTS").filter(|begins| *begins < 3 && order.len() > ENOUGH) else {
        return order.len().max(1);
    };
    order.as_bytes()[begins..].chunks_exact(3).filter(|three| *three != b"TTS").count()
}

/// Tens in a row that are not seven and three; all, where there are too few to say anything.
#[must_use]
pub fn wrong_tens(order: &str) -> usize {
    if order.len() <= ENOUGH {
        return order.len().max(1);
    }
    let transcriptions = |ten: &[u8]| ten.iter().filter(|letter| **letter == b'T').count();
    order.as_bytes().windows(10).filter(|ten| transcriptions(ten) != 7).count()
}

fn scenario(rules: Rules, yields: bool, seed: u64) -> Scenario {
    let job_type = |weight: u32, most: u32| match rules {
        Rules::Limits => json!({ "weight": weight, "max_consecutive": most, "yields": yields }),
        Rules::SharesAlone => json!({ "weight": weight, "max_consecutive": null, "yields": yields }),
    };
    Scenario {
        name: format!("turns, {rules:?}"),
        seed,
        duration_s: 20_000.0,
        gpus: vec![GpuSpec { mib: 12_000, ..GpuSpec::default() }; 2],
        config: json!({
            "gpu_lock": "single",
            // One GPU for the LLM, so that whose turn it is does not hang on which engine is loaded.
            "resource_manager": { "gpu_roles": { "0": "brain_primary", "1": "worker_or_script" } },
            "models": { "qwen2.5:14b": { "mib": 100_000 }, "qwen2.5:7b": { "mib": 5_600, "parallel": 1 } },
            "models_order": ["qwen2.5:7b"],
            "scripts": { "whisper": { "vram_mib": 9_000 } },
            "fairness": { "job_types": {
                "transcription": job_type(70, 2), "summarization": job_type(30, 1)
            } },
        }),
        engines: Engines {
            boot_other: Times::constant(LLM_LOAD_S),
            unload: Times::constant(UNLOAD_S),
            host_load: Times::constant(HOST_LOAD_S),
            host_unload: Times::constant(HOST_END_S),
            ..Engines::default()
        },
        ..Scenario::default()
    }
}

fn arrivals(boundary_s: Option<f64>, seed: u64) -> Vec<Arrival> {
    let whisper = WorkSpec::Script { script: "whisper".into(), model: None, cpu: false };
    let llm = WorkSpec::Llm { model: None };
    let mut dice = Dice::of(seed, "chats");
    let mut all = Vec::new();
    let mut add = |kind: &str, n: usize, at: f64, work: &WorkSpec, run_s: f64| {
        let mut job =
            Job::new(&format!("{kind}-{n}"), work, Millis::from_secs_f64(run_s)).expect("a legal name");
        job.task.job_type = kind.into();
        if kind == "transcription" {
            job.boundary = boundary_s.map(Millis::from_secs_f64);
        }
        all.push(Arrival { at: Millis::from_secs_f64(at), what: Wish::Task(Box::new(job)) });
    };
    for n in 0..TRANSCRIPTIONS {
        add("transcription", n, 0.0, &whisper, RUN_S);
    }
    for n in 0..TRANSCRIPTIONS / 2 {
        add("summarization", n, 0.0, &llm, RUN_S);
    }
    let mut at = CHAT_FROM_S;
    for n in 0..CHATS {
        at += dice.exponential(CHAT_EVERY_S);
        add(CHAT, n, at, &llm, CHAT_S);
    }
    all.sort_by_key(|arrival| arrival.at);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_told_from_each_other() {
        assert_eq!(wrong_triples(&"TTS".repeat(30)), 0);
        assert_eq!(wrong_triples(&format!("S{}", "TTS".repeat(30))), 0);
        assert_eq!(wrong_triples(&format!("{}TSTTTS", "TTS".repeat(30))), 1);
        assert_ne!(wrong_triples("TTSTTS"), 0, "too few to say anything");
        assert_eq!(wrong_tens(&"TTSTTSTTTS".repeat(9)), 0);
        assert_ne!(wrong_tens(&"TTS".repeat(30)), 0);
    }
}
