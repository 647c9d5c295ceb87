//! `[store]`, `[journal]` and `[log]`: what is written down, and for how long.

use super::{Check, MEMORY, store_path};
use crate::checked::{Journal, KeptBodies, Log, LogFormat, Store};
use crate::defaults;
use crate::log_level;
use crate::raw::{RawJournal, RawLog, RawLogFormat, RawStore};
use crate::tree::Path;

/// The most of one body that is kept, in KiB.
const MAX_BODY_KB: u32 = 4_096;

impl Check<'_, '_> {
    pub(super) fn store(&mut self, raw: &RawStore, journal_max_mb: u32) -> Store {
        let at = Path::of("store");
        if raw.path.as_deref() == Some("") {
            self.error(&at.key("path"), "the store needs a file").help("write a path, or \":memory:\"");
        }
        let max_mb = defaults::store_max_mb(journal_max_mb, raw.path.as_deref() == Some(MEMORY));
        Store {
            path: store_path(raw.path.as_deref(), self.folder),
            retention_days: self.at_least(
                &at.key("retention_days"),
                raw.retention_days,
                defaults::STORE_RETENTION_DAYS,
                1,
            ),
            max_mb: self.at_least(&at.key("max_mb"), raw.max_mb, max_mb, 1),
            backlog: self.at_least(&at.key("backlog"), raw.backlog, defaults::STORE_BACKLOG, 1),
            backlog_mb: self.at_least(&at.key("backlog_mb"), raw.backlog_mb, defaults::STORE_BACKLOG_MB, 1),
        }
    }

    pub(super) fn journal(&mut self, raw: &RawJournal, in_memory: bool) -> Journal {
        let at = Path::of("journal");
        let max_mb = if in_memory { defaults::JOURNAL_MAX_MB_IN_MEMORY } else { defaults::JOURNAL_MAX_MB };
        Journal {
            sample: self.fraction(&at.key("sample"), raw.sample, defaults::JOURNAL_SAMPLE),
            retention_days: self.at_least(
                &at.key("retention_days"),
                raw.retention_days,
                defaults::JOURNAL_RETENTION_DAYS,
                1,
            ),
            max_mb: self.at_least(&at.key("max_mb"), raw.max_mb, max_mb, 1),
            backlog_mb: self.at_least(&at.key("backlog_mb"), raw.backlog_mb, defaults::JOURNAL_BACKLOG_MB, 1),
            bodies: self.bodies(&at, raw),
        }
    }

    fn bodies(&mut self, at: &Path, raw: &RawJournal) -> Option<KeptBodies> {
        let max_body_kb = self.at_least(&at.key("max_body_kb"), raw.max_body_kb, defaults::JOURNAL_BODY_KB, 1);
        if max_body_kb > MAX_BODY_KB {
            self.error(&at.key("max_body_kb"), format!("`max_body_kb` must be at most {MAX_BODY_KB}"));
        }
        let list = at.key("redact");
        let mut redact = Vec::new();
        for (i, pattern) in raw.redact.iter().enumerate() {
            match regex::Regex::new(pattern) {
                Ok(pattern) => redact.push(pattern),
                Err(error) => {
                    let told = error.to_string();
                    let last = told.lines().last().unwrap_or_default().trim().trim_start_matches("error: ");
                    let problem = self.error(&list.index(i), format!("this is no regular expression: {last}"));
                    problem.help(
                        "in single quotes a backslash stays one, as in '\\d{16}'; \\( stands for a bracket itself",
                    );
                }
            }
        }
        raw.bodies.unwrap_or(false).then(|| KeptBodies { max_body_kb, redact: redact.into() })
    }

    pub(super) fn log(&mut self, raw: RawLog) -> Log {
        let level = raw.level.unwrap_or_else(|| defaults::LOG_LEVEL.to_owned());
        if let Some(fault) = log_level::fault(&level) {
            self.error(&Path::of("log").key("level"), fault).help(log_level::HELP);
        }
        Log {
            level,
            format: match raw.format {
                None | Some(RawLogFormat::Auto) => LogFormat::Auto,
                Some(RawLogFormat::Pretty) => LogFormat::Pretty,
                Some(RawLogFormat::Json) => LogFormat::Json,
            },
            exchanges: raw.exchanges.unwrap_or(true),
        }
    }
}
