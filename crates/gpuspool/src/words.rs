//! Small values as people write and read them: durations, sizes, lists of names.

use std::time::Duration;

pub(crate) use model::time::duration;

/// Bytes as people say them: `12 KiB`.
#[must_use]
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..1_024 => format!("{count} B"),
        1_024..1_048_576 => format!("{} KiB", count >> 10),
        1_048_576..1_073_741_824 => format!("{} MiB", count >> 20),
        _ => format!("{} GiB", count >> 30),
    }
}

/// `1 task`, `2 tasks`.
#[must_use]
pub(crate) fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// Reads `90`, `90s`, `15m`, `2h`, `7d`, `1w` as a time span, for clap.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        "w" => 604_800.0,
        _ => return Err(format!("`{unit}` is no unit of time; use s, m, h, d or w")),
    };
    let number: f64 = number.parse().map_err(|_| "write it like 90s, 15m, 2h or 7d".to_owned())?;
    Duration::try_from_secs_f64(number * factor).map_err(|_| "write it like 90s, 15m, 2h or 7d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well_at_every_scale() {
        assert_eq!([0, 2_048, 5 << 20, 3 << 30].map(bytes), ["0 B", "2 KiB", "5 MiB", "3 GiB"]);
    }

    #[test]
    fn time_spans_are_read_with_their_units() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1.5h"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in ["", "d", "7y", "-1s", "NaN", "1e999"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
