//! When a loaded LLM makes room for scripts: the seed's three thresholds, mended, and a bound on waiting.
//!
//! Not here: which GPU, and doing it (`plan::evict`).

use model::Millis;
use model::config::EvictionPolicy;

/// What the thresholds look at. "Waiting" leaves out those for whom room is already on its way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvictionFacts {
    /// Script tasks that wait for a GPU.
    pub scripts_waiting: u64,
    /// LLM tasks that wait.
    pub llms_waiting: u64,
    /// GPUs whose LLM is loaded and runs nothing.
    pub idle_llms: u64,
    /// What a script task takes.
    pub script_time: Millis,
    /// What it takes to load the LLM again.
    pub reload_time: Millis,
}

/// Which threshold an LLM makes room by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// There is an idle LLM, and more scripts wait than `min_script_queue_for_evict`.
    Backlog,
    /// More scripts wait than `huge_script_queue`, and no LLM task does; holds without an idle LLM too.
    HugeBacklog,
    /// The scripts would wait longer than it takes to load the LLM again.
    WaitOutweighsReload,
}

/// Whether an LLM should make room.
#[must_use]
pub fn should_evict(policy: &EvictionPolicy, facts: &EvictionFacts) -> Option<Eviction> {
    let scripts = facts.scripts_waiting;
    if scripts == 0 {
        return None;
    }
    if facts.idle_llms > 0 && scripts > u64::from(policy.min_script_queue_for_evict) {
        return Some(Eviction::Backlog);
    }
    if scripts > u64::from(policy.huge_script_queue) && facts.llms_waiting == 0 {
        return Some(Eviction::HugeBacklog);
    }
    // Without an idle LLM there is nothing to divide by: the rule asks what the idle ones could take off the queue.
    if facts.idle_llms > 0 {
        let work = i128::from(facts.script_time.0) * i128::from(scripts);
        if work > i128::from(facts.reload_time.0) * i128::from(facts.idle_llms) {
            return Some(Eviction::WaitOutweighsReload);
        }
    }
    None
}

/// When a script that no threshold helps gets its room all the same: it and an idle LLM have both waited as long as
/// the reload takes. Then keeping the LLM has cost as much as evicting it, and nothing is stranded for ever.
pub(crate) fn aged_at(waits_since: Millis, idle_since: Millis, reload_time: Millis) -> Millis {
    waits_since.max(idle_since) + reload_time
}
