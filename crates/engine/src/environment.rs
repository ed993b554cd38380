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

/// Where programs are started: by which worker, for which GPU.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The worker's name.
    pub worker: WorkerId,
    /// The GPU; none in the CPU lane.
    pub gpu: Option<GpuUuid>,
    /// Whether that GPU is only simulated.
    pub simulated: bool,
}

impl Surroundings {
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
            Visible::Only(uuid) => all.insert("CUDA_VISIBLE_DEVICES".into(), uuid.into()),
            Visible::None => all.insert("CUDA_VISIBLE_DEVICES".into(), OsString::new()),
            Visible::Unknown => None,
        };
        all.extend(set.into_iter().map(|(name, value)| (name.into(), value.into())));
        all.insert(WORKER_VARIABLE.into(), self.worker.as_str().into());
        all
    }

    fn visible(&self) -> Visible<'_> {
        match &self.gpu {
            None => Visible::None,
            Some(_) if self.simulated => Visible::None,
            // A GPU that no driver could name: whatever the machine shows stays visible.
            Some(uuid) if uuid.as_str().starts_with("FIXED-") => Visible::Unknown,
            Some(uuid) => Visible::Only(uuid.as_str()),
        }
    }
}

enum Visible<'a> {
    Only(&'a str),
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
            ["CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "GPUSPOOL_WORKER", "LC_ALL", "MY_TOKEN", "PATH"]
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
}
