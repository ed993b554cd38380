//! Stories about what lies in the folders.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::*;

struct House {
    _dir: tempfile::TempDir,
    layout: Layout,
    scanner: Scanner,
}

const SCRIPT_3: (TaskClass, Priority) = (TaskClass::Script, Priority::NORMAL);

fn house() -> House {
    let dir = crate::rig::folder();
    let layout = Layout::new(dir.path());
    layout.create().unwrap();
    House { scanner: Scanner::new(layout.clone()), layout, _dir: dir }
}

impl House {
    fn queue(&self) -> PathBuf {
        self.layout.queue(SCRIPT_3.0, SCRIPT_3.1)
    }
    fn drop(&self, name: &str) -> Entry {
        fs::write(self.queue().join(name), "{}").unwrap();
        entry(SCRIPT_3, name)
    }
    fn look(&mut self) -> Scan {
        self.scanner.scan(&Dirty::default())
    }
    fn held(&mut self) -> Vec<(String, &'static str)> {
        let name = |held: &HeldFile| held.path.file_name().unwrap().to_str().unwrap().to_owned();
        self.look().held.iter().map(|held| (name(held), held.code)).collect()
    }
}

fn names(scan: &Scan) -> Vec<&str> {
    scan.appeared.iter().map(|(entry, _)| entry.name.as_str()).collect()
}

/// As if the folder had been changed a while ago, so that its time can be trusted.
fn long_ago(folder: &Path) {
    let then = SystemTime::now() - Duration::from_secs(60);
    fs::File::open(folder).unwrap().set_modified(then).unwrap();
}

#[test]
fn first_seen_goes_first_and_after_a_restart_the_name_decides() {
    let mut house = house();
    house.drop("m.json");
    assert_eq!(names(&house.look()), ["m.json"]);
    house.drop("b.json");
    house.drop("a.json");
    let scan = house.look();
    assert_eq!(names(&scan), ["a.json", "b.json"]);
    assert!(scan.appeared.iter().all(|(_, order)| *order > 1));
    assert_eq!(scan.counts[&SCRIPT_3], 3);
    assert_eq!(names(&house.look()), [""; 0], "what is known does not appear again");
    let after_restart = Scanner::new(house.layout.clone()).scan(&Dirty::default());
    assert_eq!(names(&after_restart), ["a.json", "b.json", "m.json"]);
}

#[test]
fn a_file_that_somebody_takes_away_has_vanished_and_one_that_we_move_has_not() {
    let mut house = house();
    let (theirs, ours) = (house.drop("theirs.json"), house.drop("ours.json"));
    house.look();
    fs::remove_file(house.layout.entry(&theirs)).unwrap();
    fs::remove_file(house.layout.entry(&ours)).unwrap();
    assert!(house.scanner.forget(&ours));
    assert!(!house.scanner.vanished(&ours), "the event of our own move says nothing new");
    assert_eq!(house.look().vanished, [theirs]);
}

#[test]
fn without_any_event_a_drop_is_found_by_the_time_of_its_folder() {
    let mut house = house();
    long_ago(&house.queue());
    house.look();
    let known = house.scanner.queues[&SCRIPT_3].listing;
    house.look();
    assert_eq!(house.scanner.queues[&SCRIPT_3].listing, known, "nothing moved, nothing was listed");
    house.drop("late.json");
    assert_eq!(names(&house.look()), ["late.json"]);
    let young = house.scanner.queues[&SCRIPT_3].listing;
    house.look();
    assert_eq!(house.scanner.queues[&SCRIPT_3].listing, young + 1, "a young time may hide a second drop");
    long_ago(&house.queue());
    house.look();
    let settled = house.scanner.queues[&SCRIPT_3].listing;
    house.scanner.scan(&Dirty { all: false, queues: BTreeSet::from([SCRIPT_3]) });
    assert_eq!(house.scanner.queues[&SCRIPT_3].listing, settled + 1, "a hint is obeyed all the same");
}

#[test]
fn a_hint_finds_one_file_without_listing_anything() {
    let mut house = house();
    house.look();
    let first = house.drop("first.json");
    let order = house.scanner.notice(&first).unwrap();
    assert_eq!(house.scanner.notice(&first), Some(order));
    assert_eq!(house.scanner.notice(&entry(SCRIPT_3, "gone.json")), None);
    house.drop("x.txt");
    assert_eq!(house.scanner.notice(&entry(SCRIPT_3, "x.txt")), None);
    let scan = house.look();
    assert_eq!(names(&scan), [""; 0]);
    assert_eq!(scan.held[0].code, "not_json", "what a hint cannot tell, the next scan does");
}

#[test]
fn what_editors_and_downloads_leave_is_ignored() {
    let mut house = house();
    for name in
        [".hidden.json", "x.json~", "x.json.swp", "x.json.part", "x.tmp", "4913", "#x.json#", ".nfs01"]
    {
        house.drop(name);
    }
    let scan = house.look();
    assert_eq!((names(&scan), scan.held.len()), (vec![], 0));
}

#[test]
fn what_is_no_task_file_is_held_with_a_hint() {
    let mut house = house();
    house.drop("x.txt");
    house.drop("x.JSON");
    house.drop("two words.json");
    house.drop(&format!("{}.json", "x".repeat(129)));
    fs::create_dir(house.queue().join("folder.json")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", house.queue().join("link.json")).unwrap();
    let odd = |bytes: &[u8]| house.queue().join(std::ffi::OsStr::from_bytes(bytes));
    fs::write(odd(b"\xff.json"), "{}").unwrap();
    fs::write(odd(b"esc\x1b[2J.json"), "{}").unwrap();
    let folder = Folder::open(house.queue()).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(folder.fd(), "pipe.json", FileType::Fifo, mode, 0).unwrap();
    let long = format!("{}.json", "x".repeat(129));
    let held = house.held();
    for (name, code) in [
        ("x.txt", "not_json"),
        ("x.JSON", "not_json"),
        ("two words.json", "bad_name"),
        (long.as_str(), "bad_name"),
        ("folder.json", "not_regular"),
        ("link.json", "not_regular"),
        ("pipe.json", "not_regular"),
        ("\\xff.json", "bad_name"),
        ("esc\\x1b[2J.json", "bad_name"),
    ] {
        assert!(held.contains(&(name.to_owned(), code)), "{name} in {held:?}");
    }
    assert_eq!(held.len(), 9);
    assert_eq!(house.held(), held, "said anew by each scan");
}

#[test]
fn a_queue_that_is_none_is_held_and_a_lost_one_is_made_again() {
    let mut house = house();
    fs::create_dir(house.layout.class_queue(TaskClass::Llm).join("priority_9")).unwrap();
    fs::write(house.layout.class_queue(TaskClass::Llm).join("x.json"), "{}").unwrap();
    assert_eq!(
        house.held(),
        [("priority_9".to_owned(), "unknown_queue_dir"), ("x.json".to_owned(), "foreign_file")]
    );
    let dropped = house.drop("x.json");
    house.look();
    fs::remove_dir_all(house.queue()).unwrap();
    assert_eq!(house.look().vanished, [dropped]);
    assert!(house.queue().is_dir());
    fs::remove_dir(house.queue()).unwrap();
    std::os::unix::fs::symlink(house.layout.complete(), house.queue()).unwrap();
    fs::write(house.layout.complete().join("done.json"), "{}").unwrap();
    assert!(house.held().contains(&("priority_3".to_owned(), "not_a_folder")));
    assert_eq!(house.scanner.counts()[&SCRIPT_3], 0, "a link is not followed");
}

#[test]
fn a_stranger_in_processing_is_pointed_out() {
    let house = house();
    fs::write(house.layout.processing().join("ours.json"), "{}").unwrap();
    fs::write(house.layout.processing().join("strange.json"), "{}").unwrap();
    let held = foreign(&house.layout, &|task| task.as_str() == "ours").unwrap();
    assert_eq!(held.len(), 1);
    assert!(held[0].path.ends_with("strange.json") && held[0].code == "foreign_file");
}

#[test]
fn names_are_indexed_by_the_hundred_thousand_a_second() {
    const FILES: usize = 20_000;
    let mut house = house();
    let folder = Folder::open(house.queue()).unwrap();
    let first = house.drop("t0.json");
    for i in 1..FILES {
        let (name, none) = (format!("t{i}.json"), rustix::fs::AtFlags::empty());
        rustix::fs::linkat(folder.fd(), first.name.as_str(), folder.fd(), name, none).unwrap();
    }
    let begun = Instant::now();
    let scan = house.look();
    let took = begun.elapsed();
    assert_eq!(scan.appeared.len(), FILES);
    // Measured: 25 ms for these in a release build. The bound is for a debug build on a busy machine.
    assert!(took < Duration::from_secs(2), "{took:?}");
}
