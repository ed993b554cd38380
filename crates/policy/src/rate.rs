//! How often something comes, judged by how often it came of late: a rate that can have changed.
//!
//! ```text
//!  counted, step by step:   4 3 5 4 3 4 0 0 0 0 0 0 │ now      a mean would still say 2
//!                                      ▲ changed here, most likely: hardly any come
//! ```
//! That the rate has changed once within the window is as likely as that it has not, and any moment is as likely as any
//! other; what a rate is like before anything is counted is a prior (a gamma distribution). Each possibility is weighed
//! by how well it explains the counts, and all of them are kept: what follows from a rate that is not known well is the
//! mean of what follows from each. A rush, or a silence, is believed as soon as chance does not explain it. Not here:
//! what is counted (`demand`).

/// How many arrivals what is usual counts for, and how many seconds at most. Little: what was counted decides. Without
/// the second, an hour in which hardly any come would count as hours of silence, and a rush would not be believed.
const PRIOR: f64 = 0.1;
const PRIOR_S: f64 = 60.0;

/// What the rate may be: so many per second with so much weight, all weights together 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rate(Vec<(f64, f64)>);

/// What weighs less is left out.
const LEAST_WEIGHT: f64 = 1e-3;

impl Rate {
    /// Known exactly.
    #[must_use]
    pub fn exactly(per_s: f64) -> Self {
        Self(vec![(1.0, per_s)])
    }

    /// The rate now. `counts` by step of `step_s` seconds, the newest first; `usual` per second is what is expected where
    /// nothing was counted.
    pub(crate) fn now(counts: &[u64], step_s: f64, usual: f64) -> Self {
        let usual = usual.max(f64::MIN_POSITIVE);
        let seconds = (PRIOR / usual).min(PRIOR_S);
        let prior = Seen { count: usual * seconds, seconds };
        let whole = counts.iter().fold(Seen::default(), |seen, count| seen.with(*count, step_s));
        // No change at all, and one before each step but the oldest: half of the weight is theirs together.
        let changes = counts.len().saturating_sub(1);
        let each = -float(changes as u64).ln();
        let mut ways = Vec::with_capacity(counts.len());
        ways.push((whole.evidence(prior), whole));
        let mut since = Seen::default();
        for count in &counts[..changes] {
            since = since.with(*count, step_s);
            let before = Seen { count: whole.count - since.count, seconds: whole.seconds - since.seconds };
            ways.push((since.evidence(prior) + before.evidence(prior) + each, since));
        }
        let best = ways.iter().map(|(evidence, _)| *evidence).fold(f64::NEG_INFINITY, f64::max);
        let weight = |evidence: f64| (evidence - best).exp();
        ways.retain(|(evidence, _)| weight(*evidence) >= LEAST_WEIGHT);
        let all: f64 = ways.iter().map(|(evidence, _)| weight(*evidence)).sum();
        // What little was counted leaves open: as far above as below.
        let apart = |(evidence, since): (f64, Seen)| {
            let (count, seconds) = (since.count + prior.count, since.seconds + prior.seconds);
            let (mean, off) = (count / seconds, count.sqrt().min(count) / seconds);
            let half = weight(evidence) / all / 2.0;
            [(half, mean + off), (half, mean - off)]
        };
        Self(ways.into_iter().flat_map(apart).collect())
    }

    /// The mean of what it may be, per second.
    #[must_use]
    pub fn per_s(&self) -> f64 {
        self.mean(|per_s| per_s)
    }

    /// The mean of what follows from it.
    pub(crate) fn mean(&self, of: impl Fn(f64) -> f64) -> f64 {
        self.0.iter().map(|(weight, per_s)| weight * of(*per_s)).sum()
    }
}

/// So many in so many seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    count: f64,
    seconds: f64,
}

impl Seen {
    fn with(self, count: u64, seconds: f64) -> Self {
        Self { count: self.count + float(count), seconds: self.seconds + seconds }
    }

    /// The logarithm of how likely this is under one unknown rate, but for what is common to all ways to divide the same
    /// counts: `∫ λⁿ e^(−λt) · Γ(λ; a, p) dλ` with the prior's `a` arrivals in `p` seconds.
    fn evidence(self, prior: Self) -> f64 {
        let count = self.count + prior.count;
        let of_prior = prior.count.mul_add(prior.seconds.ln(), -ln_gamma(prior.count));
        of_prior + ln_gamma(count) - count * (self.seconds + prior.seconds).ln()
    }
}

/// The logarithm of the gamma function of a positive number, by Stirling's series: off by less than a millionth.
fn ln_gamma(x: f64) -> f64 {
    // The series is good for large numbers: Γ(x) = Γ(x + 1) / x.
    let (mut x, mut less) = (x, 1.0);
    while x < 6.0 {
        less *= x;
        x += 1.0;
    }
    let series = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3));
    (x - 0.5).mul_add(x.ln(), -x) + 0.5 * std::f64::consts::TAU.ln() + series - less.ln()
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP_S: f64 = 15.0;
    const USUAL: f64 = 1.0 / 600.0;

    fn near(found: f64, expected: f64, by: f64) {
        assert!((found - expected).abs() <= by * expected, "{found} is not {expected}");
    }

    fn rate(counts: &[u64], step_s: f64, usual: f64) -> f64 {
        Rate::now(counts, step_s, usual).per_s()
    }

    /// Newest first.
    fn counts(parts: &[(usize, u64)]) -> Vec<u64> {
        parts.iter().flat_map(|(steps, each)| std::iter::repeat_n(*each, *steps)).collect()
    }

    #[test]
    fn the_gamma_function_by_hand() {
        let mut exact = 0.0;
        for n in 1..200_u64 {
            exact += float(n).ln();
            assert!((ln_gamma(float(n) + 1.0) - exact).abs() < 1e-6, "{n}");
        }
        assert!((ln_gamma(0.5) - std::f64::consts::PI.sqrt().ln()).abs() < 1e-6);
    }

    #[test]
    fn a_steady_rate_is_its_mean() {
        near(rate(&counts(&[(60, 2)]), STEP_S, USUAL), 2.0 / STEP_S, 0.1);
        assert!(rate(&counts(&[(60, 0)]), STEP_S, USUAL) < USUAL / 5.0);
        near(rate(&[], STEP_S, USUAL), USUAL, 1e-9);
    }

    #[test]
    fn a_silence_is_believed_once_chance_does_not_explain_it() {
        // One a minute, then nothing.
        let after = |silent: usize| {
            let mut all = vec![0; silent];
            all.extend((0..60 - silent).map(|step| u64::from(step % 4 == 0)));
            rate(&all, STEP_S, USUAL)
        };
        assert!(after(2) > 1.0 / 90.0, "half a minute says nothing: {}", after(2));
        assert!(after(12) < 1.0 / 120.0, "three minutes: {}", after(12));
        assert!(after(20) < 1.0 / 300.0, "five minutes: {}", after(20));
    }

    #[test]
    fn a_rush_is_believed_within_two_minutes() {
        assert!(rate(&counts(&[(4, 2), (56, 0)]), STEP_S, USUAL) > 1.0 / STEP_S / 1.5);
        near(rate(&counts(&[(8, 2), (52, 0)]), STEP_S, USUAL), 2.0 / STEP_S, 0.4);
        // Also in an hour in which hardly any are usual.
        near(rate(&counts(&[(8, 2), (52, 0)]), STEP_S, 1.0 / 86_400.0), 2.0 / STEP_S, 0.4);
        near(rate(&counts(&[(60, 2)]), STEP_S, 1.0 / 86_400.0), 2.0 / STEP_S, 0.1);
        // A single request after a long silence is no rush.
        assert!(rate(&counts(&[(1, 1), (59, 0)]), STEP_S, USUAL) < 1.0 / 200.0);
    }
}
