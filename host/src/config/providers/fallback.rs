//! The model of a paid provider that stands in for those it does not have.

use std::collections::HashMap;

use pointsman_core::table::Pattern;

use super::Found;
use crate::config::diagnostic::ConfigError;
use crate::config::overlay::Env;

/// Sets it for the provider that has the model. Each provider has a variable of its own besides: `OPENAI_FALLBACK_MODEL`.
const FALLBACK_MODEL: &str = "POINTSMAN_FALLBACK_MODEL";

/// Says that no model is to stand in for others.
const NONE: &str = "none";

/// The stand-in of each paid provider, by its id; empty where there is none.
pub(super) fn stand_ins(paid: &[&Found], env: &dyn Env) -> Result<HashMap<&'static str, String>, ConfigError> {
    let mut chosen: HashMap<&'static str, String> = HashMap::new();
    for one in paid {
        let own = env.var(&format!("{}_FALLBACK_MODEL", one.provider.prefix));
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
        let names: Vec<String> = paid.iter().map(|one| format!("{}_FALLBACK_MODEL", one.provider.prefix)).collect();
        let message =
            format!("{FALLBACK_MODEL} is {model:?}, and it is not known which of several paid providers has it");
        return Err(ConfigError::whole(message, format!("set it for the one you mean: {}", names.join(", "))));
    }
    for one in takers {
        // The provider's own variable is the more exact one.
        if env.var(&format!("{}_FALLBACK_MODEL", one.provider.prefix)).is_none() {
            chosen.insert(one.provider.id, said(&model));
        }
    }
    Ok(chosen)
}

fn said(model: &str) -> String {
    let model = model.trim();
    if model == NONE { String::new() } else { model.to_owned() }
}
