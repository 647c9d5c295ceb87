//! A backend in a line for a start and a check: which models it serves, and what those cost that stand in for others.

use pointsman_core::suited::served_models;
use pointsman_core::table::Backend;

/// "gpt-*, o1*, and any other as gpt-4.1-mini ($0.40 in, $1.60 out per million tokens)".
pub(super) fn serving(backend: &Backend) -> String {
    let models = served_models(backend);
    let Some(stand_in) = backend.stand_in() else { return models };
    match backend.price(stand_in) {
        Some(price) => {
            let (input, output) = (price.input_per_mtok, price.output_per_mtok);
            format!("{models} (${input:.2} in, ${output:.2} out per million tokens)")
        }
        None => format!("{models} (no price: its spend counts as $0)"),
    }
}
