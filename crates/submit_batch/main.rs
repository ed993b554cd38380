//! The `submit_batch` binary; everything it does is in the library beside it.

fn main() -> std::process::ExitCode {
    submit_batch::main()
}
