//! `models` of a backend: names asked and names sent.

use pointsman_core::table::{Pattern, Route};

use super::Check;
use crate::raw::{RawModels, RawSent};
use crate::tree::Path;

impl Check<'_, '_> {
    /// Exact names first; then globs, the longer (more exact) before the shorter.
    pub(super) fn routes(&mut self, at: &Path, models: RawModels) -> Vec<Route> {
        let pairs: Vec<(String, RawSent, Path)> = match models {
            RawModels::Named(map) => {
                map.into_iter().map(|(asked, sent)| (asked.clone(), sent, at.key(&asked))).collect()
            }
            RawModels::Plain(list) => {
                list.into_iter().enumerate().map(|(i, name)| (name, RawSent::Served(true), at.index(i))).collect()
            }
        };
        if pairs.iter().all(|(_, sent, _)| matches!(sent, RawSent::Served(false))) {
            self.error(at, "this backend would serve no model").help("leave `models` out to let it serve every model");
        }
        let mut routes = Vec::new();
        for (asked, sent, place) in pairs {
            let sent = match sent {
                RawSent::As(name) => name,
                RawSent::Served(true) => asked.clone(),
                RawSent::Served(false) => {
                    routes.extend(self.pattern(&place, &asked).map(|asked| Route { asked, sent: String::new() }));
                    continue;
                }
            };
            match self.pattern(&place, &asked) {
                Some(_) if sent.is_empty() || sent.matches('*').count() > usize::from(asked.contains('*')) => {
                    let problem = self.error(&place, format!("`{asked}` cannot be sent as `{sent}`"));
                    problem.help("what is sent needs a name, and may have one * only if the name asked for has one");
                }
                Some(asked) => routes.push(Route { asked, sent }),
                None => {}
            }
        }
        routes.sort_by_key(|route| match &route.asked {
            Pattern::Exact(_) => 0,
            Pattern::Glob { prefix, suffix } => usize::MAX - prefix.len() - suffix.len(),
        });
        routes
    }

    pub(super) fn pattern(&mut self, at: &Path, text: &str) -> Option<Pattern> {
        let pattern = Pattern::parse(text);
        if pattern.is_none() {
            self.error(at, format!("`{text}` is not a model name")).help("write a name with at most one *");
        }
        pattern
    }
}
