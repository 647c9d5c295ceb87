//! The provider's side: connections, kept and made, and what can go wrong with them.

mod connect;
mod flood;
mod http1;
mod http2;
mod idle;
mod pool;
mod resolver;
mod send_error;
mod slots;
mod socks;
#[cfg(test)]
mod tests;

pub use connect::{BadOutbound, Connector, tls_config};
pub use idle::Lease;
pub use pool::{Answer, Origin, Reuse};
pub use send_error::SendError;
pub(crate) use send_error::causes;
