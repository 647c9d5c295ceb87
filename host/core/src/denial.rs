//! Requests refused at the door: before any policy is asked, because of the client's key, its limits, or the request itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::time::Timestamp;

vocabulary! {
    /// The reason why a request is refused before any policy is asked.
    pub enum Denial {
        /// No client key was sent, and keys are configured.
        MissingKey = "missing_key",
        /// The client key is none of those configured.
        WrongKey = "wrong_key",
        /// The client key may not ask for the model.
        ModelNotAllowed = "model_not_allowed",
        /// No backend serves the model.
        UnknownModel = "unknown_model",
        /// The client key's requests or tokens a minute.
        ClientRate = "client_rate",
        /// The client key's requests at a time.
        ClientConcurrency = "client_concurrency",
        /// The client key's daily budget.
        ClientBudget = "client_budget",
        /// The client key has a budget, and no backend that serves the model has a price for it.
        NoPrice = "no_price",
        /// The request body is larger than allowed.
        BodyTooLarge = "body_too_large",
        /// A web page of another site sent it, to a listener that asks for no key.
        ForeignPage = "foreign_page",
        /// It asks under a name of another site, of a listener that asks for no key.
        ForeignHost = "foreign_host",
        /// The path is of no API that a backend could have.
        NoSuchPath = "no_such_path",
        /// The request is malformed or cannot be forwarded.
        BadRequest = "bad_request",
        /// The process is going away.
        ShuttingDown = "shutting_down",
        /// There is no memory left for the request beside those that are under way.
        Memory = "memory",
    }
}

impl Denial {
    /// The setting that was the limit; none where no setting changes the answer.
    pub const fn setting(self) -> Option<&'static str> {
        match self {
            Denial::MissingKey | Denial::WrongKey => Some("[[client]] key"),
            Denial::ModelNotAllowed => Some("[[client]] models"),
            Denial::UnknownModel => Some("[[backend]] models"),
            Denial::ClientRate => Some("[[client]] rpm, tpm"),
            Denial::ClientConcurrency => Some("[[client]] max_concurrency"),
            Denial::ClientBudget => Some("[[client]] budget_usd_per_day"),
            Denial::NoPrice => Some("[backend.price] or [budget] default_price"),
            Denial::BodyTooLarge => Some("[server] max_body_bytes"),
            Denial::Memory => Some("[server] memory_budget_mb"),
            Denial::ForeignPage | Denial::ForeignHost => Some("[server] allowed_origins"),
            Denial::NoSuchPath | Denial::BadRequest | Denial::ShuttingDown => None,
        }
    }

    /// Advice for the reader of a refusal: the client's developer or the operator.
    pub const fn advice(self) -> &'static str {
        match self {
            Denial::MissingKey => {
                "let the client send one of the keys configured under [[client]], as `Authorization: Bearer KEY` or `x-api-key: KEY`"
            }
            Denial::WrongKey => {
                "compare the client's key with those configured under [[client]]; a key that is not known here is never recorded"
            }
            Denial::ModelNotAllowed => {
                "add the model to the `models` of this [[client]], or let the client ask for another"
            }
            Denial::UnknownModel => {
                "add the model to the `models` of a [[backend]], or let the client ask for one of GET /v1/models"
            }
            Denial::ClientRate => {
                "let the client come again after Retry-After, or raise `rpm` or `tpm` of this [[client]]"
            }
            Denial::ClientConcurrency => {
                "let the client wait for its answers before it asks again, or raise `max_concurrency` of this [[client]]"
            }
            Denial::ClientBudget => "raise `budget_usd_per_day` of this [[client]], or wait until midnight UTC",
            Denial::NoPrice => {
                "give the model a price at its [[backend]], 0 if it is free, or all models without one a [budget] default_price; \
                 `pointsman config prices` knows the usual ones"
            }
            Denial::BodyTooLarge => "let the client send less, or raise `max_body_bytes` under [server]",
            Denial::ForeignPage => {
                "if the page is yours, add its origin to `allowed_origins` under [server]; or configure client keys under [[client]]"
            }
            Denial::ForeignHost => {
                "let the client's base URL have the host localhost or an IP address, or add the name's origin to `allowed_origins` under [server]; or configure client keys under [[client]]"
            }
            Denial::NoSuchPath => {
                "let the client's base URL be this address with /v1 behind it; a backend of the dialect `plain` gets every path"
            }
            Denial::BadRequest => "correct the request at the client; the message says what is wrong with it",
            Denial::Memory => {
                "let the client come again after Retry-After; give the process more memory, or raise `memory_budget_mb` under [server]"
            }
            Denial::ShuttingDown => {
                "let the client try again in a moment: another process, or this one after its restart, answers"
            }
        }
    }
}

/// A limit on recorded refusals; refusals beyond it are only counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Allowance {
    /// Number of refusals that are recorded at once.
    burst: u32,
    /// And from then on one in this time.
    every: Duration,
}

/// All requests without a known client key together: anybody can send them.
const ANONYMOUS: Allowance = Allowance { burst: 20, every: Duration::from_millis(500) };
/// Allowance of each client key.
const CLIENT: Allowance = Allowance { burst: 50, every: Duration::from_millis(100) };
/// Client keys looked after; beyond them all are begun anew. A configuration has fewer at any time.
const MAX_CLIENTS: usize = 4_096;
/// Interval between log lines about refusals that are only counted.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Decides which refusals are recorded, so that a flood of them fills neither the log nor the store.
#[derive(Clone, Debug, Default)]
pub struct DenialGate {
    /// Time at which the allowance is full again; without and with a client key.
    anonymous: Timestamp,
    clients: HashMap<Arc<str>, Timestamp>,
    unrecorded: u64,
    told_at: Option<Timestamp>,
}

/// The treatment of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is recorded and logged.
    Yes,
    /// It is counted and not recorded.
    No {
        /// The log is to be told now that so many since the start were only counted.
        tell: Option<u64>,
    },
}

impl DenialGate {
    /// A request of this client (none: no key was recognised) is refused.
    pub fn admit(&mut self, now: Timestamp, client: Option<&Arc<str>>) -> Recorded {
        let (whole_at, allowance) = match client {
            None => (&mut self.anonymous, ANONYMOUS),
            Some(name) => {
                if self.clients.len() >= MAX_CLIENTS && !self.clients.contains_key(name) {
                    self.clients.clear();
                }
                (self.clients.entry(name.clone()).or_default(), CLIENT)
            }
        };
        let next = (*whole_at).max(now) + allowance.every;
        if next.since(now) <= allowance.every * allowance.burst {
            *whole_at = next;
            return Recorded::Yes;
        }
        self.unrecorded += 1;
        let is_due = self.told_at.is_none_or(|told| now.since(told) >= TELL_EVERY);
        if is_due {
            self.told_at = Some(now);
        }
        Recorded::No { tell: is_due.then_some(self.unrecorded) }
    }

    /// Refusals that were only counted.
    pub fn unrecorded(&self) -> u64 {
        self.unrecorded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + ms)
    }

    fn recorded(gate: &mut DenialGate, client: Option<&Arc<str>>, times: impl Iterator<Item = u64>) -> usize {
        times.filter(|ms| gate.admit(at(*ms), client) == Recorded::Yes).count()
    }

    #[test]
    fn a_flood_without_a_key_is_recorded_at_a_bounded_rate_and_the_rest_counted() {
        let mut gate = DenialGate::default();
        // A thousand a second for ten seconds.
        let kept = recorded(&mut gate, None, 0..10_000);
        assert_eq!(kept, 20 + 19, "20 at once, then two a second");
        assert_eq!(gate.unrecorded(), 10_000 - kept as u64);
        assert_eq!(recorded(&mut gate, None, 30_000..30_100), 20, "after a pause the allowance is whole again");
    }

    #[test]
    fn a_flood_does_not_cost_a_client_its_records_nor_one_client_another() {
        let mut gate = DenialGate::default();
        let (noisy, quiet): (Arc<str>, Arc<str>) = ("noisy".into(), "quiet".into());
        recorded(&mut gate, None, 0..1_000);
        assert_eq!(recorded(&mut gate, Some(&noisy), std::iter::repeat_n(1_000, 500)), 50);
        assert_eq!(recorded(&mut gate, Some(&quiet), std::iter::repeat_n(1_000, 50)), 50);
    }

    #[test]
    fn the_log_is_told_at_once_and_then_once_a_minute() {
        let mut gate = DenialGate::default();
        let told: Vec<u64> = (0..130_000)
            .filter_map(|ms| match gate.admit(at(ms), None) {
                Recorded::No { tell } => tell,
                Recorded::Yes => None,
            })
            .collect();
        assert_eq!((told.len(), told[0]), (3, 1));
        assert!(told[1] > 50_000 && told[2] > told[1]);
    }

    #[test]
    fn client_keys_that_are_looked_after_are_bounded() {
        let mut gate = DenialGate::default();
        for n in 0..3 * MAX_CLIENTS {
            gate.admit(at(0), Some(&n.to_string().into()));
        }
        assert!(gate.clients.len() <= MAX_CLIENTS);
    }

    #[test]
    fn every_reason_has_a_word_of_its_own_that_reads_back() {
        for denial in Denial::ALL {
            assert_eq!(Denial::parse(denial.as_str()), Some(denial));
            assert!(!denial.advice().is_empty());
        }
        assert_eq!(Denial::parse("delivered"), None);
    }
}
