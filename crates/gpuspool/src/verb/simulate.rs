//! `gpuspool simulate`: the real mind over invented GPUs, engines, people and faults.
//!
//! Not here: the simulation (`simulate`). Of a spool nothing is read but the journal that is done again, and what was learned
//! beside it; nothing is written to one.

use std::path::{Path, PathBuf};

use clap::Args;
use model::learned::Learned;
use serde_json::json;
use simulate::storm::{self, Storm};
use simulate::{Mind, Outcome, Scenario, Sim, gantt, replay, scenario, table};
use spool::layout::Layout;

use crate::command::GpuSpool;
use crate::console::Console;
use crate::failure::{Failure, exit};
use crate::words::count;

/// After so many seeds that break a law a fault run has said enough.
const BROKEN_MAX: usize = 5;

/// Options of `simulate`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A scenario: one that comes with the program (`list` names them), or a file.
    #[arg(long, value_name = "NAME|FILE", required_unless_present_any = ["faults", "replay"])]
    scenario: Option<String>,
    /// Who decides: ours, thresholds, never, always, ski_rental, fifo, or all.
    #[arg(long, default_value = "all", value_name = "POLICY", conflicts_with = "faults")]
    policy: String,
    /// Another seed than the scenario's.
    #[arg(long, value_name = "N", conflicts_with = "faults")]
    seed: Option<u64>,
    /// Draw what ran where into this file.
    #[arg(long, value_name = "FILE", conflicts_with = "faults")]
    svg: Option<PathBuf>,
    /// Do again what a journal recorded: its tasks, when they came, as long as they ran.
    #[arg(long, value_name = "FILE", conflicts_with = "faults")]
    replay: Option<PathBuf>,
    /// Run days of mixed machines, people and faults, one of each seed, and look whether a law breaks.
    #[arg(long, conflicts_with = "scenario")]
    faults: bool,
    /// With --faults: how many seeds.
    #[arg(
        long,
        default_value_t = 100,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..),
        requires = "faults",
        conflicts_with_all = ["scenario", "replay"]
    )]
    seeds: u64,
    /// With --faults: the first seed.
    #[arg(
        long,
        default_value_t = 1,
        value_name = "N",
        requires = "faults",
        conflicts_with_all = ["scenario", "replay"]
    )]
    from: u64,
}

pub(crate) fn run(options: &Options, asked: &GpuSpool, console: &mut Console<'_>) -> Result<u8, Failure> {
    if options.faults {
        return faults(options, console);
    }
    if options.scenario.as_deref() == Some("list") {
        return list(options, console);
    }
    let minds = minds(&options.policy)?;
    let mut scenario = match &options.scenario {
        Some(name) => Scenario::find(name).map_err(|error| bad(&error))?,
        None => Scenario { name: "replay".into(), gpus: two_gpus(), ..Scenario::default() },
    };
    if let Some(seed) = options.seed {
        scenario.seed = seed;
    }
    if let Some(path) = asked.config.as_deref().or_else(|| own_settings(options)) {
        scenario.config = settings(path)?;
        scenario.whole_config = options.scenario.is_none();
    }
    for odd in scenario.odd_settings().map_err(|error| bad(&error))? {
        console.note(&format!("warning: settings: {odd}"));
    }
    let recorded =
        options.replay.as_deref().map(|path| recorded(path, &mut scenario, console)).transpose()?;
    let mut learned = Learned::default();
    if recorded.is_some() {
        learned = boots(options, &mut scenario, console)?;
    }
    scenario.check_machine().map_err(|error| bad(&error))?;
    expect_only_of_itself(options, asked, &mut scenario, console);
    let mut outcomes = Vec::new();
    for mind in minds {
        let sim = match &recorded {
            Some(recorded) => Sim::with_arrivals(scenario.clone(), recorded.arrivals.clone(), mind),
            None => Sim::new(scenario.clone(), mind),
        };
        outcomes.push(sim.map_err(|error| bad(&error))?.knowing(learned.clone()).run());
    }
    if let Some(path) = &options.svg {
        std::fs::write(path, gantt::svg(&scenario, &outcomes)).map_err(|error| {
            Failure::new(exit::IO, format!("failed to write `{}`: {error}", path.display()))
        })?;
    }
    show(&scenario, &outcomes, options, console)
}

/// The scenarios that come with the program.
fn list(options: &Options, console: &mut Console<'_>) -> Result<u8, Failure> {
    if options.svg.is_some() || options.seed.is_some() || options.replay.is_some() {
        let why = "`--scenario list` runs nothing: leave `--svg`, `--seed` and `--replay` away";
        return Err(Failure::new(exit::USAGE, why));
    }
    let mut scenarios = Vec::new();
    for name in scenario::shipped() {
        scenarios.push((name, Scenario::find(name).map_err(|error| bad(&error))?.about));
    }
    if console.json {
        let told = scenarios.iter().map(|(name, about)| json!({ "name": name, "about": about }));
        console.say_json(&json!({ "scenarios": told.collect::<Vec<_>>() }))?;
        return Ok(exit::OK);
    }
    for (name, about) in scenarios {
        console.say(&format!("{name}: {about}"))?;
    }
    Ok(exit::OK)
}

/// What a scenario expects is of its own seed, settings and people: with others it is not looked at, and that is said.
fn expect_only_of_itself(
    options: &Options,
    asked: &GpuSpool,
    scenario: &mut Scenario,
    console: &mut Console<'_>,
) {
    let others = [
        ("--seed", options.seed.is_some()),
        ("--config", asked.config.is_some()),
        ("--replay", options.replay.is_some()),
    ];
    let Some((option, _)) = others.into_iter().find(|(_, is_given)| *is_given) else { return };
    if !scenario.expected.is_empty() {
        scenario.expected.clear();
        console.note(&format!("note: what `{}` expects is not looked at with {option}", scenario.name));
    }
}

/// What did not come as the scenario expects it, which it does of our own mind alone.
fn missed(scenario: &Scenario, outcome: &Outcome) -> Vec<String> {
    let missed = if outcome.mind == Mind::Ours { scenario.missed(outcome) } else { Vec::new() };
    missed.iter().map(ToString::to_string).collect()
}

fn show(
    scenario: &Scenario,
    outcomes: &[Outcome],
    options: &Options,
    console: &mut Console<'_>,
) -> Result<u8, Failure> {
    let kept = |outcome: &Outcome| outcome.broken.is_empty() && missed(scenario, outcome).is_empty();
    let kept = outcomes.iter().all(kept);
    let code = if kept { exit::OK } else { exit::NOT_ALL };
    if console.json {
        let policy = |outcome: &Outcome| {
            let broken: Vec<String> = outcome.broken.iter().map(ToString::to_string).collect();
            json!({
                "policy": outcome.mind.name(), "numbers": outcome.numbers(), "broken": broken,
                "missed": missed(scenario, outcome),
            })
        };
        let policies: Vec<_> = outcomes.iter().map(policy).collect();
        let all = json!({ "simulated": true, "scenario": scenario.name, "seed": scenario.seed, "policies": policies });
        console.say_json(&all)?;
        return Ok(code);
    }
    for line in table::table(scenario, outcomes).lines() {
        console.say(line)?;
    }
    for outcome in outcomes {
        for broken in &outcome.broken {
            console.say(&format!("{}: {broken}", outcome.mind.name()))?;
        }
        for missed in missed(scenario, outcome) {
            console.say(&format!("{}: {missed}", outcome.mind.name()))?;
        }
    }
    if let Some(path) = &options.svg {
        console.say(&format!("drawn in {}", path.display()))?;
    }
    Ok(code)
}

fn minds(name: &str) -> Result<Vec<Mind>, Failure> {
    if name == "all" {
        return Ok(Mind::ALL.to_vec());
    }
    Mind::named(name).map(|mind| vec![mind]).ok_or_else(|| {
        let names: Vec<&str> = Mind::ALL.into_iter().map(Mind::name).collect();
        Failure::new(
            exit::USAGE,
            format!("no policy is called `{name}`; use one of {}, all", names.join(", ")),
        )
    })
}

fn two_gpus() -> Vec<scenario::GpuSpec> {
    vec![scenario::GpuSpec::default(); 2]
}

/// The configuration of the machine here, whose journal is done again; a scenario has settings of its own.
fn own_settings(options: &Options) -> Option<&'static Path> {
    let here = Path::new("config.json");
    (options.replay.is_some() && options.scenario.is_none() && here.exists()).then_some(here)
}

/// The configuration file as the scenario's settings.
fn settings(path: &Path) -> Result<serde_json::Value, Failure> {
    let shown = path.display();
    let text = std::fs::read(path)
        .map_err(|error| Failure::new(exit::NO_INPUT, format!("cannot read `{shown}`: {error}")))?;
    serde_json::from_slice(&text).map_err(|error| Failure::new(exit::DATA, format!("`{shown}`: {error}")))
}

fn recorded(
    path: &Path,
    scenario: &mut Scenario,
    console: &mut Console<'_>,
) -> Result<replay::Recorded, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(exit::NO_INPUT, format!("cannot read the journal `{shown}`: {error}"))
    })?;
    let mut recorded =
        replay::read(&text).map_err(|error| Failure::new(exit::DATA, format!("`{shown}`: {error}")))?;
    let last = recorded.arrivals.last().map(|arrival| arrival.at.as_secs_f64()).unwrap_or_default();
    scenario.duration_s = last + 1.0;
    scenario.about = format!("what {shown} recorded");
    scenario.people.clear();
    if recorded.torn > 0 {
        console.note(&format!("warning: {} of the journal cannot be read", count(recorded.torn, "line")));
    }
    if recorded.unended > 0 {
        let open = count(recorded.unended, "task");
        console.note(&format!("warning: {open} had not ended: taken to run as long as others of their kind"));
    }
    let (gpus, moved) = (scenario.gpus.len(), recorded.move_to(scenario.gpus.len()));
    if moved > 0 {
        let tasks = count(moved, "task");
        console
            .note(&format!("warning: {tasks} asked for a GPU that is not invented here: run on any of them"));
    }
    if recorded.widest() as usize > gpus {
        let most = recorded.widest();
        console.note(&format!(
            "warning: a task needs {most} GPUs, and {gpus} are invented here: it never starts; `--scenario` gives others"
        ));
    }
    let config = scenario.settings().map_err(|error| bad(&error))?;
    let unknown: Vec<&str> =
        recorded.models().into_iter().filter(|name| !config.models.contains_key(*name)).collect();
    if !unknown.is_empty() {
        let names = unknown.join(", ");
        console.note(&format!(
            "warning: tasks fail that name models which `models` lacks ({names}): name the settings with --config"
        ));
    }
    Ok(recorded)
}

/// LLMs load as long as they did where the journal was written, if that is known, else as its settings say; a scenario has
/// times of its own. What the mind knows of it from the beginning, as that of the machine did.
fn boots(options: &Options, scenario: &mut Scenario, console: &mut Console<'_>) -> Result<Learned, Failure> {
    let mut known = Learned::default();
    if options.scenario.is_none() {
        scenario.boot_as_the_settings_say().map_err(|error| bad(&error))?;
        if let Some(learned) = options.replay.as_deref().and_then(|path| learned_beside(path, console)) {
            scenario.boot_as_measured(&learned);
            known.boot_ms = learned.boot_ms;
        }
    }
    for widened in scenario.let_boots_end().map_err(|error| bad(&error))? {
        let replay::Widened { engine, stated_s, load_s, limit_s } = widened;
        console.note(&format!(
            "warning: `engines.{engine}.boot_timeout_s` is {stated_s} s, and an LLM loads in {load_s} s here, so that it is \
             taken to be {limit_s} s"
        ));
    }
    Ok(known)
}

/// What the spool of a journal has learned.
fn learned_beside(journal: &Path, console: &mut Console<'_>) -> Option<Learned> {
    let journal = std::path::absolute(journal).ok()?;
    let path = Layout::new(journal.parent()?.parent()?).learned();
    let text = std::fs::read(&path).ok()?;
    let read = serde_json::from_slice(&text);
    if let Err(error) = &read {
        let path = path.display();
        console.note(&format!(
            "warning: loads take as long as the settings say: `{path}` cannot be read: {error}"
        ));
    }
    read.ok()
}

fn faults(options: &Options, console: &mut Console<'_>) -> Result<u8, Failure> {
    if options.from.checked_add(options.seeds - 1).is_none() {
        let why =
            format!("--from {} leaves no {} seeds: the largest is {}", options.from, options.seeds, u64::MAX);
        return Err(Failure::new(exit::USAGE, why));
    }
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let begun = std::time::Instant::now();
    let storm = storm::run(options.from, options.seeds, threads, BROKEN_MAX).map_err(|error| bad(&error))?;
    let code = if storm.broken.is_empty() { exit::OK } else { exit::NOT_ALL };
    if console.json {
        let broken: Vec<_> = storm
            .broken
            .iter()
            .map(|outcome| json!({ "seed": outcome.seed, "law": outcome.broken[0].to_string() }))
            .collect();
        let all = json!({
            "simulated": true, "seeds": storm.seeds, "hours": storm.hours, "tasks": storm.tasks,
            "faults": storm.faults, "plans": storm.plans, "broken": broken,
        });
        console.say_json(&all)?;
        return Ok(code);
    }
    console.say(&format!(
        "SIMULATED {} seeds, {:.0} hours: {} tasks, {} faults, {} plans in {:.1} s; {}",
        storm.seeds,
        storm.hours,
        storm.tasks,
        storm.faults,
        storm.plans,
        begun.elapsed().as_secs_f64(),
        if storm.broken.is_empty() { "no law broke" } else { "laws broke:" }
    ))?;
    tell(&storm, console)?;
    Ok(code)
}

/// Each seed that broke a law with the line that does it again, and the least that breaks one of the first.
fn tell(storm: &Storm, console: &mut Console<'_>) -> Result<(), Failure> {
    for outcome in &storm.broken {
        let seed = outcome.seed;
        console.say(&format!("seed {seed}: {}", outcome.broken[0]))?;
        console.say(&format!("    again: gpuspool simulate --faults --seeds 1 --from {seed}"))?;
    }
    let Some(outcome) = storm.broken.first() else { return Ok(()) };
    let shrunk = storm::shrink(&storm::mix(outcome.seed)).map_err(|error| bad(&error))?;
    console
        .say(&format!("the last that happened in the least of seed {} that breaks a law:", outcome.seed))?;
    for line in &shrunk.last {
        console.say(line)?;
    }
    for broken in &shrunk.outcome.broken {
        console.say(&broken.to_string())?;
    }
    let scenario = serde_json::to_string(&shrunk.scenario).unwrap_or_default();
    Ok(console.say(&format!("to be kept in tests/seeds/: {scenario}"))?)
}

fn bad(error: &simulate::ScenarioError) -> Failure {
    let code = match error {
        simulate::ScenarioError::Unreadable { .. } => exit::NO_INPUT,
        _ => exit::DATA,
    };
    let names: Vec<&str> = scenario::shipped().collect();
    let next = if code == exit::NO_INPUT {
        format!("; scenarios that come with the program: {}", names.join(", "))
    } else {
        String::new()
    };
    Failure::new(code, format!("{error}{next}"))
}
