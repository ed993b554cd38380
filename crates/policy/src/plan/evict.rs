//! LLMs that make room for scripts outside exclusive mode: the facts for the rule, and doing what it says.
//!
//! No request is cut: an idle LLM is unloaded, a busy one gets no further requests and goes when they have ended.

mod facts;

use model::TaskClass;

use super::draft::Draft;
use super::fill::Left;
use crate::evict::{Candidate, Eviction, Judge, Ruling};
use crate::queue::Shape;
use facts::{Backlog, Facts, facts};

/// Before anything is filled: an LLM that should drain gets no new requests.
pub(super) fn drain(draft: &mut Draft<'_>, judge: &dyn Judge) {
    if draft.exclusive.is_some() {
        return;
    }
    let mut backlog = Backlog::of_queue(draft);
    backlog.leave_out(coming(draft));
    let Some((at, ruling)) = chosen(draft, &backlog, judge) else { return };
    if ruling.firm || draft.desks[at].load > 0 {
        draft.drained += 1;
        if draft.desks[at].load == 0 {
            draft.order_engine(at, None);
        }
        draft.desks[at].taken = true;
    }
}

/// After everything is filled: idle LLMs go, one for each script that the rule still speaks for.
pub(super) fn evict(draft: &mut Draft<'_>, left: &[Left<'_>], judge: &dyn Judge) {
    let mut backlog = Backlog::of_left(draft, left);
    backlog.leave_out(draft.drained);
    while let Some((at, _)) = chosen(draft, &backlog, judge).filter(|(at, _)| draft.desks[*at].is_idle_llm())
    {
        draft.order_engine(at, None);
        backlog.leave_out(1);
    }
}

/// The desk whose LLM goes, if any does; wakes when the rule wants to be asked again.
fn chosen(draft: &mut Draft<'_>, backlog: &Backlog<'_>, judge: &dyn Judge) -> Option<(usize, Eviction)> {
    let Facts { facts, desks } = facts(draft, backlog)?;
    match judge.rule(&facts) {
        Ruling::Evict(eviction) => desks.get(eviction.victim).map(|at| (*at, eviction)),
        Ruling::Keep(keeping) => {
            if let Some(time) = keeping.again_at {
                draft.wake(time);
            }
            None
        }
    }
}

/// GPUs without an LLM that are free for a script, or about to be.
fn coming(draft: &Draft<'_>) -> u64 {
    use model::GpuState::{Cooling, Idle};
    let coming = draft.desks.iter().filter(|desk| {
        let free = matches!(desk.state, Idle | Cooling) && desk.llm.is_none();
        free && desk.load == 0 && draft.world.takes_scripts(desk.gpu)
    });
    coming.count() as u64
}

fn is_for_gpu(shape: &Shape) -> bool {
    shape.class() == TaskClass::Script && !shape.in_cpu_lane()
}
