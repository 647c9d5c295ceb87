//! Streams: utterances, then an event `end`.

use pointsman_core::dialect::StreamFormat;
use pointsman_core::dialect::usage::{Sight, Tally};

/// Events with a piece of text each.
#[derive(Debug)]
pub(super) struct Utterances;

impl StreamFormat for Utterances {
    fn see(&self, tally: &mut Tally, name: Option<&[u8]>, data: &[u8]) -> Sight {
        match name {
            Some(b"end") => {
                tally.read_usage(data);
                tally.finish();
                tally.end()
            }
            Some(b"problem") => Sight::Error,
            Some(_) | None => tally.content(data.len()),
        }
    }
}
