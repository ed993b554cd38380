//! What waits: the shapes of queues that the cost of an event is measured with.

use model::config::{HostKind, ModelEntry, ScriptEntry};
use model::task::{GpuRequirement, IdClaim, LlmWork, Needs, Script, ScriptWork, Work};
use model::{BatchId, Config, GpuMode, Millis, Priority, Task, TaskId, TaskType};
use policy::BatchFacts;

use crate::machine::batch_facts;

pub(crate) const MODELS: [&str; 2] = ["qwen2.5:14b", "qwen2.5:7b"];
/// Kinds of scripts that are registered.
const KINDS: u64 = 20;
/// A time that does not come.
const NEVER: Millis = Millis::from_secs(100_000_000);

/// A shape of queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Transcriptions, all alike.
    OneKind,
    /// Twenty kinds of scripts.
    TwentyKinds,
    /// Five priorities.
    Priorities,
    /// Twenty job types, which share by weight.
    JobTypes,
    /// Prompts and transcriptions by turns.
    Mixed,
    /// Prompts that insist on one of two models.
    Prompts,
    /// One exclusive batch.
    Batch,
    /// A thousand batches that share.
    Batches,
    /// Nine of ten may not start yet.
    Parked,
    /// Nine of ten fit on no GPU.
    Unsatisfiable,
    /// Nine of ten are for a GPU of their own choice.
    Pinned,
    /// Every task runs a program of its own.
    OwnScripts,
}

impl Workload {
    pub(crate) const ALL: [Self; 12] = [
        Self::OneKind,
        Self::TwentyKinds,
        Self::Priorities,
        Self::JobTypes,
        Self::Mixed,
        Self::Prompts,
        Self::Batch,
        Self::Batches,
        Self::Parked,
        Self::Unsatisfiable,
        Self::Pinned,
        Self::OwnScripts,
    ];

    /// How it is called in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OneKind => "one kind of script",
            Self::TwentyKinds => "20 kinds of scripts",
            Self::Priorities => "5 priorities",
            Self::JobTypes => "20 job types",
            Self::Mixed => "prompts and scripts",
            Self::Prompts => "prompts, 2 models",
            Self::Batch => "an exclusive batch",
            Self::Batches => "1,000 shared batches",
            Self::Parked => "9 of 10 parked",
            Self::Unsatisfiable => "9 of 10 fit nowhere",
            Self::Pinned => "9 of 10 pinned",
            Self::OwnScripts => "each a script of its own",
        }
    }

    /// In how many ways its tasks differ in where they can run.
    pub(crate) const fn kinds(self) -> usize {
        match self {
            Self::OneKind | Self::Priorities | Self::JobTypes | Self::Batch | Self::Parked => 1,
            Self::Mixed | Self::Prompts => 2,
            Self::Pinned => 9,
            Self::TwentyKinds => 20,
            Self::Unsatisfiable => 51,
            Self::Batches => 1_000,
            Self::OwnScripts => 0,
        }
    }

    /// The batches that `depth` tasks belong to.
    pub(crate) fn batches(self, depth: usize) -> Vec<BatchFacts> {
        // New items keep coming: a batch must not run out of them.
        let total = depth as u64 + 1_000_000;
        match self {
            Self::Batch => vec![batch_facts("b0".into(), "script-0", GpuMode::Exclusive, total)],
            Self::Batches => {
                (0..1_000).map(|n| batch_facts(format!("b{n}"), "script-0", GpuMode::Shared, total)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Its `n`-th task, and the time it may not start before.
    pub(crate) fn task(self, n: u64) -> (Task, Option<Millis>) {
        let name = format!("task-{n:08}");
        let mut not_before = None;
        let mut task = match self {
            Self::Mixed if n.is_multiple_of(2) => prompt(&name, None),
            Self::Prompts => prompt(&name, Some(MODELS[usize::try_from(n % 2).unwrap_or_default()])),
            Self::TwentyKinds => script(&name, n % KINDS),
            Self::OwnScripts => own_script(&name),
            _ => script(&name, 0),
        };
        let rare = !n.is_multiple_of(10);
        match self {
            Self::Priorities => task.priority = Priority::ALL[usize::try_from(n % 5).unwrap_or_default()],
            Self::JobTypes => task.job_type = format!("type-{}", n % 20),
            Self::Batch => task.batch_id = Some(BatchId::new("b0").expect("a legal name")),
            Self::Batches => {
                task.batch_id = Some(BatchId::new(format!("b{}", n % 1_000)).expect("a legal name"));
            }
            Self::Parked if rare => not_before = Some(NEVER),
            Self::Unsatisfiable if rare => task.needs.vram_mib = Some(1_000_000 + n % 50),
            Self::Pinned if rare => task.gpu = GpuRequirement::Key((n % 8).to_string()),
            _ => {}
        }
        if matches!(self, Self::Batch | Self::Batches) {
            // The longest go first: no two are alike.
            #[expect(clippy::cast_precision_loss, reason = "a length of some minutes")]
            let media_s = 30.0 + (n.wrapping_mul(7_919) % 5_000) as f64;
            task.media_s = Some(media_s);
        }
        (task, not_before)
    }
}

fn task(name: &str, work: Work, task_type: TaskType) -> Task {
    Task {
        task_id: TaskId::new(name).expect("a legal name"),
        id_is: IdClaim::Wish,
        work,
        task_type,
        job_type: task_type.default_job_type().into(),
        priority: Priority::NORMAL,
        gpu: GpuRequirement::Any,
        needs: Needs { gpus: 1, ..Needs::default() },
        estimated_duration_sec: None,
        media_s: None,
        timeout_s: None,
        max_attempts: 3,
        not_before: None,
        batch_id: None,
        on_complete: None,
        attempt: 0,
        charged: 0,
        created_at: None,
        checkpoint: None,
        history: Vec::new(),
        warnings: Vec::new(),
    }
}

fn prompt(name: &str, model: Option<&str>) -> Task {
    let work = LlmWork {
        prompt: Some("say something about the weather".into()),
        messages: Vec::new(),
        input: None,
        options: Default::default(),
        model: model.map(str::to_owned),
    };
    task(name, Work::Llm(work), TaskType::default_of(model::TaskClass::Llm))
}

fn own_script(name: &str) -> Task {
    let mut task = script(name, 0);
    if let Work::Script(work) = &mut task.work {
        work.script = Script::File(format!("/srv/scripts/{name}.py").into());
    }
    task
}

fn script(name: &str, kind: u64) -> Task {
    let work = ScriptWork {
        script: Script::Registered(format!("script-{kind}")),
        args: Default::default(),
        model: None,
        input: Some(format!("/media/{name}.mp4")),
        output_dir: None,
    };
    task(name, Work::Script(work), TaskType::default_of(model::TaskClass::Script))
}

/// Two LLMs, twenty warm scripts.
pub(crate) fn config() -> Config {
    let mut config = Config::default();
    for (name, mib) in MODELS.into_iter().zip([10_000, 5_600]) {
        let entry = ModelEntry { mib: Some(mib), parallel: Some(2), ..ModelEntry::default() };
        config.models.insert(name.into(), entry);
        config.models_order.push(name.into());
    }
    for kind in 0..KINDS {
        let entry = ScriptEntry {
            path: format!("script-{kind}.py").into(),
            host: HostKind::Warm,
            vram_mib: Some(3_000),
            ..ScriptEntry::default()
        };
        config.scripts.insert(format!("script-{kind}"), entry);
    }
    config.timing.cooling_s = 0.0;
    config
}
