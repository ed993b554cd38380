//! The CPU time of this thread: what the mind costs, whoever else uses the machine.

use rustix::time::{ClockId, clock_gettime};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock;

impl Clock {
    /// Nanoseconds of CPU time so far.
    pub(crate) fn ns(self) -> u64 {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        u64::try_from(time.tv_sec).unwrap_or_default() * 1_000_000_000
            + u64::try_from(time.tv_nsec).unwrap_or_default()
    }
}
