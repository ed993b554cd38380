//! How a brain ends, and with which exit code.

use model::TaskId;

/// Why the loop stopped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All work is done and the machine is free (`--until-idle`, `down`).
    Freed,
    /// As `Freed`, with tasks left that cannot run here.
    FreedWithHeld(Vec<TaskId>),
    /// Told to leave; the workers go on.
    Left,
    /// The lock file was replaced: somebody else may be the brain now.
    LockLost,
    /// Changes could not be made durable.
    StorageFault(String),
}

impl Ending {
    /// The process's exit code.
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::Freed | Self::Left => 0,
            Self::FreedWithHeld(_) => 1,
            Self::LockLost => 4,
            Self::StorageFault(_) => 74,
        }
    }

    /// The last sentence, where one is due.
    pub(crate) fn sentence(&self) -> Option<String> {
        match self {
            Self::Freed => None,
            Self::Left => Some("leaving; the workers go on and will be adopted by the next brain".into()),
            Self::FreedWithHeld(tasks) => {
                let shown: Vec<&str> = tasks.iter().take(10).map(TaskId::as_str).collect();
                Some(format!(
                    "{} tasks are left that cannot run here: {}; `gpuspool why ID` says why",
                    tasks.len(),
                    shown.join(", ")
                ))
            }
            Self::LockLost => Some(
                "`brain/lock` was replaced while it was held; another brain may run, so this one stops"
                    .into(),
            ),
            Self::StorageFault(error) => Some(format!(
                "changes could not be made durable ({error}); nothing new is started, the workers go on; check the disk, then start the brain again"
            )),
        }
    }
}
