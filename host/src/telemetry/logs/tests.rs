use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pointsman_core::contract::Operation;
use pointsman_core::denial::Denial;
use pointsman_core::record::{End, ExchangeRecord};
use pointsman_core::table::Lane;
use pointsman_core::time::Timestamp;
use serde_json::Value;

use super::*;

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn exchange() -> ExchangeRecord {
    ExchangeRecord {
        id: "req-1".to_owned(),
        started: Timestamp::from_millis(1_768_473_000_000),
        elapsed: Duration::from_micros(812_600),
        client: Some("agent-1".into()),
        session: None,
        operation: Operation::Chat,
        path: "/v1/chat/completions".to_owned(),
        model: "llama".to_owned(),
        streaming: true,
        status: 200,
        end: End::Delivered,
        lane: Some(Lane::Fallback),
        backend: Some("f1".into()),
        waits: 2,
        waited: Duration::from_millis(250),
        first_byte: Some(Duration::from_millis(300)),
        policy: "abc".into(),
        policy_faults: 0,
        attempts: Vec::new(),
        notes: Vec::new(),
        error: None,
        denied: None,
        saved_usd: None,
    }
}

/// Returns the lines logged with this filter and look.
fn logged(level: &str, look: Look, log: impl FnOnce(&ExchangeLog)) -> String {
    let memory = Memory::default();
    let (sink, guard) = Sink::start(memory.clone(), look.own()).unwrap();
    let clock: Clock = Arc::new(|| Timestamp::from_millis(1_768_473_000_000));
    let subscriber = subscriber(filter(level).unwrap(), look, sink.clone(), clock);
    tracing::subscriber::with_default(subscriber, || log(&ExchangeLog { to: Some((sink, look)) }));
    drop(guard);
    let bytes = memory.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn an_exchange_is_one_flat_json_line() {
    let text = logged("info", Look::Json, |log| {
        log.exchange_line(&exchange());
        tracing::info!(target: "pointsman", answer = 42, "beside it");
    });
    let [line, event] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    let line: Value = serde_json::from_str(line).unwrap();
    for (field, value) in [
        ("timestamp", Value::from("2026-01-15T10:30:00.812Z")),
        ("level", "INFO".into()),
        ("message", "exchange".into()),
        ("request_id", "req-1".into()),
        ("client", "agent-1".into()),
        ("model", "llama".into()),
        ("lane", "fallback".into()),
        ("backend", "f1".into()),
        ("attempts", 0.into()),
        ("waits", 2.into()),
        ("waited_ms", 250.into()),
        ("status", 200.into()),
        ("end", "delivered".into()),
        ("first_byte_ms", 300.into()),
        ("elapsed_ms", 813.into()),
        ("input_tokens", 0.into()),
        ("output_tokens", 0.into()),
        ("cost_usd", 0.0.into()),
        ("policy", "abc".into()),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
    assert!(!text.contains("-0.0"), "an exchange without an attempt cost nothing, not minus nothing: {text}");
    let event: Value = serde_json::from_str(event).unwrap();
    let common: Vec<_> = ["timestamp", "level", "message", "target"].iter().map(|key| event[key].as_str()).collect();
    assert_eq!(
        common,
        [Some("2026-01-15T10:30:00.000Z"), Some("INFO"), Some("beside it"), Some("pointsman")],
        "other lines have the same first fields"
    );
}

#[test]
fn on_a_terminal_it_is_one_readable_line() {
    let text = logged("info", Look::Text { colour: false }, |log| log.exchange_line(&exchange()));
    assert_eq!(
        text,
        "2026-01-15T10:30:00.812Z  200 fallback f1  llama  813 ms (first byte 300)  waited 250 ms  agent-1  req-1\n"
    );
    let mut lost = exchange();
    (lost.status, lost.end, lost.lane, lost.backend) = (503, End::Rejected, None, None);
    (lost.waits, lost.first_byte, lost.client) = (0, None, None);
    lost.error = Some("all pools are exhausted".to_owned());
    let text = logged("info", Look::Text { colour: true }, |log| log.exchange_line(&lost));
    assert!(
        text.contains("\x1b[31m503\x1b[0m no backend  llama") && text.contains("all pools are exhausted"),
        "{text}"
    );
}

#[test]
fn a_refusal_at_the_door_says_why() {
    let mut denied = exchange();
    (denied.status, denied.end, denied.denied) = (401, End::Denied, Some(Denial::WrongKey));
    (denied.lane, denied.backend, denied.error) = (None, None, Some("not known here".to_owned()));
    let text = logged("info", Look::Text { colour: false }, |log| log.exchange_line(&denied));
    assert!(text.contains(" 401 no backend ") && text.contains("denied (wrong_key): not known here"), "{text}");
    let json = logged("info", Look::Json, |log| log.exchange_line(&denied));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["end"], &json["denied"]), (&"denied".into(), &"wrong_key".into()));
}

#[test]
fn a_name_from_outside_cannot_move_the_cursor_or_begin_a_line() {
    let mut record = exchange();
    record.model = "a\nb\x1b[2Jc\u{9b}".to_owned();
    let text = logged("info", Look::Text { colour: false }, |log| log.exchange_line(&record));
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains(r"a\nb\u001b[2Jc\u009b"), "{text:?}");
    let json = logged("info", Look::Json, |log| log.exchange_line(&record));
    assert_eq!(json.lines().count(), 1);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["model"], record.model);
}

#[test]
fn a_field_of_an_event_cannot_move_the_cursor_nor_look_like_an_event() {
    let nasty = "a\n2026-01-15T10:30:00Z  INFO forged\r\x1b]52;c;eA==\x07\u{9b}2J\u{202e}";
    let text =
        logged("info", Look::Text { colour: true }, |_| tracing::info!(target: "pointsman", why = %nasty, "{nasty}"));
    let unseen = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
    let inked = |text: &str| {
        ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[3m", "\x1b[32m"].iter().fold(text.to_owned(), |t, c| t.replace(c, ""))
    };
    assert!(!inked(&text).contains(unseen), "{text:?}");
    assert!(text.lines().skip(1).all(|line| line.starts_with("    ")), "{text:?}");
    let json = logged("info", Look::Json, |_| tracing::info!(target: "pointsman", why = %nasty, "told"));
    assert!(json.lines().count() == 1 && !json.contains(unseen), "{json:?}");
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["why"], nasty);
}

#[test]
fn the_filter_holds_for_exchanges_too() {
    let quiet = |level| logged(level, Look::Json, |log| log.exchange_line(&exchange()));
    assert_eq!(quiet("warn"), "");
    assert_eq!(quiet("off"), "");
    assert_eq!(quiet("info,pointsman::exchange=off"), "");
    assert_eq!(quiet("pointsman::exchange=info").lines().count(), 1);
    ExchangeLog::silent().exchange_line(&exchange());
}

#[test]
fn a_plain_level_leaves_the_libraries_quiet() {
    let text = logged("debug", Look::Json, |_| {
        tracing::debug!(target: "pointsman::policy", "ours");
        tracing::debug!(target: "hyper", "theirs");
        tracing::warn!(target: "hyper", "their warning");
    });
    assert!(text.contains("ours") && text.contains("their warning") && !text.contains("theirs"), "{text}");
}

#[test]
fn a_level_that_cannot_be_read_says_what_to_write() {
    let refused = filter("pointsman=loud").unwrap_err().to_string();
    assert!(refused.contains("`pointsman=loud`") && refused.contains("debug"), "{refused}");
}
