//! Common parts of choosing among backends.

use crate::NONE;
use crate::query::Row;
use crate::table::{Backend, Table, Tier};

/// The backends of a tier that may serve a model, by index; `None` stands for a name that is not listed, and leaves it
/// to the row's state which backend serves it.
pub fn pool(table: &Table, tier: Tier, model: Option<usize>) -> Vec<usize> {
    let serves = |backend: &Backend| match model {
        None => true,
        Some(model) => backend.any_model || backend.routes.iter().any(|route| route.model == model),
    };
    (0..table.backends.len()).filter(|&i| table.backends[i].tier == tier && serves(&table.backends[i])).collect()
}

/// The row that will be ready first, and in how many ms; none where no row says when.
pub fn soonest_ready<'a>(rows: impl Iterator<Item = Row<'a>>) -> Option<(usize, u32)> {
    rows.map(|row| (row.index(), row.ready_ms())).filter(|&(_, ms)| ms != NONE).min_by_key(|&(_, ms)| ms)
}

/// Limits of a backend that its load is measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Share of traffic, at least 1.
    pub weight: u32,
    /// Requests a minute; [`NONE`] unlimited.
    pub rpm: u32,
    /// Tokens a minute; [`NONE`] unlimited.
    pub tpm: u32,
}

impl Load {
    /// Attempts under way, per unit of weight, at which a backend without limits counts as half full.
    const HALF_FULL_PER_WEIGHT: u32 = 16;

    /// The measure of this backend.
    pub fn of(backend: &Backend) -> Self {
        Self { weight: backend.weight.max(1), rpm: backend.rpm.unwrap_or(NONE), tpm: backend.tpm.unwrap_or(NONE) }
    }

    /// Returns the load in 1/1000: that of its fullest limit.
    #[inline]
    pub fn permille(&self, row: Row) -> u32 {
        let in_flight = row.in_flight();
        let soft = share(in_flight, self.weight.saturating_mul(Self::HALF_FULL_PER_WEIGHT));
        let slots = share(in_flight, row.concurrency_left());
        slots.max(soft).max(used(row.requests_left(), self.rpm)).max(used(row.tokens_left(), self.tpm))
    }

    /// Cost of one more request here to everybody, in no unit; smaller is better. Fullness up to doubles it, each
    /// failure since the last answer adds it once more, each percent of errors a tenth, and a tenfold time to answer
    /// about 40 %.
    #[inline]
    pub fn cost(&self, row: Row, streaming: bool) -> u64 {
        let trouble =
            1_000 + u64::from(row.error_permille().min(1_000)) * 10 + u64::from(row.failures().min(100)) * 1_000;
        let fullness = 1_000 + u64::from(self.permille(row));
        slowness(row, streaming) * fullness * trouble
    }
}

/// The time to answer on a logarithmic scale, 8 steps to a doubling; an unknown time counts as half a second.
#[inline]
fn slowness(row: Row, streaming: bool) -> u64 {
    const UNKNOWN_MS: u32 = 512;
    let first_token = row.first_token_ms();
    let ms = match if streaming && first_token != 0 { first_token } else { row.latency_ms() } {
        0 => UNKNOWN_MS,
        ms => ms.max(8),
    };
    let log2 = ms.ilog2();
    let eighths = (ms >> (log2 - 3)) & 7;
    u64::from(log2 * 8 + eighths)
}

/// `part` of `part + rest`, in 1/1000; 0 where the rest is unlimited.
#[inline]
fn share(part: u32, rest: u32) -> u32 {
    if rest == NONE || part == 0 {
        return 0;
    }
    let part = part.min(1 << 20);
    part * 1_000 / part.saturating_add(rest).max(1)
}

/// Returns the used part of a limit in 1/1000; 0 where it is unlimited.
#[inline]
fn used(left: u32, limit: u32) -> u32 {
    if left == NONE || limit == NONE || limit == 0 {
        return 0;
    }
    let left = left.min(limit);
    (u64::from(limit - left) * 1_000 / u64::from(limit)) as u32
}
