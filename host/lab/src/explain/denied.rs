//! A refusal at the door, explained: no policy was asked, so its record says all there is.

use std::time::Duration;

use pointsman_core::denial::Denial;
use pointsman_core::table::UNKNOWN_MODEL;
use pointsman_core::text::OneLine;
use pointsman_store::ExchangeRow;

use crate::story::{Moment, Story};

/// Tells the story of a refused request.
pub fn denied(exchange: &ExchangeRow, denial: Denial) -> Story {
    let why = exchange.error.clone().unwrap_or_default();
    let took = Duration::from_millis(exchange.elapsed_ms);
    Story {
        title: format!(
            "{}: refused at the door with status {} ({})",
            exchange.id,
            exchange.status,
            denial.as_str().replace('_', " ")
        ),
        moments: vec![(Duration::ZERO, Moment::Arrived), (took, Moment::Denied { denial, why })],
    }
}

/// The whole explanation for a terminal.
pub fn denied_text(exchange: &ExchangeRow, denial: Denial) -> String {
    let Story { title, moments } = denied(exchange, denial);
    let client = match &exchange.client {
        Some(client) => format!(", client {}", OneLine(client)),
        None => String::new(),
    };
    let model = match exchange.model.as_str() {
        UNKNOWN_MODEL => String::new(),
        model => format!(", model {}", OneLine(model)),
    };
    let head = format!(
        "{}\n{} UTC{client}{model}, {}\n",
        OneLine(&title),
        exchange.started.trim_end_matches('Z'),
        OneLine(&exchange.path)
    );
    // The title is told above.
    let told = Story { title: String::new(), moments }.to_string();
    format!("{head}{told}\nNo policy was asked and nothing was sent to a backend, so it cost nothing.\n")
}
