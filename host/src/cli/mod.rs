//! The commands of the `pointsman` binary.

pub mod config_cmd;
