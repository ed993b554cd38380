//! The mailbox of gpuspool: directories as states, the link, recovery.

pub mod atomic;
pub mod batch;
pub mod clock;
pub mod crash;
pub mod find;
pub mod intake;
pub mod journal;
pub mod layout;
pub mod ledger;
pub mod link;
pub mod lock;
pub mod process;
pub mod recover;
pub mod request;
pub mod rights;
pub mod scan;
pub mod settings;
pub mod sync;
pub mod watch;
pub mod worker;

#[cfg(test)]
mod rig;
