//! The `gpuspool` binary; everything it does is in the library beside it.

fn main() -> std::process::ExitCode {
    gpuspool_cli::main()
}
