//! What is done ahead of demand, on GPUs that nobody waits for: LLMs are loaded back and as many as the requests keep
//! busy, one is loaded before an hour in which requests are usual, and its file is read before that.
//!
//! Nothing makes room for it: a surplus LLM stays until somebody needs its GPU (`evict`). Not here: what roles and
//! batches bring back (`reload`).

use model::{Millis, Saying};

use super::draft::{Desk, Draft};
use super::evict::UNLOAD_PRIOR;
use super::span::{load, others};
use crate::action::Action;
use crate::evict::cost_benefit::busy_gpus;
use crate::model_choice::{Choice, choose};

/// LLMs come back once no script has waited for so long.
pub(crate) const QUIET: Millis = Millis::from_secs(20);
/// As many LLMs are loaded as the requests would keep busy if they came so many times as often.
const AMPLE: f64 = 2.0;
/// Requests an hour from which on an LLM is loaded ahead: then two hours of three have one at least.
const LIKELY: f64 = 1.0;
/// An LLM is loaded ahead of demand at most once in so long: a wrong guess costs one load an hour.
const PREWARM_AGAIN: Millis = Millis::from_secs(3_600);
/// What comes before the load itself: the start of an hour is not a precise time.
const EARLY: Millis = Millis::from_secs(60);
/// A file that was read ahead is believed to be in memory for so long.
const READ_AGAIN: Millis = Millis::from_secs(600);

pub(super) fn ahead(draft: &mut Draft<'_>) {
    if draft.exclusive.is_some() {
        read_ahead_of_the_end(draft);
        return;
    }
    if !scale(draft) {
        prewarm(draft);
    }
}

/// Loads LLMs back, and more of them, while requests come and no script waits. Tells whether it does.
fn scale(draft: &mut Draft<'_>) -> bool {
    let world = draft.world;
    let policy = &world.config.resource_manager.eviction_policy;
    let Some(last) = world.demand.last() else { return false };
    if draft.now - last >= Millis::from_secs_f64(policy.keep_last_s) {
        return false;
    }
    let Some(gone) = world.demand.scripts_gone() else { return false };
    let is_one = |desk: &&Desk<'_>| desk.llm.as_ref().is_some_and(|llm| llm.leads) || desk.promised.is_some();
    let have = draft.desks.iter().filter(is_one).count() as u64;
    // One that made room for a batch comes back by itself, as soon as all its GPUs are free.
    let comes_back = world.config.resource_manager.batch_settings.reload_llms_after_batch;
    if comes_back && have == 0 && draft.desks.iter().any(|desk| desk.gpu.reload.is_some()) {
        return false;
    }
    let per_s = world.requests(draft.now).per_s();
    let loaded = draft.desks.iter().filter_map(|desk| desk.llm.as_ref());
    let slots = loaded.map(|llm| u64::from(llm.parallel)).min();
    let model = busiest_model(draft);
    let mut target = 1;
    if world.config.prediction.scale {
        // With none loaded nobody knows how many requests one serves at once; the next one is decided when it is there.
        let request_time = world.memory.request_time(model.as_deref());
        target = slots.map_or(1, |slots| busy_gpus(AMPLE * per_s, request_time, slots).max(1));
    }
    if have >= target {
        return false;
    }
    let Some(place) = place(draft, model.as_deref()) else { return false };
    if !draft.is_time(gone + QUIET) {
        return false;
    }
    if !place.hosts {
        draft.say(Saying::ScalesUp {
            gpu: draft.desks[place.at].gpu.key(),
            model: place.choice.model.clone(),
            have,
            target,
            per_minute: per_s * 60.0,
        });
    }
    load(draft, place.at, &place.choice)
}

/// The model that further GPUs would hold: of the LLMs that are loaded, or will be, the one that runs most requests, a
/// ready one first. What is asked for is served by what is loaded.
fn busiest_model(draft: &Draft<'_>) -> Option<String> {
    let known = draft.desks.iter().filter_map(|desk| match (&desk.promised, &desk.llm) {
        (Some(choice), _) => Some(((false, 0, desk.gpu.idle_since), &*choice.model)),
        (None, Some(llm)) if llm.leads => {
            let running = if llm.ready { llm.parallel.saturating_sub(llm.free) } else { 0 };
            Some(((llm.ready, running, desk.gpu.idle_since), llm.model))
        }
        _ => None,
    });
    known.rev().max_by_key(|(rank, _)| *rank).map(|(_, model)| model.to_owned())
}

/// Loads one LLM where none is, in an hour in which requests are usual or shortly before it.
fn prewarm(draft: &mut Draft<'_>) {
    let world = draft.world;
    let demand = &world.demand;
    let Some(hour) = demand.hour(draft.now).filter(|_| world.config.prediction.prewarm) else { return };
    let some = draft.desks.iter().any(|desk| desk.llm.is_some() || desk.promised.is_some());
    if some || demand.scripts_gone().is_none() {
        return;
    }
    if let Some(last) = demand.prewarmed()
        && !draft.is_time(last + PREWARM_AGAIN)
    {
        return;
    }
    let Some(place) = place(draft, None) else { return };
    let usual = |hour: u8| world.memory.requests_per_hour(hour).filter(|per_hour| *per_hour >= LIKELY);
    let lead = world.memory.llm_boot(&world.config, &place.choice.preset, &place.choice.model).p90 + EARLY;
    let (this, next) = (hour.hour, (hour.hour + 1) % 24);
    let now = usual(this).map(|per_hour| (draft.now, this, per_hour));
    let soon = || usual(next).map(|per_hour| (hour.ends - lead, next, per_hour));
    let Some((due, hour, per_hour)) = now.or_else(soon) else { return };
    if draft.is_time(due - lead) {
        read_ahead(draft, &place.choice.model);
    }
    if place.hosts {
        // They leave in time. The load that follows is the one that counts.
        if draft.is_time(due - place.leaves_in(draft)) && place.is_quiet(draft) {
            load(draft, place.at, &place.choice);
        }
        return;
    }
    if !draft.is_time(due) {
        return;
    }
    draft.say(Saying::Prewarms {
        gpu: draft.desks[place.at].gpu.key(),
        model: place.choice.model.clone(),
        hour,
        per_hour,
    });
    load(draft, place.at, &place.choice);
}

/// Where something is loaded ahead.
struct Place {
    /// The idle GPU that leads.
    at: usize,
    /// Those beside it.
    beside: Vec<usize>,
    /// What it would load.
    choice: Choice,
    /// Whether hosts idle there: they leave first, and the load follows once their memory is free.
    hosts: bool,
}

impl Place {
    fn desks(&self) -> impl Iterator<Item = usize> {
        std::iter::once(self.at).chain(self.beside.iter().copied())
    }

    /// How long it should take its hosts to leave.
    fn leaves_in(&self, draft: &Draft<'_>) -> Millis {
        UNLOAD_PRIOR + self.desks().map(|at| draft.desks[at].gpu.cooling).max().unwrap_or_default()
    }

    /// Whether nobody has used it for a while: what its hosts do often is not held up for a guess.
    fn is_quiet(&self, draft: &mut Draft<'_>) -> bool {
        self.desks().all(|at| draft.is_time(draft.desks[at].gpu.since + QUIET))
    }
}

/// An idle GPU and what it would load, this model or its own: one without a host that stays loaded, if there is one. None
/// while one is on its way to be that.
fn place(draft: &mut Draft<'_>, wanted: Option<&str>) -> Option<Place> {
    let world = draft.world;
    let mut found: Vec<Place> = Vec::new();
    for at in 0..draft.desks.len() {
        let desk = &draft.desks[at];
        // What made room for a batch and is not to come back is left alone.
        let stays_away = desk.gpu.reload.is_some()
            && !world.config.resource_manager.batch_settings.reload_llms_after_batch;
        let is_free = desk.is_idle() && is_for_nobody(desk) && !stays_away;
        let Some(choice) = choice_for(draft, desk, wanted).filter(|_| is_free) else { continue };
        let Some(beside) = others(draft, at, &choice) else { continue };
        let hosts = desk.has_resident() || beside.iter().any(|at| draft.desks[*at].has_resident());
        let failure = desk.gpu.boot_failures.get(&choice.model);
        if failure.map(|failure| failure.again_at).is_none_or(|time| draft.is_time(time)) {
            found.push(Place { at, beside, choice, hosts });
        }
    }
    let comes = || draft.desks.iter().any(|desk| desk.is_coming() && is_for_nobody(desk));
    found.into_iter().min_by_key(|place| (place.hosts, place.at)).filter(|place| !place.hosts || !comes())
}

fn is_for_nobody(desk: &Desk<'_>) -> bool {
    !desk.is_kept_from(None) && !desk.reserved
}

/// What a desk would load of this model; of its own, where none is wanted. The demonstration model has no name to ask by.
fn choice_for(draft: &Draft<'_>, desk: &Desk<'_>, wanted: Option<&str>) -> Option<Choice> {
    let of = |model: Option<&str>| choose(draft.world, desk.gpu, desk.worker, model);
    match wanted {
        None => of(None),
        Some(name) => of(Some(name)).or_else(|| of(None).filter(|own| own.model == name)),
    }
}

/// While the last items of an exclusive batch run, the files of the LLMs that come back are read.
fn read_ahead_of_the_end(draft: &mut Draft<'_>) {
    let world = draft.world;
    let waits = draft.front.iter().any(|(shape, _)| {
        draft.exclusive.as_ref().is_some_and(|exclusive| exclusive.has(shape.batch.as_ref()))
    });
    if waits || !world.config.prediction.prewarm {
        return;
    }
    let models: std::collections::BTreeSet<&String> =
        world.gpus.values().filter_map(|gpu| gpu.reload.as_ref()).collect();
    for model in models {
        read_ahead(draft, model);
    }
}

/// Has a model's file read, where it is known and the memory of the machine allows.
fn read_ahead(draft: &mut Draft<'_>, model: &str) {
    let world = draft.world;
    let Some(entry) = world.config.models.get(model).filter(|entry| entry.file.is_some()) else { return };
    let least = world.config.resource_manager.min_system_ram_mb.saturating_add(entry.mib.unwrap_or_default());
    let has_room = world.ram.as_ref().is_some_and(|ram| ram.available_mib >= least);
    let was_read = world.demand.was_read_ahead(model).is_some_and(|at| at + READ_AGAIN > draft.now);
    if has_room && !was_read {
        draft.act(Action::ReadAhead { model: model.to_owned() });
    }
}
