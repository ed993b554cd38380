//! LLMs that make room for scripts outside exclusive mode: the facts for the rule, and doing what it says.
//!
//! No request is cut: an idle LLM is unloaded, a busy one gets no further requests and goes when they have ended. What
//! becomes free is kept for the script it was made for, for a while.

mod facts;

use model::{Millis, Reason, Saying, TaskClass};

use super::draft::Draft;
use super::fill::Left;
use crate::action::Action;
use crate::evict::{Candidate, Eviction, Judge, Keeping, Ruling};
use crate::shape::Shape;
use crate::world::World;
pub(super) use facts::UNLOAD_PRIOR;
use facts::{Backlog, Facts, Unfit, facts};

/// How long room that was made is kept for whom it was made, beyond what the unload should take.
const KEPT: Millis = Millis::from_secs(60);

/// Before anything is filled: an LLM that should drain gets no new requests.
pub(super) fn drain(draft: &mut Draft<'_>, judge: &dyn Judge) {
    if draft.exclusive.is_some() {
        return;
    }
    let mut backlog = Backlog::of_queue(draft);
    backlog.leave_out(coming(draft));
    let Some((at, eviction)) = chosen(draft, &backlog, judge) else { return };
    if draft.desks[at].load > 0 {
        draft.take(at);
    } else if eviction.firm {
        make_room(draft, at, &backlog, &eviction);
    } else {
        return;
    }
    draft.drained += 1;
}

/// After everything is filled: idle LLMs go, one for each script that the rule still speaks for.
pub(super) fn evict<'w>(draft: &mut Draft<'w>, left: &[Left<'w>], judge: &dyn Judge) {
    let mut backlog = Backlog::of_left(draft, left);
    backlog.leave_out(draft.drained);
    while let Some((at, eviction)) = chosen(draft, &backlog, judge) {
        if !draft.desks[at].is_idle_llm() {
            return;
        }
        make_room(draft, at, &backlog, &eviction);
        backlog.leave_out(1);
    }
}

/// What the rule of eviction will do for the scripts that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// An LLM makes room.
    At {
        /// When, if nothing else happens until then.
        expected: Millis,
        /// When at the latest; never, where no rule says so.
        latest: Option<Millis>,
    },
    /// None does while things are as they are.
    Never,
    /// Nobody can say.
    Unknown,
}

/// How often the rule is asked what it will say later.
const QUESTIONS: usize = 16;

pub(super) fn outlook(draft: &Draft<'_>, judge: &dyn Judge) -> Outlook {
    let mut backlog = Backlog::of_queue(draft);
    backlog.leave_out(coming(draft));
    foreseen(draft, &backlog, judge).0
}

/// What the rule will say at the instants it names, and until then the young ones at theirs; and the first of these.
fn foreseen(draft: &Draft<'_>, backlog: &Backlog<'_>, judge: &dyn Judge) -> (Outlook, Option<Millis>) {
    let (mut at, mut latest, mut again_at) = (draft.now, None, None);
    for _ in 0..QUESTIONS {
        let next = match facts(draft, backlog, at).map(|facts| judge.rule(&facts.facts)) {
            Ok(Ruling::Evict(_)) => {
                return (Outlook::At { expected: at, latest: Some(latest.unwrap_or(at).max(at)) }, again_at);
            }
            Ok(Ruling::Keep(keeping)) => {
                latest = keeping.latest.map(|latest| latest.max(at));
                keeping.again_at
            }
            Err(Unfit::Young { until, .. }) => Some(until),
            Err(Unfit::Reserved { until }) => {
                let found = |until| Outlook::At { expected: until, latest: Some(until) };
                return (until.map_or(Outlook::Never, found), again_at.or(until));
            }
            Err(Unfit::Nobody) => return (Outlook::Unknown, again_at),
        };
        let Some(next) = next.filter(|next| *next > at) else { break };
        again_at.get_or_insert(next);
        at = next;
    }
    let found = |latest| Outlook::At { expected: latest, latest: Some(latest) };
    (latest.map_or(Outlook::Unknown, found), again_at)
}

/// When an LLM makes room at the latest for a task that needs several GPUs, by the rule in force; none where nobody can
/// say. Wakes when the rule wants to be asked again.
pub(super) fn leaves_for<'w>(
    draft: &mut Draft<'w>,
    judge: &dyn Judge,
    item: &'w crate::queue::Queued,
) -> Option<Millis> {
    if draft.exclusive.as_ref().is_some_and(|exclusive| exclusive.has(item.shape.batch.as_ref())) {
        return Some(draft.now);
    }
    let (outlook, again_at) = foreseen(draft, &Backlog::of_one(draft, item), judge);
    again_at.into_iter().for_each(|time| draft.wake(time));
    match outlook {
        Outlook::At { latest, .. } => latest,
        Outlook::Never | Outlook::Unknown => None,
    }
}

/// The desk whose LLM goes, if any does; wakes when the rule wants to be asked again.
fn chosen(draft: &mut Draft<'_>, backlog: &Backlog<'_>, judge: &dyn Judge) -> Option<(usize, Eviction)> {
    match facts(draft, backlog, draft.now) {
        Ok(Facts { facts, desks }) => match judge.rule(&facts) {
            Ruling::Evict(eviction) => return desks.get(eviction.victim).map(|at| (*at, eviction)),
            Ruling::Keep(Keeping { again_at, .. }) => again_at.into_iter().for_each(|time| draft.wake(time)),
        },
        Err(Unfit::Young { until, .. }) => draft.wake(until),
        Err(Unfit::Reserved { until }) => until.into_iter().for_each(|time| draft.wake(time)),
        Err(Unfit::Nobody) => {}
    }
    None
}

fn make_room(draft: &mut Draft<'_>, at: usize, backlog: &Backlog<'_>, eviction: &Eviction) {
    let desk = &draft.desks[at];
    let (Some(first), Some(llm)) = (backlog.first_on(desk), &desk.llm) else { return };
    let saying = Saying::Evicts {
        gpu: desk.gpu.key(),
        model: llm.model.to_owned(),
        task: first.task_id.clone(),
        scripts: backlog.count(),
        rule: eviction.rule,
        benefit_s: eviction.benefit_s,
        cost_s: eviction.cost_s,
    };
    draft.act(Action::Say(saying));
    reserve(draft, at, &first.task_id);
    draft.order_engine(at, None);
}

/// Keeps the room that an LLM makes for the task it is made for.
pub(super) fn reserve(draft: &mut Draft<'_>, at: usize, task_id: &model::TaskId) {
    let gpu = draft.desks[at].gpu;
    draft.act(Action::Reserve {
        gpu: gpu.facts.uuid.clone(),
        task_id: task_id.clone(),
        until: draft.now + UNLOAD_PRIOR + gpu.cooling + KEPT,
    });
}

/// Why no LLM makes room for the scripts that wait, and when one does at the latest; none where nothing keeps one.
pub(crate) fn kept(world: &World, now: Millis, judge: &dyn Judge) -> Option<Reason> {
    let draft = Draft::new(world, now);
    let mut backlog = Backlog::of_queue(&draft);
    backlog.leave_out(coming(&draft));
    let facts = match facts(&draft, &backlog, now) {
        Ok(facts) => facts.facts,
        Err(Unfit::Young { at, until }) => {
            let desk = &draft.desks[at];
            let model = desk.llm.as_ref().map(|llm| llm.model.to_owned()).unwrap_or_default();
            let in_s = (until - now).as_secs_f64().max(0.0);
            return Some(Reason::LlmYoung { model, gpu: desk.gpu.key(), in_s });
        }
        Err(Unfit::Reserved { until }) => {
            let reserved = world.config.resource_manager.eviction_policy.reserve_for_chat;
            let latest_in_s = until.map(|until| (until - now).as_secs_f64().max(0.0));
            return Some(Reason::LlmReserved { reserved, latest_in_s });
        }
        Err(Unfit::Nobody) => return None,
    };
    let Ruling::Keep(Keeping { benefit_s, cost_s, latest, .. }) = judge.rule(&facts) else { return None };
    let latest_in_s = latest.map(|latest| (latest - now).as_secs_f64().max(0.0));
    Some(Reason::LlmKept { backlog: facts.scripts.count, benefit_s, cost_s, latest_in_s })
}

/// GPUs without an LLM that are free for a script, or about to be.
fn coming(draft: &Draft<'_>) -> u64 {
    use model::GpuState::{Cooling, Idle};
    let coming = draft.desks.iter().filter(|desk| {
        let free = matches!(desk.state, Idle | Cooling) && desk.llm.is_none() && !desk.reserved;
        free && desk.load == 0 && draft.world.takes_scripts(desk.gpu)
    });
    coming.count() as u64
}

fn is_for_gpu(shape: &Shape) -> bool {
    shape.class() == TaskClass::Script && !shape.in_cpu_lane()
}
