//! Where a script task goes: where its host is loaded, else where nothing is, else where another host can leave.

use model::link::HostOrder;
use model::{Entry, Millis};

use super::draft::{Desk, Draft};
use super::fill::Placed;
use crate::place;
use crate::queue::{HostKey, Queued};

/// Orders are given ahead only while they should take no longer than this all together: never by count.
pub(super) const AHEAD: Millis = Millis(20);

pub(super) fn place<'w>(draft: &mut Draft<'w>, entry: &'w Entry, item: &'w Queued) -> Placed {
    let Some(host) = item.shape.host() else { return Placed::No };
    let able: Vec<usize> = (0..draft.desks.len())
        .filter(|at| {
            let desk = &draft.desks[*at];
            let open = draft.world.takes_scripts(desk.gpu) && !desk.is_kept_from(Some(&item.shape));
            open && place::fits(&item.shape, &desk.gpu.facts)
        })
        .collect();
    // The smallest GPU that will do, so that the large ones stay free for what needs them.
    let best = |wanted: &dyn Fn(&Desk<'_>) -> bool| {
        let desks = able.iter().copied().filter(|at| wanted(&draft.desks[*at]));
        desks.min_by_key(|at| {
            let desk = &draft.desks[*at];
            let total = if item.shape.needs.vram_mib.is_some() { desk.gpu.facts.total_mib } else { None };
            (desk.gpu.health, total, desk.gpu.facts.index)
        })
    };
    let has_room = |desk: &Desk<'_>| desk.gpu.has_room_for(&item.shape);
    let start_here =
        best(&|desk| desk.is_idle() && desk.worker.has_host(host) && !desk.has_other_resident(host))
            .or_else(|| best(&|desk| desk.is_idle() && !desk.has_resident() && has_room(desk)))
            .or_else(|| best(&|desk| ahead_fits(draft, desk, host, item)));
    if let Some(at) = start_here {
        start(draft, at, host, entry, item);
        return Placed::Yes;
    }
    if let Some(at) = best(&|desk| desk.is_coming()) {
        draft.desks[at].taken = true;
        return Placed::Yes;
    }
    if let Some(at) = best(&|desk| desk.is_idle() && desk.has_other_resident(host)) {
        draft.order_hosts(at, keep(host, 1));
        draft.desks[at].taken = true;
        return Placed::Yes;
    }
    Placed::No
}

fn start<'w>(draft: &mut Draft<'w>, at: usize, host: &'w HostKey, entry: &'w Entry, item: &'w Queued) {
    if host.warm && !draft.desks[at].worker.keeps(host, 1) && draft.desks[at].load == 0 {
        draft.order_hosts(at, keep(host, 1));
    }
    let desk = &mut draft.desks[at];
    let name = desk.gpu.facts.name.as_str();
    let expected =
        draft.world.memory.run(&draft.world.config, &item.task, None, Some(name)).p50.max(Millis(1));
    desk.load += 1;
    let sum = desk.running.map_or(Millis::ZERO, |(_, sum)| sum);
    desk.running = Some((host, sum + expected));
    let worker = &desk.worker.id;
    draft.start(entry, worker, &item.task);
}

/// The order that lets this host stay.
fn keep(host: &HostKey, count: u32) -> Vec<HostOrder> {
    if !host.warm {
        return Vec::new();
    }
    vec![HostOrder { script: host.name(), model: host.model.clone(), count }]
}

/// Whether this desk runs the same warm host, and has so little to do that the next order may lie there already.
fn ahead_fits(draft: &Draft<'_>, desk: &Desk<'_>, host: &HostKey, item: &Queued) -> bool {
    let Some((running, sum)) = desk.running else { return false };
    if running != host || !host.warm || desk.taken || desk.llm.is_some() {
        return false;
    }
    is_short(draft, item, Some(&desk.gpu.facts.name)).is_some_and(|expected| sum + expected <= AHEAD)
}

/// The expected run time of a task, if that was learned and is short.
pub(super) fn is_short(draft: &Draft<'_>, item: &Queued, gpu: Option<&str>) -> Option<Millis> {
    let world = draft.world;
    let name = crate::learn::run_name(&world.config, &item.task, None);
    world.memory.run_by_name(&name)?;
    let expected = world.memory.run(&world.config, &item.task, None, gpu).p50.max(Millis(1));
    (expected <= AHEAD).then_some(expected)
}
