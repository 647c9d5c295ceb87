//! The command `pointsman explain`.

use std::io::{self, IsTerminal, Write};

use pointsman_config::Env;
use pointsman_lab::explain::{self, Look, scenario};
use pointsman_store::{BodyText, BodyTexts, Explainable, StoreError, StoreReader};

use super::journal_args::JournalArgs;
use crate::terminal::{Own, shown};

/// Columns where there is no terminal to ask.
const USUAL_WIDTH: usize = 100;

/// Stands for the latest exchange.
const LAST: &str = "last";

/// Arguments of `pointsman explain`.
#[derive(Debug, clap::Args)]
pub(super) struct ExplainArgs {
    /// The request id, as `x-request-id` told it to the client; `last` is the latest.
    #[arg(default_value = LAST)]
    request_id: String,
    /// Location of the journal.
    #[command(flatten)]
    journal: JournalArgs,
    /// Write JSON instead of text.
    #[arg(long, conflicts_with = "as_scenario")]
    json: bool,
    /// Write it as a scenario for `pointsman policy test`.
    #[arg(long)]
    as_scenario: bool,
    /// Show prompt and answer too, where the journal keeps them.
    #[arg(long, conflicts_with = "as_scenario")]
    bodies: bool,
}

/// Runs it: the explanation goes to `out`, complaints to `err`. True: it was explained.
///
/// # Errors
/// When `out` or `err` cannot be written.
pub(super) fn run(args: &ExplainArgs, env: &dyn Env, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<bool> {
    match found(args, env) {
        Ok((explainable, bodies)) => {
            tell(&explainable, bodies.as_ref(), args, out)?;
            Ok(true)
        }
        Err(why) => {
            writeln!(err, "error: {why}")?;
            Ok(false)
        }
    }
}

fn tell(
    explainable: &Explainable,
    bodies: Option<&BodyTexts>,
    args: &ExplainArgs,
    out: &mut dyn Write,
) -> io::Result<()> {
    if args.json {
        let mut json = explain::json(explainable);
        if args.bodies {
            json["bodies"] = serde_json::to_value(bodies).unwrap_or_default();
        }
        return writeln!(out, "{json:#}");
    }
    let journaled = match explainable {
        Explainable::Journaled(journaled) => journaled,
        Explainable::Denied(exchange, denial) => {
            return write!(out, "{}", explain::denied_text(exchange, *denial));
        }
    };
    if args.as_scenario {
        return write!(out, "{}", scenario::scenario(journaled));
    }
    write!(out, "{}", explain::text(journaled, look()))?;
    match bodies {
        _ if !args.bodies => Ok(()),
        None => writeln!(out, "\nPrompt and answer were not kept; [journal] bodies = true keeps those to come."),
        Some(BodyTexts { request, answer }) => {
            show(out, "prompt", request)?;
            show(out, "answer", answer)
        }
    }
}

fn show(out: &mut dyn Write, name: &str, body: &BodyText) -> io::Result<()> {
    let text = body.text.as_deref().unwrap_or("(no text)");
    // Without colours of its own.
    let text = shown(text.as_bytes(), Own::Nothing);
    writeln!(out, "\n--- {name} ({} bytes on the wire)\n{}", body.bytes, String::from_utf8_lossy(&text))
}

/// The exchange meant; or why it cannot be told, and what to do.
fn found(args: &ExplainArgs, env: &dyn Env) -> Result<(Explainable, Option<BodyTexts>), String> {
    let file = args.journal.file(env)?;
    let shown = file.display();
    let told = |error: StoreError| error.to_string();
    let reader = StoreReader::open(&file).map_err(told)?;
    let id = match args.request_id.as_str() {
        LAST => reader.latest_explainable().map_err(told)?.ok_or_else(|| {
            format!(
                "the journal of {shown} is empty: an exchange is there a second after its end, \
                 unless [journal] sample = 0 keeps none"
            )
        })?,
        id => id.to_owned(),
    };
    if let Some(explainable) = reader.explainable(&id).map_err(told)? {
        if args.as_scenario && matches!(explainable, Explainable::Denied(..)) {
            return Err(format!("{id} was refused at the door: no policy was asked, so there is no scenario to write"));
        }
        let bodies = if args.bodies { reader.bodies(&id).map_err(told)? } else { None };
        return Ok((explainable, bodies));
    }
    Err(match reader.exchange(&id).map_err(told)? {
        Some(exchange) => format!(
            "{id} is recorded ({} with status {}, at {}), but how it went was not kept: the journal keeps the share \
             [journal] sample of ordinary exchanges, and each for retention_days; set sample = 1.0 to keep all",
            exchange.end, exchange.status, exchange.started
        ),
        None => format!(
            "no exchange {id} is in {shown}: it may still be under way, have ended within the last second, be older than \
             the retention, or be one of so many refusals at once that they were only counted; `pointsman explain last` \
             tells the latest"
        ),
    })
}

/// As wide as the terminal; colours only on one, and only where they are wanted.
fn look() -> Look {
    let out = io::stdout();
    let size = out.is_terminal().then(|| rustix::termios::tcgetwinsize(&out).ok()).flatten();
    let width = size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(USUAL_WIDTH);
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let said = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = said("LC_ALL").or_else(|| said("LC_CTYPE")).or_else(|| said("LANG")).unwrap_or_default();
    let unicode = locale.to_ascii_uppercase().replace('-', "").contains("UTF8");
    Look { width, unicode, colour: out.is_terminal() && !no_colour && !dumb }
}
