//! The rules of the house, so that they hold without anybody watching.
//!
//! Arrows between crates, the top level, lengths of files, module docs, checked-in schemas. A rule that a compiler or
//! clippy can hold is not here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Who may know whom. What is not in the list is forbidden; what is in it need not be used.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("policy", &["model"]),
    ("spool", &["model"]),
    ("hardware", &["model"]),
    ("engine", &["model"]),
    ("door", &["model"]),
    ("simulate", &["model", "policy"]),
    ("brain", &["model", "policy", "spool", "hardware", "door"]),
    ("worker", &["model", "spool", "hardware", "engine"]),
    ("submit_batch", &["model", "spool"]),
    ("cli", &["model", "spool", "hardware", "engine", "simulate", "policy"]),
    ("embedded", &[]),
    ("gpuspool", &["brain", "worker", "submit_batch", "cli"]),
];

/// Everything that may stand at the top; what begins with a dot is free, what git ignores is not looked at.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "config.json",
    "crates",
    "scripts",
    "shared",
    "tests",
];

/// A file a person can hold in the head, and the length at which this stops being a matter of taste.
const LINES_WISHED: usize = 500;
const LINES_MAX: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text_of(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// All files below `folder` for which `wanted` holds, sorted; build outputs and caches left out.
fn files_below(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && name != "__pycache__" && !name.starts_with('.') {
                folders.push(path);
            } else if path.is_file() && wanted(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|extension| extension == wanted)
}

fn rust_sources() -> Vec<PathBuf> {
    let mut all = files_below(&root().join("crates"), &|path| has_extension(path, "rs"));
    all.extend(files_below(&root().join("tests"), &|path| has_extension(path, "rs")));
    all
}

/// The packages of this workspace as cargo sees them.
fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo speaks JSON");
    metadata["packages"].as_array().expect("a list of packages").clone()
}

/// `gpuspool-brain` is the room `brain`; the root package is `gpuspool`.
fn room(package: &str) -> &str {
    package.strip_prefix("gpuspool-").unwrap_or(package)
}

/// What each room needs, by the kind of need: `normal`, `dev`, `build`.
fn needs(kind: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::new();
    for package in packages() {
        let name = package["name"].as_str().expect("a package has a name").to_owned();
        let needs = package["dependencies"]
            .as_array()
            .expect("a list of dependencies")
            .iter()
            .filter(|need| need["kind"].as_str().unwrap_or("normal") == kind)
            .map(|need| need["name"].as_str().expect("a dependency has a name").to_owned());
        all.insert(name, needs.collect());
    }
    all
}

#[test]
fn rooms_know_only_the_rooms_the_arrows_name() {
    let mut strays = Vec::new();
    for (package, needs) in needs("normal").into_iter().chain(needs("build")) {
        let Some((_, known)) = ARROWS.iter().find(|(name, _)| *name == room(&package)) else {
            strays.push(format!("`{package}` is in no arrow"));
            continue;
        };
        let ours = needs.iter().filter(|need| need.starts_with("gpuspool"));
        for need in ours.filter(|need| !known.contains(&room(need))) {
            strays.push(format!("{package} → {need}"));
        }
    }
    assert!(strays.is_empty(), "arrows that the design does not have: {}", strays.join(", "));
}

#[test]
fn even_tests_of_a_room_do_not_reach_into_a_sibling() {
    // Only the root's tests see several rooms: they are about the whole.
    for (package, needs) in needs("dev").into_iter().filter(|(package, _)| package != "gpuspool") {
        let known =
            ARROWS.iter().find(|(name, _)| *name == room(&package)).map_or(&[][..], |(_, known)| known);
        let strays: Vec<_> = needs
            .iter()
            .filter(|need| need.starts_with("gpuspool") && !known.contains(&room(need)))
            .collect();
        assert!(strays.is_empty(), "tests of {package} reach into {strays:?}");
    }
}

#[test]
fn the_mind_has_words_and_errors_and_nothing_else() {
    let all = needs("normal");
    let policy: Vec<&str> = all["gpuspool-policy"].iter().map(String::as_str).collect();
    assert_eq!(policy, ["gpuspool-model", "thiserror"]);
}

#[test]
fn the_mind_reads_no_clock_no_file_and_no_hash_order() {
    let banned =
        ["std::fs", "std::net", "std::process", "std::thread", "std::env", "SystemTime", "Instant::now"];
    let hashed = ["HashMap", "HashSet", "RandomState"];
    for path in files_below(&root().join("crates/policy/src"), &|path| has_extension(path, "rs")) {
        let text = text_of(&path);
        for word in banned.iter().chain(&hashed) {
            assert!(!text.contains(word), "{} says `{word}`", relative(&path));
        }
    }
}

#[test]
fn the_top_level_is_what_it_is() {
    let ignored = ["target", "models"];
    let mut names: BTreeSet<String> = BTreeSet::new();
    for entry in fs::read_dir(root()).expect("the tree can be listed") {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !ignored.contains(&name.as_str()) {
            names.insert(name);
        }
    }
    let wanted: BTreeSet<String> = TOP_LEVEL.iter().map(|name| (*name).to_owned()).collect();
    let extra: Vec<_> = names.difference(&wanted).collect();
    let missing: Vec<_> = wanted.difference(&names).collect();
    assert!(extra.is_empty() && missing.is_empty(), "too much at the top: {extra:?}; missing: {missing:?}");
}

#[test]
fn the_queues_stand_in_a_fresh_clone() {
    let layout = spool::layout::Layout::new(root().join("shared"));
    for class in model::TaskClass::ALL {
        for priority in model::Priority::ALL {
            let keep = layout.queue(class, priority).join(".gitkeep");
            assert!(keep.is_file(), "{} is missing: nobody could drop a task there", relative(&keep));
        }
    }
}

#[test]
fn no_file_is_longer_than_a_person_can_hold() {
    let mut all = rust_sources();
    all.extend(files_below(&root().join("scripts"), &|path| {
        path.extension().is_none_or(|extension| extension == "py")
    }));
    let lengths = all.iter().map(|path| (text_of(path).lines().count(), relative(path)));
    let long: Vec<_> = lengths.filter(|(lines, _)| *lines > LINES_WISHED).collect();
    for (lines, path) in &long {
        println!("long: {path} has {lines} lines; {LINES_WISHED} are wished");
    }
    let too_long: Vec<_> = long.iter().filter(|(lines, _)| *lines > LINES_MAX).collect();
    assert!(too_long.is_empty(), "files beyond {LINES_MAX} lines; split them by noun: {too_long:?}");
}

#[test]
fn every_room_says_what_it_is_for() {
    // A file of tests is a part of the room it stands in, and has nothing else to say.
    for path in rust_sources().into_iter().filter(|path| !path.ends_with("tests.rs")) {
        let text = text_of(&path);
        let first = text.lines().find(|line| !line.starts_with("#!") && !line.trim().is_empty());
        assert!(first.is_some_and(|line| line.starts_with("//!")), "{} has no module doc", relative(&path));
    }
}

#[test]
fn every_room_is_on_the_map() {
    let map = text_of(&root().join("crates/README.md"));
    for entry in fs::read_dir(root().join("crates")).expect("crates can be listed") {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            assert!(map.contains(&format!("## {name}")), "crates/README.md has no section on `{name}`");
        }
    }
}

#[test]
fn schemas_in_the_tree_are_those_of_the_types() {
    let folder = root().join("crates/model/schemas");
    let mut expected = BTreeSet::new();
    for (name, schema) in model::schema::all() {
        let path = folder.join(format!("{name}.schema.json"));
        let fresh = model::schema::text(&schema).expect("a schema is JSON");
        let stale = format!(
            "{} is not what the types say; run `cargo run --bin gpuspool -- schema --write crates/model/schemas`",
            relative(&path)
        );
        assert!(path.is_file() && text_of(&path) == fresh, "{stale}");
        expected.insert(path);
    }
    let there = files_below(&folder, &|_| true);
    assert_eq!(there, Vec::from_iter(expected), "a schema that no type has, or one too few");
}

#[test]
fn the_shipped_configuration_is_understood_to_the_last_word() {
    let bytes = fs::read(root().join("config.json")).expect("config.json is there");
    let read = model::Config::parse(&bytes, root()).expect("config.json is valid");
    assert!(read.warnings.is_empty(), "{:?}", read.warnings);
    let manager = &read.value.resource_manager;
    assert_eq!(manager.batch_settings.auto_exclusive_threshold, 50);
    for (name, script) in &read.value.scripts {
        assert!(script.path.is_file(), "script `{name}`: {} is not there", script.path.display());
    }
    let schema = read.value.schema.expect("editors are told where the schema is");
    assert!(root().join(&schema).is_file(), "{schema} is not there");
}
