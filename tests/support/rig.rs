//! A whole gpuspool in a folder of its own: real binaries, a real spool, simulated GPUs, and an engine that says
//! `fake` in every answer.
//!
//! ```ignore
//! let mut rig = Rig::new().gpus([24_576, 12_227]);
//! rig.start();
//! rig.drop_task("llm", 3, "question", &json!({"prompt": "hello"}));
//! rig.run_until("it is complete", |rig| rig.ended("complete") == 1);
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for anything; a story that needs longer is broken.
const PATIENCE: Duration = Duration::from_secs(60);
const GLANCE: Duration = Duration::from_millis(10);

/// A spool, a configuration, and whatever runs on them; all of it ends with the value.
pub(crate) struct Rig {
    folder: TempDir,
    gpus: String,
    config: Value,
    environment: Vec<(String, String)>,
    brain: Option<Child>,
    states: BTreeMap<String, Vec<String>>,
}

impl Rig {
    /// One simulated GPU of 24 GiB, the fake engine, two LLMs, no durability (nobody cuts the power here).
    pub(crate) fn new() -> Self {
        let folder =
            tempfile::Builder::new().prefix("gpuspool-rig-").tempdir().expect("a folder for the rig");
        let boots = folder.path().join("boots.log");
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/scripts");
        let config = json!({
            "durability": "process",
            "engine": "openai_command",
            "engines": {"openai_command": {
                "command": [example("fake_engine"), "--port", "{port}", "--model", "{model}", "--parallel", "{parallel}",
                            "--boots-log", boots, "--boot-ms", "150", "--answer-ms", "30"],
                "boot_timeout_s": 20, "request_timeout_s": 20, "stop_grace_s": 2}},
            "models": {"small": {"mib": 4_000, "parallel": 2}, "large": {"mib": 10_000, "parallel": 2}},
            "models_order": ["small", "large"],
            "script_dirs": [scripts],
            "scripts": {},
            "timing": {"cooling_s": 0.05, "settle_s": 1, "rescan_s": 1, "kill_grace_s": 0.5, "orphan_ttl_s": 30},
            "retry": {"backoff_s": [0, 0.2]},
            "shutdown": {"timeout_s": 20},
            // Stories are told on small machines too.
            "resource_manager": {"min_system_ram_mb": 0},
        });
        Self {
            folder,
            gpus: "simulated:24576".into(),
            config,
            environment: Vec::new(),
            brain: None,
            states: BTreeMap::new(),
        }
    }

    /// Other simulated GPUs, by their memory in MiB.
    pub(crate) fn gpus<const N: usize>(mut self, mib: [u64; N]) -> Self {
        let sizes: Vec<String> = mib.iter().map(u64::to_string).collect();
        self.gpus = format!("simulated:{}", sizes.join(","));
        self
    }

    /// Another value of a setting, such as `/retry/max_attempts`.
    pub(crate) fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let place =
            parent.split('/').filter(|part| !part.is_empty()).fold(&mut self.config, |place, part| {
                let place = place.as_object_mut().expect("an object");
                place.entry(part).or_insert_with(|| json!({}))
            });
        place.as_object_mut().expect("an object").insert(key.to_owned(), value);
        self
    }

    /// Another boot time of the fake engine.
    pub(crate) fn boot_ms(mut self, ms: u64) -> Self {
        let command = self.config["engines"]["openai_command"]["command"].as_array_mut().expect("a command");
        let at = command.iter().position(|word| word == "--boot-ms").expect("a boot time");
        command[at + 1] = json!(ms.to_string());
        self
    }

    /// More arguments of the fake engine.
    pub(crate) fn engine<const N: usize>(mut self, arguments: [&str; N]) -> Self {
        let command = self.config["engines"]["openai_command"]["command"].as_array_mut().expect("a command");
        command.extend(arguments.map(Value::from));
        self
    }

    /// A registered script from `tests/fixtures/scripts`.
    pub(crate) fn script(self, name: &str, file: &str, host: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/scripts").join(file);
        self.set(&format!("/scripts/{name}"), json!({"path": path, "host": host}))
    }

    /// A variable of every program's environment.
    pub(crate) fn environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// The spool.
    pub(crate) fn spool(&self) -> PathBuf {
        self.folder.path().join("shared")
    }

    /// A path beside the spool.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// One of the four programs, with this spool and configuration.
    pub(crate) fn command(&self, program: &str) -> Command {
        let config = self.folder.path().join("config.json");
        std::fs::write(&config, self.config.to_string()).expect("write the configuration");
        let mut command = Command::new(binary(program));
        command.env("GPUSPOOL_SPOOL", self.spool()).env("GPUSPOOL_CONFIG", config).env_remove("RUST_LOG");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).current_dir(self.folder.path());
        command
    }

    /// Runs a program to its end, which must come in time.
    pub(crate) fn run<const N: usize>(&self, program: &str, arguments: [&str; N]) -> Output {
        self.end_of(self.command(program).args(arguments))
    }

    /// Runs a command to its end, which must come in time.
    pub(crate) fn end_of(&self, command: &mut Command) -> Output {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run a program");
        let pid = child.id().to_string();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || tell.send(child.wait_with_output()));
        if let Ok(output) = told.recv_timeout(PATIENCE) {
            return output.expect("wait for a program");
        }
        drop(Command::new("kill").args(["-9", &pid]).status());
        let said = told.recv();
        panic!("{command:?} does not end: {said:?}\n{}", self.story())
    }

    /// Starts the brain and waits for its first picture.
    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts the brain with more arguments.
    pub(crate) fn start_with(&mut self, arguments: &[&str]) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("brain.log"))
            .expect("a log");
        let epoch = self.picture()["epoch"].as_u64();
        let child = self
            .command("brain")
            .env("RUST_LOG", "info,brain=debug")
            .args(["--gpus", &self.gpus])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start the brain");
        self.brain = Some(child);
        self.run_until("the brain has drawn a picture", |rig| {
            rig.picture()["epoch"].as_u64().is_some_and(|now| Some(now) != epoch)
        });
    }

    /// The brain's process id.
    pub(crate) fn brain_pid(&self) -> u32 {
        self.brain.as_ref().expect("a running brain").id()
    }

    /// `kill -9` of the brain alone.
    pub(crate) fn kill_brain(&mut self) {
        let mut brain = self.brain.take().expect("a running brain");
        brain.kill().expect("kill the brain");
        brain.wait().expect("wait for the brain");
    }

    /// Waits for the brain to end by itself, and returns its exit code.
    pub(crate) fn brain_ends(&mut self) -> Option<i32> {
        let mut brain = self.brain.take().expect("a running brain");
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = brain.try_wait().expect("wait for the brain") {
                return status.code();
            }
            assert!(Instant::now() < until, "the brain does not end\n{}", self.story());
            self.glance();
        }
    }

    /// Puts a task file into a queue folder, as `mv` does.
    pub(crate) fn drop_task(&self, class: &str, priority: u8, name: &str, task: &Value) {
        let folder = self.spool().join(format!("tasks/{class}_queue/priority_{priority}"));
        std::fs::create_dir_all(&folder).expect("the queue folder");
        let outside = self.path(&format!("{name}.json.new"));
        std::fs::write(&outside, task.to_string()).expect("write a task");
        std::fs::rename(outside, folder.join(format!("{name}.json"))).expect("drop a task");
    }

    /// `gpu_state.json` as it is now; null before the first.
    pub(crate) fn picture(&self) -> Value {
        read_json(&self.spool().join("gpu_state.json")).unwrap_or(Value::Null)
    }

    /// A record in `complete` or `failed`.
    pub(crate) fn record(&self, place: &str, id: &str) -> Option<Value> {
        read_json(&self.spool().join("tasks").join(place).join(format!("{id}.json")))
    }

    /// How many records lie in `complete`, `failed` or `processing`.
    pub(crate) fn ended(&self, place: &str) -> usize {
        self.names(&format!("tasks/{place}")).iter().filter(|name| name.ends_with(".json")).count()
    }

    /// Names in a folder of the spool, sorted, dot files left out.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.spool().join(folder)) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        names
    }

    /// The states a GPU went through so far, each once in a row.
    pub(crate) fn states(&self, gpu: &str) -> Vec<&str> {
        self.states.get(gpu).map(|states| states.iter().map(String::as_str).collect()).unwrap_or_default()
    }

    /// Lines of the log in which the fake engine notes each of its boots.
    pub(crate) fn boots(&self) -> usize {
        std::fs::read_to_string(self.path("boots.log")).map_or(0, |text| text.lines().count())
    }

    /// Lives through the story until `done` holds.
    pub(crate) fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !done(self) {
            let ended = self.brain.as_mut().and_then(|brain| brain.try_wait().expect("look at the brain"));
            assert!(ended.is_none(), "the brain ended ({ended:?}) before {what}\n{}", self.story());
            assert!(Instant::now() < until, "it never came to: {what}\n{}", self.story());
            self.glance();
        }
        self.glance();
    }

    /// Notes the transitions in the picture, which shows the last sixteen of each GPU.
    fn glance(&mut self) {
        std::thread::sleep(GLANCE);
        let picture = self.picture();
        for (gpu, shown) in picture["gpus"].as_object().into_iter().flatten() {
            let states: Vec<String> = shown["transitions"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|pair| pair[0].as_str().map(str::to_owned))
                .collect();
            self.states.insert(gpu.clone(), states);
        }
    }

    /// All there is to know when a story fails.
    fn story(&self) -> String {
        let log = std::fs::read_to_string(self.path("brain.log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(60).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        let picture = serde_json::to_string_pretty(&self.picture()).unwrap_or_default();
        format!("--- picture\n{picture}\n--- the brain's last words\n{}", tail.join("\n"))
    }

    /// Process ids of everything that carries this spool in its environment or arguments, the rig itself left out.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        let needle = self.folder.path().to_string_lossy().into_owned();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
            let (arguments, environment) = (read("cmdline"), read("environ"));
            let text = String::from_utf8_lossy(&arguments).replace('\0', " ");
            let named = text.contains(&needle) || String::from_utf8_lossy(&environment).contains(&needle);
            if named && !arguments.is_empty() && pid != std::process::id() {
                found.push((pid, text));
            }
        }
        found
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(mut brain) = self.brain.take() {
            drop(brain.kill());
            drop(brain.wait());
        }
        // Workers outlive the brain by design; here nobody will adopt them.
        for (pid, _) in self.processes() {
            drop(Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status());
        }
    }
}

/// A program of the workspace.
fn binary(program: &str) -> &'static str {
    match program {
        "brain" => env!("CARGO_BIN_EXE_brain"),
        "worker" => env!("CARGO_BIN_EXE_worker"),
        "submit_batch" => env!("CARGO_BIN_EXE_submit_batch"),
        "gpuspool" => env!("CARGO_BIN_EXE_gpuspool"),
        other => panic!("no program is called {other}"),
    }
}

/// An example of the workspace, which `cargo test` builds beside the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_brain")).with_file_name("examples").join(name);
    assert!(
        beside.exists(),
        "{} is missing: run `cargo build --examples`, or `cargo test` as a whole",
        beside.display()
    );
    beside
}

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}
