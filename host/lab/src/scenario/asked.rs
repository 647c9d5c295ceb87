//! `[[request]]` and `[expect]`: what is asked, and what should become of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pointsman_config::KeyPath;
use pointsman_core::contract::NONE;
use pointsman_core::dialect::operation_at;
use pointsman_core::exchange::Facts;
use pointsman_core::table::Lane;
use pointsman_core::table::UNKNOWN_MODEL;
use pointsman_engine::Texts;

use super::check::Check;
use super::raw::{RawCount, RawExpect, RawRequest};
use super::syntax::{COUNT, Count, DECISION, END, EndPattern, Expected};
use super::{Expectation, MAX_REQUESTS, Request, RunExpectation};
use crate::world::Ask;

const PATH: &str = "/v1/chat/completions";

impl Check<'_, '_, '_> {
    pub(super) fn requests(&mut self, raw: Vec<RawRequest>) -> Vec<Request> {
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

    fn request(&mut self, at: &KeyPath, mut raw: RawRequest) -> Request {
        let times = raw.times.unwrap_or(1);
        if times == 0 {
            self.complaints.error(&at.key("times"), "`times` must be at least 1");
        }
        let arrives = self.duration(at, "at", raw.at.as_deref(), Duration::ZERO);
        let every = self.duration(at, "every", raw.every.as_deref(), Duration::ZERO);
        let expect = self.expectation(at, &raw);
        let questions = self.questions(at, std::mem::take(&mut raw.question));
        Request { at: arrives, times, every, ask: self.ask(at, raw), expect, questions }
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
            operation: operation_at(&path),
            streaming: raw.stream,
            priority,
            prompt_tokens: raw.prompt_tokens.unwrap_or(100),
            max_tokens: raw.max_tokens.unwrap_or(0),
            client,
            session: raw.session.as_deref().filter(|s| !s.is_empty()).map_or(0, Facts::session_number),
            // What the request says is plain where nothing is written: nothing in it resists translation.
            translatable: raw.translatable.unwrap_or(true),
            idempotent: raw.idempotent != Some(false),
        };
        let text = raw.leaves_after.as_deref();
        let patience = text.map(|text| self.duration(at, "leaves_after", Some(text), Duration::ZERO));
        Ask { model, facts, texts: Arc::new(texts), patience }
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

    pub(super) fn run_expectation(&mut self, raw: RawExpect) -> RunExpectation {
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
            let found = Lane::parse(name);
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
}
