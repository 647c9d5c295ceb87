//! Prompts and answers: kept only where they are asked for, and never as they came. Whatever a rule matches is replaced before
//! anything is written; that and the reading of streams is the work of the writer's thread.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use pointsman_core::http::sse::Reader;
use regex::{NoExpand, Regex};
use rusqlite::{Connection, OptionalExtension, Transaction};
use serde::Serialize;
use serde_json::Value;

use super::columns::{insert, signed};
use super::read::StoreReader;
use super::{StoreError, schema};

/// Replacement for text that a rule matches.
const REDACTED: &str = "[redacted]";

/// A stream takes about so many bytes on the wire for one of its text.
const WIRE_PER_TEXT: usize = 32;

/// More is kept in memory than is written, in bytes, so that a match that begins within the limit is seen whole.
const SLACK: usize = 4_096;

/// Rules for recording bodies: how much of one, and what is replaced in it.
#[derive(Clone)]
pub struct BodyRules {
    /// The most of one body that is written, in bytes.
    pub max_bytes: usize,
    /// Patterns whose matches are replaced.
    pub redact: Arc<[Regex]>,
    /// Keys, which are replaced wherever they are.
    pub secrets: Arc<[Box<str>]>,
}

/// Secrets are not printed.
impl fmt::Debug for BodyRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyRules").field("max_bytes", &self.max_bytes).field("redact", &self.redact.len()).finish()
    }
}

/// The bodies of an exchange, as they came, until they are written.
#[derive(Clone, Debug)]
pub struct Bodies {
    rules: Arc<BodyRules>,
    request: Part,
    answer: Part,
    /// True for a stream of events.
    streams: bool,
}

#[derive(Clone, Debug, Default)]
struct Part {
    kept: Vec<u8>,
    bytes: u64,
}

impl Part {
    fn add(&mut self, data: &[u8], most: usize) {
        let room = most.saturating_sub(self.kept.len()).min(data.len());
        self.kept.extend_from_slice(&data[..room]);
        self.bytes += data.len() as u64;
    }
}

impl Bodies {
    /// Starts recording a request with this body.
    pub fn new(rules: Arc<BodyRules>, request: &[u8]) -> Self {
        let mut bodies = Self { rules, request: Part::default(), answer: Part::default(), streams: false };
        bodies.request.add(request, bodies.rules.max_bytes + SLACK);
        bodies
    }

    /// A piece of the answer went out.
    pub fn answered(&mut self, data: &[u8], is_event: bool) {
        let factor = if is_event { WIRE_PER_TEXT } else { 1 };
        self.streams |= is_event;
        self.answer.add(data, (self.rules.max_bytes + SLACK) * factor);
    }

    /// About what they take in memory, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.request.kept.len() + self.answer.kept.len()
    }

    fn written(&self) -> BodyTexts {
        let answer = if self.streams { text_of_events(&self.answer.kept) } else { self.answer.kept.clone() };
        BodyTexts {
            request: BodyText { text: self.rules.clean(&self.request.kept), bytes: self.request.bytes },
            answer: BodyText { text: self.rules.clean(&answer), bytes: self.answer.bytes },
        }
    }
}

impl BodyRules {
    /// As it may be written; none for what is no text.
    fn clean(&self, kept: &[u8]) -> Option<String> {
        let text = match std::str::from_utf8(kept) {
            Ok(text) => text,
            // It was cut within a character.
            Err(error) if error.error_len().is_none() => std::str::from_utf8(&kept[..error.valid_up_to()]).ok()?,
            Err(_) => return None,
        };
        let mut text = text.to_owned();
        for secret in self.secrets.iter().filter(|secret| text.contains(&***secret)).cloned().collect::<Vec<_>>() {
            text = text.replace(&*secret, REDACTED);
        }
        for pattern in &*self.redact {
            text = pattern.replace_all(&text, NoExpand(REDACTED)).into_owned();
        }
        let mut end = text.len().min(self.max_bytes);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        Some(text)
    }
}

/// Joins the model's text in these events; events of unknown kinds are left out.
fn text_of_events(wire: &[u8]) -> Vec<u8> {
    let mut text = String::new();
    let mut reader = Reader::default();
    reader.push(Bytes::copy_from_slice(wire));
    while let Ok(Some(event)) = reader.next_event() {
        if let Some(json) = event.data.and_then(|data| serde_json::from_slice::<Value>(data).ok()) {
            pieces(&json, &mut text);
        }
    }
    text.into_bytes()
}

/// The places where the known dialects have the next piece of text.
const PLACES: [&str; 8] = [
    "/choices/0/delta/content",
    "/choices/0/delta/reasoning_content",
    "/choices/0/delta/tool_calls/0/function/arguments",
    "/choices/0/text",
    "/delta/text",
    "/delta/thinking",
    "/delta/partial_json",
    // Of the Responses API, whose `delta` is the text itself.
    "/delta",
];

fn pieces(event: &Value, text: &mut String) {
    for place in PLACES {
        if let Some(piece) = event.pointer(place).and_then(Value::as_str) {
            text.push_str(piece);
        }
    }
}

/// The bodies of an exchange as they were written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BodyTexts {
    /// Body of the request.
    pub request: BodyText,
    /// The answer's; of a stream, what the model said.
    pub answer: BodyText,
}

/// A body as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BodyText {
    /// Its beginning, redacted; none: it is no text.
    pub text: Option<String>,
    /// Size on the wire in bytes.
    pub bytes: u64,
}

insert! {
    BODY = INTO "body";
    fn insert_texts(key: i64, request: &BodyText, answer: &BodyText) {
        ended_us: key,
        request: request.text,
        request_bytes: signed(request.bytes),
        answer: answer.text,
        answer_bytes: signed(answer.bytes),
    }
}

/// Writes the bodies of the exchange with this key; how many bytes.
pub(super) fn insert(transaction: &Transaction<'_>, key: i64, bodies: &Bodies) -> rusqlite::Result<i64> {
    let BodyTexts { request, answer } = bodies.written();
    let length = |body: &BodyText| body.text.as_ref().map_or(0, |text| text.len() as i64);
    insert_texts(&mut *transaction.prepare_cached(BODY)?, key, &request, &answer)?;
    Ok(length(&request) + length(&answer))
}

/// Deletes the bodies before this key, so that nothing of them stays in the file; how many bytes they had.
pub(super) fn delete_before(connection: &Connection, key: i64) -> rusqlite::Result<i64> {
    let (bodies, bytes): (i64, i64) = connection
        .prepare_cached(&format!("SELECT count(*), {BYTES} FROM body WHERE ended_us < ?1"))?
        .query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if bodies > 0 {
        securely(connection, || {
            connection.prepare_cached("DELETE FROM body WHERE ended_us < ?1")?.execute([key]).map(|_| ())
        })?;
    }
    Ok(bytes)
}

const BYTES: &str =
    "coalesce(sum(coalesce(length(CAST(request AS BLOB)), 0) + coalesce(length(CAST(answer AS BLOB)), 0)), 0)";

/// Deletes rows so that their bytes are overwritten with zeros.
fn securely(connection: &Connection, delete: impl FnOnce() -> rusqlite::Result<()>) -> rusqlite::Result<()> {
    connection.pragma_update(None, "secure_delete", true)?;
    let deleted = delete();
    connection.pragma_update(None, "secure_delete", false)?;
    deleted
}

/// Result of redacting the bodies of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redacted {
    /// Exchanges of this id whose bodies are gone now.
    pub exchanges: usize,
    /// The write-ahead log, which has had them too, was emptied; else it is with the next checkpoint.
    pub log_emptied: bool,
}

/// Removes the bodies of every exchange with this request id from the store, beside a server that may be running.
///
/// # Errors
/// When there is no such store, or SQLite fails.
pub fn redact(file: &Path, id: &str) -> Result<Redacted, StoreError> {
    let mut connection = schema::open_to_write(file)?;
    let exchanges = {
        connection.pragma_update(None, "secure_delete", true)?;
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let of_id = "ended_us IN (SELECT ended_us FROM exchange WHERE id = ?1)";
        let bytes: i64 =
            transaction.query_row(&format!("SELECT {BYTES} FROM body WHERE {of_id}"), [id], |row| row.get(0))?;
        let exchanges = transaction.execute(&format!("DELETE FROM body WHERE {of_id}"), [id])?;
        transaction.execute("UPDATE trail_total SET bytes = bytes - ?1", [bytes])?;
        transaction.commit()?;
        exchanges
    };
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(Redacted { exchanges, log_emptied: busy == 0 })
}

impl StoreReader {
    /// The bodies of the latest exchange of this request id; none where they were not kept.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn bodies(&self, id: &str) -> Result<Option<BodyTexts>, StoreError> {
        let connection = self.connection();
        let sql = "SELECT request, request_bytes, answer, answer_bytes FROM body WHERE ended_us =
                   (SELECT ended_us FROM exchange WHERE id = ?1 ORDER BY ended_us DESC LIMIT 1)";
        let found = connection.prepare_cached(sql)?.query_row([id], |row| {
            let part = |text: usize| {
                let bytes = row.get::<_, i64>(text + 1)?.unsigned_abs();
                Ok::<_, rusqlite::Error>(BodyText { text: row.get(text)?, bytes })
            };
            Ok(BodyTexts { request: part(0)?, answer: part(2)? })
        });
        Ok(found.optional()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(max_bytes: usize, patterns: &[&str]) -> Arc<BodyRules> {
        let redact = patterns.iter().map(|pattern| Regex::new(pattern).unwrap()).collect();
        Arc::new(BodyRules { max_bytes, redact, secrets: ["sk-backend".into()].into() })
    }

    fn written(rules: Arc<BodyRules>, request: &str, answer: &[&str], is_event: bool) -> (String, String) {
        let mut bodies = Bodies::new(rules, request.as_bytes());
        answer.iter().for_each(|piece| bodies.answered(piece.as_bytes(), is_event));
        let BodyTexts { request, answer } = bodies.written();
        (request.text.unwrap(), answer.text.unwrap())
    }

    #[test]
    fn what_a_rule_matches_and_every_key_is_replaced() {
        let rules = rules(1_000, &[r"\d{4} \d{4}", "(?i)passw0rd"]);
        let (request, answer) = written(rules, "card 1234 5678, $0 PASSW0RD", &["the key is sk-", "backend"], false);
        assert_eq!((request.as_str(), answer.as_str()), ("card [redacted], $0 [redacted]", "the key is [redacted]"));
    }

    #[test]
    fn of_a_stream_the_text_is_kept_and_redacted_as_one() {
        let event = |text: &str| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
        let stream = [
            event("num"),
            ": comment\n\n".to_owned(),
            event("ber 12"),
            event("34 5678"),
            "data: [DONE]\n\n".to_owned(),
        ];
        let stream: Vec<&str> = stream.iter().map(String::as_str).collect();
        assert_eq!(written(rules(1_000, &[r"\d{4} \d{4}"]), "", &stream, true).1, "number [redacted]");
        let messages =
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"a\"}}\n\n";
        let responses = "data: {\"type\":\"response.output_text.delta\",\"delta\":\"b\"}\n\n";
        assert_eq!(written(rules(9, &[]), "", &[messages, responses], true).1, "ab");
    }

    #[test]
    fn a_match_that_begins_within_the_limit_is_seen_whole() {
        let (request, _) = written(rules(10, &["secret-[a-z]+"]), "12345 secret-abcdefghij and more", &[], false);
        assert_eq!(request, "12345 [red");
        let long = "é".repeat(10_000);
        let (request, _) = written(rules(9, &[]), &long, &[], false);
        assert_eq!(request, "éééé", "it is not cut within a character");
    }

    #[test]
    fn what_is_no_text_is_not_kept_but_its_size() {
        let mut bodies = Bodies::new(rules(100, &[]), &[0xff, 0xfe, 0]);
        bodies.answered(&vec![b'x'; 1 << 20], false);
        assert!(bodies.bytes() < 10_000, "what waits is bounded");
        let BodyTexts { request, answer } = bodies.written();
        assert_eq!((request.text, request.bytes, answer.bytes), (None, 3, 1 << 20));
    }
}
