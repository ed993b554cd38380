//! How a script is run: under the interpreter of its inline dependencies, under `python3`, or as the program it is.
//!
//! `uv` prepares the environment and names its interpreter once; the script itself never runs under `uv run`, which,
//! killed, leaves its Python alive. Not here: which scripts are allowed (`spool::intake`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use model::FailureClass;
use model::task::TaskError;

use crate::environment::Environment;
use crate::group::{Group, Program};
use crate::log::Log;

/// How much of a script is searched for inline dependencies.
const HEAD_BYTES: u64 = 64 << 10;
/// Longest preparation of an environment: it may download gigabytes.
const PREPARE_MAX: Duration = Duration::from_secs(1_800);
const TAIL_BYTES: u64 = 4 << 10;

/// The interpreters that were found, by script.
#[derive(Debug, Default)]
pub struct Interpreters {
    uv: Option<PathBuf>,
    found: BTreeMap<PathBuf, (SystemTime, Vec<OsString>)>,
}

impl Interpreters {
    /// With `uv`, where this machine has it.
    #[must_use]
    pub const fn new(uv: Option<PathBuf>) -> Self {
        Self { uv, found: BTreeMap::new() }
    }

    /// What was found for `script`, if it has not changed since.
    #[must_use]
    pub fn known(&self, script: &Path) -> Option<Vec<OsString>> {
        let (changed, argv) = self.found.get(script)?;
        (fs::metadata(script).ok()?.modified().ok()? == *changed).then(|| argv.clone())
    }

    /// Keeps what [`find`] found.
    pub fn keep(&mut self, script: &Path, argv: &[OsString]) {
        if let Ok(changed) = fs::metadata(script).and_then(|facts| facts.modified()) {
            self.found.insert(script.to_owned(), (changed, argv.to_vec()));
        }
    }

    /// The `uv` to find with.
    #[must_use]
    pub fn uv(&self) -> Option<PathBuf> {
        self.uv.clone()
    }
}

/// The beginning of the command that runs `script`; may take minutes where dependencies must be fetched.
///
/// # Errors
/// `script_not_found`, `not_executable`, `environment_failed`.
pub async fn find(uv: Option<&Path>, script: &Path, env: &Environment) -> Result<Vec<OsString>, TaskError> {
    let unusable = |code: &str, why: String| Err(TaskError::new(FailureClass::BadInput, code, why));
    let shown = script.display();
    let head = match read_head(script) {
        Ok(head) => head,
        Err(error) => {
            return unusable("script_not_found", format!("cannot read the script `{shown}`: {error}"));
        }
    };
    if script.extension().is_some_and(|extension| extension == "py") {
        return match (uv, has_dependencies(&head)) {
            (Some(uv), true) => prepared(uv, script, env).await,
            _ => Ok(vec!["python3".into(), script.into()]),
        };
    }
    let executable = fs::metadata(script).is_ok_and(|facts| facts.permissions().mode() & 0o111 != 0);
    if !executable {
        return unusable(
            "not_executable",
            format!("the script `{shown}` is neither Python nor executable; run `chmod +x {shown}`"),
        );
    }
    Ok(vec![script.into()])
}

fn read_head(script: &Path) -> std::io::Result<String> {
    let mut head = Vec::new();
    fs::File::open(script)?.take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Whether a PEP 723 block (`# /// script` … `# ///`) names any dependency.
fn has_dependencies(head: &str) -> bool {
    let block: String = head
        .lines()
        .skip_while(|line| line.trim_end() != "# /// script")
        .skip(1)
        .take_while(|line| line.starts_with('#') && line.trim_end() != "# ///")
        .map(|line| line.trim_start_matches('#'))
        .collect::<Vec<_>>()
        .join("\n");
    let Some((_, after)) = block.split_once("dependencies") else { return false };
    let list = after.trim_start().trim_start_matches('=').trim_start();
    list.strip_prefix('[')
        .is_some_and(|list| list.split(']').next().is_some_and(|items| items.contains(['"', '\''])))
}

async fn prepared(uv: &Path, script: &Path, env: &Environment) -> Result<Vec<OsString>, TaskError> {
    let command = |words: &[&str]| {
        let mut argv: Vec<OsString> = vec![uv.into()];
        argv.extend(words.iter().map(OsString::from));
        argv.push(script.into());
        Program { argv, env: env.clone(), folder: None }
    };
    said(&command(&["sync", "--quiet", "--script"]), script).await?;
    let interpreter = said(&command(&["python", "find", "--script"]), script).await?;
    Ok(vec![interpreter.trim().into(), script.into()])
}

/// Runs a program to its end and returns what it printed.
async fn said(program: &Program, script: &Path) -> Result<String, TaskError> {
    use tokio::io::AsyncReadExt as _;
    let failed = |why: String, tail: Option<String>| {
        let message = format!("cannot prepare the Python environment of `{}`: {why}", script.display());
        TaskError { tail, ..TaskError::new(FailureClass::Crash, "environment_failed", message) }
    };
    let mut group = Group::spawn(program).map_err(|error| failed(error.to_string(), None))?;
    let (stdout, stderr) = (group.take_stdout(), group.take_stderr());
    let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
        return Err(failed("it has no output".into(), None));
    };
    let (mut text, mut noise) = (String::new(), Vec::new());
    let work = async {
        let (mut stdout, mut stderr) = (stdout.take(HEAD_BYTES), stderr.take(16 << 20));
        let (_, _, end) =
            tokio::join!(stdout.read_to_string(&mut text), stderr.read_to_end(&mut noise), group.ended());
        end
    };
    let end = tokio::time::timeout(PREPARE_MAX, work).await;
    let _ = group.stop(Duration::from_secs(1)).await;
    match end {
        Ok(crate::group::End::Exit(0)) => Ok(text),
        Ok(end) => {
            let mut log = Log::tail_only(TAIL_BYTES);
            log.write(&noise);
            Err(failed(format!("`uv` {end}"), log.tail()))
        }
        Err(_) => Err(failed(format!("`uv` took longer than {} s", PREPARE_MAX.as_secs()), None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_block_that_names_packages_needs_an_environment() {
        let with = "#!/usr/bin/env python3\n# /// script\n# requires-python = \">=3.10\"\n# dependencies = [\n#   \"numpy\",\n# ]\n# ///\nimport numpy\n";
        assert!(has_dependencies(with));
        assert!(!has_dependencies("# /// script\n# dependencies = []\n# ///\n"));
        assert!(!has_dependencies("# /// script\n# requires-python = \">=3.10\"\n# ///\n"));
        assert!(!has_dependencies("dependencies = [\"numpy\"]\n"));
    }

    #[tokio::test]
    async fn a_script_is_python_or_executable_or_refused_with_the_next_step() {
        let folder = tempfile::tempdir().unwrap();
        let python = folder.path().join("a.py");
        let shell = folder.path().join("b.sh");
        fs::write(&python, "print()").unwrap();
        fs::write(&shell, "#!/bin/sh\n").unwrap();
        let env = Environment::new();
        assert_eq!(find(None, &python, &env).await.unwrap()[0], "python3");
        let error = find(None, &shell, &env).await.unwrap_err();
        assert!(error.code == "not_executable" && error.message.contains("chmod +x"), "{error}");
        fs::set_permissions(&shell, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find(None, &shell, &env).await.unwrap(), [shell.as_os_str()]);
        assert_eq!(find(None, &folder.path().join("c"), &env).await.unwrap_err().code, "script_not_found");
    }

    #[tokio::test]
    async fn what_uv_names_is_the_interpreter_and_its_complaint_is_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("a.py");
        fs::write(&script, "# /// script\n# dependencies = [\"x\"]\n# ///\n").unwrap();
        let uv = folder.path().join("uv");
        let env: Environment = [("PATH".into(), "/usr/bin:/bin".into())].into();
        let write = |text: &str| {
            fs::write(&uv, text).unwrap();
            fs::set_permissions(&uv, fs::Permissions::from_mode(0o755)).unwrap();
        };
        write("#!/bin/sh\n[ \"$1\" = sync ] || echo /venv/bin/python\n");
        assert_eq!(find(Some(&uv), &script, &env).await.unwrap()[0], "/venv/bin/python");
        write("#!/bin/sh\necho no such package >&2; exit 2\n");
        let error = find(Some(&uv), &script, &env).await.unwrap_err();
        assert_eq!(
            (error.code.as_str(), error.tail.as_deref()),
            ("environment_failed", Some("no such package"))
        );
    }
}
