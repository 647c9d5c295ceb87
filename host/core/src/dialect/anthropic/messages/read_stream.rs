//! Reads the events of Anthropic's streams.

use std::borrow::Cow;

use super::read_answer::{stop, usage};
use crate::dialect::format::neutral::{News, Usage};
use crate::dialect::format::read::{Field, Object, head};
use crate::dialect::format::{Api, MAX_CALLS, Read, StreamReader};
use crate::http::sse::Event;

/// A stream that is being read.
#[derive(Debug)]
pub(super) struct Reader {
    target: &'static Api,
    usage: Usage,
    /// The block of each tool call, in the order of the calls.
    calls: Vec<u64>,
}

impl StreamReader for Reader {
    fn read<'a>(&mut self, event: &Event<'a>, tell: &mut dyn FnMut(News<'a>) -> Read<()>) -> Read<()> {
        let Some(data) = event.data else { return tell(News::Ping) };
        let mut data = Field::body(data, self.target)?.object()?;
        let kind = data.need("type")?.text()?;
        match &*kind {
            "message_start" => {
                let mut message = data.need("message")?.object()?;
                self.see_usage(&mut message)?;
                tell(News::Start(head(&mut message)))
            }
            "content_block_start" => self.block(&mut data, tell),
            "content_block_delta" => {
                let number = self.number(&mut data)?;
                match delta(&mut data)? {
                    Delta::Text(text) => tell(News::Text(text)),
                    Delta::Json(json) => match number {
                        Some(number) => tell(News::Input { number, json }),
                        None => Ok(()),
                    },
                    Delta::Other => Ok(()),
                }
            }
            "content_block_stop" => match self.number(&mut data)? {
                Some(number) => tell(News::CallEnd { number }),
                None => Ok(()),
            },
            "message_delta" => {
                self.see_usage(&mut data)?;
                tell(News::Usage(self.usage))?;
                let mut delta = data.need("delta")?.object()?;
                let sequence = delta.take("stop_sequence").map(|f| f.text()).transpose()?;
                match delta.take("stop_reason").filter(Field::is_reason).map(|f| f.text()).transpose()? {
                    Some(reason) => tell(News::Stop(stop(Some(&reason), sequence))),
                    None => Ok(()),
                }
            }
            "message_stop" => tell(News::End),
            "ping" => tell(News::Ping),
            // New kinds of events may be added to Anthropic's streams, and are to be passed over.
            _ => Ok(()),
        }
    }
}

impl Reader {
    pub(super) fn new(target: &'static Api) -> Self {
        Self { target, usage: Usage::default(), calls: Vec::new() }
    }

    fn see_usage(&mut self, from: &mut Object<'_>) -> Read<()> {
        if let Some(told) = from.take("usage") {
            self.usage = usage(told.object()?, self.usage);
        }
        Ok(())
    }

    fn block<'a>(&mut self, data: &mut Object<'a>, tell: &mut dyn FnMut(News<'a>) -> Read<()>) -> Read<()> {
        let index = data.need("index")?;
        let mut block = data.need("content_block")?.object()?;
        let kind = block.need("type")?;
        match &*kind.text()? {
            "text" => match block.take("text").map(|f| f.text()).transpose()? {
                Some(text) if !text.is_empty() => tell(News::Text(text)),
                Some(_) | None => Ok(()),
            },
            "tool_use" => {
                let number = self.calls.len();
                if number == MAX_CALLS {
                    return Err(index.wrong("is one tool call too many"));
                }
                self.calls.push(index.count()?);
                // Some servers give it no id.
                let id = block.take("id").map(|f| f.text()).transpose()?.unwrap_or_default();
                tell(News::Call { number, id, name: block.need("name")?.text()? })?;
                // It comes in pieces, but some servers have all of it at once.
                match block.take("input") {
                    Some(input) if !input.is_empty() => {
                        let json = Cow::Owned(input.json().text().to_owned());
                        tell(News::Input { number, json })
                    }
                    Some(_) | None => Ok(()),
                }
            }
            "thinking" | "redacted_thinking" => Ok(()),
            _ => Err(kind.no_counterpart()),
        }
    }

    /// The number of the tool call that this event's block is; none when it is another block.
    fn number(&self, data: &mut Object<'_>) -> Read<Option<usize>> {
        let index = data.need("index")?.count()?;
        Ok(self.calls.iter().position(|block| *block == index))
    }
}

enum Delta<'a> {
    Text(Cow<'a, str>),
    Json(Cow<'a, str>),
    /// Thoughts and their signatures, citations.
    Other,
}

fn delta<'a>(data: &mut Object<'a>) -> Read<Delta<'a>> {
    let mut delta = data.need("delta")?.object()?;
    let kind = delta.need("type")?;
    Ok(match &*kind.text()? {
        "text_delta" => Delta::Text(delta.need("text")?.text()?),
        "input_json_delta" => Delta::Json(delta.need("partial_json")?.text()?),
        "thinking_delta" | "signature_delta" | "citations_delta" => Delta::Other,
        _ => return Err(kind.no_counterpart()),
    })
}
