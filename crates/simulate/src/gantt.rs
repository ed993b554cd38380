//! A run as a picture: a lane for each GPU, what ran there when, and what was loaded under it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use model::Millis;

use crate::outcome::{Outcome, Span, SpanKind};
use crate::scenario::Scenario;

const WIDTH: f64 = 1_200.0;
const LEFT: f64 = 128.0;
const RIGHT: f64 = 24.0;
const HEAD: f64 = 76.0;
const PANEL_HEAD: f64 = 26.0;
const ROW: f64 = 16.0;
const GAP: f64 = 12.0;
const AXIS: f64 = 30.0;
/// A span is at least this wide, so that short ones are seen.
const WIDTH_MIN: f64 = 0.7;
/// Labels stand in spans that are at least this wide.
const LABEL_MIN: f64 = 46.0;

/// One kind in the legend: its name, its colour, and whether it is hatched.
const fn look(kind: SpanKind) -> (&'static str, &'static str, bool) {
    match kind {
        SpanKind::LlmReady => ("LLM loaded", "#dbe7f6", false),
        SpanKind::LlmLoads => ("LLM loads", "#4a7ebb", true),
        SpanKind::LlmGoes => ("LLM unloads", "#8a8f98", true),
        SpanKind::Chat => ("chatbot", "#e8590c", false),
        SpanKind::Request => ("LLM task", "#2f6fbf", false),
        SpanKind::HostLoads => ("script loads", "#2b8a3e", true),
        SpanKind::Script => ("script", "#51a866", false),
        SpanKind::Lost => ("GPU lost", "#c92a2a", false),
    }
}

const KINDS: [SpanKind; 8] = [
    SpanKind::Chat,
    SpanKind::Request,
    SpanKind::Script,
    SpanKind::LlmReady,
    SpanKind::LlmLoads,
    SpanKind::LlmGoes,
    SpanKind::HostLoads,
    SpanKind::Lost,
];

/// The picture of some runs of one scenario, one panel each, all on the same axis of time.
#[must_use]
pub fn svg(scenario: &Scenario, outcomes: &[Outcome]) -> String {
    let end = outcomes.iter().flat_map(|outcome| &outcome.spans).map(|span| span.to).max();
    let end = end.unwrap_or(Millis(1_000)).max(Millis(1_000));
    let scale = (WIDTH - LEFT - RIGHT) / end.as_secs_f64();
    let mut body = String::new();
    let mut y = HEAD;
    for outcome in outcomes {
        y = panel(&mut body, scenario, outcome, y, scale);
        y = axis(&mut body, end, y, scale);
    }
    let title = escape(&format!("SIMULATED {} (seed {})", scenario.name, scenario.seed));
    let mut text = String::new();
    let _ = write!(
        text,
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y:.0}" viewBox="0 0 {WIDTH} {y:.0}" font-family="Helvetica, Arial, sans-serif" font-size="11">
<title>{title}</title>
<defs>{}</defs>
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="16" y="24" font-size="16" font-weight="bold" fill="#1b1f24">{title}</text>
<text x="16" y="42" fill="#57606a">{}</text>
{}{body}</svg>
"##,
        hatches(),
        escape(&scenario.about),
        legend(),
    );
    text
}

fn hatches() -> String {
    let hatched = KINDS.iter().filter(|kind| look(**kind).2);
    let pattern = |kind: &SpanKind| {
        let colour = look(*kind).1;
        format!(
            r##"<pattern id="{}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="6" height="6" fill="#ffffff"/><rect width="3" height="6" fill="{colour}"/></pattern>"##,
            id(*kind)
        )
    };
    hatched.map(pattern).collect()
}

fn id(kind: SpanKind) -> String {
    format!("hatch-{}", look(kind).0.replace(' ', "-"))
}

fn fill(kind: SpanKind) -> String {
    if look(kind).2 { format!("url(#{})", id(kind)) } else { look(kind).1.to_owned() }
}

fn legend() -> String {
    let mut text = String::new();
    let mut x = 16.0;
    for kind in KINDS {
        let (name, colour, _) = look(kind);
        let _ = write!(
            text,
            r##"<rect x="{x:.0}" y="52" width="14" height="12" fill="{}" stroke="{colour}" stroke-width="0.6"/><text x="{:.0}" y="62" fill="#1b1f24">{name}</text>"##,
            fill(kind),
            x + 19.0
        );
        #[expect(clippy::cast_precision_loss, reason = "names are short")]
        let width = name.len() as f64 * 6.2;
        x += 19.0 + width + 22.0;
    }
    text.push('\n');
    text
}

/// One policy's lanes; where the next thing goes.
fn panel(body: &mut String, scenario: &Scenario, outcome: &Outcome, top: f64, scale: f64) -> f64 {
    let llm = outcome.waits(|story| story.class == model::TaskClass::Llm);
    let script = outcome.waits(|story| story.class == model::TaskClass::Script);
    let _ = writeln!(
        body,
        r##"<text x="16" y="{:.0}" font-size="13" font-weight="bold" fill="#1b1f24">{}</text><text x="{LEFT}" y="{:.0}" fill="#57606a">LLM waits {:.1} s mean, {:.1} s p99 · scripts wait {:.1} s mean, {:.1} s p99 · {} loads</text>"##,
        top + 17.0,
        outcome.mind.name(),
        top + 17.0,
        llm.mean,
        llm.p99,
        script.mean,
        script.p99,
        outcome.loads,
    );
    let mut y = top + PANEL_HEAD;
    for (gpu, spans) in lanes(scenario, outcome) {
        let rows = spans.iter().map(|span| span.lane).max().unwrap_or(0) + 1;
        let height = f64::from(rows) * ROW;
        let name = match gpu {
            Some(number) => {
                let mib = scenario.gpus.get(number).map_or(0, |spec| spec.mib);
                format!("GPU {number} · {mib} MiB")
            }
            None => "CPU".into(),
        };
        let _ = writeln!(
            body,
            r##"<text x="16" y="{:.1}" fill="#1b1f24">{name}</text><rect x="{LEFT}" y="{y:.1}" width="{:.1}" height="{height:.1}" fill="#f6f8fa"/>"##,
            y + height / 2.0 + 4.0,
            WIDTH - LEFT - RIGHT,
        );
        for span in &spans {
            draw(body, span, y, height, scale);
        }
        y += height + GAP;
    }
    y
}

/// Spans by GPU, what is loaded before what runs on it; the CPU lane only where something ran there.
fn lanes<'o>(scenario: &Scenario, outcome: &'o Outcome) -> BTreeMap<Option<usize>, Vec<&'o Span>> {
    let mut lanes: BTreeMap<Option<usize>, Vec<&Span>> = BTreeMap::new();
    for number in 0..scenario.gpus.len() {
        lanes.insert(Some(number), Vec::new());
    }
    for span in &outcome.spans {
        lanes.entry(span.gpu).or_default().push(span);
    }
    for spans in lanes.values_mut() {
        spans.sort_by_key(|span| (!is_ground(span.kind), span.from));
    }
    lanes
}

const fn is_ground(kind: SpanKind) -> bool {
    matches!(kind, SpanKind::LlmReady | SpanKind::LlmLoads | SpanKind::LlmGoes | SpanKind::Lost)
}

fn draw(body: &mut String, span: &Span, top: f64, height: f64, scale: f64) {
    let x = LEFT + span.from.as_secs_f64() * scale;
    let width = ((span.to - span.from).as_secs_f64() * scale).max(WIDTH_MIN);
    let (y, height) = if is_ground(span.kind) {
        (top, height)
    } else {
        (top + f64::from(span.lane) * ROW + 1.5, ROW - 3.0)
    };
    let label = escape(&span.label);
    // A white edge tells neighbours apart where there is room for one.
    let edge =
        if !is_ground(span.kind) && width > 4.0 { " stroke=\"white\" stroke-width=\"0.8\"" } else { "" };
    let took = (span.to - span.from).as_secs_f64();
    let _ = write!(
        body,
        r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{}"{edge}><title>{}: {label}, {took:.1} s</title></rect>"#,
        fill(span.kind),
        look(span.kind).0,
    );
    if width >= LABEL_MIN && !is_ground(span.kind) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a picture is not that wide"
        )]
        let room = (width / 6.4) as usize;
        let short: String = span.label.chars().take(room).collect();
        let _ = write!(
            body,
            r##"<text x="{:.1}" y="{:.1}" font-size="10" fill="#ffffff">{}</text>"##,
            x + 3.0,
            y + height - 3.0,
            escape(&short)
        );
    }
    body.push('\n');
}

/// The axis of time below a panel; where the next thing goes.
fn axis(body: &mut String, end: Millis, y: f64, scale: f64) -> f64 {
    let step = step(end.as_secs_f64());
    let mut at = 0.0;
    while at <= end.as_secs_f64() {
        let x = LEFT + at * scale;
        let _ = write!(
            body,
            r##"<line x1="{x:.1}" y1="{:.1}" x2="{x:.1}" y2="{:.1}" stroke="#8c959f" stroke-width="0.7"/><text x="{x:.1}" y="{:.1}" text-anchor="middle" fill="#57606a">{}</text>"##,
            y - GAP + 2.0,
            y - GAP + 7.0,
            y - GAP + 19.0,
            clock(at, step)
        );
        at += step;
    }
    body.push('\n');
    y + AXIS
}

/// Seconds between two ticks, so that about ten stand on the axis.
fn step(end: f64) -> f64 {
    const STEPS: [f64; 14] =
        [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 43_200.0];
    STEPS.into_iter().find(|step| end / step <= 12.0).unwrap_or(86_400.0)
}

fn clock(seconds: f64, step: f64) -> String {
    if step >= 3_600.0 {
        format!("{:.0} h", seconds / 3_600.0)
    } else if step >= 60.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{seconds:.0} s")
    }
}

/// As text of XML, in which no control characters may be.
fn escape(text: &str) -> String {
    let text = text.replace(char::is_control, " ");
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
