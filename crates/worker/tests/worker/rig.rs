//! A spool, a configuration, one worker process, and the brain's end of the link.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use model::link::{
    AttemptOrder, AttemptReport, AttemptState, EngineOrder, EngineState, HostOrder, Orders, OrdersLine,
    Reports, ReportsLine, StopWhy, Wish,
};
use model::task::{IdClaim, LlmWork, Needs, Script, ScriptWork, Task, Work};
use model::{AttemptKey, GpuUuid, Priority, Status, TaskId, TaskRecord, TaskType, WorkerId};
use serde_json::{Map, Value, json};
use spool::layout::{Layout, ORDERS, REPORTS};
use spool::link::{Reader, Writer};
use spool::process;

/// Longest wait for anything; a test that fails takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Rig {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) layout: Layout,
    config: PathBuf,
}

impl Rig {
    /// With the fake engine, the fixtures' scripts, and short times.
    pub(crate) fn new() -> Self {
        Self::with(&json!({}), &[])
    }

    /// With other `timing`, and other arguments of the fake engine.
    pub(crate) fn with(timing: &Value, engine: &[&str]) -> Self {
        Self::lasting("process", timing, engine)
    }

    /// With records that are synced, as a real spool has them.
    pub(crate) fn durable() -> Self {
        Self::lasting("power", &json!({}), &[])
    }

    fn lasting(durability: &str, timing: &Value, engine: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let fake = fake_engine();
        let boots = path("boots");
        let mut command =
            vec![fake.to_str().unwrap(), "--port", "{port}", "--model", "{model}", "--boots-log", &boots];
        command.extend(engine);
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/scripts");
        let mut times = json!({"kill_grace_s": 0.2, "orphan_ttl_s": 60.0});
        let more = timing.as_object().unwrap().clone();
        times.as_object_mut().unwrap().extend(more);
        let config = json!({
            "durability": durability,
            "timing": times,
            "cpu_slots": 1,
            "engines": {"fake": {"command": command, "stop_grace_s": 1.0}},
            "models": {"fake-7b": {"engine": "fake", "parallel": 4}},
            "scripts": {
                "warm": {"path": scripts.join("warm_host.py"), "host": "warm", "env": ["LOADS"], "key": ["model"]},
                "once": {"path": scripts.join("once.sh")},
                "segments": {"path": scripts.join("segments.py"), "host": "warm", "env": ["LOADS"], "key": ["model"]},
                "segments_once": {"path": scripts.join("segments.py")},
            },
        });
        std::fs::write(path("config.json"), config.to_string()).unwrap();
        let layout = Layout::new(dir.path().join("spool"));
        layout.create().unwrap();
        Self { config: path("config.json").into(), layout, dir }
    }

    /// The worker's program is an example of this crate: a plain `cargo test` builds it, `--test worker` alone does not.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let me = std::env::current_exe().unwrap();
        let mut command = Command::new(me.ancestors().nth(2).unwrap().join("examples/worker_process"));
        command.arg("--spool").arg(self.layout.root()).arg("--config").arg(&self.config);
        command.args(arguments).env("LOADS", self.dir.path().join("loads"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// A worker of a simulated GPU that has a brain: this test.
    pub(crate) fn worker(&self) -> Worker {
        self.start(&["--gpus", "simulated:8000", "--gpu", "SIM-0", "--launch", "l1"])
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Worker {
        let before = self.workers();
        let child = self.command(arguments).spawn().unwrap();
        let id =
            wait_for("the birth of a worker", || self.workers().into_iter().find(|id| !before.contains(id)));
        let folder = self.layout.worker(&id);
        let brain = Orders { brain: Some(process::me().unwrap()), ..Orders::default() };
        Worker {
            child,
            orders: Some(Writer::create(&folder, ORDERS, 1, brain).unwrap()),
            reports: Reader::open(&folder, REPORTS).unwrap(),
            layout: self.layout.clone(),
            id,
            generation: 0,
        }
    }

    fn workers(&self) -> Vec<WorkerId> {
        spool::worker::named(&self.layout).unwrap()
    }

    /// How many lines a file beside the spool has.
    pub(crate) fn lines(&self, name: &str) -> usize {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default().lines().count()
    }
}

pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// The stand-in for an LLM server, which is an example of another crate: built here if nobody has built it yet.
fn fake_engine() -> PathBuf {
    let me = std::env::current_exe().unwrap();
    let profile = me.ancestors().nth(2).unwrap();
    let fake = profile.join("examples/fake_engine");
    if !fake.is_file() {
        let target = profile.parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build
            .args(["build", "-q", "-p", "gpuspool-engine", "--example", "fake_engine", "--target-dir"])
            .arg(target);
        assert!(build.status().unwrap().success(), "cannot build the fake engine");
    }
    fake
}

/// A worker, seen from its brain.
pub(crate) struct Worker {
    pub(crate) child: Child,
    orders: Option<Writer<OrdersLine>>,
    reports: Reader<ReportsLine>,
    layout: Layout,
    pub(crate) id: WorkerId,
    generation: u64,
}

impl Worker {
    pub(crate) fn order(&mut self, line: OrdersLine) {
        self.orders.as_mut().expect("there is a brain").amend(line).unwrap();
    }

    /// Lets a new brain of this epoch write a `whole`.
    pub(crate) fn adopt(&mut self, epoch: u64, orders: Orders) {
        self.orders = Some(Writer::create(&self.layout.worker(&self.id), ORDERS, epoch, orders).unwrap());
    }

    pub(crate) fn ordered(&self) -> Orders {
        self.orders.as_ref().expect("there is a brain").state().clone()
    }

    pub(crate) fn boot(&mut self) -> u64 {
        self.generation += 1;
        let generation = self.generation;
        let order = EngineOrder {
            generation,
            preset: "fake".into(),
            model: "fake-7b".into(),
            parallel: 4,
            beside: Vec::new(),
        };
        self.order(OrdersLine { engine: Some(Some(order)), ..OrdersLine::default() });
        generation
    }

    pub(crate) fn hosts(&mut self, count: u32) {
        let hosts = vec![HostOrder { script: "warm".into(), model: None, count }];
        self.order(OrdersLine { hosts: Some(hosts), ..OrdersLine::default() });
    }

    pub(crate) fn run(&mut self, tasks: Vec<Task>) -> Vec<AttemptKey> {
        let attempts: Vec<AttemptOrder> = tasks
            .into_iter()
            .map(|task| AttemptOrder {
                task_id: task.task_id.clone(),
                attempt: task.attempt,
                wish: Wish::Run,
                why: None,
                gpus: Vec::new(),
                task: Box::new(task),
            })
            .collect();
        let keys = attempts.iter().map(AttemptOrder::key).collect();
        self.order(OrdersLine { attempts, ..OrdersLine::default() });
        keys
    }

    /// Runs a task that has all these GPUs for itself.
    pub(crate) fn run_over(&mut self, gpus: &[&str], task: Task) -> AttemptKey {
        let gpus = gpus.iter().map(|uuid| GpuUuid::new(*uuid).unwrap()).collect();
        let (task_id, attempt) = (task.task_id.clone(), task.attempt);
        let order = AttemptOrder { task_id, attempt, wish: Wish::Run, why: None, gpus, task: Box::new(task) };
        let key = order.key();
        self.order(OrdersLine { attempts: vec![order], ..OrdersLine::default() });
        key
    }

    pub(crate) fn run_one(&mut self, task: Task) -> AttemptKey {
        self.run(vec![task]).remove(0)
    }

    pub(crate) fn stop(&mut self, key: &AttemptKey, why: StopWhy) {
        let mut order = self.ordered().attempts[key].clone();
        (order.wish, order.why) = (Wish::Stop, Some(why));
        self.order(OrdersLine { attempts: vec![order], ..OrdersLine::default() });
    }

    pub(crate) fn drop_key(&mut self, key: &AttemptKey) {
        self.order(OrdersLine { drop: vec![key.clone()], ..OrdersLine::default() });
    }

    pub(crate) fn leave(&mut self) {
        self.order(OrdersLine { leave: Some(true), ..OrdersLine::default() });
    }

    /// Reads reports until `look` finds what it wants.
    pub(crate) fn until<T>(&mut self, what: &str, look: impl Fn(&Reports) -> Option<T>) -> T {
        wait_for(what, || {
            self.reports.read().unwrap();
            look(self.reports.state())
        })
    }

    pub(crate) fn reports(&mut self) -> Reports {
        self.reports.read().unwrap();
        self.reports.state().clone()
    }

    pub(crate) fn engine(&mut self, state: EngineState) {
        let wanted = |reports: &Reports| reports.engine.as_ref().filter(|one| one.state == state).map(drop);
        self.until(&format!("an engine that is {state:?}"), wanted);
    }

    pub(crate) fn attempt(&mut self, key: &AttemptKey, state: AttemptState) -> AttemptReport {
        let wanted = |reports: &Reports| reports.attempts.get(key).filter(|one| one.state == state).cloned();
        self.until(&format!("{key} to be {state:?}"), wanted)
    }

    /// Waits for the end of an attempt and returns its record from the outbox.
    pub(crate) fn ended(&mut self, key: &AttemptKey) -> (AttemptReport, TaskRecord) {
        let report = self.attempt(key, AttemptState::Ended);
        (report, self.record(key))
    }

    pub(crate) fn record_path(&self, key: &AttemptKey) -> PathBuf {
        self.layout.outbox(&self.id).join(format!("{key}.json"))
    }

    pub(crate) fn record(&self, key: &AttemptKey) -> TaskRecord {
        serde_json::from_slice(&std::fs::read(self.record_path(key)).unwrap()).unwrap()
    }

    /// Takes a finished record as a brain does, and drops its key.
    pub(crate) fn finish(&mut self, key: &AttemptKey) {
        std::fs::rename(self.record_path(key), self.layout.complete().join(format!("{}.json", key.task_id)))
            .unwrap();
        self.drop_key(key);
    }

    pub(crate) fn exit_code(&mut self) -> i32 {
        let child = &mut self.child;
        wait_for("the worker's end", || child.try_wait().unwrap()).code().unwrap()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// All of this worker's programs that are alive.
    pub(crate) fn programs(&self) -> usize {
        process::marked_with(&self.id).len()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have gone as it should.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn task(id: &str, work: Work, task_type: TaskType) -> Task {
    Task {
        task_id: TaskId::new(id).unwrap(),
        id_is: IdClaim::Wish,
        work,
        task_type,
        job_type: "test".into(),
        priority: Priority::NORMAL,
        gpu: model::task::GpuRequirement::Any,
        needs: Needs { gpus: 1, ..Needs::default() },
        estimated_duration_sec: None,
        media_s: None,
        timeout_s: None,
        max_attempts: 3,
        not_before: None,
        batch_id: None,
        on_complete: None,
        attempt: 1,
        charged: 1,
        created_at: None,
        checkpoint: None,
        history: Vec::new(),
        warnings: Vec::new(),
    }
}

pub(crate) fn question(id: &str, prompt: &str) -> Task {
    let prompt = Some(prompt.to_owned());
    let work = LlmWork { prompt, messages: Vec::new(), input: None, options: Map::new(), model: None };
    task(id, Work::Llm(work), TaskType::Generate)
}

pub(crate) fn script(id: &str, name: &str, args: Value) -> Task {
    let Value::Object(args) = args else { panic!("arguments are an object") };
    let script = Script::Registered(name.into());
    let work = ScriptWork { script, args, model: None, input: None, output_dir: None };
    task(id, Work::Script(work), TaskType::Transcribe)
}

/// The code of a failed record.
pub(crate) fn code(record: &TaskRecord) -> &str {
    assert_eq!(record.status, Some(Status::Failed));
    &record.error.as_ref().expect("a failed record has an error").code
}
