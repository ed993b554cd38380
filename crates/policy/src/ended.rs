//! The tasks that ended last, so that a second ending is noticed.
//!
//! Not here: counts of all endings (`World::ended`), and what an ending does.

use std::collections::{BTreeSet, VecDeque};

use model::TaskId;

/// How many are remembered.
const REMEMBERED: usize = 1_024;

/// The last endings, found by name in logarithmic time: every arrival and every ending asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct EndedLately {
    by_time: VecDeque<TaskId>,
    by_id: BTreeSet<TaskId>,
}

impl EndedLately {
    /// Notes an ending; says whether it is the first one that is remembered.
    pub(crate) fn note(&mut self, task_id: TaskId) -> bool {
        if !self.by_id.insert(task_id.clone()) {
            return false;
        }
        if self.by_time.len() >= REMEMBERED
            && let Some(oldest) = self.by_time.pop_front()
        {
            self.by_id.remove(&oldest);
        }
        self.by_time.push_back(task_id);
        true
    }

    /// The task may end once more.
    pub(crate) fn forget(&mut self, task_id: &TaskId) {
        if self.by_id.remove(task_id) {
            self.by_time.retain(|ended| ended != task_id);
        }
    }
}
