//! Laws of a choice: what starts, in which order, and what becomes of an attempt that is over.

use model::link::StopWhy;
use model::{Entry, FailureClass, Millis, Task, WorkerId};

use super::{Found, Step};
use crate::action::Action;
use crate::apply::AGAIN_AFTER;
use crate::event::Event;
use crate::order::{Arrival, Urgency};
use crate::queue::{Line, Queued};
use crate::shape::Shape;
use crate::unit::Unit;
use crate::world::World;

/// A start that is about to be issued.
pub(super) struct Start<'w> {
    pub entry: &'w Entry,
    pub worker: &'w WorkerId,
    pub task: &'w Task,
    /// As it waits.
    pub queued: &'w Queued,
}

impl<'w> Step<'w> {
    pub(super) fn issued(&self) -> Option<&'w Action> {
        match self.event {
            Event::Issued(action) => Some(action),
            _ => None,
        }
    }

    /// The start that this is, of a task that waits.
    pub(super) fn start(&self) -> Option<Start<'w>> {
        let Action::Start { entry, worker, task, .. } = self.issued()? else { return None };
        let queued = self.world.queue.get(entry)?;
        Some(Start { entry, worker, task, queued })
    }

    /// The attempt that is put away, and what is done with it.
    fn put_away(&self) -> Option<(&'w Unit, &'w Action)> {
        let action = self.issued()?;
        let (Action::Finish { key, .. } | Action::Requeue { key, .. } | Action::Fail { key, .. }) = action
        else {
            return None;
        };
        Some((self.world.units.get(key)?, action))
    }
}

/// I6: each start has the next number; what was told to have started has none that was used.
pub(super) fn numbers_rise(step: &Step<'_>, found: &mut Found) {
    if let Some(start) = step.start()
        && start.task.attempt != start.queued.task.attempt + 1
    {
        let (number, last) = (start.task.attempt, start.queued.task.attempt);
        found.push(format!("{} starts as attempt {number} after {last}", start.task.task_id));
    }
    if let Some((unit, Action::Requeue { task, .. })) = step.put_away()
        && task.attempt < unit.key.attempt
    {
        found.push(format!("{} goes back with number {}", unit.key, task.attempt));
    }
}

/// I8: a start is charged, within what is allowed; what does not count is given back once.
pub(super) fn charged_once(step: &Step<'_>, found: &mut Found) {
    if let Some(start) = step.start() {
        let (charged, before, most) =
            (start.task.charged, start.queued.task.charged, start.task.max_attempts);
        if charged != before + 1 || charged > most.max(1) {
            found.push(format!(
                "{} starts with {charged} charges of {most} after {before}",
                start.task.task_id
            ));
        }
    }
    let Some((unit, Action::Requeue { task, charged, .. })) = step.put_away() else { return };
    let due = if *charged { unit.task.charged } else { unit.task.charged.saturating_sub(1) };
    if task.charged != due {
        found.push(format!("{} goes back with {} charges, where {due} are due", unit.key, task.charged));
    }
    if *charged && (unit.gave_way() || unit.stop == Some(StopWhy::TakenBack) && was_stopped(unit)) {
        found.push(format!("{} gave way, or was taken back, and is charged", unit.key));
    }
    if *charged && unit.task.charged >= unit.task.max_attempts {
        found.push(format!("{} goes on after its last charge", unit.key));
    }
}

fn was_stopped(unit: &Unit) -> bool {
    matches!(&unit.phase, crate::unit::Phase::Over { outcome, .. } if outcome.stopped)
}

/// R1: what is put away is over, and was not put away before.
pub(super) fn put_away_once(step: &Step<'_>, found: &mut Found) {
    let Some((unit, _)) = step.put_away() else { return };
    if unit.closing.is_some() {
        found.push(format!("{} is being put away and is put away again", unit.key));
    }
    if unit.is_live() {
        found.push(format!("{} is put away and lives", unit.key));
    }
}

/// R2: the waits of `retry.backoff_s`, and of what could not be carried out a moment ago.
pub(super) fn back_off(step: &Step<'_>, found: &mut Found) {
    let world = step.world;
    if let Some((unit, action)) = step.put_away() {
        if unit.again_at.is_some_and(|again_at| again_at > step.at && again_at - AGAIN_AFTER < step.at) {
            found.push(format!("{} is put away again before its rest is over", unit.key));
        }
        if let Action::Requeue { charged: true, back_off, error: Some(error), .. } = action {
            let waits = &world.config.retry.backoff_s;
            let place = unit.task.charged.max(1) as usize - 1;
            let wait = waits.get(place).or(waits.last()).map_or(Millis::ZERO, |s| Millis::from_secs_f64(*s));
            if error.class == FailureClass::Crash && *back_off < wait {
                found.push(format!("{} goes back for {back_off} instead of {wait}", unit.key));
            }
        }
    }
    let Some(action) = step.issued() else { return };
    let rests = action.worker().and_then(|worker| world.workers.get(worker)?.again_at);
    let orders = matches!(
        action,
        Action::Start { .. } | Action::Engine { .. } | Action::Hosts { .. } | Action::Leave { .. }
    );
    // What else the same plan has for that worker is tried all the same.
    let is_over = |again_at: Millis| again_at <= step.at || again_at - AGAIN_AFTER >= step.at;
    if orders && rests.is_some_and(|again_at| !is_over(again_at)) {
        found.push(format!("{action:?} while that worker is let rest"));
    }
}

/// P1: its time has come, nobody wants its end, its batch goes on, and the mode lets it.
pub(super) fn may_start(step: &Step<'_>, found: &mut Found) {
    let world = step.world;
    let starts = |action: &Action| {
        matches!(
            action,
            Action::Start { .. } | Action::Launch { .. } | Action::Engine { engine: Some(_), .. }
        )
    };
    if let Some(action) = step.issued().filter(|action| world.down.is_some() && starts(action)) {
        found.push(format!("{action:?} while the machine is being freed"));
    }
    let Some(start) = step.start() else { return };
    let (queued, id) = (start.queued, &start.task.task_id);
    if queued.cancelled {
        found.push(format!("{id} starts and somebody wants its end"));
    }
    if let Some(time) = queued.not_before.filter(|time| *time > step.at) {
        found.push(format!("{id} starts at {} and may not before {time}", step.at));
    }
    if world.claims.contains_key(start.entry) {
        found.push(format!("{id} starts while its file's name is in somebody's hands"));
    }
    if world.queue.is_paused(&queued.shape) {
        found.push(format!("{id} starts and its batch is paused"));
    }
    let is_llm = queued.shape.class() == model::TaskClass::Llm;
    if is_llm && !world.is_admitted_chat(&queued.task) && world.exclusive(step.at).is_some() {
        found.push(format!("{id} starts inside exclusive mode"));
    }
}

/// Who stands first in each row of a line. Who came back at this very instant may have done so by the same plan, which
/// did not know of it.
fn heads<'w>(step: &Step<'w>, line: &'w Line) -> impl Iterator<Item = &'w Queued> {
    let (world, at) = (step.world, step.at);
    let waits = move |entry: &'w Entry| {
        let item = world.queue.get(entry)?;
        (item.seen_at < at && !world.claims.contains_key(entry)).then_some(item)
    };
    line.rows().filter_map(move |(_, row)| row.values().find_map(waits))
}

fn urgency(step: &Step<'_>, item: &Queued) -> Urgency {
    item.rank(step.world.ageing(), step.at.max(step.world.now)).urgency
}

/// Whether those behind may start first: with several GPUs who is first may be promised a better one that becomes free,
/// and while GPUs are kept for a task that needs several, what starts there is what ends in time.
fn may_be_passed(step: &Step<'_>, shape: &Shape) -> bool {
    let usable = step.world.gpus.values().filter(|gpu| gpu.is_usable()).count();
    shape.host().is_some() && !shape.in_cpu_lane() && (usable > 1 || some_are_kept(step))
}

fn some_are_kept(step: &Step<'_>) -> bool {
    step.world.queue.lines().any(|(shape, _)| shape.needs_several())
}

/// I20: the order within one shape; batches go longest first, and chatbots of exclusive mode by their own list.
pub(super) fn one_order(step: &Step<'_>, found: &mut Found) {
    let Some(start) = step.start().filter(|start| start.queued.shape.batch.is_none()) else { return };
    let (world, mine) = (step.world, start.queued);
    let own_list = mine.task.is_chatbot() && world.exclusive(step.at).is_some();
    if own_list || may_be_passed(step, &mine.shape) {
        return;
    }
    let own = urgency(step, mine);
    let mut types: Vec<(&str, Arrival)> = vec![(&mine.task.job_type, mine.arrival())];
    let line = world.queue.line(&mine.shape);
    for other in line.into_iter().flat_map(|line| heads(step, line)).filter(|other| other.order != mine.order)
    {
        let theirs = urgency(step, other);
        if theirs < own {
            found.push(format!(
                "{} starts before {}, which is at a higher level",
                start.task.task_id, other.task.task_id
            ));
        } else if theirs == own && other.task.job_type == mine.task.job_type {
            if other.arrival() < mine.arrival() {
                found.push(format!(
                    "{} starts before {}, which came first",
                    start.task.task_id, other.task.task_id
                ));
            }
        } else if theirs == own {
            types.push((&other.task.job_type, other.arrival()));
        }
    }
    let next = world.turns.next(world.grants(mine.shape.in_cpu_lane()), types.into_iter());
    if next.is_some_and(|next| next != mine.task.job_type) {
        let next = next.unwrap_or_default();
        found.push(format!("{} starts, and it is the turn of {next}", start.task.task_id));
    }
}

/// I20: a chatbot that could have that very place goes first.
pub(super) fn chatbots_first(step: &Step<'_>, found: &mut Found) {
    let Some(start) = step.start().filter(|start| !start.task.is_chatbot()) else { return };
    let world = step.world;
    if may_be_passed(step, &start.queued.shape) {
        return;
    }
    for (shape, line) in world.queue.lines() {
        let chatbot = heads(step, line).find(|item| item.task.is_chatbot());
        if chatbot.is_some() && could_have(world, &start, shape) {
            found.push(format!("{} starts where a chatbot could have: {shape:?}", start.task.task_id));
        }
    }
}

/// Whether tasks of this shape could have the place that this start takes.
fn could_have(world: &World, start: &Start<'_>, shape: &Shape) -> bool {
    let Some(gpu) = world.gpu_of(start.worker) else {
        return shape.in_cpu_lane() && shape.host() == start.queued.shape.host();
    };
    if !crate::place::fits(shape, &gpu.facts) {
        return false;
    }
    match (&shape.what, &start.queued.shape.what) {
        (crate::shape::What::Llm(wanted), crate::shape::What::Llm(_)) => {
            let model = world.workers.get(start.worker).and_then(|worker| worker.engine.as_ref());
            model.is_some_and(|order| wanted.as_ref().is_none_or(|wanted| *wanted == order.model))
        }
        (crate::shape::What::Script(chat), crate::shape::What::Script(mine)) => {
            chat == mine && world.need(shape).counted <= world.need(&start.queued.shape).counted
        }
        _ => false,
    }
}
