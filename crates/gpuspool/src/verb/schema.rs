//! `gpuspool schema`: the JSON Schemas of the documents on disk.

use std::path::PathBuf;

use clap::Args;
use model::fault::did_you_mean;

use crate::console::Console;
use crate::failure::{Failure, exit};

/// Options of `schema`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The document; without it all names are listed.
    name: Option<String>,
    /// Write every schema into this folder, as `<name>.schema.json`.
    #[arg(long, value_name = "DIR", conflicts_with = "name")]
    write: Option<PathBuf>,
}

pub(crate) fn run(options: &Options, console: &mut Console<'_>) -> Result<u8, Failure> {
    let schemas = model::schema::all();
    let text = |schema: &_| {
        model::schema::text(schema)
            .map_err(|error| Failure::new(exit::IO, format!("failed to write a schema: {error}")))
    };
    if let Some(folder) = &options.write {
        std::fs::create_dir_all(folder)
            .map_err(|error| Failure::io(format_args!("make {}", folder.display()), &error))?;
        for (name, schema) in &schemas {
            let path = folder.join(format!("{name}.schema.json"));
            std::fs::write(&path, text(schema)?)
                .map_err(|error| Failure::io(format_args!("write {}", path.display()), &error))?;
            console.note(&format!("wrote {}", path.display()));
        }
        return Ok(exit::OK);
    }
    let names: Vec<&str> = schemas.iter().map(|(name, _)| *name).collect();
    let Some(name) = &options.name else {
        if console.json {
            console.say_json(&names)?;
        } else {
            console.say(&names.join("\n"))?;
            console.note("`gpuspool schema NAME` prints one of them");
        }
        return Ok(exit::OK);
    };
    match schemas.iter().find(|(known, _)| known == name) {
        Some((_, schema)) => console.say_json_text(&text(schema)?)?,
        None => {
            let meant = did_you_mean(name, names.iter().copied());
            let step = meant.map_or_else(
                || format!("there are: {}", names.join(", ")),
                |name| format!("did you mean `{name}`?"),
            );
            return Err(Failure::new(exit::NO_INPUT, format!("no document is called `{name}`")).next(step));
        }
    }
    Ok(exit::OK)
}
