//! What is known of a worker that should be there and is not: launches under way, and when to try again.

use model::Millis;

/// How long after each death in a row a worker is launched again.
const AGAIN_AFTER: [Millis; 3] = [Millis::from_secs(1), Millis::from_secs(5), Millis::from_secs(30)];
/// How long a launch is not repeated after somebody else held the GPU's lock.
const HELD_AFTER: Millis = Millis::from_secs(30);
/// A launch of which nothing more is heard is tried again: the GPU's lock keeps two workers from one GPU.
const GIVEN_UP_AFTER: Millis = Millis::from_secs(120);
/// A worker that lived this long does not count as dying in a row.
pub(crate) const LIVED: Millis = Millis::from_secs(60);
/// The exit status of a worker that found the lock of its GPU held.
const LOCK_HELD: i32 = 4;

/// The launches for one GPU, or for the CPU lane.
#[derive(Clone, Debug, Default)]
pub(crate) struct Launching {
    /// The launch under way: since when, and its id once it is known.
    pub pending: Option<(Millis, Option<String>)>,
    /// Deaths and failed launches in a row.
    pub failures: usize,
    /// Not before.
    pub not_before: Option<Millis>,
    /// What is known of the last failure.
    pub message: Option<String>,
}

impl Launching {
    /// When a launch may be tried; the later of the two counts.
    pub(crate) fn due_at(&self) -> impl Iterator<Item = Millis> {
        let given_up = self.pending.as_ref().map(|(since, _)| *since + GIVEN_UP_AFTER);
        given_up.into_iter().chain(self.not_before)
    }

    /// Whether a launch may be tried.
    pub(crate) fn is_due(&self, now: Millis) -> bool {
        self.due_at().all(|time| time <= now)
    }

    /// A worker is there.
    pub(crate) fn arrived(&mut self) {
        self.pending = None;
        self.not_before = None;
        self.message = None;
    }

    /// A launch or its worker is gone.
    pub(crate) fn failed(&mut self, at: Millis, status: Option<i32>, message: Option<String>) {
        self.pending = None;
        self.message = message;
        if status == Some(LOCK_HELD) {
            self.not_before = Some(at + HELD_AFTER);
            return;
        }
        let wait = AGAIN_AFTER[self.failures.min(AGAIN_AFTER.len() - 1)];
        self.failures += 1;
        self.not_before = Some(at + wait);
    }
}
