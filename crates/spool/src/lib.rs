//! The mailbox of gpuspool: directories as states, the link, recovery.

pub mod atomic;
pub mod batch;
pub mod clock;
pub mod crash;
pub mod find;
pub mod intake;
pub mod layout;
pub mod ledger;
pub mod request;
pub mod rights;
pub mod scan;
pub mod settings;
pub mod sync;
pub mod watch;
