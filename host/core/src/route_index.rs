//! A backend's routes, looked up for many names: each at once instead of one route after another.

use std::collections::HashMap;

use super::table::{Backend, Pattern, Route};

/// The routes of a backend.
pub struct RouteIndex<'a> {
    backend: &'a Backend,
    /// The first route of each literal name.
    literal: HashMap<&'a str, usize>,
    /// Numbers of routes with a pattern, in their order.
    patterns: Vec<usize>,
}

impl<'a> RouteIndex<'a> {
    /// Indexes the routes of a backend.
    pub fn new(backend: &'a Backend) -> Self {
        let (mut literal, mut patterns) = (HashMap::new(), Vec::new());
        for (at, route) in backend.routes.iter().enumerate() {
            match &route.asked {
                Pattern::Exact(name) => {
                    literal.entry(name.as_str()).or_insert(at);
                }
                Pattern::Glob { .. } => patterns.push(at),
            }
        }
        Self { backend, literal, patterns }
    }

    /// Returns what [`Backend::sent_model`] does.
    pub fn sent_model(&self, asked: &str) -> Option<String> {
        if self.backend.routes.is_empty() {
            return Some(asked.to_owned());
        }
        self.route(asked)?.sent(asked)
    }

    /// Returns what [`Backend::serves`] does.
    pub fn serves(&self, asked: &str) -> bool {
        self.backend.routes.is_empty() || self.route(asked).is_some()
    }

    /// The first route for this name; none where that says that the name is not served.
    fn route(&self, asked: &str) -> Option<&'a Route> {
        let routes = &self.backend.routes;
        let literal = self.literal.get(asked).copied();
        let before = |at: &usize| literal.is_none_or(|literal| *at < literal);
        let mut patterns = self.patterns.iter().copied().take_while(before);
        let first = patterns.find(|at| routes[*at].asked.capture(asked).is_some()).or(literal)?;
        Some(&routes[first]).filter(|route| route.is_served())
    }
}

#[cfg(test)]
mod tests {

    use proptest::prelude::*;

    use super::*;

    fn backend(routes: Vec<Route>) -> Backend {
        Backend { routes, ..Backend::new("a") }
    }

    proptest! {
        #[test]
        fn it_finds_what_the_backend_finds(
            routes in prop::collection::vec(("[ab]{0,2}\\*?[ab]{0,1}", "x?\\*?"), 0..8),
            asked in "[ab]{0,3}",
        ) {
            let route = |(asked, sent): (String, String)| Some(Route { asked: Pattern::parse(&asked)?, sent });
            let backend = backend(routes.into_iter().filter_map(route).collect());
            let index = RouteIndex::new(&backend);
            prop_assert_eq!(index.sent_model(&asked), backend.sent_model(&asked));
            prop_assert_eq!(index.serves(&asked), backend.serves(&asked));
        }
    }
}
