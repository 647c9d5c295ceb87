//! A recorded exchange, explained: what the journal has of it becomes a [`Story`], a time line, JSON, or a scenario.

mod denied;
mod json;
mod retell;
pub mod scenario;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_exact;
mod timeline;

use std::fmt::Write as _;

use pointsman_core::text::OneLine;
use pointsman_store::Journaled;

use super::story::{Moment, Story};

pub use denied::{denied, denied_text};
pub use json::json;
pub use retell::{Retold, retell};
pub use timeline::{Look, timeline};

/// The whole explanation for a terminal: what it was, a time line, the story.
pub fn text(journaled: &Journaled, look: Look) -> String {
    let story = retell(journaled).story;
    let Story { title, moments } = &story;
    let exchange = &journaled.exchange;
    let (title, policy) = (OneLine(title), OneLine(&exchange.policy));
    let mut text = format!("{title}\n{} UTC, policy {policy}", exchange.started.trim_end_matches('Z'));
    if let Some(client) = &exchange.client {
        let _ = write!(text, ", client {}", OneLine(client));
    }
    if let Some(session) = &exchange.session {
        let _ = write!(text, ", session {}", OneLine(session));
    }
    for (name, value) in &journaled.trail.labels {
        let _ = write!(text, ", {} = {}", OneLine(name), OneLine(value));
    }
    text.push('\n');
    let drawn = timeline(&story, look);
    if !drawn.is_empty() {
        let _ = write!(text, "\n{drawn}");
    }
    text.push('\n');
    // The title is told above.
    let told = Story { title: String::new(), moments: moments.clone() }.to_string();
    for line in told.lines().skip(1) {
        let _ = writeln!(text, "{}", look.ink(line));
    }
    if journaled.trail.left_out > 0 {
        let _ = writeln!(text, "\n{} more questions were too much to keep", journaled.trail.left_out);
    }
    text
}

/// The moment at which the exchange ended, if it is told.
fn end(story: &Story) -> Option<std::time::Duration> {
    story.moments.iter().rev().find(|(_, moment)| matches!(moment, Moment::End(_))).map(|(at, _)| *at)
}
