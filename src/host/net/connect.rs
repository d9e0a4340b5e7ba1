//! TCP to an instance, without a wait where there is nothing to wait for.

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

/// A connection for one question. On this host it stands as soon as it was asked for, and the
/// question goes out at once: whoever accepts the connection finds it there, and need not wake up a
/// second time.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// Nobody has waited for the first word that it can be written to.
    at_once: bool,
}

impl Connection {
    /// To the first address of `host` that takes it.
    ///
    /// # Errors
    /// The system's, of the last address.
    pub(crate) async fn to(host: &str, port: u16) -> io::Result<Self> {
        let mut said = Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("`{host}` has no address"),
        ));
        for address in lookup_host((host, port)).await? {
            said = Self::open(address).await;
            if said.is_ok() {
                break;
            }
        }
        said
    }

    async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::from_std(ask_for(address)?.into())?;
        if stream.peer_addr().is_ok() {
            return Ok(Self {
                stream,
                at_once: true,
            });
        }
        // Another host has to answer first, or nobody listens.
        stream.writable().await?;
        stream.take_error()?.map_or(
            Ok(Self {
                stream,
                at_once: false,
            }),
            Err,
        )
    }
}

/// Begins a connection; whether it stands shows later.
fn ask_for(address: SocketAddr) -> io::Result<OwnedFd> {
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
        if std::mem::take(&mut self.at_once) {
            match rustix::net::send(&self.stream, bytes, SendFlags::NOSIGNAL) {
                Err(Errno::AGAIN) => {}
                said => return Poll::Ready(Ok(said?)),
            }
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// It is closed as soon as it was answered, which says the same.
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
    async fn what_is_asked_is_there_before_the_connection_is_taken() {
        for host in ["127.0.0.1", "localhost"] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut connection = Connection::to(host, listener.local_addr().unwrap().port())
                .await
                .unwrap();
            assert!(connection.at_once);
            connection.write_all(b"question").await.unwrap();
            let (mut taken, _) = listener.accept().unwrap();
            let mut bytes = [0; 8];
            // Nothing is waited for: it is there.
            taken.set_nonblocking(true).unwrap();
            io::Read::read_exact(&mut taken, &mut bytes).unwrap();
            io::Write::write_all(&mut taken, &bytes).unwrap();
            drop(taken);
            let mut said = String::new();
            connection.read_to_string(&mut said).await.unwrap();
            assert_eq!(said, "question");
        }
    }

    #[tokio::test]
    async fn one_that_nobody_takes_says_so() {
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
    async fn more_than_the_kernel_takes_at_once_is_written_when_there_is_room() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = Connection::to("127.0.0.1", listener.local_addr().unwrap().port())
            .await
            .unwrap();
        let much = vec![7; 32 << 20];
        let reader = std::thread::spawn(move || {
            let (mut taken, _) = listener.accept().unwrap();
            let mut all = Vec::new();
            io::Read::read_to_end(&mut taken, &mut all).unwrap();
            all.len()
        });
        connection.write_all(&much).await.unwrap();
        drop(connection);
        assert_eq!(reader.join().unwrap(), much.len());
    }
}
