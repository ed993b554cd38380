//! The staggered drain: where the LLMs that come back after an exclusive batch cannot load at the same time, GPUs leave
//! the batch one by one before its end, so that the last load does not wait for all the others.
//!
//! With one model, or as many loads at a time as there are models, nobody leaves early: `reload` does all there is to do.

use std::collections::BTreeMap;

use model::{Millis, Saying};

use super::draft::Draft;
use super::fill::boot_on;
use crate::model_choice::{Choice, choose};

/// The work in seconds that the GPUs of a batch do while their LLMs load one after the other: `groups` are the numbers
/// of GPUs by model, `others` are GPUs that get none, `at_a_time` models load together in `load_s` seconds. For single
/// GPUs of different models, one at a time, that is `load · m (m − 1) / 2`.
#[expect(clippy::cast_precision_loss, reason = "counts of GPUs")]
pub(super) fn work_while_loading(groups: &[usize], others: usize, at_a_time: usize, load_s: f64) -> f64 {
    let mut sizes = groups.to_vec();
    sizes.sort_unstable();
    let turns = sizes.len().div_ceil(at_a_time.max(1));
    let of_groups: usize =
        sizes.iter().enumerate().map(|(place, size)| size * (place / at_a_time.max(1))).sum();
    (of_groups + others * turns) as f64 * load_s
}

pub(super) fn leave_in_turn(draft: &mut Draft<'_>) {
    let world = draft.world;
    let Some(exclusive) = &draft.exclusive else { return };
    if !world.config.resource_manager.batch_settings.reload_llms_after_batch {
        return;
    }
    for desk in &mut draft.desks {
        // Nobody but a chatbot has a use for it before the batch is over.
        desk.taken |= desk.llm.is_some() && world.has_left(desk.gpu);
    }
    let in_batch: Vec<usize> = (0..draft.desks.len())
        .filter(|at| {
            let desk = &draft.desks[*at];
            desk.llm.is_none() && !desk.taken && world.takes_scripts(desk.gpu)
        })
        .collect();
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut load_s: f64 = 0.0;
    for at in &in_batch {
        if let Some(choice) = comes_back(draft, *at) {
            load_s = load_s
                .max(world.memory.llm_boot(&world.config, &choice.preset, &choice.model).p50.as_secs_f64());
            groups.entry(choice.model).or_default().push(*at);
        }
    }
    let at_a_time = world.loads_at_a_time();
    if groups.len() <= at_a_time {
        return;
    }
    let batches = exclusive.batches.iter().filter_map(|id| world.batches.get(*id));
    let works = batches.map(|batch| world.work_left(batch, draft.now));
    let remaining_s: f64 = works.map(|work| work.waiting_s + work.running_s).sum();
    let batch = exclusive.batch.facts.batch_id.clone();
    let sizes: Vec<usize> = groups.values().map(Vec::len).collect();
    let others = in_batch.len() - sizes.iter().sum::<usize>();
    if remaining_s > work_while_loading(&sizes, others, at_a_time, load_s) {
        return;
    }
    let loading = world.loading_models();
    // Those of a model that loads already lose nothing by leaving with it; else the smallest group is next.
    let joins = groups.iter().filter(|(model, _)| loading.contains(model.as_str()));
    let mut leaving: Vec<usize> = joins.flat_map(|(_, desks)| desks.iter().copied()).collect();
    if loading.len() < at_a_time {
        let ready = |desks: &&Vec<usize>| desks.iter().any(|at| is_free(draft, *at));
        let next = groups.values().filter(ready).min_by_key(|desks| desks.len());
        leaving.extend(next.and_then(|desks| desks.iter().copied().min_by_key(|at| distance(draft, *at))));
    }
    for at in leaving {
        leave(draft, at, &batch, (remaining_s, load_s));
    }
}

/// The LLM that comes back to a desk alone.
fn comes_back(draft: &Draft<'_>, at: usize) -> Option<Choice> {
    let desk = &draft.desks[at];
    let model = desk.gpu.reload.as_deref()?;
    choose(draft.world, desk.gpu, desk.worker, Some(model)).filter(|choice| choice.gpus == 1)
}

/// Whether nothing runs on a desk, or comes to it.
fn is_free(draft: &Draft<'_>, at: usize) -> bool {
    draft.desks[at].is_idle() || draft.desks[at].is_coming()
}

/// How far a desk is from loading; one that was emptied for it is nearest.
fn distance(draft: &Draft<'_>, at: usize) -> u8 {
    let desk = &draft.desks[at];
    match (desk.is_idle(), desk.has_resident()) {
        (true, false) => 0,
        _ if desk.is_coming() => 1,
        (true, true) => 2,
        _ => 3,
    }
}

fn leave(draft: &mut Draft<'_>, at: usize, batch: &model::BatchId, (remaining_s, load_s): (f64, f64)) {
    let Some(choice) = comes_back(draft, at).filter(|_| is_free(draft, at)) else { return };
    let failure = draft.desks[at].gpu.boot_failures.get(&choice.model);
    let again_at: Option<Millis> = failure.map(|failure| failure.again_at);
    if again_at.is_some_and(|time| !draft.is_time(time)) {
        return;
    }
    if draft.desks[at].is_idle() {
        if !draft.desks[at].has_resident() {
            let (gpu, model) = (draft.desks[at].gpu.key(), choice.model.clone());
            draft.say(Saying::LeavesBatch { gpu, batch: batch.clone(), model, remaining_s, load_s });
        }
        let order = choice.order(draft.desks[at].worker, Vec::new());
        boot_on(draft, at, Some(order));
    }
    draft.desks[at].taken = true;
}

#[cfg(test)]
mod tests {
    use super::work_while_loading;

    #[test]
    fn single_gpus_of_different_models_leave_by_the_triangle() {
        for m in 1..8_usize {
            let triangle = 120.0 * (m * (m - 1) / 2) as f64;
            assert!((work_while_loading(&vec![1; m], 0, 1, 120.0) - triangle).abs() < 1e-9);
        }
    }

    #[test]
    fn loads_that_overlap_need_no_early_leave() {
        assert!(work_while_loading(&[3], 0, 1, 120.0).abs() < 1e-9);
        assert!(work_while_loading(&[1, 1], 0, 2, 120.0).abs() < 1e-9);
    }

    #[test]
    fn the_smallest_group_goes_first_and_gpus_without_an_llm_work_on() {
        assert!((work_while_loading(&[3, 1], 0, 1, 100.0) - 300.0).abs() < 1e-9);
        assert!((work_while_loading(&[1, 1], 2, 1, 100.0) - 500.0).abs() < 1e-9);
    }
}
