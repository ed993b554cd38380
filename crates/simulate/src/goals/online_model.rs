//! Requests and scripts on a few GPUs as a small model: when an LLM makes room and when it is loaded again.
//!
//! Each GPU holds an LLM (one request at a time) or runs scripts (one at a time). Here are the simple rules, the best of
//! which differs from scenario to scenario, and one that knows the future. Not here: our policy, which runs in the
//! simulator (`online`).

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

use super::batch_model::{HOST_LOAD_S, LLM_LOAD_S, UNLOAD_S};

/// How far the one that knows the future looks ahead, in seconds.
const AHEAD_S: f64 = 3_600.0;
/// What a script is taken to run before one has, and a request.
const SCRIPT_S: f64 = 45.0;
const REQUEST_S: f64 = 10.0;
/// Over how long requests are counted to know how often they come.
const RATE_OVER_S: f64 = 900.0;

/// Something to do: when it comes and how long it runs, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// When it comes.
    pub at: f64,
    /// How long it runs.
    pub run: f64,
}

/// Who makes room when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OnlinePolicy {
    /// Nobody ever: so many GPUs are for scripts.
    Never {
        /// How many.
        scripts: usize,
    },
    /// An idle LLM as soon as a script waits.
    Always,
    /// By the seed's three thresholds.
    Seed,
    /// When the scripts have waited as long, all together, as a load takes.
    SkiRental {
        /// How many LLMs stay.
        keep: usize,
    },
    /// When what the scripts gain outweighs what the requests lose.
    Gain {
        /// How many LLMs stay.
        keep: usize,
    },
    /// Tries each move against the true next hour and takes the best.
    Foresight {
        /// What a request's second counts against a script's.
        weight: f64,
    },
}

/// Waits of one run, in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Waited {
    /// Of requests.
    pub requests: Vec<f64>,
    /// Of scripts.
    pub scripts: Vec<f64>,
}

impl Waited {
    /// All together, a request's second counting `weight` times.
    #[must_use]
    pub fn total(&self, weight: f64) -> f64 {
        weight.mul_add(self.requests.iter().sum::<f64>(), self.scripts.iter().sum())
    }
}

/// What a GPU holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Llm,
    LlmSoon,
    Scripts,
    ScriptsSoon,
}

#[derive(Clone, Copy, Debug)]
struct Gpu {
    holds: Holds,
    busy: bool,
    /// The next script has to load its host.
    cold: bool,
    idle_since: f64,
}

#[derive(Clone, Copy, Debug)]
enum Happens {
    Request(f64),
    Script(f64),
    Ends(usize),
    Ready(usize, Holds),
    Ticks,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    at: f64,
    order: u64,
    what: Happens,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    /// The earliest is the greatest, as a heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.total_cmp(&self.at).then(other.order.cmp(&self.order))
    }
}

/// A run under way.
#[derive(Clone, Debug)]
struct Run {
    policy: OnlinePolicy,
    gpus: Vec<Gpu>,
    requests: VecDeque<Work>,
    scripts: VecDeque<Work>,
    due: BinaryHeap<Due>,
    count: u64,
    last: f64,
    /// Seconds that scripts have waited without a place since the last eviction; the same of requests.
    script_rent: f64,
    request_rent: f64,
    seen: VecDeque<f64>,
    script_s: f64,
    request_s: f64,
    waited: Waited,
}

/// Runs a policy. Every GPU holds an LLM at first.
#[must_use]
pub fn run(policy: OnlinePolicy, gpus: usize, requests: &[Work], scripts: &[Work]) -> Waited {
    let mut run = Run::new(policy, gpus);
    for work in requests {
        run.note(work.at, Happens::Request(work.run));
    }
    for work in scripts {
        run.note(work.at, Happens::Script(work.run));
    }
    run.go(f64::INFINITY);
    run.waited
}

/// What no policy can beat: each class alone on all GPUs, with its engines loaded. Loose, as the two share the GPUs.
#[must_use]
pub fn bound(gpus: usize, requests: &[Work], scripts: &[Work]) -> Waited {
    let alone = |works: &[Work]| {
        let mut free = vec![0.0_f64; gpus];
        let mut waits = Vec::with_capacity(works.len());
        for work in works {
            let Some(first) = free.iter_mut().min_by(|a, b| a.total_cmp(b)) else { continue };
            let begins = first.max(work.at);
            waits.push(begins - work.at);
            *first = begins + work.run;
        }
        waits
    };
    Waited { requests: alone(requests), scripts: alone(scripts) }
}

impl Run {
    fn new(policy: OnlinePolicy, gpus: usize) -> Self {
        let scripts = match policy {
            OnlinePolicy::Never { scripts } => scripts,
            _ => 0,
        };
        let gpu = |at: usize| {
            let holds = if at < scripts { Holds::Scripts } else { Holds::Llm };
            Gpu { holds, busy: false, cold: true, idle_since: 0.0 }
        };
        Self {
            policy,
            gpus: (0..gpus).map(gpu).collect(),
            requests: VecDeque::new(),
            scripts: VecDeque::new(),
            due: BinaryHeap::new(),
            count: 0,
            last: 0.0,
            script_rent: 0.0,
            request_rent: 0.0,
            seen: VecDeque::new(),
            script_s: SCRIPT_S,
            request_s: REQUEST_S,
            waited: Waited::default(),
        }
    }

    fn note(&mut self, at: f64, what: Happens) {
        self.count += 1;
        self.due.push(Due { at, order: self.count, what });
    }

    /// Runs what is due until then.
    fn go(&mut self, until: f64) {
        while self.due.peek().is_some_and(|due| due.at <= until) {
            let Some(due) = self.due.pop() else { return };
            self.happen(due);
        }
    }

    fn happen(&mut self, due: Due) {
        let spent = due.at - self.last;
        self.script_rent = if self.scripts.is_empty() {
            0.0
        } else {
            spent.mul_add(count(self.scripts.len()), self.script_rent)
        };
        self.request_rent = if self.requests.is_empty() {
            0.0
        } else {
            spent.mul_add(count(self.requests.len()), self.request_rent)
        };
        self.last = due.at;
        match due.what {
            Happens::Request(run) => {
                self.requests.push_back(Work { at: due.at, run });
                self.seen.push_back(due.at);
            }
            Happens::Script(run) => self.scripts.push_back(Work { at: due.at, run }),
            Happens::Ends(gpu) => {
                self.gpus[gpu].busy = false;
                self.gpus[gpu].idle_since = due.at;
            }
            Happens::Ready(gpu, holds) => {
                self.gpus[gpu] = Gpu { holds, busy: false, cold: true, idle_since: due.at };
            }
            Happens::Ticks => {}
        }
        self.dispatch(due.at);
    }

    fn idle(&self, holds: Holds) -> Vec<usize> {
        let idle = self.gpus.iter().enumerate().filter(|(_, gpu)| gpu.holds == holds && !gpu.busy);
        idle.map(|(at, _)| at).collect()
    }

    fn first_idle(&self, holds: Holds) -> Option<usize> {
        self.gpus.iter().position(|gpu| gpu.holds == holds && !gpu.busy)
    }

    fn holding(&self, either: Holds, or: Holds) -> usize {
        self.gpus.iter().filter(|gpu| gpu.holds == either || gpu.holds == or).count()
    }

    fn dispatch(&mut self, now: f64) {
        while !self.requests.is_empty()
            && let Some(gpu) = self.first_idle(Holds::Llm)
            && let Some(work) = self.requests.pop_front()
        {
            self.waited.requests.push(now - work.at);
            self.gpus[gpu].busy = true;
            self.note(now + work.run, Happens::Ends(gpu));
            self.request_s += 0.1 * (work.run - self.request_s);
        }
        while !self.scripts.is_empty()
            && let Some(gpu) = self.first_idle(Holds::Scripts)
            && let Some(work) = self.scripts.pop_front()
        {
            let load = if self.gpus[gpu].cold { HOST_LOAD_S } else { 0.0 };
            self.waited.scripts.push(now - work.at + load);
            self.gpus[gpu].busy = true;
            self.gpus[gpu].cold = false;
            self.note(now + load + work.run, Happens::Ends(gpu));
            self.script_s += 0.1 * (work.run - self.script_s);
        }
        match self.policy {
            OnlinePolicy::Never { .. } => {}
            OnlinePolicy::Always => self.always(now),
            OnlinePolicy::Seed => self.seed(now),
            OnlinePolicy::SkiRental { keep } => self.weigh(now, keep, false),
            OnlinePolicy::Gain { keep } => self.weigh(now, keep, true),
            OnlinePolicy::Foresight { weight } => self.foresee(now, weight),
        }
    }

    fn evict(&mut self, now: f64, gpu: usize) {
        self.gpus[gpu].holds = Holds::ScriptsSoon;
        self.gpus[gpu].busy = true;
        self.script_rent = 0.0;
        self.note(now + UNLOAD_S, Happens::Ready(gpu, Holds::Scripts));
    }

    fn load(&mut self, now: f64, gpu: usize) {
        self.gpus[gpu].holds = Holds::LlmSoon;
        self.gpus[gpu].busy = true;
        self.request_rent = 0.0;
        self.note(now + LLM_LOAD_S, Happens::Ready(gpu, Holds::Llm));
    }

    fn always(&mut self, now: f64) {
        let coming = |run: &Self, holds| run.gpus.iter().filter(|gpu| gpu.holds == holds).count();
        if self.scripts.is_empty() {
            for gpu in self.idle(Holds::Scripts) {
                if self.requests.len() > coming(self, Holds::LlmSoon) {
                    self.load(now, gpu);
                }
            }
        }
        let free = self.idle(Holds::Scripts).len();
        for gpu in self.idle(Holds::Llm) {
            if self.scripts.len() > coming(self, Holds::ScriptsSoon) + free {
                self.evict(now, gpu);
            }
        }
        if !self.requests.is_empty()
            && self.holding(Holds::Llm, Holds::LlmSoon) == 0
            && let Some(gpu) = self.first_idle(Holds::Scripts)
        {
            self.load(now, gpu);
        }
    }

    fn seed(&mut self, now: f64) {
        let (scripts, requests) = (self.scripts.len(), self.requests.len());
        let idle = self.idle(Holds::Llm);
        let many = !idle.is_empty() && scripts > 5;
        let huge = scripts > 20 && requests == 0;
        let long = !idle.is_empty() && count(scripts) * SCRIPT_S / count(idle.len()) > LLM_LOAD_S;
        if (many || huge || long)
            && let Some(gpu) = idle.first()
            && self.first_idle(Holds::Scripts).is_none()
        {
            self.evict(now, *gpu);
        }
        let coming = self.gpus.iter().filter(|gpu| gpu.holds == Holds::LlmSoon).count();
        for gpu in self.idle(Holds::Scripts).into_iter().take(requests.saturating_sub(coming)) {
            self.load(now, gpu);
        }
    }

    /// Ski rental, or gain against loss: both evict the last idle LLM, and load one back by the same rule.
    fn weigh(&mut self, now: f64, keep: usize, gain: bool) {
        let idle = self.idle(Holds::Llm);
        let llms = self.holding(Holds::Llm, Holds::LlmSoon);
        let rate = self.rate(now);
        if !self.scripts.is_empty()
            && self.first_idle(Holds::Scripts).is_none()
            && let Some(victim) = idle.last()
        {
            if gain {
                let (gains, loses, left) = self.gain_and_loss(rate);
                if left >= keep && gains > loses {
                    self.evict(now, *victim);
                }
            } else if llms > keep && self.script_rent >= LLM_LOAD_S {
                self.evict(now, *victim);
            } else if self.script_rent < LLM_LOAD_S {
                let rest = (LLM_LOAD_S - self.script_rent) / count(self.scripts.len());
                self.note(now + rest.max(0.5), Happens::Ticks);
            }
        }
        self.load_back(now, rate, gain);
    }

    /// What the scripts gain and the requests lose by one eviction, and how many LLMs would be ready after it.
    fn gain_and_loss(&self, rate: f64) -> (f64, f64, usize) {
        let scripts = count(self.scripts.len());
        let work = scripts * self.script_s;
        let places = count(self.holding(Holds::Scripts, Holds::ScriptsSoon));
        let ready = self.gpus.iter().filter(|gpu| gpu.holds == Holds::Llm).count();
        let gains = if places > 0.0 {
            scripts * (work / places / 2.0 - (work / (places + 1.0) / 2.0 + UNLOAD_S + HOST_LOAD_S))
        } else {
            scripts * (LLM_LOAD_S + work / 2.0)
        };
        let away = work / (places + 1.0) + LLM_LOAD_S + UNLOAD_S;
        let left = ready.saturating_sub(1);
        let load = rate * self.request_s;
        let loses = if left == 0 {
            rate * away * (LLM_LOAD_S + away / 2.0)
        } else {
            rate * away * queues(left, load) * self.request_s / (count(left) - load).max(0.05)
        };
        (gains, loses, left)
    }

    fn load_back(&mut self, now: f64, rate: f64, gain: bool) {
        let loading = self.gpus.iter().filter(|gpu| gpu.holds == Holds::LlmSoon).count();
        let llms = self.holding(Holds::Llm, Holds::LlmSoon);
        let waiting = count(self.requests.len());
        if waiting > 0.0
            && (loading == 0 || waiting * self.request_s / count(llms.max(1)) > LLM_LOAD_S)
            && (self.scripts.is_empty() || self.request_rent >= LLM_LOAD_S || llms == 0)
            && let Some(gpu) = self.first_idle(Holds::Scripts)
        {
            self.load(now, gpu);
        }
        // Nothing to do for scripts: the LLM comes back while there are fewer than should be.
        let wanted =
            if gain { (rate * self.request_s / 0.5).ceil().max(1.0) } else { count(self.gpus.len()) };
        let after = if gain { 20.0 } else { 60.0 };
        for gpu in self.idle(Holds::Scripts) {
            if self.scripts.is_empty()
                && count(self.holding(Holds::Llm, Holds::LlmSoon)) < wanted.min(count(self.gpus.len()))
            {
                let due = self.gpus[gpu].idle_since + after;
                if now >= due {
                    self.load(now, gpu);
                } else {
                    self.note(due + 0.01, Happens::Ticks);
                }
            }
        }
    }

    /// Requests a second, lately.
    fn rate(&mut self, now: f64) -> f64 {
        while self.seen.front().is_some_and(|at| *at < now - RATE_OVER_S) {
            self.seen.pop_front();
        }
        (count(self.seen.len()) + 0.5) / RATE_OVER_S
    }

    /// Each move is tried with the true next hour, under three rules for what comes after it.
    fn foresee(&mut self, now: f64, weight: f64) {
        let evict = self.idle(Holds::Llm).last().copied().filter(|_| !self.scripts.is_empty());
        let load =
            self.first_idle(Holds::Scripts).filter(|_| self.scripts.is_empty() || !self.requests.is_empty());
        if evict.is_none() && load.is_none() {
            return;
        }
        let moves = [None, evict.map(|gpu| (gpu, true)), load.map(|gpu| (gpu, false))];
        let mut best: Option<(f64, Option<(usize, bool)>)> = None;
        for (at, choice) in moves.into_iter().enumerate() {
            if at > 0 && choice.is_none() {
                continue;
            }
            let after = [
                OnlinePolicy::Gain { keep: 1 },
                OnlinePolicy::Gain { keep: 0 },
                OnlinePolicy::Never { scripts: 0 },
            ];
            for rule in after {
                let cost = self.cost_of(now, choice, rule, weight);
                if best.is_none_or(|(least, _)| cost < least - 1e-6) {
                    best = Some((cost, choice));
                }
            }
        }
        if let Some((_, Some((gpu, evicts)))) = best {
            if evicts {
                self.evict(now, gpu);
            } else {
                self.load(now, gpu);
            }
            self.foresee(now, weight);
        }
    }

    fn cost_of(&self, now: f64, choice: Option<(usize, bool)>, rule: OnlinePolicy, weight: f64) -> f64 {
        let end = now + AHEAD_S;
        let mut tried = self.clone();
        tried.policy = rule;
        tried.waited = Waited::default();
        tried.due = self.due.iter().copied().filter(|due| due.at <= end).collect();
        match choice {
            Some((gpu, true)) => tried.evict(now, gpu),
            Some((gpu, false)) => tried.load(now, gpu),
            None => {}
        }
        if choice.is_some() {
            tried.dispatch(now);
        }
        tried.go(end);
        let left = |works: &VecDeque<Work>| works.iter().map(|work| end - work.at).sum::<f64>();
        tried.waited.total(weight) + weight.mul_add(left(&tried.requests), left(&tried.scripts))
    }
}

/// How likely a request has to wait (Erlang C).
fn queues(servers: usize, load: f64) -> f64 {
    let n = count(servers);
    if load >= n {
        return 1.0;
    }
    let (mut term, mut sum) = (1.0, 1.0);
    for at in 1..servers {
        term *= load / count(at);
        sum += term;
    }
    term *= load / n;
    let all_busy = term * n / (n - load);
    all_busy / (sum + all_busy)
}

#[expect(clippy::cast_precision_loss, reason = "queues of some thousands")]
fn count(n: usize) -> f64 {
    n as f64
}
