//! Common parts of the commands that read the journal: its location, the period, and progress.

use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use pointsman_config::{self as config, Env, PolicySettings};
use pointsman_core::rfc3339::{self, Rfc3339};
use pointsman_core::time::Timestamp;

/// Arguments that say where the journal is.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct JournalArgs {
    /// The configuration whose store has the journal [default: ./pointsman.toml where it exists].
    #[arg(long, short, env = "POINTSMAN_CONFIG", value_name = "FILE", conflicts_with = "store")]
    pub config: Option<PathBuf>,
    /// The store that has the journal; the proxy may be running.
    #[arg(long, value_name = "FILE")]
    pub store: Option<PathBuf>,
}

impl JournalArgs {
    /// The store's file: the one named, else that of the configuration, whose secrets need not be there.
    ///
    /// # Errors
    /// It does not exist, or the configuration cannot be read or keeps its store in memory.
    pub(super) fn file(&self, env: &dyn Env) -> Result<PathBuf, String> {
        let file = match &self.store {
            Some(file) => file.clone(),
            None => config::store_path(self.config.as_deref(), env).map_err(|error| error.to_string())?.ok_or_else(
                || {
                    "the store is \":memory:\", which only its own process can read: ask that one (GET /api/exchanges/ID on \
                     its admin listener), or set [store] path to a file"
                        .to_owned()
                },
            )?,
        };
        if file.exists() {
            return Ok(file);
        }
        Err(format!(
            "there is no store {}: name the configuration of the proxy with --config FILE, or its store with --store FILE",
            file.display()
        ))
    }

    /// The settings of the configuration; none where a store is named instead of a configuration.
    ///
    /// # Errors
    /// The configuration cannot be read.
    pub(super) fn policy_settings(&self, env: &dyn Env) -> Result<PolicySettings, String> {
        if self.store.is_some() {
            return Ok(PolicySettings::default());
        }
        config::policy_settings(self.config.as_deref(), env).map_err(|error| error.to_string())
    }
}

/// A time of the journal: exchanges that ended in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period {
    /// Its begin.
    pub since: Timestamp,
    /// End of the period; exchanges that ended then are not included.
    pub until: Timestamp,
}

impl Period {
    /// Reads `--since` and `--until`, each a time or how long it is ago; where one is not given, it is as in `default`.
    ///
    /// # Errors
    /// One is not understood, or nothing is between them.
    pub(super) fn parse(
        since: Option<&str>,
        until: Option<&str>,
        now: Timestamp,
        default: Period,
    ) -> Result<Self, String> {
        let time = |name: &str, text: Option<&str>, default| match text {
            None => Ok(default),
            Some(text) => rfc3339::parse_or_ago(text, now)
                .ok_or_else(|| format!("--{name}: `{text}` {}", rfc3339::NOT_UNDERSTOOD)),
        };
        let period = Self { since: time("since", since, default.since)?, until: time("until", until, default.until)? };
        if period.since < period.until {
            return Ok(period);
        }
        let (since, until) = (Rfc3339(period.since), Rfc3339(period.until));
        Err(format!("--since must be before --until, but they say {since} and {until}"))
    }
}

/// Shows somebody who looks how far a command is: on standard error, and only where that is a terminal.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Exchanges between two looks at the clock.
    const TELL_EVERY: u64 = 64;

    /// Shows that `what` is done for some of `all`; 0: their number is not known yet.
    pub(super) fn of(what: &'static str, all: u64) -> Self {
        let style = ProgressStyle::with_template("{msg} {bar:40} {human_pos} of {human_len}, {eta} left");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(ProgressBar::new(all).with_style(style).with_message(what))
    }

    /// Shows the number of exchanges that are done.
    pub(super) fn is_at(&self, done: u64) {
        self.0.set_position(done);
    }

    /// One of very many is done.
    pub(super) fn passes(&self, done: u64, all: u64) {
        if done.is_multiple_of(Self::TELL_EVERY) {
            self.0.set_length(all);
            self.0.set_position(done);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Period = Period { since: Timestamp::from_millis(0), until: Timestamp::from_millis(9_000_000) };

    fn period(since: Option<&str>, until: Option<&str>) -> Result<Period, String> {
        Period::parse(since, until, Timestamp::from_millis(10_000_000), ALL)
    }

    #[test]
    fn a_period_is_what_was_given_and_else_the_default() {
        assert_eq!(period(None, None), Ok(ALL));
        assert_eq!(
            period(Some("1000s"), None).unwrap_err(),
            "--since must be before --until, but they say 1970-01-01T02:30:00.000Z and 1970-01-01T02:30:00.000Z"
        );
        let some = period(Some("7000s"), Some("4000s")).unwrap();
        assert_eq!((some.since, some.until), (Timestamp::from_millis(3_000_000), Timestamp::from_millis(6_000_000)));
        assert!(period(Some("soon"), None).unwrap_err().starts_with("--since: `soon` "));
        assert!(period(None, Some("soon")).unwrap_err().starts_with("--until: `soon` "));
    }

    #[test]
    fn the_store_is_the_one_named_or_that_of_a_configuration_without_its_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let args = |config: Option<&str>, store: Option<&str>| JournalArgs {
            config: config.map(path),
            store: store.map(path),
        };
        std::fs::write(path("a.db"), "").unwrap();
        std::fs::write(path("b.db"), "").unwrap();
        std::fs::write(path("p.toml"), "[store]\npath = \"b.db\"\n[admin]\ntoken = \"env:NOT_SET\"\n").unwrap();
        std::fs::write(path("memory.toml"), "[store]\npath = \":memory:\"\n").unwrap();
        assert_eq!(args(None, Some("a.db")).file(&[]), Ok(path("a.db")));
        assert_eq!(args(Some("p.toml"), None).file(&[]), Ok(path("b.db")));
        for (args, words) in [
            (args(None, Some("c.db")), "there is no store "),
            (args(Some("memory.toml"), None), "only its own process can read"),
            (args(Some("none.toml"), None), "cannot read "),
        ] {
            let why = args.file(&[]).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }
}
