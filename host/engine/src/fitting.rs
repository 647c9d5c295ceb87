//! Fits settings to a component: fills a pool with the settings offered, or with those of them that the component takes.

use std::sync::Arc;

use pointsman_core::table::Table;

use super::background::yield_now;
use super::check::LoadError;
use super::pool::{Pool, Source};
use super::settings::{AcceptedSettings, SettingsOffer};
use super::wire::TableParts;

/// A pool with instances that took the settings, or those of them that are for this component.
///
/// # Errors
/// The component does not start, or refuses the settings or the table.
pub(crate) fn filled_pool(
    source: &Source,
    offer: &SettingsOffer,
    table: &Table,
) -> Result<(Arc<Pool>, AcceptedSettings), LoadError> {
    let whole = offer.whole();
    let pool = source.pool(&whole.json, TableParts::new(table));
    yield_now();
    let Err(refusal) = pool.fill() else { return Ok((pool, whole)) };
    // In a `state` of its own: a trial leaves no trace.
    let trial = source.isolated();
    let accepted = offer.fit(refusal, |settings| {
        yield_now();
        trial.pool(settings, TableParts::new(table)).start_once()
    })?;
    let pool = source.pool(&accepted.json, TableParts::new(table));
    pool.fill()?;
    Ok((pool, accepted))
}
