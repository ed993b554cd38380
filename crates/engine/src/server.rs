//! An LLM server from its start to its end: port, health, canary, death.
//!
//! ```text
//!  start ─► poll `ready_path` 20, 100, 250 ms … ─► 200 ─► our socket? our nonce? ─► one token ─► ready
//!              │ dead: its last lines            └ a stranger's port: another one
//!              └ `boot_timeout_s`
//! ```
//!
//! Not here: requests (`openai`); when the memory of a server that was stopped is free (`worker`).

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::FailureClass;
use model::config::{Config, EnginePreset};
use model::link::EngineOrder;
use model::task::TaskError;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout, timeout_at};

use crate::environment::Surroundings;
use crate::group::{End, Group, Program, Stuck};
use crate::log::Log;
use crate::openai::Client;
use crate::port;
use crate::preset::{self, Values};

/// The variable whose value an engine may repeat at `ready_path`, to show that the port is its.
pub const NONCE_VARIABLE: &str = "GPUSPOOL_NONCE";
/// Pauses between probes; the last one holds from then on.
const PAUSES_MS: [u64; 6] = [20, 40, 100, 100, 100, 250];
/// Longest wait for the answer to one probe.
const PROBE_MAX: Duration = Duration::from_secs(5);
/// How many ports are tried before strangers on all of them are an error.
const PORTS_MAX: usize = 8;
/// How long the pipes of a dead engine are still read.
const LAST_WORDS: Duration = Duration::from_millis(200);
const READ_BYTES: usize = 16 << 10;

/// Where a program lies, if this machine has it; shared between engines.
pub type FindProgram = Arc<dyn Fn(&str) -> Option<PathBuf> + Send + Sync>;

/// What to boot and where.
#[derive(Clone)]
pub struct Boot {
    /// The configuration.
    pub config: Arc<Config>,
    /// What is wanted; its preset is a name, not `auto`.
    pub order: EngineOrder,
    /// Worker and GPU.
    pub surroundings: Surroundings,
    /// Where its output goes.
    pub log: PathBuf,
    /// Where programs lie.
    pub find: FindProgram,
}

/// A server, booting or ready.
pub struct Server {
    boot: Boot,
    preset: EnginePreset,
    running: Running,
    log: Arc<Mutex<Log>>,
    nonce: String,
    tried: BTreeSet<u16>,
}

/// The process that serves a port.
struct Running {
    group: Group,
    port: u16,
    client: Client,
    /// What carries its output into the log.
    pumps: Vec<JoinHandle<()>>,
}

/// What a look at a booting server showed.
enum Look {
    Ready,
    NotYet,
    Stranger,
    Refused(TaskError),
}

impl Server {
    /// Starts it; it is not usable before [`ready`](Self::ready).
    ///
    /// # Errors
    /// `cannot_start`, with the next step.
    pub fn start(boot: Boot) -> Result<Self, TaskError> {
        let limits = &boot.config.limits;
        let log = Arc::new(Mutex::new(Log::create(&boot.log, limits.log_bytes_max, limits.tail_bytes_max)));
        let preset = boot
            .config
            .preset(&boot.order.preset)
            .ok_or_else(|| cannot_start(&preset::Unbootable::NoSuchPreset(boot.order.preset.clone())))?;
        let nonce = uuid::Uuid::new_v4().to_string();
        let mut tried = BTreeSet::new();
        let running = launch(&boot, &preset, &nonce, &log, &mut tried)?;
        Ok(Self { boot, preset, running, log, nonce, tried })
    }

    /// Its first process's id.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.running.group.leader().pid
    }

    /// All its processes that are alive now.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.running.group.members().iter().map(|process| process.pid).collect()
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.running.port
    }

    /// How to ask it.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.running.client
    }

    /// Waits until it answers. May be dropped. After an error it must be stopped.
    ///
    /// # Errors
    /// `engine_died`, `boot_timeout`, `no_port`, with the last lines of its log.
    pub async fn ready(&mut self) -> Result<(), TaskError> {
        let limit = Duration::from_secs_f64(self.preset.boot_timeout_s.clamp(0.0, 1e8));
        let booted = timeout(limit, self.probed()).await.unwrap_or_else(|_| {
            let message = format!(
                "the engine was not ready within {:.0} s; `engines.{}.boot_timeout_s` sets the limit",
                limit.as_secs_f64(),
                self.boot.order.preset
            );
            Err(TaskError::new(FailureClass::Timeout, "boot_timeout", message))
        });
        match booted {
            Ok(()) => Ok(()),
            Err(error) => Err(TaskError { tail: self.last_words().await, ..error }),
        }
    }

    async fn probed(&mut self) -> Result<(), TaskError> {
        let mut look_number = 0;
        loop {
            let pause = PAUSES_MS[look_number.min(PAUSES_MS.len() - 1)];
            look_number += 1;
            let end = tokio::select! {
                biased;
                end = self.running.group.ended() => Some(end),
                () = sleep(Duration::from_millis(pause)) => None,
            };
            let stranger = match end {
                Some(end) if port::is_served_by(self.running.port, &[]).is_none() => return Err(died(end)),
                Some(_) => true,
                None => match look(
                    &self.running.client,
                    &self.preset,
                    &self.nonce,
                    self.running.port,
                    &self.running.group,
                )
                .await
                {
                    Look::Ready => return Ok(()),
                    Look::NotYet => false,
                    Look::Stranger => true,
                    Look::Refused(error) => return Err(error),
                },
            };
            if stranger {
                tracing::warn!("port {} belongs to a stranger, trying another", self.running.port);
                self.move_to_another_port().await?;
                look_number = 0;
            }
        }
    }

    async fn move_to_another_port(&mut self) -> Result<(), TaskError> {
        if self.tried.len() >= PORTS_MAX {
            let message = format!("the ports {:?} all belong to other programs", self.tried);
            return Err(TaskError::new(FailureClass::Crash, "no_port", message));
        }
        let _ = self.running.group.stop(Duration::from_secs(1)).await;
        self.running = launch(&self.boot, &self.preset, &self.nonce, &self.log, &mut self.tried)?;
        Ok(())
    }

    /// Waits for its death. May be dropped.
    pub async fn died(&mut self) -> TaskError {
        let end = self.running.group.ended().await;
        TaskError { tail: self.last_words().await, ..died(end) }
    }

    /// Ends it: SIGTERM, the preset's grace, SIGKILL.
    ///
    /// # Errors
    /// [`Stuck`] when something outlives SIGKILL.
    pub async fn stop(&mut self) -> Result<(), Stuck> {
        self.running.group.stop(Duration::from_secs_f64(self.preset.stop_grace_s.clamp(0.0, 1e6))).await
    }

    /// The last lines of one that is over: they may still be on their way through the pipe. One that lives on, or a
    /// descendant that keeps the pipe open, is not waited for.
    async fn last_words(&mut self) -> Option<String> {
        let limit = tokio::time::Instant::now() + LAST_WORDS;
        for pump in &mut self.running.pumps {
            if !pump.is_finished() {
                let _ = timeout_at(limit, pump).await;
            }
        }
        self.tail()
    }

    /// The last lines it wrote.
    #[must_use]
    pub fn tail(&self) -> Option<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).tail()
    }
}

fn cannot_start(why: &dyn std::error::Error) -> TaskError {
    TaskError::new(FailureClass::Crash, "cannot_start", why.to_string())
}

fn died(end: End) -> TaskError {
    TaskError::new(FailureClass::Crash, "engine_died", format!("the engine {end} ({})", end.code()))
}

fn launch(
    boot: &Boot,
    preset: &EnginePreset,
    nonce: &str,
    log: &Arc<Mutex<Log>>,
    tried: &mut BTreeSet<u16>,
) -> Result<Running, TaskError> {
    let port = port::free(tried).map_err(|error| cannot_start(&error))?;
    tried.insert(port);
    let values = Values {
        model: boot.order.model.clone(),
        port,
        parallel: boot.order.parallel,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        gpu: boot.surroundings.gpu.as_ref().map_or_else(|| "cpu".into(), ToString::to_string),
        gpus: boot.order.beside.len() + 1,
    };
    let command = preset::command(&boot.config, &boot.order.preset, &values, boot.find.as_ref())
        .map_err(|error| cannot_start(&error))?;
    let surroundings = boot.surroundings.over(&boot.order.beside);
    let mut env = surroundings.environment(std::env::vars_os(), &preset.pass_env, &command.env);
    env.insert(NONCE_VARIABLE.into(), nonce.into());
    let argv = command.argv.iter().map(OsString::from).collect();
    let mut group =
        Group::spawn(&Program { argv, env, folder: None }).map_err(|error| cannot_start(&error))?;
    drop(group.take_stdin());
    let pumps =
        [pump(group.take_stdout(), log), pump(group.take_stderr(), log)].into_iter().flatten().collect();
    let client = Client::new(port, &command.served_model, boot.config.limits.result_bytes_max)
        .map_err(|error| cannot_start(&error))?;
    Ok(Running { group, port, client, pumps })
}

/// Carries a pipe into the log until nobody writes to it any more.
fn pump(
    pipe: Option<impl AsyncRead + Unpin + Send + 'static>,
    log: &Arc<Mutex<Log>>,
) -> Option<JoinHandle<()>> {
    let (mut pipe, log) = (pipe?, Arc::clone(log));
    Some(tokio::spawn(async move {
        let mut buffer = vec![0; READ_BYTES];
        while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
            log.lock().unwrap_or_else(PoisonError::into_inner).write(&buffer[..count]);
        }
    }))
}

/// Refused, late, 404 and 503 all mean: not yet.
async fn look(client: &Client, preset: &EnginePreset, nonce: &str, port: u16, group: &Group) -> Look {
    let Ok((status, body)) = client.probe(&preset.ready_path, PROBE_MAX).await else { return Look::NotYet };
    let other_nonce = body.get("nonce").and_then(|value| value.as_str()).is_some_and(|said| said != nonce);
    if other_nonce || port::is_served_by(port, &group.members()) == Some(false) {
        return Look::Stranger;
    }
    if !status.is_success() {
        return Look::NotYet;
    }
    if !preset.canary {
        return Look::Ready;
    }
    let limit = Duration::from_secs_f64(preset.request_timeout_s.clamp(1.0, 1e8));
    match client.canary(limit).await {
        Ok(()) => Look::Ready,
        // It would refuse every other request as well.
        Err(error) if error.class == FailureClass::BadInput => Look::Refused(error),
        Err(error) => {
            tracing::debug!("the engine is not ready: {error}");
            Look::NotYet
        }
    }
}
