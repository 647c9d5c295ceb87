//! Segments of a request's path: versions of an API, and what stands behind them.

/// The version that clients of all dialects send.
pub(crate) const CLIENTS_VERSION: &str = "v1";

/// Returns true for `v1`, `v2`, `v1beta`, `v1alpha2`.
pub(crate) fn is_version(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    bytes.len() >= 2 && bytes[0] == b'v' && bytes[1].is_ascii_digit() && bytes.iter().all(u8::is_ascii_alphanumeric)
}

/// Bytes of the path before its first segment that is neither empty nor a version.
pub(crate) fn behind_versions(path: &str) -> usize {
    behind_all(path, is_version)
}

/// Bytes of the path before its first segment that is neither empty nor this one.
pub(crate) fn behind(path: &str, version: &str) -> usize {
    behind_all(path, |segment| segment == version)
}

/// Bytes of the path up to and with its last version that is not its last segment.
pub(crate) fn behind_last_version(path: &str) -> Option<usize> {
    let mut end = 0;
    let mut found = None;
    for segment in path.split('/') {
        end += segment.len();
        if is_version(segment) && end < path.len() {
            found = Some(end);
        }
        end += 1;
    }
    found
}

/// Returns true if its first segment is a version and something follows.
pub(crate) fn is_versioned(path: &str) -> bool {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    segments.next().is_some_and(is_version) && segments.any(|segment| !is_version(segment))
}

/// Returns true if a segment begins with a dot, as those of hidden files do.
pub(crate) fn has_hidden(path: &str) -> bool {
    path.split('/').any(|segment| segment.starts_with('.'))
}

fn behind_all(path: &str, is_left_out: impl Fn(&str) -> bool) -> usize {
    let mut at = 0;
    while let Some(rest) = path.get(at..).and_then(|rest| rest.strip_prefix('/')) {
        let segment = rest.split('/').next().unwrap_or_default();
        if !segment.is_empty() && !is_left_out(segment) {
            break;
        }
        at += 1 + segment.len();
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_at_the_beginning_are_left_behind_however_often_they_stand_there() {
        for (path, rest) in [
            ("/v1/x", "/x"),
            ("//v1///v1beta/x", "/x"),
            ("/v1", ""),
            ("/v1/", ""),
            ("/", ""),
            ("", ""),
            ("/x/v1/y", "/x/v1/y"),
            ("/version/x", "/version/x"),
        ] {
            assert_eq!(&path[behind_versions(path)..], rest, "{path}");
        }
        assert_eq!(&"/v1/v10/x"[behind("/v1/v10/x", "v1")..], "/v10/x");
    }

    #[test]
    fn the_last_version_may_stand_anywhere_but_at_the_end() {
        for (path, rest) in
            [("/openai/v1/files", Some("/files")), ("/v1/a/v2/b", Some("/b")), ("/a/v1", None), ("/a", None)]
        {
            assert_eq!(behind_last_version(path).map(|at| &path[at..]), rest, "{path}");
        }
    }
}
