//! The clocks, read at the edges of the programs only. Everything inside is given the time.

use std::fs;
use std::io;

use model::{Millis, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since the machine started, time asleep included: one time line for all processes, over restarts.
#[must_use]
pub fn now() -> Millis {
    let time = clock_gettime(ClockId::Boottime);
    Millis(time.tv_sec.saturating_mul(1_000).saturating_add(time.tv_nsec / 1_000_000))
}

/// The wall clock, for people to read.
#[must_use]
pub fn wall() -> Timestamp {
    chrono::Utc::now()
}

/// The name of this start of the machine: process ids and `now` mean nothing under another.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn boot_id() -> io::Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("failed to read {path}: {error}")))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_line_only_goes_forward_and_the_boot_has_a_name() {
        let first = now();
        assert!(first > Millis::ZERO && now() >= first);
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
        assert!(boot_id().unwrap().len() >= 32);
    }
}
