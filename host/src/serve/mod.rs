//! What listens.

pub mod admin;
