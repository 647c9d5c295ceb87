//! Server-sent events as the WHATWG specification reads them, without losing a byte of how they were written.
//!
//! The relay forwards what it received, so an event is a slice of the received bytes, with its data and name looked
//! up in place. An event that lies whole inside a chunk is never copied.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use memchr::memchr2;
use thiserror::Error;

/// The longest event unless said otherwise, in bytes.
pub const MAX_EVENT_BYTES: usize = 8 * 1024 * 1024;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// The upstream's fault: an event longer than the limit; the stream is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the upstream sent an event longer than {limit_bytes} bytes")]
pub struct TooLong {
    /// Largest event that is read, bytes.
    pub limit_bytes: usize,
}

/// A server-sent event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its bytes as received, the blank line that ends it included.
    pub raw: &'a [u8],
    /// Field `event`; none: it has none.
    pub name: Option<&'a [u8]>,
    /// Its `data`, lines joined by LF; none for a comment, a lone `id` and the like, which mean nothing to a client
    /// but keep the connection alive.
    pub data: Option<&'a [u8]>,
}

/// Returns true if its data is neither JSON nor `[DONE]`, so that a client of an LLM API would fail to read it. Events
/// named `error` are accepted with any data.
pub fn is_nonsense(event: &Event<'_>) -> bool {
    let is_json = |data: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(data).is_ok();
    event.name != Some(b"error") && event.data.is_some_and(|data| data.trim_ascii() != b"[DONE]" && !is_json(data))
}

/// Cuts a byte stream into events.
///
/// Push a chunk, look at the events, then take the bytes of all of them at once:
///
/// ```
/// # use pointsman_core::http::sse::Reader;
/// # fn main() -> Result<(), pointsman_core::http::sse::TooLong> {
/// let mut reader = Reader::default();
/// reader.push("data: a\n\ndata: b\n\nda".into());
/// while let Some(event) = reader.next_event()? {
///     assert!(event.data.is_some());
/// }
/// assert_eq!(reader.take(), "data: a\n\ndata: b\n\n");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Reader {
    /// Events read but not taken, then the beginning of the next.
    buf: Bytes,
    /// Start of the last event read.
    last: usize,
    /// Start of the next event: all before it has been read.
    start: usize,
    /// Start of its current line.
    line: usize,
    /// Place where the search for that line's end goes on.
    scan: usize,
    /// The byte before `line` was a CR at the end of the buffer: an LF that follows belongs to it.
    after_cr: bool,
    /// Nothing of the stream has been read yet, so that a BOM may come.
    at_beginning: bool,
    fields: Fields,
    limit_bytes: usize,
}

/// Fields of the current event so far, as places in the buffer.
#[derive(Debug, Default)]
struct Fields {
    name: Option<Range<usize>>,
    data: Option<Range<usize>>,
    /// The data when it has several lines; `data` is then the first of them.
    joined: Vec<u8>,
    data_lines: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new(MAX_EVENT_BYTES)
    }
}

impl Reader {
    /// A reader that refuses events longer than this.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            buf: Bytes::new(),
            last: 0,
            start: 0,
            line: 0,
            scan: 0,
            after_cr: false,
            at_beginning: true,
            fields: Fields::default(),
            limit_bytes,
        }
    }

    /// Adds received bytes. Copies only when an event was left unfinished, and then no byte more than twice.
    pub fn push(&mut self, chunk: Bytes) {
        if self.buf.is_empty() {
            self.buf = chunk;
        } else if !chunk.is_empty() {
            let rest = std::mem::take(&mut self.buf);
            // Ours alone after the first copy, and then it grows by doubling.
            let mut grown = rest.try_into_mut().unwrap_or_else(|shared| {
                let mut own = BytesMut::with_capacity(shared.len() + chunk.len());
                own.extend_from_slice(&shared);
                own
            });
            grown.extend_from_slice(&chunk);
            self.buf = grown.freeze();
        }
    }

    /// The next whole event; none until more bytes come.
    ///
    /// # Errors
    /// [`TooLong`], now and for ever after.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, TooLong> {
        while let Some(line) = self.next_line() {
            if line.is_empty() {
                return self.dispatch(self.line).map(Some);
            }
            self.fields.add(&self.buf, line);
        }
        self.check(self.buf.len())?;
        Ok(None)
    }

    /// Returns the rest when the upstream has ended: an event whose blank line never came. The specification drops it;
    /// some servers end `[DONE]` that way, so the caller decides.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn finish(&mut self) -> Result<Option<Event<'_>>, TooLong> {
        if self.start == self.buf.len() {
            return Ok(None);
        }
        let line = self.content(self.line..self.buf.len());
        if !line.is_empty() {
            self.fields.add(&self.buf, line);
        }
        self.dispatch(self.buf.len()).map(Some)
    }

    /// The bytes of all events read since the last take.
    pub fn take(&mut self) -> Bytes {
        let read = self.buf.split_to(self.start);
        self.shift(read.len());
        read
    }

    /// The bytes of all events read since the last take but the last one, which is thrown away.
    pub fn take_without_last(&mut self) -> Bytes {
        let earlier = self.last;
        let mut read = self.take();
        read.truncate(earlier);
        read
    }

    /// The bytes of all events read since the last take but the last one, which stays to be taken.
    pub fn take_before_last(&mut self) -> Bytes {
        let earlier = self.buf.split_to(self.last);
        self.shift(earlier.len());
        earlier
    }

    /// Bytes received that are not part of a whole event yet.
    pub fn unfinished_bytes(&self) -> usize {
        self.buf.len() - self.start
    }

    fn shift(&mut self, by: usize) {
        self.last = self.last.saturating_sub(by);
        self.start -= by;
        self.line -= by;
        self.scan -= by;
        for range in [&mut self.fields.name, &mut self.fields.data].into_iter().flatten() {
            // A range of an event already read may lie before; it is never looked at again.
            *range = range.start.saturating_sub(by)..range.end.saturating_sub(by);
        }
    }

    /// The next line without its end; `self.line` then stands behind that end.
    fn next_line(&mut self) -> Option<Range<usize>> {
        if self.after_cr && self.scan < self.buf.len() {
            self.after_cr = false;
            if self.buf[self.scan] == b'\n' {
                self.scan += 1;
                self.line = self.scan;
            }
        }
        let Some(found) = memchr2(b'\n', b'\r', &self.buf[self.scan..]) else {
            self.scan = self.buf.len();
            return None;
        };
        let end = self.scan + found;
        let next = match (self.buf[end], self.buf.get(end + 1)) {
            (b'\r', Some(b'\n')) => end + 2,
            (b'\r', None) => {
                self.after_cr = true;
                end + 1
            }
            _ => end + 1,
        };
        let line = self.content(self.line..end);
        self.line = next;
        self.scan = next;
        Some(line)
    }

    /// A line without the BOM, which the first line of a stream may have.
    fn content(&mut self, line: Range<usize>) -> Range<usize> {
        let bom = std::mem::take(&mut self.at_beginning) && self.buf[line.clone()].starts_with(BOM);
        line.start + if bom { BOM.len() } else { 0 }..line.end
    }

    fn dispatch(&mut self, end: usize) -> Result<Event<'_>, TooLong> {
        self.check(end)?;
        self.last = self.start;
        self.start = end;
        self.line = end;
        self.scan = end;
        let name = self.fields.name.take();
        let data = self.fields.data.take();
        let data_lines = std::mem::take(&mut self.fields.data_lines);
        Ok(Event {
            raw: &self.buf[self.last..end],
            name: name.map(|at| &self.buf[at]),
            data: data.map(|at| if data_lines > 1 { &self.fields.joined[..] } else { &self.buf[at] }),
        })
    }

    fn check(&self, end: usize) -> Result<(), TooLong> {
        if end - self.start > self.limit_bytes {
            return Err(TooLong { limit_bytes: self.limit_bytes });
        }
        Ok(())
    }
}

impl Fields {
    #[inline]
    fn add(&mut self, buf: &[u8], line: Range<usize>) {
        let text = &buf[line.clone()];
        // `data` and `event` are all that matters here; `id`, `retry` and comments are forwarded unread.
        let Some((field, rest)) = field(text, b"data").or_else(|| field(text, b"event")) else { return };
        let value = line.end - rest..line.end;
        if field == b"event" {
            self.name = (rest > 0).then_some(value);
            return;
        }
        self.data_lines += 1;
        match &self.data {
            None => self.data = Some(value),
            Some(first) => {
                if self.data_lines == 2 {
                    self.joined.clear();
                    self.joined.extend_from_slice(&buf[first.clone()]);
                }
                self.joined.push(b'\n');
                self.joined.extend_from_slice(&buf[value]);
            }
        }
    }
}

/// The field's name and how many bytes at the line's end are its value, if the line is of this field.
#[inline]
fn field<'n>(line: &[u8], name: &'n [u8]) -> Option<(&'n [u8], usize)> {
    let rest = line.strip_prefix(name)?;
    match rest {
        [] => Some((name, 0)),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some((name, value.len())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Owned = (Vec<u8>, Option<String>, Option<String>);

    fn owned(event: Event<'_>) -> Owned {
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        (event.raw.to_vec(), event.name.map(text), event.data.map(text))
    }

    /// The events of these chunks, the unfinished rest, and the bytes taken with it.
    type Whole = (Vec<Owned>, Option<Owned>, Vec<u8>);

    fn read(chunks: &[&[u8]], limit: usize) -> Result<Whole, TooLong> {
        let mut reader = Reader::new(limit);
        let (mut events, mut taken) = (Vec::new(), Vec::new());
        for chunk in chunks {
            reader.push(Bytes::copy_from_slice(chunk));
            while let Some(event) = reader.next_event()? {
                events.push(owned(event));
            }
            taken.extend_from_slice(&reader.take());
        }
        let rest = reader.finish()?.map(owned);
        taken.extend_from_slice(&reader.take());
        Ok((events, rest, taken))
    }

    fn meaning(stream: &str) -> Vec<(Option<String>, Option<String>)> {
        let (events, _, _) = read(&[stream.as_bytes()], MAX_EVENT_BYTES).unwrap();
        events.into_iter().map(|(_, name, data)| (name, data)).collect()
    }

    fn datas(stream: &str) -> Vec<String> {
        meaning(stream).into_iter().filter_map(|(_, data)| data).collect()
    }

    #[test]
    fn lines_end_with_cr_lf_or_both() {
        for end in ["\n", "\r", "\r\n"] {
            let stream = "event: e\ndata: a\ndata: b\n\ndata: c\n\n".replace('\n', end);
            let expected = [(Some("e".into()), Some("a\nb".into())), (None, Some("c".into()))];
            assert_eq!(meaning(&stream), expected, "{end:?}");
        }
    }

    #[test]
    fn the_value_loses_one_leading_space_and_no_more() {
        assert_eq!(datas("data:a\n\ndata:  b \n\ndata\n\ndata:\n\ndata: \n\n"), ["a", " b ", "", "", ""]);
    }

    #[test]
    fn other_fields_and_comments_carry_no_data() {
        assert_eq!(meaning(": ping\n\nid: 7\nretry: 10\n\n\n"), [(None, None), (None, None), (None, None)]);
        assert_eq!(datas("datax: 1\nDATA: 2\n data: 3\n: data: 4\ndata: 5\n\n"), ["5"]);
    }

    #[test]
    fn a_byte_order_mark_may_stand_at_the_very_beginning_only() {
        assert_eq!(datas("\u{feff}data: a\n\n\u{feff}data: b\n\ndata: c\n\n"), ["a", "c"]);
        assert_eq!(datas("\u{feff}\n\u{feff}data: b\n\n"), Vec::<String>::new());
    }

    #[test]
    fn the_last_event_name_counts_and_an_empty_one_is_none() {
        assert_eq!(
            meaning("event: a\nevent: b\ndata\n\nevent: a\nevent:\ndata\n\n"),
            [(Some("b".into()), Some(String::new())), (None, Some(String::new()))]
        );
    }

    #[test]
    fn an_unfinished_event_is_kept_for_the_end() {
        let (events, rest, taken) = read(&[b"data: a\n\ndata: [DO", b"NE]"], 100).unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(rest.unwrap().2.as_deref(), Some("[DONE]"));
        assert_eq!(taken, b"data: a\n\ndata: [DONE]");
    }

    #[test]
    fn an_event_whole_in_its_chunk_is_not_copied() {
        let chunk = Bytes::from_static(b"data: a\n\ndata: b\n\n");
        let mut reader = Reader::default();
        reader.push(chunk.clone());
        while reader.next_event().unwrap().is_some() {}
        assert_eq!(reader.take().as_ptr(), chunk.as_ptr());
    }

    #[test]
    fn the_last_event_can_be_dropped_or_held_back() {
        let mut reader = Reader::default();
        reader.push("data: a\n\ndata: b\n\ndata: c\n\n".into());
        reader.next_event().unwrap();
        reader.next_event().unwrap();
        assert_eq!(reader.take_before_last(), "data: a\n\n");
        assert_eq!(reader.take_without_last(), "");
        assert_eq!(reader.next_event().unwrap().unwrap().data, Some(&b"c"[..]));
        assert_eq!(reader.take(), "data: c\n\n");
        assert_eq!(reader.take(), "");
        assert_eq!(reader.take_before_last(), "");
        assert_eq!(reader.take_without_last(), "");
    }

    #[test]
    fn an_event_beyond_the_limit_is_refused_whole_or_not() {
        let whole = format!("data: {}\n\n", "x".repeat(100));
        assert_eq!(read(&[whole.as_bytes()], 107), Err(TooLong { limit_bytes: 107 }));
        assert!(read(&[whole.as_bytes()], 108).is_ok());
        assert_eq!(read(&[&[b'x'; 50], &[b'x'; 50]], 99), Err(TooLong { limit_bytes: 99 }));
    }

    #[test]
    fn single_bytes_of_a_long_event_cost_no_more_than_linear_time() {
        // Quadratic, this is 10^11 steps.
        let mut reader = Reader::default();
        for _ in 0..400_000 {
            reader.push(Bytes::from_static(b"x"));
            assert!(reader.next_event().unwrap().is_none());
        }
    }

    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            "\n", "\r", "\r\n", "\n\n", "data: ", "data:", "data", "event: e", "event", ": c", "id: 1", " ", ":", "x",
            "[DONE]", "\u{feff}", "\u{e9}",
        ]);
        prop::collection::vec(piece, 0..40).prop_map(|p| p.concat().into_bytes())
    }

    /// As the specification says it, on the whole text: the meaning of every event that is not empty.
    fn by_the_book(stream: &[u8]) -> Vec<(Option<String>, String)> {
        let text = String::from_utf8(stream.to_vec()).unwrap().replace("\r\n", "\n").replace('\r', "\n");
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut lines: Vec<&str> = text.split('\n').collect();
        lines.pop();
        let (mut events, mut name, mut data) = (Vec::new(), None, None::<String>);
        for line in lines {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match (line, field) {
                ("", _) => {
                    let name = name.take();
                    if let Some(data) = data.take() {
                        events.push((name, data));
                    }
                }
                (_, "event") => name = (!value.is_empty()).then(|| value.to_owned()),
                (_, "data") => data = Some(data.map_or_else(|| value.to_owned(), |d| d + "\n" + value)),
                _ => {}
            }
        }
        events
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn any_split_gives_the_same_events_and_all_the_bytes(stream in pieces(), cuts in prop::collection::vec(0usize..200, 0..12)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
            let (events, _, taken) = read(&chunks, MAX_EVENT_BYTES).unwrap();
            prop_assert_eq!(&taken, &stream);
            let split: Vec<_> = events.iter().filter_map(|(_, n, d)| Some((n.clone(), d.clone()?))).collect();
            prop_assert_eq!(split, by_the_book(&stream));
        }
    }
}
