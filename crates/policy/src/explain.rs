//! What would happen to a task, or a batch, that is not submitted: it is told to a copy of the world, the mind decides
//! there as it would here, and what comes of it is told.
//!
//! ```text
//! a copy of the world ─► at rest ─► Queued ─► plan until at rest ─► started? who makes room?
//!                                                              └──► why, forecast
//! ```
//! Nothing is issued, nothing is remembered. The copy holds what the brain has read, so it is bounded. Not here: the
//! forecast (`forecast`), and whether the task is valid at all (`model::validate`).

mod batch;

use model::explained::{Effect, Explained, Fate, HeldBy, Here};
use model::link::StopWhy;
use model::reason::ReasonTold;
use model::{Entry, Millis, Task, TaskClass};

use crate::action::Action;
use crate::event::Event;
use crate::forecast::{self, Foreseen};
use crate::gpu::Gpu;
use crate::plan::plan;
use crate::unit::Claim;
use crate::why::reason_of;
use crate::worker::Worker;
use crate::world::World;

pub use batch::{STAND_INS_MAX, explain_batch};

/// How often the mind is asked again after what it decided; it comes to rest after two or three times.
const ROUNDS: usize = 16;

/// What would happen to this task if it were queued now. `not_before` is its own, on the machine's time line.
#[must_use]
pub fn explain(world: &World, now: Millis, task: &Task, not_before: Option<Millis>) -> Explained {
    let now = now.max(world.now);
    let mut world = world.clone();
    come_to_rest(&mut world, now);
    let entry = entry_of(task);
    let queued =
        Event::Queued { entry: entry.clone(), task: Box::new(task.clone()), order: u64::MAX, not_before };
    world.apply(now, queued);
    let actions = come_to_rest(&mut world, now);
    let mut told = Explained {
        class: task.class(),
        job_type: task.job_type.clone(),
        priority: task.priority,
        fate: Fate::Waits,
        reason: None,
        expected: None,
        gpus: Vec::new(),
        here: None,
        model: None,
        ahead: 0,
        held_by: None,
        effects: effects(&world, &actions),
    };
    if let Some(error) = refusal(&actions, &entry) {
        told.fate = Fate::Refused;
        told.reason = Some(error);
    } else if let Some(claim) = world.claims.get(&entry) {
        told.fate = Fate::Starts;
        of_start(&world, now, claim, &mut told);
    } else {
        of_wait(&world, now, &entry, &mut told);
    }
    told
}

/// Lets the mind decide until it has nothing more to say; what it decided.
fn come_to_rest(world: &mut World, now: Millis) -> Vec<Action> {
    let mut done = Vec::new();
    for _ in 0..ROUNDS {
        let actions = plan(world, now).actions;
        if actions.is_empty() {
            break;
        }
        for action in actions {
            world.apply(now, Event::Issued(Box::new(action.clone())));
            done.push(action);
        }
    }
    done
}

fn entry_of(task: &Task) -> Entry {
    Entry { class: task.class(), priority: task.priority, name: format!("{}.json", task.task_id) }
}

fn refusal(actions: &[Action], wanted: &Entry) -> Option<ReasonTold> {
    actions.iter().find_map(|action| match action {
        Action::FailQueued { entry, error, .. } if entry == wanted => {
            Some(ReasonTold { code: error.code.clone(), text: error.message.clone() })
        }
        _ => None,
    })
}

/// It starts at once.
fn of_start(world: &World, now: Millis, claim: &Claim, told: &mut Explained) {
    told.expected = forecast::claim_eta(world, now, claim).map(|expected| expected.from_now(now));
    let Some(worker) = world.workers.get(&claim.worker) else { return };
    told.model = worker.reports.engine.as_ref().map(|engine| engine.model.clone());
    told.model = told.model.take().filter(|_| told.class == TaskClass::Llm);
    told.here = world.gpu_of(&claim.worker).map(|gpu| why_here(world, gpu, worker, claim));
    let beside = claim.beside.iter().filter_map(|uuid| world.gpus.get(uuid));
    told.gpus = match told.class {
        TaskClass::Llm => several(world.gpus_of_llm(worker)),
        TaskClass::Script => several(world.gpu_of(&claim.worker).into_iter().chain(beside)),
    };
}

/// Keys of these GPUs; none of one alone.
fn several<'w>(gpus: impl Iterator<Item = &'w Gpu>) -> Vec<String> {
    let mut gpus: Vec<&Gpu> = gpus.collect();
    gpus.sort_by_key(|gpu| gpu.facts.index);
    if gpus.len() > 1 { gpus.into_iter().map(Gpu::key).collect() } else { Vec::new() }
}

fn why_here(world: &World, gpu: &Gpu, worker: &Worker, claim: &Claim) -> Here {
    let shape = &claim.queued.shape;
    let is_able = |gpu: &&Gpu| match shape.needs_several() {
        true => world.could_be_one_for(gpu, shape),
        false => {
            let takes = shape.host().is_none() || world.takes_scripts(gpu);
            takes && crate::place::fits(shape, &gpu.facts)
        }
    };
    let able = world.gpus.values().filter(|gpu| gpu.is_usable()).filter(is_able);
    if able.count() <= shape.gpus() {
        return Here::NoOther;
    }
    match (shape.host(), &worker.reports.engine) {
        (None, Some(engine)) => Here::LlmLoaded { model: engine.model.clone() },
        (Some(host), _) if claim.warm => Here::HostLoaded { script: host.name() },
        _ if Foreseen::running(world, gpu) == 0 && worker.engine.is_none() => Here::Idle,
        _ => Here::Shares,
    }
}

/// It waits.
fn of_wait(world: &World, now: Millis, entry: &Entry, told: &mut Explained) {
    let Some(item) = world.queue.get(entry) else { return };
    let reason = reason_of(world, now, item);
    if world.is_held(&item.shape) {
        told.fate = Fate::CannotRun;
    } else {
        told.ahead = world.standing(now, item).ahead.count;
        told.held_by = held_by(world, now, &item.task);
    }
    told.reason = Some(reason.told());
    let Some(foreseen) = forecast::foreseen(world, now, entry).filter(|_| told.fate == Fate::Waits) else {
        return;
    };
    told.expected = Some(foreseen.expected.from_now(now));
    (told.here, told.model, told.gpus) = (foreseen.here, foreseen.model, several(foreseen.gpus.into_iter()));
    let Some((gpu, model, at)) = foreseen.leaves else { return };
    let is_told = |effect: &Effect| matches!(effect, Effect::LlmLeaves { gpu: known, .. } if *known == gpu);
    if !told.effects.iter().any(is_told) {
        let on = world.gpus.values().find(|known| known.key() == gpu);
        let running = on.map_or(0, |gpu| Foreseen::running(world, gpu));
        let in_s = (at - now).as_secs_f64().max(0.0);
        told.effects.push(Effect::LlmLeaves { gpu, model, running, in_s });
    }
}

fn held_by(world: &World, now: Millis, task: &Task) -> Option<HeldBy> {
    let exclusive = world.exclusive(now)?;
    if task.class() != TaskClass::Llm || world.is_admitted_chat(task) {
        return None;
    }
    let batch = exclusive.batch.facts.batch_id.clone();
    let ends = forecast::batch_eta(world, now, &batch);
    let ends_in_s = ends.map(|expected| (expected.end - now).as_secs_f64().max(0.0));
    Some(HeldBy { batch, remaining: exclusive.batch.facts.remaining(), ends_in_s })
}

/// Who makes room by what was decided.
fn effects(world: &World, actions: &[Action]) -> Vec<Effect> {
    let mut effects = Vec::new();
    for action in actions {
        match action {
            Action::Engine { worker, engine: None } => {
                effects.extend(unloaded(world, worker).map(|(gpu, model)| Effect::LlmLeaves {
                    gpu: gpu.key(),
                    model: model.to_owned(),
                    running: Foreseen::running(world, gpu),
                    in_s: 0.0,
                }));
            }
            Action::Stop { worker, key, why: StopWhy::Yield } => {
                let Some(unit) = world.units.get(key) else { continue };
                effects.push(Effect::GivesWay {
                    task: key.task_id.clone(),
                    job_type: unit.task.job_type.clone(),
                    batch: unit.task.batch_id.clone(),
                    gpu: world.gpu_of(worker).map_or_else(|| "cpu".to_owned(), Gpu::key),
                });
            }
            Action::Say(model::Saying::LentToChat { gpu, batch, .. }) => {
                effects.push(Effect::Lent { gpu: gpu.clone(), batch: batch.clone() });
            }
            _ => {}
        }
    }
    effects
}

/// The LLM that an order without one unloads, and its GPU.
fn unloaded<'w>(world: &'w World, worker: &model::WorkerId) -> Option<(&'w Gpu, &'w str)> {
    let gpu = world.gpu_of(worker)?;
    let before = world.workers.get(worker)?.before.as_ref()?.engine.as_ref()?;
    Some((gpu, before.model.as_str()))
}
