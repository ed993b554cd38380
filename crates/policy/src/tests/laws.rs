//! Each law is seen to fire: one that never could would prove nothing.

use std::collections::BTreeSet;

use model::link::{EngineOrder, HostOrder, StopWhy};
use model::{BatchId, Entry, FailureClass, GpuMode, Health, Millis, Saying, TaskError, WorkerId};

use super::make::{QWEN_7B, QWEN_14B, config, prompt, script, whisper, with_brains};
use super::rig::{Rig, id};
use crate::action::{Action, Plan};
use crate::gpu::{BootFailure, KeptFor};
use crate::unit::Unit;
use crate::world::Said;
use crate::{
    Breach, Event, LAWS, Marks, Pause, Step, World, breaches, breaches_at_rest, breaches_of,
    breaches_of_change,
};

/// A world that keeps every law, and what breaks one of them.
struct Case {
    law: &'static str,
    rig: Rig,
    /// What is seen of it once it is broken.
    look: Box<dyn Fn(World, Millis) -> Vec<Breach>>,
}

fn case(law: &'static str, rig: Rig, look: impl Fn(World, Millis) -> Vec<Breach> + 'static) -> Case {
    Case { law, rig, look: Box::new(look) }
}

/// A law of a world, with this changed.
fn world(law: &'static str, rig: Rig, change: impl Fn(&mut World) + 'static) -> Case {
    case(law, rig, move |mut world, _| {
        change(&mut world);
        breaches(&world)
    })
}

/// A law of a fact: what this changed world would be told.
fn fact(law: &'static str, rig: Rig, change: impl Fn(&mut World) -> Action + 'static) -> Case {
    case(law, rig, move |mut world, at| {
        let event = Event::Issued(Box::new(change(&mut world)));
        breaches_of(&Step { world: &world, at, event: &event })
    })
}

/// A law of rest: this changed world, and nothing more to do.
fn rest(law: &'static str, rig: Rig, change: impl Fn(&mut World, &mut Plan) + 'static) -> Case {
    case(law, rig, move |mut world, now| {
        let mut plan = Plan::default();
        change(&mut world, &mut plan);
        breaches_at_rest(&Pause { world: &world, now, plan: &plan })
    })
}

fn a_unit(world: &World) -> Unit {
    world.units.values().next().cloned().expect("something runs")
}

/// A unit is on a worker, and both know it.
fn add(world: &mut World, unit: Unit) {
    world.workers.get_mut(&unit.worker).expect("its worker").units.insert(unit.key.clone());
    world.units.insert(unit.key.clone(), unit);
}

fn with_unit(world: &mut World, change: impl Fn(&mut Unit)) {
    world.units.values_mut().for_each(change);
}

fn running(drop: super::make::Drop) -> Rig {
    let mut rig = Rig::new().gpus([24_576]);
    rig.hang.push(drop.task.task_id.to_string());
    rig.drop_task(drop).run_until("it runs", |rig| rig.world.units.len() == 1).run_for(1_500);
    rig
}

/// A machine with nothing loaded.
fn idle() -> Rig {
    let mut rig = Rig::new().gpus([24_576]);
    rig.run_for(1_000);
    rig
}

/// A machine with an LLM that has served something long ago.
fn ready() -> Rig {
    with_llm(Rig::new())
}

fn with_llm(rig: Rig) -> Rig {
    let mut rig = rig.gpus([24_576]);
    rig.drop_task(prompt("first")).run_until_ended("first").run_for(600_000);
    rig
}

fn worker(world: &World) -> WorkerId {
    world.gpus.values().next().and_then(|gpu| gpu.worker.clone()).expect("a worker")
}

fn entry(world: &World, name: &str) -> Entry {
    world.queue.by_id(&id(name)).next().cloned().expect("it waits")
}

/// The start of a task that waits, as it should be.
fn start(world: &World, name: &str) -> Action {
    let entry = entry(world, name);
    let mut task = world.queue.get(&entry).expect("it waits").task.clone();
    task.attempt += 1;
    task.charged += 1;
    Action::Start { entry, worker: worker(world), task, gpus: Vec::new() }
}

fn changed(action: Action, change: impl Fn(&mut model::Task)) -> Action {
    let Action::Start { entry, worker, mut task, gpus } = action else { panic!("a start") };
    change(&mut task);
    Action::Start { entry, worker, task, gpus }
}

fn unload(world: &World) -> Action {
    Action::Engine { worker: worker(world), engine: None }
}

fn boot(world: &World, model: &str) -> Action {
    let engine = EngineOrder {
        generation: 99,
        preset: "ollama".into(),
        model: model.into(),
        parallel: 2,
        beside: Vec::new(),
    };
    Action::Engine { worker: worker(world), engine: Some(engine) }
}

fn keep_for(world: &mut World, name: &str) {
    let until = world.now + Millis::from_secs(60);
    let kept = KeptFor { task_id: id(name), until };
    world.gpus.values_mut().for_each(|gpu| gpu.kept_for = Some(kept.clone()));
}

/// A rig where these wait and nobody has thought about it.
fn waiting(mut rig: Rig, drops: impl IntoIterator<Item = super::make::Drop>) -> Rig {
    rig.drop_tasks(drops);
    rig.now = rig.now + Millis(1);
    rig
}

fn of_worlds() -> Vec<Case> {
    let mut exclusive = running(prompt("a"));
    exclusive.drop_batch("b", GpuMode::Exclusive, &[10.0; 5]).run_for(100);
    let mut two = Rig::new().gpus([24_576, 24_576]);
    two.times.script = 20_000;
    two.drop_tasks((0..2).map(|n| script(&format!("g{n}"), "embed"))).run_for(3_000);
    let beside = a_unit(&running(script("s", "embed")).world);
    let mut wide = Rig::new().gpus([24_576; 2]);
    wide.hang.push("pair".into());
    wide.drop_task(script("pair", "embed").gpus(2)).run_for(3_000);
    vec![
        world("I7 whole GPUs", wide, |world| {
            let mut unit = a_unit(world);
            unit.key.task_id = id("beside");
            unit.beside = Vec::new();
            unit.shape.needs.gpus = 1;
            add(world, unit);
        }),
        world("I7 whole LLMs", running(prompt("a")), |world| {
            let lead = worker(world);
            let gpu = world.gpus.keys().next().expect("a GPU").clone();
            world.spans.insert(gpu, WorkerId::new("another").expect("legal"));
            world.workers.insert(
                WorkerId::new("another").expect("legal"),
                crate::worker::Worker { gpu: None, ..world.workers[&lead].clone() },
            );
        }),
        world("I1 one ending", running(prompt("a")), |world| {
            world.note_end(id("x"), true);
            world.note_end(id("x"), false);
        }),
        world("I2 one place", running(prompt("a")), |world| {
            world.workers.values_mut().for_each(|worker| worker.units.clear());
        }),
        world("I2 one place", running(prompt("a")), |world| world.units.clear()),
        world("I2 whole queue", waiting(idle(), [whisper("w")]), |world| world.queue.misplace(&id("w"))),
        world("I6 no double run", running(prompt("a")), |world| {
            let mut unit = a_unit(world);
            unit.key.attempt += 1;
            add(world, unit);
        }),
        world("I7 one holder", running(prompt("a")), |world| {
            for n in 0..2 {
                let mut unit = a_unit(world);
                unit.key.task_id = id(&format!("more-{n}"));
                add(world, unit);
            }
        }),
        world("I7 one holder", running(prompt("a")), move |world| {
            let mut unit = beside.clone();
            unit.worker = a_unit(world).worker;
            add(world, unit);
        }),
        world("I7 one lock", two, |world| world.config.gpu_lock = model::config::GpuLock::Single),
        world("I8 no poison", running(whisper("w")), |world| with_unit(world, |unit| unit.task.charged = 4)),
        world("I17 exact batches", exclusive, |world| {
            with_unit(world, |unit| unit.ordered_at = unit.ordered_at + Millis(10_000_000));
        }),
        world("I21 bounded memory", idle(), |world| {
            let saying = Saying::AllBusy { task: id("x") };
            world.said.extend((0..100).map(|_| Said { at: Millis::ZERO, saying: saying.clone() }));
        }),
        world("Y1 chatbots stay", running(prompt("a").of_type("chatbot")), |world| {
            with_unit(world, |unit| unit.stop = Some(StopWhy::Yield));
        }),
    ]
}

/// The return of what runs, as if it had crashed so often.
fn requeue(world: &World, charged: bool, charges: u32) -> Action {
    let unit = a_unit(world);
    let mut task = unit.task.clone();
    task.charged = charges;
    let error = Some(TaskError::new(FailureClass::Crash, "crash", "it crashed"));
    Action::Requeue { worker: unit.worker, key: unit.key, task, error, charged, back_off: Millis::ZERO }
}

fn of_starts() -> Vec<Case> {
    let one = || waiting(idle(), [script("s", "embed")]);
    let requests = |drops: [super::make::Drop; 2]| waiting(ready(), drops);
    vec![
        fact("I6 numbers rise", one(), |world| changed(start(world, "s"), |task| task.attempt = 5)),
        fact("I8 charged once", one(), |world| changed(start(world, "s"), |task| task.charged = 0)),
        fact("I8 charged once", one(), |world| changed(start(world, "s"), |task| task.charged = 4)),
        fact("I8 charged once", running(whisper("w")), |world| requeue(world, false, 1)),
        fact("R1 put away once", running(whisper("w")), |world| {
            let unit = a_unit(world);
            Action::Finish { worker: unit.worker, key: unit.key }
        }),
        fact("R2 back-off", running(whisper("w")), |world| {
            with_unit(world, |unit| unit.task.charged = 2);
            requeue(world, true, 2)
        }),
        fact("P1 only what may start starts", one(), |world| {
            world.queue.cancel(&id("s"));
            start(world, "s")
        }),
        fact("P1 only what may start starts", one(), |world| {
            world.down = Some(crate::world::Down { asked_at: world.now, deadline: world.now, now: false });
            start(world, "s")
        }),
        fact("I20 chatbots first", requests([prompt("a"), prompt("c").of_type("chatbot")]), |world| {
            start(world, "a")
        }),
        fact("I20 one order", requests([prompt("low").priority(2), prompt("high").priority(4)]), |world| {
            start(world, "low")
        }),
        fact("I20 one order", requests([prompt("first-in"), prompt("last-in")]), |world| {
            start(world, "last-in")
        }),
    ]
}

fn of_places() -> Vec<Case> {
    let one = || waiting(idle(), [script("s", "embed")]);
    vec![
        fact("P2 only where it can run", one(), |world| {
            world.gpus.values_mut().for_each(|gpu| gpu.health = Health::Lost);
            start(world, "s")
        }),
        fact("P2 only where it can run", one(), |world| {
            world.workers.values_mut().for_each(|worker| worker.dead = true);
            start(world, "s")
        }),
        fact("P2 only where it can run", waiting(idle(), [whisper("w").vram(30_000)]), |world| {
            start(world, "w")
        }),
        fact("P3 a free slot", waiting(idle(), [prompt("p")]), |world| start(world, "p")),
        fact("P3 a free slot", waiting(ready(), [prompt("p").with_model("another")]), |world| {
            start(world, "p")
        }),
        fact("P4 memory", idle(), |world| {
            let hosts =
                vec![HostOrder { script: "whisper".into(), model: Some("small.en".into()), count: 20 }];
            Action::Hosts { worker: worker(world), hosts }
        }),
        fact("P5 kept room", waiting(idle(), [script("s", "embed"), whisper("w")]), |world| {
            keep_for(world, "w");
            start(world, "s")
        }),
        fact("P5 kept room", waiting(idle(), [whisper("w")]), |world| {
            keep_for(world, "w");
            boot(world, QWEN_7B)
        }),
        fact("P6 memory of the machine", one(), |world| {
            world.ram = Some(model::gpu::Ram { total_mib: 64_000, available_mib: 500 });
            start(world, "s")
        }),
        fact("I7 one launch", idle(), |world| Action::Launch { gpu: world.gpus.keys().next().cloned() }),
    ]
}

fn of_evictions() -> Vec<Case> {
    let mut young = Rig::new().gpus([24_576]);
    young.drop_task(prompt("first")).run_until_ended("first");
    vec![
        fact("E1 no request is cut", running(prompt("a")), |world| unload(world)),
        fact("E2 pinned", with_llm(Rig::with(with_brains(config()))), |world| unload(world)),
        fact("E3 residency", young, |world| unload(world)),
        fact("E4 feasible", ready(), |world| unload(world)),
        fact("E4 feasible", waiting(ready(), [whisper("w").vram(30_000)]), |world| {
            keep_for(world, "w");
            unload(world)
        }),
        fact("E6 said", ready(), |world| unload(world)),
        fact("E6 said", ready(), |world| {
            let (gpu, batch) = ("7".into(), BatchId::new("b").expect("legal"));
            let other = Saying::MakesRoomForBatch { gpu, model: QWEN_14B.into(), batch, items: 1 };
            world.note_said(world.now, other);
            unload(world)
        }),
        fact("E5 no boot too soon", idle(), |world| {
            let failure = BootFailure::after(None, world.now, "broken".into());
            world.gpus.values_mut().for_each(|gpu| {
                gpu.boot_failures.insert(QWEN_14B.into(), failure.clone());
            });
            boot(world, QWEN_14B)
        }),
        fact("Y2 yields for a chatbot", running(prompt("a")), |world| {
            let unit = a_unit(world);
            Action::Stop { worker: unit.worker, key: unit.key, why: StopWhy::Yield }
        }),
    ]
}

/// A law of a change: what a fact that ends nothing should not do to this world.
fn change(law: &'static str, rig: Rig, change: impl Fn(&mut World) + 'static) -> Case {
    case(law, rig, move |mut world, _| {
        let worker = WorkerId::new("nobody").expect("legal");
        let before = Marks::of(&world, &Event::WorkerDied { worker, with_machine: false });
        change(&mut world);
        breaches_of_change(&before, &world)
    })
}

/// An LLM that is loaded on two GPUs.
fn spread() -> Rig {
    let mut config = config();
    config.models.get_mut(QWEN_7B).expect("there").gpus = Some(2);
    let mut rig = Rig::with(config).gpus([24_576; 2]);
    rig.drop_task(prompt("a").with_model(QWEN_7B)).run_until_ended("a");
    rig
}

fn of_changes_and_rest() -> Vec<Case> {
    let script_waits = || waiting(idle(), [script("s", "embed")]);
    vec![
        change("I1 nothing is lost", script_waits(), |world| drop(world.queue.remove(&entry(world, "s")))),
        change("I1 nothing is lost", running(whisper("w")), |world| world.units.clear()),
        change("I19 time goes on", idle(), |world| world.now = world.now - Millis(1)),
        rest("I19 wakes later", idle(), |world, plan| plan.wake_at = Some(world.now)),
        rest("R3 what is over is put away", running(whisper("w")), |world, _| {
            with_unit(world, |unit| unit.cancelled = true);
        }),
        rest("R3 what is over is put away", running(whisper("w")), |world, _| {
            with_unit(world, |unit| unit.task.timeout_s = Some(0.01));
        }),
        rest("I20 no idle GPU", script_waits(), |_, _| ()),
        rest("I20 no idle GPU", waiting(idle(), [prompt("p")]), |_, _| ()),
        rest("I20 no idle LLM", waiting(ready(), [prompt("p")]), |_, _| ()),
        rest("I20 no half LLM", spread(), |world, _| {
            world.gpus.values_mut().next().expect("a GPU").health = Health::Lost;
        }),
        rest("I7 each GPU its worker", idle(), |world, _| {
            world.workers.retain(|_, worker| worker.gpu.is_none());
        }),
    ]
}

fn cases() -> Vec<Case> {
    let all = [of_worlds(), of_starts(), of_places(), of_evictions(), of_changes_and_rest()];
    all.into_iter().flatten().collect()
}

#[test]
fn every_law_is_seen_to_fire() {
    for Case { law, rig, look } in cases() {
        assert!(breaches(&rig.world).is_empty(), "{law}: the world is broken before");
        let found = look(rig.world.clone(), rig.now);
        let names: Vec<&str> = found.iter().map(|breach| breach.law.name).collect();
        assert!(names.contains(&law), "{law} did not fire: {names:?}");
        for breach in found {
            assert!(!breach.detail.is_empty() && breach.to_string().contains(breach.law.promise));
        }
    }
}

#[test]
fn every_law_has_a_world_that_breaks_it() {
    let broken: BTreeSet<&str> = cases().iter().map(|case| case.law).collect();
    let named: BTreeSet<&str> = LAWS.iter().map(|law| law.name).collect();
    assert_eq!(named, broken);
    assert_eq!(named.len(), LAWS.len(), "each name once");
}

#[test]
fn a_legal_start_and_a_legal_eviction_break_nothing() {
    let legal = |rig: Rig, action: &dyn Fn(&mut World) -> Action| {
        let mut world = rig.world.clone();
        let event = Event::Issued(Box::new(action(&mut world)));
        let broken = breaches_of(&Step { world: &world, at: rig.now, event: &event });
        assert!(broken.is_empty(), "{broken:?}");
    };
    legal(waiting(idle(), [script("s", "embed")]), &|world| start(world, "s"));
    legal(waiting(ready(), [prompt("p")]), &|world| start(world, "p"));
    legal(waiting(ready(), [whisper("w")]), &|world| {
        keep_for(world, "w");
        let (gpu, model, wanted, task) = ("0".into(), QWEN_14B.into(), QWEN_7B.into(), id("w"));
        world.note_said(world.now, Saying::Swaps { gpu, model, wanted, task, waited_s: 1.0 });
        unload(world)
    });
    legal(idle(), &|world| boot(world, QWEN_7B));
}
