//! The seed's three thresholds, mended: nothing is divided by no GPU, and nothing is stranded.

use model::Millis;

use super::{Candidate, EvictionFacts, Judge, Keeping, Ruling};

/// `"rule": "thresholds"`: by the number of scripts that wait, or by their work against the reload.
#[derive(Clone, Copy, Debug, Default)]
pub struct Thresholds;

impl Judge for Thresholds {
    fn rule(&self, facts: &EvictionFacts) -> Ruling {
        let Some((victim, candidate)) = victim(facts) else { return Ruling::keep() };
        let benefit_s = facts.scripts.total_time.as_secs_f64();
        let cost_s = candidate.reload_time.as_secs_f64();
        if let Some(rule) = threshold(facts, candidate.reload_time) {
            return Ruling::evict(victim, rule, benefit_s, cost_s);
        }
        // It and an idle LLM have both waited as long as the reload takes: keeping the LLM has cost as much as
        // evicting it would.
        let due = aged_at(facts, candidate);
        match due {
            Some(due) if due <= facts.now => {
                Ruling::evict(victim, "waited as long as a reload", benefit_s, cost_s)
            }
            due => Ruling::Keep(Keeping { benefit_s, cost_s, again_at: due, latest: due }),
        }
    }
}

fn aged_at(facts: &EvictionFacts, candidate: &Candidate) -> Option<Millis> {
    let waits_since = facts.now - facts.scripts.longest_wait;
    candidate.is_idle().then(|| waits_since.max(candidate.idle_since) + candidate.reload_time)
}

/// Which threshold speaks for an eviction.
fn threshold(facts: &EvictionFacts, reload_time: Millis) -> Option<&'static str> {
    let scripts = facts.scripts.count;
    if scripts == 0 {
        return None;
    }
    if facts.idle_llms > 0 && scripts > u64::from(facts.policy.min_script_queue_for_evict) {
        return Some("min_script_queue_for_evict");
    }
    if scripts > u64::from(facts.policy.huge_script_queue) && facts.llms_waiting == 0 {
        return Some("huge_script_queue");
    }
    // Without an idle LLM there is nothing to divide by: the rule asks what the idle ones could take off the queue.
    if facts.idle_llms > 0 {
        let work = i128::from(facts.scripts.mean_time.0) * i128::from(scripts);
        if work > i128::from(reload_time.0) * i128::from(facts.idle_llms) {
            return Some("the scripts would wait longer than the reload takes");
        }
    }
    None
}

/// An idle LLM while there is one, unless the policy says that the cheapest may drain; among equals the one that loads
/// again fastest; with no idle one, the one expected free first.
fn victim(facts: &EvictionFacts) -> Option<(usize, &Candidate)> {
    let any_idle = facts.candidates.iter().any(Candidate::is_idle);
    let only_idle = any_idle && facts.policy.prefer_idle_llm_eviction;
    let able = facts.candidates.iter().enumerate().filter(|(_, one)| !only_idle || one.is_idle());
    if any_idle {
        able.min_by_key(|(_, one)| (one.reload_time, one.running, one.idle_since))
    } else {
        able.min_by_key(|(_, one)| (one.free_at, one.reload_time))
    }
}
