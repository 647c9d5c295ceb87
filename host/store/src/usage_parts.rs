//! The parts of an exchange's usage that its client, model, backends and lanes have.

/// An hour, in µs.
pub(super) const HOUR_US: i64 = 3_600_000_000;

/// Sums of a row, in the order in which they stand everywhere.
pub(super) const COLUMNS: &str =
    "requests, failures, attempts, input_tokens, output_tokens, cached_input_tokens, cost_usd,
    waits, waited_ms, denied, compared_waited, saved_waited_usd, compared, saved_usd";

/// The property of exchanges by whose members they are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Dimension {
    /// The client key's name.
    Client,
    /// The model as asked.
    Model,
    /// The backend.
    Backend,
    /// The lane.
    Lane,
}

impl Dimension {
    /// Every dimension.
    pub(super) const ALL: [Self; 4] = [Self::Client, Self::Model, Self::Backend, Self::Lane];

    /// The word for it, which is the name of its column.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Model => "model",
            Self::Backend => "backend",
            Self::Lane => "lane",
        }
    }
}

/// SQL for the parts of each exchange, by this dimension; of those with a key from `?1` to before `?2`. A resumed stream has cost at
/// two backends: by backend and lane, tokens and cost are taken from the attempts, the rest from the exchange.
pub(super) fn parts_sql(dimension: Dimension) -> String {
    let member = dimension.as_str();
    let (of_whole, of_attempts) = match dimension {
        Dimension::Client | Dimension::Model => {
            ("attempts, input_tokens, output_tokens, cached_input_tokens, cost_usd", String::new())
        }
        Dimension::Backend | Dimension::Lane => (
            "0 AS attempts, 0 AS input_tokens, 0 AS output_tokens, 0 AS cached_input_tokens, 0.0 AS cost_usd",
            format!(
                "UNION ALL
                 SELECT {member}, ended_us, 0, 0, 1, input_tokens, output_tokens, cached_input_tokens, cost_usd, 0, 0, 0, 0,
                     NULL, 0, NULL
                 FROM attempts WHERE ended_us >= ?1 AND ended_us < ?2"
            ),
        ),
    };
    format!(
        "SELECT {member} AS member, ended_us, denied IS NULL AS requests, {FAILED} AS failures, {of_whole}, waits, waited_ms,
             denied IS NOT NULL AS denied, {COMPARED} AND waits > 0 AS compared_waited,
             CASE WHEN {COMPARED} AND waits > 0 THEN saved_usd END AS saved_waited_usd,
             {COMPARED} AND waits = 0 AS compared, CASE WHEN {COMPARED} AND waits = 0 THEN saved_usd END AS saved_usd
         FROM exchanges WHERE ended_us >= ?1 AND ended_us < ?2 {of_attempts}"
    )
}

/// 1 for an exchange that was answered outside the fallback lane, so that its savings can be asked for.
const COMPARED: &str = "(end = 'delivered' AND coalesce(lane, '') IN ('primary', 'emergency'))";

/// 1 for an exchange that the client did not get what it asked for; its going away is its own affair.
const FAILED: &str = "end IN ('refused', 'rejected', 'broken')";
