//! Any text as `pointsman.toml`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pointsman_config::{Diagnostic, Env, Location, parse};

/// An environment with nothing in it but one key, and what opens the sealed one of the seeds.
struct Bare;

impl Env for Bare {
    fn var(&self, name: &str) -> Option<String> {
        match name {
            "KEY" => Some("from-the-environment".to_owned()),
            "POINTSMAN_SEAL_KEY" => Some("seal-private:AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=".to_owned()),
            _ => None,
        }
    }
    fn names(&self) -> Vec<String> {
        vec!["KEY".to_owned(), "POINTSMAN_SEAL_KEY".to_owned()]
    }
}

fuzz_target!(|text: &str| {
    match parse(text, "fuzz.toml", &Bare) {
        Ok(loaded) => {
            let again = parse(text, "fuzz.toml", &Bare).expect("the same text is good again");
            assert!(loaded.config.is_same(&again.config));
            loaded.warnings.iter().for_each(|problem| is_sound(problem, text));
        }
        Err(error) => {
            assert!(!error.diagnostics.is_empty());
            error.diagnostics.iter().for_each(|problem| is_sound(problem, text));
        }
    }
});

fn is_sound(problem: &Diagnostic, text: &str) {
    assert!(!problem.message.is_empty());
    for secret in ["from-the-environment", "sk-sealed-by-libsodium", "AQIDBAUGBwgJ"] {
        assert!(text.contains(secret) || !problem.to_string().contains(secret), "a secret is shown: {problem}");
    }
    if let Some(Location::File { line, .. }) = &problem.place {
        assert!(*line >= 1 && *line <= text.lines().count().max(1) + 1, "{problem}");
    }
}
