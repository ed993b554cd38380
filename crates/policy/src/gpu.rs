//! A GPU as the mind knows it: its facts, its state, what is known against it.
//!
//! Facts about its worker become a [`Scene`]; the scene leads the state along the arrows of `state`. Not here: choices.

use std::collections::{BTreeMap, VecDeque};

use model::gpu::{GpuFacts, Reading};
use model::picture::TRANSITIONS_SHOWN;
use model::{GpuState, Health, Millis, TaskId, WorkerId};

use crate::place;
use crate::shape::Shape;
use crate::state::{Illegal, next, towards};
use crate::tenure::Tenure;

/// How long after each failed boot in a row the same model is tried again on a GPU.
const BOOT_AGAIN_AFTER: [Millis; 3] = [Millis::from_secs(5), Millis::from_secs(30), Millis::from_secs(120)];

/// A GPU.
#[derive(Clone, Debug)]
pub(crate) struct Gpu {
    /// What it is.
    pub facts: GpuFacts,
    /// Whether it may be used.
    pub health: Health,
    /// The worker that serves it.
    pub worker: Option<WorkerId>,
    /// Its state at the last event; `state_at` for now.
    pub state: GpuState,
    /// Since when.
    pub since: Millis,
    /// The last states and when they began.
    pub transitions: VecDeque<(GpuState, Millis)>,
    /// While cooling: when what was loaded was seen gone.
    pub freed_at: Option<Millis>,
    /// How long an unload keeps it cooling at least.
    pub cooling: Millis,
    /// The last reading.
    pub reading: Option<Reading>,
    /// When that came.
    pub read_at: Millis,
    /// When something of ours was last seen to have gone from it.
    pub shrunk_at: Millis,
    /// Memory in use while nothing of ours was loaded, in MiB.
    pub foreign_mib: Option<u64>,
    /// Failed boots by model.
    pub boot_failures: BTreeMap<String, BootFailure>,
    /// The LLM that made room for an exclusive batch.
    pub reload: Option<String>,
    /// Since when no request has run on its LLM; what an eviction by age counts from.
    pub idle_since: Millis,
    /// What its LLMs have earned.
    pub tenure: Tenure,
    /// For whom an LLM made room here.
    pub kept_for: Option<KeptFor>,
}

/// Room that was made for a task: nothing of another shape is placed there while it waits.
#[derive(Clone, Debug)]
pub(crate) struct KeptFor {
    /// The task.
    pub task_id: TaskId,
    /// Until when at most.
    pub until: Millis,
}

/// Failed boots of one model in a row.
#[derive(Clone, Debug)]
pub(crate) struct BootFailure {
    /// How many.
    pub count: usize,
    /// Not to be tried before.
    pub again_at: Millis,
    /// Why the last one failed.
    pub error: String,
}

impl BootFailure {
    /// The failure after `before`.
    pub(crate) fn after(before: Option<&Self>, at: Millis, error: String) -> Self {
        let count = before.map_or(0, |failure| failure.count) + 1;
        let wait = BOOT_AGAIN_AFTER[count.min(BOOT_AGAIN_AFTER.len()) - 1];
        Self { count, again_at: at + wait, error }
    }
}

/// What is loaded and what runs, as the worker's orders and reports say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scene {
    /// An LLM was ordered and is not usable yet.
    pub llm_boots: bool,
    /// An LLM is usable.
    pub llm_ready: bool,
    /// A request was given to it.
    pub requests: bool,
    /// A script was given that loads.
    pub script_loads: bool,
    /// A script runs.
    pub script_runs: bool,
    /// Something is still there that should not be.
    pub unloading: bool,
}

impl Scene {
    const fn state(self) -> GpuState {
        if self.unloading {
            GpuState::Cooling
        } else if self.llm_ready {
            if self.requests { GpuState::LlmBusy } else { GpuState::LlmReady }
        } else if self.llm_boots {
            GpuState::BootingLlm
        } else if self.script_runs {
            GpuState::ScriptBusy
        } else if self.script_loads {
            GpuState::BootingScript
        } else {
            GpuState::Idle
        }
    }
}

impl Gpu {
    /// A GPU that was just found.
    pub(crate) fn new(facts: GpuFacts, cooling: Millis, at: Millis) -> Self {
        Self {
            facts,
            health: Health::Ok,
            worker: None,
            state: GpuState::Idle,
            since: at,
            transitions: VecDeque::from([(GpuState::Idle, at)]),
            freed_at: None,
            cooling,
            reading: None,
            read_at: Millis::ZERO,
            shrunk_at: Millis::ZERO,
            foreign_mib: None,
            boot_failures: BTreeMap::new(),
            reload: None,
            idle_since: at,
            tenure: Tenure::default(),
            kept_for: None,
        }
    }

    /// Its key in the picture.
    pub(crate) fn key(&self) -> String {
        self.facts.index.to_string()
    }

    /// When it stops cooling; none where it does not cool, or still waits for its memory.
    pub(crate) fn cooled_at(&self) -> Option<Millis> {
        match self.state {
            GpuState::Cooling => self.freed_at.map(|freed| freed.max(self.since + self.cooling)),
            _ => None,
        }
    }

    /// Its state now, since when.
    pub(crate) fn state_at(&self, now: Millis) -> (GpuState, Millis) {
        match self.cooled_at() {
            Some(end) if end <= now => (GpuState::Idle, end),
            _ => (self.state, self.since),
        }
    }

    /// Lets a cooling that is over end.
    pub(crate) fn pass_time(&mut self, now: Millis) {
        if let Some(end) = self.cooled_at().filter(|end| *end <= now) {
            self.enter(GpuState::Idle, end);
        }
    }

    /// Follows the scene along the arrows.
    pub(crate) fn follow(&mut self, scene: Scene, at: Millis) -> Result<(), Illegal> {
        // No way is longer than script_busy → idle → booting_llm → llm_ready → llm_busy, with a cooling in between.
        for _ in 0..8 {
            let mut goal = scene.state();
            if self.state == GpuState::Cooling && !scene.unloading {
                self.freed_at.get_or_insert(at);
                if self.cooled_at().is_none_or(|end| end > at) && goal == GpuState::Idle {
                    goal = GpuState::Cooling;
                }
            }
            let Some(cue) = towards(self.state, goal) else { break };
            let state = next(self.state, cue)?;
            self.enter(state, at);
        }
        Ok(())
    }

    /// Takes a state that was found and not seen to come about.
    pub(crate) fn adopt(&mut self, scene: Scene, at: Millis) {
        let state = scene.state();
        if self.state != state {
            self.enter(state, at);
        }
    }

    fn enter(&mut self, state: GpuState, at: Millis) {
        match state {
            GpuState::LlmReady => self.idle_since = at,
            // With each use its credit is full again.
            GpuState::LlmBusy => self.tenure.paid = 0,
            _ => {}
        }
        self.state = state;
        self.since = at;
        self.freed_at = None;
        if self.transitions.len() >= TRANSITIONS_SHOWN {
            self.transitions.pop_front();
        }
        self.transitions.push_back((state, at));
    }

    /// Whether what programs of other people hold leaves enough for a task that fits here and has the GPU for itself.
    pub(crate) fn has_room_for(&self, shape: &Shape) -> bool {
        place::is_wanted(shape, &self.facts) && self.could_be_one_for(shape)
    }

    /// The same, where it need not be the GPU that the task asks for: it may be another one of several.
    pub(crate) fn could_be_one_for(&self, shape: &Shape) -> bool {
        let room = match (shape.needs.vram_mib, self.facts.total_mib, self.foreign_mib) {
            (Some(need), Some(total), Some(foreign)) => need.saturating_add(foreign) <= total,
            _ => true,
        };
        room && place::can_hold(shape, &self.facts)
    }

    /// Whether new work may be placed on it.
    pub(crate) const fn is_usable(&self) -> bool {
        matches!(self.health, Health::Ok | Health::Suspect)
    }
}
