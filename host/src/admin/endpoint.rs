//! An endpoint of the admin listener as data.

use axum::routing::MethodRouter;
use schemars::{Schema, SchemaGenerator};

use super::AdminState;

/// One method of one path.
pub(super) struct Endpoint {
    pub method: &'static str,
    /// As the router has it, `{name}` for a variable segment.
    pub path: &'static str,
    /// Summary in a line, for the document's list.
    pub summary: &'static str,
    /// Details beyond the summary.
    pub details: &'static str,
    pub parameters: &'static [Parameter],
    /// Content of its body; `None`: it takes none.
    pub body: Option<&'static str>,
    pub answer: Content,
    /// Statuses besides 200 and those that every path may answer with, and what each means.
    pub errors: &'static [(u16, &'static str)],
    /// True if it is answered without the token.
    pub is_open: bool,
    pub handler: fn() -> MethodRouter<AdminState>,
}

/// A parameter of a path.
pub(super) struct Parameter {
    pub name: &'static str,
    /// In the path, or in the query.
    pub is_in_path: bool,
    pub what: &'static str,
    pub kind: Kind,
    pub default: Option<&'static str>,
    /// A value that is taken.
    pub example: &'static str,
}

/// The values of a parameter.
pub(super) enum Kind {
    Text,
    Number {
        min: u32,
        max: u32,
    },
    OneOf(&'static [&'static str]),
    /// Text that may be given any number of times.
    Many,
}

/// Content of a 200 response.
pub(super) enum Content {
    Json(fn(&mut SchemaGenerator) -> Schema),
    /// A body of this media type.
    Other(&'static str),
}

const JSON: &str = "application/json";

impl Content {
    pub(super) fn media_type(&self) -> &'static str {
        match self {
            Content::Json(_) => JSON,
            Content::Other(media_type) => media_type,
        }
    }
}
