//! Time as data. The project reads clocks only at its edges; everything inside works with these values.
//!
//! Not here: any call that asks what time it is.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A wall-clock instant, for people to read. It decides nothing: clocks jump.
pub type Timestamp = DateTime<Utc>;

/// Milliseconds: an instant since the machine started (`CLOCK_BOOTTIME`), or the distance between two.
///
/// All processes of one machine share this time line, and it survives the restart of any of them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Millis {
    /// The start of the time line, and the empty distance.
    pub const ZERO: Self = Self(0);

    /// Whole seconds as milliseconds.
    #[must_use]
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000))
    }

    /// Seconds as milliseconds, rounded; what is not finite or too large saturates.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "float to int casts saturate, which is what is wanted"
    )]
    pub fn from_secs_f64(seconds: f64) -> Self {
        Self((seconds * 1_000.0).round() as i64)
    }

    /// This many milliseconds as seconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "2^53 ms is 285,000 years")]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1_000.0
    }

    /// The wall-clock instant of `self`, given what both clocks read at one moment; what no calendar holds saturates.
    #[must_use]
    pub fn on_the_wall(self, now: Self, wall: Timestamp) -> Timestamp {
        let distance = self.0.saturating_sub(now.0);
        let end = if distance < 0 { Timestamp::MIN_UTC } else { Timestamp::MAX_UTC };
        chrono::Duration::try_milliseconds(distance)
            .and_then(|distance| wall.checked_add_signed(distance))
            .unwrap_or(end)
    }
}

impl Add for Millis {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Millis {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms if ms < 1_000 => write!(f, "{ms} ms"),
            ms if ms < 120_000 => write!(f, "{:.1} s", self.as_secs_f64()),
            ms if ms < 7_200_000 => write!(f, "{} min", ms / 60_000),
            _ => write!(f, "{:.1} h", self.as_secs_f64() / 3_600.0),
        }
    }
}

/// Seconds as two units at most, for people: `45s`, `12m`, `1h 05m`, `3d 02h`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "0s".into();
    }
    // Ten thousand years are a good end of the scale, and fit.
    let s = Duration::from_secs_f64(seconds.min(3e11)).as_secs();
    match s {
        0..60 => format!("{s}s"),
        60..3_600 => format!("{}m", s / 60),
        3_600..86_400 => format!("{}h {:02}m", s / 3_600, s % 3_600 / 60),
        _ => format!("{}d {:02}h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// Seconds within a sentence: counted up to two minutes (`45 s`), then as [`duration`] says them.
#[must_use]
pub(crate) fn span(seconds: f64) -> String {
    if seconds.round() > 120.0 { duration(seconds) } else { format!("{seconds:.0} s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_well_at_every_scale() {
        let shown = [0.4, 59.9, 60.0, 3_725.0, 93_600.0, -1.0, f64::NAN].map(duration);
        assert_eq!(shown, ["0s", "59s", "1m", "1h 02m", "1d 02h", "0s", "0s"]);
        let shown = [0.4, 45.0, 120.4, 120.6, 903.0, 2_275_593_799.0].map(span);
        assert_eq!(shown, ["0 s", "45 s", "120 s", "2m", "15m", "26337d 21h"]);
    }
}
