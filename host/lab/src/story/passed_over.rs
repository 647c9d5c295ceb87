//! The reasons why a decision was not for the other backends.

use std::fmt;
use std::sync::Arc;

use pointsman_core::affinity::HOME_WORDS;
use pointsman_core::contract::{Column, NONE, RowState};
use pointsman_core::table::{Lane, Table};

use super::{BackendSnapshot, of_ms, trimmed};

/// The choice of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This backend, in this lane.
    Backend {
        /// Its place in the table.
        index: u32,
        /// Lane of the dispatch.
        lane: Lane,
        /// True if the policy left the choice within the lane to the host.
        by_host: bool,
    },
    /// To wait for this lane.
    Wait(Lane),
    /// A refusal of the request.
    Reject,
}

/// A backend that could serve the request and was not chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// Id of the backend that was passed over.
    pub backend: Arc<str>,
    /// The reason as a word.
    pub why: Why,
    /// The reason as the rest of a sentence that begins with the backend's name.
    pub told: String,
}

pointsman_core::vocabulary! {
    /// The reason why a backend was not chosen.
    pub enum Why {
        /// It is in cooldown.
        Cooling = "cooling",
        /// It is at a limit.
        Throttled = "throttled",
        /// Another attempt finds out whether it is well.
        Probing = "probing",
        /// The operator took it out.
        Drained = "drained",
        /// It is ready, but not of the lane that was decided for.
        OtherLane = "other_lane",
        /// It was as open as the one that was chosen.
        Preferred = "preferred",
    }
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.backend, self.told)
    }
}

/// Explains why each of these was not chosen. `model` is the name the client asked for.
pub fn passed_over(standings: &[BackendSnapshot], choice: Choice, table: &Table, model: &str) -> Vec<PassedOver> {
    let chosen = match choice {
        Choice::Backend { index, .. } => Some(index),
        Choice::Wait(_) | Choice::Reject => None,
    };
    let judge = Judge { standings, choice, table, model };
    standings.iter().filter(|standing| Some(standing.index) != chosen).map(|standing| judge.why(standing)).collect()
}

struct Judge<'a> {
    standings: &'a [BackendSnapshot],
    choice: Choice,
    table: &'a Table,
    model: &'a str,
}

impl Judge<'_> {
    fn why(&self, standing: &BackendSnapshot) -> PassedOver {
        let (why, told) = self.told(standing);
        PassedOver { backend: standing.backend.clone(), why, told }
    }

    fn told(&self, standing: &BackendSnapshot) -> (Why, String) {
        if standing.is(RowState::Ready) {
            return self.of_ready(standing);
        }
        let condition = standing.condition();
        let why = if standing.is(RowState::Cooling) {
            Why::Cooling
        } else if standing.is(RowState::Probing) {
            Why::Probing
        } else if standing.is(RowState::Drained) {
            Why::Drained
        } else {
            Why::Throttled
        };
        match self.choice {
            Choice::Backend { lane: Lane::Emergency, index, by_host } => match standing.number(Column::EmergencyMs) {
                0 => (
                    Why::Preferred,
                    format!("{condition}, open to emergencies; {}", self.preferred(standing, index, by_host)),
                ),
                NONE => (why, format!("{condition}, and takes no emergency")),
                ms => (why, format!("{condition}, and takes an emergency only in {}", of_ms(ms))),
            },
            Choice::Wait(lane) if self.admits(lane, standing) && !standing.is(RowState::Drained) => {
                (why, format!("{condition}: waited for"))
            }
            Choice::Backend { .. } | Choice::Wait(_) | Choice::Reject => (why, condition),
        }
    }

    fn of_ready(&self, standing: &BackendSnapshot) -> (Why, String) {
        let condition = standing.condition();
        let tier = self.table.backends.get(standing.index as usize).map_or("other", |backend| backend.tier.as_str());
        match self.choice {
            Choice::Backend { lane, index, by_host } if self.admits(lane, standing) => {
                (Why::Preferred, format!("{condition}; {}", self.preferred(standing, index, by_host)))
            }
            Choice::Backend { lane, .. } => {
                (Why::OtherLane, format!("{condition}, but a {tier}; the decision was for the {} lane", lane.as_str()))
            }
            Choice::Wait(lane) if self.admits(lane, standing) => {
                let lane = lane.as_str();
                (
                    Why::Preferred,
                    format!("{condition}, and turned down: the policy chose to wait for others of the {lane} lane"),
                )
            }
            Choice::Wait(lane) => (
                Why::OtherLane,
                format!("{condition}, but a {tier}; the policy chose to wait for the {} lane", lane.as_str()),
            ),
            Choice::Reject => (Why::OtherLane, format!("{condition}; the policy refused the request all the same")),
        }
    }

    fn admits(&self, lane: Lane, standing: &BackendSnapshot) -> bool {
        self.table.backends.get(standing.index as usize).is_some_and(|backend| lane.admits(backend.tier))
    }

    /// Names who preferred the chosen one, and the numbers in which the two differ.
    fn preferred(&self, other: &BackendSnapshot, index: u32, by_host: bool) -> String {
        let who = if by_host { "the host" } else { "the policy" };
        let Some(chosen) = self.standings.iter().find(|standing| standing.index == index) else {
            return format!("{who} preferred another");
        };
        let differences = self.differences(chosen, other);
        let name = &chosen.backend;
        if differences.is_empty() {
            return format!("{who} preferred {name}, which is the same in every number");
        }
        format!("{who} preferred {name}: {}", differences.join(", "))
    }

    fn differences(&self, chosen: &BackendSnapshot, other: &BackendSnapshot) -> Vec<String> {
        let prices = [chosen, other].map(|standing| self.price(standing.index));
        let price = (prices[0] != prices[1]).then(|| format!("{} against {}", prices[0], prices[1]));
        let weights = [chosen, other].map(|s| self.table.backends.get(s.index as usize).map_or(1, |b| b.weight));
        let weight = (weights[0] != weights[1]).then(|| format!("weight {} against {}", weights[0], weights[1]));
        let of_column = |(column, name, number): &(Column, &str, fn(u32) -> String)| {
            let (is, was) = (chosen.number(*column), other.number(*column));
            (is != was).then(|| format!("{name} {} against {}", number(is), number(was)))
        };
        price.into_iter().chain(NUMBERS.iter().filter_map(of_column)).chain(weight).collect()
    }

    fn price(&self, index: u32) -> String {
        let price = self.table.backends.get(index as usize).and_then(|backend| {
            let sent = backend.sent_model(self.model)?;
            backend.price(&sent)
        });
        price.map_or_else(
            || "no price".to_owned(),
            |price| {
                format!("{} / {} USD per Mtok", trimmed(price.input_per_mtok, 6), trimmed(price.output_per_mtok, 6))
            },
        )
    }
}

/// A column, its word, and how its number is written.
type Number = (Column, &'static str, fn(u32) -> String);

/// In what two that are ready may differ.
const NUMBERS: [Number; 10] = [
    (Column::LatencyMs, "latency", known_ms),
    (Column::FirstTokenMs, "first token", known_ms),
    (Column::ErrorPermille, "errors", |n| format!("{:.1} %", f64::from(n) / 10.0)),
    (Column::Failures, "failures", |n| n.to_string()),
    (Column::InFlight, "in flight", |n| n.to_string()),
    (Column::ConcurrencyLeft, "slots free", or_unlimited),
    (Column::RequestsLeft, "requests left", or_unlimited),
    (Column::TokensLeft, "tokens left", or_unlimited),
    (Column::Queued, "waiting", |n| n.to_string()),
    (Column::Home, "home", |n| HOME_WORDS.get(n as usize).copied().unwrap_or("unknown").to_owned()),
];

fn known_ms(ms: u32) -> String {
    if ms == 0 { "unknown".to_owned() } else { of_ms(ms) }
}

fn or_unlimited(n: u32) -> String {
    if n == NONE { "unlimited".to_owned() } else { n.to_string() }
}

#[cfg(test)]
mod tests {
    use pointsman_core::contract::{BackendRow, Rows};
    use pointsman_core::outcome::Kind;

    use super::*;
    use crate::scenario::Scenario;

    fn table() -> Table {
        let backend = |id: &str, tier: &str, more: &str| {
            format!("[[backend]]\nid = \"{id}\"\ntier = \"{tier}\"\nmodels = [\"m\"]\n{more}")
        };
        let text = [
            "title = \"t\"\n".to_owned(),
            backend("a", "primary", "price = { m = { input_per_mtok = 0.1, output_per_mtok = 0.3 } }\n"),
            backend("b", "primary", "weight = 2\n"),
            backend("c", "primary", ""),
            backend("d", "fallback", ""),
            "[[request]]\nend = \"delivered\"\n".to_owned(),
        ];
        Scenario::parse(&text.concat(), "s.toml").unwrap().config.table()
    }

    fn told(rows: [&[(Column, u32)]; 4], choice: Choice) -> Vec<String> {
        let table = table();
        let standings = rows.iter().zip(0..).zip(&table.backends).map(|((changes, index), backend)| {
            let row = BackendRow::new(RowState::Ready);
            let row = changes.iter().fold(row, |row, (column, number)| row.with(*column, *number));
            let rows: Rows = [row].into_iter().collect();
            BackendSnapshot::read(&backend.id, backend.tier, index, rows.get(0).unwrap()).unwrap()
        });
        let standings: Vec<_> = standings.collect();
        passed_over(&standings, choice, &table, "m").iter().map(ToString::to_string).collect()
    }

    const COOLS: [(Column, u32); 4] = [
        (Column::State, RowState::Cooling as u32),
        (Column::CooldownMs, 2_000),
        (Column::CooldownReason, Kind::RateLimited as u32),
        (Column::EmergencyMs, NONE),
    ];

    #[test]
    fn each_that_was_not_chosen_has_its_reason() {
        let drained = [(Column::State, RowState::Drained as u32)];
        let choice = Choice::Backend { index: 0, lane: Lane::Primary, by_host: false };
        assert_eq!(
            told([&[], &COOLS, &drained, &[]], choice),
            [
                "b cools for 2 s more (rate_limited)",
                "c is drained",
                "d is ready, but a fallback; the decision was for the primary lane",
            ]
        );
    }

    #[test]
    fn between_two_that_are_ready_the_numbers_that_differ_are_told() {
        let slow = [(Column::LatencyMs, 480), (Column::InFlight, 3)];
        let choice = |by_host| Choice::Backend { index: 0, lane: Lane::Primary, by_host };
        let others = told([&[(Column::LatencyMs, 120)], &slow, &COOLS, &[]], choice(false));
        assert_eq!(
            others[0],
            "b is ready; the policy preferred a: 0.1 / 0.3 USD per Mtok against no price, \
             latency 120 ms against 480 ms, in flight 0 against 3, weight 1 against 2"
        );
        assert!(told([&[], &[], &COOLS, &[]], choice(true))[0].contains("the host preferred a"));
    }

    #[test]
    fn a_wait_and_a_refusal_have_reasons_too() {
        let others = told([&COOLS, &COOLS, &COOLS, &[]], Choice::Wait(Lane::Primary));
        assert_eq!(others[0], "a cools for 2 s more (rate_limited): waited for");
        let drained = [(Column::State, RowState::Drained as u32)];
        assert_eq!(told([&COOLS, &drained, &COOLS, &[]], Choice::Wait(Lane::Primary))[1], "b is drained");
        assert_eq!(others[3], "d is ready, but a fallback; the policy chose to wait for the primary lane");
        assert!(told([&[], &[], &[], &[]], Choice::Reject)[0].ends_with("refused the request all the same"));
    }

    #[test]
    fn an_emergency_may_use_what_cools() {
        let mut open = COOLS;
        open[3] = (Column::EmergencyMs, 0);
        let others =
            told([&open, &COOLS, &open, &[]], Choice::Backend { index: 0, lane: Lane::Emergency, by_host: false });
        assert_eq!(others[0], "b cools for 2 s more (rate_limited), and takes no emergency");
        assert!(others[1].contains("open to emergencies; the policy preferred a"), "{}", others[1]);
    }
}
