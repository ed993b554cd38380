//! THE WIND TUNNEL: virtual GPUs, engines, people and faults around the real mind, from one seed.
//!
//! ```text
//! scenario ─► people, faults, nature (drawn from one seed)
//!                     │
//!                     ▼
//!          sim: agenda ─► facts ─► policy ─► actions ─► hands, arms, disk
//!                              │           │
//!                              └─ checks ──┘            outcome ─► table, gantt
//! ```
//! Everything is SIMULATED: no GPU, no process, no file of a spool, no clock. Not here: any decision, and any code of
//! the brain or the worker; what those do is written here a second time, on purpose.

mod agenda;
mod arm;
pub mod check;
pub mod dice;
mod disk;
mod faults;
pub mod gantt;
pub mod goals;
pub mod mind;
mod nature;
pub mod outcome;
pub mod people;
pub mod replay;
pub mod scenario;
pub mod sim;
pub mod storm;
pub mod table;
mod trace;

pub use check::Broken;
pub use mind::Mind;
pub use outcome::{Outcome, Span, SpanKind, Story, Waits};
pub use people::{Arrival, Job, Wish, arrivals};
pub use scenario::{Missed, Scenario, ScenarioError};
pub use sim::Sim;
