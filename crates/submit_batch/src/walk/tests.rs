//! Trees and what is found in them.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

/// A folder with these files; a name that ends with `/` is a folder, `a -> b` a link.
fn tree(names: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for name in names {
        let (name, target) =
            name.split_once(" -> ").map_or((*name, None), |(name, target)| (name, Some(target)));
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match target {
            Some(target) => symlink(target, &path).unwrap(),
            None if name.ends_with('/') => fs::create_dir_all(&path).unwrap(),
            None => fs::write(&path, b"media").unwrap(),
        }
    }
    root
}

fn relative(found: &Found) -> Vec<String> {
    found.media.iter().map(|media| media.relative.display().to_string()).collect()
}

fn reasons(found: &Found) -> Vec<(String, &'static str)> {
    let below =
        |one: &PassedOver| one.path.strip_prefix(&found.base).unwrap_or(&one.path).display().to_string();
    let mut reasons: Vec<_> = found.passed_over.iter().map(|one| (below(one), one.why.name())).collect();
    reasons.sort();
    reasons
}

fn refusal(paths: &[PathBuf]) -> String {
    let failure = gather(paths).expect_err("it must be refused");
    assert_eq!(failure.exit_code(), 66, "{failure}");
    failure.to_string()
}

#[test]
fn a_folder_is_walked_to_its_leaves_and_everything_left_out_has_a_reason() {
    let root = tree(&[
        "b.MP4",
        "a/x.webm",
        "a/deep/er/y.mp3",
        "a/x.txt",
        "a/x.json",
        "notes.pdf",
        ".hidden.mp4",
        ".cache/z.mp4",
        "c.mp4.part",
        "d.crdownload",
        "e.zip",
        "f.zim",
        "elsewhere/",
        "noending",
    ]);
    fs::write(root.path().join("empty.mp4"), b"").unwrap();
    let found = gather(&[root.path().to_owned()]).unwrap();
    assert_eq!(relative(&found), ["a/deep/er/y.mp3", "a/x.webm", "b.MP4"]);
    let expected = [
        (".cache", "hidden"),
        (".hidden.mp4", "hidden"),
        ("a/x.json", "not_media"),
        ("a/x.txt", "not_media"),
        ("c.mp4.part", "partial"),
        ("d.crdownload", "partial"),
        ("e.zip", "archive"),
        ("empty.mp4", "empty"),
        ("f.zim", "archive"),
        ("noending", "not_media"),
        ("notes.pdf", "not_media"),
    ];
    assert_eq!(reasons(&found), expected.map(|(path, why)| (path.to_owned(), why)));
}

#[test]
fn links_to_files_are_followed_and_links_to_folders_are_not() {
    let root = tree(&[
        "in/real.mp4",
        "in/link.mp4 -> real.mp4",
        "in/outside.mp4 -> ../out/o.mp4",
        "in/loop -> ..",
        "in/gone.mp4 -> nowhere",
        "in/self.mp4 -> self.mp4",
        "out/o.mp4",
    ]);
    let found = gather(&[root.path().join("in")]).unwrap();
    assert_eq!(relative(&found), ["link.mp4", "outside.mp4", "real.mp4"]);
    let expected = [("gone.mp4", "broken_link"), ("loop", "linked_folder"), ("self.mp4", "unreadable")];
    assert_eq!(reasons(&found), expected.map(|(path, why)| (path.to_owned(), why)));
}

#[test]
fn what_is_no_plain_readable_file_is_left_out() {
    let root = tree(&["a.mp4", "component.ts", "stream.ts"]);
    fs::write(root.path().join("stream.ts"), b"G\x40\x00\x10\x00").unwrap();
    let odd = root.path().join(std::ffi::OsStr::from_bytes(b"odd\xff.mp4"));
    fs::write(odd, b"media").unwrap();
    fs::create_dir(root.path().join("folder.mp4")).unwrap();
    let status = std::process::Command::new("mkfifo").arg(root.path().join("pipe.mp4")).status().unwrap();
    assert!(status.success());
    let found = gather(&[root.path().to_owned()]).unwrap();
    assert_eq!(relative(&found), ["a.mp4", "stream.ts"]);
    let whys: Vec<&str> = reasons(&found).into_iter().map(|(_, why)| why).collect();
    assert_eq!(whys, ["not_media", "name_not_utf8", "not_a_file"]);
}

#[test]
fn an_unreadable_folder_is_named_and_the_rest_goes_on() {
    let root = tree(&["a.mp4", "locked/b.mp4"]);
    let locked = root.path().join("locked");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    // Nothing is closed to root.
    let closed = fs::read_dir(&locked).is_err();
    let found = gather(&[root.path().to_owned()]).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o700)).unwrap();
    let expected: &[&str] = if closed { &["a.mp4"] } else { &["a.mp4", "locked/b.mp4"] };
    assert_eq!(relative(&found), expected);
    assert_eq!(found.passed_over.len(), usize::from(closed));
}

#[test]
fn many_paths_share_the_deepest_folder_and_a_file_counts_once() {
    let root = tree(&["talks/a/x.mp4", "talks/b/x.mp4"]);
    let talks = root.path().join("talks");
    let found = gather(&[talks.join("a"), talks.join("b/x.mp4"), talks.join("a/x.mp4")]).unwrap();
    assert_eq!(relative(&found), ["a/x.mp4", "b/x.mp4"]);
    assert_eq!(reasons(&found), [("a/x.mp4".to_owned(), "named_twice")]);
    let one = gather(&[talks.join("a/x.mp4")]).unwrap();
    assert_eq!(relative(&one), ["x.mp4"]);
}

#[test]
fn a_list_names_paths_relative_to_itself() {
    let root = tree(&["lists/monday.txt", "media/a.mp4", "media/more/b.webm", "media/c.mp4"]);
    let list = root.path().join("lists/monday.txt");
    fs::write(&list, "# monday\n../media/a.mp4\n\n../media/more\n").unwrap();
    let argument = PathBuf::from(format!("@{}", list.display()));
    assert_eq!(relative(&gather(std::slice::from_ref(&argument)).unwrap()), ["a.mp4", "more/b.webm"]);
    fs::write(&list, "../media/a.mp4\n../media/gone.mp4\n").unwrap();
    let said = refusal(std::slice::from_ref(&argument));
    assert!(said.contains("gone.mp4") && said.contains("line 2 of"), "{said}");
    fs::write(&list, "# nothing\n").unwrap();
    assert!(refusal(&[argument]).contains("names nothing"));
}

#[test]
fn what_cannot_be_submitted_at_all_is_refused_with_the_next_step() {
    let root = tree(&["a.zim", "b.tar.gz", "list.txt", "page.html", "nothing/", "texts/a.txt"]);
    for (name, said) in [
        ("gone", "there is no such file or folder"),
        ("a.zim", "archives cannot be read yet; unpack it"),
        ("b.tar.gz", "archives cannot be read yet; unpack it"),
        ("list.txt", "is it a list? then write `@"),
        ("page.html", "not media by its name"),
        ("nothing", "no media in it, it is empty; nothing was submitted"),
        ("texts", "no media in it (left out: 1 not media by its name); nothing was submitted"),
        ("@gone.txt", "gone.txt"),
    ] {
        let path = if name.starts_with('@') { PathBuf::from(name) } else { root.path().join(name) };
        let refused = refusal(&[path]);
        assert!(refused.contains(said), "{refused}");
    }
}

#[test]
fn a_folder_named_like_an_archive_is_a_folder() {
    let root = tree(&["urban-prepper.zim/videos/abc.webm"]);
    let found = gather(&[root.path().join("urban-prepper.zim")]).unwrap();
    assert_eq!(relative(&found), ["videos/abc.webm"]);
}
