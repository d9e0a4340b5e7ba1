//! Where the server tells what it serves.

/// Who sees the proof headers and `/-/*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Peers on loopback or a Unix socket.
    Loopback,
    /// Everybody.
    Any,
}
