//! `--wait`: follows batches through their records and the picture until all of them are over.
//!
//! Only reads. The brain writes both at most some times a second, so looking at them five times a second shows all.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use model::batch::{BatchItem, BatchRecord, Manifest};
use model::picture::{BatchPicture, Picture, SlotPicture};
use model::{Status, TaskId, TaskRecord};
use serde_json::Value;
use spool::batch::Batches;
use spool::find;
use spool::layout::Layout;

use crate::brain;
use crate::interrupt::Interrupt;
use crate::live::is_over;
use crate::progress::{Pace, Progress, Seen, Shown};
use crate::report::EndedItem;
use crate::say::Voice;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All batches are over.
    Over,
    /// The time is.
    TimedOut,
    /// Somebody did not want to wait any longer.
    Interrupted,
}

/// Follows `manifests` to their end.
///
/// # Errors
/// Where the spool cannot be read.
pub fn until_over(
    layout: &Layout,
    batches: &Batches,
    manifests: &[Manifest],
    timeout: Option<Duration>,
    interrupt: &Interrupt,
    voice: &mut Voice,
) -> io::Result<End> {
    let began = Instant::now();
    let mut progress = Progress::default();
    let mut display = Display::new(voice);
    let mut records: Vec<Option<BatchRecord>> = vec![None; manifests.len()];
    let mut brain_missed = false;
    loop {
        let all_over = refresh(batches, manifests, &mut records)?;
        let picture = brain::picture(layout);
        if !all_over && !brain_missed && !brain::is_up(layout) {
            brain_missed = true;
            display.note(voice, "the brain is not running: start it with `gpuspool up`, in another terminal");
        }
        let at = began.elapsed();
        progress.expect(picture.as_ref().and_then(|picture| expected(manifests, &records, picture)));
        display.show(voice, at, progress.advance(at, seen(manifests, &records, picture.as_ref())));
        let end = if all_over {
            End::Over
        } else if interrupt.is_wanted() {
            End::Interrupted
        } else if timeout.is_some_and(|most| at >= most) {
            End::TimedOut
        } else {
            std::thread::sleep(LOOK_EVERY.min(timeout.map_or(LOOK_EVERY, |most| most.saturating_sub(at))));
            continue;
        };
        display.finish();
        return Ok(end);
    }
}

/// Reads the records of batches that are not over; whether all are.
fn refresh(
    batches: &Batches,
    manifests: &[Manifest],
    records: &mut [Option<BatchRecord>],
) -> io::Result<bool> {
    let mut all_over = true;
    for (manifest, record) in manifests.iter().zip(records) {
        let over =
            |record: &Option<BatchRecord>| record.as_ref().is_some_and(|record| is_over(record.status));
        if !over(record) {
            *record = batches.record(&manifest.header.batch_id)?;
        }
        all_over &= over(record);
    }
    Ok(all_over)
}

/// What records and picture say of all batches together.
#[must_use]
pub fn seen(manifests: &[Manifest], records: &[Option<BatchRecord>], picture: Option<&Picture>) -> Seen {
    let slots: Vec<&SlotPicture> = picture.map_or_else(Vec::new, |picture| {
        picture.gpus.values().flat_map(|gpu| &gpu.slots).chain(&picture.cpu.slots).collect()
    });
    let mut seen = Seen::default();
    let live = picture.into_iter().flat_map(|picture| live(manifests, records, picture));
    let live: Vec<&BatchPicture> = live.flatten().collect();
    seen.paused = !live.is_empty() && live.iter().all(|batch| batch.paused);
    seen.gpus = live.iter().flat_map(|batch| &batch.gpus).collect::<BTreeSet<_>>().len();
    for (manifest, record) in manifests.iter().zip(records) {
        seen.items += manifest.items.len();
        seen.media_total_s += manifest.media_s().0;
        if let Some(record) = record {
            seen.ended += record.completed + record.failed;
            seen.failed += record.failed;
            seen.media_s += record.media_s_done;
        }
        for slot in &slots {
            let Some(index) = index_in(manifest, &slot.task_id) else { continue };
            if record.as_ref().is_some_and(|record| has_ended(record, index)) {
                continue;
            }
            seen.running += 1;
            let media_s = manifest.items[index].media_s.unwrap_or(0.0);
            seen.media_s += media_s * slot.progress.unwrap_or(0.0).clamp(0.0, 1.0);
        }
    }
    seen
}

/// What the picture says of the batches that are not over; none for one it does not know.
fn live<'p>(
    manifests: &'p [Manifest],
    records: &'p [Option<BatchRecord>],
    picture: &'p Picture,
) -> impl Iterator<Item = Option<&'p BatchPicture>> {
    let open = manifests
        .iter()
        .zip(records)
        .filter(|(_, record)| record.as_ref().is_none_or(|record| !is_over(record.status)));
    open.map(|(manifest, _)| picture.batches.get(&manifest.header.batch_id))
}

/// How long the brain expects all of them to take from when it drew the picture; none where it cannot say for one.
fn expected(manifests: &[Manifest], records: &[Option<BatchRecord>], picture: &Picture) -> Option<Duration> {
    let mut longest = Duration::ZERO;
    for batch in live(manifests, records, picture) {
        let left = batch?.eta? - picture.written_at;
        longest = longest.max(left.to_std().unwrap_or_default());
    }
    Some(longest)
}

/// Which item of the batch a task is.
fn index_in(manifest: &Manifest, task: &TaskId) -> Option<usize> {
    let index = task.as_str().strip_prefix(manifest.header.batch_id.as_str())?.strip_prefix('.')?;
    index.parse().ok().filter(|index| *index < manifest.items.len())
}

/// The record is newer than the picture where an item has just ended.
fn has_ended(record: &BatchRecord, index: usize) -> bool {
    let item = record.items.as_ref().and_then(|items| items.get(index));
    item.is_some_and(|item| matches!(item.status, Status::Complete | Status::Failed))
}

/// A bar that is redrawn on a terminal, lines elsewhere.
enum Display {
    Bar(ProgressBar),
    Lines(Pace),
}

/// Steps of the bar: finer than any terminal is wide.
const BAR_STEPS: u32 = 1_000;

impl Display {
    fn new(voice: &Voice) -> Self {
        if !voice.on_terminal() {
            return Self::Lines(Pace::default());
        }
        let bar = ProgressBar::new(u64::from(BAR_STEPS));
        if let Ok(style) = ProgressStyle::with_template("{bar:20} {wide_msg}") {
            bar.set_style(style);
        }
        Self::Bar(bar)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the fraction is within 0 to 1"
    )]
    fn show(&mut self, voice: &mut Voice, at: Duration, shown: Shown) {
        match self {
            Self::Bar(bar) => {
                bar.set_position((shown.fraction() * f64::from(BAR_STEPS)) as u64);
                bar.set_message(shown.line());
            }
            Self::Lines(pace) => {
                if pace.is_due(at, shown.seen) {
                    voice.note(&shown.line());
                }
            }
        }
    }

    fn note(&self, voice: &mut Voice, text: &str) {
        match self {
            Self::Bar(bar) => bar.suspend(|| voice.note(text)),
            Self::Lines(_) => voice.note(text),
        }
    }

    fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.abandon();
        }
    }
}

/// How the items of `manifest` stand, from their own records.
///
/// # Errors
/// Where the spool cannot be read.
pub fn ended_items(layout: &Layout, manifest: &Manifest) -> io::Result<Vec<EndedItem>> {
    let mut ended = Vec::with_capacity(manifest.items.len());
    for (index, item) in manifest.items.iter().enumerate() {
        let located = match manifest.task_id(index) {
            Some(task) => find::locate(layout, &task)?,
            None => None,
        };
        let record = located.as_ref().and_then(|located| located.record.as_deref());
        let place = located.as_ref().map(|located| &located.place);
        ended.push(ended_item(item, place, record));
    }
    Ok(ended)
}

fn ended_item(item: &BatchItem, place: Option<&find::Place>, record: Option<&TaskRecord>) -> EndedItem {
    let result = record.and_then(|record| record.result.as_ref());
    let output = |key: &str| result.and_then(|result| result.output.get(key));
    let written = output("outputs")
        .and_then(Value::as_object)
        .map(|files| files.values().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>());
    let status = match place {
        None => "not started",
        Some(find::Place::Queue(_)) => "queued",
        Some(find::Place::Processing) => "running",
        Some(find::Place::Complete) => "complete",
        Some(find::Place::Failed | find::Place::Rejected) => "failed",
    };
    EndedItem {
        media: PathBuf::from(&item.video_path),
        status: status.to_owned(),
        media_s: output("media_s").and_then(Value::as_f64).or(item.media_s),
        took_s: result.map(|result| result.duration),
        outputs: written.unwrap_or_else(|| item.outputs.values().cloned().collect()),
        error: record
            .and_then(|record| record.error.as_ref())
            .filter(|_| status == "failed")
            .map(|error| (error.code.clone(), error.message.clone())),
    }
}
