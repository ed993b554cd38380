//! The vocabulary of the demonstration model: every byte, and the words of its sentence.
//!
//! The bytes make any prompt readable. For each word there are its beginnings too (`Ġt`, `Ġti`, …) and the
//! merges that lead from one to the next, so that a byte-pair tokenizer finds the word by itself.

use crate::alphabet::symbol;
use std::collections::BTreeMap;

/// The control tokens, at the end of the vocabulary.
const CONTROLS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

const TYPE_NORMAL: i32 = 1;
const TYPE_CONTROL: i32 = 3;

/// Tokens by number, and the sentence in them.
pub(super) struct Vocabulary {
    /// All tokens in the byte alphabet; the place is the number.
    pub(super) tokens: Vec<String>,
    /// Pairs of tokens that join, first come first, as GGUF writes them: `left right`.
    pub(super) merges: Vec<String>,
    /// The numbers of the sentence's tokens.
    pub(super) sentence: Vec<usize>,
}

impl Vocabulary {
    /// The vocabulary for one ASCII sentence.
    pub(super) fn of(sentence: &str) -> Self {
        let mut tokens: Vec<String> = (0..=u8::MAX).map(|byte| symbol(byte).to_string()).collect();
        let mut numbers: BTreeMap<String, usize> =
            tokens.iter().enumerate().map(|(number, token)| (token.clone(), number)).collect();
        let mut merges = Vec::new();
        let mut path = Vec::new();
        for word in words(sentence) {
            let mut symbols = word.bytes().map(symbol);
            let mut token = symbols.next().map(String::from).unwrap_or_default();
            for next in symbols {
                let longer = format!("{token}{next}");
                if !numbers.contains_key(&longer) {
                    merges.push(format!("{token} {next}"));
                    numbers.insert(longer.clone(), tokens.len());
                    tokens.push(longer.clone());
                }
                token = longer;
            }
            path.push(numbers[&token]);
        }
        tokens.extend(CONTROLS.map(String::from));
        Self { tokens, merges, sentence: path }
    }

    /// The GGUF token types, token by token.
    pub(super) fn types(&self) -> impl Iterator<Item = i32> {
        let first_control = self.end_of_text();
        (0..self.tokens.len())
            .map(move |token| if token < first_control { TYPE_NORMAL } else { TYPE_CONTROL })
    }

    /// `<|endoftext|>`
    pub(super) fn end_of_text(&self) -> usize {
        self.tokens.len() - CONTROLS.len()
    }

    /// `<|im_end|>`
    pub(super) fn end_of_turn(&self) -> usize {
        self.tokens.len() - 1
    }
}

/// Splits as Qwen2's tokenizer does an ASCII sentence: a word takes the space before it along, and each digit
/// and each mark stands alone.
fn words(sentence: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut open = false;
    for character in sentence.chars() {
        if open && character.is_ascii_alphabetic() {
            if let Some(word) = words.last_mut() {
                word.push(character);
            }
        } else {
            words.push(character.to_string());
        }
        open = character == ' ' || character.is_ascii_alphabetic();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_split_like_qwen2_does() {
        assert_eq!(words("A b: Qwen2 x!"), ["A", " b", ":", " Qwen", "2", " x", "!"]);
    }

    #[test]
    fn words_are_reached_by_merges_from_their_beginnings() {
        let vocabulary = Vocabulary::of("no not");
        assert_eq!(vocabulary.merges, ["n o", "Ġ n", "Ġn o", "Ġno t"]);
        let spoken: Vec<_> =
            vocabulary.sentence.iter().map(|token| vocabulary.tokens[*token].as_str()).collect();
        assert_eq!(spoken, ["no", "Ġnot"]);
    }
}
