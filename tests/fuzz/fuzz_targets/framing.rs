//! The first byte says how the rest is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pointsman_core::http::framing::{Ambiguous, Fault, Framing};

const MAX_HEAD_BYTES: usize = 512;

/// Returns the number of good bytes, and the fault that ended them.
fn judge<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (usize, Option<Fault>) {
    let mut framing = Framing::new(MAX_HEAD_BYTES);
    let (mut good, mut held) = (0, Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        match framing.push(&held) {
            Ok(judged) => {
                good += judged;
                held.drain(..judged);
                assert!(held.len() <= 1_024);
            }
            Err(Ambiguous { what, at }) => {
                assert_eq!(framing.push(piece), Err(Ambiguous { what, at: 0 }));
                return (good + at, Some(what));
            }
        }
    }
    (good, None)
}

/// The parser behind the watch reads the first head as the watch does: never as shorter or longer, never as malformed.
fn agrees(bytes: &[u8], good: usize) {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => {
            let named = |name: &str| request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name)).count();
            if good > 0 {
                assert!(named("content-length") + named("transfer-encoding") <= 1);
                assert!(good >= end);
            }
        }
        Ok(httparse::Status::Partial) => assert_eq!(good, 0),
        Err(_) => assert_eq!(good, 0),
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((cut, bytes)) = input.split_first() else { return };
    let whole = judge(std::iter::once(bytes));
    assert_eq!(judge(bytes.chunks(usize::from(*cut) + 1)), whole);
    if !bytes.starts_with(b"PRI") {
        agrees(bytes, whole.0);
    }
});
