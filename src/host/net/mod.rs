//! Listening sockets, and requests to them.

pub(crate) mod body;
mod causes;
pub(crate) mod connect;
pub(crate) mod credentials;
pub(crate) mod error;
pub(crate) mod http;
pub(crate) mod metered;
pub(crate) mod sockets;
pub(crate) mod tls;
