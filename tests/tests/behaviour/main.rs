//! What Pointsman does for its users, seen from outside: the built binary, real sockets, scripted providers.

mod admin;
mod bad_requests;
mod clients;
mod config;
mod demo;
mod dialects;
mod forwarding;
mod health_check;
mod limits;
mod policy;
mod pools;
mod refusals;
mod restart;
mod resume;
mod retries;
mod secrets;
mod streams;
mod time_limits;
mod usage;
