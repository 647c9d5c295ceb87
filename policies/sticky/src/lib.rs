//! A session stays where its prompt cache is.
//!
//! 1. Every session has a **home** among the primaries that serve its model: by rendezvous hashing, so that it needs no
//!    memory and a change of the table moves few sessions.
//!    Where the host knows a backend that holds what the request builds on (the column `home`: a stored response, a file, a prompt
//!    cache), that is its place, with `return_home` after the session's own.
//! 2. It stays while its place is ready, is tried twice before it counts as lost for the exchange, and waits there as long
//!    as the place recovers within `stay_ms`.
//! 3. Else it moves: to the primary that is next by the same hashing. The shared state keeps where it is for
//!    `remember_minutes` after its last request there. With `return_home` it goes back as soon as its home is ready, without it
//!    stays at the new place.
//! 4. With no primary to move to: wait for one, the cheapest fallback (of equals by the same hashing), the emergency lane,
//!    give up.
//!
//! A request without a session goes to the least loaded primary.

use pointsman_sdk::settings::{self, within};
use pointsman_sdk::{Candidate, Choose, Decision, Patience, Policy, Query, Roster, Table, Tier, note, state};
use serde::Deserialize;

/// Settings of the policy; see `README.md`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    stay_ms: u32,
    return_home: bool,
    remember_minutes: u32,
    primary_wait_ms: u32,
    primary_wait_max_retries: u32,
    max_pool_retries: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stay_ms: 10_000,
            return_home: false,
            remember_minutes: 60,
            primary_wait_ms: 5_000,
            primary_wait_max_retries: 6,
            max_pool_retries: 3,
        }
    }
}

/// The policy.
pub struct Sticky {
    settings: Settings,
    roster: Roster,
}

pointsman_sdk::export!(Sticky);

impl Policy for Sticky {
    fn configure(settings: &str, table: &Table) -> Result<Self, String> {
        let settings: Settings = settings::parse(settings)?;
        within("stay_ms", settings.stay_ms, 0..=600_000)?;
        within("remember_minutes", settings.remember_minutes, 1..=10_080)?;
        within("primary_wait_ms", settings.primary_wait_ms, 0..=600_000)?;
        within("primary_wait_max_retries", settings.primary_wait_max_retries, 0..=1_000)?;
        within("max_pool_retries", settings.max_pool_retries, 0..=100)?;
        Ok(Self { settings, roster: Roster::new(table) })
    }

    fn decide(&mut self, query: &Query) -> Decision {
        let candidates = self.roster.candidates(query);
        let in_budget = candidates.clone().with_retries_left(query, self.settings.max_pool_retries);
        let (primaries, fallbacks) = (in_budget.clone().of(Tier::Primary), in_budget.of(Tier::Fallback));
        let longest_ms = self.settings.primary_wait_ms;
        self.stay(query, primaries.clone())
            .or_else(|| self.spread(query, primaries.clone()))
            .or_else(|| primaries.wait(query, self.patience(longest_ms)))
            .or_else(|| self.spread(query, fallbacks.clone().ready().cheapest(&query.request)))
            .or_else(|| fallbacks.wait(query, self.patience(longest_ms)))
            .or_else(|| candidates.emergency(query, self.patience(longest_ms)))
            .unwrap_or_else(Decision::exhausted)
    }
}

impl Sticky {
    /// At home or where the session has moved, now or after a wait.
    fn stay<'a>(&'a self, query: &'a Query<'a>, primaries: impl Choose<'a>) -> Option<Decision> {
        const TRIES: u32 = 2;
        let held = primaries.clone().find(|c| c.row().home() != 0).map(|c| c.key());
        let session = Session::of(query);
        let home = session.and_then(|session| self.home(query, session)).map(|home| home.key());
        let moved = session.and_then(Session::place);
        let places = if self.settings.return_home {
            [home, held, moved]
        } else {
            [held, moved.or(home).filter(|key| held != Some(*key)), None]
        };
        let usable = places.into_iter().flatten().filter_map(|key| primaries.clone().find(|c| c.key() == key));
        let usable = usable.filter(|place| query.tries(place.index()) < TRIES);
        if let Some(place) = usable.clone().ready().next() {
            if let Some(session) = session.filter(|_| home != Some(place.key())) {
                session.remember(&place, self.settings.remember_minutes);
            }
            return Some(place.send());
        }
        // One wait more, and never more than an exchange may have.
        let waits = self.settings.primary_wait_max_retries.min(query.waits + 1);
        usable.wait(query, Patience { longest_ms: self.settings.stay_ms, waits })
    }

    /// To the next place of a session, which it keeps; without a session to the least loaded.
    fn spread<'a>(&'a self, query: &'a Query<'a>, candidates: impl Choose<'a>) -> Option<Decision> {
        let ready = candidates.ready().least_tried(query);
        let Some(session) = Session::of(query) else {
            return Some(ready.least_loaded(&mut query.dice())?.send());
        };
        let place = ready.by_session(query.request.session)?;
        if place.tier() == Tier::Primary {
            note(&format!("the session moves to {}: its place is out", place.id()));
            session.remember(&place, self.settings.remember_minutes);
        }
        Some(place.send())
    }

    /// Returns the backend of a session, usable now or not: it must not change with its state.
    fn home<'a>(&'a self, query: &'a Query<'a>, session: Session) -> Option<Candidate<'a>> {
        let serves = |c: &Candidate| match query.request.model {
            Some(model) => c.route(model).is_some() || c.backend().any_model,
            None => c.backend().any_model,
        };
        self.roster.all(query).of(Tier::Primary).filter(serves).by_session(session.0)
    }

    fn patience(&self, longest_ms: u32) -> Patience {
        Patience { longest_ms, waits: self.settings.primary_wait_max_retries }
    }
}

/// The number of a session. Its place is kept in the shared state only while that is not its home.
#[derive(Clone, Copy)]
struct Session(u64);

impl Session {
    fn of(query: &Query) -> Option<Self> {
        (query.request.session != 0).then_some(Self(query.request.session))
    }

    /// The key of the backend it has moved to.
    fn place(self) -> Option<u64> {
        state::get(&self.state_key()).map(i64::cast_unsigned)
    }

    fn remember(self, place: &Candidate, minutes: u32) {
        state::set(&self.state_key(), place.key().cast_signed(), u64::from(minutes) * 60_000);
    }

    fn state_key(self) -> String {
        format!("sticky/{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use pointsman_sdk::Outcome;
    use pointsman_sdk::testing::{Case, case, fallback, primary};

    use super::*;

    fn three() -> Case {
        case([primary("a"), primary("b"), primary("c"), fallback("d")]).session("s", 7)
    }

    fn place(case: &Case) -> usize {
        let decision = case.decision::<Sticky>();
        decision.backend().unwrap_or_else(|| panic!("{decision:?}"))
    }

    /// With the backend at this place in a cooldown of so many ms.
    fn cooling(case: &Case, at: usize, left_ms: u32) -> Case {
        let mut case = case.clone();
        case.backends[at] = case.backends[at].clone().cooling(Outcome::RateLimited, left_ms);
        case
    }

    #[test]
    fn a_session_has_a_home_and_sessions_have_different_ones() {
        let home = place(&three());
        assert_eq!(three().shares::<Sticky>()[home], 1_000);
        let homes = |at| (1..=300).filter(|&s| place(&three().session("s", s)) == at).count();
        assert!((0..3).all(|at| homes(at).abs_diff(100) < 40));
    }

    #[test]
    fn it_waits_at_home_for_a_short_while() {
        let home = place(&three());
        assert_eq!(cooling(&three(), home, 9_000).decision::<Sticky>(), Decision::wait_for_primary(10_000));
        assert_ne!(place(&cooling(&three(), home, 11_000)), home);
        let impatient = cooling(&three(), home, 9_000).settings(r#"{"stay_ms": 0}"#);
        assert_ne!(place(&impatient), home);
    }

    #[test]
    fn it_stays_at_its_new_place_or_returns_as_configured() {
        let home = place(&three());
        for (settings, returns) in [("", false), (r#"{"return_home": true}"#, true)] {
            let mut moving = cooling(&three(), home, 60_000).settings(settings);
            let answer = moving.ask::<Sticky>();
            assert!(answer.notes[0].starts_with("the session moves to "), "{:?}", answer.notes);
            let away = place(&moving);
            assert!(moving.ask::<Sticky>().notes.is_empty(), "it has moved already");
            moving.backends = three().backends;
            assert_eq!(place(&moving), if returns { home } else { away });
            moving.now_ms += 61 * 60_000;
            assert_eq!(place(&moving), home, "after an hour its cache is gone anywhere");
        }
    }

    #[test]
    fn what_the_host_knows_to_hold_the_request_is_its_place() {
        let home = place(&three());
        for other in (0..3).filter(|other| *other != home) {
            let mut held = three();
            held.backends[other] = held.backends[other].clone().with("home", 1);
            assert_eq!(place(&held), other);
            assert_eq!(place(&held.clone().settings(r#"{"return_home": true}"#)), home);
            assert_eq!(place(&held.session("", 0)), other, "without a session too");
        }
    }

    #[test]
    fn a_place_is_tried_twice_and_then_others() {
        let home = place(&three());
        assert_eq!(place(&three().after(home, Outcome::ServerError)), home);
        assert_ne!(place(&three().after_times(2, home, Outcome::ServerError)), home);
        assert_ne!(place(&three().after(home, Outcome::TooLong)), home);
    }

    #[test]
    fn a_drained_home_moves_only_its_own_sessions() {
        let mut drained = three();
        drained.backends[1] = drained.backends[1].clone().drained();
        for session in 1..=200 {
            let before = place(&three().session("s", session));
            let after = place(&drained.clone().session("s", session));
            assert!(before == after || before == 1, "session {session}: {before} -> {after}");
        }
    }

    #[test]
    fn with_no_primary_it_waits_then_pays() {
        let lost = || case([primary("a").cooling(Outcome::RateLimited, 60_000), fallback("d")]).session("s", 7);
        assert_eq!(lost().decision::<Sticky>(), Decision::fallback(1));
        let soon = case([primary("a").cooling(Outcome::RateLimited, 4_000), fallback("d")]);
        assert_eq!(soon.clone().session("s", 7).decision::<Sticky>(), Decision::wait_for_primary(10_000));
        assert_eq!(soon.decision::<Sticky>(), Decision::wait_for_primary(5_000));
    }

    #[test]
    fn without_a_session_the_least_loaded_is_used() {
        let busy = case([primary("a").with("in_flight", 5), primary("b")]);
        assert_eq!(busy.shares::<Sticky>(), [0, 1_000]);
    }
}
