//! What one event costs the mind, and how that grows with the number of waiting tasks and of GPUs.
//!
//! ```text
//! cargo bench -p gpuspool-policy            every shape of queue, 8 GPUs, 10 to 100,000 waiting; then up to 1,000 GPUs
//! cargo bench -p gpuspool-policy -- batch   only shapes whose name has this in it, and nothing else
//! ```
//!
//! Worlds are made by events alone. Figures are CPU time; the ones to judge by are ratios within one run.

mod clock;
mod machine;
mod workload;

use model::{TaskId, Timestamp};
use policy::{PictureFrame, picture, why};

use clock::Clock;
use machine::Machine;
use workload::{Workload, config};

const DEPTHS: [usize; 5] = [10, 100, 1_000, 10_000, 100_000];
/// Turns of one measurement (a task ends, a task arrives), and those of a machine with hundreds of GPUs.
const TURNS: [usize; 2] = [100, 30];
/// Rounds of measuring.
const ROUNDS: usize = 7;

/// What was measured of one world, in microseconds of CPU time.
#[derive(Clone, Copy, Debug)]
struct Cost {
    event: f64,
    plan: f64,
    /// Everything the mind does for one task from its arrival to its end.
    task: f64,
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let is_wanted = |workload: &Workload| {
        wanted.is_empty() || wanted.iter().any(|word| workload.name().contains(word.as_str()))
    };
    let workloads: Vec<Workload> = Workload::ALL.into_iter().filter(is_wanted).collect();
    if wanted.is_empty() {
        // First, while no memory of other worlds lies about.
        memory();
    }
    by_depth(&workloads);
    by_gpus(&workloads);
    if wanted.is_empty() {
        on_demand();
    }
}

fn by_depth(workloads: &[Workload]) {
    println!(
        "8 GPUs, by tasks waiting: CPU microseconds of one event, one plan, one task's whole way; and how"
    );
    println!("much that has grown since every kind of task of the queue waits\n");
    println!("| queue | waiting | event | plan | task | event x | plan x | task x |");
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    for workload in workloads {
        let machines = DEPTHS.iter().map(|depth| ready(8, *depth, *workload)).collect();
        let mut first = None;
        for (depth, cost) in DEPTHS.into_iter().zip(costs(machines)) {
            print!(
                "| {} | {depth} | {:.1} | {:.1} | {:.1} |",
                workload.name(),
                cost.event,
                cost.plan,
                cost.task
            );
            if depth < workload.kinds() * 5 {
                println!(" | | |");
                continue;
            }
            let base = *first.get_or_insert(cost);
            let grown = [cost.event / base.event, cost.plan / base.plan, cost.task / base.task];
            println!(" {:.2} | {:.2} | {:.2} |", grown[0], grown[1], grown[2]);
        }
    }
}

fn by_gpus(workloads: &[Workload]) {
    println!("\nBy GPUs: the same, and what one more GPU adds to a plan\n");
    println!("| queue | GPUs | waiting | event | plan | task | plan per GPU |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    let few = [Workload::OneKind, Workload::TwentyKinds, Workload::Mixed, Workload::Batch];
    for workload in workloads.iter().filter(|workload| few.contains(workload)) {
        for (gpus, depth) in [(8, 10_000), (100, 10_000), (1_000, 10_000), (1_000, 100_000)] {
            let cost = costs(vec![ready(gpus, depth, *workload)])[0];
            #[expect(clippy::cast_precision_loss, reason = "few")]
            let per_gpu = cost.plan / gpus as f64;
            println!(
                "| {} | {gpus} | {depth} | {:.1} | {:.1} | {:.1} | {per_gpu:.3} |",
                workload.name(),
                cost.event,
                cost.plan,
                cost.task
            );
        }
    }
}

/// What a person's look costs: the picture, a `why` of the last task, and whether there is anything left to do.
fn on_demand() {
    println!("\nOn demand, CPU microseconds\n");
    println!("| queue | GPUs | waiting | picture | why | rest |");
    println!("|---|---:|---:|---:|---:|---:|");
    for workload in [Workload::OneKind, Workload::TwentyKinds, Workload::Mixed, Workload::Parked] {
        for (gpus, depth) in [(8, 10), (8, 10_000), (8, 100_000), (1_000, 100_000)] {
            let mut machine = Machine::new(gpus, config(), workload);
            machine.fill(depth);
            machine.settle();
            let world = &machine.world;
            let now = machine.now();
            let frame = PictureFrame { seq: 1, epoch: 1, boot_id: None, brain_pid: 1 };
            let wall = Timestamp::UNIX_EPOCH;
            let last = TaskId::new(format!("task-{depth:08}")).expect("a legal name");
            let drawn = each(|| drop(picture(world, now, wall, frame.clone())));
            let told = each(|| drop(why(world, now, &last)));
            let rest = each(|| drop(world.rest()));
            println!("| {} | {gpus} | {depth} | {drawn:.1} | {told:.1} | {rest:.1} |", workload.name());
        }
    }
}

/// Memory of a waiting task, its body included. Every world lives on, so that none is made of another's memory.
fn memory() {
    println!("Memory of a waiting task in bytes\n");
    println!("| queue | waiting | with its body | body alone |");
    println!("|---|---:|---:|---:|");
    let mut kept = Vec::new();
    for workload in [Workload::OneKind, Workload::Mixed, Workload::Batch, Workload::Parked] {
        let depth: usize = 50_000;
        let mut machine = Machine::new(8, config(), workload);
        let before = resident_bytes();
        let bodies: Vec<_> = (0..depth as u64).map(|n| Box::new(workload.task(n + 1).0)).collect();
        let with_bodies = resident_bytes();
        machine.fill(depth);
        let after = resident_bytes();
        let of_one = |from: u64, to: u64| to.saturating_sub(from) / depth as u64;
        let (all, body) = (of_one(with_bodies, after), of_one(before, with_bodies));
        println!("| {} | {depth} | {all} | {body} |", workload.name());
        kept.push((machine, bodies));
    }
    println!();
}

/// A machine on which all that can run runs, and so many tasks wait.
fn ready(gpus: usize, depth: usize, workload: Workload) -> Machine {
    let mut machine = Machine::new(gpus, config(), workload);
    machine.fill(depth);
    machine.settle();
    // As many more as have found a place, until all places are taken: what was to wait waits.
    let mut placed = 0;
    while machine.running() > placed {
        let more = machine.running() - placed;
        placed = machine.running();
        for _ in 0..more {
            machine.drop_task();
        }
        machine.settle();
    }
    let enough = (gpus / 2).min(depth / 20);
    assert!(machine.running() >= enough, "{}: {} of {gpus} GPUs run", workload.name(), machine.running());
    machine
}

/// Measures the machines by turns, so that what disturbs one disturbs all; of each the best round counts.
fn costs(mut machines: Vec<Machine>) -> Vec<Cost> {
    let mut best: Vec<Option<Cost>> = vec![None; machines.len()];
    for _ in 0..ROUNDS {
        for (machine, best) in machines.iter_mut().zip(&mut best) {
            machine.settle();
            let turns = TURNS[usize::from(machine.running() > 100)];
            for _ in 0..turns {
                machine.turn();
            }
            let meter = machine.meter;
            let cost = Cost {
                event: us(meter.events_ns, meter.events),
                plan: us(meter.plans_ns, meter.plans),
                task: us(meter.events_ns + meter.plans_ns, turns as u64),
            };
            *best = Some(best.filter(|known| known.task <= cost.task).unwrap_or(cost));
        }
    }
    best.into_iter().flatten().collect()
}

/// The median time of a call.
fn each(call: impl Fn()) -> f64 {
    let mut times: Vec<u64> = (0..15)
        .map(|_| {
            let began = Clock.ns();
            call();
            Clock.ns() - began
        })
        .collect();
    times.sort_unstable();
    us(times[times.len() / 2], 1)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn us(ns: u64, calls: u64) -> f64 {
    ns as f64 / 1_000.0 / calls.max(1) as f64
}

#[expect(clippy::disallowed_methods, reason = "the memory of this process is a file")]
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("a Linux with /proc");
    let resident = pages.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
    resident.expect("a number of pages") * 4_096
}
