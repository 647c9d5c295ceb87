//! As much HTTP/1.1 as fixed messages need.

/// The length of the head, and of the body its content-length tells (0 without one); none while the head is not whole.
pub(crate) fn message(input: &[u8]) -> Option<(usize, usize)> {
    let head = memchr::memmem::find(input, b"\r\n\r\n")? + 4;
    Some((head, content_length(&input[..head]).unwrap_or(0)))
}

/// Reads the `content-length`.
pub(crate) fn content_length(head: &[u8]) -> Option<usize> {
    let value = head.split(|b| *b == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(15)?;
        name.eq_ignore_ascii_case(b"content-length:").then_some(value)
    })?;
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}
