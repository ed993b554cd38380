//! Why the program ends without having served, and with which exit code.

use std::path::PathBuf;
use std::process::ExitCode;

/// What kept the program from its work. Each message names the thing at fault and the next step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The model file is not there or may not be read (exit 66).
    #[error(
        "failed to open the model file `{}`: {source}; name a Qwen2.5 GGUF file that exists with `--model`, \
         or use `--demo`", path.display()
    )]
    ModelMissing {
        /// The file as the user named it.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no GGUF file, or a damaged one (exit 65).
    #[error("failed to read `{name}` as a GGUF file: {reason}; check that the download is whole")]
    NotGguf {
        /// The file, or `the demonstration model`.
        name: String,
        /// What the reader said.
        reason: String,
    },
    /// The file holds a model of another kind (exit 65).
    #[error(
        "failed to load `{name}`: it holds a `{architecture}` model, and this engine runs only `qwen2` \
         (Qwen2, Qwen2.5); name such a file, or use another engine"
    )]
    NotQwen2 {
        /// The file, or `the demonstration model`.
        name: String,
        /// `general.architecture` of the file.
        architecture: String,
    },
    /// The file holds a Qwen2 model that cannot be used (exit 65).
    #[error("failed to load `{name}`: {what}: {reason}; the file is damaged or of an unknown variety")]
    Unusable {
        /// The file, or `the demonstration model`.
        name: String,
        /// Which part.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Another program holds the port (exit 98).
    #[error(
        "failed to listen on {address}: port {port} is in use; stop its holder or choose another with `--port`"
    )]
    PortInUse {
        /// Host and port.
        address: String,
        /// The port alone.
        port: u16,
    },
    /// The address cannot be listened on for another reason (exit 71).
    #[error("failed to listen on {address}: {source}; check `--host` and `--port`")]
    Listen {
        /// Host and port.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The demonstration model cannot be written (exit 73).
    #[error("failed to write the demonstration model to `{}`: {source}; choose a folder you may write to", path.display())]
    WriteDemo {
        /// The file as the user named it.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The program cannot run its own parts (exit 71).
    #[error("failed to {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The engine's thread ended before it had a model (exit 70): a fault of this program.
    #[error("failed to load the model: the engine's thread ended without a word; please report this")]
    EngineVanished,
}

impl Failure {
    /// The exit code, after BSD's `sysexits` where one fits; 98 is Linux' number for an address in use.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::NotGguf { .. } | Self::NotQwen2 { .. } | Self::Unusable { .. } => 65,
            Self::ModelMissing { .. } => 66,
            Self::EngineVanished => 70,
            Self::Listen { .. } | Self::System { .. } => 71,
            Self::WriteDemo { .. } => 73,
            Self::PortInUse { .. } => 98,
        })
    }
}
