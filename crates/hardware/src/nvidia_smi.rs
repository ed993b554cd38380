//! GPUs by `nvidia-smi`, for drivers whose NVML cannot be used.
//!
//! Its output is for people first: warnings stand between the rows, a missing value is `[N/A]` or
//! `[Not Supported]`, and words come in the user's language. A row counts only if it names a GPU; a field counts only
//! if it is a number.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use model::gpu::{GpuFacts, Inventory, Reading};
use model::task::ComputeCapability;
use model::{GpuUuid, InventorySource};

use crate::error::SensesError;

/// What is asked of each GPU. The name stands in the middle, because it alone may hold a comma.
const GPU_QUERY: &str = "--query-gpu=index,uuid,name,memory.total,memory.used,compute_cap";
/// The same for drivers that do not know `compute_cap`.
const OLD_GPU_QUERY: &str = "--query-gpu=index,uuid,name,memory.total,memory.used,driver_version";
/// What is asked of each process.
const PROCESS_QUERY: &str = "--query-compute-apps=gpu_uuid,pid,used_gpu_memory";
/// More output than this is no answer; in bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// nvidia-smi, and the GPUs it has named so far.
#[derive(Debug)]
pub(crate) struct NvidiaSmi {
    program: OsString,
    timeout: Duration,
    known: BTreeMap<GpuUuid, u32>,
}

impl NvidiaSmi {
    /// Asks once, to see that the program is of use.
    pub(crate) fn find(program: &OsStr, timeout: Duration) -> Result<Self, SensesError> {
        let smi = Self { program: program.to_owned(), timeout, known: BTreeMap::new() };
        smi.gpus()?;
        Ok(smi)
    }

    /// All GPUs there are now.
    pub(crate) fn inventory(&mut self) -> Inventory {
        let (gpus, why) = match self.gpus() {
            Ok(answer) => (answer.rows.into_iter().map(|row| row.facts).collect(), None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let gpus: Vec<GpuFacts> = gpus;
        self.known.extend(gpus.iter().map(|gpu| (gpu.uuid.clone(), gpu.index)));
        Inventory { source: InventorySource::Measured, why, gpus }
    }

    /// Reads every GPU that has been named so far.
    pub(crate) fn read(&mut self) -> Result<Vec<Reading>, SensesError> {
        let answer = self.gpus()?;
        // Without an answer about processes nothing is known of them; the memory in use still is.
        let processes = self.ask(PROCESS_QUERY).map(|text| process_rows(&text)).unwrap_or_default();
        Ok(self.known.keys().map(|uuid| answer.reading(uuid, &processes)).collect())
    }

    fn gpus(&self) -> Result<Answer, SensesError> {
        let mut text = self.ask(GPU_QUERY)?;
        let mut answer = Answer::parse(&text);
        if answer.rows.is_empty() {
            text = self.ask(OLD_GPU_QUERY)?;
            answer = Answer::parse(&text);
            // The driver's version stood where the capability would: two numbers and a point, and not one.
            answer.rows.iter_mut().for_each(|row| row.facts.compute_capability = None);
        }
        if answer.rows.is_empty() {
            let said: String = text.trim().chars().take(160).collect::<String>().escape_debug().to_string();
            return Err(SensesError::SmiUnreadable { program: self.shown(), said });
        }
        Ok(answer)
    }

    fn shown(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }

    /// Runs the program and gives what it printed; one that hangs is killed.
    fn ask(&self, query: &str) -> Result<String, SensesError> {
        let mut child = Command::new(&self.program)
            .args([query, "--format=csv,noheader,nounits"])
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| SensesError::SmiMissing { program: self.shown(), detail: error.to_string() })?;
        let deadline = Instant::now() + self.timeout;
        let (sender, answer) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let read = stdout.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes);
                // Nobody listens any more when the program has been given up.
                drop(sender.send(read.map(|_| bytes)));
            });
        }
        match answer.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Ok(bytes)) => {
                bury(child);
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Ok(Err(_)) | Err(_) => {
                bury(child);
                Err(SensesError::SmiHangs { program: self.shown(), after: self.timeout })
            }
        }
    }
}

/// Ends the program and takes its status away, on a thread: one that hangs in the kernel cannot be waited for.
fn bury(mut child: Child) {
    // The answer is there or given up; an error means that it has ended already.
    drop(child.kill());
    std::thread::spawn(move || child.wait());
}

#[derive(Debug, PartialEq)]
struct Row {
    facts: GpuFacts,
    used_mib: Option<u64>,
}

#[derive(Debug, PartialEq)]
struct Answer {
    rows: Vec<Row>,
    /// Whether a GPU is said to be lost.
    loss: bool,
    /// Whether there were lines that are no rows: a GPU that is missing may be behind one of them.
    noise: bool,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let mut answer = Self { rows: Vec::new(), loss: false, noise: false };
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            match row(line) {
                Some(row) => answer.rows.push(row),
                None if line.contains("GPU is lost") => answer.loss = true,
                None => answer.noise = true,
            }
        }
        answer
    }

    fn reading(&self, uuid: &GpuUuid, processes: &[(GpuUuid, u32, Option<u64>)]) -> Reading {
        let row = self.rows.iter().find(|row| row.facts.uuid == *uuid);
        Reading {
            uuid: uuid.clone(),
            used_mib: row.and_then(|row| row.used_mib),
            processes: processes
                .iter()
                .filter(|(gpu, ..)| gpu == uuid)
                .map(|(_, pid, mib)| (*pid, *mib))
                .collect(),
            lost: row.is_none() && (self.loss || !self.noise),
        }
    }
}

fn row(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [index, uuid, name @ .., total, used, capability] = fields.as_slice() else { return None };
    let total_mib = mib(total).filter(|total| *total > 0);
    Some(Row {
        used_mib: mib(used).filter(|used| total_mib.is_none_or(|total| *used <= total)),
        facts: GpuFacts {
            uuid: uuid.starts_with("GPU-").then(|| GpuUuid::new(*uuid).ok()).flatten()?,
            index: index.parse().ok()?,
            name: name.join(", "),
            total_mib,
            compute_capability: capability
                .contains('.')
                .then(|| ComputeCapability::parse(capability))
                .flatten(),
        },
    })
}

fn process_rows(text: &str) -> Vec<(GpuUuid, u32, Option<u64>)> {
    let row = |line: &str| {
        let mut fields = line.split(',').map(str::trim);
        let uuid = GpuUuid::new(fields.next()?).ok()?;
        Some((uuid, fields.next()?.parse().ok()?, fields.next().and_then(mib)))
    };
    text.lines().filter_map(row).collect()
}

/// A number of MiB; anything that is not one is not known, and never zero.
fn mib(field: &str) -> Option<u64> {
    field.strip_suffix("MiB").unwrap_or(field).trim().parse().ok()
}
