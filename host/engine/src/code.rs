//! A component's compiled code.

use std::sync::Arc;

use super::guest::Guest;
use super::lines::LineTable;
use super::wire::bindings::PolicyPre;

/// A compiled component, linked and ready to be instantiated.
pub(crate) struct Code {
    pub(crate) pre: PolicyPre<Guest>,
    /// The name of its revisions.
    pub(crate) id: Arc<str>,
    /// The name in the component, where it has one.
    pub(crate) name: Option<String>,
    /// The lines of its sources, where the component carries them.
    pub(crate) lines: Option<Arc<LineTable>>,
}
