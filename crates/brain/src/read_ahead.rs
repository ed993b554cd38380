//! Reading model files ahead of their load: the kernel is asked to, and nobody waits for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use model::Config;
use rustix::fs::{Advice, fadvise};

/// The model files that are known.
#[derive(Debug)]
pub(crate) struct ModelFiles {
    files: BTreeMap<String, PathBuf>,
}

impl ModelFiles {
    /// Those that the configuration names.
    pub(crate) fn of(config: &Config) -> Self {
        let files =
            config.models.iter().filter_map(|(name, entry)| Some((name.clone(), entry.file.clone()?)));
        Self { files: files.collect() }
    }

    /// Has the file of a model read into the page cache, off the loop. What cannot be read is left alone: it is a
    /// courtesy to the load that follows, and that one says what is wrong.
    pub(crate) fn read_ahead(&self, model: &str) {
        let Some(path) = self.files.get(model).cloned() else { return };
        tokio::task::spawn_blocking(move || match advise(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "read ahead"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "failed to read ahead"),
        });
    }
}

fn advise(path: &Path) -> std::io::Result<()> {
    fadvise(File::open(path)?, 0, None, Advice::WillNeed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_is_read_and_one_that_is_not_is_an_error() {
        let folder = std::env::temp_dir().join(format!("read-ahead-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("model.gguf");
        std::fs::write(&file, vec![7; 1 << 20]).unwrap();
        assert!(advise(&file).is_ok());
        assert!(advise(&folder.join("missing.gguf")).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
