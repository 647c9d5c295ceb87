//! Lengths of prompts and answers of requests that were not answered when they were recorded.

use std::collections::HashMap;
use std::sync::Arc;

use pointsman_core::attempt::PromptCount;

use crate::backtest::past::Arrival;
use crate::dice::Dice;

/// Lengths of the answers that were given.
#[derive(Clone, Debug, Default)]
pub struct Lengths {
    of_models: HashMap<Arc<str>, OfModel>,
    of_all: OfModel,
}

#[derive(Clone, Debug, Default)]
struct OfModel {
    outputs: Vec<u32>,
    /// Sums of prompts: as estimated, as counted, cached.
    prompts: (u64, u64, u64),
}

/// With fewer answers a model is taken to be like all others.
const MIN_ANSWERS: usize = 20;

impl Lengths {
    /// From the requests that were answered.
    pub fn learn(arrivals: &[Arrival]) -> Self {
        let mut lengths = Self::default();
        for arrival in arrivals {
            let of_model = lengths.of_models.entry(arrival.model.clone()).or_default();
            of_model.add(arrival);
            lengths.of_all.add(arrival);
        }
        lengths
    }

    fn of(&self, model: &str) -> &OfModel {
        self.of_models.get(model).filter(|m| m.outputs.len() >= MIN_ANSWERS).unwrap_or(&self.of_all)
    }

    /// Tokens of a request's answer: its own, else those of another to the same model, by chance.
    pub fn output(&self, arrival: &Arrival, dice: &mut Dice) -> u32 {
        if let Some(own) = arrival.own.output {
            return own;
        }
        let outputs = &self.of(&arrival.model).outputs;
        let like = if outputs.is_empty() { UNKNOWN } else { outputs[dice.below(outputs.len() as u64) as usize] };
        let most = if arrival.facts.max_tokens > 0 { arrival.facts.max_tokens } else { u32::MAX };
        like.min(most).max(arrival.own.least)
    }

    /// A request's prompt as backends count it.
    pub fn prompt(&self, arrival: &Arrival) -> PromptCount {
        arrival.own.prompt.unwrap_or_else(|| {
            let (estimated, counted, cached) = self.of(&arrival.model).prompts;
            if estimated == 0 {
                return PromptCount { tokens: arrival.facts.prompt_tokens, cached: 0 };
            }
            let of = |sum: u64| (f64::from(arrival.facts.prompt_tokens) * sum as f64 / estimated as f64).round() as u32;
            PromptCount { tokens: of(counted), cached: of(cached) }
        })
    }
}

/// An answer's tokens where nobody ever answered.
const UNKNOWN: u32 = 200;

impl OfModel {
    fn add(&mut self, arrival: &Arrival) {
        self.outputs.extend(arrival.own.output);
        if let Some(PromptCount { tokens, cached }) = arrival.own.prompt {
            self.prompts.0 += u64::from(arrival.facts.prompt_tokens);
            self.prompts.1 += u64::from(tokens);
            self.prompts.2 += u64::from(cached);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backtest::model::tests::arrival;
    use crate::backtest::past::Own;

    #[test]
    fn an_answer_is_as_long_as_it_was_else_as_long_as_one_like_it() {
        let answered = |n: u32| {
            let prompt = Some(PromptCount { tokens: 200, cached: 50 });
            Arrival { own: Own { output: Some(100 + n % 3), prompt, ..Own::default() }, ..arrival(100) }
        };
        let mut arrivals: Vec<Arrival> = (0..60).map(answered).collect();
        arrivals.push(Arrival { own: Own { least: 101, ..Own::default() }, ..arrival(40) });
        let lengths = Lengths::learn(&arrivals);
        let unanswered = &arrivals[60];
        let drawn: Vec<u32> = (0..50).map(|seed| lengths.output(unanswered, &mut Dice::new(seed, 1))).collect();
        assert!(drawn.iter().all(|n| (101..=102).contains(n)) && drawn.contains(&102), "{drawn:?}");
        assert_eq!(lengths.output(&arrivals[5], &mut Dice::new(1, 1)), 102);
        assert_eq!(lengths.prompt(unanswered), PromptCount { tokens: 80, cached: 20 });
        assert_eq!(lengths.prompt(&arrivals[0]), PromptCount { tokens: 200, cached: 50 });
    }
}
