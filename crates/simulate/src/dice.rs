//! Chance from one number: the same seed gives the same run, byte for byte.
//!
//! Not here: what is thrown for.

use model::Millis;
use serde::{Deserialize, Serialize};

/// A stream of random numbers (xoshiro256++, seeded by splitmix64).
#[derive(Clone, Debug)]
pub struct Dice {
    state: [u64; 4],
}

impl Dice {
    /// The stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut at = seed;
        let mut next = || {
            at = at.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = at;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        };
        Self { state: [next(), next(), next(), next()] }
    }

    /// A stream of its own for one purpose, so that what is thrown for one thing does not move another.
    #[must_use]
    pub fn of(seed: u64, purpose: &str) -> Self {
        let mut hash = 0xCBF2_9CE4_8422_2325_u64;
        for byte in purpose.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        Self::new(seed ^ hash)
    }

    /// The next number.
    pub fn throw(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// From 0 up to, and never, 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub fn unit(&mut self) -> f64 {
        (self.throw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From 0 up to, and never, `bound`; 0 where that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.throw()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(u64::MAX)
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = u64::try_from(high.saturating_sub(low)).unwrap_or(0).saturating_add(1);
        low.saturating_add(i64::try_from(self.below(span)).unwrap_or(0))
    }

    /// Whether something of this probability happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// One of them; none of nothing.
    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> Option<&'a T> {
        let at = self.below(among.len() as u64);
        among.get(usize::try_from(at).unwrap_or(0))
    }

    /// Until the next of things that come at random with this mean distance.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// Around 0 with deviation 1.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// How long something takes, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Times {
    /// Always the same.
    Constant {
        /// Seconds.
        mean: f64,
    },
    /// Memoryless.
    Exponential {
        /// Mean in seconds.
        mean: f64,
    },
    /// Mostly short, now and then long.
    Lognormal {
        /// Mean in seconds.
        mean: f64,
        /// Deviation of the logarithm.
        sigma: f64,
    },
    /// Heavy tail.
    Pareto {
        /// Mean in seconds.
        mean: f64,
        /// Above 1; the smaller, the heavier.
        shape: f64,
    },
    /// Two kinds: most short, some `factor` times as long.
    Bimodal {
        /// Mean in seconds, of both kinds together.
        mean: f64,
        /// How many are long, 0 to 1.
        share: f64,
        /// How much longer.
        factor: f64,
    },
}

impl Times {
    /// Always this many seconds.
    #[must_use]
    pub const fn constant(seconds: f64) -> Self {
        Self::Constant { mean: seconds }
    }

    /// Its mean in seconds.
    #[must_use]
    pub const fn mean(&self) -> f64 {
        match self {
            Self::Constant { mean }
            | Self::Exponential { mean }
            | Self::Lognormal { mean, .. }
            | Self::Pareto { mean, .. }
            | Self::Bimodal { mean, .. } => *mean,
        }
    }

    /// One of them in seconds; never below a millisecond, never above two hundred means.
    pub fn seconds(&self, dice: &mut Dice) -> f64 {
        let drawn = match *self {
            Self::Constant { mean } => mean,
            Self::Exponential { mean } => dice.exponential(mean),
            Self::Lognormal { mean, sigma } => mean * (sigma * dice.normal() - sigma * sigma / 2.0).exp(),
            Self::Pareto { mean, shape } => {
                let least = mean * (shape - 1.0) / shape;
                least / (1.0 - dice.unit()).powf(1.0 / shape)
            }
            Self::Bimodal { mean, share, factor } => {
                let short = mean / (1.0 + share * (factor - 1.0));
                if dice.chance(share) { short * factor } else { short }
            }
        };
        drawn.clamp(0.001, (self.mean() * 200.0).max(0.001))
    }

    /// One of them.
    pub fn draw(&self, dice: &mut Dice) -> Millis {
        Millis::from_secs_f64(self.seconds(dice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_another_gives_others() {
        let throws =
            |seed| (0..8).map(|_| 0).scan(Dice::new(seed), |dice, _: i32| Some(dice.throw())).collect();
        let first: Vec<u64> = throws(7);
        assert_eq!(first, throws(7));
        assert_ne!(first, throws(8));
        assert_ne!(Dice::of(7, "people").throw(), Dice::of(7, "faults").throw());
    }

    #[test]
    fn every_kind_of_times_has_the_mean_it_says() {
        let kinds = [
            Times::Constant { mean: 45.0 },
            Times::Exponential { mean: 45.0 },
            Times::Lognormal { mean: 45.0, sigma: 1.0 },
            Times::Pareto { mean: 45.0, shape: 2.5 },
            Times::Bimodal { mean: 45.0, share: 0.1, factor: 20.0 },
        ];
        for kind in kinds {
            let mut dice = Dice::new(3);
            let sum: f64 = (0..40_000).map(|_| kind.seconds(&mut dice)).sum();
            let mean = sum / 40_000.0;
            assert!((mean / 45.0 - 1.0).abs() < 0.06, "{kind:?} has mean {mean}");
        }
    }
}
