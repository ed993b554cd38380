//! The setting `gpus`: `auto`, or `simulated:MiB,MiB,…`.

use std::str::FromStr;

use crate::error::SensesError;

/// More GPUs than this in one machine are a typing error.
pub const GPUS_MAX: usize = 1_024;

/// The largest GPU that anybody may invent, in MiB: 16 TiB.
const SIMULATED_MIB_MAX: u64 = 16 << 20;

/// How GPUs are to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// NVML, else nvidia-smi, else one unmeasured GPU.
    Auto,
    /// These sizes in MiB, one a GPU.
    Simulated(Vec<u64>),
}

impl FromStr for Setting {
    type Err = SensesError;

    fn from_str(text: &str) -> Result<Self, SensesError> {
        let bad =
            |detail: String| SensesError::BadSetting { setting: text.escape_debug().to_string(), detail };
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let Some(sizes) = text.strip_prefix("simulated:") else {
            return Err(bad("no such word".into()));
        };
        let sizes = sizes
            .split(',')
            .map(|size| match size.trim().parse::<u64>() {
                Ok(mib) if (1..=SIMULATED_MIB_MAX).contains(&mib) => Ok(mib),
                Ok(mib) => Err(bad(format!("{mib} MiB is not within 1 to {SIMULATED_MIB_MAX}"))),
                Err(_) => Err(bad(format!("`{}` is not a number of MiB", size.escape_debug()))),
            })
            .collect::<Result<Vec<u64>, _>>()?;
        if sizes.len() > GPUS_MAX {
            return Err(bad(format!("{} GPUs are more than {GPUS_MAX}", sizes.len())));
        }
        Ok(Self::Simulated(sizes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_their_order() {
        assert_eq!("auto".parse(), Ok(Setting::Auto));
        assert_eq!(
            "simulated:24576, 12227,8192".parse(),
            Ok(Setting::Simulated(vec![24_576, 12_227, 8_192]))
        );
    }

    #[test]
    fn what_is_no_setting_is_refused_with_what_would_be_one() {
        for bad in [
            "",
            "Auto",
            "simulated",
            "simulated:",
            "simulated:8192,",
            "simulated:0",
            "simulated:8 GB",
            "simulated:-1",
        ] {
            let error = bad.parse::<Setting>().expect_err(bad).to_string();
            assert!(error.contains("use `auto`, or `simulated:"), "{bad}: {error}");
        }
    }
}
