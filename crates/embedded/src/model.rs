//! Loading: one GGUF file becomes a [`Lexicon`] (what reads and writes text) and [`Weights`] (what computes).
//!
//! The two are apart because they live apart: the lexicon is shared by all requests, the weights belong to the
//! one thread that computes.

use crate::alphabet::Alphabet;
use crate::demo;
use crate::failure::Failure;
use crate::template::{CHATML, ChatTemplate, Message};
use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::quantized::tokenizer::TokenizerFromGguf;
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_qwen2::ModelWeights;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

/// Context where the user names none: enough for a chat, and small enough that the cache of a 7B model stays
/// under a quarter of a gigabyte.
const CONTEXT_TOKENS_DEFAULT: usize = 4096;

/// More than any Qwen2 model's context; beyond it a file is damaged, and its tables would fill the memory.
const CONTEXT_TOKENS_MAX: usize = 1 << 21;

const CONTEXT_KEY: &str = "qwen2.context_length";

/// Bounds of the numbers that candle divides and allocates by before it has seen a single weight, far above
/// those of any Qwen2 model. A damaged file must end in a message and not in an allocation that ends the process.
const HEADS_MAX: usize = 1 << 10;
const HEAD_LENGTH_MAX: usize = 1 << 10;
const LAYERS_MAX: usize = 1 << 10;

/// `tokenizer.ggml.token_type` of control tokens, which are never shown.
const TYPE_CONTROL: i64 = 3;

/// Tokens that end an answer, beside the one that the file names.
const ENDS: [&str; 2] = ["<|im_end|>", "<|endoftext|>"];

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The demonstration model, made in memory.
    Demo,
    /// A GGUF file.
    File(PathBuf),
}

impl Source {
    /// The name under which the model serves where the user names none.
    pub(crate) fn default_name(&self) -> String {
        match self {
            Self::Demo => demo::NAME.to_owned(),
            Self::File(path) => path
                .file_stem()
                .map_or_else(|| "model".to_owned(), |stem| stem.to_string_lossy().into_owned()),
        }
    }

    /// Opens it, so that a wrong path is told before anything else is done.
    pub(crate) fn open(&self) -> Result<Opened, Failure> {
        match self {
            Self::Demo => {
                let unusable = |error: candle_core::Error| Failure::Unusable {
                    name: self.label(),
                    what: "its making",
                    reason: error.to_string(),
                };
                let bytes = demo::DemoModel::default().to_gguf().map_err(unusable)?;
                Ok(Opened::new(self.label(), Box::new(Cursor::new(bytes))))
            }
            Self::File(path) => {
                let file =
                    open_file(path).map_err(|source| Failure::ModelMissing { path: path.clone(), source })?;
                Ok(Opened::new(self.label(), Box::new(BufReader::new(file))))
            }
        }
    }

    fn label(&self) -> String {
        match self {
            Self::Demo => "the demonstration model".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

/// Opening a pipe would wait for its writer, and a folder opens but cannot be read: both are refused.
fn open_file(path: &Path) -> std::io::Result<File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    File::open(path)
}

/// What candle reads from.
pub(crate) trait ReadSeek: Read + Seek + Send {}
impl<T: Read + Seek + Send> ReadSeek for T {}

/// A model file, open and not yet read.
pub(crate) struct Opened {
    label: String,
    reader: Box<dyn ReadSeek>,
}

impl Opened {
    /// A model that is read from `reader`; `label` names it in errors.
    pub(crate) fn new(label: String, reader: Box<dyn ReadSeek>) -> Self {
        Self { label, reader }
    }

    /// Reads and checks the whole model. `context_tokens` is at most what the model was made for.
    pub(crate) fn load(
        mut self,
        device: &Device,
        context_tokens: Option<NonZeroUsize>,
    ) -> Result<(Lexicon, Weights), Failure> {
        let label = self.label.clone();
        // candle divides and allocates by numbers of the file; a damaged one makes it panic.
        catch_unwind(AssertUnwindSafe(|| self.read(device, context_tokens))).unwrap_or_else(|panic| {
            let reason = panic_text(panic.as_ref());
            Err(Failure::Unusable { name: label, what: "its numbers", reason })
        })
    }

    fn read(
        &mut self,
        device: &Device,
        context_wanted: Option<NonZeroUsize>,
    ) -> Result<(Lexicon, Weights), Failure> {
        let not_gguf = |error: candle_core::Error| Failure::NotGguf {
            name: self.label.clone(),
            reason: first_line(&error),
        };
        let mut content = Content::read(&mut self.reader).map_err(not_gguf)?;
        self.check_architecture(&content)?;

        let trained = self.check_numbers(&content)?;
        let context_tokens =
            context_wanted.map_or(CONTEXT_TOKENS_DEFAULT, NonZeroUsize::get).clamp(2, trained);
        // candle makes its tables of positions for the whole length that it finds here.
        let tables = u32::try_from(context_tokens).unwrap_or(u32::MAX);
        content.metadata.insert(CONTEXT_KEY.to_owned(), Value::U32(tables));

        let lexicon = self.lexicon(&content, context_tokens)?;
        let weights = ModelWeights::from_gguf(content, &mut self.reader, device).and_then(|layers| {
            let mut weights = Weights { layers, device: device.clone() };
            // One token through the whole: shapes that do not fit together are seen now, not by a request.
            weights.forward(&[0], 0)?;
            weights.rest();
            Ok(weights)
        });
        Ok((lexicon, weights.map_err(|error| self.unusable("its weights", first_line(&error)))?))
    }

    /// Checks the numbers that describe the transformer and returns the context that it was made for.
    fn check_numbers(&self, content: &Content) -> Result<usize, Failure> {
        let number = |key: &str, bounds: RangeInclusive<usize>| {
            let found = content.metadata.get(key);
            let number = found.and_then(whole_number).and_then(|number| usize::try_from(number).ok());
            number.filter(|number| bounds.contains(number)).ok_or_else(|| {
                let (least, most) = bounds.into_inner();
                let found = found.map_or_else(|| "missing".to_owned(), |value| format!("{value:?}"));
                self.unusable("its numbers", format!("`{key}` is {found}; it is from {least} to {most}"))
            })
        };
        let heads = number("qwen2.attention.head_count", 1..=HEADS_MAX)?;
        let heads_of_keys = number("qwen2.attention.head_count_kv", 1..=heads)?;
        let hidden = number("qwen2.embedding_length", 2 * heads..=HEAD_LENGTH_MAX * heads)?;
        number("qwen2.block_count", 1..=LAYERS_MAX)?;
        if !heads.is_multiple_of(heads_of_keys) || !hidden.is_multiple_of(2 * heads) {
            let reason =
                format!("{hidden} values do not share out over {heads} heads and {heads_of_keys} of keys");
            return Err(self.unusable("its numbers", reason));
        }
        number(CONTEXT_KEY, 2..=CONTEXT_TOKENS_MAX)
    }

    fn check_architecture(&self, content: &Content) -> Result<(), Failure> {
        let architecture = match content.metadata.get("general.architecture") {
            Some(Value::String(architecture)) => architecture.as_str(),
            _ => "(unnamed)",
        };
        if architecture == "qwen2" {
            return Ok(());
        }
        Err(Failure::NotQwen2 { name: self.label.clone(), architecture: architecture.to_owned() })
    }

    fn lexicon(&self, content: &Content, context_tokens: usize) -> Result<Lexicon, Failure> {
        let tokenizer = Tokenizer::from_gguf(content)
            .map_err(|error| self.unusable("its tokenizer", first_line(&error)))?;
        let template = match content.metadata.get("tokenizer.chat_template") {
            Some(Value::String(template)) => template.clone(),
            _ => CHATML.to_owned(),
        };
        let template = ChatTemplate::new(template)
            .map_err(|error| self.unusable("its chat template", format!("{error:#}")))?;

        let mut ends: BTreeSet<u32> = ENDS.iter().filter_map(|end| tokenizer.token_to_id(end)).collect();
        let named = content.metadata.get("tokenizer.ggml.eos_token_id").and_then(whole_number);
        ends.extend(named.and_then(|end| u32::try_from(end).ok()));
        if ends.is_empty() {
            let reason = "`tokenizer.ggml.eos_token_id` is missing".to_owned();
            return Err(self.unusable("its tokenizer", reason));
        }
        let pieces = pieces(content)
            .ok_or_else(|| self.unusable("its tokenizer", "its tokens are no strings".to_owned()))?;
        Ok(Lexicon { tokenizer, template, pieces, ends, context_tokens })
    }

    fn unusable(&self, what: &'static str, reason: String) -> Failure {
        Failure::Unusable { name: self.label.clone(), what, reason }
    }
}

/// The bytes of each token; none for control tokens, which are never shown.
fn pieces(content: &Content) -> Option<Vec<Vec<u8>>> {
    let alphabet = Alphabet::default();
    let Some(Value::Array(tokens)) = content.metadata.get("tokenizer.ggml.tokens") else { return None };
    let types = match content.metadata.get("tokenizer.ggml.token_type") {
        Some(Value::Array(types)) => types.as_slice(),
        _ => &[],
    };
    let piece = |(place, token): (usize, &Value)| {
        let is_control = types.get(place).and_then(whole_number) == Some(TYPE_CONTROL);
        let Value::String(token) = token else { return None };
        Some(if is_control { Vec::new() } else { alphabet.bytes_of(token) })
    };
    tokens.iter().enumerate().map(piece).collect()
}

/// Writers of GGUF files do not agree on the width of whole numbers.
fn whole_number(value: &Value) -> Option<i64> {
    match value {
        Value::U8(number) => Some(i64::from(*number)),
        Value::I8(number) => Some(i64::from(*number)),
        Value::U16(number) => Some(i64::from(*number)),
        Value::I16(number) => Some(i64::from(*number)),
        Value::U32(number) => Some(i64::from(*number)),
        Value::I32(number) => Some(i64::from(*number)),
        Value::U64(number) => i64::try_from(*number).ok(),
        Value::I64(number) => Some(*number),
        Value::F32(_) | Value::F64(_) | Value::Bool(_) | Value::String(_) | Value::Array(_) => None,
    }
}

/// candle appends a backtrace to its errors where the environment asks for one; people want the cause.
fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or("no reason given").to_owned()
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}

/// What turns messages into tokens and tokens into text.
pub(crate) struct Lexicon {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    pieces: Vec<Vec<u8>>,
    ends: BTreeSet<u32>,
    context_tokens: usize,
}

impl Lexicon {
    /// The tokens that a conversation begins the answer with; the error is the template's or the tokenizer's.
    pub(crate) fn chat_prompt(&self, messages: &[Message]) -> Result<Vec<u32>, String> {
        let text = self
            .template
            .render(messages)
            .map_err(|error| format!("the model's chat template: {error:#}"))?;
        // The template writes all marks itself.
        self.tokens(&text, false)
    }

    /// The tokens of a plain text that the model shall continue.
    pub(crate) fn text_prompt(&self, text: &str) -> Result<Vec<u32>, String> {
        self.tokens(text, true)
    }

    fn tokens(&self, text: &str, with_marks: bool) -> Result<Vec<u32>, String> {
        let encoding =
            self.tokenizer.encode(text, with_marks).map_err(|error| format!("the tokenizer: {error}"))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The bytes that `token` stands for: none for control tokens and for numbers past the vocabulary, which
    /// padded output heads have.
    pub(crate) fn bytes_of(&self, token: u32) -> &[u8] {
        usize::try_from(token).ok().and_then(|token| self.pieces.get(token)).map_or(&[], Vec::as_slice)
    }

    /// Whether `token` ends an answer.
    pub(crate) fn is_end(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    /// How many tokens prompt and answer may have together.
    pub(crate) fn context_tokens(&self) -> usize {
        self.context_tokens
    }
}

/// The transformer, with the cache of the one sequence that it is working on.
pub(crate) struct Weights {
    layers: ModelWeights,
    device: Device,
}

impl Weights {
    /// Reads `tokens`, which stand at `position` and after, and returns the scores of the next token.
    /// Position 0 begins a new sequence.
    pub(crate) fn forward(&mut self, tokens: &[u32], position: usize) -> candle_core::Result<Tensor> {
        if position == 0 {
            self.layers.clear_kv_cache();
        }
        let input = Tensor::new(tokens, &self.device)?.unsqueeze(0)?;
        self.layers.forward(&input, position)?.squeeze(0)
    }

    /// Gives the cache's memory back.
    pub(crate) fn rest(&mut self) {
        self.layers.clear_kv_cache();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::DemoModel;

    fn load(bytes: Vec<u8>) -> Result<(Lexicon, Weights), Failure> {
        Opened::new("m.gguf".to_owned(), Box::new(Cursor::new(bytes))).load(&Device::Cpu, None)
    }

    fn demo() -> Vec<u8> {
        DemoModel::default().to_gguf().expect("the model is written")
    }

    #[test]
    fn a_prompt_of_any_language_can_be_read_and_is_the_same_when_spelled_out() {
        let (lexicon, _) = load(demo()).expect("the model is loaded");
        let text = "Grüße, 日本 \u{1F680}\n\t\u{0}";
        let tokens = lexicon.text_prompt(text).expect("it is read");
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| lexicon.bytes_of(*token)).copied().collect();
        assert_eq!(String::from_utf8(bytes).as_deref(), Ok(text));
    }

    #[test]
    fn a_context_greater_than_the_model_was_made_for_is_cut_to_that() {
        let model = Opened::new("m.gguf".to_owned(), Box::new(Cursor::new(demo())));
        let (lexicon, _) = model.load(&Device::Cpu, NonZeroUsize::new(1 << 20)).expect("the model is loaded");
        assert_eq!(lexicon.context_tokens(), 2048);
    }

    /// A prompt read in pieces gives the scores that it gives when read in one go.
    #[test]
    fn a_prompt_may_be_read_in_pieces() {
        let (_, mut weights) = load(demo()).expect("the model is loaded");
        let tokens: Vec<u32> = (0..40).collect();
        let whole = weights.forward(&tokens, 0).expect("it computes");
        weights.forward(&tokens[..32], 0).expect("it computes");
        let pieces = weights.forward(&tokens[32..], 32).expect("it computes");
        let difference =
            (whole - pieces).and_then(|difference| difference.abs()?.max_all()?.to_scalar::<f32>());
        assert!(difference.expect("a number") < 1e-4);
    }

    #[test]
    fn wherever_a_file_is_cut_off_it_is_refused_and_named() {
        let whole = demo();
        for length in [0, 3, 4, 24, 1000, 20_000, 200_000, whole.len() - 1] {
            let Err(failure) = load(whole[..length].to_vec()) else { panic!("{length} bytes were loaded") };
            assert!(failure.to_string().contains("`m.gguf`"), "{failure}");
        }
    }

    /// Numbers at which candle would divide by zero, take all memory, or look past the end.
    #[test]
    fn senseless_numbers_in_a_file_are_refused() {
        let keys = [
            "context_length",
            "attention.head_count",
            "attention.head_count_kv",
            "embedding_length",
            "block_count",
        ];
        for key in keys {
            for number in [0, 3, 100, u32::MAX] {
                // These two are whatever the model was made for.
                if key == "context_length" && [3, 100].contains(&number) {
                    continue;
                }
                let mut file = demo();
                let key = format!("qwen2.{key}");
                // A length before the key, and a type of four bytes between key and value.
                let needle = [&(key.len() as u64).to_le_bytes(), key.as_bytes()].concat();
                let at =
                    file.windows(needle.len()).position(|window| window == needle).expect("the key is there");
                let value = at + needle.len() + 4;
                file[value..value + 4].copy_from_slice(&number.to_le_bytes());
                let Err(failure) = load(file) else { panic!("{key} = {number} was taken") };
                assert!(matches!(failure, Failure::Unusable { .. }), "{key} = {number}: {failure}");
            }
        }
    }
}
