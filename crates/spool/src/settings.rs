//! Finding and reading `config.json`, and finding the spool; refusing what others could change.
//!
//! ```text
//! --config > GPUSPOOL_CONFIG > ./config.json > built in          --spool > GPUSPOOL_SPOOL > `spool` > shared/ beside it
//! ```
//! Not here: what the settings mean (`model::config`).

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use model::config::Config;
use model::{Fault, json};

use crate::layout::Layout;
use crate::rights::{self, Trust};

/// The configuration in force, and where it came from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Every setting.
    pub config: Config,
    /// The spool.
    pub layout: Layout,
    /// The file the configuration was read from; none if the built-in defaults hold.
    pub config_path: Option<PathBuf>,
    /// Oddities to be told once.
    pub warnings: Vec<String>,
}

/// Why nothing can start with these settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file that was named is not there.
    #[error("there is no configuration file {}; name another one, or leave it out to use ./config.json or the built-in defaults", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("failed to read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be understood, or a value is out of range.
    #[error("{}: {fault}{}", path.display(), shown.as_deref().map(|lines| format!("\n{lines}")).unwrap_or_default())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What and where.
        fault: Box<Fault>,
        /// The line, with a caret under the place.
        shown: Option<String>,
    },
    /// Somebody else could change what runs here.
    #[error("{} cannot be trusted: {why}", path.display())]
    Untrusted {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The spool cannot be made or written.
    #[error("the spool {} cannot be written: {source}; use `--spool` for another place", path.display())]
    Unwritable {
        /// The spool.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The spool lies where its renames or locks do not hold.
    #[error("the spool cannot lie there: {}: {why}", path.display())]
    WrongFileSystem {
        /// The folder.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
}

impl SettingsError {
    /// The exit status of a program that cannot start: 77 (not trusted), 78 (configuration) or 73 (cannot create).
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Untrusted { .. } => 77,
            Self::Unwritable { .. } => 73,
            Self::Missing { .. }
            | Self::Unreadable { .. }
            | Self::Broken { .. }
            | Self::WrongFileSystem { .. } => 78,
        }
    }
}

/// What else may name the two paths.
struct Surroundings {
    spool: Option<PathBuf>,
    config: Option<PathBuf>,
    here: PathBuf,
}

impl Settings {
    /// Finds and reads them. Nothing on the disk is changed.
    ///
    /// # Errors
    /// A named file that is missing, a file that cannot be read or understood, or something others may change.
    pub fn find(spool: Option<&Path>, config: Option<&Path>) -> Result<Self, SettingsError> {
        let named = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let here = env::current_dir()
            .map_err(|source| SettingsError::Unreadable { path: PathBuf::from("."), source })?;
        let around = Surroundings { spool: named("GPUSPOOL_SPOOL"), config: named("GPUSPOOL_CONFIG"), here };
        Self::find_in(&around, spool, config)
    }

    fn find_in(
        around: &Surroundings,
        spool: Option<&Path>,
        config: Option<&Path>,
    ) -> Result<Self, SettingsError> {
        let mut warnings = Vec::new();
        let named = config.map(Path::to_owned).or_else(|| around.config.clone());
        let explicit = named.is_some();
        let path = around.here.join(named.unwrap_or_else(|| PathBuf::from("config.json")));
        let folder = path.parent().unwrap_or(&around.here).to_owned();
        let (config, config_path) = match fs::read(&path) {
            Ok(bytes) => {
                check_rights_of_config(&path, &folder)?;
                (read_config(&bytes, &path, &folder, &mut warnings)?, Some(path))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && explicit => {
                return Err(SettingsError::Missing { path });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                warnings.push(format!("there is no {}; the built-in defaults hold", path.display()));
                let mut config = Config::default();
                config.anchor(&folder);
                (config, None)
            }
            Err(source) => return Err(SettingsError::Unreadable { path, source }),
        };
        let spool = spool
            .map(Path::to_owned)
            .or_else(|| around.spool.clone())
            .map(|path| around.here.join(path))
            .or_else(|| config.spool.clone())
            .unwrap_or_else(|| folder.join("shared"));
        let of_spool = if config.shared_group.is_some() { Trust::Shared } else { Trust::Own };
        let scripts = config.script_dirs.iter().map(|folder| (folder, Trust::Own));
        for (folder, trust) in scripts.chain([(&spool, of_spool)]) {
            if let Some(why) = rights::distrust_folder(folder, trust) {
                return Err(SettingsError::Untrusted { path: folder.clone(), why });
            }
        }
        Ok(Self { config, layout: Layout::new(spool), config_path, warnings })
    }

    /// Makes the spool's folders, sets their rights and checks its file system. Repeats harmlessly.
    ///
    /// # Errors
    /// A spool that cannot be written (73), or lies on the wrong file system (78).
    pub fn prepare(&mut self) -> Result<(), SettingsError> {
        let root = self.layout.root().to_owned();
        let unwritable = |source| SettingsError::Unwritable { path: root.clone(), source };
        self.layout.create().map_err(unwritable)?;
        if rustix::process::geteuid().is_root() {
            self.warnings.push(
                "this runs as root, and so will every script and engine; a user of its own is safer".into(),
            );
        }
        self.layout.protect(self.config.shared_group.as_deref()).map_err(unwritable)?;
        for folder in [self.layout.stage(), self.layout.requests()] {
            let may = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
            rustix::fs::access(&folder, may).map_err(|error| unwritable(error.into()))?;
        }
        self.check_one_device()?;
        self.check_file_system()
    }

    /// A rename never leaves its file system, so all folders must be on one.
    fn check_one_device(&self) -> Result<(), SettingsError> {
        let device = |folder: &Path| fs::metadata(folder).map(|meta| meta.dev()).ok();
        let root = device(self.layout.root());
        match self.layout.folders().into_iter().find(|folder| device(folder) != root) {
            None => Ok(()),
            Some(path) => Err(SettingsError::WrongFileSystem {
                path,
                why: "it is on another device than the spool itself (cross_device); tasks move by rename, so mount the whole spool as one".into(),
            }),
        }
    }

    fn check_file_system(&mut self) -> Result<(), SettingsError> {
        let path = self.layout.root().to_owned();
        let stat = rustix::fs::statfs(&path)
            .map_err(|error| SettingsError::Unwritable { path: path.clone(), source: error.into() })?;
        // The field's width and sign differ between machines; the magic numbers are 32 bits everywhere.
        match kind_of_file_system((stat.f_type as u64) & 0xffff_ffff) {
            FileSystem::Local => Ok(()),
            FileSystem::Doubtful(name) => {
                self.warnings.push(format!(
                    "the spool {} is on {name}, where a power cut or a lost event may cost more than elsewhere",
                    path.display()
                ));
                Ok(())
            }
            FileSystem::Network(name) if self.config.allow_network_fs => {
                self.warnings.push(format!(
                    "the spool {} is on {name}, as `allow_network_fs` permits",
                    path.display()
                ));
                Ok(())
            }
            FileSystem::Network(name) => Err(SettingsError::WrongFileSystem {
                path,
                why: format!(
                    "{name} shows neither events nor locks of other machines; use a local disk with `--spool`, or set `allow_network_fs`"
                ),
            }),
        }
    }

    /// Who owns `config.json`; that user may own scripts.
    #[must_use]
    pub fn config_owner(&self) -> Option<u32> {
        self.config_path.as_ref().and_then(|path| fs::metadata(path).ok()).map(|meta| meta.uid())
    }
}

fn check_rights_of_config(path: &Path, folder: &Path) -> Result<(), SettingsError> {
    if let Some(why) = rights::distrust_config(path) {
        return Err(SettingsError::Untrusted { path: path.to_owned(), why });
    }
    match rights::distrust_folder(folder, Trust::OwnOrSticky) {
        Some(why) => Err(SettingsError::Untrusted { path: folder.to_owned(), why }),
        None => Ok(()),
    }
}

fn read_config(
    bytes: &[u8],
    path: &Path,
    folder: &Path,
    warnings: &mut Vec<String>,
) -> Result<Config, SettingsError> {
    match Config::parse(bytes, folder) {
        Ok(read) => {
            warnings
                .extend(read.warnings.into_iter().map(|warning| format!("{}: {warning}", path.display())));
            Ok(read.value)
        }
        Err(fault) => {
            let shown = std::str::from_utf8(bytes).ok().and_then(|text| json::caret(text, &fault));
            Err(SettingsError::Broken { path: path.to_owned(), fault: Box::new(fault), shown })
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileSystem {
    Local,
    /// Works, with a word of warning.
    Doubtful(&'static str),
    Network(&'static str),
}

const fn kind_of_file_system(magic: u64) -> FileSystem {
    match magic {
        0x6969 => FileSystem::Network("NFS"),
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => FileSystem::Network("SMB"),
        0x00c3_6400 => FileSystem::Network("Ceph"),
        0x0bd0_0bd0 => FileSystem::Network("Lustre"),
        0x4750_4653 => FileSystem::Network("GPFS"),
        0x1983_0326 => FileSystem::Network("BeeGFS"),
        0x5346_414f => FileSystem::Network("AFS"),
        0x6573_5546 => FileSystem::Doubtful("a FUSE file system"),
        0x0102_1997 => FileSystem::Doubtful("a 9p file system"),
        0x794c_7630 => FileSystem::Doubtful("an overlay file system"),
        _ => FileSystem::Local,
    }
}

/// A program of this package: beside the running one, else on the PATH.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let sibling = env::current_exe().ok().and_then(|own| Some(own.parent()?.join(name)));
    let on_path = env::var_os("PATH")
        .map(|path| env::split_paths(&path).map(|folder| folder.join(name)).collect::<Vec<_>>())
        .unwrap_or_default();
    sibling.into_iter().chain(on_path).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct House {
        dir: tempfile::TempDir,
        around: Surroundings,
    }

    fn house() -> House {
        let dir = tempfile::tempdir().unwrap();
        let here = fs::canonicalize(dir.path()).unwrap();
        House { dir, around: Surroundings { spool: None, config: None, here } }
    }

    impl House {
        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.around.here.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        }
        fn find(&self) -> Result<Settings, SettingsError> {
            Settings::find_in(&self.around, None, None)
        }
        fn code(&self) -> u8 {
            self.find().unwrap_err().exit_code()
        }
    }

    #[test]
    fn without_a_file_the_defaults_hold_and_say_so() {
        let house = house();
        let settings = house.find().unwrap();
        assert_eq!(settings.config_path, None);
        assert_eq!(settings.layout.root(), house.around.here.join("shared"));
        assert_eq!(settings.config.script_dirs, [house.around.here.join("scripts")]);
        assert!(settings.warnings[0].contains("built-in defaults"));
        assert!(!settings.layout.root().exists(), "finding changes nothing");
    }

    #[test]
    fn a_named_file_that_is_missing_is_an_error_and_a_spool_is_named_in_four_ways() {
        let mut house = house();
        let nowhere = Settings::find_in(&house.around, None, Some(Path::new("no.json"))).unwrap_err();
        assert_eq!(nowhere.exit_code(), 78);
        assert!(nowhere.to_string().contains("no.json"));
        house.write("etc/config.json", r#"{"spool": "s1", "timing": {"settle_s": 7}}"#);
        house.around.config = Some("etc/config.json".into());
        let here = house.around.here.clone();
        let found = house.find().unwrap();
        assert_eq!((found.layout.root(), found.config.timing.settle_s), (&*here.join("etc/s1"), 7.0));
        assert_eq!(found.config_owner(), Some(rustix::process::geteuid().as_raw()));
        house.around.spool = Some("s2".into());
        assert_eq!(house.find().unwrap().layout.root(), here.join("s2"));
        let flag = Settings::find_in(&house.around, Some(Path::new("s3")), None).unwrap();
        assert_eq!(flag.layout.root(), here.join("s3"));
    }

    #[test]
    fn a_broken_file_is_shown_with_a_caret_and_a_typing_error_with_what_was_meant() {
        let house = house();
        house.write("config.json", "{\n  \"gpus\": \"auto\",\n}");
        let error = house.find().unwrap_err();
        assert_eq!(error.exit_code(), 78);
        assert!(error.to_string().ends_with("(invalid_json)\n}\n^"), "{error}");
        house.write("config.json", r#"{"gpsu": "auto", "retry": {"max_attempts": 2}}"#);
        let settings = house.find().unwrap();
        assert!(settings.warnings[0].contains("did you mean `gpus`?"), "{:?}", settings.warnings);
        house.write("config.json", r#"{"shutdown": {"running_share": 7}}"#);
        let error = house.find().unwrap_err();
        assert_eq!(error.exit_code(), 78);
        assert!(error.to_string().contains("`shutdown.running_share`: 7 is not within 0 to 1"), "{error}");
    }

    #[test]
    fn what_everybody_may_write_is_refused() {
        let house = house();
        let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let config = house.write("config.json", "{}");
        open(&config, 0o666);
        assert_eq!(house.code(), 77);
        open(&config, 0o644);
        house.write("shared/x", "");
        open(&house.around.here.join("shared"), 0o777);
        assert_eq!(house.code(), 77);
        open(&house.around.here.join("shared"), 0o700);
        house.write("scripts/x", "");
        open(&house.around.here.join("scripts"), 0o777);
        let error = house.find().unwrap_err();
        assert!(error.to_string().contains("scripts cannot be trusted: everybody may write it"), "{error}");
        open(&house.around.here.join("scripts"), 0o755);
        open(house.dir.path(), 0o777);
        assert_eq!(house.code(), 77);
        open(house.dir.path(), 0o700);
        house.find().unwrap();
    }

    #[test]
    fn a_spool_is_made_ready_once_and_again() {
        let house = house();
        let mut settings = house.find().unwrap();
        settings.prepare().unwrap();
        settings.prepare().unwrap();
        assert!(settings.layout.processing().is_dir());
        house.write("file", "");
        let mut blocked = Settings::find_in(&house.around, Some(Path::new("file/spool")), None).unwrap();
        assert_eq!(blocked.prepare().unwrap_err().exit_code(), 73);
    }

    #[test]
    fn a_network_file_system_is_refused_unless_it_is_allowed() {
        assert_eq!(kind_of_file_system(0x6969), FileSystem::Network("NFS"));
        assert_eq!(kind_of_file_system(0xef53), FileSystem::Local);
        assert!(matches!(kind_of_file_system(0x794c_7630), FileSystem::Doubtful(_)));
    }

    #[test]
    fn a_program_is_found_on_the_path() {
        assert!(is_program(&program("sh").unwrap()));
        assert_eq!(program("no-such-program-anywhere"), None);
    }
}
