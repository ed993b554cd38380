//! A chatbot inside an exclusive batch: an LLM that is loaded anyway serves it, else one GPU is lent to it.
//!
//! ```text
//! a chatbot waits → an LLM that nobody needs serves it
//!                 → else one GPU is lent: what runs there ends (or yields), an LLM loads, chatbots are served
//!                 → no request for `chat_linger_s` → it goes back to the batch
//! ```
//! Never more than one GPU, and no other LLM task. Not here: outside exclusive mode a chatbot is a task like others.

use model::link::StopWhy;
use model::{Entry, Millis, Saying};

use super::draft::Draft;
use super::exclusive::items_waiting;
use super::fill::boot_on;
use crate::forecast::{Pace, expected_end};
use crate::model_choice::choose;
use crate::place;
use crate::queue::Queued;
use crate::shape::What;

pub(super) fn lend(draft: &mut Draft<'_>) {
    let world = draft.world;
    let settings = &world.config.resource_manager.batch_settings;
    let Some(exclusive) = draft.exclusive.as_ref().filter(|_| settings.exclusive_admits_chat) else { return };
    let wanted = !items_waiting(draft, exclusive).is_empty();
    let lent = world.lent.as_ref();
    let mut lent = (0..draft.desks.len()).find(|at| Some(&draft.desks[*at].gpu.facts.uuid) == lent);
    // A GPU that is lent and cannot be used at the moment stays the one that is lent.
    let may_lend = world.lent.is_none() || lent.is_some();
    let mut unserved: Option<&Queued> = None;
    for entry in world.queue.chatbots() {
        let Some(item) = world.queue.get(entry) else { continue };
        if world.claims.contains_key(entry) || draft.spoken_for.contains(entry) {
            continue;
        }
        if world.misfit(&item.shape).is_some() || is_served(draft, lent, wanted, entry, item) {
            continue;
        }
        // One GPU is lent, and no more: what needs several waits for the end of the batch.
        if item.shape.needs_several() {
            continue;
        }
        // What is lent is kept for another task by now: it goes back.
        if lent.is_some_and(|at| draft.is_firmly_kept(&draft.desks[at], item.since)) {
            continue;
        }
        if lent.is_none() && may_lend {
            lent = borrow(draft, item);
            if lent.is_some() && is_served(draft, lent, wanted, entry, item) {
                continue;
            }
        }
        unserved = Some(item);
        break;
    }
    if unserved.is_some() {
        // A model that failed to load is tried again then.
        let failures = world.gpus.values().flat_map(|gpu| gpu.boot_failures.values());
        let due: Vec<Millis> = failures.map(|failure| failure.again_at).collect();
        due.into_iter().for_each(|time| draft.wake(time));
    }
    if let Some(at) = lent {
        keep_or_give_back(draft, at, unserved);
    }
}

/// Starts it where an LLM may serve chatbots, or counts on one that loads there.
fn is_served<'w>(
    draft: &mut Draft<'w>,
    lent: Option<usize>,
    wanted: bool,
    entry: &'w Entry,
    item: &'w Queued,
) -> bool {
    let world = draft.world;
    let able: Vec<usize> = (0..draft.desks.len())
        .filter(|at| {
            let desk = &draft.desks[*at];
            let is_spare = !world.takes_scripts(desk.gpu) || world.has_left(desk.gpu);
            let may = lent == Some(*at) || !wanted || is_spare;
            may && !desk.taken && is_right(draft, *at, item) && draft.admits(*at, item)
        })
        .collect();
    let free = |at: usize| draft.desks[at].llm.as_ref().map_or(0, |llm| llm.free);
    if let Some(at) = able.iter().copied().find(|at| free(*at) > 0) {
        // It waits for the single lock, not for room.
        if draft.locked {
            return true;
        }
        draft.add_request(at);
        let worker = &draft.desks[at].worker.id;
        draft.start(entry, worker, &item.task);
        return true;
    }
    if let Some(at) = able.iter().copied().find(|at| draft.desks[*at].cover > 0) {
        draft.desks[at].cover -= 1;
        return true;
    }
    // All slots of an LLM that nobody needs are busy: it is waited for.
    able.iter().any(|at| lent != Some(*at))
}

/// Whether the LLM of a desk, loaded or loading, would serve it.
fn is_right(draft: &Draft<'_>, at: usize, item: &Queued) -> bool {
    let What::Llm(wanted) = &item.shape.what else { return false };
    let desk = &draft.desks[at];
    let right = desk
        .llm
        .as_ref()
        .is_some_and(|llm| llm.leads && wanted.as_ref().is_none_or(|name| name == llm.model));
    right && draft.world.llm_is_for(&item.shape, desk.gpu)
}

/// Takes one GPU out of the batch: the one that will serve soonest. Says so.
fn borrow(draft: &mut Draft<'_>, item: &Queued) -> Option<usize> {
    let at = (0..draft.desks.len())
        .filter(|at| can_serve(draft, *at, item))
        .min_by_key(|at| (effort(draft, *at, item), free_at(draft, *at), draft.desks[*at].gpu.facts.index))?;
    let exclusive = draft.exclusive.as_ref()?;
    let saying = Saying::LentToChat {
        gpu: draft.desks[at].gpu.key(),
        batch: exclusive.batch.facts.batch_id.clone(),
        task: item.task.task_id.clone(),
        free_in_s: (free_at(draft, at) - draft.now).as_secs_f64().max(0.0),
        linger_s: draft.world.config.resource_manager.batch_settings.chat_linger_s,
    };
    draft.say(saying);
    Some(at)
}

/// Whether a GPU that the batch has could load what would serve it.
fn can_serve(draft: &Draft<'_>, at: usize, item: &Queued) -> bool {
    let desk = &draft.desks[at];
    let fits = place::fits(&item.shape, &desk.gpu.facts) && draft.may_load(desk, item);
    !desk.taken && fits && draft.world.takes_scripts(desk.gpu) && model_for(draft, at, item).is_some()
}

/// The model that would be loaded for it: its own, the one that made room here, or what is usual. None while that
/// one is not to be tried again yet.
fn model_for(draft: &Draft<'_>, at: usize, item: &Queued) -> Option<crate::model_choice::Choice> {
    let What::Llm(wanted) = &item.shape.what else { return None };
    let desk = &draft.desks[at];
    // One GPU is lent, and no more.
    let alone = |choice: &crate::model_choice::Choice| choice.gpus == 1;
    let of = |model: Option<&str>| choose(draft.world, desk.gpu, desk.worker, model).filter(alone);
    let choice = match wanted {
        Some(name) => of(Some(name)),
        None => desk.gpu.reload.as_deref().and_then(|model| of(Some(model))).or_else(|| of(None)),
    }?;
    let failure = desk.gpu.boot_failures.get(&choice.model);
    failure.is_none_or(|failure| failure.again_at <= draft.now).then_some(choice)
}

/// How much is between a desk and an LLM that serves; less is better.
fn effort(draft: &Draft<'_>, at: usize, item: &Queued) -> u8 {
    let desk = &draft.desks[at];
    match &desk.llm {
        Some(llm) if is_right(draft, at, item) => u8::from(!llm.ready),
        _ if desk.is_idle() => 2 + u8::from(desk.has_resident()),
        _ if desk.is_coming() => 4,
        _ if desk.is_idle_llm() => 5,
        _ => 6,
    }
}

/// When what runs on a desk is expected to have ended.
fn free_at(draft: &Draft<'_>, at: usize) -> Millis {
    let worker = draft.desks[at].worker;
    let units = draft.world.units_on(worker).filter(|unit| unit.is_live());
    units
        .map(|unit| expected_end(draft.world, draft.now, worker, unit, Pace::Usual))
        .max()
        .unwrap_or(draft.now)
}

/// The lent GPU: loads what is asked for, serves, and goes back when nobody has asked for a while.
fn keep_or_give_back(draft: &mut Draft<'_>, at: usize, unserved: Option<&Queued>) {
    let world = draft.world;
    let linger = Millis::from_secs_f64(world.config.resource_manager.batch_settings.chat_linger_s);
    let (gpu, load) = (draft.desks[at].gpu, draft.desks[at].load);
    let llm = draft.desks[at].llm.as_ref().map(|llm| llm.ready);
    // A load that somebody counts on.
    let parallel = draft.desks[at].llm.as_ref().map_or(0, |llm| u64::from(llm.parallel));
    let awaited = llm == Some(false) && draft.desks[at].cover < parallel;
    match (unserved, llm) {
        (Some(_), _) if load > 0 => yield_there(draft, at),
        (Some(item), Some(true)) if !is_right(draft, at, item) => swap(draft, at, item),
        (Some(item), None) if draft.desks[at].is_idle() => {
            let order = model_for(draft, at, item);
            let order = order.map(|choice| choice.order(draft.desks[at].worker, Vec::new()));
            if order.is_some() {
                boot_on(draft, at, order);
            }
        }
        (Some(_), _) => {}
        (None, _) if load > 0 || awaited => {}
        (None, Some(true)) if !draft.is_time(gpu.idle_since + linger) => {}
        (None, _) => {
            if let Some(exclusive) = &draft.exclusive {
                let batch = exclusive.batch.facts.batch_id.clone();
                let quiet_s = (draft.now - gpu.idle_since).as_secs_f64().max(0.0);
                let quiet_s = if llm == Some(true) { quiet_s } else { 0.0 };
                draft.say(Saying::BackFromChat { gpu: gpu.key(), batch, quiet_s });
            }
            return;
        }
    }
    draft.take(at);
}

/// Another LLM on the lent GPU goes for the one that the chatbot waits for, if that one may be loaded there now.
fn swap(draft: &mut Draft<'_>, at: usize, item: &Queued) {
    let desk = &draft.desks[at];
    let (Some(wanted), Some(llm)) = (model_for(draft, at, item), &desk.llm) else { return };
    let saying = Saying::Swaps {
        gpu: desk.gpu.key(),
        model: llm.model.to_owned(),
        wanted: wanted.model,
        task: item.task.task_id.clone(),
        waited_s: (draft.now - item.since).as_secs_f64().max(0.0),
    };
    draft.say(saying);
    draft.order_engine(at, None);
}

/// Scripts on the lent GPU that have a boundary end at it and go on later.
fn yield_there(draft: &mut Draft<'_>, at: usize) {
    let world = draft.world;
    let worker = draft.desks[at].worker;
    for unit in world.units_on(worker).filter(|unit| unit.shape.host().is_some() && world.can_yield(unit)) {
        draft.stop(&unit.worker, &unit.key, StopWhy::Yield);
    }
}
