//! A request's body, read whole and within the memory that there is for it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use pointsman_core::contract::Operation;
use pointsman_core::dialect::translate::Translation;
use pointsman_core::memory_budget::NoRoom;

use super::connections::RequestBody;
use crate::proxy::{Grant, Snapshot};

/// Time for a client to send the next piece of its body.
pub(super) const BODY_IDLE: Duration = Duration::from_secs(30);

/// Time for which the rest of a refused body is read.
const DISCARD_LIMIT: Duration = Duration::from_secs(10);

/// Bytes of a refused body that are read all the same.
const MAX_DISCARDED_BYTES: u64 = 256 << 20;

/// Bytes of a body that are read before its client's limits are looked at: they cost less than to refuse without a word of
/// what was asked for.
const SMALL_BODY_BYTES: u64 = 64 << 10;

/// The least that is added at a time to the memory of a body whose length is not announced, bytes.
const MIN_GROWTH_BYTES: u64 = 1 << 20;

/// Memory of an exchange beside its head and body, bytes.
const EXCHANGE_BYTES: u64 = 16 << 10;

/// Copies of a body that an exchange may hold: the client's, and the one that is sent with another model's name in it.
const COPIES: u64 = 2;

/// Further ones where it may have to be translated: read, turned, written.
const COPIES_OF_TRANSLATION: u64 = 3;

/// The reason why a request body could not be read.
pub(super) enum BodyProblem {
    TooLarge,
    NoRoom(NoRoom),
    Slow,
    Broken(String),
}

/// Memory that a request takes, by the length of its body.
#[derive(Clone, Copy)]
pub(super) struct Footprint {
    head: u64,
    copies: u64,
}

impl Footprint {
    /// The footprint of a request with this head; a body of this operation may have to be translated.
    pub(super) fn of(headers: &HeaderMap, operation: Operation, snapshot: &Snapshot) -> Self {
        let head: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        let backends = &snapshot.view.table.backends;
        let is_translated = backends.iter().any(|backend| Translation::of(operation, backend.dialect).is_some());
        let copies = if is_translated { COPIES + COPIES_OF_TRANSLATION } else { COPIES };
        Self { head: head as u64, copies }
    }

    /// Bytes with a body of this length.
    pub(super) fn with_body(self, length: u64) -> u64 {
        EXCHANGE_BYTES.saturating_add(self.head.saturating_mul(2)).saturating_add(self.copies.saturating_mul(length))
    }
}

/// Returns true if the body is announced as so small that it is read before its client's limits are looked at.
pub(super) fn is_small(body: &RequestBody) -> bool {
    body.size_hint().upper().is_some_and(|length| length <= SMALL_BODY_BYTES)
}

/// The length that memory is taken for before the body comes: the announced one, or that of a small body.
pub(super) fn expected_bytes(body: &RequestBody) -> u64 {
    body.size_hint().exact().unwrap_or(SMALL_BODY_BYTES)
}

/// The whole body: it is needed whole to be sent again after a failed attempt. What was not announced is counted as it comes.
pub(super) async fn read(
    mut body: RequestBody,
    limit: u64,
    footprint: Footprint,
    memory: &mut Grant,
) -> Result<Bytes, BodyProblem> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if body.size_hint().lower() > limit {
        discard(body);
        return Err(BodyProblem::TooLarge);
    }
    let is_announced = body.size_hint().exact().is_some();
    let mut room = expected_bytes(&body);
    let mut received: u64 = 0;
    let mut parts = Parts::default();
    loop {
        let frame = tokio::time::timeout(BODY_IDLE, body.frame()).await.map_err(|_| BodyProblem::Slow)?;
        let data = match frame {
            None => break,
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) => return Err(BodyProblem::Broken(error.to_string())),
        };
        received = received.saturating_add(data.len() as u64);
        if received > limit {
            discard(body);
            return Err(BodyProblem::TooLarge);
        }
        if received > room {
            match grow(received, limit, footprint, memory) {
                Ok(grown) => room = grown,
                Err(no_room) => {
                    discard(body);
                    return Err(BodyProblem::NoRoom(no_room));
                }
            }
        }
        parts.push(data, if is_announced { room.saturating_sub(received) } else { 0 });
    }
    if room > received {
        // To hold less is always possible.
        let _ = memory.resize(footprint.with_body(received));
    }
    Ok(parts.joined())
}

/// The length that a body of `length` bytes may have when it is decoded, for which memory is taken: the limit, or the largest
/// part of it for which there is room. Without a coding it stays as long as it is.
pub(super) fn decoded_limit(
    headers: &HeaderMap,
    length: usize,
    limit: u64,
    footprint: Footprint,
    memory: &mut Grant,
) -> u64 {
    let length = length as u64;
    if !headers.contains_key(CONTENT_ENCODING) || length == 0 {
        return limit;
    }
    let halves = std::iter::successors(Some(limit), |limit| Some(limit / 2)).take_while(|&limit| limit > length);
    // A buffer that grows is there twice for a moment.
    let decoding = |limit: u64| footprint.with_body(length.saturating_add(limit).saturating_add(limit / 2));
    let mut fits = halves.filter(|limit| memory.resize(decoding(*limit)).is_ok());
    fits.next().unwrap_or(length)
}

/// Takes memory for as much again as has come, or at least for a little more. Returns the length that it is enough for.
fn grow(received: u64, limit: u64, footprint: Footprint, memory: &mut Grant) -> Result<u64, NoRoom> {
    let [ample, least] = [received, MIN_GROWTH_BYTES].map(|more| received.saturating_add(more).min(limit));
    match memory.resize(footprint.with_body(ample)) {
        Ok(()) => Ok(ample),
        Err(_) => memory.resize(footprint.with_body(least.min(ample))).map(|()| least.min(ample)),
    }
}

/// Pieces of a body: the first as it came, further ones in buffers of doubling size, so that nothing grows by copying.
#[derive(Default)]
struct Parts {
    full: Vec<Bytes>,
    filling: BytesMut,
}

impl Parts {
    /// The first and the largest buffer for pieces whose end is not announced, bytes.
    const BUFFER: (usize, usize) = (8 << 10, 1 << 20);

    /// Adds a piece; so many bytes are announced behind it.
    fn push(&mut self, data: Bytes, announced: u64) {
        if self.full.is_empty() && self.filling.is_empty() && announced == 0 {
            self.full.push(data);
            return;
        }
        if self.filling.is_empty() && announced > 0 {
            self.filling.reserve(data.len().saturating_add(usize::try_from(announced).unwrap_or(0)));
        } else if self.filling.capacity() - self.filling.len() < data.len() {
            let next = (self.filling.len() * 2).clamp(Self::BUFFER.0, Self::BUFFER.1).max(data.len());
            let full = std::mem::replace(&mut self.filling, BytesMut::with_capacity(next));
            self.full.push(full.freeze());
        }
        self.filling.extend_from_slice(&data);
    }

    fn joined(mut self) -> Bytes {
        let filled = self.filling.freeze();
        if self.full.iter().all(Bytes::is_empty) {
            return filled;
        }
        self.full.push(filled);
        self.full.retain(|part| !part.is_empty());
        if let [only] = &mut self.full[..] {
            return std::mem::take(only);
        }
        let mut whole = BytesMut::with_capacity(self.full.iter().map(Bytes::len).sum());
        // Each piece goes as soon as it is copied.
        self.full.into_iter().for_each(|part| whole.extend_from_slice(&part));
        whole.freeze()
    }
}

/// Reads the rest of a refused body for a while, and keeps nothing: many a client reads no answer before it has sent all, and
/// takes a stream that is reset, or a connection that is closed meanwhile, for a failure of the network.
pub(super) fn discard(mut body: RequestBody) {
    body.is_not_awaited();
    if body.is_end_stream() {
        return;
    }
    tokio::spawn(tokio::time::timeout(DISCARD_LIMIT, async move {
        let mut left = MAX_DISCARDED_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
            if left == 0 {
                break;
            }
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_it_comes_a_body_is_the_same() {
        let body: Bytes = (0..300_000u64).map(|i| (i * i % 251) as u8).collect::<Vec<_>>().into();
        for size in [1, 7, 8_192, 100_000, 300_000] {
            for is_announced in [true, false] {
                let mut parts = Parts::default();
                let mut sent = 0;
                for piece in body.chunks(size) {
                    sent += piece.len();
                    let announced = if is_announced { (body.len() - sent) as u64 } else { 0 };
                    parts.push(body.slice_ref(piece), announced);
                }
                let buffered: usize = parts.full.iter().map(Bytes::len).sum::<usize>() + parts.filling.capacity();
                assert!(buffered <= 2 * body.len() + Parts::BUFFER.1, "{buffered} in pieces of {size}");
                assert_eq!(parts.joined(), body, "in pieces of {size}");
            }
        }
        assert_eq!(Parts::default().joined(), Bytes::new());
    }
}
