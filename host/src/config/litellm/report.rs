//! What became of a LiteLLM file, in comments: every line says which entry it is about.

use std::fmt;

/// Where an entry stands.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) index: usize,
    /// From 1; 0: not known.
    pub(super) line: u64,
    pub(super) model_name: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        write!(f, "model_list[{}] (model_name {:?})", self.index, self.model_name)
    }
}

/// Collects the lines.
#[derive(Default)]
pub(super) struct Report {
    pub(super) lines: Vec<String>,
}

impl Report {
    /// Of an entry.
    pub(super) fn of(&mut self, origin: &Origin, what: impl fmt::Display) {
        self.lines.push(format!("{origin}: {what}"));
    }

    /// Of a setting beside the list.
    pub(super) fn setting(&mut self, name: &str, what: impl fmt::Display) {
        self.lines.push(format!("{name}: {what}"));
    }
}
