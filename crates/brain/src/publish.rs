//! Writes the picture, and what has been learned, at most so often.

use model::{GpuState, Millis, Timestamp};
use policy::{PictureFrame, World};
use spool::atomic;
use spool::clock;
use spool::layout::Layout;

/// Between two writings of `gpu_state.json`: at most 20 a second.
const PICTURE_EVERY: Millis = Millis(50);
/// Between two writings of `brain/learned.json`.
const LEARNED_EVERY: Millis = Millis(10_000);

/// Beyond this, somebody has set the wall clock.
const DISAGREEMENT_MAX: chrono::Duration = chrono::Duration::milliseconds(500);

/// The writer of derived files.
#[derive(Debug)]
pub(crate) struct Publisher {
    layout: Layout,
    frame: PictureFrame,
    /// Both clocks, read at one moment.
    clocks: Option<(Millis, Timestamp)>,
    changed: bool,
    pictured: Option<Millis>,
    learned: Millis,
    learned_text: String,
}

impl Publisher {
    pub(crate) fn new(layout: Layout, epoch: u64, brain_pid: u32) -> Self {
        let frame = PictureFrame { seq: 0, epoch, boot_id: clock::boot_id().ok(), brain_pid };
        Self {
            layout,
            frame,
            clocks: None,
            changed: true,
            pictured: None,
            learned: clock::now(),
            learned_text: String::new(),
        }
    }

    /// Something may look different now.
    pub(crate) const fn touch(&mut self) {
        self.changed = true;
    }

    /// When there is something to write.
    pub(crate) fn due(&self) -> Option<Millis> {
        let picture = self.changed.then(|| self.pictured.map_or(Millis::ZERO, |last| last + PICTURE_EVERY));
        picture.into_iter().chain([self.learned + LEARNED_EVERY]).min()
    }

    /// Writes what is due.
    pub(crate) fn publish(&mut self, world: &World, now: Millis, notices: impl Iterator<Item = String>) {
        let due = self.pictured.is_none_or(|last| now - last >= PICTURE_EVERY);
        if self.changed && due {
            self.write_picture(world, now, notices);
        }
        if now - self.learned >= LEARNED_EVERY {
            self.write_learned(world, now);
        }
    }

    /// Writes both, at a clean stop.
    pub(crate) fn last(&mut self, world: &World, now: Millis, notices: impl Iterator<Item = String>) {
        self.write_picture(world, now, notices);
        self.write_learned(world, now);
    }

    /// Whether every GPU has been seen to be free.
    pub(crate) fn all_cooled(&mut self, world: &World, now: Millis) -> bool {
        let picture = policy::picture(world, now, self.wall(now), self.frame.clone());
        picture.gpus.values().all(|gpu| gpu.state != GpuState::Cooling)
    }

    fn write_picture(&mut self, world: &World, now: Millis, notices: impl Iterator<Item = String>) {
        self.frame.seq += 1;
        let mut picture = policy::picture(world, now, self.wall(now), self.frame.clone());
        picture.notices.extend(notices);
        // The first writing is made durable: a replace of a name that never was durable can vanish in a power cut.
        let durable = self.pictured.is_none();
        match serde_json::to_vec_pretty(&picture).map_err(std::io::Error::other) {
            Ok(bytes) => {
                if let Err(error) = atomic::replace(&self.layout.gpu_state(), &bytes, durable) {
                    tracing::warn!(%error, "failed to write gpu_state.json");
                }
            }
            Err(error) => tracing::error!(%error, "the picture cannot be written as JSON"),
        }
        self.pictured = Some(now);
        self.changed = false;
    }

    /// The wall clock at `now`, by one pair of readings for as long as the two clocks agree: so an instant in the past
    /// is drawn the same every time.
    fn wall(&mut self, now: Millis) -> Timestamp {
        let wall = clock::wall();
        let (then, then_wall) = *self.clocks.get_or_insert((now, wall));
        let expected = now.on_the_wall(then, then_wall);
        if (wall - expected).abs() > DISAGREEMENT_MAX {
            self.clocks = Some((now, wall));
            return wall;
        }
        expected
    }

    fn write_learned(&mut self, world: &World, now: Millis) {
        self.learned = now;
        match serde_json::to_string_pretty(&world.learned()) {
            Ok(text) if text != self.learned_text => {
                match atomic::replace(&self.layout.learned(), text.as_bytes(), true) {
                    Ok(()) => self.learned_text = text,
                    Err(error) => tracing::warn!(%error, "failed to write learned.json"),
                }
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "what was learned cannot be written as JSON"),
        }
    }
}
