//! The facts that a rule of eviction is given.

use model::{Millis, Task, TaskClass};

use super::{Candidate, is_for_gpu};
use crate::evict::cost_benefit::AGED;
use crate::evict::{EvictionFacts, ScriptsWaiting};
use crate::plan::draft::{Desk, Draft};
use crate::plan::fill::Left;
use crate::plan::wide::llms_missing;
use crate::queue::{Line, Queued};
use crate::shape::Shape;

/// What an unload takes where it was not measured.
pub(in crate::plan) const UNLOAD_PRIOR: Millis = Millis::from_secs(5);

/// Scripts that wait and for which nothing is on its way.
pub(in crate::plan) struct Backlog<'w> {
    lines: Vec<Waiting<'w>>,
    /// What GPUs are kept for that a task needs several of: nobody else is served there.
    kept: Option<&'w Shape>,
    /// How many of all these are left once those are left out that somebody else takes.
    count: u64,
}

struct Waiting<'w> {
    shape: &'w Shape,
    task: &'w Task,
    /// None for tasks whose time to start came since the last event.
    line: Option<&'w Line>,
    count: u64,
    still_since: Millis,
}

impl Waiting<'_> {
    /// How long all of its line have waited, added up.
    fn waited(&self, now: Millis) -> Millis {
        let alone =
            Millis((now - self.still_since).0.saturating_mul(i64::try_from(self.count).unwrap_or(i64::MAX)));
        self.line.map_or(alone, |line| line.waited(now))
    }
}

/// Why there is nothing to rule on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan) enum Unfit {
    /// No script waits, or no LLM stands where one could run.
    Nobody,
    /// `reserve_for_chat` keeps all that are loaded; only scripts that nobody serves have one go for them in the end.
    Reserved {
        /// When.
        until: Option<Millis>,
    },
    /// All were loaded too recently.
    Young {
        /// The desk of the one that may go first.
        at: usize,
        /// When.
        until: Millis,
    },
}

/// The facts, and the desk of each candidate.
pub(in crate::plan) struct Facts {
    pub facts: EvictionFacts,
    pub desks: Vec<usize>,
}

impl<'w> Backlog<'w> {
    /// All that wait.
    pub(super) fn of_queue(draft: &Draft<'w>) -> Self {
        let queue = &draft.world.queue;
        let lines = draft.front.iter().copied().filter(|(shape, _)| is_for_gpu(shape));
        let lines = lines.filter_map(|(shape, line)| {
            let entry = line.any()?;
            let task = &*queue.get(entry)?.task;
            Some(Waiting {
                shape,
                task,
                line: Some(line),
                count: if shape.is_wide() { llms_missing(draft, shape) } else { line.len() },
                still_since: line.tally().still_since,
            })
        });
        Self::new(draft, lines.filter(|waiting| waiting.count > 0).collect())
    }

    /// One task that needs several GPUs, and so many LLMs at most.
    pub(super) fn of_one(draft: &Draft<'w>, item: &'w Queued) -> Self {
        let (count, still_since) = (item.shape.gpus() as u64, item.since);
        let line = Waiting { shape: &item.shape, task: &item.task, line: None, count, still_since };
        Self { kept: kept_for(draft), lines: vec![line], count }
    }

    /// Those that found nothing when everything free was filled.
    pub(super) fn of_left(draft: &Draft<'w>, left: &[Left<'w>]) -> Self {
        let left = left.iter().filter(|left| is_for_gpu(left.shape) && left.count > 0);
        let lines = left.map(|left| {
            let line = draft.world.queue.line(left.shape);
            let still_since = line.map_or(left.since, |line| line.tally().still_since);
            Waiting { shape: left.shape, task: left.task, line, count: left.count, still_since }
        });
        Self::new(draft, lines.collect())
    }

    fn new(draft: &Draft<'w>, mut lines: Vec<Waiting<'w>>) -> Self {
        lines.sort_by_key(|waiting| waiting.still_since);
        let mut count = lines.iter().map(|waiting| waiting.count).sum();
        if count > 0 {
            count += draft.world.queue.unparsed(TaskClass::Script);
        }
        Self { kept: kept_for(draft), lines, count }
    }

    /// So many of them are provided for.
    pub(super) fn leave_out(&mut self, count: u64) {
        self.count = self.count.saturating_sub(count);
    }

    /// How many of them there are.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// The one that would run on a desk: of those that could, the one whose line waits longest.
    pub(super) fn first_on(&self, desk: &Desk<'_>) -> Option<&'w Task> {
        let mut able = self.lines.iter().filter(|waiting| self.serves(desk, waiting));
        able.next().map(|waiting| waiting.task)
    }

    fn fits(&self, desk: &Desk<'_>) -> bool {
        self.lines.iter().any(|waiting| self.serves(desk, waiting))
    }

    fn serves(&self, desk: &Desk<'_>, waiting: &Waiting<'_>) -> bool {
        let is_open = !desk.reserved || self.kept == Some(waiting.shape);
        // One of several GPUs need not be the one that it asks for.
        let (shape, gpu) = (waiting.shape, desk.gpu);
        is_open && if shape.is_wide() { gpu.could_be_one_for(shape) } else { gpu.has_room_for(shape) }
    }

    fn scripts(&self, draft: &Draft<'_>, at: Millis) -> ScriptsWaiting {
        let all: u64 = self.lines.iter().map(|waiting| waiting.count).sum();
        let share = |sum: i64| match all {
            0 => Millis::ZERO,
            all => Millis(
                i64::try_from(i128::from(sum) * i128::from(self.count) / i128::from(all)).unwrap_or(i64::MAX),
            ),
        };
        let (mut work, mut waited) = (0_i64, 0_i64);
        for waiting in &self.lines {
            let one = mean_time(draft, waiting);
            work =
                work.saturating_add(one.0.saturating_mul(i64::try_from(waiting.count).unwrap_or(i64::MAX)));
            waited = waited.saturating_add(waiting.waited(at).0);
        }
        let mean_time = Millis(work / i64::try_from(all).unwrap_or(i64::MAX).max(1));
        let longest = self.lines.first().map_or(Millis::ZERO, |first| at - first.still_since);
        ScriptsWaiting {
            count: self.count,
            mean_time,
            total_time: share(work),
            waited: share(waited),
            longest_wait: longest,
        }
    }
}

/// What a task of a line takes on average: as the first one, stretched to the mean of the lengths they state.
fn mean_time(draft: &Draft<'_>, waiting: &Waiting<'_>) -> Millis {
    let world = draft.world;
    let line = waiting.line.filter(|line| waiting.task.media_s.is_some() && line.len() > 0);
    let Some(line) = line else { return world.memory.run(&world.config, waiting.task, None, None).p50 };
    let mean_ms = line.tally().length_sum / line.len();
    let mut task = waiting.task.clone();
    task.media_s = Some(Millis(i64::try_from(mean_ms).unwrap_or(i64::MAX)).as_secs_f64());
    world.memory.run(&world.config, &task, None, None).p50
}

/// The shape of the task that GPUs are kept for.
fn kept_for<'w>(draft: &Draft<'w>) -> Option<&'w Shape> {
    draft.reserved.as_ref().map(|reserved| &reserved.item.shape)
}

/// The facts as this draft has them at an instant from now on, if nothing else happens until then.
pub(super) fn facts(draft: &Draft<'_>, backlog: &Backlog<'_>, at: Millis) -> Result<Facts, Unfit> {
    let world = draft.world;
    let first = backlog.lines.first().filter(|_| backlog.count > 0).ok_or(Unfit::Nobody)?;
    let (candidates, desks): (Vec<Candidate>, Vec<usize>) =
        candidates(draft, backlog, at)?.into_iter().unzip();
    let llms = draft.front.iter().filter(|(shape, _)| shape.class() == TaskClass::Llm);
    let llms: u64 = llms.map(|(_, line)| line.len()).sum();
    let started = draft.spoken_for.iter().filter(|entry| entry.class == TaskClass::Llm).count() as u64;
    let count =
        |wanted: &dyn Fn(&Desk<'_>) -> bool| draft.desks.iter().filter(|desk| wanted(desk)).count() as u64;
    let loaded = |desk: &Desk<'_>| desk.llm.as_ref().is_some_and(|llm| llm.ready && llm.leads && !desk.taken);
    let slots = draft.desks.iter().filter(|desk| loaded(desk)).filter_map(|desk| desk.llm.as_ref());
    let model = candidates.first().map(|candidate| candidate.model.as_str());
    let facts = EvictionFacts {
        now: at,
        policy: world.config.resource_manager.eviction_policy.clone(),
        scripts: backlog.scripts(draft, at),
        script_gpus: script_gpus(draft, first),
        llms_waiting: llms.saturating_sub(started) + world.queue.unparsed(TaskClass::Llm),
        ready_llms: count(&loaded),
        booting_llms: count(&|desk| desk.llm.as_ref().is_some_and(|llm| !llm.ready && llm.leads)),
        idle_llms: count(&|desk| desk.is_idle_llm() && world.takes_scripts(desk.gpu)),
        llm_slots: slots.map(|llm| u64::from(llm.parallel)).min().unwrap_or(1),
        requests: world.requests(at),
        rate_until: world.demand.rate_until(at),
        request_time: world.memory.request_time(model),
        since_request: world.demand.last().map(|last| at - last),
        unload_time: UNLOAD_PRIOR,
        host_load: first
            .shape
            .host()
            .map_or(Millis::ZERO, |host| world.memory.host_boot(&world.config, host).p50),
        candidates,
    };
    Ok(Facts { facts, desks })
}

/// GPUs without an LLM where the first of these could run, those included that are being freed; not those that are kept
/// for a task that needs several.
fn script_gpus(draft: &Draft<'_>, first: &Waiting<'_>) -> u64 {
    if first.shape.is_wide() {
        return 0;
    }
    let serves = draft.desks.iter().filter(|desk| {
        let free = desk.llm.is_none() || desk.taken;
        let open = free && !desk.reserved && draft.world.takes_scripts(desk.gpu);
        open && desk.gpu.has_room_for(first.shape)
    });
    serves.count() as u64
}

/// LLMs that may go, those first that should where nothing else tells them apart.
fn candidates(
    draft: &Draft<'_>,
    backlog: &Backlog<'_>,
    at: Millis,
) -> Result<Vec<(Candidate, usize)>, Unfit> {
    let world = draft.world;
    let able = (0..draft.desks.len()).filter(|at| {
        let desk = &draft.desks[*at];
        let loaded = desk.llm.as_ref().is_some_and(|llm| llm.ready);
        loaded && !desk.taken && world.takes_scripts(desk.gpu) && backlog.fits(desk)
    });
    let able: Vec<usize> = able.collect();
    let reserved = u64::from(world.config.resource_manager.eviction_policy.reserve_for_chat);
    let have = |desk: &&Desk<'_>| desk.llm.as_ref().is_some_and(|llm| llm.leads) && !desk.taken;
    let have = draft.desks.iter().filter(have).count() as u64;
    if able.is_empty() {
        return Err(Unfit::Nobody);
    }
    let until = backlog.lines.first().filter(|first| script_gpus(draft, first) == 0);
    let until = until.map(|first| first.still_since + AGED);
    if have <= reserved && until.is_none_or(|until| until > at) {
        return Err(Unfit::Reserved { until });
    }
    let settled_at = |desk: usize| draft.settled_at(desk);
    let settled = able.iter().filter(|desk| settled_at(**desk) <= at);
    let mut found: Vec<_> = settled.filter_map(|at| Some((candidate(draft, *at)?, *at))).collect();
    if found.is_empty() {
        let first = able.into_iter().map(|at| (settled_at(at), at)).min();
        return Err(first.map_or(Unfit::Nobody, |(until, at)| Unfit::Young { at, until }));
    }
    found.sort_by_key(|(one, at)| (one.running, one.credit, !one.misplaced, one.idle_since, *at));
    Ok(found)
}

fn candidate(draft: &Draft<'_>, at: usize) -> Option<Candidate> {
    let world = draft.world;
    let desk = &draft.desks[at];
    let llm = desk.llm.as_ref()?;
    let reload_time = world.memory.llm_boot(&world.config, llm.preset, llm.model).p50;
    let entry = world.config.models.get(llm.model);
    let role = world.config.role(&desk.gpu.key());
    Some(Candidate {
        uuid: desk.gpu.facts.uuid.clone(),
        gpu: desk.gpu.key(),
        model: llm.model.to_owned(),
        running: desk.load as u64,
        free_at: free_at(draft, desk),
        idle_since: desk.gpu.idle_since,
        reload_time,
        credit: world.credit(desk.gpu).unwrap_or_default(),
        misplaced: role.is_some() && entry.is_none_or(|entry| entry.role != role),
    })
}

/// When the last request on a desk is expected to end.
fn free_at(draft: &Draft<'_>, desk: &Desk<'_>) -> Millis {
    let world = draft.world;
    let model = desk.llm.as_ref().map(|llm| llm.model);
    let ends = world.units_on(desk.worker).filter(|unit| unit.is_live()).map(|unit| {
        let run = world.memory.run(&world.config, &unit.task, model, None).p50;
        unit.running_since().unwrap_or(draft.now) + run
    });
    ends.max().unwrap_or(draft.now)
}
