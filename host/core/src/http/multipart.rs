//! `multipart/form-data` (RFC 7578): the fields of a form, as places in the body.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memmem};

/// Parts of one form that are read; a form with more is not read at all.
const MAX_PARTS: usize = 1_024;

/// The longest boundary, in bytes (RFC 2046 section 5.1.1).
const MAX_BOUNDARY_BYTES: usize = 70;

/// One part of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// Name of the field.
    pub name: Cow<'a, str>,
    /// It has a file name.
    pub is_file: bool,
    /// Place of its content in the body.
    pub content: Range<usize>,
}

/// The boundary that a content type of `multipart/form-data` names; `None` for any other type.
pub fn boundary(content_type: &str) -> Option<Cow<'_, str>> {
    let (essence, parameters) = content_type.split_once(';')?;
    if !essence.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameter(parameters.as_bytes(), "boundary")?;
    (1..=MAX_BOUNDARY_BYTES).contains(&boundary.len()).then_some(boundary)
}

/// The parts of a form in their order; `None` where it is no whole form: no closing delimiter, a part without a name, or too
/// many parts.
pub fn parts<'a>(body: &'a [u8], boundary: &str) -> Option<Vec<Part<'a>>> {
    let delimiter = format!("--{boundary}");
    let finder = memmem::Finder::new(&delimiter);
    let mut parts = Vec::new();
    let mut begun: Option<usize> = None;
    let mut at = 0;
    loop {
        let found = at + finder.find(body.get(at..)?)?;
        let behind = found + delimiter.len();
        at = behind;
        // A delimiter stands at the beginning of a line, and nothing else stands in the line (RFC 2046 section 5.1.1).
        let Some(before) = line_end_before(body, found) else { continue };
        let is_last = body[behind..].starts_with(b"--");
        let next = if is_last { Some(behind) } else { rest_of_line_is_blank(body, behind) };
        let Some(next) = next else { continue };
        if let Some(start) = begun {
            parts.push(part(body, start, before.max(start))?);
        }
        if is_last {
            return Some(parts);
        }
        if parts.len() >= MAX_PARTS {
            return None;
        }
        begun = Some(next);
        at = next;
    }
}

/// The end of the line before a delimiter, which belongs to the delimiter; `None` inside a line.
fn line_end_before(body: &[u8], delimiter: usize) -> Option<usize> {
    match &body[..delimiter] {
        [] => Some(0),
        [.., b'\r', b'\n'] => Some(delimiter - 2),
        [.., b'\n'] => Some(delimiter - 1),
        _ => None,
    }
}

/// The beginning of the next line; `None` where more than blanks stand before it.
fn rest_of_line_is_blank(body: &[u8], at: usize) -> Option<usize> {
    let end = at + memchr(b'\n', &body[at..])?;
    let rest = body[at..end].strip_suffix(b"\r").unwrap_or(&body[at..end]);
    rest.iter().all(|b| matches!(b, b' ' | b'\t')).then_some(end + 1)
}

fn part(body: &[u8], start: usize, end: usize) -> Option<Part<'_>> {
    let mut at = start;
    let mut disposition = None;
    loop {
        let line_end = at + memchr(b'\n', body.get(at..end)?)?;
        let line = body[at..line_end].strip_suffix(b"\r").unwrap_or(&body[at..line_end]);
        at = line_end + 1;
        if line.is_empty() {
            break;
        }
        let colon = memchr(b':', line)?;
        if line[..colon].trim_ascii().eq_ignore_ascii_case(b"content-disposition") {
            disposition = Some(&line[colon + 1..]);
        }
    }
    let disposition = disposition?;
    let (kind, parameters) = disposition.split_at(memchr(b';', disposition)?);
    if !kind.trim_ascii().eq_ignore_ascii_case(b"form-data") {
        return None;
    }
    let is_file = parameter(parameters, "filename").is_some() || parameter(parameters, "filename*").is_some();
    Some(Part { name: parameter(parameters, "name")?, is_file, content: at.min(end)..end })
}

/// The value of a parameter of a header (RFC 9110 section 5.6.6), its quotes and backslashes resolved.
fn parameter<'a>(mut parameters: &'a [u8], name: &str) -> Option<Cow<'a, str>> {
    loop {
        let begin = parameters.iter().position(|b| !matches!(b, b';' | b' ' | b'\t'))?;
        parameters = &parameters[begin..];
        let name_end = parameters.iter().position(|b| matches!(b, b'=' | b';')).unwrap_or(parameters.len());
        let found = parameters[..name_end].trim_ascii();
        let is_wanted = found.eq_ignore_ascii_case(name.as_bytes());
        if parameters.get(name_end) != Some(&b'=') {
            parameters = &parameters[name_end..];
            continue;
        }
        let value = parameters[name_end + 1..].trim_ascii_start();
        let (text, rest) = match value.first() {
            Some(b'"') => quoted(value)?,
            _ => {
                let end = memchr(b';', value).unwrap_or(value.len());
                (String::from_utf8_lossy(value[..end].trim_ascii()), &value[end..])
            }
        };
        if is_wanted {
            return Some(text);
        }
        parameters = rest;
    }
}

/// A quoted string and what follows it.
fn quoted(value: &[u8]) -> Option<(Cow<'_, str>, &[u8])> {
    let mut at = 1;
    let mut unescaped: Option<Vec<u8>> = None;
    loop {
        match value.get(at)? {
            b'"' => break,
            b'\\' if matches!(value.get(at + 1), Some(b'"' | b'\\')) => {
                unescaped.get_or_insert_with(|| value[1..at].to_vec()).push(value[at + 1]);
                at += 2;
            }
            byte => {
                if let Some(text) = &mut unescaped {
                    text.push(*byte);
                }
                at += 1;
            }
        }
    }
    let text = match unescaped {
        Some(text) => Cow::Owned(String::from_utf8_lossy(&text).into_owned()),
        None => String::from_utf8_lossy(&value[1..at]),
    };
    Some((text, &value[at + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read<'a>(body: &'a str, boundary: &str) -> Option<Vec<(String, bool, &'a str)>> {
        let parts = parts(body.as_bytes(), boundary)?;
        Some(parts.into_iter().map(|part| (part.name.into_owned(), part.is_file, &body[part.content])).collect())
    }

    #[test]
    fn the_boundary_is_a_parameter_of_the_type() {
        for (content_type, expected) in [
            ("multipart/form-data; boundary=abc", Some("abc")),
            ("Multipart/Form-Data;charset=utf-8; Boundary=\"a b;c\"", Some("a b;c")),
            ("multipart/form-data; boundary=", None),
            ("multipart/form-data", None),
            ("multipart/mixed; boundary=abc", None),
            ("application/json; boundary=abc", None),
        ] {
            assert_eq!(boundary(content_type).as_deref(), expected, "{content_type}");
        }
        assert_eq!(boundary(&format!("multipart/form-data; boundary={}", "x".repeat(71))), None);
    }

    #[test]
    fn fields_and_files_are_found_whatever_their_lines_end_in() {
        let body = "preamble\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\
            Content-Type: audio/wav\r\n\r\n\0--B in the middle\r\n--Bx\r\n\r\n--B \r\ncontent-disposition:form-data;name=model\r\n\r\nwhisper-1\r\n--B--\r\nepilogue";
        let expected = [("file", true, "\0--B in the middle\r\n--Bx\r\n"), ("model", false, "whisper-1")];
        let expected = expected.map(|(name, is_file, text)| (name.to_owned(), is_file, text));
        assert_eq!(read(body, "B").unwrap(), expected);
        let unix = "--B\nContent-Disposition: form-data; name=\"a\\\"b\"\n\n1\n--B\nContent-Disposition: form-data; name=\"c\"\n\n\n--B--";
        assert_eq!(read(unix, "B").unwrap(), [("a\"b".to_owned(), false, "1"), ("c".to_owned(), false, "")]);
        assert_eq!(read("--B--\r\n", "B").unwrap(), []);
    }

    #[test]
    fn what_is_no_whole_form_is_not_read() {
        for body in [
            "",
            "{}",
            "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1",
            "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n--B--",
            "--B\r\nContent-Disposition: form-data\r\n\r\n1\r\n--B--",
            "--B\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\n1\r\n--B--",
            "--B\r\nno colon\r\n\r\n1\r\n--B--",
            "--B\r\n\r\n1\r\n--B--",
        ] {
            assert_eq!(read(body, "B"), None, "{body}");
        }
        let field = "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n";
        assert!(parts(format!("{}--B--", field.repeat(MAX_PARTS)).as_bytes(), "B").is_some());
        assert!(parts(format!("{}--B--", field.repeat(MAX_PARTS + 1)).as_bytes(), "B").is_none());
    }

    proptest! {
        #[test]
        fn any_content_comes_back(fields in prop::collection::vec(("[a-z\"\\\\]{1,6}", prop::collection::vec(any::<u8>(), 0..60)), 0..6)) {
            let mut body = Vec::new();
            for (name, content) in &fields {
                let name = name.replace('\\', "\\\\").replace('"', "\\\"");
                body.extend_from_slice(format!("--x1y2\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n").as_bytes());
                body.extend_from_slice(content);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"--x1y2--\r\n");
            let read = parts(&body, "x1y2").unwrap();
            let read: Vec<_> = read.iter().map(|part| (part.name.to_string(), body[part.content.clone()].to_vec())).collect();
            prop_assert_eq!(read, fields);
        }

        #[test]
        fn nothing_makes_it_panic(body in "[-B\r\n:;a-z=\"\\\\ ]{0,80}", content_type in "\\PC{0,40}") {
            let _ = parts(body.as_bytes(), "B");
            let _ = boundary(&content_type);
            let _ = parameter(body.as_bytes(), "name");
        }
    }
}
