//! Scripts wait while the machine's memory is short, and go on after `ram_wait_s`: by `guarded`, one at a time and only
//! when nothing of ours runs that could give memory back; by `proceed`, the seed's literal rule, in any case.

use model::config::RamWaitOver;
use model::{Millis, Saying};

use super::draft::Draft;
use crate::queue::Queued;
use crate::ram::SCRIPT_MIB;

/// What this plan has left of the machine's memory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Guard {
    /// What was available less what was promised, in MiB; none until somebody asks.
    free: Option<u64>,
    /// Whether a script found its place on a GPU and too little of this memory.
    pub refused: bool,
    /// Whether a start went on although memory is short: one a plan.
    went_on: bool,
}

/// Whether a script may start as far as the machine's memory goes. A `cold` one takes some of it.
pub(super) fn allows(draft: &mut Draft<'_>, item: &Queued, cold: bool) -> bool {
    let world = draft.world;
    let (Some(ram), least) = (world.ram, world.least_ram_mib()) else { return true };
    if least == 0 {
        return true;
    }
    if let Some(free) = world.low_ram() {
        return goes_on_all_the_same(draft, item, free);
    }
    let free = draft.ram.free.unwrap_or_else(|| {
        let pledged = world.ram_pledges(draft.now).len() as u64;
        ram.available_mib.saturating_sub(pledged * SCRIPT_MIB)
    });
    if free < least {
        // What was just started takes the rest until a reading shows how much it is.
        world.ram_pledges(draft.now).into_iter().for_each(|until| draft.wake(until));
        return false;
    }
    draft.ram.free = Some(free.saturating_sub(if cold { SCRIPT_MIB } else { 0 }));
    true
}

fn goes_on_all_the_same(draft: &mut Draft<'_>, item: &Queued, free: u64) -> bool {
    let world = draft.world;
    let free_gb = gb(free);
    let Some(wait) = world.ram_wait else {
        if !draft.ram.went_on {
            draft.ram.went_on = true;
            draft.say(Saying::RamLow { free_gb });
        }
        return false;
    };
    let over = wait.since + Millis::from_secs_f64(world.config.resource_manager.ram_wait_s);
    if !draft.is_time(over) || draft.ram.went_on {
        return false;
    }
    let guarded = world.config.resource_manager.ram_wait_over == RamWaitOver::Guarded;
    if guarded && world.runs_something() {
        return false;
    }
    draft.ram.went_on = true;
    let (task, waited_s) = (item.task.task_id.clone(), (draft.now - wait.since).as_secs_f64());
    draft.say(Saying::RamWaitOver { task, free_gb, waited_s });
    true
}

#[expect(clippy::cast_precision_loss, reason = "told with one digit")]
pub(crate) fn gb(mib: u64) -> f64 {
    mib as f64 / 1_024.0
}
