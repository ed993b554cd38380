//! The `worker` binary; everything it does is in the library beside it.

fn main() -> std::process::ExitCode {
    worker::main()
}
