//! The backends as a policy looks at them: what is configured and the live numbers of one query, side by side.

use crate::query::{Query, Request, Row};
use crate::table::{Backend, Lane, Route, Table, Tier};
use crate::words::{Outcome, State};
use crate::{Decision, Dispatch, Load, NONE};

/// Every backend and what choosing needs of it, worked out once in `configure`.
///
/// ```
/// use pointsman_sdk::testing::{case, primary};
/// use pointsman_sdk::{Choose, Decision, Policy, Query, Roster, Table, Tier};
///
/// /// The least loaded primary that is ready; a second's wait when none is.
/// struct LeastLoaded(Roster);
///
/// impl Policy for LeastLoaded {
///     fn configure(_settings: &str, table: &Table) -> Result<Self, String> {
///         Ok(Self(Roster::new(table)))
///     }
///
///     fn decide(&mut self, query: &Query) -> Decision {
///         let ready = self.0.candidates(query).of(Tier::Primary).ready().least_tried(query);
///         match ready.least_loaded(&mut query.dice()) {
///             Some(candidate) => candidate.send(),
///             None => Decision::wait_for_primary(1_000),
///         }
///     }
/// }
///
/// let mut busy_and_idle = case([primary("busy").with("in_flight", 9), primary("idle")]);
/// assert_eq!(busy_and_idle.decision::<LeastLoaded>(), Decision::primary(1));
/// ```
#[derive(Clone, Debug)]
pub struct Roster {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    backend: Backend,
    load: Load,
    key: u64,
}

impl Roster {
    /// The backends of this table.
    pub fn new(table: &Table) -> Self {
        let entry = |backend: &Backend| {
            let mut backend = backend.clone();
            backend.routes.sort_by_key(|route| route.model);
            Entry { load: Load::of(&backend), key: hash(&backend.id), backend }
        };
        Self { entries: table.backends.iter().map(entry).collect() }
    }

    /// The backends that may take this request, now or later, in the order of the table. Left out are those that do not
    /// serve the model, are drained, or have said in this exchange that no other try can succeed
    /// ([`Query::is_ruled_out`]). [`Choose`](crate::Choose) narrows them down.
    pub fn candidates<'a>(&'a self, query: &'a Query<'a>) -> impl Iterator<Item = Candidate<'a>> + Clone {
        self.all(query).filter(|c| c.row.is_candidate() && !query.is_ruled_out(c.index()))
    }

    /// All backends, also those that cannot take this request: for requests that are to ask for another model.
    pub fn all<'a>(&'a self, query: &'a Query<'a>) -> impl Iterator<Item = Candidate<'a>> + Clone {
        self.entries.iter().enumerate().map(|(index, entry)| Candidate { entry, row: query.backend(index) })
    }

    /// The backend with this index in the table.
    pub fn get<'a>(&'a self, query: &'a Query<'a>, index: usize) -> Option<Candidate<'a>> {
        self.entries.get(index).map(|entry| Candidate { entry, row: query.backend(index) })
    }
}

/// One backend at the time of one query.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    entry: &'a Entry,
    row: Row<'a>,
}

impl<'a> Candidate<'a> {
    /// Tokens of an answer when the client did not limit it; a smaller limit counts, a larger one is rarely used up.
    const USUAL_ANSWER_TOKENS: u32 = 500;

    /// Its index in the table.
    pub fn index(&self) -> usize {
        self.row.index()
    }

    /// Its name.
    pub fn id(&self) -> &'a str {
        &self.entry.backend.id
    }

    /// Its tier.
    pub fn tier(&self) -> Tier {
        self.entry.backend.tier
    }

    /// All that is configured of it, routes in the order of the table's models.
    pub fn backend(&self) -> &'a Backend {
        &self.entry.backend
    }

    /// Its live numbers.
    pub fn row(&self) -> Row<'a> {
        self.row
    }

    /// Number that stands for it in [`crate::state`]: it comes from the name, so it stays the same when the
    /// table changes around it.
    pub fn key(&self) -> u64 {
        self.entry.key
    }

    /// The lane of its tier.
    pub fn lane(&self) -> Lane {
        match self.tier() {
            Tier::Primary => Lane::Primary,
            Tier::Fallback => Lane::Fallback,
        }
    }

    /// Send the request there, in the lane of its tier.
    pub fn send(&self) -> Decision {
        match self.tier() {
            Tier::Primary => Decision::Primary(Dispatch::to(self.index())),
            Tier::Fallback => Decision::Fallback(Dispatch::to(self.index())),
        }
    }

    /// The operator's word for `name` in the backend's labels.
    pub fn label(&self, name: &str) -> Option<&'a str> {
        self.entry.backend.labels.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns the load in 1/1000: that of its fullest limit.
    pub fn load_permille(&self) -> u32 {
        self.entry.load.permille(self.row)
    }

    /// Returns the cost that one more request here has for others: [`Load::cost`].
    pub fn cost(&self, request: &Request) -> u64 {
        self.entry.load.cost(self.row, request.streaming)
    }

    /// Returns its route for a model of the table; none when it does not serve it, or does not list it.
    pub fn route(&self, model: usize) -> Option<&'a Route> {
        let routes = &self.entry.backend.routes;
        routes.binary_search_by_key(&model, |route| route.model).ok().map(|at| &routes[at])
    }

    /// Cost of this request here, in millionths of a USD, by the estimated tokens of the prompt and a usual
    /// answer (500 tokens, fewer where the client says so); none where no price is configured.
    ///
    /// ```
    /// use pointsman_sdk::testing::{case, fallback};
    /// use pointsman_sdk::Roster;
    ///
    /// let case = case([fallback("a").price(1.0, 4.0), fallback("b")]).prompt_tokens(1_000);
    /// let roster = Roster::new(&case.table());
    /// let prices = case.query(|query| roster.all(query).map(|c| c.price_microusd(&query.request)).collect::<Vec<_>>());
    /// assert_eq!(prices, [Some(1_000 + 2_000), None]);
    /// ```
    pub fn price_microusd(&self, request: &Request) -> Option<u64> {
        self.price_as_microusd(request, request.model?)
    }

    /// The same for another model of the table.
    pub fn price_as_microusd(&self, request: &Request, model: usize) -> Option<u64> {
        let route = self.route(model)?;
        let answer_tokens = match request.max_tokens {
            0 => Self::USUAL_ANSWER_TOKENS,
            most => most.min(Self::USUAL_ANSWER_TOKENS),
        };
        // USD per million tokens times tokens is millionths of a USD.
        let input = f64::from(request.prompt_tokens) * route.input_per_mtok?;
        Some((input + f64::from(answer_tokens) * route.output_per_mtok?) as u64)
    }

    /// Returns its learned time to answer in ms: to the first token of a stream, else to the end; none while nothing is
    /// known of it yet.
    pub fn answer_ms(&self, request: &Request) -> Option<u32> {
        let first_token_ms = self.row.first_token_ms();
        let ms = if request.streaming && first_token_ms != 0 { first_token_ms } else { self.row.latency_ms() };
        (ms != 0).then_some(ms)
    }

    /// Returns true if it is excluded (key, credit or model), which holds in an emergency too.
    pub fn is_hopeless(&self) -> bool {
        matches!(self.row.state(), State::Cooling | State::Probing)
            && matches!(
                self.row.cooldown_reason(),
                Outcome::Unauthorised | Outcome::OutOfCredit | Outcome::ModelMissing
            )
    }

    /// Time until it is ready, in ms; none when unknown.
    pub fn ready_ms(&self) -> Option<u32> {
        Some(self.row.ready_ms()).filter(|&ms| ms != NONE)
    }

    pub(crate) fn weight(&self) -> u32 {
        self.entry.load.weight
    }
}

/// FNV-1a: names are short, and the same name must give the same number in every build.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
