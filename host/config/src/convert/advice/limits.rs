//! Limits that contradict one another.

use crate::raw::RawConfig;
use crate::tree::Path;

/// Tokens charged to a token limit for an answer of unknown length before the request is sent.
const ANSWER_TOKENS: u32 = 1_024;

pub(super) struct Contradiction {
    pub(super) at: Path,
    pub(super) message: String,
    pub(super) help: String,
}

/// A pair of which the first should not be larger than the second: place and value of each.
type Pair<'a> = ((Path, &'a str, Option<u64>), (&'a str, Option<u64>));

/// Those among the limits that are written; defaults are not held against anybody.
pub(super) fn contradictions(raw: &RawConfig) -> Vec<Contradiction> {
    let limits = Path::of("limits");
    let mut pairs: Vec<Pair<'_>> = vec![(
        (limits.key("max_wait_ms"), "max_wait_ms", raw.limits.max_wait_ms),
        ("max_exchange_ms", raw.limits.max_exchange_ms),
    )];
    let mut found = Vec::new();
    for (index, backend) in raw.backend.iter().enumerate() {
        let at = Path::of("backend").index(index);
        let (timeouts, place) = (&backend.timeouts, at.key("timeouts"));
        let total = ("total_ms", timeouts.total_ms);
        for (name, value) in [
            ("connect_ms", timeouts.connect_ms),
            ("first_byte_ms", timeouts.first_byte_ms),
            ("first_token_ms", timeouts.first_token_ms),
            ("idle_ms", timeouts.idle_ms),
        ] {
            pairs.push(((place.key(name), name, value), total));
        }
        pairs.push((
            (place.key("connect_ms"), "connect_ms", timeouts.connect_ms),
            ("first_byte_ms", timeouts.first_byte_ms),
        ));
        pairs.push((
            (place.key("total_ms"), "total_ms", timeouts.total_ms),
            ("limits.max_exchange_ms", raw.limits.max_exchange_ms),
        ));
        found.extend(days(&at, (backend.rpm, backend.rpd), (backend.tpm, backend.tpd)));
        for (model, limits) in &backend.limits {
            let at = at.key("limits").key(model);
            found.extend(days(&at, (limits.rpm, limits.rpd), (limits.tpm, limits.tpd)));
        }
        found.extend(tokens(at, backend.tpm));
    }
    for (index, client) in raw.client.iter().enumerate() {
        found.extend(tokens(Path::of("client").index(index), client.tpm));
    }
    for ((at, name, value), (other, most)) in pairs {
        if let (Some(value), Some(most)) = (value, most)
            && value > most
        {
            let message = format!("`{name}` ({value}) is longer than `{other}` ({most}), so it never applies");
            found.push(Contradiction { at, message, help: format!("make it at most {most}, or raise `{other}`") });
        }
    }
    found
}

/// Limits of a minute that are larger than those of a day: each is the minute's and the day's.
fn days(at: &Path, requests: (Option<u32>, Option<u32>), tokens: (Option<u32>, Option<u32>)) -> Vec<Contradiction> {
    let one = |(minute, day): (&str, &str), limits: (Option<u32>, Option<u32>)| {
        let (Some(of_minute), Some(of_day)) = limits else { return None };
        (of_minute > of_day && of_day > 0).then(|| Contradiction {
            at: at.key(minute),
            message: format!("`{minute}` ({of_minute}) is more than `{day}` ({of_day}), so it never applies"),
            help: format!("`{day}` is for 24 hours: make it larger, or leave `{minute}` out"),
        })
    };
    [one(("rpm", "rpd"), requests), one(("tpm", "tpd"), tokens)].into_iter().flatten().collect()
}

/// A limit that is smaller than what one request is charged ahead.
fn tokens(at: Path, tpm: Option<u32>) -> Option<Contradiction> {
    let tpm = tpm.filter(|tpm| *tpm > 0 && *tpm < ANSWER_TOKENS)?;
    Some(Contradiction {
        at: at.key("tpm"),
        message: format!("`tpm` of {tpm} is less than what one request without max_tokens is charged ahead"),
        help: format!("its answer counts as {ANSWER_TOKENS} tokens until it is known; write a larger limit"),
    })
}
