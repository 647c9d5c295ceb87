//! Savings of a delivered answer compared with the cheapest fallback.

use super::Exchange;
use crate::record::End;
use crate::saving::saved_usd;
use crate::table::Lane;
use crate::usd::total_usd;

impl Exchange {
    /// Returns the savings of the answer in USD; `None` when unknown, or when nothing was answered outside the
    /// fallback lane. To be called before [`Exchange::take_attempts`].
    pub fn saved_usd(&self, end: End, lane: Option<Lane>) -> Option<f64> {
        let lane = lane.filter(|_| end == End::Delivered)?;
        let answer = self.attempts.last()?.usage;
        let paid_usd = total_usd(self.attempts.iter().map(|attempt| attempt.cost_usd));
        saved_usd(&self.view.table, &self.whole_want().candidates, &self.want.model, lane, answer, paid_usd)
    }
}
