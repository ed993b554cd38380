//! THE MIND: facts come in as events, one pure function decides, actions go out.
//!
//! ```text
//! World.apply(at, event)      facts      the only way the world changes; total: the impossible is a counted anomaly
//! plan(&World, now)           choices    cannot change the world, because it only borrows it
//! plan_by(&World, now, judge) choices    the same, with a rule of eviction that somebody brings along
//! picture(&World, now, …)     view       what everybody looks at
//! why(&World, now, id)        reason     the one sentence about anything that waits
//! eta(&World, now, id)        forecast   when it is expected to start and to end
//! explain(&World, now, task)  what if    what would become of a task, or a batch, that is not submitted
//! LAWS, breaches(&World)      law        what must never be; checked at each step of the property tests
//! ```
//!
//! Not here: clocks, files, processes, randomness, hash-ordered maps. Floats only in estimates and thresholds.

pub mod action;
pub mod event;

mod ahead;
mod apply;
mod batch;
mod demand;
mod ended;
mod evict;
mod exclusive;
mod explain;
mod forecast;
mod gpu;
mod launch;
mod law;
mod learn;
mod lock;
mod model_choice;
mod order;
mod parked;
mod picture;
mod place;
mod plan;
mod queue;
mod ram;
mod rate;
mod retry;
mod room;
mod shape;
mod span;
mod state;
mod tenure;
#[cfg(test)]
mod tests;
mod turn;
mod unit;
mod why;
mod why_gpu;
mod wide;
mod worker;
mod world;
mod yields;

pub use action::{Action, Plan};
pub use event::{BatchFacts, Event};
pub use evict::{
    Candidate, CostBenefit, Eviction, EvictionFacts, Judge, Keeping, Ruling, ScriptsWaiting, Thresholds,
};
pub use explain::{STAND_INS_MAX, explain, explain_batch};
pub use forecast::{BatchForecast, Expected, QueueForecast, batch_eta, eta, forecast};
pub use law::{
    Breach, Check, Found, LAWS, Law, Marks, Pause, Step, breaches, breaches_at_rest, breaches_of,
    breaches_of_change,
};
pub use learn::Estimate;
pub use picture::{PictureFrame, picture};
pub use plan::{plan, plan_by};
pub use rate::Rate;
pub use state::{Cue, Illegal, next};
pub use why::why;
pub use why_gpu::why_gpu;
pub use world::{AttemptView, Rest, World};
