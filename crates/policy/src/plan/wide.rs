//! Tasks that need several GPUs at once: the first of them that cannot start has GPUs kept for it, and what starts there
//! meanwhile ends before (EASY backfilling).
//!
//! ```text
//! enough GPUs are empty, or about to be ─► it starts; idle hosts leave first
//! else the n that are free first are kept: until the last of them is expected free, T,
//!      smaller work starts there only if nine times of ten it ends before T, or if it goes before the task anyway
//! an LLM among them goes when nothing else is missing, by the rule of eviction
//! ```
//!
//! **The bound.** What is kept stays kept until the task starts, and an empty GPU takes the place of a busy one. Once the
//! task has waited `AGED`, nothing that came later starts there but what ends before T,
//! chatbots included; and what was started there since counts for nothing when T moves, so that T moves no further than to
//! the end of what ran there before. From then on it waits for what runs on those GPUs and for nothing that is new.
//!
//! Not here: what the world remembers of it (`wide`).

use model::task::Work;
use model::{Entry, GpuState, GpuUuid, Millis, Saying};

use super::draft::{Desk, Draft};
use super::evict::leaves_for;
use super::fill::Placed;
use super::ram;
use super::span;
use crate::action::Action;
use crate::evict::Judge;
use crate::forecast::{Pace, expected_end};
use crate::order::Rank;
use crate::place;
use crate::queue::Queued;
use crate::room::{Holder, When};
use crate::shape::Shape;
use crate::unit::Unit;

/// The task that GPUs are kept for, as this plan has it.
pub(super) struct Reserved<'w> {
    pub item: &'w Queued,
    rank: Rank,
    /// What starts on its desks ends before.
    pub limit: Millis,
    /// Nothing goes before it any more that came later.
    firm: bool,
}

/// Takes over what is kept already, before anything is decided.
pub(super) fn take_over(draft: &mut Draft<'_>) {
    let world = draft.world;
    // While another type has to start first nothing is kept for it, or that one might wait for it in turn; and nothing for
    // an LLM task that an exclusive batch holds back.
    let exclusive = draft.exclusive.is_some();
    let may_start = |item: &Queued| {
        let is_held = exclusive && item.shape.host().is_none();
        let has_turn = !world.turns.must_wait(world.grants(false), &item.task.job_type);
        !is_held && has_turn && world.misfit(&item.shape).is_none()
    };
    let Some((kept, item)) = world.kept_gpus().filter(|(_, item)| may_start(item)) else { return };
    for desk in &mut draft.desks {
        desk.reserved = kept.gpus.contains(&desk.gpu.facts.uuid) && is_able(world, desk, &item.shape);
    }
    // What ran there before may take longer than was expected; what was let in meanwhile may not.
    let mut end_of_first = draft.now;
    let mut end = draft.now;
    for at in (0..draft.desks.len()).filter(|at| draft.desks[*at].reserved) {
        let desk = &draft.desks[at];
        if desk.llm.is_some() {
            end = end.max(kept.until);
            continue;
        }
        let first = |unit: &Unit| unit.ordered_at <= kept.since;
        end_of_first = end_of_first.max(ends(draft, at, &first).unwrap_or(draft.now));
        end = end.max(ends(draft, at, &|_| true).unwrap_or(draft.now));
    }
    let limit = end.min(kept.until.max(end_of_first));
    draft.reserved = Some(reserve(draft, item, limit));
}

fn reserve<'w>(draft: &Draft<'w>, item: &'w Queued, limit: Millis) -> Reserved<'w> {
    let world = draft.world;
    let firm = world.firm_at(item) <= draft.now;
    Reserved { item, rank: item.rank(world.ageing(), draft.now), limit, firm }
}

impl Reserved<'_> {
    /// Whether this task goes before it.
    fn is_behind(&self, rank: Rank) -> bool {
        rank < self.rank && (!self.firm || rank.arrival < self.rank.arrival)
    }
}

impl<'w> Draft<'w> {
    /// Whether a task may start on a desk as far as GPUs are kept for another one: it goes before that, or ends before.
    pub(super) fn admits(&self, at: usize, item: &Queued) -> bool {
        let desk = &self.desks[at];
        let Some(reserved) = self.reserved.as_ref().filter(|_| desk.reserved) else { return true };
        reserved.item.task.task_id == item.task.task_id
            || reserved.is_behind(item.rank(self.world.ageing(), self.now))
            || self
                .ends_within(desk, item)
                .is_some_and(|run| self.now + self.cold_start(at, item) + run <= reserved.limit)
    }

    /// Whether an LLM may be loaded for a task on a desk, as far as GPUs are kept for another one.
    pub(super) fn may_load(&self, desk: &Desk<'_>, item: &Queued) -> bool {
        let reserved = self.reserved.as_ref().filter(|_| desk.reserved);
        reserved.is_none_or(|reserved| reserved.is_behind(item.rank(self.world.ageing(), self.now)))
    }

    /// Whether nothing that waits only since then starts on a desk any more, but what is short enough.
    pub(super) fn is_firmly_kept(&self, desk: &Desk<'_>, since: Millis) -> bool {
        let reserved = self.reserved.as_ref().filter(|reserved| desk.reserved && reserved.firm);
        reserved.is_some_and(|reserved| since >= reserved.item.since)
    }

    /// How long it takes nine times of ten, or at most; none where nobody knows.
    fn ends_within(&self, desk: &Desk<'_>, item: &Queued) -> Option<Millis> {
        let (world, task) = (self.world, &item.task);
        let llm = desk.llm.as_ref().map(|llm| llm.model);
        let gpu = Some(desk.gpu.facts.name.as_str());
        if world.memory.knows_run(&world.config, task, llm, gpu) {
            return Some(world.memory.run(&world.config, task, llm, gpu).p90.max(Millis(1)));
        }
        let of_class = match &task.work {
            Work::Llm(_) => {
                let preset = desk.llm.as_ref().and_then(|llm| world.config.preset(llm.preset));
                preset.map_or(0.0, |preset| preset.request_timeout_s)
            }
            Work::Script(_) => world.config.timing.script_timeout_s,
        };
        let limit = task.timeout_s.unwrap_or(of_class);
        (limit > 0.0).then(|| Millis::from_secs_f64(limit).max(Millis(1)))
    }

    /// What a script's host takes to load where none waits for it.
    fn cold_start(&self, at: usize, item: &Queued) -> Millis {
        let Some(key) = item.shape.host().filter(|key| key.warm) else { return Millis::ZERO };
        let waits = |line: &crate::room::Line<'_>| line.loaded > line.units;
        let is_warm = self.desks[at].room.line(Holder::of(key)).is_some_and(waits);
        if is_warm { Millis::ZERO } else { self.world.memory.host_boot(&self.world.config, key).p90 }
    }
}

/// GPUs that a task may not start on because they are kept for another one: that one, and when they should be free.
pub(crate) fn refusing<'w>(
    world: &'w crate::World,
    now: Millis,
    item: &Queued,
) -> Option<(Vec<&'w GpuUuid>, &'w Queued, Millis)> {
    world.kept_gpus()?;
    let draft = Draft::new(world, now);
    let reserved = draft.reserved.as_ref()?;
    let refuses = |at: &usize| !draft.admits(*at, item);
    let desks = (0..draft.desks.len()).filter(refuses).map(|at| &draft.desks[at].gpu.facts.uuid);
    Some((desks.collect(), reserved.item, reserved.limit))
}

/// Whether a desk could ever be one of the GPUs of a task.
fn is_able(world: &crate::World, desk: &Desk<'_>, shape: &Shape) -> bool {
    world.could_be_one_for(desk.gpu, shape)
}

/// Whether nothing runs on a desk nor will, and how far it is from being empty: 0 is there, 1 has idle hosts, 2 cools.
pub(super) fn emptiness(desk: &Desk<'_>) -> Option<u8> {
    if desk.load > 0 || desk.taken || desk.llm.is_some() || desk.promised.is_some() {
        return None;
    }
    match desk.state {
        GpuState::Idle if desk.room.is_empty(When::Now) => Some(0),
        GpuState::Idle if desk.room.is_empty(When::Cleared) => Some(1),
        GpuState::Idle | GpuState::Cooling if desk.frees_soon(false) || desk.is_coming() => Some(2),
        _ => None,
    }
}

pub(super) fn place<'w>(
    draft: &mut Draft<'w>,
    judge: &dyn Judge,
    entry: &'w Entry,
    item: &'w Queued,
) -> Placed {
    let world = draft.world;
    // One that is loaded already serves where it is.
    let model = world.spanning_model(&item.shape).map(|(name, _)| name);
    let has_it = |desk: &Desk<'_>| model.is_some() && desk.llm.as_ref().map(|llm| llm.model) == model;
    let able = |desk: &Desk<'_>| is_able(world, desk, &item.shape) && !has_it(desk);
    let able: Vec<usize> = (0..draft.desks.len()).filter(|at| able(&draft.desks[*at])).collect();
    span::mind_failures(draft, &able, &item.shape);
    let empty = able.iter().copied().filter(|at| {
        let desk = &draft.desks[*at];
        let is_free = desk.hold.is_none() && !desk.is_kept_from(Some(&item.shape));
        is_free && draft.admits(*at, item)
    });
    let empty = empty.filter_map(|at| Some((emptiness(&draft.desks[at])?, at)));
    if let Some(desks) = best(draft, &item.shape, empty.map(|(far, at)| (Millis(i64::from(far)), at))) {
        return take(draft, entry, item, &desks);
    }
    keep(draft, judge, item, &able);
    span::make_room(draft, item);
    Placed::No
}

/// As many as the task needs: the soonest, then those that are left with least; the first one is the lead.
fn best(
    draft: &Draft<'_>,
    shape: &Shape,
    among: impl Iterator<Item = (Millis, usize)>,
) -> Option<Vec<usize>> {
    let fit = |at: usize| {
        let facts = &draft.desks[at].gpu.facts;
        (draft.desks[at].gpu.health, facts.total_mib.unwrap_or(u64::MAX), facts.index)
    };
    let mut all: Vec<_> = among.map(|(time, at)| (time, fit(at), at)).collect();
    all.sort();
    let leads = |at: usize| {
        let is_wanted = place::is_wanted(shape, &draft.desks[at].gpu.facts);
        is_wanted && (shape.host().is_some() || span::may_lead(draft, at, shape))
    };
    let lead = all.iter().position(|(.., at)| leads(*at))?;
    let lead = all.remove(lead).2;
    let others = all.into_iter().map(|(.., at)| at).take(shape.gpus() - 1);
    let desks: Vec<usize> = std::iter::once(lead).chain(others).collect();
    (desks.len() == shape.gpus()).then_some(desks)
}

/// Starts it on these desks, or lets what is idle there leave first.
fn take<'w>(draft: &mut Draft<'w>, entry: &'w Entry, item: &'w Queued, desks: &[usize]) -> Placed {
    let are_empty = desks.iter().all(|at| emptiness(&draft.desks[*at]) == Some(0));
    let is_script = item.shape.host().is_some();
    if are_empty && is_script && !ram::allows(draft, item, true) {
        return Placed::Covered;
    }
    if are_empty && !is_script {
        span::start(draft, item, desks);
        if draft.is_kept_for(item) {
            draft.release();
        }
        return Placed::Yes;
    }
    let uuids: Vec<GpuUuid> = desks.iter().map(|at| draft.desks[*at].gpu.facts.uuid.clone()).collect();
    if are_empty {
        draft.say(Saying::StartsOnGpus {
            task: item.task.task_id.clone(),
            gpus: draft.world.keys_of(&uuids),
            waited_s: (draft.now - item.since).as_secs_f64().max(0.0),
        });
        let worker = draft.desks[desks[0]].worker.id.clone();
        draft.start_on(entry, &worker, &item.task, uuids);
        if draft.is_kept_for(item) {
            draft.release();
        }
    }
    for at in desks {
        if are_empty {
            draft.desks[*at].load += 1;
        } else if emptiness(&draft.desks[*at]) == Some(1) {
            draft.clear_hosts(*at);
        }
        draft.desks[*at].taken = true;
    }
    Placed::Yes
}

impl Draft<'_> {
    /// Whether GPUs are kept for this task.
    pub(super) fn is_kept_for(&self, item: &Queued) -> bool {
        self.reserved.as_ref().is_some_and(|reserved| reserved.item.task.task_id == item.task.task_id)
    }

    fn release(&mut self) {
        self.reserved = None;
        self.desks.iter_mut().for_each(|desk| desk.reserved = false);
    }
}

/// Keeps the GPUs that are free first, or goes on keeping them: an empty one takes the place of a busy one.
fn keep<'w>(draft: &mut Draft<'w>, judge: &dyn Judge, item: &'w Queued, able: &[usize]) {
    let now = draft.now;
    if let Some(reserved) = &draft.reserved
        && !draft.is_kept_for(item)
    {
        let rank = item.rank(draft.world.ageing(), now);
        if reserved.firm || rank.urgency >= reserved.rank.urgency {
            return;
        }
    }
    // What is kept for the one before stays so where this one finds none.
    let is_ours = draft.is_kept_for(item);
    let llm_leaves = if item.shape.host().is_none() {
        Some(now)
    } else if able.iter().any(|at| draft.desks[*at].llm.is_some()) {
        leaves_for(draft, judge, item)
    } else {
        None
    };
    let before: Vec<usize> = able.iter().copied().filter(|at| is_ours && draft.desks[*at].reserved).collect();
    let is_whole = before.len() == item.shape.gpus();
    let times = able.iter().filter_map(|at| {
        let desk = &draft.desks[*at];
        let is_empty = emptiness(desk).is_some() && !desk.is_kept_from(Some(&item.shape));
        // What is kept stays so; empty ones come next, and others only where some are missing.
        let is_kept = is_ours && desk.reserved;
        let place = match (is_empty, is_kept) {
            (true, true) => 0,
            (true, false) => 1,
            (false, true) => 2,
            (false, false) if is_whole => return None,
            (false, false) => 3,
        };
        let free_at = frees_at(draft, *at, llm_leaves);
        let free_at = if is_kept { Some(free_at.unwrap_or(Millis(i64::MAX))) } else { free_at };
        Some((place, free_at?, *at))
    });
    let mut times: Vec<(i64, Millis, usize)> = times.collect();
    times.sort();
    let order = times.iter().enumerate();
    let order: Vec<(Millis, usize)> = if is_ours {
        order.map(|(turn, (.., at))| (Millis(i64::try_from(turn).unwrap_or(i64::MAX)), *at)).collect()
    } else {
        times.iter().map(|(_, free_at, at)| (*free_at, *at)).collect()
    };
    let Some(desks) = best(draft, &item.shape, order.into_iter()) else { return };
    let is_as_before = is_whole && desks.iter().all(|at| draft.desks[*at].reserved);
    // An LLM that was to have left by then, and that the rule keeps: until its bound what is short may go on there,
    // requests first.
    let stays = |at: &usize| draft.desks[*at].llm.is_some() && !draft.desks[*at].taken;
    let is_kept_there = item.shape.host().is_some() && desks.iter().any(stays);
    let limit = draft.reserved.as_ref().filter(|reserved| !reserved.firm).map(|reserved| reserved.limit);
    let rule_keeps_it = llm_leaves.is_none_or(|leaves| leaves > now);
    let limit = limit.filter(|_| is_whole && is_kept_there && rule_keeps_it);
    let is_late = limit.is_some_and(|limit| draft.is_time(limit));
    if is_as_before && !is_late {
        return;
    }
    let firm_at = draft.world.firm_at(item);
    let until = desks.iter().filter_map(|at| frees_at(draft, *at, llm_leaves.or(Some(firm_at)))).max();
    let until = until.unwrap_or(now);
    let until = match &draft.reserved {
        _ if is_late => until.min(firm_at),
        // One empty GPU more: nothing is later for that.
        Some(reserved) if is_whole => until.min(reserved.limit.max(now)),
        _ => until,
    };
    if is_as_before && until <= now {
        return;
    }
    say_that_they_are_kept(draft, item, &desks, until);
}

fn say_that_they_are_kept<'w>(draft: &mut Draft<'w>, item: &'w Queued, desks: &[usize], until: Millis) {
    let gpus: Vec<GpuUuid> = desks.iter().map(|at| draft.desks[*at].gpu.facts.uuid.clone()).collect();
    let task_id = item.task.task_id.clone();
    if !item.told_kept {
        draft.say(Saying::KeepsGpus {
            task: task_id.clone(),
            gpus: draft.world.keys_of(&gpus),
            count: u32::try_from(item.shape.gpus()).unwrap_or(u32::MAX),
            waited_s: (draft.now - item.since).as_secs_f64().max(0.0),
            free_in_s: (until - draft.now).as_secs_f64().max(0.0),
        });
    }
    draft.act(Action::Keep { task_id, gpus, until });
    draft.release();
    for at in desks {
        draft.desks[*at].reserved = true;
    }
    draft.reserved = Some(reserve(draft, item, until));
}

/// When a desk is expected to be empty, nine times of ten; none where nobody can say.
fn frees_at(draft: &Draft<'_>, at: usize, llm_leaves: Option<Millis>) -> Option<Millis> {
    let (world, desk) = (draft.world, &draft.desks[at]);
    if emptiness(desk).is_some() {
        return Some(desk.gpu.cooled_at().unwrap_or(draft.now).max(draft.now));
    }
    if desk.taken || desk.promised.is_some() || (desk.load == 0 && desk.llm.is_none()) {
        return None;
    }
    let ends = ends(draft, at, &|_| true).unwrap_or(draft.now);
    let Some(llm) = &desk.llm else { return Some(ends) };
    let loaded = if llm.ready {
        draft.settled_at(at)
    } else {
        llm.worker.engine_at + world.memory.llm_boot(&world.config, llm.preset, llm.model).p90
    };
    Some(ends.max(loaded).max(llm_leaves?) + super::evict::UNLOAD_PRIOR + desk.gpu.cooling)
}

/// When the last of these units of a desk, of what is on its way to it and of what this plan starts there, should end.
fn ends(draft: &Draft<'_>, at: usize, wanted: &dyn Fn(&Unit) -> bool) -> Option<Millis> {
    let (world, desk) = (draft.world, &draft.desks[at]);
    let live = world.units_on(desk.worker).filter(|unit| unit.is_live() && wanted(unit));
    let live = live.map(|unit| expected_end(world, draft.now, desk.worker, unit, Pace::Slow));
    let claims = desk.worker.claims.iter().filter_map(|entry| world.claims.get(entry));
    let gpu = Some(desk.gpu.facts.name.as_str());
    let claims = claims.map(|claim| draft.now + world.memory.run(&world.config, &claim.task, None, gpu).p90);
    live.chain(claims).chain(desk.starts.iter().map(|(end, _)| *end)).max()
}

/// How many LLMs have to make room for the task that GPUs are kept for: none while it waits for anything else too.
pub(super) fn llms_missing(draft: &Draft<'_>, shape: &Shape) -> u64 {
    let is_it = |reserved: &Reserved<'_>| reserved.item.shape == *shape;
    if !draft.reserved.as_ref().is_some_and(is_it) {
        return 0;
    }
    let kept = || draft.desks.iter().filter(|desk| desk.reserved);
    let (loaded, others): (Vec<&Desk<'_>>, Vec<&Desk<'_>>) = kept().partition(|desk| desk.llm.is_some());
    let is_whole = loaded.len() + others.len() == shape.gpus();
    if !is_whole || !others.iter().all(|desk| emptiness(desk).is_some()) {
        return 0;
    }
    loaded.len() as u64
}
