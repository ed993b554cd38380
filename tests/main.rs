//! The one integration test of the whole: everything that needs more than one crate, or the tree itself.
//!
//! - `house`: the rules of the tree: arrows, top level, file lengths, module docs, checked-in schemas.
//! - `documents`: every document on disk that was ever written must load for ever.
//! - `readme`: what the README says is so.
//! - `scenarios`: stories of the whole, with real processes on simulated GPUs.
//!
//! Not here: what one crate can test alone (its own `tests`), and the scripts (`tests/scripts`, in Python).

mod documents;
mod house;
mod readme;
mod scenarios;
mod support;
