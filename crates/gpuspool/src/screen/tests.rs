//! The terminal picture in its moods: each is a snapshot that a person can read.

use std::collections::BTreeMap;

use chrono::{DateTime, FixedOffset, TimeZone, Utc};
use model::picture::{
    BatchPicture, CpuPicture, EndedPicture, GpuPicture, HeadPicture, PICTURE_SCHEMA_VERSION, Picture,
    QueuePicture, Resident, SlotPicture, VramPicture,
};
use model::reason::ReasonTold;
use model::{
    BatchId, GpuMode, GpuState, GpuUuid, Health, InventorySource, Mode, Priority, TaskClass, TaskId,
};

use super::{Frame, WIDTH_DEFAULT, draw};
use crate::brain::Presence;

fn at(second: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_770_000_000 + second, 0).unwrap()
}

fn gpu(index: u32, state: GpuState, since: i64) -> GpuPicture {
    GpuPicture {
        state,
        model: None,
        paired_with: Vec::new(),
        script: None,
        pid: None,
        port: None,
        since: at(since),
        started_boot: None,
        expected_ready: None,
        tasks_completed: 0,
        task_id: None,
        progress: None,
        uuid: GpuUuid::new(format!("GPU-{index}")).unwrap(),
        name: "NVIDIA GeForce RTX 4070".into(),
        role: None,
        vram: VramPicture { total_mib: Some(12_227), used_mib: Some(310), foreign_mib: Some(310) },
        health: Health::Ok,
        draining: false,
        accepts: Vec::new(),
        residents: Vec::new(),
        slots_used: 0,
        slots_max: Some(3),
        slots: Vec::new(),
        lease: None,
        transitions: Vec::new(),
        worker_pid: Some(4_000 + index),
    }
}

fn llm(index: u32, state: GpuState, since: i64) -> GpuPicture {
    GpuPicture {
        model: Some("qwen2.5:7b".into()),
        vram: VramPicture { total_mib: Some(12_227), used_mib: Some(5_932), foreign_mib: Some(0) },
        tasks_completed: 23,
        ..gpu(index, state, since)
    }
}

fn transcribing(index: u32, share: f64, eta_s: f64) -> GpuPicture {
    let id = TaskId::new(format!("whisper-urban-prepper-20250205.{index}")).unwrap();
    GpuPicture {
        script: Some("whisper_transcribe".into()),
        task_id: Some(id.clone()),
        slots: vec![slot(id, Some(share), Some(eta_s))],
        ..gpu(index, GpuState::ScriptBusy, -20)
    }
}

fn slot(task_id: TaskId, progress: Option<f64>, eta_s: Option<f64>) -> SlotPicture {
    SlotPicture {
        task_id,
        attempt: 1,
        class: TaskClass::Script,
        priority: Priority::NORMAL,
        since: Some(at(-20)),
        progress,
        eta_s,
    }
}

fn picture(gpus: Vec<GpuPicture>) -> Picture {
    Picture {
        schema_version: PICTURE_SCHEMA_VERSION,
        seq: 812,
        epoch: 7,
        boot_id: None,
        written_at: at(-1),
        brain_pid: 4_000,
        inventory: InventorySource::Measured,
        inventory_why: None,
        mode: Mode::Normal,
        shutting_down: false,
        gpus: gpus.into_iter().enumerate().map(|(index, gpu)| (index.to_string(), gpu)).collect(),
        cpu: CpuPicture { capacity: 4, slots: Vec::new(), worker_pid: Some(4_100) },
        boot_times: BTreeMap::new(),
        queues: TaskClass::ALL.into_iter().map(|class| (class, QueuePicture::default())).collect(),
        batches: BTreeMap::new(),
        leases: BTreeMap::new(),
        system_ram_mb: None,
        system_ram_available_mb: None,
        ended: EndedPicture { complete: 23, failed: 0 },
        anomalies: BTreeMap::new(),
        said: Vec::new(),
        notices: Vec::new(),
    }
}

fn waiting(
    picture: &mut Picture,
    class: TaskClass,
    levels: &[(&str, u64)],
    head: Option<(&str, ReasonTold, i64)>,
) {
    let queue = picture.queues.entry(class).or_default();
    queue.waiting = levels.iter().map(|(_, n)| n).sum();
    queue.by_priority = levels.iter().map(|(level, n)| ((*level).to_owned(), *n)).collect();
    queue.head = head.map(|(id, reason, eta)| HeadPicture {
        task_id: TaskId::new(id).unwrap(),
        reason,
        eta: Some(at(eta)),
    });
}

fn reason(code: &str, text: &str) -> ReasonTold {
    ReasonTold { code: code.into(), text: text.into() }
}

fn screen_of(picture: Option<&Picture>, brain: Presence, width: usize) -> String {
    let queued = BTreeMap::from([(TaskClass::Llm, 2), (TaskClass::Script, 0)]);
    let text = draw(&Frame {
        picture,
        brain,
        queued,
        now: at(0),
        zone: FixedOffset::east_opt(3_600).unwrap(),
        width,
    });
    let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
    assert!(widths.iter().all(|found| *found == widths[0]), "the box is crooked:\n{text}");
    text
}

fn screen(picture: &Picture) -> String {
    screen_of(Some(picture), Presence::Runs { pid: 4_000 }, WIDTH_DEFAULT)
}

#[test]
fn idle() {
    let mut warm = gpu(1, GpuState::Idle, -40);
    warm.residents = vec![Resident {
        kind: TaskClass::Script,
        model: "whisper:small.en".into(),
        mib: Some(1_200),
        loads: 1,
    }];
    insta::assert_snapshot!(screen(&picture(vec![gpu(0, GpuState::Idle, -300), warm])));
}

#[test]
fn booting() {
    let mut boots = llm(0, GpuState::BootingLlm, -20);
    (boots.started_boot, boots.expected_ready) = (Some(at(-20)), Some(at(40)));
    let mut late = gpu(1, GpuState::BootingScript, -9);
    late.script = Some("whisper_transcribe".into());
    (late.started_boot, late.expected_ready) = (Some(at(-9)), Some(at(-4)));
    let mut picture = picture(vec![boots, late, gpu(2, GpuState::Cooling, -1)]);
    let why = reason("booting", "qwen2.5:7b is booting on GPU 0, expected ready in 40 s");
    waiting(&mut picture, TaskClass::Llm, &[("3", 2), ("5", 1)], Some(("summarize-report", why, 40)));
    insta::assert_snapshot!(screen(&picture));
}

#[test]
fn busy() {
    let mut answers = llm(0, GpuState::LlmBusy, -12);
    answers.slots =
        vec![slot(TaskId::new("a").unwrap(), None, Some(3.0)), slot(TaskId::new("b").unwrap(), None, None)];
    answers.task_id = Some(TaskId::new("a").unwrap());
    let mut drains = llm(1, GpuState::LlmBusy, -75);
    drains.draining = true;
    drains.slots = vec![slot(TaskId::new("c").unwrap(), None, None)];
    let mut lost = gpu(3, GpuState::ScriptBusy, -75);
    lost.health = Health::Lost;
    let mut picture =
        picture(vec![answers, drains, transcribing(2, 0.45, 25.0), lost, llm(4, GpuState::LlmReady, -300)]);
    picture.cpu.slots = vec![slot(TaskId::new("extract-frames-17").unwrap(), Some(0.8), Some(4_000.0))];
    picture.ended.failed = 2;
    let why = reason(
        "llm_kept",
        "an LLM is loaded on every GPU that could run it, and the backlog of scripts does not yet justify unloading one (3 waiting, evicted above 5)",
    );
    waiting(&mut picture, TaskClass::Script, &[("3", 3)], Some(("lecture-12", why, 0)));
    picture.notices = vec!["`config.json` expects 5 GPUs and 4 were found".into()];
    picture.anomalies = BTreeMap::from([("ended_twice".into(), 1)]);
    insta::assert_snapshot!(screen(&picture));
    insta::assert_snapshot!(
        "busy_on_80_columns",
        screen_of(Some(&picture), Presence::Runs { pid: 4_000 }, 80)
    );
}

#[test]
fn exclusive_batch() {
    let mut picture = picture(vec![
        llm(0, GpuState::LlmReady, -300),
        transcribing(1, 0.45, 25.0),
        transcribing(2, 0.67, 15.0),
        transcribing(3, 0.12, 40.0),
    ]);
    picture.mode = Mode::Exclusive;
    let batch = BatchPicture {
        script: "whisper_transcribe".into(),
        gpu_mode: GpuMode::Exclusive,
        total_items: 125,
        completed: 3,
        failed: 0,
        paused: false,
        gpus: vec!["1".into(), "2".into(), "3".into()],
        eta: Some(at(3_720)),
    };
    picture.batches.insert(BatchId::new("whisper-urban-prepper-20250205").unwrap(), batch);
    let why = reason(
        "held_by_batch",
        "exclusive batch `whisper-urban-prepper-20250205` has the GPUs (122 items left); LLM tasks wait for its end",
    );
    waiting(&mut picture, TaskClass::Llm, &[("3", 4)], Some(("ask-7", why, 3_720)));
    waiting(&mut picture, TaskClass::Script, &[("3", 119)], None);
    insta::assert_snapshot!(screen(&picture));
}

#[test]
fn simulated() {
    let mut invented = llm(0, GpuState::LlmReady, -5);
    invented.name = "SIMULATED 24576 MiB".into();
    invented.vram = VramPicture { total_mib: Some(24_576), used_mib: Some(5_600), foreign_mib: Some(0) };
    let mut picture = picture(vec![invented]);
    picture.inventory = InventorySource::Simulated;
    picture.inventory_why =
        Some("these GPUs are invented: nothing that is said of their memory was measured".into());
    insta::assert_snapshot!(screen(&picture));
}

#[test]
fn unmeasured() {
    let mut assumed = gpu(0, GpuState::Idle, -5);
    assumed.name = "UNMEASURED GPU".into();
    assumed.vram = VramPicture::default();
    let mut picture = picture(vec![assumed]);
    picture.inventory = InventorySource::Unmeasured;
    picture.inventory_why = Some(
        "one GPU with one slot is assumed; no GPU driver answered: NVML: a libloading error occurred: \
         libnvidia-ml.so: cannot open shared object file; `nvidia-smi` cannot be started: No such file or directory"
            .into(),
    );
    insta::assert_snapshot!(screen(&picture));
}

#[test]
fn without_a_brain_the_picture_is_old_and_the_queues_are_counted() {
    let mut old = picture(vec![llm(0, GpuState::LlmReady, -5_000)]);
    old.written_at = at(-4_000);
    insta::assert_snapshot!(screen_of(Some(&old), Presence::Absent, WIDTH_DEFAULT));
    let starting = screen_of(None, Presence::Starts, WIDTH_DEFAULT);
    assert!(starting.contains("The brain is starting."), "{starting}");
    insta::assert_snapshot!("before_the_first_brain", screen_of(None, Presence::Absent, WIDTH_DEFAULT));
}

#[test]
fn names_that_try_to_command_the_terminal_are_shown_as_letters() {
    let mut evil = llm(0, GpuState::LlmReady, -5);
    evil.model = Some("\u{1b}[2J\u{202e}evil\nname".into());
    let mut picture = picture(vec![evil]);
    picture.notices = vec!["\u{1b}]52;c;cm0gLXJm\u{7} and ".to_owned() + &"long ".repeat(500)];
    let text = screen(&picture);
    assert!(text.bytes().all(|b| b >= 0x20 || b == b'\n'), "{text:?}");
    assert!(text.contains("\\x1b[2J") && !text.contains('\u{202e}'));
}
