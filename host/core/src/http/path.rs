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

/// Returns true for a page, script or tool that scanners and browsers look for below any path, and that no API has: by the
/// extension of its last segment, of static files only right behind the version, or by the segment behind the version.
pub(crate) fn is_no_api(path: &str) -> bool {
    const SCRIPTS: [&str; 22] = [
        "php", "asp", "aspx", "jsp", "jspx", "cgi", "pl", "env", "ini", "conf", "cfg", "config", "sql", "bak", "old",
        "swp", "log", "zip", "tar", "gz", "rar", "7z",
    ];
    const STATIC: [&str; 17] = [
        "ico", "html", "htm", "xml", "txt", "json", "yml", "yaml", "js", "css", "map", "png", "jpg", "gif", "svg",
        "webp", "woff2",
    ];
    const TOOLS: [&str; 24] = [
        "_catalog",
        "_ignition",
        "actuator",
        "admin",
        "api-docs",
        "boaform",
        "cgi-bin",
        "console",
        "debug",
        "docs",
        "graphql",
        "jenkins",
        "login",
        "manager",
        "metrics",
        "owa",
        "phpmyadmin",
        "redoc",
        "server-status",
        "solr",
        "swagger-ui",
        "sys",
        "wp-admin",
        "wp-json",
    ];
    let own = &path[behind_versions(path)..];
    let mut segments = own.split('/').filter(|segment| !segment.is_empty());
    let Some(first) = segments.next() else { return false };
    let is_alone = segments.next().is_none();
    let last = own.rsplit('/').find(|segment| !segment.is_empty()).unwrap_or(first);
    let extension = last.rsplit_once('.').filter(|(name, _)| !name.is_empty()).map(|(_, extension)| extension);
    TOOLS.contains(&first)
        || own.starts_with("/agent/self")
        || extension.is_some_and(|extension| SCRIPTS.contains(&extension) || is_alone && STATIC.contains(&extension))
}

/// Paths by which load balancers, containers and people ask whether anybody is there, behind any version.
pub(crate) fn is_sign_of_life(path: &str) -> bool {
    const SIGNS: [&str; 9] =
        ["", "/health", "/healthz", "/livez", "/readyz", "/ping", "/status", "/health/liveliness", "/health/readiness"];
    let own = path[behind_versions(path)..].trim_end_matches('/');
    // `/v1beta` alone is nobody's question.
    SIGNS.contains(&own) && (!own.is_empty() || matches!(path.trim_matches('/'), "" | CLIENTS_VERSION))
}

/// The path without encoded blanks at the ends of its segments, as a base URL with a space or line end behind it makes them;
/// none where there are none.
pub(crate) fn without_blanks(path: &str) -> Option<String> {
    const BLANKS: [&str; 6] = ["%20", "%0A", "%0a", "%0D", "%0d", "%09"];
    let trimmed = |mut segment: &'_ str| -> usize {
        while let Some(rest) = BLANKS.iter().find_map(|blank| segment.strip_suffix(blank)) {
            segment = rest;
        }
        segment.len()
    };
    if !BLANKS.iter().any(|blank| path.contains(blank)) {
        return None;
    }
    let segments: Vec<&str> = path.split('/').map(|segment| &segment[..trimmed(segment)]).collect();
    let whole = segments.join("/");
    (whole != path).then_some(whole)
}

/// The model that a path names, as Azure's deployments, OpenAI's old engines and Google's APIs do: its place.
pub(crate) fn model_in(path: &str) -> Option<std::ops::Range<usize>> {
    let mut start = 0;
    let mut before = "";
    let last = path.rfind('/').map_or(0, |at| at + 1);
    for segment in path.split('/') {
        let end = start + segment.len();
        match before {
            "deployments" | "engines" if !segment.is_empty() && end < path.len() => return Some(start..end),
            "models" if start == last => {
                let colon = segment.rfind(':').filter(|at| *at > 0)?;
                return Some(start..start + colon);
            }
            _ => {}
        }
        before = segment;
        start = end + 1;
    }
    None
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
    fn scanners_paths_are_of_no_api_behind_a_version_too() {
        for path in [
            "/v1/wp-login.php",
            "/v1/a/b/shell.php",
            "/v1/favicon.ico",
            "/v1/swagger.json",
            "/v1/config.json",
            "/v1/backup.zip",
            "/v2/_catalog",
            "/v3/api-docs",
            "/v1/actuator/health",
            "/v1/agent/self",
            "/v1/sys/health",
        ] {
            assert!(is_no_api(path), "{path}");
        }
        for path in [
            "/v1/something-new",
            "/v1/assets/picture.png",
            "/v1/credits",
            "/v1/agents/completions",
            "/v1/models/gpt-3.5",
            "/v1",
            "/v1/.json",
        ] {
            assert!(!is_no_api(path), "{path}");
        }
        for path in ["/", "", "/v1", "/v1/", "/health", "/v1/health", "//v1/ping/", "/healthz"] {
            assert!(is_sign_of_life(path), "{path}");
        }
        for path in ["/v1beta", "/v1/healthy", "/v1/chat/health", "/x"] {
            assert!(!is_sign_of_life(path), "{path}");
        }
    }

    #[test]
    fn blanks_behind_segments_are_left_out() {
        for (path, without) in [
            ("/v1%20/chat/completions", Some("/v1/chat/completions")),
            ("/v1/chat/completions%0A", Some("/v1/chat/completions")),
            ("/v1%0d%0A/chat/completions%20%20", Some("/v1/chat/completions")),
            ("/v1/models/a%20b", None),
            ("/v1/chat/completions", None),
        ] {
            assert_eq!(without_blanks(path).as_deref(), without, "{path}");
        }
    }

    #[test]
    fn a_model_is_found_in_the_path_where_apis_have_it() {
        for (path, model) in [
            ("/openai/deployments/gpt-4o/chat/completions", Some("gpt-4o")),
            ("/v1/engines/davinci/completions", Some("davinci")),
            ("/v1beta/models/gemini-2:generateContent", Some("gemini-2")),
            ("/v1/projects/p/publishers/google/models/g:streamGenerateContent", Some("g")),
            ("/v1/models/a:b:predict", Some("a:b")),
            ("/v1/models/gpt-4o", None),
            ("/v1/models/:x", None),
            ("/openai/deployments/gpt-4o", None),
            ("/v1/engines", None),
            ("/v1/chat/completions", None),
        ] {
            assert_eq!(model_in(path).map(|at| &path[at]), model, "{path}");
        }
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
