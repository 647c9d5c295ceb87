//! Golden pairs of translations: every file of `golden/translate` is one case, and says in its `title` what it shows.
//!
//! A case has one of `request`, `answer`, `events` or `error`, and what becomes of it: `expected`, or `refused` with
//! the whole message. `back: true`: the expected request, translated back, is the request again. A request that is
//! translated in another way where translation is lenient says so in `lenient`, with the fields that are `left_out`; otherwise
//! it is the same either way, and nothing is left out. A request that is only tried leniently has no other.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use pointsman_core::dialect::translate::request::{Translated, translate};
use pointsman_core::dialect::translate::{
    Answers, LongNames, MadeUpIds, Strictness, Translation, Untranslatable, error,
};
use pointsman_core::http::sse::Reader;
use pointsman_core::time::Timestamp;
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_123);

/// The model that answers name when the upstream does not.
const ASKED_MODEL: &str = "asked";

fn cases() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/translate");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let case: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        (name, case)
    };
    paths.into_iter().map(read).collect()
}

fn way(case: &Value) -> Translation {
    match case["way"].as_str() {
        Some("chat_to_messages") => Translation::CHAT_TO_MESSAGES,
        Some("messages_to_chat") => Translation::MESSAGES_TO_CHAT,
        other => panic!("no such way: {other:?}"),
    }
}

fn opposite(way: Translation) -> Translation {
    if way == Translation::CHAT_TO_MESSAGES { Translation::MESSAGES_TO_CHAT } else { Translation::CHAT_TO_MESSAGES }
}

fn answers(case: &Value) -> Answers {
    let include_usage = case["include_usage"] == true;
    let (stream, ids) = (!case["events"].is_null(), MadeUpIds::default());
    Answers {
        translation: way(case),
        stream,
        include_usage,
        model: ASKED_MODEL.to_owned(),
        ids,
        names: LongNames::default(),
    }
}

fn request(
    way: Translation,
    strictness: Strictness,
    case: &Value,
    body: &Value,
) -> Result<(Value, Vec<String>), Untranslatable> {
    let host = match case["limit"].as_str() {
        Some("max_completion_tokens") => "api.openai.com",
        _ => "other.example.com",
    };
    let model = body["model"].as_str().unwrap_or("m");
    let translated = translate(way, strictness, body.to_string().as_bytes(), model)?;
    let Translated { body: translated, left_out, .. } = translated.for_backend(model, host);
    let left_out = left_out.iter().map(|field| field.path.clone()).collect();
    Ok((serde_json::from_slice(&translated).unwrap(), left_out))
}

/// The bytes of a stream whose events are written in a case.
fn written(events: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    for event in events.as_array().unwrap() {
        if let Some(comment) = event["comment"].as_str() {
            bytes.extend_from_slice(format!(": {comment}\n\n").as_bytes());
            continue;
        }
        let (name, data) = match event.get("event") {
            Some(name) => (format!("event: {}\n", name.as_str().unwrap()), &event["data"]),
            None => (String::new(), event),
        };
        let data = data.as_str().map_or_else(|| data.to_string(), str::to_owned);
        bytes.extend_from_slice(format!("{name}data: {data}\n\n").as_bytes());
    }
    bytes
}

/// The reverse of [`written`].
fn read(bytes: &[u8]) -> Value {
    let mut reader = Reader::default();
    reader.push(Bytes::copy_from_slice(bytes));
    let mut events = Vec::new();
    while let Some(event) = reader.next_event().unwrap() {
        let Some(data) = event.data else {
            let comment = std::str::from_utf8(event.raw).unwrap().trim_start_matches(':').trim();
            events.push(json!({"comment": comment}));
            continue;
        };
        let text = || json!(std::str::from_utf8(data).unwrap());
        let data = serde_json::from_slice(data).unwrap_or_else(|_| text());
        events.push(match event.name {
            Some(name) => json!({"event": std::str::from_utf8(name).unwrap(), "data": data}),
            None => data,
        });
    }
    assert_eq!(reader.unfinished_bytes(), 0);
    Value::Array(events)
}

fn stream(case: &Value, cuts: usize) -> Result<Value, Untranslatable> {
    let mut stream = answers(case).stream(NOW);
    let mut reader = Reader::default();
    let mut out = BytesMut::new();
    for chunk in written(&case["events"]).chunks(cuts) {
        reader.push(Bytes::copy_from_slice(chunk));
        while let Some(event) = reader.next_event().unwrap() {
            stream.event(&event, &mut out)?;
        }
    }
    stream.finish(&mut out);
    Ok(read(&out))
}

fn translated(case: &Value) -> Result<Value, Untranslatable> {
    if !case["request"].is_null() {
        request(way(case), Strictness::Strict, case, &case["request"]).map(|(body, _)| body)
    } else if !case["answer"].is_null() {
        let body = answers(case).whole(case["answer"].to_string().as_bytes(), NOW)?;
        Ok(serde_json::from_slice(&body).unwrap())
    } else if !case["events"].is_null() {
        let whole = stream(case, usize::MAX)?;
        assert_eq!(stream(case, 1)?, whole, "byte by byte");
        Ok(whole)
    } else {
        let status = case["status"].as_u64().unwrap() as u16;
        let (status, body) = error::refusal(way(case), status, case["error"].to_string().as_bytes(), "req-1");
        Ok(json!({"status": status, "body": serde_json::from_slice::<Value>(&body).unwrap()}))
    }
}

/// The fault of the lenient translation of a request.
fn lenient_failure(name: &str, case: &Value, strict: Value) -> Option<String> {
    if case["request"].is_null() {
        return None;
    }
    let found = match request(way(case), Strictness::Lenient, case, &case["request"]) {
        Ok((body, left_out)) => json!({"expected": body, "left_out": left_out}),
        Err(error) => json!({"refused": error.to_string()}),
    };
    let mut wanted = match case.get("lenient") {
        Some(lenient) => json!({"expected": lenient}),
        None => strict,
    };
    if wanted.get("expected").is_some() {
        wanted["left_out"] = case.get("left_out").cloned().unwrap_or(json!([]));
    }
    (found != wanted).then(|| format!("{name}, lenient:\n  found  {found}\n  wanted {wanted}"))
}

#[test]
fn every_golden_case_holds() {
    let cases = cases();
    let mut failures = Vec::new();
    for (name, case) in &cases {
        assert!(case["title"].is_string(), "{name} has no title");
        let wanted = match case.get("expected") {
            Some(expected) => json!({"expected": expected}),
            None => json!({"refused": case["refused"]}),
        };
        let is_only_lenient = case.get("expected").is_none() && case.get("refused").is_none();
        let found = match translated(case) {
            Ok(found) => json!({"expected": found}),
            Err(error) => json!({"refused": error.to_string()}),
        };
        if found != wanted && !is_only_lenient {
            failures.push(format!("{name}:\n  found  {found}\n  wanted {wanted}"));
        }
        if let Some(failure) = lenient_failure(name, case, wanted) {
            failures.push(failure);
        }
        if case["back"] == true {
            let back = request(opposite(way(case)), Strictness::Strict, case, &case["expected"]);
            let (back, _) = back.unwrap_or_else(|e| panic!("{name}, back: {e}"));
            if back != case["request"] {
                failures.push(format!("{name}, back:\n  found  {back}\n  wanted {}", case["request"]));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
    assert!(cases.len() >= 40, "only {} cases were found", cases.len());
}
