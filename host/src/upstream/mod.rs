//! The provider's side: connections, kept and made, and what can go wrong with them.

mod connect;
mod flood;
mod pool;
mod slots;
mod socks;

pub use connect::{BadOutbound, Connector, tls_config};
pub(crate) use pool::causes;
pub use pool::{Answer, Lease, Origin, Reuse, SendError};
