//! Conversations: what everybody said, in order.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use pointsman_core::contract::Operation;
use pointsman_core::dialect::translate::neutral::{Answer, Head, News, Part, Request, Stop, Turn, Usage};
use pointsman_core::dialect::translate::stream::write_event;
use pointsman_core::dialect::translate::{
    Api, Conversation, LeftOut, Read, StreamReader, StreamWriter, Untranslatable,
};
use pointsman_core::http::sse::Event;
use pointsman_core::time::Timestamp;
use serde_json::{Value, json};

/// The one operation.
#[derive(Debug)]
pub(super) struct Talk;

/// Reads and writes streams; either keeps nothing in mind but whether it began and ended.
#[derive(Debug, Default)]
struct Stream {
    has_begun: bool,
    has_stopped: bool,
}

static API: Api = Api {
    name: "the made-up API",
    max_stop_sequences: 0,
    takes_blank_stop_sequences: false,
    max_temperature: 0.5,
    takes_late_instructions: true,
    continues_the_assistant: false,
    takes_empty_messages: true,
    takes_pictures_in_results: true,
    has_json_mode: false,
    takes_top_p_beside_temperature: true,
    needs_tools_beside_calls: false,
    max_tool_name_chars: 64,
    max_user_chars: 0,
    pictures: Some((&[], "drawing of ours")),
};

impl Conversation for Talk {
    fn api(&self) -> &'static Api {
        &API
    }

    fn operation(&self) -> Operation {
        Operation::Other
    }

    fn path(&self, model: &str, stream: bool) -> Cow<'static, str> {
        format!("/models/{model}:{}", if stream { "generateStream" } else { "generate" }).into()
    }

    fn read_request<'a>(&self, body: &'a [u8], _target: &'static Api, _left_out: &LeftOut) -> Read<Request<'a>> {
        let body = parse(body)?;
        let mut request = Request { max_tokens: body["at_most"].as_u64(), ..Request::default() };
        for turn in body["talk"].as_array().into_iter().flatten() {
            let said: Cow<'_, str> = text(&turn["said"]).into();
            request.turns.push(match turn["by"].as_str() {
                Some("it") => Turn::Assistant { texts: vec![said], calls: Vec::new() },
                _ => Turn::User(vec![Part::Text(said)]),
            });
        }
        Ok(request)
    }

    fn write_request(&self, request: &Request<'_>) -> Bytes {
        let mut talk: Vec<Value> = request.system.iter().map(|said| json!({"by": "us", "said": said})).collect();
        for turn in &request.turns {
            talk.push(match turn {
                Turn::User(parts) => json!({"by": "them", "said": parts.iter().map(words).collect::<String>()}),
                Turn::Assistant { texts, .. } => json!({"by": "it", "said": texts.concat()}),
                Turn::System(texts) => json!({"by": "us", "said": texts.concat()}),
                Turn::Results(results) => json!({"by": "tools", "said": format!("{results:?}")}),
            });
        }
        json!({"talk": talk, "at_most": request.max_tokens}).to_string().into()
    }

    /// The model stands in the path.
    fn adapt_request(&self, body: &Bytes, _model: &str, _host: &str) -> Bytes {
        body.clone()
    }

    fn read_answer<'a>(&self, body: &'a [u8], _target: &'static Api) -> Read<Answer<'a>> {
        let body = parse(body)?;
        Ok(Answer {
            head: Head { id: text(&body["name"]).into(), model: Cow::default() },
            text: Some(text(&body["said"]).into()),
            calls: Vec::new(),
            stop: Stop::End,
            usage: usage(&body["tokens"]),
        })
    }

    fn write_answer(&self, answer: &Answer<'_>, _asked_model: &str, _now: Timestamp) -> Bytes {
        json!({"said": answer.text, "tokens": {"heard": answer.usage.input, "said": answer.usage.output}})
            .to_string()
            .into()
    }

    fn stream_reader(&self, _target: &'static Api) -> Box<dyn StreamReader> {
        Box::new(Stream::default())
    }

    fn stream_writer(&self, _asked_model: &str, _include_usage: bool, _now: Timestamp) -> Box<dyn StreamWriter> {
        Box::new(Stream::default())
    }
}

impl StreamReader for Stream {
    fn read<'a>(&mut self, event: &Event<'a>, tell: &mut dyn FnMut(News<'a>) -> Read<()>) -> Read<()> {
        let Some(data) = event.data else { return tell(News::Ping) };
        let data = parse(data)?;
        if event.name == Some(b"end") {
            tell(News::Usage(usage(&data)))?;
            tell(News::Stop(Stop::End))?;
            return tell(News::End);
        }
        if !std::mem::replace(&mut self.has_begun, true) {
            tell(News::Start(Head { id: text(&data["name"]).into(), model: Cow::default() }))?;
        }
        tell(News::Text(text(&data["said"]).into()))
    }
}

impl StreamWriter for Stream {
    fn write(&mut self, news: News<'_>, out: &mut BytesMut) -> Read<()> {
        match news {
            News::Text(said) => write_event(None, &json!({"said": said}), out),
            News::Stop(_) => self.has_stopped = true,
            News::End => write_event(Some("end"), &json!({}), out),
            _ => {}
        }
        Ok(())
    }

    fn has_stopped(&self) -> bool {
        self.has_stopped
    }

    fn finish(&mut self, _out: &mut BytesMut) {}
}

fn parse(json: &[u8]) -> Read<Value> {
    serde_json::from_slice(json).map_err(|_| Untranslatable::new("", "is not JSON"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn words(part: &Part<'_>) -> String {
    match part {
        Part::Text(text) => text.clone().into_owned(),
        other => format!("{other:?}"),
    }
}

fn usage(tokens: &Value) -> Usage {
    let count = |name: &str| tokens[name].as_u64().unwrap_or(0);
    Usage { input: count("heard"), output: count("said"), ..Usage::default() }
}
