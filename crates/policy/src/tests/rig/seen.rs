//! What a person would see.

use super::*;

impl Rig {
    pub(in crate::tests) fn picture(&self) -> Picture {
        let frame = PictureFrame { seq: 7, epoch: 3, boot_id: Some("boot".into()), brain_pid: 1 };
        picture(&self.world, self.now, Timestamp::UNIX_EPOCH + chrono_of(self.now), frame)
    }

    pub(in crate::tests) fn state(&self, gpu: u32) -> GpuState {
        self.picture().gpus[&gpu.to_string()].state
    }

    /// The states a GPU has been in.
    pub(in crate::tests) fn states(&self, gpu: u32) -> Vec<GpuState> {
        self.picture().gpus[&gpu.to_string()].transitions.iter().map(|(state, _)| *state).collect()
    }

    pub(in crate::tests) fn why(&self, name: &str) -> Reason {
        why(&self.world, self.now, &id(name)).unwrap_or_else(|| panic!("{name} is not known")).0
    }

    pub(in crate::tests) fn ended(&self, name: &str) -> &Ended {
        let ends = self.ended.get(&id(name)).unwrap_or_else(|| panic!("{name} has not ended"));
        assert_eq!(ends.len(), 1, "{name} ended more than once");
        &ends[0]
    }

    pub(in crate::tests) fn is_complete(&self, name: &str) -> bool {
        self.ended.get(&id(name)).is_some_and(|ends| ends.len() == 1 && ends[0].complete)
    }

    pub(in crate::tests) fn count(&self, wanted: impl Fn(&Action) -> bool) -> usize {
        self.log.iter().filter(|(_, action)| wanted(action)).count()
    }

    pub(in crate::tests) fn boots(&self) -> usize {
        self.count(|action| matches!(action, Action::Engine { engine: Some(_), .. }))
    }

    pub(in crate::tests) fn unloads(&self) -> usize {
        self.count(|action| matches!(action, Action::Engine { engine: None, .. }))
    }

    /// What was said, the oldest first, without what is said of every task and at every start.
    pub(in crate::tests) fn said(&self) -> Vec<String> {
        let said = self.log.iter().filter_map(|(_, action)| match action {
            Action::Say(saying) if !saying.is_routine() => Some(saying.to_string()),
            _ => None,
        });
        said.collect()
    }

    /// The GPU that is lent, and when the next task is expected to start there.
    pub(in crate::tests) fn next_on_the_lent_gpu(&self) -> Option<(String, Millis)> {
        let gpu = self.world.gpus.values().find(|gpu| self.world.is_lent(gpu))?;
        let (_, at) = crate::forecast::next_on(&self.world, self.now, gpu)?;
        Some((gpu.key(), at))
    }

    /// Names of the tasks in the order of their starts.
    pub(in crate::tests) fn starts(&self) -> Vec<String> {
        let starts = self.log.iter().filter_map(|(_, action)| match action {
            Action::Start { task, .. } => Some(task.task_id.to_string()),
            _ => None,
        });
        starts.collect()
    }

    pub(in crate::tests) fn workers_alive(&self) -> usize {
        self.workers.len()
    }

    pub(in crate::tests) fn describe(&self) -> String {
        let gpus: Vec<String> =
            self.picture().gpus.iter().map(|(key, gpu)| format!("{key}:{}", gpu.state)).collect();
        let heads: Vec<String> =
            plan(&self.world, self.now).heads.iter().map(|(id, reason)| format!("{id}: {reason}")).collect();
        format!(
            "gpus {gpus:?}, heads {heads:?}, ended {}, last actions {:?}",
            self.ended.len(),
            self.log.last()
        )
    }
}
