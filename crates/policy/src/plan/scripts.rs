//! Where a script task goes: to a host that waits, else to a GPU where it fits now, else where room is on its way, else
//! where idle hosts can leave for it. What finds none of these keeps the room that frees first from those behind it.
//!
//! Among GPUs where it fits now, one that runs nothing goes first, then the one that is left with the least memory, so
//! that large GPUs stay free for large needs. Items of an exclusive batch fill all GPUs; the longest go to the fastest.
//! Not here: what a unit needs and what fits (`room`).

use std::cmp::{Ordering, Reverse};

use model::{Entry, Millis};

use super::draft::{Desk, Draft};
use super::fill::Placed;
use super::hold;
use super::ram;
use crate::place;
use crate::queue::Queued;
use crate::room::{Holder, Leftover, Line, Need, When};
use crate::shape::HostKey;

/// Orders are given ahead only while they should take no longer than this all together: never by count.
pub(super) const AHEAD: Millis = Millis(20);

/// A script task that looks for its place.
pub(super) struct Seeker<'w> {
    pub item: &'w Queued,
    pub key: &'w HostKey,
    pub who: Holder<'w>,
    pub need: Need,
    /// How many of its shape wait, itself included.
    pub left: u64,
}

/// What a desk is to a seeker; smaller is better.
type Fit = (model::Health, u8, u64, u32);

pub(super) fn place<'w>(draft: &mut Draft<'w>, entry: &'w Entry, item: &'w Queued, left: u64) -> Placed {
    let Some(key) = item.shape.host() else { return Placed::No };
    let seeker = Seeker { item, key, who: Holder::of(key), need: draft.world.need(&item.shape), left };
    let able: Vec<usize> = (0..draft.desks.len())
        .filter(|at| {
            let desk = &draft.desks[*at];
            let open = draft.world.takes_scripts(desk.gpu) && !desk.is_kept_from(Some(&item.shape));
            let open = open && draft.admits(*at, item);
            !desk.taken && open && place::fits(&item.shape, &desk.gpu.facts)
        })
        .collect();
    match fastest(draft, &able, &seeker) {
        Some((at, true)) => return start(draft, at, &seeker, entry, true),
        Some((at, false)) => {
            promise(draft, at, &seeker);
            return Placed::Yes;
        }
        None => {}
    }
    if let Some(at) =
        best(draft, &able, &seeker, When::Now, &|desk| desk.is_open(draft) && waits(desk, &seeker))
    {
        return start(draft, at, &seeker, entry, true);
    }
    let here = fitting(draft, &able, &seeker);
    if let Some(at) = here.filter(|at| draft.desks[*at].load == 0) {
        return start(draft, at, &seeker, entry, true);
    }
    if let Some(at) = able.iter().copied().find(|at| ahead_fits(draft, &draft.desks[*at], &seeker)) {
        return start(draft, at, &seeker, entry, false);
    }
    let loads = |at: &usize| draft.desks[*at].room.line(seeker.who).is_none_or(|line| line.idle() == 0);
    if here.is_some_and(|at| loads(&at)) && waiting_is_shorter(draft, &able, &seeker) {
        return Placed::Covered;
    }
    if let Some(at) = here {
        return start(draft, at, &seeker, entry, true);
    }
    let colocates = draft.world.config.resource_manager.colocate_scripts;
    if let Some(at) = best(draft, &able, &seeker, When::Soon, &|desk| desk.frees_soon(colocates)) {
        promise(draft, at, &seeker);
        return Placed::Yes;
    }
    // Who could not start for want of the machine's memory sends no hosts away: another kind would do the same to its own.
    if !draft.ram.refused
        && let Some(at) = best(draft, &able, &seeker, When::Cleared, &|desk| desk.is_open(draft))
        && clear(draft, at, &seeker)
    {
        promise(draft, at, &seeker);
        return Placed::Yes;
    }
    hold::for_script(draft, &able, &seeker);
    let is_too_long = |at: usize| {
        let desk = &draft.desks[at];
        let fits = draft.world.takes_scripts(desk.gpu) && place::fits(&item.shape, &desk.gpu.facts);
        fits && !desk.taken && !draft.admits(at, item)
    };
    if (0..draft.desks.len()).any(is_too_long) { Placed::TooLong } else { Placed::No }
}

/// Whether a loaded host waits there for this task.
fn waits(desk: &Desk<'_>, seeker: &Seeker<'_>) -> bool {
    desk.room.line(seeker.who).is_some_and(|line| line.loaded > line.units)
}

/// Where an item goes of a batch that has the GPUs for itself and items enough for all of their places: all of them are
/// filled anyway, and as the longest come first, the question is which go to which GPU. The longest on a slow one may be
/// what all wait for in the end, so they go to the fastest, as far as that is known, else to the largest; also where it is
/// just becoming free. Tells whether it can start there now.
fn fastest(draft: &Draft<'_>, able: &[usize], seeker: &Seeker<'_>) -> Option<(usize, bool)> {
    let is_of_batch = draft.exclusive.as_ref()?.has(seeker.item.shape.batch.as_ref());
    let desks = || able.iter().copied().map(|at| (at, &draft.desks[at]));
    let room = |(at, when)| leftover(draft, at, seeker, when).map(|_| (at, when == When::Now));
    let open = desks().filter(|(_, desk)| desk.is_open(draft)).filter_map(|(at, _)| room((at, When::Now)));
    let soon =
        desks().filter(|(_, desk)| desk.frees_soon(false)).filter_map(|(at, _)| room((at, When::Soon)));
    let found: Vec<(usize, bool)> = open.chain(soon).collect();
    let places = desks().map(|(_, desk)| desk.room.slots(seeker.who, seeker.need).map_or(1, u64::from));
    let enough = seeker.left >= places.sum() && !waiting_is_shorter(draft, able, seeker);
    if !is_of_batch || found.len() < 2 || !enough {
        return None;
    }
    let speed = |at: usize| draft.world.memory.speed_on(seeker.key, &draft.desks[at].gpu.facts.name);
    let all_known = found.iter().all(|(at, _)| speed(*at).is_some());
    let faster = |a: usize, b: usize| {
        let known = if all_known { speed(a).zip(speed(b)) } else { None };
        known.map_or(Ordering::Equal, |(a, b)| b.total_cmp(&a))
    };
    let health = |at: usize| draft.desks[at].gpu.health;
    let size = |(at, now): (usize, bool)| {
        let facts = &draft.desks[at].gpu.facts;
        (Reverse(facts.total_mib), !now, facts.index)
    };
    let order = |a: &(usize, bool), b: &(usize, bool)| {
        health(a.0).cmp(&health(b.0)).then_with(|| faster(a.0, b.0)).then_with(|| size(*a).cmp(&size(*b)))
    };
    found.into_iter().min_by(order)
}

/// The best of those that are wanted and have room for it.
fn best(
    draft: &Draft<'_>,
    able: &[usize],
    seeker: &Seeker<'_>,
    when: When,
    wanted: &dyn Fn(&Desk<'_>) -> bool,
) -> Option<usize> {
    let fits = able.iter().copied().filter(|at| wanted(&draft.desks[*at]));
    let fits = fits.filter_map(|at| Some((fit(&draft.desks[at], leftover(draft, at, seeker, when)?), at)));
    fits.min().map(|(_, at)| at)
}

fn fit(desk: &Desk<'_>, leftover: Leftover) -> Fit {
    // Two units on one GPU slow each other: one that runs nothing goes first, one that serves an LLM last.
    let busy = if desk.llm.is_some() { 2 } else { u8::from(desk.load > 0) };
    (desk.gpu.health, busy, leftover.unwrap_or(u64::MAX), desk.gpu.facts.index)
}

/// What it would leave on a desk; none where it does not fit, or would be in the way of what the desk is held for.
pub(super) fn leftover(draft: &Draft<'_>, at: usize, seeker: &Seeker<'_>, when: When) -> Option<Leftover> {
    let desk = &draft.desks[at];
    let left = desk.room.leftover(when, seeker.who, seeker.need)?;
    let held = desk.hold.as_ref();
    held.is_none_or(|hold| hold.admits(draft, desk, seeker)).then_some(left)
}

/// A GPU where it fits now. The only idle one that could hold the largest need that waits is left for that, if this
/// task can share a smaller one.
fn fitting(draft: &Draft<'_>, able: &[usize], seeker: &Seeker<'_>) -> Option<usize> {
    let open = |desk: &Desk<'_>| desk.is_open(draft);
    let first = best(draft, able, seeker, When::Now, &open)?;
    let total = |at: usize| draft.desks[at].gpu.facts.total_mib;
    let (Some(largest), Some(large)) = (draft.largest_waiting, total(first)) else { return Some(first) };
    if draft.desks[first].load > 0 || large < largest || seeker.need.stated >= Some(largest) {
        return Some(first);
    }
    let others = |desk: &Desk<'_>| open(desk) && desk.gpu.facts.total_mib != Some(large);
    let other = best(draft, able, seeker, When::Now, &others).filter(|at| total(*at) < Some(largest));
    let twin = |desk: &Desk<'_>| {
        desk.gpu.facts.index != draft.desks[first].gpu.facts.index
            && desk.load == 0
            && desk.gpu.facts.total_mib >= Some(largest)
            && open(desk)
    };
    let is_only = !draft.desks.iter().any(twin);
    other.filter(|_| is_only).or(Some(first))
}

/// Whether this stream, if all of it is like this task, is through sooner by the hosts that are loaded than by loading one
/// more beside them.
fn waiting_is_shorter(draft: &Draft<'_>, able: &[usize], seeker: &Seeker<'_>) -> bool {
    let world = draft.world;
    let name = crate::learn::run_name(&world.config, &seeker.item.task, None);
    if !seeker.key.warm || world.memory.run_by_name(&name).is_none() {
        return false;
    }
    let Some(run) = able.iter().map(|at| expected(draft, *at, seeker)).min() else { return false };
    let run_it =
        |at: &usize| draft.desks[*at].room.line(seeker.who).map_or(0, |line| line.kept.min(line.units));
    let hosts: u32 = able.iter().map(run_it).sum();
    if hosts == 0 {
        return false;
    }
    let boot = world.memory.host_boot(&world.config, seeker.key).p50;
    let left = i64::try_from(seeker.left).unwrap_or(i64::MAX);
    let by_rate = run.0.saturating_mul(left) / i64::from(hosts) <= boot.0;
    by_rate && first_end(draft, able, seeker).is_none_or(|end| end <= draft.now + boot)
}

/// When the first host of its kind is expected to be free. However many run: they may all have begun together.
fn first_end(draft: &Draft<'_>, able: &[usize], seeker: &Seeker<'_>) -> Option<Millis> {
    let ends = able.iter().filter_map(|at| {
        hold::ends(draft, *at).into_iter().find(|(_, who)| *who == seeker.who).map(|(end, _)| end)
    });
    ends.min()
}

fn start<'w>(draft: &mut Draft<'w>, at: usize, seeker: &Seeker<'w>, entry: &'w Entry, grows: bool) -> Placed {
    let warm = waits(&draft.desks[at], seeker) || !grows;
    if !ram::allows(draft, seeker.item, !warm) {
        draft.ram.refused = true;
        return Placed::Covered;
    }
    let expected = expected(draft, at, seeker);
    let now = draft.now;
    draft.add_load(at);
    let desk = &mut draft.desks[at];
    desk.spend(seeker);
    let line = desk.room.line_mut(seeker.who, seeker.need.counted);
    line.takes(seeker.need.counted);
    let more = line.grow(grows && seeker.key.warm);
    desk.starts.push((now + expected, seeker.who));
    desk.work = desk.work.map(|sum| sum + expected);
    if more {
        draft.order_hosts(at);
    }
    let worker = &draft.desks[at].worker.id;
    draft.start(entry, worker, &seeker.item.task);
    Placed::Yes
}

/// How long it should run there.
pub(super) fn expected(draft: &Draft<'_>, at: usize, seeker: &Seeker<'_>) -> Millis {
    let name = draft.desks[at].gpu.facts.name.as_str();
    draft.world.memory.run(&draft.world.config, &seeker.item.task, None, Some(name)).p50.max(Millis(1))
}

/// Keeps room that is on its way: nobody behind it gets that.
fn promise<'w>(draft: &mut Draft<'w>, at: usize, seeker: &Seeker<'w>) {
    let desk = &mut draft.desks[at];
    desk.spend(seeker);
    let line = desk.room.line_mut(seeker.who, seeker.need.counted);
    line.takes(seeker.need.counted);
    if seeker.key.warm && line.idle() > 0 {
        line.units += 1;
    } else {
        line.promised += 1;
    }
}

/// Idle hosts leave, the largest first, until it fits when they have gone. Its own host is loaded as soon as they have.
/// False where nothing is left to be told to leave: what should have gone does not go.
fn clear<'w>(draft: &mut Draft<'w>, at: usize, seeker: &Seeker<'w>) -> bool {
    let mut room = draft.desks[at].room.clone();
    let before = room.leftover(When::Soon, seeker.who, seeker.need);
    while room.leftover(When::Soon, seeker.who, seeker.need).is_none() {
        // One idle host of its own is where it goes; an LLM that idles beside them goes by the rule of eviction alone.
        let spare = |line: &&mut Line<'_>| {
            matches!(line.who, Holder::Host(..)) && line.idle() > u32::from(line.who == seeker.who)
        };
        let Some(line) = room.lines.iter_mut().filter(spare).max_by_key(|line| line.each) else {
            return false;
        };
        line.kept -= 1;
        line.leaving += 1;
    }
    if before.is_some() {
        return false;
    }
    let line = room.line_mut(seeker.who, seeker.need.counted);
    if seeker.key.warm && line.idle() == 0 {
        line.kept += 1;
    }
    draft.desks[at].room = room;
    draft.order_hosts(at);
    true
}

/// Whether this desk runs the same warm hosts and nothing else, and has so little to do that the next order may lie
/// there already.
fn ahead_fits(draft: &Draft<'_>, desk: &Desk<'_>, seeker: &Seeker<'_>) -> bool {
    let Some(line) = desk.room.line(seeker.who).filter(|line| line.kept > 0 && line.units > 0) else {
        return false;
    };
    let alone = seeker.key.warm && desk.load == line.units as usize && desk.llm.is_none();
    let Some(work) = desk.work.filter(|_| alone && desk.hold.is_none() && desk.is_open(draft)) else {
        return false;
    };
    let expected = is_short(draft, seeker.item, Some(&desk.gpu.facts.name));
    expected.is_some_and(|expected| (work + expected).0 / i64::from(line.kept) <= AHEAD.0)
}

/// The expected run time of a task, if that was learned and is short.
pub(super) fn is_short(draft: &Draft<'_>, item: &Queued, gpu: Option<&str>) -> Option<Millis> {
    let world = draft.world;
    let name = crate::learn::run_name(&world.config, &item.task, None);
    world.memory.run_by_name(&name)?;
    let expected = world.memory.run(&world.config, &item.task, None, gpu).p50.max(Millis(1));
    (expected <= AHEAD).then_some(expected)
}
