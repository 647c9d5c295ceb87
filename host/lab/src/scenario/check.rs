//! From raw to checked: everything that is wrong with a scenario is told at once, each with its place.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use pointsman_config::{Complaints, Config, KeyPath};
use pointsman_core::rfc3339;
use pointsman_core::table::Table;
use pointsman_core::time::Timestamp;

use super::raw::{RawAnswer, RawBackend, RawGives, RawScenario, RawSeed};
use super::syntax::{DURATION, duration};
use super::{Outage, Scenario, Script};
use crate::answer::{Answer, Behavior, Response};

/// The first Monday of 2026.
const START: &str = "2026-01-05T00:00:00Z";

/// Time from sending to the last byte of an answer that names none.
const AFTER: Duration = Duration::from_millis(300);

/// Tokens of an answer that names no number.
const TOKENS: u32 = 20;

/// Words for what is no response.
const WORDS: [&str; 5] = ["connect-failed", "reset", "silent", "cut", "stall"];

/// Checks everything. The result is only to be used when nothing was complained of.
pub(super) fn check(raw: RawScenario, config: Config, complaints: &mut Complaints<'_, '_>) -> Scenario {
    let table = config.table();
    let mut check = Check { complaints, table: &table };
    let title = check.title(raw.title);
    let settings_of = raw.settings_of;
    let start = check.start(raw.start.as_deref());
    let seed = check.seed(raw.seed);
    let list = KeyPath::of("backend");
    let pasts = raw.backend.iter().enumerate().map(|(i, raw)| check.past(&list.index(i), &raw.before)).collect();
    let scripts = check.scripts(raw.backend);
    let spent_usd = raw.client.iter().map(|client| client.spent_usd.unwrap_or(0.0)).collect();
    let requests = check.requests(raw.request);
    check.only_one_is_recorded(&requests);
    let expect = check.run_expectation(raw.expect);
    // What is wrong above may be the very thing that was expected.
    let is_empty = expect.is_empty() && requests.iter().all(|r| r.expect.is_empty());
    if is_empty && !check.complaints.is_any() {
        let problem = check.complaints.whole("this scenario expects nothing, so it could not fail");
        problem.help("give a [[request]] an `end` or `decisions`, or add [expect]");
    }
    Scenario { title, start, seed, settings_of, config, scripts, pasts, spent_usd, requests, expect }
}

pub(super) struct Check<'c, 'a, 't> {
    pub(super) complaints: &'c mut Complaints<'a, 't>,
    pub(super) table: &'c Table,
}

impl Check<'_, '_, '_> {
    fn title(&mut self, title: Option<String>) -> String {
        let title = title.unwrap_or_default();
        if title.trim().is_empty() && !self.complaints.is_told(&KeyPath::of("title")) {
            let problem = self.complaints.whole("the scenario has no title");
            problem.help("write title = \"what it shows, in one sentence\"");
        }
        title
    }

    fn start(&mut self, text: Option<&str>) -> Timestamp {
        let text = text.unwrap_or(START);
        rfc3339::parse(text).unwrap_or_else(|| {
            let problem = self.complaints.error(&KeyPath::of("start"), "`start` is not a point in time");
            problem.help(format!("write it as \"{START}\""));
            Timestamp::default()
        })
    }

    fn seed(&mut self, raw: Option<RawSeed>) -> u64 {
        let text = match raw {
            None => return 1,
            Some(RawSeed::Number(number)) => return number,
            Some(RawSeed::Text(text)) => text,
        };
        self.seed_of(&KeyPath::of("seed"), &text)
    }

    pub(super) fn seed_of(&mut self, at: &KeyPath, text: &str) -> u64 {
        let number = text.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
        number.unwrap_or_else(|| {
            let problem = self.complaints.error(at, format!("{text:?} is no seed"));
            problem.help("write a number, or 64 bits as \"0x1f\"");
            1
        })
    }

    fn scripts(&mut self, raw: Vec<RawBackend>) -> Vec<Script> {
        let list = KeyPath::of("backend");
        raw.into_iter().enumerate().map(|(i, raw)| self.script(&list.index(i), raw)).collect()
    }

    fn script(&mut self, at: &KeyPath, raw: RawBackend) -> Script {
        let default = || vec![RawAnswer { answer: Some(RawGives::Status(200)), ..RawAnswer::default() }];
        let script_at = at.key("script");
        let script = raw.script.unwrap_or_else(default);
        if script.is_empty() {
            let problem = self.complaints.error(&script_at, "`script` is empty");
            problem.help("leave it out for a backend that always answers");
        }
        let answers = script.into_iter().enumerate().map(|(i, raw)| self.answer(&script_at.index(i), raw)).collect();
        let outages_at = at.key("outages");
        let outages = raw.outages.into_iter().enumerate().map(|(i, raw)| {
            let at = outages_at.index(i);
            let (from, until, answer) = raw.split();
            let from = self.duration(&at, "from", from.as_deref(), Duration::ZERO);
            let until = self.duration(&at, "until", until.as_deref(), Duration::MAX);
            if until <= from {
                self.complaints.error(&at.key("until"), "`until` must be after `from`");
            }
            Outage { from, until, answer: self.answer(&at, answer) }
        });
        Script { outages: outages.collect(), answers }
    }

    fn answer(&mut self, at: &KeyPath, raw: RawAnswer) -> Answer {
        let after = self.duration(at, "after", raw.after.as_deref(), AFTER);
        let first_token = self.duration(at, "first_token", raw.first_token.as_deref(), after / 3);
        if first_token > after {
            let problem = self.complaints.error(&at.key("first_token"), "`first_token` is later than the answer's end");
            problem.help("`after` is the time from sending to the last byte; left out, it is 300 ms");
        }
        let tokens = raw.tokens.unwrap_or(TOKENS);
        let behavior = self.behavior(at, raw);
        Answer { behavior, head: None, first_token, after, tokens, prompt: None }
    }

    fn behavior(&mut self, at: &KeyPath, raw: RawAnswer) -> Behavior {
        let answer_at = at.key("answer");
        let word = match &raw.answer {
            Some(RawGives::Status(status)) => {
                if !(200..=599).contains(status) {
                    let problem = self.complaints.error(&answer_at, format!("{status} is no status of an answer"));
                    problem.help("write an HTTP status from 200 to 599");
                }
                return Behavior::Response(Arc::new(self.response(at, *status, &raw)));
            }
            Some(RawGives::Word(word)) => word.as_str(),
            None => {
                if !self.complaints.is_told(&answer_at) {
                    self.complaints
                        .error(at, "this says nothing about the answer")
                        .help("write answer = 200, or another status");
                }
                return Behavior::Silence;
            }
        };
        let no_use = [
            ("retry_after", raw.retry_after.is_some()),
            ("headers", !raw.headers.is_empty()),
            ("body", raw.body.is_some()),
        ];
        for (key, _) in no_use.into_iter().filter(|(_, given)| *given) {
            let problem =
                self.complaints.error(&at.key(key), format!("`{key}` has no place in an answer that is {word:?}"));
            problem.help("it goes with an HTTP status");
        }
        match word {
            "connect-failed" => Behavior::ConnectFailed,
            "reset" => Behavior::Reset,
            "silent" => Behavior::Silence,
            "cut" => Behavior::Cut,
            "stall" => Behavior::Stall,
            _ => {
                let problem = self.complaints.error(&answer_at, format!("{word:?} is no answer"));
                problem.help(format!("write an HTTP status, or one of {}", quoted(WORDS)));
                Behavior::Silence
            }
        }
    }

    fn response(&mut self, at: &KeyPath, status: u16, raw: &RawAnswer) -> Response {
        let mut headers = HeaderMap::new();
        for (name, value) in &raw.headers {
            match (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
                (Ok(name), Ok(value)) => {
                    headers.insert(name, value);
                }
                (Err(_), _) | (_, Err(_)) => {
                    self.complaints.error(&at.key("headers").key(name), format!("`{name}` is no header"));
                }
            }
        }
        if raw.retry_after.is_some() {
            let wait = self.duration(at, "retry_after", raw.retry_after.as_deref(), Duration::ZERO);
            let (name, number) = match wait.subsec_micros() {
                0 => (HeaderName::from_static("retry-after"), wait.as_secs()),
                _ => (HeaderName::from_static("retry-after-ms"), wait.as_millis() as u64),
            };
            headers.insert(name, HeaderValue::from(number));
        }
        Response { status, headers, body: raw.body.clone().map(Bytes::from) }
    }

    pub(super) fn duration(&mut self, at: &KeyPath, key: &str, text: Option<&str>, default: Duration) -> Duration {
        let Some(text) = text else { return default };
        duration(text).unwrap_or_else(|| {
            let problem = self.complaints.error(&at.key(key), format!("`{key}` is not a duration"));
            problem.help(format!("write {DURATION}"));
            default
        })
    }

    pub(super) fn unknown(&mut self, at: &KeyPath, what: &str, name: &str, known: &[impl AsRef<str> + Display]) {
        let problem = self.complaints.error(at, format!("there is no {what} `{name}`"));
        let known: Vec<&str> = known.iter().map(AsRef::as_ref).collect();
        problem.help(if known.is_empty() {
            format!("add a [[{what}]]")
        } else {
            format!("known: {}", known.join(", "))
        });
    }

    pub(super) fn backends(&self) -> Vec<String> {
        self.table.backends.iter().map(|b| b.id.to_string()).collect()
    }
}

fn quoted<const N: usize>(words: [&str; N]) -> String {
    words.map(|word| format!("\"{word}\"")).join(", ")
}
