//! The mailbox of gpuspool: directories as states, the link, recovery.
