//! Changes of backends' states, reported: to the log, and to those who watch `/api/events`.

use std::sync::Arc;

use pointsman_core::fleet::state_change::{Change, StateChange};
use pointsman_core::rfc3339::Rfc3339;

use crate::proxy::Proxy;

/// Characters of a model's name in a log line; names are the clients' to invent.
const MAX_MODEL_CHARS: usize = 120;

/// Reports every change. Runs until dropped.
pub(super) async fn run(proxy: Arc<Proxy>) {
    loop {
        proxy.fleet.changed().await;
        report_changes(&proxy);
    }
}

/// Reports what has changed since the last time.
pub(super) fn report_changes(proxy: &Proxy) {
    for change in proxy.fleet.with(|fleet, now| fleet.take_changes(now)) {
        let is_invented = change.model.as_deref().is_some_and(|sent| !is_configured(proxy, &change.backend, sent));
        report(&change, is_invented);
        proxy.events.backend(&change);
    }
}

/// Returns true if the configuration has this name for a model of a backend: as one that is sent.
fn is_configured(proxy: &Proxy, backend: &str, sent: &str) -> bool {
    let snapshot = proxy.snapshot();
    let backend = snapshot.view.table.backends.iter().find(|one| *one.id == *backend);
    backend.is_some_and(|backend| backend.routes.iter().any(|route| route.sent == sent))
}

/// `is_invented`: the name of its model stands in no configuration, so it is a client's.
fn report(change: &StateChange, is_invented: bool) {
    let StateChange { backend, model, operation, change, left_out, .. } = change;
    let backend = &**backend;
    let model = model.as_deref().map(shortened);
    let (model, operation) = (model.as_deref(), operation.as_deref());
    let until = change.cooldown().map(|(until, _)| Rfc3339(until).to_string());
    let (until, reason) = (until.as_deref(), change.cooldown().map(|(_, reason)| reason.as_str()));
    let left_out = (*left_out > 0).then_some(*left_out);
    let for_what = match (model, operation) {
        (Some(_), _) => " for this model",
        (None, Some(_)) => " for this operation",
        (None, None) => "",
    };
    match change {
        Change::Excluded { .. } if is_invented => {
            let help = "the provider does not have it; correct the name where the client has it";
            tracing::info!(backend, model, operation, reason, until, left_out, "backend excluded{for_what}: {help}");
        }
        Change::Excluded { .. } => {
            let help = help(change);
            tracing::warn!(backend, model, operation, reason, until, left_out, "backend excluded{for_what}: {help}");
        }
        Change::Cooling { failures, .. } => {
            tracing::warn!(
                backend,
                model,
                operation,
                reason,
                until,
                failures,
                left_out,
                "backend is cooling down{for_what}"
            );
        }
        Change::Back { after } => {
            let after_ms = after.as_millis() as u64;
            tracing::info!(backend, model, operation, after_ms, left_out, "backend is back in service{for_what}");
        }
        Change::Cleared => {
            tracing::info!(backend, left_out, "cooldowns of the backend were ended; the next attempt is a probe");
        }
        Change::Drained => {
            tracing::info!(backend, left_out, "backend drained: nothing new is sent to it until it is resumed")
        }
        Change::Resumed => tracing::info!(backend, left_out, "backend resumed"),
    }
}

/// Returns the advice for an exclusion.
fn help(change: &Change) -> &'static str {
    use pointsman_core::outcome::Kind;
    match change.cooldown().map(|(_, reason)| reason) {
        Some(Kind::Unauthorised) => "the provider refuses its key; check api_key",
        Some(Kind::OutOfCredit) => "its account has no credit left; top it up or remove the backend",
        Some(Kind::ModelMissing) => "the provider does not have it; check the name in [[backend]] models",
        Some(_) | None => "see reason",
    }
}

fn shortened(model: &str) -> String {
    match model.char_indices().nth(MAX_MODEL_CHARS) {
        Some((end, _)) => format!("{}…", &model[..end]),
        None => model.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invented_name_does_not_fill_the_log() {
        assert_eq!(shortened("gpt-5-mini"), "gpt-5-mini");
        assert_eq!(shortened(&"é".repeat(5_000)).chars().count(), MAX_MODEL_CHARS + 1);
    }
}
