//! LLMs that make room for scripts outside exclusive mode: which one, once a threshold says that one should.
//!
//! No request is cut: an idle LLM is unloaded, a busy one gets no further requests and goes when they have ended.

use model::{GpuState, Millis, TaskClass};

use super::draft::{Desk, Draft};
use super::fill::Left;
use crate::evict::{EvictionFacts, aged_at, should_evict};
use crate::queue::Shape;

/// Before anything is filled: an LLM that should drain gets no new requests.
pub(super) fn drain(draft: &mut Draft<'_>) {
    let world = draft.world;
    if draft.exclusive.is_some() {
        return;
    }
    let waiting: Vec<(&Shape, u64)> = world
        .queue
        .lines()
        .filter(|(shape, _)| is_for_gpu(shape))
        .map(|(shape, line)| (shape, line.len() as u64))
        .collect();
    let scripts: u64 = waiting.iter().map(|(_, count)| *count).sum();
    let coming = draft.desks.iter().filter(|desk| {
        let free = matches!(desk.state, GpuState::Idle | GpuState::Cooling) && desk.llm.is_none();
        free && desk.load == 0 && world.takes_scripts(desk.gpu)
    });
    let scripts = scripts.saturating_sub(coming.count() as u64);
    let fits = |desk: &Desk<'_>| waiting.iter().any(|(shape, _)| desk.gpu.has_room_for(shape));
    let Some(victim) = victim(draft, &fits) else { return };
    if scripts > 0
        && draft.desks[victim].load > 0
        && should_evict(&world.config.resource_manager.eviction_policy, &facts(draft, victim, scripts, None))
            .is_some()
    {
        draft.desks[victim].taken = true;
        draft.drained += 1;
    }
}

/// After everything is filled: idle LLMs go, one for each script that a threshold still speaks for.
pub(super) fn evict(draft: &mut Draft<'_>, left: &[Left<'_>]) {
    let world = draft.world;
    let mut waiting: Vec<&Left<'_>> = left.iter().filter(|left| is_for_gpu(left.shape)).collect();
    waiting.sort_by_key(|left| left.since);
    let mut scripts: u64 = waiting.iter().map(|left| left.count).sum();
    if scripts > 0 {
        scripts += world.queue.unparsed(TaskClass::Script);
    }
    scripts = scripts.saturating_sub(draft.drained);
    while scripts > 0 {
        let fits = |desk: &Desk<'_>| waiting.iter().any(|left| desk.gpu.has_room_for(left.shape));
        let Some(victim) = victim(draft, &fits).filter(|at| draft.desks[*at].is_idle_llm()) else { return };
        let task = waiting.first().map(|left| left.task);
        let facts = facts(draft, victim, scripts, task);
        let first = waiting.iter().find(|left| draft.desks[victim].gpu.has_room_for(left.shape));
        let due =
            first.map(|left| aged_at(left.since, draft.desks[victim].gpu.idle_since, facts.reload_time));
        let says = should_evict(&world.config.resource_manager.eviction_policy, &facts);
        if says.is_none() && !due.is_some_and(|due| draft.is_time(due)) {
            return;
        }
        draft.order_engine(victim, None);
        scripts -= 1;
    }
}

fn is_for_gpu(shape: &Shape) -> bool {
    shape.class() == TaskClass::Script && !shape.in_cpu_lane()
}

fn facts(draft: &Draft<'_>, victim: usize, scripts: u64, task: Option<&model::Task>) -> EvictionFacts {
    let world = draft.world;
    let policy = &world.config.resource_manager.eviction_policy;
    let idle = draft.desks.iter().filter(|desk| desk.is_idle_llm() && world.takes_scripts(desk.gpu));
    let llms = world.queue.lines().filter(|(shape, _)| shape.class() == TaskClass::Llm);
    let llms: u64 = llms.map(|(_, line)| line.len() as u64).sum();
    let started = draft.spoken_for.iter().filter(|entry| entry.class == TaskClass::Llm).count() as u64;
    EvictionFacts {
        scripts_waiting: scripts,
        llms_waiting: llms.saturating_sub(started) + world.queue.unparsed(TaskClass::Llm),
        idle_llms: idle.count() as u64,
        script_time: match task {
            Some(task) => world.memory.run(&world.config, task, None, None).p50,
            None => Millis::from_secs_f64(policy.avg_script_time_s),
        },
        reload_time: reload_time(draft, victim),
    }
}

fn reload_time(draft: &Draft<'_>, at: usize) -> Millis {
    let world = draft.world;
    draft.desks[at]
        .llm
        .as_ref()
        .map_or(Millis::ZERO, |llm| world.memory.llm_boot(&world.config, llm.preset, llm.model).p50)
}

/// The LLM that would go: an idle one while there is one, unless the policy says that the cheapest may drain; among
/// equals the one that loads again fastest; with no idle one, the one expected free first.
fn victim(draft: &Draft<'_>, fits: &dyn Fn(&Desk<'_>) -> bool) -> Option<usize> {
    let world = draft.world;
    let able: Vec<usize> = (0..draft.desks.len())
        .filter(|at| {
            let desk = &draft.desks[*at];
            let loaded = desk.llm.as_ref().is_some_and(|llm| llm.ready);
            loaded && !desk.taken && world.takes_scripts(desk.gpu) && fits(desk)
        })
        .collect();
    let any_idle = able.iter().any(|at| draft.desks[*at].is_idle_llm());
    let prefer_idle = world.config.resource_manager.eviction_policy.prefer_idle_llm_eviction;
    let among = able.into_iter().filter(|at| !(any_idle && prefer_idle) || draft.desks[*at].is_idle_llm());
    if any_idle {
        among.min_by_key(|at| {
            (reload_time(draft, *at), draft.desks[*at].load, draft.desks[*at].gpu.idle_since)
        })
    } else {
        among.min_by_key(|at| (free_at(draft, *at), reload_time(draft, *at)))
    }
}

/// When the last request on a desk is expected to end.
fn free_at(draft: &Draft<'_>, at: usize) -> Millis {
    let world = draft.world;
    let desk = &draft.desks[at];
    let model = desk.llm.as_ref().map(|llm| llm.model);
    let ends = world.units_on(desk.worker).filter(|unit| unit.is_live()).map(|unit| {
        let run = world.memory.run(&world.config, &unit.task, model, None).p50;
        unit.running_since().unwrap_or(draft.now) + run
    });
    ends.max().unwrap_or(draft.now)
}
