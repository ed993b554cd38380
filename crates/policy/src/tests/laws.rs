//! Each law is seen to fire: one that never could would prove nothing.

use model::{GpuMode, Millis};

use super::make::{prompt, script, whisper};
use super::rig::Rig;
use crate::unit::Unit;
use crate::{World, breaches};

/// The laws that a world with this changed breaks.
fn broken(rig: &Rig, change: impl FnOnce(&mut World)) -> Vec<&'static str> {
    let mut world = rig.world.clone();
    change(&mut world);
    breaches(&world).into_iter().map(|breach| breach.law).collect()
}

fn a_unit(world: &World) -> Unit {
    world.units.values().next().cloned().expect("something runs")
}

/// A unit is on a worker, and both know it.
fn add(world: &mut World, unit: Unit) {
    world.workers.get_mut(&unit.worker).expect("its worker").units.insert(unit.key.clone());
    world.units.insert(unit.key.clone(), unit);
}

fn running(drop: super::make::Drop) -> Rig {
    let mut rig = Rig::new().gpus([24_576]);
    rig.hang.push(drop.task.task_id.to_string());
    rig.drop_task(drop).run_until("it runs", |rig| rig.world.units.len() == 1).run_for(1_500);
    rig
}

#[test]
fn a_second_ending_breaks_i1() {
    let rig = running(prompt("a"));
    let twice = |world: &mut World| {
        world.note_end(super::rig::id("x"), true);
        world.note_end(super::rig::id("x"), false);
    };
    assert_eq!(broken(&rig, twice), ["I1"]);
}

#[test]
fn an_attempt_that_only_one_side_knows_breaks_i2() {
    let rig = running(prompt("a"));
    assert!(broken(&rig, |_| ()).is_empty());
    assert_eq!(
        broken(&rig, |world| world.workers.values_mut().for_each(|worker| worker.units.clear())),
        ["I2"]
    );
    assert_eq!(broken(&rig, |world| world.units.clear()), ["I2"]);
}

#[test]
fn two_live_attempts_of_one_task_break_i6() {
    let rig = running(prompt("a"));
    let twin = |world: &mut World| {
        let mut unit = a_unit(world);
        unit.key.attempt += 1;
        add(world, unit);
    };
    assert_eq!(broken(&rig, twin), ["I6"]);
}

#[test]
fn more_than_fits_breaks_i7() {
    let rig = running(prompt("a"));
    let crowd = |world: &mut World| {
        for n in 0..2 {
            let mut unit = a_unit(world);
            unit.key.task_id = super::rig::id(&format!("more-{n}"));
            add(world, unit);
        }
    };
    assert_eq!(broken(&rig, crowd), ["I7"]);
    let script_beside = running(script("s", "embed"));
    let unit = a_unit(&script_beside.world);
    let mixed = |world: &mut World| {
        let mut unit = unit;
        unit.worker = a_unit(world).worker;
        add(world, unit);
    };
    assert_eq!(broken(&rig, mixed), ["I7", "I7"], "a script beside an LLM task, and where an LLM is ordered");
}

#[test]
fn anything_beside_a_task_of_several_gpus_breaks_i7() {
    let mut rig = Rig::new().gpus([24_576; 2]);
    rig.hang.push("pair".into());
    rig.drop_task(script("pair", "embed").gpus(2)).run_for(3_000);
    assert!(broken(&rig, |_| ()).is_empty());
    let pair = a_unit(&rig.world);
    for worker in rig.world.living_workers().cloned().collect::<Vec<_>>() {
        let beside = |world: &mut World| {
            let mut unit = pair.clone();
            unit.key.task_id = super::rig::id("beside");
            (unit.worker, unit.beside) = (worker.clone(), Vec::new());
            unit.shape.needs.gpus = 1;
            add(world, unit);
        };
        let is_on_a_gpu = rig.world.gpu_of(&worker).is_some();
        assert_eq!(broken(&rig, beside), if is_on_a_gpu { vec!["I7"] } else { vec![] }, "on {worker}");
    }
}

#[test]
fn a_task_beyond_its_charges_breaks_i8() {
    let rig = running(whisper("w"));
    let poisoned = |world: &mut World| {
        let mut unit = a_unit(world);
        unit.task.charged = 4;
        world.units.insert(unit.key.clone(), unit);
    };
    assert_eq!(broken(&rig, poisoned), ["I8", "I8"]);
}

#[test]
fn an_llm_task_that_starts_inside_an_exclusive_batch_breaks_i17() {
    let mut rig = running(prompt("a"));
    rig.drop_batch("b", GpuMode::Exclusive, &[10.0; 5]).run_for(100);
    assert!(broken(&rig, |_| ()).is_empty(), "it ran before");
    let late = |world: &mut World| {
        let mut unit = a_unit(world);
        unit.ordered_at = unit.ordered_at + Millis(10_000_000);
        world.units.insert(unit.key.clone(), unit);
    };
    assert_eq!(broken(&rig, late), ["I17"]);
}
