//! The proxy.

pub mod policy;
