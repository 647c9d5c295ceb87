//! From raw to checked: everything that is wrong with a scenario is told at once, each with its place.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use pointsman_core::contract::{NONE, Operation};
use pointsman_core::exchange::Facts;
use pointsman_core::table::{Lane, Table};
use pointsman_core::time::Timestamp;
use pointsman_core::view::UNKNOWN_MODEL;

use super::raw::{RawAnswer, RawBackend, RawCount, RawExpect, RawGives, RawRequest, RawScenario};
use super::words::{COUNT, Count, DECISION, DURATION, END, EndPattern, Expected, duration, lane};
use super::{Expectation, MAX_REQUESTS, Outage, Request, RunExpectation, Scenario, Script};
use crate::config::{Complaints, Config, KeyPath};
use crate::lab::answer::{Answer, Gives, Response};
use crate::lab::world::Ask;
use crate::policy::Texts;
use crate::telemetry::rfc3339;

/// The first Monday of 2026.
const START: &str = "2026-01-05T00:00:00Z";

/// How long an answer takes.
const AFTER: Duration = Duration::from_millis(300);

/// Tokens of an answer.
const TOKENS: u32 = 20;

const PATH: &str = "/v1/chat/completions";

/// Words for what is no response.
const WORDS: [&str; 5] = ["connect-failed", "reset", "silent", "cut", "stall"];

/// Checks everything. The result is only to be used when nothing was complained of.
pub(super) fn check(raw: RawScenario, config: Config, complaints: &mut Complaints<'_, '_>) -> Scenario {
    let table = config.table();
    let mut check = Check { complaints, table: &table };
    let title = check.title(raw.title);
    let start = check.start(raw.start.as_deref());
    let seed = raw.seed.unwrap_or(1);
    let scripts = check.scripts(raw.backend);
    let spent_usd = raw.client.iter().map(|client| client.spent_usd.unwrap_or(0.0)).collect();
    let requests = check.requests(raw.request);
    let expect = check.run_expectation(raw.expect);
    if expect.is_empty() && !requests.is_empty() && requests.iter().all(|r| r.expect.is_empty()) {
        let problem = check.complaints.whole("this scenario expects nothing, so it could not fail");
        problem.help("give a [[request]] an `end` or `decisions`, or add [expect]");
    }
    Scenario { title, start, seed, config, scripts, spent_usd, requests, expect }
}

struct Check<'c, 'a, 't> {
    complaints: &'c mut Complaints<'a, 't>,
    table: &'c Table,
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
        let gives = self.gives(at, raw);
        Answer { gives, first_token, after, tokens }
    }

    fn gives(&mut self, at: &KeyPath, raw: RawAnswer) -> Gives {
        let answer_at = at.key("answer");
        let word = match &raw.answer {
            Some(RawGives::Status(status)) => {
                if !(200..=599).contains(status) {
                    let problem = self.complaints.error(&answer_at, format!("{status} is no status of an answer"));
                    problem.help("write an HTTP status from 200 to 599");
                }
                return Gives::Response(Arc::new(self.response(at, *status, &raw)));
            }
            Some(RawGives::Word(word)) => word.as_str(),
            None => {
                if !self.complaints.is_told(&answer_at) {
                    self.complaints
                        .error(at, "this says nothing about the answer")
                        .help("write answer = 200, or another status");
                }
                return Gives::Silence;
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
            "connect-failed" => Gives::ConnectFailed,
            "reset" => Gives::Reset,
            "silent" => Gives::Silence,
            "cut" => Gives::Cut,
            "stall" => Gives::Stall,
            _ => {
                let problem = self.complaints.error(&answer_at, format!("{word:?} is no answer"));
                problem.help(format!("write an HTTP status, or one of {}", quoted(WORDS)));
                Gives::Silence
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

    fn requests(&mut self, raw: Vec<RawRequest>) -> Vec<Request> {
        let list = KeyPath::of("request");
        if raw.is_empty() && !self.complaints.is_told(&list) {
            self.complaints.whole("there is no [[request]]: nothing would happen").help("add a line [[request]]");
        }
        let all = raw.iter().fold(0u32, |sum, r| sum.saturating_add(r.times.unwrap_or(1)));
        if all > MAX_REQUESTS {
            self.complaints.error(&list, format!("{all} requests are more than {MAX_REQUESTS}"));
        }
        raw.into_iter().enumerate().map(|(i, raw)| self.request(&list.index(i), raw)).collect()
    }

    fn request(&mut self, at: &KeyPath, raw: RawRequest) -> Request {
        let times = raw.times.unwrap_or(1);
        if times == 0 {
            self.complaints.error(&at.key("times"), "`times` must be at least 1");
        }
        let arrives = self.duration(at, "at", raw.at.as_deref(), Duration::ZERO);
        let every = self.duration(at, "every", raw.every.as_deref(), Duration::ZERO);
        let expect = self.expectation(at, &raw);
        Request { at: arrives, times, every, ask: self.ask(at, raw), expect }
    }

    fn ask(&mut self, at: &KeyPath, raw: RawRequest) -> Ask {
        let path = raw.path.unwrap_or_else(|| PATH.to_owned());
        if !path.starts_with('/') {
            self.complaints.error(&at.key("path"), "`path` must begin with /").help(format!("write \"/{path}\""));
        }
        let priority = raw.priority.unwrap_or(0);
        if !(-100..=100).contains(&priority) {
            self.complaints.error(&at.key("priority"), "`priority` must be from -100 to 100");
        }
        let known = |model: &&String| !model.is_empty();
        let model = raw.model.or_else(|| self.table.models.first().filter(known).cloned());
        let model: Arc<str> = model.as_deref().unwrap_or(UNKNOWN_MODEL).into();
        let client = raw.client.map_or(NONE, |name| {
            let clients = &self.table.clients;
            let found = clients.iter().position(|c| *c == name).and_then(|i| u32::try_from(i).ok());
            found.unwrap_or_else(|| {
                self.unknown(&at.key("client"), "client", &name, clients);
                NONE
            })
        });
        let texts = Texts {
            model: model.to_string(),
            path: path.clone(),
            session: raw.session.clone(),
            labels: raw.labels.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect(),
            ..Texts::default()
        };
        let facts = Facts {
            operation: Operation::of_path(&path),
            streaming: raw.stream,
            priority,
            prompt_tokens: raw.prompt_tokens.unwrap_or(100),
            max_tokens: raw.max_tokens.unwrap_or(0),
            client,
            session: raw.session.as_deref().filter(|s| !s.is_empty()).map_or(0, Facts::session_number),
        };
        Ask { model, facts, texts: Arc::new(texts) }
    }

    fn expectation(&mut self, at: &KeyPath, raw: &RawRequest) -> Expectation {
        let decisions_at = at.key("decisions");
        let decisions = raw.decisions.as_ref().map(|list| {
            let one = |(i, text): (usize, &String)| self.expected(&decisions_at.index(i), text);
            list.iter().enumerate().filter_map(one).collect()
        });
        let end = raw.end.as_deref().and_then(|text| self.end(&at.key("end"), text));
        let mut limit =
            |key: &str, text: Option<&str>| text.map(|text| self.duration(at, key, Some(text), Duration::ZERO));
        Expectation {
            decisions,
            end,
            within: limit("within", raw.within.as_deref()),
            not_before: limit("not_before", raw.not_before.as_deref()),
            notes: raw.notes.clone(),
        }
    }

    fn expected(&mut self, at: &KeyPath, text: &str) -> Option<Expected> {
        let Some(expected) = Expected::parse(text) else {
            self.complaints.error(at, format!("{text:?} is no decision")).help(format!("write {DECISION}"));
            return None;
        };
        if let Expected::One(pattern) = &expected {
            let backends = self.backends();
            if let Some(backend) = pattern.backend.as_ref().filter(|b| !backends.contains(b)) {
                self.unknown(at, "backend", backend, &backends);
            }
            if let Some(model) = pattern.model.as_ref().filter(|m| !self.table.models.contains(m)) {
                self.unknown(at, "model", model, &self.table.models);
            }
        }
        Some(expected)
    }

    fn end(&mut self, at: &KeyPath, text: &str) -> Option<EndPattern> {
        let Some(end) = EndPattern::parse(text) else {
            self.complaints.error(at, format!("{text:?} is no end")).help(format!("write {END}"));
            return None;
        };
        let backends = self.backends();
        if let Some(by) = end.by.as_ref().filter(|by| !backends.iter().any(|b| **b == ***by)) {
            self.unknown(at, "backend", by, &backends);
        }
        Some(end)
    }

    fn run_expectation(&mut self, raw: RawExpect) -> RunExpectation {
        let at = KeyPath::of("expect");
        let backends = self.backends();
        let attempts_at = at.key("attempts");
        let attempts = self.counts(&attempts_at, raw.attempts, |check, at, name| {
            let found = check.table.backends.iter().find(|b| *b.id == *name).map(|b| b.id.clone());
            if found.is_none() {
                check.unknown(at, "backend", name, &backends);
            }
            found
        });
        let lanes_at = at.key("lanes");
        let lanes = self.counts(&lanes_at, raw.lanes, |check, at, name| {
            let found = lane(name);
            if found.is_none() {
                check.unknown(at, "lane", name, &Lane::ALL.map(|lane| lane.as_str().to_owned()));
            }
            found
        });
        let mut count = |key: &str, raw: Option<RawCount>| raw.and_then(|raw| self.count(&at.key(key), raw));
        RunExpectation {
            attempts,
            lanes,
            delivered: count("delivered", raw.delivered),
            rejected: count("rejected", raw.rejected),
            spend_usd: count("spend_usd", raw.spend_usd),
        }
    }

    fn counts<K>(
        &mut self,
        at: &KeyPath,
        raw: BTreeMap<String, RawCount>,
        mut key: impl FnMut(&mut Self, &KeyPath, &str) -> Option<K>,
    ) -> Vec<(K, Count)> {
        let mut one = |(name, raw): (String, RawCount)| {
            let at = at.key(&name);
            let key = key(self, &at, &name);
            let count = self.count(&at, raw);
            Some((key?, count?))
        };
        raw.into_iter().filter_map(&mut one).collect()
    }

    fn count(&mut self, at: &KeyPath, raw: RawCount) -> Option<Count> {
        let count = match &raw {
            RawCount::Number(number) => Some(Count::Exactly(*number)).filter(|_| *number >= 0.0),
            RawCount::Text(text) => Count::parse(text),
        };
        if count.is_none() {
            self.complaints.error(at, "this is no number to expect").help(format!("write {COUNT}"));
        }
        count
    }

    fn duration(&mut self, at: &KeyPath, key: &str, text: Option<&str>, default: Duration) -> Duration {
        let Some(text) = text else { return default };
        duration(text).unwrap_or_else(|| {
            let problem = self.complaints.error(&at.key(key), format!("`{key}` is not a duration"));
            problem.help(format!("write {DURATION}"));
            default
        })
    }

    fn unknown(&mut self, at: &KeyPath, what: &str, name: &str, known: &[impl AsRef<str> + Display]) {
        let problem = self.complaints.error(at, format!("there is no {what} `{name}`"));
        let known: Vec<&str> = known.iter().map(AsRef::as_ref).collect();
        problem.help(if known.is_empty() {
            format!("add a [[{what}]]")
        } else {
            format!("known: {}", known.join(", "))
        });
    }

    fn backends(&self) -> Vec<String> {
        self.table.backends.iter().map(|b| b.id.to_string()).collect()
    }
}

fn quoted<const N: usize>(words: [&str; N]) -> String {
    words.map(|word| format!("\"{word}\"")).join(", ")
}
