//! Memory for requests: one budget of bytes for the process, shared fairly by those who send them.
//!
//! A holder (a client, an address, the operator) gets more only while it holds no more than is left free. So one alone gets
//! at most half of the budget, two a third each, and there is always room for one more: the dynamic threshold by which
//! switches share the memory of a port between queues (Choudhury and Hahne, 1998). Large requests have three quarters, so
//! that small ones pass whatever waits.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::time::Timestamp;

/// Requests that take more than this are large, in bytes.
pub const LARGE_BYTES: u64 = 1 << 20;

/// The shortest and longest Retry-After of a request for which there is no room.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The time that a large request is taken to hold its memory, while none has shown it.
const UNKNOWN_HOLD: Duration = Duration::from_secs(5);

/// Weight of the newest hold in their mean: one in so many.
const WEIGHT: u32 = 8;

/// Somebody whose requests hold memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// The client key of this name.
    Client(Arc<str>),
    /// Clients without a key at this address.
    Peer(IpAddr),
    /// The operator, for uploads.
    Operator,
}

impl Holder {
    /// Clients without a key at this address; those of one IPv6 network of 64 bits are one.
    pub fn peer(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::Peer(address.into()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::Peer([a, b, c, d, 0, 0, 0, 0].into())
            }
        }
    }
}

/// The budget, and who holds how much of it.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    total: u64,
    small: Pool,
    large: Pool,
    ages: Ages,
}

#[derive(Clone, Debug, Default)]
struct Pool {
    held: u64,
    holders: HashMap<Holder, u64>,
}

/// The times for which large requests hold their memory.
#[derive(Clone, Debug, Default)]
struct Ages {
    held: u64,
    /// Sum of the times at which those began that hold something, microseconds.
    began: u128,
    mean: Option<Duration>,
}

/// There is no room for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// There is no room until other requests end.
    Now {
        /// Time until there may be room: as long as large requests hold theirs.
        retry_after: Duration,
    },
    /// It takes more than there is.
    Ever,
}

impl MemoryBudget {
    /// A budget of so many bytes, all free.
    pub fn new(total: u64) -> Self {
        Self { total, small: Pool::default(), large: Pool::default(), ages: Ages::default() }
    }

    /// Sets the budget; what is held stays held.
    pub fn set_total(&mut self, total: u64) {
        self.total = total;
    }

    /// Bytes that may be held.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Returns the number of bytes that are held.
    pub fn held(&self) -> u64 {
        self.small.held + self.large.held
    }

    /// Takes memory for a request.
    ///
    /// # Errors
    /// [`NoRoom`]: nothing was taken.
    pub fn take(&mut self, now: Timestamp, holder: &Holder, bytes: u64) -> Result<(), NoRoom> {
        let is_large = bytes > LARGE_BYTES;
        let total = if is_large { self.total - self.total / 4 } else { self.total };
        if bytes > total {
            return Err(NoRoom::Ever);
        }
        // Large ones leave their quarter to the small, which may take more while it is free.
        let taken = if is_large { self.large.held } else { self.held() };
        let pool = if is_large { &self.large } else { &self.small };
        let is_free = self.held().saturating_add(bytes) <= self.total;
        if !is_free || pool.of(holder).saturating_add(bytes) > total.saturating_sub(taken) {
            return Err(NoRoom::Now { retry_after: self.ages.retry_after(now) });
        }
        self.hold(now, holder, bytes);
        Ok(())
    }

    /// Changes what a request that began at `since` holds.
    ///
    /// # Errors
    /// [`NoRoom`] for more: it holds what it held.
    pub fn resize(
        &mut self,
        now: Timestamp,
        holder: &Holder,
        (from, to): (u64, u64),
        since: Timestamp,
    ) -> Result<(), NoRoom> {
        self.release(holder, from, since);
        if to <= from {
            self.hold(since, holder, to);
            return Ok(());
        }
        let resized = self.take(now, holder, to);
        match resized {
            Ok(()) if to > LARGE_BYTES => self.ages.restart(now, since),
            Ok(()) => {}
            Err(_) => self.hold(since, holder, from),
        }
        resized
    }

    /// Gives back what a request held since then.
    pub fn give_back(&mut self, now: Timestamp, holder: &Holder, bytes: u64, since: Timestamp) {
        self.release(holder, bytes, since);
        if bytes > LARGE_BYTES {
            self.ages.ended(now.since(since));
        }
    }

    fn hold(&mut self, since: Timestamp, holder: &Holder, bytes: u64) {
        if bytes > LARGE_BYTES {
            self.large.add(holder, bytes);
            self.ages.held += 1;
            self.ages.began += u128::from(since.as_micros());
        } else {
            self.small.add(holder, bytes);
        }
    }

    fn release(&mut self, holder: &Holder, bytes: u64, since: Timestamp) {
        if bytes > LARGE_BYTES {
            self.large.remove(holder, bytes);
            self.ages.held = self.ages.held.saturating_sub(1);
            self.ages.began = self.ages.began.saturating_sub(u128::from(since.as_micros()));
        } else {
            self.small.remove(holder, bytes);
        }
    }
}

impl Pool {
    fn of(&self, holder: &Holder) -> u64 {
        self.holders.get(holder).copied().unwrap_or(0)
    }

    fn add(&mut self, holder: &Holder, bytes: u64) {
        self.held += bytes;
        match self.holders.get_mut(holder) {
            Some(held) => *held += bytes,
            None => drop(self.holders.insert(holder.clone(), bytes)),
        }
    }

    fn remove(&mut self, holder: &Holder, bytes: u64) {
        self.held = self.held.saturating_sub(bytes);
        if let Some(held) = self.holders.get_mut(holder) {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                self.holders.remove(holder);
            }
        }
    }
}

impl Ages {
    /// As long as large requests hold their memory on average, or have held it, if that is longer already.
    fn retry_after(&self, now: Timestamp) -> Duration {
        let mean_age = match self.held {
            0 => Duration::ZERO,
            held => {
                let now = u128::from(now.as_micros()) * u128::from(held);
                let micros = now.saturating_sub(self.began) / u128::from(held);
                Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
            }
        };
        self.mean.unwrap_or(UNKNOWN_HOLD).max(mean_age).clamp(RETRY_AFTER.0, RETRY_AFTER.1)
    }

    fn ended(&mut self, held: Duration) {
        self.mean = Some(self.mean.map_or(held, |mean| (mean * (WEIGHT - 1) + held) / WEIGHT));
    }

    /// A request that was counted from `now` on began at `since`.
    fn restart(&mut self, now: Timestamp, since: Timestamp) {
        self.began = self.began.saturating_sub(u128::from(now.as_micros())) + u128::from(since.as_micros());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + ms)
    }

    fn client(name: &str) -> Holder {
        Holder::Client(name.into())
    }

    #[test]
    fn one_client_cannot_take_all() {
        let mut budget = MemoryBudget::new(512 * MIB);
        let (a, b) = (client("a"), client("b"));
        assert_eq!((0..9).filter(|_| budget.take(at(0), &a, 120 * MIB).is_ok()).count(), 2, "not more than is left");
        assert_eq!((0..9).filter(|_| budget.take(at(0), &b, 120 * MIB).is_ok()).count(), 1);
        let mut fine = MemoryBudget::new(512 * MIB);
        assert_eq!((0..999).filter(|_| fine.take(at(0), &a, 2 * MIB).is_ok()).count(), 96, "half of three quarters");
        assert_eq!((0..999).filter(|_| fine.take(at(0), &b, 2 * MIB).is_ok()).count(), 48);
    }

    #[test]
    fn small_requests_pass_whatever_waits() {
        let mut budget = MemoryBudget::new(64 * MIB);
        for n in 0..9 {
            let _ = budget.take(at(0), &client(&n.to_string()), 20 * MIB);
        }
        assert_eq!(budget.held(), 40 * MIB);
        assert_eq!((0..999_999).filter(|_| budget.take(at(0), &client("0"), 16 << 10).is_ok()).count(), 768);
    }

    #[test]
    fn a_request_that_never_fits_is_told_from_one_that_must_wait() {
        let mut budget = MemoryBudget::new(64 * MIB);
        assert_eq!(budget.take(at(0), &client("a"), 49 * MIB), Err(NoRoom::Ever));
        budget.take(at(0), &client("a"), 48 * MIB).unwrap();
        let retry_after = UNKNOWN_HOLD;
        assert_eq!(budget.take(at(0), &client("b"), 2 * MIB), Err(NoRoom::Now { retry_after }));
        let retry_after = Duration::from_secs(30);
        assert_eq!(budget.take(at(30_000), &client("b"), 2 * MIB), Err(NoRoom::Now { retry_after }), "as old as it is");
        budget.give_back(at(40_000), &client("a"), 48 * MIB, at(0));
        budget.take(at(40_000), &client("b"), 48 * MIB).unwrap();
        let retry_after = Duration::from_secs(40);
        assert_eq!(
            budget.take(at(40_000), &client("a"), 2 * MIB),
            Err(NoRoom::Now { retry_after }),
            "as the last took"
        );
    }

    #[test]
    fn a_body_of_unknown_length_is_counted_as_it_grows() {
        let mut budget = MemoryBudget::new(64 * MIB);
        let a = client("a");
        budget.take(at(0), &a, MIB).unwrap();
        budget.resize(at(1), &a, (MIB, 8 * MIB), at(0)).unwrap();
        budget.resize(at(2), &a, (8 * MIB, 40 * MIB), at(0)).unwrap();
        assert_eq!(budget.resize(at(3), &a, (40 * MIB, 50 * MIB), at(0)), Err(NoRoom::Ever));
        assert_eq!(budget.held(), 40 * MIB, "as before");
        budget.resize(at(4), &a, (40 * MIB, 30 * MIB), at(0)).unwrap();
        assert!(
            matches!(budget.take(at(60_000), &client("b"), 30 * MIB), Err(NoRoom::Now { retry_after }) if retry_after.as_secs() == 60)
        );
        budget.give_back(at(5), &a, 30 * MIB, at(0));
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn addresses_of_one_network_are_one_holder() {
        let peer = |text: &str| Holder::peer(text.parse().unwrap());
        assert_eq!(peer("2001:db8:1:2::3"), peer("2001:db8:1:2:ffff::1"));
        assert_ne!(peer("2001:db8:1:2::3"), peer("2001:db8:1:3::3"));
        assert_eq!(peer("::ffff:10.0.0.1"), peer("10.0.0.1"));
        assert_ne!(peer("10.0.0.1"), peer("10.0.0.2"));
    }

    proptest! {
        #[test]
        fn the_sum_never_exceeds_the_budget_and_comes_back(
            total in MIB..1_000 * MIB,
            steps in proptest::collection::vec((0..4u8, 0..3u8, 1..200 * MIB, 0..9usize), 1..80),
        ) {
            let mut budget = MemoryBudget::new(total);
            let mut held: Vec<(Holder, u64, Timestamp)> = Vec::new();
            for (i, (what, who, bytes, which)) in (0u64..).zip(steps) {
                let (now, holder) = (at(i * 1_000), client(&who.to_string()));
                let of = |held: &[(Holder, u64, Timestamp)]| -> u64 { held.iter().filter(|h| h.0 == holder).map(|h| h.1).sum() };
                match what {
                    0 | 1 => {
                        let bytes = if what == 0 { bytes } else { bytes % LARGE_BYTES + 1 };
                        let had = of(&held);
                        match budget.take(now, &holder, bytes) {
                            Ok(()) => held.push((holder, bytes, now)),
                            Err(NoRoom::Ever) => prop_assert!(bytes > total - total / 4),
                            Err(NoRoom::Now { retry_after }) => {
                                prop_assert!(retry_after >= RETRY_AFTER.0 && retry_after <= RETRY_AFTER.1);
                                let left = total - budget.held();
                                prop_assert!(had > 0 || left < bytes + total / 4 + 1, "{left} were left for {bytes}");
                            }
                        }
                    }
                    2 if !held.is_empty() => {
                        let at = which % held.len();
                        let (holder, from, since) = held[at].clone();
                        if budget.resize(now, &holder, (from, bytes), since).is_ok() {
                            held[at].1 = bytes;
                        }
                    }
                    _ if !held.is_empty() => {
                        let (holder, bytes, since) = held.swap_remove(which % held.len());
                        budget.give_back(now, &holder, bytes, since);
                    }
                    _ => {}
                }
                prop_assert_eq!(budget.held(), held.iter().map(|h| h.1).sum::<u64>());
                prop_assert!(budget.held() <= total);
            }
            for (holder, bytes, since) in held {
                budget.give_back(at(1_000_000), &holder, bytes, since);
            }
            prop_assert!(budget.held() == 0 && budget.small.holders.is_empty() && budget.large.holders.is_empty());
            prop_assert_eq!((budget.ages.held, budget.ages.began), (0, 0));
        }
    }
}
