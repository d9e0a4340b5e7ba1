//! The listening sockets of this host. One dump of the kernel's tables serves the whole fleet.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

pub(crate) use self::{
    address::Address,
    held::{SocketsError, sockets_of, sockets_of_family},
};
use self::{
    address::without_twins,
    diag::{each_tcp_listener, each_unix_listener},
    held::sockets_of_descendant,
};
use crate::{
    assertion::Source,
    fleet::{Group, ListenAt, Speaks},
    host::proc::tree::{ProcessTree, family},
    kernel::{descriptors, socket},
    refusal::Refusal,
};

mod address;
mod diag;
mod held;

/// The listening sockets of this network namespace, by inode.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    /// The address is `None` if its name is abstract or relative: the socket listens, and cannot be
    /// probed from here.
    sockets: HashMap<u64, Option<Address>>,
    /// The inodes by address: several sockets may share one (`SO_REUSEPORT`).
    tcp: HashMap<SocketAddr, Vec<u64>>,
    /// The number of sockets that listen on each port of any address.
    ports: HashMap<u16, usize>,
    /// True if this host has `::1`. A socket on all addresses is open to IPv6 even if the loopback
    /// interface has no IPv6 address.
    has_ipv6_loopback: bool,
    /// The children of every process, if all are known.
    tree: Option<ProcessTree>,
}

/// The addresses that a process and its descendants listen on.
struct Addresses {
    /// Each once, sorted.
    known: Vec<Address>,
    /// Why there may be others.
    unread: Option<SocketsError>,
}

/// Why the endpoint of a process is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndpointError {
    #[error(transparent)]
    Sockets(#[from] SocketsError),
    #[error("listens on no socket")]
    Nowhere,
    /// Its group has no `listen`.
    #[error("listens on {}", .0.join(", "))]
    Several(Vec<String>),
    /// Its group's `listen` does not choose one.
    #[error("listens on {}; its group's `listen` fits none or several of them", .0.join(", "))]
    NoneChosen(Vec<String>),
}

impl Listeners {
    /// Reads the kernel's tables (`sock_diag(7)`).
    ///
    /// # Errors
    /// Fails if the kernel does not answer.
    pub(crate) fn read() -> io::Result<Self> {
        let mut sockets = HashMap::new();
        each_tcp_listener(|inode, address| {
            sockets.insert(inode, Some(Address::Tcp(address)));
        })?;
        let mut files: HashMap<PathBuf, Vec<(u64, u32)>> = HashMap::new();
        each_unix_listener(|listener| {
            if let (Some(path), Some(file)) = (&listener.path, listener.file) {
                files
                    .entry(path.clone())
                    .or_default()
                    .push((listener.inode, file));
            }
            sockets.insert(listener.inode, listener.path.map(Address::Unix));
        })?;
        remove_lost_paths(&mut sockets, &files);
        let loopback = format!("{:032x} ", 1);
        let has_ipv6_loopback = std::fs::read_to_string("/proc/net/if_inet6")
            .is_ok_and(|table| table.lines().any(|line| line.starts_with(&loopback)));
        let mut tcp = HashMap::<SocketAddr, Vec<u64>>::new();
        let mut ports = HashMap::new();
        for (inode, address) in &sockets {
            if let Some(Address::Tcp(address)) = address {
                tcp.entry(*address).or_default().push(*inode);
                *ports.entry(address.port()).or_default() += 1;
            }
        }
        Ok(Self {
            sockets,
            tcp,
            ports,
            has_ipv6_loopback,
            tree: None,
        })
    }

    /// Adds the children of every process.
    pub(crate) fn with(self, tree: Option<ProcessTree>) -> Self {
        Self { tree, ..self }
    }

    /// Tells whether the socket of this inode listens.
    pub(crate) fn listens(&self, inode: u64) -> bool {
        self.sockets.contains_key(&inode)
    }

    /// Returns the address at which the socket of this inode can be probed.
    pub(crate) fn address(&self, inode: u64) -> Option<&Address> {
        self.sockets.get(&inode)?.as_ref()
    }

    /// Returns the TCP address that the socket of this inode listens on.
    pub(crate) fn tcp(&self, inode: u64) -> Option<SocketAddr> {
        match self.sockets.get(&inode)? {
            Some(Address::Tcp(address)) => Some(*address),
            _ => None,
        }
    }

    /// Tells whether several sockets listen on this port.
    pub(crate) fn is_crowded(&self, port: u16) -> bool {
        self.ports.get(&port).is_some_and(|sockets| *sockets > 1)
    }

    /// Returns the inode of every socket that listens on exactly this address.
    pub(crate) fn on(&self, address: SocketAddr) -> impl Iterator<Item = u64> {
        self.tcp.get(&address).into_iter().flatten().copied()
    }

    /// Tells whether any socket listens where a process with these arguments would.
    pub(crate) fn any(&self, wanted: &ListenAt, args: &[String]) -> bool {
        self.sockets
            .values()
            .flatten()
            .any(|address| address.fits(wanted, args))
    }

    /// Tells whether the process `pid` itself holds a socket that listens at `wanted`. Returns
    /// `None` if this user may not see its descriptors.
    pub(crate) fn holds_at(&self, pid: i32, wanted: &ListenAt, args: &[String]) -> Option<bool> {
        let fits = |inode| {
            self.address(inode)
                .is_some_and(|address| address.fits(wanted, args))
        };
        let mut is_held = false;
        let read = descriptors(pid, |_, target| {
            is_held |= target.ok().and_then(socket).is_some_and(fits)
        });
        match read {
            Ok(()) => Some(is_held),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Some(false),
            Err(_) => None,
        }
    }

    /// Returns the addresses that a process or a descendant of it listens on.
    ///
    /// # Errors
    /// Fails as [`sockets_of`] does, for the process itself.
    fn addresses(&self, pid: i32) -> Result<Addresses, SocketsError> {
        let own = sockets_of(pid)?;
        let family = match &self.tree {
            Some(tree) => Ok(tree.family(pid)),
            None => family(pid),
        };
        Ok(self.addresses_of(own, family, sockets_of_descendant))
    }

    /// Returns the addresses of the sockets `own`, and of those that `read` finds at each
    /// descendant in `family`.
    fn addresses_of(
        &self,
        own: Vec<u64>,
        family: io::Result<Vec<i32>>,
        read: impl Fn(i32) -> Result<Vec<u64>, SocketsError>,
    ) -> Addresses {
        let mut inodes = own;
        let mut unread = None;
        match family {
            Ok(family) => {
                for child in family.into_iter().skip(1) {
                    match read(child) {
                        Ok(held) => inodes.extend(held),
                        Err(why) => unread = Some(why),
                    }
                }
            }
            Err(e) => unread = Some(SocketsError::Children(e)),
        }
        let mut known: Vec<Address> = inodes
            .iter()
            .filter_map(|inode| self.sockets.get(inode)?.clone())
            .collect();
        known.sort();
        known.dedup();
        Addresses { known, unread }
    }

    /// Tells whether a process or a descendant of it listens on any address.
    ///
    /// # Errors
    /// Fails if none is known, and not every socket could be read.
    pub(crate) fn listens_anywhere(&self, pid: i32) -> Result<bool, SocketsError> {
        self.addresses(pid)?.has(|_| true)
    }

    /// Returns the addresses that a process or a descendant of it listens on, as `listen` names
    /// them.
    ///
    /// # Errors
    /// Fails as [`sockets_of`] does, for the process itself.
    pub(crate) fn names(&self, pid: i32) -> Result<Vec<String>, SocketsError> {
        let addresses = without_twins(self.addresses(pid)?.known);
        Ok(addresses.iter().map(Address::to_string).collect())
    }

    /// Returns the endpoint of a process with these arguments. The first entry of the group's
    /// `listen` that fits exactly one of its addresses decides.
    ///
    /// # Errors
    /// Fails if it listens on no address, or on several of which none is chosen, or if not every
    /// socket could be read and none is chosen.
    pub(crate) fn endpoint(
        &self,
        pid: i32,
        args: &[String],
        group: &Group,
    ) -> Result<String, Refusal<EndpointError>> {
        let Addresses { known, unread } = self.addresses(pid).map_err(EndpointError::Sockets)?;
        self.chosen(without_twins(known), unread, args, group)
    }

    /// Returns the URL of the address that the group chooses of `addresses`. `unread` is why there
    /// may be others.
    fn chosen(
        &self,
        addresses: Vec<Address>,
        unread: Option<SocketsError>,
        args: &[String],
        group: &Group,
    ) -> Result<String, Refusal<EndpointError>> {
        let chosen = group.listen.iter().find_map(|wanted| {
            let mut fitting = addresses
                .iter()
                .filter(|address| address.fits(wanted, args));
            fitting.next().filter(|_| fitting.next().is_none())
        });
        let url = |address: &Address| self.url(address, scheme(group));
        // The address that is meant may be one that could not be read.
        if let (None, [] | [_], Some(why)) = (chosen, addresses.as_slice(), unread) {
            let hint = format!("{}, or set `listen` in its group", why.hint());
            return Err(Refusal::from(EndpointError::Sockets(why)).with_hint(hint));
        }
        match (chosen, addresses.as_slice()) {
            (Some(address), _) | (None, [address]) => Ok(url(address)),
            (None, []) => Err(EndpointError::Nowhere.into()),
            (None, several) => {
                let urls: Vec<String> = several.iter().map(url).collect();
                let why = if group.listen.is_empty() {
                    EndpointError::Several(urls)
                } else {
                    EndpointError::NoneChosen(urls)
                };
                let hint = "say which with `listen = \"tcp:PORT\"` in its group";
                Err(Refusal::from(why).with_hint(hint))
            }
        }
    }

    /// Returns the names in the group's `listen`, if the process is known to listen on none of
    /// them.
    pub(crate) fn missing(&self, pid: i32, args: &[String], group: &Group) -> Option<String> {
        let fits_any =
            |address: &Address| group.listen.iter().any(|wanted| address.fits(wanted, args));
        let fits = self.addresses(pid).ok()?.has(fits_any);
        if group.listen.is_empty() || fits.unwrap_or(true) {
            return None;
        }
        let names: Vec<String> = group
            .listen
            .iter()
            .map(|wanted| format!("`{wanted}`"))
            .collect();
        Some(names.join(", "))
    }

    /// Tells whether the process is known to listen on no address, or on none that its group's
    /// `listen` names.
    pub(crate) fn is_deaf(&self, pid: i32, args: &[String], group: &Group) -> bool {
        self.listens_anywhere(pid)
            .is_ok_and(|listens| !listens || self.missing(pid, args, group).is_some())
    }

    /// Tells whether a process or a descendant of it listens at `endpoint`.
    ///
    /// # Errors
    /// Fails if it is not known to, and not every socket could be read.
    pub(crate) fn holds(
        &self,
        pid: i32,
        endpoint: &str,
        group: &Group,
    ) -> Result<bool, SocketsError> {
        self.addresses(pid)?
            .has(|address| self.url(address, scheme(group)) == endpoint)
    }

    /// Returns the URL at which an address is probed. A socket on all addresses is probed on
    /// loopback.
    fn url(&self, address: &Address, scheme: &str) -> String {
        match address {
            Address::Unix(path) => format!("unix:{}", path.display()),
            Address::Tcp(address) => {
                let mut address = *address;
                if address.ip().is_unspecified() {
                    address.set_ip(if address.is_ipv4() || !self.has_ipv6_loopback {
                        Ipv4Addr::LOCALHOST.into()
                    } else {
                        Ipv6Addr::LOCALHOST.into()
                    });
                }
                format!("{scheme}://{address}/")
            }
        }
    }
}

impl Addresses {
    /// Tells whether `fits` holds for one of them.
    ///
    /// # Errors
    /// Fails if it holds for none that is known, and there may be others.
    fn has(self, fits: impl Fn(&Address) -> bool) -> Result<bool, SocketsError> {
        let has = self.known.iter().any(fits);
        match self.unread {
            Some(why) if !has => Err(why),
            _ => Ok(has),
        }
    }
}

/// Removes the path of each socket that has lost it. Of several sockets that were bound to one
/// path, all but the last have lost it: no connection reaches them. `files` are the sockets of each
/// path, with the low 32 bits of the inode of their file.
fn remove_lost_paths(
    sockets: &mut HashMap<u64, Option<Address>>,
    files: &HashMap<PathBuf, Vec<(u64, u32)>>,
) {
    for (path, bound) in files.iter().filter(|(_, bound)| bound.len() > 1) {
        let Ok(now) = std::fs::metadata(path) else {
            continue;
        };
        let is_reached = |file: u32| u64::from(file) == now.ino() & u64::from(u32::MAX);
        if !bound.iter().any(|(_, file)| is_reached(*file)) {
            continue;
        }
        for (inode, _) in bound.iter().filter(|(_, file)| !is_reached(*file)) {
            sockets.insert(*inode, None);
        }
    }
}

/// Returns the scheme of the endpoint, as far as the group's assertions show it.
fn scheme(group: &Group) -> &'static str {
    let mut schemes = group
        .confirm
        .iter()
        .chain(&group.reject)
        .filter_map(|assertion| match &assertion.source {
            Source::Http(request) if assertion.source.uses_listen() => {
                Some(if request.is_https() { "https" } else { "http" })
            }
            _ => None,
        });
    if group.speaks == Speaks::Hello {
        "http"
    } else {
        schemes.next().unwrap_or("tcp")
    }
}

#[cfg(test)]
mod tests;
