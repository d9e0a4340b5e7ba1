//! The first line that a server sends on a new connection, such as that of SMTP, FTP or IMAP.

use std::{io, time::Duration};

use tokio::{
    io::AsyncReadExt,
    net::{TcpStream, UnixStream},
    time::timeout,
};

/// The most bytes of a first line that are read. A line of SMTP has at most 512 (RFC 5321).
const MAX_LINE: usize = 1024;

/// Why a server sent no line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TcpError {
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("the connection was lost: {0}")]
    Lost(io::Error),
    #[error("it sent nothing within {0:?}")]
    NoLine(Duration),
    #[error("it closed the connection and sent nothing")]
    Closed,
}

/// Connects to `HOST:PORT` or `unix:PATH`, and returns the first line that is sent there, without
/// its end. A longer line is cut after [`MAX_LINE`] bytes; without a line end, what was sent by the
/// end of the connection is the line.
///
/// # Errors
/// Fails if there is no connection, or if nothing is sent within `limit`.
pub(super) async fn first_line(address: &str, limit: Duration) -> Result<String, TcpError> {
    let read = async {
        if let Some(path) = address.strip_prefix("unix:") {
            let stream = UnixStream::connect(path).await.map_err(TcpError::Connect)?;
            line_of(stream).await
        } else {
            let stream = TcpStream::connect(address)
                .await
                .map_err(TcpError::Connect)?;
            line_of(stream).await
        }
    };
    timeout(limit, read)
        .await
        .unwrap_or(Err(TcpError::NoLine(limit)))
}

async fn line_of(mut stream: impl tokio::io::AsyncRead + Unpin) -> Result<String, TcpError> {
    let mut line = Vec::new();
    let mut bytes = [0; MAX_LINE];
    while !line.contains(&b'\n') && line.len() < MAX_LINE {
        let most = MAX_LINE - line.len();
        match stream.read(&mut bytes[..most]).await {
            Ok(0) if line.is_empty() => return Err(TcpError::Closed),
            Ok(0) => break,
            Ok(read) => line.extend_from_slice(&bytes[..read]),
            Err(e) => return Err(TcpError::Lost(e)),
        }
    }
    let end = line.iter().position(|byte| *byte == b'\n');
    let line = &line[..end.unwrap_or(line.len())];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Ok(String::from_utf8_lossy(line).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::{io::Write, net::TcpListener};

    use super::*;

    async fn line(sent: &'static [&'static [u8]]) -> Result<String, TcpError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for part in sent {
                stream.write_all(part).unwrap();
            }
        });
        let read = first_line(&address, Duration::from_secs(30)).await;
        server.join().unwrap();
        read
    }

    #[tokio::test]
    async fn the_first_line_is_read_without_its_end() {
        let greeting: &[&[u8]] = &[b"220 mail.", b"example ESMTP\r\n250 more\r\n"];
        assert_eq!(line(greeting).await.unwrap(), "220 mail.example ESMTP");
        assert_eq!(line(&[b"SSH-2.0-x"]).await.unwrap(), "SSH-2.0-x");
    }

    #[tokio::test]
    async fn a_long_line_is_cut_and_a_closed_connection_is_no_line() {
        const LONG: &[u8] = &[b'x'; MAX_LINE];
        assert_eq!(line(&[LONG]).await.unwrap().len(), MAX_LINE);
        assert!(matches!(line(&[]).await, Err(TcpError::Closed)));
    }

    #[tokio::test]
    async fn a_server_that_sends_nothing_is_not_waited_for_without_an_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let read = first_line(&address, Duration::from_millis(50)).await;
        assert!(matches!(read, Err(TcpError::NoLine(_))), "{read:?}");
    }
}
