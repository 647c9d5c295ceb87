//! The explanation of an exchange: what happened to it, in the order of time, in words.
//!
//! A [`Story`] is plain data, so that it can be told of a world as well as of what a server has recorded.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::{Column, NONE, RowState, STRIDE};
use pointsman_core::outcome::Kind;
use pointsman_core::table::Lane;

/// Backends told of one question; of more only the number is told.
const MAX_STANDINGS: usize = 12;

/// Everything that happened to one exchange.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Story {
    /// Which exchange it is: "request 2: m, 100 prompt tokens".
    pub title: String,
    /// What happened when, oldest first; times are counted from where the caller likes.
    pub moments: Vec<(Duration, Moment)>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Moment {
    /// It arrived.
    Arrived,
    /// The policy was asked, and saw this of the backends that could serve it.
    Asked(Vec<Standing>),
    /// It decided this.
    Decided(String),
    /// And noted this.
    Noted(String),
    /// Or failed like this, and the default policy decided.
    Fault(String),
    /// An attempt was sent.
    Sent {
        /// Where to.
        backend: Arc<str>,
        /// How.
        lane: Lane,
        /// The model name sent.
        model: String,
        /// Was it to find out whether the backend is well again?
        probe: bool,
    },
    /// The first byte went downstream.
    Committed,
    /// An attempt ended.
    Outcome {
        /// Where.
        backend: Arc<str>,
        /// As what.
        kind: Kind,
        /// The HTTP status; 0: none.
        status: u16,
        /// How long it took.
        took: Duration,
        /// How long the upstream asked to be left alone.
        retry_after: Option<Duration>,
        /// What it said, or what happened.
        message: String,
        /// What it cost, USD.
        cost_usd: f64,
    },
    /// It began to wait, at most so long.
    Waits(Duration),
    /// It waited so long; the backend is the one whose capacity it was handed, none when its time was up.
    Waited(Duration, Option<Arc<str>>),
    /// It ended.
    End(String),
}

/// A backend as a policy saw it in one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its id.
    pub backend: Arc<str>,
    row: [u32; STRIDE],
}

impl Standing {
    /// Reads a row of a query; none for a backend that could not serve the request at all.
    pub fn read(backend: &Arc<str>, row: &[u32]) -> Option<Self> {
        let row: [u32; STRIDE] = row.try_into().ok()?;
        let suited = row[Column::State as usize] != RowState::Unsuited as u32;
        suited.then(|| Self { backend: backend.clone(), row })
    }

    fn number(&self, column: Column) -> u32 {
        self.row[column as usize]
    }

    fn is(&self, state: RowState) -> bool {
        self.number(Column::State) == state as u32
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason =
            Kind::ALL.get(self.number(Column::CooldownReason) as usize).map_or("unknown", |kind| kind.as_str());
        write!(f, "{} ", self.backend)?;
        if self.is(RowState::Ready) {
            f.write_str("is ready")?;
        } else if self.is(RowState::Cooling) {
            write!(f, "cools for {} more ({reason})", of_ms(self.number(Column::CooldownMs)))?;
        } else if self.is(RowState::Probing) {
            write!(f, "is being probed ({reason})")?;
        } else if self.is(RowState::Drained) {
            return f.write_str("is drained");
        } else {
            match self.number(Column::ReadyMs) {
                NONE => f.write_str("is at its limits")?,
                ms => write!(f, "is at its limits for {}", of_ms(ms))?,
            }
        }
        if self.number(Column::InFlight) > 0 {
            write!(f, ", {} in flight", self.number(Column::InFlight))?;
        }
        if self.number(Column::Queued) > 0 {
            write!(f, ", {} wait", self.number(Column::Queued))?;
        }
        match self.number(Column::EmergencyMs) {
            _ if self.is(RowState::Ready) => Ok(()),
            NONE => f.write_str(", no emergency"),
            0 => f.write_str(", emergency now"),
            ms => write!(f, ", emergency in {}", of_ms(ms)),
        }
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        let mut before = None;
        for (at, moment) in &self.moments {
            // The same time is written once.
            let time = if before == Some(at) { String::new() } else { format!("{:.3} s", at.as_secs_f64()) };
            writeln!(f, "{time:>12}  {moment}")?;
            before = Some(at);
        }
        Ok(())
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::Arrived => f.write_str("arrived"),
            Moment::Asked(standings) => {
                let shown = standings.iter().take(MAX_STANDINGS).map(Standing::to_string).collect::<Vec<_>>();
                write!(f, "asked    {}", shown.join("; "))?;
                match standings.len().saturating_sub(MAX_STANDINGS) {
                    0 => Ok(()),
                    more => write!(f, "; and {more} more"),
                }
            }
            Moment::Decided(decision) => write!(f, "decided  {decision}"),
            Moment::Noted(note) => write!(f, "noted    {note}"),
            Moment::Fault(fault) => write!(f, "fault    {fault}; the default policy decided instead"),
            Moment::Sent { backend, lane, model, probe } => {
                write!(f, "sent     to {backend} in the {} lane, as {model}", lane.as_str())?;
                if *probe { f.write_str(", a probe after its cooldown") } else { Ok(()) }
            }
            Moment::Committed => f.write_str("begun    the answer's first byte went downstream"),
            Moment::Outcome { backend, kind, status, took, retry_after, message, cost_usd } => {
                write!(f, "outcome  {backend}: {}", kind.as_str())?;
                if *status > 0 {
                    write!(f, " ({status})")?;
                }
                write!(f, " after {}", in_words(*took))?;
                if let Some(retry_after) = retry_after {
                    write!(f, ", asks to be left alone for {}", in_words(*retry_after))?;
                }
                if *cost_usd > 0.0 {
                    write!(f, ", {cost_usd:.6} USD")?;
                }
                if message.is_empty() { Ok(()) } else { write!(f, ": {message}") }
            }
            Moment::Waits(max) => write!(f, "waits    at most {}", in_words(*max)),
            Moment::Waited(took, Some(backend)) => {
                write!(f, "waited   {}, then was handed {backend}", in_words(*took))
            }
            Moment::Waited(took, None) => write!(f, "waited   {}, in vain", in_words(*took)),
            Moment::End(end) => write!(f, "end      {end}"),
        }
    }
}

fn of_ms(ms: u32) -> String {
    in_words(Duration::from_millis(ms.into()))
}

/// A duration as people write it: "20 ms", "1.5 s", "2 min".
pub fn in_words(d: Duration) -> String {
    /// Above it minutes are easier to read.
    const LONG: Duration = Duration::from_secs(300);
    let ms = d.as_micros().div_ceil(1_000);
    if d >= LONG {
        return format!("{} min", trimmed(d.as_secs_f64() / 60.0, 1));
    }
    if ms < 1_000 { format!("{ms} ms") } else { format!("{} s", trimmed(ms as f64 / 1_000.0, 3)) }
}

fn trimmed(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        let words = |ms| in_words(Duration::from_millis(ms));
        assert_eq!(words(0), "0 ms");
        assert_eq!(words(999), "999 ms");
        assert_eq!(words(1_500), "1.5 s");
        assert_eq!(words(120_000), "120 s");
        assert_eq!(words(600_000), "10 min");
    }

    #[test]
    fn a_row_reads_as_a_sentence() {
        let mut row = [0; STRIDE];
        row[Column::State as usize] = RowState::Cooling as u32;
        row[Column::CooldownMs as usize] = 1_980;
        row[Column::CooldownReason as usize] = Kind::RateLimited.index();
        row[Column::InFlight as usize] = 2;
        row[Column::EmergencyMs as usize] = NONE;
        let standing = Standing::read(&"a".into(), &row).unwrap();
        assert_eq!(standing.to_string(), "a cools for 1.98 s more (rate_limited), 2 in flight, no emergency");
        row[Column::State as usize] = RowState::Unsuited as u32;
        assert_eq!(Standing::read(&"a".into(), &row), None);
    }

    #[test]
    fn a_time_is_written_once() {
        let at = Duration::from_millis(20);
        let moments = vec![(at, Moment::Arrived), (at, Moment::Decided("primary a".to_owned()))];
        let story = Story { title: "request 1".to_owned(), moments };
        assert_eq!(story.to_string(), "request 1\n     0.020 s  arrived\n              decided  primary a\n");
    }
}
