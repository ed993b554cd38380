//! The terminal picture: `gpu_state.json` in a box. Pure: a frame goes in, text comes out.
//!
//! Not here: reading the picture, and moving the cursor (`live`).

mod bar;
mod gpu;
mod paper;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use chrono::FixedOffset;
use model::picture::{BatchPicture, Picture};
use model::{BatchId, InventorySource, Mode, TaskClass, Timestamp};

use crate::brain::Presence;
use crate::words::{count, duration};
use bar::bar;
use paper::Paper;

/// Width where the terminal's is not known, in characters: every column fits.
pub(crate) const WIDTH_DEFAULT: usize = 100;
/// Widths that make sense, in characters.
const WIDTHS: std::ops::RangeInclusive<usize> = 66..=120;
/// More batches than these are counted, not listed.
const BATCHES_SHOWN: usize = 4;
/// So many of the last decisions are shown; the journal has them all.
const SAID_SHOWN: usize = 4;
/// More notices than these are counted, not listed.
const NOTICES_SHOWN: usize = 4;

/// What is drawn.
#[derive(Clone, Debug)]
pub(crate) struct Frame<'a> {
    /// The brain's last picture.
    pub(crate) picture: Option<&'a Picture>,
    /// Whether a brain runs now.
    pub(crate) brain: Presence,
    /// Tasks in the queue folders, for when nobody draws.
    pub(crate) queued: BTreeMap<TaskClass, u64>,
    /// The time.
    pub(crate) now: Timestamp,
    /// The time zone of whoever looks.
    pub(crate) zone: FixedOffset,
    /// Characters a line may have.
    pub(crate) width: usize,
}

/// The picture as text; each line ends with a newline.
#[must_use]
pub(crate) fn draw(frame: &Frame<'_>) -> String {
    let mut paper = Paper::new(frame.width.clamp(*WIDTHS.start(), *WIDTHS.end()));
    paper.top();
    title(frame, &mut paper);
    paper.rule();
    match frame.picture {
        Some(picture) => gpu::rows(frame, picture, &mut paper),
        None => paper.line("No picture yet: no brain has worked on this spool."),
    }
    paper.rule();
    queues(frame, &mut paper);
    if let Some(picture) = frame.picture {
        batches(frame, &picture.batches, &mut paper);
        heads(frame, picture, &mut paper);
        lately(frame, picture, &mut paper);
        notices(picture, &mut paper);
    }
    paper.bottom();
    paper.text()
}

fn title(frame: &Frame<'_>, paper: &mut Paper) {
    let inventory = match frame.picture.map(|picture| picture.inventory) {
        Some(InventorySource::Simulated) => "   SIMULATED GPUs",
        Some(InventorySource::Unmeasured) => "   UNMEASURED GPU",
        Some(InventorySource::Measured) | None => "",
    };
    let now = frame.now.with_timezone(&frame.zone).format("%Y-%m-%d %H:%M:%S").to_string();
    paper.ends(&format!("GPUSPOOL{inventory}"), &now);
    if let Some(picture) = frame.picture
        && picture.inventory != InventorySource::Measured
        && let Some(why) = &picture.inventory_why
    {
        paper.wrapped("", why);
    }
    match (&frame.brain, frame.picture) {
        (Presence::Runs { .. }, _) => {}
        (Presence::Starts, _) => paper.line("The brain is starting."),
        (Presence::Absent, None) => paper.wrapped("", "Nothing runs. `gpuspool up` starts the work."),
        (Presence::Absent, Some(picture)) => {
            let age = duration(seconds(frame.now, picture.written_at));
            paper.wrapped(
                "",
                &format!("NO BRAIN RUNS: this is how it was {age} ago. `gpuspool up` starts the work."),
            );
        }
    }
}

fn queues(frame: &Frame<'_>, paper: &mut Paper) {
    let waiting = |class: TaskClass, name: &str| {
        let drawn = frame.picture.and_then(|picture| picture.queues.get(&class));
        let alive = matches!(frame.brain, Presence::Runs { .. });
        match drawn {
            Some(queue) if alive => {
                let levels: Vec<String> = queue
                    .by_priority
                    .iter()
                    .rev()
                    .filter(|(_, n)| **n > 0)
                    .map(|(level, n)| format!("p{level}: {n}"))
                    .collect();
                let levels =
                    if levels.len() > 1 { format!(" ({})", levels.join(", ")) } else { String::new() };
                format!("{name} queue: {} waiting{levels}", queue.waiting)
            }
            _ => format!("{name} queue: {} waiting", frame.queued.get(&class).copied().unwrap_or_default()),
        }
    };
    paper.halves(&waiting(TaskClass::Llm, "LLM"), &waiting(TaskClass::Script, "Script"));
    if let Some(picture) = frame.picture {
        let ended = picture.ended;
        let failed = if ended.failed > 0 { format!(", {} failed", ended.failed) } else { String::new() };
        paper.halves(&mode(picture), &format!("Ended: {} complete{failed}", ended.complete));
    }
}

fn mode(picture: &Picture) -> String {
    let word = match picture.mode {
        _ if picture.shutting_down => "SHUTTING DOWN",
        Mode::Normal => "normal",
        Mode::Draining => "BATCH (draining)",
        Mode::Exclusive => "BATCH (exclusive)",
    };
    match (picture.system_ram_available_mb, picture.system_ram_mb) {
        (Some(free), Some(total)) => format!("Mode: {word}   RAM: {} of {} GiB free", gib(free), gib(total)),
        _ => format!("Mode: {word}"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn gib(mib: u64) -> String {
    format!("{:.1}", mib as f64 / 1_024.0)
}

fn batches(frame: &Frame<'_>, batches: &BTreeMap<BatchId, BatchPicture>, paper: &mut Paper) {
    for (name, batch) in batches.iter().take(BATCHES_SHOWN) {
        let ended = batch.completed + batch.failed;
        let share = share(ended, batch.total_items);
        paper.halves(&format!("Batch: {name}"), &progress(frame, batch, ended, share));
    }
    if batches.len() > BATCHES_SHOWN {
        paper.line(&format!("… and {} more batches", batches.len() - BATCHES_SHOWN));
    }
}

fn progress(frame: &Frame<'_>, batch: &BatchPicture, ended: u64, share: f64) -> String {
    let mut text = format!("{} {ended}/{} ({:.1}%)", bar(share, 8), batch.total_items, share * 100.0);
    if batch.failed > 0 {
        text.push_str(&format!(", {} failed", batch.failed));
    }
    if batch.paused {
        text.push_str(", PAUSED");
    }
    if !batch.gpus.is_empty() {
        text.push_str(&format!(", {}", count(batch.gpus.len(), "GPU")));
    }
    if let Some(eta) = batch.eta {
        text.push_str(&format!(", ETA {}", duration(seconds(eta, frame.now))));
    }
    text
}

fn heads(frame: &Frame<'_>, picture: &Picture, paper: &mut Paper) {
    for (class, queue) in &picture.queues {
        let Some(head) = &queue.head else { continue };
        let start = match head.eta {
            Some(eta) if eta > frame.now => format!(" (starts in {})", duration(seconds(eta, frame.now))),
            _ => String::new(),
        };
        paper.wrapped(&format!("Next {class}: "), &format!("{}: {}{start}", head.task_id, head.reason.text));
    }
}

/// What was decided last.
fn lately(frame: &Frame<'_>, picture: &Picture, paper: &mut Paper) {
    let first = picture.said.len().saturating_sub(SAID_SHOWN);
    if picture.said.len() > first {
        paper.rule();
    }
    for said in picture.said.iter().skip(first) {
        let at = said.at.with_timezone(&frame.zone).format("%H:%M:%S");
        paper.wrapped(&format!("{at} "), &said.text);
    }
}

fn notices(picture: &Picture, paper: &mut Paper) {
    if picture.notices.is_empty() && picture.anomalies.is_empty() {
        return;
    }
    paper.rule();
    for notice in picture.notices.iter().take(NOTICES_SHOWN) {
        paper.wrapped("! ", notice);
    }
    if picture.notices.len() > NOTICES_SHOWN {
        paper.line(&format!(
            "! … and {} more notices in gpu_state.json",
            picture.notices.len() - NOTICES_SHOWN
        ));
    }
    for (name, count) in &picture.anomalies {
        paper.wrapped("! ", &format!("impossible, and seen {count} times: {name}"));
    }
}

/// From `earlier` to `later` in seconds.
#[expect(clippy::cast_precision_loss, reason = "2^53 ms is 285,000 years")]
pub(crate) fn seconds(later: Timestamp, earlier: Timestamp) -> f64 {
    (later - earlier).num_milliseconds() as f64 / 1_000.0
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more digits than it shows")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
