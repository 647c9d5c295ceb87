//! Evidence of failures: which requests, of which clients, have failed since the last answer. One request, or one client
//! whose requests fail while those of others are answered, does not speak for a backend.

use std::time::Duration;

use super::{CooldownSettings, is_of_account, may_be_requests};
use crate::outcome::Kind;
use crate::time::Timestamp;

/// The request that an attempt was made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// Its number; 0: unknown, and like no other.
    pub request: u64,
    /// Number of its client; 0: unknown.
    pub client: u64,
}

/// The evidence that a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// For the request itself, whose own way to this backend is closed.
    Own,
    /// For a part that other requests use too.
    Seen {
        /// The request that failed.
        witness: Witness,
        /// The request failed alike at another backend.
        is_blamed: bool,
    },
}

/// Time for which a client whose requests failed while another's were answered is not listened to.
const DISCREDITED_FOR: Duration = Duration::from_secs(60);

/// Time for which an answer to another client tells against a client whose requests fail.
const ANSWERED_LATELY: Duration = Duration::from_secs(60);

/// The longest cooldown that one request, or the requests of one client, bring about, as a multiple of
/// [`CooldownSettings::base`].
const ONE_CLIENT_FACTOR: u32 = 5;

/// The same where one request alone was rate limited again and again.
const ONE_REQUEST_LIMITED_FACTOR: u32 = 20;

/// The same where they were refused for the key or the credit.
const ONE_CLIENT_ACCOUNT_FACTOR: u32 = 120;

/// The requests that failed since the last answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Witnesses {
    first: Option<Witness>,
    /// Number of the second request that failed.
    second: Option<u64>,
    /// They were refused for the key or the credit.
    of_account: bool,
    /// A failure was none that a request brings about.
    certain: bool,
    /// More than one request failed.
    confirmed: bool,
    /// Three different requests failed at least.
    many: bool,
    /// They are of one client, which is known.
    of_one_client: bool,
    /// A client whose failures are its own, and until when.
    discredited: Option<(u64, Timestamp)>,
    /// The two clients that were answered last, and when; the latest first.
    answered: [Option<(u64, Timestamp)>; 2],
}

impl Witnesses {
    /// Witnesses of a failure that is certain.
    pub(super) fn confirmed() -> Self {
        Self { confirmed: true, many: true, ..Self::default() }
    }

    /// Adds the request of a failure; true once more than one has failed. A failure for the key or the credit confirms no
    /// other, and the reverse.
    pub(super) fn add(&mut self, kind: Kind, witness: Witness) -> bool {
        match self.first.filter(|_| self.of_account == is_of_account(kind)) {
            None => {
                let is_certain = self.confirmed && self.first.is_none();
                let (first, of_account) = (Some(witness), is_of_account(kind));
                *self = Self { first, second: None, of_account, confirmed: is_certain, many: is_certain, ..*self };
                self.of_one_client = witness.client != 0;
            }
            Some(first) => {
                if witness.request == 0 || witness.request != first.request {
                    self.confirmed = true;
                    let second = *self.second.get_or_insert(witness.request);
                    self.many |= second != witness.request;
                }
                self.of_one_client &= witness.client == first.client;
            }
        }
        self.certain |= !may_be_requests(kind);
        self.confirmed
    }

    /// Returns true if more than one request failed.
    pub(super) const fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// Returns true if no other request failed, and nothing that no request brings about.
    pub(super) fn is_only(&self, request: u64) -> bool {
        request != 0 && !self.confirmed && !self.certain && self.first.is_some_and(|first| first.request == request)
    }

    /// An answer: what failed before is past. Where another client got it, it is to be put down to the client it failed for.
    pub(super) fn answered(&mut self, now: Timestamp, witness: Witness) {
        let suspect = self.first.filter(|_| self.of_one_client).map(|first| first.client);
        let discredited = match suspect.filter(|suspect| *suspect != witness.client) {
            Some(suspect) => Some((suspect, now + DISCREDITED_FOR)),
            None => self.discredited.filter(|(client, _)| *client != witness.client),
        };
        *self = Self { discredited, answered: self.answered, ..Self::default() };
    }

    /// Forgets the requests that failed.
    pub(super) fn forget(&mut self) {
        *self = Self { discredited: self.discredited, answered: self.answered, ..Self::default() };
    }

    /// Records that a request of this client was answered.
    pub(super) fn was_answered(&mut self, now: Timestamp, client: u64) {
        let [latest, _] = self.answered;
        if latest.is_some_and(|(known, _)| known != client) {
            self.answered[1] = latest;
        }
        self.answered[0] = Some((client, now));
    }

    /// Returns true if the failures are to be put down to their one client: another one was answered lately, or too few
    /// requests failed to tell.
    fn is_one_clients(&self, now: Timestamp) -> bool {
        let client = self.first.filter(|_| self.of_one_client).map(|first| first.client);
        let is_other =
            |answered: &(u64, Timestamp)| client != Some(answered.0) && now.since(answered.1) < ANSWERED_LATELY;
        client.is_some() && (!self.many || self.answered.iter().flatten().any(is_other))
    }

    /// Returns true if the failures of this request's client say nothing.
    pub(super) fn is_discredited(&self, now: Timestamp, witness: Witness) -> bool {
        self.first.is_none() && self.discredited.is_some_and(|(client, until)| client == witness.client && now < until)
    }

    /// The longest cooldown without a Retry-After that they can bring about; `None`: the rule's own.
    pub(super) fn most(
        &self,
        now: Timestamp,
        kind: Kind,
        evidence: Evidence,
        settings: &CooldownSettings,
    ) -> Option<Duration> {
        let is_limited = matches!(kind, Kind::RateLimited | Kind::Overloaded);
        let factor = match may_be_requests(kind) {
            _ if evidence == Evidence::Own => return None,
            true if self.of_account && self.is_one_clients(now) => ONE_CLIENT_ACCOUNT_FACTOR,
            true if !self.confirmed || self.is_one_clients(now) => ONE_CLIENT_FACTOR,
            false if is_limited && !self.confirmed => ONE_REQUEST_LIMITED_FACTOR,
            true | false => return None,
        };
        Some(settings.base * factor)
    }
}
