//! The open connections of a listener: at most so many, of which those without a request give way to new ones.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use pointsman_core::crowding::{self, Activity, Occupant};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Interval of looking for connections that give way, where none did and a new one waits.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The open connections of one listener.
pub(super) struct Connections {
    permits: Arc<Semaphore>,
    open: Mutex<Open>,
    crowd: Arc<Crowd>,
}

#[derive(Default)]
struct Open {
    connections: HashMap<u64, Arc<Connection>>,
    next_id: u64,
}

/// State that the connections of a listener share.
struct Crowd {
    began: Instant,
    /// A new connection waits for a place.
    is_waiting: AtomicBool,
    /// A connection has become idle meanwhile.
    idle: Notify,
}

impl Crowd {
    fn micros(&self) -> u64 {
        u64::try_from(crate::timer::now().duration_since(self.began).as_micros()).unwrap_or(u64::MAX)
    }
}

/// Activity of one connection. Times are microseconds since the listener began.
pub(super) struct Connection {
    crowd: Arc<Crowd>,
    /// Requests from their head to the last byte of the answer.
    in_hand: AtomicU32,
    has_served: AtomicBool,
    idle_since: AtomicU64,
    /// Requests in hand whose body is still to come.
    receiving: AtomicU32,
    receiving_since: AtomicU64,
    received_bytes: AtomicU64,
    /// Requests in hand whose answer is complete here, and of which the peer takes nothing.
    untaken: AtomicU32,
    untaken_since: AtomicU64,
    give_way: Notify,
}

/// The place of an open connection; dropped, another may have it.
pub(super) struct ConnectionPlace {
    pub(super) connection: Arc<Connection>,
    connections: Arc<Connections>,
    id: u64,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    /// At most `max` connections.
    pub(super) fn new(max: usize) -> Arc<Self> {
        let crowd = Crowd { began: crate::timer::now(), is_waiting: AtomicBool::new(false), idle: Notify::new() };
        let permits = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { permits, open: Mutex::default(), crowd: Arc::new(crowd) })
    }

    /// A place for a connection that was just accepted. Where none is left, an idle one gives way to it, or it waits.
    pub(super) async fn place(self: &Arc<Self>) -> ConnectionPlace {
        let permit = match self.permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.wait_for_permit().await,
        };
        let connection = Arc::new(Connection::new(self.crowd.clone()));
        let mut open = self.open();
        let id = open.next_id;
        open.next_id += 1;
        open.connections.insert(id, connection.clone());
        drop(open);
        ConnectionPlace { connection, connections: self.clone(), id, _permit: permit }
    }

    async fn wait_for_permit(&self) -> OwnedSemaphorePermit {
        self.crowd.is_waiting.store(true, Ordering::Relaxed);
        let permit = loop {
            self.make_room();
            tokio::select! {
                permit = self.permits.clone().acquire_owned() => break permit,
                () = self.crowd.idle.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        };
        self.crowd.is_waiting.store(false, Ordering::Relaxed);
        permit.expect("the semaphore is never closed")
    }

    /// Returns true where a new connection finds no place.
    pub(super) fn is_full(&self) -> bool {
        self.permits.available_permits() == 0
    }

    /// Ends connections that are not in use, as [`crowding`] chooses them.
    pub(super) fn make_room(&self) {
        let now = self.crowd.micros();
        let open = self.open();
        let occupants: Vec<Occupant> = open
            .connections
            .iter()
            .map(|(&id, connection)| Occupant { id, activity: connection.activity(now) })
            .collect();
        for id in crowding::give_way(&occupants) {
            if let Some(connection) = open.connections.get(&id) {
                connection.give_way.notify_one();
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.connections.open().connections.remove(&self.id);
    }
}

impl Connection {
    fn new(crowd: Arc<Crowd>) -> Self {
        let idle_since = AtomicU64::new(crowd.micros());
        Self {
            crowd,
            in_hand: AtomicU32::new(0),
            has_served: AtomicBool::new(false),
            idle_since,
            receiving: AtomicU32::new(0),
            receiving_since: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            untaken: AtomicU32::new(0),
            untaken_since: AtomicU64::new(0),
            give_way: Notify::new(),
        }
    }

    /// A request has arrived; it is in hand until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> InHand {
        self.in_hand.fetch_add(1, Ordering::Relaxed);
        self.has_served.store(true, Ordering::Relaxed);
        InHand(self.clone())
    }

    /// Waits until the connection has been without a request for `keep_alive`; for its first request it has `first`, if
    /// that is longer.
    pub(super) async fn idle_for(&self, keep_alive: Duration, first: Duration) {
        loop {
            let limit = if self.has_served.load(Ordering::Relaxed) { keep_alive } else { first.max(keep_alive) };
            let idle = match self.in_hand.load(Ordering::Relaxed) {
                0 => Duration::from_micros(self.crowd.micros().saturating_sub(self.idle_since.load(Ordering::Relaxed))),
                // It may become idle at once; that is seen when the time since then is not over yet.
                1.. => Duration::ZERO,
            };
            if idle >= limit {
                return;
            }
            tokio::time::sleep(limit - idle).await;
        }
    }

    /// Waits until it is to give way to another; says whether a request of it is to be answered first.
    pub(super) async fn told_to_give_way(&self) -> bool {
        self.give_way.notified().await;
        self.activity(self.crowd.micros()).is_to_finish()
    }

    fn activity(&self, now: u64) -> Activity {
        let since = |then: &AtomicU64| Duration::from_micros(now.saturating_sub(then.load(Ordering::Relaxed)));
        let [in_hand, receiving, untaken] =
            [&self.in_hand, &self.receiving, &self.untaken].map(|count| count.load(Ordering::Relaxed));
        match in_hand {
            0 => Activity::Idle(since(&self.idle_since)),
            1.. if untaken >= in_hand => Activity::Untaken(since(&self.untaken_since)),
            1.. if receiving.saturating_add(untaken) >= in_hand => Activity::Receiving {
                since: since(&self.receiving_since),
                bytes: self.received_bytes.load(Ordering::Relaxed),
            },
            1.. => Activity::Serving,
        }
    }
}

/// Mark of a request in hand, which keeps its connection from giving way.
pub(super) struct InHand(Arc<Connection>);

impl InHand {
    /// The body of its answer, at whose end it is in hand no more.
    pub(super) fn until_end_of<B>(self, body: B) -> AnswerBody<B> {
        AnswerBody { body, untaken: None, in_hand: self }
    }

    /// The body of the request, whose coming is watched.
    pub(super) fn receive(&self, body: Incoming) -> RequestBody {
        let awaited = (!body.is_end_stream()).then(|| {
            let connection = self.0.clone();
            if connection.receiving.fetch_add(1, Ordering::Relaxed) == 0 {
                connection.receiving_since.store(connection.crowd.micros(), Ordering::Relaxed);
                connection.received_bytes.store(0, Ordering::Relaxed);
            }
            Awaited(connection)
        });
        RequestBody { body, awaited }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        let Self(connection) = self;
        connection.idle_since.store(connection.crowd.micros(), Ordering::Relaxed);
        let is_idle = connection.in_hand.fetch_sub(1, Ordering::Relaxed) == 1;
        if is_idle && connection.crowd.is_waiting.load(Ordering::Relaxed) {
            connection.crowd.idle.notify_one();
        }
    }
}

/// A request body that is not whole yet.
struct Awaited(Arc<Connection>);

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.receiving.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer that is complete here, and of which the peer takes nothing.
struct Untaken(Arc<Connection>);

impl Untaken {
    fn new(connection: &Arc<Connection>) -> Self {
        if connection.untaken.fetch_add(1, Ordering::Relaxed) == 0 {
            connection.untaken_since.store(connection.crowd.micros(), Ordering::Relaxed);
        }
        Self(connection.clone())
    }
}

impl Drop for Untaken {
    fn drop(&mut self) {
        self.0.untaken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of a request, as it comes.
pub(super) struct RequestBody {
    body: Incoming,
    awaited: Option<Awaited>,
}

impl RequestBody {
    /// Lets what still comes of it count no more: its request is answered.
    pub(super) fn is_not_awaited(&mut self) {
        self.awaited = None;
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let (Poll::Ready(frame), Some(Awaited(connection))) = (&polled, &self.awaited) {
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref);
            connection.received_bytes.fetch_add(data.map_or(0, |data| data.len() as u64), Ordering::Relaxed);
            if frame.is_none() || self.body.is_end_stream() {
                self.awaited = None;
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer, at whose end its request is in hand no more.
pub(super) struct AnswerBody<B> {
    body: B,
    /// Set while its last piece waits for the peer: hyper drops a body whose last piece is sent.
    untaken: Option<Untaken>,
    in_hand: InHand,
}

impl<B: Body + Unpin> Body for AnswerBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.untaken = None;
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(Some(Ok(_)))) && self.body.is_end_stream() {
            self.untaken = Some(Untaken::new(&self.in_hand.0));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_idle_give_way_and_a_request_in_hand_does_not() {
        let connections = Connections::new(2);
        let newcomer = || {
            let connections = connections.clone();
            tokio::spawn(async move { connections.place().await })
        };
        let (busy, idle) = (connections.place().await, connections.place().await);
        assert!(connections.is_full());
        let request = busy.connection.begin();
        let third = newcomer();
        assert!(!idle.connection.told_to_give_way().await, "it has nothing to finish");
        drop(idle);
        let third = third.await.unwrap();
        let in_hand = third.connection.begin();
        let fourth = newcomer();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!fourth.is_finished(), "both are in use");
        drop(request);
        assert!(!busy.connection.told_to_give_way().await);
        drop(busy);
        fourth.await.unwrap();
        drop(in_hand);
    }

    #[tokio::test]
    async fn an_answer_is_untaken_from_its_last_piece_to_its_end() {
        let connections = Connections::new(1);
        let place = connections.place().await;
        let connection = &place.connection;
        let later = || connection.crowd.micros() + 5_000_000;
        let is_untaken = || matches!(connection.activity(later()), Activity::Untaken(_));
        let whole = http_body_util::Full::new(Bytes::from_static(b"whole"));
        let mut answer = connection.begin().until_end_of(whole);
        assert!(!is_untaken(), "nobody has asked for it yet");
        http_body_util::BodyExt::frame(&mut answer).await.unwrap().unwrap();
        assert!(is_untaken());
        let another = connection.begin();
        assert_eq!(connection.activity(later()), Activity::Serving, "one of two is still to be answered");
        drop(another);
        assert!(is_untaken());
        drop(answer);
        assert!(matches!(connection.activity(later()), Activity::Idle(_)));
    }

    #[tokio::test]
    async fn the_idle_time_begins_with_the_end_of_the_last_request() {
        const KEEP_ALIVE: Duration = Duration::from_millis(50);
        let place = Connections::new(1).place().await;
        let idle = place.connection.idle_for(KEEP_ALIVE, Duration::from_secs(30));
        tokio::pin!(idle);
        let request = place.connection.begin();
        assert!(tokio::time::timeout(KEEP_ALIVE * 3, &mut idle).await.is_err());
        let ended = crate::timer::now();
        drop(request);
        idle.await;
        assert!(ended.elapsed() >= KEEP_ALIVE);
    }
}
