//! `gpuspool cancel`: of tasks and of batches, with and without a brain.

use gpuspool_cli::exit;
use model::request::{AboutTask, Answer, Verb};
use model::task::TaskRecord;
use model::{Durability, Status, TaskId};
use serde_json::{Value, json};
use spool::request::Requests;

use crate::desk::{Brain, Desk, batch, complete, failed};

#[test]
fn without_a_brain_a_queued_task_is_cancelled_here_and_a_running_one_later() {
    let desk = Desk::new();
    let name = desk.gpuspool(&["submit", "--prompt", "x"]).out.trim().to_owned();
    let running = TaskRecord { status: Some(Status::Running), ..complete("busy", json!(null)) };
    std::fs::write(desk.layout().processing().join("busy.json"), serde_json::to_vec(&running).unwrap())
        .unwrap();

    let said = desk.gpuspool(&["cancel", &name, "busy"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.out, format!("{name}: cancelled\nbusy: it was started; the next brain ends it\n"));
    let record: Value =
        serde_json::from_str(&desk.gpuspool(&["result", &name, "--json"]).out).expect("its record");
    assert_eq!((&record["status"], &record["error"]["class"]), (&json!("failed"), &json!("cancelled")));
    let requests = Requests::new(desk.layout(), Durability::Process).take().unwrap();
    assert_eq!(
        (requests.len(), requests[0].1.verb, requests[0].1.ids.as_slice()),
        (1, Verb::Cancel, &["busy".to_owned()][..])
    );

    let again = desk.gpuspool(&["cancel", &name]);
    assert_eq!((again.code, again.out), (exit::NOT_ALL, format!("{name}: it had ended already\n")));
}

#[test]
fn a_cancelled_batch_is_one_sentence_and_a_task_a_line() {
    let desk = Desk::new();
    let (batch, task) = (batch(&desk), desk.gpuspool(&["submit", "--prompt", "x"]).out.trim().to_owned());
    let name = batch.as_str();
    let brain = |outcome: &'static str, ran| {
        Brain::answering(&desk, move |_, ids| {
            let about = |id: &str| AboutTask {
                id: id.to_owned(),
                task_id: TaskId::new(id).ok(),
                outcome: outcome.to_owned(),
                ran,
                ..AboutTask::default()
            };
            let ids = ids.iter().map(|id| if id == "talks-20250205" { "talks-20250205.2" } else { id });
            Answer { ok: true, about: ids.map(about).collect(), ..Answer::default() }
        })
    };
    let running = brain("cancelled", true);
    let said = desk.gpuspool(&["cancel", name, &task]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(
        said.out,
        format!("{name}: cancelled: 1 item ran and was stopped, 2 had ended\n{task}: cancelled\n")
    );
    let told: Value =
        serde_json::from_str(&desk.gpuspool(&["cancel", "--json", name, &task]).out).expect("JSON");
    assert_eq!((&told["cancelled"], told["about"].as_array().map(Vec::len)), (&json!(true), Some(2)));
    let counts = &told["batches"][0];
    assert_eq!(
        (&counts["not_started"], &counts["stopped"], &counts["ended"]),
        (&json!(0), &json!(1), &json!(2))
    );
    drop(running);
    let waiting = brain("cancelled", false);
    let said = desk.gpuspool(&["cancel", name]).out;
    assert_eq!(said, format!("{name}: cancelled: 1 item waited and will not start, 2 had ended\n"));
    drop(waiting);
    let late = brain("already_ended", true);
    let said = desk.gpuspool(&["cancel", name]);
    assert_eq!((said.code, said.out), (exit::NOT_ALL, format!("{name}: it is over\n")));
    drop(late);
    desk.ended(&failed("talks-20250205.2"));
    let said = desk.gpuspool(&["cancel", name]);
    assert_eq!((said.code, said.out), (exit::NOT_ALL, format!("{name}: it is over\n")));
}

#[test]
fn a_brain_that_does_not_know_a_batch_has_not_read_it_or_it_is_over() {
    let desk = Desk::new();
    let name = batch(&desk).to_string();
    let _brain = Brain::answering(&desk, |_, ids| {
        let about = ids.iter().map(|id| AboutTask {
            id: id.clone(),
            outcome: "unknown".into(),
            ..AboutTask::default()
        });
        Answer { about: about.collect(), ..Answer::default() }
    });
    let said = desk.gpuspool(&["cancel", &name]);
    assert_eq!(
        (said.code, said.out),
        (exit::NOT_ALL, format!("{name}: the brain has not read it yet; try again\n"))
    );
    desk.ended(&complete("talks-20250205.2", json!({})));
    let said = desk.gpuspool(&["cancel", &name]);
    assert_eq!((said.code, said.out), (exit::NOT_ALL, format!("{name}: it is over\n")));
}

#[test]
fn a_batch_that_is_over_is_so_for_every_verb_with_and_without_a_brain() {
    let desk = Desk::new();
    let name = batch(&desk).to_string();
    let told = || {
        ["cancel", "pause", "resume"].map(|verb| {
            let said = desk.gpuspool(&[verb, &name]);
            assert_eq!(said.code, exit::NOT_ALL, "{verb}: {said:?}");
            said.out
        })
    };
    let over = || format!("{name}: it is over\n");
    let brain = Brain::answering(&desk, |_, ids| {
        let about = ids.iter().map(|id| AboutTask {
            id: id.clone(),
            outcome: "already_ended".into(),
            ..AboutTask::default()
        });
        Answer { about: about.collect(), ..Answer::default() }
    });
    assert_eq!(told(), [over(), over(), over()], "it is over as soon as the brain says so");
    drop(brain);
    desk.ended(&complete("talks-20250205.2", json!({})));
    assert_eq!(told(), [over(), over(), over()]);
}
