//! A bar of progress in block characters.

/// The character after the full ones, by the eighths of it that are reached.
const EIGHTHS: [char; 8] = ['░', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// `share` (0 to 1) of `width` characters.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the share is clamped to 0 to 1 and bars are short"
)]
pub(super) fn bar(share: f64, width: usize) -> String {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let filled = (share * width as f64 * 8.0).floor() as usize;
    let mut text: String = "█".repeat(filled / 8);
    if filled / 8 < width {
        text.push(EIGHTHS[filled % 8]);
    }
    let drawn = text.chars().count();
    text.extend(std::iter::repeat_n('░', width - drawn));
    text
}

#[cfg(test)]
mod tests {
    use super::bar;

    #[test]
    fn a_bar_is_as_long_as_asked_and_full_only_at_the_end() {
        assert_eq!(bar(0.0, 4), "░░░░");
        assert_eq!(bar(0.5, 4), "██░░");
        assert_eq!(bar(0.55, 4), "██▏░");
        assert_eq!(bar(0.999, 4), "███▉");
        assert_eq!(bar(1.0, 4), "████");
        for odd in [f64::NAN, -1.0, 2.5] {
            assert_eq!(bar(odd, 4).chars().count(), 4, "{odd}");
        }
    }
}
