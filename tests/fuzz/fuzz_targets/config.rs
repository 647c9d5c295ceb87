//! Any text as `pointsman.toml`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pointsman::config::{Diagnostic, Env, Place, parse};

/// An environment with nothing in it but one key.
struct Bare;

impl Env for Bare {
    fn var(&self, name: &str) -> Option<String> {
        (name == "KEY").then(|| "from-the-environment".to_owned())
    }
    fn names(&self) -> Vec<String> {
        vec!["KEY".to_owned()]
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
    assert!(!problem.to_string().contains("from-the-environment"), "a secret is shown: {problem}");
    if let Some(Place::File { line, .. }) = &problem.place {
        assert!(*line >= 1 && *line <= text.lines().count().max(1) + 1, "{problem}");
    }
}
