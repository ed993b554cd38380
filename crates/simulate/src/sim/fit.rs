//! Whether the machine of a scenario could ever run what its people want: the mind itself is asked, once one task of each
//! stream has come.

use model::explained::Fate;
use model::reason::ReasonTold;
use model::{Millis, Task};

use super::{BEGIN, Sim};
use crate::mind::Mind;
use crate::people::{Arrival, Wish, stand_in};
use crate::scenario::{Faults, Scenario, ScenarioError};

/// Until then workers are up, and have said what they can load.
const IS_UP: Millis = Millis(120_000);
/// What the mind calls it where no worker can load any LLM.
const NO_ENGINE: &str = "no_engine";
/// So often it goes on until then at most.
const STEPS_MAX: u32 = 100_000;

impl Scenario {
    /// Looks whether each stream's tasks could run on the machine, as its settings are.
    ///
    /// # Errors
    /// [`ScenarioError`] with the stream, and what its tasks need that is not there.
    pub fn check_machine(&self) -> Result<(), ScenarioError> {
        let machine = Sim::of_one_each(self)?.up();
        for stream in &self.people {
            let why = stand_in(self, stream, 2).and_then(|job| machine.never_runs(&job.task));
            if let Some(why) = why {
                let (name, place) = (self.name.clone(), format!("stream `{}`", stream.name));
                let why = format!("it cannot run on this machine: {why}");
                return Err(ScenarioError::Impossible { name, place, why });
            }
        }
        Ok(())
    }
}

impl Sim {
    /// The machine of a scenario, to which one task of each stream comes at once, and where nothing goes wrong.
    fn of_one_each(scenario: &Scenario) -> Result<Self, ScenarioError> {
        let jobs = scenario.people.iter().filter_map(|stream| stand_in(scenario, stream, 1));
        let wish = |job| Arrival { at: Millis::ZERO, what: Wish::Task(Box::new(job)) };
        let arrivals = jobs.map(wish).collect();
        let scenario = Scenario { people: Vec::new(), faults: Faults::default(), ..scenario.clone() };
        Self::with_arrivals(scenario, arrivals, Mind::Ours)
    }

    fn up(mut self) -> Self {
        self.brain_starts(false);
        for _ in 0..STEPS_MAX {
            let wake = self.think();
            let next = [wake, self.agenda.next_at()].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= BEGIN + IS_UP && !self.checks.is_broken()) else {
                break;
            };
            self.now = self.now.max(next);
            if let Some(happening) = self.agenda.pop(self.now) {
                self.happen(happening);
            }
        }
        self
    }

    fn never_runs(&self, task: &Task) -> Option<String> {
        let told = policy::explain(&self.world, self.now, task, None);
        // That no worker can serve it is said before each GPU has one, and stays so: all that are wanted are up.
        let never = |reason: &ReasonTold| told.fate == Fate::CannotRun || reason.code == NO_ENGINE;
        told.reason.filter(never).map(|reason| reason.text)
    }
}
