//! Refusals of policies and configurations, each reported to the operator once.

use super::component::Hash;
use super::machine::Lifecycle;
use super::refusals::{Refusal, Requested};
use crate::time::Timestamp;

impl Lifecycle {
    /// The policy refused last, or the fallback from the one that failed too often.
    pub fn policy_refusal(&self) -> Option<&Refusal> {
        self.refusals.policy.as_ref().map(|(_, refusal)| refusal)
    }

    /// The refusal of the configuration file's content.
    pub fn config_refusal(&self) -> Option<&Refusal> {
        self.refusals.config.as_ref()
    }

    /// A policy is refused; `source` names the configured one. Returns the refusal where it is to be reported: an error about
    /// the source is reported once, because a file is looked at more often than it changes.
    pub fn refuse_policy(
        &mut self,
        now: Timestamp,
        requested: Requested,
        source: &str,
        error: String,
    ) -> Option<&Refusal> {
        let refusals = &mut self.refusals;
        if requested == Requested::Source && refusals.source_error.replace(error.clone()).as_ref() == Some(&error) {
            return None;
        }
        let source = match requested {
            Requested::Source => source,
            Requested::Upload => "upload",
            Requested::Rollback => "rollback",
        };
        let refusal = Refusal { at: now, source: source.to_owned(), error };
        Some(&refusals.policy.insert((requested, refusal)).1)
    }

    /// The source's content is refused; the same content is not judged again under the same configuration.
    pub fn refuse_content(&mut self, hash: Hash, why: &str) {
        self.refusals.refuse_content(hash, why);
    }

    /// The configuration file is refused. Returns the refusal where it is to be reported: the same reason is reported once.
    pub fn refuse_config(&mut self, now: Timestamp, file: String, error: String) -> Option<&Refusal> {
        let known = &mut self.refusals.config;
        if known.as_ref().is_some_and(|refusal| refusal.error == error) {
            return None;
        }
        Some(known.insert(Refusal { at: now, source: file, error }))
    }

    /// The configuration file holds what is in force. True where it had been refused.
    pub fn config_is_good(&mut self) -> bool {
        self.refusals.warnings.clear();
        self.refusals.config.take().is_some()
    }

    /// Warnings about a changed configuration file. Returns true where they are to be logged: a file that stays refused is read
    /// again and again.
    pub fn are_new_warnings(&mut self, warnings: &[String]) -> bool {
        let is_new = self.refusals.warnings != warnings;
        self.refusals.warnings = warnings.to_vec();
        is_new && !warnings.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Timestamp {
        Timestamp::from_millis(s * 1_000)
    }

    #[test]
    fn a_refused_file_is_reported_once_and_an_upload_every_time() {
        let mut lifecycle = Lifecycle::default();
        let mut refuse = |requested, error: &str| {
            lifecycle.refuse_policy(at(1), requested, "the policy p.wasm", error.to_owned()).map(|r| r.source.clone())
        };
        assert_eq!(refuse(Requested::Source, "bad").as_deref(), Some("the policy p.wasm"));
        assert_eq!(refuse(Requested::Source, "bad"), None);
        assert_eq!(refuse(Requested::Upload, "bad").as_deref(), Some("upload"));
        assert_eq!(refuse(Requested::Upload, "bad").as_deref(), Some("upload"));
        assert_eq!(refuse(Requested::Source, "worse").as_deref(), Some("the policy p.wasm"));
    }

    #[test]
    fn a_configuration_that_stays_refused_repeats_neither_its_error_nor_its_warnings() {
        let mut lifecycle = Lifecycle::default();
        let warnings = ["unknown key".to_owned()];
        assert!(lifecycle.are_new_warnings(&warnings));
        assert!(lifecycle.refuse_config(at(1), "p.toml".to_owned(), "bad".to_owned()).is_some());
        assert!(!lifecycle.are_new_warnings(&warnings));
        assert!(lifecycle.refuse_config(at(2), "p.toml".to_owned(), "bad".to_owned()).is_none());
        assert_eq!(lifecycle.config_refusal().unwrap().at, at(1));
        assert!(lifecycle.config_is_good());
        assert!(lifecycle.are_new_warnings(&warnings), "a later change is told of again");
    }
}
