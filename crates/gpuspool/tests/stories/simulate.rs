//! `simulate`: what it refuses, and what it says of what did not come as expected.

use gpuspool_cli::{Console, exit, run};
use serde_json::{Value, json};

/// Exit code, output and notes of a command line without a spool or settings.
fn simulate(words: &[&str]) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let line = ["gpuspool", "simulate"].iter().chain(words);
    let code = run(line, &mut Console::new(&mut out, &mut err));
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn written(folder: &tempfile::TempDir, scenario: &Value) -> String {
    let path = folder.path().join("lab.json");
    std::fs::write(&path, scenario.to_string()).unwrap();
    path.display().to_string()
}

#[test]
fn options_that_would_do_nothing_are_refused() {
    let refused = [
        &["--scenario", "pairs", "--seeds", "3"][..],
        &["--scenario", "pairs", "--from", "3"],
        &["--seeds", "3"],
        &["--faults", "--svg", "x.svg"],
        &["--faults", "--policy", "fifo"],
        &["--faults", "--seed", "3"],
        &["--faults", "--seeds", "0"],
        &["--faults", "--seeds", "2", "--from", "18446744073709551615"],
        &["--scenario", "list", "--svg", "x.svg"],
    ];
    for words in refused {
        let (code, out, err) = simulate(words);
        assert_eq!((code, out.as_str()), (exit::USAGE, ""), "{words:?}: {err}");
    }
}

#[test]
fn a_fault_run_of_the_last_seed_ends() {
    let (code, out, err) = simulate(&["--faults", "--seeds", "1", "--from", "18446744073709551615"]);
    assert!(code == exit::OK && out.starts_with("SIMULATED 1 seeds"), "{code} {out} {err}");
}

#[test]
fn the_list_is_json_where_that_is_asked_for() {
    let (code, out, _) = simulate(&["--scenario", "list", "--json"]);
    let told: Value = serde_json::from_str(&out).unwrap();
    let scenarios = told["scenarios"].as_array().unwrap();
    assert_eq!((code, scenarios.len()), (exit::OK, simulate::scenario::shipped().count()));
    assert!(scenarios.iter().all(|one| one["name"].is_string() && one["about"].is_string()), "{out}");
}

#[test]
fn a_scenario_that_cannot_be_is_bad_data() {
    let folder = tempfile::tempdir().unwrap();
    for (scenario, told) in [
        (json!({ "duration_s": -5 }), "`duration_s` is -5"),
        (
            json!({ "people": [{ "name": "wide", "gpus": 5, "work": { "kind": "script", "script": "embed" } }] }),
            "cannot run",
        ),
        (json!({ "expected": { "complete": [6, 5] } }), "write the lower number first"),
        (json!([]), "is not a scenario"),
    ] {
        let (code, out, err) = simulate(&["--scenario", &written(&folder, &scenario)]);
        assert!(code == exit::DATA && out.is_empty() && err.contains(told), "{scenario}: {code} {err}");
    }
}

#[test]
fn what_did_not_come_as_expected_is_told_and_counts() {
    let folder = tempfile::tempdir().unwrap();
    let mut scenario = json!({ "people": [{ "name": "ask" }], "config": { "nonsense": 1 } });
    scenario["expected"] = json!({ "complete": [5, 6] });
    let path = written(&folder, &scenario);
    let (code, out, err) = simulate(&["--scenario", &path]);
    assert_eq!(code, exit::NOT_ALL);
    assert!(out.ends_with("\nours: expected complete 5 to 6, was 1\n"), "{out}");
    assert!(err.starts_with("warning: settings: ") && err.contains("nonsense"), "{err}");
    let (code, out, _) = simulate(&["--scenario", &path, "--policy", "ours", "--json"]);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &told["policies"][0]["missed"]),
        (exit::NOT_ALL, &json!(["expected complete 5 to 6, was 1"]))
    );
    // Of another seed, or another policy, it expects nothing.
    let (code, _, err) = simulate(&["--scenario", &path, "--seed", "3"]);
    assert!(
        code == exit::OK && err.contains("what `lab` expects is not looked at with --seed"),
        "{code} {err}"
    );
    assert_eq!(simulate(&["--scenario", &path, "--policy", "fifo"]).0, exit::OK);
    scenario["expected"] = json!({ "complete": [1, 1] });
    let (code, out, _) = simulate(&["--scenario", &written(&folder, &scenario)]);
    assert!(code == exit::OK && !out.contains("expected"), "{code} {out}");
}
