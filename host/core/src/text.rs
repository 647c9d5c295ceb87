//! Texts from outside: how much of them is kept, and how they are shown.

use std::fmt::{self, Write};

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

/// Returns true for characters that are not seen but act: on a terminal (C0 and C1 controls, ECMA-48) or on the order and place
/// of what is read (marks, overrides and isolates of direction, separators of lines, tags; Unicode's UAX 9 and TR 36).
pub fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Writes a text with its unseen characters escaped, but for those to keep. The escapes are JSON's (RFC 8259 section 7), so that
/// JSON stays JSON.
///
/// # Errors
/// The writer's.
pub fn escape(text: &str, keep: impl Fn(char) -> bool, out: &mut impl Write) -> fmt::Result {
    let mut kept_from = 0;
    for (at, c) in text.char_indices().filter(|(_, c)| is_unseen(*c) && !keep(*c)) {
        out.write_str(&text[kept_from..at])?;
        kept_from = at + c.len_utf8();
        match c {
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            c => c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))?,
        }
    }
    out.write_str(&text[kept_from..])
}

/// A text from outside as it may stand in a line on a terminal.
#[derive(Clone, Copy, Debug)]
pub struct OneLine<'a>(pub &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.contains(is_unseen) {
            return f.pad(self.0);
        }
        let mut escaped = String::with_capacity(self.0.len() + 16);
        escape(self.0, |_| false, &mut escaped)?;
        f.pad(&escaped)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_acts_on_a_terminal_or_on_the_eye_is_shown_and_not_done() {
        for (text, shown) in [
            ("\x1b]52;c;ZXZpbA==\x07", r"\u001b]52;c;ZXZpbA==\u0007"),
            ("\x1b[2J\x1b[1;1H", r"\u001b[2J\u001b[1;1H"),
            ("a\r\nb\tc", r"a\r\nb\tc"),
            ("\0\x08\x7f", r"\u0000\u0008\u007f"),
            ("\u{9b}31m\u{85}\u{9d}", r"\u009b31m\u0085\u009d"),
            ("\u{202e}txt.exe\u{202c}\u{2066}\u{200f}", r"\u202etxt.exe\u202c\u2066\u200f"),
            ("\u{2028}\u{feff}\u{e0041}", r"\u2028\ufeff\udb40\udc41"),
            ("äöü 模型 😀 👨\u{200d}👩 \\ \"", "äöü 模型 😀 👨\u{200d}👩 \\ \""),
        ] {
            assert_eq!(OneLine(text).to_string(), shown);
        }
        assert_eq!(format!("{:<6}|{:>4}|", OneLine("a\n"), OneLine("b")), r"a\n   |   b|");
    }

    proptest! {
        #[test]
        fn nothing_unseen_is_left_and_json_reads_it_back(text in "\\PC{0,20}|[\\x00-\\x{ff}]{0,20}|.{0,20}") {
            let shown = OneLine(&text).to_string();
            prop_assert!(!shown.contains(is_unseen));
            let quoted = format!("\"{}\"", OneLine(&text.replace(['"', '\\'], "")));
            prop_assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), text.replace(['"', '\\'], ""));
            let mut kept = String::new();
            escape(&text, |_| true, &mut kept).unwrap();
            prop_assert_eq!(kept, text);
        }

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
