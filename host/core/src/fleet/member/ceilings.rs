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
    /// Records a refusal of this size.
    pub(super) fn refused(&mut self, now: Timestamp, dimension: Scope, model: &Arc<str>, size: Size) {
        let Some(size) = measure(dimension, size) else { return };
        let until = now + REMEMBERED_FOR;
        self.0.retain(|ceiling| now < ceiling.until);
        let is_same = |ceiling: &&mut Ceiling| {
            let is_as_open = (ceiling.at_least == UNSAID) == (size == UNSAID);
            ceiling.dimension == dimension && ceiling.model == *model && is_as_open
        };
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
        let is_over = |size: u32| (size == UNSAID) == (self.at_least == UNSAID) && size >= self.at_least;
        is_for && measure(self.dimension, size).is_some_and(is_over)
    }
}

/// Stands for the length of an answer that the client left open: providers take another for it each, so it is compared
/// with nothing but itself.
const UNSAID: u32 = u32::MAX;

/// The size in this dimension; `None` where it is not known.
fn measure(dimension: Scope, size: Size) -> Option<u32> {
    let measured = match dimension {
        Scope::BodySize => size.body_bytes,
        Scope::PromptSize => size.prompt_tokens.saturating_add(size.answer_tokens),
        Scope::AnswerSize if size.answer_tokens == 0 => UNSAID,
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
        ceilings.refused(NOW, Scope::PromptSize, &m, size(0, 50_000, 2_000));
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
    fn an_answer_whose_length_is_left_open_is_compared_with_its_like_only() {
        let m: Arc<str> = "m".into();
        let mut ceilings = Ceilings::default();
        let (open, long, short) = (size(0, 10, 0), size(0, 10, 32_000), size(0, 100_000, 1_000));
        let over = |ceilings: &Ceilings| [open, long, short].map(|size| ceilings.is_over(NOW, "other", size));
        ceilings.refused(NOW, Scope::AnswerSize, &m, long);
        assert_eq!(over(&ceilings), [false, true, false]);
        ceilings.refused(NOW, Scope::AnswerSize, &m, open);
        assert_eq!(over(&ceilings), [true, true, false]);
        ceilings.answered(&m, open);
        assert_eq!(over(&ceilings), [false, true, false]);
    }

    #[test]
    fn a_size_that_is_not_known_says_nothing() {
        let mut ceilings = Ceilings::default();
        ceilings.refused(NOW, Scope::BodySize, &"m".into(), size(0, 10, 10));
        ceilings.refused(NOW, Scope::Backend, &"m".into(), size(10, 10, 10));
        assert!(ceilings.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_smaller_than_all_that_was_refused_is_never_over(
            refused in prop::collection::vec((1u32..1_000, 1u32..1_000), 1..80), prompt in 0u32..2_000,
        ) {
            let mut ceilings = Ceilings::default();
            for (model, prompt) in &refused {
                ceilings.refused(NOW, Scope::PromptSize, &format!("m{}", model % 50).into(), size(0, *prompt, 0));
            }
            prop_assert!(ceilings.0.len() <= MAX_CEILINGS);
            let smallest = refused.iter().filter(|(model, _)| model % 50 == 7).map(|(_, prompt)| *prompt).min();
            if smallest.is_none_or(|smallest| prompt < smallest) {
                prop_assert!(!ceilings.is_over(NOW, "m7", size(0, prompt, 0)));
            }
        }
    }
}
