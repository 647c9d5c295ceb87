//! Keys that were meant by words of other programs, and the section that a misplaced key belongs to.

use std::sync::OnceLock;

use serde_json::Value;

/// Words that operators know from elsewhere, and the keys here that mean the same; those that are known in the table count.
const SYNONYMS: [(&str, &[&str]); 32] = [
    ("key", &["api_key"]),
    ("apikey", &["api_key", "key"]),
    ("api_key", &["key", "token"]),
    ("token", &["api_key", "key"]),
    ("secret", &["api_key", "key", "token"]),
    ("url", &["base_url"]),
    ("uri", &["base_url"]),
    ("endpoint", &["base_url"]),
    ("api_base", &["base_url"]),
    ("host", &["base_url", "listen"]),
    ("address", &["base_url", "listen"]),
    ("addr", &["base_url", "listen"]),
    ("port", &["listen"]),
    ("bind", &["listen"]),
    ("name", &["id"]),
    ("id", &["name"]),
    ("type", &["dialect"]),
    ("provider", &["dialect", "backend"]),
    ("providers", &["backend"]),
    ("upstream", &["backend"]),
    ("model_list", &["backend"]),
    ("users", &["client"]),
    ("keys", &["client"]),
    ("requests_per_minute", &["rpm"]),
    ("tokens_per_minute", &["tpm"]),
    ("requests_per_day", &["rpd"]),
    ("tokens_per_day", &["tpd"]),
    ("concurrency", &["max_concurrency"]),
    ("max_parallel_requests", &["max_concurrency"]),
    ("budget", &["budget_usd_per_day"]),
    ("database", &["store", "path"]),
    ("logging", &["log"]),
];

/// The key of these that means what `word` means elsewhere.
pub(super) fn synonym<'k>(word: &str, known: &'k [String]) -> Option<&'k str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    let (_, meant) = SYNONYMS.iter().find(|(other, _)| *other == word)?;
    meant.iter().find_map(|key| known.iter().find(|known| known == key)).map(String::as_str)
}

/// The sections that have this key, as they are written in a file: `[[backend]] or [[client]]`.
pub(super) fn sections_with(key: &str) -> Option<String> {
    let sections: Vec<String> = keys_by_section()
        .iter()
        .filter(|(_, keys)| keys.iter().any(|known| known == key))
        .map(|(section, _)| section.clone())
        .collect();
    (!sections.is_empty()).then(|| sections.join(" or "))
}

/// Returns true if `[section]` or `[[section]]` has this key.
pub(super) fn has_key(section: &str, key: &str) -> bool {
    let written = [format!("[{section}]"), format!("[[{section}]]")];
    keys_by_section().iter().any(|(name, keys)| written.contains(name) && keys.iter().any(|known| known == key))
}

/// The keys of each section of the file, read out of its schema once.
fn keys_by_section() -> &'static [(String, Vec<String>)] {
    static KEYS: OnceLock<Vec<(String, Vec<String>)>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let schema = super::schema().to_value();
        let keys = |table: &Value| -> Vec<String> {
            table["properties"].as_object().map(|all| all.keys().cloned().collect()).unwrap_or_default()
        };
        let sections = schema["properties"].as_object().into_iter().flatten();
        let of_section = |(name, section): (&String, &Value)| match &section["items"] {
            Value::Null => (format!("[{name}]"), keys(resolved(&schema, section))),
            items => (format!("[[{name}]]"), keys(resolved(&schema, items))),
        };
        sections.map(of_section).filter(|(_, keys)| !keys.is_empty()).collect()
    })
}

/// The table that a part of the schema refers to, or the part itself.
fn resolved<'s>(schema: &'s Value, part: &'s Value) -> &'s Value {
    let reference = part["$ref"].as_str().or_else(|| part["allOf"][0]["$ref"].as_str());
    reference.and_then(|reference| schema.pointer(reference.strip_prefix('#')?)).unwrap_or(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn words_of_other_programs_lead_to_the_key_that_is_known_there() {
        let backend = known(&["id", "base_url", "api_key", "rpm"]);
        for (word, key) in [
            ("url", Some("base_url")),
            ("API-Key", None),
            ("apikey", Some("api_key")),
            ("requests-per-minute", Some("rpm")),
            ("name", Some("id")),
            ("port", None),
            ("colour", None),
        ] {
            assert_eq!(synonym(word, &backend), key, "{word}");
        }
        assert_eq!(synonym("port", &known(&["listen"])), Some("listen"));
        for (_, meant) in SYNONYMS {
            let is_known = |key: &&str| {
                sections_with(key).is_some() || keys_by_section().iter().any(|(section, _)| section.contains(*key))
            };
            assert!(meant.iter().all(is_known), "{meant:?}");
        }
    }

    #[test]
    fn a_key_of_another_section_is_found_there() {
        assert_eq!(sections_with("rpm").as_deref(), Some("[[backend]] or [[client]]"));
        assert!(sections_with("listen").is_some_and(|found| found.contains("[server]")));
        assert_eq!(sections_with("nonsense"), None);
        assert!(has_key("server", "listen") && has_key("backend", "rpm") && !has_key("server", "rpm"));
    }
}
