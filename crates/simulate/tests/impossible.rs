//! Scenarios that cannot be are refused before they run, by place, field, value and what is allowed.

use serde_json::{Value, json};
use simulate::outcome::NUMBERS;
use simulate::{Mind, Scenario, Sim, gantt, storm};

/// Why a scenario is refused.
fn refused(document: &Value) -> String {
    let text = document.to_string();
    let refused = Scenario::parse(text.as_bytes(), "lab.json").and_then(|scenario| scenario.check_machine());
    refused.map(|()| panic!("{text} is taken for a scenario")).unwrap_err().to_string()
}

fn with_stream(field: &str, value: &Value) -> Value {
    json!({ "people": [{ "name": "ask", field: value }] })
}

/// Looks whether a scenario of one stream with this field names stream, field, value and range.
fn is_out_of_range(field: &str, value: &Value, told: &str) {
    let said = refused(&with_stream(field, value));
    assert_eq!(said, format!("stream `ask` of scenario `lab`: {told}"));
}

#[test]
fn a_number_of_a_stream_out_of_its_range_is_named_with_what_it_may_be() {
    let year = 31_536_000;
    is_out_of_range("priority", &json!(9), "`priority` is 9, and may be 1 to 5");
    is_out_of_range("from_s", &json!(4_000), "`from_s` is 4000, and may be 0 to 3600");
    is_out_of_range("to_s", &json!(-1), &format!("`to_s` is -1, and may be 0 to {year}"));
    is_out_of_range("hours", &json!([30, -2]), "`hours[0]` is 30, and may be 0 to 24");
    is_out_of_range("hours", &json!([20, 6]), "`hours[1]` is 6, and may be more than 20, up to 24");
    is_out_of_range(
        "timeout_s",
        &json!(-1),
        &format!("`timeout_s` is -1, and may be more than 0, up to {year}"),
    );
    is_out_of_range("media_speed", &json!(0), "`media_speed` is 0, and may be more than 0, up to 1000000");
    is_out_of_range("max_attempts", &json!(0), "`max_attempts` is 0, and may be 1 to 100");
    is_out_of_range("gpus", &json!(0), "`gpus` is 0, and may be 1 to 64");
    let run = json!({ "kind": "constant", "mean": -10 });
    is_out_of_range("run", &run, &format!("`run.mean` is -10, and may be 0 to {year}"));
    let run = json!({ "kind": "pareto", "mean": 10, "shape": 1 });
    is_out_of_range("run", &run, "`run.shape` is 1, and may be more than 1, up to 1000");
    let arrive = json!({ "kind": "poisson", "per_hour": -5 });
    is_out_of_range("arrive", &arrive, "`arrive.per_hour` is -5, and may be 0 to 1000000");
    let arrive = json!({ "kind": "at", "times_s": [0, 1e7] });
    is_out_of_range("arrive", &arrive, "`arrive.times_s[1]` is 10000000, and may be 0 to 3600");
    let both = json!({ "people": [{ "name": "ask", "from_s": 500, "to_s": 100 }] });
    assert!(refused(&both).contains("`to_s` is 100, and may be 500 to"), "{}", refused(&both));
}

#[test]
fn a_number_of_the_machine_out_of_its_range_is_named_with_what_it_may_be() {
    for (document, told) in [
        (json!({ "duration_s": -5 }), "`duration_s` is -5, and may be more than 0, up to 31536000"),
        (
            json!({ "gpus": [{ "speed": 0 }] }),
            "GPU 0 of scenario `lab`: `speed` is 0, and may be 0.001 to 1000",
        ),
        (json!({ "gpus": [{}, { "speed": -1 }] }), "GPU 1 of scenario `lab`: `speed` is -1, and may be"),
        (json!({ "gpus": [{ "capability": "banana" }] }), "`capability` is `banana`, and may be a CUDA"),
        (
            json!({ "gpus": [] }),
            "the machine of scenario `lab`: `gpus` is a list of 0, and may be one of 1 to 256",
        ),
        (json!({ "faults": { "crash": 5 } }), "`faults` of scenario `lab`: `crash` is 5, and may be 0 to 1"),
        (json!({ "faults": { "stall": { "kind": "constant", "mean": -1 } } }), "`stall.mean` is -1"),
        (
            json!({ "engines": { "boot": { "a": { "kind": "constant", "mean": -1 } } } }),
            "`boot.a.mean` is -1",
        ),
    ] {
        let said = refused(&document);
        assert!(said.contains(told), "{document}: {said}");
    }
}

#[test]
fn more_than_can_be_simulated_is_counted_before_it_is_drawn() {
    let script = json!({ "kind": "script", "script": "whisper" });
    let people = |arrive: Value| json!({ "people": [{ "name": "few" }, { "name": "many", "work": script, "arrive": arrive }] });
    let rate = |per_hour: f64| people(json!({ "kind": "poisson", "per_hour": per_hour }));
    assert!(refused(&rate(1e15)).contains("`arrive.per_hour` is 1000000000000000, and may be 0 to 1000000"));
    assert_eq!(
        refused(&rate(200_000.0)),
        "stream `many` of scenario `lab`: its `arrive` makes about 200000 tasks, 200001 with those of other streams, \
         and at most 100000 are simulated"
    );
    let items = |items: u32, times: &[u32]| {
        people(json!({ "kind": "batch", "items": items, "times_s": times, "mode": "auto" }))
    };
    assert!(
        refused(&items(4_000_000_000, &[0])).contains("`arrive.items` is 4000000000, and may be 1 to 100000")
    );
    assert!(refused(&items(60_000, &[0, 1])).contains("makes about 120000 tasks"));
    assert!(
        refused(&json!({ "faults": { "worker_dies": 1e12 } })).contains("`worker_dies` is 1000000000000")
    );
    let faults = refused(&json!({ "duration_s": 86_400, "faults": { "cancels": 5_000 } }));
    assert!(faults.contains("about 120000 would come within `duration_s`"), "{faults}");
    assert!(faults.contains("at most 100000 are simulated"), "{faults}");
}

#[test]
fn what_no_gpu_here_can_run_is_refused_with_the_reason_of_the_mind() {
    let stream = |fields: Value| {
        let mut stream = json!({ "name": "wide", "work": { "kind": "script", "script": "embed" } });
        for (key, value) in fields.as_object().unwrap() {
            stream[key] = value.clone();
        }
        refused(&json!({ "gpus": [{ "mib": 8192 }], "people": [stream] }))
    };
    let prefix = "stream `wide` of scenario `lab`: it cannot run on this machine: ";
    for (said, told) in [
        (stream(json!({ "gpus": 5 })), "it needs 5 GPUs at once"),
        (stream(json!({ "vram_mib": 20_000 })), "it needs 20000 MiB, the largest has 8192 MiB"),
        (stream(json!({ "work": { "kind": "llm", "model": "qwen2.5:14b" } })), "the largest has 8192 MiB"),
    ] {
        assert!(said.starts_with(prefix) && said.contains(told), "{said}");
    }
    let none =
        refused(&json!({ "gpus": [{ "mib": 2_048 }, { "mib": 2_048 }], "people": [{ "name": "ask" }] }));
    assert!(none.contains("it cannot run on this machine: no engine can serve it"), "{none}");
}

#[test]
fn what_is_no_scenario_at_all_is_refused() {
    for (document, told) in [
        (json!([]), "`lab.json` is not a scenario: it is a list, and must be an object"),
        (json!({ "faults": [] }), "`faults` is a list, and must be an object"),
        (json!({ "gpus": [[]] }), "`gpus[0]` is a list, and must be an object"),
        (json!({ "config": [] }), "`config` is a list, and must be an object"),
        (
            json!({ "people": [{ "name": "a" }, { "name": "a" }] }),
            "stream `a` of scenario `lab`: another stream has",
        ),
        (json!({ "people": [{ "name": "a".repeat(128) }] }), "its name cannot be part of an id"),
        (
            json!({ "expected": { "nonsense": [1, 2] } }),
            "no number has that name; use one of tasks, complete",
        ),
        (
            json!({ "expected": { "complete": [6, 5] } }),
            "`expected.complete` of scenario `lab`: it is 6 to 5",
        ),
    ] {
        let said = refused(&document);
        assert!(said.contains(told), "{document}: {said}");
    }
}

#[test]
fn days_of_mixed_faults_are_scenarios_that_can_be() {
    for seed in (1..=60).chain([u64::MAX]) {
        let scenario = storm::mix(seed);
        scenario.check().and_then(|()| scenario.check_machine()).unwrap();
    }
}

#[test]
fn odd_settings_are_told() {
    let scenario = Scenario::parse(br#"{"config": {"nonsense": 1}}"#, "lab.json").unwrap();
    let odd = scenario.odd_settings().unwrap();
    assert!(odd.len() == 1 && odd[0].contains("nonsense"), "{odd:?}");
}

#[test]
fn numbers_that_are_not_as_expected_are_told_by_name() {
    let people = json!([{
        "name": "all", "work": { "kind": "script", "script": "count", "cpu": true }, "run": { "kind": "constant", "mean": 0 },
        "arrive": { "kind": "at", "times_s": vec![0; 300] }
    }]);
    let scenario = json!({ "people": people, "expected": { "complete": [5, 6], "failed": [0, 0] } });
    let scenario = Scenario::parse(scenario.to_string().as_bytes(), "lab.json").unwrap();
    let outcome = Sim::new(scenario.clone(), Mind::Ours).unwrap().run();
    assert_eq!(outcome.broken, []);
    let missed: Vec<String> = scenario.missed(&outcome).iter().map(ToString::to_string).collect();
    assert_eq!(missed, ["expected complete 5 to 6, was 300"]);
    let mut names = NUMBERS;
    names.sort_unstable();
    assert_eq!(outcome.numbers().into_keys().collect::<Vec<_>>(), names);
}

#[test]
fn a_picture_is_xml_whatever_the_scenario_is_called() {
    let scenario = Scenario { name: "a<b>&\"c\"\u{1}".into(), about: "<i>".into(), ..Scenario::default() };
    let outcome = Sim::new(scenario.clone(), Mind::Ours).unwrap().run();
    let drawn = gantt::svg(&scenario, &[outcome]);
    let title = "SIMULATED a&lt;b&gt;&amp;\"c\"  (seed 1)";
    assert_eq!(drawn.matches(title).count(), 2, "{drawn}");
    assert!(!drawn.contains("a<b>") && !drawn.contains("<i>") && !drawn.contains('\u{1}'), "{drawn}");
}

#[test]
fn a_fault_run_ends_at_the_largest_seed() {
    let storm = storm::run(u64::MAX, 1, 2, 1).unwrap();
    assert_eq!((storm.seeds, storm.broken.len()), (1, 0));
}
