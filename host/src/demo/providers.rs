//! Simulated providers: small OpenAI-compatible servers on loopback, each with faults of its own.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pointsman_core::table::Tier;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::answer::Answer;

/// Largest request body accepted.
const MAX_BODY_BYTES: usize = 1 << 20;

/// A stream that is cut ends after so many events, about in its middle.
pub(super) const EVENTS_BEFORE_A_CUT: usize = 8;

/// Behaviour of one simulated provider.
#[derive(Clone, Copy, Debug)]
pub(super) struct Profile {
    /// Id of the backend that it is configured as.
    pub id: &'static str,
    /// Tier of that backend.
    pub tier: Tier,
    /// Requests it answers; `None`: all.
    pub quota: Option<Quota>,
    /// Times in which it refuses everything; `None`: never.
    pub storm: Option<Storm>,
    /// Every so many requests it breaks with a 5xx; 0: never.
    pub breaks_every: u64,
    /// Every so many streams it cuts one; 0: never.
    pub cuts_every: u64,
    /// Time to the first token.
    pub first_token: Duration,
    /// Time between two events of a stream.
    pub between_events: Duration,
    /// Description shown on the screen.
    pub manner: &'static str,
}

/// A rate limit as free keys have it: so many requests in a window, then 429 until it is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quota {
    /// Requests answered in a window.
    pub requests: u32,
    /// The window; it begins with its first request.
    pub per: Duration,
    /// A 429 has a Retry-After header.
    pub says_when: bool,
}

/// A time in which a provider refuses every request, and asks for a longer pause than it takes: until that is over, only the
/// emergency lane asks it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storm {
    /// Start of the first storm, counted from the provider's start.
    pub first: Duration,
    /// Length of a storm.
    pub lasts: Duration,
    /// From one's beginning to the next one's.
    pub every: Duration,
    /// The Retry-After of its 429s.
    pub retry_after: Duration,
}

impl Storm {
    fn is_on(&self, since_start: Duration) -> bool {
        let Some(since_first) = since_start.checked_sub(self.first) else { return false };
        since_first.as_micros() % self.every.as_micros().max(1) < self.lasts.as_micros()
    }
}

/// Counts of a provider's requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ProviderCounts {
    /// Number of requests that arrived.
    pub requests: u64,
    /// Answered in full, or begun to be.
    pub answered: u64,
    /// Number of 429 responses.
    pub rate_limited: u64,
    /// Number of 5xx responses.
    pub broken: u64,
    /// Number of streams cut.
    pub cut: u64,
}

/// Treatment of one request, decided before anything is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    TooMany { retry_after: Option<Duration> },
    Broken(StatusCode),
    Answered { cut: bool },
}

/// One running provider. Dropping it closes its listener.
pub(super) struct Provider {
    profile: Profile,
    addr: SocketAddr,
    desk: Arc<ProviderState>,
    listener: JoinHandle<()>,
}

impl Provider {
    /// Listens on a loopback port of the system's choice. The seed sets when errors come, not how often.
    pub(super) async fn start(profile: Profile, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let desk = Arc::new(ProviderState::new(profile, seed));
        let listener = tokio::spawn(listen(listener, desk.clone()));
        Ok(Self { profile, addr, desk, listener })
    }

    /// Returns the provider's latencies, limits and storms.
    pub(super) fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Returns the `base_url` for its backend.
    pub(super) fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Returns the counts so far.
    pub(super) fn seen(&self) -> ProviderCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { requests, answered, rate_limited, broken, cut } = &self.desk.counters;
        ProviderCounts {
            requests: count(requests),
            answered: count(answered),
            rate_limited: count(rate_limited),
            broken: count(broken),
            cut: count(cut),
        }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// State of a provider that decides on requests.
struct ProviderState {
    profile: Profile,
    seed: u64,
    started: Instant,
    window: Mutex<Window>,
    streams: AtomicU64,
    counters: Counters,
}

#[derive(Default)]
struct Window {
    began: Option<Instant>,
    used: u32,
}

#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    answered: AtomicU64,
    rate_limited: AtomicU64,
    broken: AtomicU64,
    cut: AtomicU64,
}

impl ProviderState {
    fn new(profile: Profile, seed: u64) -> Self {
        Self {
            profile,
            seed,
            started: crate::timer::now(),
            window: Mutex::default(),
            streams: AtomicU64::new(0),
            counters: Counters::default(),
        }
    }

    fn decide(&self, now: Instant, streaming: bool) -> Fate {
        let number = self.counters.requests.fetch_add(1, Ordering::Relaxed) + self.seed;
        let since_start = now.saturating_duration_since(self.started);
        let storm = self.profile.storm.filter(|storm| storm.is_on(since_start)).map(|storm| Some(storm.retry_after));
        if let Some(retry_after) = storm.or_else(|| self.over_quota(now)) {
            self.counters.rate_limited.fetch_add(1, Ordering::Relaxed);
            return Fate::TooMany { retry_after };
        }
        if due(number, self.profile.breaks_every) {
            self.counters.broken.fetch_add(1, Ordering::Relaxed);
            let odd = (number / self.profile.breaks_every) % 2 == 1;
            return Fate::Broken(if odd { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::SERVICE_UNAVAILABLE });
        }
        let cut = streaming && due(self.streams.fetch_add(1, Ordering::Relaxed) + self.seed, self.profile.cuts_every);
        let counter = if cut { &self.counters.cut } else { &self.counters.answered };
        counter.fetch_add(1, Ordering::Relaxed);
        Fate::Answered { cut }
    }

    /// Takes one request off the quota. When none is left: what a 429 says about when to come back.
    fn over_quota(&self, now: Instant) -> Option<Option<Duration>> {
        let quota = self.profile.quota?;
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let began = window.began.filter(|began| now < *began + quota.per).unwrap_or_else(|| {
            window.used = 0;
            now
        });
        window.began = Some(began);
        if window.used < quota.requests {
            window.used += 1;
            return None;
        }
        Some(quota.says_when.then(|| (began + quota.per).saturating_duration_since(now)))
    }
}

fn due(number: u64, every: u64) -> bool {
    every > 0 && number % every == every - 1
}

type Body = BoxBody<Bytes, io::Error>;

async fn listen(listener: TcpListener, desk: Arc<ProviderState>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        let desk = desk.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let desk = desk.clone();
                async move { Ok::<_, Infallible>(answer(&desk, request).await) }
            });
            // A broken connection is what some of these providers are for.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

async fn answer(desk: &Arc<ProviderState>, request: Request<Incoming>) -> Response<Body> {
    if request.uri().path().ends_with("/models") {
        return json_response(
            StatusCode::OK,
            &json!({"object": "list", "data": [{"id": super::MODEL, "object": "model"}]}),
        );
    }
    let Ok(body) = Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await else {
        return error(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "the request is too large");
    };
    let Ok(asked) = serde_json::from_slice::<serde_json::Value>(&body.to_bytes()) else {
        return error(StatusCode::BAD_REQUEST, "invalid_request_error", "the body is not JSON");
    };
    let streaming = asked["stream"] == true;
    match desk.decide(crate::timer::now(), streaming) {
        Fate::TooMany { retry_after } => {
            let mut response =
                error(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", "Rate limit reached. Please slow down.");
            if let Some(wait) = retry_after {
                let seconds = wait.as_millis().div_ceil(1_000);
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds as u64));
            }
            response
        }
        Fate::Broken(status) => error(status, "server_error", "The server had an error while processing your request."),
        Fate::Answered { cut } => {
            sleep(desk.profile.first_token).await;
            let answer = Answer::to(&asked);
            if streaming {
                stream(desk.profile.between_events, answer, cut)
            } else {
                json_response(StatusCode::OK, &answer.whole())
            }
        }
    }
}

/// Server-sent events, in the pace of the profile; a cut one ends with its connection.
fn stream(pace: Duration, answer: Answer, cut: bool) -> Response<Body> {
    let mut events = answer.events();
    if cut {
        events.truncate(EVENTS_BEFORE_A_CUT);
    }
    let state = (events.into_iter(), cut, true);
    let frames = futures_util::stream::unfold(state, move |(mut events, cut, first)| async move {
        if !first {
            sleep(pace).await;
        }
        match events.next() {
            Some(event) => Some((Ok(Frame::data(Bytes::from(event))), (events, cut, false))),
            None if cut => Some((Err(io::ErrorKind::ConnectionReset.into()), (events, false, false))),
            None => None,
        }
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

fn error(status: StatusCode, kind: &str, message: &str) -> Response<Body> {
    json_response(status, &json!({"error": {"message": message, "type": kind, "param": null, "code": null}}))
}

fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn fates(desk: &ProviderState, now: Instant, n: usize) -> Vec<Fate> {
        (0..n).map(|_| desk.decide(now, true)).collect()
    }

    const WHOLE: Fate = Fate::Answered { cut: false };

    #[test]
    fn a_quota_lasts_for_its_window_and_a_429_says_what_is_left_of_it() {
        let quota = Quota { requests: 2, per: Duration::from_secs(4), says_when: true };
        let desk = ProviderState::new(Profile { quota: Some(quota), ..STEADY }, 0);
        let start = crate::timer::now();
        let told = Fate::TooMany { retry_after: Some(Duration::from_secs(3)) };
        assert_eq!(fates(&desk, start, 2), [WHOLE, WHOLE]);
        assert_eq!(fates(&desk, start + Duration::from_secs(1), 2), [told, told]);
        assert_eq!(fates(&desk, start + Duration::from_secs(4), 1), [WHOLE]);
    }

    #[test]
    fn in_a_storm_every_request_is_refused_with_the_storms_retry_after() {
        let second = Duration::from_secs(1);
        let storm = Storm { first: 3 * second, lasts: second, every: 10 * second, retry_after: 6 * second };
        let desk = ProviderState::new(Profile { storm: Some(storm), ..STEADY }, 0);
        let at = |seconds: u32| desk.decide(desk.started + seconds * second, true);
        let refused = Fate::TooMany { retry_after: Some(6 * second) };
        assert_eq!([2, 3, 4, 12, 13, 14].map(at), [WHOLE, refused, WHOLE, WHOLE, refused, WHOLE]);
    }

    #[test]
    fn some_do_not_say_when() {
        let quota = Quota { requests: 0, per: Duration::from_secs(4), says_when: false };
        let desk = ProviderState::new(Profile { quota: Some(quota), ..STEADY }, 0);
        assert_eq!(fates(&desk, crate::timer::now(), 1), [Fate::TooMany { retry_after: None }]);
    }

    #[test]
    fn breaks_and_cuts_come_as_often_as_said_and_never_both() {
        let desk = ProviderState::new(Profile { breaks_every: 3, cuts_every: 2, ..STEADY }, 0);
        let fates = fates(&desk, crate::timer::now(), 6);
        assert_eq!(fates.iter().filter(|f| matches!(f, Fate::Broken(_))).count(), 2);
        assert_eq!(fates.iter().filter(|f| **f == Fate::Answered { cut: true }).count(), 2);
        assert_eq!(fates.iter().filter(|f| **f == WHOLE).count(), 2);
    }

    #[test]
    fn what_is_not_a_stream_is_not_cut() {
        let desk = ProviderState::new(Profile { cuts_every: 1, ..STEADY }, 0);
        assert_eq!(desk.decide(crate::timer::now(), false), WHOLE);
    }
}
