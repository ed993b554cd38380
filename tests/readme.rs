//! What the README says is so: its commands exist, its fields are the types' fields, its settings load.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn text() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("there is a README")
}

/// The contents of all fenced blocks in `language`.
fn blocks(language: &str) -> Vec<String> {
    let text = text();
    let mut found = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(block), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some(of)) if of == language => open = Some(String::new()),
            // A block in another language is skipped to its end.
            (None, Some(of)) if !of.is_empty() => open = None,
            (None, _) => {}
        }
    }
    assert!(!found.is_empty(), "the README has no block in `{language}`");
    found
}

/// The command lines of the README, comments cut off.
fn commands() -> Vec<Vec<String>> {
    let lines = blocks("sh").concat();
    let lines = lines.lines().map(|line| line.split(" # ").next().unwrap_or_default());
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

fn program(name: &str) -> Option<&'static str> {
    match name {
        "brain" => Some(env!("CARGO_BIN_EXE_brain")),
        "worker" => Some(env!("CARGO_BIN_EXE_worker")),
        "submit_batch" => Some(env!("CARGO_BIN_EXE_submit_batch")),
        "gpuspool" => Some(env!("CARGO_BIN_EXE_gpuspool")),
        _ => None,
    }
}

#[test]
fn its_scripts_are_there_and_can_be_run() {
    let mut looked_at = 0;
    for command in commands() {
        let Some(first) =
            command.first().filter(|word| word.trim_start_matches("./").starts_with("scripts/"))
        else {
            continue;
        };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(first.trim_start_matches("./"));
        let mode =
            fs::metadata(&path).unwrap_or_else(|error| panic!("{first}: {error}")).permissions().mode();
        assert!(mode & 0o100 != 0, "{first} cannot be run");
        looked_at += 1;
    }
    assert!(looked_at >= 2, "the two commands of the README are scripts");
}

#[test]
fn its_commands_know_their_verbs_and_options() {
    let mut looked_at = 0;
    for command in commands() {
        let Some(program) = command.first().and_then(|name| program(name)) else { continue };
        let line = command.join(" ");
        let mut help = Command::new(program);
        if command[0] == "gpuspool" {
            help.arg(&command[1]);
        }
        let output = help.arg("--help").output().expect("it can be started");
        assert!(output.status.success(), "`{line}`: {}", String::from_utf8_lossy(&output.stderr));
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        for option in command.iter().filter(|word| word.starts_with("--")) {
            assert!(help.contains(option.as_str()), "`{line}`: its help does not know {option}");
        }
        looked_at += 1;
    }
    assert!(looked_at >= 8, "only {looked_at} commands were recognised");
}

/// The names of the properties of a definition in a schema.
fn properties(schema: &Value) -> Vec<String> {
    schema["properties"].as_object().expect("an object has properties").keys().cloned().collect()
}

#[test]
fn it_names_every_field_of_the_picture() {
    let text = text();
    let section = text.split("### Reading `gpu_state.json`").nth(1).expect("there is such a section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let schemas = model::schema::all();
    let (_, schema) =
        schemas.iter().find(|(name, _)| *name == "gpu_state").expect("the picture has a schema");
    let schema = schema.as_value();
    let mut names = properties(schema);
    for definition in ["GpuPicture", "VramPicture", "Resident", "SlotPicture", "CpuPicture", "QueuePicture"] {
        names.extend(properties(&schema["$defs"][definition]));
    }
    for name in names {
        let said = [format!("`{name}`"), format!(".{name}`"), format!("`{name}.")];
        assert!(said.iter().any(|said| section.contains(said)), "the README does not say what `{name}` is");
    }
}

#[test]
fn its_table_of_task_fields_is_that_of_the_type() {
    let text = text();
    let table = text.split("### What a task may say").nth(1).expect("there is such a section");
    let table = table.split("\n## ").next().unwrap_or_default();
    let mut said = Vec::new();
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let cell = row.split(" | ").next().unwrap_or_default();
        said.extend(cell.split('`').skip(1).step_by(2).map(str::to_owned));
    }
    assert!(said.len() > 15, "{said:?}");
    for name in said {
        assert!(model::validate::TASK_KEYS.contains(&name.as_str()), "a task has no field `{name}`");
    }
}

#[test]
fn its_settings_load() {
    for block in blocks("json") {
        let whole = format!("{{{}}}", block.trim());
        let read = model::Config::parse(whole.as_bytes(), Path::new("/nowhere"));
        // An engine that a model names is in another block.
        let read = read.unwrap_or_else(|fault| panic!("{block}: {fault}"));
        assert!(read.warnings.is_empty(), "{block}: {:?}", read.warnings);
    }
}
