//! A promotion as the terminal shows it.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use pointsman_core::text::OneLine;
use pointsman_core::usd::Usd;
use pointsman_engine::clock::Stopwatch;
use serde::Deserialize;

/// Interval of lines where output is not a terminal, beside one for each change.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Fields of `/api/policy` that are shown.
#[derive(Deserialize)]
pub(super) struct Policy {
    pub(super) revision: String,
    pub(super) promotion: Option<Promotion>,
}

#[derive(Clone, Deserialize)]
pub(super) struct Promotion {
    pub(super) state: String,
    pub(super) candidate: String,
    pub(super) control: String,
    pub(super) share: String,
    #[serde(default)]
    pub(super) warning: Option<String>,
    pub(super) since: String,
    pub(super) until: String,
    pub(super) why: Option<String>,
    pub(super) extended_because: Option<String>,
    pub(super) sides: Sides,
    pub(super) guards: Vec<Guard>,
}

#[derive(Clone, Deserialize)]
pub(super) struct Sides {
    pub(super) control: Side,
    pub(super) candidate: Side,
}

#[derive(Clone, Deserialize)]
pub(super) struct Side {
    pub(super) exchanges: u64,
    pub(super) failed: u64,
    pub(super) p95_ms: Option<u64>,
    pub(super) cost_usd: f64,
}

#[derive(Clone, Deserialize)]
pub(super) struct Guard {
    pub(super) guard: String,
    pub(super) standing: String,
    pub(super) words: String,
}

/// Shows how it stands: in one line that is replaced, or in lines now and then.
pub(super) struct Screen<'a> {
    pub(super) is_terminal: bool,
    pub(super) told: Option<(Vec<String>, Stopwatch)>,
    pub(super) is_extension_told: bool,
    pub(super) out: &'a mut dyn Write,
}

impl Screen<'_> {
    /// Shows the present state of the promotion.
    pub(super) fn show(&mut self, now: &Promotion) -> io::Result<()> {
        self.extension(now)?;
        if self.is_terminal {
            // Without wrapping, what is longer than the line is cut, and one line is all there is to replace.
            write!(self.out, "\r\x1b[2K\x1b[?7l{now}\x1b[?7h")?;
            return self.out.flush();
        }
        let standings: Vec<String> = now.guards.iter().map(|guard| guard.standing.clone()).collect();
        let is_old = |(told, at): &(Vec<String>, Stopwatch)| *told != standings || at.elapsed() >= LINE_EVERY;
        if self.told.as_ref().is_none_or(is_old) {
            writeln!(self.out, "{now}")?;
            self.told = Some((standings, Stopwatch::start()));
        }
        self.out.flush()
    }

    /// Shows once why the promotion is extended.
    fn extension(&mut self, now: &Promotion) -> io::Result<()> {
        let Some(why) = now.extended_because.as_ref().filter(|_| !self.is_extension_told) else { return Ok(()) };
        self.is_extension_told = true;
        if self.is_terminal {
            write!(self.out, "\r\x1b[2K")?;
        }
        writeln!(self.out, "extended to {}: {}", OneLine(&now.until), OneLine(why))
    }

    /// Shows the result of the promotion and its reason.
    pub(super) fn end(&mut self, now: &Promotion) -> io::Result<()> {
        self.extension(now)?;
        if self.is_terminal {
            writeln!(self.out, "\r\x1b[2K{now}")?;
        }
        for guard in &now.guards {
            let Guard { guard, standing, words } = guard;
            writeln!(self.out, "  {:<22} {:<9} {}", OneLine(guard), OneLine(standing), OneLine(words))?;
        }
        let (state, why) = (now.state.replace('_', " "), now.why.as_deref().unwrap_or("no reason was given"));
        writeln!(self.out, "{}: {}", OneLine(&state), OneLine(why))
    }
}

impl fmt::Display for Promotion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guards: Vec<String> =
            self.guards.iter().map(|g| format!("{} {}", OneLine(&g.guard), OneLine(&g.standing))).collect();
        let Sides { control, candidate } = &self.sides;
        write!(f, "candidate {candidate}; in force {control}; {}; until {}", guards.join(", "), OneLine(&self.until))
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} exchanges, {} failed", self.exchanges, self.failed)?;
        if let Some(p95_ms) = self.p95_ms {
            write!(f, ", p95 {p95_ms} ms")?;
        }
        write!(f, ", {} each", Usd(self.cost_usd))
    }
}
