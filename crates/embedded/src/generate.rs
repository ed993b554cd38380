//! One answer: read the prompt, then token by token until it ends.

use crate::model::{Lexicon, Weights};
use crate::text::{Step, TextStream};
use candle_transformers::generation::{LogitsProcessor, Sampling};

/// Longest piece of a prompt that is read in one go. Between two pieces it is looked whether the client is
/// still there.
const PIECE_TOKENS_MAX: usize = 256;

/// What is to be generated.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// The prompt's tokens; at least one, and fewer than the context has.
    pub(crate) prompt: Vec<u32>,
    /// How many tokens the answer may have; with the prompt's no more than the context has.
    pub(crate) answer_tokens_max: usize,
    /// How the next token is chosen.
    pub(crate) sampling: Sampling,
    /// Where the dice begin.
    pub(crate) seed: u64,
    /// Texts that end the answer and do not belong to it.
    pub(crate) stops: Vec<String>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The model ended it, or a stop sequence did.
    Stop,
    /// The limit did.
    Length,
}

/// How an answer went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It ended, after this many tokens.
    Ended(Ending, usize),
    /// Nobody wanted it any more.
    Abandoned,
}

/// Generates the answer to `ask`, handing each piece of text to `say`, which returns whether anyone listens.
pub(crate) fn generate(
    weights: &mut Weights,
    lexicon: &Lexicon,
    ask: &Ask,
    mut say: impl FnMut(String) -> bool,
) -> candle_core::Result<Outcome> {
    let mut sampler = LogitsProcessor::from_sampling(ask.seed, ask.sampling.clone());
    let mut text = TextStream::new(ask.stops.clone());
    let mut position = 0;
    let mut scores = None;
    for length in pieces(ask.prompt.len()) {
        if !say(String::new()) {
            return Ok(Outcome::Abandoned);
        }
        scores = Some(weights.forward(&ask.prompt[position..position + length], position)?);
        position += length;
    }
    let Some(mut scores) = scores else { candle_core::bail!("the prompt is empty") };
    for count in 0.. {
        let token = sampler.sample(&scores)?;
        if lexicon.is_end(token) {
            say(text.finish());
            return Ok(Outcome::Ended(Ending::Stop, count));
        }
        match text.push(lexicon.bytes_of(token)) {
            Step::Stopped(last) => {
                say(last);
                return Ok(Outcome::Ended(Ending::Stop, count + 1));
            }
            Step::Text(piece) => {
                if !say(piece) {
                    return Ok(Outcome::Abandoned);
                }
            }
        }
        if count + 1 >= ask.answer_tokens_max {
            break;
        }
        scores = weights.forward(&[token], position)?;
        position += 1;
    }
    say(text.finish());
    Ok(Outcome::Ended(Ending::Length, ask.answer_tokens_max))
}

/// The lengths of the pieces in which a prompt is read.
///
/// candle keeps the attention mask of every pair (length of the piece, end of the piece) for ever. With pieces
/// of any length that memory would grow with each new length of a prompt, so a long prompt's tail is cut into
/// powers of two: masks then stay under 50 MB at the default context. Prompts that fit one piece have small
/// masks and go in one.
fn pieces(tokens: usize) -> Vec<usize> {
    if tokens <= PIECE_TOKENS_MAX {
        return vec![tokens];
    }
    let mut pieces = vec![PIECE_TOKENS_MAX; tokens / PIECE_TOKENS_MAX];
    let tail = tokens % PIECE_TOKENS_MAX;
    let powers = (0..PIECE_TOKENS_MAX.ilog2()).rev().map(|power| 1 << power);
    pieces.extend(powers.filter(|power| tail & power != 0));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn short_prompts_are_read_in_one_go_and_long_ones_in_powers_of_two() {
        assert_eq!(pieces(1), [1]);
        assert_eq!(pieces(256), [256]);
        assert_eq!(pieces(257), [256, 1]);
        assert_eq!(pieces(600), [256, 256, 64, 16, 8]);
    }

    #[test]
    fn every_length_is_read_whole_and_the_masks_stay_small() {
        let mut masks = BTreeSet::new();
        for tokens in 1..4096 {
            let mut end = 0;
            for piece in pieces(tokens) {
                end += piece;
                masks.insert((piece, end));
            }
            assert_eq!(end, tokens);
        }
        let bytes: usize = masks.iter().filter(|(piece, _)| *piece > 1).map(|(piece, end)| piece * end).sum();
        assert!(bytes < 50_000_000, "{bytes} bytes of masks");
    }
}
