//! What people will do: every task and batch of a scenario, drawn before it runs, so that every policy sees the same.

use model::task::GpuRequirement;
use model::task::{IdClaim, LlmWork, Needs, Script, ScriptWork, Work};
use model::{BatchId, GpuMode, Millis, Priority, Task, TaskClass, TaskId, TaskType};

use crate::dice::Dice;
use crate::scenario::{Arrive, Scenario, Stream, WorkSpec};

/// A day in seconds.
const DAY_S: f64 = 86_400.0;

/// Something that people do.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// When.
    pub at: Millis,
    /// What.
    pub what: Wish,
}

/// What people want.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// One task.
    Task(Box<Job>),
    /// A batch.
    Batch {
        /// Its name.
        batch_id: BatchId,
        /// Its script.
        script: String,
        /// How it wants the GPUs.
        mode: GpuMode,
        /// Its items.
        items: Vec<Job>,
    },
}

/// A task, and what only the simulator knows of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// What is dropped.
    pub task: Task,
    /// How long it runs on a GPU of speed 1.
    pub run: Millis,
    /// Work between two points at which it can give way.
    pub boundary: Option<Millis>,
}

impl Job {
    /// A task with nothing but its name, its work and its true length.
    ///
    /// # Errors
    /// When the name cannot be an id.
    pub fn new(name: &str, work: &WorkSpec, run: Millis) -> Result<Self, model::id::BadId> {
        let (work, gpu) = match work {
            WorkSpec::Llm { model } => {
                let llm = LlmWork {
                    prompt: Some("simulated".into()),
                    messages: Vec::new(),
                    input: None,
                    options: serde_json::Map::new(),
                    model: model.clone(),
                };
                (Work::Llm(llm), GpuRequirement::Any)
            }
            WorkSpec::Script { script, model, cpu } => {
                let script = ScriptWork {
                    script: Script::Registered(script.clone()),
                    args: serde_json::Map::new(),
                    model: model.clone(),
                    input: None,
                    output_dir: None,
                };
                (Work::Script(script), if *cpu { GpuRequirement::None } else { GpuRequirement::Any })
            }
        };
        let class = match work {
            Work::Llm(_) => TaskClass::Llm,
            Work::Script(_) => TaskClass::Script,
        };
        let task_type = TaskType::default_of(class);
        let task = Task {
            task_id: TaskId::new(name)?,
            id_is: IdClaim::Wish,
            work,
            task_type,
            job_type: task_type.default_job_type().into(),
            priority: Priority::NORMAL,
            gpu,
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
        Ok(Self { task, run, boundary: None })
    }
}

/// Everything that people will do in a scenario, in the order of time.
#[must_use]
pub fn arrivals(scenario: &Scenario) -> Vec<Arrival> {
    let mut all = Vec::new();
    for (number, stream) in scenario.people.iter().enumerate() {
        let dice = Dice::of(scenario.seed, &format!("people {number} {}", stream.name));
        Drawing { scenario, stream, dice, made: 0, all: &mut all }.draw();
    }
    all.sort_by_key(|arrival| arrival.at);
    all
}

/// A task like those of a stream, of this number.
pub(crate) fn stand_in(scenario: &Scenario, stream: &Stream, number: u32) -> Option<Job> {
    let dice = Dice::of(scenario.seed, "stand-in");
    let mut drawing = Drawing { scenario, stream, dice, made: 0, all: &mut Vec::new() };
    drawing.job(&format!("{}-{number}", stream.name))
}

struct Drawing<'s> {
    scenario: &'s Scenario,
    stream: &'s Stream,
    dice: Dice,
    made: u32,
    all: &'s mut Vec<Arrival>,
}

impl Drawing<'_> {
    fn draw(&mut self) {
        match self.stream.arrive.clone() {
            Arrive::At { times_s } => times_s.into_iter().for_each(|at| self.task(at)),
            Arrive::Poisson { per_hour } => {
                for at in self.at_random(per_hour) {
                    self.task(at);
                }
            }
            Arrive::Bursts { per_hour, size } => {
                for at in self.at_random(per_hour) {
                    for _ in 0..whole(size.seconds(&mut self.dice)) {
                        self.task(at);
                    }
                }
            }
            Arrive::Sessions { per_hour, turns, think } => {
                for mut at in self.at_random(per_hour) {
                    for _ in 0..whole(turns.seconds(&mut self.dice)) {
                        self.task(at);
                        at += think.seconds(&mut self.dice);
                        if at >= self.end() {
                            break;
                        }
                    }
                }
            }
            Arrive::Batch { times_s, items, mode } => {
                for at in times_s {
                    self.batch(at, items, mode);
                }
            }
            Arrive::Batches { per_hour, items, mode } => {
                for at in self.at_random(per_hour) {
                    let items = whole(items.seconds(&mut self.dice));
                    self.batch(at, items, mode);
                }
            }
        }
    }

    fn end(&self) -> f64 {
        self.stream.to_s.unwrap_or(self.scenario.duration_s).min(self.scenario.duration_s)
    }

    fn at_random(&mut self, per_hour: f64) -> Vec<f64> {
        let mut times = Vec::new();
        let mut at = self.stream.from_s;
        if per_hour <= 0.0 {
            return times;
        }
        loop {
            at += self.dice.exponential(3_600.0 / per_hour);
            if at >= self.end() {
                return times;
            }
            let hour = (at % DAY_S) / 3_600.0;
            if self.stream.hours.is_none_or(|[from, to]| (from..to).contains(&hour)) {
                times.push(at);
            }
        }
    }

    fn task(&mut self, at: f64) {
        let name = format!("{}-{}", self.stream.name, self.made + 1);
        self.made += 1;
        if let Some(job) = self.job(&name) {
            self.all.push(Arrival { at: Millis::from_secs_f64(at), what: Wish::Task(Box::new(job)) });
        }
    }

    fn batch(&mut self, at: f64, items: u32, mode: GpuMode) {
        let WorkSpec::Script { script, .. } = self.stream.work.clone() else { return };
        let name = format!("{}-b{}", self.stream.name, self.made + 1);
        self.made += 1;
        let Ok(batch_id) = BatchId::new(name.clone()) else { return };
        let mut jobs: Vec<Job> = (1..=items).filter_map(|n| self.job(&format!("{name}.{n}"))).collect();
        for job in &mut jobs {
            job.task.batch_id = Some(batch_id.clone());
        }
        let what = Wish::Batch { batch_id, script, mode, items: jobs };
        self.all.push(Arrival { at: Millis::from_secs_f64(at), what });
    }

    fn job(&mut self, name: &str) -> Option<Job> {
        let stream = self.stream;
        let seconds = stream.run.seconds(&mut self.dice);
        let mut job = Job::new(name, &stream.work, Millis::from_secs_f64(seconds)).ok()?;
        let sigma = stream.estimate_sigma;
        let wrong = if sigma > 0.0 { (sigma * self.dice.normal()).exp() } else { 1.0 };
        let task = &mut job.task;
        task.media_s = stream.media_speed.map(|speed| seconds * speed * wrong);
        task.priority = Priority::new(stream.priority)?;
        if let Some(job_type) = &stream.job_type {
            task.job_type.clone_from(job_type);
        }
        task.needs.vram_mib = stream.vram_mib;
        task.needs.gpus = stream.gpus.max(1);
        task.timeout_s = stream.timeout_s;
        if let Some(most) = stream.max_attempts {
            task.max_attempts = most;
        }
        job.boundary = stream.boundary_s.map(Millis::from_secs_f64);
        Some(job)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float to int casts saturate")]
fn whole(size: f64) -> u32 {
    (size.round() as u32).clamp(1, 10_000)
}
