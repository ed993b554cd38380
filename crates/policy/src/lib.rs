//! THE MIND: facts come in as events, one pure function decides, actions go out.
//!
//! ```text
//! World.apply(at, event)      facts      the only way the world changes; total: the impossible is a counted anomaly
//! plan(&World, now)           choices    cannot change the world, because it only borrows it
//! picture(&World, now, …)     view       what everybody looks at
//! why(&World, now, id)        reason     the one sentence about anything that waits
//! ```
//!
//! Not here: clocks, files, processes, randomness, hash-ordered maps. Floats only in estimates and thresholds.

pub mod action;
pub mod event;
