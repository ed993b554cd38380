//! Who owns a file, and who may change it: what is run must not be somebody else's to write.
//!
//! Not here: what to do about it (`settings` refuses to start, `intake` rejects a task).

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use model::config::Config;
use model::fault::Code;
use model::task::Script;
use model::{Fault, fault};

const OTHERS_WRITE: u32 = 0o002;
const GROUP_WRITES: u32 = 0o020;
const STICKY: u32 = 0o1000;

/// The users and groups of this machine, as its files name them. Directory services are not asked: a group that is
/// not listed here counts as shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

impl Accounts {
    fn of_this_machine() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/etc/passwd"), &read("/etc/group"))
    }

    fn parse(passwd: &str, group: &str) -> Self {
        let user = |line: &str| {
            let mut parts = line.split(':');
            let (name, _, uid, gid) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
            Some(User { name: name.to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()? })
        };
        let group_of = |line: &str| {
            let mut parts = line.split(':');
            let (name, _, gid) = (parts.next()?, parts.next()?, parts.next()?);
            let members = parts.next().unwrap_or_default().split(',').map(str::trim);
            let members = members.filter(|name| !name.is_empty()).map(str::to_owned).collect();
            Some(Group { name: name.to_owned(), gid: gid.parse().ok()?, members })
        };
        Self {
            users: passwd.lines().filter_map(user).collect(),
            groups: group.lines().filter_map(group_of).collect(),
        }
    }

    /// Whether nobody but this user is in the group.
    fn is_private(&self, gid: u32, owner: u32) -> bool {
        let Some(group) = self.groups.iter().find(|group| group.gid == gid) else { return false };
        let Some(owner) = self.users.iter().find(|user| user.uid == owner) else { return false };
        owner.gid == gid
            && group.members.iter().all(|member| *member == owner.name)
            && self.users.iter().all(|user| user.gid != gid || user.uid == owner.uid)
    }

    fn members(&self, gid: u32) -> BTreeSet<u32> {
        let named: BTreeSet<&str> = self
            .groups
            .iter()
            .filter(|group| group.gid == gid)
            .flat_map(|group| group.members.iter().map(String::as_str))
            .collect();
        let member = |user: &&User| user.gid == gid || named.contains(user.name.as_str());
        self.users.iter().filter(member).map(|user| user.uid).collect()
    }

    fn group_id(&self, name: &str) -> Option<u32> {
        let by_name = self.groups.iter().find(|group| group.name == name).map(|group| group.gid);
        by_name.or_else(|| name.parse().ok())
    }
}

/// The number of a group given by name or number.
#[must_use]
pub fn group_id(name: &str) -> Option<u32> {
    Accounts::of_this_machine().group_id(name)
}

/// The users who may drop tasks into a spool shared with this group: its members, root, and whoever runs this.
#[must_use]
pub fn who_may_drop(shared_group: &str) -> BTreeSet<u32> {
    let accounts = Accounts::of_this_machine();
    let mut users = accounts.group_id(shared_group).map(|gid| accounts.members(gid)).unwrap_or_default();
    users.extend([0, rustix::process::geteuid().as_raw()]);
    users
}

/// Whose a folder may be, and who may write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Ours or root's, and not everybody's to write.
    Own,
    /// Likewise, but one where everybody may only add files of his own (`/tmp`) will do.
    OwnOrSticky,
    /// Anybody's, but not everybody's to write: a spool that a group shares.
    Shared,
}

/// Why a folder must not be trusted, as a fragment; none if it may, or if it does not exist.
#[must_use]
pub fn distrust_folder(folder: &Path, trust: Trust) -> Option<String> {
    let meta = fs::metadata(folder).ok()?;
    let me = rustix::process::geteuid().as_raw();
    if trust == Trust::OwnOrSticky && meta.mode() & STICKY != 0 {
        return None;
    }
    if meta.mode() & OTHERS_WRITE != 0 {
        return Some(format!("everybody may write it (mode {:o}); `chmod o-w` it", meta.mode() & 0o7777));
    }
    if trust != Trust::Shared && meta.uid() != me && meta.uid() != 0 {
        return Some(format!(
            "it belongs to user {}, and this runs as user {me}; run it as that user, or `chown` it",
            meta.uid()
        ));
    }
    None
}

/// Why a file must not be run or believed, as a fragment; none if it may. Besides root and whoever runs this, `also`
/// may own it.
fn distrust(meta: &Metadata, also: Option<u32>, accounts: &dyn Fn() -> Accounts) -> Option<String> {
    let me = rustix::process::geteuid().as_raw();
    if ![Some(me), Some(0), also].contains(&Some(meta.uid())) {
        return Some(format!("it belongs to user {}", meta.uid()));
    }
    if meta.mode() & OTHERS_WRITE != 0 {
        return Some("everybody may write it; `chmod o-w` it".into());
    }
    if meta.mode() & GROUP_WRITES != 0 && !accounts().is_private(meta.gid(), meta.uid()) {
        return Some(format!("the members of group {} may write it; `chmod g-w` it", meta.gid()));
    }
    None
}

/// Why this file must not be believed as a configuration; none if it may.
#[must_use]
pub fn distrust_config(path: &Path) -> Option<String> {
    let meta = fs::metadata(path).ok()?;
    distrust(&meta, None, &Accounts::of_this_machine)
}

/// The file a task's script stands for. It exists, lies inside a directory of `script_dirs` also after links are
/// resolved (a registered one may lie anywhere), and nobody else may change it. `config_owner` is the owner of
/// `config.json`, who may own scripts.
///
/// # Errors
/// `unknown_script`, with what to do.
pub fn script_path(config: &Config, config_owner: Option<u32>, script: &Script) -> Result<PathBuf, Fault> {
    let refuse = |message: String, next: String| {
        Fault::new(Code::UnknownScript, message).in_field("script").next(next)
    };
    let (written, registered) = match script {
        Script::File(path) => (path.clone(), false),
        Script::Registered(name) => match config.scripts.get(name) {
            Some(entry) => (entry.path.clone(), true),
            None => {
                let next = format!("registered are: {}", config.script_names());
                return Err(refuse(format!("no script is called `{name}`"), next));
            }
        },
    };
    let shown = written.display().to_string();
    let candidates = if registered { around(config, &written) } else { inside(config, &written) };
    let Some(path) = candidates.iter().find_map(|path| fs::canonicalize(path).ok()) else {
        let next = if registered {
            format!("correct the `path` of `scripts.{script}` in config.json")
        } else {
            did_you_mean_file(config, &written)
        };
        let tried = match candidates.as_slice() {
            [only] if *only == written => String::new(),
            all => {
                let all: Vec<String> = all.iter().map(|path| path.display().to_string()).collect();
                format!("; tried {}", all.join(", "))
            }
        };
        return Err(refuse(format!("there is no file {shown}{tried}"), next));
    };
    let home = config
        .script_dirs
        .iter()
        .filter_map(|dir| fs::canonicalize(dir).ok())
        .find(|dir| path.starts_with(dir));
    if home.is_none() && !registered {
        let next = format!(
            "put it there, or register it with `\"scripts\": {{\"NAME\": {{\"path\": \"{shown}\"}}}}` in config.json"
        );
        return Err(refuse(
            format!("{} lies outside of every directory of `script_dirs`", path.display()),
            next,
        ));
    }
    let meta =
        fs::metadata(&path).map_err(|error| refuse(format!("{}: {error}", path.display()), String::new()))?;
    if !meta.is_file() {
        return Err(refuse(format!("{} is not a file", path.display()), "name a file".into()));
    }
    let accounts = Accounts::of_this_machine;
    let mut suspects = vec![path.clone()];
    if let Some(home) = home {
        suspects.extend(
            path.ancestors().skip(1).take_while(|folder| folder.starts_with(&home)).map(Path::to_owned),
        );
    }
    for suspect in suspects {
        let why = fs::metadata(&suspect).map(|meta| distrust(&meta, config_owner, &accounts));
        if let Some(why) = why.unwrap_or_else(|error: io::Error| Some(error.to_string())) {
            let message = format!("{} must not be run: {why}", suspect.display());
            return Err(refuse(
                message,
                "scripts belong to the user who runs gpuspool, and only that user writes them".into(),
            ));
        }
    }
    Ok(path)
}

/// The places the path of a task may mean: in each directory of `script_dirs`, whose own name may stand before it.
fn inside(config: &Config, written: &Path) -> Vec<PathBuf> {
    if written.is_absolute() {
        return vec![written.to_owned()];
    }
    let below = |dir: &PathBuf| {
        let without = dir.file_name().and_then(|name| written.strip_prefix(name).ok());
        [Some(written), without].into_iter().flatten().map(|tail| dir.join(tail)).collect::<Vec<_>>()
    };
    config.script_dirs.iter().flat_map(below).collect()
}

/// The places the path of a registered script may mean: as written, and of the same name in a directory of `script_dirs`.
fn around(config: &Config, written: &Path) -> Vec<PathBuf> {
    let name = written.file_name().map(Path::new);
    let elsewhere =
        name.into_iter().flat_map(|name| config.script_dirs.iter().map(move |dir| dir.join(name)));
    std::iter::once(written.to_owned()).chain(elsewhere).collect()
}

fn did_you_mean_file(config: &Config, written: &Path) -> String {
    let there: Vec<String> = config
        .script_dirs
        .iter()
        .filter_map(|dir| fs::read_dir(dir).ok())
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    let name = written.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let registered = format!("registered are: {}", config.script_names());
    match fault::did_you_mean(&name, there.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean `{meant}`? {registered}"),
        None => registered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    const PASSWD: &str =
        "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbob:x:1001:50::/:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nann:x:1000:\nstaff:x:50:ann\nlab:x:60:ann,bob\n";

    #[test]
    fn a_group_is_private_only_if_nobody_else_is_in_it() {
        let accounts = Accounts::parse(PASSWD, GROUP);
        assert!(accounts.is_private(1000, 1000));
        assert!(accounts.is_private(0, 0));
        assert!(!accounts.is_private(50, 1000), "staff has ann as a member and bob by his account");
        assert!(!accounts.is_private(60, 1001));
        assert!(!accounts.is_private(777, 1000), "a group nobody has heard of");
        assert_eq!(accounts.members(50), BTreeSet::from([1000, 1001]));
        assert_eq!((accounts.group_id("lab"), accounts.group_id("60")), (Some(60), Some(60)));
        assert_eq!(accounts.group_id("nobody-knows"), None);
    }

    fn house() -> (tempfile::TempDir, Config) {
        let dir = tempfile::tempdir().unwrap();
        let scripts = dir.path().join("scripts");
        fs::create_dir(&scripts).unwrap();
        fs::set_permissions(&scripts, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(scripts.join("ok.py"), "print({})").unwrap();
        let mut config = Config::default();
        config.anchor(&fs::canonicalize(dir.path()).unwrap());
        (dir, config)
    }

    fn find(config: &Config, path: &Path) -> Result<PathBuf, String> {
        script_path(config, None, &Script::File(path.to_owned())).map_err(|fault| {
            assert_eq!(fault.code, Code::UnknownScript);
            fault.to_string()
        })
    }

    #[test]
    fn a_script_that_only_we_can_write_is_run() {
        let (dir, config) = house();
        let path = find(&config, &config.script_dirs[0].join("ok.py")).unwrap();
        assert_eq!(path, fs::canonicalize(dir.path().join("scripts/ok.py")).unwrap());
    }

    #[test]
    fn a_script_that_everybody_can_write_is_not_nor_one_in_such_a_folder() {
        let (_dir, config) = house();
        let folder = &config.script_dirs[0];
        let path = folder.join("ok.py");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o646)).unwrap();
        assert!(find(&config, &path).unwrap_err().contains("everybody may write it"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(find(&config, &path).unwrap_err().contains("everybody may write it"));
    }

    #[test]
    fn a_link_out_of_the_script_folder_leads_nowhere() {
        let (dir, config) = house();
        let outside = dir.path().join("evil.py");
        fs::write(&outside, "").unwrap();
        let link = config.script_dirs[0].join("link.py");
        symlink(&outside, &link).unwrap();
        assert!(find(&config, &link).unwrap_err().contains("outside"));
        assert!(find(&config, &config.script_dirs[0].join("../evil.py")).unwrap_err().contains("outside"));
    }

    #[test]
    fn a_relative_path_is_looked_for_in_all_script_folders_in_their_order() {
        let (dir, mut config) = house();
        for (folder, names) in [("first", ["both.py", "one.py"]), ("second", ["both.py", "sub/two.py"])] {
            let folder = fs::canonicalize(dir.path()).unwrap().join(folder);
            for path in names.map(|name| folder.join(name)) {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, "print({})").unwrap();
                for made in [path.parent().unwrap(), &folder, &path] {
                    fs::set_permissions(made, fs::Permissions::from_mode(0o755)).unwrap();
                }
            }
            config.script_dirs.push(folder);
        }
        config.script_dirs.remove(0);
        let [first, second] = [0, 1].map(|at| config.script_dirs[at].clone());
        for (written, found) in [
            ("both.py", first.join("both.py")),
            ("second/both.py", second.join("both.py")),
            ("one.py", first.join("one.py")),
            ("sub/two.py", second.join("sub/two.py")),
            ("second/sub/two.py", second.join("sub/two.py")),
        ] {
            assert_eq!(find(&config, Path::new(written)).as_ref(), Ok(&found), "{written}");
        }
        // Another file of that name is another file.
        let said = find(&config, Path::new("elsewhere/one.py")).unwrap_err();
        let tried = [first, second].map(|dir| dir.join("elsewhere/one.py").display().to_string()).join(", ");
        assert!(said.contains(&format!("there is no file elsewhere/one.py; tried {tried}")), "{said}");
    }

    #[test]
    fn a_missing_script_is_answered_with_the_one_that_was_probably_meant() {
        let (_dir, config) = house();
        let said = find(&config, &config.script_dirs[0].join("okk.py")).unwrap_err();
        assert!(said.contains("did you mean `ok.py`?"), "{said}");
    }

    #[test]
    fn a_folder_everybody_writes_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(distrust_folder(dir.path(), Trust::Own), None);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(distrust_folder(dir.path(), Trust::Own).unwrap().contains("1777"));
        assert_eq!(distrust_folder(dir.path(), Trust::OwnOrSticky), None);
        assert_eq!(distrust_folder(&dir.path().join("none"), Trust::Own), None);
    }
}
