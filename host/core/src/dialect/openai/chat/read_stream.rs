//! Reads chat completion chunks.

use super::read_answer::{content, matched, stop, usage};
use crate::dialect::format::neutral::{Head, News};
use crate::dialect::format::read::{Field, Object};
use crate::dialect::format::{Api, MAX_CALLS, Read, StreamReader};
use crate::http::sse::Event;

/// A stream that is being read.
#[derive(Debug)]
pub(super) struct Reader {
    target: &'static Api,
    started: bool,
    refused: bool,
    calls: Vec<BegunCall>,
}

/// A tool call that has begun.
#[derive(Debug)]
struct BegunCall {
    index: Option<u64>,
    id: String,
}

impl StreamReader for Reader {
    fn read<'a>(&mut self, event: &Event<'a>, tell: &mut dyn FnMut(News<'a>) -> Read<()>) -> Read<()> {
        let Some(data) = event.data else { return tell(News::Ping) };
        if data.trim_ascii() == b"[DONE]" {
            return tell(News::End);
        }
        let mut chunk = Field::body(data, self.target)?.object()?;
        let choices = chunk.take("choices").map_or(Ok(Vec::new()), Field::list)?;
        if !choices.is_empty() && !self.started {
            // Azure sends a chunk about its filters first, which has no name yet.
            self.started = true;
            let mut text = |name| chunk.take(name).and_then(|f| f.text().ok()).unwrap_or_default();
            tell(News::Start(Head { id: text("id"), model: text("model") }))?;
        }
        if let Some(told) = chunk.take("usage") {
            tell(News::Usage(usage(told.object()?)))?;
        }
        for choice in choices {
            self.choice(choice.object()?, tell)?;
        }
        Ok(())
    }
}

impl Reader {
    pub(super) const fn new(target: &'static Api) -> Self {
        Self { target, started: false, refused: false, calls: Vec::new() }
    }

    fn choice<'a>(&mut self, mut choice: Object<'a>, tell: &mut dyn FnMut(News<'a>) -> Read<()>) -> Read<()> {
        choice.only("index", |f| f.count() == Ok(0))?;
        if let Some(delta) = choice.take("delta") {
            let mut delta = delta.object()?;
            delta.only("function_call", |_| false)?;
            delta.only("audio", |_| false)?;
            for name in ["content", "refusal"] {
                let text = delta.take(name).map(content).transpose()?.filter(|text| !text.is_empty());
                if let Some(text) = text {
                    self.refused |= name == "refusal";
                    tell(News::Text(text))?;
                }
            }
            for call in delta.take("tool_calls").map_or(Ok(Vec::new()), Field::list)? {
                self.call(call, tell)?;
            }
        }
        let said = choice.take("finish_reason").filter(Field::is_reason);
        if let Some(reason) = said.map(|f| f.text()).transpose()? {
            let matched = matched(&mut choice);
            tell(News::Stop(stop(Some(&reason), matched, !self.calls.is_empty(), self.refused)))?;
        }
        Ok(())
    }

    /// A piece of a tool call. It is a new one when its index is, or when another id comes under the same index, as
    /// some servers do that count badly.
    fn call<'a>(&mut self, field: Field<'a>, tell: &mut dyn FnMut(News<'a>) -> Read<()>) -> Read<()> {
        let mut call = field.clone().object()?;
        call.only("type", |f| f.text().is_ok_and(|kind| matches!(&*kind, "function" | "")))?;
        let index = call.take("index").and_then(|f| f.count().ok());
        let id = call.take("id").map(|f| f.text()).transpose()?.filter(|id| !id.is_empty());
        let mut function = call.take("function").map(Field::object).transpose()?;
        let mut text = |name| function.as_mut().and_then(|f| f.take(name)).map(|f| f.text()).transpose();
        let name = text("name")?.filter(|name| !name.is_empty());
        let piece = text("arguments")?.filter(|piece| !piece.is_empty());
        let known = self.calls.iter().rposition(|seen| index.is_none() || seen.index == index);
        let same = |seen: &BegunCall| name.is_none() || id.as_ref().is_none_or(|id| seen.id == **id);
        let number = match known {
            Some(number) if same(&self.calls[number]) => number,
            Some(_) | None => {
                let number = self.calls.len();
                if number == MAX_CALLS {
                    return Err(field.wrong("is one tool call too many"));
                }
                let name = name.ok_or_else(|| field.wrong("begins a tool call without a name"))?;
                let id = id.unwrap_or_default();
                self.calls.push(BegunCall { index, id: id.clone().into_owned() });
                tell(News::Call { number, id, name })?;
                number
            }
        };
        piece.map_or(Ok(()), |json| tell(News::Input { number, json }))
    }
}
