//! The byte alphabet of GPT-2 style vocabularies: each of the 256 bytes has one printable character.
//!
//! Such vocabularies (Qwen2's is one) write tokens in this alphabet, so that a token may hold any bytes and
//! still be a string: a space is `Ġ`, a newline `Ċ`. Reading tokens back byte by byte, rather than asking the
//! tokenizer for text, costs the same for every token, also when a token ends in the middle of a character.

use std::collections::HashMap;

/// The character that stands for `byte`.
pub(crate) fn symbol(byte: u8) -> char {
    match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
        // The others (controls, space, delete, soft hyphen) follow from U+0100 on, in order of their value.
        0x00..=0x20 => above_latin(u32::from(byte)),
        0x7F..=0xA0 => above_latin(u32::from(byte) - 0x7F + 0x21),
        0xAD => above_latin(0x21 + 0x22),
    }
}

fn above_latin(index: u32) -> char {
    char::from_u32(0x100 + index).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Reads tokens of the alphabet back into bytes.
pub(crate) struct Alphabet {
    bytes: HashMap<char, u8>,
}

impl Default for Alphabet {
    fn default() -> Self {
        Self { bytes: (0..=u8::MAX).map(|byte| (symbol(byte), byte)).collect() }
    }
}

impl Alphabet {
    /// The bytes that `token` stands for. A character outside the alphabet (in tokens that a model's author
    /// added as plain text) stands for itself.
    pub(crate) fn bytes_of(&self, token: &str) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(token.len());
        for character in token.chars() {
            match self.bytes.get(&character) {
                Some(byte) => bytes.push(*byte),
                None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_symbol_and_comes_back() {
        let alphabet = Alphabet::default();
        assert_eq!(alphabet.bytes.len(), 256);
        for byte in 0..=u8::MAX {
            assert_eq!(alphabet.bytes_of(&symbol(byte).to_string()), [byte]);
        }
    }

    #[test]
    fn the_well_known_symbols_are_those_of_gpt2() {
        assert_eq!([b' ', b'\n', 0x7F, 0xA0, 0xAD].map(symbol), ['Ġ', 'Ċ', 'ġ', 'ł', 'Ń']);
    }

    #[test]
    fn plain_characters_stand_for_themselves() {
        assert_eq!(Alphabet::default().bytes_of("Ġ→ ok"), " → ok".as_bytes());
    }
}
