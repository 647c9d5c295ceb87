//! The first byte says how the rest is cut.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pointsman_core::contract::Operation;
use pointsman_core::table::Dialect;
use pointsman_core::dialect::classify::classify_event;
use pointsman_core::http::sse::Reader;
use pointsman_core::dialect::usage::StreamTap;

const LIMIT_BYTES: usize = 512;

/// Name and data of an event that means something.
type Meaning = (Option<Vec<u8>>, Vec<u8>);

struct Read {
    events: Vec<Meaning>,
    taken: Vec<u8>,
    too_long: bool,
}

fn read<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Read {
    let mut reader = Reader::new(LIMIT_BYTES);
    let mut taps = [
        StreamTap::new(Dialect::OPENAI, Operation::Chat),
        StreamTap::new(Dialect::OPENAI, Operation::Response),
        StreamTap::new(Dialect::ANTHROPIC, Operation::Message),
        StreamTap::new(Dialect::PLAIN, Operation::Other),
    ];
    let mut read = Read { events: Vec::new(), taken: Vec::new(), too_long: false };
    for chunk in chunks {
        reader.push(Bytes::copy_from_slice(chunk));
        loop {
            match reader.next_event() {
                Err(_) => {
                    read.too_long = true;
                    return read;
                }
                Ok(None) => break,
                Ok(Some(event)) => {
                    for tap in &mut taps {
                        tap.see(&event);
                    }
                    for dialect in [Dialect::OPENAI, Dialect::ANTHROPIC, Dialect::PLAIN] {
                        drop(classify_event(dialect, &event));
                    }
                    if let Some(data) = event.data {
                        read.events.push((event.name.map(<[u8]>::to_vec), data.to_vec()));
                    }
                }
            }
        }
        read.taken.extend_from_slice(&reader.take_before_last());
        read.taken.extend_from_slice(&reader.take());
    }
    match reader.finish() {
        Ok(_) => read.taken.extend_from_slice(&reader.take()),
        Err(_) => read.too_long = true,
    }
    read
}

fuzz_target!(|input: &[u8]| {
    let Some((cut, stream)) = input.split_first() else { return };
    let whole = read(std::iter::once(stream));
    let split = read(stream.chunks(usize::from(cut % 31) + 1));
    if !whole.too_long {
        assert_eq!(whole.taken, stream);
    }
    // A CR LF that is cut apart moves its LF, and so one byte of length, to the next event: near the limit they may differ.
    if !whole.too_long && !split.too_long {
        assert_eq!(split.taken, stream);
        assert_eq!(whole.events, split.events);
    }
});
