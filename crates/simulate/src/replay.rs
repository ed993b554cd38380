//! A recorded journal as a scenario: the tasks that came when they came, as long as they really ran.
//!
//! | line | what is taken from it |
//! |---|---|
//! | `start` of a first attempt | the task: class, job type, priority, script, model, media, batch, which GPU and how many; when it was made |
//! | `end` | how long its last run took, or since its last start where that is not said |
//! | `batch` | how a batch wanted the GPUs |
//!
//! Lines of other kinds are passed over, a torn one is counted. What never started is not in a journal. Not here: how long
//! engines take to load, which no journal says (`boots`).

mod boots;

use std::collections::{BTreeMap, BTreeSet};

use model::task::{GpuRequirement, Work};
use model::{BatchId, GpuMode, GpuUuid, Millis, Priority, Task, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use crate::people::{Arrival, Job, Wish};
use crate::scenario::WorkSpec;

pub use boots::Widened;

/// What a journal holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recorded {
    /// Everything that people did, from the first of it on.
    pub arrivals: Vec<Arrival>,
    /// Tasks whose end is not in the journal: they are taken to run as long as their kind does in the middle.
    pub unended: usize,
    /// Lines that cannot be read.
    pub torn: usize,
}

impl Recorded {
    /// The LLMs that tasks insist on.
    #[must_use]
    pub fn models(&self) -> BTreeSet<&str> {
        let jobs = self.arrivals.iter().filter_map(|arrival| match &arrival.what {
            Wish::Task(job) => Some(job),
            Wish::Batch { .. } => None,
        });
        jobs.filter_map(|job| match &job.task.work {
            Work::Llm(work) => work.model.as_deref(),
            Work::Script(_) => None,
        })
        .collect()
    }

    /// Lets tasks run on any GPU that ask for one which is not among so many invented ones: one of a higher number, or one
    /// by its uuid. How many.
    pub fn move_to(&mut self, gpus: usize) -> usize {
        let is_here = |wanted: &GpuRequirement| match wanted {
            GpuRequirement::Any | GpuRequirement::None => true,
            GpuRequirement::Key(key) => key.parse().is_ok_and(|number: usize| number < gpus),
            GpuRequirement::Uuid(_) => false,
        };
        let mut moved = 0;
        for task in self.tasks_mut().filter(|task| !is_here(&task.gpu)) {
            task.gpu = GpuRequirement::Any;
            moved += 1;
        }
        moved
    }

    /// The most GPUs that one task needs at once.
    #[must_use]
    pub fn widest(&self) -> u32 {
        let jobs = self.arrivals.iter().flat_map(|arrival| match &arrival.what {
            Wish::Task(job) => std::slice::from_ref(&**job),
            Wish::Batch { items, .. } => items,
        });
        jobs.map(|job| job.task.needs.gpus).max().unwrap_or(1)
    }

    fn tasks_mut(&mut self) -> impl Iterator<Item = &mut Task> {
        let jobs = self.arrivals.iter_mut().flat_map(|arrival| match &mut arrival.what {
            Wish::Task(job) => std::slice::from_mut(&mut **job),
            Wish::Batch { items, .. } => items,
        });
        jobs.map(|job| &mut job.task)
    }
}

/// Why a journal cannot be replayed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReplayError {
    /// Nothing that could be done again.
    #[error("the journal has no `start` line that says what the task was; {lines} lines were read")]
    Empty {
        /// How many.
        lines: usize,
    },
}

#[derive(Deserialize)]
struct Line {
    at: Timestamp,
    what: String,
    #[serde(default)]
    about: Value,
}

#[derive(Deserialize)]
struct Start {
    task_id: String,
    #[serde(default)]
    task: Option<Told>,
}

/// What a journal says of a task.
#[derive(Clone, Debug, Deserialize)]
struct Told {
    class: String,
    job_type: String,
    priority: u8,
    #[serde(default)]
    script: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    media_s: Option<f64>,
    #[serde(default)]
    estimated_s: Option<f64>,
    #[serde(default)]
    vram_mib: Option<u64>,
    #[serde(default)]
    cpu: bool,
    /// More than one; earlier journals do not say it.
    #[serde(default)]
    gpus: Option<u32>,
    /// A GPU's number or uuid.
    #[serde(default)]
    gpu_requirement: Option<String>,
    #[serde(default)]
    batch_id: Option<BatchId>,
    #[serde(default)]
    created_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct End {
    task_id: String,
    #[serde(default)]
    ran_s: Option<f64>,
}

#[derive(Deserialize)]
struct BatchTold {
    batch_id: BatchId,
    gpu_mode: GpuMode,
}

/// A task while the journal is read.
#[derive(Clone, Debug)]
struct Seen {
    told: Told,
    arrived: Timestamp,
    started: Timestamp,
    ran_s: Option<f64>,
}

/// Reads the lines of a journal, of any number of days.
///
/// # Errors
/// When there is nothing in it to be done again.
pub fn read(text: &str) -> Result<Recorded, ReplayError> {
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    let mut modes: BTreeMap<BatchId, GpuMode> = BTreeMap::new();
    let mut recorded = Recorded::default();
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    for line in lines.clone() {
        if take(line, &mut seen, &mut modes).is_none() {
            recorded.torn += 1;
        }
    }
    let Some(first) = seen.values().map(|one| one.arrived).min() else {
        return Err(ReplayError::Empty { lines: lines.count() });
    };
    let middle = middles(&seen);
    let mut batches: BTreeMap<BatchId, Vec<(Millis, Job)>> = BTreeMap::new();
    for (name, one) in &seen {
        let ran_s = one.ran_s.unwrap_or_else(|| {
            recorded.unended += 1;
            middle.get(&kind(&one.told)).copied().unwrap_or(10.0)
        });
        let Some(job) = job(name, one, ran_s) else {
            recorded.torn += 1;
            continue;
        };
        let at = Millis((one.arrived - first).num_milliseconds().max(0));
        match &one.told.batch_id {
            Some(batch) => batches.entry(batch.clone()).or_default().push((at, job)),
            None => recorded.arrivals.push(Arrival { at, what: Wish::Task(Box::new(job)) }),
        }
    }
    for (batch_id, items) in batches {
        let at = items.iter().map(|(at, _)| *at).min().unwrap_or_default();
        let mode = modes.get(&batch_id).copied().unwrap_or_default();
        let items: Vec<Job> = items.into_iter().map(|(_, job)| job).collect();
        let script = items.first().and_then(script_of).unwrap_or_default();
        recorded.arrivals.push(Arrival { at, what: Wish::Batch { batch_id, script, mode, items } });
    }
    recorded.arrivals.sort_by_key(|arrival| arrival.at);
    Ok(recorded)
}

/// Takes one line in; none where it is torn.
fn take(line: &str, seen: &mut BTreeMap<String, Seen>, modes: &mut BTreeMap<BatchId, GpuMode>) -> Option<()> {
    let line: Line = serde_json::from_str(line).ok()?;
    match line.what.as_str() {
        "start" => {
            let start: Start = serde_json::from_value(line.about).ok()?;
            if let Some(known) = seen.get_mut(&start.task_id) {
                known.started = line.at;
            } else if let Some(told) = start.task {
                let arrived = told.created_at.unwrap_or(line.at).min(line.at);
                seen.insert(start.task_id, Seen { told, arrived, started: line.at, ran_s: None });
            }
        }
        "end" => {
            let end: End = serde_json::from_value(line.about).ok()?;
            if let Some(known) = seen.get_mut(&end.task_id) {
                let since = Millis((line.at - known.started).num_milliseconds().max(1)).as_secs_f64();
                known.ran_s = Some(end.ran_s.unwrap_or(since));
            }
        }
        "batch" => {
            let batch: BatchTold = serde_json::from_value(line.about).ok()?;
            modes.insert(batch.batch_id, batch.gpu_mode);
        }
        _ => {}
    }
    Some(())
}

fn kind(told: &Told) -> (String, Option<String>) {
    (told.class.clone(), told.script.clone())
}

/// The middle of what ran, by kind.
fn middles(seen: &BTreeMap<String, Seen>) -> BTreeMap<(String, Option<String>), f64> {
    let mut all: BTreeMap<(String, Option<String>), Vec<f64>> = BTreeMap::new();
    for one in seen.values() {
        if let Some(ran_s) = one.ran_s {
            all.entry(kind(&one.told)).or_default().push(ran_s);
        }
    }
    let middle = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    all.into_iter().map(|(kind, times)| (kind, middle(times))).collect()
}

fn job(name: &str, seen: &Seen, ran_s: f64) -> Option<Job> {
    let told = &seen.told;
    let work = match &told.script {
        Some(script) => WorkSpec::Script { script: script.clone(), model: told.model.clone(), cpu: told.cpu },
        None => WorkSpec::Llm { model: told.model.clone() },
    };
    let mut job = Job::new(name, &work, Millis::from_secs_f64(ran_s)).ok()?;
    let task = &mut job.task;
    task.job_type.clone_from(&told.job_type);
    task.priority = Priority::new(told.priority)?;
    task.media_s = told.media_s;
    task.estimated_duration_sec = told.estimated_s;
    task.needs.vram_mib = told.vram_mib;
    task.needs.gpus = told.gpus.unwrap_or(1).max(1);
    if let Some(wanted) = told.gpu_requirement.as_deref().filter(|_| !told.cpu) {
        let is_number = wanted.bytes().all(|b| b.is_ascii_digit());
        task.gpu = match is_number {
            true => GpuRequirement::Key(wanted.to_owned()),
            false => GpuRequirement::Uuid(GpuUuid::new(wanted).ok()?),
        };
    }
    task.batch_id.clone_from(&told.batch_id);
    Some(job)
}

fn script_of(job: &Job) -> Option<String> {
    match &job.task.work {
        Work::Script(work) => Some(work.script.to_string()),
        Work::Llm(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOURNAL: &str = r#"
{"at":"2026-01-31T10:00:05Z","what":"start","about":{"task_id":"a","attempt":1,"worker":"w","task":{"class":"llm","job_type":"chatbot","priority":3,"created_at":"2026-01-31T10:00:00Z"}}}
{"at":"2026-01-31T10:00:06Z","what":"batch","about":{"batch_id":"b","gpu_mode":"exclusive"}}
{"at":"2026-01-31T10:00:07Z","what":"start","about":{"task_id":"b.1","attempt":1,"worker":"w","task":{"class":"script","job_type":"transcription","priority":2,"script":"whisper","media_s":600.0,"batch_id":"b","created_at":"2026-01-31T10:00:06Z"}}}
{"at":"2026-01-31T10:00:08Z","what":"start","about":{"task_id":"c","attempt":1,"worker":"w","task":{"class":"script","job_type":"transcription","priority":2,"script":"whisper"}}}
{"at":"2026-01-31T10:00:09Z","what":"end","about":{"task_id":"a","complete":true,"error":null,"ran_s":3.5}}
{"at":"2026-01-31T10:01:07Z","what":"start","about":{"task_id":"b.1","attempt":2,"worker":"w"}}
{"at":"2026-01-31T10:01:47Z","what":"end","about":{"task_id":"b.1","complete":true,"error":null}}
{"at":"2026-01-31T10:01:48Z","what":"said","about":{"sentence":"…"}}
{"at":"2026-01-31T10:01:4"#;

    #[test]
    fn tasks_come_again_when_they_came_and_run_as_long_as_they_ran() {
        let recorded = read(JOURNAL).unwrap();
        assert_eq!((recorded.torn, recorded.unended), (1, 1));
        let times: Vec<i64> = recorded.arrivals.iter().map(|arrival| arrival.at.0).collect();
        assert_eq!(times, [0, 6_000, 8_000]);
        let Wish::Task(chat) = &recorded.arrivals[0].what else { panic!("a task") };
        assert_eq!((chat.run, chat.task.job_type.as_str()), (Millis(3_500), "chatbot"));
        let Wish::Batch { mode, items, script, .. } = &recorded.arrivals[1].what else { panic!("a batch") };
        assert_eq!((*mode, script.as_str()), (GpuMode::Exclusive, "whisper"));
        assert_eq!((items[0].run, items[0].task.media_s), (Millis(40_000), Some(600.0)));
        // Its end is not told: it runs as long as others of its kind.
        let Wish::Task(open) = &recorded.arrivals[2].what else { panic!("a task") };
        assert_eq!(open.run, Millis(40_000));
    }

    #[test]
    fn a_task_of_several_gpus_and_of_a_certain_one_comes_as_such() {
        let line = |id: &str, more: &str| {
            format!(
                r#"{{"at":"2026-01-31T10:00:05Z","what":"start","about":{{"task_id":"{id}","task":{{"class":"script","job_type":"t","priority":3,"script":"s"{more}}}}}}}"#
            )
        };
        let journal = [
            line("a", r#","gpus":2"#),
            line("b", r#","gpu_requirement":"1""#),
            line("c", r#","gpu_requirement":"5""#),
            line("d", r#","gpu_requirement":"GPU-1""#),
            line("e", ""),
        ];
        let mut recorded = read(&journal.join("\n")).unwrap();
        assert_eq!((recorded.torn, recorded.widest()), (0, 2));
        assert_eq!(recorded.tasks_mut().map(|task| task.needs.gpus).collect::<Vec<_>>(), [2, 1, 1, 1, 1]);
        assert_eq!(recorded.move_to(2), 2, "GPU 5 and one of a uuid are not invented");
        let wanted: Vec<GpuRequirement> = recorded.tasks_mut().map(|task| task.gpu.clone()).collect();
        let any = GpuRequirement::Any;
        assert_eq!(wanted, [any.clone(), GpuRequirement::Key("1".into()), any.clone(), any.clone(), any]);
    }

    #[test]
    fn a_journal_without_starts_cannot_be_done_again() {
        let line = r#"{"at":"2026-01-31T10:00:05Z","what":"down","about":null}"#;
        assert_eq!(read(line), Err(ReplayError::Empty { lines: 1 }));
    }
}
