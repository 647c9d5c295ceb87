//! A lazy look into JSON that others wrote: no tree, no recursion, no allocation, and no complaint about a cut end.
//!
//! Every function returns raw slices of the input. What is not JSON yields nothing; it never panics.

use std::borrow::Cow;

use memchr::memchr2;

/// Reads forward through JSON, going into what is wanted and over the rest; each byte is read once.
pub(crate) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Stands before the text's first value.
    pub(crate) const fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// Goes into the object or array (`{` or `[`) that comes next; stays before any other value.
    #[inline]
    pub(crate) fn enter(&mut self, open: u8) -> bool {
        self.at = skip_space(self.text, self.at);
        let is = self.text.get(self.at) == Some(&open);
        self.at += usize::from(is);
        is
    }

    /// The next member's name without its quotes, its escapes untouched, and stands before its value. At the object's
    /// end none, and stands behind it.
    #[inline]
    pub(crate) fn name(&mut self) -> Option<&'a [u8]> {
        self.skip_comma();
        if self.text.get(self.at) != Some(&b'"') {
            self.leave(b'}');
            return None;
        }
        let start = self.at;
        let end = skip_string(self.text, start);
        self.at = skip_space(self.text, end);
        if end < start + 2 || self.text.get(self.at) != Some(&b':') {
            self.at = self.text.len();
            return None;
        }
        self.at += 1;
        Some(&self.text[start + 1..end - 1])
    }

    /// Returns true if there is another element in this array; at its end moves behind it.
    #[inline]
    pub(crate) fn has_element(&mut self) -> bool {
        self.skip_comma();
        match self.text.get(self.at) {
            Some(b']' | b'}' | b':') | None => {
                self.leave(b']');
                false
            }
            Some(_) => true,
        }
    }

    /// The raw value that comes next, gone over; empty when the text is cut or is not JSON.
    #[inline]
    pub(crate) fn value(&mut self) -> &'a [u8] {
        let start = skip_space(self.text, self.at);
        let end = skip_value(self.text, start);
        // What is not a value would never be left: it ends the text.
        self.at = if end > start { end } else { self.text.len() };
        &self.text[start..end]
    }

    /// Returns true if it stands here.
    pub(crate) const fn is_at(&self, at: usize) -> bool {
        self.at == at
    }

    /// The next byte that is no space.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.get(skip_space(self.text, self.at)).copied()
    }

    /// Goes behind this byte, or to the text's end where another comes next.
    pub(crate) fn leave(&mut self, close: u8) {
        self.at = skip_space(self.text, self.at);
        self.at = if self.text.get(self.at) == Some(&close) { self.at + 1 } else { self.text.len() };
    }

    #[inline]
    fn skip_comma(&mut self) {
        self.at = skip_space(self.text, self.at);
        if self.text.get(self.at) == Some(&b',') {
            self.at = skip_space(self.text, self.at + 1);
        }
    }
}

/// The members of the object that begins here, names without quotes and raw values; none when there is none.
pub(crate) fn members(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut cursor = Cursor::new(text);
    let mut inside = cursor.enter(b'{');
    std::iter::from_fn(move || {
        if !inside {
            return None;
        }
        let member = cursor.name().map(|name| (name, cursor.value())).filter(|(_, value)| !value.is_empty());
        inside = member.is_some();
        member
    })
}

/// The first element of the array that begins here.
pub(crate) fn first_element(text: &[u8]) -> Option<&[u8]> {
    let mut cursor = Cursor::new(text);
    (cursor.enter(b'[') && cursor.has_element()).then(|| cursor.value())
}

/// The raw value of a member.
pub(crate) fn member<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    members(text).find_map(|(key, value)| (key == name.as_bytes()).then_some(value))
}

/// The text of a raw string without escapes; none of any other value.
pub(crate) fn unquoted(value: &[u8]) -> Option<&[u8]> {
    let text = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    (!text.contains(&b'\\')).then_some(text)
}

/// Returns true if this raw value is neither null nor empty.
pub(crate) fn is_filled(value: &[u8]) -> bool {
    match value.first() {
        Some(b'"') => value.len() > 2,
        Some(b'{' | b'[') => !matches!(value.get(skip_space(value, 1)), None | Some(b'}' | b']')),
        Some(b'n') | None => false,
        Some(_) => true,
    }
}

/// The raw value as a string without its quotes, its escapes untouched.
pub(crate) fn raw_str(value: &[u8]) -> Option<&[u8]> {
    let inner = value.strip_prefix(b"\"")?;
    Some(inner.strip_suffix(b"\"").unwrap_or(inner))
}

/// The raw value as text: a string with its escapes resolved as far as they can be, a number as it stands.
pub(crate) fn text(value: &[u8]) -> Option<Cow<'_, str>> {
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
pub(crate) fn count(value: &[u8]) -> Option<u64> {
    let digits = value.iter().take_while(|b| b.is_ascii_digit()).count();
    std::str::from_utf8(&value[..digits]).ok()?.parse().ok()
}

#[inline]
pub(crate) fn skip_space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = text.get(at) {
        at += 1;
    }
    at
}

/// Behind the closing quote of the string whose opening quote is here; the end of the text when there is none.
#[inline]
pub(crate) fn skip_string(text: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while let Some(found) = text.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found + 1;
        if text[at - 1] == b'"' {
            return at;
        }
        at += 1;
    }
    text.len()
}

/// The place behind the object that begins here, leading space aside; `None` where its braces and quotes do not match.
pub(crate) fn object_end(text: &[u8]) -> Option<usize> {
    let start = skip_space(text, 0);
    let mut open = Vec::new();
    let mut at = start;
    loop {
        match (*text.get(at)?, open.is_empty()) {
            (b'"', false) => {
                at = skip_string(text, at);
                if text[at - 1] != b'"' {
                    return None;
                }
                continue;
            }
            (byte @ (b'{' | b'['), is_first) if !is_first || byte == b'{' => open.push(byte),
            (b'}', false) if open.pop() != Some(b'{') => return None,
            (b']', false) if open.pop() != Some(b'[') => return None,
            (_, true) => return None,
            (_, false) => {}
        }
        at += 1;
        if open.is_empty() {
            return Some(at);
        }
    }
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

/// The beginning of a JSON document, cut behind its last whole value and closed there; `None` where nothing of it can be closed.
pub(crate) fn closed(beginning: &[u8]) -> Option<Vec<u8>> {
    let mut open = Vec::new();
    let (mut at, mut whole) = (0, None);
    while let Some(byte) = beginning.get(at) {
        at += 1;
        match byte {
            b'"' => at = string_end(beginning, at)?.min(beginning.len()),
            b'{' | b'[' => {
                open.push(if *byte == b'{' { b'}' } else { b']' });
                whole = Some(at);
            }
            b'}' | b']' => {
                open.pop();
                whole = Some(at);
            }
            b',' => whole = Some(at - 1),
            _ => {}
        }
    }
    let mut closed = beginning.get(..whole?)?.to_vec();
    closed.extend(open.iter().rev());
    Some(closed)
}

/// The place behind a string that goes on here; the end where it does not end.
fn string_end(json: &[u8], mut at: usize) -> Option<usize> {
    while let Some(found) = memchr::memchr2(b'"', b'\\', json.get(at..)?) {
        at += found + 1;
        if json[at - 1] == b'"' {
            return Some(at);
        }
        at += 1;
    }
    Some(json.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_closed_behind_its_last_whole_value() {
        for (beginning, expected) in [
            (r#"{"a":[1,2,3"#, Some(r#"{"a":[1,2]}"#)),
            (r#"{"a":[{"b":"x\"y"},{"b":"z"#, Some(r#"{"a":[{"b":"x\"y"},{}]}"#)),
            (r#"{"data":[{"e":[0.1,0.25"#, Some(r#"{"data":[{"e":[0.1]}]}"#)),
            (r#"{"a":1}"#, Some(r#"{"a":1}"#)),
            (r#"{"a":1,"b"#, Some(r#"{"a":1}"#)),
            ("{", Some("{}")),
            ("12", None),
            ("", None),
        ] {
            assert_eq!(closed(beginning.as_bytes()).as_deref(), expected.map(str::as_bytes), "{beginning}");
        }
    }

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
    fn a_cursor_goes_into_what_is_wanted_and_over_the_rest() {
        let mut at = Cursor::new(br#"{"a":[{"x":1,"y":[[]]}, 2 ,"3"],"b":{"z":0},"c":7}"#);
        assert!(at.enter(b'{') && at.name() == Some(b"a") && at.enter(b'[') && at.has_element());
        assert!(at.enter(b'{') && at.name() == Some(b"x") && !at.enter(b'{'));
        assert_eq!(at.value(), b"1");
        assert_eq!((at.name(), at.value(), at.name()), (Some(&b"y"[..]), &b"[[]]"[..], None));
        assert!(
            at.has_element() && at.value() == b"2" && at.has_element() && at.value() == b"\"3\"" && !at.has_element()
        );
        assert_eq!((at.name(), at.value()), (Some(&b"b"[..]), &br#"{"z":0}"#[..]));
        assert_eq!((at.name(), at.value(), at.name()), (Some(&b"c"[..]), &b"7"[..], None));
        assert_eq!(first_element(b" [ {\"a\":1}, 2]"), Some(&b"{\"a\":1}"[..]));
        assert_eq!(first_element(b"[]"), None);
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
            let mut at = Cursor::new(text.as_bytes());
            at.enter(b'[');
            while at.has_element() {
                at.value();
            }
        }
        assert_eq!(keys("[{\"a\":1}]"), Vec::<String>::new());
    }

    #[test]
    fn an_object_ends_where_its_braces_match() {
        for (text, end) in [
            ("{}", Some(2)),
            (" {\"a\":[{\"b\":\"}\\\"\"}]} x", Some(20)),
            ("{", None),
            ("{\"a", None),
            ("{]", None),
            ("{[}]", None),
            ("[]", None),
            ("", None),
            ("x{}", None),
        ] {
            assert_eq!(object_end(text.as_bytes()), end, "{text}");
        }
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
