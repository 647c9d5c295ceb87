//! The report on an imported LiteLLM file, as comments: each line names the entry it is about.

use std::fmt;

/// Place of an entry in the file.
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

/// Lines of the report.
#[derive(Default)]
pub(super) struct ImportReport {
    pub(super) lines: Vec<String>,
}

impl ImportReport {
    /// Adds a line about an entry.
    pub(super) fn of(&mut self, origin: &Origin, what: impl fmt::Display) {
        self.lines.push(format!("{origin}: {what}"));
    }

    /// Adds a line about a setting beside the list.
    pub(super) fn setting(&mut self, name: &str, what: impl fmt::Display) {
        self.lines.push(format!("{name}: {what}"));
    }
}
