//! Members of a JSON object that are facts, as they stand in the body.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::tokens::weigh;
use super::{BodyFacts, ObjectSpans, Spans};
use crate::affinity::{SESSION_MEMBERS, is_id, session_in_user_id};
use crate::http::json;
use crate::text::MAX_NAME_BYTES;
use crate::usage::ServiceTier;

/// The members we know, as they stand in the body.
#[derive(Default)]
pub(super) struct Members<'a> {
    any: bool,
    model: Option<&'a [u8]>,
    stream: Option<&'a [u8]>,
    stream_options: Option<&'a [u8]>,
    max_tokens: Option<&'a [u8]>,
    n: Option<&'a [u8]>,
    has_tools: bool,
    session: Option<&'a [u8]>,
    /// The session that a client of OpenAI's realtime API asks a secret for.
    realtime: Option<&'a [u8]>,
    metadata: Option<&'a [u8]>,
    cache_key: Option<&'a [u8]>,
    service_tier: Option<&'a [u8]>,
    background: bool,
    prompt_tokens: usize,
    pub(super) twice: Option<&'static str>,
}

impl<'a> Members<'a> {
    /// Reads an object that providers' parsers take and strict JSON does not: text that is not UTF-8, line ends inside
    /// strings, `NaN`. Its braces and quotes must match, and nothing may follow it.
    pub(super) fn lenient(body: &'a [u8]) -> Option<Self> {
        let end = json::object_end(body)?;
        if json::skip_space(body, end) != body.len() {
            return None;
        }
        let mut m = Self::default();
        let mut at = json::Cursor::new(body);
        at.enter(b'{');
        while at.peek() != Some(b'}') {
            let name = at.name()?;
            let value = at.value();
            if value.is_empty() {
                return None;
            }
            m.take(Key::raw(name), value);
        }
        at.leave(b'}');
        at.is_at(end).then_some(m)
    }

    /// Takes a member that we know; any other only counts.
    fn take(&mut self, key: Key, value: &'a [u8]) {
        self.any = true;
        match key {
            Key::Model => once(&mut self.model, value, "model", &mut self.twice),
            Key::Stream => once(&mut self.stream, value, "stream", &mut self.twice),
            Key::StreamOptions => once(&mut self.stream_options, value, "stream_options", &mut self.twice),
            Key::MaxTokens => self.max_tokens = Some(value),
            Key::N => self.n = Some(value),
            Key::Tools => {
                self.has_tools |= json::is_filled(value);
                self.prompt_tokens += weigh(value);
            }
            Key::Prompt => self.prompt_tokens += weigh(value),
            Key::Session => self.session = Some(value),
            Key::Realtime => self.realtime = Some(value),
            Key::Metadata => self.metadata = Some(value),
            Key::PromptCache => self.cache_key = Some(value),
            Key::ServiceTier => self.service_tier = Some(value),
            Key::Background => self.background = value == b"true",
            Key::Other => {}
        }
    }

    pub(super) fn facts(&self, body: &[u8]) -> BodyFacts {
        let span = |value: &[u8]| {
            let start = value.as_ptr() as usize - body.as_ptr() as usize;
            start..start + value.len()
        };
        let include_usage = self.stream_options.and_then(|options| json::member(options, "include_usage"));
        let count = |value: &[u8]| std::str::from_utf8(value).map_or(0, number);
        let model_value = self.model.or_else(|| json::member(self.realtime?, "model"));
        let (model, has_long_model) = model_value.map_or((None, false), name_of);
        BodyFacts {
            model,
            has_long_model,
            stream: self.stream == Some(b"true"),
            include_usage: include_usage == Some(b"true"),
            max_tokens: self.max_tokens.map_or(0, count),
            answers: self.n.map_or(1, count).max(1),
            has_tools: self.has_tools,
            prompt_tokens: u32::try_from(self.prompt_tokens).unwrap_or(u32::MAX),
            session: self.session_text(),
            background: self.background,
            service_tier: self.service_tier.and_then(|tier| ServiceTier::told(json::unquoted(tier)?)),
            spans: Some(Spans::Object(ObjectSpans {
                open: json::skip_space(body, 0) + 1,
                model: model_value.map(span),
                stream_options: self.stream_options.map(span),
                any: self.any,
            })),
        }
    }
}

impl Members<'_> {
    fn session_text(&self) -> Option<String> {
        let text = |value: &[u8]| serde_json::from_slice::<String>(value).ok();
        let metadata = |name: &str| text(json::member(self.metadata?, name)?);
        let own = |value: Option<&[u8]>| text(value?).filter(|text| is_id(text));
        let in_user_id = || Some(session_in_user_id(&metadata("user_id")?)?.to_owned());
        own(self.session)
            .or_else(|| SESSION_MEMBERS.iter().find_map(|name| metadata(name).filter(|text| is_id(text))))
            .or_else(in_user_id)
            .or_else(|| own(self.cache_key))
    }
}

/// The model of a JSON value, if it is a string, and whether its name is too long to be one.
fn name_of(value: &[u8]) -> (Option<String>, bool) {
    /// `\u0061` stands for one byte.
    const ESCAPE_BYTES: usize = 6;
    if value.first() != Some(&b'"') {
        return (None, false);
    }
    if value.len() > ESCAPE_BYTES * MAX_NAME_BYTES + 2 {
        return (None, true);
    }
    json::text(value).map_or((None, false), |text| within_bound(&text))
}

/// A model's name, and whether it is too long to be one.
pub(super) fn within_bound(name: &str) -> (Option<String>, bool) {
    if name.len() > MAX_NAME_BYTES { (None, true) } else { (Some(name.to_owned()), false) }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut m = Members::default();
                while let Some(key) = map.next_key()? {
                    match key {
                        Key::Other => {
                            m.any = true;
                            map.next_value::<IgnoredAny>()?;
                        }
                        known => m.take(known, map.next_value::<&RawValue>()?.get().as_bytes()),
                    }
                }
                Ok(m)
            }
        }
        from.deserialize_map(Object)
    }
}

fn once<'a>(slot: &mut Option<&'a [u8]>, value: &'a [u8], name: &'static str, twice: &mut Option<&'static str>) {
    if slot.replace(value).is_some() {
        *twice = Some(name);
    }
}

/// A member's name, escapes resolved, so that `"mod\u0065l"` is no way around us.
pub(super) enum Key {
    Model,
    Stream,
    StreamOptions,
    MaxTokens,
    N,
    Tools,
    Session,
    Realtime,
    Metadata,
    PromptCache,
    ServiceTier,
    Background,
    Prompt,
    Other,
}

impl Key {
    pub(super) fn of(name: &str) -> Self {
        match name {
            "model" => Key::Model,
            "stream" => Key::Stream,
            "stream_options" => Key::StreamOptions,
            "max_tokens" | "max_completion_tokens" | "max_output_tokens" => Key::MaxTokens,
            "n" => Key::N,
            "tools" | "functions" => Key::Tools,
            "session_id" | "litellm_session_id" => Key::Session,
            "session" => Key::Realtime,
            "metadata" => Key::Metadata,
            "prompt_cache_key" => Key::PromptCache,
            "service_tier" | "speed" => Key::ServiceTier,
            "background" => Key::Background,
            "messages" | "input" | "prompt" | "system" | "instructions" | "contents" => Key::Prompt,
            // Of a reranking, by Cohere's and Jina's names, vLLM's and those of text-embeddings-inference.
            "query" | "queries" | "documents" | "texts" | "text_1" | "text_2" => Key::Prompt,
            _ => Key::Other,
        }
    }

    /// The key of a name as it stands between its quotes.
    fn raw(name: &[u8]) -> Self {
        if !name.contains(&b'\\') {
            return std::str::from_utf8(name).map_or(Key::Other, Key::of);
        }
        let quoted = [b"\"", name, b"\""].concat();
        serde_json::from_slice::<String>(&quoted).map_or(Key::Other, |name| Key::of(&name))
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Key, E> {
                Ok(Key::of(name))
            }
        }
        from.deserialize_identifier(Name)
    }
}

pub(super) fn number(text: &str) -> u32 {
    // Saturates, and is 0 for what is no number.
    text.parse::<f64>().map_or(0, |n| n as u32)
}
