//! The grammar of `[log] level`: a level, or directives. The library that reads it takes any word that is not a level for the name
//! of a part of the program, so that a typo would turn off nearly everything without a word.

use super::decode::nearest;

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Advice for an invalid log level.
pub(super) const HELP: &str =
    "write error, warn, info, debug, trace or off, or directives such as \"info,pointsman::policy=debug\"";

/// Explains why this is not a log level; `None` if it is one.
pub(super) fn fault(text: &str) -> Option<String> {
    if text.trim().is_empty() {
        return Some("this is empty, which is not a log level".to_owned());
    }
    let fault = text.split(',').map(str::trim).find_map(of_directive);
    // What is left of the grammar (spans and their fields) is the library's.
    fault.or_else(|| {
        text.parse::<tracing_subscriber::filter::Targets>()
            .err()
            .map(|why| format!("`{text}` is not a log level: {why}"))
    })
}

fn of_directive(directive: &str) -> Option<String> {
    let is_level = |word: &str| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level));
    let (word, is_ours) = match directive.rsplit_once('=') {
        Some((target, level)) => (level.trim(), !target.trim().is_empty() && is_level(level.trim())),
        None => (directive, is_level(directive) || directive.starts_with("pointsman::") || directive == "pointsman"),
    };
    if is_ours {
        return None;
    }
    let levels = LEVELS.map(str::to_owned);
    let meant = nearest(word, &levels).map_or_else(String::new, |level| format!("; did you mean `{level}`?"));
    Some(format!("`{directive}` is not a log level{meant}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_taken_and_typos_are_not() {
        for right in [
            "info",
            "WARN",
            "off",
            "debug,hyper=warn",
            "info, pointsman::policy=debug",
            "pointsman=trace",
            "pointsman::policy",
        ] {
            assert_eq!(fault(right), None, "{right}");
        }
        for (wrong, words) in [
            ("inof", "did you mean `info`?"),
            ("", "empty"),
            (" ", "empty"),
            ("loud", "`loud` is not a log level"),
            ("info,,warn", "`` is not"),
            ("a=loud", "`a=loud`"),
            ("=info", "`=info`"),
            ("hyper", "`hyper`"),
        ] {
            assert!(fault(wrong).is_some_and(|why| why.contains(words)), "{wrong}: {:?}", fault(wrong));
        }
    }
}
