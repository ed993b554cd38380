//! The disk that model files lie on: readers share its speed, one file is read once, and what was read stays cached.

use model::Millis;

use crate::agenda::ArmNumber;
use crate::scenario::Disk;

/// A file that is being read, and who waits for it.
#[derive(Clone, Debug)]
struct Reading {
    model: String,
    left_mib: f64,
    waiters: Vec<(ArmNumber, u64)>,
}

/// The disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModelFiles {
    spec: Option<Disk>,
    reading: Vec<Reading>,
    /// Files in the page cache, the longest unused first.
    cached: Vec<(String, u64)>,
    at: Millis,
    /// Counts changes, so that a ring of before one is known.
    pub version: u64,
}

impl ModelFiles {
    pub(crate) fn new(spec: Option<Disk>) -> Self {
        Self { spec, ..Self::default() }
    }

    /// A worker wants a file; true where it is cached.
    pub(crate) fn want(&mut self, now: Millis, waiter: (ArmNumber, u64), model: &str, mib: u64) -> bool {
        self.progress(now);
        if let Some(at) = self.cached.iter().position(|(name, _)| name == model) {
            let file = self.cached.remove(at);
            self.cached.push(file);
            return true;
        }
        self.version += 1;
        match self.reading.iter_mut().find(|reading| reading.model == model) {
            Some(reading) => reading.waiters.push(waiter),
            #[expect(clippy::cast_precision_loss, reason = "no file is that large")]
            None => self.reading.push(Reading {
                model: model.to_owned(),
                left_mib: mib as f64,
                waiters: vec![waiter],
            }),
        }
        false
    }

    /// When the next file is read, as things are.
    #[expect(clippy::cast_precision_loss, reason = "few readers")]
    pub(crate) fn next_at(&self) -> Option<Millis> {
        let rate = self.spec?.mib_per_s.max(0.001) / self.reading.len().max(1) as f64;
        let least = self.reading.iter().map(|reading| reading.left_mib).min_by(f64::total_cmp)?;
        Some(self.at + Millis::from_secs_f64(least / rate).max(Millis(1)))
    }

    /// Lets time pass; those whose file is read.
    pub(crate) fn done(&mut self, now: Millis) -> Vec<(ArmNumber, u64)> {
        self.progress(now);
        let mut ready = Vec::new();
        let mut left = Vec::new();
        for reading in std::mem::take(&mut self.reading) {
            if reading.left_mib > 0.5 {
                left.push(reading);
                continue;
            }
            ready.extend(reading.waiters);
            self.cached.push((reading.model, 0));
        }
        self.reading = left;
        self.version += 1;
        ready
    }

    /// A file of this size was just put into the cache: the longest unused leave.
    pub(crate) fn settle_cache(&mut self, size_of: impl Fn(&str) -> u64) {
        let most = self.spec.map_or(0, |disk| disk.cache_mib);
        for file in &mut self.cached {
            file.1 = size_of(&file.0);
        }
        while self.cached.iter().map(|(_, mib)| mib).sum::<u64>() > most && !self.cached.is_empty() {
            self.cached.remove(0);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "few readers")]
    fn progress(&mut self, now: Millis) {
        let time = (now - self.at).as_secs_f64().max(0.0);
        self.at = now.max(self.at);
        let Some(disk) = self.spec else { return };
        let read = time * disk.mib_per_s / self.reading.len().max(1) as f64;
        for reading in &mut self.reading {
            reading.left_mib -= read;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_files_share_the_disk_and_one_file_is_read_once() {
        let mut disk = ModelFiles::new(Some(Disk { mib_per_s: 100.0, cache_mib: 20_000 }));
        assert!(!disk.want(Millis(0), (1, 1), "a", 10_000));
        assert!(!disk.want(Millis(0), (2, 1), "a", 10_000));
        assert_eq!(disk.next_at(), Some(Millis(100_000)));
        assert!(!disk.want(Millis(50_000), (3, 1), "b", 10_000));
        // Half of `a` is left and now has half the speed.
        assert_eq!(disk.next_at(), Some(Millis(150_000)));
        assert_eq!(disk.done(Millis(150_000)), [(1, 1), (2, 1)]);
        assert_eq!(disk.next_at(), Some(Millis(200_000)));
        disk.settle_cache(|_| 10_000);
        assert!(disk.want(Millis(151_000), (1, 2), "a", 10_000));
    }
}
