//! Logs that are torn, cut, rotated, repeated and robbed of lines: what a reader believes is always the fold of a
//! beginning of what was written, and it gets to the end of it in the end.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use model::link::{
    AttemptReport, AttemptState, HostReport, HostState, Line, Orders, OrdersLine, Phase, Reports,
};
use model::link::{ReportsLine, Seen};
use model::{AttemptKey, Durability, TaskId};
use proptest::prelude::*;

use super::*;
use crate::crash;

const LOG: &str = "reports.jsonl";
const OLD: &str = "reports.old.jsonl";

fn key(task: u8) -> AttemptKey {
    AttemptKey { task_id: TaskId::new(format!("t{task}")).unwrap(), attempt: 1 }
}

fn running(task: u8, progress: f64) -> ReportsLine {
    let AttemptKey { task_id, attempt } = key(task);
    let report = AttemptReport {
        task_id,
        attempt,
        state: AttemptState::Running,
        since: None,
        progress: Some(progress),
        media_s: None,
        yields: false,
        outcome: None,
    };
    ReportsLine { attempts: vec![report], ..ReportsLine::default() }
}

/// Lines of all kinds that a worker writes.
fn amendment() -> impl Strategy<Value = ReportsLine> {
    let host = |script: String| HostReport {
        script,
        model: None,
        state: HostState::Idle,
        pid: Some(7),
        loads: 1,
        boot_ms: None,
    };
    prop_oneof![
        4 => (0u8..5, 0u8..100).prop_map(|(task, percent)| running(task, f64::from(percent) / 100.0)),
        2 => (0u8..5).prop_map(|task| ReportsLine { drop: vec![key(task)], ..ReportsLine::default() }),
        1 => (1u64..9, 1u64..99).prop_map(|(epoch, n)| ReportsLine {
            seen: Some(Seen { epoch, n }),
            ..ReportsLine::default()
        }),
        1 => "[a-z\n\"\\\\é]{0,20}".prop_map(move |script| ReportsLine {
            hosts: Some(vec![host(script)]),
            ..ReportsLine::default()
        }),
        1 => Just(ReportsLine { engine: Some(None), phase: Some(Phase::Gap), ..ReportsLine::default() }),
    ]
}

/// A writer that remembers what was true after each of its lines.
struct Remembering {
    writer: Writer<ReportsLine>,
    after: BTreeMap<Seen, Reports>,
}

impl Remembering {
    fn create(folder: &Path, epoch: u64, state: Reports) -> Self {
        let writer = Writer::create(folder, LOG, epoch, state).unwrap();
        let mut one = Self { writer, after: BTreeMap::from([(Seen::default(), Reports::default())]) };
        one.remember();
        one
    }
    fn remember(&mut self) {
        self.after.insert(self.writer.written(), self.writer.state().clone());
    }
    fn amend(&mut self, line: ReportsLine) {
        let before = (self.writer.written(), self.writer.state().clone());
        let seen = self.writer.amend(line).unwrap();
        // A rotation writes a `whole` of what was true before the amendment.
        for n in before.0.n + 1..seen.n {
            self.after.insert(Seen { n, ..seen }, before.1.clone());
        }
        self.remember();
    }
    fn believes(&self, reader: &Reader<ReportsLine>) -> bool {
        self.after.get(&reader.seen()) == Some(reader.state())
    }
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn new_reader(folder: &Path) -> Reader<ReportsLine> {
    let mut reader = Reader::open(folder, LOG).unwrap();
    reader.read().unwrap();
    reader
}

/// A log with snapshots and amendments in it, its bytes, and what was true after each line.
fn sample() -> (tempfile::TempDir, Remembering, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Remembering::create(dir.path(), 3, Reports::default());
    for task in 0..4 {
        log.amend(running(task, 0.5));
    }
    log.writer.heal().unwrap();
    log.remember();
    log.amend(ReportsLine { drop: vec![key(1)], ..ReportsLine::default() });
    log.amend(running(9, 1.0));
    let bytes = fs::read(dir.path().join(LOG)).unwrap();
    (dir, log, bytes)
}

#[test]
fn wherever_a_log_is_cut_the_reader_believes_a_beginning_of_it_and_the_next_epoch_goes_on() {
    let (_dir, log, bytes) = sample();
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = fs::File::create(here.path().join(LOG)).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    for cut in (0..=bytes.len()).rev() {
        file.set_len(cut as u64).unwrap();
        let reader = new_reader(here.path());
        assert!(log.believes(&reader) && !reader.gap(), "cut at {cut}");
        let whole_lines = bytes[..cut].iter().filter(|byte| **byte == b'\n').count();
        let snapshots = bytes[..cut].windows(2).filter(|two| two == b"\n\n").count() + 1;
        assert_eq!(reader.seen().n as usize, whole_lines.saturating_sub(snapshots), "cut at {cut}");
        // A writer of the next epoch follows whatever lies there.
        if cut % 17 == 0 || cut + 20 > bytes.len() {
            let path = there.path().join(LOG);
            drop(fs::remove_file(&path));
            fs::write(&path, &bytes[..cut]).unwrap();
            let mut reader = new_reader(there.path());
            let mut next = Remembering::create(there.path(), 4, reader.state().clone());
            next.amend(running(7, 0.1));
            let fold = reader.read().unwrap();
            assert!(fold.changed && !fold.gap, "cut at {cut}");
            assert_eq!(reader.state(), next.writer.state());
            assert_eq!(new_reader(there.path()).state(), next.writer.state());
        }
    }
}

#[test]
fn zeros_of_a_power_cut_stop_the_fold_until_the_next_snapshot() {
    let (_dir, log, bytes) = sample();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LOG);
    let mut gaps = 0;
    for start in (0..bytes.len()).step_by(13) {
        for len in [1, 40] {
            let mut torn = bytes.clone();
            let end = bytes.len().min(start + len);
            torn[start..end].fill(0);
            fs::write(&path, &torn).unwrap();
            let mut reader = new_reader(dir.path());
            assert!(log.believes(&reader), "zeros at {start}");
            let behind = reader.seen() < log.writer.written();
            let unfinished = torn.last() == Some(&0);
            assert!(!behind || reader.gap() || unfinished, "zeros at {start} were not noticed");
            gaps += usize::from(reader.gap());
            // The writer's answer.
            let mut next = Remembering::create(dir.path(), 4, log.writer.state().clone());
            assert!(!reader.read().unwrap().gap);
            assert_eq!(reader.state(), log.writer.state());
            next.amend(running(1, 0.9));
            reader.read().unwrap();
            assert_eq!(reader.state(), next.writer.state());
        }
    }
    assert!(gaps > 50, "{gaps}");
}

/// What happens to a line on its way to a reader.
#[derive(Clone, Copy, Debug)]
enum Way {
    Arrives,
    Lost,
    Twice,
    /// An older line comes once more.
    Again(usize),
    /// Its middle is torn out.
    Torn(usize),
    /// Its end is missing and the next line follows at once.
    Cut(usize),
    /// The file is rotated before it.
    Rotated,
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![
        6 => Just(Way::Arrives),
        2 => Just(Way::Lost),
        1 => Just(Way::Twice),
        1 => (0usize..20).prop_map(Way::Again),
        1 => (1usize..200).prop_map(Way::Torn),
        1 => (1usize..200).prop_map(Way::Cut),
        1 => Just(Way::Rotated),
    ]
}

/// Carries the bytes of one log to another line by line, with accidents.
struct Carrier {
    from: PathBuf,
    to: PathBuf,
    taken: usize,
    lines: Vec<Vec<u8>>,
}

impl Carrier {
    fn carry(&mut self, way: Way) {
        let bytes = fs::read(&self.from).unwrap();
        let fresh = bytes[self.taken..].to_vec();
        self.taken = bytes.len();
        let replacement = self.to.with_extension("new");
        match way {
            Way::Arrives => append(&self.to, &fresh),
            Way::Lost => {}
            Way::Twice => append(&self.to, &[fresh.clone(), fresh.clone()].concat()),
            Way::Again(index) => {
                let older = self.lines.get(index).cloned().unwrap_or_default();
                append(&self.to, &[older, fresh.clone()].concat());
            }
            Way::Torn(at) => {
                let at = at % fresh.len();
                append(&self.to, &[&fresh[..at / 2], &b"\0\0\0"[..], &fresh[at..]].concat());
            }
            Way::Cut(at) => append(&self.to, &fresh[..at % fresh.len()]),
            Way::Rotated => {
                fs::write(&replacement, &fresh).unwrap();
                fs::rename(&replacement, &self.to).unwrap();
            }
        }
        self.lines.push(fresh);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn lines_lost_torn_or_repeated_never_make_a_state_that_never_was(
        steps in proptest::collection::vec((amendment(), way(), proptest::bool::ANY), 1..40)
    ) {
        let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut log = Remembering::create(there.path(), 1, Reports::default());
        let (from, to) = (there.path().join(LOG), here.path().join(LOG));
        let mut carrier = Carrier { from, to, taken: 0, lines: Vec::new() };
        carrier.carry(Way::Arrives);
        let mut reader = Reader::<ReportsLine>::open(here.path(), LOG).unwrap();
        for (line, way, looks) in steps {
            log.amend(line);
            carrier.carry(way);
            if looks {
                let before = reader.seen();
                let fold = reader.read().unwrap();
                prop_assert!(log.believes(&reader) && reader.seen() >= before);
                if fold.gap {
                    // The answer can be lost on its way as well; the next accident shows it again.
                    log.writer.heal().unwrap();
                    log.remember();
                    carrier.carry(way);
                }
            }
        }
        // From here on everything arrives. The first line shows any gap, and one answer heals it.
        log.amend(running(0, 0.25));
        carrier.carry(Way::Arrives);
        if reader.read().unwrap().gap {
            prop_assert!(reader.seen() < log.writer.written());
            log.writer.heal().unwrap();
            log.remember();
            carrier.carry(Way::Arrives);
        }
        prop_assert!(!reader.read().unwrap().gap);
        prop_assert_eq!(reader.seen(), log.writer.written());
        prop_assert_eq!(reader.state(), log.writer.state());
    }

    #[test]
    fn a_reader_that_lags_behind_rotations_loses_nothing(
        steps in proptest::collection::vec((amendment(), proptest::bool::weighted(0.3), proptest::bool::weighted(0.2)), 1..80)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Remembering::create(dir.path(), 1, Reports::default());
        // Without syncs: a rotation's fdatasync would make these many rotations take minutes.
        log.writer = log.writer.rotating_at(1_200).at(Durability::Process);
        let mut reader = new_reader(dir.path());
        let (mut lines, mut rotations) = (1, 0);
        for (line, looks, tells) in steps {
            let before = log.writer.written().n;
            log.amend(line);
            rotations += log.writer.written().n - before - 1;
            lines += 1;
            if looks {
                reader.read().unwrap();
                prop_assert_eq!(reader.seen(), log.writer.written());
                prop_assert!(log.believes(&reader) && !reader.gap());
            }
            if tells {
                log.writer.seen_by_reader(reader.seen());
            }
            // Whoever starts anew needs the current file only.
            let anew = new_reader(dir.path());
            prop_assert_eq!(anew.state(), log.writer.state());
        }
        reader.read().unwrap();
        prop_assert_eq!(reader.state(), log.writer.state());
        prop_assert_eq!(reader.seen().n, lines + rotations);
        log.writer.seen_by_reader(reader.seen());
        prop_assert!(!dir.path().join(OLD).exists() && !dir.path().join(".reports.new").exists());
    }
}

#[test]
fn a_rotated_file_stays_until_its_reader_has_left_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Remembering::create(dir.path(), 1, Reports::default());
    log.writer = log.writer.rotating_at(300);
    let mut reader = new_reader(dir.path());
    while !dir.path().join(OLD).exists() {
        log.amend(running(1, 0.1));
    }
    log.writer.seen_by_reader(reader.seen());
    assert!(dir.path().join(OLD).exists(), "the reader is still in it");
    for _ in 0..20 {
        // It does not rotate again meanwhile, and grows on.
        log.amend(running(2, 0.2));
    }
    assert!(fs::metadata(dir.path().join(LOG)).unwrap().len() > 600);
    reader.read().unwrap();
    assert_eq!(reader.state(), log.writer.state());
    log.writer.seen_by_reader(reader.seen());
    assert!(!dir.path().join(OLD).exists());
}

#[test]
fn a_writer_may_die_at_every_step() {
    for (point, time) in
        [("link.A1", 3), ("link.G1", 1), ("link.G2", 1), ("link.G3", 1), ("link.G4", 1), ("link.G6", 1)]
    {
        let dir = tempfile::tempdir().unwrap();
        let mut living = Reader::<ReportsLine>::open(dir.path(), LOG).unwrap_or_else(|_| {
            fs::write(dir.path().join(LOG), "").unwrap();
            Reader::open(dir.path(), LOG).unwrap()
        });
        let died = crash::at(point, time, || {
            let mut writer = Writer::<ReportsLine>::create(dir.path(), LOG, 1, Reports::default())
                .unwrap()
                .rotating_at(400);
            for task in 0..50 {
                writer.amend(running(task, 0.5)).unwrap();
                living.read().unwrap();
                writer.seen_by_reader(living.seen());
            }
        });
        assert_eq!(died, Err(crash::Crashed(point)));
        living.read().unwrap();
        assert!(!living.gap(), "{point}");
        assert_eq!(new_reader(dir.path()).state(), living.state(), "{point}: a new reader believes the same");
        let mut next = Writer::<ReportsLine>::create(dir.path(), LOG, 2, living.state().clone()).unwrap();
        next.amend(running(99, 0.9)).unwrap();
        living.read().unwrap();
        assert_eq!(living.state(), next.state(), "{point}");
        next.seen_by_reader(living.seen());
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [LOG], "{point}");
    }
}

#[test]
fn commands_of_a_dead_epoch_are_never_believed_after_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Writer::<OrdersLine>::create(dir.path(), "orders.jsonl", 7, Orders::default()).unwrap();
    let mut reader = Reader::<OrdersLine>::open(dir.path(), "orders.jsonl").unwrap();
    let mut second = Writer::<OrdersLine>::create(dir.path(), "orders.jsonl", 8, Orders::default()).unwrap();
    let leave = || OrdersLine { leave: Some(true), ..OrdersLine::default() };
    first.amend(leave()).unwrap();
    reader.read().unwrap();
    assert_eq!((reader.seen(), reader.state().leave), (Seen { epoch: 8, n: 1 }, false));
    second.amend(leave()).unwrap();
    assert!(reader.read().unwrap().changed && reader.state().leave);
    let refused = Writer::<OrdersLine>::create(dir.path(), "orders.jsonl", 7, Orders::default()).unwrap_err();
    assert!(refused.to_string().contains("epoch 8 has begun"), "{refused}");
    // The same epoch may take its log up once more: its numbers go on, so that they are believed.
    let again = Writer::<OrdersLine>::create(dir.path(), "orders.jsonl", 8, Orders::default()).unwrap();
    assert_eq!(again.written(), Seen { epoch: 8, n: 3 });
    assert!(reader.read().unwrap().changed && !reader.state().leave);
}

#[test]
fn a_new_epoch_begins_with_a_snapshot_or_is_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    append(&dir.path().join(LOG), b"{\"epoch\":1,\"n\":1,\"schema\":1,\"phase\":\"leaving\"}\n");
    let mut reader = Reader::<ReportsLine>::open(dir.path(), LOG).unwrap();
    assert_eq!(reader.read().unwrap(), Fold { changed: false, gap: true });
    append(&dir.path().join(LOG), b"\n{\"epoch\":1,\"n\":2,\"schema\":1,\"whole\":true}\n");
    assert_eq!(reader.read().unwrap(), Fold { changed: true, gap: false });
    append(&dir.path().join(LOG), b"{\"epoch\":2,\"n\":3,\"schema\":1,\"phase\":\"leaving\"}\n");
    assert_eq!(reader.read().unwrap(), Fold { changed: false, gap: true });
    assert_eq!(reader.state().phase, Phase::Serving);
}

#[test]
fn of_a_schema_it_does_not_know_a_reader_understands_what_never_changes() {
    let dir = tempfile::tempdir().unwrap();
    let mut reader = {
        Writer::<OrdersLine>::create(dir.path(), "orders.jsonl", 1, Orders::default()).unwrap();
        Reader::<OrdersLine>::open(dir.path(), "orders.jsonl").unwrap()
    };
    reader.read().unwrap();
    assert_eq!(reader.foreign(), None);
    let path = dir.path().join("orders.jsonl");
    append(
        &path,
        b"\n{\"epoch\":2,\"n\":1,\"schema\":9,\"whole\":true,\"attempts\":{\"new\":1},\"leave\":true}\n",
    );
    append(&path, b"{\"epoch\":2,\"n\":2,\"schema\":9,\"hosts\":7}\n");
    assert_eq!(reader.read().unwrap(), Fold { changed: false, gap: true });
    assert_eq!(reader.foreign(), Some(Foreign { schema: 9, leave: Some(true) }));
    // An older brain takes over again.
    Writer::<OrdersLine>::create(dir.path(), "orders.jsonl", 3, Orders::default()).unwrap();
    assert_eq!(reader.read().unwrap(), Fold { changed: true, gap: false });
    assert_eq!(reader.foreign(), None);
}

#[test]
fn what_could_not_be_written_is_not_believed_by_its_writer_either() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::<ReportsLine>::create(dir.path(), LOG, 1, Reports::default()).unwrap();
    let mut reader = new_reader(dir.path());
    let log = writer.divert(OpenOptions::new().write(true).open("/dev/full").unwrap());
    let refused = writer.amend(running(1, 0.5)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull);
    assert!(refused.to_string().contains(LOG), "{refused}");
    assert!(writer.state().attempts.is_empty());
    writer.divert(log);
    // Half of a line lies there for all the writer knows.
    append(&dir.path().join(LOG), b"{\"epoch\":1,\"n\":2,\"att");
    writer.amend(running(2, 0.5)).unwrap();
    assert!(!reader.read().unwrap().gap);
    assert_eq!(reader.state(), writer.state());
    assert_eq!(writer.state().attempts.keys().cloned().collect::<Vec<_>>(), [key(2)]);
}

#[test]
fn a_file_that_is_cut_under_its_reader_is_noticed() {
    let (dir, mut log, bytes) = sample();
    let mut reader = new_reader(dir.path());
    for cut in [bytes.len() - 1, bytes.len() / 2, 0] {
        OpenOptions::new().write(true).open(dir.path().join(LOG)).unwrap().set_len(cut as u64).unwrap();
        reader.read().unwrap();
        assert!(log.believes(&reader));
        log.writer.heal().unwrap();
        log.remember();
        reader.read().unwrap();
        assert!(!reader.gap());
        assert_eq!((reader.seen(), reader.state()), (log.writer.written(), log.writer.state()));
    }
}

#[test]
fn a_reader_that_cannot_be_healed_does_not_fill_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::<ReportsLine>::create(dir.path(), LOG, 1, Reports::default()).unwrap();
    for _ in 0..100 {
        writer.heal().unwrap();
    }
    assert_eq!(writer.written().n, 4);
    writer.amend(running(1, 0.1)).unwrap();
    writer.heal().unwrap();
    assert_eq!(writer.written().n, 6);
}

#[test]
fn a_large_state_does_not_rotate_at_every_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer =
        Writer::<ReportsLine>::create(dir.path(), LOG, 1, Reports::default()).unwrap().rotating_at(100);
    for task in 0..100 {
        writer.amend(running(task, 0.5)).unwrap();
        writer.seen_by_reader(writer.written());
    }
    let rotations = writer.written().n - 101;
    assert!((1..=12).contains(&rotations), "{rotations} rotations");
}

#[test]
fn room_is_kept_ahead_where_the_file_system_can() {
    let dir = tempfile::tempdir().unwrap();
    let probe = fs::File::create(dir.path().join("probe")).unwrap();
    let can = rustix::fs::fallocate(&probe, rustix::fs::FallocateFlags::KEEP_SIZE, 0, 1 << 20).is_ok();
    let writer = Writer::<ReportsLine>::create(dir.path(), LOG, 1, Reports::default()).unwrap();
    let meta = fs::metadata(dir.path().join(LOG)).unwrap();
    assert!(meta.len() < 4_096 && writer.written().n == 1);
    assert_eq!(meta.blocks() * 512 >= 1 << 20, can);
}

#[test]
fn a_snapshot_says_everything_that_its_state_holds() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Remembering::create(dir.path(), 1, Reports::default());
    log.amend(running(1, 0.5));
    log.amend(ReportsLine { phase: Some(Phase::Leaving), engine: Some(None), ..ReportsLine::default() });
    let mut folded = Reports::default();
    ReportsLine::whole_of(log.writer.state()).fold_into(&mut folded);
    assert_eq!(&folded, log.writer.state());
    // One write, one line, one newline at its end: no reader sees half of it as a line.
    let file = fs::File::open(dir.path().join(LOG)).unwrap();
    let mut last = [0; 1];
    file.read_exact_at(&mut last, file.metadata().unwrap().len() - 1).unwrap();
    assert_eq!(&last, b"\n");
}
