//! The batch command of gpuspool: a folder of media becomes a batch.

/// Entry point of the `submit_batch` binary.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
