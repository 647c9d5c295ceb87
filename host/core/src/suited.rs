//! Candidates for a request, and the reason why a backend is none.

use crate::contract::Operation;
use crate::dialect::translate::Translation;
use crate::table::{Backend, Route, Table, UNKNOWN_MODEL};

/// The capability that says whether `*` stands for embedding models too; they cannot replace one another.
pub const EMBEDDINGS: &str = "embeddings";

/// Model patterns listed of one backend.
const SHOWN_MODELS: usize = 6;

/// Characters of one name that are shown.
const SHOWN_CHARS: usize = 80;

/// The reason why a backend is no candidate for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsuited {
    /// It does not serve the model.
    Model,
    /// It serves the model by `*`, and that does not stand for embedding models.
    Embeddings,
    /// It has another dialect, which has no such operation.
    Operation,
    /// It has another dialect and does not serve the model by a name of its own: it would be asked for the other provider's.
    Unnamed,
    /// It has another dialect, and this request cannot be said in it.
    Untranslatable,
}

impl Unsuited {
    /// Returns the reason why a `backend` of the table cannot take a request, `None` for a candidate. `translatable`: the
    /// request may be translated to another dialect.
    pub fn of(table: &Table, backend: &Backend, model: &str, operation: Operation, translatable: bool) -> Option<Self> {
        if takes_operation(table, backend, operation) {
            let is_refused = !takes_model(backend, model, operation);
            return is_refused.then(|| if backend.serves(model) { Unsuited::Embeddings } else { Unsuited::Model });
        }
        if Translation::of(operation, backend.dialect).is_none() {
            return Some(Unsuited::Operation);
        }
        match (backend.names(model), backend.serves(model), translatable) {
            (true, _, true) => None,
            (true, _, false) => Some(Unsuited::Untranslatable),
            (false, true, _) => Some(Unsuited::Unnamed),
            (false, false, _) => Some(Unsuited::Model),
        }
    }

    /// The reason as the rest of a sentence that begins with the backend's id.
    pub fn told(self, backend: &Backend, operation: Operation) -> String {
        let (dialect, operation) = (backend.dialect.as_str(), operation.as_str());
        match self {
            Unsuited::Model if backend.has_star() => format!("does not serve it: it serves {}", served_models(backend)),
            Unsuited::Model => format!("serves only {}", served_models(backend)),
            Unsuited::Embeddings => "takes embedding requests only for models that it names".to_owned(),
            Unsuited::Operation => {
                format!("has the {dialect} dialect, and {operation} requests are not translated to it")
            }
            Unsuited::Unnamed => {
                format!("has the {dialect} dialect, and gets translated requests only for models that it names")
            }
            Unsuited::Untranslatable => {
                format!("has the {dialect} dialect, and this request cannot be translated to it")
            }
        }
    }
}

/// Returns true if requests of this operation can be sent to it as they are. What no dialect knows goes to any of the table,
/// if none of those whose dialect takes such requests is there.
pub(crate) fn takes_operation(table: &Table, backend: &Backend, operation: Operation) -> bool {
    let takes = |backend: &Backend| backend.dialect.format().takes(operation);
    takes(backend) || operation == Operation::Other && !table.backends.iter().any(takes)
}

/// Returns true if it serves this model for the operation. A request without a model may go to any backend.
pub(crate) fn takes_model(backend: &Backend, model: &str, operation: Operation) -> bool {
    let star_is_enough =
        operation != Operation::Embedding || backend.capabilities.get(EMBEDDINGS).copied().unwrap_or(true);
    model == UNKNOWN_MODEL || if star_is_enough { backend.serves(model) } else { backend.lists(model) }
}

/// The models a backend serves, in words and bounded: "gpt-*, o1* and 3 more, and any other as gpt-4.1-mini".
pub fn served_models(backend: &Backend) -> String {
    let (served, excepted): (Vec<&Route>, Vec<&Route>) = backend.routes.iter().partition(|route| route.is_served());
    let (stars, named): (Vec<&Route>, Vec<&Route>) = served.into_iter().partition(|route| route.asked.is_any());
    let mut words = patterns(&named);
    let any = if words.is_empty() { "any model" } else { ", and any other" };
    match stars.first() {
        Some(star) if star.sent == "*" => words += any,
        Some(star) => words = format!("{words}{any} as {}", shown(&star.sent)),
        None if backend.routes.is_empty() => words += any,
        None => {}
    }
    if excepted.is_empty() { words } else { format!("{words} except {}", patterns(&excepted)) }
}

fn patterns(routes: &[&Route]) -> String {
    let mut all: Vec<String> = routes.iter().map(|route| shown(&route.asked.to_string())).collect();
    all.sort_unstable();
    let listed = &all[..all.len().min(SHOWN_MODELS)];
    match routes.len().saturating_sub(SHOWN_MODELS) {
        0 => listed.join(", "),
        more => format!("{} and {more} more", listed.join(", ")),
    }
}

/// A name, or as much of it as is shown.
pub fn shown(name: &str) -> String {
    match name.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;
    use crate::table::Pattern;

    fn backend(dialect: Dialect, routes: &[(&str, &str)]) -> Backend {
        let route =
            |(asked, sent): &(&str, &str)| Route { asked: Pattern::parse(asked).unwrap(), sent: (*sent).to_owned() };
        Backend { dialect, routes: routes.iter().map(route).collect(), ..Backend::new("a") }
    }

    fn told(backend: &Backend, model: &str, operation: Operation) -> Option<String> {
        Unsuited::of(&alone(backend), backend, model, operation, true).map(|why| why.told(backend, operation))
    }

    fn alone(backend: &Backend) -> Table {
        Table::new(vec![backend.clone()], Vec::new())
    }

    #[test]
    fn a_backend_says_which_models_it_serves_and_no_longer_than_can_be_read() {
        let words = |routes: &[(&str, &str)]| served_models(&backend(Dialect::OPENAI, routes));
        assert_eq!(words(&[]), "any model");
        assert_eq!(words(&[("*", "*")]), "any model");
        assert_eq!(words(&[("*", "one")]), "any model as one");
        assert_eq!(words(&[("m", "m"), ("gpt-*", "gpt-*")]), "gpt-*, m");
        assert_eq!(words(&[("m", "m"), ("gpt-*", ""), ("*", "n")]), "m, and any other as n except gpt-*");
        let long = "x".repeat(500);
        let many: Vec<(&str, &str)> = vec![(&long, "m"); 30];
        assert!(words(&many).len() < 600 && words(&many).ends_with(" and 24 more"), "{}", words(&many));
    }

    #[test]
    fn a_backend_says_why_a_request_is_not_for_it() {
        let gpt = backend(Dialect::OPENAI, &[("gpt-*", "gpt-*")]);
        assert_eq!(told(&gpt, "gpt-5", Operation::Chat), None);
        assert_eq!(told(&gpt, UNKNOWN_MODEL, Operation::Chat), None);
        assert_eq!(told(&gpt, "llama", Operation::Chat).unwrap(), "serves only gpt-*");
        let claude = backend(Dialect::ANTHROPIC, &[("claude-*", "claude-*")]);
        assert_eq!(told(&claude, "claude-x", Operation::Chat), None);
        assert_eq!(told(&claude, "llama", Operation::Chat).unwrap(), "serves only claude-*");
        assert!(
            told(&claude, "claude-x", Operation::Embedding).unwrap().contains("embedding requests are not translated")
        );
        let any = backend(Dialect::ANTHROPIC, &[]);
        assert!(told(&any, "llama", Operation::Chat).unwrap().contains("only for models that it names"));
        let untranslatable = Unsuited::of(&alone(&claude), &claude, "claude-x", Operation::Chat, false).unwrap();
        assert!(untranslatable.told(&claude, Operation::Chat).contains("cannot be translated"));
    }

    #[test]
    fn one_model_for_all_others_is_named_and_crosses_dialects() {
        let haiku = backend(Dialect::ANTHROPIC, &[("*", "claude-haiku")]);
        assert_eq!(told(&haiku, "llama", Operation::Chat), None);
        assert_eq!(haiku.sent_model("llama").as_deref(), Some("claude-haiku"));
        let as_asked = backend(Dialect::ANTHROPIC, &[("*", "*")]);
        assert_eq!(Unsuited::of(&alone(&as_asked), &as_asked, "llama", Operation::Chat, true), Some(Unsuited::Unnamed));
    }

    #[test]
    fn a_model_may_be_excepted_from_the_star() {
        let but_gpt = backend(Dialect::OPENAI, &[("gpt-*", ""), ("*", "n")]);
        assert_eq!((but_gpt.sent_model("gpt-5"), but_gpt.sent_model("llama")), (None, Some("n".to_owned())));
        assert!(!but_gpt.serves("gpt-5") && but_gpt.any_model());
        assert_eq!(
            told(&but_gpt, "gpt-5", Operation::Chat).unwrap(),
            "does not serve it: it serves any model as n except gpt-*"
        );
    }

    #[test]
    fn a_star_stands_for_embedding_models_unless_it_is_said_not_to() {
        let mut paid = backend(Dialect::OPENAI, &[("text-embedding-*", "text-embedding-*"), ("*", "gpt-4.1-mini")]);
        assert_eq!(told(&paid, "bge-m3", Operation::Embedding), None);
        paid.capabilities.insert(EMBEDDINGS.to_owned(), false);
        assert!(told(&paid, "bge-m3", Operation::Embedding).unwrap().contains("only for models that it names"));
        assert_eq!(told(&paid, "text-embedding-3-small", Operation::Embedding), None);
        assert_eq!(told(&paid, "bge-m3", Operation::Chat), None);
    }

    #[test]
    fn an_operation_goes_to_the_dialect_that_has_it_and_an_unknown_one_to_whoever_is_there() {
        let of = |dialects: &[Dialect], operation| -> Vec<bool> {
            let table = Table::new(dialects.iter().map(|dialect| backend(*dialect, &[])).collect(), Vec::new());
            table.backends.iter().map(|b| Unsuited::of(&table, b, UNKNOWN_MODEL, operation, true).is_none()).collect()
        };
        let all = [Dialect::OPENAI, Dialect::ANTHROPIC, Dialect::PLAIN];
        let openais = [Operation::Audio, Operation::Image, Operation::Moderation, Operation::Rerank, Operation::Stored];
        for operation in openais {
            assert_eq!(of(&all, operation), [true, false, true], "{operation:?}");
            assert_eq!(of(&all[1..2], operation), [false], "{operation:?}");
        }
        for operation in [Operation::CountTokens, Operation::AnthropicOther] {
            assert_eq!(of(&all, operation), [false, true, true], "{operation:?}");
        }
        assert_eq!(of(&all, Operation::Plain), [false, false, true]);
        assert_eq!(of(&all, Operation::Other), [true, false, true]);
        assert_eq!(of(&all[1..2], Operation::Other), [true]);
    }
}
