//! Scripts that behave and scripts that do not, as real processes.

use std::ffi::OsString;
use std::future::{Pending, pending};
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::group::{Program, adopt_orphans};
use engine::host::{Host, Served};
use engine::once::{Bounds, Ran, run};
use engine::outcome::Outcome;
use engine::protocol::{Brake, CHECKPOINT_BYTES_MAX, Job, Progress, Told};
use engine::tree::Process;
use engine::{Log, Surroundings};
use model::task::TaskError;
use model::{AttemptKey, FailureClass, GpuUuid, TaskId, WorkerId};
use serde_json::{Map, Value, json};

const GRACE: Duration = Duration::from_millis(200);

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/scripts").join(name)
}

fn program(argv: &[&str], set: &[(&str, &str)]) -> Program {
    program_over(&[], argv, set)
}

fn program_over(gpus: &[&str], argv: &[&str], set: &[(&str, &str)]) -> Program {
    let surroundings = Surroundings {
        worker: WorkerId::new("test-of-scripts").unwrap(),
        gpu: Some(GpuUuid::new("GPU-7").unwrap()),
        beside: Vec::new(),
        simulated: false,
    };
    let set: Vec<(String, String)> = set.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let gpus: Vec<GpuUuid> = gpus.iter().map(|uuid| GpuUuid::new(*uuid).unwrap()).collect();
    let env = surroundings.over(&gpus).environment(std::env::vars_os(), &[], set.iter().map(|(a, b)| (a, b)));
    Program { argv: argv.iter().map(OsString::from).collect(), env, folder: None }
}

fn job(args: Value) -> Job {
    let key = AttemptKey { task_id: TaskId::new("t1").unwrap(), attempt: 1 };
    let Value::Object(args) = args else { panic!("arguments are an object") };
    Job { key, args, checkpoint: None }
}

fn never() -> Brake<Pending<()>, Pending<()>> {
    Brake { give_way: pending(), stop: pending() }
}

fn progress(told: &[Told]) -> Vec<Progress> {
    let only = |told: &Told| match told {
        Told::Progress(progress) => Some(*progress),
        Told::Checkpoint(_) => None,
    };
    told.iter().filter_map(only).collect()
}

fn checkpoints(told: &[Told]) -> Vec<Value> {
    let only = |told: &Told| match told {
        Told::Checkpoint(state) => Some(state.clone()),
        Told::Progress(_) => None,
    };
    told.iter().filter_map(only).collect()
}

async fn once(what: &str) -> (Ran, Option<String>, Vec<Progress>) {
    once_over(&[], what).await
}

async fn once_over(gpus: &[&str], what: &str) -> (Ran, Option<String>, Vec<Progress>) {
    adopt_orphans().unwrap();
    let script = fixture("once.sh");
    let set = [("GPUSPOOL_TASK_ID", "t1"), ("GPUSPOOL_ATTEMPT", "1")];
    let program = program_over(gpus, &[script.to_str().unwrap()], &set);
    let bounds = Bounds { result_bytes_max: 100_000, grace: GRACE };
    let (mut log, mut told) = (Log::tail_only(1_000), Vec::new());
    let ran = run(&program, &job(json!({"do": what})), bounds, &mut log, |one| told.push(one), never()).await;
    assert!(ran.stuck.is_none());
    (ran, log.tail(), progress(&told))
}

fn output_of(ran: Ran) -> Map<String, Value> {
    match ran.outcome {
        Outcome::Done(done) => done.output,
        other => panic!("no result: {other:?}"),
    }
}

fn error(ran: Ran) -> TaskError {
    match ran.outcome {
        Outcome::Failed(error) => error,
        other => panic!("no error: {other:?}"),
    }
}

#[tokio::test]
async fn a_script_reads_one_line_and_its_last_object_is_the_result() {
    let (ran, tail, _) = once("echo").await;
    assert_eq!(Value::Object(output_of(ran)), json!({"args": {"do": "echo"}, "task": "t1", "attempt": "1"}));
    assert!(tail.unwrap().contains("some noise"));
}

#[tokio::test]
async fn a_script_of_one_task_may_speak_the_protocol() {
    let (ran, _, told) = once("protocol").await;
    assert_eq!(Value::Object(output_of(ran)), json!({"words": 7}));
    assert_eq!(told, [Progress { fraction: Some(0.25), media_s: Some(1.0) }]);
}

#[tokio::test]
async fn a_script_of_several_gpus_sees_all_of_them() {
    let (ran, ..) = once_over(&["GPU-3", "GPU-7", "GPU-9"], "environment").await;
    let seen = output_of(ran);
    assert_eq!(
        (seen["cuda"].as_str(), seen["gpus"].as_str()),
        (Some("GPU-7,GPU-3,GPU-9"), Some("GPU-7,GPU-3,GPU-9"))
    );
}

#[tokio::test]
async fn a_script_sees_its_gpu_and_no_secret() {
    let (ran, tail, _) = once("environment").await;
    assert_eq!(output_of(ran)["cuda"], "GPU-7");
    let tail = tail.unwrap();
    let expected = ["CUDA_DEVICE_ORDER", "GPUSPOOL_TASK_ID", "GPUSPOOL_WORKER", "PATH"];
    assert!(expected.iter().all(|name| tail.contains(name)), "{tail}");
    assert!(!tail.contains("CARGO"), "{tail}");
}

#[tokio::test]
async fn what_is_no_result_is_said_to_be_none() {
    for (what, code) in [("nothing", "no_result"), ("silence", "no_result"), ("binary", "bad_result")] {
        let error = error(once(what).await.0);
        assert_eq!((error.class, error.code.as_str()), (FailureClass::BadInput, code), "{what}");
    }
    for what in ["huge", "broken"] {
        assert_eq!(error(once(what).await.0).code, "bad_result", "{what}");
    }
}

#[tokio::test]
async fn a_failure_is_a_crash_with_its_status_and_a_tail_that_cannot_drive_a_terminal() {
    let (ran, tail, _) = once("fail").await;
    let error = error(ran);
    assert_eq!((error.class, error.code.as_str()), (FailureClass::Crash, "exit_status_3"));
    let tail = tail.unwrap();
    assert!(tail.contains("it is broken") && tail.contains("\\x1b]52") && !tail.contains('\x1b'), "{tail}");
}

#[tokio::test]
async fn a_signal_is_named() {
    assert_eq!(error(once("die").await.0).code, "killed_by:SIGSEGV");
}

#[tokio::test]
async fn a_grandchild_left_behind_is_ended_and_the_result_stands() {
    let ran = once("linger").await.0;
    let grandchild = output_of(ran)["grandchild"].as_u64().unwrap();
    assert_eq!(Process::read(u32::try_from(grandchild).unwrap()), None, "it is reaped as well");
}

#[tokio::test]
async fn a_script_that_ignores_sigterm_is_stopped_with_all_it_started() {
    adopt_orphans().unwrap();
    let script = fixture("once.sh");
    let program = program(&[script.to_str().unwrap()], &[("GPUSPOOL_TEST_MARK", "stubborn")]);
    let bounds = Bounds { result_bytes_max: 1_000, grace: GRACE };
    let (tell, told) = tokio::sync::oneshot::channel();
    let mut tell = Some(tell);
    let running = async {
        let _ = told.await;
    };
    let begin = std::time::Instant::now();
    let mut log = Log::tail_only(100);
    let heard = |_| {
        let _ = tell.take().map(|tell| tell.send(()));
    };
    let brake = Brake { give_way: pending::<()>(), stop: running };
    let ran = run(&program, &job(json!({"do": "stubborn"})), bounds, &mut log, heard, brake).await;
    assert_eq!(ran.outcome, Outcome::Stopped);
    assert!(ran.stuck.is_none() && begin.elapsed() >= GRACE);
    let left =
        engine::tree::Table::read().iter().filter(|p| p.carries("GPUSPOOL_TEST_MARK=stubborn")).count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_script_that_is_not_there_is_named() {
    let bounds = Bounds { result_bytes_max: 1_000, grace: GRACE };
    let program = program(&["/no/such/script"], &[]);
    let mut log = Log::tail_only(100);
    let ran = run(&program, &job(json!({})), bounds, &mut log, |_| {}, never()).await;
    let error = error(ran);
    assert!(error.code == "cannot_start" && error.message.contains("/no/such/script"), "{error}");
}

// ------------------------------------------------------------------------------------------------ warm hosts

fn host(set: &[(&str, &str)]) -> Host {
    let script = fixture("warm_host.py");
    Host::start(&program(&["python3", script.to_str().unwrap(), "--host"], set), 10_000, 1_000).unwrap()
}

async fn ask(host: &mut Host, args: Value) -> (Outcome, bool, Vec<Progress>) {
    let (mut log, mut told) = (Log::tail_only(100), Vec::new());
    let Served { outcome, alive } =
        host.run(&job(args), &mut log, |one| told.push(one), never(), GRACE).await;
    (outcome, alive, progress(&told))
}

fn result(outcome: Outcome) -> Map<String, Value> {
    match outcome {
        Outcome::Done(done) => done.output,
        other => panic!("no result: {other:?}"),
    }
}

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn one_load_serves_many_tasks() {
    let folder = tempfile::tempdir().unwrap();
    let loads = folder.path().join("loads");
    let mut host = host(&[("LOADS", loads.to_str().unwrap())]);
    host.ready(SOON).await.unwrap();
    for number in 0..20 {
        let (outcome, alive, told) = ask(&mut host, json!({"echo": number})).await;
        let answer = result(outcome);
        assert_eq!(
            (answer["echo"].as_u64(), answer["pid"].as_u64()),
            (Some(number), Some(host.pid().into()))
        );
        assert!(alive);
        let fractions: Vec<_> = told.iter().filter_map(|progress| progress.fraction).collect();
        assert_eq!(fractions, [0.5, 1.0], "clamped, and never back");
    }
    let (outcome, alive, _) = ask(&mut host, json!({"do": "fail"})).await;
    assert!(matches!(outcome, Outcome::Failed(error) if error.code == "no_speech"));
    assert!(alive, "an error of a task is not the end of its host");
    assert_eq!(result(ask(&mut host, json!({"do": "stale"})).await.0)["of"], "this task");
    host.stop(SOON).await.unwrap();
    assert_eq!(std::fs::read_to_string(&loads).unwrap().lines().count(), 1);
}

#[tokio::test]
async fn the_log_of_a_task_holds_what_its_host_notes_and_not_the_protocol() {
    let mut host = host(&[]);
    host.ready(SOON).await.unwrap();
    let mut log = Log::tail_only(1_000);
    host.run(&job(json!({"echo": 1})), &mut log, |_| {}, never(), GRACE).await;
    assert_eq!(log.tail().as_deref(), Some("serving t1"));
    let mut log = Log::tail_only(1_000);
    host.run(&job(json!({"do": "die"})), &mut log, |_| {}, never(), GRACE).await;
    assert_eq!(log.tail().as_deref(), Some("serving t1"));
    host.stop(GRACE).await.unwrap();
}

#[tokio::test]
async fn a_host_that_cannot_load_says_why() {
    let mut host = host(&[("GPUSPOOL_MODEL", "broken")]);
    assert_eq!(host.ready(SOON).await.unwrap_err().code, "model_not_found");
    host.stop(GRACE).await.unwrap();
}

#[tokio::test]
async fn a_host_that_is_silent_or_no_host_at_all_is_an_error() {
    let mut silent = Host::start(&program(&["sleep", "600"], &[]), 1_000, 1_000).unwrap();
    assert_eq!(silent.ready(Duration::from_millis(50)).await.unwrap_err().code, "host_boot_timeout");
    silent.stop(GRACE).await.unwrap();
    let script = fixture("warm_host.py");
    let argv = ["python3", script.to_str().unwrap(), "--not-a-host"];
    let mut other = Host::start(&program(&argv, &[]), 1_000, 1_000).unwrap();
    let error = other.ready(SOON).await.unwrap_err();
    assert!(error.code == "exit_status_1" && error.tail.unwrap().contains("start it with --host"));
    other.stop(GRACE).await.unwrap();
}

#[tokio::test]
async fn a_host_that_dies_fails_its_task_by_the_signal() {
    let mut host = host(&[]);
    host.ready(SOON).await.unwrap();
    let (outcome, alive, _) = ask(&mut host, json!({"do": "die"})).await;
    assert!(matches!(outcome, Outcome::Failed(error) if error.code == "killed_by:SIGSEGV"));
    assert!(!alive);
    host.stop(GRACE).await.unwrap();
}

/// Runs a task and asks it to stop as soon as it has begun.
async fn cancel(host: &mut Host, args: Value) -> (Outcome, bool) {
    let (begun, started) = tokio::sync::oneshot::channel();
    let mut begun = Some(begun);
    let mut log = Log::tail_only(100);
    let tell = move |_| {
        let _ = begun.take().map(|begun| begun.send(()));
    };
    let stop = async {
        let _ = started.await;
    };
    let brake = Brake { give_way: pending::<()>(), stop };
    let Served { outcome, alive } = host.run(&job(args), &mut log, tell, brake, GRACE).await;
    (outcome, alive)
}

#[tokio::test]
async fn a_cancelled_task_leaves_a_host_that_listens_loaded_and_ends_one_that_does_not() {
    let mut host = host(&[]);
    host.ready(SOON).await.unwrap();
    assert_eq!(cancel(&mut host, json!({"do": "listen"})).await, (Outcome::Stopped, true));
    assert_eq!(result(ask(&mut host, json!({"echo": 1})).await.0)["echo"], 1);
    let (outcome, alive) = cancel(&mut host, json!({"do": "sleep", "seconds": 0.05})).await;
    assert_eq!((result(outcome)["slept"].as_f64(), alive), (Some(0.05), true), "a result that came wins");
    assert_eq!(cancel(&mut host, json!({"do": "sleep", "seconds": 600})).await, (Outcome::Stopped, false));
    host.stop(GRACE).await.unwrap();
}

#[tokio::test]
async fn a_host_ends_when_its_input_does() {
    let mut host = host(&[]);
    host.ready(SOON).await.unwrap();
    let pid = host.pid();
    host.stop(SOON).await.unwrap();
    assert_eq!(Process::read(pid), None);
    assert_eq!(host.idle().await, engine::group::End::Exit(0), "not by a signal");
}

// ------------------------------------------------------------------------------------------------ giving way

const SEGMENTS: u64 = 8;

fn segments(output: &Path) -> Value {
    json!({"segments": SEGMENTS, "seconds": 0.02, "output": output})
}

fn whole_text() -> String {
    (0..SEGMENTS).map(|n| format!("segment {n}\n")).collect()
}

fn host_of_segments(model: &str, set: &[(&str, &str)]) -> Host {
    let script = fixture("segments.py");
    let set = [set, &[("GPUSPOOL_MODEL", model)]].concat();
    Host::start(&program(&["python3", script.to_str().unwrap(), "--host"], &set), 200_000, 1_000).unwrap()
}

/// Runs a task that is asked to give way once it has told something for the third time.
async fn give_way(host: &mut Host, job: &Job, log: &mut Log) -> (Served, Vec<Told>) {
    let (begun, started) = tokio::sync::oneshot::channel();
    let (mut begun, mut told) = (Some(begun), Vec::new());
    let tell = |one| {
        told.push(one);
        if told.len() == 3 {
            let _ = begun.take().map(|begun| begun.send(()));
        }
    };
    let give_way = async {
        let _ = started.await;
    };
    let served = host.run(job, log, tell, Brake { give_way, stop: pending::<()>() }, GRACE).await;
    (served, told)
}

#[tokio::test]
async fn a_host_that_obeys_gives_way_at_its_boundary_stays_and_goes_on_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let mut host = host_of_segments("m", &[]);
    host.ready(SOON).await.unwrap();
    assert!(host.yields());
    let mut job = job(segments(&output));
    let mut log = Log::tail_only(100);
    let (served, told) = give_way(&mut host, &job, &mut log).await;
    assert_eq!(served, Served { outcome: Outcome::Stopped, alive: true });
    assert!(!output.exists(), "nothing half-written has its name");
    let last = checkpoints(&told).pop().unwrap();
    let done = last["done"].as_u64().unwrap();
    assert!((1..SEGMENTS).contains(&done), "{last}");
    job.checkpoint = Some(last);
    job.key.attempt = 2;
    let served = host.run(&job, &mut log, |_| {}, never(), GRACE).await;
    let answer = result(served.outcome);
    assert_eq!((answer["began_at"].as_u64(), answer["pid"].as_u64()), (Some(done), Some(host.pid().into())));
    assert_eq!(std::fs::read_to_string(&output).unwrap(), whole_text());
    host.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn a_host_that_does_not_obey_is_left_after_its_next_checkpoint_and_one_without_any_never() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let mut host = host_of_segments("deaf", &[]);
    host.ready(SOON).await.unwrap();
    assert!(!host.yields());
    let mut log = Log::tail_only(100);
    let (served, told) = give_way(&mut host, &job(segments(&output)), &mut log).await;
    assert_eq!(served, Served { outcome: Outcome::Stopped, alive: false });
    assert!(!checkpoints(&told).is_empty() && !output.exists());
    host.stop(GRACE).await.unwrap();

    let mut host = host_of_segments("deaf", &[]);
    host.ready(SOON).await.unwrap();
    let mut args = segments(&output);
    args["checkpoints"] = json!(false);
    let (served, told) = give_way(&mut host, &job(args), &mut log).await;
    assert!(served.alive && checkpoints(&told).is_empty());
    assert_eq!(result(served.outcome)["segments"], SEGMENTS);
    host.stop(GRACE).await.unwrap();
}

#[tokio::test]
async fn a_checkpoint_that_is_too_large_is_ignored_and_the_log_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = host_of_segments("deaf", &[]);
    host.ready(SOON).await.unwrap();
    let mut args = segments(&folder.path().join("out"));
    args["large"] = json!(true);
    let mut log = Log::tail_only(1_000);
    let (served, told) = give_way(&mut host, &job(args), &mut log).await;
    assert!(matches!(served.outcome, Outcome::Done(_)) && checkpoints(&told).is_empty());
    let tail = log.tail().unwrap();
    assert_eq!(tail.matches(&format!("at most {CHECKPOINT_BYTES_MAX} are kept")).count(), 1, "{tail}");
    host.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn a_script_of_one_task_is_left_after_its_next_checkpoint_and_finds_it_among_its_arguments() {
    adopt_orphans().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let script = fixture("segments.py");
    let program = program(&["python3", script.to_str().unwrap()], &[]);
    let bounds = Bounds { result_bytes_max: 100_000, grace: GRACE };
    let mut job = job(segments(&output));
    let mut log = Log::tail_only(1_000);
    let mut told = Vec::new();
    let brake = Brake { give_way: std::future::ready(()), stop: pending::<()>() };
    let ran = run(&program, &job, bounds, &mut log, |one| told.push(one), brake).await;
    assert_eq!((ran.outcome, output.exists()), (Outcome::Stopped, false));
    job.checkpoint = checkpoints(&told).pop();
    let done = job.checkpoint.as_ref().unwrap()["done"].clone();
    let ran = run(&program, &job, bounds, &mut log, |_| {}, never()).await;
    assert_eq!(output_of(ran)["began_at"], done);
    assert_eq!(std::fs::read_to_string(&output).unwrap(), whole_text());
}
