//! The JSON of the admin interface: one place where domain types become answers.

mod backends;
mod policy;
mod promotion;
mod server;
mod shadow;

pub(super) use backends::{BackendView, LaneView, backends, lanes};
pub(super) use policy::{PolicyView, RefusalView, RollbackView};
pub(super) use promotion::{PolicyEventView, PromotionView};
pub(super) use server::{ConfigView, ReadyView};
pub(super) use shadow::{ShadowReport, ShadowView};
