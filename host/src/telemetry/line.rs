//! An exchange as one line of the log.

use std::io::Write;
use std::time::Duration;

use pointsman_core::denial::Denial;
use pointsman_core::record::{End, ExchangeRecord};
use pointsman_core::rfc3339::Rfc3339;
use pointsman_core::text::OneLine;
use serde::{Serialize, Serializer};

/// The line's target, by which a filter can choose it.
pub(super) const TARGET: &str = "pointsman::exchange";

/// The fields, flat, as JSON has them; the first four are those of every line.
#[derive(Serialize)]
struct Fields<'r> {
    #[serde(serialize_with = "shown")]
    timestamp: Rfc3339,
    level: &'static str,
    message: &'static str,
    target: &'static str,
    request_id: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'r str>,
    model: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lane: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<&'r str>,
    attempts: usize,
    waits: u32,
    waited_ms: u64,
    status: u16,
    end: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    denied: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_ms: Option<u64>,
    elapsed_ms: u64,
    input_tokens: u64,
    output_tokens: u64,
    cost_usd: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    saved_usd: Option<f64>,
    policy: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'r str>,
}

/// Appends the line as JSON.
pub(super) fn json(out: &mut Vec<u8>, record: &ExchangeRecord) {
    let usage = record.usage();
    let fields = Fields {
        timestamp: Rfc3339(record.started + record.elapsed),
        level: "INFO",
        message: "exchange",
        target: TARGET,
        request_id: &record.id,
        client: record.client.as_deref(),
        model: &record.model,
        lane: record.lane.map(|lane| lane.as_str()),
        backend: record.backend.as_deref(),
        attempts: record.attempts.len(),
        waits: record.waits,
        waited_ms: millis(record.waited),
        status: record.status,
        end: record.end.as_str(),
        denied: record.denied.map(Denial::as_str),
        first_byte_ms: record.first_byte.map(millis),
        elapsed_ms: millis(record.elapsed),
        input_tokens: usage.input_tokens,
        output_tokens: usage.output_tokens,
        cost_usd: record.cost_usd(),
        saved_usd: record.saved_usd,
        policy: &record.policy,
        error: record.error.as_deref(),
    };
    serde_json::to_writer(&mut *out, &fields).expect("memory takes every byte, and the keys are strings");
    out.push(b'\n');
}

/// Appends the line for people's eyes; what did not happen is not mentioned.
pub(super) fn text(out: &mut Vec<u8>, record: &ExchangeRecord, colour: bool) {
    write_text(out, record, colour).expect("memory takes every byte");
    out.push(b'\n');
}

fn write_text(out: &mut Vec<u8>, record: &ExchangeRecord, colour: bool) -> std::io::Result<()> {
    let (begin, end) = paint(record.end, colour);
    write!(out, "{}  {begin}{:>3}{end}", Rfc3339(record.started + record.elapsed), record.status)?;
    match (record.lane, &record.backend) {
        (Some(lane), Some(backend)) => write!(out, " {} {}", lane.as_str(), OneLine(backend))?,
        (Some(_) | None, Some(_) | None) => write!(out, " no backend")?,
    }
    write!(out, "  {}  {} ms", OneLine(&record.model), millis(record.elapsed))?;
    if let Some(first_byte) = record.first_byte {
        write!(out, " (first byte {})", millis(first_byte))?;
    }
    if record.waits > 0 {
        write!(out, "  waited {} ms", millis(record.waited))?;
    }
    if record.attempts.len() > 1 {
        write!(out, "  {} attempts", record.attempts.len())?;
    }
    let usage = record.usage();
    if usage.input_tokens + usage.output_tokens > 0 {
        write!(out, "  {}+{} tokens ${:.6}", usage.input_tokens, usage.output_tokens, record.cost_usd())?;
    }
    if let Some(client) = &record.client {
        write!(out, "  {}", OneLine(client))?;
    }
    write!(out, "  {}", OneLine(&record.id))?;
    if record.end != End::Delivered {
        write!(out, "  {begin}{}{end}", record.end.as_str())?;
    }
    if let Some(denied) = record.denied {
        write!(out, " ({})", denied.as_str())?;
    }
    if let Some(error) = &record.error {
        write!(out, ": {}", OneLine(error))?;
    }
    Ok(())
}

/// The terminal's codes before and after what shows how it ended.
fn paint(end: End, colour: bool) -> (&'static str, &'static str) {
    if !colour {
        return ("", "");
    }
    match end {
        End::Delivered => ("\x1b[32m", "\x1b[0m"),
        End::Refused | End::ClientGone | End::Denied => ("\x1b[33m", "\x1b[0m"),
        End::Rejected | End::Broken => ("\x1b[31m", "\x1b[0m"),
    }
}

fn shown<S: Serializer>(time: &Rfc3339, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from((duration.as_micros() + 500) / 1_000).unwrap_or(u64::MAX)
}
