//! The model of a paid provider that stands in for those it does not have.

use std::collections::HashMap;

use pointsman_core::table::Pattern;

use super::Found;
use super::known::{PROVIDERS, Provider};
use crate::diagnostic::ConfigError;
use crate::overlay::Env;

/// Sets it for the provider that has the model. Each provider has a variable of its own besides: `OPENAI_FALLBACK_MODEL`.
const FALLBACK_MODEL: &str = "POINTSMAN_FALLBACK_MODEL";

/// Says that no model is to stand in for others.
const NONE: &str = "none";

impl Provider {
    /// The variable that names its own stand-in.
    fn fallback_variable(&self) -> String {
        format!("{}_FALLBACK_MODEL", self.prefix)
    }
}

/// The stand-in of each paid provider, by its id; empty where there is none. A variable that another one outdoes is remarked on.
pub(super) fn stand_ins(
    paid: &[&Found],
    env: &dyn Env,
    remarks: &mut Vec<String>,
) -> Result<HashMap<&'static str, String>, ConfigError> {
    let mut chosen: HashMap<&'static str, String> = HashMap::new();
    for one in paid {
        let own = env.var(&one.provider.fallback_variable());
        let model = own.unwrap_or_else(|| one.provider.cheap_model().to_owned());
        chosen.insert(one.provider.id, said(&model));
    }
    let Some(model) = env.var(FALLBACK_MODEL) else { return Ok(chosen) };
    let has_it = |one: &&&Found| {
        let matches = |name: &&str| Pattern::parse(name).is_some_and(|pattern| pattern.capture(&model).is_some());
        one.provider.models.iter().any(matches)
    };
    let takers: Vec<&Found> = match paid {
        [only] => vec![only],
        all if model.trim() == NONE => all.to_vec(),
        all => all.iter().filter(has_it).copied().collect(),
    };
    if takers.is_empty() && !paid.is_empty() {
        let names: Vec<String> = paid.iter().map(|one| one.provider.fallback_variable()).collect();
        let message =
            format!("{FALLBACK_MODEL} is {model:?}, and it is not known which of several paid providers has it");
        return Err(ConfigError::whole(message, format!("set it for the one you mean: {}", names.join(", "))));
    }
    let has_own = |one: &&Found| env.var(&one.provider.fallback_variable()).is_some();
    if !takers.is_empty() && takers.iter().all(has_own) {
        let own: Vec<String> = takers.iter().map(|one| one.provider.fallback_variable()).collect();
        remarks.push(format!("{FALLBACK_MODEL} is not used: {} comes before it", own.join(", ")));
    }
    // The provider's own variable is the more exact one.
    for one in takers.iter().filter(|one| !has_own(one)) {
        chosen.insert(one.provider.id, said(&model));
    }
    Ok(chosen)
}

/// The variables that name a stand-in for a provider that is no fallback here, and why it is none.
pub(super) fn unused(found: &[Found], paid: &[&Found], env: &dyn Env) -> Vec<String> {
    const NOTHING_FREE: &str =
        "no free provider's key is set, so the paid are primary and get each model as it is asked for";
    let mut remarks = Vec::new();
    for provider in &PROVIDERS {
        let variable = provider.fallback_variable();
        if env.var(&variable).is_none() || paid.iter().any(|one| one.provider.id == provider.id) {
            continue;
        }
        let why = if found.iter().all(|one| one.provider.id != provider.id) {
            format!("{} is not set", provider.variable())
        } else if provider.free {
            format!("{} is free, and so primary", provider.id)
        } else {
            NOTHING_FREE.to_owned()
        };
        remarks.push(format!("{variable} is not used: {why}"));
    }
    if env.var(FALLBACK_MODEL).is_some() && paid.is_empty() {
        let any_free = found.iter().any(|one| one.provider.free);
        let why = if any_free { "no paid provider's key is set" } else { NOTHING_FREE };
        remarks.push(format!("{FALLBACK_MODEL} is not used: {why}"));
    }
    remarks
}

fn said(model: &str) -> String {
    let model = model.trim();
    if model == NONE { String::new() } else { model.to_owned() }
}
