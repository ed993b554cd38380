//! What is done ahead of demand, on GPUs that nobody waits for: LLMs are loaded back and as many as the requests keep
//! busy, one is loaded before an hour in which requests are usual, and its file is read before that.
//!
//! Nothing makes room for it: a surplus LLM stays until somebody needs its GPU (`evict`). Not here: what roles and
//! batches bring back (`reload`).

use model::{Millis, Saying};

use super::draft::{Desk, Draft};
use super::span::{can_load, load};
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
    scale(draft);
    prewarm(draft);
}

/// Loads LLMs back, and more of them, while requests come and no script waits.
fn scale(draft: &mut Draft<'_>) {
    let world = draft.world;
    let policy = &world.config.resource_manager.eviction_policy;
    let Some(last) = world.demand.last() else { return };
    if draft.now - last >= Millis::from_secs_f64(policy.keep_last_s) {
        return;
    }
    let Some(gone) = world.demand.scripts_gone() else { return };
    let is_one = |desk: &&Desk<'_>| desk.llm.as_ref().is_some_and(|llm| llm.leads) || desk.promised.is_some();
    let have = draft.desks.iter().filter(is_one).count() as u64;
    // One that made room for a batch comes back by itself, as soon as all its GPUs are free.
    let comes_back = world.config.resource_manager.batch_settings.reload_llms_after_batch;
    if comes_back && have == 0 && draft.desks.iter().any(|desk| desk.gpu.reload.is_some()) {
        return;
    }
    let per_s = world.requests(draft.now).per_s();
    let loaded = draft.desks.iter().filter_map(|desk| desk.llm.as_ref());
    let slots = loaded.clone().map(|llm| u64::from(llm.parallel)).min();
    let model = loaded.map(|llm| llm.model).next();
    let mut target = 1;
    if world.config.prediction.scale {
        // With none loaded nobody knows how many requests one serves at once; the next one is decided when it is there.
        let request_time = world.memory.request_time(model);
        target = slots.map_or(1, |slots| busy_gpus(AMPLE * per_s, request_time, slots).max(1));
    }
    if have >= target {
        return;
    }
    let Some((at, choice)) = place(draft, &|_| true) else { return };
    if !draft.is_time(gone + QUIET) {
        return;
    }
    draft.act(Action::Say(Saying::ScalesUp {
        gpu: draft.desks[at].gpu.key(),
        model: choice.model.clone(),
        have,
        target,
        per_minute: per_s * 60.0,
    }));
    load(draft, at, &choice);
    draft.desks[at].taken = true;
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
    let Some((at, choice)) = place(draft, &|desk| !desk.has_resident()) else { return };
    let usual = |hour: u8| world.memory.requests_per_hour(hour).filter(|per_hour| *per_hour >= LIKELY);
    let lead = world.memory.llm_boot(&world.config, &choice.preset, &choice.model).p90 + EARLY;
    let (this, next) = (hour.hour, (hour.hour + 1) % 24);
    let now = usual(this).map(|per_hour| (draft.now, this, per_hour));
    let soon = || usual(next).map(|per_hour| (hour.ends - lead, next, per_hour));
    let Some((due, hour, per_hour)) = now.or_else(soon) else { return };
    if draft.is_time(due - lead) {
        read_ahead(draft, &choice.model);
    }
    if !draft.is_time(due) {
        return;
    }
    draft.act(Action::Say(Saying::Prewarms {
        gpu: draft.desks[at].gpu.key(),
        model: choice.model.clone(),
        hour,
        per_hour,
    }));
    load(draft, at, &choice);
}

/// An idle GPU and what it would load: one without a host that stays loaded, if there is one.
fn place(draft: &mut Draft<'_>, wanted: &dyn Fn(&Desk<'_>) -> bool) -> Option<(usize, Choice)> {
    let world = draft.world;
    let mut found: Vec<(bool, usize, Choice)> = Vec::new();
    for at in 0..draft.desks.len() {
        let desk = &draft.desks[at];
        // What made room for a batch and is not to come back is left alone.
        let stays_away = desk.gpu.reload.is_some()
            && !world.config.resource_manager.batch_settings.reload_llms_after_batch;
        let is_free =
            desk.is_idle() && !desk.is_kept_from(None) && !desk.reserved && !stays_away && wanted(desk);
        let Some(choice) = choose(world, desk.gpu, desk.worker, None).filter(|_| is_free) else { continue };
        if !can_load(draft, at, &choice) {
            continue;
        }
        let (resident, failure) = (desk.has_resident(), desk.gpu.boot_failures.get(&choice.model));
        if failure.map(|failure| failure.again_at).is_none_or(|time| draft.is_time(time)) {
            found.push((resident, at, choice));
        }
    }
    found.into_iter().min_by_key(|(resident, at, _)| (*resident, *at)).map(|(_, at, choice)| (at, choice))
}

/// While the last items of an exclusive batch run, the files of the LLMs that come back are read.
fn read_ahead_of_the_end(draft: &mut Draft<'_>) {
    let world = draft.world;
    let waits = world.queue.lines().any(|(shape, _)| {
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
