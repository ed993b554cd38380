//! Whether the numbers of a scenario can be: each within its range, and no more of everything than can be simulated.
//!
//! Not here: whether it is a scenario at all (`read`), and whether its machine could run its tasks (`sim::fit`).

use std::collections::BTreeSet;
use std::fmt;

use model::task::ComputeCapability;

use super::{Arrive, Engines, Faults, GpuSpec, Scenario, ScenarioError, Stream, WorkSpec};
use crate::dice::Times;
use crate::faults::Fault;

/// The most tasks that a scenario may be expected to make: each of them is kept from its beginning to the end.
pub const TASKS_MAX: u32 = 100_000;
/// The most faults that a scenario may be expected to make.
pub const FAULTS_MAX: u32 = 100_000;
/// The most GPUs of a machine.
const GPUS_MAX: usize = 256;
/// The most that come in one burst, conversation or random batch.
const AT_ONCE_MAX: f64 = 10_000.0;
/// The longest time anybody can mean here, in seconds: a year.
const YEAR_S: f64 = 31_536_000.0;

/// What a number may be.
#[derive(Clone, Copy, Debug)]
struct Range {
    low: f64,
    high: f64,
    /// Whether `low` itself is allowed.
    with_low: bool,
}

impl Range {
    const fn of(low: f64, high: f64) -> Self {
        Self { low, high, with_low: true }
    }

    const fn above(low: f64, high: f64) -> Self {
        Self { low, high, with_low: false }
    }

    fn holds(self, value: f64) -> bool {
        (self.low..=self.high).contains(&value) && (self.with_low || value > self.low)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { low, high, with_low } = self;
        if *with_low { write!(f, "{low} to {high}") } else { write!(f, "more than {low}, up to {high}") }
    }
}

const SECONDS: Range = Range::of(0.0, YEAR_S);
const SOME_SECONDS: Range = Range::above(0.0, YEAR_S);
const PER_HOUR: Range = Range::of(0.0, 1e6);
const SHARE: Range = Range::of(0.0, 1.0);
const SIGMA: Range = Range::of(0.0, 10.0);
const COUNT: Range = Range::of(1.0, AT_ONCE_MAX);
const MIB: Range = Range::of(1.0, 1e9);
const FACTOR: Range = Range::above(0.0, 1e6);

/// A part of a scenario, whose values are looked at.
struct Part<'s> {
    scenario: &'s str,
    place: String,
}

impl Part<'_> {
    fn is_wrong(&self, field: &str, value: impl fmt::Display, allowed: impl fmt::Display) -> ScenarioError {
        ScenarioError::Value {
            name: self.scenario.to_owned(),
            place: self.place.clone(),
            field: field.to_owned(),
            value: value.to_string(),
            allowed: allowed.to_string(),
        }
    }

    fn cannot_be(&self, why: impl Into<String>) -> ScenarioError {
        let (name, place) = (self.scenario.to_owned(), self.place.clone());
        ScenarioError::Impossible { name, place, why: why.into() }
    }

    fn within(&self, field: &str, value: f64, range: Range) -> Result<(), ScenarioError> {
        if range.holds(value) { Ok(()) } else { Err(self.is_wrong(field, value, range)) }
    }

    fn all_within<'f>(
        &self,
        fields: impl IntoIterator<Item = (&'f str, Option<f64>, Range)>,
    ) -> Result<(), ScenarioError> {
        fields
            .into_iter()
            .filter_map(|(field, value, range)| Some((field, value?, range)))
            .try_for_each(|(field, value, range)| self.within(field, value, range))
    }

    /// Whether the mean is within a range, and the rest makes sense.
    fn times(&self, field: &str, times: &Times, mean: Range) -> Result<(), ScenarioError> {
        let at = |part: &str| format!("{field}.{part}");
        self.within(&at("mean"), times.mean(), mean)?;
        match *times {
            Times::Constant { .. } | Times::Exponential { .. } => Ok(()),
            Times::Lognormal { sigma, .. } => self.within(&at("sigma"), sigma, SIGMA),
            Times::Pareto { shape, .. } => self.within(&at("shape"), shape, Range::above(1.0, 1e3)),
            Times::Bimodal { share, factor, .. } => {
                self.within(&at("share"), share, SHARE)?;
                self.within(&at("factor"), factor, FACTOR)
            }
        }
    }
}

impl Scenario {
    /// Looks whether every value is one that can be, and whether there are not too many tasks and faults.
    ///
    /// # Errors
    /// [`ScenarioError`] with the place, the field, its value and what is allowed.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let whole = self.part("a time");
        whole.within("duration_s", self.duration_s, SOME_SECONDS)?;
        whole.within("settle_s", self.settle_s, SECONDS)?;
        if !(1..=GPUS_MAX).contains(&self.gpus.len()) {
            let (value, allowed) =
                (format!("a list of {}", self.gpus.len()), format!("one of 1 to {GPUS_MAX}"));
            return Err(self.part("the machine").is_wrong("gpus", value, allowed));
        }
        for (number, gpu) in self.gpus.iter().enumerate() {
            check_gpu(gpu, &self.part(&format!("GPU {number}")))?;
        }
        check_engines(&self.engines, &self.part("`engines`"))?;
        let mut names = BTreeSet::new();
        for stream in &self.people {
            let part = self.part(&format!("stream `{}`", stream.name));
            if !names.insert(&stream.name) {
                return Err(part.cannot_be("another stream has that name, so that their tasks would as well"));
            }
            self.check_stream(stream, &part)?;
        }
        check_faults(&self.faults, &self.part("`faults`"))?;
        self.check_expected()?;
        self.check_amount()
    }

    fn part(&self, place: &str) -> Part<'_> {
        Part { scenario: &self.name, place: place.to_owned() }
    }

    fn check_stream(&self, stream: &Stream, part: &Part<'_>) -> Result<(), ScenarioError> {
        let longest_id = format!("{}-b{TASKS_MAX}.{TASKS_MAX}", stream.name);
        if model::TaskId::new(longest_id).is_err() {
            let why = "its name cannot be part of an id; use up to 100 letters, digits, `-` and `_`";
            return Err(part.cannot_be(why));
        }
        let is_batch = matches!(stream.arrive, Arrive::Batch { .. } | Arrive::Batches { .. });
        if is_batch && matches!(stream.work, WorkSpec::Llm { .. }) {
            let why = "a batch runs a script; give it `\"work\": {\"kind\": \"script\", …}`";
            return Err(part.cannot_be(why));
        }
        part.all_within([
            ("priority", Some(f64::from(stream.priority)), Range::of(1.0, 5.0)),
            ("media_speed", stream.media_speed, FACTOR),
            ("estimate_sigma", Some(stream.estimate_sigma), SIGMA),
            ("vram_mib", stream.vram_mib.map(of_mib), MIB),
            ("gpus", Some(f64::from(stream.gpus)), Range::of(1.0, 64.0)),
            ("timeout_s", stream.timeout_s, SOME_SECONDS),
            ("max_attempts", stream.max_attempts.map(f64::from), Range::of(1.0, 100.0)),
            ("boundary_s", stream.boundary_s, SECONDS),
            ("from_s", Some(stream.from_s), Range::of(0.0, self.duration_s)),
            ("to_s", stream.to_s, Range::of(stream.from_s, YEAR_S)),
        ])?;
        if let Some([from, to]) = stream.hours {
            part.within("hours[0]", from, Range::of(0.0, 24.0))?;
            part.within("hours[1]", to, Range::above(from, 24.0))?;
        }
        part.times("run", &stream.run, SECONDS)?;
        self.check_arrive(&stream.arrive, part)
    }

    fn check_arrive(&self, arrive: &Arrive, part: &Part<'_>) -> Result<(), ScenarioError> {
        let per_hour = |rate: f64| part.within("arrive.per_hour", rate, PER_HOUR);
        let at = |times_s: &[f64]| {
            let range = Range::of(0.0, self.duration_s);
            let mut times = times_s.iter().enumerate();
            times.try_for_each(|(n, at)| part.within(&format!("arrive.times_s[{n}]"), *at, range))
        };
        match arrive {
            Arrive::At { times_s } => at(times_s),
            Arrive::Poisson { per_hour: rate } => per_hour(*rate),
            Arrive::Bursts { per_hour: rate, size } => {
                per_hour(*rate)?;
                part.times("arrive.size", size, COUNT)
            }
            Arrive::Sessions { per_hour: rate, turns, think } => {
                per_hour(*rate)?;
                part.times("arrive.turns", turns, COUNT)?;
                part.times("arrive.think", think, SECONDS)
            }
            Arrive::Batch { times_s, items, .. } => {
                at(times_s)?;
                part.within("arrive.items", f64::from(*items), Range::of(1.0, f64::from(TASKS_MAX)))
            }
            Arrive::Batches { per_hour: rate, items, .. } => {
                per_hour(*rate)?;
                part.times("arrive.items", items, COUNT)
            }
        }
    }

    fn check_amount(&self) -> Result<(), ScenarioError> {
        let tasks: f64 = self.people.iter().map(|stream| self.tasks_of(stream)).sum();
        let most = |one: &&Stream, other: &&Stream| self.tasks_of(one).total_cmp(&self.tasks_of(other));
        if let Some(stream) = self.people.iter().max_by(most).filter(|_| tasks > f64::from(TASKS_MAX)) {
            let own = self.tasks_of(stream);
            return Err(self.part(&format!("stream `{}`", stream.name)).cannot_be(format!(
                "its `arrive` makes about {own:.0} tasks, {tasks:.0} with those of other streams, \
                 and at most {TASKS_MAX} are simulated"
            )));
        }
        let hours = self.duration_s / 3_600.0;
        let rates = || Fault::ALL.into_iter().map(|fault| fault.per_hour(&self.faults));
        let faults = rates().sum::<f64>() * hours;
        if faults > f64::from(FAULTS_MAX) {
            let highest = rates().fold(0.0, f64::max);
            return Err(self.part("`faults`").cannot_be(format!(
                "about {faults:.0} would come within `duration_s` (the highest rate is {highest} an hour), \
                 and at most {FAULTS_MAX} are simulated"
            )));
        }
        Ok(())
    }

    /// How many tasks a stream is expected to make, were it not for its `hours`.
    fn tasks_of(&self, stream: &Stream) -> f64 {
        let end = stream.to_s.unwrap_or(self.duration_s).min(self.duration_s);
        let hours = (end - stream.from_s).max(0.0) / 3_600.0;
        match &stream.arrive {
            Arrive::At { times_s } => many(times_s.len()),
            Arrive::Poisson { per_hour } => per_hour * hours,
            Arrive::Bursts { per_hour, size: each }
            | Arrive::Sessions { per_hour, turns: each, .. }
            | Arrive::Batches { per_hour, items: each, .. } => per_hour * hours * each.mean(),
            Arrive::Batch { times_s, items, .. } => many(times_s.len()) * f64::from(*items),
        }
    }
}

fn check_gpu(gpu: &GpuSpec, part: &Part<'_>) -> Result<(), ScenarioError> {
    part.within("mib", of_mib(gpu.mib), MIB)?;
    part.within("speed", gpu.speed, Range::of(0.001, 1_000.0))?;
    match &gpu.capability {
        Some(text) if ComputeCapability::parse(text).is_none() => {
            Err(part.is_wrong("capability", format!("`{text}`"), "a CUDA compute capability such as `8.6`"))
        }
        _ => Ok(()),
    }
}

fn check_engines(engines: &Engines, part: &Part<'_>) -> Result<(), ScenarioError> {
    for (model, times) in &engines.boot {
        part.times(&format!("boot.{model}"), times, SECONDS)?;
    }
    let times = [
        ("boot_other", &engines.boot_other),
        ("unload", &engines.unload),
        ("host_load", &engines.host_load),
        ("host_unload", &engines.host_unload),
        ("once_start", &engines.once_start),
    ];
    times.into_iter().try_for_each(|(field, times)| part.times(field, times, SECONDS))?;
    let speed = engines.disk.map(|disk| disk.mib_per_s);
    part.all_within([("disk.mib_per_s", speed, Range::of(0.001, 1e9))])
}

fn check_faults(faults: &Faults, part: &Part<'_>) -> Result<(), ScenarioError> {
    let rates = [
        ("worker_dies", faults.worker_dies),
        ("machine_dies", faults.machine_dies),
        ("brain_dies", faults.brain_dies),
        ("downs", faults.downs),
        ("gpu_lost", faults.gpu_lost),
        ("engine_dies", faults.engine_dies),
        ("stalls", faults.stalls),
        ("disk_full", faults.disk_full),
        ("cancels", faults.cancels),
        ("ram_low", faults.ram_low),
        ("foreign", faults.foreign),
    ];
    let shares = [
        ("boot_fails", faults.boot_fails),
        ("boot_hangs", faults.boot_hangs),
        ("host_fails", faults.host_fails),
        ("launch_fails", faults.launch_fails),
        ("crash", faults.crash),
        ("oom", faults.oom),
        ("gpu_fault", faults.gpu_fault),
        ("bad_input", faults.bad_input),
        ("hangs", faults.hangs),
        ("duplicates", faults.duplicates),
        ("late", faults.late),
    ];
    let times = [
        ("brain_away", &faults.brain_away),
        ("gpu_away", &faults.gpu_away),
        ("stall", &faults.stall),
        ("lateness", &faults.lateness),
        ("disk_away", &faults.disk_away),
        ("ram_away", &faults.ram_away),
        ("foreign_stay", &faults.foreign_stay),
    ];
    part.all_within(rates.map(|(field, rate)| (field, Some(rate), PER_HOUR)))?;
    part.all_within(shares.map(|(field, share)| (field, Some(share), SHARE)))?;
    times.into_iter().try_for_each(|(field, times)| part.times(field, times, SECONDS))
}

#[expect(clippy::cast_precision_loss, reason = "whoever writes 2^53 MiB is told that it is too much")]
const fn of_mib(mib: u64) -> f64 {
    mib as f64
}

#[expect(clippy::cast_precision_loss, reason = "no file has that many entries")]
const fn many(count: usize) -> f64 {
    count as f64
}
