//! A template for the paths of a backend, where the model's name stands in them.

use thiserror::Error;

use super::query::encoded;

/// A path with places for the model and for the path of the operation: `/deployments/{model}/{path}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Model,
    Path,
}

/// The operator's fault: not a template.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadTemplate {
    /// A place of another name, or a brace that is not closed.
    #[error("has `{{{0}}}`, which stands for nothing; the places are {{model}} and {{path}}")]
    Place(String),
    /// No place for the operation's path.
    #[error("has no {{path}}, the place of the operation's path")]
    NoPath,
    /// Dot segments, a query, or signs that cannot stand in a path.
    #[error("is not a path")]
    NoPathText,
}

impl PathTemplate {
    /// Reads a template. `{operation}` is another name of `{path}`.
    ///
    /// # Errors
    /// [`BadTemplate`].
    pub fn parse(text: &str) -> Result<Self, BadTemplate> {
        let mut pieces = Vec::new();
        let mut rest = text.trim();
        while let Some((before, behind)) = rest.split_once('{') {
            pieces.push(Piece::Text(before.to_owned()));
            let Some((name, behind)) = behind.split_once('}') else {
                return Err(BadTemplate::Place(behind.to_owned()));
            };
            pieces.push(match name {
                "model" => Piece::Model,
                "path" | "operation" => Piece::Path,
                _ => return Err(BadTemplate::Place(name.to_owned())),
            });
            rest = behind;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        if !pieces.contains(&Piece::Path) {
            return Err(BadTemplate::NoPath);
        }
        let fits = |piece: &Piece| match piece {
            Piece::Text(text) => encoded(text, "/:@!$&'()*+,;=%") == *text,
            Piece::Model | Piece::Path => true,
        };
        if pieces.iter().all(fits) { Ok(Self { pieces }) } else { Err(BadTemplate::NoPathText) }
    }

    /// Returns true if it is of Azure's deployments.
    pub fn is_of_deployments(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Text(text) if text.contains("/deployments/")))
    }

    /// The path of an operation for this model. The model's name is encoded, but for signs that may stand in a path.
    pub fn expand(&self, model: &str, own: &str) -> String {
        let mut path = String::from("/");
        let mut add = |text: &str| {
            // A slash at either side of a place is one.
            let text = if path.ends_with('/') { text.trim_start_matches('/') } else { text };
            path.push_str(text);
        };
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => add(text),
                Piece::Model => add(&encoded(model, "/:@")),
                Piece::Path => add(own),
            }
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_and_the_operation_stand_in_their_places() {
        for (template, path) in [
            ("/deployments/{model}/{path}", "/deployments/gpt-4o/chat/completions"),
            ("deployments/{model}{path}", "/deployments/gpt-4o/chat/completions"),
            ("/{operation}", "/chat/completions"),
            ("/models/{model}/v1/{path}", "/models/gpt-4o/v1/chat/completions"),
        ] {
            assert_eq!(PathTemplate::parse(template).unwrap().expand("gpt-4o", "/chat/completions"), path);
        }
        let template = PathTemplate::parse("/run/{model}/{path}").unwrap();
        assert_eq!(template.expand("@cf/meta/llama?x#y", "/chat"), "/run/@cf/meta/llama%3Fx%23y/chat");
    }

    #[test]
    fn what_is_no_template_is_refused_by_name() {
        for (template, why) in [
            ("/{deployment}/{path}", BadTemplate::Place("deployment".to_owned())),
            ("/{path", BadTemplate::Place("path".to_owned())),
            ("/deployments/{model}", BadTemplate::NoPath),
            ("", BadTemplate::NoPath),
            ("/x?api-version=1&{path}", BadTemplate::NoPathText),
            ("/a b/{path}", BadTemplate::NoPathText),
        ] {
            assert_eq!(PathTemplate::parse(template), Err(why), "{template}");
        }
    }
}
