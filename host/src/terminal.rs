//! Output as a terminal may get it: what comes from outside is shown there and does nothing.
//!
//! Fields of a line are escaped where they are put into it ([`OneLine`](pointsman_core::text::OneLine)), so that none ends the line.
//! Here everything that goes out is escaped once more, but for the ends of lines, tabs, and what the program itself writes.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};

use pointsman_core::text::{escape, is_unseen};

/// Escape sequences that the program itself writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// Nothing is allowed through.
    Nothing,
    /// Colours: `ESC [ n m`.
    Colours,
    /// Colours, and those that replace a line.
    Line,
}

/// Sequences that replace a line.
const LINE: [&str; 4] = ["\r\x1b[2K", "\x1b[2K", "\x1b[?7l", "\x1b[?7h"];

/// Returns whole lines as a terminal may get them; what is no UTF-8 is replaced.
pub(crate) fn shown(bytes: &[u8], own: Own) -> Cow<'_, [u8]> {
    if bytes.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n' | b'\t')) {
        return Cow::Borrowed(bytes);
    }
    let mut out = String::with_capacity(bytes.len() + 64);
    escape_all(&String::from_utf8_lossy(bytes), own, &mut out);
    Cow::Owned(out.into_bytes())
}

fn escape_all(mut text: &str, own: Own, out: &mut String) {
    let keep = |c| matches!(c, '\n' | '\t');
    while let Some(at) = text.find(|c| is_unseen(c) && !keep(c)) {
        let (plain, rest) = text.split_at(at);
        out.push_str(plain);
        let length = own_sequence(rest, own).unwrap_or(0);
        out.push_str(&rest[..length]);
        text = &rest[length..];
        if length == 0 {
            let one = rest.chars().next().map_or(0, char::len_utf8);
            // A String takes every text.
            let _ = escape(&rest[..one], keep, out);
            text = &rest[one..];
        }
    }
    out.push_str(text);
}

/// Bytes of a sequence of the program's own at the beginning of a text.
fn own_sequence(text: &str, own: Own) -> Option<usize> {
    if own == Own::Nothing {
        return None;
    }
    if own == Own::Line
        && let Some(known) = LINE.iter().find(|known| text.starts_with(**known))
    {
        return Some(known.len());
    }
    let number = text.strip_prefix("\x1b[")?;
    let digits = number.bytes().take_while(u8::is_ascii_digit).count();
    (digits <= 2 && number[digits..].starts_with('m')).then_some("\x1b[".len() + digits + 1)
}

/// Writes what a terminal may get.
pub(crate) struct Terminal<W> {
    to: W,
    own: Own,
    /// Bytes of a character that has only begun.
    begun: Vec<u8>,
}

impl<W: Write> Terminal<W> {
    /// A terminal, or what stands for it, behind this writer.
    pub(crate) fn new(to: W, own: Own) -> Self {
        Self { to, own, begun: Vec::new() }
    }
}

impl<W: Write> Write for Terminal<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let begun = std::mem::take(&mut self.begun);
        let all = if begun.is_empty() { Cow::Borrowed(bytes) } else { Cow::Owned([&begun, bytes].concat()) };
        let whole = all.len() - begun_bytes(&all);
        self.begun = all[whole..].to_vec();
        self.to.write_all(&shown(&all[..whole], self.own))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Bytes at the end that may be the beginning of a character.
fn begun_bytes(bytes: &[u8]) -> usize {
    match bytes.utf8_chunks().last().map(|chunk| chunk.invalid()) {
        Some(invalid)
            if !invalid.is_empty() && std::str::from_utf8(invalid).is_err_and(|e| e.error_len().is_none()) =>
        {
            invalid.len()
        }
        Some(_) | None => 0,
    }
}

/// Writes a line to standard error, if somebody reads it.
pub(crate) fn complain(line: fmt::Arguments<'_>) {
    drop(writeln!(Terminal::new(io::stderr().lock(), Own::Nothing), "{line}"));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(bytes: &[u8], own: Own) -> String {
        String::from_utf8(shown(bytes, own).into_owned()).unwrap()
    }

    #[test]
    fn only_the_programs_own_sequences_reach_a_terminal() {
        let line = "a\x1b[31mred\x1b[0m \x1b]52;c;eA==\x07 \r\x1b[2Kgone \u{9b}2J \u{202e}x\t.\n";
        let kept = "a\x1b[31mred\x1b[0m \\u001b]52;c;eA==\\u0007 ";
        let end = " \\u009b2J \\u202ex\t.\n";
        assert_eq!(text(line.as_bytes(), Own::Colours), format!("{kept}\\r\\u001b[2Kgone{end}"));
        assert_eq!(text(line.as_bytes(), Own::Line), format!("{kept}\r\x1b[2Kgone{end}"));
        let nothing = text(line.as_bytes(), Own::Nothing);
        assert!(!nothing.contains(|c: char| is_unseen(c) && c != '\n' && c != '\t'), "{nothing:?}");
        for no_colour in ["\x1b[123m", "\x1b[", "\x1b[3", "\x1b[3;1m", "\x1b[?1049h", "\x1bc"] {
            assert!(text(no_colour.as_bytes(), Own::Line).starts_with("\\u001b"), "{no_colour:?}");
        }
        assert_eq!(text(b"\xff\x9b2J", Own::Colours), "\u{fffd}\u{fffd}2J", "a terminal of eight bits gets no control");
    }

    proptest! {
        #[test]
        fn pieces_come_to_the_same_as_the_whole(
            bytes in prop::collection::vec(any::<u8>(), 0..60), words in "\\PC{0,20}", cut in 0usize..80
        ) {
            let all = [words.as_bytes(), &bytes, words.as_bytes(), b"\n"].concat();
            let mut out = Vec::new();
            let mut terminal = Terminal::new(&mut out, Own::Nothing);
            let (first, second) = all.split_at(cut.min(all.len()));
            terminal.write_all(first).unwrap();
            terminal.write_all(second).unwrap();
            let out = String::from_utf8(out).unwrap();
            prop_assert_eq!(&out, &text(&all, Own::Nothing));
            prop_assert!(!out.contains(|c: char| is_unseen(c) && c != '\n' && c != '\t'));
        }
    }
}
