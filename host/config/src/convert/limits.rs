//! Rates and concurrency of backends, of their models and of clients.

use std::collections::BTreeMap;

use pointsman_core::table::Limits;

use super::Check;
use crate::raw::RawModelLimits;
use crate::tree::Path;

impl Check<'_, '_> {
    pub(super) fn rate_limits(
        &mut self,
        at: &Path,
        rpm: Option<u32>,
        tpm: Option<u32>,
        concurrency: Option<u32>,
    ) -> Limits {
        Limits {
            rpm: self.limit(&at.key("rpm"), rpm),
            tpm: self.limit(&at.key("tpm"), tpm),
            max_concurrency: self.limit(&at.key("max_concurrency"), concurrency),
            ..Limits::default()
        }
    }

    pub(super) fn limit(&mut self, at: &Path, value: Option<u32>) -> Option<u32> {
        if value == Some(0) {
            let problem = self.error(at, format!("`{}` of 0 would let nothing through", at.name()));
            problem.help("leave the line out for no limit; to take a backend out, drain it or remove it");
        }
        value
    }

    /// `limits` of single models, by the name sent.
    pub(super) fn model_limits(
        &mut self,
        at: &Path,
        raw: &BTreeMap<String, RawModelLimits>,
        owner: &str,
    ) -> BTreeMap<String, Limits> {
        let mut all = BTreeMap::new();
        for (model, raw) in raw {
            let at = at.key(model);
            let limits = Limits {
                burst: self.burst(&at, raw.burst, raw.rpm, owner),
                rpd: self.limit(&at.key("rpd"), raw.rpd),
                tpd: self.limit(&at.key("tpd"), raw.tpd),
                ..self.rate_limits(&at, raw.rpm, raw.tpm, raw.max_concurrency)
            };
            if self.pattern(&at, model).is_some() {
                all.insert(model.clone(), limits);
            }
        }
        all
    }

    pub(super) fn burst(&mut self, at: &Path, burst: Option<u32>, rpm: Option<u32>, owner: &str) -> Option<u32> {
        let (pace, at, burst) = (at.key("rpm"), at.key("burst"), burst?);
        match rpm {
            _ if burst == 0 => {
                let problem = self.error(&at, "`burst` of 0 would let nothing through");
                problem.help("write 1 to space every request, or leave the line out to let all go at once");
            }
            None if !self.tree.refused(&pace) => {
                let problem = self.error(&at, format!("{owner} has a `burst` and no `rpm` to space the rest by"));
                problem.help("add rpm = ..., or leave `burst` out");
            }
            Some(rpm) if burst >= rpm => {
                self.warn(&at, format!("a `burst` of {burst} changes nothing: `rpm` allows {rpm} in 60 seconds"));
            }
            Some(_) | None => {}
        }
        Some(burst)
    }
}
