//! What Pointsman does for its users, seen from outside: the built binary, real sockets, scripted providers.

mod admin;
mod author;
mod bad_requests;
mod clients;
mod config;
mod demo;
mod dialects;
mod forwarding;
mod health_check;
mod hostile;
mod limits;
mod policy;
mod pools;
mod promotion;
mod refusals;
mod restart;
mod resume;
mod retries;
mod rollback;
mod scenario;
mod secrets;
mod shadow;
mod streams;
mod swapping;
mod time_limits;
mod usage;
