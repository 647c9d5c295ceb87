//! Answers of scripted providers: a head and a list of steps, so that any of them can fail.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json as value};
use tokio::sync::Semaphore;

use crate::upstream::Seen;

/// Holds an upstream back until the test lets it go on.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets `n` steps pass.
    pub fn pass(&self, n: usize) {
        self.0.add_permits(n);
    }

    /// Lets everything pass from now on.
    pub fn open(&self) {
        self.0.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    pub(crate) async fn await_pass(&self) {
        if let Ok(permit) = self.0.acquire().await {
            permit.forget();
        }
    }
}

/// One thing an upstream does while it answers.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Send(Bytes),
    /// Sent only when the request asked for `stream_options.include_usage`.
    SendIfUsageAsked(Bytes),
    Pause(Duration),
    Await(Gate),
    /// Says nothing until the peer hangs up.
    Hold,
    /// Ends the connection in order (FIN), whatever the framing promised.
    Fin,
    /// Ends it abruptly (RST).
    Reset,
}

/// Framing of a body's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length,
    Chunked,
    /// The steps are the whole conversation, head included.
    Raw,
}

/// An answer, to be changed until it is wrong in the way a test needs.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) framing: Framing,
    pub(crate) before: Vec<Step>,
    pub(crate) body: Vec<Step>,
}

/// A body of this type, with a content-length.
pub fn bytes(content_type: &str, body: impl Into<Bytes>) -> Reply {
    Reply {
        status: 200,
        headers: vec![("content-type".into(), content_type.into())],
        framing: Framing::Length,
        before: Vec::new(),
        body: vec![Step::Send(body.into())],
    }
}

/// A JSON body.
pub fn json(body: Value) -> Reply {
    bytes("application/json", body.to_string())
}

/// A chat completion that says `text`, with 11 prompt tokens and 7 answer tokens.
pub fn chat(text: &str) -> Reply {
    json(value!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }))
}

/// Two embeddings of three numbers, with 5 prompt tokens.
pub fn embeddings() -> Reply {
    json(value!({
        "object": "list", "model": "e",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2, 0.3]},
                 {"object": "embedding", "index": 1, "embedding": [0.4, 0.5, 0.6]}],
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    }))
}

/// This status with an OpenAI error body.
pub fn status(status: u16) -> Reply {
    let mut reply = json(value!({"error": {
        "message": format!("the provider says {status}"), "type": "provider_error", "param": null, "code": null,
    }}));
    reply.status = status;
    reply
}

/// Returns the request as the upstream saw it, as JSON: `method`, `target`, `headers` (list of pairs), `body`; in a body that
/// is an answer of any operation.
pub fn echo(seen: &Seen) -> Reply {
    json(value!({
        "method": seen.method, "target": seen.target, "headers": seen.headers,
        "body": String::from_utf8_lossy(&seen.body),
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "echo"}, "text": "echo"}],
        "content": [{"type": "text", "text": "echo"}],
        "output": [{"type": "message"}],
        "data": [{"embedding": [0.5]}], "results": [{}], "text": "echo", "input_tokens": 1,
    }))
}

/// Exactly these bytes on the wire instead of a response, then FIN.
pub fn raw(bytes: impl Into<Bytes>) -> Reply {
    Reply {
        status: 0,
        headers: Vec::new(),
        framing: Framing::Raw,
        before: Vec::new(),
        body: vec![Step::Send(bytes.into()), Step::Fin],
    }
}

/// Takes the request and never answers.
pub fn silence() -> Reply {
    Reply { body: vec![Step::Hold], ..raw("") }
}

/// An event stream of these data fields, each its own chunk.
pub fn sse<D: Into<String>>(data: impl IntoIterator<Item = D>) -> Reply {
    Reply {
        status: 200,
        headers: vec![("content-type".into(), "text/event-stream".into())],
        framing: Framing::Chunked,
        before: Vec::new(),
        body: data.into_iter().map(|d| Step::Send(event(&d.into()))).collect(),
    }
}

/// A chat stream of `n` content events `t0 `, `t1 `, ..., the last event, the usage if asked for (11 and n tokens),
/// and `[DONE]`.
pub fn tokens(n: usize) -> Reply {
    let chunk = |delta: Value, finish: Value| {
        value!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        })
        .to_string()
    };
    let mut reply = sse((0..n).map(|i| chunk(value!({"content": format!("t{i} ")}), Value::Null)));
    let usage = value!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "m", "choices": [],
        "usage": {"prompt_tokens": 11, "completion_tokens": n, "total_tokens": 11 + n},
    });
    reply.body.push(Step::Send(event(&chunk(value!({}), value!("stop")))));
    reply.body.push(Step::SendIfUsageAsked(event(&usage.to_string())));
    reply.body.push(Step::Send(event("[DONE]")));
    reply
}

fn event(data: &str) -> Bytes {
    format!("data: {data}\n\n").into()
}

impl Reply {
    /// Adds a header.
    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    /// With this content type, or none.
    pub fn labelled(mut self, content_type: Option<&str>) -> Self {
        self.headers.retain(|(name, _)| name != "content-type");
        self.headers.extend(content_type.map(|label| ("content-type".into(), label.into())));
        self
    }

    /// Then a pause.
    pub fn and_pause(mut self, pause: Duration) -> Self {
        self.body.push(Step::Pause(pause));
        self
    }

    /// The rest waits for the gate.
    pub fn and_gate(mut self, gate: &Gate) -> Self {
        self.body.push(Step::Await(gate.clone()));
        self
    }

    /// Then the connection is reset, whatever the framing promised.
    pub fn and_cut(mut self) -> Self {
        self.body.push(Step::Reset);
        self
    }

    /// Adds `retry-after`, in seconds.
    pub fn retry_after(self, seconds: u64) -> Self {
        self.header("retry-after", seconds)
    }

    /// With this status.
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Says nothing for this long before the head.
    pub fn slow_head(mut self, pause: Duration) -> Self {
        self.before.push(Step::Pause(pause));
        self
    }

    /// The head waits for the gate.
    pub fn gated_head(mut self, gate: &Gate) -> Self {
        self.before.push(Step::Await(gate.clone()));
        self
    }

    /// A pause before each piece of the body.
    pub fn pace(self, pause: Duration) -> Self {
        self.before_each(Step::Pause(pause))
    }

    /// Each piece of the body waits for the gate.
    pub fn gated(self, gate: &Gate) -> Self {
        self.before_each(Step::Await(gate.clone()))
    }

    /// After `k` pieces of the body the connection ends in order, though the body is not whole.
    pub fn end_after(self, k: usize) -> Self {
        self.only(k, Step::Fin)
    }

    /// After `k` pieces of the body the connection is reset.
    pub fn cut_after(self, k: usize) -> Self {
        self.only(k, Step::Reset)
    }

    /// After `k` pieces of the body nothing more comes.
    pub fn stall_after(self, k: usize) -> Self {
        self.only(k, Step::Hold)
    }

    /// After `k` pieces of the body these bytes come, and then the proper end.
    pub fn then_bytes(mut self, k: usize, bytes: impl Into<Bytes>) -> Self {
        self.keep(k);
        self.body.push(Step::Send(bytes.into()));
        self
    }

    /// After `k` pieces of the body these bytes come, and then the rest of it.
    pub fn with_bytes_after(mut self, k: usize, bytes: impl Into<Bytes>) -> Self {
        self.body.insert(k, Step::Send(bytes.into()));
        self
    }

    /// Another piece of the body.
    pub fn and_bytes(mut self, bytes: impl Into<Bytes>) -> Self {
        self.body.push(Step::Send(bytes.into()));
        self
    }

    /// The first `k` pieces of the body and then the proper end of the framing.
    pub fn only_content(mut self, k: usize) -> Self {
        self.keep(k);
        self
    }

    /// The peer is reset before it gets a byte.
    pub fn reset_before_head(mut self) -> Self {
        self.framing = Framing::Raw;
        self.body = vec![Step::Reset];
        self
    }

    /// The connection is closed before it gives a byte.
    pub fn closed_before_head(mut self) -> Self {
        self.framing = Framing::Raw;
        self.body = vec![Step::Fin];
        self
    }

    fn before_each(mut self, step: Step) -> Self {
        self.body = self.body.into_iter().flat_map(|s| [step.clone(), s]).collect();
        self
    }

    fn only(mut self, k: usize, end: Step) -> Self {
        if self.framing == Framing::Length {
            let whole: usize = self.length();
            self.headers.push(("content-length".into(), whole.to_string()));
        }
        self.keep(k);
        self.body.push(end);
        self
    }

    fn keep(&mut self, k: usize) {
        let mut sends = 0;
        self.body.retain(|step| {
            sends += usize::from(matches!(step, Step::Send(_) | Step::SendIfUsageAsked(_)));
            sends <= k
        });
    }

    pub(crate) fn length(&self) -> usize {
        self.body.iter().map(|s| if let Step::Send(b) = s { b.len() } else { 0 }).sum()
    }
}
