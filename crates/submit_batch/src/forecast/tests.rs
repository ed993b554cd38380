use model::reason::ReasonTold;

use super::*;

fn expected(starts_in_s: f64, ends_in_s: f64, place: Option<&str>) -> Option<ExpectedIn> {
    Some(ExpectedIn {
        starts_in_s,
        ends_in_s,
        starts_in_p90_s: starts_in_s,
        ends_in_p90_s: ends_in_s * 1.4,
        place: place.map(str::to_owned),
    })
}

fn exclusive() -> BatchExplained {
    let llm = |gpu: &str, back_in_s| LlmLeaves {
        gpu: gpu.into(),
        model: "qwen2.5:7b".into(),
        leaves_in_s: if gpu == "1" { 0.0 } else { 12.0 },
        back_in_s,
    };
    BatchExplained {
        exclusive: true,
        exclusive_from: 50,
        gpus: ["1", "2", "4"].map(str::to_owned).to_vec(),
        reason: None,
        expected: expected(3.0, 2_300.0, None),
        on_one: expected(3.0, 6_700.0, Some("1")),
        on_all: expected(3.0, 2_280.0, None),
        is_a_guess: false,
        leaves: vec![llm("1", Some(2_320.0)), llm("2", None)],
        chat: ChatMeanwhile::Within { within_s: 55.0 },
        llm_asked_s_ago: Some(130.0),
        llm_tasks: 0,
        takes_llms_in_use: true,
    }
}

fn text(told: BatchExplained) -> String {
    Forecast::Known(Box::new(told)).text(&[], &Config::default())
}

#[test]
fn what_an_exclusive_batch_takes_reads_well() {
    insta::assert_snapshot!("exclusive", text(exclusive()));
}

#[test]
fn a_small_batch_a_guess_and_one_that_fits_nowhere_say_so() {
    let shared = BatchExplained {
        exclusive: false,
        gpus: vec!["0".into()],
        reason: Some(ReasonTold {
            code: "x".into(),
            text: "every GPU that could run it is busy; 3 ahead of it".into(),
        }),
        expected: expected(40.0, 90.0, Some("0")),
        on_one: expected(2.0, 50.0, Some("0")),
        on_all: expected(2.0, 50.0, Some("0")),
        is_a_guess: true,
        leaves: Vec::new(),
        chat: ChatMeanwhile::AsBefore,
        takes_llms_in_use: false,
        ..exclusive()
    };
    let nowhere = BatchExplained {
        gpus: Vec::new(),
        reason: Some(ReasonTold { code: "does_not_fit".into(), text: "no GPU here can hold it".into() }),
        expected: None,
        on_one: None,
        on_all: None,
        ..shared.clone()
    };
    let many = BatchExplained {
        leaves: (0..12).map(|n| LlmLeaves { gpu: n.to_string(), ..exclusive().leaves[0].clone() }).collect(),
        chat: ChatMeanwhile::Served { gpu: "12".into(), model: "qwen2.5:14b".into() },
        llm_tasks: 3,
        ..exclusive()
    };
    let waits = BatchExplained { chat: ChatMeanwhile::Waits, leaves: Vec::new(), ..exclusive() };
    let several = BatchExplained { chat: ChatMeanwhile::WaitsForSeveral, ..waits.clone() };
    let all = [shared, nowhere, many, waits, several].map(text);
    insta::assert_snapshot!("others", all.join("\n"));
}
