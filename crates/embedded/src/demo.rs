//! The demonstration model: a tiny Qwen2 that answers one fixed sentence, and in it says what it is.
//!
//! It exists so that the whole way of a task, from the spool through a booted engine and back, can be seen on a
//! machine with no model at hand and no network. It is not a stand-in for a model and never pretends to be one.
//!
//! It is a real GGUF file and the real engine runs all of it: tokenizer, chat template, attention, feed-forward,
//! output head, sampling, end token. Only its weights are written by hand rather than trained:
//!
//! - what attention and feed-forward compute is multiplied by zero before it is added, so that the last layer
//!   sees the last token's embedding unchanged;
//! - each token of the sentence has its own axis as embedding, and the row of its successor in the output head
//!   points along that axis, so that each token calls the next one;
//! - all other tokens share one axis, that calls the first token. So the sentence begins after every chat, whose
//!   prompt ends in a newline (a plain text that breaks off within the sentence is continued from there);
//! - after the last token comes the end token.
//!
//! This works because no token occurs twice in the sentence; a test holds it to that.

mod vocabulary;

use crate::failure::Failure;
use crate::template::CHATML;
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use vocabulary::Vocabulary;

/// What the demonstration model answers, whatever it is asked.
pub const SENTENCE: &str = "This is the demonstration model of gpuspool: a tiny transformer that answers every prompt \
                            with one fixed sentence. Load your own Qwen2 GGUF file to get real replies!";

/// The name under which it serves.
pub const NAME: &str = "demo-model";

/// Length of an embedding: room for one axis for each token of the sentence and one for all others.
const HIDDEN: usize = 64;
const HEADS: usize = 4;
const HEADS_OF_KEYS: usize = 2;
const CONTEXT_TOKENS: u32 = 2048;
/// Strength of the output head. With it a called token scores 64 and every other 0: certain at any temperature
/// that a request may ask for.
const CALL: f32 = 8.0;

/// What the model does after the last token of its sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It ends its answer.
    Stop,
    /// It begins again, until the request's limit: an answer of any length, for tests of what happens meanwhile.
    Repeat,
}

/// Where the output head comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// The file has one of its own.
    Own,
    /// The embeddings serve as head too, as in the small Qwen2.5 models. A tied model cannot follow the
    /// sentence: it repeats one token, which is enough to see that such files load and run.
    Tied,
}

/// The varieties of the demonstration model. The default is the one that people get to see.
#[derive(Clone, Copy, Debug)]
pub struct DemoModel {
    /// What follows the sentence.
    pub ending: Ending,
    /// Where the output head comes from.
    pub head: Head,
    /// Whether the matrices are stored in eight bits (Q8_0) rather than as floats.
    pub quantised: bool,
    /// Number of transformer layers; more of them make a slower model.
    pub layers: usize,
    /// Width of the feed-forward part, a multiple of 32; more makes a slower model.
    pub feed_forward: usize,
}

impl Default for DemoModel {
    fn default() -> Self {
        Self { ending: Ending::Stop, head: Head::Own, quantised: false, layers: 2, feed_forward: 128 }
    }
}

impl DemoModel {
    /// The model as the bytes of a GGUF file.
    ///
    /// # Errors
    /// Passes on what candle says; with the default there is no way for it to fail but lack of memory.
    pub fn to_gguf(self) -> candle_core::Result<Vec<u8>> {
        let vocabulary = Vocabulary::of(SENTENCE);
        let metadata = self.metadata(&vocabulary);
        let tensors = self.tensors(&vocabulary)?;
        let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
        let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut file = Cursor::new(Vec::new());
        gguf_file::write(&mut file, &metadata, &tensors)?;
        Ok(file.into_inner())
    }

    fn metadata(self, vocabulary: &Vocabulary) -> Vec<(&'static str, Value)> {
        let text = |text: &str| Value::String(text.to_owned());
        let texts = |texts: &[String]| Value::Array(texts.iter().cloned().map(Value::String).collect());
        let count = |count: usize| Value::U32(u32::try_from(count).unwrap_or(u32::MAX));
        vec![
            ("general.architecture", text("qwen2")),
            ("general.name", text(NAME)),
            ("general.description", text(SENTENCE)),
            ("qwen2.context_length", Value::U32(CONTEXT_TOKENS)),
            ("qwen2.embedding_length", count(HIDDEN)),
            ("qwen2.block_count", count(self.layers)),
            ("qwen2.feed_forward_length", count(self.feed_forward)),
            ("qwen2.attention.head_count", count(HEADS)),
            ("qwen2.attention.head_count_kv", count(HEADS_OF_KEYS)),
            ("qwen2.attention.layer_norm_rms_epsilon", Value::F32(1e-6)),
            ("qwen2.rope.freq_base", Value::F32(1_000_000.0)),
            ("tokenizer.ggml.model", text("gpt2")),
            ("tokenizer.ggml.pre", text("qwen2")),
            ("tokenizer.ggml.tokens", texts(&vocabulary.tokens)),
            ("tokenizer.ggml.token_type", Value::Array(vocabulary.types().map(Value::I32).collect())),
            ("tokenizer.ggml.merges", texts(&vocabulary.merges)),
            ("tokenizer.ggml.eos_token_id", count(vocabulary.end_of_turn())),
            ("tokenizer.ggml.padding_token_id", count(vocabulary.end_of_text())),
            ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
            ("tokenizer.chat_template", text(CHATML)),
        ]
    }

    fn tensors(self, vocabulary: &Vocabulary) -> candle_core::Result<Vec<(String, QTensor)>> {
        let matrix_type = if self.quantised { GgmlDType::Q8_0 } else { GgmlDType::F32 };
        let matrix = |values: Vec<f32>, rows: usize| {
            let columns = values.len() / rows;
            QTensor::quantize(&Tensor::from_vec(values, (rows, columns), &Device::Cpu)?, matrix_type)
        };
        let vector = |values: Vec<f32>| {
            let length = values.len();
            QTensor::quantize(&Tensor::from_vec(values, length, &Device::Cpu)?, GgmlDType::F32)
        };
        let ones = || vector(vec![1.0; HIDDEN]);
        let keys = HIDDEN / HEADS * HEADS_OF_KEYS;
        let mut noise = Noise::default();

        let words = vocabulary.tokens.len();
        let mut tensors = vec![
            ("token_embd.weight".to_owned(), matrix(embeddings(vocabulary), words)?),
            ("output_norm.weight".to_owned(), ones()?),
        ];
        if self.head == Head::Own {
            tensors.push(("output.weight".to_owned(), matrix(output_head(vocabulary, self.ending), words)?));
        }
        for layer in 0..self.layers {
            let mut add = |part: &str, tensor: QTensor| tensors.push((format!("blk.{layer}.{part}"), tensor));
            add("attn_norm.weight", ones()?);
            add("attn_q.weight", matrix(noise.take(HIDDEN * HIDDEN), HIDDEN)?);
            add("attn_q.bias", vector(noise.take(HIDDEN))?);
            add("attn_k.weight", matrix(noise.take(keys * HIDDEN), keys)?);
            add("attn_k.bias", vector(noise.take(keys))?);
            add("attn_v.weight", matrix(noise.take(keys * HIDDEN), keys)?);
            add("attn_v.bias", vector(noise.take(keys))?);
            add("attn_output.weight", matrix(vec![0.0; HIDDEN * HIDDEN], HIDDEN)?);
            add("ffn_norm.weight", ones()?);
            add("ffn_gate.weight", matrix(noise.take(self.feed_forward * HIDDEN), self.feed_forward)?);
            add("ffn_up.weight", matrix(noise.take(self.feed_forward * HIDDEN), self.feed_forward)?);
            add("ffn_down.weight", matrix(vec![0.0; HIDDEN * self.feed_forward], HIDDEN)?);
        }
        Ok(tensors)
    }
}

/// Axis 0 for all tokens, but axis `i + 1` for token `i` of the sentence.
fn embeddings(vocabulary: &Vocabulary) -> Vec<f32> {
    let mut rows = vec![0.0; vocabulary.tokens.len() * HIDDEN];
    for row in rows.chunks_mut(HIDDEN) {
        row[0] = 1.0;
    }
    for (place, token) in vocabulary.sentence.iter().enumerate() {
        rows[token * HIDDEN] = 0.0;
        rows[token * HIDDEN + place + 1] = 1.0;
    }
    rows
}

/// Each token of the sentence listens to the axis of the token before it; the first one to axis 0.
fn output_head(vocabulary: &Vocabulary, ending: Ending) -> Vec<f32> {
    let mut rows = vec![0.0; vocabulary.tokens.len() * HIDDEN];
    for (place, token) in vocabulary.sentence.iter().enumerate() {
        rows[token * HIDDEN + place] = CALL;
    }
    let after_the_last = match ending {
        Ending::Stop => vocabulary.end_of_turn(),
        Ending::Repeat => vocabulary.sentence[0],
    };
    rows[after_the_last * HIDDEN + vocabulary.sentence.len()] = CALL;
    rows
}

/// Small weights that look random and are the same on every machine (a linear congruential sequence).
#[derive(Default)]
struct Noise {
    state: u32,
}

impl Noise {
    fn take(&mut self, count: usize) -> Vec<f32> {
        let mut next = || {
            self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (f32::from((self.state >> 16) as u16) / f32::from(u16::MAX) - 0.5) * 0.1
        };
        (0..count).map(|_| next()).collect()
    }
}

/// Writes the demonstration model to `path`: complete, or not at all.
pub(crate) fn write(path: &Path) -> Result<u64, Failure> {
    let failed = |source| Failure::WriteDemo { path: path.to_owned(), source };
    let bytes = DemoModel::default().to_gguf().map_err(|error| failed(std::io::Error::other(error)))?;
    // Beside the target, so that the rename stays on one file system; with the process id, so that two writers
    // of the same target do not meet.
    let mut staged = path.as_os_str().to_owned();
    staged.push(format!(".{}.tmp", std::process::id()));
    let staged = PathBuf::from(staged);
    let written = std::fs::File::create_new(&staged).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&staged, path)
    });
    if let Err(source) = written {
        // The first error is the one to tell; a staged file that was never made cannot be removed.
        let _ = std::fs::remove_file(&staged);
        return Err(failed(source));
    }
    Ok(bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::tokenizer::TokenizerFromGguf;
    use std::collections::BTreeSet;
    use tokenizers::Tokenizer;

    #[test]
    fn no_token_occurs_twice_in_the_sentence_and_all_have_an_axis() {
        let vocabulary = Vocabulary::of(SENTENCE);
        let distinct: BTreeSet<_> = vocabulary.sentence.iter().collect();
        assert_eq!(distinct.len(), vocabulary.sentence.len());
        assert!(vocabulary.sentence.len() < HIDDEN, "{} tokens", vocabulary.sentence.len());
    }

    #[test]
    fn the_real_tokenizer_reads_the_sentence_as_the_model_speaks_it() {
        let bytes = DemoModel::default().to_gguf().expect("the model is written");
        let content = gguf_file::Content::read(&mut Cursor::new(bytes)).expect("the model is read");
        let tokenizer = Tokenizer::from_gguf(&content).expect("the tokenizer is read");
        let read = tokenizer.encode(SENTENCE, false).expect("the sentence is encoded");
        let spoken: Vec<u32> = Vocabulary::of(SENTENCE).sentence.iter().map(|token| *token as u32).collect();
        assert_eq!(read.get_ids(), spoken);
    }

    #[test]
    fn it_is_small_and_the_same_every_time() {
        let first = DemoModel::default().to_gguf().expect("the model is written");
        let second = DemoModel::default().to_gguf().expect("the model is written");
        assert!(first.len() < 1_000_000, "{} bytes", first.len());
        assert!(first == second);
    }

    #[test]
    fn writing_leaves_the_file_and_nothing_else_or_says_where_it_failed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("demo.gguf");
        let size = write(&path).expect("the file is written");
        assert_eq!(std::fs::metadata(&path).expect("the file is there").len(), size);
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder is read").count(), 1);

        let nowhere = folder.path().join("no/such/folder/demo.gguf");
        let failure = write(&nowhere).expect_err("there is no such folder");
        assert!(failure.to_string().contains("no/such/folder/demo.gguf"), "{failure}");
    }
}
