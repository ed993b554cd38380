//! Whose turn it is among job types that wait at the same level: weights and limits, in whole numbers and without dice.
//!
//! Each type has an account. A start moves it on by the type's stride, which is the smaller the greater its weight; the
//! type whose account would stand lowest after its start is next (ties: the greater weight, then who came first). With the
//! weights 70 and 30 that is T T S T T S T T T S, 7 and 3 in every ten. A type that has started `max_consecutive` times
//! in a row lets every other type go first; with 2 and 1 the sequence is T T S for ever.
//!
//! No type lags behind the foremost by more than one stride of its own: nobody hoards turns by being absent, nor by
//! the limits of others. A type that comes (back) is therefore next or nearly so, once.
//!
//! Chatbots have no account: they go first anyway, and their starts count for nobody. The GPUs and the CPU lane have
//! accounts of their own, as they are never competed for by the same tasks.
//!
//! Not here: levels and arrival (`order`), and when a start counts (`apply`).

use std::cmp::Reverse;

use model::config::Fairness;
use model::learned::{Grants, Run};

use crate::order::Arrival;

/// How many job types an account book keeps: job types are any words, and the book must not grow without end.
pub(crate) const TYPES_KEPT: usize = 256;
/// How many runs are kept, so that a start that came to nothing can be taken out of the one it was in.
pub(crate) const RUNS_KEPT: usize = 8;
/// Above this, strides are rounded: weights that have no common multiple below it cannot be told from rounded ones.
const SCALE_MAX: u64 = 1_000_000_000_000;

/// The rule.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    fairness: Fairness,
    /// What strides are fractions of: the least common multiple of the weights.
    scale: u64,
    /// The stride of the smallest weight.
    stride_max: u64,
}

/// The place of a job type among others: smaller is next.
pub(crate) type TurnKey = (bool, u64, Reverse<u32>);

impl Turns {
    /// The rule of this configuration.
    pub(crate) fn new(fairness: &Fairness) -> Self {
        let mut turns = Self { fairness: fairness.clone(), scale: 1, stride_max: 1 };
        let weights = || fairness.job_types.values().map(|job_type| job_type.weight);
        let weights = || weights().chain([fairness.default_weight]).map(|weight| u64::from(weight.max(1)));
        turns.scale = weights()
            .try_fold(1, |scale: u64, weight| least_common_multiple(scale, weight))
            .unwrap_or(SCALE_MAX);
        turns.stride_max = weights().map(|weight| turns.scale / weight).max().unwrap_or(1);
        turns
    }

    /// The weight of a job type.
    pub(crate) fn weight(&self, job_type: &str) -> u32 {
        let stated = self.fairness.job_types.get(job_type).map(|job_type| job_type.weight);
        stated.unwrap_or(self.fairness.default_weight).max(1)
    }

    fn stride(&self, job_type: &str) -> u64 {
        self.scale / u64::from(self.weight(job_type))
    }

    /// Where the account of a type stands.
    fn pass(&self, grants: &Grants, job_type: &str) -> u64 {
        let floor = foremost(grants).saturating_sub(self.stride(job_type));
        grants.pass.get(job_type).copied().unwrap_or_default().max(floor)
    }

    /// The place of a job type among others.
    pub(crate) fn key(&self, grants: &Grants, job_type: &str) -> TurnKey {
        let next = self.pass(grants, job_type).saturating_add(self.stride(job_type));
        (self.limit_reached(grants, job_type).is_some(), next, Reverse(self.weight(job_type)))
    }

    /// The limit of a type that has started that many times in a row.
    pub(crate) fn limit_reached(&self, grants: &Grants, job_type: &str) -> Option<u32> {
        let limit = self.fairness.job_types.get(job_type)?.max_consecutive?;
        (grants.last.as_deref() == Some(job_type) && grants.in_a_row >= limit).then_some(limit)
    }

    /// Whether a type has to wait until another one has started, even if nothing else waits.
    pub(crate) fn must_wait(&self, grants: &Grants, job_type: &str) -> bool {
        self.fairness.strict_consecutive && self.limit_reached(grants, job_type).is_some()
    }

    /// The type that is next of these, each with the arrival of its first; ties go to who came first.
    pub(crate) fn next<'t>(
        &self,
        grants: &Grants,
        types: impl Iterator<Item = (&'t str, Arrival)>,
    ) -> Option<&'t str> {
        let may = types.filter(|(job_type, _)| !self.must_wait(grants, job_type));
        let keys = may.map(|(job_type, first)| (self.key(grants, job_type), first, job_type));
        keys.min().map(|(.., job_type)| job_type)
    }

    /// One of this type starts.
    pub(crate) fn grant(&self, grants: &mut Grants, job_type: &str) {
        count(grants, job_type);
        if job_type == model::task::CHATBOT {
            return;
        }
        let pass = self.pass(grants, job_type).saturating_add(self.stride(job_type));
        grants.pass.insert(job_type.to_owned(), pass);
        self.tidy(grants);
        if grants.last.as_deref() == Some(job_type) {
            grants.in_a_row = grants.in_a_row.saturating_add(1);
        } else if let Some(last) = grants.last.replace(job_type.to_owned()) {
            grants.earlier.push(Run { job_type: last, starts: grants.in_a_row });
            let surplus = grants.earlier.len().saturating_sub(RUNS_KEPT);
            grants.earlier.drain(..surplus);
            grants.in_a_row = 1;
        } else {
            grants.in_a_row = 1;
        }
    }

    /// A start of this type came to nothing: it is as if it had not been.
    pub(crate) fn give_back(&self, grants: &mut Grants, job_type: &str) {
        if let Some(total) = grants.total.get_mut(job_type) {
            *total = total.saturating_sub(1);
        }
        grants.total.retain(|_, total| *total > 0);
        if job_type == model::task::CHATBOT {
            return;
        }
        let pass = self.pass(grants, job_type).saturating_sub(self.stride(job_type));
        grants.pass.insert(job_type.to_owned(), pass);
        take_from_latest_run(grants, job_type);
    }

    /// Brings accounts forward that lag too far behind, and keeps the numbers small: only differences matter.
    fn tidy(&self, grants: &mut Grants) {
        let foremost = foremost(grants);
        let base = foremost.saturating_sub(self.stride_max);
        grants.pass.retain(|job_type, pass| {
            let floor = foremost.saturating_sub(self.stride(job_type));
            let is_news = *pass > floor || floor == 0;
            *pass = (*pass).max(floor) - base;
            is_news
        });
        // One that is forgotten is next or nearly so, like one that was never seen.
        if grants.pass.len() > TYPES_KEPT
            && let Some(least) =
                grants.pass.iter().min_by_key(|(_, pass)| **pass).map(|(name, _)| name.clone())
        {
            grants.pass.remove(&least);
        }
    }
}

fn foremost(grants: &Grants) -> u64 {
    grants.pass.values().copied().max().unwrap_or_default()
}

fn count(grants: &mut Grants, job_type: &str) {
    if let Some(total) = grants.total.get_mut(job_type) {
        *total = total.saturating_add(1);
    } else if grants.total.len() < TYPES_KEPT {
        grants.total.insert(job_type.to_owned(), 1);
    }
}

/// Takes a start out of the latest run of its type; runs of one type that then meet are one.
fn take_from_latest_run(grants: &mut Grants, job_type: &str) {
    let mut runs = std::mem::take(&mut grants.earlier);
    if let Some(last) = grants.last.take() {
        runs.push(Run { job_type: last, starts: grants.in_a_row });
    }
    if let Some(at) = runs.iter().rposition(|run| run.job_type == job_type) {
        runs[at].starts = runs[at].starts.saturating_sub(1);
        if runs[at].starts == 0 {
            runs.remove(at);
            if at > 0 && at < runs.len() && runs[at - 1].job_type == runs[at].job_type {
                let met = runs.remove(at);
                runs[at - 1].starts = runs[at - 1].starts.saturating_add(met.starts);
            }
        }
    }
    let last = runs.pop();
    grants.in_a_row = last.as_ref().map_or(0, |run| run.starts);
    grants.last = last.map(|run| run.job_type);
    grants.earlier = runs;
}

fn least_common_multiple(one: u64, other: u64) -> Option<u64> {
    let (mut divisor, mut rest) = (one, other);
    while rest > 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    (one / divisor).checked_mul(other).filter(|multiple| *multiple <= SCALE_MAX)
}
