//! Size limits of a TOML text, counted before it is parsed: a table of three bytes takes kilobytes once it is one.
//!
//! The scan knows no more of TOML than where texts and comments end and where a key stands. What is not TOML is left to
//! the parser, which has better words for it.

/// Tables and lists, those of dotted keys and headers included.
const MAX_TABLES: usize = 60_000;

/// Values and elements of lists.
const MAX_VALUES: usize = 400_000;

/// Lists and tables within each other.
const MAX_DEPTH: usize = 32;

/// A limit that a text exceeds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Excess {
    /// The byte at which it does.
    pub(super) at: usize,
    /// The limit, in a sentence.
    pub(super) words: String,
}

struct Scan<'t> {
    bytes: &'t [u8],
    at: usize,
    tables: usize,
    values: usize,
    /// The brackets that are open.
    open: Vec<u8>,
    in_key: bool,
    in_header: bool,
}

/// Checks that a text is small enough to be parsed.
///
/// # Errors
/// The first limit that it exceeds.
pub(super) fn check(text: &str) -> Result<(), Excess> {
    let mut scan =
        Scan { bytes: text.as_bytes(), at: 0, tables: 0, values: 0, open: Vec::new(), in_key: true, in_header: false };
    while let Some(&byte) = scan.bytes.get(scan.at) {
        scan.step(byte);
        scan.within_limits()?;
    }
    Ok(())
}

impl Scan<'_> {
    fn step(&mut self, byte: u8) {
        match byte {
            b'#' => return self.skip_comment(),
            b'"' | b'\'' => return self.skip_text(byte),
            b'\n' if self.open.is_empty() => (self.in_key, self.in_header) = (true, false),
            b'[' if self.open.is_empty() && self.in_key => {
                self.in_header = true;
                self.tables += 1;
            }
            b'[' | b'{' if !self.in_header => {
                self.open.push(byte);
                self.tables += 1;
                self.in_key = byte == b'{';
            }
            b']' | b'}' if !self.in_header => {
                self.open.pop();
                self.in_key = false;
            }
            b'=' => {
                self.values += 1;
                self.in_key = false;
            }
            b',' => {
                self.values += 1;
                self.in_key = self.open.last() == Some(&b'{');
            }
            b'.' if self.in_key => self.tables += 1,
            _ => {}
        }
        self.at += 1;
    }

    fn within_limits(&self) -> Result<(), Excess> {
        let excess = |words: String| Err(Excess { at: self.at - 1, words });
        if self.tables > MAX_TABLES {
            return excess(format!("this text has more than {MAX_TABLES} tables and lists"));
        }
        if self.values > MAX_VALUES {
            return excess(format!("this text has more than {MAX_VALUES} values"));
        }
        if self.open.len() > MAX_DEPTH {
            return excess(format!("more than {MAX_DEPTH} lists and tables are within each other"));
        }
        Ok(())
    }

    fn skip_comment(&mut self) {
        while self.bytes.get(self.at).is_some_and(|byte| *byte != b'\n') {
            self.at += 1;
        }
    }

    /// To behind the end of a text: `"`, `'`, and three of them, over lines.
    fn skip_text(&mut self, quote: u8) {
        let rest = &self.bytes[self.at..];
        let is_long = rest.starts_with(&[quote; 3]);
        let (opening, closing): (usize, &[u8]) = if is_long { (3, &[quote; 3]) } else { (1, &[quote]) };
        let mut at = opening;
        while let Some(&byte) = rest.get(at) {
            if byte == b'\\' && quote == b'"' {
                at += 2;
                continue;
            }
            // A text that is not closed ends with its line, so that the rest is still counted.
            if rest[at..].starts_with(closing) || (!is_long && byte == b'\n') {
                break;
            }
            at += 1;
        }
        self.at += (at + if is_long { 3 } else { 1 }).min(rest.len());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(text: &str) -> String {
        check(text).expect_err("it is too large").words
    }

    #[test]
    fn what_is_small_in_bytes_and_large_in_memory_is_refused() {
        for many in [
            format!("x = [{}]", "{a=1},".repeat(MAX_TABLES)),
            format!("x = [{}]", "[],".repeat(MAX_TABLES)),
            "[[backend]]\n".repeat(MAX_TABLES + 1),
            "1.1.1.1.1.1.1.1.1.1.1=1\n".repeat(MAX_TABLES / 10 + 1),
            format!("x = {{ {} }}", "a.b.c=1,".repeat(MAX_TABLES / 2 + 1)),
            format!("[a{}]\n", ".a".repeat(MAX_TABLES)),
        ] {
            assert!(refused(&many).contains("60000 tables"), "{}", &many[..40]);
        }
        assert!(refused(&format!("x = [{}]", "1,".repeat(MAX_VALUES))).contains("400000 values"));
        assert!(refused(&format!("x = {}", "[".repeat(MAX_DEPTH + 1))).contains("within each other"));
        assert!(refused(&format!("x = {}", "{a=".repeat(MAX_DEPTH + 1))).contains("within each other"));
    }

    #[test]
    fn texts_comments_and_numbers_count_for_nothing() {
        let marks = "[{=.,".repeat(MAX_VALUES);
        for text in [
            format!("x = \"{marks}\""),
            format!("x = '{marks}'"),
            format!("x = \"\"\"\n{marks}\n\"\"\""),
            format!("x = '''\n{marks}\n'''"),
            format!("x = \"\\\"{marks}\" # {marks}"),
            format!("# {marks}\n"),
            format!("x = [{}]", "1.5,".repeat(MAX_VALUES - 1)),
        ] {
            assert_eq!(check(&text), Ok(()), "{}", &text[..20]);
        }
    }

    proptest! {
        #[test]
        fn no_text_stops_it(text in "[\\[\\]{}=.,#\"'\\\\\na ]{0,60}") {
            let _ = check(&text);
        }
    }
}
