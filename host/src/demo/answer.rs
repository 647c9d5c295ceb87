//! The answers of simulated providers. The same question has the same answer everywhere, as it would at temperature 0, so
//! that a stream broken at one provider can be continued by another.

use serde_json::{Value, json};

/// Number of words in an event.
const WORDS_PER_EVENT: usize = 6;

const WORDS: [&str; 24] = [
    "the", "signal", "stands", "at", "danger", "and", "train", "waits", "while", "points", "are", "set", "for", "main",
    "line", "then", "it", "runs", "on", "without", "a", "detour", "or", "delay",
];

/// The answer to one chat request.
pub(super) struct Answer {
    model: String,
    id: String,
    words: Vec<&'static str>,
    prompt_tokens: u64,
    usage_wanted: bool,
}

impl Answer {
    /// Builds the answer to this request body.
    pub(super) fn to(asked: &Value) -> Self {
        let prompt = asked["messages"].to_string();
        let hash =
            prompt.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        let length = 60 + (hash % 120) as usize;
        let words =
            (0..length).map(|i| WORDS[(hash.rotate_left(i as u32 * 7) % WORDS.len() as u64) as usize]).collect();
        Self {
            model: asked["model"].as_str().unwrap_or("unknown").to_owned(),
            id: format!("chatcmpl-{hash:016x}"),
            words,
            prompt_tokens: prompt.len() as u64 / 4,
            usage_wanted: asked["stream_options"]["include_usage"] == true,
        }
    }

    /// Returns the answer as one JSON body.
    pub(super) fn whole(&self) -> Value {
        json!({
            "id": self.id, "object": "chat.completion", "created": 0, "model": self.model,
            "choices": [{
                "index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": self.words.join(" ")},
            }],
            "usage": self.usage(),
        })
    }

    /// As server-sent events, `[DONE]` included.
    pub(super) fn events(&self) -> Vec<String> {
        let mut events: Vec<String> = Vec::new();
        for (index, words) in self.words.chunks(WORDS_PER_EVENT).enumerate() {
            let text = format!("{}{}", if index == 0 { "" } else { " " }, words.join(" "));
            let delta =
                if index == 0 { json!({"role": "assistant", "content": text}) } else { json!({"content": text}) };
            events.push(self.event(&json!([{"index": 0, "delta": delta, "finish_reason": null}]), &Value::Null));
        }
        events.push(self.event(&json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]), &Value::Null));
        if self.usage_wanted {
            events.push(self.event(&json!([]), &self.usage()));
        }
        events.push("data: [DONE]\n\n".to_owned());
        events
    }

    fn event(&self, choices: &Value, usage: &Value) -> String {
        let mut chunk = json!({
            "id": self.id, "object": "chat.completion.chunk", "created": 0, "model": self.model, "choices": choices,
        });
        if self.usage_wanted {
            chunk["usage"] = usage.clone();
        }
        format!("data: {chunk}\n\n")
    }

    fn usage(&self) -> Value {
        let completion = self.words.len() as u64 * 4 / 3;
        json!({
            "prompt_tokens": self.prompt_tokens, "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_question_has_the_same_answer_streamed_or_not() {
        let asked = json!({"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream_options": {"include_usage": true}});
        let answer = Answer::to(&asked);
        let text: String = answer
            .events()
            .iter()
            .filter_map(|event| serde_json::from_str::<Value>(event.strip_prefix("data: ")?).ok())
            .filter_map(|chunk| Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned()))
            .collect();
        assert_eq!(Value::from(text), answer.whole()["choices"][0]["message"]["content"]);
        assert_eq!(answer.events().last().unwrap(), "data: [DONE]\n\n");
    }

    #[test]
    fn usage_is_streamed_only_when_asked_for() {
        let with =
            |on: bool| Answer::to(&json!({"messages": [], "stream_options": {"include_usage": on}})).events().concat();
        assert!(with(true).contains("completion_tokens") && !with(false).contains("usage"));
    }
}
