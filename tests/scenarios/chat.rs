//! Somebody chats while an exclusive batch has all GPUs: one of them is lent, and goes back.

use serde_json::json;

use crate::support::rig::Rig;

fn journal(rig: &Rig) -> String {
    let files = rig.names("journal");
    files
        .iter()
        .map(|name| std::fs::read_to_string(rig.spool().join("journal").join(name)).unwrap())
        .collect()
}

#[test]
fn a_chatbot_borrows_one_gpu_of_an_exclusive_batch() {
    let mut rig = Rig::new()
        .gpus([24_576, 12_227])
        .script("transcriber", "fake_transcribe.py", "warm")
        .set("/resource_manager/batch_settings/chat_linger_s", json!(1.0));
    let folder = rig.path("videos");
    std::fs::create_dir_all(&folder).unwrap();
    for n in 0..60 {
        std::fs::write(folder.join(format!("clip-{n:03}.webm")), "slow").unwrap();
    }
    rig.start();
    let arguments = ["transcribe", folder.to_str().unwrap(), "--script", "transcriber", "--formats", "txt"];
    let submitted = rig.run("submit_batch", arguments);
    assert!(submitted.status.success(), "{submitted:?}");
    rig.run_until("both GPUs work", |rig| rig.ended("complete") >= 2);
    rig.drop_task("llm", 3, "hello", &json!({"prompt": "are you there?", "job_type": "chatbot"}));
    rig.drop_task("llm", 5, "summary", &json!({"prompt": "later"}));
    rig.run_until("the chatbot is answered", |rig| rig.record("complete", "hello").is_some());
    assert_eq!(rig.picture()["mode"], "exclusive");
    assert!(rig.record("complete", "summary").is_none(), "no other LLM task starts");
    rig.run_until("both GPUs work again", |rig| {
        let picture = rig.picture();
        let gpus: usize = picture["batches"]
            .as_object()
            .into_iter()
            .flat_map(|batches| batches.values())
            .filter_map(|batch| Some(batch["gpus"].as_array()?.len()))
            .sum();
        gpus == 2
    });
    let told = journal(&rig);
    let count = |sentence: &str| told.matches(sentence).count();
    assert_eq!(
        (count("is lent to chatbots inside"), count("goes back to exclusive batch")),
        (1, 1),
        "{told}"
    );
    assert!(rig.record("complete", "summary").is_none());
}
