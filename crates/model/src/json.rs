//! Reading JSON that people write: one complete object, said exactly what is wrong with it when it is not.
//!
//! Not here: what the object means (`task`, `config`), and whether a file may still be growing (`spool`).

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor};

use crate::fault::{Code, Fault, did_you_mean};

/// Nesting beyond this is an attack or an accident.
pub const DEPTH_MAX: usize = 64;

/// A document and what was odd about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Read<T> {
    /// What it says.
    pub value: T,
    /// Oddities that do not stop it.
    pub warnings: Vec<String>,
}

/// Reads one JSON object into `T`.
///
/// Unknown keys are warnings, with the known key that was probably meant (`known` lists the top-level ones).
///
/// # Errors
/// A [`Fault`] with line and column, or the field. `empty_file` and `incomplete_json` mean that more bytes could
/// still make it whole.
pub fn read_object<T: DeserializeOwned>(bytes: &[u8], known: &[&str]) -> Result<Read<T>, Fault> {
    let mut warnings = Vec::new();
    let text = text_of(bytes, &mut warnings)?;
    check_structure(text)?;
    let mut unknown = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut deserializer, &mut track);
    let read: Result<T, _> = serde_ignored::deserialize(tracked, |path| unknown.push(path.to_string()));
    let value = read.map_err(|error| {
        let path = track.path().to_string();
        type_fault(&error, &path)
    })?;
    for key in unknown {
        warnings.push(match did_you_mean(&key, known.iter().copied()) {
            Some(meant) => format!("unknown field `{key}` is ignored; did you mean `{meant}`?"),
            None => format!("unknown field `{key}` is ignored"),
        });
    }
    Ok(Read { value, warnings })
}

fn text_of<'a>(bytes: &'a [u8], warnings: &mut Vec<String>) -> Result<&'a str, Fault> {
    let bytes = match bytes.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => {
            warnings.push("the file begins with a byte order mark, which JSON does not need".into());
            rest
        }
        None => bytes,
    };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        // A character cut in half at the very end is a file that is still growing.
        let code = if error.error_len().is_none() { Code::IncompleteJson } else { Code::NotUtf8 };
        let mut fault = Fault::new(code, "the bytes are not UTF-8")
            .next("save the file as UTF-8 without a byte order mark");
        fault.place.offset = Some(error.valid_up_to());
        fault
    })?;
    if text.trim_matches(is_json_space).is_empty() {
        return Err(Fault::new(Code::EmptyFile, "the file is empty").next("write one JSON object into it"));
    }
    Ok(text)
}

const fn is_json_space(c: char) -> bool {
    matches!(c, ' ' | '\n' | '\r' | '\t')
}

/// Everything that can be said without knowing what the document is about.
fn check_structure(text: &str) -> Result<(), Fault> {
    let mut found = None;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let seen = Structure { depth: 0, found: &mut found }.deserialize(&mut deserializer);
    if let Some(fault) = found {
        return Err(fault);
    }
    seen.map_err(|error| syntax_fault(&error))?;
    if !text.trim_start_matches(is_json_space).starts_with('{') {
        return Err(Fault::new(Code::NotAnObject, "the file holds a JSON value that is not an object")
            .next("write one object: {\"prompt\": \"…\"}"));
    }
    deserializer.end().map_err(|error| {
        Fault::new(Code::TrailingData, "something follows the object")
            .at(error.line(), error.column())
            .next("write one object a file")
    })
}

fn syntax_fault(error: &serde_json::Error) -> Fault {
    let text = error.to_string();
    let code = if error.is_eof() {
        Code::IncompleteJson
    } else if text.starts_with("number out of range") {
        Code::BadNumber
    } else if text.starts_with("recursion limit") {
        Code::TooDeep
    } else {
        Code::InvalidJson
    };
    Fault::new(code, without_place(&text)).at(error.line(), error.column())
}

fn type_fault(error: &serde_json::Error, path: &str) -> Fault {
    let text = error.to_string();
    let code = if text.starts_with("unknown variant") {
        Code::BadEnum
    } else if text.starts_with("missing field") {
        Code::MissingField
    } else if path == "priority" || path.ends_with(".priority") {
        Code::BadPriority
    } else if path == "task_id" || text.contains("is not a legal id") {
        Code::BadTaskId
    } else if is_about_a_number(&text) {
        Code::BadNumber
    } else {
        Code::BadType
    };
    Fault::new(code, without_place(&text)).in_field(path).at(error.line(), error.column())
}

/// Whether a number was wanted, and something else, or one out of range, was found.
fn is_about_a_number(text: &str) -> bool {
    let wanted = without_place(text);
    ["f64", "u8", "u16", "u32", "u64", "i64"].iter().any(|kind| wanted.ends_with(&format!("expected {kind}")))
}

/// serde_json appends ` at line L column C`, which a fault carries as data.
fn without_place(text: &str) -> String {
    text.rfind(" at line ").map_or(text, |end| &text[..end]).to_owned()
}

/// Walks a value, looking for duplicate keys and bottomless nesting.
struct Structure<'a> {
    depth: usize,
    found: &'a mut Option<Fault>,
}

impl<'de> DeserializeSeed<'de> for Structure<'_> {
    type Value = ();
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.depth > DEPTH_MAX {
            let fault = Fault::new(Code::TooDeep, format!("nested deeper than {DEPTH_MAX} levels"));
            return Err(stop(self.found, fault));
        }
        deserializer.deserialize_any(self)
    }
}

fn stop<E: serde::de::Error>(found: &mut Option<Fault>, fault: Fault) -> E {
    let error = E::custom(&fault.message);
    found.get_or_insert(fault);
    error
}

impl<'de> Visitor<'de> for Structure<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Structure { depth: self.depth + 1, found: self.found })?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut keys = BTreeSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            if keys.contains(&key) {
                let fault =
                    Fault::new(Code::DuplicateKey, format!("the key `{}` stands twice", key.escape_debug()))
                        .in_field(key)
                        .next("remove one of the two");
                return Err(stop(self.found, fault));
            }
            keys.insert(key);
            entries.next_value_seed(Structure { depth: self.depth + 1, found: self.found })?;
        }
        Ok(())
    }
}

/// Marks an error with the file it is about, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {fault}")]
pub struct InFile {
    /// The file, as the user named it.
    pub path: String,
    /// What is wrong with it.
    pub fault: Fault,
}

/// The line of `text` at `place` with a caret under the column, or nothing where the place is unknown.
#[must_use]
pub fn caret(text: &str, fault: &Fault) -> Option<String> {
    let (line, column) = (fault.place.line?, fault.place.column?);
    let source = text.lines().nth(line.checked_sub(1)?)?;
    let start = column.saturating_sub(40);
    let shown: String =
        source.chars().skip(start).take(100).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let indent = " ".repeat(column.saturating_sub(start).saturating_sub(1));
    Some(format!("{shown}\n{indent}^"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn code_of(text: &[u8]) -> Option<Code> {
        read_object::<Value>(text, &[]).err().map(|fault| fault.code)
    }

    #[test]
    fn each_broken_text_gets_its_own_code() {
        for (text, code) in [
            (&b""[..], Code::EmptyFile),
            (b" \n", Code::EmptyFile),
            (b"{\"a\": 1", Code::IncompleteJson),
            (b"{\"a\": \"\xc3", Code::IncompleteJson),
            (b"{\"a\": 1,}", Code::InvalidJson),
            (b"{\"a\": NaN}", Code::InvalidJson),
            (b"{\"a\": 1e999}", Code::BadNumber),
            (b"{\"a\": \"\x00\"}", Code::InvalidJson),
            (b"{} {}", Code::TrailingData),
            (b"[1]", Code::NotAnObject),
            (b"7", Code::NotAnObject),
            (b"{\"a\": \"\xff\"}", Code::NotUtf8),
            (b"{\"a\": 1, \"a\": 2}", Code::DuplicateKey),
        ] {
            assert_eq!(code_of(text), Some(code), "{}", String::from_utf8_lossy(text));
        }
        let bomb = format!("{{\"a\":{}1{}}}", "[".repeat(80), "]".repeat(80));
        assert_eq!(code_of(bomb.as_bytes()), Some(Code::TooDeep));
    }

    #[test]
    fn a_byte_order_mark_is_only_a_warning() {
        let read = read_object::<Value>(b"\xef\xbb\xbf{\"a\": 1}", &[]).unwrap();
        assert_eq!(read.warnings.len(), 1);
    }

    #[test]
    fn a_caret_stands_under_the_place() {
        let text = "{\n  \"a\": 1,\n}";
        let fault = read_object::<Value>(text.as_bytes(), &[]).unwrap_err();
        assert_eq!(caret(text, &fault).unwrap(), "}\n^");
    }

    proptest::proptest! {
        #[test]
        fn a_proper_prefix_of_an_object_is_never_an_object(a in ".{0,20}", n in 0u64..1_000_000, cut in 1usize..200) {
            let whole = serde_json::json!({"prompt": a, "n": n, "list": [1, {"x": null}]}).to_string();
            let mut end = whole.len().saturating_sub(cut % whole.len()).min(whole.len() - 1);
            while !whole.is_char_boundary(end) { end -= 1; }
            let code = code_of(&whole.as_bytes()[..end]);
            proptest::prop_assert!(matches!(code, Some(Code::EmptyFile | Code::IncompleteJson)), "{code:?}");
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            drop(read_object::<Value>(&bytes, &["prompt"]));
        }
    }
}
