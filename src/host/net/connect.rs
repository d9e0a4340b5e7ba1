//! A TCP connection to an instance, without a wait that is not needed.

use std::{
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    pin::Pin,
    task::{Context, Poll},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SendFlags, SocketFlags, SocketType, socket_with},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
};

/// A connection for one request. On this host the kernel establishes it within `connect`, and the
/// request is sent at once. A server that accepts the connection finds the request there, and need
/// not wake up a second time.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// True if the first write goes to the socket without a wait until it is writable.
    writes_at_once: bool,
}

impl Connection {
    /// Connects to the first address of `host` that accepts.
    ///
    /// # Errors
    /// Fails with the error of the last address.
    pub(crate) async fn to(host: &str, port: u16) -> io::Result<Self> {
        let mut result = Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("`{host}` has no address"),
        ));
        for address in lookup_host((host, port)).await? {
            result = Self::open(address).await;
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Tells whether the peer is on this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        let peer = self.stream.peer_addr();
        peer.is_ok_and(|peer| peer.ip().to_canonical().is_loopback())
    }

    async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::from_std(begin_connect(address)?.into())?;
        if stream.peer_addr().is_ok() {
            return Ok(Self {
                stream,
                writes_at_once: true,
            });
        }
        // Another host must answer first, or nothing listens.
        stream.writable().await?;
        stream.take_error()?.map_or(
            Ok(Self {
                stream,
                writes_at_once: false,
            }),
            Err,
        )
    }
}

/// Begins a connection without a wait until it is established.
fn begin_connect(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(e) => Err(e.into()),
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if std::mem::take(&mut self.writes_at_once) {
            match rustix::net::send(&self.stream, bytes, SendFlags::NOSIGNAL) {
                Err(Errno::AGAIN) => {}
                result => return Poll::Ready(Ok(result?)),
            }
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Does nothing: the connection is closed as soon as it was answered, which tells the peer the
    /// same.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::net::TcpListener;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_request_is_there_before_the_connection_is_accepted() {
        for host in ["127.0.0.1", "localhost"] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut connection = Connection::to(host, listener.local_addr().unwrap().port())
                .await
                .unwrap();
            assert!(connection.writes_at_once);
            connection.write_all(b"question").await.unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            let mut bytes = [0; 8];
            // The read does not block: the request is there.
            accepted.set_nonblocking(true).unwrap();
            io::Read::read_exact(&mut accepted, &mut bytes).unwrap();
            io::Write::write_all(&mut accepted, &bytes).unwrap();
            drop(accepted);
            let mut answer = String::new();
            connection.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "question");
        }
    }

    #[tokio::test]
    async fn a_connection_that_nothing_accepts_is_refused() {
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        assert_eq!(
            Connection::to("127.0.0.1", port).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        assert!(Connection::to("no.such.host.invalid", port).await.is_err());
    }

    #[tokio::test]
    async fn a_request_larger_than_the_socket_buffer_is_written_when_there_is_room() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = Connection::to("127.0.0.1", listener.local_addr().unwrap().port())
            .await
            .unwrap();
        let bytes = vec![7; 32 << 20];
        let reader = std::thread::spawn(move || {
            let (mut accepted, _) = listener.accept().unwrap();
            let mut received = Vec::new();
            io::Read::read_to_end(&mut accepted, &mut received).unwrap();
            received.len()
        });
        connection.write_all(&bytes).await.unwrap();
        drop(connection);
        assert_eq!(reader.join().unwrap(), bytes.len());
    }
}
