//! Choices out: a flat list of passes over a [`Draft`]. The world is only borrowed, so nothing here can change it.
//!
//! ```text
//! settle (what is over) → stop (cancel, time limits, down) → show → doom (what can never run)
//!   → launch and leave → [down ends here] → engine (broken ones)
//!   → chat (lend a GPU) → exclusive (drain, unload) → stagger (leave in turn) → drain for scripts
//!   → fill (slots, scripts, boots, by the one order) → yields (chatbots that found no place) → evict → reload
//!   → ahead (load back, prewarm, read ahead) → heads
//! ```
//!
//! Not here: how a thing is done. Each pass is a small file; what an earlier pass decided, a later one sees in the draft.

mod agenda;
mod ahead;
mod chat;
mod cpu_lane;
mod doom;
mod draft;
mod engine;
mod evict;
mod exclusive;
mod fill;
mod heads;
mod hold;
mod launch;
mod pause;
mod ram;
mod reload;
mod scripts;
mod settle;
mod show;
mod span;
mod stagger;
mod stop;
mod stream;
mod tell;
mod wide;
mod yields;

use model::Millis;
use model::config::EvictionRule;

use crate::action::Plan;
use crate::evict::{CostBenefit, Judge, Thresholds};
use crate::world::World;
pub(crate) use agenda::Agenda;
pub(crate) use ahead::QUIET;
use draft::Draft;
pub(crate) use engine::boots_until;
pub(crate) use evict::{Outlook, kept};
pub(crate) use stream::longest_first;
pub(crate) use wide::refusing;
pub(crate) use yields::TO_A_BOUNDARY;

/// What should be done now. Each action is `Issued` before it is carried out, and is not chosen again after that.
#[must_use]
pub fn plan(world: &World, now: Millis) -> Plan {
    plan_by(world, now, judge_of(world.config.resource_manager.eviction_policy.rule))
}

/// The rule that the configuration names.
pub(crate) fn judge_of(rule: EvictionRule) -> &'static dyn Judge {
    match rule {
        EvictionRule::CostBenefit => &CostBenefit,
        EvictionRule::Thresholds => &Thresholds,
    }
}

/// When an LLM makes room for the scripts that wait, by the rule in force; for a forecast.
pub(crate) fn eviction_outlook(world: &World, now: Millis) -> Outlook {
    evict::outlook(&Draft::new(world, now), judge_of(world.config.resource_manager.eviction_policy.rule))
}

/// What should be done now, where this judge says which LLMs make room for scripts.
#[must_use]
pub fn plan_by(world: &World, now: Millis, judge: &dyn Judge) -> Plan {
    let now = now.max(world.now);
    let mut draft = Draft::new(world, now);
    settle::settle(&mut draft);
    tell::tell(&mut draft);
    stop::stop(&mut draft);
    show::show(&mut draft);
    pause::tell(&mut draft);
    doom::doom(&mut draft);
    launch::launch(&mut draft);
    if world.down.is_none() {
        engine::tidy(&mut draft);
        chat::lend(&mut draft);
        exclusive::make_room(&mut draft);
        stagger::leave_in_turn(&mut draft);
        evict::drain(&mut draft, judge);
        yields::hold(&mut draft);
        let left = fill::fill(&mut draft, judge);
        yields::make_way(&mut draft, &left);
        evict::evict(&mut draft, &left, judge);
        reload::reload(&mut draft);
        ahead::ahead(&mut draft);
    }
    heads::heads(&mut draft);
    draft.finish()
}
