//! Failures inside a stream: the client gets the whole text, or hears in time that it does not.

use std::time::Duration;

use pointsman_tests::{Event, Reply, tokens};

use crate::{Pair, primary_that_gives, timed, whole_text};

/// A stream's text and events, and how long it took to its end.
struct Streamed {
    text: String,
    events: Vec<Event>,
    took: Duration,
    in_order: bool,
}

async fn stream(pair: &Pair) -> Streamed {
    let ((events, in_order), took) = timed(async {
        let mut stream = pair.proxy.chat_stream().stream().await;
        assert_eq!(stream.status, 200);
        let events = stream.rest().await;
        (events, stream.ended_in_order())
    })
    .await;
    Streamed { text: events.iter().map(Event::content).collect(), events, took, in_order }
}

impl Streamed {
    fn is_whole(&self) {
        assert_eq!(self.text, whole_text());
        assert!(self.in_order);
        let finishes = self.events.iter().filter(|e| e.json()["choices"][0]["finish_reason"] == "stop").count();
        let dones = self.events.iter().filter(|e| e.data() == "[DONE]").count();
        assert_eq!((finishes, dones), (1, 1), "{:?}", self.events.last());
    }
}

/// What the primary gives the first time; later it is well.
async fn once(reply: fn() -> Reply) -> Pair {
    primary_that_gives(move |i| if i == 0 { reply() } else { tokens(60) }).await
}

#[tokio::test]
async fn a_head_at_once_and_a_first_token_after_20_s_is_answered_within_15_s() {
    let p = primary_that_gives(|_| tokens(60).pace(Duration::from_secs(20))).await;
    let streamed = stream(&p).await;
    streamed.is_whole();
    assert!(streamed.took < Duration::from_secs(15), "{:?}", streamed.took);
    assert_eq!(p.tries(), (1, 1));
}

#[tokio::test]
async fn a_malformed_event_costs_that_event_only() {
    let p = once(|| tokens(60).with_bytes_after(40, "data: {\"choices\": [{]}\n\n")).await;
    let streamed = stream(&p).await;
    streamed.is_whole();
    assert_eq!(p.tries(), (1, 0));
}
