//! The words of a refusal.

use pointsman_core::dialect::envelope::ErrorKind;
use pointsman_core::exchange::Reason;

/// The kind of error of a refusal, its status, and a policy's own `type`.
pub(super) fn words_of(reason: &Reason) -> (ErrorKind, u16, Option<&str>) {
    let own_kind = match reason {
        Reason::Policy { kind, .. } if kind.is_empty() => Some("rejected_by_policy"),
        Reason::Policy { kind, .. } => Some(kind.as_str()),
        Reason::NoSuchModel
        | Reason::NoSuchOperation
        | Reason::ModelMissing
        | Reason::Untranslatable
        | Reason::Exhausted
        | Reason::Limits
        | Reason::KeysRefused
        | Reason::QueueFull
        | Reason::OutOfTime
        | Reason::NotRepeated
        | Reason::OwnShortage => None,
    };
    (reason.error_kind(), reason.status(), own_kind)
}
