//! Queued tasks that may not start before a time, by class and by that time.
//!
//! By class, because a plan asks for the first of each: it must not look through all those of the other to find none.

use std::collections::{BTreeMap, BTreeSet};

use model::{Entry, Millis, TaskClass};

/// Tasks that may not start yet.
#[derive(Clone, Debug)]
pub(crate) struct Parked {
    by_class: BTreeMap<TaskClass, BTreeSet<(Millis, Entry)>>,
}

impl Parked {
    /// None.
    pub(crate) const fn new() -> Self {
        Self { by_class: BTreeMap::new() }
    }

    /// Parks a task.
    pub(crate) fn insert(&mut self, until: Millis, entry: Entry) {
        self.by_class.entry(entry.class).or_default().insert((until, entry));
    }

    /// Forgets a task.
    pub(crate) fn remove(&mut self, until: Millis, entry: &Entry) {
        if let Some(tasks) = self.by_class.get_mut(&entry.class) {
            tasks.remove(&(until, entry.clone()));
        }
    }

    /// Takes out one whose time has come.
    pub(crate) fn pop(&mut self, now: Millis) -> Option<Entry> {
        let is_due =
            |tasks: &&mut BTreeSet<(Millis, Entry)>| tasks.first().is_some_and(|(time, _)| *time <= now);
        self.by_class.values_mut().find(is_due)?.pop_first().map(|(_, entry)| entry)
    }

    /// Those whose time has come, class by class.
    pub(crate) fn due(&self, now: Millis) -> impl Iterator<Item = &Entry> {
        let of_class =
            move |tasks: &'_ BTreeSet<(Millis, Entry)>| tasks.first().is_some_and(|(time, _)| *time <= now);
        let classes = self.by_class.values().filter(move |tasks| of_class(tasks));
        classes
            .flat_map(move |tasks| tasks.iter().take_while(move |(time, _)| *time <= now))
            .map(|(_, entry)| entry)
    }

    /// When the next one after `now` may start.
    pub(crate) fn next_after(&self, now: Millis) -> Option<Millis> {
        let of_class =
            |tasks: &BTreeSet<(Millis, Entry)>| tasks.iter().map(|(time, _)| *time).find(|time| *time > now);
        self.by_class.values().filter_map(of_class).min()
    }

    /// All of them: class by class, by time.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.by_class.values().flatten().map(|(_, entry)| entry)
    }

    /// The first of a class, by its time.
    pub(crate) fn first_of(&self, class: TaskClass) -> Option<&Entry> {
        self.by_class.get(&class)?.first().map(|(_, entry)| entry)
    }
}
