//! What a program sees of the environment: an allow-list, its GPU, and who started it.
//!
//! Not here: secrets (they come by file, from whoever asks for the program).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use model::{GpuUuid, WorkerId};

/// Variables that every program may see.
const PASSED: &[&str] = &["PATH", "HOME", "LANG", "TMPDIR", "HF_HOME"];
/// Beginnings of such variables.
const PASSED_PREFIXES: &[&str] = &["LC_", "CUDA_", "GPUSPOOL_"];
/// The variable that names the worker; a dead worker's leftovers are found by it.
pub const WORKER_VARIABLE: &str = "GPUSPOOL_WORKER";
/// The variable that names one started program; all that descends from it carries it.
pub const UNIT_VARIABLE: &str = "GPUSPOOL_UNIT";

/// A complete environment: a program gets these variables and no other.
pub type Environment = BTreeMap<OsString, OsString>;

/// The variable that names a program's GPUs: uuids with a comma between, its worker's first. Simulated ones too.
pub const GPUS_VARIABLE: &str = "GPUSPOOL_GPUS";

/// Where programs are started: by which worker, for which GPU.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The worker's name.
    pub worker: WorkerId,
    /// The GPU; none in the CPU lane.
    pub gpu: Option<GpuUuid>,
    /// GPUs that a program has besides that one.
    pub beside: Vec<GpuUuid>,
    /// Whether these GPUs are only simulated.
    pub simulated: bool,
}

impl Surroundings {
    /// The same for a program that has all these GPUs, the worker's among them; none of them is what it is anyway.
    #[must_use]
    pub fn over(&self, gpus: &[GpuUuid]) -> Self {
        let beside = gpus.iter().filter(|gpu| Some(*gpu) != self.gpu.as_ref()).cloned();
        Self { beside: beside.collect(), ..self.clone() }
    }

    /// The environment of a program: the allow-list and `pass` from `own`, then the GPU and the marker, then `set`.
    pub fn environment<'a>(
        &self,
        own: impl IntoIterator<Item = (OsString, OsString)>,
        pass: &[String],
        set: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Environment {
        let mut all: Environment = own.into_iter().filter(|(name, _)| may_pass(name, pass)).collect();
        all.remove(OsStr::new(UNIT_VARIABLE));
        all.insert("CUDA_DEVICE_ORDER".into(), "PCI_BUS_ID".into());
        match self.visible() {
            Visible::Only(uuids) => all.insert("CUDA_VISIBLE_DEVICES".into(), uuids.into()),
            Visible::None => all.insert("CUDA_VISIBLE_DEVICES".into(), OsString::new()),
            Visible::Unknown => None,
        };
        all.remove(OsStr::new(GPUS_VARIABLE));
        if let Some(gpu) = &self.gpu {
            all.insert(GPUS_VARIABLE.into(), self.names(gpu).into());
        }
        all.extend(set.into_iter().map(|(name, value)| (name.into(), value.into())));
        all.insert(WORKER_VARIABLE.into(), self.worker.as_str().into());
        all
    }

    /// Its GPUs, the worker's first.
    fn names(&self, own: &GpuUuid) -> String {
        let all: Vec<&str> = std::iter::once(own).chain(&self.beside).map(GpuUuid::as_str).collect();
        all.join(",")
    }

    fn visible(&self) -> Visible {
        match &self.gpu {
            None => Visible::None,
            Some(_) if self.simulated => Visible::None,
            // A GPU that no driver could name: whatever the machine shows stays visible.
            Some(uuid) if uuid.as_str().starts_with("FIXED-") => Visible::Unknown,
            Some(uuid) => Visible::Only(self.names(uuid)),
        }
    }
}

enum Visible {
    Only(String),
    None,
    Unknown,
}

fn may_pass(name: &OsStr, pass: &[String]) -> bool {
    name.to_str().is_some_and(|name| {
        PASSED.contains(&name)
            || PASSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || pass.iter().any(|passed| passed == name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Vec<(OsString, OsString)> {
        ["PATH", "AWS_SECRET", "LC_ALL", "LD_PRELOAD", "MY_TOKEN", "CUDA_VISIBLE_DEVICES"]
            .map(|name| (name.into(), format!("own {name}").into()))
            .to_vec()
    }

    fn surroundings(gpu: Option<&str>) -> Surroundings {
        Surroundings {
            worker: WorkerId::new("w1").unwrap(),
            gpu: gpu.map(|uuid| GpuUuid::new(uuid).unwrap()),
            beside: Vec::new(),
            simulated: gpu.is_some_and(|uuid| uuid.starts_with("SIM-")),
        }
    }

    #[test]
    fn secrets_and_loader_tricks_stay_out_unless_the_configuration_names_them() {
        let pass = ["MY_TOKEN".to_owned()];
        let seen = surroundings(Some("GPU-1")).environment(own(), &pass, []);
        let names: Vec<_> = seen.keys().map(|name| name.to_str().unwrap()).collect();
        assert_eq!(
            names,
            [
                "CUDA_DEVICE_ORDER",
                "CUDA_VISIBLE_DEVICES",
                "GPUSPOOL_GPUS",
                "GPUSPOOL_WORKER",
                "LC_ALL",
                "MY_TOKEN",
                "PATH"
            ]
        );
    }

    #[test]
    fn a_program_sees_its_own_gpu_and_none_where_there_is_none() {
        let visible = |gpu| {
            let all = surroundings(gpu).environment(own(), &[], []);
            all.get(OsStr::new("CUDA_VISIBLE_DEVICES")).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(visible(Some("GPU-1")).as_deref(), Some("GPU-1"));
        assert_eq!(visible(Some("SIM-0")).as_deref(), Some(""));
        assert_eq!(visible(None).as_deref(), Some(""));
        assert_eq!(visible(Some("FIXED-0")).as_deref(), Some("own CUDA_VISIBLE_DEVICES"));
    }

    #[test]
    fn a_program_of_several_gpus_sees_all_of_them_its_worker_s_first() {
        let uuids = ["GPU-2", "GPU-1", "GPU-3"].map(|uuid| GpuUuid::new(uuid).unwrap());
        let of = |gpu: &str, uuids: &[GpuUuid], name: &str| {
            let all = surroundings(Some(gpu)).over(uuids).environment(own(), &[], []);
            all.get(OsStr::new(name)).map(|value| value.to_str().unwrap().to_owned())
        };
        for name in ["CUDA_VISIBLE_DEVICES", GPUS_VARIABLE] {
            assert_eq!(of("GPU-1", &uuids, name).as_deref(), Some("GPU-1,GPU-2,GPU-3"));
            assert_eq!(of("GPU-1", &[], name).as_deref(), Some("GPU-1"));
        }
        let simulated = ["SIM-0", "SIM-1"].map(|uuid| GpuUuid::new(uuid).unwrap());
        assert_eq!(of("SIM-0", &simulated, "CUDA_VISIBLE_DEVICES").as_deref(), Some(""));
        assert_eq!(of("SIM-0", &simulated, GPUS_VARIABLE).as_deref(), Some("SIM-0,SIM-1"));
    }
}
