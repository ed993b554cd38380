//! Script units: warm hosts that live between tasks, and scripts of one process a task.
//!
//! Not here: which host gets which task (`arm`), how a script is spoken to (`engine`).

use std::collections::BTreeSet;
use std::fs;
use std::future::{Future, pending};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use engine::environment::Environment;
use engine::group::{Program, Stuck};
use engine::host::{HOST_ARGUMENT, Host, Served};
use engine::interpreter::{self, Interpreters};
use engine::once::{self, Bounds};
use engine::outcome::Outcome;
use engine::protocol::{Brake, Job, Told};
use engine::{Log, Surroundings};
use model::config::{Config, Limits, ScriptEntry};
use model::link::{HostReport, HostState, StopWhy};
use model::task::{ScriptWork, TaskError};
use model::{AttemptKey, FailureClass, GpuUuid};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep;

use crate::happening::{Happening, HostId, HostTurn};
use crate::memory::Gate;
use crate::record::Ending;
use crate::stop::Stop;

/// What tells one warm host from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostKey {
    pub(crate) script: String,
    pub(crate) model: Option<String>,
    /// All GPUs of the task it is for, where that has several: such a host is for that task alone.
    pub(crate) gpus: Vec<GpuUuid>,
}

impl HostKey {
    /// The key of a script that is keyed by its model, or by nothing.
    pub(crate) fn new(script: &str, model: Option<&String>, entry: &ScriptEntry) -> Self {
        let keyed = entry.key.iter().any(|field| field == "model");
        let model = model.or(entry.model.as_ref()).filter(|_| keyed).cloned();
        Self { script: script.to_owned(), model, gpus: Vec::new() }
    }
}

/// How scripts are run on this worker.
#[derive(Clone, Debug)]
pub(crate) struct Workshop {
    pub(crate) config: Arc<Config>,
    pub(crate) around: Surroundings,
    pub(crate) interpreters: Arc<Mutex<Interpreters>>,
    pub(crate) gate: Gate,
    pub(crate) tell: UnboundedSender<Happening>,
}

/// One script, ready to be started.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) path: PathBuf,
    pub(crate) env: Environment,
    pub(crate) model: Option<String>,
}

/// One task for a script.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) job: Job,
    pub(crate) log: PathBuf,
    pub(crate) limit: Option<Duration>,
    pub(crate) stop: Stop,
}

impl Workshop {
    /// How to start the script at `path`, with all these GPUs if there are any.
    pub(crate) fn recipe(
        &self,
        path: &Path,
        entry: Option<&ScriptEntry>,
        model: Option<String>,
        gpus: &[GpuUuid],
    ) -> Result<Recipe, TaskError> {
        let nothing = Vec::new();
        let pass = entry.map_or(&nothing, |entry| &entry.env);
        let mut set = vec![("PYTHONUNBUFFERED".to_owned(), "1".to_owned())];
        if let Some(model) = &model {
            set.push(("GPUSPOOL_MODEL".into(), model.clone()));
        }
        if let Some(file) = entry.and_then(|entry| entry.api_key_file.as_ref()) {
            let key = fs::read_to_string(file).map_err(|error| {
                let why = format!("cannot read the key in `{}`: {error}", file.display());
                TaskError::new(FailureClass::BadInput, "api_key_unreadable", why)
            })?;
            set.push(("GPUSPOOL_API_KEY".into(), key.trim().to_owned()));
        }
        let set = set.iter().map(|(name, value)| (name, value));
        let env = self.around.over(gpus).environment(std::env::vars_os(), pass, set);
        Ok(Recipe { path: path.to_owned(), env, model })
    }

    /// The beginning of the command line; slow the first time, where dependencies are fetched.
    async fn command(&self, recipe: &Recipe) -> Result<Program, TaskError> {
        let lock = || self.interpreters.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().known(&recipe.path);
        let argv = match known {
            Some(argv) => argv,
            None => {
                let uv = lock().uv();
                let argv = interpreter::find(uv.as_deref(), &recipe.path, &recipe.env).await?;
                lock().keep(&recipe.path, &argv);
                argv
            }
        };
        Ok(Program { argv, env: recipe.env.clone(), folder: None })
    }

    fn grace(&self) -> Duration {
        Duration::from_secs_f64(self.config.timing.kill_grace_s)
    }

    fn log(&self, path: &Path) -> Log {
        let Limits { log_bytes_max, tail_bytes_max, .. } = self.config.limits;
        Log::create(path, log_bytes_max, tail_bytes_max)
    }

    /// Runs a script of one task; its end becomes a happening.
    pub(crate) fn run_once(&self, mut recipe: Recipe, task: Task) {
        let shop = self.clone();
        let key = task.job.key.clone();
        recipe.env.insert("GPUSPOOL_TASK_ID".into(), key.task_id.as_str().into());
        recipe.env.insert("GPUSPOOL_ATTEMPT".into(), key.attempt.to_string().into());
        tokio::spawn(async move {
            let ending = shop.once(&recipe, task).await.unwrap_or_else(Ending::Failed);
            let _ = shop.tell.send(Happening::Over(key, Box::new(ending)));
        });
    }

    async fn once(&self, recipe: &Recipe, task: Task) -> Result<Ending, TaskError> {
        let (brake, pulled) = brake(&task.stop, task.limit);
        let Brake { give_way, stop } = brake;
        tokio::pin!(give_way, stop);
        let program = tokio::select! {
            program = self.command(recipe) => program?,
            () = &mut stop => return Ok(stopped(&pulled)),
        };
        let mut log = self.log(&task.log);
        let bounds = Bounds { result_bytes_max: self.config.limits.result_bytes_max, grace: self.grace() };
        let say = self.listener(&task.job.key);
        let brake = Brake { give_way, stop };
        let ran = once::run(&program, &task.job, bounds, &mut log, say, brake).await;
        if let Some(stuck) = ran.stuck {
            tracing::error!("{}: {stuck}", task.job.key);
        }
        Ok(ending(ran.outcome, &pulled, &log, recipe.model.as_ref()))
    }

    /// Passes on what a script tells of a task.
    fn listener(&self, key: &AttemptKey) -> impl FnMut(Told) + Send + use<> {
        let (key, tell) = (key.clone(), self.tell.clone());
        // The loop that listens outlives its units.
        move |told| drop(tell.send(Happening::Told(key.clone(), told)))
    }
}

/// What stopped a task, once something has.
type Pulled = Arc<OnceLock<(StopWhy, bool)>>;

/// When a task is to end: at its next boundary, when orders say so; at once, when orders stop it or its time is up. The
/// second value then says which it was.
fn brake(
    orders: &Stop,
    limit: Option<Duration>,
) -> (Brake<impl Future<Output = ()> + Send + use<>, impl Future<Output = ()> + Send + use<>>, Pulled) {
    let pulled = Arc::new(OnceLock::new());
    let mine = Arc::clone(&pulled);
    let (to_yield, to_end) = (orders.clone(), orders.clone());
    let stop = async move {
        let late = async {
            match limit {
                Some(limit) => sleep(limit).await,
                None => pending().await,
            }
        };
        let why = tokio::select! {
            why = to_end.now() => (why, true),
            () = late => (StopWhy::Timeout, false),
        };
        // It is pulled once: the future is over with it.
        let _ = mine.set(why);
    };
    (Brake { give_way: to_yield.give_way(), stop }, pulled)
}

/// The end of a task that was stopped; if it was nothing harder, it gave way.
fn stopped(pulled: &OnceLock<(StopWhy, bool)>) -> Ending {
    let (why, by_orders) = pulled.get().copied().unwrap_or((StopWhy::Yield, true));
    Ending::Stopped { why, by_orders }
}

fn ending(outcome: Outcome, pulled: &OnceLock<(StopWhy, bool)>, log: &Log, model: Option<&String>) -> Ending {
    match outcome {
        Outcome::Done(done) => Ending::Gave { output: done.output, model: model.cloned() },
        Outcome::Failed(error) => {
            Ending::Failed(TaskError { tail: error.tail.clone().or_else(|| log.tail()), ..error })
        }
        Outcome::Stopped => stopped(pulled),
    }
}

// ------------------------------------------------------------------------------------------------ warm hosts

/// A host as the loop knows it.
#[derive(Debug)]
pub(crate) struct HostSeat {
    pub(crate) id: HostId,
    pub(crate) key: HostKey,
    pub(crate) busy: Option<AttemptKey>,
    pub(crate) report: HostReport,
    /// Whether it obeys `yield`.
    pub(crate) yields: bool,
    /// Dropped, the host ends.
    tasks: Option<UnboundedSender<Task>>,
}

impl HostSeat {
    /// Starts one; `loads` counts this one already.
    pub(crate) fn start(shop: &Workshop, id: HostId, key: HostKey, recipe: Recipe, loads: u32) -> Self {
        let (tasks, taken) = unbounded_channel();
        let report = HostReport {
            script: key.script.clone(),
            model: key.model.clone(),
            state: HostState::Booting,
            pid: None,
            loads,
            boot_ms: None,
        };
        let life = Life { shop: shop.clone(), id, recipe, gpus: key.gpus.clone(), tasks: taken };
        tokio::spawn(life.live());
        Self { id, key, busy: None, report, yields: false, tasks: Some(tasks) }
    }

    /// Whether it can be given a task now.
    pub(crate) fn is_free(&self) -> bool {
        self.report.state == HostState::Idle && self.busy.is_none() && self.tasks.is_some()
    }

    /// Whether it is on its way out.
    pub(crate) fn is_ending(&self) -> bool {
        self.report.state == HostState::Unloading
    }

    /// Gives it a task.
    pub(crate) fn give(&mut self, task: Task) {
        self.busy = Some(task.job.key.clone());
        self.report.state = HostState::Busy;
        if let Some(tasks) = &self.tasks {
            // A host that died meanwhile says so: the loop then ends the task.
            let _ = tasks.send(task);
        }
    }

    /// Tells it to end.
    pub(crate) fn end(&mut self) {
        self.tasks = None;
        self.report.state = HostState::Unloading;
    }

    /// Takes what happened to it; false once it is gone.
    pub(crate) fn take(&mut self, turn: &HostTurn) -> bool {
        match turn {
            HostTurn::Started { pid } => self.report.pid = Some(*pid),
            HostTurn::Ready { boot_ms, yields } => {
                self.report.boot_ms = Some(*boot_ms);
                self.yields = *yields;
                if self.report.state == HostState::Booting {
                    self.report.state = HostState::Idle;
                }
            }
            HostTurn::Failed(_) | HostTurn::Ending => self.end(),
            HostTurn::Gone => return false,
        }
        true
    }

    /// Its task is over.
    pub(crate) fn free(&mut self) {
        self.busy = None;
        if self.report.state == HostState::Busy {
            self.report.state = HostState::Idle;
        }
    }
}

struct Life {
    shop: Workshop,
    id: HostId,
    recipe: Recipe,
    /// Its GPUs, where it has several: then it ends with its first task.
    gpus: Vec<GpuUuid>,
    tasks: UnboundedReceiver<Task>,
}

impl Life {
    fn say(&self, turn: HostTurn) {
        let _ = self.shop.tell.send(Happening::Host(self.id, turn));
    }

    async fn live(mut self) {
        let begin = Instant::now();
        let shop = self.shop.clone();
        let program = tokio::select! {
            program = shop.command(&self.recipe) => program,
            _ = self.tasks.recv() => return self.say(HostTurn::Gone),
        };
        let limits = &shop.config.limits;
        let started = program.and_then(|mut program| {
            program.argv.push(HOST_ARGUMENT.into());
            Host::start(&program, limits.result_bytes_max, limits.tail_bytes_max)
        });
        let mut host = match started {
            Ok(host) => host,
            Err(error) => {
                self.say(HostTurn::Failed(error));
                return self.say(HostTurn::Gone);
            }
        };
        self.say(HostTurn::Started { pid: host.pid() });
        let limit = Duration::from_secs_f64(shop.config.timing.host_boot_timeout_s);
        tokio::select! {
            loaded = host.ready(limit) => match loaded {
                Ok(()) => {
                    let boot_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
                    self.say(HostTurn::Ready { boot_ms, yields: host.yields() });
                    self.serve(&mut host).await;
                }
                Err(error) => self.say(HostTurn::Failed(error)),
            },
            _ = self.tasks.recv() => {}
        }
        self.end(host).await;
    }

    async fn serve(&mut self, host: &mut Host) {
        loop {
            let task = tokio::select! {
                task = self.tasks.recv() => task,
                end = host.idle() => {
                    tracing::warn!("the host of `{}` {end} without a task", self.recipe.path.display());
                    return;
                }
            };
            let Some(task) = task else { return };
            if !self.run(host, task).await {
                return;
            }
        }
    }

    async fn run(&mut self, host: &mut Host, task: Task) -> bool {
        let (brake, pulled) = brake(&task.stop, task.limit);
        let mut log = self.shop.log(&task.log);
        let say = self.shop.listener(&task.job.key);
        let Served { outcome, alive } = host.run(&task.job, &mut log, say, brake, self.shop.grace()).await;
        // What ran out of memory may have left it in pieces: the next task gets a fresh process.
        let oom = matches!(&outcome, Outcome::Failed(error) if error.class == FailureClass::Oom);
        // The GPUs of one that has several are free with the end of its task: by then it is gone.
        let alive = alive && !oom && self.gpus.is_empty();
        if !alive {
            self.say(HostTurn::Ending);
            if let Err(stuck) = host.stop(self.shop.grace()).await {
                tracing::error!("{}: {stuck}", task.job.key);
            }
        }
        let ending = ending(outcome, &pulled, &log, self.recipe.model.as_ref());
        let _ = self.shop.tell.send(Happening::Over(task.job.key, Box::new(ending)));
        alive
    }

    async fn end(mut self, mut host: Host) {
        self.say(HostTurn::Ending);
        let pids: BTreeSet<u32> = host.pids().into_iter().collect();
        while let Err(Stuck { processes }) = host.stop(self.shop.grace()).await {
            tracing::error!("processes of a script host outlive SIGKILL: {processes:?}");
        }
        self.shop.gate.passed(&pids, &self.gpus).await;
        // A task that was given to it while it died has not begun and must not be lost.
        self.tasks.close();
        while let Some(task) = self.tasks.recv().await {
            let ending = Ending::Failed(died_before_it_began());
            let _ = self.shop.tell.send(Happening::Over(task.job.key, Box::new(ending)));
        }
        self.say(HostTurn::Gone);
    }
}

/// The end of a task that was given to a host while that died.
pub(crate) fn died_before_it_began() -> TaskError {
    TaskError::new(FailureClass::Crash, "host_died", "the script host died before the task began")
}

/// A task's media that is not there is the task's fault, found before anything is loaded.
pub(crate) fn check_input(work: &ScriptWork) -> Result<(), TaskError> {
    match work.input.as_deref() {
        Some(input) if !input.contains("://") && !Path::new(input).exists() => Err(TaskError::new(
            FailureClass::BadInput,
            "input_not_found",
            format!("there is no file `{input}`"),
        )),
        _ => Ok(()),
    }
}
