//! The lines of the GPUs and of the CPU lane.

use model::picture::{GpuPicture, Picture, SlotPicture};
use model::{GpuState, Health};

use super::bar::bar;
use super::paper::Paper;
use super::{Frame, seconds};
use crate::sanitize::one_line;
use crate::words::duration;

/// The longest of the seven states, `booting_script`.
const STATE_WIDTH: usize = 14;
/// What it does: a bar, a percentage and a time.
const DOING_WIDTH: usize = 22;
/// `11.2/24.0 GiB`.
const VRAM_WIDTH: usize = 13;
/// `tasks: 1234`.
const TASKS_WIDTH: usize = 11;
/// From this room on, memory has a column of its own.
const ROOM_WITH_VRAM: usize = 90;

/// One line for each GPU, then one for the CPU lane where anything is known of it.
pub(super) fn rows(frame: &Frame<'_>, picture: &Picture, paper: &mut Paper) {
    if picture.gpus.is_empty() {
        paper.line("No GPU is known.");
    }
    let mut gpus: Vec<(&String, &GpuPicture)> = picture.gpus.iter().collect();
    gpus.sort_by_key(|(key, _)| (key.len(), key.as_str()));
    for (key, gpu) in gpus {
        let tasks = match gpu.slots_max {
            _ if gpu.draining => "draining".into(),
            _ if !gpu.paired_with.is_empty() => format!("with GPU {}", gpu.paired_with.join(", ")),
            Some(most) if gpu.slots_used > 0 && most > 1 => format!("{}/{most} slots", gpu.slots_used),
            _ => format!("tasks: {}", gpu.tasks_completed),
        };
        let (what, doing) = if gpu.health == Health::Lost {
            (product(&gpu.name), "its driver lost it".to_owned())
        } else {
            (what(gpu), doing(frame, gpu))
        };
        paper.line(&row(
            paper.room(),
            &format!("GPU {key}:"),
            &state(gpu),
            &what,
            &doing,
            &vram(gpu),
            &tasks,
        ));
    }
    let cpu = &picture.cpu;
    if cpu.worker_pid.is_some() || !cpu.slots.is_empty() {
        let state = if cpu.slots.is_empty() { "IDLE" } else { "BUSY" };
        let what = cpu.slots.first().map(|slot| slot.task_id.to_string()).unwrap_or_default();
        let doing = cpu.slots.first().map(running).unwrap_or_default();
        let slots = format!("{}/{} slots", cpu.slots.len(), cpu.capacity);
        paper.line(&row(paper.room(), "CPU:", state, &what, &doing, "", &slots));
    }
}

fn row(room: usize, label: &str, state: &str, what: &str, doing: &str, vram: &str, tasks: &str) -> String {
    let vram = (room >= ROOM_WITH_VRAM).then(|| format!(" {:>VRAM_WIDTH$}", one_line(vram, VRAM_WIDTH)));
    let vram = vram.unwrap_or_default();
    let fixed = 7 + STATE_WIDTH + 2 + 1 + 1 + DOING_WIDTH + vram.chars().count() + 2 + TASKS_WIDTH;
    let what_width = room.saturating_sub(fixed).max(1);
    format!(
        "{label:<7}[{:<STATE_WIDTH$}] {:<what_width$} {:<DOING_WIDTH$}{vram}  {:<TASKS_WIDTH$}",
        one_line(state, STATE_WIDTH),
        one_line(what, what_width),
        one_line(doing, DOING_WIDTH),
        one_line(tasks, TASKS_WIDTH),
    )
}

/// The state in capitals; an unusable GPU's health stands in its place.
fn state(gpu: &GpuPicture) -> String {
    match gpu.health {
        Health::Ok | Health::Suspect => gpu.state.name().to_uppercase(),
        Health::Quarantined => "QUARANTINED".into(),
        Health::Lost => "LOST".into(),
    }
}

/// The model or script it is about; on an idle GPU what is still loaded, else its name.
fn what(gpu: &GpuPicture) -> String {
    let named = match gpu.state {
        GpuState::BootingScript | GpuState::ScriptBusy => gpu.script.as_ref().or(gpu.model.as_ref()),
        _ => gpu.model.as_ref().or(gpu.script.as_ref()),
    };
    match (named, gpu.residents.first()) {
        (Some(name), _) => name.clone(),
        (None, Some(resident)) => resident.model.clone(),
        (None, None) => product(&gpu.name),
    }
}

/// A product's name without its maker's, which is the same on every line.
fn product(name: &str) -> String {
    let name = name.strip_prefix("NVIDIA ").unwrap_or(name);
    name.strip_prefix("GeForce ").unwrap_or(name).to_owned()
}

fn doing(frame: &Frame<'_>, gpu: &GpuPicture) -> String {
    let since = duration(seconds(frame.now, gpu.since));
    if let Some(lease) = &gpu.lease {
        return format!("lent: {lease}");
    }
    match gpu.state {
        GpuState::Idle if !gpu.residents.is_empty() => format!("warm, idle {since}"),
        GpuState::Idle | GpuState::LlmReady => format!("idle {since}"),
        GpuState::Cooling => format!("being freed {since}"),
        GpuState::BootingLlm | GpuState::BootingScript => booting(frame, gpu),
        GpuState::LlmBusy | GpuState::ScriptBusy => {
            let oldest = gpu.slots.iter().find(|slot| Some(&slot.task_id) == gpu.task_id.as_ref());
            let text = oldest.or(gpu.slots.first()).map_or_else(
                || format!("busy {since}"),
                |slot| {
                    if slot.progress.is_none() && slot.eta_s.is_none() {
                        return format!("busy {since}");
                    }
                    running(slot)
                },
            );
            if gpu.slots.len() > 1 { format!("{}× {text}", gpu.slots.len()) } else { text }
        }
    }
}

fn booting(frame: &Frame<'_>, gpu: &GpuPicture) -> String {
    let (Some(begun), Some(ready)) = (gpu.started_boot, gpu.expected_ready) else {
        return format!("booting {}", duration(seconds(frame.now, gpu.since)));
    };
    if ready <= frame.now {
        return format!("booting {}, late", duration(seconds(frame.now, begun)));
    }
    let share = seconds(frame.now, begun) / seconds(ready, begun).max(0.001);
    format!("{} ready in {}", bar(share, 6), duration(seconds(ready, frame.now)))
}

/// A running task: how far, and how long still, as far as anybody knows.
fn running(slot: &SlotPicture) -> String {
    // What should have ended by now is late by nobody knows how much: `ETA 0s` would be a promise.
    let eta = slot.eta_s.filter(|s| *s >= 0.5).map(|s| format!("ETA {}", duration(s)));
    match (slot.progress, eta) {
        (Some(share), eta) => {
            format!("{} {:>3.0}% {}", bar(share, 6), share * 100.0, eta.unwrap_or_default())
        }
        (None, Some(eta)) => eta,
        (None, None) => "running".into(),
    }
}

/// Memory in GiB; what could not be read is a question mark.
fn vram(gpu: &GpuPicture) -> String {
    let gib = |mib: Option<u64>| match mib {
        #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
        Some(mib) => format!("{:.1}", mib as f64 / 1_024.0),
        None => "?".into(),
    };
    match (gpu.vram.used_mib, gpu.vram.total_mib) {
        (None, None) => String::new(),
        (used, total) => format!("{}/{} GiB", gib(used), gib(total)),
    }
}
