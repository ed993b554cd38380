//! From tokens' bytes to text that may be sent: whole characters only, and nothing past a stop sequence.

/// Collects the bytes of one answer and lets out the text that is certain.
///
/// Two things are held back. Bytes that are the beginning of a character wait for the rest of it. Text that
/// may be the beginning of a stop sequence waits until it is known that it is not.
pub(crate) struct TextStream {
    stops: Vec<String>,
    bytes: Vec<u8>,
    held: String,
}

/// What one more token brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This much text is certain; it may be empty.
    Text(String),
    /// A stop sequence was reached; this is what stood before it.
    Stopped(String),
}

impl TextStream {
    /// A stream that ends at the first of `stops`; empty ones are ignored.
    pub(crate) fn new(stops: Vec<String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { stops, bytes: Vec::new(), held: String::new() }
    }

    /// Takes the bytes of the next token.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Step {
        self.bytes.extend_from_slice(bytes);
        self.take_whole_characters();
        let first_stop = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = first_stop {
            self.held.truncate(at);
            return Step::Stopped(std::mem::take(&mut self.held));
        }
        let certain = self.held.len() - self.possible_stop_bytes();
        let rest = self.held.split_off(certain);
        Step::Text(std::mem::replace(&mut self.held, rest))
    }

    /// The answer is over: what was held back is text after all, and half a character is shown as `�`.
    pub(crate) fn finish(mut self) -> String {
        self.held.push_str(&String::from_utf8_lossy(&self.bytes));
        self.held
    }

    /// Moves what is decodable from bytes to text; bytes that can never become a character become `�`.
    fn take_whole_characters(&mut self) {
        let mut taken = 0;
        for chunk in self.bytes.utf8_chunks() {
            self.held.push_str(chunk.valid());
            taken += chunk.valid().len();
            let rest = chunk.invalid();
            let is_last = taken + rest.len() == self.bytes.len();
            if rest.is_empty() || (is_last && may_be_continued(rest)) {
                break;
            }
            self.held.push(char::REPLACEMENT_CHARACTER);
            taken += rest.len();
        }
        self.bytes.drain(..taken);
    }

    /// Length of the longest end of the held text that begins a stop sequence.
    fn possible_stop_bytes(&self) -> usize {
        let longest_of = |stop: &String| {
            (1..stop.len())
                .rev()
                .filter(|length| stop.is_char_boundary(*length))
                .find(|length| self.held.ends_with(&stop[..*length]))
                .unwrap_or(0)
        };
        self.stops.iter().map(longest_of).max().unwrap_or(0)
    }
}

/// Whether these bytes are the beginning of a character, rather than wrong.
fn may_be_continued(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(step: Step) -> String {
        match step {
            Step::Text(text) => text,
            Step::Stopped(text) => panic!("stopped after {text:?}"),
        }
    }

    #[test]
    fn a_character_split_over_tokens_comes_out_whole() {
        let mut stream = TextStream::new(Vec::new());
        assert_eq!(text(stream.push("a€".as_bytes().split_at(2).0)), "a");
        assert_eq!(text(stream.push(&[0x82])), "");
        assert_eq!(text(stream.push(&[0xAC, b'b'])), "€b");
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn bytes_that_are_no_text_do_not_hold_the_stream_up() {
        let mut stream = TextStream::new(Vec::new());
        assert_eq!(text(stream.push(&[0xFF, b'a', 0xC3])), "\u{FFFD}a");
        assert_eq!(text(stream.push(b"b")), "\u{FFFD}b");
        assert_eq!(text(stream.push(&[0xE2, 0x82])), "");
        assert_eq!(stream.finish(), "\u{FFFD}");
    }

    #[test]
    fn text_before_a_stop_sequence_is_let_out_and_nothing_after_it() {
        let mut stream = TextStream::new(vec!["END".to_owned(), String::new()]);
        assert_eq!(text(stream.push(b"one E")), "one ");
        assert_eq!(text(stream.push(b"ither EN")), "Either ");
        assert_eq!(stream.push(b"D two"), Step::Stopped(String::new()));
    }

    #[test]
    fn the_earliest_of_several_stop_sequences_counts() {
        let mut stream = TextStream::new(vec!["later".to_owned(), "now".to_owned()]);
        assert_eq!(stream.push(b"right now or later"), Step::Stopped("right ".to_owned()));
    }

    #[test]
    fn what_looked_like_a_stop_sequence_comes_out_at_the_end() {
        let mut stream = TextStream::new(vec!["\n\n".to_owned()]);
        assert_eq!(text(stream.push(b"done\n")), "done");
        assert_eq!(stream.finish(), "\n");
    }

    /// Every way of cutting one text into two tokens gives the same text.
    #[test]
    fn where_tokens_are_cut_does_not_matter() {
        let whole = "naïve → 日本 EN END".as_bytes();
        for cut in 0..=whole.len() {
            let mut stream = TextStream::new(vec!["END".to_owned()]);
            let mut all = match stream.push(&whole[..cut]) {
                Step::Text(text) => text,
                Step::Stopped(text) => {
                    assert_eq!((cut, text.as_str()), (whole.len(), "naïve → 日本 EN "));
                    continue;
                }
            };
            match stream.push(&whole[cut..]) {
                Step::Text(text) => {
                    panic!("cut at {cut}: the stop sequence was missed after {all:?}{text:?}")
                }
                Step::Stopped(text) => all.push_str(&text),
            }
            assert_eq!(all, "naïve → 日本 EN ", "cut at {cut}");
        }
    }
}
