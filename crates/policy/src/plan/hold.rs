//! Room that frees in time is kept for what waits longest for it: those behind it may use that room only as far as they
//! are gone by then, or leave enough of it.
//!
//! It is found anew in each plan, in the one order: it needs no memory of its own and ends with its reason. Not here:
//! room that is being freed already (`scripts`).

use model::Millis;

use super::draft::{Desk, Draft};
use super::scripts::{Seeker, expected};
use crate::forecast::{Pace, expected_end};
use crate::room::{Holder, When};

/// A desk that something of a higher rank waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    /// When its room is expected to be free.
    pub at: Millis,
    /// What it then leaves, in MiB.
    pub spare: u64,
}

impl Hold {
    /// Whether this task is not in its way.
    pub(super) fn admits(&self, draft: &Draft<'_>, desk: &Desk<'_>, seeker: &Seeker<'_>) -> bool {
        let fits_beside = seeker.need.counted.is_some_and(|mib| mib <= self.spare);
        fits_beside || {
            let at = draft.desks.iter().position(|other| other.gpu.facts.uuid == desk.gpu.facts.uuid);
            at.is_some_and(|at| draft.now + expected(draft, at, seeker) < self.at)
        }
    }
}

/// Keeps the desk where this script fits first, by the expected ends of what runs.
pub(super) fn for_script(draft: &mut Draft<'_>, able: &[usize], seeker: &Seeker<'_>) {
    if !draft.is_mixed {
        return;
    }
    let scripts = |desk: &Desk<'_>| desk.load > 0 && desk.llm.is_none() && desk.hold.is_none();
    let able = able.iter().copied().filter(|at| scripts(&draft.desks[*at]));
    let found = able.filter_map(|at| Some((frees_for(draft, at, seeker)?, at)));
    if let Some((hold, at)) = found.min_by_key(|(hold, at)| (hold.at, *at)) {
        draft.desks[at].hold = Some(hold);
    }
}

/// Keeps a desk that has to be empty, such as for an LLM, once what runs there has ended.
pub(super) fn for_all_of_it(draft: &mut Draft<'_>, at: usize) {
    let ends = ends(draft, at).last().map_or(draft.now, |(end, _)| *end);
    draft.desks[at].hold = Some(Hold { at: ends, spare: 0 });
}

/// When everything that runs on a desk is expected to have ended.
pub(super) fn empty_at(draft: &Draft<'_>, at: usize) -> Millis {
    ends(draft, at).last().map_or(draft.now, |(end, _)| *end)
}

fn frees_for(draft: &Draft<'_>, at: usize, seeker: &Seeker<'_>) -> Option<Hold> {
    let mut room = draft.desks[at].room.clone();
    for (end, who) in ends(draft, at) {
        if let Some(line) = room.lines.iter_mut().find(|line| line.who == who) {
            line.units = line.units.saturating_sub(1);
            line.busy = line.busy.min(line.units);
        }
        if let Some(left) = room.leftover(When::Cleared, seeker.who, seeker.need) {
            return Some(Hold { at: end, spare: left.map_or(0, |left| room.shared(left)) });
        }
    }
    None
}

/// The expected ends of a desk's units, those included that this plan starts; the first one first.
pub(super) fn ends<'w>(draft: &Draft<'w>, at: usize) -> Vec<(Millis, Holder<'w>)> {
    let desk = &draft.desks[at];
    let mut ends = desk.ends.get_or_init(|| ends_of_running(draft, desk)).clone();
    ends.extend(&desk.starts);
    ends.sort_by_key(|(end, _)| *end);
    ends
}

fn ends_of_running<'w>(draft: &Draft<'w>, desk: &Desk<'w>) -> Vec<(Millis, Holder<'w>)> {
    let world = draft.world;
    let live = world.units_on(desk.worker).filter(|unit| unit.is_live());
    let live = live.filter_map(|unit| {
        let who = Holder::of(unit.shape.host()?);
        Some((expected_end(world, draft.now, desk.worker, unit, Pace::Usual), who))
    });
    let claims = desk.worker.claims.iter().filter_map(|entry| world.claims.get(entry));
    let claims = claims.filter_map(|claim| {
        let run = world.memory.run(&world.config, &claim.task, None, Some(&desk.gpu.facts.name)).p50;
        Some((draft.now + run, Holder::of(claim.queued.shape.host()?)))
    });
    live.chain(claims).collect()
}
