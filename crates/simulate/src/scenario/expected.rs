//! What a scenario says will come of it, and whether it did.

use std::fmt;

use super::{Scenario, ScenarioError};
use crate::outcome::{NUMBERS, Outcome};

/// A number that is not what the scenario expects.
#[derive(Clone, Debug, PartialEq)]
pub struct Missed {
    /// Its name.
    pub number: String,
    /// The lowest that was expected.
    pub low: f64,
    /// The highest.
    pub high: f64,
    /// What it was.
    pub was: f64,
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, low, high, was } = self;
        write!(f, "expected {number} {low} to {high}, was {was}")
    }
}

impl Scenario {
    /// Which numbers of an outcome are not as `expected`, which is what our own mind makes of the scenario as it stands.
    #[must_use]
    pub fn missed(&self, outcome: &Outcome) -> Vec<Missed> {
        let numbers = outcome.numbers();
        let expected = self.expected.iter().filter_map(|(number, [low, high])| {
            let was = *numbers.get(number.as_str())?;
            Some(Missed { number: number.clone(), low: *low, high: *high, was })
        });
        expected.filter(|Missed { low, high, was, .. }| !(low..=high).contains(&was)).collect()
    }

    pub(super) fn check_expected(&self) -> Result<(), ScenarioError> {
        for (number, [low, high]) in &self.expected {
            let wrong = |why: String| {
                let (name, place) = (self.name.clone(), format!("`expected.{number}`"));
                Err(ScenarioError::Impossible { name, place, why })
            };
            if !NUMBERS.contains(&number.as_str()) {
                return wrong(format!("no number has that name; use one of {}", NUMBERS.join(", ")));
            }
            if low > high {
                return wrong(format!("it is {low} to {high}; write the lower number first"));
            }
        }
        Ok(())
    }
}
