//! An exchange as one line of the log.

use std::io::Write;
use std::time::Duration;

use pointsman_core::denial::Denial;
use pointsman_core::record::{End, ExchangeRecord};
use pointsman_core::rfc3339::Rfc3339;
use pointsman_core::text::OneLine;
use serde::Serialize;

/// The line's target, by which a filter can choose it.
pub(super) const TARGET: &str = "pointsman::exchange";

/// Appends the line as JSON, flat; its first four fields are those of every line.
///
/// Written by hand: a serializer looks at every byte of every name and word, of which all but a few are our own.
pub(super) fn json(out: &mut Vec<u8>, record: &ExchangeRecord) {
    let usage = record.usage();
    write_into(out, format_args!("{{\"timestamp\":\"{}\"", Rfc3339(record.started + record.elapsed)));
    out.extend_from_slice(br#","level":"INFO","message":"exchange","target":"pointsman::exchange""#);
    string(out, br#","request_id":"#, Some(&record.id));
    string(out, br#","client":"#, record.client.as_deref());
    string(out, br#","model":"#, Some(&record.model));
    word(out, br#","lane":"#, record.lane.map(|lane| lane.as_str()));
    string(out, br#","backend":"#, record.backend.as_deref());
    number(out, br#","attempts":"#, Some(record.attempts.len()));
    number(out, br#","waits":"#, Some(record.waits));
    number(out, br#","waited_ms":"#, Some(millis(record.waited)));
    number(out, br#","status":"#, Some(record.status));
    word(out, br#","end":"#, Some(record.end.as_str()));
    word(out, br#","denied":"#, record.denied.map(Denial::as_str));
    number(out, br#","first_byte_ms":"#, record.first_byte.map(millis));
    number(out, br#","elapsed_ms":"#, Some(millis(record.elapsed)));
    number(out, br#","input_tokens":"#, Some(usage.input_tokens));
    number(out, br#","output_tokens":"#, Some(usage.output_tokens));
    number(out, br#","cost_usd":"#, Some(record.cost_usd()));
    number(out, br#","saved_usd":"#, record.saved_usd);
    string(out, br#","policy":"#, Some(&record.policy));
    string(out, br#","error":"#, record.error.as_deref());
    out.extend_from_slice(b"}\n");
}

/// A word of our own, which needs no escaping.
fn word(out: &mut Vec<u8>, name: &[u8], word: Option<&'static str>) {
    let Some(word) = word else { return };
    for piece in [name, b"\"", word.as_bytes(), b"\""] {
        out.extend_from_slice(piece);
    }
}

/// A text from outside.
fn string(out: &mut Vec<u8>, name: &[u8], text: Option<&str>) {
    let Some(text) = text else { return };
    out.extend_from_slice(name);
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        for piece in [b"\"", text.as_bytes(), b"\""] {
            out.extend_from_slice(piece);
        }
    } else {
        value(out, text);
    }
}

fn number(out: &mut Vec<u8>, name: &[u8], number: Option<impl Serialize>) {
    let Some(number) = number else { return };
    out.extend_from_slice(name);
    value(out, &number);
}

fn value(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect("memory takes every byte, and the value is plain");
}

fn write_into(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("memory takes every byte");
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

fn millis(duration: Duration) -> u64 {
    u64::try_from((duration.as_micros() + 500) / 1_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use pointsman_core::contract::Operation;
    use pointsman_core::table::Lane;
    use pointsman_core::time::Timestamp;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn record(texts: [String; 6], is_there: bool, cost: f64) -> ExchangeRecord {
        let [id, client, model, backend, policy, error] = texts;
        ExchangeRecord {
            id,
            started: Timestamp::from_millis(1_768_473_000_000),
            elapsed: Duration::from_micros(812_600),
            client: is_there.then(|| client.as_str().into()),
            session: None,
            operation: Operation::Chat,
            path: "/v1/chat/completions".to_owned(),
            model,
            streaming: true,
            status: 200,
            end: End::Delivered,
            lane: is_there.then_some(Lane::Fallback),
            backend: is_there.then(|| backend.as_str().into()),
            waits: 2,
            waited: Duration::from_millis(250),
            first_byte: is_there.then_some(Duration::from_millis(300)),
            policy: policy.as_str().into(),
            policy_faults: 0,
            attempts: Vec::new(),
            notes: Vec::new(),
            error: is_there.then_some(error),
            denied: is_there.then_some(Denial::ALL[0]),
            saved_usd: is_there.then_some(cost),
        }
    }

    proptest! {
        #[test]
        fn the_line_is_what_a_serializer_would_write(
            texts in prop::array::uniform6(any::<String>()), is_there: bool, cost: f64,
        ) {
            let record = record(texts, is_there, cost);
            let mut line = Vec::new();
            json(&mut line, &record);
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
            let mut expected = json!({
                "timestamp": "2026-01-15T10:30:00.812Z", "level": "INFO", "message": "exchange", "target": TARGET,
                "request_id": record.id, "model": record.model, "attempts": 0, "waits": 2, "waited_ms": 250, "status": 200,
                "end": record.end.as_str(), "elapsed_ms": 813, "input_tokens": 0, "output_tokens": 0, "cost_usd": 0.0,
                "policy": &*record.policy,
            });
            if is_there {
                let more = json!({
                    "client": record.client.as_deref(), "lane": "fallback", "backend": record.backend.as_deref(), "denied": Denial::ALL[0].as_str(),
                    "first_byte_ms": 300, "saved_usd": cost, "error": record.error,
                });
                expected.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            }
            // Written and read as the line was, so that a fraction is rounded alike.
            let expected: Value = serde_json::from_str(&expected.to_string()).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Value>(&line).unwrap(), expected);
        }
    }
}
