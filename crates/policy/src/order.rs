//! The one order of everything that waits: chatbots, then the level, then (among equals) the job types' turns, then
//! arrival.
//!
//! A task's *level* is its priority, raised by one for each `fairness.ageing_s` it has waited, up to 5. So nothing has to
//! be sorted again as time passes: tasks of one priority age together, and the one that came first is always ahead of
//! the others of its row (`queue`). The levels of the rows' heads alone are computed, when a plan is made.
//!
//! **The bound.** A task of priority p that has waited `(5 - p) * ageing_s` is at level 5. From then on nothing that
//! comes later goes before it but chatbots, and tasks of other job types at their turn. What is *not* promised: that room
//! becomes free by then, that the next room suits it, or that an exclusive batch has ended.
//!
//! Not here: whose turn it is (`turn`).

use model::{Millis, Priority};

use crate::queue::Queued;

/// How waiting raises a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ageing {
    /// Waiting that is worth one priority; none while ageing is off.
    step: Option<Millis>,
}

impl Ageing {
    /// Of `fairness.ageing_s`.
    pub(crate) fn of_seconds(seconds: f64) -> Self {
        Self { step: Some(Millis::from_secs_f64(seconds)).filter(|step| *step > Millis::ZERO) }
    }

    /// The level of a priority after waiting since then: 1 to 5.
    pub(crate) fn level(self, priority: Priority, since: Millis, now: Millis) -> u8 {
        let waited = (now - since).0.max(0);
        let steps = self.step.map_or(0, |step| waited / step.0);
        let room = Priority::URGENT.level() - priority.level();
        priority.level() + u8::try_from(steps).unwrap_or(u8::MAX).min(room)
    }

    /// When its level next rises; none at the top, or while ageing is off.
    pub(crate) fn next_rise(self, priority: Priority, since: Millis, now: Millis) -> Option<Millis> {
        let level = self.level(priority, since, now);
        let step = self.step.filter(|_| level < Priority::URGENT.level())?;
        Some(since + Millis(step.0.saturating_mul(i64::from(level - priority.level() + 1))))
    }

    /// What a task's place among others comes down to that time does not change.
    pub(crate) fn summit(self, priority: Priority, arrival: Arrival) -> Summit {
        let below_top = Priority::URGENT.level() - priority.level();
        let (tier, at) = match self.bound(priority) {
            Some(bound) => (0, arrival.since + bound),
            None => (below_top, arrival.since),
        };
        Summit { tier, at, arrival }
    }

    /// The stated bound: how long a task of this priority waits at most until nothing that comes later goes before it
    /// but chatbots and other job types at their turn. None while ageing is off; zero for priority 5.
    pub(crate) fn bound(self, priority: Priority) -> Option<Millis> {
        let steps = i64::from(Priority::URGENT.level() - priority.level());
        match self.step {
            _ if steps == 0 => Some(Millis::ZERO),
            step => Some(Millis(step?.0.saturating_mul(steps))),
        }
    }
}

/// What comes before level: smaller goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Urgency {
    /// False for a chatbot.
    waits_for_chatbots: bool,
    /// 0 is level 5.
    below_top: u8,
}

impl Urgency {
    /// Of a task of this priority that waits since then.
    pub(crate) fn of(chatbot: bool, priority: Priority, since: Millis, ageing: Ageing, now: Millis) -> Self {
        let level = ageing.level(priority, since, now);
        Self { waits_for_chatbots: !chatbot, below_top: Priority::URGENT.level() - level }
    }
}

/// When a task reaches the top level, and before which others then: smaller goes first. While ageing is off, by priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Summit {
    tier: u8,
    at: Millis,
    arrival: Arrival,
}

/// When something came: smaller goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Arrival {
    /// Since when it waits.
    pub since: Millis,
    /// Which of those that came in the same moment.
    pub order: u64,
}

/// A place in the one order at a moment, but for the turns of the job types. Smaller goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// Chatbots, then levels.
    pub urgency: Urgency,
    /// Then who came first.
    pub arrival: Arrival,
}

impl Queued {
    /// When it came.
    pub(crate) const fn arrival(&self) -> Arrival {
        Arrival { since: self.since, order: self.order }
    }

    /// Its place at this moment.
    pub(crate) fn rank(&self, ageing: Ageing, now: Millis) -> Rank {
        let (chatbot, priority) = (self.task.is_chatbot(), self.task.priority);
        Rank { urgency: Urgency::of(chatbot, priority, self.since, ageing, now), arrival: self.arrival() }
    }
}
