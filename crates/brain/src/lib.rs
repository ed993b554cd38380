//! The body of gpuspool: the loop that owns the world.

/// Entry point of the `brain` binary.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
