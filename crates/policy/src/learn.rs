//! What was measured: boot and run times, and the estimates made of them.
//!
//! A prior holds until three samples exist. From then on a sample counts as at most eight times, and at least an eighth
//! of, the median of those before it: one that is wrong costs a bounded factor. Not here: keeping it on disk
//! (`brain/learned.json`).

use std::collections::BTreeMap;

use model::config::DEMO_MODEL;
use model::learned::{Grants, Learned, SAMPLES_KEPT};
use model::task::Work;
use model::{Config, GpuUuid, Millis, Task};

use crate::place;
use crate::shape::HostKey;

/// From this many samples on, what was measured replaces the prior.
const SAMPLES_NEEDED: usize = 3;
/// What an LLM's boot takes where nothing at all is known: the seed's figure for a cold 7B.
const LLM_BOOT_PRIOR_S: f64 = 120.0;
/// The demonstration model is tiny.
const DEMO_BOOT_PRIOR_S: f64 = 2.0;
/// What the load of a script's model takes where nothing is known.
const HOST_BOOT_PRIOR_S: f64 = 5.0;
/// By how much one sample can differ from those before it.
const FREAK: u64 = 8;
/// A model that was in use within this time is read from memory, unless a larger one was read since.
const WARM_FOR: Millis = Millis::from_secs(3_600);
/// What the requests of an hour count against those of the same hour of all days before.
const OF_TODAY: f64 = 0.5;
/// No hour is believed to have more requests.
const REQUESTS_MAX: f64 = 1e6;
/// What an LLM task takes where nothing is known.
const LLM_RUN_PRIOR_S: f64 = 10.0;

/// How long something takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Half of the time it is done by then.
    pub p50: Millis,
    /// Nine times of ten it is done by then.
    pub p90: Millis,
    /// Measurements this rests on; 0 is a prior.
    pub samples: usize,
}

impl Estimate {
    fn prior(seconds: f64) -> Self {
        let time = Millis::from_secs_f64(seconds);
        Self { p50: time, p90: time, samples: 0 }
    }

    /// Of samples in milliseconds; none below three of them.
    #[must_use]
    pub fn of(samples: &[u64]) -> Option<Self> {
        if samples.len() < SAMPLES_NEEDED {
            return None;
        }
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        let at = |share: usize| {
            let place = (sorted.len() * share).div_ceil(100).max(1) - 1;
            Millis(i64::try_from(sorted[place]).unwrap_or(i64::MAX))
        };
        Some(Self { p50: at(50), p90: at(90), samples: samples.len() })
    }
}

/// What was learned.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    learned: Learned,
    now: Millis,
    /// When each model's file was last read or in use, and its size in MiB where that is known.
    in_use: BTreeMap<String, (Millis, u64)>,
}

impl Memory {
    pub(crate) const fn new(learned: Learned) -> Self {
        Self { learned, now: Millis::ZERO, in_use: BTreeMap::new() }
    }

    pub(crate) const fn pass_time(&mut self, now: Millis) {
        self.now = now;
    }

    pub(crate) const fn learned(&self) -> &Learned {
        &self.learned
    }

    /// What the job types were granted, on the GPUs or in the CPU lane.
    pub(crate) const fn grants_mut(&mut self, in_cpu_lane: bool) -> &mut Grants {
        if in_cpu_lane { &mut self.learned.grants_cpu } else { &mut self.learned.grants }
    }

    /// An LLM's boot, for so many requests at once, took this long.
    pub(crate) fn llm_booted(&mut self, preset: &str, model: &str, parallel: u32, ms: u64) {
        let began = self.now - Millis(i64::try_from(ms).unwrap_or(i64::MAX));
        let name = boot_name(preset, model, parallel, self.is_warm(model, began));
        keep(self.learned.boot_ms.entry(name).or_default(), ms);
    }

    /// A model's file is in use.
    pub(crate) fn uses(&mut self, config: &Config, model: &str) {
        let mib = config.models.get(model).and_then(|entry| entry.mib).unwrap_or_default();
        match self.in_use.get_mut(model) {
            Some(known) => *known = (self.now, mib),
            None => drop(self.in_use.insert(model.to_owned(), (self.now, mib))),
        }
    }

    /// Whether a load that begins then finds the model's file in the machine's memory, as far as was seen.
    fn is_warm(&self, model: &str, at: Millis) -> bool {
        let Some((used, mib)) = self.in_use.get(model) else { return false };
        let larger =
            |(other, (when, size)): (&String, &(Millis, u64))| other != model && when > used && size > mib;
        at - *used <= WARM_FOR && !self.in_use.iter().any(larger)
    }

    /// An hour of the day is over: its requests by job type, and how long they were counted.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    pub(crate) fn hour_passed(&mut self, hour: u8, mut counts: BTreeMap<String, u64>, watched: Millis) {
        for job_type in self.learned.arrivals.keys() {
            counts.entry(job_type.clone()).or_default();
        }
        for (job_type, count) in counts {
            let rates = self.learned.arrivals.entry(job_type).or_default();
            rates.resize(crate::demand::HOURS, None);
            let seen = believable(count as f64 * 3_600.0 / watched.as_secs_f64().max(1.0));
            if let Some(rate) = rates.get_mut(usize::from(hour)) {
                let before = rate.map_or(seen, believable);
                *rate = Some(before * (1.0 - OF_TODAY) + seen * OF_TODAY);
            }
        }
    }

    /// LLM requests that are usual in this hour of the day; none where it was never seen.
    pub(crate) fn requests_per_hour(&self, hour: u8) -> Option<f64> {
        let types = self.learned.arrivals.values();
        let rates = types.filter_map(|rates| rates.get(usize::from(hour)).copied().flatten());
        rates.map(believable).reduce(std::ops::Add::add)
    }

    /// A script host's load took this long.
    pub(crate) fn host_booted(&mut self, script: &str, model: Option<&str>, ms: u64) {
        keep(self.learned.boot_ms.entry(host_boot_name(script, model)).or_default(), ms);
    }

    /// A task took this long.
    pub(crate) fn ran(
        &mut self,
        name: String,
        ms: u64,
        media_s: Option<f64>,
        gpu: Option<&str>,
        slots: usize,
    ) {
        keep(self.learned.run_ms.entry(name.clone()).or_default(), ms);
        if let Some(media_s) = media_s.filter(|s| s.is_finite() && *s > 0.0)
            && ms > 0
        {
            let run_s = Millis(i64::try_from(ms).unwrap_or(i64::MAX)).as_secs_f64();
            let name = speed_name(&name, gpu, slots);
            keep_speed(self.learned.speed.entry(name).or_default(), media_s / run_s);
        }
    }

    /// A host of this script and model was seen to use this much of a GPU's memory, in MiB.
    pub(crate) fn used(&mut self, script: &str, model: Option<&str>, mib: u64) {
        keep(self.learned.vram_mib.entry(host_name(script, model)).or_default(), mib);
    }

    /// The most that the latest hosts of this script and model were seen to use, in MiB; none where none was seen.
    pub(crate) fn vram_by_name(&self, script: &str, model: Option<&str>) -> Option<u64> {
        if self.learned.vram_mib.is_empty() {
            return None;
        }
        self.learned.vram_mib.get(&host_name(script, model))?.iter().max().copied()
    }

    /// The same by its key.
    pub(crate) fn vram(&self, script: &model::task::Script, model: Option<&str>) -> Option<u64> {
        if self.learned.vram_mib.is_empty() {
            return None;
        }
        self.vram_by_name(&script.to_string(), model)
    }

    /// A GPU completed a task.
    pub(crate) fn completed(&mut self, gpu: &GpuUuid) {
        *self.learned.tasks_completed.entry(gpu.clone()).or_default() += 1;
    }

    /// Tasks a GPU has completed.
    pub(crate) fn tasks_completed(&self, gpu: &GpuUuid) -> u64 {
        self.learned.tasks_completed.get(gpu).copied().unwrap_or_default()
    }

    /// How long this LLM takes to boot.
    pub(crate) fn llm_boot(&self, config: &Config, preset: &str, model: &str) -> Estimate {
        let parallel = config.models.get(model).and_then(|entry| entry.parallel).unwrap_or(1).max(1);
        let name = boot_name(preset, model, parallel, self.is_warm(model, self.now));
        let exactly = self.learned.boot_ms.get(&name).and_then(|samples| Estimate::of(samples));
        exactly.or_else(|| Estimate::of(&self.boots_of(preset, model))).unwrap_or_else(|| {
            let stated = config.resource_manager.boot_times.get(model).copied();
            let unknown = if model == DEMO_MODEL { DEMO_BOOT_PRIOR_S } else { LLM_BOOT_PRIOR_S };
            Estimate::prior(stated.unwrap_or(unknown))
        })
    }

    /// Boot times of an LLM, whatever it was loaded for and from.
    fn boots_of(&self, preset: &str, model: &str) -> Vec<u64> {
        let plain = format!("{preset}/{model}");
        let names = self.learned.boot_ms.range(plain.clone()..);
        let names = names.take_while(|(name, _)| name.starts_with(&plain));
        names
            .filter(|(name, _)| plain_name(name) == plain)
            .flat_map(|(_, samples)| samples)
            .copied()
            .collect()
    }

    /// How long this script host takes to load.
    pub(crate) fn host_boot(&self, config: &Config, host: &HostKey) -> Estimate {
        let samples = self.learned.boot_ms.get(&host_boot_name(&host.name(), host.model.as_deref()));
        samples.and_then(|samples| Estimate::of(samples)).unwrap_or_else(|| {
            let name = host.name();
            let family = name.split('_').next().unwrap_or(&name);
            let times = &config.resource_manager.boot_times;
            let keyed =
                |name: &str| host.model.as_ref().and_then(|model| times.get(&format!("{name}:{model}")));
            let stated = keyed(&name).or_else(|| keyed(family)).or_else(|| times.get(&name)).copied();
            Estimate::prior(stated.unwrap_or(HOST_BOOT_PRIOR_S))
        })
    }

    /// How long tasks by this name took; none below three of them.
    pub(crate) fn run_by_name(&self, name: &str) -> Option<Estimate> {
        Estimate::of(self.learned.run_ms.get(name)?)
    }

    /// What LLM tasks take on average.
    pub(crate) fn request_time(&self, model: Option<&str>) -> Millis {
        let samples = self.learned.run_ms.get(&format!("llm/{}", model.unwrap_or_default()));
        let samples = samples.filter(|samples| samples.len() >= SAMPLES_NEEDED);
        samples.map_or(Millis::from_secs_f64(LLM_RUN_PRIOR_S), |samples| {
            let sum: u64 = samples.iter().fold(0, |sum, ms| sum.saturating_add(*ms));
            Millis(i64::try_from(sum / samples.len() as u64).unwrap_or(i64::MAX).max(1))
        })
    }

    /// How long this task will run: by its media and the speed learned, by what its kind took, by its author's word.
    pub(crate) fn run(&self, config: &Config, task: &Task, llm: Option<&str>, gpu: Option<&str>) -> Estimate {
        self.run_beside(config, task, llm, gpu, 1)
    }

    /// The same, where so many slots of the GPU are in use.
    pub(crate) fn run_beside(
        &self,
        config: &Config,
        task: &Task,
        llm: Option<&str>,
        gpu: Option<&str>,
        slots: usize,
    ) -> Estimate {
        let name = run_name(config, task, llm);
        if let Some(media_s) = task.media_s
            && let Some(speed) = self.speed(config, task, &name, gpu, slots)
        {
            return Estimate::prior(media_s / speed);
        }
        self.run_by_name(&name).unwrap_or_else(|| {
            let unknown = match task.work {
                Work::Llm(_) => LLM_RUN_PRIOR_S,
                Work::Script(_) => config.resource_manager.eviction_policy.avg_script_time_s,
            };
            Estimate::prior(task.estimated_duration_sec.unwrap_or(unknown))
        })
    }

    /// Whether how long this task will run is more than a guess.
    pub(crate) fn knows_run(
        &self,
        config: &Config,
        task: &Task,
        llm: Option<&str>,
        gpu: Option<&str>,
    ) -> bool {
        let name = run_name(config, task, llm);
        let by_media = || task.media_s.is_some() && self.speed(config, task, &name, gpu, 1).is_some();
        task.estimated_duration_sec.is_some() || self.run_by_name(&name).is_some() || by_media()
    }

    /// Media seconds that tasks of this host work off in a second on whatever GPU: learned, stated, or both.
    ///
    /// The longest of a batch go first, and those are the ones that are thought too long: what was learned from them is
    /// too fast for the others, and from the last ones too slow. So a stated speed holds as far as the spread of what was
    /// learned reaches, and is corrected only by what lies beyond that.
    pub(crate) fn speed_anywhere(&self, config: &Config, host: &HostKey) -> Option<f64> {
        let prefix = format!("{}/", run_name_of(host));
        let of_kind = self.learned.speed.range(prefix.clone()..);
        let of_kind = of_kind.take_while(|(name, _)| name.starts_with(&prefix));
        let samples = of_kind.flat_map(|(_, samples)| samples.iter().copied()).filter(|speed| *speed > 0.0);
        let samples: Vec<f64> = samples.collect();
        let stated = place::script_entry(config, &host.script)?.speed.filter(|speed| *speed > 0.0);
        if samples.len() < SAMPLES_NEEDED {
            return stated;
        }
        let learned = median(&samples);
        Some(stated.map_or(learned, |stated| {
            let reach = spread(&samples);
            stated.clamp(learned / reach, learned * reach)
        }))
    }

    /// Media seconds that this kind of GPU was seen to work off in a second, whatever was stated; none below three tasks.
    pub(crate) fn speed_on(&self, host: &HostKey, gpu: &str) -> Option<f64> {
        let samples = self.learned.speed.get(&speed_name(&run_name_of(host), Some(gpu), 1))?;
        Some(median(samples)).filter(|speed| samples.len() >= SAMPLES_NEEDED && *speed > 0.0)
    }

    /// Media seconds worked off in a second: learned for as many slots, learned for one, or stated.
    fn speed(
        &self,
        config: &Config,
        task: &Task,
        name: &str,
        gpu: Option<&str>,
        slots: usize,
    ) -> Option<f64> {
        let widths: &[usize] = if slots > 1 { &[slots, 1] } else { &[1] };
        for slots in widths {
            let samples = self.learned.speed.get(&speed_name(name, gpu, *slots));
            if let Some(samples) = samples.filter(|samples| samples.len() >= SAMPLES_NEEDED) {
                return Some(median(samples)).filter(|speed| *speed > 0.0);
            }
        }
        let Work::Script(work) = &task.work else { return None };
        place::script_entry(config, &work.script)?.speed.filter(|speed| *speed > 0.0)
    }

    /// Boot times as the picture shows them, in seconds, by the names of the configuration.
    pub(crate) fn boot_times(&self, config: &Config) -> std::collections::BTreeMap<String, f64> {
        let mut times = config.resource_manager.boot_times.clone();
        let mut samples: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (name, learned) in &self.learned.boot_ms {
            let name = plain_name(name);
            let shown = match name.strip_prefix("script:") {
                Some(host) => host.trim_end_matches('/').replace('/', ":"),
                None => name.split_once('/').map_or(name, |(_, model)| model).to_owned(),
            };
            samples.entry(shown).or_default().extend(learned);
        }
        for (shown, samples) in samples {
            if let Some(estimate) = Estimate::of(&samples) {
                times.insert(shown, estimate.p50.as_secs_f64());
            }
        }
        times
    }
}

/// The name run times of a task are kept by.
pub(crate) fn run_name(config: &Config, task: &Task, llm: Option<&str>) -> String {
    match &task.work {
        Work::Llm(work) => format!("llm/{}", llm.or(work.model.as_deref()).unwrap_or_default()),
        Work::Script(work) => {
            let name = run_name_of(&place::host_key(config, work));
            // On several GPUs it takes another time.
            let on_several = task.needs.gpus > 1 && task.gpu != model::task::GpuRequirement::None;
            if on_several { format!("{name}|{}", task.needs.gpus) } else { name }
        }
    }
}

/// The name run times of this host's tasks are kept by.
pub(crate) fn run_name_of(host: &HostKey) -> String {
    host_name(&host.name(), host.model.as_deref())
}

/// The name of a script and its model.
pub(crate) fn host_name(script: &str, model: Option<&str>) -> String {
    format!("{script}/{}", model.unwrap_or_default())
}

fn host_boot_name(script: &str, model: Option<&str>) -> String {
    format!("script:{script}/{}", model.unwrap_or_default())
}

/// `<preset>/<model>|<parallel>|cold`, or `warm`.
fn boot_name(preset: &str, model: &str, parallel: u32, warm: bool) -> String {
    format!("{preset}/{model}|{parallel}|{}", if warm { "warm" } else { "cold" })
}

/// The name of a boot without what it was loaded for and from.
fn plain_name(name: &str) -> &str {
    name.split('|').next().unwrap_or(name)
}

/// `<script>/<model>/<gpu name>`, and `*<slots>` where more than one is in use.
fn speed_name(name: &str, gpu: Option<&str>, slots: usize) -> String {
    let gpu = gpu.unwrap_or("cpu");
    if slots > 1 { format!("{name}/{gpu}*{slots}") } else { format!("{name}/{gpu}") }
}

fn keep(samples: &mut Vec<u64>, sample: u64) {
    let known = Estimate::of(samples).map(|known| known.p50.0.unsigned_abs().max(1));
    let sample = known.map_or(sample, |known| sample.clamp(known / FREAK, known.saturating_mul(FREAK)));
    push(samples, sample);
}

#[expect(clippy::cast_precision_loss, reason = "8")]
fn keep_speed(samples: &mut Vec<f64>, sample: f64) {
    let known = Some(median(samples)).filter(|known| samples.len() >= SAMPLES_NEEDED && *known > 0.0);
    let sample = known.map_or(sample, |known| sample.clamp(known / FREAK as f64, known * FREAK as f64));
    push(samples, sample);
}

fn push<T>(samples: &mut Vec<T>, sample: T) {
    if samples.len() >= SAMPLES_KEPT {
        samples.remove(0);
    }
    samples.push(sample);
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Within which factor of their mean nearly all positive samples lie: two deviations of their logarithm.
#[expect(clippy::cast_precision_loss, reason = "a few hundred samples")]
fn spread(samples: &[f64]) -> f64 {
    let count = samples.len().max(1) as f64;
    let mean = samples.iter().map(|sample| sample.ln()).sum::<f64>() / count;
    let square = samples.iter().map(|sample| (sample.ln() - mean).powi(2)).sum::<f64>() / count;
    (2.0 * square.sqrt()).exp()
}

/// A rate that is a number at all, and no more than can be.
fn believable(rate: f64) -> f64 {
    if rate.is_finite() { rate.clamp(0.0, REQUESTS_MAX) } else { 0.0 }
}
