//! Events that make no sense, in any order: each is counted or ignored, and the mind goes on thinking.

use model::gpu::{GpuFacts, Inventory, Reading};
use model::link::{
    AttemptReport, AttemptState, EngineReport, EngineState, GpuIdentity, HostReport, HostState, Outcome,
    Phase, Reports,
};
use model::{
    AttemptKey, BatchId, Entry, FailureClass, GpuMode, GpuUuid, InventorySource, Millis, Priority, TaskClass,
    Timestamp, WorkerId,
};
use proptest::prelude::*;

use super::make::{can, config, prompt, whisper};
use super::random::random_and_kept;
use super::rig::id;
use crate::event::{BatchFacts, Event};
use crate::picture::PictureFrame;
use crate::{Step, World, breaches, breaches_of, picture, plan, why};

fn worker() -> impl Strategy<Value = WorkerId> {
    (0..3_u8).prop_map(|n| WorkerId::new(format!("w{n}")).unwrap())
}

fn key() -> impl Strategy<Value = AttemptKey> {
    (0..4_u8, 0..3_u32).prop_map(|(n, attempt)| AttemptKey { task_id: id(&format!("t{n}")), attempt })
}

fn entry() -> impl Strategy<Value = Entry> {
    (0..4_u8, any::<bool>(), 1..=5_u8).prop_map(|(n, llm, priority)| Entry {
        class: if llm { TaskClass::Llm } else { TaskClass::Script },
        priority: Priority::new(priority).unwrap(),
        name: format!("t{n}.json"),
    })
}

fn attempt() -> impl Strategy<Value = AttemptReport> {
    let outcome = prop::option::of((any::<bool>(), any::<u64>()).prop_map(|(fails, run_ms)| Outcome {
        failure: fails.then_some(FailureClass::Crash),
        code: None,
        message: None,
        run_ms,
        media_s: Some(f64::NAN),
        checkpoint: None,
        stopped: fails,
    }));
    let state =
        prop::sample::select(vec![AttemptState::Running, AttemptState::Ended, AttemptState::NeverStarted]);
    (key(), state, any::<i64>(), any::<f64>(), outcome).prop_map(|(key, state, since, progress, outcome)| {
        AttemptReport {
            task_id: key.task_id,
            attempt: key.attempt,
            state,
            since: Some(Millis(since)),
            progress: Some(progress),
            media_s: None,
            yields: false,
            outcome,
        }
    })
}

fn reports() -> impl Strategy<Value = Reports> {
    use EngineState::{Booting, Failed, Ready, Unloading};
    let state = prop::sample::select(vec![Booting, Ready, Failed, Unloading]);
    let engine = prop::option::of((state, 0..4_u64, 0..3_u32).prop_map(|(state, generation, parallel)| {
        EngineReport {
            generation,
            state,
            preset: "ollama".into(),
            model: "qwen2.5:7b".into(),
            parallel,
            beside: Vec::new(),
            pid: None,
            port: None,
            since: Millis(i64::MAX),
            boot_ms: Some(u64::MAX),
            error: None,
        }
    }));
    let host = prop::sample::select(vec![
        HostState::Booting,
        HostState::Idle,
        HostState::Busy,
        HostState::Unloading,
    ]);
    let hosts = prop::collection::vec(
        host.prop_map(|state| HostReport {
            script: "whisper".into(),
            model: Some("small.en".into()),
            state,
            pid: None,
            loads: 1,
            boot_ms: None,
        }),
        0..3,
    );
    let phase = prop::sample::select(vec![
        Phase::Serving,
        Phase::Gap,
        Phase::Leaving,
        Phase::Left,
        Phase::CannotRead,
    ]);
    let attempts = prop::collection::vec(attempt(), 0..3);
    (0..4_u32, engine, hosts, attempts, phase).prop_map(|(gpu, engine, hosts, attempts, phase)| Reports {
        gpu: (gpu < 3).then(|| GpuIdentity {
            uuid: GpuUuid::new(format!("SIM-{gpu}")).unwrap(),
            index: gpu,
            name: "a GPU".into(),
            vram_mib: None,
        }),
        can: can(&["qwen2.5:7b"]),
        engine,
        hosts,
        attempts: attempts.into_iter().map(|report| (report.key(), report)).collect(),
        phase,
        ..Reports::default()
    })
}

fn inventory(count: u32) -> Inventory {
    let gpus = (0..count).map(|index| GpuFacts {
        uuid: GpuUuid::new(format!("SIM-{index}")).unwrap(),
        index,
        name: "a GPU".into(),
        total_mib: Some(12_000),
        compute_capability: None,
    });
    Inventory { source: InventorySource::Measured, why: None, gpus: gpus.collect() }
}

fn event() -> impl Strategy<Value = Event> {
    let batch =
        (0..2_u8, any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(n, total, completed, failed)| {
            BatchFacts {
                batch_id: BatchId::new(format!("b{n}")).unwrap(),
                script: "whisper".into(),
                gpu_mode: GpuMode::Auto,
                total,
                completed,
                failed,
                paused: total % 2 == 1,
            }
        });
    let queued = (entry(), any::<u64>(), any::<i64>(), any::<bool>()).prop_map(
        |(entry, order, not_before, parked)| {
            let name = entry.name.trim_end_matches(".json");
            let drop =
                if entry.class == TaskClass::Llm { prompt(name) } else { whisper(name).of_batch("b0") };
            let not_before = parked.then_some(Millis(not_before));
            Event::Queued { entry, task: Box::new(drop.task), order, not_before }
        },
    );
    prop_oneof![
        6 => queued,
        1 => entry().prop_map(Event::Unqueued),
        2 => (0..4_u32).prop_map(|count| Event::Inventory(inventory(count))),
        1 => (0..4_u32, any::<bool>()).prop_map(|(gpu, lost)| Event::Read(Reading {
            uuid: GpuUuid::new(format!("SIM-{gpu}")).unwrap(), used_mib: Some(u64::MAX), processes: Vec::new(), lost,
        })),
        3 => (worker(), reports()).prop_map(|(worker, reports)| Event::WorkerBorn { worker, reports: Box::new(reports), orders: None }),
        6 => (worker(), reports()).prop_map(|(worker, reports)| Event::Reported { worker, reports: Box::new(reports) }),
        1 => (worker(), any::<bool>()).prop_map(|(worker, with_machine)| Event::WorkerDied { worker, with_machine }),
        2 => (entry(), worker(), key()).prop_map(|(entry, worker, key)| Event::Started { entry, task_id: key.task_id, worker, attempt: key.attempt }),
        1 => (entry(), key()).prop_map(|(entry, key)| Event::Claimed { entry, task_id: key.task_id }),
        1 => entry().prop_map(|entry| Event::StartLost { entry, why: "?".into() }),
        1 => (key(), any::<bool>()).prop_map(|(key, complete)| Event::Finished { task_id: key.task_id, complete }),
        1 => key().prop_map(|key| Event::Requeued { task_id: key.task_id }),
        1 => key().prop_map(|key| Event::CancelAsked { task_id: key.task_id }),
        1 => batch.prop_map(Event::Batch),
        1 => any::<u64>().prop_map(|count| Event::Counted([((TaskClass::Script, Priority::NORMAL), count)].into())),
        1 => Just(Event::LaunchEnded { launch: "nobody".into(), status: None, message: None }),
    ]
}

/// What is done with the actions of a plan.
#[derive(Clone, Debug)]
enum Turn {
    Tell(Event),
    Obey { undo: bool },
    Wait(i64),
}

/// Cases that failed once; they are run first.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/nonsense.txt");

proptest! {
    #![proptest_config(random_and_kept(200, KEPT))]

    #[test]
    fn no_sequence_of_events_is_a_panic(
        turns in prop::collection::vec(
            prop_oneof![
                5 => event().prop_map(Turn::Tell),
                2 => any::<bool>().prop_map(|undo| Turn::Obey { undo }),
                1 => (0..100_000_i64).prop_map(Turn::Wait),
            ],
            1..60,
        ),
    ) {
        let mut world = World::new(config(), model::learned::Learned::default());
        let mut now = Millis(1_000);
        for turn in turns {
            match turn {
                Turn::Tell(event) => world.apply(now, event),
                Turn::Obey { undo } => {
                    for action in plan(&world, now).actions {
                        let event = Event::Issued(Box::new(action.clone()));
                        let broken = breaches_of(&Step { world: &world, at: now, event: &event });
                        let broken: Vec<String> = broken.iter().map(ToString::to_string).collect();
                        prop_assert!(broken.is_empty(), "{:#?}", broken);
                        world.apply(now, Event::Issued(Box::new(action.clone())));
                        if undo {
                            world.apply(now, Event::Undone { action: Box::new(action), why: "?".into() });
                        }
                    }
                }
                Turn::Wait(ms) => now = now + Millis(ms),
            }
            let choices = plan(&world, now);
            prop_assert!(choices.wake_at.is_none_or(|wake| wake > now));
            let frame = PictureFrame { seq: 0, epoch: 0, boot_id: None, brain_pid: 1 };
            let picture = picture(&world, now, Timestamp::UNIX_EPOCH, frame);
            prop_assert_eq!(picture.gpus.len(), world.gpus.len());
            for (task_id, _) in choices.heads {
                prop_assert!(why(&world, now, &task_id).is_some());
            }
            drop(breaches(&world));
        }
    }
}
