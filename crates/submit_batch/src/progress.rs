//! How far a batch is: counts that only rise, speed, and the time left.
//!
//! Pure: instants are handed in. Not here: where the figures come from (`wait`).

use std::time::Duration;

use crate::words::{clock, items, speed};

/// What the files say at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// All items.
    pub items: usize,
    /// Those that ended, well or not.
    pub ended: usize,
    /// Those of them that failed.
    pub failed: usize,
    /// Those that run.
    pub running: usize,
    /// Media worked off, of ended and running items, in seconds.
    pub media_s: f64,
    /// Media of all items whose length is known, in seconds.
    pub media_total_s: f64,
    /// GPUs that run items.
    pub gpus: usize,
    /// Whether nothing more starts because somebody paused what is left.
    pub paused: bool,
}

/// What is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shown {
    /// The figures; those that count work done never fall.
    pub seen: Seen,
    /// Media seconds worked off in a second, once that can be told.
    pub speed: Option<f64>,
    /// Time left, once that can be told.
    pub left: Option<Duration>,
}

/// Remembers what was shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    shown: Shown,
    /// When work was first seen, and how much was done then.
    first: Option<(Duration, Seen)>,
    /// Time left as the brain expects it, which knows how long such items took before.
    expected: Option<Duration>,
}

/// A speed is told only after this much work and time: the first figures are noise.
const LEAST_TIME: Duration = Duration::from_secs(1);

impl Progress {
    /// Takes in what the brain expects, none where it cannot say.
    pub const fn expect(&mut self, left: Option<Duration>) {
        self.expected = left;
    }

    /// Takes in what is seen `at` a time since the wait began.
    pub fn advance(&mut self, at: Duration, seen: Seen) -> Shown {
        let before = self.shown.seen;
        let media_total_s = seen.media_total_s.max(before.media_total_s);
        let now = Seen {
            items: seen.items.max(before.items),
            ended: seen.ended.max(before.ended),
            failed: seen.failed.max(before.failed),
            running: seen.running,
            // A retried item begins anew; what was shown stays.
            media_s: seen.media_s.max(before.media_s).min(media_total_s),
            media_total_s,
            gpus: seen.gpus,
            paused: seen.paused,
        };
        if self.first.is_none() && (now.running > 0 || (before.items > 0 && now.ended > before.ended)) {
            let start = if before.items > 0 { before } else { now };
            self.first = Some((at, start));
        }
        let (speed, left) = self.rate(at, now);
        let (speed, left) = if now.paused { (None, None) } else { (speed, self.expected.or(left)) };
        self.shown = Shown { seen: now, speed, left };
        self.shown
    }

    fn rate(&self, at: Duration, now: Seen) -> (Option<f64>, Option<Duration>) {
        let Some((since, start)) = self.first else { return (None, None) };
        let took = at.saturating_sub(since);
        if took < LEAST_TIME {
            return (None, None);
        }
        let speed = (now.media_s - start.media_s) / took.as_secs_f64();
        if speed > 0.0 {
            let left = Duration::try_from_secs_f64((now.media_total_s - now.media_s) / speed).ok();
            return (Some(speed), left);
        }
        // Without lengths the items themselves are the measure.
        let ended = now.ended.saturating_sub(start.ended);
        let remaining = now.items.saturating_sub(now.ended);
        let factor = u32::try_from(remaining).ok().zip(u32::try_from(ended).ok().filter(|n| *n > 0));
        let left = factor.and_then(|(remaining, ended)| took.checked_mul(remaining).map(|time| time / ended));
        (None, if now.media_total_s > 0.0 { None } else { left })
    }
}

impl Shown {
    /// How much is done, 0 to 1: by media where lengths are known, else by items.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "2^53 items do not exist")]
    pub fn fraction(&self) -> f64 {
        let Seen { items, ended, media_s, media_total_s, .. } = self.seen;
        let by_items = if items == 0 { 0.0 } else { ended as f64 / items as f64 };
        if ended == items || media_total_s <= 0.0 {
            return by_items;
        }
        // Failed items leave media undone for ever, so the further of the two is the truth.
        (media_s / media_total_s).max(by_items).min(0.999)
    }

    /// As one line.
    #[must_use]
    pub fn line(&self) -> String {
        let Seen { items: all, ended, failed, running, media_s, media_total_s, gpus, paused } = self.seen;
        let mut parts =
            vec![format!("{:3.0}%", (self.fraction() * 100.0).floor()), format!("{ended}/{}", items(all))];
        if failed > 0 {
            parts.push(format!("{failed} failed"));
        }
        if running > 0 && ended < all {
            let on = match gpus {
                0 => String::new(),
                1 => " on 1 GPU".to_owned(),
                gpus => format!(" on {gpus} GPUs"),
            };
            parts.push(format!("{running} running{on}"));
        }
        if paused && ended < all {
            parts.push("paused".to_owned());
        }
        if media_total_s > 0.0 {
            parts.push(format!("{} of {} media", clock(media_s), clock(media_total_s)));
        }
        if let Some(factor) = self.speed {
            parts.push(speed(factor));
        }
        if let Some(left) = self.left.filter(|_| ended < all) {
            parts.push(format!("{} left", clock(left.as_secs_f64())));
        }
        parts.join(" | ")
    }
}

/// Decides when a new line is worth writing where lines cannot be overwritten.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    last: Option<(Duration, Seen)>,
}

/// Between two lines, where no item ended in between.
const QUIET: Duration = Duration::from_secs(10);
/// Between two lines in any case.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

impl Pace {
    /// Whether `seen` is to be written.
    pub fn is_due(&mut self, at: Duration, seen: Seen) -> bool {
        let due = match self.last {
            None => true,
            Some((_, last)) if seen == last => false,
            Some(_) if seen.ended == seen.items => true,
            Some((then, last)) => {
                let pause = at.saturating_sub(then);
                pause >= QUIET || (pause >= LEAST_PAUSE && seen.ended > last.ended)
            }
        };
        if due {
            self.last = Some((at, seen));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(ended: usize, running: usize, media_s: f64) -> Seen {
        Seen { items: 12, ended, running, media_s, media_total_s: 1_200.0, ..Seen::default() }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_clock_of_the_speed_starts_with_the_work_not_with_the_wait() {
        let mut progress = Progress::default();
        assert_eq!(
            progress.advance(at(0), seen(0, 0, 0.0)).line(),
            "  0% | 0/12 items | 0:00 of 20:00 media"
        );
        progress.advance(at(100), seen(0, 3, 0.0));
        let shown = progress.advance(at(110), seen(1, 3, 400.0));
        assert_eq!(shown.speed, Some(40.0));
        assert_eq!(shown.left, Some(at(20)));
        assert_eq!(
            shown.line(),
            " 33% | 1/12 items | 3 running | 6:40 of 20:00 media | 40.0x realtime | 0:20 left"
        );
    }

    #[test]
    fn without_lengths_the_items_are_the_measure() {
        let bare = |ended| Seen { items: 10, ended, running: 1, ..Seen::default() };
        let mut progress = Progress::default();
        progress.advance(at(0), bare(0));
        let shown = progress.advance(at(30), bare(3));
        assert_eq!(shown.left, Some(at(70)));
        assert_eq!(shown.line(), " 30% | 3/10 items | 1 running | 1:10 left");
    }

    #[test]
    fn what_the_brain_expects_goes_before_our_own_sum_and_a_paused_batch_has_no_end() {
        let mut progress = Progress::default();
        progress.expect(Some(at(42)));
        let shown = progress.advance(at(0), Seen { gpus: 2, ..seen(1, 3, 100.0) });
        assert_eq!(shown.line(), "  8% | 1/12 items | 3 running on 2 GPUs | 1:40 of 20:00 media | 0:42 left");
        let paused = progress.advance(at(1), Seen { paused: true, ..seen(2, 0, 200.0) });
        assert_eq!(paused.line(), " 16% | 2/12 items | paused | 3:20 of 20:00 media");
    }

    #[test]
    fn the_end_is_a_hundred_percent_even_where_media_failed() {
        let end =
            Seen { items: 2, ended: 2, failed: 1, media_s: 50.0, media_total_s: 100.0, ..Seen::default() };
        let shown = Progress::default().advance(at(5), end);
        assert_eq!(shown.line(), "100% | 2/2 items | 1 failed | 0:50 of 1:40 media");
    }

    #[test]
    fn lines_come_when_items_end_and_else_rarely() {
        let mut pace = Pace::default();
        let due: Vec<bool> = [
            (0, seen(0, 0, 0.0)),
            (1, seen(0, 0, 0.0)),
            (2, seen(0, 3, 5.0)),
            (3, seen(1, 3, 9.0)),
            (3, seen(2, 3, 9.0)),
            (14, seen(2, 3, 30.0)),
            (14, seen(12, 0, 1_200.0)),
        ]
        .into_iter()
        .map(|(s, seen)| pace.is_due(at(s), seen))
        .collect();
        assert_eq!(due, [true, false, false, true, false, true, true]);
    }

    proptest::proptest! {
        #[test]
        fn progress_only_rises(steps in proptest::collection::vec((0u64..60, 0usize..=12, 0usize..4, 0.0f64..1_300.0), 1..40)) {
            let mut progress = Progress::default();
            let (mut time, mut before) = (0, Shown::default());
            for (pause, ended, running, media_s) in steps {
                time += pause;
                let shown = progress.advance(at(time), seen(ended, running, media_s));
                proptest::prop_assert!(shown.fraction() >= before.fraction() && shown.fraction() <= 1.0);
                proptest::prop_assert!(shown.seen.media_s >= before.seen.media_s);
                proptest::prop_assert!(shown.seen.ended >= before.seen.ended);
                before = shown;
            }
        }
    }
}
