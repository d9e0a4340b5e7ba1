//! A stream that says no to a peer that never ends.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes that one read takes. A task has so many reads before it is another one's turn, so a
/// peer that always has more holds up nothing.
const PIECE: usize = 16 << 10;

/// Reads at most so many bytes of `S`, whatever they mean.
#[derive(Debug)]
pub(crate) struct Metered<S> {
    stream: S,
    limit: usize,
    left: usize,
}

impl<S> Metered<S> {
    pub(crate) fn new(stream: S, limit: usize) -> Self {
        Self {
            stream,
            limit,
            left: limit,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            let text = format!("it sends more than {} KiB", self.limit >> 10);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::FileTooLarge, text)));
        }
        let room = buffer.remaining().min(PIECE).min(self.left);
        let mut piece = ReadBuf::new(buffer.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut piece))?;
        let many = piece.filled().len();
        buffer.advance(many);
        self.left -= many;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
