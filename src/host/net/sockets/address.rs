//! The address of a listening socket, and what `listen` in `fleet.toml` says of it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use crate::{fleet::ListenAt, host::proc::argument::argument};

/// The address of a listening socket that can be probed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// As `listen` in `fleet.toml` names it.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            // It is a glob there.
            Self::Unix(path) => {
                let path = glob::Pattern::escape(&path.to_string_lossy());
                write!(f, "unix:{path}")
            }
        }
    }
}

impl Address {
    /// Tells whether `wanted` names this address, for a process with these arguments.
    pub(crate) fn fits(&self, wanted: &ListenAt, args: &[String]) -> bool {
        match (self, wanted) {
            (Self::Tcp(address), ListenAt::TcpPort(port)) => address.port() == *port,
            (Self::Tcp(address), ListenAt::Tcp(wanted)) => address == wanted,
            (Self::Unix(path), ListenAt::Unix(wanted)) => wanted.matches_path(path),
            (_, ListenAt::Arg(option)) => {
                argument(args, option).is_some_and(|value| self.is_named_by(value))
            }
            _ => false,
        }
    }

    /// Tells whether the value of an option names this address: `PORT`, `:PORT`, `HOST:PORT`, or
    /// the path of a socket. A host name is not resolved: only its port is compared.
    pub(super) fn is_named_by(&self, value: &str) -> bool {
        match self {
            Self::Unix(path) => path == Path::new(value.strip_prefix("unix:").unwrap_or(value)),
            Self::Tcp(address) => {
                let (host, port) = value.rsplit_once(':').unwrap_or(("", value));
                let ip = host
                    .trim_start_matches('[')
                    .trim_end_matches(']')
                    .parse::<IpAddr>();
                // A Go program that is given `0.0.0.0` listens on `::`.
                let fits = ip.map_or(true, |ip| {
                    ip == address.ip() || (ip.is_unspecified() && address.ip().is_unspecified())
                });
                fits && port.parse() == Ok(address.port())
            }
        }
    }
}

/// Returns the addresses without the IPv6 twin of an IPv4 address. A program that listens on all
/// addresses, or on loopback, often does so once per family. The two are one endpoint.
pub(super) fn without_twins(addresses: Vec<Address>) -> Vec<Address> {
    let ipv4_twin = |address: &SocketAddr| match address {
        SocketAddr::V6(six) if six.ip().is_unspecified() => {
            Some((Ipv4Addr::UNSPECIFIED, six.port()))
        }
        SocketAddr::V6(six) if six.ip().is_loopback() => Some((Ipv4Addr::LOCALHOST, six.port())),
        _ => None,
    };
    let has = |twin: (Ipv4Addr, u16)| addresses.contains(&Address::Tcp(twin.into()));
    let is_twin = |address: &Address| match address {
        Address::Tcp(address) => ipv4_twin(address).is_some_and(has),
        Address::Unix(_) => false,
    };
    addresses
        .iter()
        .filter(|address| !is_twin(address))
        .cloned()
        .collect()
}
