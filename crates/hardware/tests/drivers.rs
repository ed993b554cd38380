//! The senses before drivers that answer, fall silent, lie, and go away.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hardware::{Drivers, Senses, Setting};
use model::InventorySource::{Measured, Unmeasured};
use model::gpu::Reading;

/// One machine at a time: a program that one test is writing while another starts a process is inherited open by
/// that process, and cannot be run (`Text file busy`).
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A machine whose drivers do what a test says.
struct Machine {
    folder: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Machine {
    fn new() -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        Self { folder: tempfile::tempdir().expect("a temporary folder"), _alone: alone }
    }

    /// A machine with a working NVML that sees these GPUs.
    fn with_nvml(state: &str) -> Self {
        let machine = Self::new();
        let built = std::env::current_exe().expect("this test has a path");
        let built = built.ancestors().nth(2).expect("it lies in `deps`").join("examples/libfake_nvml.so");
        fs::copy(&built, machine.path("libfake_nvml.so")).expect("`cargo test` builds the fake NVML");
        machine.now(state);
        machine
    }

    /// A machine without NVML, with this shell script for an nvidia-smi.
    fn with_nvidia_smi(script: &str) -> Self {
        let machine = Self::new();
        machine.answer(script);
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// From now on NVML sees this.
    fn now(&self, state: &str) {
        fs::write(self.path("gpus.txt"), state).expect("the state can be written");
    }

    /// From now on nvidia-smi does this.
    fn answer(&self, script: &str) {
        let staged = self.path("staged");
        fs::write(&staged, format!("#!/bin/sh\n{script}\n")).expect("the script can be written");
        fs::set_permissions(&staged, fs::Permissions::from_mode(0o755)).expect("and made a program");
        fs::rename(staged, self.path("nvidia-smi")).expect("and put in place");
    }

    fn drivers(&self) -> Drivers {
        Drivers {
            nvml_library: Some(self.path("libfake_nvml.so").into()),
            nvidia_smi: self.path("nvidia-smi").into(),
            nvidia_smi_timeout: Duration::from_secs(5),
        }
    }

    fn senses(&self) -> Senses {
        Senses::with(Setting::Auto, &self.drivers())
    }
}

fn read(senses: &mut Senses) -> Vec<Reading> {
    senses.read().expect("the driver answers")
}

const TWO_GPUS: &str = "\
gpu uuid=GPU-a name=RTX_4070 total=12227 used=300 cc=8.9 processes=11:200,12:none graphics=11:250
gpu uuid=GPU-b name=RTX_3090 total=24576 used=0 cc=8.6
";

#[test]
fn nvml_tells_what_is_there_and_who_uses_it() {
    let machine = Machine::with_nvml(TWO_GPUS);
    let mut senses = machine.senses();

    let inventory = senses.inventory();
    assert_eq!((inventory.source, inventory.why, inventory.gpus.len()), (Measured, None, 2));
    let first = &inventory.gpus[0];
    assert_eq!((first.uuid.as_str(), first.index, first.name.as_str()), ("GPU-a", 0, "RTX 4070"));
    assert_eq!(first.total_mib, Some(12_227));
    assert_eq!(first.compute_capability.unwrap().to_string(), "8.9");

    let readings = read(&mut senses);
    assert_eq!(readings[0].used_mib, Some(300));
    assert_eq!(readings[0].processes, [(11, Some(250)), (12, None)]);
    assert_eq!((readings[1].used_mib, readings[1].lost), (Some(0), false));
}

#[test]
fn a_gpu_that_falls_off_the_bus_is_lost_and_its_neighbour_is_not() {
    let machine = Machine::with_nvml(TWO_GPUS);
    let mut senses = machine.senses();
    senses.inventory();

    machine.now(&TWO_GPUS.replace("gpu uuid=GPU-a", "gpu return=15 uuid=GPU-a"));
    let readings = read(&mut senses);
    assert_eq!((readings[0].lost, readings[0].used_mib), (true, None));
    assert_eq!((readings[1].lost, readings[1].used_mib), (false, Some(0)));

    machine.now(TWO_GPUS);
    assert!(!read(&mut senses)[0].lost, "it came back");
}

#[test]
fn a_gpu_that_answers_with_an_error_is_unknown_and_not_lost() {
    let machine = Machine::with_nvml(TWO_GPUS);
    let mut senses = machine.senses();
    senses.inventory();

    machine.now(&TWO_GPUS.replace("gpu uuid=GPU-a", "gpu return=999 uuid=GPU-a"));
    let readings = read(&mut senses);
    assert_eq!((readings[0].lost, readings[0].used_mib), (false, None));
}

#[test]
fn a_gpu_that_was_taken_out_is_lost_and_a_new_one_is_found_by_the_next_inventory() {
    let machine = Machine::with_nvml(TWO_GPUS);
    let mut senses = machine.senses();
    senses.inventory();

    machine.now("gpu uuid=GPU-b name=RTX_3090 total=24576 used=7 cc=8.6\ngpu uuid=GPU-c total=8192 used=1\n");
    let readings = read(&mut senses);
    assert_eq!((readings[0].uuid.as_str(), readings[0].lost), ("GPU-a", true));
    assert_eq!((readings[1].used_mib, readings[1].lost), (Some(7), false), "it only moved to another index");

    let inventory = senses.inventory();
    let uuids: Vec<&str> = inventory.gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
    assert_eq!(uuids, ["GPU-b", "GPU-c"]);
    assert_eq!(read(&mut senses).len(), 3, "the lost one is still spoken of");
}

#[test]
fn garbage_from_nvml_is_unknown_and_never_a_number() {
    let machine = Machine::with_nvml(
        "gpu uuid=../../etc/passwd name=X total=8192 used=1\n\
         gpu uuid=GPU-n name=GARBAGE total=8192 used=1\n\
         gpu uuid=GPU-m name=X total=8192 used=9000\n",
    );
    let mut senses = machine.senses();
    let inventory = senses.inventory();
    assert!(inventory.why.unwrap().contains("GPU 0 has a uuid that cannot be used as a name"));
    assert_eq!(inventory.gpus[0].name, "GPU of unknown name");
    assert_eq!(
        inventory.gpus[1].total_mib, None,
        "more in use than there is: neither figure can be believed"
    );
    assert_eq!(read(&mut senses).iter().map(|reading| reading.used_mib).collect::<Vec<_>>(), [None, Some(1)]);
}

#[test]
fn a_board_that_shares_the_systems_memory_is_measured_by_it() {
    let machine = Machine::with_nvml("gpu uuid=GPU-u name=GB10 memory=3\n");
    let mut senses = machine.senses();
    let total = senses.ram().map(|ram| ram.total_mib);
    assert_eq!(senses.inventory().gpus[0].total_mib, total);
    assert!(read(&mut senses)[0].used_mib < total);
}

#[test]
fn a_loaded_driver_without_gpus_leaves_one_assumed_gpu_and_says_why() {
    for (state, why) in [("", "names no GPU"), ("init 9", "driver is not loaded")] {
        let inventory = Machine::with_nvml(state).senses().inventory();
        assert_eq!(inventory.source, Unmeasured);
        let said = inventory.why.expect("a reason");
        assert!(said.contains(why), "{said}");
    }
}

/// Answers the question about GPUs with the first text and the one about processes with the second.
fn smi(gpus: &str, processes: &str) -> String {
    format!(
        "case \"$1\" in *compute-apps*) cat <<'end'\n{processes}\nend\n;; *) cat <<'end'\n{gpus}\nend\n;; esac"
    )
}

#[test]
fn nvidia_smi_is_asked_where_there_is_no_nvml() {
    let machine = Machine::with_nvidia_smi(&smi(
        "0, GPU-a, NVIDIA RTX 4070, 12227, 300, 8.9\n1, GPU-b, Odd, Name, 24576, 0, 8.6",
        "GPU-a, 11, 280\nGPU-a, 12, [N/A]",
    ));
    let mut senses = machine.senses();
    let inventory = senses.inventory();
    assert_eq!((inventory.source, inventory.gpus.len()), (Measured, 2));
    assert_eq!(inventory.gpus[1].name, "Odd, Name");
    let readings = read(&mut senses);
    assert_eq!(readings[0].used_mib, Some(300));
    assert_eq!(readings[0].processes, [(11, Some(280)), (12, None)]);
    assert_eq!(readings[1].used_mib, Some(0), "a true zero is a zero");
}

#[test]
fn warnings_and_missing_values_of_nvidia_smi_are_unknown_and_not_zero() {
    let machine = Machine::with_nvidia_smi(&smi(
        "WARNING: infoROM is corrupted at gpu 0000:01:00.0\n\
         0, GPU-a, NVIDIA RTX 4070, [N/A], [N/A], [Not Supported]\n\
         1, GPU-b, NVIDIA RTX 4070, 12227, keine Angabe, 8.9\n\
         2, [Unknown Error], NVIDIA RTX 4070, 0, 0, 0",
        "pas de processus",
    ));
    let mut senses = machine.senses();
    let inventory = senses.inventory();
    let known: Vec<_> = inventory.gpus.iter().map(|gpu| (gpu.uuid.as_str(), gpu.total_mib)).collect();
    assert_eq!(known, [("GPU-a", None), ("GPU-b", Some(12_227))]);
    assert_eq!(inventory.gpus[0].compute_capability, None);
    assert!(read(&mut senses).iter().all(|reading| reading.used_mib.is_none() && !reading.lost));

    machine.answer(&smi("1, GPU-b, NVIDIA RTX 4070, 12227, 5, 8.9\nsomething odd", ""));
    assert!(!read(&mut senses)[0].lost, "a missing row beside an unreadable line says nothing");
    machine.answer(&smi("1, GPU-b, NVIDIA RTX 4070, 12227, 5, 8.9\nGPU 0000:01:00.0: GPU is lost.", ""));
    assert!(read(&mut senses)[0].lost);
}

#[test]
fn an_old_nvidia_smi_that_knows_no_capability_still_tells_memory() {
    let machine = Machine::with_nvidia_smi(
        "case \"$1\" in *compute_cap*) echo 'Field \"compute_cap\" is not a valid field to query.'; exit 2;; \
         *driver_version*) echo '0, GPU-a, Tesla K80, 11441, 3, 450.80.02';; esac",
    );
    let gpus = machine.senses().inventory().gpus;
    assert_eq!((gpus[0].total_mib, gpus[0].compute_capability), (Some(11_441), None));
}

#[test]
fn a_hanging_nvidia_smi_is_killed_and_means_that_nothing_is_known() {
    let machine = Machine::with_nvidia_smi(&smi("0, GPU-a, NVIDIA RTX 4070, 12227, 300, 8.9", ""));
    let mut senses = Senses::with(
        Setting::Auto,
        &Drivers { nvidia_smi_timeout: Duration::from_secs(2), ..machine.drivers() },
    );
    senses.inventory();

    let pid = machine.path("pid");
    machine.answer(&format!("echo $$ > {}; exec sleep 1000", pid.display()));
    let begun = Instant::now();
    let error = senses.read().expect_err("no answer is no reading").to_string();
    assert!(error.contains("gave no answer within 2 s and was killed"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(8));

    let pid = fs::read_to_string(pid).expect("it had begun");
    let folder = PathBuf::from(format!("/proc/{}", pid.trim()));
    while folder.exists() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{} still lives", folder.display());
        std::thread::yield_now();
    }
}

#[test]
fn an_nvidia_smi_that_only_talks_is_no_driver() {
    let machine = Machine::with_nvidia_smi("echo 'NVIDIA-SMI has failed: \u{1b}[31mno driver'; exit 9");
    let why = machine.senses().inventory().why.expect("a reason");
    assert!(why.contains("named no GPU; it said: NVIDIA-SMI has failed: \\u{1b}[31mno driver"), "{why}");
}
