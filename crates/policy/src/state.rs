//! The seven states of a GPU and what leads from one to another: one `match`, everything else is a typed [`Illegal`].
//!
//! ```text
//! idle ─BootLlm─> booting_llm ─Ready─> llm_ready <─Ended/Began─> llm_busy
//!   │ │                │ Unload           │ Unload                  │ Unload (its engine died)
//!   │ │                └─────────┬────────┴─────────────────────────┘
//!   │ └──Unload (a warm host)──> cooling ─Cooled─> idle
//!   ├──BootScript─> booting_script ─ScriptRuns─> script_busy ─ScriptEnded─> idle
//!   └──ScriptRuns (its host is warm)────────────────┘
//! ```
//!
//! Not here: which facts give which cue (`gpu`), and who decides to boot or to unload (`plan`).

use model::GpuState;

/// What moves a GPU from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cue {
    /// An LLM was ordered.
    BootLlm,
    /// The LLM is usable.
    Ready,
    /// The first request began.
    Began,
    /// The last request ended.
    Ended,
    /// A script was given that must load first.
    BootScript,
    /// A script runs.
    ScriptRuns,
    /// The script ended, or its load did.
    ScriptEnded,
    /// What was loaded goes, or is gone without having been asked.
    Unload,
    /// The memory is free again.
    Cooled,
}

impl Cue {
    /// All cues.
    pub const ALL: [Self; 9] = [
        Self::BootLlm,
        Self::Ready,
        Self::Began,
        Self::Ended,
        Self::BootScript,
        Self::ScriptRuns,
        Self::ScriptEnded,
        Self::Unload,
        Self::Cooled,
    ];
}

/// A cue that means nothing in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cue {cue:?} means nothing to a GPU that is {state}")]
pub struct Illegal {
    /// The state.
    pub state: GpuState,
    /// The cue.
    pub cue: Cue,
}

/// The state that follows.
///
/// # Errors
/// [`Illegal`] for every pair that is not an arrow of the diagram.
pub const fn next(state: GpuState, cue: Cue) -> Result<GpuState, Illegal> {
    Ok(match (state, cue) {
        (GpuState::Idle, Cue::BootLlm) => GpuState::BootingLlm,
        (GpuState::Idle, Cue::BootScript) => GpuState::BootingScript,
        (GpuState::Idle | GpuState::BootingScript, Cue::ScriptRuns) => GpuState::ScriptBusy,
        (GpuState::BootingLlm, Cue::Ready) | (GpuState::LlmBusy, Cue::Ended) => GpuState::LlmReady,
        (GpuState::LlmReady, Cue::Began) => GpuState::LlmBusy,
        (GpuState::BootingScript | GpuState::ScriptBusy, Cue::ScriptEnded)
        | (GpuState::Cooling, Cue::Cooled) => GpuState::Idle,
        (GpuState::Idle | GpuState::BootingLlm | GpuState::LlmReady | GpuState::LlmBusy, Cue::Unload) => {
            GpuState::Cooling
        }
        (state, cue) => return Err(Illegal { state, cue }),
    })
}

/// The cue that leads from `from` towards `to`; none where it is there.
#[must_use]
pub(crate) const fn towards(from: GpuState, to: GpuState) -> Option<Cue> {
    use GpuState::{BootingLlm, BootingScript, Cooling, Idle, LlmBusy, LlmReady, ScriptBusy};
    Some(match (from, to) {
        (Idle, BootingLlm | LlmReady | LlmBusy) => Cue::BootLlm,
        (Idle, BootingScript) => Cue::BootScript,
        (Idle | BootingScript, ScriptBusy) => Cue::ScriptRuns,
        (BootingLlm, LlmReady | LlmBusy) => Cue::Ready,
        (LlmReady, LlmBusy) => Cue::Began,
        (LlmBusy, LlmReady) => Cue::Ended,
        (Idle, Cooling) | (BootingLlm, Idle | BootingScript | ScriptBusy | Cooling) => Cue::Unload,
        (LlmReady | LlmBusy, Idle | BootingLlm | BootingScript | ScriptBusy | Cooling) => Cue::Unload,
        (BootingScript, Idle | BootingLlm | LlmReady | LlmBusy | Cooling)
        | (ScriptBusy, Idle | BootingLlm | LlmReady | LlmBusy | BootingScript | Cooling) => Cue::ScriptEnded,
        (Cooling, Idle | BootingLlm | LlmReady | LlmBusy | BootingScript | ScriptBusy) => Cue::Cooled,
        (Idle, Idle)
        | (BootingLlm, BootingLlm)
        | (BootingScript, BootingScript)
        | (LlmReady, LlmReady)
        | (LlmBusy, LlmBusy)
        | (ScriptBusy, ScriptBusy)
        | (Cooling, Cooling) => return None,
    })
}
