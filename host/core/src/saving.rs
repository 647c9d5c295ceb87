//! Savings of an answer: the price of the cheapest fallback for the same tokens, less the price paid.

use crate::record::Usage;
use crate::table::{Lane, Table, Tier};

/// Returns the savings of an answer in `lane` in USD, at least 0; `None` without a comparison: it was answered in the
/// fallback lane, or no fallback among `candidates` (indices of backends that serve the model) has a price.
///
/// `answer` are the tokens of the attempt that answered, `paid_usd` what all attempts cost.
pub fn saved_usd(
    table: &Table,
    candidates: &[u32],
    model: &str,
    lane: Lane,
    answer: Usage,
    paid_usd: f64,
) -> Option<f64> {
    match lane {
        Lane::Fallback => return None,
        Lane::Primary | Lane::Emergency => {}
    }
    let fallbacks = candidates.iter().filter_map(|index| table.backends.get(*index as usize));
    let would_cost = fallbacks.filter(|backend| backend.tier == Tier::Fallback).filter_map(|backend| {
        let price = backend.price(&backend.sent_model(model)?)?;
        Some(answer.cost_usd(Some(price)))
    });
    let cheapest = would_cost.min_by(f64::total_cmp)?;
    // Not `max`, which may answer -0.0.
    Some(if cheapest > paid_usd { cheapest - paid_usd } else { 0.0 })
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::table::{Backend, Pattern, Price, Route};

    const TOKENS: Usage = Usage { input_tokens: 1_000_000, output_tokens: 500_000, ..Usage::NONE };

    fn backend(id: &str, tier: Tier, sent: &str, price: Option<(f64, f64)>) -> Backend {
        let price =
            price.map(|(input, output)| Price { input_per_mtok: input, output_per_mtok: output, ..Price::default() });
        Backend {
            id: id.into(),
            tier,
            routes: vec![Route { asked: Pattern::Exact("m".to_owned()), sent: sent.to_owned() }],
            prices: price.map(|price| (sent.to_owned(), price)).into_iter().collect(),
            ..Backend::new("a")
        }
    }

    fn table() -> Table {
        Table::new(
            vec![
                backend("free", Tier::Primary, "m", None),
                backend("dear", Tier::Fallback, "m-large", Some((4.0, 20.0))),
                backend("cheap", Tier::Fallback, "m-small", Some((2.0, 10.0))),
                backend("unpriced", Tier::Fallback, "m", None),
            ],
            Vec::new(),
        )
    }

    fn saved(candidates: &[u32], lane: Lane, paid_usd: f64) -> Option<f64> {
        saved_usd(&table(), candidates, "m", lane, TOKENS, paid_usd)
    }

    #[test]
    fn the_cheapest_priced_fallback_that_serves_the_model_is_compared_with() {
        assert_eq!(saved(&[0, 1, 2, 3], Lane::Primary, 0.0), Some(7.0), "2 for the prompt and 5 for the answer");
        assert_eq!(saved(&[0, 1], Lane::Primary, 0.0), Some(14.0), "the cheaper one does not serve it");
        assert_eq!(saved(&[0, 1, 2, 3], Lane::Primary, 1.5), Some(5.5), "less what was paid");
    }

    #[test]
    fn without_a_priced_fallback_nothing_is_known_and_a_fallback_saves_nothing() {
        assert_eq!(saved(&[0], Lane::Primary, 0.0), None);
        assert_eq!(saved(&[0, 3], Lane::Primary, 0.0), None);
        assert_eq!(saved(&[0, 1, 2, 3], Lane::Fallback, 7.0), None);
    }

    #[test]
    fn the_emergency_lane_is_measured_by_the_same_rule_and_nothing_is_below_zero() {
        assert_eq!(saved(&[0, 2], Lane::Emergency, 0.0), Some(7.0), "a primary answered");
        for paid in [7.0, 9.0] {
            let saved = saved(&[0, 2], Lane::Emergency, paid).unwrap();
            assert_eq!((saved, saved.is_sign_positive()), (0.0, true), "a fallback answered, or a dear primary");
        }
    }
}
