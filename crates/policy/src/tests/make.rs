//! Tasks, configurations and worker abilities, as short words.

use model::config::{Auto, GpuRole, HostKind, ModelEntry, ScriptEntry, ScriptGpu};
use model::link::{Can, CanEngine};
use model::task::{GpuRequirement, IdClaim, LlmWork, Needs, Script, ScriptWork, Work};
use model::{BatchId, Config, Priority, Task, TaskClass, TaskId, TaskType};

pub(super) const QWEN_7B: &str = "qwen2.5:7b";
pub(super) const QWEN_14B: &str = "qwen2.5:14b";

/// A task with its file's name and priority.
#[derive(Clone, Debug)]
pub(super) struct Drop {
    pub task: Task,
    pub order: Option<u64>,
}

fn task(name: &str, work: Work) -> Drop {
    let class = match work {
        Work::Llm(_) => TaskClass::Llm,
        Work::Script(_) => TaskClass::Script,
    };
    let task_type = TaskType::default_of(class);
    let task = Task {
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
    };
    Drop { task, order: None }
}

/// A prompt.
pub(super) fn prompt(name: &str) -> Drop {
    let work = LlmWork {
        prompt: Some("hello".into()),
        messages: Vec::new(),
        input: None,
        options: Default::default(),
        model: None,
    };
    task(name, Work::Llm(work))
}

/// A task of a registered script.
pub(super) fn script(name: &str, script: &str) -> Drop {
    let work = ScriptWork {
        script: Script::Registered(script.into()),
        args: Default::default(),
        model: None,
        input: None,
        output_dir: None,
    };
    task(name, Work::Script(work))
}

/// A program of its own, which nothing else runs.
pub(super) fn own_program(name: &str) -> Drop {
    let mut drop = script(name, "");
    if let Work::Script(work) = &mut drop.task.work {
        work.script = Script::File(format!("/srv/{name}.py").into());
    }
    drop
}

/// A transcription by the warm script of these tests.
pub(super) fn whisper(name: &str) -> Drop {
    script(name, "whisper")
}

impl Drop {
    pub(super) fn with_model(mut self, model: &str) -> Self {
        match &mut self.task.work {
            Work::Llm(work) => work.model = Some(model.into()),
            Work::Script(work) => work.model = Some(model.into()),
        }
        self
    }

    pub(super) fn priority(mut self, level: u8) -> Self {
        self.task.priority = Priority::new(level).expect("1 to 5");
        self
    }

    pub(super) fn gpu(mut self, gpu: GpuRequirement) -> Self {
        self.task.gpu = gpu;
        self
    }

    pub(super) fn vram(mut self, mib: u64) -> Self {
        self.task.needs.vram_mib = Some(mib);
        self
    }

    pub(super) fn gpus(mut self, count: u32) -> Self {
        self.task.needs.gpus = count;
        self
    }

    pub(super) fn media(mut self, seconds: f64) -> Self {
        self.task.media_s = Some(seconds);
        self
    }

    pub(super) fn estimate(mut self, seconds: f64) -> Self {
        self.task.estimated_duration_sec = Some(seconds);
        self
    }

    pub(super) fn timeout(mut self, seconds: f64) -> Self {
        self.task.timeout_s = Some(seconds);
        self
    }

    pub(super) fn of_batch(mut self, batch: &str) -> Self {
        self.task.batch_id = Some(BatchId::new(batch).expect("a legal name"));
        self
    }

    pub(super) fn of_type(mut self, job_type: &str) -> Self {
        self.task.job_type = job_type.into();
        self
    }

    pub(super) fn order(mut self, order: u64) -> Self {
        self.order = Some(order);
        self
    }
}

/// Two models, the warm `whisper` (2,000 MiB, 10 times realtime), `embed` (once), and `count` in the CPU lane.
pub(super) fn config() -> Config {
    let model = |mib: u64| ModelEntry { mib: Some(mib), parallel: Some(2), ..ModelEntry::default() };
    let mut config = Config::default();
    config.models.insert(QWEN_14B.into(), model(10_000));
    config.models.insert(QWEN_7B.into(), model(5_600));
    config.models_order = vec![QWEN_14B.into(), QWEN_7B.into()];
    let whisper = ScriptEntry {
        path: "whisper.py".into(),
        host: HostKind::Warm,
        key: vec!["model".into()],
        model: Some("small.en".into()),
        vram_mib: Some(2_000),
        ..ScriptEntry::default()
    };
    config.scripts.insert("whisper".into(), whisper);
    config.scripts.insert("embed".into(), ScriptEntry { path: "embed.py".into(), ..ScriptEntry::default() });
    let count = ScriptEntry {
        path: "count.py".into(),
        gpu: ScriptGpu::None,
        host: HostKind::Warm,
        ..ScriptEntry::default()
    };
    config.scripts.insert("count".into(), count);
    config.cpu_slots = Auto::Set(2);
    config
}

/// Where one transcription has a GPU of 24,576 MiB for itself: two do not fit.
pub(super) fn one_at_a_time(mut config: Config) -> Config {
    if let Some(whisper) = config.scripts.get_mut("whisper") {
        whisper.vram_mib = Some(12_000);
    }
    config
}

/// The roles of the seed's example: brains on 0 and 3.
pub(super) fn with_brains(mut config: Config) -> Config {
    let roles =
        [("0", GpuRole::BrainPrimary), ("3", GpuRole::BrainSecondary), ("1", GpuRole::WorkerOrScript)];
    let roles = roles.into_iter().map(|(key, role)| (key.to_owned(), role)).collect();
    config.resource_manager.gpu_roles = Auto::Set(roles);
    config
}

/// A worker that can boot these models.
pub(super) fn can(models: &[&str]) -> Can {
    let models = models.iter().map(|model| (*model).to_owned()).collect();
    Can { engines: vec![CanEngine { preset: "ollama".into(), models }], missing: Vec::new() }
}
