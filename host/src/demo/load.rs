//! The demo's load: waves of chat requests, some streamed, and the result of each.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use pointsman_core::random::SplitMix64;
use pointsman_core::table::Lane;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;

/// Requests under way at a time; above it the load holds back.
const MAX_IN_FLIGHT: usize = 256;

/// A request that takes longer is given up.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Arrival times of requests: alternating surges and calms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waves {
    /// Requests a second while it surges.
    pub surge_per_second: u32,
    /// Length of a surge.
    pub surge: Duration,
    /// Requests a second in between.
    pub calm_per_second: u32,
    /// Length of a calm.
    pub calm: Duration,
}

impl Waves {
    /// The gap before the next request, `since` the start.
    fn gap(&self, since: Duration) -> Duration {
        let period = (self.surge + self.calm).as_micros().max(1);
        let rate = if since.as_micros() % period < self.surge.as_micros() {
            self.surge_per_second
        } else {
            self.calm_per_second
        };
        Duration::from_secs(1) / rate.max(1)
    }
}

/// Condition that ends the load.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// This time has passed.
    Time(Duration),
    /// After so many requests, as fast as they go.
    #[cfg(test)]
    Count(u64),
    /// Somebody stops it.
    Stopped,
}

/// End of an answer, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The answer came whole.
    Whole,
    /// Refused with this error status.
    Refused(u16),
    /// After it had begun: cut off, or an error event in the stream.
    Broken,
    /// No response was received.
    Unreachable,
}

/// One request, answered or not.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// A stream was requested.
    pub streamed: bool,
    /// End of the answer.
    pub ended: Ended,
    /// Value of `x-pointsman-lane`.
    pub lane: Option<Lane>,
    /// Value of `x-pointsman-backend`.
    pub backend: Option<String>,
    /// Value of `x-pointsman-attempts`.
    pub attempts: u32,
    /// Value of `x-pointsman-waited-ms`.
    pub waited: Duration,
    /// Prompt tokens of the usage.
    pub input_tokens: u64,
    /// Answer tokens of the usage.
    pub output_tokens: u64,
}

/// The HTTP client of the load.
pub(super) fn client() -> reqwest::Result<reqwest::Client> {
    // reqwest is built without a provider of its own; plain HTTP needs none, but it wants one to be there.
    let _already_there = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build()
}

/// Sends requests to `base_url` until it is over; every one of them ends up in `samples`.
pub(super) async fn run(
    client: reqwest::Client,
    base_url: String,
    waves: Waves,
    until: Until,
    seed: u64,
    samples: mpsc::Sender<Sample>,
) {
    let started = crate::timer::now();
    let slots = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    let url: Arc<str> = format!("{base_url}/chat/completions").into();
    for number in 0_u64.. {
        match until {
            Until::Time(limit) if started.elapsed() >= limit => break,
            #[cfg(test)]
            Until::Count(limit) if number >= limit => break,
            #[cfg(test)]
            Until::Count(_) => {}
            Until::Time(_) | Until::Stopped => sleep(waves.gap(started.elapsed())).await,
        }
        let Ok(slot) = slots.clone().acquire_owned().await else {
            break;
        };
        let (client, url, samples) = (client.clone(), url.clone(), samples.clone());
        tokio::spawn(async move {
            let sample = ask(&client, &url, SplitMix64(seed.wrapping_add(number)).draw()).await;
            drop(slot);
            // Nobody counts any more: the demo is over.
            let _ = samples.send(sample).await;
        });
    }
}

/// One request: two of three are streamed; prompts differ in length.
async fn ask(client: &reqwest::Client, url: &str, dice: u64) -> Sample {
    let streamed = dice % 3 < 2;
    let prompt = "Which line is free? ".repeat(40 + (dice >> 8) as usize % 240);
    let mut body = json!({"model": super::MODEL, "stream": streamed, "messages": [{"role": "user", "content": format!("{prompt}{dice:x}")}]});
    if streamed {
        body["stream_options"] = json!({"include_usage": true});
    }
    let mut sample = Sample::nothing(streamed);
    if let Ok(response) = client.post(url).json(&body).send().await {
        sample.read_headers(response.headers());
        let status = response.status().as_u16();
        sample.ended = if response.status().is_success() { Ended::Broken } else { Ended::Refused(status) };
        if let (Ended::Broken, Ok(body)) = (sample.ended, response.text().await) {
            sample.read_body(&body);
        }
    }
    sample
}

/// The comment by which the proxy says who goes on with a stream that broke.
const RESUMED_BY: &str = ": pointsman resumed by ";

impl Sample {
    fn nothing(streamed: bool) -> Self {
        Self {
            streamed,
            ended: Ended::Unreachable,
            lane: None,
            backend: None,
            attempts: 0,
            waited: Duration::ZERO,
            input_tokens: 0,
            output_tokens: 0,
        }
    }

    fn read_headers(&mut self, headers: &HeaderMap) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let number = |name: &str| text(name).and_then(|value| value.parse::<u32>().ok()).unwrap_or(0);
        self.lane = text("x-pointsman-lane").and_then(Lane::parse);
        self.backend = text("x-pointsman-backend").map(str::to_owned);
        self.attempts = number("x-pointsman-attempts");
        self.waited = Duration::from_millis(number("x-pointsman-waited-ms").into());
    }

    /// Whole is an answer with its usage; a stream besides must end with `[DONE]` and hold no error event.
    fn read_body(&mut self, body: &str) {
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
        if !self.streamed {
            self.read_usage(&parse(body)["usage"]);
            return;
        }
        for backend in body.lines().filter_map(|line| line.strip_prefix(RESUMED_BY)) {
            self.backend = Some(backend.to_owned());
            self.attempts += 1;
        }
        let mut done = false;
        for data in body.lines().filter_map(|line| line.strip_prefix("data:")) {
            let chunk = parse(data.trim());
            done |= data.trim() == "[DONE]";
            if !chunk["error"].is_null() {
                self.ended = Ended::Broken;
                return;
            }
            if done || chunk["usage"].is_object() {
                self.read_usage(&chunk["usage"]);
            }
        }
        if !done {
            self.ended = Ended::Broken;
        }
    }

    fn read_usage(&mut self, usage: &Value) {
        self.ended = Ended::Whole;
        if let (Some(input), Some(output)) = (usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64()) {
            (self.input_tokens, self.output_tokens) = (input, output);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::providers::{Profile, Provider, ProviderCounts, Quota};
    use pointsman_core::table::Tier;

    const STEADY: Profile = Profile {
        id: "steady",
        tier: Tier::Primary,
        quota: None,
        storm: None,
        breaks_every: 0,
        cuts_every: 0,
        first_token: Duration::ZERO,
        between_events: Duration::ZERO,
        manner: "",
    };

    const WAVES: Waves =
        Waves { surge_per_second: 30, surge: Duration::from_secs(2), calm_per_second: 5, calm: Duration::from_secs(6) };

    /// 60 requests straight to a provider, without a proxy between.
    async fn against(profile: Profile) -> (Vec<Sample>, ProviderCounts) {
        let provider = Provider::start(profile, 1).await.unwrap();
        let (sender, mut receiver) = mpsc::channel(16);
        tokio::spawn(run(client().unwrap(), provider.base_url(), WAVES, Until::Count(60), 7, sender));
        let mut samples = Vec::new();
        while let Some(sample) = receiver.recv().await {
            samples.push(sample);
        }
        (samples, provider.seen())
    }

    fn count(samples: &[Sample], ended: Ended) -> u64 {
        samples.iter().filter(|s| s.ended == ended).count() as u64
    }

    #[tokio::test]
    async fn a_steady_provider_answers_everything_with_usage() {
        let (samples, seen) = against(STEADY).await;
        assert_eq!((samples.len(), count(&samples, Ended::Whole)), (60, 60));
        assert_eq!((seen.requests, seen.answered), (60, 60));
        assert!(samples.iter().all(|s| s.input_tokens > 100 && s.output_tokens > 50));
        let streamed = samples.iter().filter(|s| s.streamed).count();
        assert!((20..=55).contains(&streamed), "{streamed}");
    }

    #[tokio::test]
    async fn what_the_client_counts_is_what_the_provider_did() {
        let quota = Quota { requests: 40, per: Duration::from_secs(3_600), says_when: true };
        let (samples, seen) = against(Profile { quota: Some(quota), breaks_every: 6, cuts_every: 5, ..STEADY }).await;
        assert_eq!(seen.requests, 60);
        assert_eq!((seen.rate_limited, count(&samples, Ended::Refused(429))), (20, 20));
        assert_eq!(seen.broken, count(&samples, Ended::Refused(500)) + count(&samples, Ended::Refused(503)));
        assert!(seen.broken > 0 && seen.cut > 0);
        assert_eq!(seen.cut, count(&samples, Ended::Broken));
        assert_eq!(seen.answered, count(&samples, Ended::Whole));
    }

    #[tokio::test]
    async fn an_unreachable_provider_is_counted_as_such() {
        let sample = ask(&client().unwrap(), "http://127.0.0.1:1/v1/chat/completions", 5).await;
        assert_eq!(sample.ended, Ended::Unreachable);
    }

    #[test]
    fn headers_say_how_it_went() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("lane", "emergency"), ("backend", "b"), ("attempts", "3"), ("waited-ms", "250")] {
            headers.insert(http::HeaderName::try_from(format!("x-pointsman-{name}")).unwrap(), value.parse().unwrap());
        }
        let mut sample = Sample::nothing(true);
        sample.read_headers(&headers);
        assert_eq!((sample.lane, sample.backend.as_deref(), sample.attempts), (Some(Lane::Emergency), Some("b"), 3));
        assert_eq!(sample.waited, Duration::from_millis(250));
    }

    #[test]
    fn an_error_event_or_a_missing_end_is_not_an_answer() {
        for (body, ended) in [
            ("data: {\"choices\":[]}\n\ndata: [DONE]\n\n", Ended::Whole),
            ("data: {\"choices\":[]}\n\n", Ended::Broken),
            ("data: {\"error\":{\"message\":\"cut\"}}\n\ndata: [DONE]\n\n", Ended::Broken),
        ] {
            let mut sample = Sample::nothing(true);
            sample.read_body(body);
            assert_eq!(sample.ended, ended, "{body}");
        }
    }

    #[test]
    fn waves_surge_and_calm() {
        assert_eq!(WAVES.gap(Duration::from_secs(1)), Duration::from_secs(1) / 30);
        assert_eq!(WAVES.gap(Duration::from_secs(3)), Duration::from_secs(1) / 5);
        assert_eq!(WAVES.gap(Duration::from_secs(9)), Duration::from_secs(1) / 30);
    }
}
