//! Logs: readable on a terminal, JSON anywhere else, on standard error, one line for every exchange.

use std::cell::RefCell;
use std::io::IsTerminal;

use pointsman_core::record::ExchangeRecord;
use pointsman_core::rfc3339::Rfc3339;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use super::sink::{Sink, SinkGuard};
use super::{Clock, line};
use crate::terminal::Own;

/// Format of log lines on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    #[default]
    Auto,
    /// Readable text, coloured on a terminal.
    Text,
    /// One JSON object per line, for log collectors.
    Json,
}

/// The reason why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level cannot be read.
    #[error(
        "the log level `{level}` is not understood ({reason}); \
         write error, warn, info, debug, trace, or pairs such as `info,pointsman::policy=debug`"
    )]
    Level {
        /// Level or directives as they are written.
        level: String,
        /// Fault of the directive, from the filter's parser.
        reason: String,
    },
    /// The thread that writes could not be started.
    #[error("the log's writer thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
    /// Logging was started before in this process.
    #[error("logging has already begun in this process")]
    Twice,
}

/// Logging, as long as it is kept; dropped, it writes what waits.
pub struct Logs {
    exchanges: ExchangeLog,
    _guard: SinkGuard,
}

impl Logs {
    /// Begins to log for the whole process.
    ///
    /// # Errors
    /// When the level cannot be read, or logging has begun before.
    pub fn init(level: &str, format: LogFormat, clock: Clock) -> Result<Self, LogError> {
        let filter = filter(level)?;
        let terminal = std::io::stderr().is_terminal();
        let look = match format {
            LogFormat::Text => Look::Text { colour: terminal && no_color_is_unset() },
            LogFormat::Auto if terminal => Look::Text { colour: no_color_is_unset() },
            LogFormat::Auto | LogFormat::Json => Look::Json,
        };
        let (sink, guard) = Sink::start(std::io::stderr(), look.own())?;
        let subscriber = subscriber(filter, look, sink.clone(), clock);
        tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)?;
        Ok(Self { exchanges: ExchangeLog { to: Some((sink, look)) }, _guard: guard })
    }

    /// The line-per-exchange side, for the hot path.
    pub fn exchanges(&self) -> ExchangeLog {
        self.exchanges.clone()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Text { colour: bool },
    Json,
}

impl Look {
    fn own(self) -> Own {
        match self {
            Look::Text { colour: true } => Own::Colours,
            Look::Text { colour: false } | Look::Json => Own::Nothing,
        }
    }
}

/// Writes the one line of an exchange. It does not go through the subscriber, whose way of collecting fields costs several
/// times as much, but obeys its filter (`pointsman::exchange`) and looks the same.
#[derive(Clone)]
pub struct ExchangeLog {
    to: Option<(Sink, Look)>,
}

impl ExchangeLog {
    /// Creates a log that writes nothing.
    pub fn silent() -> Self {
        Self { to: None }
    }

    /// Writes the line if level `info` is on.
    pub fn exchange_line(&self, record: &ExchangeRecord) {
        let Some((sink, look)) = &self.to else { return };
        if tracing::enabled!(target: line::TARGET, tracing::Level::INFO) {
            push_line(sink, *look, record);
        }
    }
}

fn push_line(sink: &Sink, look: Look, record: &ExchangeRecord) {
    thread_local! {
        static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    LINE.with_borrow_mut(|bytes| {
        bytes.clear();
        match look {
            Look::Json => line::json(bytes, record),
            Look::Text { colour } => line::text(bytes, record, colour),
        }
        sink.push(bytes);
    });
}

/// A plain level is ours; the libraries stay at `warn`, because theirs are other people's words.
fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let plain = level.parse::<tracing::Level>().is_ok() || level.eq_ignore_ascii_case("off");
    let directives = if plain && !level.eq_ignore_ascii_case("error") && !level.eq_ignore_ascii_case("off") {
        format!("warn,pointsman={level},pointsman_core={level}")
    } else {
        level.to_owned()
    };
    EnvFilter::try_new(directives).map_err(|e| LogError::Level { level: level.to_owned(), reason: e.to_string() })
}

fn subscriber(filter: EnvFilter, look: Look, sink: Sink, clock: Clock) -> Box<dyn tracing::Subscriber + Send + Sync> {
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_timer(Timer(clock)).with_writer(move || sink.clone());
    match look {
        Look::Json => {
            Box::new(builder.json().flatten_event(true).with_current_span(false).with_span_list(false).finish())
        }
        Look::Text { colour } => Box::new(builder.with_ansi(colour).with_target(false).finish()),
    }
}

/// Follows <https://no-color.org>: no colour if the variable is set.
fn no_color_is_unset() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The process has one clock; the log uses it too.
struct Timer(Clock);

impl FormatTime for Timer {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        write!(w, "{}", Rfc3339((self.0)()))
    }
}

#[cfg(test)]
mod tests;
