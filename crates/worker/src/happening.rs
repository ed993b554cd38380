//! What the worker's units tell its loop.

use engine::openai::Client;
use engine::protocol::Told;
use model::AttemptKey;
use model::link::ProcessIdentity;
use model::task::TaskError;

use crate::record::Ending;

/// Names one host of this worker for good.
pub(crate) type HostId = u64;

/// Something happened.
#[derive(Debug)]
pub(crate) enum Happening {
    /// To the LLM engine of this generation.
    Engine(u64, EngineTurn),
    /// To a script host.
    Host(HostId, HostTurn),
    /// A unit is further, or at a boundary.
    Told(AttemptKey, Told),
    /// A unit is over.
    Over(AttemptKey, Box<Ending>),
    /// These records in the outbox are on the disk, or are not.
    Synced(Vec<AttemptKey>, std::io::Result<()>),
    /// This brain is dead.
    BrainGone(ProcessIdentity),
}

/// A turn in an engine's life.
#[derive(Debug)]
pub(crate) enum EngineTurn {
    Started {
        pid: u32,
        port: u16,
    },
    Ready {
        pid: u32,
        port: u16,
        boot_ms: u64,
        client: Client,
    },
    Failed(TaskError),
    /// Its processes outlive SIGKILL.
    Stuck(String),
    /// Nothing of it is left, its memory is free.
    Gone,
}

/// A turn in a host's life.
#[derive(Debug)]
pub(crate) enum HostTurn {
    Started {
        pid: u32,
    },
    Ready {
        boot_ms: u64,
        /// Whether it obeys `yield`.
        yields: bool,
    },
    /// It could not be loaded; `Gone` follows.
    Failed(TaskError),
    /// It is being ended.
    Ending,
    /// Nothing of it is left.
    Gone,
}
