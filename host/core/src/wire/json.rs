//! A lazy look into JSON that others wrote: no tree, no recursion, no allocation, and no complaint about a cut end.
//!
//! Every function returns raw slices of the input. What is not JSON yields nothing; it never panics.

use std::borrow::Cow;

use memchr::memchr2;

/// Walks the members of an object, or the elements of an array.
pub(super) struct Walk<'a> {
    text: &'a [u8],
    at: usize,
}

/// The members of the object that begins here; none when there is none.
pub(super) fn members(text: &[u8]) -> Walk<'_> {
    Walk::inside(text, b'{')
}

/// The elements of the array that begins here; none when there is none.
pub(super) fn elements(text: &[u8]) -> Walk<'_> {
    Walk::inside(text, b'[')
}

/// The raw value of a member.
pub(super) fn member<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    members(text).find_map(|(key, value)| (key == name.as_bytes()).then_some(value))
}

impl<'a> Walk<'a> {
    fn inside(text: &'a [u8], open: u8) -> Self {
        let at = skip_space(text, 0);
        let at = if text.get(at) == Some(&open) { at + 1 } else { text.len() };
        Self { text, at }
    }

    fn value(&mut self) -> Option<&'a [u8]> {
        let start = skip_space(self.text, self.at);
        let end = skip_value(self.text, start);
        self.at = end;
        (end > start).then(|| &self.text[start..end])
    }

    /// The next element of an array.
    pub(super) fn element(&mut self) -> Option<&'a [u8]> {
        self.skip_comma();
        self.value()
    }

    fn skip_comma(&mut self) {
        self.at = skip_space(self.text, self.at);
        if self.text.get(self.at) == Some(&b',') {
            self.at = skip_space(self.text, self.at + 1);
        }
    }
}

impl<'a> Iterator for Walk<'a> {
    /// The key without its quotes, its escapes untouched, and the raw value.
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.skip_comma();
        if self.text.get(self.at) != Some(&b'"') {
            return None;
        }
        let start = self.at;
        let end = skip_string(self.text, start);
        self.at = skip_space(self.text, end);
        if end < start + 2 || self.text.get(self.at) != Some(&b':') {
            return None;
        }
        self.at += 1;
        Some((&self.text[start + 1..end - 1], self.value()?))
    }
}

/// Does this raw value hold anything: not null, not empty?
pub(super) fn is_filled(value: &[u8]) -> bool {
    match value.first() {
        Some(b'"') => value.len() > 2,
        Some(b'{' | b'[') => !matches!(value.get(skip_space(value, 1)), None | Some(b'}' | b']')),
        Some(b'n') | None => false,
        Some(_) => true,
    }
}

/// The raw value as a string without its quotes, its escapes untouched.
pub(super) fn raw_str(value: &[u8]) -> Option<&[u8]> {
    let inner = value.strip_prefix(b"\"")?;
    Some(inner.strip_suffix(b"\"").unwrap_or(inner))
}

/// The raw value as text: a string with its escapes resolved as far as they can be, a number as it stands.
pub(super) fn text(value: &[u8]) -> Option<Cow<'_, str>> {
    match value.first()? {
        b'"' => {
            let inner = raw_str(value)?;
            if !inner.contains(&b'\\') {
                return Some(String::from_utf8_lossy(inner));
            }
            let whole = serde_json::from_slice::<String>(value).ok();
            Some(whole.map_or_else(|| String::from_utf8_lossy(inner), Cow::Owned))
        }
        b'0'..=b'9' | b'-' => Some(String::from_utf8_lossy(value)),
        _ => None,
    }
}

/// The raw value as a count; fractions are cut off.
pub(super) fn count(value: &[u8]) -> Option<u64> {
    let digits = value.iter().take_while(|b| b.is_ascii_digit()).count();
    std::str::from_utf8(&value[..digits]).ok()?.parse().ok()
}

#[inline]
pub(super) fn skip_space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = text.get(at) {
        at += 1;
    }
    at
}

/// Behind the closing quote of the string whose opening quote is here; the end of the text when there is none.
#[inline]
pub(super) fn skip_string(text: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    // Most strings here are short: a plain loop beats a search's set-up.
    let near = text.len().min(at + 16);
    while at < near {
        match text[at] {
            b'"' => return at + 1,
            b'\\' => break,
            _ => at += 1,
        }
    }
    while let Some(found) = text.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found + 1;
        if text[at - 1] == b'"' {
            return at;
        }
        at += 1;
    }
    text.len()
}

#[inline]
fn skip_value(text: &[u8], start: usize) -> usize {
    match text.get(start) {
        Some(b'"') => skip_string(text, start),
        Some(b'{' | b'[') => skip_container(text, start),
        Some(b',' | b'}' | b']' | b':') | None => start,
        Some(_) => {
            let scalar = |b: &u8| !matches!(b, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
            start + text[start..].iter().take_while(|b| scalar(b)).count()
        }
    }
}

fn skip_container(text: &[u8], start: usize) -> usize {
    let mut depth = 0usize;
    let mut at = start;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                at = skip_string(text, at);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<String> {
        members(text.as_bytes()).map(|(k, _)| String::from_utf8_lossy(k).into_owned()).collect()
    }

    #[test]
    fn members_are_walked_without_entering_their_values() {
        let text = r#" { "a" : {"x":[1,{"y":"}"}]}, "b":"q\"\\", "c":[], "d":-1.5e3 ,"e":null}"#;
        assert_eq!(keys(text), ["a", "b", "c", "d", "e"]);
        assert_eq!(member(text.as_bytes(), "b"), Some(&br#""q\"\\""#[..]));
        assert_eq!(member(text.as_bytes(), "d"), Some(&b"-1.5e3"[..]));
    }

    #[test]
    fn elements_are_walked_in_order() {
        let mut walk = elements(b"[1, \"two\", {\"three\":3}]");
        assert_eq!(walk.element(), Some(&b"1"[..]));
        assert_eq!(walk.element(), Some(&b"\"two\""[..]));
        assert_eq!(walk.element(), Some(&b"{\"three\":3}"[..]));
        assert_eq!(walk.element(), None);
    }

    #[test]
    fn a_cut_end_keeps_what_came_before() {
        let cut = br#"{"error":{"message":"the model is over"#;
        let error = member(cut, "error").unwrap();
        assert_eq!(text(member(error, "message").unwrap()).unwrap(), "the model is over");
    }

    #[test]
    fn nonsense_yields_nothing() {
        for text in ["", "{", "{{", "[", "{\"", "{\"a", "{\"a\"", "{\"a\":", "{,,}", "nul", "}{", "\\", "{\"a\":\\"] {
            let _ = keys(text);
            let mut walk = elements(text.as_bytes());
            while walk.element().is_some() {}
        }
        assert_eq!(keys("[{\"a\":1}]"), Vec::<String>::new());
    }

    #[test]
    fn filled_means_neither_null_nor_empty() {
        for (value, filled) in [
            ("null", false),
            ("\"\"", false),
            ("[ ]", false),
            ("{}", false),
            ("[0]", true),
            ("\" \"", true),
            ("0", true),
        ] {
            assert_eq!(is_filled(value.as_bytes()), filled, "{value}");
        }
    }
}
