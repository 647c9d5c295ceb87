//! Checks of single values, and problems at the place of one.

use std::path::PathBuf;
use std::time::Duration;

use super::Check;
use crate::diagnostic::Diagnostic;
use crate::tree::Path;

/// The longest duration that is believed: 100 days.
const MAX_MS: u64 = 100 * 24 * 3_600_000;

impl Check<'_, '_> {
    /// A duration; `least` and at most [`MAX_MS`].
    pub(super) fn millis(&mut self, at: &Path, value: Option<u64>, default: u64, least: u64) -> Duration {
        let ms = self.at_least(at, value, default, least);
        if ms > MAX_MS {
            self.error(at, format!("`{}` is longer than 100 days", at.name())).help("durations are in milliseconds");
        }
        Duration::from_millis(ms.min(MAX_MS))
    }

    pub(super) fn at_least<N: Copy + Ord + std::fmt::Display>(
        &mut self,
        at: &Path,
        value: Option<N>,
        default: N,
        least: N,
    ) -> N {
        let value = value.unwrap_or(default);
        if value < least {
            let problem = self.error(at, format!("`{}` must be at least {least}", at.name()));
            problem.label(format!("this is {value}"));
        }
        value
    }

    pub(super) fn fraction(&mut self, at: &Path, value: Option<f64>, default: f64) -> f64 {
        let value = value.unwrap_or(default);
        if !(0.0..=1.0).contains(&value) {
            let problem = self.error(at, format!("`{}` is a share and must be between 0 and 1", at.name()));
            problem.help("write 0.1 for a tenth");
        }
        value
    }

    /// A problem at `at`, or at the deepest part of it that the file has.
    pub(super) fn error(&mut self, at: &Path, message: impl Into<String>) -> &mut Diagnostic {
        self.report.error(Some(self.tree.nearest(at)), message)
    }

    pub(super) fn warn(&mut self, at: &Path, message: impl Into<String>) -> &mut Diagnostic {
        self.report.warn(Some(self.tree.nearest(at)), message)
    }

    /// Two elements of a list claim the same name: both are pointed to.
    pub(super) fn duplicate(&mut self, first: &Path, second: &Path, message: String) {
        let first = self.report.place(self.tree.nearest(first));
        self.error(second, message).label("again here").related = Some((first, "first here".to_owned()));
    }

    /// A required key that is not there; silent when it was there and is already complained of.
    pub(super) fn missing(&mut self, owner: &Path, key: &str, message: String, help: &str) {
        if !self.tree.refused(&owner.key(key)) {
            self.error(owner, message).help(help);
        }
    }

    pub(super) fn file(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }
}
