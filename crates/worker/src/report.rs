//! What the worker says: the state it is in, against the state it has last told, as one amendment.
//!
//! Nobody calls "report this": the arm states what is true, and what has changed goes out when it is due. Endings and
//! engines at once, a start a little later (a short task then pays for one line), progress a few times a second.

use std::time::Duration;

use model::link::{AttemptReport, AttemptState, Reports, ReportsLine};
use tokio::time::Instant;

/// How long the report of a start may wait for the end of a short task.
const SOON: Duration = Duration::from_millis(20);
/// Least time between reports that only say how far something is.
const LAZY: Duration = Duration::from_millis(250);
/// How long after a failed append it is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// How urgent a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    Lazy,
    Soon,
    Now,
}

/// What has changed from `old` to `new`, and how urgent it is; none if nothing has.
pub(crate) fn amendment(old: &Reports, new: &Reports) -> Option<(ReportsLine, Urgency)> {
    let mut line = ReportsLine::default();
    let mut urgency = None;
    let mut changed = |how| urgency = urgency.max(Some(how));
    if old.seen != new.seen {
        line.seen = Some(new.seen);
        changed(Urgency::Lazy);
    }
    if old.engine != new.engine {
        line.engine = Some(new.engine.clone());
        changed(Urgency::Now);
    }
    if old.hosts != new.hosts {
        line.hosts = Some(new.hosts.clone());
        changed(Urgency::Now);
    }
    if old.phase != new.phase {
        line.phase = Some(new.phase);
        changed(Urgency::Now);
    }
    for (key, report) in &new.attempts {
        let before = old.attempts.get(key);
        if before != Some(report) {
            line.attempts.push(report.clone());
            changed(urgency_of(before, report));
        }
    }
    line.drop = old.attempts.keys().filter(|key| !new.attempts.contains_key(key)).cloned().collect();
    if !line.drop.is_empty() {
        changed(Urgency::Lazy);
    }
    // Every report says how far the orders were read.
    line.seen = Some(new.seen);
    urgency.map(|urgency| (line, urgency))
}

fn urgency_of(before: Option<&AttemptReport>, now: &AttemptReport) -> Urgency {
    match (now.state, before) {
        (AttemptState::Ended | AttemptState::NeverStarted, _) => Urgency::Now,
        (AttemptState::Running, None) => Urgency::Soon,
        (AttemptState::Running, Some(_)) => Urgency::Lazy,
    }
}

/// When the next report is due.
#[derive(Debug)]
pub(crate) struct Pace {
    last: Instant,
    due: Option<Instant>,
}

impl Pace {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { last: now, due: None }
    }

    /// A change of this urgency waits; true if it must go out now.
    pub(crate) fn is_due(&mut self, urgency: Urgency, now: Instant) -> bool {
        let at = match urgency {
            Urgency::Now => now,
            Urgency::Soon => now + SOON,
            Urgency::Lazy => (self.last + LAZY).max(now + SOON),
        };
        let due = self.due.map_or(at, |due| due.min(at));
        self.due = Some(due);
        due <= now
    }

    pub(crate) const fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(crate) const fn nothing_to_say(&mut self) {
        self.due = None;
    }

    pub(crate) const fn said(&mut self, now: Instant) {
        (self.last, self.due) = (now, None);
    }

    pub(crate) fn failed(&mut self, now: Instant) {
        self.due = Some(now + RETRY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::link::{Line as _, Phase, Seen};
    use model::{Millis, TaskId};

    fn attempt(state: AttemptState, progress: Option<f64>) -> AttemptReport {
        let task_id = TaskId::new("t").unwrap();
        let since = Some(Millis(1));
        AttemptReport {
            task_id,
            attempt: 1,
            state,
            since,
            progress,
            media_s: None,
            yields: false,
            outcome: None,
        }
    }

    fn with(report: AttemptReport) -> Reports {
        Reports { attempts: [(report.key(), report)].into(), ..Reports::default() }
    }

    #[test]
    fn an_amendment_leads_from_the_old_state_to_the_new_one() {
        let states = [
            Reports::default(),
            with(attempt(AttemptState::Running, None)),
            with(attempt(AttemptState::Running, Some(0.5))),
            Reports { seen: Seen { epoch: 2, n: 3 }, phase: Phase::Leaving, ..Reports::default() },
        ];
        for old in &states {
            for new in &states {
                let mut folded = old.clone();
                if let Some((line, _)) = amendment(old, new) {
                    line.fold_into(&mut folded);
                }
                assert_eq!(&folded, new);
            }
        }
    }

    #[test]
    fn an_end_goes_out_at_once_and_a_start_waits_for_it() {
        let nothing = Reports::default();
        let started = with(attempt(AttemptState::Running, None));
        let further = with(attempt(AttemptState::Running, Some(0.5)));
        let ended = with(attempt(AttemptState::Ended, None));
        let urgency = |old, new| amendment(old, new).map(|(_, urgency)| urgency);
        assert_eq!(urgency(&nothing, &nothing), None);
        assert_eq!(urgency(&nothing, &started), Some(Urgency::Soon));
        assert_eq!(urgency(&started, &further), Some(Urgency::Lazy));
        assert_eq!(urgency(&started, &ended), Some(Urgency::Now));
    }

    #[test]
    fn progress_comes_a_few_times_a_second() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        let mut said = 0;
        for ms in 0..1_000 {
            let now = begin + Duration::from_millis(ms);
            if pace.is_due(Urgency::Lazy, now) {
                pace.said(now);
                said += 1;
            }
        }
        assert_eq!(said, 3);
        assert!(pace.is_due(Urgency::Now, begin + Duration::from_millis(1_000)));
    }
}
