//! What must never be, as data: every promise that the mind can break, with the check that sees it.
//!
//! | of the reliability specification | |
//! |---|---|
//! | I1 one ending, I2 one place, I6 no double run, I7 one holder, I8 no poison, I17 exact batches | laws of a world (`state`) |
//! | I6, I7, I8, I17, I20 at the moment of a choice; what is evicted, who yields, who is passed over | laws of a fact (`fact`) |
//! | I1, I19 what a fact may change | laws of a change (`change`) |
//! | I19, I20 nothing that could go on stands still, and no sleep is too long | laws of rest (`rest`) |
//! | I21 bounded resources | the mind's own memory: a law of a world; the rest in the brain |
//! | I3, I4, I5, I18 crashes, power, adoption, full disks | what lies on disk: the spool's and the brain's tests, `simulate` |
//! | I9 to I13, I15 torn files, bad input, missed events, readable state, one brain | `spool` and `brain` |
//! | I14 a state that is derived | the brain's tests |
//! | I16 no orphan memory | `engine` and `worker` |
//!
//! Those with a letter of their own (`E`: eviction, `P`: places, `R`: retries, `Y`: yields) are promises of the README.
//! Checked after each fact of the property tests and of `simulate`. Not here: what is on disk, and any choice.

mod change;
mod evictions;
mod places;
mod rest;
mod starts;
mod state;

use std::fmt;

use model::Millis;

use crate::action::Plan;
use crate::event::Event;
use crate::world::World;
pub use change::Marks;

/// A promise, and how it is seen to be broken.
#[derive(Clone, Copy, Debug)]
pub struct Law {
    /// Its name: an invariant of the reliability specification, or a letter of its own, and a few words.
    pub name: &'static str,
    /// What is promised.
    pub promise: &'static str,
    /// What sees it broken.
    pub check: Check,
}

/// When a law is looked at, and what sees it broken: a sentence for each breach.
#[derive(Clone, Copy, Debug)]
pub enum Check {
    /// After each fact: the world alone.
    World(fn(&World, &mut Found)),
    /// Before each fact: the world, and what is about to be taken in; mostly, what the mind has chosen.
    Fact(fn(&Step<'_>, &mut Found)),
    /// After each fact: what it changed.
    Change(fn(&Marks, &World, &mut Found)),
    /// When the mind has nothing more to do.
    Rest(fn(&Pause<'_>, &mut Found)),
}

/// A fact that is about to be taken in.
#[derive(Clone, Copy, Debug)]
pub struct Step<'w> {
    /// The world before it.
    pub world: &'w World,
    /// When.
    pub at: Millis,
    /// What.
    pub event: &'w Event,
}

/// A mind that has nothing more to do.
#[derive(Clone, Copy, Debug)]
pub struct Pause<'w> {
    /// The world.
    pub world: &'w World,
    /// When.
    pub now: Millis,
    /// The plan without an action.
    pub plan: &'w Plan,
}

/// What was seen of one law.
pub type Found = Vec<String>;

/// A law that does not hold.
#[derive(Clone, Debug)]
pub struct Breach {
    /// Which.
    pub law: &'static Law,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (the promise: {})", self.law.name, self.detail, self.law.promise)
    }
}

const fn law(name: &'static str, promise: &'static str, check: Check) -> Law {
    Law { name, promise, check }
}

/// All of them.
pub const LAWS: &[Law] = &[
    law("I1 one ending", "every task ends exactly once", Check::World(state::one_ending)),
    law(
        "I2 one place",
        "a task, a start and an attempt are in one place each",
        Check::World(state::one_place),
    ),
    law(
        "I2 whole queue",
        "what waits stands in line, is parked until its time, or is to be ended",
        Check::World(state::whole_queue),
    ),
    law(
        "I6 no double run",
        "a task has one live attempt at most, and no number twice",
        Check::World(state::no_double_run),
    ),
    law(
        "I7 one holder",
        "a GPU has one worker, and what was granted on it fits",
        Check::World(state::one_holder),
    ),
    law(
        "I7 whole GPUs",
        "a task of several GPUs has each of them for itself",
        Check::World(state::whole_gpus),
    ),
    law(
        "I7 whole LLMs",
        "an LLM of several GPUs has each of them for itself",
        Check::World(state::whole_llms),
    ),
    law(
        "I7 one lock",
        "under a single lock one unit runs on all GPUs together",
        Check::World(state::one_lock),
    ),
    law("I8 no poison", "a task is charged so often and not more", Check::World(state::no_poison)),
    law(
        "I17 exact batches",
        "a batch has as many ends as items; inside exclusive mode no LLM task starts but admitted chatbots",
        Check::World(state::exact_batches),
    ),
    law(
        "I21 bounded memory",
        "what is remembered of the past has a bound",
        Check::World(state::bounded_memory),
    ),
    law("Y1 chatbots stay", "whoever is asked to give way is no chatbot", Check::World(state::chatbots_stay)),
    law("I6 numbers rise", "an attempt has the number after the last one", Check::Fact(starts::numbers_rise)),
    law(
        "I8 charged once",
        "an attempt is charged when it starts; one that gave way, or did not count, gets that back",
        Check::Fact(starts::charged_once),
    ),
    law(
        "R1 put away once",
        "an attempt is put away once, when it is over",
        Check::Fact(starts::put_away_once),
    ),
    law(
        "R2 back-off",
        "what broke waits as long as was set, and what rests is let rest",
        Check::Fact(starts::back_off),
    ),
    law(
        "P1 only what may start starts",
        "nothing starts before its time, cancelled, paused, inside exclusive mode, or while the machine is being freed",
        Check::Fact(starts::may_start),
    ),
    law(
        "P2 only where it can run",
        "work goes to a usable GPU with a worker that obeys, where it fits and may run",
        Check::Fact(places::can_run),
    ),
    law(
        "P3 a free slot",
        "a request goes to its model, which is ready and has a free slot",
        Check::Fact(places::free_slot),
    ),
    law(
        "P4 memory",
        "hosts are let in as far as the memory goes, the headroom left free",
        Check::Fact(places::memory),
    ),
    law(
        "P5 kept room",
        "room that was made for a task goes to none of another kind while that waits",
        Check::Fact(places::kept_room),
    ),
    law(
        "P6 memory of the machine",
        "while memory is short no script starts, but one at a time after `ram_wait_s`",
        Check::Fact(places::ram_guard),
    ),
    law(
        "I7 one launch",
        "a GPU, or the CPU lane, gets one worker at a time",
        Check::Fact(places::one_launch),
    ),
    law(
        "I20 chatbots first",
        "no other task takes a place that a waiting chatbot could have",
        Check::Fact(starts::chatbots_first),
    ),
    law(
        "I20 one order",
        "of tasks that can run in the same places the higher level goes first, then the job type whose turn it is, \
         then who came first",
        Check::Fact(starts::one_order),
    ),
    law("E1 no request is cut", "no LLM goes under a request", Check::Fact(evictions::no_cut)),
    law("E2 pinned", "an LLM that is pinned makes room for nobody", Check::Fact(evictions::pinned)),
    law("E3 residency", "an LLM stays its least time", Check::Fact(evictions::residency)),
    law(
        "E4 feasible",
        "an LLM makes room for a task that waits, then fits there, and for which the room is kept",
        Check::Fact(evictions::feasible),
    ),
    law(
        "E5 no boot too soon",
        "a model that failed to load on a GPU is not tried again at once",
        Check::Fact(evictions::no_boot_too_soon),
    ),
    law("E6 said", "an LLM goes after a sentence about its GPU that says why", Check::Fact(evictions::said)),
    law(
        "Y2 yields for a chatbot",
        "who is asked to give way can, has not too often, and a chatbot waits",
        Check::Fact(evictions::yields),
    ),
    law("I1 nothing is lost", "no task leaves the mind but by its end", Check::Change(change::nothing_lost)),
    law("I19 time goes on", "no fact turns the time back", Check::Change(change::time_goes_on)),
    law(
        "I19 wakes later",
        "the mind sleeps until an instant that is still to come",
        Check::Rest(rest::wakes_later),
    ),
    law(
        "R3 what is over is put away",
        "an attempt that is over, cancelled or past its limit is dealt with at once",
        Check::Rest(rest::nothing_left_lying),
    ),
    law(
        "I20 no idle GPU",
        "no GPU stands idle while a task waits that could start there as things are",
        Check::Rest(rest::no_idle_gpu),
    ),
    law(
        "I20 no half LLM",
        "an LLM that has lost one of its GPUs gives the others back",
        Check::Rest(rest::no_half_llm),
    ),
    law(
        "I20 no idle LLM",
        "no ready LLM stands idle while a request waits that it could serve",
        Check::Rest(rest::no_idle_llm),
    ),
    law(
        "I7 each GPU its worker",
        "a usable GPU has a worker, or one is launched, or will be",
        Check::Rest(rest::each_gpu_its_worker),
    ),
];

fn broken(wanted: impl Fn(&Check, &mut Found)) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut found = Vec::new();
    for law in LAWS {
        wanted(&law.check, &mut found);
        // Nearly always nothing was found, and each of them is asked several times a fact.
        if !found.is_empty() {
            breaches.extend(found.drain(..).map(|detail| Breach { law, detail }));
        }
    }
    breaches
}

/// The laws of a world that do not hold in this one.
#[must_use]
pub fn breaches(world: &World) -> Vec<Breach> {
    broken(|check, found| {
        if let Check::World(check) = check {
            check(world, found);
        }
    })
}

/// The laws of a fact that this one would break.
#[must_use]
pub fn breaches_of(step: &Step<'_>) -> Vec<Breach> {
    broken(|check, found| {
        if let Check::Fact(check) = check {
            check(step, found);
        }
    })
}

/// The laws of rest that do not hold.
#[must_use]
pub fn breaches_at_rest(pause: &Pause<'_>) -> Vec<Breach> {
    broken(|check, found| {
        if let Check::Rest(check) = check {
            check(pause, found);
        }
    })
}

/// The laws of a change that a fact broke.
#[must_use]
pub fn breaches_of_change(before: &Marks, after: &World) -> Vec<Breach> {
    broken(|check, found| {
        if let Check::Change(check) = check {
            check(before, after, found);
        }
    })
}

impl World {
    /// Takes a fact in, as `apply`, and looks at every law on the way.
    pub fn apply_by_law(&mut self, at: Millis, event: Event) -> Vec<Breach> {
        let mut breaches = breaches_of(&Step { world: self, at, event: &event });
        let before = Marks::of(self, &event);
        self.apply(at, event);
        breaches.extend(breaches_of_change(&before, self));
        breaches.extend(crate::law::breaches(self));
        breaches
    }
}
