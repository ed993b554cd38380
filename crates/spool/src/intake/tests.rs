//! The catalogue of bad inputs, by drop; and files that are not whole yet.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use model::{Durability, Priority, TaskClass};
use rustix::fs::{FileType, Mode};

use super::*;
use crate::ledger::{Ledger, Rejection};

const START: Millis = Millis(1_000_000);
const SETTLED: Millis = Millis(1_030_000);

struct House {
    _dir: tempfile::TempDir,
    layout: Layout,
    config: Config,
    intake: Intake,
}

fn house() -> House {
    house_with(|_| ())
}

fn house_with(change: impl FnOnce(&mut Config)) -> House {
    let dir = crate::rig::folder();
    let root = fs::canonicalize(dir.path()).unwrap();
    let layout = Layout::new(root.join("shared"));
    layout.create().unwrap();
    fs::create_dir(root.join("scripts")).unwrap();
    fs::write(root.join("scripts/known.py"), "print({})").unwrap();
    for path in ["scripts", "scripts/known.py"] {
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut config = Config::default();
    config.scripts.insert(
        "known".into(),
        model::config::ScriptEntry { path: "scripts/known.py".into(), ..Default::default() },
    );
    config.anchor(&root);
    change(&mut config);
    House { intake: Intake::new(&config), layout, config, _dir: dir }
}

fn llm(name: &str) -> Entry {
    Entry { class: TaskClass::Llm, priority: Priority::NORMAL, name: name.into() }
}

fn script(name: &str) -> Entry {
    Entry { class: TaskClass::Script, ..llm(name) }
}

impl House {
    fn path(&self, entry: &Entry) -> PathBuf {
        self.layout.entry(entry)
    }
    fn read(&mut self, entry: &Entry, now: Millis) -> Verdict {
        self.intake.read(&self.layout, entry, now, false)
    }
    fn closed(&mut self, entry: &Entry) -> Verdict {
        self.intake.read(&self.layout, entry, START, true)
    }
    /// Drops a file and waits as long as it takes.
    fn judged(&mut self, entry: &Entry, bytes: &[u8]) -> Verdict {
        fs::write(self.path(entry), bytes).unwrap();
        match self.closed(entry) {
            Verdict::Settling { .. } => self.intake.read(&self.layout, entry, SETTLED, true),
            at_once => at_once,
        }
    }
    fn task(&mut self, entry: &Entry, text: &str) -> Task {
        match self.judged(entry, text.as_bytes()) {
            Verdict::Ready(task) => *task,
            other => panic!("{text}: {other:?}"),
        }
    }
    fn fault(&mut self, entry: &Entry, bytes: &[u8]) -> Fault {
        match self.judged(entry, bytes) {
            Verdict::Rejected(fault) => fault,
            other => panic!("{}: {other:?}", String::from_utf8_lossy(bytes)),
        }
    }
}

fn settling(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Settling { .. })
}

/// Rows of the catalogue whose outcome is a rejection: number, class, content, code.
fn rejected_rows() -> Vec<(u32, TaskClass, Vec<u8>, Code)> {
    use Code::*;
    use TaskClass::{Llm, Script};
    let bomb = format!("{{\"prompt\": \"p\", \"options\": {}1{}}}", "[".repeat(90), "]".repeat(90));
    let utf16: Vec<u8> = "\u{feff}{\"prompt\": \"p\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let large = format!("{{\"prompt\": \"{}\"}}", "x".repeat(1 << 20));
    let large_args =
        format!("{{\"script\": \"known\", \"script_args\": {{\"x\": \"{}\"}}}}", "x".repeat(1 << 20));
    let mut rows: Vec<(u32, TaskClass, Vec<u8>, Code)> = vec![
        (9, Llm, utf16, NotUtf8),
        (12, Llm, bomb.into_bytes(), TooDeep),
        (13, Llm, large.into_bytes(), TooLarge),
        (46, Script, large_args.into_bytes(), TooLarge),
    ];
    let texts: &[(u32, TaskClass, &[u8], Code)] = &[
        (1, Llm, b"", EmptyFile),
        (1, Llm, b" \n", EmptyFile),
        (3, Llm, b"{\"prompt\": \"p\"", IncompleteJson),
        (5, Llm, b"{\"prompt\": \"p\",}", InvalidJson),
        (6, Llm, b"{\"prompt\": \"p\"} {\"prompt\": \"q\"}", TrailingData),
        (6, Llm, b"{\"prompt\": \"p\"}\n{\"prompt\": \"q\"}\n", TrailingData),
        (7, Llm, b"[{\"prompt\": \"p\"}]", NotAnObject),
        (7, Llm, b"\"p\"", NotAnObject),
        (7, Llm, b"42", NotAnObject),
        (9, Llm, b"{\"prompt\": \"caf\xe9 au lait\"}", NotUtf8),
        (10, Llm, b"{\"prompt\": \"a\x00b\"}", InvalidJson),
        (11, Llm, b"{\"prompt\": \"p\", \"prompt\": \"q\"}", DuplicateKey),
        (14, Llm, b"{\"prompt\": NaN}", InvalidJson),
        (14, Llm, b"{\"prompt\": \"p\", \"timeout_s\": Infinity}", InvalidJson),
        (14, Llm, b"{\"prompt\": \"p\", \"timeout_s\": 1e999}", BadNumber),
        (16, Llm, b"{}", MissingField),
        (16, Llm, b"{\"prompt\": \"  \"}", MissingField),
        (16, Script, b"{\"script_args\": {}}", MissingField),
        (17, Llm, b"{\"prompt\": \"p\", \"task_class\": \"gpu\"}", BadEnum),
        (17, Llm, b"{\"prompt\": \"p\", \"task_type\": \"transcribe\"}", BadEnum),
        (18, Llm, b"{\"prompt\": \"p\", \"priority\": 0}", BadPriority),
        (18, Llm, b"{\"prompt\": \"p\", \"priority\": 6}", BadPriority),
        (18, Llm, b"{\"prompt\": \"p\", \"priority\": \"high\"}", BadPriority),
        (18, Llm, b"{\"prompt\": \"p\", \"priority\": 3.5}", BadPriority),
        (21, Llm, b"{\"prompt\": \"p\", \"task_id\": \"../../etc/x\"}", BadTaskId),
        (21, Llm, b"{\"prompt\": \"p\", \"task_id\": \"/abs\"}", BadTaskId),
        (21, Llm, b"{\"prompt\": \"p\", \"task_id\": \".\"}", BadTaskId),
        (21, Llm, b"{\"prompt\": \"p\", \"task_id\": \"-rf\"}", BadTaskId),
        (21, Llm, b"{\"prompt\": \"p\", \"task_id\": \"a\\u202eb\"}", BadTaskId),
        (21, Llm, b"{\"prompt\": \"p\", \"task_id\": \"CON\"}", BadTaskId),
        (25, Script, b"{\"script\": \"unknown\"}", UnknownScript),
        (25, Script, b"{\"script\": \"/etc/passwd\"}", UnknownScript),
        (25, Script, b"{\"script\": \"scripts/missing.py\"}", UnknownScript),
        (25, Script, b"{\"script\": \"../evil.py\"}", UnknownScript),
        (26, Script, b"{\"task_class\": \"llm\", \"prompt\": \"p\"}", WrongQueue),
        (26, Llm, b"{\"script\": \"known\"}", WrongQueue),
        (47, Script, b"{\"script\": \"known\", \"env\": {\"LD_PRELOAD\": \"x\"}}", EnvNotAllowed),
        (48, Llm, b"{\"prompt\": \"p\", \"estimated_duration_sec\": -5}", BadNumber),
        (48, Llm, b"{\"prompt\": \"p\", \"estimated_duration_sec\": 1e18}", BadNumber),
        (48, Llm, b"{\"prompt\": \"p\", \"estimated_duration_sec\": \"soon\"}", BadNumber),
        (49, Llm, b"{\"prompt\": \"p\", \"timeout_s\": 0}", BadNumber),
    ];
    rows.extend(texts.iter().map(|(row, class, bytes, code)| (*row, *class, bytes.to_vec(), *code)));
    rows
}

#[test]
fn every_bad_input_is_answered_by_its_code_and_its_bytes_are_kept() {
    let mut house = house();
    let mut ledger = Ledger::new(house.layout.clone(), Durability::Process);
    for (index, (row, class, bytes, code)) in rejected_rows().into_iter().enumerate() {
        let entry = Entry { class, ..llm(&format!("row-{row}-{index}.json")) };
        let fault = house.fault(&entry, &bytes);
        assert_eq!(fault.code, code, "row {row}: {fault}");
        let kept = ledger.reject(&entry, &fault).unwrap().unwrap();
        assert_eq!(fs::read(&kept).unwrap(), bytes, "row {row}");
        let reason =
            kept.with_file_name(format!("{}.reason.json", kept.file_name().unwrap().to_str().unwrap()));
        let reason: Rejection = serde_json::from_slice(&fs::read(reason).unwrap()).unwrap();
        assert_eq!(reason.code, code);
        assert!(!house.path(&entry).exists());
    }
    assert_eq!(house.intake.settling(), 0, "nothing is remembered of what is gone");
}

#[test]
fn a_rejection_says_where_and_what_to_do() {
    let mut house = house();
    let comma = house.fault(&llm("x.json"), b"{\n  \"prompt\": \"p\",\n}");
    assert_eq!((comma.place.line, comma.place.column), (Some(3), Some(1)));
    let latin = house.fault(&llm("x.json"), b"{\"prompt\": \"caf\xe9\"}");
    assert_eq!(latin.place.offset, Some(15));
    let unknown = house.fault(&script("x.json"), br#"{"script": "knwon"}"#).to_string();
    assert!(unknown.contains("did you mean `known`?") && unknown.contains("register it with"), "{unknown}");
    let wrong = house.fault(&script("x.json"), br#"{"task_class": "llm", "prompt": "p"}"#).to_string();
    assert!(wrong.contains("llm_queue/priority_3/"), "{wrong}");
}

#[test]
fn odd_but_usable_files_are_taken_with_a_warning() {
    let mut house = house();
    let bom = house.task(&llm("x.json"), "\u{feff}{\"prompt\": \"p\"}");
    assert_eq!(bom.warnings.len(), 1);
    let unknown = house.task(&llm("x.json"), r#"{"prompt": "p", "prioritee": 3}"#);
    assert!(unknown.warnings[0].contains("did you mean `priority`?"), "{:?}", unknown.warnings);
    let differs = house.task(&llm("x.json"), r#"{"prompt": "p", "priority": 5}"#);
    assert_eq!((differs.priority, differs.warnings.len()), (Priority::NORMAL, 1));
    fs::hard_link(house.path(&llm("x.json")), house.layout.stage().join("second")).unwrap();
    let linked = house.task(&llm("x.json"), r#"{"prompt": "p"}"#);
    assert!(linked.warnings[0].contains("hard links"), "{:?}", linked.warnings);
    let mut strict = house_with(|config| config.strict = true);
    assert_eq!(strict.fault(&llm("x.json"), br#"{"prompt": "p", "colour": 1}"#).code, Code::UnknownField);
}

#[test]
fn the_least_task_is_a_task() {
    let mut house = house();
    let task = house.task(&llm("hello.json"), r#"{"prompt": "p"}"#);
    assert_eq!((task.task_id.as_str(), task.class(), task.warnings.len()), ("hello", TaskClass::Llm, 0));
    let unnamed = house.task(&llm("con.json"), r#"{"prompt": "p"}"#);
    assert!(unnamed.task_id.as_str().parse::<uuid::Uuid>().is_ok());
}

#[test]
fn a_script_is_named_or_lies_in_a_script_folder_and_its_real_path_is_kept() {
    let mut house = house();
    let folder = house.config.script_dirs[0].clone();
    for written in ["known", "known.py", "scripts/known.py", folder.join("known.py").to_str().unwrap()] {
        let task = house.task(&script("x.json"), &format!("{{\"script\": \"{written}\"}}"));
        let Work::Script(work) = task.work else { panic!("{written}") };
        let expected = if written == "known" {
            Script::Registered("known".into())
        } else {
            Script::File(folder.join("known.py"))
        };
        assert_eq!(work.script, expected);
    }
    fs::set_permissions(folder.join("known.py"), fs::Permissions::from_mode(0o757)).unwrap();
    for written in ["known", "known.py"] {
        let fault = house.fault(&script("x.json"), format!("{{\"script\": \"{written}\"}}").as_bytes());
        assert_eq!(fault.code, Code::UnknownScript);
        assert!(fault.message.contains("everybody may write it"), "{fault}");
    }
}

#[test]
fn a_task_whose_script_was_found_through_a_link_is_still_a_task_when_it_comes_back() {
    let mut house = house_with(|config| {
        let folder = &mut config.script_dirs[0];
        let link = folder.with_file_name("link");
        symlink(&*folder, &link).unwrap();
        *folder = link;
    });
    let task = house.task(&script("x.json"), r#"{"script": "known.py"}"#);
    let again = house.task(&script("y.json"), &serde_json::to_string(&task.record()).unwrap());
    assert_eq!(again.work, task.work);
}

#[test]
fn what_is_no_regular_file_is_left_alone_and_stops_nobody() {
    let mut house = house();
    let queue = house.layout.queue(TaskClass::Llm, Priority::NORMAL);
    symlink("/etc/passwd", queue.join("link.json")).unwrap();
    fs::create_dir(queue.join("folder.json")).unwrap();
    let folder = Folder::open(&queue).unwrap();
    rustix::fs::mknodat(folder.fd(), "pipe.json", FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(queue.join("socket.json")).unwrap();
    for name in ["link.json", "folder.json", "pipe.json", "socket.json"] {
        let verdict = house.closed(&llm(name));
        assert!(matches!(verdict, Verdict::Held { code: "not_regular", .. }), "{name}: {verdict:?}");
    }
    assert_eq!(house.closed(&llm("gone.json")), Verdict::Gone);
    fs::remove_dir_all(&queue).unwrap();
    assert_eq!(house.closed(&llm("gone.json")), Verdict::Gone);
    symlink(house.layout.complete(), &queue).unwrap();
    assert!(matches!(house.closed(&llm("x.json")), Verdict::Held { code: "not_a_folder", .. }));
}

#[test]
fn a_file_we_may_not_read_is_left_with_its_owner_and_mode() {
    let mut house = house();
    fs::write(house.path(&llm("x.json")), r#"{"prompt": "p"}"#).unwrap();
    fs::set_permissions(house.path(&llm("x.json")), fs::Permissions::from_mode(0o000)).unwrap();
    let verdict = house.closed(&llm("x.json"));
    if rustix::process::geteuid().is_root() {
        assert!(matches!(verdict, Verdict::Ready(_)), "root reads everything: {verdict:?}");
    } else {
        let Verdict::Held { code: "permission_denied", detail } = verdict else { panic!("{verdict:?}") };
        assert!(detail.contains("mode 0"), "{detail}");
    }
}

#[test]
fn a_stranger_may_not_submit_into_a_shared_spool() {
    let mut house = house();
    house.intake.owners = Some([u32::MAX].into());
    assert_eq!(house.fault(&llm("x.json"), br#"{"prompt": "p"}"#).code, Code::OwnerNotAllowed);
    let own = rustix::process::getegid().as_raw().to_string();
    let mut shared = house_with(|config| config.shared_group = Some(own));
    shared.task(&llm("x.json"), r#"{"prompt": "p"}"#);
}

#[test]
fn a_terabyte_of_nothing_is_too_large_without_being_read() {
    let mut house = house();
    fs::File::create(house.path(&llm("x.json"))).unwrap().set_len(1 << 40).unwrap();
    assert!(settling(&house.closed(&llm("x.json"))));
    let Verdict::Rejected(fault) = house.read(&llm("x.json"), SETTLED) else { panic!() };
    assert_eq!(fault.code, Code::TooLarge);
}

#[test]
fn a_files_date_decides_nothing() {
    let mut house = house();
    let day = Duration::from_secs(86_400);
    for at in [SystemTime::UNIX_EPOCH + day, SystemTime::now() + day * 27_000] {
        let file = fs::File::create(house.path(&llm("x.json"))).unwrap();
        (&file).write_all(br#"{"prompt": "p"}"#).unwrap();
        file.set_modified(at).unwrap();
        assert!(matches!(house.read(&llm("x.json"), START), Verdict::Ready(_)), "{at:?}");
    }
}

#[test]
fn a_whole_file_that_nobody_was_seen_to_close_is_looked_at_twice() {
    let mut house = house();
    fs::write(house.path(&llm("x.json")), r#"{"prompt": "p"}"#).unwrap();
    let first = house.read(&llm("x.json"), START);
    let Verdict::Settling { look_again, .. } = first else { panic!("{first:?}") };
    assert_eq!(look_again, START + Millis(YOUNG_MS));
    assert!(settling(&house.read(&llm("x.json"), START + Millis(YOUNG_MS - 1))));
    assert!(matches!(house.read(&llm("x.json"), look_again), Verdict::Ready(_)));
}

#[test]
fn a_two_step_writer_is_never_taken_at_his_first_step() {
    let mut house = house();
    let entry = llm("x.json");
    fs::write(house.path(&entry), r#"{"prompt": "first"}"#).unwrap();
    assert!(settling(&house.read(&entry, START)));
    // The same file again, longer: the quarter of a second begins anew.
    fs::write(house.path(&entry), r#"{"prompt": "first and second"}"#).unwrap();
    assert!(settling(&house.read(&entry, START + Millis(YOUNG_MS))));
    let Verdict::Ready(task) = house.read(&entry, START + Millis(2 * YOUNG_MS)) else { panic!() };
    let Work::Llm(work) = task.work else { panic!() };
    assert_eq!(work.prompt.as_deref(), Some("first and second"));
}

#[test]
fn a_copy_that_takes_hours_is_waited_for() {
    let mut house = house();
    let (entry, whole) = (llm("slow.json"), br#"{"prompt": "a long story", "model": "m"}"#);
    let mut now = START;
    let mut copy = fs::File::create(house.path(&entry)).unwrap();
    for (index, byte) in whole.iter().enumerate() {
        assert!(settling(&house.read(&entry, now)), "after {index} bytes");
        copy.write_all(&[*byte]).unwrap();
        now = now + Millis::from_secs(600);
    }
    drop(copy);
    assert!(matches!(house.intake.read(&house.layout, &entry, now, true), Verdict::Ready(_)));
}

#[test]
fn no_part_of_a_file_is_ever_run_or_rejected_while_it_grows() {
    let mut house = house();
    let whole = r#"{"messages": [{"role": "user", "content": "grüße, \"quoted\" \\ and 1e3"}], "options": {"n": [1, null]}}"#;
    let (entry, mut now) = (llm("x.json"), START);
    for end in 0..whole.len() {
        fs::write(house.path(&entry), &whole.as_bytes()[..end]).unwrap();
        for closed in [false, true] {
            let verdict = house.intake.read(&house.layout, &entry, now, closed);
            assert!(settling(&verdict), "{end} bytes, closed {closed}: {verdict:?}");
        }
        now = now + Millis::from_secs(40);
    }
}

#[test]
fn a_torn_file_is_rejected_only_when_its_writer_has_let_go_of_it() {
    let mut house = house();
    let entry = llm("x.json");
    let mut writer = fs::File::create(house.path(&entry)).unwrap();
    writer.write_all(b"{\"prompt\": ").unwrap();
    let mut now = START;
    for _ in 0..4 {
        let Verdict::Settling { look_again, .. } = house.read(&entry, now) else { panic!("at {now}") };
        assert!(look_again > now);
        now = now + Millis::from_secs(3_600);
    }
    drop(writer);
    let verdict = house.read(&entry, now);
    let Verdict::Rejected(fault) = verdict else { panic!("{verdict:?}") };
    assert_eq!(fault.code, Code::IncompleteJson);
}

#[test]
fn a_broken_file_is_rejected_within_a_second_of_its_time() {
    let mut house = house();
    let entry = llm("x.json");
    fs::write(house.path(&entry), "{,}").unwrap();
    let (mut now, mut looks) = (START, 0);
    loop {
        match house.read(&entry, now) {
            Verdict::Settling { look_again, .. } => (now, looks) = (look_again, looks + 1),
            Verdict::Rejected(fault) => break assert_eq!(fault.code, Code::InvalidJson),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(now, SETTLED);
    assert!((5..20).contains(&looks), "{looks} looks: often at first, then rarely");
}

#[test]
fn a_file_that_is_corrected_in_time_is_taken() {
    let mut house = house();
    let entry = llm("x.json");
    fs::write(house.path(&entry), "{,}").unwrap();
    assert!(settling(&house.read(&entry, START)));
    fs::write(house.path(&entry), r#"{"prompt": "p"}"#).unwrap();
    assert!(matches!(house.intake.read(&house.layout, &entry, SETTLED, true), Verdict::Ready(_)));
}

#[test]
fn no_mutation_of_a_task_makes_intake_panic_or_wait_for_ever() {
    let mut house = house();
    let whole = br#"{"task_id": "t", "prompt": "p", "priority": 3, "options": {"n": 1}, "timeout_s": 1.5, "gpus": 1}"#;
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below
    };
    for turn in 0..1_000 {
        let mut bytes = whole.to_vec();
        for _ in 0..=next(3) {
            let at = next(bytes.len());
            match next(3) {
                0 => bytes[at] = u8::try_from(next(256)).unwrap(),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"{}[]\",:\\0-eE\xff"[next(13)]),
            }
        }
        let verdict = house.judged(&llm("x.json"), &bytes);
        let answered = matches!(verdict, Verdict::Ready(_) | Verdict::Rejected(_));
        assert!(answered, "turn {turn}: {}: {verdict:?}", String::from_utf8_lossy(&bytes));
    }
}
