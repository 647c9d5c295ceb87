//! Sizes of requests that a backend has refused: larger ones are sent elsewhere for a while, smaller ones are not.

use std::sync::Arc;
use std::time::Duration;

use crate::origin::Size;
use crate::outcome::Scope;
use crate::time::Timestamp;

/// Time for which a size that was refused is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// Ceilings kept of one backend; beyond it the one that ends first is dropped.
const MAX_CEILINGS: usize = 32;

/// The sizes that one backend has refused.
#[derive(Debug, Default)]
pub(super) struct Ceilings(Vec<Ceiling>);

#[derive(Debug)]
struct Ceiling {
    dimension: Scope,
    model: Arc<str>,
    /// The smallest that was refused.
    at_least: u32,
    until: Timestamp,
}

impl Ceilings {
    /// Records a refusal of this size, with what the upstream said. The limit that it names holds where the size is
    /// smaller: the upstream counts otherwise. A size that hardly any backend refuses is the request's own affair.
    pub(super) fn refused(&mut self, now: Timestamp, dimension: Scope, model: &Arc<str>, size: Size, said: &str) {
        let Some(size) = measure(dimension, size) else { return };
        let size = size.max(named_limit(said).unwrap_or(0));
        if size < least_plausible(dimension) {
            return;
        }
        let until = now + REMEMBERED_FOR;
        self.0.retain(|ceiling| now < ceiling.until);
        let is_same = |ceiling: &&mut Ceiling| ceiling.dimension == dimension && ceiling.model == *model;
        match self.0.iter_mut().find(is_same) {
            Some(ceiling) => (ceiling.at_least, ceiling.until) = (ceiling.at_least.min(size), until),
            None => {
                if self.0.len() >= MAX_CEILINGS {
                    self.0.remove(0);
                }
                self.0.push(Ceiling { dimension, model: model.clone(), at_least: size, until });
            }
        }
    }

    /// Records that a request of this size was answered: it is below every ceiling.
    pub(super) fn answered(&mut self, model: &str, size: Size) {
        if !self.0.is_empty() {
            self.0.retain(|ceiling| !ceiling.covers(model, size));
        }
    }

    /// Returns true if a request of this size, or of a smaller one, was refused.
    pub(super) fn is_over(&self, now: Timestamp, model: &str, size: Size) -> bool {
        self.0.iter().any(|ceiling| now < ceiling.until && ceiling.covers(model, size))
    }

    /// Returns true if no size is known to be refused.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Ceiling {
    fn covers(&self, model: &str, size: Size) -> bool {
        // What a key can pay for, and how much a server reads, does not depend on the model.
        let is_for = self.dimension != Scope::PromptSize || &*self.model == model;
        is_for && measure(self.dimension, size).is_some_and(|size| size >= self.at_least)
    }
}

/// The smallest size whose refusal is taken to be for the size of requests in general.
const fn least_plausible(dimension: Scope) -> u32 {
    if matches!(dimension, Scope::BodySize) { 64 << 10 } else { 1_000 }
}

/// The limit that a refusal for size names: the only number of four digits or more, or of several the second largest,
/// where the largest is what was asked for. `None` where it names none.
fn named_limit(said: &str) -> Option<u32> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, ',' | '.' | '_' | '-' | ':' | '/');
    let (mut largest, mut second) = (None, None);
    for word in said.split(|c| !is_part(c)) {
        let word = word.trim_end_matches([',', '.', ':']);
        let is_number = word.bytes().all(|b| b.is_ascii_digit() || matches!(b, b',' | b'_'));
        let digits = word.bytes().filter(u8::is_ascii_digit);
        let number = digits.fold(0u32, |n, digit| n.saturating_mul(10).saturating_add(u32::from(digit - b'0')));
        if !is_number || number < 1_000 || largest == Some(number) {
            continue;
        }
        if largest < Some(number) {
            (largest, second) = (Some(number), largest);
        } else {
            second = second.max(Some(number));
        }
    }
    second.or(largest)
}

/// The size in this dimension; `None` where it is not known: providers take another length each for an answer whose length
/// the client left open.
fn measure(dimension: Scope, size: Size) -> Option<u32> {
    let measured = match dimension {
        Scope::BodySize => size.body_bytes,
        Scope::PromptSize => size.prompt_tokens.saturating_add(size.answer_tokens),
        Scope::AnswerSize => size.answer_tokens,
        Scope::Nothing
        | Scope::Request
        | Scope::RequestHere
        | Scope::Headers
        | Scope::Model
        | Scope::Operation
        | Scope::Backend => 0,
    };
    (measured > 0).then_some(measured)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn size(body_bytes: u32, prompt_tokens: u32, answer_tokens: u32) -> Size {
        Size { body_bytes, prompt_tokens, answer_tokens }
    }

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    #[test]
    fn larger_ones_are_refused_too_and_smaller_ones_are_not() {
        let m: Arc<str> = "m".into();
        let mut ceilings = Ceilings::default();
        ceilings.refused(NOW, Scope::PromptSize, &m, size(0, 50_000, 2_000), "");
        for (asked, model, is_over) in [
            (size(0, 52_000, 0), "m", true),
            (size(0, 60_000, 0), "m", true),
            (size(0, 51_999, 0), "m", false),
            (size(0, 10, 60_000), "m", true),
            (size(0, 60_000, 0), "other", false),
        ] {
            assert_eq!(ceilings.is_over(NOW, model, asked), is_over, "{asked:?} {model}");
        }
        assert!(!ceilings.is_over(NOW + REMEMBERED_FOR, "m", size(0, 60_000, 0)), "for a while");
        ceilings.answered("m", size(0, 55_000, 0));
        assert!(!ceilings.is_over(NOW, "m", size(0, 60_000, 0)), "it takes more than that now");
    }

    #[test]
    fn an_answer_whose_length_is_left_open_says_nothing() {
        let m: Arc<str> = "m".into();
        let mut ceilings = Ceilings::default();
        let (open, long, short) = (size(0, 10, 0), size(0, 10, 32_000), size(0, 100_000, 1_000));
        let over = |ceilings: &Ceilings| [open, long, short].map(|size| ceilings.is_over(NOW, "other", size));
        ceilings.refused(NOW, Scope::AnswerSize, &m, open, "fewer max_tokens");
        assert!(ceilings.is_empty());
        ceilings.refused(NOW, Scope::AnswerSize, &m, long, "fewer max_tokens");
        assert_eq!(over(&ceilings), [false, true, false]);
    }

    #[test]
    fn the_refusal_of_a_small_request_says_nothing_of_ordinary_ones() {
        let tiny = size(60, 5, 16);
        let ordinary = size(4_000, 900, 1_000);
        for (dimension, said) in [
            (Scope::PromptSize, "context_length_exceeded"),
            (Scope::PromptSize, "Request too large for gpt-4o-2024-11-20 (TPM): Limit 30000, Requested 52000."),
            (Scope::PromptSize, "Limit 0, Requested 21."),
            (Scope::BodySize, "Payload Too Large"),
            (Scope::AnswerSize, "You requested up to 65536 tokens, but can only afford 1234."),
        ] {
            let mut ceilings = Ceilings::default();
            ceilings.refused(NOW, dimension, &"m".into(), tiny, said);
            for asked in [tiny, size(60, 5, 0), ordinary] {
                assert!(!ceilings.is_over(NOW, "m", asked), "{said}: {asked:?}");
            }
        }
        let mut ceilings = Ceilings::default();
        ceilings.refused(NOW, Scope::PromptSize, &"m".into(), tiny, "Limit 30000, Requested 52000.");
        assert!(ceilings.is_over(NOW, "m", size(0, 30_000, 0)), "the limit it names");
    }

    #[test]
    fn the_limit_is_read_where_it_is_named() {
        for (said, limit) in [
            ("Limit 30000, Requested 52000. Visit https://host/a/9999.", Some(30_000)),
            ("prompt is too long: 208310 tokens > 200000 maximum", Some(200_000)),
            ("maximum context length is 128,000 tokens.", Some(128_000)),
            ("gpt-4-0613 of org-12345678: too large", None),
            ("at most 99999999999999 bytes", Some(u32::MAX)),
            ("too large", None),
        ] {
            assert_eq!(named_limit(said), limit, "{said}");
        }
    }

    #[test]
    fn a_size_that_is_not_known_says_nothing() {
        let mut ceilings = Ceilings::default();
        ceilings.refused(NOW, Scope::BodySize, &"m".into(), size(0, 10, 10), "");
        ceilings.refused(NOW, Scope::Backend, &"m".into(), size(10, 10, 10), "");
        assert!(ceilings.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_smaller_than_all_that_was_refused_is_never_over(
            refused in prop::collection::vec((1u32..1_000, 1u32..4_000), 1..80), prompt in 0u32..8_000,
        ) {
            let mut ceilings = Ceilings::default();
            for (model, prompt) in &refused {
                let model = format!("m{}", model % 50).into();
                ceilings.refused(NOW, Scope::PromptSize, &model, size(0, *prompt, 0), "");
            }
            prop_assert!(ceilings.0.len() <= MAX_CEILINGS);
            let smallest = refused.iter().filter(|(model, _)| model % 50 == 7).map(|(_, prompt)| *prompt).min();
            if prompt < 1_000 || smallest.is_none_or(|smallest| prompt < smallest) {
                prop_assert!(!ceilings.is_over(NOW, "m7", size(0, prompt, 0)));
            }
        }
    }
}
