//! How workers come to be, and who gets which GPU.

use std::io::Read as _;

use model::link::Phase;

use crate::rig::Rig;

#[test]
fn a_worker_says_who_it_is_and_what_it_can_boot() {
    let rig = Rig::new();
    let mut worker = rig.worker();
    let reports = worker.reports();
    let me = reports.worker.unwrap();
    assert_eq!((me.pid, me.launch.as_deref(), me.uuid), (worker.child.id(), Some("l1"), worker.id.clone()));
    let gpu = reports.gpu.unwrap();
    assert_eq!((gpu.uuid.as_str(), gpu.index, gpu.vram_mib), ("SIM-0", 0, Some(8_000)));
    let can = reports.can.engines.iter().find(|engine| engine.preset == "fake").unwrap();
    assert_eq!(can.models, ["fake-7b"]);
    assert_eq!(reports.phase, Phase::Serving);
}

#[test]
fn a_worker_started_by_hand_takes_the_first_free_gpu_and_the_last_one_is_told_who_has_them() {
    let rig = Rig::new();
    let gpus = ["--gpus", "simulated:8000,4000"];
    let mut first = rig.start(&gpus);
    let mut second = rig.start(&gpus);
    let mut taken = [first.reports().gpu.unwrap().index, second.reports().gpu.unwrap().index];
    taken.sort_unstable();
    assert_eq!(taken, [0, 1]);
    let refused = |arguments: &[&str]| {
        let mut child = rig.command(arguments).spawn().unwrap();
        let code = child.wait().unwrap().code();
        let mut why = String::new();
        child.stderr.take().unwrap().read_to_string(&mut why).unwrap();
        (code, why)
    };
    let (code, why) = refused(&gpus);
    assert_eq!(code, Some(4));
    assert!(
        why.contains(&first.child.id().to_string()) && why.contains(&second.child.id().to_string()),
        "{why}"
    );
    assert_eq!(refused(&["--gpus", "simulated:8000,4000", "--gpu", "SIM-1"]).0, Some(4));
    let (code, why) = refused(&["--gpus", "simulated:8000", "--gpu", "SIM-7"]);
    assert!(code == Some(69) && why.contains("`SIM-0`"), "{why}");
    assert_eq!(refused(&["--no-such-argument"]).0, Some(64));
}
