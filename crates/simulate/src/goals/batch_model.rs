//! A batch on idle LLM GPUs as arithmetic: the seed's policy, the simple ones, and what no policy can beat.
//!
//! Time 0 is the batch's acceptance, the end is the last LLM that is loaded again: what the seed counts. Not here: our
//! policy, which runs in the simulator (`makespan`).

/// What things take, in seconds: unload of an LLM, load of a script host, its end, load of an LLM.
pub const UNLOAD_S: f64 = 5.0;
/// Load of a script host.
pub const HOST_LOAD_S: f64 = 5.0;
/// End of a script host.
pub const HOST_END_S: f64 = 1.0;
/// Load of an LLM.
pub const LLM_LOAD_S: f64 = 120.0;

/// GPUs by how many items they run at once, and the speed of each of those.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpus(pub Vec<(usize, f64)>);

/// An item of a batch: how long it runs at speed 1, and how long somebody thinks it does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Item {
    /// Seconds it runs.
    pub run_s: f64,
    /// Seconds it is expected to run.
    pub expected_s: f64,
}

/// Who gets the next item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Dealt out in turn before the first one starts.
    Dealt,
    /// Whoever is free takes the first.
    First,
    /// Whoever is free takes the longest expected.
    Longest,
}

/// How the LLMs come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// One after the other, once the last item has ended.
    AfterInTurn,
    /// All at once, once the last item has ended.
    AfterTogether,
    /// Each as soon as its GPU is free.
    AsSoonAsFree,
    /// Each as soon as its GPU is free, one load at a time.
    AsSoonAsFreeInTurn,
}

/// A simple policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPolicy {
    /// What it is called in the table.
    pub name: &'static str,
    /// Who gets the next item.
    pub share: Share,
    /// Whether a host serves many items, or is loaded for each.
    pub warm: bool,
    /// How the LLMs come back.
    pub reload: Reload,
}

/// The seed's: dealt out round robin, a process an item, LLMs loaded one by one at the end.
pub const SEED: BatchPolicy =
    BatchPolicy { name: "seed", share: Share::Dealt, warm: false, reload: Reload::AfterInTurn };
/// What it is compared with, besides the seed's.
pub const SIMPLE: [BatchPolicy; 5] = [
    BatchPolicy { name: "dealt, warm", share: Share::Dealt, warm: true, reload: Reload::AfterTogether },
    BatchPolicy { name: "fifo, cold", share: Share::First, warm: false, reload: Reload::AfterInTurn },
    BatchPolicy { name: "fifo, warm", share: Share::First, warm: true, reload: Reload::AsSoonAsFree },
    BatchPolicy { name: "longest, warm", share: Share::Longest, warm: true, reload: Reload::AsSoonAsFree },
    BatchPolicy {
        name: "longest, one load at a time",
        share: Share::Longest,
        warm: true,
        reload: Reload::AsSoonAsFreeInTurn,
    },
];

/// A place where one item runs at a time.
#[derive(Clone, Copy, Debug)]
struct Lane {
    gpu: usize,
    speed: f64,
    free_at: f64,
    loaded: bool,
}

impl Gpus {
    /// This many alike, one item at a time.
    #[must_use]
    pub fn alike(count: usize) -> Self {
        Self(vec![(1, 1.0); count])
    }

    fn lanes(&self) -> Vec<Lane> {
        let lanes = self.0.iter().enumerate().flat_map(|(gpu, (slots, speed))| {
            std::iter::repeat_n(Lane { gpu, speed: *speed, free_at: UNLOAD_S, loaded: false }, *slots)
        });
        lanes.collect()
    }
}

/// When the last LLM is loaded again, in seconds.
#[must_use]
pub fn makespan(policy: BatchPolicy, items: &[Item], gpus: &Gpus) -> f64 {
    let mut lanes = gpus.lanes();
    let mut order: Vec<usize> = (0..items.len()).collect();
    if policy.share == Share::Longest {
        order.sort_by(|a, b| items[*b].expected_s.total_cmp(&items[*a].expected_s));
    }
    for (turn, at) in order.into_iter().enumerate() {
        let lane = match policy.share {
            Share::Dealt => turn % lanes.len(),
            Share::First | Share::Longest => first_free(&lanes),
        };
        let lane = &mut lanes[lane];
        let load = if policy.warm && lane.loaded { 0.0 } else { HOST_LOAD_S };
        let end = if policy.warm { 0.0 } else { HOST_END_S };
        lane.loaded = true;
        lane.free_at += load + end + items[at].run_s / lane.speed;
    }
    let last = if policy.warm { HOST_END_S } else { 0.0 };
    let free_at = |gpu: usize| {
        let ends = lanes.iter().filter(|lane| lane.gpu == gpu).map(|lane| lane.free_at);
        ends.fold(0.0, f64::max) + last
    };
    let mut ends: Vec<f64> = (0..gpus.0.len()).map(free_at).collect();
    ends.sort_by(f64::total_cmp);
    let worked = ends.last().copied().unwrap_or(UNLOAD_S);
    match policy.reload {
        Reload::AfterInTurn => worked + LLM_LOAD_S * count(gpus.0.len()),
        Reload::AfterTogether | Reload::AsSoonAsFree => worked + LLM_LOAD_S,
        Reload::AsSoonAsFreeInTurn => ends.iter().fold(0.0, |at: f64, end| at.max(*end) + LLM_LOAD_S),
    }
}

fn first_free(lanes: &[Lane]) -> usize {
    let first = lanes.iter().enumerate().min_by(|(_, a), (_, b)| a.free_at.total_cmp(&b.free_at));
    first.map_or(0, |(at, _)| at)
}

/// What no policy can beat, in seconds: all work spread evenly, the longest item, or two that must share a place; then
/// one load. With `in_turn`, LLMs can only be loaded one at a time: all but the last GPU stop working earlier.
#[must_use]
pub fn bound(items: &[Item], gpus: &Gpus, in_turn: bool) -> f64 {
    let around = UNLOAD_S + HOST_LOAD_S + HOST_END_S;
    let work: f64 = items.iter().map(|item| item.run_s).sum();
    let mut power: Vec<f64> = gpus.0.iter().map(|(slots, speed)| count(*slots) * speed).collect();
    power.sort_by(f64::total_cmp);
    let all: f64 = power.iter().sum();
    let fastest = gpus.0.iter().map(|(_, speed)| *speed).fold(0.0, f64::max);
    let longest = items.iter().map(|item| item.run_s).fold(0.0, f64::max) / fastest;
    if in_turn {
        // The slowest GPU stops first: it gives up least.
        let lost: f64 =
            power.iter().enumerate().map(|(at, power)| power * count(power_rank(&gpus.0, at))).sum();
        let spread = LLM_LOAD_S.mul_add(lost, work) / all;
        return around + spread.max(longest + LLM_LOAD_S).max(LLM_LOAD_S * count(gpus.0.len()));
    }
    let mut busiest = (work / all).max(longest);
    let lanes: usize = gpus.0.iter().map(|(slots, _)| slots).sum();
    let alike = gpus.0.iter().all(|(_, speed)| (speed - fastest).abs() < f64::EPSILON);
    if alike && items.len() > lanes && lanes > 0 {
        let mut runs: Vec<f64> = items.iter().map(|item| item.run_s).collect();
        runs.sort_by(|a, b| b.total_cmp(a));
        busiest = busiest.max((runs[lanes - 1] + runs[lanes]) / fastest);
    }
    around + busiest + LLM_LOAD_S
}

/// How many loads come at or after that of the GPU at this place, slowest first.
fn power_rank(gpus: &[(usize, f64)], at: usize) -> usize {
    gpus.len() - at
}

#[expect(clippy::cast_precision_loss, reason = "a handful")]
fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alike(count: usize) -> Vec<Item> {
        vec![Item { run_s: 45.0, expected_s: 45.0 }; count]
    }

    fn minutes(seconds: f64) -> String {
        format!("{:.2}", seconds / 60.0)
    }

    fn all(gpus: &Gpus) -> Vec<String> {
        let items = alike(125);
        let times = std::iter::once(SEED).chain(SIMPLE).map(|policy| makespan(policy, &items, gpus));
        let bounds = [bound(&items, gpus, false), bound(&items, gpus, true)];
        bounds.into_iter().chain(times).map(minutes).collect()
    }

    /// The figures of the specification, made by another program: bound, bound with one load at a time, the seed's, and
    /// the simple ones in their order.
    #[test]
    fn a_hundred_and_twenty_five_alike_take_what_the_specification_says() {
        assert_eq!(
            all(&Gpus::alike(3)),
            ["33.43", "35.43", "41.78", "33.68", "41.78", "33.68", "33.68", "36.93"]
        );
        assert_eq!(
            all(&Gpus::alike(5)),
            ["20.93", "24.93", "31.33", "20.93", "31.33", "20.93", "20.93", "28.93"]
        );
        assert_eq!(
            all(&Gpus(vec![(3, 1.0), (2, 0.6)])),
            ["24.50", "25.08", "37.83", "33.43", "29.73", "24.68", "24.68", "26.68"]
        );
    }

    #[test]
    fn nothing_beats_the_bound() {
        let items: Vec<Item> = (1..=40)
            .map(|n| Item { run_s: f64::from(n * n % 97) + 1.0, expected_s: f64::from(n % 7) })
            .collect();
        for gpus in [Gpus::alike(1), Gpus::alike(3), Gpus(vec![(3, 1.0), (2, 0.6)])] {
            for policy in std::iter::once(SEED).chain(SIMPLE) {
                let in_turn = policy.reload == Reload::AsSoonAsFreeInTurn;
                let (took, least) = (makespan(policy, &items, &gpus), bound(&items, &gpus, in_turn));
                assert!(took >= least - 1e-9, "{} on {gpus:?}: {took} < {least}", policy.name);
            }
        }
    }
}
