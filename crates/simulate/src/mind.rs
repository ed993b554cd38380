//! Which policy decides: ours, or one of the simple ones it is compared with.
//!
//! The simple ones are our own mind with other settings or another judge of evictions; what a policy does not know,
//! it does not see (`see`). Not here: any decision of ours (`policy`).

use model::config::EvictionRule;
use model::{Config, Millis, Priority};
use policy::{Candidate, EvictionFacts, Judge, Keeping, Plan, Ruling, World};

use crate::people::{Arrival, Wish};

/// A policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mind {
    /// Ours.
    Ours,
    /// Ours with the seed's threshold rules.
    Thresholds,
    /// No LLM makes room outside an exclusive batch.
    Never,
    /// An idle LLM makes room for any script.
    Always,
    /// An idle LLM makes room once the scripts have waited as long as its reload takes.
    SkiRental,
    /// First come, first served: no priorities, no job types, no chatbots, and room is always made.
    Fifo,
}

impl Mind {
    /// All of them, ours first.
    pub const ALL: [Self; 6] =
        [Self::Ours, Self::Thresholds, Self::Never, Self::Always, Self::SkiRental, Self::Fifo];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Thresholds => "thresholds",
            Self::Never => "never",
            Self::Always => "always",
            Self::SkiRental => "ski_rental",
            Self::Fifo => "fifo",
        }
    }

    /// The policy of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mind| mind.name() == name)
    }

    /// Its settings.
    pub(crate) fn set(self, config: &mut Config) {
        match self {
            Self::Thresholds => config.resource_manager.eviction_policy.rule = EvictionRule::Thresholds,
            Self::Fifo => {
                config.fairness.job_types.clear();
                config.fairness.ageing_s = 0.0;
            }
            Self::Ours | Self::Never | Self::Always | Self::SkiRental => {}
        }
    }

    /// What it sees of what people do.
    pub(crate) fn see(self, mut arrivals: Vec<Arrival>) -> Vec<Arrival> {
        if self == Self::Fifo {
            for arrival in &mut arrivals {
                let tasks: Vec<&mut model::Task> = match &mut arrival.what {
                    Wish::Task(job) => vec![&mut job.task],
                    Wish::Batch { items, .. } => items.iter_mut().map(|job| &mut job.task).collect(),
                };
                for task in tasks {
                    task.priority = Priority::NORMAL;
                    task.job_type = "any".into();
                }
            }
        }
        arrivals
    }

    /// What it wants now.
    #[must_use]
    pub fn plan(self, world: &World, now: Millis) -> Plan {
        match self {
            Self::Ours | Self::Thresholds => policy::plan(world, now),
            Self::Never => policy::plan_by(world, now, &Never),
            Self::Always | Self::Fifo => policy::plan_by(world, now, &Always),
            Self::SkiRental => policy::plan_by(world, now, &SkiRental),
        }
    }
}

/// Keeps every LLM.
#[derive(Clone, Copy, Debug)]
pub struct Never;

/// Takes an idle LLM for any script.
#[derive(Clone, Copy, Debug)]
pub struct Always;

/// Rents until the rent would have bought: then it takes an idle LLM.
#[derive(Clone, Copy, Debug)]
pub struct SkiRental;

fn idle(facts: &EvictionFacts) -> Option<(usize, &Candidate)> {
    let found = facts.candidates.iter().enumerate().find(|(_, candidate)| candidate.is_idle());
    found.filter(|_| facts.scripts.count > 0)
}

impl Judge for Never {
    fn rule(&self, _: &EvictionFacts) -> Ruling {
        Ruling::keep()
    }
}

impl Judge for Always {
    fn rule(&self, facts: &EvictionFacts) -> Ruling {
        idle(facts).map_or_else(Ruling::keep, |(at, _)| Ruling::evict(at, "always", 0.0, 0.0))
    }
}

impl Judge for SkiRental {
    fn rule(&self, facts: &EvictionFacts) -> Ruling {
        let Some((at, candidate)) = idle(facts) else { return Ruling::keep() };
        let (rent, price) = (facts.scripts.waited, candidate.reload_time);
        let (benefit_s, cost_s) = (rent.as_secs_f64(), price.as_secs_f64());
        if rent >= price {
            return Ruling::evict(at, "ski rental", benefit_s, cost_s);
        }
        // Each script that waits pays a second a second.
        let count = i64::try_from(facts.scripts.count).unwrap_or(i64::MAX).max(1);
        let again_at = Some(facts.now + Millis((price - rent).0 / count + 1));
        Ruling::Keep(Keeping { benefit_s, cost_s, again_at, latest: again_at })
    }
}
