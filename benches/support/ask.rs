//! One request over a plain socket.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// For one answer.
const LIMIT: Duration = Duration::from_secs(10);
/// A longer head is no server's of ours.
const HEAD: usize = 4096;
const DIGEST: &str = "x-config-sha256: ";

/// The digest of the config that answers, on a fresh connection.
pub(crate) fn digest(address: SocketAddr) -> io::Result<String> {
    let mut stream = connect(address)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let (mut buffer, mut filled) = ([0; HEAD], 0);
    loop {
        let n = stream.read(&mut buffer[filled..])?;
        filled += n;
        let head = String::from_utf8_lossy(&buffer[..filled]);
        if let Some((_, rest)) = head.split_once(DIGEST)
            && let Some(digest) = rest.get(..64)
        {
            return Ok(digest.to_owned());
        }
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Does `what` for each of `all`, on as many threads as there are cores.
pub(crate) fn each<T: Sync>(all: &[T], what: impl Fn(&T) + Sync) {
    std::thread::scope(|scope| {
        for part in all.chunks(all.len().div_ceil(super::cores()).max(1)) {
            scope.spawn(|| part.iter().for_each(&what));
        }
    });
}
