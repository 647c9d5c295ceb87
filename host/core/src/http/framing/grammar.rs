//! Grammar of a head's fields (RFC 9110 and RFC 9112).

use memchr::memchr;

use super::fault::Fault;

/// A field's name, and its value with the white space around it (RFC 9112 section 5).
pub(super) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    if let Some(b' ' | b'\t') = line.first() {
        return Err(Fault::Fold);
    }
    let colon = memchr(b':', line);
    let (name, value) = colon.map_or((line, &[][..]), |colon| (&line[..colon], &line[colon + 1..]));
    // Without a branch, for the compiler to look at many bytes at a time.
    let controls = value.iter().fold(false, |any, &b| any | ((b < b' ') & (b != b'\t')) | (b == 0x7f));
    if controls {
        return Err(if memchr(b'\r', value).is_some() { Fault::LineEnd } else { Fault::FieldValue });
    }
    match colon {
        Some(_) if is_token(name) => Ok((name, value)),
        Some(_) | None if memchr(b'\r', name).is_some() => Err(Fault::LineEnd),
        Some(_) | None => Err(Fault::FieldName),
    }
}

pub(super) enum FramingField {
    ContentLength,
    TransferEncoding,
}

pub(super) fn framing_field(name: &[u8]) -> Option<FramingField> {
    match name.len() {
        14 if name.eq_ignore_ascii_case(b"content-length") => Some(FramingField::ContentLength),
        17 if name.eq_ignore_ascii_case(b"transfer-encoding") => Some(FramingField::TransferEncoding),
        _ => None,
    }
}

/// Digits and nothing else. More than a signed number holds is taken for an attack on somebody's arithmetic.
pub(super) fn number(digits: &[u8], radix: u32) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let number = digits.iter().try_fold(0u64, |n, &b| {
        let digit = char::from(b).to_digit(radix)?;
        n.checked_mul(u64::from(radix))?.checked_add(u64::from(digit))
    })?;
    (number <= i64::MAX as u64).then_some(number)
}

/// Without the white space around it. Not `trim_ascii`: that takes form feeds for white space, the RFC does not.
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

pub(super) fn is_token(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().fold(true, |all, &b| all & TOKEN[usize::from(b)])
}

/// `tchar` (RFC 9110 section 5.6.2).
pub(super) const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        let byte = b as u8;
        table[b] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        b += 1;
    }
    table
};
