//! The command line of gpuspool.

/// Entry point of the `gpuspool` binary.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
