//! The arm of gpuspool: one process for one GPU.

/// Entry point of the `worker` binary.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
