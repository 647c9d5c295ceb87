//! The time line: a bar for every attempt and every wait, over the time of the exchange.

use std::fmt::Write as _;
use std::time::Duration;

use pointsman_core::text::OneLine;

use super::end;
use crate::story::{Moment, Story, in_words};

/// Width and capabilities of the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Width of a line, in columns.
    pub width: usize,
    /// Characters outside of ASCII may be used.
    pub unicode: bool,
    /// ANSI colours may be used.
    pub colour: bool,
}

/// The least columns for the bars; on a narrower terminal the lines are longer than it.
const MIN_BARS: usize = 16;
/// The most characters of a backend's name.
const MAX_NAME: usize = 24;
/// Bars drawn; of more only the number is told.
const MAX_BARS: usize = 40;

/// Kind of a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nature {
    Waited,
    Answered,
    Failed,
}

/// A stretch of time of one kind, in one line.
#[derive(Clone, Debug)]
struct Bar {
    name: String,
    nature: Nature,
    from: Duration,
    /// Time when the first byte went downstream.
    begun: Option<Duration>,
    until: Duration,
    told: String,
}

/// Draws it; nothing for an exchange that neither tried nor waited.
pub fn timeline(story: &Story, look: Look) -> String {
    let bars = bars(story);
    let Some(whole) = end(story).or(bars.last().map(|bar| bar.until)).filter(|_| !bars.is_empty()) else {
        return String::new();
    };
    let name_width = bars.iter().map(|bar| bar.name.chars().count()).max().unwrap_or_default();
    let told_width = bars.iter().map(|bar| bar.told.chars().count()).max().unwrap_or_default();
    let cells = look.width.saturating_sub(name_width + told_width + 6).max(MIN_BARS);
    let mut text = String::new();
    for bar in bars.iter().take(MAX_BARS) {
        let drawn = look.paint(bar.nature, &bar.draw(whole, cells, look.unicode));
        let _ = writeln!(text, "  {:<name_width$}  {drawn}  {}", bar.name, bar.told);
    }
    if let Some(more @ 1..) = bars.len().checked_sub(MAX_BARS) {
        let _ = writeln!(text, "  and {more} more");
    }
    let end = in_words(whole);
    let gap = cells.saturating_sub("0 s".len() + end.chars().count());
    let _ = writeln!(text, "  {:name_width$}  0 s{:gap$}{end}", "", "");
    text
}

fn bars(story: &Story) -> Vec<Bar> {
    let mut bars: Vec<Bar> = Vec::new();
    let (mut sent, mut begun, mut waits) = (None, None, None);
    for (at, moment) in &story.moments {
        match moment {
            Moment::Sent { backend, lane, .. } => (sent, begun) = (Some((*at, backend, lane)), None),
            Moment::Committed => begun = Some(*at),
            Moment::Outcome(outcome) => {
                let Some((from, backend, lane)) = sent.take() else { continue };
                let status = if outcome.status > 0 { format!(" ({})", outcome.status) } else { String::new() };
                bars.push(Bar {
                    name: format!("{} {}", shortened(backend), lane.as_str()),
                    nature: if outcome.outcome == "answered" { Nature::Answered } else { Nature::Failed },
                    from,
                    begun,
                    until: *at,
                    told: format!("{} {}{status}", in_words(at.saturating_sub(from)), outcome.outcome),
                });
            }
            Moment::Waits(_) => waits = Some(*at),
            Moment::Waited(took, granted) => {
                let from = waits.take().unwrap_or(at.saturating_sub(*took));
                let to = granted
                    .as_ref()
                    .map_or("until its time was up".to_owned(), |backend| format!("for {}", shortened(backend)));
                let told = format!("{} {to}", in_words(*took));
                bars.push(Bar { name: "wait".to_owned(), nature: Nature::Waited, from, begun: None, until: *at, told });
            }
            Moment::Arrived
            | Moment::Asked(_)
            | Moment::Unsuited(_)
            | Moment::State(_)
            | Moment::Decided(_)
            | Moment::Noted(_)
            | Moment::Fault(_)
            | Moment::PassedOver(_)
            | Moment::NotHad(_)
            | Moment::End(_)
            | Moment::Cost(_)
            | Moment::Saved { .. }
            | Moment::Denied { .. } => {}
        }
    }
    bars
}

fn shortened(name: &str) -> String {
    let name = &*OneLine(name).to_string();
    match name.char_indices().nth(MAX_NAME) {
        None => name.to_owned(),
        Some(_) => name.chars().take(MAX_NAME - 1).chain(['~']).collect(),
    }
}

impl Bar {
    /// The whole line of cells; a bar takes at least one of them.
    fn draw(&self, whole: Duration, cells: usize, unicode: bool) -> String {
        let cell = |at: Duration| match whole.is_zero() {
            true => 0,
            false => ((at.as_secs_f64() / whole.as_secs_f64() * cells as f64) as usize).min(cells),
        };
        let from = cell(self.from).min(cells - 1);
        let until = cell(self.until).max(from + 1);
        let begun = self.begun.map_or(until, |begun| cell(begun).clamp(from, until));
        let (head, body) = match (self.nature, unicode) {
            (Nature::Waited, true) => ('┄', '┄'),
            (Nature::Waited, false) => ('.', '.'),
            (Nature::Answered, true) => ('░', '█'),
            (Nature::Answered, false) => ('-', '#'),
            (Nature::Failed, true) => ('▒', '▓'),
            (Nature::Failed, false) => ('x', '%'),
        };
        // An answer that came all at once was waited for to its end.
        let begun = if self.nature == Nature::Answered && begun >= until { until - 1 } else { begun };
        let sign = |i: usize| match i {
            i if i < from || i >= until => ' ',
            i if i < begun => head,
            _ => body,
        };
        (0..cells).map(sign).collect()
    }
}

impl Look {
    fn paint(self, nature: Nature, text: &str) -> String {
        let code = match nature {
            Nature::Waited => "33",
            Nature::Answered => "32",
            Nature::Failed => "31",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A line of the story: the time is pale, the word for what happened is bold.
    pub(super) fn ink(self, line: &str) -> String {
        /// Columns of the time and of the word.
        const TIME: usize = 14;
        const WORD: usize = 23;
        match (self.colour, line.get(..TIME), line.get(TIME..WORD), line.get(WORD..)) {
            (true, Some(time), Some(word), Some(rest)) if !word.trim().is_empty() => {
                format!("\x1b[2m{time}\x1b[0m\x1b[1m{word}\x1b[0m{rest}")
            }
            _ => line.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use pointsman_core::table::Lane;

    use super::*;
    use crate::story::{Cost, Outcome};

    const MS: Duration = Duration::from_millis(1);

    fn sent(backend: &str) -> Moment {
        let (backend, lane, model) = (backend.into(), Lane::Primary, "m".to_owned());
        Moment::Sent { backend, lane, model, probe: false, join: None }
    }

    fn outcome(backend: &str, outcome: &str, status: u16) -> Moment {
        Moment::Outcome(Outcome {
            backend: backend.into(),
            outcome: outcome.to_owned(),
            scope: None,
            status,
            took: Duration::ZERO,
            first_token: None,
            retry_after: None,
            message: String::new(),
            cost: Cost::default(),
        })
    }

    fn story() -> Story {
        let moments = vec![
            (Duration::ZERO, sent("free")),
            (MS * 250, outcome("free", "rate_limited", 429)),
            (MS * 250, Moment::Waits(MS * 900)),
            (MS * 500, Moment::Waited(MS * 250, Some("free".into()))),
            (MS * 500, sent("free")),
            (MS * 750, Moment::Committed),
            (MS * 1_000, outcome("free", "answered", 200)),
            (MS * 1_000, Moment::End("delivered".to_owned())),
        ];
        Story { title: "r".to_owned(), moments }
    }

    #[test]
    fn every_attempt_and_wait_has_its_bar() {
        let look = Look { width: 63, unicode: false, colour: false };
        let drawn = timeline(&story(), look);
        let lines: Vec<&str> = drawn.lines().collect();
        assert_eq!(
            lines,
            [
                "  free primary  xxxxx                 250 ms rate_limited (429)",
                "  wait               .....            250 ms for free",
                "  free primary            -----#####  500 ms answered (200)",
                "                0 s              1 s",
            ]
        );
        let unicode = timeline(&story(), Look { unicode: true, ..look });
        assert!(unicode.contains('█') && unicode.contains('┄'), "{unicode}");
        assert!(!drawn.contains('\x1b') && timeline(&story(), Look { colour: true, ..look }).contains("\x1b[31m"));
    }

    #[test]
    fn a_narrow_terminal_and_an_empty_story_do_no_harm() {
        let look = Look { width: 1, unicode: false, colour: false };
        assert!(timeline(&story(), look).contains('#'));
        assert_eq!(timeline(&Story::default(), look), "");
        let instant = vec![(Duration::ZERO, sent("a")), (Duration::ZERO, outcome("a", "answered", 200))];
        assert!(timeline(&Story { title: String::new(), moments: instant }, look).contains('#'));
    }
}
