//! What the scripts gain by one more GPU against what the requests lose by one LLM less, both in seconds of waiting.
//!
//! ```text
//! q scripts wait, W is their work, nS GPUs serve them; u = unload, o = u + load of the script, R = load of the LLM again
//! benefit = q · (W / 2nS − W / 2(nS+1) − o)          somebody serves them: they are through sooner
//!         = q · (R + W / 2) + what they have waited   nobody does
//! cost    = chat_weight · (λ·h + requests that wait) · wait(c)        h = W / (nS+1) + R + u: the time without it
//! wait(c) = C(c, λa) · a / (c − λa), at most R + min(h / 2, s)         c slots of the LLMs that are left (Erlang C)
//! cost    = chat_weight · (λ·((h − R)·n + R² / 2) + requests that wait · n)   none is left; n = R + s / (nS+1)
//! ```
//!
//! A request that finds no LLM waits for the end of the next script (s, their mean) and the load, not for the end of
//! them all: with nobody to serve it an LLM is loaded again at once. One that comes while it loads waits for half of
//! that. How often they come is not known well: the cost is the mean of what it is at each rate that explains what
//! came, by its weight.
//!
//! An LLM goes when the benefit outweighs the cost. While the chat is active, as many stay as it keeps busy. Where
//! nobody serves the scripts their benefit grows as they wait, and after [`AGED`] one goes whatever the cost.

use model::Millis;

use super::{Candidate, Eviction, EvictionFacts, Judge, Keeping, Ruling};

/// Scripts that no GPU serves wait no longer than this for an LLM that may go: for one that is idle, and for the end of
/// the requests that run on one that is not.
pub(crate) const AGED: Millis = Millis::from_secs(900);
/// LLMs that the chat keeps busy go all the same once the scripts that nobody serves have waited so many times as long,
/// all together, as the reload and one of them take.
const PATIENCE: f64 = 4.0;

/// `"rule": "cost_benefit"`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CostBenefit;

impl Judge for CostBenefit {
    fn rule(&self, facts: &EvictionFacts) -> Ruling {
        let Some((victim, candidate)) = victim(facts) else { return Ruling::keep() };
        let scale = Scale::of(facts, candidate);
        let (benefit_s, cost_s) = (scale.benefit(facts), scale.cost(facts));
        let served = facts.script_gpus > 0;
        let waits_since = facts.now - facts.scripts.longest_wait;
        let latest = (!served).then(|| waits_since + AGED);
        if latest.is_some_and(|latest| latest <= facts.now) {
            return Ruling::Evict(Eviction {
                victim,
                rule: "the ageing limit",
                benefit_s,
                cost_s,
                firm: true,
            });
        }
        let left = facts.ready_llms + facts.booting_llms - 1;
        let kept =
            left < keep(facts, candidate) && scale.patience_left(facts).is_none_or(|left_s| left_s > 0.0);
        if benefit_s > cost_s && !kept {
            return Ruling::evict(victim, "cost_benefit", benefit_s, cost_s);
        }
        let again = [
            latest,
            facts.rate_until,
            facts
                .since_request
                .map(|since| facts.now - since + Millis::from_secs_f64(facts.policy.keep_last_s)),
            // The benefit of scripts that nobody serves grows by a second a second for each.
            (!served).then(|| after(facts, (cost_s - benefit_s) / scale.scripts)).flatten(),
            scale.patience_left(facts).and_then(|left_s| after(facts, left_s / scale.scripts)),
        ];
        let again_at = again.into_iter().flatten().filter(|at| *at > facts.now).min();
        Ruling::Keep(Keeping { benefit_s, cost_s, again_at, latest })
    }
}

/// So many seconds from now, and a moment, so that what was computed for then has come; none where that is past.
fn after(facts: &EvictionFacts, seconds: f64) -> Option<Millis> {
    (seconds >= 0.0).then(|| facts.now + Millis::from_secs_f64(seconds) + Millis(1))
}

/// The first of those that are idle; where none is, or the policy lets the cheapest drain, of all.
fn victim(facts: &EvictionFacts) -> Option<(usize, &Candidate)> {
    let any_idle = facts.candidates.iter().any(Candidate::is_idle);
    let able = facts.candidates.iter().enumerate();
    if any_idle && !facts.policy.prefer_idle_llm_eviction {
        return able.min_by_key(|(at, one)| (one.credit, one.running, *at));
    }
    if any_idle {
        return able.into_iter().find(|(_, one)| one.is_idle());
    }
    able.min_by_key(|(_, one)| (one.free_at, one.credit))
}

/// How many LLMs stay while the chat is active: as many as it keeps busy, and one at least. It is active while requests
/// have come of late, and come so often that one is expected before an LLM that went could be back.
pub(crate) fn keep(facts: &EvictionFacts, candidate: &Candidate) -> u64 {
    let lately = facts.since_request.is_some_and(|since| since.as_secs_f64() < facts.policy.keep_last_s);
    let away_s = (candidate.reload_time + facts.unload_time).as_secs_f64();
    let per_s = facts.requests.per_s();
    if !lately || per_s * away_s < 1.0 {
        return 0;
    }
    busy_gpus(per_s, facts.request_time, facts.llm_slots).max(1)
}

/// GPUs that requests of this rate keep busy.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small number that is not negative"
)]
pub(crate) fn busy_gpus(per_s: f64, request_time: Millis, slots: u64) -> u64 {
    (per_s.max(0.0) * request_time.as_secs_f64() / float(slots.max(1))).ceil() as u64
}

/// The quantities of the formula, in seconds.
struct Scale {
    scripts: f64,
    work: f64,
    serving: f64,
    overhead: f64,
    reload: f64,
    /// The time without the LLM.
    without: f64,
}

impl Scale {
    fn of(facts: &EvictionFacts, candidate: &Candidate) -> Self {
        let work = facts.scripts.total_time.as_secs_f64();
        let serving = float(facts.script_gpus);
        let overhead = (facts.unload_time + facts.host_load).as_secs_f64();
        let reload = candidate.reload_time.as_secs_f64();
        let without = work / (serving + 1.0) + reload + facts.unload_time.as_secs_f64();
        Self { scripts: float(facts.scripts.count).max(1.0), work, serving, overhead, reload, without }
    }

    fn benefit(&self, facts: &EvictionFacts) -> f64 {
        if self.serving > 0.0 {
            let sooner = self.work / (2.0 * self.serving) - self.work / (2.0 * (self.serving + 1.0));
            return self.scripts * (sooner - self.overhead);
        }
        self.scripts * (self.reload + self.work / 2.0) + facts.scripts.waited.as_secs_f64()
    }

    fn cost(&self, facts: &EvictionFacts) -> f64 {
        let slots = (facts.ready_llms + facts.booting_llms).saturating_sub(1) * facts.llm_slots.max(1);
        let script = facts.scripts.mean_time.as_secs_f64();
        let worst = self.reload + (self.without / 2.0).min(script);
        let lost = |per_s: f64| {
            if slots == 0 {
                let next = self.reload + script / (self.serving + 1.0);
                let (working, loading) = (self.without - self.reload, self.reload * self.reload / 2.0);
                return per_s * working.mul_add(next, loading) + float(facts.llms_waiting) * next;
            }
            let requests = per_s * self.without + float(facts.llms_waiting);
            let wait = waiting(slots, per_s, facts.request_time.as_secs_f64());
            requests * wait.map_or(worst, |wait| wait.min(worst))
        };
        facts.policy.chat_weight * facts.requests.mean(lost)
    }

    /// How many script-seconds those that nobody serves still wait for LLMs that the chat keeps busy.
    fn patience_left(&self, facts: &EvictionFacts) -> Option<f64> {
        let patience = PATIENCE * (self.reload + facts.scripts.mean_time.as_secs_f64());
        (facts.script_gpus == 0).then(|| patience - facts.scripts.waited.as_secs_f64())
    }
}

/// The mean wait of a request in seconds where `slots` serve `per_s` requests a second that take `each_s` (M/M/c); none
/// where they are too few.
pub(crate) fn waiting(slots: u64, per_s: f64, each_s: f64) -> Option<f64> {
    let load = per_s * each_s;
    let free = float(slots) - load;
    (slots > 0 && free > 0.0).then(|| erlang_c(slots, load) * each_s / free)
}

/// The probability that a request finds all of `slots` busy, at a load below that number.
pub(crate) fn erlang_c(slots: u64, load: f64) -> f64 {
    // By Erlang's B, which can be computed step by step without large numbers.
    let mut blocked = 1.0;
    for slot in 1..=slots {
        blocked = load * blocked / (float(slot) + load * blocked);
    }
    let busy = load / float(slots);
    blocked / (1.0 - busy * (1.0 - blocked))
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
const fn float(count: u64) -> f64 {
    count as f64
}
