//! One client's money: what is spent, what is put aside, what it may spend.

use pointsman_sdk::{Counter, Spending, request};

/// Put aside for what is under way: until the end of the minute after, when the host knows of most that it was spent.
const UNDER_WAY: Counter = Counter::per_minute("budget-guard");

/// Degree to which a client has used its cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Below the first threshold.
    Plenty,
    /// Below the second.
    Careful,
    /// Below the cap.
    Saving,
    /// Nothing is left.
    Over,
}

/// The money of the client that asks, in millionths of a USD.
pub(crate) struct Purse<'a> {
    pub client: &'a str,
    pub now_ms: u64,
    pub spent: u64,
    /// Put aside by others; what this exchange has put aside for attempts that failed costs nothing.
    pub under_way: u64,
    own: u64,
    pub cap: u64,
}

impl<'a> Purse<'a> {
    /// The purse of this client, whose exchange has put `own` aside itself; none when neither the policy nor the
    /// configuration sets a cap.
    pub(crate) fn of(client: &'a str, cap: Option<u64>, own: u64, now_ms: u64) -> Option<Self> {
        let Spending { today_microusd: spent, budget_microusd } = request::spending();
        let cap = cap.or(budget_microusd)?;
        let under_way = UNDER_WAY.get(now_ms, client) + UNDER_WAY.get_last(now_ms, client);
        let under_way = under_way.max(0).cast_unsigned().saturating_sub(own);
        Some(Self { client, now_ms, spent, under_way, own, cap })
    }

    /// Returns the level by the two thresholds.
    pub(crate) fn level(&self, careful_at: f64, save_at: f64) -> Level {
        let used = self.spent.saturating_add(self.under_way);
        let is_below = |share: f64| (used as f64) < share * self.cap as f64;
        match used {
            _ if used >= self.cap => Level::Over,
            _ if is_below(careful_at) => Level::Plenty,
            _ if is_below(save_at) => Level::Careful,
            _ => Level::Saving,
        }
    }

    /// Puts the price of one attempt aside; false, and nothing is put aside, when that is more than is left. Adding comes first,
    /// so that of two at the same time not both get the last of it.
    pub(crate) fn put_aside(&self, price: u64) -> bool {
        let Ok(price @ 1..) = i64::try_from(price) else { return price == 0 };
        let this_minute = UNDER_WAY.add(self.now_ms, self.client, price);
        let under_way = this_minute.saturating_add(UNDER_WAY.get_last(self.now_ms, self.client));
        let under_way = under_way.max(0).cast_unsigned().saturating_sub(self.own);
        let fits = self.spent.saturating_add(under_way) <= self.cap;
        if !fits {
            UNDER_WAY.add(self.now_ms, self.client, -price);
        }
        fits
    }
}
