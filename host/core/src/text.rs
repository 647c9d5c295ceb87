//! Texts from outside: how much of them is kept.

/// Bytes kept of a text by which a client names something: model, path, session, labels. Longer models are refused.
pub const MAX_NAME_BYTES: usize = 256;

/// The beginning of a text: whole characters, at most so many bytes.
pub fn beginning(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

/// Cuts a text to its beginning, in place.
pub fn cut(text: &mut String, max_bytes: usize) {
    if text.len() > max_bytes {
        text.truncate(text.floor_char_boundary(max_bytes));
        text.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_beginning_is_as_long_as_whole_characters_allow(text in "\\PC{0,40}", most in 0usize..60) {
            let kept = beginning(&text, most);
            prop_assert!(text.starts_with(kept) && kept.len() <= most);
            let next = text[kept.len()..].chars().next().map_or(0, char::len_utf8);
            prop_assert!(next == 0 || kept.len() + next > most);
            let mut whole = text.clone();
            cut(&mut whole, most);
            prop_assert_eq!(whole, kept);
        }
    }
}
